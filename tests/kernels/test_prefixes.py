"""Attention as a prefix scan."""
from __future__ import annotations

import pytest
import torch

from archdsl.ops.memories import prefix_attention
from tests.kernels.held import alike, close, gpu, interpreted, poisoned, strided

SHAPES = [(1, 1, 1), (2, 65, 5), (2, 2, 130, 20)]


def launches():
    from archdsl.kernels.prefixes import forward, gradient

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for width in (5, 64, 256):
            s, v = torch.empty(4, 100, dtype=dtype, device="meta"), torch.empty(4, 100, width, dtype=dtype, device="meta")
            yield f"prefix_attention {width} {dtype}", lambda s=s, v=v: forward(s, v)
            yield f"prefix_attention backward {width} {dtype}", lambda s=s, v=v: gradient(v, s, v)
            long = torch.empty(4, 9000, dtype=dtype, device="meta"), torch.empty(4, 9000, width, dtype=dtype, device="meta")
            yield f"prefix_attention backward {width} {dtype}, long", lambda long=long: gradient(long[1], *long)


def held(shape: tuple[int, ...], dtype: torch.dtype, device: str, within: float, spread: float) -> None:
    """Scores that differ by `spread`, some of them -∞, from the first on."""
    check = close if dtype == torch.float32 else alike
    from archdsl.kernels.rows import PrefixAttention as kernel

    g = torch.Generator().manual_seed(0)
    v, dy = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(2))
    scores = (spread * torch.randn(shape[:-1], generator=g)).to(device, dtype)
    if shape[-2] > 2:
        scores[..., [0, 2, shape[-2] // 2]] = float("-inf")
    wide = [scores.double().requires_grad_(), v.double().requires_grad_()]
    expected = prefix_attention.body(*wide, *prefix_attention.zeros(wide))
    grads = torch.autograd.grad(expected[0], wide, dy.double(), retain_graph=True)
    found = kernel.forward(strided(scores), v, None, None, None)
    check(found, expected, within, "y peak denominator numerator")
    check(kernel.gradient(dy, None, None, None, scores, strided(v, -2), None, None, None)[:2], [g.nan_to_num() for g in grads], within, "scores v")


@interpreted
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of what is masked behind it
@pytest.mark.parametrize("segments", [64, 2])
@pytest.mark.parametrize("spread", [1.0, 60.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_prefixes(shape: tuple[int, ...], spread: float, segments: int, monkeypatch: pytest.MonkeyPatch):
    """One chunk to a segment, or several."""
    from archdsl.kernels import prefixes

    monkeypatch.setattr(prefixes, "SEGMENTS", segments)
    poisoned(monkeypatch)
    held(shape, torch.float32, "cpu", 1e-5 * max(5, spread), spread)


@interpreted
def test_a_chunk_behind_the_end(monkeypatch: pytest.MonkeyPatch):
    """Two segments of two chunks for the three that there are: what stands behind a row, another with far larger scores, is not read."""
    from archdsl.kernels import prefixes

    monkeypatch.setattr(prefixes, "SEGMENTS", 2)
    g = torch.Generator().manual_seed(0)
    scores, v, dy = torch.randn(2, 65, generator=g), torch.randn(2, 65, 5, generator=g), torch.randn(2, 65, 5, generator=g)
    scores[1] += 200
    wide = [scores.double().requires_grad_(), v.double().requires_grad_()]
    expected = torch.autograd.grad(prefix_attention.body(*wide, *prefix_attention.zeros(wide))[0], wide, dy.double())
    close(prefixes.gradient(dy, scores, v), expected, 1e-4, "scores v")


@interpreted
def test_gradients_through_the_last_states():
    from archdsl.kernels.rows import PrefixAttention as kernel

    s, v = torch.randn(2, 7, requires_grad=True), torch.randn(2, 7, 3, requires_grad=True)
    results = prefix_attention.body(s, v, *prefix_attention.zeros([s, v]))
    grads = [torch.randn_like(r) for r in results]
    expected = torch.autograd.grad(results, (s, v), grads)
    close(kernel.gradient(*grads, s.detach(), v.detach(), None, None, None)[:2], expected, 1e-5)


@gpu
@pytest.mark.parametrize("spread", [1.0, 60.0])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 8, 2048, 64), (2, 1031, 200), (64, 16, 999, 64)])
def test_on_a_card(shape: tuple[int, ...], spread: float):
    held(shape, torch.float32, "cuda", 1e-3, spread)
    held(shape, torch.bfloat16, "cuda", 1e-2 if spread == 1 else 5e-2, spread)
