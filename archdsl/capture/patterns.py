"""Lifting rules written in the language: a pattern, what it becomes, and the matcher. No torch here.

In a pattern a call is an op, a name stands for any operand or attribute (the same one wherever it recurs), a number for itself, and what is
not written has its default. Sums and products match in both orders.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.operators import ARITHMETIC
from archdsl.elaborate.ops import parameters
from archdsl.graph import Node, Value
from archdsl.records import record
from archdsl.syntax import tree
from archdsl.syntax.parser import parse_expression

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or"})
CLOSE = 1e-6  # of a constant in a pattern, such as √(2/π), relative
Binds = dict[str, Any]


@record(slots=False, eq=False)
class Rule:
    """`pattern` becomes `result`. `numbers`: names that stand for numbers alone. `when`: a condition on what the names stand for."""

    name: str
    pattern: str
    result: str
    numbers: tuple[str, ...] = ()
    when: Callable[[Binds], bool] | None = None

    @cached_property
    def _pattern(self) -> tree.Expr:
        return parse_expression(self.pattern)

    @cached_property
    def _result(self) -> tree.Expr:
        return parse_expression(self.result)

    @property
    def root(self) -> str:
        return _call(self._pattern)[0]

    def apply(self, flat: Flat, node: Node) -> Any:
        """The value that takes the node's place, or None."""
        for binds in _match(self._pattern, node, {}):
            if all(_is_number(binds[n]) for n in self.numbers) and (self.when is None or self.when(binds)):
                return _build(self._result, flat, binds)
        return None


def _is_number(v: Any) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def _call(expr: tree.Expr) -> tuple[str, list[tree.Expr], dict[str, tree.Expr]]:
    """(op, operands, named arguments) of a call or an operator."""
    if isinstance(expr, tree.Binary):
        return ARITHMETIC[expr.op], [expr.left, expr.right], {}
    assert isinstance(expr, tree.Call) and isinstance(expr.func, tree.Name), expr
    return expr.func.id, [a.value for a in expr.args if a.name is None], {a.name: a.value for a in expr.args if a.name is not None}


def _constant(expr: tree.Expr) -> Any:
    if isinstance(expr, tree.Number):
        return expr.value
    if isinstance(expr, tree.Unary) and isinstance(expr.operand, tree.Number):
        return -expr.operand.value
    return expr.value if isinstance(expr, (tree.Bool, tree.Str)) else None


def _match(expr: tree.Expr, actual: Any, binds: Binds) -> Iterator[Binds]:
    if isinstance(expr, tree.Name):
        if expr.id not in binds:
            yield {**binds, expr.id: actual}
        elif type(binds[expr.id]) is type(actual) and binds[expr.id] == actual:
            yield binds
    elif isinstance(expr, tree.NoneLit):
        if actual is None:
            yield binds
    elif isinstance(expr, (tree.Number, tree.Unary)):
        wanted = float(_constant(expr))
        if _is_number(actual) and abs(actual - wanted) <= CLOSE * abs(wanted):
            yield binds
    elif isinstance(expr, (tree.Bool, tree.Str)):
        if actual == expr.value:
            yield binds
    elif isinstance(expr, tree.List):
        if type(actual) is tuple and len(actual) == len(expr.items):
            yield from _match_all(list(expr.items), list(actual), binds)
    else:
        node = actual.node if type(actual) is Value and actual.index == 0 else actual if type(actual) is Node else None
        if node is not None:
            yield from _match_node(expr, node, binds)


def _match_node(expr: tree.Expr, node: Node, binds: Binds) -> Iterator[Binds]:
    op, operands, named = _call(expr)
    if node.op != op:
        return
    wanted: list[tree.Expr] = []
    actual: list[Any] = []
    for p, value in _arguments(node):
        if p.operand and len(wanted) < len(operands):
            wanted.append(operands[len(wanted)])
            actual.append(value)
        elif p.name in named:
            wanted.append(named[p.name])
            actual.append(value)
        elif value != p.default:
            return
    yield from _match_all(wanted, actual, binds)
    if op in COMMUTATIVE:
        yield from _match_all(wanted, actual[::-1], binds)


def _arguments(node: Node) -> Iterator[tuple[Any, Any]]:
    operands = iter(node.args)
    for p in parameters(node.op):
        yield p, next(operands) if p.operand else node.attrs[p.name]


def _match_all(wanted: list[tree.Expr], actual: list[Any], binds: Binds) -> Iterator[Binds]:
    if not wanted:
        yield binds
        return
    for found in _match(wanted[0], actual[0], binds):
        yield from _match_all(wanted[1:], actual[1:], found)


def _build(expr: tree.Expr, flat: Flat, binds: Binds) -> Any:
    if isinstance(expr, tree.Name):
        return binds[expr.id]
    if isinstance(expr, (tree.Number, tree.Unary, tree.Bool, tree.Str)):
        value = _constant(expr)
        return value if isinstance(value, (int, str)) else float(value)
    if isinstance(expr, tree.List):
        return tuple(_build(i, flat, binds) for i in expr.items)
    op, operands, named = _call(expr)
    if op == "swap":
        from archdsl.capture.layouts import swapped

        return swapped(flat, _build(operands[0], flat, binds))
    values = [_build(o, flat, binds) for o in operands]
    if all(_is_number(v) for v in values) and values:
        return {"mul": lambda a, b: a * b, "div": lambda a, b: a / b}[op](*values)
    return flat.op(op, *values, **{k: _build(v, flat, binds) for k, v in named.items()})
