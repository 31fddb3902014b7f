"""Patterns that repeat in a row of things: what pictures and tables fold."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

LONGEST = 32  # things in a pattern


def fold(items: Sequence[T], key: Callable[[T], Any], join: Callable[[list[T], int, int], T]) -> list[T]:
    """Neighbours folded, the repetition that saves most first: `a b a b a b c c` is `(a b) × 3, c × 2`. `key`: equal for what folds, None for what
    never does; `join(group, period, count)`: one for `count` times the same `period` items."""
    left = list(items)
    while (found := _best([key(i) for i in left])) is not None:
        start, period, count = found
        left[start : start + period * count] = [join(left[start : start + period * count], period, count)]
    return left


def _best(keys: list[Any]) -> tuple[int, int, int] | None:
    """(start, period, count) of the repetition that hides most items, of the shortest period where several do."""
    best: tuple[int, int, int] | None = None
    hidden = 0
    for period in range(1, min(LONGEST, len(keys) // 2) + 1):
        run = 0
        for i in range(period, len(keys)):
            run = run + 1 if keys[i] is not None and keys[i] == keys[i - period] else 0
            count = run // period + 1
            if count > 1 and run % period == 0 and (count - 1) * period > hidden:
                best, hidden = (i + 1 - count * period, period, count), (count - 1) * period
    return best
