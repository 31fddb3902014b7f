"""Repair within limits on sums over parts: of all assignments below a setting of the header that keep the limits, one with the fewest decisions other
than a given one's.

Sums are rounded to cells, and for each part is known how few changes lead to which cell (least-cost paths over parts, one after the other). What is
drawn from the cells is checked by whoever asks.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from math import prod
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.domains import same
from archdsl.lazy import np
from archdsl.records import record
from archdsl.search.figures import HOLDS
from archdsl.search.limited import in_units
from archdsl.search.selection import Selection
from archdsl.search.tree import Entry, Part, TooMany

if TYPE_CHECKING:
    from archdsl.search.space import SearchSpace

CELLS = (2_000, 150, 40)
"""So many cells lie below the bound of one limited figure, of each of two, of each of more."""
PICKS, EACH = 10, 4
"""So many cells are drawn from, so often each: what a cell stands for may lie within the limits or beside them."""
MOST = 500_000
"""So many cells are looked at for each part."""
NEVER = 15_000
"""More changes than there are decisions."""
KEPT = 4_096
"""So many tables of parts are known to a space: children have most parts in common with others."""

Cell = tuple[int, ...]
Numbers = tuple[Any, ...]


@record(eq=False, slots=False)
class Chain:
    """The parts of an entry, one after the other. `tables`: of each part; `least`: the fewest changes by the cell of the entry with its first i
    parts, arrays int16 whose first element is the cell `low[i]`."""

    entry: Entry
    tables: list[Table]
    least: list[Any]
    low: list[Cell]


@record(eq=False, slots=False)
class Table:
    """Of a part beside what stands in its place: by cell, the fewest changes and the entries that come to it with them."""

    part: Part
    cells: dict[Cell, tuple[int, list[Chain]]]

    @cached_property
    def laid_out(self) -> tuple[Any, Any]:
        """The cells, one a row, and the fewest changes of each."""
        return np.array(list(self.cells)), np.array([changes for changes, _ in self.cells.values()], np.int16)


class Fitting:
    """Assignments below the root of `like`, an assignment of the whole model. `kept`: addresses of decisions that stay as they are in it."""

    def __init__(self, space: SearchSpace, like: Selection, kept: Set[str]) -> None:
        self.space, self.like = space, like
        self.kept = {a: v for a, v in like.values({}).items() if a in kept}
        self.bounds = bounds = space.counted.limited.compared(like.part.root)
        self.figures, self.units = in_units(bounds, CELLS) if bounds else ([], ())
        at = {f.text: i for i, f in enumerate(self.figures)}
        self.window: list[list[float]] = [[float("-inf"), float("inf")] for _ in self.figures]
        self._numbers: dict[Entry, Numbers] = {}
        here = self._total(like)
        for f, op, bound in bounds:
            i = at[f.text]
            window, cell = self.window[i], float((bound - here[i]) / self.units[i])
            if op in (">", ">=", "=="):
                window[0] = max(window[0], cell)
            if op in ("<", "<=", "=="):
                window[1] = min(window[1], cell)
        self.slack = 1 + len(like.below) ** 0.5 / 2  # cells that rounding is off by, mostly
        self._asked = tuple(at), tuple(self.units)

    def found(self, rng: Random) -> Iterator[Selection]:
        """Assignments that may keep the limits, those with the fewest changes first; none where no limit is one on a sum over parts."""
        if not self.figures:
            return
        try:
            top = self._table(self.like.part, self.like, "")
        except (TooMany, ArchError):
            return
        ranked: list[tuple[float, float, Cell]] = []
        for cell, (changes, _) in top.cells.items():
            off = max(max(low - x, x - high, 0.0) for x, (low, high) in zip(cell, self.window))
            if off <= self.slack:
                ranked.append((changes + 2 * off / self.slack, rng.random(), cell))
        ranked.sort()
        for _, _, cell in ranked[:PICKS]:
            for _ in range(EACH):
                found = self._drawn(top, cell, self.like, rng)
                if self._within(found):
                    yield found

    def _within(self, selection: Selection) -> bool:
        """Whether its sums keep the limits; bytes of a state, which has counters of positions besides, are left to whoever asks."""
        return all(f.is_state or HOLDS[op](self.space.sums.total(selection, f), bound) for f, op, bound in self.bounds)

    # ---------------------------------------------------------------- cells
    def _own(self, part: Part, entry: Entry) -> Numbers:
        """What an entry adds to the limited figures."""
        found = self._numbers.get(entry)
        if found is None:
            sums = self.space.sums
            found = self._numbers[entry] = tuple([sums.share(part, entry, f).bytes if f.is_state else sums.own(part, entry, f) for f in self.figures])
        return found

    def _total(self, selection: Selection) -> Numbers:
        return tuple(map(sum, zip(*[self._own(s.part, s.entry) for s in selection.all])))

    def _cell(self, part: Part, entry: Entry, like: Selection | None, places: Sequence[Selection | None]) -> Cell:
        """By how much an entry adds more than what stands in its place does, but for what stands in the `places` of its parts: 0 where nothing
        changes, so that only what changes is rounded."""
        own = self._own(part, entry)
        if like is not None:
            if entry is like.entry:
                return (0,) * len(own)
            gone = [self._own(like.part, like.entry), *[self._total(s) for s in like.below if s not in places]]
            own = tuple([x - sum(g) for x, *g in zip(own, *gone)])
        return tuple([int((2 * x + u) // (2 * u)) for x, u in zip(own, self.units)])

    def _changes(self, entry: Entry, like: Selection | None, kept: Mapping[str, Any]) -> int:
        """How many decisions of an entry are others than those in its place; NEVER where one of those that are `kept` below the part is another one,
        or gone."""
        for a, v in kept.items():
            if not same(entry.values[a], v) if a in entry.values else not any(a.startswith(f"{p}.") for p, _ in entry.parts):
                return NEVER
        if like is None or entry is like.entry:
            return 0
        before = like.entry.values
        return sum(a not in before or not same(before[a], v) for a, v in entry.values.items())

    def _table(self, part: Part, like: Selection | None, path: str) -> Table:
        """Raises TooMany, ArchError where figures are no sums over parts."""
        if not path:
            return self._tabled(part, like, path)
        known, session = self.space.counted.tables, self.space.spec.session
        key = self._asked, part, None if like is None else _entries(like), tuple([(a, session.key(v)) for a, v in self._kept(path).items()])
        found = known.get(key)
        if found is None:
            found = self._tabled(part, like, path)
            if len(known) >= KEPT:
                known.pop(next(iter(known)))
            known[key] = found
        return found

    def _kept(self, path: str) -> dict[str, Any]:
        """What is kept below a path, by addresses relative to it."""
        return {a[len(path):]: v for a, v in self.kept.items() if a.startswith(path)}

    def _tabled(self, part: Part, like: Selection | None, path: str) -> Table:
        cells: dict[Cell, tuple[int, list[Chain]]] = {}
        kept = self._kept(path)
        for entry in part.entries:
            changes = self._changes(entry, like, kept)
            if changes < NEVER:
                for cell, more, chain in self._chained(part, entry, like, path):
                    best = cells.get(cell)
                    if best is None or changes + more < best[0]:
                        cells[cell] = changes + more, [chain]
                    elif changes + more == best[0]:
                        best[1].append(chain)
        return Table(part, cells)

    def _chained(self, part: Part, entry: Entry, like: Selection | None, path: str) -> Iterator[tuple[Cell, int, Chain]]:
        places = _places(entry, like)
        tables = [self._table(inner, there, f"{path}{p}.") for (p, inner), there in zip(entry.parts, places)]
        if any(not t.cells for t in tables):
            return
        own = self._cell(part, entry, like, places)
        ends = [[(min(c), max(c)) for c in zip(*t.cells)] for t in tables]
        chain = Chain(entry, tables, [np.zeros((1,) * len(own), np.int16)], [own])
        high = own
        for i, table in enumerate(tables):
            low, before, array = chain.low[-1], high, chain.least[-1]
            first = [a + e[0] for a, e in zip(low, ends[i])]
            last = [b + e[1] for b, e in zip(before, ends[i])]
            if not path:  # what the parts behind cannot bring into the window is left out
                for k, (least, most) in enumerate(self.window):
                    first[k] = max(first[k], int(max(least - self.slack - sum(e[k][1] for e in ends[i + 1:]), first[k])))
                    last[k] = min(last[k], int(min(most + self.slack - sum(e[k][0] for e in ends[i + 1:]), last[k])))
            if any(a > b for a, b in zip(first, last)):
                return
            if prod(b - a + 1 for a, b in zip(first, last)) > MOST:
                raise TooMany("the sums lie far apart")
            reach = [(max(e[0], f - b), min(e[1], t - a)) for e, a, b, f, t in zip(ends[i], low, before, first, last)]
            begin = [a + r[0] for a, r in zip(low, reach)]
            chain.least.append(_joined(array, table, reach)[tuple(slice(f - o, t - o + 1) for f, t, o in zip(first, last, begin))])
            chain.low.append(tuple(first))
            high = tuple(last)
        found = chain.least[-1]
        for place in np.argwhere(found < NEVER).tolist():
            yield tuple(a + i for a, i in zip(chain.low[-1], place)), int(found[tuple(place)]), chain

    # ---------------------------------------------------------------- back
    def _drawn(self, table: Table, cell: Cell, like: Selection | None, rng: Random, path: str = "") -> Selection:
        """An assignment of a part that comes to a cell with the fewest changes."""
        changes, chains = table.cells[cell]
        if like is not None and not changes:
            return like
        chain = chains[rng.randrange(len(chains))]
        if not chain.tables:
            return Selection(table.part, path, chain.entry, ())
        there = _places(chain.entry, like)
        below: list[Selection] = []
        for i in range(len(chain.tables) - 1, -1, -1):
            inner, low, array = chain.tables[i], chain.low[i], chain.least[i]
            wanted = int(chain.least[i + 1][tuple(c - a for c, a in zip(cell, chain.low[i + 1]))])
            steps, changes = inner.laid_out
            places = np.array([c - a for c, a in zip(cell, low)]) - steps
            inside = np.flatnonzero(((places >= 0) & (places < array.shape)).all(axis=1))
            found = inside[array[tuple(places[inside].T)] + changes[inside] == wanted]
            step = tuple(steps[found[rng.randrange(len(found))]].tolist())
            cell = tuple([c - s for c, s in zip(cell, step)])
            below.append(self._drawn(inner, step, there[i], rng, f"{path}{chain.entry.parts[i][0]}."))
        return Selection(table.part, path, chain.entry, tuple(reversed(below)))


def _joined(array: Any, table: Table, ends: Sequence[Cell]) -> Any:
    """The fewest changes by the cell of a row with one more part. `ends`: between which of the part's cells; with others no cell that is asked for is
    reached. In a row of memory that is long enough for both, each of the part's cells moves all cells of the row by one distance."""
    shape = [n + high - low for n, (low, high) in zip(array.shape, ends)]
    before, found = np.full(shape, NEVER, np.int16), np.full(shape, NEVER, np.int16)
    before[tuple(map(slice, array.shape))] = array
    strides = [prod(shape[i + 1:]) for i in range(len(shape))]
    flat, there = found.reshape(-1), before.reshape(-1)[:1 + sum((n - 1) * s for n, s in zip(array.shape, strides))]
    by_changes: dict[int, Any] = {}
    for cell, (changes, _) in table.cells.items():
        if not all(low <= c <= high for c, (low, high) in zip(cell, ends)):
            continue
        moved = by_changes.get(changes)
        if moved is None:
            moved = by_changes[changes] = there + np.int16(changes)
        begin = sum([(c - e[0]) * s for c, e, s in zip(cell, ends, strides)])
        place = flat[begin:begin + len(moved)]
        np.minimum(place, moved, out=place)
    return np.minimum(found, NEVER, out=found)


def _places(entry: Entry, like: Selection | None) -> list[Selection | None]:
    """What stands in the place of each part of an entry, None where that is another part."""
    if like is None:
        return [None] * len(entry.parts)
    if entry is like.entry:
        return list(like.below)
    beside = {s.path: s for s in like.below}
    found = [beside.get(f"{like.path}{p}.") for p, _ in entry.parts]
    return [s if s is not None and s.part is inner else None for s, (_, inner) in zip(found, entry.parts)]


def _entries(selection: Selection) -> Any:
    """What an assignment is, wherever its part stands."""
    return selection.entry if not selection.below else (selection.entry, *map(_entries, selection.below))


__all__ = ["Fitting", "Table"]
