"""Reference problems: small typed trees written by hand, with scores that take microseconds. Strategies are proved on them (`search.testing`)."""
from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.domains import Domain, of_values
from archdsl.records import record
from archdsl.search.model import Candidate, Objective
from archdsl.source import NOWHERE

LISTED = 100_000
"""Up to so many assignments, those that satisfy a condition are counted one by one."""
ATTEMPTS = 1_000


@record(frozen=True, slots=False)
class Branch:
    """A decision. `inside`: by the position of its value in the domain, the decisions that are there with that value alone."""

    name: str
    domain: Domain
    inside: tuple[tuple[Branch, ...], ...] = ()

    def below(self, value: Any) -> tuple[Branch, ...]:
        return self.inside[self.values.index(value)] if self.inside else ()

    @cached_property
    def values(self) -> tuple[Any, ...]:
        return tuple(self.domain) if self.domain.size is not None else ()

    @cached_property
    def leaves(self) -> int | None:
        """How many assignments this subtree has."""
        if self.domain.size is None:
            return None
        return sum(w for w in self.widths) if None not in self.widths else None  # type: ignore[misc]

    @cached_property
    def widths(self) -> tuple[int | None, ...]:
        """The same for each of its values."""
        return tuple(product(self.inside[i] if self.inside else ()) for i in range(self.domain.size or 0))


def product(branches: Sequence[Branch]) -> int | None:
    total = 1
    for b in branches:
        if b.leaves is None:
            return None
        total *= b.leaves
    return total


class TreeSpace:
    """A `Space` of branches. `require`: a condition on the values; `figures`: costs by name, functions of the values."""

    def __init__(self, branches: Sequence[Branch], require: Callable[[Mapping[str, Any]], bool] | None = None,
                 figures: Mapping[str, Callable[[Mapping[str, Any]], float]] | None = None) -> None:
        self.branches, self.require, self.figures = tuple(branches), require, dict(figures or {})
        self._size: int | None = None

    # ---------------------------------------------------------------- numbers
    @property
    def combinations(self) -> int | None:
        """How many assignments there are, the condition aside."""
        return product(self.branches)

    @property
    def size(self) -> int | None:
        if self.require is None or self.combinations is None:
            return self.combinations
        if self._size is None and self.combinations <= LISTED:
            self._size = sum(self._made(values) is not None for values in _every(self.branches))
        return self._size

    def at(self, number: int) -> Candidate | None:
        out: dict[str, Any] = {}
        left = number

        def walk(branches: Sequence[Branch]) -> None:
            nonlocal left
            for b in branches:
                if not b.values:
                    raise ValueError(f"{b.domain} is continuous")
                left, position = divmod(left, len(b.values))
                out[b.name] = b.values[position]
                walk(b.below(out[b.name]))

        walk(self.branches)
        return None if left else self._made(out)

    # ---------------------------------------------------------------- operators
    def sample(self, seed: int) -> Candidate:
        rng = random.Random(seed)
        return self._attempt(lambda: self._grow(rng, {}))

    def mutate(self, candidate: Candidate, seed: int, strength: int = 1) -> Candidate:
        rng = random.Random(seed)

        def child() -> dict[str, Any]:
            values = dict(candidate)
            for name in rng.sample(list(values), min(strength, len(values))):
                values[name] = _drawn(rng, next(b.domain for b in self._active(candidate) if b.name == name), but=values[name])
            return self._grow(rng, values)

        return self._attempt(child, but=candidate)

    def crossover(self, a: Candidate, b: Candidate, seed: int) -> Candidate:
        rng = random.Random(seed)

        def child() -> dict[str, Any]:
            values: dict[str, Any] = {}
            self._cross(rng, self.branches, (a, b), values)
            return values

        return self._attempt(child)

    def _cross(self, rng: random.Random, branches: Sequence[Branch], parents: Sequence[Candidate], out: dict[str, Any]) -> None:
        for branch in branches:
            order = parents if rng.random() < 0.5 else parents[::-1]
            value = next((p[branch.name] for p in order if branch.name in p), None)
            out[branch.name] = _drawn(rng, branch.domain) if value is None else value
            self._cross(rng, branch.below(out[branch.name]), parents, out)

    def _grow(self, rng: random.Random, values: Mapping[str, Any]) -> dict[str, Any]:
        """These values where they are active, the others drawn: uniformly over the leaves where they can be counted."""
        out: dict[str, Any] = {}

        def walk(branches: Sequence[Branch]) -> None:
            for b in branches:
                out[b.name] = values[b.name] if b.name in values else _drawn(rng, b.domain, b.widths)
                walk(b.below(out[b.name]))

        walk(self.branches)
        return out

    def _attempt(self, draw: Callable[[], dict[str, Any]], but: Candidate | None = None) -> Candidate:
        found = None
        for _ in range(ATTEMPTS):
            found = self._made(draw()) or found
            if found is not None and found != but:
                return found
        if found is None:
            raise error("A0802", f"none of {ATTEMPTS} assignments satisfies the condition", NOWHERE)
        return found

    # ---------------------------------------------------------------- candidates
    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        out: dict[str, Any] = {}

        def walk(branches: Sequence[Branch]) -> None:
            for b in branches:
                value = values.get(b.name, b.domain.low if b.domain.values == () else b.domain.values[0])
                if not b.domain.contains(value):
                    raise error("A0404", f"`{b.name}` cannot be {value}: it is in {b.domain}", NOWHERE)
                out[b.name] = value
                walk(b.below(value))

        walk(self.branches)
        if unknown := [name for name in values if name not in out]:
            raise error("A0404", f"no decision `{unknown[0]}` is active", NOWHERE)
        made = self._made(out)
        if made is None:
            raise error("A0803", "the condition excludes these values", NOWHERE)
        return made

    def _made(self, values: Mapping[str, Any]) -> Candidate | None:
        if self.require is not None and not self.require(values):
            return None
        return Candidate(values, hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:32])

    def _active(self, values: Mapping[str, Any]) -> Iterator[Branch]:
        stack = list(reversed(self.branches))
        while stack:
            branch = stack.pop()
            yield branch
            stack.extend(reversed(branch.below(values[branch.name])))

    def decisions(self, candidate: Candidate) -> dict[str, Domain]:
        return {b.name: b.domain for b in self._active(candidate)}

    def distance(self, a: Candidate, b: Candidate) -> float:
        names = {*a, *b}
        return sum(n not in a or n not in b or a[n] != b[n] for n in names) / len(names)

    def costs(self, candidate: Candidate, names: Sequence[str]) -> dict[str, float]:
        if unknown := [n for n in names if n not in self.figures]:
            raise error("A0641", f"there is no cost `{unknown[0]}`", NOWHERE)
        return {n: self.figures[n](candidate) for n in names}

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        return dict(candidate)

    def from_json(self, knobs: Mapping[str, Any]) -> Candidate:
        return self.candidate(knobs)


def _drawn(rng: random.Random, domain: Domain, widths: Sequence[int | None] = (), but: Any = None) -> Any:
    if domain.size is None:
        return rng.uniform(domain.low, domain.high)
    values = list(domain)
    if widths and None not in widths:
        return values[_pick(rng, widths)]  # type: ignore[arg-type]
    return rng.choice([v for v in values if v != but] or values)


def _pick(rng: random.Random, weights: Sequence[int]) -> int:
    """A position with a probability in proportion to its weight, exact for integers of any length."""
    at = rng.randrange(sum(weights))
    for i, w in enumerate(weights):
        if at < w:
            return i
        at -= w
    raise AssertionError("the weights add up")


def _every(branches: Sequence[Branch]) -> Iterator[dict[str, Any]]:
    """All assignments of branches beside each other."""
    if not branches:
        yield {}
        return
    for value in branches[0].values:
        for inside in _every(branches[0].below(value)):
            for others in _every(branches[1:]):
                yield {branches[0].name: value, **inside, **others}


# ---------------------------------------------------------------- problems
@record(frozen=True)
class Problem:
    """`measure(candidate, fidelity)` gives the values. `reference`: a point that bounds the hypervolume, signs turned so that less is better."""

    name: str
    space: TreeSpace
    objectives: tuple[Objective, ...]
    measure: Callable[[Candidate, float], dict[str, float]]
    reference: tuple[float, ...]


def whole(low: int, high: int, step: int = 1) -> Domain:
    return Domain("int", low, high, step)


def stack(depth: int = 12) -> Problem:
    """A choice per layer with knobs inside, 10⁹ assignments and more. Score: a target per layer, and a prize for neighbours of different kinds."""
    heads, kernel = whole(1, 8), of_values((3, 5, 7, 9))

    def layer(i: int) -> Branch:
        inside = ((Branch(f"layers.{i}.attention.heads", heads),), (Branch(f"layers.{i}.conv.kernel", kernel),), ())
        return Branch(f"layers.{i}.mixer", of_values(("attention", "conv", "none")), inside)

    def score(values: Mapping[str, Any]) -> float:
        total, before = 0.0, ""
        for i in range(depth):
            kind = values[f"layers.{i}.mixer"]
            if kind == "attention":
                total += 1.0 - abs(values[f"layers.{i}.attention.heads"] - (2 + i % 6)) / 8
            elif kind == "conv":
                total += 0.9 - abs(values[f"layers.{i}.conv.kernel"] - (3 + 2 * (i % 4))) / 12
            total += 0.25 * (kind != before)
            before = kind
        return total

    space = TreeSpace([layer(i) for i in range(depth)])
    return Problem("stack", space, (Objective("score", "max"),), lambda c, f: {"score": score(c) + _noise(c, f)}, (0.0,))


def trade(depth: int = 10) -> Problem:
    """Depth and a width for every layer under a condition: accuracy against size. The layers behind the depth are not there."""
    layers = tuple(Branch(f"layers.{i}.width", whole(1, 16)) for i in range(depth))
    root = Branch("depth", whole(2, depth), tuple(layers[:d] for d in range(2, depth + 1)))

    def widths(values: Mapping[str, Any]) -> list[int]:
        return [values[f"layers.{i}.width"] for i in range(values["depth"])]

    def size(values: Mapping[str, Any]) -> float:
        w = widths(values)
        return float(sum(a * b for a, b in zip([4, *w], w)))

    def accuracy(values: Mapping[str, Any]) -> float:
        return sum(math.log1p(w) / (1 + abs(i - 3)) for i, w in enumerate(widths(values)))

    space = TreeSpace([root], lambda v: size(v) <= 1200, {"size": size})
    measure = lambda c, f: {"accuracy": accuracy(c) + _noise(c, f), "size": size(c)}
    return Problem("trade", space, (Objective("accuracy", "max"), Objective("size")), measure, (0.0, 1200.0))


def valley() -> Problem:
    """An optimiser with a continuous rate and knobs of its own, beside a net: a narrow valley that bends with the choice."""
    rate = Domain("float", -5.0, 0.0)
    momentum = Branch("optimiser.sgd.momentum", Domain("float", 0.0, 1.0))
    decay = Branch("optimiser.adam.decay", Domain("float", 0.0, 1.0))
    branches = [Branch("rate", rate), Branch("optimiser", of_values(("sgd", "adam", "sign")), ((momentum,), (decay,), ())),
                *(Branch(f"widths.{i}", whole(8, 64, 8)) for i in range(4)), Branch("norm", of_values(("batch", "layer", "none")))]

    def loss(v: Mapping[str, Any]) -> float:
        best = {"sgd": -1.5, "adam": -3.0, "sign": -4.0}[v["optimiser"]]
        total = 2 * (v["rate"] - best) ** 2 + {"sgd": 0.4, "adam": 0.0, "sign": 0.8}[v["optimiser"]]
        total += 3 * (v.get("optimiser.sgd.momentum", 0.9) - 0.9) ** 2 + 3 * (v.get("optimiser.adam.decay", 0.3) - 0.3) ** 2
        total += sum(((v[f"widths.{i}"] - 8 * (3 + i)) / 32) ** 2 for i in range(4))
        return total + {"batch": 0.0, "layer": 0.1, "none": 1.0}[v["norm"]]

    return Problem("valley", TreeSpace(branches), (Objective("loss"),), lambda c, f: {"loss": loss(c) + _noise(c, f)}, (20.0,))


def small() -> Problem:
    """30 assignments, 24 of which satisfy the condition."""
    sizes = tuple((Branch(f"{kind}.size", whole(1, 5)),) for kind in "ab")
    branches = [Branch("kind", of_values(("a", "b")), sizes), Branch("norm", whole(0, 2))]
    size = lambda v: float(v.get("a.size", 0) + v.get("b.size", 0))
    space = TreeSpace(branches, lambda v: size(v) + v["norm"] != 4, {"size": size})
    return Problem("small", space, (Objective("score"),), lambda c, f: {"score": size(c) + c["norm"] + _noise(c, f)}, (10.0,))


def _noise(candidate: Candidate, fidelity: float) -> float:
    """What a cheaper evaluation is wrong by: fixed for a candidate and a fidelity, nothing at the full one."""
    if fidelity >= 1:
        return 0.0
    return 0.5 * (1 - fidelity) * (int(candidate.key[:8], 16) / 2**31 - 1)


PROBLEMS: dict[str, Callable[[], Problem]] = {"stack": stack, "trade": trade, "valley": valley}
