"""Limits that no number keeps together, whatever the candidate is: `params <= 50k` and `params >= 60k`. They are read off without a draw."""
from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from numbers import Rational
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.evaluation import evaluate
from archdsl.search.figures import TURNED, Limit, Reading
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.search.space import SearchSpace

LOW, HIGH = (">", ">=", "=="), ("<", "<=", "==")


def contrary(space: SearchSpace) -> list[Limit]:
    """Two limits on one figure, or one knob of the header, that exclude each other; none where there are no such two."""
    known: dict[str, list[tuple[Limit, str, Any]]] = {}
    for limit in space.limits:
        for subject, op, number in _compared(space, limit):
            for other, before, bound in known.setdefault(subject, []):
                if _exclude(op, number, before, bound) or _exclude(before, bound, op, number):
                    return [other, limit]
            known[subject].append((limit, op, number))
    return []


def _exclude(low: str, least: Any, high: str, most: Any) -> bool:
    """Whether nothing lies above one number and below another."""
    return low in LOW and high in HIGH and (least > most or least == most and (low == ">" or high == "<"))


def _compared(space: SearchSpace, limit: Limit) -> Iterator[tuple[str, str, Any]]:
    """What a limit compares with a number, how, and with which."""
    node = limit.node
    if limit.test is not None:
        subject, op, other = limit.test[0].text, limit.test[1], limit.test[2]
    elif isinstance(node, tree.Binary) and node.op in TURNED and isinstance(node.left, tree.Name) and node.left.id in space.header.names:
        subject, op, other = node.left.id, node.op, node.right
    elif isinstance(node, tree.Binary) and node.op in TURNED and isinstance(node.right, tree.Name) and node.right.id in space.header.names:
        subject, op, other = node.right.id, TURNED[node.op], node.left
    else:
        return
    if any(isinstance(n, tree.Name) for n in tree.below(other)):
        return
    reading = Reading(space.spec, space.spec.source(space.variant))
    number = evaluate(reading.frame, other)
    if isinstance(number, Rational) or isinstance(number, float) and isfinite(number):
        yield subject, op, number


__all__ = ["contrary"]
