"""Norms over the last axis, alone and behind a sum of two streams."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from archdsl.ops.registry import OPS, load
from tests.kernels.held import alike, close, gpu, interpreted, poisoned, strided

load()
NAMES = ("rms_norm", "layer_norm", "crms_norm", "l2_norm")
BODIES: dict[str, Any] = {n: OPS[n].body for n in NAMES}
SHAPES = [(1, 3), (5, 60), (3, 2, 129)]
LARGE = [(4099, 1024), (1031, 2816), (2049, 4096), (517, 8192), (33, 16384)]


def launches():
    for kind, width in ((n, w) for n in NAMES for w in (60, 1024, 4096, 8192, 16384)):
        for dtype in (torch.bfloat16, torch.float32):
            for more in (False, True):
                x, w = torch.empty(64, width, dtype=dtype, device="meta"), torch.empty(width, dtype=dtype, device="meta")
                yield f"{kind} {width} {dtype} {'sum' if more else ''}", lambda k=kind, x=x, w=w, m=more: both(k, x, x if m else None, w, w, x, x, m)


def both(name: str, x: Any, more: Any, weight: Any, bias: Any, dy: Any, later: Any, add: bool) -> tuple[Any, ...]:
    """(normed, sum), (gradients of x, weight, bias) of the kernels."""
    from archdsl.kernels.norms import CRMS, L2, LAYER, RMS, forward, gradient

    kind = {"rms_norm": RMS, "layer_norm": LAYER, "crms_norm": CRMS, "l2_norm": L2}[name]
    weight, bias = (None, None) if name in ("crms_norm", "l2_norm") else (weight, bias if name == "layer_norm" else None)
    y, total = forward(kind, x, more, weight, bias, 1e-5)
    return y, total, *gradient(kind, dy, later if add else None, total if add else x, weight, bias, 1e-5)


def held(name: str, shape: tuple[int, ...], add: bool, dtype: torch.dtype, device: str, within: float) -> None:
    check = close if dtype == torch.float32 else alike
    g = torch.Generator().manual_seed(0)
    x, more, dy, later = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(4))
    weight, bias = (strided(torch.randn(shape[-1], generator=g).to(device, dtype)) for _ in range(2))
    x, dy = strided(x, -2) if len(shape) == 2 else strided(x), strided(dy)
    y, total, *found = both(name, x, more if add else None, weight, bias, dy, later, add)
    wide = [t.double().requires_grad_() for t in (x, weight, bias)]
    stream = (x + more).double().requires_grad_() if add else wide[0]
    operands = {"rms_norm": [stream, wide[1]], "layer_norm": [stream, *wide[1:]], "crms_norm": [stream], "l2_norm": [stream]}[name]
    expected = BODIES[name](*operands, eps=1e-5)
    grads = torch.autograd.grad((expected * dy.double()).sum() + (stream * later.double()).sum() * add, operands)
    check((y, *found[:len(operands)]), (expected, *grads), within)
    assert torch.equal(total, x + more) if add else total.numel() == 0


@interpreted
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_norms(name: str, shape: tuple[int, ...], add: bool, monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    held(name, shape, add, torch.float32, "cpu", 2e-5)


@interpreted
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_without_eps_rows_that_are_not_there_add_nothing(name: str):
    """A program has more rows than there are: their scale would be infinite."""
    from archdsl.kernels.norms import LAYER, RMS, gradient

    x, weight, bias, dy = (torch.randn(s, generator=torch.Generator().manual_seed(1)) for s in ((5, 60), (60,), (60,), (5, 60)))
    given = [t.double().requires_grad_() for t in ((x, weight, bias) if name == "layer_norm" else (x, weight))]
    found = gradient(LAYER if name == "layer_norm" else RMS, dy, None, x, weight, bias if name == "layer_norm" else None, 0.0)
    expected = torch.autograd.grad((BODIES[name](*given, eps=0.0) * dy.double()).sum(), given)
    close(found[:len(given)], expected, 2e-5)


@gpu
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE])
@pytest.mark.parametrize("name", NAMES)
def test_on_a_card(name: str, shape: tuple[int, ...]):
    for add in (False, True):
        held(name, shape, add, torch.float32, "cuda", 1e-4)
        held(name, shape, add, torch.bfloat16, "cuda", 1e-2)
