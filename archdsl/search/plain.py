"""Candidates as JSON: numbers, strings, truth values and lists as they are, other values as their text in the language."""
from __future__ import annotations

import math
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from archdsl.elaborate.domains import Domain, same
from archdsl.elaborate.values import is_list, show

PLAIN = frozenset((int, str, bool))


def to_plain(value: Any) -> Any:
    """A value as JSON has it. A number that no float is stays exact as text."""
    if value.__class__ in PLAIN:
        return value
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return int(value)
        return float(value) if Fraction(repr(float(value))) == value else f"{value.numerator} / {value.denominator}"
    if is_list(value):
        return [to_plain(v) for v in value]
    return value if value is None or isinstance(value, (int, str)) else show(value)


def from_plain(data: Any, domain: Domain) -> Any:
    """The value of a domain that JSON stands for; what is there where the domain has none such."""
    if domain.kind == "list" and isinstance(data, list) and len(data) == len(domain.items):
        return tuple(map(from_plain, data, domain.items))
    if isinstance(data, list):
        data = tuple(from_plain(v, Domain("choice")) for v in data)
    number = _number(data)
    for value in domain.values:
        if same(value, number) or same(value, data) or isinstance(data, str) and not isinstance(value, str) and show(value) == data:
            return value
    return data if number is None else number


def _number(data: Any) -> Any:
    """A number that JSON or `to_plain` wrote, exactly."""
    if isinstance(data, bool):
        return None
    if isinstance(data, (int, Fraction)):
        return data
    if isinstance(data, float):
        return Fraction(float.__repr__(data)) if math.isfinite(data) else None  # numpy's floats write their type
    if isinstance(data, str) and data.count(" / ") == 1:
        over, under = data.split(" / ")
        if over.lstrip("-").isdecimal() and under.isdecimal() and int(under):
            return Fraction(int(over), int(under))
    if isinstance(data, Integral):  # numpy's, as the float32 below
        return int(data)
    return _number(float(data)) if isinstance(data, Real) else None


__all__ = ["from_plain", "to_plain"]
