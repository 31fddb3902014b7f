"""Draws where few settings of the header keep the limits: from what breaks them by little to what breaks them by less, a few decisions at a time."""
from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.search.domains import another, nearest, neighbour
from archdsl.search.tree import Refused

if TYPE_CHECKING:
    from archdsl.search.figures import Limit
    from archdsl.search.space import Drawn, SearchSpace

STARTS = 8
"""So often it begins anew, each time at the best of as many draws of the header."""
PATIENCE = 300
"""So many steps in a row that come no nearer than before end a climb."""
MEMORY = 30
"""A step is taken where it is no worse than where the climb stood so many steps ago (late acceptance, Burke and Bykov 2017)."""
Off = tuple[float, float]
"""By how much limits are broken: those on bytes of the state last. These are read where all others hold, for they take the model in another form."""
FAR: Off = float("inf"), float("inf")


class Climb:
    """`looked`: at so many settings of the header; `found`: so many candidates; `nearest`: by how much what breaks the limits least does so, and its
    limited figures by their text."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self.looked, self.found = space, 0, 0
        self.nearest: tuple[Off, dict[str, Any]] = FAR, {}

    def find(self, rng: Random) -> Drawn | None:
        """A candidate; None where no climb ended at one."""
        for _ in range(STARTS):
            found = self._climbed(rng)
            if found is not None:
                self.found += 1
                return found
        return None

    def _climbed(self, rng: Random) -> Drawn | None:
        here: Mapping[str, Any] = {}
        off = FAR
        key = self.space.spec.session.key
        seen: set[Any] = set()
        for _ in range(STARTS):
            values = self.space.header.sample(rng)
            seen.add(tuple([key(v) for v in values.values()]))
            new, found = self._look(values, rng)
            if found is not None:
                return found
            if not here or new < off:
                here, off = values, new
        before, least, vain = deque([off] * MEMORY), off, 0
        while vain < PATIENCE:
            vain += 1
            values = self._moved(here, rng)
            if values is None or (at := tuple([key(v) for v in values.values()])) in seen:
                continue
            seen.add(at)
            new, found = self._look(values, rng)
            if found is not None:
                return found
            if new < least:
                least, vain = new, 0
            if new <= max(off, before.popleft()):
                here, off = values, new
            before.append(off)
        return None

    def _moved(self, here: Mapping[str, Any], rng: Random) -> dict[str, Any] | None:
        """One decision of the header changed, or several: two with probability 1/2, three with 1/4 …; the others stay as far as domains let them."""
        names = [n for n in self.space.header.order if n in here]
        count = 1
        while count < len(names) and rng.random() < 0.5:
            count += 1
        chosen = set(rng.sample(names, count)) if names else set()
        values: dict[str, Any] = {}
        for n in names:
            domain = self.space.header.domain(n, values)
            if domain.kind == "unreadable":
                return None
            value = nearest(domain, here[n], rng)
            values[n] = (another if rng.randrange(2) else neighbour)(domain, value, rng) if n in chosen else value
        return values

    def _look(self, values: Mapping[str, Any], rng: Random) -> tuple[Off, Drawn | None]:
        """By how much a draw below a setting of the header breaks the limits; itself where it breaks none."""
        space = self.space
        self.looked += 1
        if len(values) < len(space.header.names):
            return FAR, None
        selection = space.counted.below(space.root(values), rng)
        if isinstance(selection, Refused):
            return FAR, None
        try:
            found = space.drawn_as(selection)
        except ArchError:
            return FAR, None
        last = [n.test is not None and n.test[0].is_state for n in space.limits]
        first = sum(self._off(n, found) for n, state in zip(space.limits, last) if not state)
        off = first, FAR[1] if first else sum(self._off(n, found) for n, state in zip(space.limits, last) if state)
        if not any(off):
            return off, found
        if off < self.nearest[0]:
            self.nearest = off, {n.test[0].text: space.figure(found, n.test[0]) for n in space.limits if n.test is not None}
        return off, None

    def _off(self, limit: Limit, candidate: Drawn) -> float:
        """0 where the limit holds; of a comparison with a bound, the distance from it as a share of it; else 1."""
        if self.space.holds(limit, candidate):
            return 0.0
        if limit.test is None:
            return 1.0
        try:
            value = self.space.figure(candidate, limit.test[0])
        except ArchError:
            return FAR[0]
        bound = candidate.selection.part.root.verdicts[limit]
        return max(float(abs(value - bound) / max(1, abs(bound))), 1e-12)


__all__ = ["Climb"]
