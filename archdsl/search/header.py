"""The decisions of a model's header: what each may be once those that its domain reads are made. Nothing of the body is elaborated."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import prod
from random import Random
from typing import Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.expressions import free_names
from archdsl.elaborate.knobs import header
from archdsl.graph import Knob
from archdsl.search.domains import draw, size_of, values_of
from archdsl.spec import Spec
from archdsl.syntax import tree

MAX_PARENTS = 20_000
"""So many settings of the knobs that other domains read are gone through; beyond, knobs are drawn one by one."""


WORD = re.compile(r"[^\W\d]\w*")


def decides_below(spec: Spec, variant: str | None) -> bool:
    """Whether candidates may have decisions besides those of the header, wherever these lead: a `choose`, or an argument with a domain, in what the
    model's text and its variant's mention, and in what that mentions; told by words, so of more than is applied."""
    left: list[tuple[Any, Any]] = [(spec.module, spec.decl), *((spec.module, s.expr) for s in spec.settings(variant, {}) if s.expr is not None)]
    others = {id(p) for p in spec.decl.params}  # the header's, and those that are no arguments: inputs, fields of records
    seen: set[int] = set()
    while left:
        module, text = left.pop()
        if id(text) in seen:
            continue
        seen.add(id(text))
        for n in tree.below(text):
            if isinstance(n, tree.Choose) or isinstance(n, tree.Param) and n.domain is not None and id(n) not in others:
                return True
            others.update(map(id, n.fields if isinstance(n, tree.Record) else getattr(n, "inputs", None) or ()))
        for word in dict.fromkeys(WORD.findall(text.span.text)):
            if word in module.modules:
                return True  # whose blocks may be any of its own
            found = module.scope.get(word)
            if isinstance(getattr(found, "decl", None), tree.Node):
                left.append((found.module, found.decl))
    return False


def reads_itself(name: str, domain: Any) -> bool:
    """Whether the text of a domain speaks of the value that is there: `each w => …`, or the knob's own name."""
    return any(isinstance(n, tree.Each) and n.name is not None or isinstance(n, tree.Name) and n.id == name for n in tree.below(domain))


class Header:
    """`order`: the decisions, each behind those that its domain reads. A domain that reads its knob's own value is that around the spec's value,
    so that it stays where it is while the knob moves. `searches`: whether an argument with a domain is left to the search."""

    def __init__(self, spec: Spec, variant: str | None, searches: Callable[[str], bool] = lambda _: True) -> None:
        self.spec, self.variant = spec, variant
        params = {p.name: p for p in spec.decl.params}
        self.names = [p.name for p in spec.decl.params if p.domain is not None and searches(p.name)]
        self._domains: dict[tuple[str, tuple[Any, ...]], Domain] = {}
        reached = {n: self._reach(n, params) for n in self.names}
        self.order = self._sorted(reached)
        self.reads = {n: tuple(m for m in self.order[:i] if m in reached[n]) for i, n in enumerate(self.order)}

    def read(self, values: Mapping[str, Any]) -> tuple[dict[str, Knob], list[Diagnostic]]:
        """All arguments with these values, and what is wrong with them."""
        return header(self.spec.module, self.spec.decl, self.spec.settings(self.variant, values), self.spec.session)

    def _reach(self, name: str, params: dict[str, tree.Param]) -> set[str]:
        """The other decisions that a domain reads, through the defaults of what is no decision too."""
        p = params[name]
        stack = [p.domain] + ([p.default] if reads_itself(name, p.domain) else [])
        found: set[str] = set()
        seen = {name}
        while stack:
            for n in free_names(stack.pop()) - seen:
                seen.add(n)
                if n in self.names:
                    found.add(n)
                elif n in params and params[n].default is not None:
                    stack.append(params[n].default)
        return found

    def _sorted(self, reached: dict[str, set[str]]) -> list[str]:
        """In the order of the text as far as the domains let it; in a circle the first comes first."""
        left, order = list(self.names), []
        while left:
            free = next((n for n in left if not reached[n] & set(left) - {n}), left[0])
            left.remove(free)
            order.append(free)
        return order

    def domain(self, name: str, values: Mapping[str, Any]) -> Domain:
        """What a decision may be, given those before it; one that cannot be read with these has no values."""
        key = self.spec.session.key
        at = name, tuple([key(values[n]) for n in self.reads[name]])
        found = self._domains.get(at)
        if found is None:
            found = self._domains[at] = self.read({n: values[n] for n in self.reads[name]})[0][name].allowed or Domain("unreadable")
        return found

    @cached_property
    def groups(self) -> list[Group]:
        """The decisions in groups whose domains do not read each other's."""
        found: list[list[str]] = []
        for n in self.order:
            near = [g for g in found if set(g) & set(self.reads[n])]
            found = [g for g in found if g not in near] + [[m for g in near for m in g] + [n]]
        found.sort(key=lambda g: self.order.index(g[0]))
        return [Group(self, [n for n in self.order if n in g]) for g in found]

    @cached_property
    def count(self) -> int | None:
        """How many settings the domains allow; None where a range is continuous, or where they are too many to weigh."""
        counts = [g.count for g in self.groups]
        return None if None in counts else prod(c for c in counts if c is not None)

    def endless(self, name: str) -> bool:
        """Whether the domain of a decision is continuous at the spec's values."""
        domain = self.read({})[0][name].allowed
        return domain is not None and domain.kind != "unreadable" and size_of(domain) is None

    @cached_property
    def weighed(self) -> bool:
        """Whether `sample` is uniform."""
        return all(g.weights is not None for g in self.groups)

    def settings(self, names: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """All settings of these decisions (of all), where there is no continuous range."""
        names = self.order if names is None else names

        def go(i: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if i == len(names):
                yield dict(values)
                return
            for v in every(self.domain(names[i], values)):
                yield from go(i + 1, {**values, names[i]: v})

        return go(0, {})

    def sample(self, rng: Random) -> dict[str, Any]:
        """Uniform over what the domains allow (continuous ranges by length) where `weighed`, else uniform knob by knob."""
        found: dict[str, Any] = {}
        for g in self.groups:
            found.update(g.sample(rng))
        return {n: found[n] for n in self.order if n in found}


class Group:
    """Decisions whose domains read each other. `parents`: those that are read."""

    def __init__(self, header: Header, names: list[str]) -> None:
        self.header, self.names = header, names
        read = {m for n in names for m in header.reads[n]}
        self.parents = [n for n in names if n in read]
        self.others = [n for n in names if n not in read]

    @cached_property
    def weights(self) -> list[tuple[dict[str, Any], int]] | None:
        """The settings of the parents, each with the number of settings of the others, a continuous range counted as one; None: too many, or
        a parent with a continuous range."""
        found: list[tuple[dict[str, Any], int]] = []
        domain = self.header.domain
        try:
            for values in self.header.settings(self.parents):
                sizes = [size_of(domain(n, values)) for n in self.others]
                found.append((values, prod(1 if s is None else s for s in sizes)))
                if len(found) > MAX_PARENTS:
                    return None
        except TypeError:
            return None
        return found

    @cached_property
    def count(self) -> int | None:
        if self.weights is None or any(size_of(self.header.domain(n, v)) is None for v, _ in self.weights for n in self.others):
            return None
        return sum(w for _, w in self.weights)

    def sample(self, rng: Random) -> dict[str, Any]:
        found: dict[str, Any] = {}
        total = sum(w for _, w in self.weights or ())
        if total:
            at = rng.randrange(total)
            for values, weight in self.weights or ():
                if at < weight:
                    found = dict(values)
                    break
                at -= weight
        for n in self.names:
            if n not in found:
                domain = self.header.domain(n, found)
                if domain.kind == "unreadable":
                    return found
                found[n] = draw(domain, rng)
        return found


def every(domain: Domain) -> Iterator[Any]:
    """All values, the combinations of a list's too."""
    if domain.kind == "unreadable":
        return
    if domain.kind == "list":
        def go(i: int) -> Iterator[tuple[Any, ...]]:
            if i == len(domain.items):
                yield ()
                return
            for v in every(domain.items[i]):
                for rest in go(i + 1):
                    yield (v, *rest)

        yield from go(0)
    else:
        yield from values_of(domain)
