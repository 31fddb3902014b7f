"""Operators as they are written: arithmetic and comparisons of numbers, sizes and tensors, `and`, `or`, `not`, `in`; what a condition comes to."""
from __future__ import annotations

from typing import Any

from archdsl.diagnostics.model import error
from archdsl.dims import Dim
from archdsl.elaborate import operators
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, checked
from archdsl.elaborate.limits import MAX_GUARDS, limit
from archdsl.elaborate.ops import OPERATOR, apply_op
from archdsl.elaborate.values import Condition, Late, describe, is_list
from archdsl.graph import InitExpr, Value
from archdsl.syntax import tree


# ---------------------------------------------------------------- conditions
def truth(frame: Frame, node: tree.Expr) -> bool:
    """A condition decided at build. Raises A0222 for anything but a bool."""
    return decided(evaluate(frame, node), node)


def decided(value: Any, node: tree.Expr) -> bool:
    """The value of a condition as a bool. Raises A0222."""
    if value is True or value is False:
        return value
    if isinstance(value, Condition):
        a, op, b, _ = value.parts[0]
        raise error("A0222", f"`{a} {op} {b}` depends on sizes that vary at run time", node.span, "cannot be decided when the spec is built",
                    help=f"add `require {a} {op} {b}`, or make the size a fixed (lower-case) one")
    if value is None or isinstance(value, Value) and value.dtype != "bool" and isinstance(node, tree.Name):
        raise error("A0222", f"a condition must be a bool, this is {describe(value)}", node.span, help="`… is some` asks whether an input is there")
    if isinstance(value, Value):
        raise error("A0222", "the values of a tensor cannot decide what is built", node.span, f"this is {describe(value)}",
                    help="`where(condition, a, b)` chooses number by number when the model runs")
    raise error("A0222", f"a condition must be a bool, this is {describe(value)}", node.span)


# ---------------------------------------------------------------- operators
def unary(frame: Frame, node: tree.Unary) -> Any:
    if node.op == "not":
        value = evaluate(frame, node.operand)
        if isinstance(value, Value):
            return apply_op(frame, "logical_not", (value,), {}, node.span)
        return not decided(value, node.operand)
    value = evaluate(frame, node.operand)
    if isinstance(value, Value):
        return apply_op(frame, "neg", (value,), {}, node.span)
    if isinstance(value, InitExpr):
        return checked(frame.session, InitExpr("neg", (value,)), node.span)
    if isinstance(value, Dim):
        return -value
    return operators.binary(frame, "-", 0, value, node.span)


def _zero(op: str, a: Any, b: Any, node: tree.Binary) -> tree.Expr | None:
    """The operand that is 0 and is divided by."""
    if op in operators.DIVIDING:
        return node.right if b == 0 and type(a) in (*operators.NUMBERS, Dim) else None
    return node.left if op == "**" and type(a) in operators.NUMBERS and a == 0 and b < 0 else None


def _source_of_zero(frame: Frame, node: tree.Expr) -> tree.Expr:
    """Of an expression that is 0, the part that makes it so: `kernel` of `c * kernel ** 2`."""
    while isinstance(node, tree.Binary) and node.op in ("*", "**", "/", "//"):
        node = node.right if node.op == "*" and evaluate(frame, node.left) != 0 else node.left
    return node


def binary(frame: Frame, node: tree.Binary) -> Any:
    op = node.op
    if op in ("and", "or"):
        return _logic(frame, node)
    a = evaluate(frame, node.left)
    if op in ("in", "not in"):
        return _contains(frame, node, a) == (op == "in")
    b = evaluate(frame, node.right)
    if type(b) in operators.NUMBERS and (zero := _zero(op, a, b, node)) is not None:
        source = _source_of_zero(frame, zero)
        because, zero = f"`{source.span.text}` is 0: " if source is not zero else "", source
        named = not isinstance(zero, tree.Number)
        raise error("A0221", f"{because}`{node.span.text}` divides by zero", node.span, f"`{zero.span.text}` is 0" if named else "by zero",
                    help=f"give `{zero.span.text}` another number" if named else ())
    if type(a) in operators.NUMBERS and type(b) in operators.NUMBERS:
        return operators.binary(frame, op, a, b, node.span)
    if type(a) is not Late and type(b) is not Late and (isinstance(a, Value) or isinstance(b, Value)):
        sides: dict[Any, Any] = {0: node.left.span, 1: node.right.span, OPERATOR: op}
        return apply_op(frame, operators.ARITHMETIC.get(op) or operators.COMPARISON[op], (a, b), {}, node.span, sides)
    if op in operators.COMPARISON and (isinstance(a, Dim) or isinstance(b, Dim)) and not (isinstance(a, Value) or isinstance(b, Value)):
        divides = None
        left = node.left
        if op == "==" and b == 0 and isinstance(left, tree.Binary) and left.op == "%":
            divides = (evaluate(frame, left.left), evaluate(frame, left.right))
        return operators.compare(op, a, b, node.span, divides)
    try:
        return operators.binary(frame, op, a, b, node.span)
    except TypeError:
        raise error("A0204", f"`{op}` does not take {describe(a)} and {describe(b)}", node.span) from None


def _logic(frame: Frame, node: tree.Binary) -> Any:
    a = evaluate(frame, node.left)
    if isinstance(a, Value):
        return apply_op(frame, f"logical_{node.op}", (a, evaluate(frame, node.right)), {}, node.span)
    if isinstance(a, Condition):
        b = evaluate(frame, node.right)
        if node.op == "and":
            return _both(a, b, node) if isinstance(b, Condition) else (a if b is True else False)
        raise error("A0222", "`or` of conditions on run-time sizes cannot be lifted", node.span)
    decided(a, node.left)
    if a is (node.op == "or"):
        return a
    b = evaluate(frame, node.right)
    return b if isinstance(b, (Condition, Value)) else decided(b, node.right)


def _both(a: Condition, b: Condition, node: tree.Binary) -> Condition:
    parts = tuple(dict.fromkeys(a.parts + b.parts))
    if len(parts) > MAX_GUARDS:
        raise limit(f"there are more than {MAX_GUARDS} conditions on run-time sizes", node.span)
    return Condition(parts)


def _contains(frame: Frame, node: tree.Binary, a: Any) -> bool:
    right = node.right
    items = evaluate(frame, right)
    if isinstance(items, str) and isinstance(a, str):
        frame.session.step(right.span, len(items) >> 6)
        return a in items
    if is_list(items):
        frame.session.step(right.span, len(items) >> 3)
        return any(alike(i, a) and i == a for i in items)
    raise error("A0204", f"`in` needs a list, this is {describe(items)}", right.span)


def alike(a: Any, b: Any) -> bool:
    """Whether two values may be equal: true is not 1."""
    return a.__class__ is b.__class__ or operators.is_hyper_number(a) and operators.is_hyper_number(b)
