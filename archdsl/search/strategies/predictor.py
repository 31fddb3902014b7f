"""Search guided by predictors that are trained again each round."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from archdsl.diagnostics.model import ArchError
from archdsl.lazy import np
from archdsl.search.model import Candidate, Proposal, Trial
from archdsl.search.registry import strategy
from archdsl.search.strategies.base import Base, Member
from archdsl.search.strategies.encoding import features
from archdsl.search.strategies.fronts import order
from archdsl.search.strategies.kernels import Regression, table
from archdsl.search.strategies.nsga import Nsga2, Nsga3
from archdsl.search.strategies.plain import positive

Array: TypeAlias = "np.ndarray[Any, Any]"
AGREE = 1e-9
HOPES = (0.0, 0.5, 1.0)
"""A candidate may be better than expected: by so many deviations is what a third of a round, and the evolution of every third one, hopes for."""
NEAR = 1
"""That third of a round is taken from the children of what was measured alone: where the predictors are wrong, evolution carries far off."""
TRAINED = 300
"""On so many trials at most: the best half as many, and the latest; what a fit takes grows with the cube."""
BAD = 2.0
"""What is farther above the median than so many times the way from the best to it is all the same: predictors are for the better half."""


@strategy("predictor(round: int = 20, first: int = 40, evolve: int = 500, batch: int = 20)",
          source="LINAS, Cummings et al. 2022, arxiv 2205.10358; SimQ-NAS, arxiv 2312.13301")
class Predictor(Base):
    """Lightly trained predictors, one for each objective, in a loop: what was measured trains them, evolution on what they predict proposes the next
    round, and its measurements train them anew. NSGA-II evolves, from three objectives on NSGA-III; it starts from the best that were measured. A
    predictor is the best, by its leave-one-out error, of ridge regression and Gaussian kernels, on the values of all active decisions and their sums
    over repeated blocks; a third of each round is what is expected to be best, the others what may turn out to be. An objective that is a cost of
    the space is computed, not predicted.

    `round`: trials between two trainings. `first`: candidates drawn before the first one, a quarter of the budget at most. `evolve`: predicted
    candidates in a round. `batch`: proposals in a round of the study.
    """

    def __init__(self, round: int = 20, first: int = 40, evolve: int = 500, batch: int = 20) -> None:
        self.round, self.first, self.evolve = positive("round", round), positive("first", first), positive("evolve", evolve)
        self.batch = positive("batch", batch)

    def begin(self) -> None:
        self.startup = max(2, min(self.first, self.budget // 4))
        self.asked = self.trained = 0
        self.seen: list[Member] = []
        self.queue: list[Proposal] = []
        self.known = self._costs()

    def _costs(self) -> list[bool]:
        """Which objectives the space can compute."""
        probe = self.space.sample(0)

        def computes(name: str) -> bool:
            try:
                self.space.costs(probe, [name])
            except ArchError:
                return False
            return True

        return [computes(o.name) for o in self.objectives]

    def next(self) -> Proposal | None:
        self.asked += 1
        if self.asked <= self.startup or len(self.seen) < 2:
            return self.new(self.scattered)
        while True:
            if not self.queue:
                self.queue = self._evolved()
                if not self.queue:
                    return self.new(self.sample)
            proposal = self.queue.pop(0)
            if self.memory.add(proposal.candidate.key):
                return proposal

    def learn(self, member: Member) -> None:
        self.seen.append(member)
        for i, o in enumerate(self.objectives):  # an evaluator's value of that name may be another one than the space's
            if self.known[i]:
                own = o.sign * self.space.costs(member.candidate, [o.name])[o.name]
                self.known[i] = abs(own - member.scores[i]) <= AGREE * max(1.0, abs(own))

    # ---------------------------------------------------------------- one round
    def _evolved(self) -> list[Proposal]:
        """A round of candidates that an evolution on the predictors finds best and that were not proposed before, some for each hope."""
        predict = self._trained()
        hope = HOPES[self.trained % len(HOPES)]
        self.trained += 1
        inner = (Nsga2 if len(self.objectives) < 3 else Nsga3)(population=max(2, min(50, self.evolve // 4)))
        inner.setup(self.space, self.objectives, self.random.fresh(), self.evolve)
        found: dict[str, tuple[Candidate, Array, Array]] = {}

        def judged(candidates: Sequence[Candidate]) -> list[Member]:
            expected, deviation = predict(candidates)
            found.update({c.key: (c, e, d) for c, e, d in zip(candidates, expected, deviation)})
            return [Member(-1, c, tuple(row)) for c, row in zip(candidates, (expected - hope * deviation).tolist())]

        best = order([m.scores for m in self.seen])[:inner.places]
        inner.parents = judged([self.seen[i].candidate for i in best])
        inner.fit()
        asked, near = 0, set[str]()
        while asked < self.evolve and (proposals := inner.propose(inner.batch)):
            asked += len(proposals)
            for member in judged([p.candidate for p in proposals]):
                inner.learn(member)
            near = near or set(found)
        left = {key: told for key, told in found.items() if not self.memory.has(key)}
        chosen: list[Candidate] = []
        for i, hope in enumerate(HOPES):
            share = (i + 1) * self.round // len(HOPES) - len(chosen)
            pool = [told for key, told in left.items() if i != NEAR or key in near]
            members = [Member(-1, c, tuple((e - hope * d).tolist())) for c, e, d in pool]
            chosen += [m.candidate for m in inner.best(members, min(share, len(members)))]
            left = {key: told for key, told in left.items() if all(key != c.key for c in chosen)}
        return [Proposal(c, origin="model") for c in chosen]

    def _trained(self) -> Callable[[Sequence[Candidate]], tuple[Array, Array]]:
        """A function from candidates to the scores expected of them, signs turned, and to their deviations, both float64 [candidates, objectives]."""
        best = set(order([m.scores for m in self.seen])[:TRAINED // 2])
        late = len(self.seen) - TRAINED // 2
        known = [m for i, m in enumerate(self.seen) if i in best or i >= late]
        told = [features(m.candidate) for m in known]
        often = Counter(name for t in told for name in t)
        columns = {name: i for i, name in enumerate(sorted(n for n, count in often.items() if count > 1))}
        decisions = {name: i for i, name in enumerate(dict.fromkeys(n.split("=")[0] for n in columns))}
        groups = [decisions[n.split("=")[0]] for n in columns]
        x, y = table(told, columns), np.array([m.scores for m in known])
        middle = np.median(y, axis=0)
        y = np.minimum(y, middle + BAD * (middle - y.min(0)))
        models = [None if computed else Regression(x, y[:, i], groups) for i, computed in enumerate(self.known)]
        names = [o.name for o, computed in zip(self.objectives, self.known) if computed]

        def predict(candidates: Sequence[Candidate]) -> tuple[Array, Array]:
            rows = table([features(c) for c in candidates], columns)
            costs = [self.space.costs(c, names) for c in candidates] if names else []
            expected, deviation = np.zeros((2, len(candidates), len(self.objectives)))
            for i, (o, model) in enumerate(zip(self.objectives, models)):
                if model is None:
                    expected[:, i] = [o.sign * c[o.name] for c in costs]
                else:
                    expected[:, i], deviation[:, i] = model(rows)
            return expected, deviation

        return predict

    # ---------------------------------------------------------------- state
    def save(self) -> dict[str, Any]:
        queue = [[self.space.to_json(p.candidate), p.origin] for p in self.queue]
        counts = {"asked": self.asked, "trained": self.trained, "startup": self.startup}
        return {**counts, "known": self.known, "done": self.dump(self.seen), "queue": queue}

    def load(self, state: Mapping[str, Any]) -> None:
        self.asked, self.trained, self.startup, self.known = state["asked"], state["trained"], state["startup"], state["known"]
        self.seen = self.members(state["done"])
        self.queue = [Proposal(self.space.from_json(knobs), origin=origin) for knobs, origin in state["queue"]]

    def feedback(self, trials: Sequence[Trial]) -> None:
        super().feedback(trials)
        if len(self.seen) % self.round == 0:
            self.queue = []  # what is left of it was chosen by older predictors
