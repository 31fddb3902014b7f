"""Values of the symbols that satisfy facts, and the search among them."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from itertools import product as cartesian
from math import prod
from typing import TYPE_CHECKING

from archdsl.dims import poly
from archdsl.dims.poly import NO_NAMES, Dim, Mono, NotInteger, Size, evaluate, make

if TYPE_CHECKING:
    from archdsl.dims.facts import Facts

TRIES = 3_000  # values tried in one search
WORK = 100_000  # symbols looked at in one proof or search, about 3 microseconds each
Env = dict[str, int]


def relevant(facts: Facts, names: Iterable[str]) -> set[str]:
    """The unsolved symbols that facts tie to these, themselves included."""
    ties = [e.symbols for e, _, _ in facts.divides] + [p.symbols for p in (*facts.at_leasts, *facts.equals)]
    for mono, value in facts.rules.items():
        ties.append(poly.symbols(value) | names_of(mono))
    found, grown = set(names), True
    while grown:
        grown = False
        for tie in ties:
            if not tie <= found and not found.isdisjoint(tie):
                found |= tie
                grown = True
    return found - {mono[0][0].name for mono in facts.rules if is_symbol(mono)}


def is_symbol(mono: Mono) -> bool:
    return len(mono) == 1 and mono[0][1] == 1 and mono[0][0].kind == "sym"


def constrained(facts: Facts, names: Iterable[str]) -> bool:
    """Whether more is known of these symbols than congruences and lower bounds."""
    own = set(names)
    return bool(own & facts.hi.keys()) or any(not own.isdisjoint(e.symbols) for e, _, _ in facts.divides) \
        or any(not own.isdisjoint(p.symbols) for p in (*facts.at_leasts, *facts.equals)) \
        or any(not own.isdisjoint(names_of(m) if is_symbol(m) else names_of(m) | poly.symbols(v)) for m, v in facts.rules.items())


def names_of(mono: Mono) -> frozenset[str]:
    return NO_NAMES.union(*(atom.symbols for atom, _ in mono))


def complete(facts: Facts, env: Env) -> Env | None:
    """The values with those of the solved symbols; None when they break a fact. Facts about other symbols are not looked at."""
    names = env.keys()
    full = dict(env)
    for name in names:
        v = env[name]
        m, s = facts.congruences.get(name, (1, 0))
        if v < facts.lo.get(name, 1) or v > facts.hi.get(name, v) or (v + s) % m:
            return None
    try:
        for mono, value in facts.rules.items():
            if not poly.symbols(value) <= names:
                continue
            if is_symbol(mono):
                v = evaluate(value, env)
                if v < 1 or full.setdefault(mono[0][0].name, v) != v:
                    return None
            elif all(atom.symbols <= names for atom, _ in mono) and evaluate(make({mono: 1}), env) != evaluate(value, env):
                return None
        for e, k, _ in facts.divides:
            if e.symbols <= names and evaluate(e, env) % k:
                return None
        for p in facts.at_leasts:
            if p.symbols <= names and evaluate(p, env) < 0:
                return None
        for p in facts.equals:
            if p.symbols <= names and evaluate(p, env):
                return None
    except (NotInteger, ZeroDivisionError):
        return None
    return full


def holds(facts: Facts, values: Mapping[str, int]) -> bool:
    solved = {mono[0][0].name for mono in facts.rules if is_symbol(mono)}
    full = complete(facts, {n: v for n, v in values.items() if n not in solved})
    return full is not None and all(full.get(n, v) == v and v >= 1 for n, v in values.items())


def numbers(size: Size, out: set[int]) -> set[int]:
    """The whole numbers written in a size."""
    if isinstance(size, int):
        out.add(abs(size))
        return out
    for mono, c in size.terms.items():
        out.update((abs(c.numerator), c.denominator))
        for atom, _ in mono:
            for a in atom.args:
                numbers(a, out)
    return out


def points(facts: Facts, names: set[str], special: set[int]) -> Iterator[Env]:
    """Values to try, small ones first, some near the numbers in `special`; each allowed by congruence and bounds."""
    order = sorted(names)
    if not order:
        yield {}
        return
    many = {1: 400, 2: 48, 3: 13}.get(len(order), 24)
    wanted = sorted({n + e for n in special for e in (-1, 0, 1)} | {2 * n - 1 for n in special})
    own: list[list[int]] = []
    for name in order:
        m, s = facts.congruences.get(name, (1, 0))
        least, most = facts.lo.get(name, 1), facts.hi.get(name)
        least += -(least + s) % m
        values = {least + m * i for i in range(many // 2)} | {max(least, n + -(n + s) % m) for n in wanted[: many // 2]}
        own.append(sorted(v for v in values if most is None or v <= most))
    if prod(map(len, own)) <= TRIES:
        ranks = sorted(cartesian(*(range(len(v)) for v in own)), key=lambda r: (max(r), sum(r)))
        yield from (dict(zip(order, (v[i] for v, i in zip(own, r, strict=True)), strict=True)) for r in ranks)
        return
    from random import Random

    dice = Random(0)
    for i in range(TRIES):
        width = 1 + i * many // TRIES
        yield {n: v[dice.randrange(min(len(v), width + 1))] for n, v in zip(order, own, strict=True) if v}


def search(facts: Facts, sizes: Iterable[Size], test: Callable[[Env], bool]) -> Env | None:
    """The first values that satisfy the facts and the test."""
    names: set[str] = set()
    special: set[int] = set()
    tries = TRIES
    for s in sizes:
        names |= poly.symbols(s)
        numbers(s, special)
        n = facts.normal(s)
        names |= poly.symbols(n)
        numbers(n, special)
        tries = min(tries, WORK // n.weight) if isinstance(n, Dim) else tries
    for p in facts.at_leasts:
        numbers(p, special)
    for env in islice(points(facts, relevant(facts, names), special), tries):
        full = complete(facts, env)
        if full is None or not names <= full.keys():
            continue
        try:
            if test(full):
                return {n: full[n] for n in sorted(names)}
        except (NotInteger, ZeroDivisionError):
            continue
    return None


def raw(d: Size, env: Env) -> poly.Number:
    return poly.value_at(d, env, {})
