"""How many assignments there are, draws from them, and figures as sums over parts.

Where the header's settings are few, each is a root, and below a root numbers of assignments multiply over parts beside each other and add over
alternatives. Limits on figures that are sums over parts (parameters, multiply-accumulates, counts) are counted by dynamic programming: for each
part, how many of its assignments come to each sum. Drawing walks the same numbers backwards, so that every assignment is as likely as any other.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from math import ceil, floor, isfinite
from numbers import Rational
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.search.climb import Climb
from archdsl.search.domains import draw
from archdsl.search.figures import HOLDS, Figure, Limit
from archdsl.search.selection import Selection, descend
from archdsl.search.sums import COUNTERS
from archdsl.search.tree import Entry, Part, Refused, Root, TooMany
from archdsl.search.ways import Cells, Sums, Test, Vector, Ways, Window

if TYPE_CHECKING:
    from archdsl.search.fitting import Table
    from archdsl.search.space import Drawn, SearchSpace

Bound = tuple[Figure, str, Any]
"""A figure, a comparison, and the other side's number."""
EXACT = 64
"""With so many settings of the header, draws are exact: all are gone through before the first."""
COUNTED = 4_096
"""So many settings of the header are gone through to count."""
EACH = 256
"""So many assignments are looked at one by one where a limit is no sum over parts."""
ATTEMPTS = 3_000
"""So many draws are tried before a space is given up."""
PLAIN = 300
"""Behind so many that failed, a candidate is looked for from those that break the limits by little."""
FEW = 4_096
"""Where draws are not exact, so many different sums below a setting of the header are told apart."""
CELLS = (500, 60, 15)
"""Else so many cells lie below the bound of one limited figure, of two, and of more."""
TOGETHER = 30_000_000
"""So many additions count the assignments below all settings of the header."""
SWEPT = 512
"""So many settings of the header are gone through where no draw fitted: each is kept by the space."""
CHECKED = 200
"""So many assignments of cells are then checked below each."""


class Counted:
    """The counting structure of a space. `sums`: the limits on sums over parts; `others`: those that need the candidate, or its header alone.
    `tables`: what repairs know of parts."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        additive = [] if space.transforms else [n for n in space.limits if n.test is not None and (n.test[0].additive or n.test[0].is_state)]
        self.sums: list[Limit] = additive
        self.others = [n for n in space.limits if n not in additive]
        self.asked = list({n.test[0].text: n.test[0] for n in additive if n.test is not None}.values())
        self.places = list(accumulate((3 if f.is_state else 1 for f in self.asked), initial=0))
        self.exact = Ways(self._own, self.places[-1])
        self.few = Ways(self._own, self.places[-1], FEW)
        self.light = [f for f in self.asked if not f.is_state]
        self.quick = Ways(lambda part, entry: self._figures(part, entry, self.light), len(self.light), FEW)
        self.cells: dict[Vector, Cells] = {}
        self.tables: dict[Any, Table] = {}
        self.climb = Climb(space)
        self.deep = False
        self.why = ""

    # ---------------------------------------------------------------- numbers
    @cached_property
    def roots(self) -> list[tuple[Root, int]] | None:
        """All settings of the header with the number of assignments below, where draws are exact; None where they are not."""
        count = self.space.header.count
        return self._all() if count is not None and count <= EXACT else None

    @cached_property
    def shares(self) -> list[int] | None:
        """How many assignments lie below each setting of the header, where draws are exact."""
        return None if self.roots is None else [n for _, n in self.roots]

    def _all(self) -> list[tuple[Root, int]] | None:
        found: list[tuple[Root, int]] = []
        try:
            for values in self.space.header.settings():
                found.append(self.of_root(self.space.root(values)))
                if self.exact.made > TOGETHER:
                    raise TooMany(f"more than {TOGETHER:,} additions lead to the sums below the header's settings")
        except TooMany as fault:
            self.why = str(fault)
            return None
        return found

    @cached_property
    def size(self) -> int | None:
        if self.shares is not None:
            return sum(self.shares)
        count = self.space.header.count
        if count is None or count > COUNTED or count <= EXACT:
            return None
        found = self._all()
        return None if found is None else sum(n for _, n in found)

    def save(self) -> dict[str, Any] | None:
        """The numbers as JSON, or why there are none; None before they were asked for. (In hexadecimal: Python reads no decimal of any length.)"""
        known: int | None = self.__dict__.get("size", ...)
        if known is ...:
            return None
        shares = None if self.shares is None else list(map(hex, self.shares))
        return {"size": None if known is None else hex(known), "why": self.why, "shares": shares}

    def load(self, told: dict[str, Any]) -> None:
        """What `save` gave for the same space: nothing is counted again but below the settings of the header that draws come to."""
        self.__dict__["size"] = None if told["size"] is None else int(told["size"], 16)
        if told.get("shares") is not None:
            self.__dict__["shares"] = [int(n, 16) for n in told["shares"]]
        if told["size"] is None:
            self.why, self.__dict__["roots"] = told["why"], None

    @property
    def bounds(self) -> tuple[int, int | None, str]:
        if self.size is not None:
            return self.size, self.size, ""
        count, space = self.space.header.count, self.space
        least = 1 if space.accepted or self.climb.found else 0
        if count is None:
            endless = [n for n in space.header.names if space.header.endless(n)]
            return least, None, f"the domain of `{endless[0]}` is continuous" if endless else "the header's settings are too many to weigh"
        if count > COUNTED:
            return least, None if self.deep else count, f"the domains allow {count:,} settings of the header, each of which may break a condition"
        return least, None, self.why

    @property
    def uniform(self) -> bool:
        return self.shares is not None or self.space.header.weighed and not self.deep

    def of_root(self, root: Root) -> tuple[Root, int]:
        """A setting of the header with its parts as they are, and how many assignments it has. Raises TooMany."""
        return (root, 0) if root.faults else root.settled(lambda r: (r, self._of_root(r)))

    def _of_root(self, root: Root) -> int:
        if not root.top.count:
            return 0
        if any(n.figures or n.addresses for n in self.others) or self.space.transforms:
            return len(self._each(root))
        if not all(self._by_header(root, n) for n in self.others):
            return 0
        return root.top.count if not self.asked else sum(self._kept(root).values())

    def _by_header(self, root: Root, limit: Limit) -> bool:
        if limit not in root.verdicts:
            root.verdicts[limit] = limit.holds(self.space.spec, self._base(root), {}, root.header_values)
        return root.verdicts[limit]

    def _base(self, root: Root) -> Any:
        return self.space.source(root.top.entries[0].made)

    def _each(self, root: Root) -> list[Drawn]:
        """The candidates below a root, one by one. Raises TooMany."""
        known = root.verdicts.get("each")
        if known is None:
            for n in self.others:
                if any(f.is_measured for f in n.figures):
                    raise TooMany(f"`{n.text}` is measured, candidate by candidate")
            if root.top.count > EACH:
                raise TooMany(f"`{next(n.text for n in self.others if n.figures or n.addresses)}` is no limit on a sum over parts"
                              if not self.space.transforms else "each candidate has to be transformed")
            found = [self.space.finished(s) for s in every(root.top)]
            known = root.verdicts["each"] = [c for c in found if not isinstance(c, Refused)]
        return known

    # ---------------------------------------------------------------- sums
    def _kept(self, root: Root) -> Sums:
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
                             for n in self.sums if n.test is not None and not n.test[0].is_state]
        try:
            return not self.quick.within(root.top, tests, None)
        except TooMany:
            return False

    def _tests(self, root: Root) -> list[Test]:
        at = {f.text: i for f, i in zip(self.asked, self.places)}
        found: list[Test] = []
        for n in self.sums:
            assert n.test is not None
            found.append((self._read(root, n.test[0], at[n.test[0].text]), HOLDS[n.test[1]], self.bound(root, n)))
        return found

    def bound(self, root: Root, limit: Limit) -> Any:
        if limit not in root.verdicts:
            root.verdicts[limit] = limit.bound(self.space.spec, self._base(root))
        return root.verdicts[limit]

    def compared(self, root: Root) -> list[Bound]:
        """Which figures limits on sums compare with numbers, how, and with which."""
        found = [(n.test[0], n.test[1], self.bound(root, n)) for n in self.sums if n.test is not None and n.test[1] != "!="]
        return [b for b in found if isinstance(b[2], Rational) or isinstance(b[2], float) and isfinite(b[2])]

    def _window(self, root: Root) -> Window | None:
        """Between which numbers (None: no end) the first limited figure lies that is one number of a sum, and its place there."""
        found: Window | None = None
        for n in self.sums:
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

    # ---------------------------------------------------------------- where draws are not exact
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

    @cached_property
    def empty(self) -> bool:
        """Whether it is proved that there is no candidate."""
        if self.shares is not None:
            return not any(self.shares)
        return self._sweepable and all(root.faults or root.settled(self._is_empty) for root in map(self.space.root, self.space.header.settings()))

    @property
    def _sweepable(self) -> bool:
        return self.space.header.count is not None and self.space.header.count <= SWEPT

    def _is_empty(self, root: Root) -> bool:
        try:
            if not root.top.count:
                return True
            if not all(self._by_header(root, n) for n in self.others if not n.figures and not n.addresses):
                return True
        except TooMany:
            return False
        found = self.narrowed(root)
        return found is not None and not found[1]

    # ---------------------------------------------------------------- drawing
    def find(self, rng: Random) -> Drawn | None:
        """A draw; None where there is no candidate, or none was found in so many tries."""
        space = self.space
        if self.shares is not None:
            return self._exactly(rng)
        tries = 0
        while tries < ATTEMPTS:
            tries += 1
            space.drawn += 1
            found = self.attempt(rng)
            if not isinstance(found, Refused):
                space.accepted += 1
                return found
            if tries == PLAIN and space.limits:
                before = self.climb.looked
                if (nearer := self.climb.find(rng)) is not None:
                    self.deep = True
                    return nearer
                tries += self.climb.looked - before
        return self._swept(rng)

    @cached_property
    def _steps(self) -> list[int]:
        return list(accumulate(self.shares or ()))

    @cached_property
    def _settings(self) -> list[dict[str, Any]]:
        return list(self.space.header.settings())

    def _below_setting(self, at: int) -> Root:
        """The setting of the header with this number, where draws are exact."""
        known = self.__dict__.get("roots")
        return (self.of_root(self.space.root(self._settings[at])) if known is None else known[at])[0]

    def _exactly(self, rng: Random) -> Drawn | None:
        if not self._steps or not self._steps[-1]:
            return None
        space = self.space
        at = rng.randrange(self._steps[-1])
        root = self._below_setting(bisect_right(self._steps, at))
        space.drawn += 1
        space.accepted += 1
        if any(n.figures or n.addresses for n in self.others) or space.transforms:
            each = self._each(root)
            return each[rng.randrange(len(each))]
        if not self.asked:
            return space.drawn_as(uniform(root.top, rng))
        kept = self._kept(root)
        return space.drawn_as(self.exact.drawn(root.top, kept, rng))

    def _swept(self, rng: Random) -> Drawn | None:
        """A candidate where draws found none: all settings of the header are gone through from one on, where they are few."""
        if not self.asked or not self._sweepable:
            return None
        settings = list(self.space.header.settings())
        at = rng.randrange(len(settings))
        for values in (*settings[at:], *settings[:at]):
            root = self.space.root(values)
            found = None if root.faults else root.settled(lambda r: self._checked(r, rng))
            if found is not None:
                return found
        return None

    def _checked(self, root: Root, rng: Random) -> Drawn | None:
        space = self.space
        if self._is_empty(root) or root.top.many or (near := self.narrowed(root)) is None:
            return None
        for _ in range(CHECKED):
            space.drawn += 1
            found = space.finished(near[0].drawn(root.top, near[1], rng))
            if not isinstance(found, Refused):
                space.accepted += 1
                return found
        return None

    def attempt(self, rng: Random) -> Drawn | Refused:
        """One draw of the header and of what is below."""
        space = self.space
        values = space.header.sample(rng)
        if len(values) < len(space.header.names):
            return Refused(())
        root = space.root(values)
        if root.faults:
            return Refused(tuple(root.faults))
        selection = root.settled(lambda r: self._below(r, rng))
        return selection if isinstance(selection, Refused) else space.finished(selection)

    def below(self, root: Root, rng: Random) -> Selection | Refused:
        """A draw below a setting of the header; where none keeps the limits on sums, one of all assignments."""
        if root.faults:
            return Refused(tuple(root.faults))
        found = root.settled(lambda r: self._below(r, rng))
        if not isinstance(found, Refused):
            return found
        return root.settled(lambda r: uniform(r.top, rng) if not r.top.many and r.top.count else found)

    def _below(self, root: Root, rng: Random) -> Selection | Refused:
        try:
            if not root.top.count:
                return root.top.refused[0] if root.top.refused else Refused(())
            self.deep = self.deep or root.top.count > 1
            near = self.narrowed(root)
            if near is None:
                return uniform(root.top, rng)
            return near[0].drawn(root.top, near[1], rng) if near[1] else Refused(())
        except TooMany:
            self.deep = True
            return descend(root.top, lambda _, domain: draw(domain, rng))


def in_units(bounds: Sequence[Bound], cells: Sequence[int]) -> tuple[list[Figure], tuple[int, ...]]:
    """The figures of bounds, and the units they are rounded to. `cells`: how many lie below the greatest bound of one figure, of each of two, of each
    of more."""
    figures = list({f.text: f for f, _, _ in bounds}.values())
    share = cells[min(len(figures), len(cells)) - 1]
    return figures, tuple([max(1, int(max(abs(b) for g, _, b in bounds if g.text == f.text)) // share) for f in figures])


def uniform(part: Part, rng: Random, path: str = "") -> Selection:
    """Each assignment as likely as the others; there must be one. Raises TooMany."""
    steps = part.steps_of_entries
    entry = part.entries[bisect_right(steps, rng.randrange(steps[-1]))]
    return Selection(part, path, entry, tuple([uniform(inner, rng, f"{path}{p}.") for p, inner in entry.parts]))


def every(part: Part, path: str = "") -> Iterator[Selection]:
    """All assignments of a part."""
    def combined(entry: Entry, i: int) -> Iterator[tuple[Selection, ...]]:
        if i == len(entry.parts):
            yield ()
            return
        p, inner = entry.parts[i]
        for first in every(inner, f"{path}{p}."):
            for rest in combined(entry, i + 1):
                yield (first, *rest)

    for entry in part.entries:
        for below in combined(entry, 0):
            yield Selection(part, path, entry, below)


__all__ = ["Bound", "Counted", "every", "in_units", "uniform"]
