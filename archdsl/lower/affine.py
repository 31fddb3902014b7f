"""What a tensor is in terms of one carried by a scan: `a` times it and `b`, element by element, where it is that. Free of torch."""
from __future__ import annotations

from typing import Any

from archdsl.graph import FLOATS, Node, TensorType, Value
from archdsl.records import record
from archdsl.streaming.rows import infer

Factor = Any  # a Value, or a number


@record(frozen=True)
class Affine:
    """`a` times what is carried, plus `b`."""

    a: Factor
    b: Factor


class Terms:
    """Reads the nodes of a body; what it computes anew goes to `nodes`. `needs` tells whether a value depends on what is not known yet."""

    def __init__(self, carried: Value, needs: set[Value], nodes: list[Node]):
        self.carried, self.needs, self.nodes = carried, needs, nodes
        self.found: dict[Value, Affine | None] = {}

    def of(self, value: Any) -> Affine | None:
        """Its terms; None where it is no such thing."""
        if not isinstance(value, Value) or value not in self.needs:
            return Affine(0, value)
        if value == self.carried:
            return Affine(1, 0)
        if value not in self.found:
            rule = _RULES.get(value.node.op)
            whole = value.shape == self.carried.shape
            self.found[value] = rule(self, value.node) if rule is not None and whole else None
        return self.found[value]

    def make(self, op: str, *args: Any) -> Factor:
        """A node on factors, computed at once where it says nothing."""
        x, y = args if len(args) == 2 else (args[0], None)
        if op == "add" and _is(y, 0) or op in ("mul", "div") and _is(y, 1) or op == "sub" and _is(y, 0):
            return x
        if op == "add" and _is(x, 0) or op == "mul" and _is(x, 1):
            return y
        if op in ("mul", "div") and _is(x, 0) or op == "mul" and _is(y, 0):
            return 0
        if op == "neg" and not isinstance(x, Value):
            return -x
        if op == "sub" and _is(x, 0):
            return self.make("neg", y)
        if op != "where" and not any(isinstance(a, Value) for a in args):
            return _NUMBERS[op](x, y)
        node = Node(op, args, {}, (), self.carried.node.span, "")
        return self.added(node)

    def added(self, node: Node) -> Value:
        node.types = infer(node)
        self.nodes.append(node)
        return Value(node)

    def full(self, factor: Factor) -> Value:
        """A factor as a tensor of the carried type."""
        to = self.carried.type
        if not isinstance(factor, Value):
            literal = Node("literal", (), {"value": factor, "dtype": to.dtype}, (TensorType(to.dtype, ()),), self.carried.node.span, "")
            self.nodes.append(literal)
            factor = Value(literal)
        if factor.dtype != to.dtype:
            factor = self.added(Node("cast", (factor,), {"dtype": to.dtype}, (), self.carried.node.span, ""))
        if factor.shape != to.shape:
            wide = Node("expand", (factor,), {"shape": to.shape}, (to,), self.carried.node.span, "")
            self.nodes.append(wide)
            factor = Value(wide)
        return factor


def _is(x: Any, number: int) -> bool:
    return not isinstance(x, Value) and x == number


_NUMBERS = {"add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / y}


def _sum(t: Terms, node: Node) -> Affine | None:
    x, y = map(t.of, node.args)
    return None if x is None or y is None else Affine(t.make(node.op, x.a, y.a), t.make(node.op, x.b, y.b))


def _scaled(t: Terms, node: Node) -> Affine | None:
    x, y = map(t.of, node.args)
    if x is None or y is None or node.op == "div" and _is(y.b, 0):
        return None
    if _is(y.a, 0):
        return Affine(t.make(node.op, x.a, y.b), t.make(node.op, x.b, y.b))
    return Affine(t.make("mul", x.b, y.a), t.make("mul", x.b, y.b)) if _is(x.a, 0) and node.op == "mul" else None


def _negative(t: Terms, node: Node) -> Affine | None:
    x = t.of(node.args[0])
    return None if x is None else Affine(t.make("neg", x.a), t.make("neg", x.b))


def _either(t: Terms, node: Node) -> Affine | None:
    condition, *others = node.args
    x, y = map(t.of, others)
    if x is None or y is None or condition in t.needs:
        return None
    pick = lambda u, v: u if not isinstance(u, Value) and _is(v, u) else t.make("where", condition, u if isinstance(v, Value) else t.full(u), v)
    return Affine(pick(x.a, y.a), pick(x.b, y.b))


def _typed(t: Terms, node: Node) -> Affine | None:
    """In another float type each term is; a cast to whole numbers cuts off what the sum of both terms has behind the point."""
    x, to = t.of(node.args[0]), node.types[0].dtype
    if x is None or to not in FLOATS and to != node.args[0].dtype:
        return None
    cast = lambda f: t.added(Node("cast", (f,), {"dtype": to}, (), node.span, "")) if isinstance(f, Value) and f.dtype != to else f
    return Affine(cast(x.a), cast(x.b))


_RULES = {"add": _sum, "sub": _sum, "mul": _scaled, "div": _scaled, "neg": _negative, "where": _either, "identity": _typed, "cast": _typed,
          "at_least": _typed, "as_type": _typed}
