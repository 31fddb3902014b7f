"""Short causal convolution by Triton against shifted sums in float64."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from archdsl.kernels.bindings import choose
from archdsl.kernels.gated import CausalConv
from archdsl.ops.registry import OPS
from archdsl.ops.registry import load as load_ops
from tests.kernels.held import CARD, DEVICE, close, gpu, interpreted, poisoned, pulled, strided

load_ops()
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 0.03, torch.float16: 5e-3}


def operands(lead: tuple[int, ...], T: int, c: int, taps: int, dtype: torch.dtype, bias: bool, tail: bool) -> dict[str, Any]:
    g = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g).to(DEVICE, dtype)

    return {"x": normal(*lead, T, c), "weight": normal(c, taps), "bias": normal(c) if bias else None,
            "tail": normal(*lead, taps - 1, c) if tail else None}


def shifted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    long, T = torch.cat([tail, x], -2), x.shape[-2]
    y = sum((long[..., j:j + T, :] * weight[:, j] for j in range(weight.shape[-1])), torch.zeros_like(x))
    return y if bias is None else y + bias, long[..., T:, :]


def held(given: dict[str, Any], tolerance: float) -> None:
    """Results, the new tail and all gradients; the last may be of nothing."""
    wide: Any = [None if v is None else v.double() for v in given.values()]
    x, weight = wide[0], wide[1]
    if wide[3] is None:
        wide[3] = x.new_zeros(*x.shape[:-2], weight.shape[-1] - 1, x.shape[-1])
    found = CausalConv.forward(*given.values())
    close(found, shifted(*wide), tolerance, "y tail")
    g = torch.Generator().manual_seed(1)
    dy, dlater = (torch.randn(v.shape, generator=g).to(v.device, v.dtype) for v in found)
    for later in (dlater, None):
        expected = pulled(shifted, wide, [dy.double(), torch.zeros_like(dlater).double() if later is None else later.double()])
        got = CausalConv.gradient(dy, later, *given.values())
        assert (got[3] is None) == (given["tail"] is None)
        count = 3 if given["tail"] is None else 4
        close(got[:count], expected[:count], tolerance, "x weight bias tail")


@interpreted
@pytest.mark.parametrize(("lead", "T", "c", "taps", "bias", "tail"), [
    ((2,), 1, 5, 4, True, True), ((1, 2), 2, 3, 4, False, False), ((), 67, 20, 4, True, False), ((2,), 70, 9, 3, False, True),
    ((1,), 5, 2, 1, True, True), ((3,), 33, 40, 7, True, True)])
def test_float32(lead, T, c, taps, bias, tail, monkeypatch):
    poisoned(monkeypatch)
    held(operands(lead, T, c, taps, torch.float32, bias, tail), TOLERANCE[torch.float32])


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_with_strides(dtype):
    given = operands((2,), 19, 33, 4, dtype, True, True)
    given["weight"] = strided(given["weight"])
    given["x"] = given["x"].mT.contiguous().mT
    held(given, TOLERANCE[dtype])


def one_position(lead: tuple[int, ...], c: int, taps: int, dtype: torch.dtype) -> None:
    given = operands(lead, 1, c, taps, dtype, taps == 4, True)
    wide: Any = [None if v is None else v.double() for v in given.values()]
    close(CausalConv.step(*given.values()), shifted(*wide), TOLERANCE[dtype])


@interpreted
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_step(taps, monkeypatch):
    poisoned(monkeypatch)
    one_position((2, 3), 21, taps, torch.float32)


@interpreted
def test_inside_the_op_and_what_does_not_fit():
    given = operands((2,), 6, 5, 4, torch.float32, True, True)
    op = OPS["causal_conv_extend"]
    close(op.body(*given.values(), kernel="triton"), op.body(*given.values(), kernel="reference"), 2e-6)
    types = {n: None if v is None else op_type(v) for n, v in operands((2,), 6, 5, 33, torch.float32, False, True).items()}
    assert choose("causal_conv", "cuda", "f32", types, {}, installed=False).reasons["triton"] == "it has 33 taps, and 32 are the most"


def op_type(x: torch.Tensor) -> Any:
    from archdsl.graph import TensorType

    return TensorType("f32", tuple(x.shape))


@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("lead", "T", "c", "taps"), [
    ((2,), 1, 60, 4), ((3,), 63, 60, 4), ((2, 2), 1000, 1024, 4), ((2,), 300, 2050, 3), ((1,), 70, 8, 32)])
def test_on_a_card(dtype, lead, T, c, taps, monkeypatch):
    poisoned(monkeypatch)
    for tail in (False, True):
        held(operands(lead, T, c, taps, dtype, True, tail), {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype])
    one_position(lead, c, taps, dtype)


def launches() -> Iterator[tuple[str, Any]]:
    """Every configuration, for `tests/kernels/offline.py`."""
    for dtype in (torch.bfloat16, torch.float32):
        for N, T, c, taps, more in ((8, 2048, 2048, 4, False), (8, 2048, 1024, 4, True), (2, 63, 60, 3, True), (1, 512, 64, 32, True)):
            def run(N: int = N, T: int = T, c: int = c, taps: int = taps, more: bool = more, dtype: torch.dtype = dtype) -> None:
                def empty(*shape: int) -> torch.Tensor:
                    return torch.empty(*shape, dtype=dtype, device="meta")

                x, weight, bias, tail = empty(N, T, c), empty(c, taps), empty(c) if more else None, empty(N, taps - 1, c)
                CausalConv.forward(x, weight, bias, tail if more else None)
                CausalConv.gradient(x, tail if more else None, x, weight, bias, tail if more else None)
                CausalConv.step(x[:, :1], weight, bias, tail)

            yield f"causal_conv {dtype} {N} {T} {c} {taps}", run
