"""Decisions as flat slots, for libraries that know no trees: one slot for a scalar decision, one per item for a list."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from archdsl.elaborate.domains import Domain, same
from archdsl.elaborate.values import is_hyper_number, is_list, show
from archdsl.records import record


@record(frozen=True)
class Slot:
    """`name` tells its domain too: the same address with another domain is another slot. `path`: the address and the positions in lists."""

    name: str
    domain: Domain
    path: tuple[Any, ...]


def slots(decisions: Mapping[str, Domain]) -> list[Slot]:
    return [slot for address, domain in decisions.items() for slot in _slots((address,), domain)]


def _slots(path: tuple[Any, ...], domain: Domain) -> Iterator[Slot]:
    if domain.kind == "list":
        for i, item in enumerate(domain.items):
            yield from _slots((*path, i), item)
    else:
        yield Slot(f"{path[0]}{''.join(f'[{i}]' for i in path[1:])} in {domain}", domain, path)


def read(values: Mapping[str, Any], slot: Slot) -> Any:
    """The value of a slot among the values of a candidate."""
    value = values[slot.path[0]]
    for i in slot.path[1:]:
        value = value[i]
    return value


def written(old: Any, path: Sequence[int], value: Any) -> Any:
    """A list with one item replaced; the value itself for an empty path."""
    if not path:
        return value
    return (*old[:path[0]], written(old[path[0]], path[1:], value), *old[path[0] + 1:])


def position(domain: Domain, value: Any) -> int:
    """Where a value stands in a finite domain."""
    if domain.kind == "choice":
        return next(i for i, v in enumerate(domain.values) if same(v, value))
    return int((Fraction(value) - Fraction(domain.low)) / Fraction(domain.step))


def value_at(domain: Domain, at: int) -> Any:
    """The value at a position."""
    if domain.kind == "choice":
        return domain.values[at]
    value = domain.low + at * domain.step
    return int(value) if domain.kind == "int" else value


# ---------------------------------------------------------------- features
def features(values: Mapping[str, Any]) -> dict[str, float]:
    """Named numbers of a candidate, for predictors: each value, by its address and summed over the positions of a repeated block (`layers.*.heads`);
    what is no number counts as one under its own name, and so does each whole number. A decision that is not active gives nothing, that is 0."""
    out: dict[str, float] = {}
    for address, value in values.items():
        general = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", address)
        for place, x in _scalars(value):
            if isinstance(x, bool) or not is_hyper_number(x):
                names, amount = [f"{address}{place}={show(x)}", f"{general}={show(x)}"], 1.0
            else:
                names, amount = [f"{address}{place}", f"{general}"], float(x)
                if isinstance(x, int):
                    out[f"{address}{place}={x}"] = 1.0
            for name in dict.fromkeys(names):
                out[name] = out.get(name, 0.0) + amount
    return out


def _scalars(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if is_list(value):
        for i, item in enumerate(value):
            yield from _scalars(item, f"{place}[{i}]")
    else:
        yield place, value
