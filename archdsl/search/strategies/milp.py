"""Exact assignment as a strategy: measure each option alone, then choose all of them at once."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.declared import wrong_option
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.domains import same
from archdsl.lazy import np
from archdsl.records import record
from archdsl.search.model import Candidate, Proposal
from archdsl.search.registry import strategy
from archdsl.search.strategies import encoding
from archdsl.search.strategies.assignment import Assignment, assign
from archdsl.search.strategies.base import Base, Member
from archdsl.search.strategies.errors import needed, unfit
from archdsl.search.strategies.plain import positive

FRUITLESS = 50
"""So many solutions in a row that the space does not allow, or that were proposed before: the search ends."""
SLACK = 1e-9


@record(frozen=True)
class Site:
    """A decision that is assigned, or an item of a list: its values, and for each the key and the costs of the base with this one change."""

    slot: encoding.Slot
    values: tuple[Any, ...]
    keys: tuple[str, ...]
    costs: tuple[tuple[float, ...], ...]


@strategy("milp(budgets: [str] = [], seconds: float = 10.0, batch: int = 64)", source="Bercovich et al. 2024 (Puzzle), arxiv 2411.19146, section 4")
class Milp(Base):
    """Exact assignment where scores add over sites: first the spec's defaults and each single change of them are evaluated, then a mixed-integer
    program (HiGHS) chooses one option for every site, and the solution is evaluated; then the next best one, and so on. With several objectives the
    first is minimised under limits on the others, drawn between their least values and those at the best of the first, until that gives nothing new.
    Sites are the decisions that are active at the defaults, continuous ones apart; a value that is not valid beside the defaults is not an option.

    `budgets`: limits on costs of the space that add over sites too, `["params <= 30000000", "macs(T=2048) <= 5000000000"]`; a solution beyond one is
    passed over. `seconds`: the longest time for one program. `batch`: proposals in a round.
    """

    def __init__(self, budgets: Sequence[str] = (), seconds: float = 10.0, batch: int = 64) -> None:
        self.limits = [_limit(text) for text in budgets]
        if seconds <= 0:
            raise wrong_option("A0812", "seconds", seconds, "above 0")
        self.seconds, self.batch = seconds, positive("batch", batch)

    def begin(self) -> None:
        needed("highspy", "highspy", "milp")
        self.names = [name for name, _ in self.limits]
        self.base = self.space.candidate({})
        self.base_costs = self._costs(self.base)
        self.single: list[Candidate] = [self.base]
        self.sites = [s for slot in encoding.slots(self.space.decisions(self.base)) if slot.domain.size is not None for s in self._site(slot)]
        if len(self.single) >= self.budget:
            raise unfit("milp", f"its table takes {len(self.single):,} evaluations of the {self.budget:,}", f"a budget of {2 * len(self.single):,}")
        self.table: dict[str, tuple[float, ...]] = {}
        self.wanted = {c.key for c in self.single}
        self.asked = 0
        self.out: list[list[int]] = []

    def _costs(self, candidate: Candidate) -> tuple[float, ...]:
        found = self.space.costs(candidate, self.names) if self.names else {}
        return tuple(found[n] for n in self.names)

    def _site(self, slot: encoding.Slot) -> list[Site]:
        """The options of a decision that are valid alone; none: it has no other value than its default."""
        kept: list[tuple[Any, str, tuple[float, ...]]] = []
        address, *path = slot.path
        for value in slot.domain:
            try:
                changed = self.space.candidate({address: encoding.written(self.base[address], path, value)})
            except ArchError:
                continue  # not valid beside the defaults
            kept.append((value, changed.key, self._costs(changed)))
            if all(c.key != changed.key for c in self.single):
                self.single.append(changed)
        values, keys, costs = zip(*kept)
        return [Site(slot, values, keys, costs)] if len(values) > 1 else []

    # ---------------------------------------------------------------- proposing
    def propose(self, n: int) -> list[Proposal]:
        """The table makes rounds of its own: what comes behind it depends on it."""
        left = len(self.single) - self.asked
        return super().propose(min(n, left) if left else n)

    def next(self) -> Proposal | None:
        while self.asked < len(self.single):
            self.asked += 1
            candidate = self.single[self.asked - 1]
            if self.memory.add(candidate.key):
                return Proposal(candidate, origin="table")
        if self.base.key not in self.table:
            return self.new(self.sample)  # the defaults failed, or are not evaluated yet
        for _ in range(FRUITLESS):
            candidate = self._solution()
            if candidate is not None and self.memory.add(candidate.key):
                return Proposal(candidate, origin="solution")
        return None

    def _solution(self) -> Candidate | None:
        """The next assignment as a candidate; None where there is none, or it is not allowed."""
        known = [[i for i, key in enumerate(site.keys) if key in self.table] for site in self.sites]
        gain = [[np.subtract(self.table[site.keys[i]], self.table[self.base.key]) for i in at] for site, at in zip(self.sites, known)]
        extra = [[np.subtract(site.costs[i], self.base_costs) for i in at] for site, at in zip(self.sites, known)]
        out = [[at.index(i) for at, i in zip(known, chosen)] for chosen in self.out if all(i in at for at, i in zip(known, chosen))]
        found = self._solved(gain, extra, out)
        if found is None:
            return None
        chosen = [at[i] for at, i in zip(known, found.options)]
        candidate = self._candidate(chosen)
        if candidate is None or len(self.objectives) == 1:
            self.out.append(chosen)
        return candidate

    def _candidate(self, chosen: Sequence[int]) -> Candidate | None:
        """Of an assignment; None where the space or a budget does not allow it."""
        values: dict[str, Any] = dict(self.base)
        for site, i in zip(self.sites, chosen):
            address, *path = site.slot.path
            values[address] = encoding.written(values[address], path, site.values[i])
        try:
            candidate = self._built(values)
        except ArchError:
            return None
        return candidate if all(c <= limit * (1 + SLACK) for c, (_, limit) in zip(self._costs(candidate), self.limits)) else None

    def _built(self, values: Mapping[str, Any]) -> Candidate:
        """All of the values; where that cannot be, those that a changed branch leaves without a place are taken out."""
        changed = {a: v for a, v in values.items() if not same(v, self.base[a])}
        try:
            return self.space.candidate(changed)
        except ArchError:
            kept: dict[str, Any] = {}
            for address, value in changed.items():  # in the order of the spec: what a branch holds comes behind it
                if address in self.space.candidate(kept):
                    kept[address] = value
            return self.space.candidate(kept)

    def _solved(self, gain: Sequence[Sequence[Any]], extra: Sequence[Sequence[Any]], out: Sequence[Sequence[int]]) -> Assignment | None:
        part = lambda table, k: [[float(g[k]) for g in row] for row in table]
        costs = [part(extra, k) for k in range(len(self.limits))]
        room = [limit - base for (_, limit), base in zip(self.limits, self.base_costs)]
        first, others = part(gain, 0), [part(gain, k) for k in range(1, len(self.objectives))]
        if others:
            best = assign(first, costs, room, seconds=self.seconds)
            if best is None:
                return None
            for other in others:
                low, high = sum(map(min, other)), sum(row[i] for row, i in zip(other, best.options))
                room.append(low + self.random.random() * max(high - low, 0.0))
        return assign(first, [*costs, *others], room, without=out, seconds=self.seconds)

    # ---------------------------------------------------------------- learning, state
    def learn(self, member: Member) -> None:
        if member.candidate.key in self.wanted:
            self.table[member.candidate.key] = member.scores

    def save(self) -> dict[str, Any]:
        return {"asked": self.asked, "table": {k: list(v) for k, v in self.table.items()}, "out": self.out}

    def load(self, state: Mapping[str, Any]) -> None:
        self.asked, self.out = state["asked"], [list(o) for o in state["out"]]
        self.table = {k: tuple(v) for k, v in state["table"].items()}


def _limit(text: str) -> tuple[str, float]:
    """`params <= 30e6` as (name, number). Raises A0812."""
    found = re.fullmatch(r"\s*(.+?)\s*<=\s*(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*", text)
    if found is None:
        raise wrong_option("A0812", "budgets", text, "a budget is written `params <= 30000000`")
    return found[1], float(found[2])
