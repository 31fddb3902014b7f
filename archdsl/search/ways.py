"""How many assignments of parts come to which sums of figures, and draws of those that come to given ones.

Sums are told apart, or rounded to cells where they are too many: each part's own number is rounded to a multiple of a unit, and how far a sum of
rounded numbers may be off is known from the parts. A cell that no sum within the limits can lie in is left out; what is drawn from the others is
checked.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from archdsl.search.selection import Selection
from archdsl.search.tree import Entry, Part, TooMany

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMS = 200_000
"""So many different sums are told apart."""
ADDITIONS = 10_000_000
"""So many additions are made for the sums of a row of parts."""
CHAINS = 4_096
"""So many rows of parts are known with their sums."""
BITS = 96
"""A sum of several numbers is one integer, in which each has so many bits."""

Vector = tuple[Any, ...]
Sums = dict[int, int]
Test = tuple[Callable[[Vector], Any], Callable[[Any, Any], bool], Any]
"""How a figure is read from a sum, the comparison, the bound."""
Window = tuple[int, Any, Any]
"""Between which numbers (None: no end) the number of a sum at a place lies: place, low, high."""


class Ways:
    """Numbers of assignments by their sums. `numbers`: what an entry adds, `width` of them; `most`: so many different sums at most. What it does
    raises TooMany where there are more, or where more additions than ADDITIONS lead to them. `made`: the additions so far."""

    def __init__(self, numbers: Callable[[Part, Entry], Vector], width: int, most: int = SUMS) -> None:
        self.numbers, self.width, self.most, self.made = numbers, width, most, 0
        self.sums: WeakKeyDictionary[Part, Sums] = WeakKeyDictionary()
        self.rows: dict[tuple[Part, ...], tuple[Sums, int]] = {}
        self._own: WeakKeyDictionary[Entry, int] = WeakKeyDictionary()

    def own(self, part: Part, entry: Entry) -> int:
        found = self._own.get(entry)
        if found is None:
            found = self._own[entry] = sum([x << BITS * i for i, x in enumerate(self.numbers(part, entry))])
        return found

    def vector(self, packed: int) -> Vector:
        """The numbers of a sum."""
        found: list[int] = []
        for _ in range(self.width - 1):
            number = (packed + (1 << BITS - 1)) % (1 << BITS) - (1 << BITS - 1)
            found.append(number)
            packed = packed - number >> BITS
        return (*found, packed)

    def within(self, top: Part, tests: Sequence[Test], window: Window | None) -> Sums:
        """The sums of the model that pass the tests, each with its number of assignments. Those of its first part and of the others are joined within
        the window alone."""
        found: Sums = {}
        at, low, high = window or (0, None, None)
        added = 0
        for entry in top.entries:
            own = self.own(top, entry)
            first, rest = {own: 1}, {0: 1}
            if entry.parts:
                first, rest = {own + v: n for v, n in self._part(entry.parts[0][1]).items()}, self._behind(entry, 1)
            others = sorted([(self.vector(w)[at], w, m) for w, m in rest.items()], key=itemgetter(0))
            keys = [k for k, _, _ in others]
            for v, n in first.items():
                here = self.vector(v)[at]
                begin = 0 if low is None else bisect_left(keys, low - here)
                end = len(keys) if high is None else bisect_right(keys, high - here)
                added = self._more(added, max(end - begin, 0))
                for _, w, m in others[begin:end]:
                    total = v + w
                    if total in found:
                        found[total] += n * m
                        continue
                    vector = self.vector(total)
                    if all(holds(read(vector), b) for read, holds, b in tests):
                        found[total] = n * m
                self._bounded(found)
        return found

    def drawn(self, top: Part, kept: Sums, rng: Random) -> Selection:
        """An assignment that comes to one of these sums of the model, each as likely as the others."""
        return self._with_sum(top, _weighted(kept, rng), rng, "")

    def _bounded(self, found: Sums) -> None:
        if len(found) > self.most:
            raise TooMany(f"the limits come to more than {self.most:,} different sums")

    def _more(self, added: int, count: int) -> int:
        """Behind so many additions of a row so many more are to be made; how many these are. That goes by the row alone, not by what is known of it:
        whether it raises TooMany must not depend on what was asked before."""
        if added + count > ADDITIONS:
            raise TooMany(f"more than {ADDITIONS:,} additions lead to the sums that the limits speak of")
        self.made += count
        return added + count

    def _ways(self, part: Part, entry: Entry, wanted: int) -> int:
        """How many assignments of an entry come to a sum."""
        left = wanted - self.own(part, entry)
        if not entry.parts:
            return int(not left)
        rest = self._behind(entry, 1)
        return sum([n * rest.get(left - v, 0) for v, n in self._part(entry.parts[0][1]).items()])

    def _part(self, part: Part) -> Sums:
        known = self.sums.get(part)
        if known is None:
            known, added = {}, 0
            for entry in part.entries:
                own, behind = self.own(part, entry), self._behind(entry, 0)
                added = self._more(added, len(behind))
                for v, n in behind.items():
                    known[own + v] = known.get(own + v, 0) + n
                self._bounded(known)
            self.sums[part] = known
        return known

    def _behind(self, entry: Entry, at: int) -> Sums:
        """The sums of the parts of an entry from one on."""
        return self._row(tuple([p for _, p in entry.parts[at:]]))[0]

    def _row(self, parts: tuple[Part, ...]) -> tuple[Sums, int]:
        """The sums of parts beside each other, and how many additions lead to them from those of each part."""
        if not parts:
            return {0: 1}, 0
        known = self.rows.get(parts)
        if known is None:
            found: Sums = {}
            (rest, added), first = self._row(parts[1:]), self._part(parts[0])
            added = self._more(added, len(first) * len(rest))
            for v, n in first.items():
                for w, m in rest.items():
                    total = v + w
                    found[total] = found.get(total, 0) + n * m
                self._bounded(found)
            if len(self.rows) >= CHAINS:
                self.rows.pop(next(iter(self.rows)))
            known = self.rows[parts] = found, added
        return known

    def _with_sum(self, part: Part, wanted: int, rng: Random, path: str) -> Selection:
        """An assignment of a part that comes to a sum, each as likely as the others."""
        weights = [self._ways(part, e, wanted) for e in part.entries]
        entry = part.entries[_pick(weights, rng)]
        left = wanted - self.own(part, entry)
        below: list[Selection] = []
        for i, (p, inner) in enumerate(entry.parts):
            rest = self._behind(entry, i + 1)
            options = {v: n * rest.get(left - v, 0) for v, n in self._part(inner).items()}
            chosen = _weighted(options, rng)
            below.append(self._with_sum(inner, chosen, rng, f"{path}{p}."))
            left -= chosen
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


def _pick(weights: list[int], rng: Random) -> int:
    steps = list(accumulate(weights))
    return bisect_right(steps, rng.randrange(steps[-1]))


def _weighted(options: Sums, rng: Random) -> int:
    found = list(options)
    return found[_pick([options[v] for v in found], rng)]


__all__ = ["Cells", "Sums", "Test", "Vector", "Ways", "Window"]
