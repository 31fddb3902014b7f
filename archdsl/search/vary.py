"""Neighbours and children of candidates: changes, crossing, repair. What a child has that neither wish nor chance gave is recorded."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from archdsl.elaborate.domains import Domain, same
from archdsl.elaborate.values import show
from archdsl.search.domains import another, draw, nearest, neighbour, size_of, values_of
from archdsl.search.fitting import Fitting
from archdsl.search.selection import Selection
from archdsl.search.tree import Choice, Entry, Part, Refused

if TYPE_CHECKING:
    from archdsl.search.space import Drawn, SearchSpace

T = TypeVar("T")

TRIES = 60
"""So many ways are tried to give a child what it was to have, before one of its parents' neighbours takes its place."""
REDRAWN = 6
"""The first of them, with one decision drawn anew: where these do not do, a repair by cells costs less than further ones."""


def listed_or_drawn(domain: Domain) -> Iterator[Any]:
    """The first value of a domain."""
    if domain.kind == "list":
        yield tuple(next(listed_or_drawn(d)) for d in domain.items)
    elif domain.size is None:
        yield domain.low
    else:
        yield values_of(domain)[0]


def assigned(space: SearchSpace, wanted: Mapping[str, Any], rng: Random, repaired: list[str], loose: frozenset[str] = frozenset(),
             like: Selection | None = None, changed: Iterable[str] = ()) -> Selection | Refused:
    """The assignment with the values that are wanted where they fit, those next to them where they do not, and drawn ones elsewhere; `repaired` is
    told of both. `loose`: decisions that are drawn anew. `like`: an assignment that has what is wanted but for what is `changed`."""
    def pick(address: str, domain: Domain) -> Any:
        if domain.kind == "unreadable":
            raise _Stuck
        if address in wanted and address not in loose and domain.contains(wanted[address]):
            return wanted[address]
        value = nearest(domain, wanted[address], rng) if address in wanted and address not in loose else draw(domain, rng)
        if address in wanted and not same(wanted[address], value):
            repaired.append(_instead(address, value, wanted[address]))
        return value

    header: dict[str, Any] = {}
    try:
        for n in space.header.order:
            header[n] = pick(n, space.header.domain(n, header))
    except _Stuck:
        return Refused(())
    return space.select(header, pick, like, above((*changed, *loose)))


def _instead(address: str, value: Any, wanted: Any) -> str:
    return f"{address}: {show(value)} instead of {show(wanted)}"


def fitted(space: SearchSpace, wanted: Mapping[str, Any], near: Selection, kept: frozenset[str], rng: Random) -> Drawn | None:
    """A candidate within the limits below the same setting of the header, with as few other decisions than an assignment that breaks them as limits
    on sums over parts let it have; those in `kept` stay."""
    for selection in Fitting(space, near, kept).found(rng):
        found = space.finished(selection)
        if not isinstance(found, Refused):
            found.repaired = tuple([_instead(a, v, wanted[a]) for a, v in found.items() if a in wanted and not same(wanted[a], v)])
            return found
    return None


def above(addresses: Iterable[str]) -> set[str]:
    """The paths of all parts that these may lie in."""
    found = {""}
    for a in addresses:
        at = a.find(".")
        while at >= 0:
            found.add(a[:at + 1])
            at = a.find(".", at + 1)
    return found


class _Stuck(Exception):
    """A decision has no value with those before it."""


def repaired(space: SearchSpace, wanted: Mapping[str, Any], rng: Random, kept: frozenset[str], like: Selection | None = None,
             first: int = 0) -> Drawn | None:
    """The wanted candidate, or one with a few other decisions than those in `kept` drawn anew, the fewest first; where single ones do not do, that
    within limits on sums over parts which differs least below the same header. `like`: one that has what is wanted but for what is kept; `first`:
    from which attempt on."""
    addresses: list[str] = []
    starts: dict[Part, Selection] = {} if first == 0 or like is None else {like.part: like}
    tried: set[Part] = set()
    for attempt in range(first, TRIES):
        if attempt and not addresses:
            addresses = [a for a in wanted if a not in kept]
        loose = frozenset(rng.sample(addresses, min(len(addresses), (attempt + 5) // 6)))
        told: list[str] = []
        near = assigned(space, wanted, rng, told, loose, like, kept)
        if isinstance(near, Refused):
            continue
        found = space.finished(near, told)
        if not isinstance(found, Refused):
            return found
        starts.setdefault(near.part, near)
        if attempt >= REDRAWN and near.part not in tried:  # once below each setting of the header
            tried.add(near.part)
            found = fitted(space, wanted, starts[near.part], kept, rng)
            if found is not None:
                return found
    return None


def mutated(space: SearchSpace, parent: Drawn, rng: Random, strength: int = 1) -> Drawn:
    """`strength` decisions changed: to a value nearby, one in four to any other."""
    header = [n for n in space.header.names if size_of(space.header.domain(n, parent)) != 1]
    parts = parent.selection.all
    steps = list(accumulate([len(s.movable) for s in parts], initial=len(header)))
    for _ in range(TRIES if steps[-1] else 0):
        wanted = parent.copy()
        chosen: list[str] = []
        for i in rng.sample(range(steps[-1]), min(max(strength, 1), steps[-1])):
            at = bisect_right(steps, i)
            if at == 0:
                address, domain = header[i], space.header.domain(header[i], parent)
            else:
                name = parts[at - 1].movable[i - steps[at - 1]]
                address, domain = parts[at - 1].path + name, parts[at - 1].own_domains[name]
            wanted[address] = (another if rng.randrange(4) == 0 else neighbour)(domain, parent[address], rng)
            chosen.append(address)
        child = repaired(space, wanted, rng, frozenset(chosen), parent.selection)
        if child is not None and child != parent:
            return child
    return space.own(parent)


def crossed(space: SearchSpace, a: Drawn, b: Drawn, rng: Random) -> Drawn:
    """Decision by decision from one of the parents; what lies below an arm comes from the parent that the arm comes from."""
    if a.selection.part is b.selection.part and (selection := woven(a.selection, b.selection, rng)) is not None:
        child = space.finished(selection)
        if isinstance(child, Refused):  # a limit does not hold
            wanted = selection.values(dict(selection.part.root.header_values))
            child = repaired(space, wanted, rng, frozenset(), selection, first=1)
        if child is not None:
            return child
    for _ in range(TRIES):
        wanted: dict[str, Any] = {}
        source: dict[str, Drawn] = {}
        for address in dict.fromkeys((*a, *b)):
            over = given(address, source)
            parents = [over] if over is not None else [p for p in (a, b) if address in p]
            giver = parents[rng.randrange(len(parents))]
            if address in giver:
                wanted[address] = giver[address]
                source[address] = giver
        child = repaired(space, wanted, rng, frozenset())
        if child is not None:
            return child
    return (a, b)[rng.randrange(2)]


def given(address: str, source: Mapping[str, T]) -> T | None:
    """Where the nearest decision that an address lies below comes from."""
    at = address.rfind(".")
    while at >= 0:
        found = source.get(address[:at])
        if found is not None:
            return found
        at = address.rfind(".", 0, at)
    return None


def woven(a: Selection, b: Selection, rng: Random) -> Selection | None:
    """The crossing of two assignments of a part, what comes from one of them whole as it is; None where the decisions do not fit together."""
    if a is b or a.entry is b.entry and not a.below:
        return a
    if hangs(a) and hangs(b):
        return a if rng.random() < 0.5 else b
    part, step = a.part, a.part.first()
    own: dict[str, Any] = {}
    source: dict[str, Selection] = {}
    while isinstance(step, Choice):
        name = step.address
        over = given(name, source)
        givers = [s for s in ((a, b) if over is None else (over,)) if name in s.entry.values]
        if not givers:
            return None
        giver = givers[0] if len(givers) == 1 or rng.random() < 0.5 else givers[1]
        value = giver.entry.values[name]
        if not step.domain.contains(value):
            return None
        behind = part.behind(step, value, own)
        own[name], source[name] = value, giver
        step = behind
    if isinstance(step, Refused):
        return None
    below: list[Selection] = []
    for (_, inner), found in zip(step.parts, beside(step, a, b, source)):
        if not found or any(s.part is not inner for s in found):
            return None
        child = woven(found[0], found[-1], rng)
        if child is None:
            return None
        below.append(child)
    return Selection(part, a.path, step, tuple(below))


def beside(entry: Entry, a: Selection, b: Selection, source: Mapping[str, Selection]) -> Iterator[Sequence[Selection]]:
    """For each part of an entry what stands in its place in two assignments, or in the one that the decision above it comes from."""
    if entry is a.entry is b.entry:
        for i, (arm, *both) in enumerate(zip(arms(entry), a.below, b.below)):
            yield both if arm is None else (source[arm].below[i],)
        return
    left, right = ({s.path: s for s in x.below} for x in (a, b))
    for name, _ in entry.parts:
        path, over = f"{a.path}{name}.", given(f"{name}.", source)
        found = [s for s in (left.get(path), right.get(path)) if s is not None]
        yield found if over is None else [s for s in found if s in over.below]


def arms(entry: Entry) -> tuple[str | None, ...]:
    """For each part the nearest decision of the entry's own that it lies below."""
    found = entry.figures.get(arms)
    if found is None:
        found = entry.figures[arms] = tuple([given(f"{p}.", {a: a for a in entry.values}) for p, _ in entry.parts])
    return found


def hangs(selection: Selection) -> bool:
    """Whether all decisions of a part, those further down too, lie below its first."""
    entry = selection.entry
    found = entry.figures.get(hangs)
    if found is None:
        first, *others = *entry.values, *(p for p, _ in entry.parts)
        found = entry.figures[hangs] = bool(entry.values) and all(o == first or o.startswith(f"{first}.") for o in others)
    return found
