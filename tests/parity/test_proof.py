"""The judge of errors in float32: what is worse than the peer by more than chance is told, also where draws differ much."""
from __future__ import annotations

import pytest
import torch

from tests.parity.proof import single_precision


def noisy(scale: float, seed: int, wild: bool = False):
    """Gives ones with errors of `scale` · 1e-6; `wild`: of one draw in six they are ten times as large."""
    g = torch.Generator().manual_seed(seed)

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        more = 10 if wild and torch.rand((), generator=g) < 1 / 6 else 1
        return [(1 + scale * more * 1e-6 * torch.randn(x.shape, generator=g, dtype=torch.float64)).float()]

    return run


def judged(ours, peer) -> None:
    single_precision(ours, peer, lambda x: [torch.ones_like(x, dtype=torch.float64)], [torch.zeros(20, 30)])


@pytest.mark.parametrize("seed", range(5))
def test_errors_alike_pass(seed: int):
    judged(noisy(1, seed), noisy(1, seed + 100))
    judged(noisy(1, seed, wild=True), noisy(1, seed + 100, wild=True))


@pytest.mark.parametrize("seed", range(5))
def test_larger_errors_are_told(seed: int):
    with pytest.raises(AssertionError, match="times the float32 error of the peer"):
        judged(noisy(1.25, seed), noisy(1, seed + 100))
    with pytest.raises(AssertionError, match="times the float32 error of the peer"):
        judged(noisy(12, seed, wild=True), noisy(1, seed + 100, wild=True))
