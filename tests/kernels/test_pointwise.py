"""silu(gate) · up."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.kernels.held import alike, close, gpu, interpreted, poisoned, strided

SHAPES = [(1, 1), (5, 60), (3, 2, 129)]


def launches():
    from archdsl.kernels.pointwise import swiglu, swiglu_gradient

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for width in (60, 2816):
            x = torch.empty(64, width, dtype=dtype, device="meta")
            yield f"swiglu {width} {dtype}", lambda x=x: swiglu(x, x)
            yield f"swiglu backward {width} {dtype}", lambda x=x: swiglu_gradient(x, x, x)


def held(shape: tuple[int, ...], dtype: torch.dtype, device: str, within: float) -> None:
    check = close if dtype == torch.float32 else alike
    from archdsl.kernels.pointwise import swiglu, swiglu_gradient

    g = torch.Generator().manual_seed(0)
    gate, up, dy = (3 * torch.randn(shape, generator=g).to(device, dtype) for _ in range(3))
    a, b = (t.double().requires_grad_() for t in (gate, up))
    expected = F.silu(a) * b
    expected = expected, *torch.autograd.grad(expected, (a, b), dy.double())
    for g, d in ((gate, dy), (strided(gate, -2), strided(dy))):
        check((swiglu(g, up), *swiglu_gradient(d, g, up)), expected, within)


@interpreted
@pytest.mark.parametrize("shape", SHAPES)
def test_swiglu(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    held(shape, torch.float32, "cpu", 1e-5)


@gpu
@pytest.mark.parametrize("shape", [*SHAPES, (4099, 2816), (517, 8192)])
def test_on_a_card(shape: tuple[int, ...]):
    held(shape, torch.float32, "cuda", 1e-5)
    held(shape, torch.bfloat16, "cuda", 1e-2)
