"""What strategies share: a generator whose state is one number, a memory of what was proposed, members of a population, their state as JSON."""
from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from archdsl.declared import Declared
from archdsl.elaborate.domains import Domain
from archdsl.search.model import Candidate, Objective, Proposal, Remembered, Space, Trial

SMALL = 65_536
"""Spaces of so many assignments are searched to their end: everything proposed is remembered, and what is left is found by going through them."""
REMEMBERED = 4_096
ATTEMPTS = 20
LOOKED_AT = 10 * SMALL
DRAWN = 64
MASK = 2**64 - 1


class Generator(random.Random):
    """SplitMix64 (Steele et al. 2014) under the methods of `random.Random`: the same numbers on every machine, and a state of one integer."""

    def seed(self, a: Any = 0, version: int = 2) -> None:
        self.at = int(a or 0) & MASK

    def getstate(self) -> Any:
        return self.at

    def setstate(self, state: Any) -> None:
        self.at = state

    def random(self) -> float:
        return (self._next() >> 11) * 2.0**-53

    def getrandbits(self, k: int, /) -> int:
        out, have = 0, 0
        while have < k:
            out, have = out << 64 | self._next(), have + 64
        return out >> have - k

    def fresh(self) -> int:
        """A seed for somebody else, below 2⁶³."""
        return self._next() >> 1

    def _next(self) -> int:
        self.at = self.at + 0x9E3779B97F4A7C15 & MASK
        z = self.at
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return z ^ z >> 31


class Member:
    """A trial that is done: `scores` with signs turned, so that less is better. It is written to a state as it was read, and told in JSON once."""

    __slots__ = ("_knobs", "candidate", "number", "scores")

    def __init__(self, number: int, candidate: Candidate, scores: tuple[float, ...]) -> None:
        self.number, self.candidate, self.scores = number, candidate, scores
        self._knobs: Mapping[str, Any] | None = None

    def knobs(self, space: Space) -> Mapping[str, Any]:
        """The candidate in JSON."""
        if self._knobs is None:
            self._knobs = space.to_json(self.candidate)
        return self._knobs


class Memory:
    """Which candidates were proposed: all of a small space, the last ones of a large one, where a repetition is rare and costs one evaluation."""

    def __init__(self, space: Space) -> None:
        self.size = space.size
        self.small = self.size is not None and self.size <= SMALL
        self.keys: set[str] = set()
        self.order: deque[str] = deque()

    def add(self, key: str) -> bool:
        """Whether it is new; from now on it is not."""
        key = key[:16]
        if key in self.keys:
            return False
        self.keys.add(key)
        self.order.append(key)
        if not self.small and len(self.order) > REMEMBERED:
            self.keys.discard(self.order.popleft())
        return True

    def has(self, key: str) -> bool:
        return key[:16] in self.keys

    def load(self, keys: Sequence[str]) -> None:
        self.order, self.keys = deque(keys), set(keys)


def numbers(space: Space) -> int:
    """Numbers of assignments lie below this: the largest product of the sizes of the domains of some drawn candidates. Raises ValueError where one is
    continuous. (All branches are met below it: the first number of one is below the product of another that it parts from.)"""
    return max(math.prod(_size(d) for d in space.decisions(space.sample(seed)).values()) for seed in range(DRAWN))


def _size(domain: Domain) -> int:
    if domain.size is None:
        raise ValueError(f"{domain} is continuous")
    return domain.size


class Base:
    """Proposes one at a time: a subclass says how in `next`, learns in `learn`, and keeps what it has learnt in `save` and `load`."""

    rule: ClassVar[Declared]
    batch: int = 16
    space: Space
    objectives: tuple[Objective, ...]
    budget: int
    random: Generator
    memory: Memory

    def setup(self, space: Space, objectives: Sequence[Objective], seed: int, budget: int) -> None:
        self.space, self.objectives, self.budget = space, tuple(objectives), budget
        self.random, self.memory = Generator(seed), Memory(space)
        self._cursor = self._end = 0
        self.begin()

    def propose(self, n: int) -> list[Proposal]:
        made: list[Proposal] = []
        while len(made) < min(n, self.batch) and (proposal := self.next()) is not None:
            made.append(proposal)
        return made

    def feedback(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self.memory.add(trial.candidate.key)
            if trial.status == "done":
                self.learn(Member(trial.number, trial.candidate, trial.scores(self.objectives)))

    def state(self) -> dict[str, Any]:
        return {"random": self.random.at, "seen": list(self.memory.order), **self.save()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.random.at = state["random"]
        self.memory.load(state["seen"])
        self.load(state)

    # ---------------------------------------------------------------- of subclasses
    def begin(self) -> None:
        """After `setup`."""

    def next(self) -> Proposal | None:
        """One more proposal; None: nothing is left."""
        raise NotImplementedError

    def learn(self, member: Member) -> None:
        """From one that is done."""

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """What `save` gave."""

    # ---------------------------------------------------------------- for subclasses
    def sample(self) -> Proposal:
        return Proposal(self.space.sample(self.random.fresh()))

    def scattered(self) -> Proposal:
        """A drawn candidate, every other time with all of its decisions changed: draws that are uniform over assignments seldom take an arm with
        little inside, and a population has to begin with every arm."""
        drawn = self.space.sample(self.random.fresh())
        if self.random.random() < 0.5:
            drawn = self.space.mutate(drawn, self.random.fresh(), len(drawn))
        return Proposal(drawn)

    def new(self, make: Callable[[], Proposal]) -> Proposal | None:
        """What `make` gives, as soon as that was not proposed before; else a sample; else one that is left of a small space."""
        for attempt in (make, self.sample):
            for _ in range(ATTEMPTS):
                proposal = attempt()
                if self.memory.add(proposal.candidate.key):
                    return proposal
        return self._left()

    def _left(self) -> Proposal | None:
        if self._cursor == 0:
            self._end = min(numbers(self.space), LOOKED_AT) if self.memory.small else 0
        while self._cursor < self._end and len(self.memory.keys) < (self.memory.size or 0):
            candidate = self.space.at(self._cursor)
            self._cursor += 1
            if candidate is not None and self.memory.add(candidate.key):
                return Proposal(candidate, origin="left")
        return None

    def dump(self, members: Sequence[Member]) -> list[Any]:
        """Members as JSON, for `save`."""
        return [[m.number, m.knobs(self.space), list(m.scores)] for m in members]

    def members(self, dumped: Sequence[Any]) -> list[Member]:
        return [Member(number, Remembered(self.space, knobs), tuple(scores)) for number, knobs, scores in dumped]
