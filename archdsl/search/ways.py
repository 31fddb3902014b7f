"""How many assignments of parts come to which sums of figures, and draws of those that come to given ones.

Sums are told apart, or rounded to cells where they are too many: each part's own number is rounded to a multiple of a unit, and how far a sum of
rounded numbers may be off is known from the parts. A cell that no sum within the limits can lie in is left out; what is drawn from the others is
checked.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from archdsl.search.selection import Selection
from archdsl.search.tree import Entry, Part, TooMany

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMS = 200_000
"""So many different sums are told apart."""
CHAINS = 4_096
"""So many rows of parts are known with their sums."""

Vector = tuple[Any, ...]
Sums = dict[Vector, int]
Test = tuple[Callable[[Vector], Any], Callable[[Any, Any], bool], Any]
"""How a figure is read from a sum, the comparison, the bound."""
Window = tuple[int, Any, Any]
"""Between which numbers (None: no end) the number of a sum at a place lies: place, low, high."""


class Ways:
    """Numbers of assignments by their sums. `own`: what an entry adds, of `width` numbers; `most`: so many different sums at most. What it does
    raises TooMany where there are more."""

    def __init__(self, own: Callable[[Part, Entry], Vector], width: int, most: int = SUMS) -> None:
        self.own, self.zero, self.most = own, (0,) * width, most
        self.sums: WeakKeyDictionary[Part, Sums] = WeakKeyDictionary()
        self.chains: dict[tuple[Part, ...], Sums] = {}

    def within(self, top: Part, tests: Sequence[Test], window: Window | None) -> Sums:
        """The sums of the model that pass the tests, each with its number of assignments. Those of its first part and of the others are joined within
        the window alone."""
        found: Sums = {}
        at, low, high = window or (0, None, None)
        for entry in top.entries:
            own = self.own(top, entry)
            first, rest = {own: 1}, {self.zero: 1}
            if entry.parts:
                first, rest = {_plus(own, v): n for v, n in self._part(entry.parts[0][1]).items()}, self._behind(entry, 1)
            others = sorted(rest.items(), key=lambda i: i[0][at])
            keys = [w[at] for w, _ in others]
            for v, n in first.items():
                begin = 0 if low is None else bisect_left(keys, low - v[at])
                end = len(keys) if high is None else bisect_right(keys, high - v[at])
                for w, m in others[begin:end]:
                    total = _plus(v, w)
                    if total in found:
                        found[total] += n * m
                    elif all(holds(read(total), b) for read, holds, b in tests):
                        found[total] = n * m
                self._bounded(found)
        return found

    def drawn(self, top: Part, kept: Sums, rng: Random) -> Selection:
        """An assignment that comes to one of these sums of the model, each as likely as the others."""
        return self._with_sum(top, _weighted(kept, rng), rng, "")

    def _bounded(self, found: Sums) -> None:
        if len(found) > self.most:
            raise TooMany(f"the limits come to more than {self.most:,} different sums")

    def _ways(self, part: Part, entry: Entry, wanted: Vector) -> int:
        """How many assignments of an entry come to a sum."""
        left = _minus(wanted, self.own(part, entry))
        if not entry.parts:
            return int(not any(left))
        rest = self._behind(entry, 1)
        return sum(n * rest.get(_minus(left, v), 0) for v, n in self._part(entry.parts[0][1]).items())

    def _part(self, part: Part) -> Sums:
        known = self.sums.get(part)
        if known is None:
            known = {}
            for entry in part.entries:
                own = self.own(part, entry)
                for v, n in self._behind(entry, 0).items():
                    total = _plus(own, v)
                    known[total] = known.get(total, 0) + n
            self.sums[part] = known
        return known

    def _behind(self, entry: Entry, at: int) -> Sums:
        """The sums of the parts of an entry from one on."""
        if at == len(entry.parts):
            return {self.zero: 1}
        kinds = tuple([p for _, p in entry.parts[at:]])
        chains = self.chains
        known = chains.get(kinds)
        if known is None:
            known = {}
            rest = self._behind(entry, at + 1)
            for v, n in self._part(entry.parts[at][1]).items():
                for w, m in rest.items():
                    total = _plus(v, w)
                    known[total] = known.get(total, 0) + n * m
                self._bounded(known)
            if len(chains) >= CHAINS:
                chains.pop(next(iter(chains)))
            chains[kinds] = known
        return known

    def _with_sum(self, part: Part, wanted: Vector, rng: Random, path: str) -> Selection:
        """An assignment of a part that comes to a sum, each as likely as the others."""
        weights = [self._ways(part, e, wanted) for e in part.entries]
        entry = part.entries[_pick(weights, rng)]
        left = _minus(wanted, self.own(part, entry))
        below: list[Selection] = []
        for i, (p, inner) in enumerate(entry.parts):
            rest = self._behind(entry, i + 1)
            options = {v: n * rest.get(_minus(left, v), 0) for v, n in self._part(inner).items()}
            chosen = _weighted(options, rng)
            below.append(self._with_sum(inner, chosen, rng, f"{path}{p}."))
            left = _minus(left, chosen)
        return Selection(part, path, entry, tuple(below))


class Cells(Ways):
    """Numbers of assignments by their sums of numbers that are rounded to multiples of `units`."""

    def __init__(self, own: Callable[[Part, Entry], Vector], units: Vector) -> None:
        super().__init__(self._rounded, len(units))
        self.exactly, self.units = own, units
        self._errors: WeakKeyDictionary[Part, list[tuple[Any, Any]]] = WeakKeyDictionary()

    def _rounded(self, part: Part, entry: Entry) -> Vector:
        return tuple([int((2 * x + u) // (2 * u)) for x, u in zip(self.exactly(part, entry), self.units)])

    def errors(self, part: Part) -> list[tuple[Any, Any]]:
        """By how much at least and at most each number of an assignment's sum differs from what its cell says."""
        known = self._errors.get(part)
        if known is None:
            each: list[list[tuple[Any, Any]]] = []
            for entry in part.entries:
                own = [x - u * k for x, u, k in zip(self.exactly(part, entry), self.units, self._rounded(part, entry))]
                below = [self.errors(p) for _, p in entry.parts]
                each.append([(x + sum(e[i][0] for e in below), x + sum(e[i][1] for e in below)) for i, x in enumerate(own)])
            known = self._errors[part] = [(min(lo for lo, _ in at), max(hi for _, hi in at)) for at in zip(*each)]
        return known


def _plus(a: Vector, b: Vector) -> Vector:
    return tuple([x + y for x, y in zip(a, b)])


def _minus(a: Vector, b: Vector) -> Vector:
    return tuple([x - y for x, y in zip(a, b)])


def _pick(weights: list[int], rng: Random) -> int:
    steps = list(accumulate(weights))
    return bisect_right(steps, rng.randrange(steps[-1]))


def _weighted(options: Sums, rng: Random) -> Vector:
    found = list(options)
    return found[_pick([options[v] for v in found], rng)]


__all__ = ["Cells", "Sums", "Test", "Vector", "Ways", "Window"]
