"""Candidates drawn decision by decision: each value of a decision as often as its others, however many candidates lie behind it. Free of torch."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from random import Random
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.values import is_hyper_number
from archdsl.search.domains import draw, values_of
from archdsl.search.space import Drawn, SearchSpace
from archdsl.search.tree import Refused

TRIES = 64
"""So many draws are tried before one is taken that is uniform over the candidates."""


def each_decision(space: SearchSpace, seed: int, share: float = 1.0) -> Drawn:
    """A candidate whose decisions are drawn one by one. `share`: of each, so much of the way from the largest value alone (0) to all of them (1), as
    a supernet's training widens (arxiv 2109.00642). Where those values do not fit together or break a limit 64 times, one of `space.sample`."""
    random = Random(seed)

    def choose(_: str, domain: Domain) -> Any:
        if domain.kind == "list":
            return tuple(choose(_, d) for d in domain.items)
        if domain.size is None:
            return Fraction(domain.high) - (Fraction(domain.high) - draw(domain, random)) * Fraction(share)
        values = largest_first(domain)
        return values[random.randrange(1 + int((len(values) - 1) * share))]

    for _ in range(TRIES):
        found = settled(space, choose)
        if found is not None:
            return found
    return space.sample(seed)


def dealt(space: SearchSpace, seed: int, count: int) -> list[Drawn]:
    """So many candidates that each value of a decision is in as many of them as any other, or in one more (strict fairness: arxiv 1907.01845): the
    values are shuffled and dealt, round by round. A decision that only some candidates have is dealt among those. In place of a candidate whose
    values do not fit together or break a limit stands one of `each_decision`, and what was dealt to it is lost: counts are equal no longer."""
    random = Random(seed)
    hands: dict[tuple[str, str], list[Any]] = {}

    def choose(address: str, domain: Domain) -> Any:
        if domain.kind == "list":
            return tuple(choose(f"{address}.{i}", d) for i, d in enumerate(domain.items))
        if domain.size is None:
            return draw(domain, random)
        hand = hands.setdefault((address, repr(domain)), [])
        if not hand:
            hand += values_of(domain)
            random.shuffle(hand)
        return hand.pop()

    return [settled(space, choose) or each_decision(space, seed + i) for i in range(count)]


def largest_first(domain: Domain) -> list[Any]:
    """The values of a domain: numbers from the largest down, arms and words as they are written."""
    values = list(values_of(domain))
    return sorted(values, reverse=True) if all(map(is_hyper_number, values)) else values


def settled(space: SearchSpace, choose: Any) -> Drawn | None:
    """The candidate with these values; None where they do not fit together."""
    found = tried(space, choose)
    return found if isinstance(found, Drawn) else None


def tried(space: SearchSpace, choose: Any) -> Drawn | tuple[Diagnostic, ...]:
    """The candidate with these values, or why there is none."""
    header: dict[str, Any] = {}
    try:
        for n in space.header.order:
            header[n] = choose(n, space.header.domain(n, header))
        selection = space.select(header, choose)
        found = selection if isinstance(selection, Refused) else space.finished(selection)
    except ArchError as fault:
        return tuple(fault.diagnostics)
    return found if isinstance(found, Drawn) else found.faults


def with_value(space: SearchSpace, wanted: Callable[[str, Domain], Any], tries: int = 48) -> Drawn | tuple[Diagnostic, ...]:
    """A candidate with the decisions that `wanted` gives a value, or why none of some draws is one. Its other decisions are by turns those of a
    candidate, which go together, and drawn one by one."""
    why: tuple[Diagnostic, ...] = ()
    for seed in range(tries):
        random = Random(seed)
        others: Mapping[str, Any] = space.sample(seed) if seed % 2 == 0 else {}

        def choose(address: str, domain: Domain, random: Random = random, others: Mapping[str, Any] = others) -> Any:
            value = wanted(address, domain)
            if value is None and address in others and domain.contains(others[address]):
                value = others[address]
            return draw(domain, random) if value is None else value

        found = tried(space, choose)
        if isinstance(found, Drawn):
            return found
        why = why or found
    return why
