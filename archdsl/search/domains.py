"""What searching does with a domain: values in order, draws, neighbours, and how far apart two values lie."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import exp, log
from random import Random
from typing import Any

from archdsl.elaborate.domains import Domain, same
from archdsl.elaborate.values import is_hyper_number, is_list

GRAIN = 2**32
"""A continuous range is drawn from in so many equal steps."""


def values_of(domain: Domain) -> Sequence[Any]:
    """The values of a domain that is no list and no continuous range, in its order, each once."""
    if domain.kind == "int":
        return range(domain.low, domain.high + 1, domain.step)
    kinds = {v.__class__ for v in domain.values}
    if domain.kind == "choice" and (kinds <= {int} or kinds <= {str}):
        return tuple(dict.fromkeys(domain.values))
    found: list[Any] = []
    for v in domain:
        if not any(same(v, other) for other in found):
            found.append(v)
    return found


def size_of(domain: Domain) -> int | None:
    """How many different values it has; None for a continuous range, alone or in a list."""
    if domain.kind == "list":
        total = 1
        for item in domain.items:
            size = size_of(item)
            if size is None:
                return None
            total *= size
        return total
    return None if domain.size is None else len(values_of(domain)) if domain.kind != "unreadable" else 0


def draw(domain: Domain, rng: Random) -> Any:
    """A value, each as likely as the others."""
    if domain.kind == "list":
        return tuple(draw(d, rng) for d in domain.items)
    if domain.size is None:
        return between(domain, Fraction(rng.randrange(GRAIN + 1), GRAIN))
    values = values_of(domain)
    return values[rng.randrange(len(values))]


def between(domain: Domain, share: Fraction) -> Fraction:
    """The value of a continuous range at a share of the way from its low end to its high end; of one by the logarithm, a float's value."""
    low, high = Fraction(domain.low), Fraction(domain.high)
    if not domain.log or share in (0, 1):
        return low + (high - low) * share
    return min(max(Fraction(exp(log(low) + (log(high) - log(low)) * float(share))), low), high)


def share(domain: Domain, value: Any) -> Fraction:
    """The other way round."""
    low, high, value = Fraction(domain.low), Fraction(domain.high), Fraction(value)
    if not domain.log:
        return (value - low) / (high - low) if high > low else Fraction(0)
    return Fraction((log(value) - log(low)) / (log(high) - log(low)))


def neighbour(domain: Domain, value: Any, rng: Random) -> Any:
    """Another value nearby: the next one up or down, another arm, one item of a list changed; a continuous one moves by at most a tenth of its
    range. The value itself where it is the only one."""
    if domain.kind == "list":
        movable = [i for i, d in enumerate(domain.items) if size_of(d) != 1]
        if not movable:
            return value
        i = movable[rng.randrange(len(movable))]
        return (*value[:i], neighbour(domain.items[i], value[i], rng), *value[i + 1:])
    if domain.size is None:
        moved = share(domain, value) + Fraction(rng.randrange(GRAIN + 1) - GRAIN // 2, 5 * GRAIN)
        return between(domain, min(max(moved, Fraction(0)), Fraction(1)))
    values = values_of(domain)
    at = position(values, value)
    if at is None:
        return draw(domain, rng)
    if len(values) == 1:
        return value
    if all(map(is_hyper_number, values)):
        near = [i for i in (at - 1, at + 1) if 0 <= i < len(values)]
        return values[near[rng.randrange(len(near))]]
    other = rng.randrange(len(values) - 1)
    return values[other + (other >= at)]


def another(domain: Domain, value: Any, rng: Random) -> Any:
    """Any other value; the value itself where it is the only one."""
    if domain.kind == "list" or domain.size is None:
        for _ in range(8):
            found = draw(domain, rng)
            if not same(found, value):
                return found
        return neighbour(domain, value, rng)
    values = values_of(domain)
    at = position(values, value)
    if at is None or len(values) == 1:
        return draw(domain, rng)
    other = rng.randrange(len(values) - 1)
    return values[other + (other >= at)]


def nearest(domain: Domain, value: Any, rng: Random) -> Any:
    """The value of a domain next to one outside, item by item in a list of the same length; any where values have no order."""
    if domain.kind == "list" and is_list(value) and len(value) == len(domain.items):
        return tuple(nearest(d, v, rng) for d, v in zip(domain.items, value))
    if domain.contains(value):
        return value
    if domain.kind == "list" or isinstance(value, tuple) or not is_hyper_number(value):
        return draw(domain, rng)
    if domain.size is None:
        return min(max(Fraction(value), Fraction(domain.low)), Fraction(domain.high))
    numbers = [v for v in values_of(domain) if is_hyper_number(v)]
    return min(numbers, key=lambda v: (abs(v - value), v)) if numbers else draw(domain, rng)


def position(values: Sequence[Any], value: Any) -> int | None:
    """Where a value stands among others."""
    if isinstance(values, range):
        return values.index(value) if is_hyper_number(value) and value in values else None
    return next((i for i, v in enumerate(values) if same(v, value)), None)


def gap(domain: Domain | None, a: Any, b: Any) -> float:
    """In [0, 1]: 0 for equal values, for numbers the share of the domain's range between them, 1 for two arms."""
    if same(a, b):
        return 0.0
    if domain is not None and domain.kind == "list" and len(a) == len(b) == len(domain.items):
        return sum(map(gap, domain.items, a, b)) / len(a)
    if domain is not None and domain.log and all(is_hyper_number(v) and v > 0 for v in (a, b)):
        return float(abs(share(domain, a) - share(domain, b)))
    if domain is not None and domain.kind != "list" and is_hyper_number(a) and is_hyper_number(b):
        numbers = [domain.low, domain.high] if domain.kind in ("int", "float") else [v for v in domain.values if is_hyper_number(v)]
        reach = max([*numbers, a, b]) - min([*numbers, a, b])
        return float(abs(Fraction(a) - Fraction(b)) / Fraction(reach)) if len(numbers) > 1 else 1.0
    return 1.0
