"""Scans whose carries are linear in themselves, element by element, s = a s + b: all positions at once, by `linear_scan`. Free of torch.

The body of such a scan runs once, on tensors with the positions as an axis in front; so a and b of a carry are found for all positions, then the
carry, then what depends on it: another carry, or what the scan yields. A body in which some carry is not linear, or some op is not known to leave
that axis alone, stays the loop that it is.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from archdsl.dims import Size, sym
from archdsl.flatten import Rewriting, copy_node
from archdsl.graph import Graph, Node, TensorType, Value, behind
from archdsl.lower.affine import Terms
from archdsl.ops.registry import find
from archdsl.streaming.rows import NoRows, Rows

AXIS = "Positions"
"""What the axis in front is called while it is put there, so that no other axis is taken for it."""
WHOLE = ("slice", None, None, None)


def parallel_scans(graph: Graph) -> Graph:
    """The graph with every scan that can be computed for all positions at once so computed; itself where there is no scan."""
    return Rewriting(lambda node: _Lifted(node).computed(), "scan", lasting="parallel scans")(graph)


class _Lifted:
    """The body of a scan on all positions. `known`: its values here, `rows.held` those with the positions in front."""

    def __init__(self, node: Node):
        self.node, self.body = node, node.attrs["body"]
        self.n, self.count = node.attrs["n"], node.attrs["scanned"]
        self.carries = self.body.inputs[self.count:self.count + len(node.attrs["carries"])]
        self.nodes: list[Node] = []
        self.rows = Rows(sym(AXIS), self.nodes)
        self.known: dict[Value, Value] = {}

    def computed(self) -> tuple[list[Node], list[Value]] | None:
        """The nodes in place of the scan, and its results; None where it stays."""
        try:
            return self._computed()
        except NoRows:
            return None

    def _computed(self) -> tuple[list[Node], list[Value]] | None:
        given = self.node.args
        for value, arg, axis in zip(self.body.inputs, given, self.node.attrs["axes"]):
            self.known[value] = self._held(self._moved(arg, axis, 0))
        first = dict(zip(self.carries, given[self.count:]))
        self.known.update(zip(self.body.inputs[self.count + len(self.carries):], given[self.count + len(self.carries):]))
        nexts = dict(zip(self.carries, self.body.outputs))
        last: dict[Value, Value] = {}
        while len(last) < len(self.carries):
            carry = next((c for c in self.carries if c not in last and self._solve(c, first[c], nexts[c], last)), None)
            if carry is None:
                return None
        self._lift(self.body.nodes)
        yields = [self._moved(self._front(v), 0, self.node.attrs["axes"][0]) for v in self.body.outputs[len(self.carries):]]
        for y, t in zip(yields, self.node.types):
            if y.type.dtype != t.dtype:
                return None
        results = [*yields, *(last[c] for c in self.carries)]
        needed = behind(results)
        return [self._sized(n) for n in self.nodes if id(n) in needed], results

    def _solve(self, carry: Value, first: Value, following: Value, last: dict[Value, Value]) -> bool:
        """The carry at all positions; False where it is not linear in itself and in what is known."""
        if carry.dtype == "bool":
            return False
        needs = self._depending(c for c in self.carries if c not in last)
        own: list[Node] = []
        terms = Terms(carry, needs, own)
        found = terms.of(following)
        if found is None:
            return False
        a, b = terms.full(found.a), terms.full(found.b)
        wanted = behind((a, b))
        self._lift([n for n in self.body.nodes if id(n) in wanted])
        self._lift(own)
        a, b = self._spread(self._front(a)), self._spread(self._front(b))
        scan = Node("linear_scan_extend", (a, b, first if first.shape else self._new(first)), {}, (), self.node.span, carry.node.name)
        scan.types = (b.type, TensorType(b.dtype, (*b.shape[:-2], b.shape[-1])))
        self.nodes.append(scan)
        after = self._gathered(Value(scan), bool(carry.shape))
        end = Value(scan, 1) if carry.shape else self._at(Value(scan, 1), ("int", 0))
        before = self._node("concat", ((self._new(first), after),), {"axis": 0}, TensorType(first.dtype, (self._n + 1, *first.shape)))
        before = self._node("slice", (before,), {"items": (("slice", None, -1, None),)}, after.type)
        self.known[carry], self.known[following] = self._held(before), self._held(after)
        last[carry] = end
        return True

    # ---------------------------------------------------------------- the body
    def _depending(self, unknown: Iterable[Value]) -> set[Value]:
        """The values that carries decide which are not known yet."""
        found = set(unknown)
        for node in self.body.nodes:
            if node.op != "input" and not found.isdisjoint(node.operands()) and not all(v in self.known for v in node.values):
                found.update(node.values)
        return found

    def _lift(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.op == "input" or all(v in self.known for v in node.values):
                continue
            if any(isinstance(v, Graph) for v in node.attrs.values()):
                raise NoRows(f"{node.op} is not known to leave an axis alone")
            if any(self.known[v] in self.rows.held for v in node.operands()):
                self.rows.node(node, self.known, {})
            elif (op := find(node.op)) is not None and op.random:
                raise NoRows(f"{node.op} draws anew at each position")
            else:
                new = copy_node(node, self.known.__getitem__)
                self.nodes.append(new)
                self.known.update(zip(node.values, new.values))

    # ---------------------------------------------------------------- axes
    @property
    def _n(self) -> Any:
        return sym(AXIS)

    def _held(self, value: Value) -> Value:
        self.rows.held.add(value)
        return value

    def _node(self, op: str, args: tuple[Any, ...], attrs: dict[str, Any], type: TensorType) -> Value:
        self.nodes.append(Node(op, args, attrs, (type,), self.node.span, ""))
        return Value(self.nodes[-1])

    def _front(self, value: Value) -> Value:
        """A value of the body with the positions in front."""
        new = self.known.get(value, value)
        if new in self.rows.held:
            return new
        return self._held(self._node("expand", (new,), {"shape": (self._n, *new.shape)}, TensorType(new.dtype, (self._n, *new.shape))))

    def _moved(self, value: Value, source: int, to: int) -> Value:
        """A value with one axis elsewhere; where it comes to lie in front it has its name there."""
        shape = list(value.shape)
        if to == 0 and source >= 0:
            shape[source] = self._n
        order = list(range(len(shape)))
        order.insert(to, order.pop(source))
        found = TensorType(value.dtype, tuple(shape[i] for i in order))
        attrs = {"sizes": tuple(shape), "ins": tuple((i,) for i in range(len(shape))), "outs": tuple((i,) for i in order)}
        return self._node("rearrange", (value,), attrs, found)

    def _spread(self, value: Value) -> Value:
        """[T, …, c] as [..., T, c]."""
        if len(value.shape) == 1:
            return self._node("slice", (value,), {"items": (WHOLE, ("new",))}, TensorType(value.dtype, (*value.shape, 1)))
        return value if len(value.shape) == 2 else self._moved(value, 0, len(value.shape) - 2)

    def _gathered(self, value: Value, axes: bool) -> Value:
        """[..., T, c] as [T, …, c]."""
        if not axes:
            return self._at(value, WHOLE, ("int", 0))
        return value if len(value.shape) == 2 else self._moved(value, len(value.shape) - 2, 0)

    def _new(self, value: Value) -> Value:
        return self._node("slice", (value,), {"items": (("new",),)}, TensorType(value.dtype, (1, *value.shape)))

    def _at(self, value: Value, *items: Any) -> Value:
        shape = tuple(s for s, (kind, *_) in zip(value.shape, items) if kind != "int") + value.shape[len(items):]
        return self._node("slice", (value,), {"items": items}, TensorType(value.dtype, shape))

    def _sized(self, node: Node) -> Node:
        """A node with the axis in front under its own size."""
        size: dict[str, Size] = {AXIS: self.n}
        made = copy_node(node, lambda v: v, "", size)
        node.attrs, node.types = made.attrs, made.types
        return node
