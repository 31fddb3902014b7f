"""NSGA-II and NSGA-III on typed trees: variation is the space's, survival is by fronts."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.lazy import np
from archdsl.search.model import Proposal
from archdsl.search.registry import strategy
from archdsl.search.strategies.base import Base, Member
from archdsl.search.strategies.evolution import share
from archdsl.search.strategies.fronts import crowding, directions, ranks, spread_survivors, survivors
from archdsl.search.strategies.plain import positive


class Generational(Base):
    """Parents and as many children compete for the places of a generation."""

    def __init__(self, population: int, cross: float, mutate: float) -> None:
        self.population, self.cross, self.mutation = positive("population", population), share("cross", cross), share("mutate", mutate)
        self.batch = population

    def begin(self) -> None:
        self.places = max(2, min(self.population, self.budget // 4))
        self.batch = self.places
        self.parents: list[Member] = []
        self.children: list[Member] = []
        self.fitness: list[tuple[float, float]] = []

    def next(self) -> Proposal | None:
        return self.new(self.child if self.parents else self.scattered)

    def child(self) -> Proposal:
        a, b = self.parent(), self.parent()
        if a is not b and self.random.random() < self.cross:
            child = self.space.crossover(a.candidate, b.candidate, self.random.fresh())
            if self.random.random() < self.mutation or child in (a.candidate, b.candidate):
                child = self.space.mutate(child, self.random.fresh(), self.strength())
            return Proposal(child, origin="cross", parents=(a.number, b.number))
        return Proposal(self.space.mutate(a.candidate, self.random.fresh(), self.strength()), origin="mutate", parents=(a.number,))

    def strength(self) -> int:
        """How many decisions change: 1, 2, 3 … with probabilities 1/2, 1/4, 1/8 …"""
        n = 1
        while self.random.random() < 0.5:
            n += 1
        return n

    def parent(self) -> Member:
        """The better of two."""
        i, j = self.random.randrange(len(self.parents)), self.random.randrange(len(self.parents))
        return self.parents[min(i, j, key=lambda k: self.fitness[k])]

    def learn(self, member: Member) -> None:
        self.children.append(member)
        if len(self.children) >= self.places:
            pool = [*self.parents, *self.children]
            keep = self.survive(np.array([m.scores for m in pool])) if len(pool) > self.places else range(len(pool))
            self.parents, self.children = [pool[i] for i in keep], []
            self.fit()

    def best(self, members: Sequence[Member], keep: int) -> list[Member]:
        """Those that would survive."""
        places, self.places = self.places, keep
        try:
            return [members[i] for i in self.survive(np.array([m.scores for m in members]))] if keep < len(members) else list(members)
        finally:
            self.places = places

    def fit(self) -> None:
        """What parents are compared by: front, then crowding."""
        x = np.array([m.scores for m in self.parents])
        rank, space = ranks(x), np.zeros(len(x))
        for front in set(rank.tolist()):
            space[rank == front] = crowding(x[rank == front])
        self.fitness = list(zip(rank.tolist(), (-space).tolist()))

    def survive(self, points: Any) -> list[int]:
        raise NotImplementedError

    def save(self) -> dict[str, Any]:
        return {"places": self.places, "parents": self.dump(self.parents), "children": self.dump(self.children)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.places = state["places"]
        self.parents, self.children = self.members(state["parents"]), self.members(state["children"])
        self.batch = self.places
        if self.parents:
            self.fit()


@strategy("nsga2(population: int = 50, cross: float = 0.9, mutate: float = 0.5)", source="Deb et al. 2002; pruning: Kukkonen and Deb 2006")
class Nsga2(Generational):
    """NSGA-II: parents by tournaments of two on front and crowding; children by crossover and mutation of typed trees; of parents and children the
    best fronts survive, and the last of them is thinned out where it is most crowded.

    `population`: members of a generation, at most a quarter of the budget. `cross`: the probability that a child has two parents. `mutate`: the
    probability that such a child is mutated as well; one with a single parent always is.
    """

    def __init__(self, population: int = 50, cross: float = 0.9, mutate: float = 0.5) -> None:
        super().__init__(population, cross, mutate)

    def survive(self, points: Any) -> list[int]:
        return survivors(points, self.places)


@strategy("nsga3(population: int = 50, cross: float = 0.9, mutate: float = 0.5)", source="Deb and Jain 2014; Das and Dennis 1998")
class Nsga3(Generational):
    """NSGA-III: as `nsga2`, but the last front is filled along reference directions, which spread evenly over any number of objectives: for three and
    more.

    `population`: members of a generation, at most a quarter of the budget; there are as many directions as fit. `cross`, `mutate`: as for `nsga2`.
    """

    def __init__(self, population: int = 50, cross: float = 0.9, mutate: float = 0.5) -> None:
        super().__init__(population, cross, mutate)

    def survive(self, points: Any) -> list[int]:
        return spread_survivors(points, self.places, directions(points.shape[1], self.places), self.random)
