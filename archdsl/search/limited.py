"""Limits on figures that are sums over parts: which sums below a setting of the header keep them, and with how many assignments."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import ceil, floor, isfinite
from numbers import Rational
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.search.figures import HOLDS, Figure, Limit
from archdsl.search.sums import COUNTERS
from archdsl.search.tree import Entry, Part, Root, TooMany
from archdsl.search.ways import Cells, Sums, Test, Vector, Ways, Window

if TYPE_CHECKING:
    from archdsl.search.space import SearchSpace

Bound = tuple[Figure, str, Any]
"""A figure, a comparison, and the other side's number."""
FEW = 4_096
"""Where draws are not exact, so many different sums below a setting of the header are told apart."""
CELLS = (500, 60, 15)
"""Else so many cells lie below the bound of one limited figure, of two, and of more."""


class Limited:
    """Of a space. `limits`: those that compare such a figure with what the header decides; `asked`: the figures; `places`: where their numbers stand
    in a sum. `exact`: all sums, `few`: as many as are told apart where draws are not exact."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        tests = [] if space.transforms else [(n, n.test[0]) for n in space.limits if n.test is not None]
        self.limits: list[Limit] = [n for n, f in tests if f.additive or f.is_state]
        self.asked = list({n.test[0].text: n.test[0] for n in self.limits if n.test is not None}.values())
        self.places = list(accumulate((3 if f.is_state else 1 for f in self.asked), initial=0))
        self.exact = Ways(self._own, self.places[-1])
        self.few = Ways(self._own, self.places[-1], FEW)
        self.light = [f for f in self.asked if not f.is_state]
        self.quick = Ways(lambda part, entry: self._figures(part, entry, self.light), len(self.light), FEW)
        self.cells: dict[Vector, Cells] = {}

    def kept(self, root: Root) -> Sums:
        """The sums within the limits, each with its number of assignments. Raises TooMany."""
        known = root.verdicts.get("kept")
        if known is None:
            known = root.verdicts["kept"] = {} if self._ruled_out(root) else self.exact.within(root.top, self._tests(root), self._window(root))
        return known

    def _ruled_out(self, root: Root) -> bool:
        """Whether limits on other figures than bytes of the state leave nothing. They are read first: a state takes the model in the form `step`."""
        if not 0 < len(self.light) < len(self.asked):
            return False
        at = {f.text: i for i, f in enumerate(self.light)}
        tests: list[Test] = [(itemgetter(at[n.test[0].text]), HOLDS[n.test[1]], self.bound(root, n))
                             for n in self.limits if n.test is not None and not n.test[0].is_state]
        try:
            return not self.quick.within(root.top, tests, None)
        except TooMany:
            return False

    def _tests(self, root: Root) -> list[Test]:
        at = {f.text: i for f, i in zip(self.asked, self.places)}
        found: list[Test] = []
        for n in self.limits:
            assert n.test is not None
            found.append((self._read(root, n.test[0], at[n.test[0].text]), HOLDS[n.test[1]], self.bound(root, n)))
        return found

    def bound(self, root: Root, limit: Limit) -> Any:
        if limit not in root.verdicts:
            root.verdicts[limit] = limit.bound(self.space.spec, self.space.source(root.top.entries[0].made))
        return root.verdicts[limit]

    def compared(self, root: Root) -> list[Bound]:
        """Which figures limits on sums compare with numbers, how, and with which."""
        found = [(n.test[0], n.test[1], self.bound(root, n)) for n in self.limits if n.test is not None and n.test[1] != "!="]
        return [b for b in found if isinstance(b[2], Rational) or isinstance(b[2], float) and isfinite(b[2])]

    def _window(self, root: Root) -> Window | None:
        """Between which numbers (None: no end) the first limited figure lies that is one number of a sum, and its place there."""
        found: Window | None = None
        for n in self.limits:
            assert n.test is not None
            asked, op, _ = n.test
            at, bound = self.places[[f.text for f in self.asked].index(asked.text)], self.bound(root, n)
            if asked.is_state or op == "!=" or found is not None and found[0] != at:
                continue
            _, low, high = found or (at, None, None)
            if op in (">", ">=", "=="):
                low = bound if low is None else max(low, bound)
            if op in ("<", "<=", "=="):
                high = bound if high is None else min(high, bound)
            found = at, low, high
        return found

    def _read(self, root: Root, asked: Figure, at: int) -> Callable[[Vector], Any]:
        """The figure that a sum stands for: of a state its own tensors, and each counter that is needed at least once."""
        if not asked.is_state:
            return lambda v: v[at]
        first, second = self.space.sums.share(root.top, root.top.entries[0], asked).each
        return lambda v: v[at] + (first if v[at + 1] or not (v[at] or v[at + 2]) else 0) + (second if v[at + 2] else 0)

    def _own(self, part: Part, entry: Entry) -> Vector:
        """What an entry adds. Raises TooMany where an assignment does not have a figure, or its parts do not tell."""
        return self._figures(part, entry, self.asked)

    def _figures(self, part: Part, entry: Entry, asked: Sequence[Figure]) -> Vector:
        found: list[Any] = []
        try:
            for f in asked:
                if not f.is_state:
                    found.append(self.space.sums.own(part, entry, f))
                    continue
                share = self.space.sums.share(part, entry, f)
                if not share.apart:
                    raise TooMany(f"`{f.text}` is no sum over parts of this model")
                found += [share.bytes, *(int(c in share.needs) for c in COUNTERS)]
        except ArchError:
            raise TooMany("some assignments do not have a figure that is limited") from None
        return tuple(found)

    # ---------------------------------------------------------------- where these are too many
    def narrowed(self, root: Root) -> tuple[Ways, Sums] | None:
        """What may keep the limits on sums below a setting of the header that has assignments: the sums that do, or the cells that these may lie in.
        None where that is not known."""
        if "narrowed" not in root.verdicts:
            found = None
            for make in (self._told_apart, self._in_cells) if self.asked else ():
                try:
                    found = make(root)
                    break
                except TooMany:
                    continue
            root.verdicts["narrowed"] = found
        return root.verdicts["narrowed"]

    def _told_apart(self, root: Root) -> tuple[Ways, Sums]:
        return self.few, {} if self._ruled_out(root) else self.few.within(root.top, self._tests(root), self._window(root))

    def _in_cells(self, root: Root) -> tuple[Ways, Sums] | None:
        """Of all limits but those on bytes of the state. The unit of a figure is a share of its greatest bound."""
        bounds = [b for b in self.compared(root) if not b[0].is_state]
        if not bounds:
            return None
        figures, units = in_units(bounds, CELLS)
        index = {f.text: i for i, f in enumerate(figures)}
        at = *index, *units
        if at not in self.cells:
            if len(self.cells) >= len(CELLS):
                self.cells.pop(next(iter(self.cells)))
            self.cells[at] = Cells(lambda part, entry: self._figures(part, entry, figures), units)
        cells = self.cells[at]
        errors, tests = cells.errors(root.top), list[Test]()
        window: Window = 0, None, None
        for f, op, bound in bounds:
            i = index[f.text]
            if op in (">", ">=", "=="):
                least = ceil((bound - errors[i][1]) / units[i])
                tests.append((lambda v, i=i: v[i], HOLDS[">="], least))
                window = (0, least if window[1] is None else max(window[1], least), window[2]) if i == 0 else window
            if op in ("<", "<=", "=="):
                most = floor((bound - errors[i][0]) / units[i])
                tests.append((lambda v, i=i: v[i], HOLDS["<="], most))
                window = (0, window[1], most if window[2] is None else min(window[2], most)) if i == 0 else window
        return cells, cells.within(root.top, tests, window)


def in_units(bounds: Sequence[Bound], cells: Sequence[int]) -> tuple[list[Figure], tuple[int, ...]]:
    """The figures of bounds, and the units they are rounded to. `cells`: how many lie below the greatest bound of one figure, of each of two, of each
    of more."""
    figures = list({f.text: f for f, _, _ in bounds}.values())
    share = cells[min(len(figures), len(cells)) - 1]
    return figures, tuple([max(1, int(max(abs(b) for g, _, b in bounds if g.text == f.text)) // share) for f in figures])


__all__ = ["Bound", "Limited", "in_units"]
