"""How many assignments there are, draws from them, and figures as sums over parts.

Where the header's settings are few, each is a root, and below a root numbers of assignments multiply over parts beside each other and add over
alternatives. Limits on figures that are sums over parts (parameters, multiply-accumulates, counts) are counted by dynamic programming: for each
part, how many of its assignments come to each sum. Drawing walks the same numbers backwards, so that every assignment is as likely as any other.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.search.climb import Climb
from archdsl.search.contrary import contrary
from archdsl.search.domains import draw
from archdsl.search.figures import Limit
from archdsl.search.header import decides_below
from archdsl.search.limited import Limited
from archdsl.search.selection import Selection, descend
from archdsl.search.tree import Entry, Part, Refused, Root, TooMany

if TYPE_CHECKING:
    from archdsl.search.fitting import Table
    from archdsl.search.space import Drawn, SearchSpace

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
TOGETHER = 30_000_000
"""So many additions count the assignments below all settings of the header."""
SWEPT = 512
"""So many settings of the header are gone through where no draw fitted: each is kept by the space."""
CHECKED = 200
"""So many assignments of cells are then checked below each."""


class Counted:
    """The counting structure of a space. `limited`: its limits on sums over parts; `others`: those that need the candidate, or its header alone.
    `tables`: what repairs know of parts."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.limited = Limited(space)
        self.others = [n for n in space.limits if n not in self.limited.limits]
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
                if self.limited.exact.made > TOGETHER:
                    raise TooMany(f"more than {TOGETHER:,} additions lead to the sums below the header's settings")
        except TooMany as fault:
            self.why = str(fault)
            return None
        return found

    @cached_property
    def contrary(self) -> list[Limit]:
        return contrary(self.space)

    @cached_property
    def size(self) -> int | None:
        if self.contrary:
            return 0
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
            most = None if decides_below(space.spec, space.variant) else count
            return least, most, f"the domains allow {count:,} settings of the header, each of which may break a condition"
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
        return root.top.count if not self.limited.asked else sum(self.limited.kept(root).values())

    def _by_header(self, root: Root, limit: Limit) -> bool:
        if limit not in root.verdicts:
            root.verdicts[limit] = limit.holds(self.space.spec, self.space.source(root.top.entries[0].made), {}, root.header_values)
        return root.verdicts[limit]

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

    # ---------------------------------------------------------------- whether there is one
    @cached_property
    def empty(self) -> bool:
        """Whether it is proved that there is no candidate."""
        if self.contrary:
            return True
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
        found = self.limited.narrowed(root)
        return found is not None and not found[1]

    # ---------------------------------------------------------------- drawing
    def find(self, rng: Random) -> Drawn | None:
        """A draw; None where there is no candidate, or none was found in so many tries."""
        space = self.space
        if self.contrary:
            return None
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
        if not self.limited.asked:
            return space.drawn_as(uniform(root.top, rng))
        kept = self.limited.kept(root)
        return space.drawn_as(self.limited.exact.drawn(root.top, kept, rng))

    def _swept(self, rng: Random) -> Drawn | None:
        """A candidate where draws found none: all settings of the header are gone through from one on, where they are few."""
        if not self.limited.asked or not self._sweepable:
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
        if self._is_empty(root) or root.top.many or (near := self.limited.narrowed(root)) is None:
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
            near = self.limited.narrowed(root)
            if near is None:
                return uniform(root.top, rng)
            return near[0].drawn(root.top, near[1], rng) if near[1] else Refused(())
        except TooMany:
            self.deep = True
            return descend(root.top, lambda _, domain: draw(domain, rng))


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


__all__ = ["Counted", "every", "uniform"]
