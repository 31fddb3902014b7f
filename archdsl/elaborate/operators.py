"""Operators on hyper values, sizes, initialisers and tensors."""
from __future__ import annotations

import math
import operator
from contextlib import suppress
from fractions import Fraction
from typing import Any

from archdsl import dims, shapes
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim
from archdsl.elaborate.frame import Frame, checked
from archdsl.elaborate.limits import MAX_BITS, MAX_ITEMS, limit
from archdsl.elaborate.ops import apply_op
from archdsl.elaborate.values import Condition, Late, Unfit, describe, is_hyper_number, is_list
from archdsl.graph import InitExpr, Value
from archdsl.source import NOWHERE, Span

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow", "@": "matmul", "%": "mod", "//": "floordiv"}
COMPARISON = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
NUMBERS = frozenset({int, float, Fraction})
DIVIDING = ("/", "//", "%")
COMPARED = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def binary(frame: Frame, op: str, a: Any, b: Any, span: Span) -> Any:
    """`a op b` for arithmetic and comparison operators."""
    if type(a) in NUMBERS and type(b) in NUMBERS:
        return COMPARED[op](a, b) if op in COMPARED else checked(frame.session, _computed(op, a, b, span), span)
    if type(a) is Late or type(b) is Late:
        return _late(op, a, b, span)
    if isinstance(a, Value) or isinstance(b, Value):
        return apply_op(frame, ARITHMETIC.get(op) or COMPARISON[op], (a, b), {}, span)
    if isinstance(a, InitExpr) or isinstance(b, InitExpr):
        return checked(frame.session, InitExpr(ARITHMETIC.get(op) or COMPARISON[op], (_plain(a, span), _plain(b, span))), span)
    if op in COMPARISON:
        if is_list(a) or isinstance(a, str):
            frame.session.step(span, len(a) >> 4)
        return compare(op, a, b, span)
    if isinstance(a, Dim) or isinstance(b, Dim):
        return _on_sizes(frame, op, a, b, span)
    return checked(frame.session, _on_numbers(op, a, b, span), span)


def _late(op: str, a: Any, b: Any, span: Span) -> Late:
    """Arithmetic with a number that is not there yet; nothing else is done with one (late.py sees to it)."""
    values = [v.value if type(v) is Late else v for v in (a, b)]
    if op not in ("+", "-", "*", "/") or not all(type(v) in NUMBERS for v in values):
        raise Unfit
    numbers = [v.number if type(v) is Late else (v.__class__, v) for v in (a, b)]
    return Late((op, *numbers), _computed(op, values[0], values[1], span), (op, a, b))


def filled(value: Any, numbers: dict[int, Any]) -> Any:
    """A late number with those in place that are there. Raises Unfit where they cannot be computed with."""
    if type(value) is not Late:
        return value
    if value.parts is None:
        return numbers.get(value.number, value)
    op, a, b = value.parts
    a, b = filled(a, numbers), filled(b, numbers)
    try:
        return _late(op, a, b, NOWHERE) if type(a) is Late or type(b) is Late else _computed(op, a, b, NOWHERE)
    except ArchError:
        raise Unfit from None


def _plain(value: Any, span: Span) -> Any:
    return as_float(value, span) if isinstance(value, Fraction) else value


def as_float(value: Any, span: Span) -> float:
    """A number as a float. Raises A0221 when none is that large."""
    try:
        return float(value)
    except OverflowError:
        raise error("A0221", "this number is out of the range of floats", span, help="the largest float is about 1.8e308") from None


def _on_numbers(op: str, a: Any, b: Any, span: Span) -> Any:
    if op == "+" and type(a) is type(b) and isinstance(a, (str, tuple)):
        return a + b
    if op == "*" and (is_list(a) or isinstance(a, str)) and type(b) is int:
        check_repeat(len(a), b, span)
        return a * b
    if not (is_hyper_number(a) and is_hyper_number(b)):
        raise error("A0204", f"`{op}` does not take {describe(a)} and {describe(b)}", span, "numbers were expected")
    return _computed(op, a, b, span)


def _computed(op: str, a: Any, b: Any, span: Span) -> Any:
    try:
        return _number(op, a, b, span)
    except ZeroDivisionError:
        raise error("A0221", "division by zero", span) from None
    except OverflowError:
        raise error("A0221", f"{describe(a)} {op} {describe(b)} is out of range", span) from None


def check_repeat(length: int, times: int, span: Span) -> None:
    if times < 0:
        raise error("A0310", f"nothing can be repeated {times} times", span, "not so here")
    if length * times > MAX_ITEMS:
        raise limit(f"{times:,} repetitions are too many", span, help=f"at most {MAX_ITEMS:,} items are allowed")


def _number(op: str, a: Any, b: Any, span: Span) -> Any:
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    if op == "//":
        return math.floor(a / b) if isinstance(a, float) or isinstance(b, float) else a // b
    if op == "%":
        return a % b
    if op == "**":
        if isinstance(b, int) and isinstance(a, int) and abs(a) > 1 and (a.bit_length() - 1) * abs(b) > MAX_BITS:
            raise limit(f"{a} ** {b} is too large", span, help=f"at most {MAX_BITS:,} bits are allowed")
        if isinstance(a, Fraction) and isinstance(b, int) and abs(b) > 512:
            return float(a) ** b
        if isinstance(b, int):
            result = a ** b if b >= 0 or isinstance(a, float) else Fraction(a) ** b
        else:
            result = float(a) ** float(b)
        if isinstance(result, complex):
            raise error("A0221", f"{describe(a)} ** {describe(b)} is no real number", span)
        return _whole(result)
    if op == "/":
        if isinstance(a, float) or isinstance(b, float):
            return a / b
        if type(a) is int and type(b) is int:
            if b == 0:
                raise ZeroDivisionError
            if a % b:
                raise error("A0303", f"{a} / {b} is not a whole number", span, f"{a} / {b} is not a whole number", help=divisors(a, b),
                            division=(a, b))
            return a // b
        return _whole(Fraction(a) / Fraction(b), keep=True)
    raise error("A0204", f"`{op}` does not take {describe(a)} and {describe(b)}", span)


def _whole(value: Any, keep: bool = False) -> Any:
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 and not keep else value


def divisors(width: int, count: int) -> tuple[str, ...]:
    """Help for an inexact division: the nearest divisors, and the rounding operators."""
    if width <= 0 or count <= 0:
        return ("`floordiv` and `ceildiv` round; `float(a) / b` is exact",)
    near = sorted((d for d in range(1, min(width, 4 * abs(count) + 16) + 1) if width % d == 0), key=lambda d: abs(d - count))[:3]
    text = ", ".join(f"{d} ({width // d})" for d in sorted(near))
    text = "only 1 divides 1" if width == 1 else f"{text} {'divides' if len(near) == 1 else 'divide'} {width}"
    return (text, "`floordiv` and `ceildiv` round; `float(a) / b` is exact")


def _weight(size: Any) -> int:
    return size.weight if isinstance(size, Dim) else 1


def _on_sizes(frame: Frame, op: str, a: Any, b: Any, span: Span) -> Any:
    for v in (a, b):
        if not isinstance(v, (Dim, int)) or isinstance(v, bool):
            if isinstance(v, Fraction) and v.denominator == 1:
                continue
            raise error("A0302", f"a run-time size cannot be combined with {describe(v)} outside a tensor expression", span,
                        help="use `index(T)` or a tensor expression")
    a, b = (int(v) if isinstance(v, Fraction) else v for v in (a, b))
    frame.session.step(span, (_weight(a) * _weight(b) if op == "*" else _weight(a) + _weight(b)) >> 3)
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    if op == "**":
        return a ** b
    if op in ("//", "%"):
        return shapes.normal(dims.floordiv(a, b) if op == "//" else dims.mod(a, b))
    if op == "/":
        exact = shapes.divide(a, b)
        if exact is None:
            raise error("A0303", f"{a} / {b} is not a whole number for every run-time size", span,
                        help=f"add `require {a} % {b} == 0`, or use floordiv or ceildiv")
        return exact
    raise error("A0204", f"`{op}` does not take sizes", span)


def compare(op: str, a: Any, b: Any, span: Span, divides: tuple[Any, Any] | None = None) -> Any:
    """A comparison of hyper values: a bool, or a Condition when run-time sizes leave it open."""
    if isinstance(a, Dim) or isinstance(b, Dim):
        if not (isinstance(a, (Dim, int)) and isinstance(b, (Dim, int))):
            if op in ("==", "!="):
                return op == "!="
            raise error("A0204", f"`{op}` does not take {describe(a)} and {describe(b)}", span)
        return _compare_sizes(op, a, b, divides)
    if op in ("==", "!="):
        if isinstance(a, bool) != isinstance(b, bool):
            return op == "!="
        return (a == b) == (op == "==")
    if is_hyper_number(a) and is_hyper_number(b) or (is_list(a) or isinstance(a, str)) and type(a) is type(b):
        with suppress(TypeError):
            return COMPARED[op](a, b)
    raise error("A0204", f"`{op}` cannot order {describe(a)} and {describe(b)}", span)


def _compare_sizes(op: str, a: Any, b: Any, divides: tuple[Any, Any] | None) -> Any:
    if op in ("==", "!="):
        if shapes.same(a, b) is True:
            return op == "=="
        if type(a - b) is int:
            return op == "!="
        return Condition(((a, op, b, divides),))
    low, high = (a, b) if op in ("<", "<=") else (b, a)
    strict = op in ("<", ">")
    holds = shapes.facts().positive(high - low + (0 if strict else 1))
    if holds:
        return True
    fails = shapes.facts().positive(low - high + (1 if strict else 0))
    if fails:
        return False
    if (holds is None or fails is None) and shapes.same(a, b) is True:  # sizes refute an order more cheaply than equality
        return not strict
    return Condition(((a, op, b, divides),))
