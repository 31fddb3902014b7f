"""Several objectives at once: ranks of non-dominated sorting, crowding, reference directions. Points are arrays [n, m], less is better."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, TypeAlias

from archdsl.lazy import np

Array: TypeAlias = "np.ndarray[Any, Any]"


def ranks(points: Sequence[Sequence[float]] | Array) -> Array:
    """For each point the front that it lies in, int64 [n]: 0 for those that no other dominates, 1 for those that only these dominate, and so on
    (Deb et al. 2002, section III-A). Equal points share a front."""
    x = np.asarray(points, dtype=np.float64)
    out = np.zeros(len(x), dtype=np.int64)
    if len(x) == 0:
        return out
    if x.shape[1] == 1:
        return np.unique(x[:, 0], return_inverse=True)[1].reshape(-1)
    beats = dominance(x)
    above = beats.sum(0)
    left, front = np.ones(len(x), dtype=bool), 0
    while left.any():
        now = left & (above == 0)
        out[now] = front
        left &= ~now
        above = above - beats[now].sum(0)
        front += 1
    return out


def dominance(x: Array) -> Array:
    """bool [n, n]: the row is nowhere worse than the column and somewhere better."""
    no_worse, better = np.ones((len(x), len(x)), dtype=bool), np.zeros((len(x), len(x)), dtype=bool)
    for column in x.T:
        no_worse &= column[:, None] <= column
        better |= column[:, None] < column
    return no_worse & better


def crowding(points: Array) -> Array:
    """Deb et al. 2002, section III-B, for the points of one front, float64 [n]: the sides of the box between the neighbours of each, over the range
    of the front; infinite at the ends, 0 for a copy of another point."""
    unique, first = np.unique(points, axis=0, return_index=True)
    inner = np.zeros(len(unique))
    for column in unique.T:
        order = np.argsort(column, kind="stable")
        sides = np.full(len(unique), np.inf)
        ordered = column[order]
        width = ordered[-1] - ordered[0]
        if width > 0:
            sides[1:-1] = (ordered[2:] - ordered[:-2]) / width
        elif len(unique) > 2:
            sides[1:-1] = 0.0
        inner[order] += sides
    out = np.zeros(len(points))
    out[first] = inner
    return out


def order(points: Sequence[Sequence[float]] | Array) -> list[int]:
    """The points from best to worst: by front, in a front the less crowded first, then as they came."""
    x = np.asarray(points, dtype=np.float64)
    rank = ranks(x)
    space = np.zeros(len(x))
    for front in range(int(rank.max(initial=-1)) + 1):
        at = np.flatnonzero(rank == front)
        space[at] = crowding(x[at])
    return np.lexsort((np.arange(len(x)), -space, rank)).tolist()


def prune(points: Array, keep: int) -> list[int]:
    """The positions of `keep` points of one front: the most crowded goes, one at a time, and the others are measured again (Kukkonen and Deb
    2006)."""
    at = list(range(len(points)))
    while len(at) > keep:
        del at[int(np.argmin(crowding(points[at])))]
    return at


def survivors(points: Sequence[Sequence[float]] | Array, keep: int) -> list[int]:
    """The positions of the `keep` best: whole fronts while they fit, the one that does not is pruned."""
    x = np.asarray(points, dtype=np.float64)
    rank, out = ranks(x), []
    for front in range(int(rank.max(initial=-1)) + 1):
        at = np.flatnonzero(rank == front)
        room = keep - len(out)
        if len(at) > room:
            return [*out, *at[prune(x[at], room)].tolist()]
        out += at.tolist()
    return out


# ---------------------------------------------------------------- reference directions
def directions(objectives: int, at_most: int) -> Array:
    """Das and Dennis 1998: all points of the simplex whose coordinates are multiples of 1/p, float64 [n, objectives], for the largest p ≥ 1 that
    gives at most so many."""
    if objectives == 1:
        return np.ones((1, 1))
    parts = 1
    while comb(parts + objectives, objectives - 1) <= at_most:
        parts += 1
    bars = np.array(list(combinations(range(parts + objectives - 1), objectives - 1)), dtype=np.int64)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), parts + objectives - 1)])
    return (np.diff(edges, axis=1) - 1) / parts


def normalised(points: Array, front: Array) -> Array:
    """Deb and Jain 2014, section IV-C: shifted by the ideal point and divided by the intercepts of the plane through the extreme points of the front;
    by its range where the plane does not cut every axis."""
    ideal = points.min(0)
    shifted, best = points - ideal, front - ideal
    m = points.shape[1]
    weights = np.where(np.eye(m) == 1, 1.0, 1e6)
    extreme = best[np.argmin((best[None, :, :] * weights[:, None, :]).max(2), axis=1)]
    worst = best.max(0)
    intercepts = worst
    if np.linalg.matrix_rank(extreme) == m:
        slopes = np.linalg.solve(extreme, np.ones(m))
        if (slopes > 0).all():
            intercepts = 1 / slopes
            intercepts = np.where(intercepts > shifted.max(0), worst, intercepts)
    return shifted / np.where(intercepts > 1e-12, intercepts, 1.0)


def niches(points: Array, lines: Array) -> tuple[Array, Array]:
    """The nearest line through the origin for each point, int64 [n], and the distance from it, float64 [n]."""
    unit = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    along = points @ unit.T
    distance = np.sqrt(np.maximum((points**2).sum(1)[:, None] - along**2, 0.0))
    nearest = distance.argmin(1)
    return nearest, distance[np.arange(len(points)), nearest]


def spread_survivors(points: Sequence[Sequence[float]] | Array, keep: int, lines: Array, pick: Any) -> list[int]:
    """Deb and Jain 2014, section IV-E: whole fronts while they fit; from the one that does not, for the line with the fewest survivors so far, the
    point nearest to it if it has none yet, else any. `pick`: a `random.Random`."""
    x = np.asarray(points, dtype=np.float64)
    rank = ranks(x)
    taken: list[int] = []
    for front in range(int(rank.max(initial=-1)) + 1):
        at = np.flatnonzero(rank == front).tolist()
        if len(taken) + len(at) > keep:
            break
        taken += at
    else:
        return taken
    nearest, distance = niches(normalised(x, x[rank == 0]), lines)
    count = np.bincount(nearest[taken], minlength=len(lines)) if taken else np.zeros(len(lines), dtype=np.int64)
    waiting: dict[int, list[int]] = {}
    for i in at:
        waiting.setdefault(int(nearest[i]), []).append(i)
    while len(taken) < keep:
        fewest = min(count[line] for line in waiting)
        line = pick.choice([n for n in waiting if count[n] == fewest])
        here = waiting[line]
        chosen = min(here, key=lambda i: distance[i]) if fewest == 0 else pick.choice(here)
        here.remove(chosen)
        if not here:
            del waiting[line]
        taken.append(chosen)
        count[line] += 1
    return taken


def volume(points: Sequence[Sequence[float]] | Array, reference: Sequence[float]) -> float:
    """The hypervolume that points dominate up to a reference point, exactly: swept along the last objective, one dimension less at a time. For the
    fronts of a few hundred points; moocore is faster on large ones."""
    x = np.asarray(points, dtype=np.float64).reshape(-1, len(reference))
    x = x[(x < np.asarray(reference)).all(1)]
    if len(x) == 0:
        return 0.0
    if x.shape[1] == 1:
        return float(reference[0] - x.min())
    x = x[ranks(x) == 0]
    x = x[np.argsort(x[:, -1], kind="stable")]
    edges = [*x[1:, -1].tolist(), float(reference[-1])]
    return sum((edge - float(x[i, -1])) * volume(x[:i + 1, :-1], reference[:-1]) for i, edge in enumerate(edges) if edge > x[i, -1])
