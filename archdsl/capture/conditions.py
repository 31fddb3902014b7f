"""What a captured module wants of run-time sizes: conditions as facts for the translation and as guards of the model. No torch here."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from archdsl.dims import Dim, Facts, Size, ceildiv, floordiv, maximum, minimum, mod, sym
from archdsl.graph import Guard
from archdsl.syntax import tree
from archdsl.syntax.parser import parse_expression

CALLS: dict[str, Callable[..., Size]] = {"floordiv": floordiv, "ceildiv": ceildiv, "mod": mod, "min": minimum, "max": maximum}
"""The calls that sizes are written with."""


class Condition(NamedTuple):
    """`left WORD right`, WORD one of == <= >= < >; `%`: left is a multiple of the number `right`."""

    left: Size
    word: str
    right: Size
    message: str = ""


class Learned(Exception):
    """Raised where a translation meets a condition that it did not know: it starts again with it."""

    def __init__(self, *conditions: Condition):
        super().__init__(str(conditions))
        self.conditions = conditions


def read(text: str) -> list[Condition]:
    """The conditions of a `require`, as ops suggest it: `T % 4 == 0 and H == W`."""
    expr = parse_expression(text)
    return _read(expr)


def _read(expr: tree.Expr) -> list[Condition]:
    assert isinstance(expr, tree.Binary), expr
    if expr.op == "and":
        return _read(expr.left) + _read(expr.right)
    if expr.op == "==" and isinstance(expr.left, tree.Binary) and expr.left.op == "%":
        return [Condition(_size(expr.left.left) - _size(expr.right), "%", _size(expr.left.right))]
    return [Condition(_size(expr.left), expr.op, _size(expr.right))]


def _size(expr: Any) -> Size:
    if isinstance(expr, tree.Name):
        return sym(expr.id)
    if isinstance(expr, tree.Number):
        return int(expr.value)
    if isinstance(expr, tree.Unary):
        return -_size(expr.operand)
    if isinstance(expr, tree.Call) and isinstance(expr.func, tree.Name):
        return CALLS[expr.func.id](*(_size(x.value) for x in expr.args))
    assert isinstance(expr, tree.Binary), expr
    a, b = _size(expr.left), _size(expr.right)
    if expr.op == "**":
        assert isinstance(b, int)
        return a ** b
    return a + b if expr.op == "+" else a - b if expr.op == "-" else a * b if expr.op == "*" else mod(a, b) if expr.op == "%" else floordiv(a, b)


def learn(facts: Facts, c: Condition) -> Guard | None:
    """Adds a condition to the facts; the guard that checks it, or None where it was known. Raises ValueError where it contradicts them."""
    if (d := _at_least_zero(c)) is not None:
        c = _bounded(d, c.message)
    if c.word == "%":
        assert isinstance(c.right, int)
        left, known = mod(c.left, c.right), facts.require_divides(c.left, c.right)
        guard = Guard(left, "==", 0, c.message or f"{c.left} must be a multiple of {c.right}")
    else:
        if c.word == "==":
            known = facts.require_equal(c.left, c.right)
        else:
            low, high = (c.left, c.right) if c.word in ("<=", "<") else (c.right, c.left)
            known = facts.require_at_least(high, low + 1 if c.word in ("<", ">") else low)
        guard = Guard(c.left, c.word, c.right, c.message or f"{c.left} {c.word} {c.right} is required")
    if known is False:
        raise ValueError(f"{c.left} {c.word} {c.right} contradicts what is known of the sizes")
    return guard if known is None else None


def _at_least_zero(c: Condition) -> Dim | None:
    """d where the condition says max(d, 0) == d."""
    whole = c.left - c.right
    if c.word != "==" or not isinstance(whole, Dim):
        return None
    for mono, count in whole.terms.items():
        if len(mono) == 1 and count == 1 and mono[0][1] == 1 and mono[0][0].kind == "max" and mono[0][0].args[1] == 0:
            d = mono[0][0].args[0]
            fits = isinstance(d, Dim) and int(d.terms.get((), 0)) == d.terms.get((), 0) and whole - maximum(d, 0) + d == 0
            return d if isinstance(d, Dim) and fits else None
    return None


def _bounded(d: Dim, message: str) -> Condition:
    """d >= 0 as one size beside a number: T <= 64 for 64 - T."""
    number = int(d.terms.get((), 0))
    rest = d - number
    negative = isinstance(rest, Dim) and next(iter(rest.terms.values())) < 0
    return Condition(-rest, "<=", number, message) if negative else Condition(rest, ">=", -number, message)
