"""What a supernet has to hold: every weight that a candidate of the space may have, as large as any has it, and which of their axes belong together.
Free of torch."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from archdsl.coupling import Axes, Group, groups_of
from archdsl.coupling.groups import couple
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.values import is_hyper_number
from archdsl.graph import Graph, Param, TensorType
from archdsl.records import record
from archdsl.search.model import Candidate
from archdsl.search.space import Drawn, SearchSpace
from archdsl.supernet.draws import settled, with_value
from archdsl.supernet.refusals import check_channels, check_results, useless

DRAWS = 48
"""So many candidates are drawn to see whether one has a larger weight than those that were put together."""
Key = tuple[str, int]
"""A weight: its address and how many axes it has. Candidates that give an address as many axes share the weight."""


@record()
class Held:
    """One weight of the supernet. `shape`: the largest size of each axis; `groups`: of a candidate that has it; `merged`: of the first where the
    weight is largest as a whole, `graph`, coupled with what every other candidate couples."""

    param: Param
    shape: tuple[int, ...]
    groups: Axes
    merged: Axes
    graph: Graph
    address: str


class Widest:
    """`held`: every weight by key. `largest`, `smallest`: the candidates with the most and the fewest parameters among those looked at."""

    def __init__(self, space: SearchSpace):
        self.space = space
        self.held: dict[Key, Held] = {}
        self._seen: dict[str, int] = {}
        self._results: set[tuple[TensorType, ...]] = set()
        self._groups: dict[str, dict[str, Axes]] = {}
        self.looked: list[Drawn] = []
        for drawn in self._put_together():
            self._look(drawn)
        for seed in range(DRAWS):
            self._look(space.sample(seed))
        for rest, sign in ((top, 1), (bottom, -1)):
            self._look_at_arms(rest, sign)
        self._all_values_serve()
        self._arms_give_one_shape()
        self._keep_narrow_arms()
        self.largest = max(self.looked, key=lambda d: self._seen[d.key])
        self.smallest = min(self.looked, key=lambda d: self._seen[d.key])

    def _look(self, drawn: Drawn) -> None:
        """Grows what is held by the weights of a candidate."""
        if drawn.key in self._seen:
            return
        self.looked.append(drawn)
        made: Elaborated = self.space.model(drawn)
        self._results.add(tuple(o.type for o in made.graph.outputs))
        weights = learned(made.graph)
        own, groups = groups_of(made.graph), groups_of(made.graph)
        self._groups[drawn.key] = groups
        total = 0
        for address, p in weights.items():
            key = address, len(p.sizes)
            total += _numel(p.sizes)
            held = self.held.get(key)
            if held is None:
                self.held[key] = Held(p, p.sizes, own[address], groups[address], made.graph, address)
                continue
            for a, b in zip(held.merged, groups[address]):
                couple(a, b)
            larger = _numel(p.sizes) > _numel(held.param.sizes)
            held.groups = tuple(g if n > most or larger and n == most else known
                                for known, most, g, n in zip(held.groups, held.shape, own[address], p.sizes))
            held.shape = tuple(map(max, held.shape, p.sizes))
            if larger:
                held.param, held.merged, held.graph = p, groups[address], made.graph
        self._seen[drawn.key] = total

    def _look_at_arms(self, rest: Callable[[Domain], Any], sign: int) -> None:
        """Beside the greatest numbers the arms that have the most weights, beside the least those that have the fewest: one choice after another."""
        arms: dict[str, Any] = {}
        best: tuple[int, Drawn] | None = None
        for pattern, domain in self._patterns().items():
            for value in domain.values if _is_choice(domain) else ():
                given = {**arms, pattern: value}
                found = settled(self.space, lambda a, d, given=given: given[p] if (p := _pattern(a)) in given and d.contains(given[p]) else rest(d))
                worth = None if found is None else sign * self.space.costs(found, ["params"])["params"]
                if found is not None and worth is not None and (best is None or worth > best[0]):
                    best, arms = (int(worth), found), given
        if best is not None:
            self._look(best[1])

    def _all_values_serve(self) -> None:
        """Raises A0849 for an arm, or a number below 1, that no candidate can have."""
        seen = {(_pattern(a), repr(v)) for drawn in self.looked for a, v in drawn.items()}
        for pattern, domain in self._patterns().items():
            for value in _edges(domain):
                small = is_hyper_number(value) and value < 1
                if not small and ((pattern, repr(value)) in seen or is_hyper_number(value)) or not isinstance(value, (str, int)):
                    continue
                wanted = lambda a, d, p=pattern, v=value: v if _pattern(a) == p and d.contains(v) else None
                found = self._beside_the_largest(wanted) if small else None
                found = found or with_value(self.space, wanted)
                if isinstance(found, Drawn):
                    if is_hyper_number(value):
                        check_channels(next(a for a in found if _pattern(a) == pattern), pattern, value, self.space.model(found))
                    self._look(found)
                elif found and found[0].code != "A0803":  # what limits leave out is left out on purpose
                    raise useless(pattern, value, found[0])

    def _beside_the_largest(self, wanted: Callable[[str, Domain], Any]) -> Drawn | None:
        """A candidate with what is wanted, all else as large as it goes: what is wrong with it is due to that."""
        given: list[str] = []

        def choose(address: str, domain: Domain) -> Any:
            value = wanted(address, domain)
            if value is None:
                return top(domain)
            given.append(address)
            return value

        found = settled(self.space, choose)
        return found if given else None

    def _arms_give_one_shape(self) -> None:
        """Raises A0849 for a choice whose arms give the model results of different shapes."""
        if len(self._results) < 2:
            return
        for pattern, domain in self._patterns().items():
            if _is_word(domain):
                found = [(v, settled(self.space, lambda a, d, v=v: v if _pattern(a) == pattern and d.contains(v) else top(d)))  # noqa: B023
                         for v in domain.values]
                arms = [(v, c) for v, c in found if c is not None and v in [w for a, w in c.items() if _pattern(a) == pattern]]
                if len(arms) > 1:
                    address = next(a for a in arms[0][1] if _pattern(a) == pattern)
                    check_results(pattern, address, [(v, self.space.model(c)) for v, c in arms])

    def _keep_narrow_arms(self) -> None:
        """Channels of a weight that arms share are not permuted where one of them has fewer at its largest: it would get others."""
        arms = max((len(d.values) for d in self._patterns().values() if _is_word(d)), default=0)
        for turn in range(arms if arms > 1 else 0):
            full = settled(self.space, lambda a, d, turn=turn: _arm(d, turn) if _is_word(d) else top(d))
            if full is None:
                continue
            self._look(full)
            for address, p in learned(self.space.model(full).graph).items():
                held = self.held[address, len(p.sizes)]
                for merged, own, size, most in zip(held.merged, self._groups[full.key][address], p.sizes, held.shape):
                    if size < most:  # what goes with the arm's own channels, in weights of its own, stays too
                        for leaf in (*merged.leaves(), *own.leaves()):
                            leaf.fix()

    # ---------------------------------------------------------------- candidates at the edges
    def _put_together(self) -> Iterator[Drawn]:
        """Everything as large as it goes, every arm once, as small as it goes, and each value of each decision beside the largest others,
        that of an arm below it: values of heads differ in how they take one width apart."""
        arms = 1
        for turn in range(8):
            found = settled(self.space, lambda a, d, turn=turn: _arm(d, turn) if _is_choice(d) else top(d))
            if found is None:
                continue
            yield found
            arms = max([arms, *(len(d.values) for d in self.space.decisions(found).values() if _is_choice(d))])
            if turn + 1 >= arms:
                break
        smallest = settled(self.space, lambda a, d: bottom(d))
        if smallest is not None:
            yield smallest
        for pattern, (domain, arms) in self._below().items():
            for value in _edges(domain):
                found = settled(self.space, lambda a, d, p=pattern, value=value, arms=arms:
                                value if _pattern(a) == p and d.contains(value) else arms.get(_pattern(a), top(d)))
                if found is not None:
                    yield found

    def _patterns(self) -> dict[str, Domain]:
        """The decisions of the candidates so far, those of one kind at several positions once."""
        return {_pattern(a): d for drawn in self.looked for a, d in self.space.decisions(drawn).items()}

    def _below(self) -> dict[str, tuple[Domain, dict[str, Any]]]:
        """The decisions of the candidates so far, and the arms that one had with which each exists."""
        found: dict[str, tuple[Domain, dict[str, Any]]] = {}
        for drawn in self.looked:
            decisions = self.space.decisions(drawn)
            words = {_pattern(a): drawn[a] for a, d in decisions.items() if _is_word(d)}
            for a, d in decisions.items():
                at = _pattern(a)
                found.setdefault(at, (d, {p: v for p, v in words.items() if at.startswith(f"{p}.")}))
        return found

    def fault(self, candidate: Candidate, graph: Graph) -> str | None:
        """Why a candidate is none of this supernet: a sentence; None where it is one."""
        for address, p in learned(graph).items():
            held = self.held.get((address, len(p.sizes)))
            if held is None:
                return f"`{address}` {list(p.sizes)} is a weight that the supernet does not hold"
            if any(a > b for a, b in zip(p.sizes, held.shape)):
                return f"`{address}` is {list(p.sizes)} here, and the supernet holds {list(held.shape)}"
        return None


def learned(graph: Graph) -> dict[str, Param]:
    """The weights that candidates share: parameters and float buffers. What is computed from the sizes alone (`const`, tables) is each one's own."""
    return {a: p for a, p in graph.parameters() if p.kind in ("param", "frozen") or p.kind == "buffer" and p.type.is_float}


def grown(held: Held) -> Param:
    """The weight's declaration at its full size."""
    return Param(held.param.path, held.param.kind, TensorType(held.param.type.dtype, held.shape), held.param.init, (), held.param.span)


def _numel(sizes: tuple[int, ...]) -> int:
    n = 1
    for s in sizes:
        n *= s
    return n


def _pattern(address: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", address)


def _is_choice(d: Domain) -> bool:
    return d.kind == "choice" and not all(is_hyper_number(v) for v in d.values)


def _is_word(d: Domain) -> bool:
    return d.kind == "choice" and all(isinstance(v, str) for v in d.values)


def _arm(d: Domain, turn: int) -> Any:
    return d.values[turn % len(d.values)]


def top(d: Domain) -> Any:
    """The greatest value of a domain; of arms and words the first."""
    if d.kind == "list":
        return tuple(map(top, d.items))
    if d.kind == "choice":
        return max(d.values) if all(is_hyper_number(v) for v in d.values) else d.values[0]
    return d.high if d.step is None else d.low + (d.size or 1) * d.step - d.step


def bottom(d: Domain) -> Any:
    """The least value of a domain; of arms and words the first."""
    if d.kind == "list":
        return tuple(map(bottom, d.items))
    if d.kind == "choice":
        return min(d.values) if all(is_hyper_number(v) for v in d.values) else d.values[0]
    return d.low


def _edges(d: Domain) -> list[Any]:
    if d.kind == "choice":
        return list(d.values)
    return [bottom(d), top(d)]


Settings = Mapping[str, Any]
__all__ = ["Group", "Held", "Key", "Widest", "grown", "learned"]
