"""Repair within limits on sums over parts: of all assignments below a setting of the header that keep the limits, one with the fewest decisions other
than a given one's.

Sums are rounded to cells, and for each part is known how few changes lead to which cell (least-cost paths over parts, one after the other). What is
drawn from the cells is checked by whoever asks.
"""
from __future__ import annotations

from collections.abc import Iterator, Set
from math import prod
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.domains import same
from archdsl.lazy import np
from archdsl.records import record
from archdsl.search.counting import in_units
from archdsl.search.figures import HOLDS, Figure
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


class Fitting:
    """Assignments below the root of `like`, an assignment of the whole model. `kept`: addresses of decisions that stay as they are in it."""

    def __init__(self, space: SearchSpace, like: Selection, kept: Set[str]) -> None:
        self.space, self.like, self.kept = space, like, kept
        counted, root = space.counted, like.part.root
        self.bounds = bounds = counted.compared(root)
        self.figures, self.units = in_units(bounds, CELLS) if bounds else ([], ())
        at = {f.text: i for i, f in enumerate(self.figures)}
        self.window: list[list[float]] = [[float("-inf"), float("inf")] for _ in self.figures]
        for f, op, bound in bounds:
            window, cell = self.window[at[f.text]], float(bound / self.units[at[f.text]])
            if op in (">", ">=", "=="):
                window[0] = max(window[0], cell)
            if op in ("<", "<=", "=="):
                window[1] = min(window[1], cell)
        self.slack = 1 + len(like.below) ** 0.5 / 2  # cells that rounding is off by, mostly
        self._asked = tuple(at), tuple(self.units)
        self._cells: dict[Entry, Cell] = {}

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
                found = self._drawn(top, cell, rng)
                if self._within(found):
                    yield found

    def _within(self, selection: Selection) -> bool:
        """Whether its sums keep the limits; bytes of a state, which has counters of positions besides, are left to whoever asks."""
        return all(f.is_state or HOLDS[op](self.space.sums.total(selection, f), bound) for f, op, bound in self.bounds)

    # ---------------------------------------------------------------- cells
    def _cell(self, part: Part, entry: Entry) -> Cell:
        found = self._cells.get(entry)
        if found is None:
            own = [self._own(part, entry, f) for f in self.figures]
            found = self._cells[entry] = tuple([int((2 * x + u) // (2 * u)) for x, u in zip(own, self.units)])
        return found

    def _own(self, part: Part, entry: Entry, asked: Figure) -> Any:
        sums = self.space.sums
        return sums.share(part, entry, asked).bytes if asked.is_state else sums.own(part, entry, asked)

    def _changes(self, entry: Entry, like: Selection | None, path: str) -> int:
        """How many decisions of an entry are others than those in its place; NEVER where one of them is kept."""
        if like is None or entry is like.entry:
            return 0
        before, count = like.entry.values, 0
        for a, v in entry.values.items():
            if a not in before or not same(before[a], v):
                if path + a in self.kept:
                    return NEVER
                count += 1
        return NEVER if any(path + a in self.kept for a in before if a not in entry.values) else count

    def _table(self, part: Part, like: Selection | None, path: str) -> Table:
        """Raises TooMany, ArchError where figures are no sums over parts."""
        if not path:
            return self._tabled(part, like, path)
        known, kept = self.space.counted.tables, frozenset([a[len(path):] for a in self.kept if a.startswith(path)])
        key = self._asked, part, None if like is None else _entries(like), kept
        found = known.get(key)
        if found is None:
            found = self._tabled(part, like, path)
            if len(known) >= KEPT:
                known.pop(next(iter(known)))
            known[key] = found
        return found

    def _tabled(self, part: Part, like: Selection | None, path: str) -> Table:
        cells: dict[Cell, tuple[int, list[Chain]]] = {}
        for entry in part.entries:
            changes = self._changes(entry, like, path)
            if changes < NEVER:
                for cell, more, chain in self._chained(part, entry, like, path):
                    best = cells.get(cell)
                    if best is None or changes + more < best[0]:
                        cells[cell] = changes + more, [chain]
                    elif changes + more == best[0]:
                        best[1].append(chain)
        return Table(part, cells)

    def _chained(self, part: Part, entry: Entry, like: Selection | None, path: str) -> Iterator[tuple[Cell, int, Chain]]:
        own = self._cell(part, entry)
        beside = {} if like is None else {s.path: s for s in like.below}
        tables: list[Table] = []
        for p, inner in entry.parts:
            at = f"{path}{p}."
            there = beside.get(at)
            tables.append(self._table(inner, there if there is not None and there.part is inner else None, at))
        if any(not t.cells for t in tables):
            return
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
            new = np.full([b - a + 1 for a, b in zip(first, last)], NEVER, np.int16)
            for cell, (changes, _) in table.cells.items():
                begin = [max(a + c, f) for a, c, f in zip(low, cell, first)]
                end = [min(b + c, e) for b, c, e in zip(before, cell, last)]
                if all(x <= y for x, y in zip(begin, end)):
                    place = new[tuple(slice(x - f, y - f + 1) for x, y, f in zip(begin, end, first))]
                    there = array[tuple(slice(x - c - a, y - c - a + 1) for x, y, c, a in zip(begin, end, cell, low))]
                    np.minimum(place, np.minimum(there, NEVER - changes) + np.int16(changes), out=place)
            chain.least.append(new)
            chain.low.append(tuple(first))
            high = tuple(last)
        found = chain.least[-1]
        for place in np.argwhere(found < NEVER).tolist():
            yield tuple(a + i for a, i in zip(chain.low[-1], place)), int(found[tuple(place)]), chain

    # ---------------------------------------------------------------- back
    def _drawn(self, table: Table, cell: Cell, rng: Random, path: str = "") -> Selection:
        """An assignment of a part that comes to a cell with the fewest changes."""
        chains = table.cells[cell][1]
        chain = chains[rng.randrange(len(chains))]
        if not chain.tables:
            return Selection(table.part, path, chain.entry, ())
        below: list[Selection] = []
        for i in range(len(chain.tables) - 1, -1, -1):
            inner, low, array = chain.tables[i], chain.low[i], chain.least[i]
            wanted = int(chain.least[i + 1][tuple(c - a for c, a in zip(cell, chain.low[i + 1]))])
            options: list[tuple[Cell, Cell]] = []
            for step, (changes, _) in inner.cells.items():
                at = tuple(c - s - a for c, s, a in zip(cell, step, low))
                if all(0 <= x < n for x, n in zip(at, array.shape)) and int(array[at]) + changes == wanted:
                    options.append((step, tuple(c - s for c, s in zip(cell, step))))
            step, cell = options[rng.randrange(len(options))]
            below.append(self._drawn(inner, step, rng, f"{path}{chain.entry.parts[i][0]}."))
        return Selection(table.part, path, chain.entry, tuple(reversed(below)))


def _entries(selection: Selection) -> Any:
    """What an assignment is, wherever its part stands."""
    return selection.entry if not selection.below else (selection.entry, *map(_entries, selection.below))


__all__ = ["Fitting", "Table"]
