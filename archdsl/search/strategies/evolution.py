"""Regularised evolution and local search: one child at a time, a small population."""
from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from archdsl.declared import wrong_option
from archdsl.lazy import np
from archdsl.search.model import Proposal
from archdsl.search.registry import strategy
from archdsl.search.strategies.base import Base, Member
from archdsl.search.strategies.fronts import order
from archdsl.search.strategies.plain import positive


def share(name: str, value: float) -> float:
    """The value of an option that is a probability. Raises A0812."""
    if not 0 <= value <= 1:
        raise wrong_option("A0812", name, value, "a probability, from 0 to 1")
    return value


@strategy("evolution(population: int = 50, sample: int = 10, cross: float = 0.0, batch: int = 10)", source="Real et al. 2019, arxiv 1802.01548")
class Evolution(Base):
    """Regularised evolution: the best of a few members drawn from the population has a mutated child, which takes the place of the oldest member.
    With several objectives the best is the one of the lowest front, among those the least crowded.

    `population`: members; the first ones are drawn from the space, a quarter of the budget at most. `sample`: how many of them compete to be the
    parent. `cross`: the probability of a second parent. `batch`: children in a round.
    """

    def __init__(self, population: int = 50, sample: int = 10, cross: float = 0.0, batch: int = 10) -> None:
        self.population, self.competitors = positive("population", population), positive("sample", sample)
        self.cross, self.batch = share("cross", cross), positive("batch", batch)

    def begin(self) -> None:
        self.first = max(1, min(self.population, self.budget // 4))
        self.alive: deque[Member] = deque(maxlen=self.first)

    def next(self) -> Proposal | None:
        return self.new(self.child if len(self.alive) == self.first else self.scattered)

    def child(self) -> Proposal:
        a = self.parent()
        if self.random.random() < self.cross:
            b = self.parent()
            child = self.space.crossover(a.candidate, b.candidate, self.random.fresh())
            return Proposal(self.space.mutate(child, self.random.fresh()), origin="cross", parents=(a.number, b.number))
        return Proposal(self.space.mutate(a.candidate, self.random.fresh()), origin="mutate", parents=(a.number,))

    def parent(self) -> Member:
        drawn = self.random.sample(list(self.alive), min(self.competitors, len(self.alive)))
        return drawn[order([m.scores for m in drawn])[0]]

    def learn(self, member: Member) -> None:
        self.alive.append(member)

    def save(self) -> dict[str, Any]:
        return {"first": self.first, "alive": self.dump(list(self.alive))}

    def load(self, state: Mapping[str, Any]) -> None:
        self.first = state["first"]
        self.alive = deque(self.members(state["alive"]), maxlen=self.first)


@strategy("local(patience: int = 40, starts: int = 10, batch: int = 8)", source="White et al. 2021, arxiv 2005.02960; weights: Jaszkiewicz 2002")
class Local(Base):
    """Local search with restarts: neighbours of the current candidate, each a mutation away, and a move to the first that is better. When so many
    neighbours in a row were not, it starts again from the best of some drawn candidates. With several objectives every start draws weights, and the
    largest weighted distance from the best values seen so far, over their range, is what is improved (Chebyshev).

    `patience`: neighbours without a better one before it starts again. `starts`: candidates drawn for a start. `batch`: proposals in a round.
    """

    def __init__(self, patience: int = 40, starts: int = 10, batch: int = 8) -> None:
        self.patience, self.starts, self.batch = positive("patience", patience), positive("starts", starts), positive("batch", batch)

    def begin(self) -> None:
        self.low = [float("inf")] * len(self.objectives)
        self.high = [float("-inf")] * len(self.objectives)
        self.restart()

    def restart(self) -> None:
        self.here: Member | None = None
        self.drawn = self.vain = 0
        self.weights = [self.random.expovariate(1.0) for _ in self.objectives]

    def next(self) -> Proposal | None:
        if self.vain >= self.patience:
            self.restart()
        if self.drawn < self.starts or self.here is None:
            self.drawn += 1
            return self.new(self.sample)
        return self.new(self.neighbour)

    def neighbour(self) -> Proposal:
        assert self.here is not None
        child = self.space.mutate(self.here.candidate, self.random.fresh())
        return Proposal(child, origin="mutate", parents=(self.here.number,))

    def learn(self, member: Member) -> None:
        self.low = np.minimum(self.low, member.scores).tolist()
        self.high = np.maximum(self.high, member.scores).tolist()
        if self.here is None or self.worth(member) < self.worth(self.here):
            self.here, self.vain = member, 0
        elif self.drawn >= self.starts:
            self.vain += 1

    def worth(self, member: Member) -> float:
        """What is minimised: the score itself when there is one objective."""
        if len(member.scores) == 1:
            return member.scores[0]
        return max(w * (s - low) / (high - low or 1.0) for w, s, low, high in zip(self.weights, member.scores, self.low, self.high))

    def save(self) -> dict[str, Any]:
        here = self.dump([self.here] if self.here else [])
        seen = [x if abs(x) != float("inf") else None for x in (*self.low, *self.high)]
        return {"here": here, "drawn": self.drawn, "vain": self.vain, "weights": self.weights, "range": seen}

    def load(self, state: Mapping[str, Any]) -> None:
        self.here = next(iter(self.members(state["here"])), None)
        self.drawn, self.vain, self.weights = state["drawn"], state["vain"], state["weights"]
        m = len(self.objectives)
        self.low = [float("inf") if x is None else x for x in state["range"][:m]]
        self.high = [float("-inf") if x is None else x for x in state["range"][m:]]
