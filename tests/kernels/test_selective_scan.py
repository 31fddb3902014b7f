"""Mamba's selective state space by Triton against the update as it stands in the paper, position by position in float64."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from archdsl.kernels.bindings import choose
from archdsl.kernels.gated import SelectiveScan
from archdsl.ops.registry import OPS
from archdsl.ops.registry import load as load_ops
from tests.kernels.held import CARD, DEVICE, alike, close, gpu, interpreted, poisoned, pulled

load_ops()
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.01}


def operands(lead: tuple[int, ...], T: int, D: int, S: int, dtype: torch.dtype, softplus: bool, memory: bool) -> dict[str, Any]:
    g = torch.Generator().manual_seed(T)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=g).to(DEVICE, dtype)

    dt = normal(*lead, T, D)
    return {"x": normal(*lead, T, D, dtype=dtype), "dt": 4 * dt if softplus else 3 * dt.abs(), "a": -3 * normal(D, S).abs(),
            "b": normal(*lead, T, S, dtype=dtype), "c": normal(*lead, T, S, dtype=dtype), "skip": normal(D) if softplus else None,
            "memory": normal(*lead, D, S) if memory else None}


def stepped(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, *, softplus: bool) -> tuple[torch.Tensor, torch.Tensor]:
    dt, ys = torch.nn.functional.softplus(dt) if softplus else dt, []
    for t in range(x.shape[-2]):
        now = dt[..., t, :, None]
        memory = torch.exp(now * a) * memory + now * x[..., t, :, None] * b[..., t, None, :]
        ys.append((memory * c[..., t, None, :]).sum(-1))
    y = torch.stack(ys, -2)
    return y if skip is None else y + skip * x, memory


def held(given: dict[str, Any], softplus: bool, tolerance: float) -> None:
    """Results, the last memory and all gradients."""
    wide: Any = [None if v is None else v.double() for v in given.values()]
    if wide[6] is None:
        wide[6] = wide[0].new_zeros(*wide[0].shape[:-2], *wide[2].shape)
    found = SelectiveScan.forward(*given.values(), dt_softplus=softplus)
    near = close if given["x"].dtype == torch.float32 else alike
    near(found, stepped(*wide, softplus=softplus), tolerance, "y memory")
    g = torch.Generator().manual_seed(1)
    grads = [torch.randn(v.shape, generator=g).to(v.device, v.dtype) for v in found]
    expected = pulled(lambda *values: stepped(*values, softplus=softplus), wide, [v.double() for v in grads])
    near(SelectiveScan.gradient(*grads, *given.values(), dt_softplus=softplus), expected, tolerance, " ".join(given))


@interpreted
@pytest.mark.parametrize(("lead", "T", "D", "S", "softplus", "memory"), [
    ((2,), 1, 5, 3, True, True), ((1, 2), 17, 3, 4, False, False), ((), 40, 2, 1, True, True)])
def test_float32(lead, T, D, S, softplus, memory, monkeypatch):
    poisoned(monkeypatch)
    held(operands(lead, T, D, S, torch.float32, softplus, memory), softplus, TOLERANCE[torch.float32])


@interpreted
def test_bfloat16_with_strides():
    given = operands((2,), 5, 6, 3, torch.bfloat16, True, True)
    given["x"], given["dt"] = (given[n].mT.contiguous().mT for n in ("x", "dt"))
    held(given, True, TOLERANCE[torch.bfloat16])


@interpreted
def test_inside_the_op_and_what_does_not_fit():
    given = operands((2,), 3, 4, 2, torch.float32, True, True)
    op = OPS["selective_scan_extend"]
    close(op.body(*given.values(), kernel="triton", dt_softplus=True), op.body(*given.values(), kernel="reference", dt_softplus=True), 1e-5)
    from archdsl.graph import TensorType

    types = {n: TensorType("f32", tuple(v.shape)) for n, v in operands((2,), 3, 4, 300, torch.float32, True, True).items()}
    found = choose("selective_scan", "cuda", "f32", types, {}, installed=False)
    assert found.reasons["triton"] == "a has 300 numbers a channel, and 256 are the most"


@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("lead", "T", "D", "S"), [
    ((2,), 1, 60, 16), ((3,), 63, 60, 5), ((2, 2), 300, 256, 16), ((1,), 100, 2050, 16), ((2,), 40, 8, 128)])
def test_on_a_card(dtype, lead, T, D, S, monkeypatch):
    poisoned(monkeypatch)
    for more in (False, True):
        held(operands(lead, T, D, S, dtype, more, more), more, {torch.float32: 1e-4, torch.bfloat16: 0.01}[dtype])


def launches() -> Iterator[tuple[str, Any]]:
    """Every configuration, for `tests/kernels/offline.py`."""
    for dtype in (torch.bfloat16, torch.float32):
        for N, T, D, S in ((8, 2048, 2048, 16), (2, 63, 60, 5), (1, 512, 64, 128)):
            for more in (False, True):
                def run(N: int = N, T: int = T, D: int = D, S: int = S, more: bool = more, dtype: torch.dtype = dtype) -> None:
                    given = {n: None if v is None else v.to("meta") for n, v in operands((N,), T, D, S, dtype, more, more).items()}
                    SelectiveScan.forward(*given.values(), dt_softplus=more)
                    SelectiveScan.gradient(given["x"], given["memory"], *given.values(), dt_softplus=more)

                yield f"selective_scan {dtype} {N} {T} {D} {S}", run
