"""Rotary positions: heads that lie anywhere, and what a model's text is joined to."""
from __future__ import annotations

from functools import partial

import pytest
import torch

import archdsl
from archdsl.ops.pointwise import rotary
from tests.kernels.held import alike, close, gpu, interpreted, poisoned

SHAPES = [(1, 1, 1, 2), (2, 3, 65, 6), (2, 5, 4), (2, 2, 1, 3, 10)]


def launches():
    from archdsl.kernels.rotary import turned

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for width in (6, 64, 128, 256):
            for t in (1, 2048):
                x, table = torch.empty(2, t, 4, width, dtype=dtype, device="meta").transpose(1, 2), torch.empty(t, width, dtype=dtype, device="meta")
                for back in (False, True):
                    yield f"rotary {width} {dtype} back {back}", partial(turned, x, table, table, back)


def held(shape: tuple[int, ...], dtype: torch.dtype, device: str, within: float) -> None:
    """Heads behind positions in memory, as a model has them; gradients of the tables too."""
    check = close if dtype == torch.float32 else alike
    from archdsl.kernels.rotary import gradient, turned

    g = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(*shape[:-3], shape[-2], shape[-3], shape[-1], generator=g).to(device, dtype).transpose(-2, -3) for _ in range(2))
    tables = [torch.randn(shape[-2:], generator=g).to(device, dtype) for _ in range(2)]
    wide = [t.double().requires_grad_() for t in (x, *tables)]
    expected = rotary.body(*wide)
    expected = expected, *torch.autograd.grad(expected, wide, dy.double())
    cos, sin = tables
    check((turned(x, cos, sin), *gradient(dy, x, cos, sin, [True, True, True])), expected, within)
    assert gradient(dy, x, cos, sin, [True, False, False])[1:] == (None, None)


@interpreted
@pytest.mark.parametrize("shape", SHAPES)
def test_rotary(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    held(shape, torch.float32, "cpu", 1e-5)


@interpreted
def test_a_model_with_rotary_positions():
    spec = archdsl.load("llama")
    mine, plain = (spec.build("tiny", kernels=k) for k in ({"rotary": "triton"}, "reference"))
    assert mine.layers[0].attn.code.count("archdsl.rotary") == 2 and "cat" not in mine.layers[0].attn.code
    tokens = torch.randint(0, 512, (2, 5))
    for model in (mine, plain):
        model(tokens).square().mean().backward()
    close([p.grad for p in mine.parameters()], [p.grad for p in plain.parameters()], 1e-4)


@interpreted
@pytest.mark.parametrize("tables", [False, True])
def test_heads_are_kept_for_gradients_of_tables_alone(tables: bool):
    from archdsl.kernels.opaque import called

    x = torch.randn(2, 3, 7, 8, requires_grad=True)
    cos, sin = (torch.randn(7, 8, requires_grad=tables) for _ in range(2))
    kept: dict[int, int] = {}

    def keep(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = called("rotary", "triton")(x, cos, sin)
    assert sum(kept.values()) == 4 * (2 * 56 + (336 if tables else 1))
    wanted = [x, cos, sin] if tables else [x]
    dy = torch.randn_like(y)
    close(torch.autograd.grad(y, wanted, dy), torch.autograd.grad(rotary.body(x, cos, sin), wanted, dy), 1e-5)


@gpu
@pytest.mark.parametrize("shape", [*SHAPES, (2, 16, 2048, 128), (3, 5, 257, 96)])
def test_on_a_card(shape: tuple[int, ...]):
    held(shape, torch.float32, "cuda", 1e-4)
    held(shape, torch.bfloat16, "cuda", 1e-2)
