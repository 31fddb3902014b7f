"""Pareto fronts: which trials no other one is better than, kept as results come in, and how much of the objectives' box they dominate."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Scores = tuple[float, ...]


class Front:
    """The trials that no other dominates, by number; scores are minimised. Of trials with equal scores it holds the one with the lowest number: so
    the front depends on the set of trials alone, not on the order in which they came. Adding one takes a few µs for each hundred that it holds."""

    def __init__(self, width: int, members: Iterable[tuple[int, Scores]] = ()) -> None:
        import numpy as np

        held = list(members)
        self._numbers = np.array([n for n, _ in held], dtype=np.int64)
        self._scores: Any = np.array([s for _, s in held], dtype=np.float64).reshape(len(held), width)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def members(self) -> list[tuple[int, Scores]]:
        """Number and scores, in order of numbers."""
        return sorted((int(n), tuple(map(float, s))) for n, s in zip(self._numbers, self._scores))

    def copy(self) -> Front:
        """What it is now. Nothing is copied: arrays are replaced, never changed."""
        new = Front(self._scores.shape[1])
        new._numbers, new._scores = self._numbers, self._scores
        return new

    def since(self, before: Front) -> tuple[list[int], list[tuple[int, Scores]]]:
        """Who has left since then, and who has come."""
        import numpy as np

        left = np.setdiff1d(before._numbers, self._numbers)
        new = ~np.isin(self._numbers, before._numbers)
        return left.tolist(), [(int(n), tuple(map(float, s))) for n, s in zip(self._numbers[new], self._scores[new])]

    def add(self, number: int, scores: Scores) -> bool:
        """Whether the trial belongs to the front; those that it dominates leave."""
        import numpy as np

        mine = np.array(scores, dtype=np.float64)
        no_worse = (self._scores <= mine).all(1)  # members that are as good in everything
        if no_worse.any():
            equal = no_worse & (self._scores == mine).all(1)
            if not equal.any() or int(self._numbers[equal][0]) < number:
                return False
            stay = ~equal
        else:
            stay = ~(mine <= self._scores).all(1)
        self._numbers = np.append(self._numbers[stay], number)
        self._scores = np.vstack([self._scores[stay], mine])
        return True


def hypervolume(scores: Sequence[Scores], best: Scores, worst: Scores) -> float | None:
    """The share of the box from `best` to `worst` that these minimised scores dominate, in [0, 1]. None where that says nothing: one objective, no
    trial, or an objective in which all trials are equal. Raises ImportError without moocore."""
    import numpy as np

    span = np.array(worst) - np.array(best)
    if len(best) < 2 or not scores or not (span > 0).all():
        return None
    from moocore import hypervolume as measure

    points = (np.array(scores) - np.array(best)) / span
    return float(measure(points, ref=np.ones(len(best))))


def covered(mine: Sequence[Scores], other: Sequence[Scores]) -> float | None:
    """The share of the other front's points that some point of mine is as good as in every objective. None for an empty one."""
    import numpy as np

    if not other:
        return None
    points = np.array(mine).reshape(len(mine), len(other[0]))
    return sum(bool((points <= np.array(o)).all(1).any()) for o in other) / len(other)
