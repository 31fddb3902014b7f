"""Weighted sums of rows of a table."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.ops.experts import embedding_bag
from tests.kernels.held import alike, close, gpu, interpreted, poisoned, strided

SHAPES = [((1, 1), 1, 1), ((2, 3, 4), 7, 5), ((5, 2), 40, 130)]


def launches():
    from archdsl.kernels import bags

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for block in (16, 1024):
            table, whole = torch.empty(64, 1000, dtype=dtype, device="meta"), torch.empty(8, 4, dtype=torch.int64, device="meta")
            for name, given in (("_gather", (whole, table, table, table, 64, 4, 1000, 1000)),
                                     ("_to_scale", (table, whole, table, table, 64, 4, 1000, 1000, 1000)),
                                     ("_to_weight", (table, whole, whole, table, table, 4, 1000, 1000))):
                run: Any = getattr(bags, name)
                yield f"embedding_bag {name} {dtype}", lambda run=run, given=given, block=block: run[(1,)](*given, BLOCK=block, num_warps=4)


def held(shape: tuple[int, ...], rows: int, width: int, dtype: torch.dtype, device: str, within: float) -> None:
    """Some rows are named often, some never; the table has gaps."""
    check = close if dtype == torch.float32 else alike
    from archdsl.kernels.bags import forward, gradient

    g = torch.Generator().manual_seed(0)
    index = torch.randint(0, max(1, rows // 2), shape, generator=g).to(device)
    weight, scale, dy = (torch.randn(s, generator=g).to(device, dtype) for s in ((rows, width), shape, (*shape[:-1], width)))
    wide = [t.double().requires_grad_() for t in (weight, scale)]
    assert embedding_bag.reference is not None
    expected = embedding_bag.reference(index, *wide)
    grads = torch.autograd.grad(expected, wide, dy.double())
    check((forward(index, strided(weight), scale), *gradient(dy, index, weight, scale, [False, True, True])), (expected, None, *grads), within)
    assert gradient(dy, index, weight, scale, [False, False, False]) == (None, None, None)
    index.view(-1)[0] = rows
    assert forward(index, weight, scale).isnan().view(-1, width).all(-1).tolist() == [True] + [False] * (index.numel() // shape[-1] - 1)


@interpreted
@pytest.mark.parametrize(("shape", "rows", "width"), SHAPES)
def test_bags(shape: tuple[int, ...], rows: int, width: int, monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    held(shape, rows, width, torch.float32, "cpu", 1e-5)


@interpreted
def test_a_model_with_tables():
    text = "use std.tables { MemoryLayer }\n\nmodel Net(d: int = 6)(x: [B, d]) -> [B, 5] {\n  return MemoryLayer(5, bits = 3)(x) as layer\n}\n"
    mine, plain = (archdsl.loads(text).build(kernels=k) for k in ({"embedding_bag": "triton"}, "reference"))
    assert "archdsl.embedding_bag" in mine.layer.code + mine.code
    x = torch.randn(3, 6)
    for model in (mine, plain):
        model(x).square().mean().backward()
    close([p.grad for p in mine.parameters()], [p.grad for p in plain.parameters()], 1e-5)


@gpu
@pytest.mark.parametrize(("shape", "rows", "width"), [*SHAPES, ((1000, 64), 16384, 512), ((77, 8), 2048, 1500)])
def test_on_a_card(shape: tuple[int, ...], rows: int, width: int):
    held(shape, rows, width, torch.float32, "cuda", 1e-4)
    held(shape, rows, width, torch.bfloat16, "cuda", 1e-2)
