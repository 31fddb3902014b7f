"""Fronts against pymoo and moocore, and against their definitions."""
from __future__ import annotations

import math

import moocore
import numpy as np
import pytest

from archdsl.search.strategies import fronts
from archdsl.search.strategies.base import Generator


def points(n: int, m: int, seed: int = 0, ties: bool = False) -> np.ndarray:
    x = np.random.default_rng(seed).random((n, m))
    return np.round(x * 4) if ties else x


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_ranks(m, ties):
    x = points(60, m, m, ties)
    ours = fronts.ranks(x)
    left = list(range(len(x)))  # by definition, one front after the other
    for front in range(ours.max() + 1):
        best = [i for i in left if not any((x[j] <= x[i]).all() and (x[j] < x[i]).any() for j in left)]
        assert best == np.flatnonzero(ours == front).tolist()
        left = [i for i in left if i not in best]
    assert not left
    if m > 1:
        assert (ours == moocore.pareto_rank(x)).all()


@pytest.mark.parametrize("m", [2, 3])
def test_crowding(m):
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

    x = points(200, m)
    x = x[fronts.ranks(x) == 0]
    ours, theirs = fronts.crowding(x), calc_crowding_distance(x) * m  # pymoo gives the mean over the objectives
    assert np.allclose(ours, theirs)
    assert fronts.crowding(np.vstack([x, x[:1]]))[-1] == 0, "a copy is as crowded as can be"


@pytest.mark.parametrize("keep", [1, 5, 17, 40])
def test_survivors(keep):
    x = points(40, 3)
    kept = fronts.survivors(x, keep)
    rank = fronts.ranks(x)
    assert len(kept) == len(set(kept)) == keep
    assert max(rank[kept]) <= sorted(rank)[keep - 1]


@pytest.mark.parametrize(("m", "at_most"), [(1, 5), (2, 12), (3, 91), (3, 100), (5, 40), (4, 3)])
def test_directions(m, at_most):
    from pymoo.util.ref_dirs import get_reference_directions

    ours = fronts.directions(m, at_most)
    assert np.allclose(ours.sum(1), 1) and (ours >= 0).all() and len(np.unique(ours, axis=0)) == len(ours)
    assert len(ours) <= max(at_most, m)
    if m > 1:
        parts = next(p for p in range(1, 200) if math.comb(p + m - 1, m - 1) == len(ours))
        theirs = get_reference_directions("das-dennis", m, n_partitions=parts)
        assert np.allclose(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
        assert math.comb(parts + m, m - 1) > at_most, "more would fit"


def test_normalised_by_the_plane_through_the_extremes():
    front = np.array([[2.0, 0, 0], [0, 4.0, 0], [0, 0, 8.0], [0.5, 1.0, 2.0]]) + 3
    assert np.allclose(fronts.normalised(front, front)[:3], np.eye(3))
    flat = np.array([[1.0, 2.0], [1.0, 5.0]])  # one axis has no range
    assert np.isfinite(fronts.normalised(flat, flat)).all()


def test_spread_survivors_fill_the_niches():
    lines = fronts.directions(3, 28)
    x = points(300, 3, 4)
    x /= x.sum(1, keepdims=True)  # all on one front
    kept = fronts.spread_survivors(x, 28, lines, Generator(1))
    assert len(set(kept)) == 28
    nearest, _ = fronts.niches(fronts.normalised(x, x), lines)
    assert len(set(nearest[kept])) == min(28, len(set(nearest))), "a line with candidates of its own has none"


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_volume(m):
    x = points(40, m, m)
    assert math.isclose(fronts.volume(x, [1.1] * m), moocore.hypervolume(x, ref=[1.1] * m) if m > 1 else 1.1 - x.min(), rel_tol=1e-12)
    assert fronts.volume(x + 2, [1.1] * m) == 0.0 == fronts.volume(np.zeros((0, m)), [1.0] * m)
