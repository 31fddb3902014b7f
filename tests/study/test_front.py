"""Fronts and hypervolumes against definitions written out, and against moocore."""
from __future__ import annotations

import random

import moocore
import numpy as np
import pytest

from archdsl.study.front import Front, covered, hypervolume


def by_definition(points):
    """Numbers of the points that no other dominates; of equal ones the first."""
    return [n for n, p in points if not any(
        all(a <= b for a, b in zip(q, p)) and (q != p or m < n) for m, q in points if m != n)]


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("values", [4, 1000])
def test_front_is_the_set_that_nothing_dominates_in_any_order(width, values):
    rng = random.Random(width)
    points = [(n, tuple(float(rng.randrange(values)) for _ in range(width))) for n in range(120)]
    expected = by_definition(points)
    for _ in range(4):
        front = Front(width)
        for n, p in rng.sample(points, len(points)):
            front.add(n, p)
        assert [n for n, _ in front.members] == expected
    one_by_one = moocore.is_nondominated(np.array([p for _, p in points]), keep_weakly=False)
    assert sorted({p for n, p in points if n in expected}) == sorted({p for (_, p), keep in zip(points, one_by_one) if keep})


def test_front_says_what_it_takes():
    front = Front(2, [(4, (1.0, 3.0)), (7, (3.0, 1.0))])
    assert not front.add(8, (2.0, 3.0))  # 4 is better
    assert not front.add(9, (1.0, 3.0))  # the same, later
    assert front.add(2, (1.0, 3.0))  # the same, earlier
    assert front.add(10, (0.0, 0.0))
    assert front.members == [(10, (0.0, 0.0))]


def test_hypervolume_is_a_share_of_the_box():
    # of a 4 × 2 box, (1, 1) dominates 3 × 1 and (3, 0) another 1 × 1
    assert hypervolume([(1.0, 1.0), (3.0, 0.0)], (0.0, 0.0), (4.0, 2.0)) == pytest.approx(4 / 8)
    assert hypervolume([(0.0, 0.0)], (0.0, 0.0), (4.0, 2.0)) == 1
    rng = np.random.default_rng(0)
    points, best, worst = rng.random((6, 3)), np.zeros(3), np.full(3, 1.25)
    samples = rng.random((200_000, 3)) * worst
    share = (points[:, None] <= samples).all(2).any(0).mean()
    assert hypervolume([tuple(p) for p in points], tuple(best), tuple(worst)) == pytest.approx(share, abs=5e-3)


@pytest.mark.parametrize(("points", "best", "worst"), [
    ([], (0.0, 0.0), (1.0, 1.0)), ([(1.0,)], (0.0,), (1.0,)), ([(1.0, 2.0)], (0.0, 2.0), (3.0, 2.0))])
def test_no_hypervolume_where_it_says_nothing(points, best, worst):
    assert hypervolume(points, best, worst) is None


def test_covered():
    assert covered([(1.0, 1.0)], [(1.0, 1.0), (0.0, 9.0), (2.0, 1.0), (3.0, 3.0)]) == 3 / 4
    assert covered([], [(1.0, 1.0)]) == 0
    assert covered([(1.0, 1.0)], []) is None
