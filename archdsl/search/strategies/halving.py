"""Successive halving and Hyperband: many candidates at little effort, the better ones again at more."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.declared import wrong_option
from archdsl.records import field, record
from archdsl.search.model import Proposal, Trial
from archdsl.search.registry import strategy
from archdsl.search.strategies.base import Base, Member
from archdsl.search.strategies.fronts import order
from archdsl.search.strategies.plain import positive


@record()
class Bracket:
    """`rungs`: (how many candidates, at what fidelity), cheap ones first. `rung`: which one is under way, `due`: its proposals that are not made yet,
    `open`: proposals made and not evaluated, `done`: those evaluated."""

    rungs: list[tuple[int, float]]
    rung: int = 0
    due: list[Member | None] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    done: list[Member] = field(default_factory=list)


class Rungs(Base):
    """Brackets one after the other. A rung is a round; while one is being evaluated the next bracket begins."""

    def __init__(self, eta: int, lowest: float, batch: int) -> None:
        if eta < 2:
            raise wrong_option("A0812", "eta", eta, "at least 2, so that each rung is smaller than the one below")
        if not 0 < lowest <= 1:
            raise wrong_option("A0812", "lowest", lowest, "a share of the full effort, above 0 and at most 1")
        self.eta, self.lowest, self.batch = eta, lowest, positive("batch", batch)
        self.most = int(math.log(1 / lowest, eta) + 1e-9)
        """The number of the highest rung: fidelity 1; rung 0 of the deepest bracket has eta ** −most."""

    def begin(self) -> None:
        self.brackets: list[Bracket] = []
        self.started = 0

    def rungs(self, number: int) -> list[tuple[int, float]]:
        """Of bracket `number`."""
        raise NotImplementedError

    def ladder(self, width: int, deepest: int) -> list[tuple[int, float]]:
        """`width` candidates at eta ** −deepest of the effort, 1 / eta of them at eta times as much, and so on."""
        return [(max(1, width // self.eta**i), float(self.eta) ** (i - deepest)) for i in range(deepest + 1)]

    # ---------------------------------------------------------------- proposing
    def next(self) -> Proposal | None:
        bracket = next((b for b in self.brackets if b.due), None)
        if bracket is None:
            return None
        member = bracket.due.pop(0)
        fidelity = bracket.rungs[bracket.rung][1]
        if member is None:
            proposal = self.new(self.sample)
            if proposal is None:
                bracket.due = []
                self._climb(bracket)
                return self.next()
            proposal = Proposal(proposal.candidate, fidelity, proposal.origin)
        else:
            proposal = Proposal(member.candidate, fidelity, "promote", (member.number,))
        bracket.open.add(proposal.candidate.key)
        return proposal

    def propose(self, n: int) -> list[Proposal]:
        """No more than what is left of the rungs under way; where nothing is, the first rung of the next bracket."""
        if not any(b.due for b in self.brackets):
            rungs = self.rungs(self.started)
            self.started += 1
            self.brackets.append(Bracket(rungs, due=[None] * rungs[0][0]))
        return super().propose(min(n, sum(len(b.due) for b in self.brackets)))

    # ---------------------------------------------------------------- learning
    def feedback(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.memory.add(trial.candidate.key)
            key = trial.candidate.key
            bracket = next((b for b in self.brackets if key in b.open and b.rungs[b.rung][1] == trial.fidelity), None)
            if bracket is None:  # of somebody else's proposal
                continue
            bracket.open.discard(key)
            if trial.status == "done":
                bracket.done.append(Member(trial.number, trial.candidate, trial.scores(self.objectives)))
            self._climb(bracket)
        self.brackets = [b for b in self.brackets if b.due or b.open]

    def _climb(self, bracket: Bracket) -> None:
        """Promotes the best of a rung that is complete."""
        if bracket.due or bracket.open or bracket.rung + 1 >= len(bracket.rungs):
            return
        bracket.rung += 1
        best = order([m.scores for m in bracket.done])[:bracket.rungs[bracket.rung][0]]
        bracket.due, bracket.done = [bracket.done[i] for i in best], []

    # ---------------------------------------------------------------- state
    def save(self) -> dict[str, Any]:
        def told(b: Bracket) -> dict[str, Any]:
            members = self.dump([m for m in b.due if m is not None])
            return {"rungs": b.rungs, "rung": b.rung, "new": b.due.count(None), "due": members, "open": sorted(b.open), "done": self.dump(b.done)}

        return {"started": self.started, "brackets": [told(b) for b in self.brackets]}

    def load(self, state: Mapping[str, Any]) -> None:
        self.started = state["started"]
        self.brackets = [Bracket([(n, f) for n, f in b["rungs"]], b["rung"], [*self.members(b["due"]), *[None] * b["new"]], set(b["open"]),
                                 self.members(b["done"])) for b in state["brackets"]]


@strategy("halving(width: int = 27, eta: int = 3, lowest: float = 0.1, batch: int = 64)", source="Jamieson and Talwalkar 2016, arxiv 1502.07943")
class Halving(Rungs):
    """Successive halving: `width` drawn candidates at little effort, the best 1 / eta of them at eta times as much, up to the full effort; then the
    same with new candidates. It needs an evaluator that understands `fidelity`. With several objectives the best are the lowest fronts.

    `width`: candidates of the first rung. `eta`: how many fewer, and how much more effort, from rung to rung. `lowest`: the least effort, a share of
    the full one; rungs are at powers of 1 / eta down to it. `batch`: proposals in a round.
    """

    def __init__(self, width: int = 27, eta: int = 3, lowest: float = 0.1, batch: int = 64) -> None:
        super().__init__(eta, lowest, batch)
        self.width = positive("width", width)

    def rungs(self, number: int) -> list[tuple[int, float]]:
        return self.ladder(self.width, self.most)


@strategy("hyperband(eta: int = 3, lowest: float = 0.03, batch: int = 64)", source="Li et al. 2018, arxiv 1603.06560, algorithm 1")
class Hyperband(Rungs):
    """Hyperband: brackets of successive halving from many candidates at the least effort to few at the full one, again and again, so that none has to
    know how far a cheap evaluation can be trusted. It needs an evaluator that understands `fidelity`.

    `eta`, `lowest`, `batch`: as for `halving`.
    """

    def __init__(self, eta: int = 3, lowest: float = 0.03, batch: int = 64) -> None:
        super().__init__(eta, lowest, batch)

    def rungs(self, number: int) -> list[tuple[int, float]]:
        deepest = self.most - number % (self.most + 1)
        return self.ladder(math.ceil((self.most + 1) / (deepest + 1) * self.eta**deepest), deepest)
