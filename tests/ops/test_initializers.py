"""Initial values: the distributions they promise, torch's own where torch has them, the same for the same seed."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import init

from archdsl.ops.initializers import INITIALIZERS, RANDOM, arguments, fans, sample

SHAPE = (200, 30, 3, 3)  # fan-in 270, fan-out 1800
GIVEN: dict[str, dict[str, Any]] = {"constant": {"value": 0.3}}
TORCH = {
    "uniform": (init.uniform_, {"low": -0.2, "high": 0.7}, {"a": -0.2, "b": 0.7}),
    "normal": (init.normal_, {"mean": 0.1, "std": 0.02}, {"mean": 0.1, "std": 0.02}),
    "trunc_normal": (init.trunc_normal_, {"std": 0.02}, {"std": 0.02, "a": -2, "b": 2}),
    "kaiming_uniform": (init.kaiming_uniform_, {"a": math.sqrt(5)}, {"a": math.sqrt(5)}),
    "kaiming_normal": (init.kaiming_normal_, {}, {}),
    "xavier_uniform": (init.xavier_uniform_, {"gain": 0.5}, {"gain": 0.5}),
    "xavier_normal": (init.xavier_normal_, {}, {}),
}


def _draw(name: str, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float32, seed: int = 0, **attrs: float) -> torch.Tensor:
    return sample(name, shape, dtype, torch.Generator().manual_seed(seed), **attrs)


@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name: str):
    function, ours, theirs = TORCH[name]
    torch.testing.assert_close(_draw(name, **ours), function(torch.empty(SHAPE), generator=torch.Generator().manual_seed(0), **theirs), rtol=1e-6,
                               atol=1e-8)


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4, 0, 3, 3)])
def test_weights_without_elements(name: str, shape: tuple[int, ...]):
    """Such as Linear(0): nothing is drawn, so nothing is divided by a fan-in of 0, and torch has nothing to warn of."""
    assert _draw(name, shape, **GIVEN.get(name, {})).shape == shape


def test_lecun_normal():
    """Variance 1 / fan-in after the cut at two standard deviations of the normal before it."""
    x = _draw("lecun_normal", dtype=torch.float64)
    assert x.std().item() == pytest.approx(1 / math.sqrt(270), rel=0.02)
    assert x.abs().max().item() == pytest.approx(2.2739 / math.sqrt(270), rel=0.01)


@pytest.mark.parametrize(("name", "low", "high", "std"), [
    ("kaiming_uniform", -math.sqrt(6 / 270), math.sqrt(6 / 270), math.sqrt(2 / 270)),
    ("xavier_uniform", -math.sqrt(6 / 2070), math.sqrt(6 / 2070), math.sqrt(2 / 2070)),
    ("kaiming_normal", -math.inf, math.inf, math.sqrt(2 / 270)), ("xavier_normal", -math.inf, math.inf, math.sqrt(2 / 2070)),
    ("uniform", 0, 1, math.sqrt(1 / 12))])
def test_moments(name: str, low: float, high: float, std: float):
    x = _draw(name, dtype=torch.float64)
    assert low <= x.min() and x.max() <= high
    assert x.std().item() == pytest.approx(std, rel=0.02)


def test_the_cut_is_absolute():
    assert _draw("trunc_normal", std=1.0, cut=0.5).abs().max() <= 0.5
    assert _draw("trunc_normal", std=0.02, cut=2.0).abs().max() > 2 * 0.02  # not at two standard deviations
    assert torch.equal(_draw("trunc_normal", (3,), std=0.0), torch.zeros(3))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 2), (7, 7)])
def test_orthogonal(shape: tuple[int, ...]):
    x = _draw("orthogonal", shape, torch.float64, gain=2.0).flatten(1)
    rows, columns = x.shape
    small = x @ x.T if rows <= columns else x.T @ x
    torch.testing.assert_close(small, 4 * torch.eye(min(rows, columns), dtype=torch.float64))


def test_constants():
    assert torch.equal(_draw("zeros", (2, 3)), torch.zeros(2, 3)) and torch.equal(_draw("ones", (2,)), torch.ones(2))
    assert torch.equal(_draw("constant", (2,), value=1e-6), torch.full((2,), 1e-6)) and torch.equal(_draw("eye", (2, 3)), torch.eye(2, 3))
    kernel = _draw("eye", (2, 2, 3, 3))
    assert kernel.sum() == 2 and kernel[0, 0, 1, 1] == 1 and kernel[1, 1, 1, 1] == 1


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_shape_and_seed(name: str, dtype: torch.dtype):
    x, again, other = (sample(name, (8, 4), dtype, torch.Generator().manual_seed(seed), **GIVEN.get(name, {})) for seed in (0, 0, 1))
    assert x.dtype == dtype and x.shape == (8, 4) and not x.requires_grad
    assert torch.equal(x, again) and torch.equal(x, other) == (name not in RANDOM)


@pytest.mark.parametrize(("call", "message"), [
    (("constant", (), {}), "needs `value`"), (("normal", (1, 2, 3), {}), "takes 2 arguments, not 3"),
    (("normal", (), {"sigma": 1}), "has no argument `sigma`"),
    (("normal", (1,), {"mean": 1}), "given twice"), (("gaussian", (), {}), "no initialiser `gaussian`")])
def test_wrong_arguments(call: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        arguments(*call)


def test_fans_need_two_axes():
    assert fans((6, 4, 3, 3)) == (36, 54)
    with pytest.raises(ValueError, match="two axes"):
        fans((6,))
