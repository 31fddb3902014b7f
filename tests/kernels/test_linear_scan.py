"""Linear recurrences against their definition, position by position in float64."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from archdsl.kernels.rows import LinearScan
from tests.kernels.held import alike, close, gpu, interpreted, poisoned, pulled, strided

SHAPES = [(1, 1, 1), (2, 9, 3), (1, 2, 5, 2), (17, 6)]


def launches():
    for dtype in (torch.bfloat16, torch.float32):
        for channels in (3, 1024):
            x, h = torch.empty(2, 100, channels, dtype=dtype, device="meta"), torch.empty(2, channels, dtype=dtype, device="meta")
            yield f"linear_scan {channels} {dtype}", lambda x=x, h=h: (LinearScan.forward(x, x, h), LinearScan.gradient(x, h, x, x, h))


def stepped(a: Any, b: Any, h: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found = []
    for t in range(a.shape[-2]):
        h = a[..., t, :] * h + b[..., t, :]
        found.append(h)
    return torch.stack(found, -2), h


def held(shape: tuple[int, ...], dtype: torch.dtype, device: str, within: float, begun: bool) -> None:
    check = close if dtype == torch.float32 else alike
    g = torch.Generator().manual_seed(0)
    a = (2 * torch.rand(shape, generator=g) - 1).to(device, dtype)
    b, dy = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(2))
    h, later = (torch.randn(*shape[:-2], shape[-1], generator=g).to(device, dtype) for _ in range(2))
    wide = [x.double() for x in (a, b, h if begun else torch.zeros_like(h))]
    state = h if begun else None
    check(LinearScan.forward(strided(a), b, state), stepped(*wide), within, "y last")
    expected = pulled(stepped, wide, [dy.double(), later.double()])
    check(LinearScan.gradient(strided(dy), later, a, strided(b, -2), state), expected if begun else [*expected[:2], None], within, "a b h")
    none = pulled(lambda *x: stepped(*x)[1:], wide, [later.double()])
    check(LinearScan.gradient(None, later, a, b, state), none if begun else [*none[:2], None], within, "a b h")


@interpreted
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_scan(shape: tuple[int, ...], begun: bool, monkeypatch: pytest.MonkeyPatch):
    from archdsl.kernels import linear_scan

    monkeypatch.setattr(linear_scan, "ROWS", 4)  # several of each, at sizes that the interpreter has done soon
    monkeypatch.setattr(linear_scan, "CHANNELS", 4)
    poisoned(monkeypatch)
    held(shape, torch.float32, "cpu", 1e-5, begun)


@gpu
@pytest.mark.parametrize("shape", [*SHAPES, (8, 2048, 1024), (3, 999, 130)])
def test_on_a_card(shape: tuple[int, ...]):
    for begun in (False, True):
        held(shape, torch.float32, "cuda", 1e-4, begun)
        held(shape, torch.bfloat16, "cuda", 1e-2, begun)
