"""What a search is made of: candidates, objectives, proposals, trials, and the two interfaces between them and a study. Free of torch."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from archdsl.declared import Declared
from archdsl.elaborate.domains import Domain
from archdsl.records import field, record

Direction = Literal["min", "max"]
Status = Literal["waiting", "done", "failed"]


class Candidate(Mapping[str, Any]):
    """One point of a space: every active decision, address -> value, in the order of the spec. `spec.build(**candidate)` builds it.

    `key` is the hash of the graph that it stands for: two assignments that give the same graph have the same key, and are equal.
    `repaired`: what was changed to make it valid, one sentence each; empty for one that was drawn as it is.
    """

    __slots__ = ("_values", "key", "repaired")

    def __init__(self, values: Mapping[str, Any], key: str, repaired: Sequence[str] = ()) -> None:
        self._values = dict(values)
        self.key = key
        self.repaired = tuple(repaired)

    def __getitem__(self, address: str) -> Any:
        return self._values[address]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def copy(self) -> dict[str, Any]:
        """Its values, in a dict of the caller's own."""
        return self._values.copy()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Candidate {self.key[:8]}: {len(self)} knobs>"


class Remembered(Candidate):
    """A candidate as JSON told it to a study: a space makes its model when somebody looks inside. `key`: where that was kept as well, it is not made
    for its key."""

    __slots__ = ("_key", "_made", "_space", "knobs", "repaired")

    def __init__(self, space: Space, knobs: Mapping[str, Any], key: str | None = None, repaired: Sequence[str] = ()) -> None:  # pyright: ignore
        self._space, self.knobs, self._key, self.repaired, self._made = space, knobs, key, tuple(repaired), None

    @property
    def made(self) -> Candidate:
        """The space's own. Raises ArchError where the space has none such."""
        if self._made is None:
            self._made = self._space.from_json(self.knobs)
            self._made.repaired = self.repaired
        return self._made

    @property
    def key(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.made.key if self._key is None else self._key

    def __getitem__(self, address: str) -> Any:
        return self.made[address]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)

    def copy(self) -> dict[str, Any]:
        return self.made.copy()


@record(frozen=True)
class Objective:
    """What is sought: the name of a value that the evaluator or the cost gives (`params`, `macs(T=2048)`, `accuracy`), and which way."""

    name: str
    direction: Direction = "min"

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"

    @property
    def sign(self) -> int:
        """+1 where less is better, −1 where more is: `sign * value` is always minimised."""
        return 1 if self.direction == "min" else -1


@record(frozen=True)
class Proposal:
    """A candidate to be evaluated. `fidelity` in (0, 1]: the share of the full effort. `origin`: how it came about (`sample`, `mutate`, `cross`, …);
    `parents`: numbers of the trials that it came from."""

    candidate: Candidate
    fidelity: float = 1.0
    origin: str = "sample"
    parents: tuple[int, ...] = ()


@record(frozen=True)
class Trial:
    """A proposal with its number (from 0, in order of proposing) and what came of it. `values`: everything that was measured, by name; empty unless
    it is done. `reason`: why it failed, one line. `seconds`: the time that its evaluation took."""

    number: int
    candidate: Candidate
    fidelity: float = 1.0
    origin: str = "sample"
    parents: tuple[int, ...] = ()
    status: Status = "waiting"
    values: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0

    def scores(self, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Its values for these objectives, signs turned so that less is better. For a trial that is done."""
        return tuple(o.sign * float(self.values[o.name]) for o in objectives)


class Space(Protocol):
    """What strategies and studies ask of a space. `spec.space()` gives one; every candidate that comes out of it is valid and within its limits."""

    @property
    def size(self) -> int | None:
        """How many assignments of active decisions satisfy the domains, every `require` and the limits, exactly; None where it cannot be counted."""
        ...

    def at(self, number: int) -> Candidate | None:
        """The assignment of a number ≥ 0, which is read digit by digit: the remainder by the size of the first decision's domain is the position of
        its value, what is left goes to the next active decision, and so on. Every assignment has one number, below the product of its domains' sizes;
        None for a number of none, and where a condition or a limit rules it out. Raises ValueError where a domain has no end of values."""
        ...

    def sample(self, seed: int) -> Candidate:
        """Drawn uniformly over the valid assignments where they can be counted, else uniformly per decision with rejection. Raises ArchError A0801
        for a space without knobs, A0802 for one without a valid assignment, naming the conditions that exclude each other."""
        ...

    def mutate(self, candidate: Candidate, seed: int, strength: int = 1) -> Candidate:
        """A valid neighbour that differs from it in about `strength` decisions, never equal to it unless it has no other."""
        ...

    def crossover(self, a: Candidate, b: Candidate, seed: int) -> Candidate:
        """A valid child, decisions taken from both parents, whole branches together; what neither had is drawn."""
        ...

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate of these settings, the others at the spec's defaults. Raises ArchError for settings that are not in the space."""
        ...

    def decisions(self, candidate: Candidate) -> Mapping[str, Domain]:
        """The active decisions of a candidate with the values that each may take while the others stay: address -> domain."""
        ...

    def distance(self, a: Candidate, b: Candidate) -> float:
        """In [0, 1]: 0 for equal candidates; the mean over the decisions that either has, an absent one counted as 1."""
        ...

    def costs(self, candidate: Candidate, names: Sequence[str]) -> dict[str, float]:
        """Figures of its graph without torch: `params`, `macs(T=2048)`, `state_bytes`, `count(Attention)`, … as in claims and `space` limits."""
        ...

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """Its knobs as JSON: numbers, strings, truth values, lists; other values as their text in the language."""
        ...

    def from_json(self, knobs: Mapping[str, Any]) -> Candidate:
        """The candidate that `to_json` told. Raises ArchError for one of another space."""
        ...


class Strategy(Protocol):
    """Chooses what to try next. Deterministic: the same space, objectives, seed and feedback give the same proposals, whatever the machine.

    A round is at most `batch` proposals, whose feedback comes together and in the order of their numbers; so what is found does not depend on how
    many workers evaluate them. `setup` comes first, once. `restore(state())` on a fresh, set-up strategy continues the same stream.
    """

    rule: ClassVar[Declared]
    batch: int

    def setup(self, space: Space, objectives: Sequence[Objective], seed: int, budget: int) -> None:
        """`budget`: how many trials there will be in all. Raises ArchError for a space or objectives that it cannot serve."""

    def propose(self, n: int) -> list[Proposal]:
        """At most n proposals, at least one; none: nothing is left to try."""
        ...

    def feedback(self, trials: Sequence[Trial]) -> None:
        """What became of earlier proposals: done or failed."""

    def state(self) -> Any:
        """JSON from which `restore` continues, its generator included."""

    def restore(self, state: Any) -> None:
        """Continues from a state. Candidates in it are named by the numbers of their trials or by their knobs."""


class Evaluator(Protocol):
    """Measures a candidate. It may be called in another process: it is set up there again, from the same text."""

    rule: ClassVar[Declared]

    def setup(self, space: Space, objectives: Sequence[Objective]) -> None:
        """Loads what it needs. Raises ArchError for what is missing."""

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        """What is measured, by name. The same candidate, seed and fidelity give the same values, unless it measures time. An exception is a failed
        trial. `seed` depends on the study's seed and the candidate's key alone."""
        ...
