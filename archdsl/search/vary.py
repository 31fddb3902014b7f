"""Neighbours and children of candidates: changes, crossing, repair. What a child has that neither wish nor chance gave is recorded."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.domains import Domain, same
from archdsl.elaborate.values import show
from archdsl.search.domains import another, draw, nearest, neighbour, size_of, values_of
from archdsl.search.tree import Refused

if TYPE_CHECKING:
    from archdsl.search.space import Drawn, SearchSpace

TRIES = 60
"""So many ways are tried to give a child what it was to have, before one of its parents' neighbours takes its place."""


def listed_or_drawn(domain: Domain) -> Iterator[Any]:
    """The first value of a domain."""
    if domain.kind == "list":
        yield tuple(next(listed_or_drawn(d)) for d in domain.items)
    elif domain.size is None:
        yield domain.low
    else:
        yield values_of(domain)[0]


def completed(space: SearchSpace, wanted: Mapping[str, Any], rng: Random, loose: frozenset[str] = frozenset()) -> Drawn | Refused:
    """The candidate with the values that are wanted where they fit, those next to them where they do not, and drawn ones elsewhere. `loose`:
    decisions that are drawn anew."""
    repaired: list[str] = []

    def pick(address: str, domain: Domain) -> Any:
        if domain.kind == "unreadable":
            raise _Stuck
        if address in wanted and address not in loose and domain.contains(wanted[address]):
            return wanted[address]
        value = nearest(domain, wanted[address], rng) if address in wanted and address not in loose else draw(domain, rng)
        if address in wanted and not same(wanted[address], value):
            repaired.append(f"{address}: {show(value)} instead of {show(wanted[address])}")
        return value

    header: dict[str, Any] = {}
    try:
        for n in space.header.order:
            header[n] = pick(n, space.header.domain(n, header))
    except _Stuck:
        return Refused(())
    selection = space.select(header, pick)
    return selection if isinstance(selection, Refused) else space.finished(selection, repaired)


class _Stuck(Exception):
    """A decision has no value with those before it."""


def repaired(space: SearchSpace, wanted: Mapping[str, Any], rng: Random, kept: frozenset[str]) -> Drawn | None:
    """The wanted candidate, or one with a few other decisions than those in `kept` drawn anew, the fewest first."""
    addresses = [a for a in wanted if a not in kept]
    for attempt in range(TRIES):
        loose = frozenset(rng.sample(addresses, min(len(addresses), (attempt + 5) // 6)))
        found = completed(space, wanted, rng, loose)
        if not isinstance(found, Refused):
            return found
    return None


def mutated(space: SearchSpace, parent: Drawn, rng: Random, strength: int = 1) -> Drawn:
    """`strength` decisions changed: to a value nearby, one in four to any other."""
    domains = space.decisions(parent)
    movable = [a for a, d in domains.items() if size_of(d) != 1]
    for _ in range(TRIES if movable else 0):
        chosen = rng.sample(movable, min(max(strength, 1), len(movable)))
        wanted = dict(parent)
        for a in chosen:
            step = another if rng.randrange(4) == 0 else neighbour
            wanted[a] = step(domains[a], parent[a], rng)
        child = repaired(space, wanted, rng, frozenset(chosen))
        if child is not None and child != parent:
            return child
    return space.own(parent)


def crossed(space: SearchSpace, a: Drawn, b: Drawn, rng: Random) -> Drawn:
    """Decision by decision from one of the parents; what lies below an arm comes from the parent that the arm comes from."""
    for _ in range(TRIES):
        wanted: dict[str, Any] = {}
        source: dict[str, Drawn] = {}
        for address in dict.fromkeys((*a, *b)):
            above = next((source[address[:i]] for i in range(len(address) - 1, 0, -1) if address[i] == "." and address[:i] in source), None)
            parents = [above] if above is not None else [p for p in (a, b) if address in p]
            giver = parents[rng.randrange(len(parents))]
            if address in giver:
                wanted[address] = giver[address]
                source[address] = giver
        child = repaired(space, wanted, rng, frozenset())
        if child is not None:
            return child
    return (a, b)[rng.randrange(2)]
