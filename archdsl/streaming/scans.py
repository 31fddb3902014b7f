"""Recurrences in the language: the same scan, from a state; of one position the body itself."""
from __future__ import annotations

from typing import Any

from archdsl.flatten import copy_node
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.records import replace
from archdsl.streaming.definition import DOCUMENTS, Definition, Known
from archdsl.streaming.delays import literal
from archdsl.streaming.packing import firsts, packed_scan
from archdsl.streaming.rows import NoRows


def scan(d: Definition, node: Node, known: Known) -> None:
    """The same scan, from a state; of one position the body itself."""
    scanned, carries = node.attrs["scanned"], node.attrs["carries"]
    if not any(d.at.timed(s) for v in node.operands() for s in v.shape):
        d.keep(node, known)
        return
    if not d.at.is_time(node.attrs["n"]):
        raise d.refuse(node, "it goes along another axis than the stream's")
    initial, others = node.args[scanned:scanned + len(carries)], node.args[scanned + len(carries):]
    if any(d.at.timed(s) for v in others for s in v.shape) or d.reads_time(node.attrs["body"]):
        raise d.refuse(node, "its body looks at all positions at once")
    for name, value in zip(carries, initial):
        if any(d.at.timed(s) for s in value.shape):
            raise d.refuse(node, f"`{name}` is {value.type}: what is carried has the size of a position, whatever the number of positions")
    if d.session.form == "packed":
        new = packed_scan(node, tuple(known[v] for v in node.args), firsts(d.counter(DOCUMENTS), d.nodes))
        d.put(node, new, known)
        return
    if any(known[v] in d.rows.held for v in node.operands()):
        raise NoRows("a scan takes positions that differ from row to row")
    for name, value in zip(carries, initial):
        if not _is_zero(value):
            raise d.refuse(node, f"`{name}` does not begin with zeros, and a state does", help=f"`carry {name}: … = zeros()`")
    before = [d.slot(name, v.type, node.span) for name, v in zip(carries, initial)]
    walked, rest = [known[v] for v in node.args[:scanned]], [known[v] for v in others]
    one = d.at.dims.get(str(node.attrs["n"])) == 1
    if d.delays.now:
        results = _later(d, node, walked, [v for *_, v in before], rest, one)
    else:
        given = [*walked, *(v for *_, v in before), *rest]
        results = _one(d, node, given) if one else _several(d, node, given)
    known.update(zip(node.values, results))
    d.slots += [(name, t, value, after, False) for (name, t, value), after in zip(before, results[len(results) - len(carries):])]


def _later(d: Definition, node: Node, walked: list[Value], carried: list[Value], others: list[Value], one: bool) -> list[Value]:
    """Behind what looks ahead: outside of the sequence the scan carries zeros, whatever its body makes there."""
    inside = d.delays.inside(node.args[0].shape[node.attrs["axes"][0]])
    if not one:
        n = len(walked)
        attrs = {**node.attrs, "body": _within(node.attrs["body"], n, len(carried)), "scanned": n + 1, "axes": (*node.attrs["axes"], 0)}
        types = tuple(TensorType(t.dtype, tuple(map(d.size, t.shape))) for t in node.types)
        new = Node("scan", (*walked, inside, *carried, *others), attrs, types, node.span, node.name)
        d.nodes.append(new)
        return list(new.values)
    results, here = _one(d, node, [*walked, *carried, *others]), _at(d, inside, 0, ("int", 0))
    count = len(results) - len(carried)
    nodes = [_zeros_unless(here, v) for v in results[count:]]
    d.nodes += nodes
    return [*results[:count], *map(Value, nodes)]


def _within(body: Graph, scanned: int, carries: int) -> Graph:
    """The body that is also told whether its position belongs to the sequence, and carries zeros from one that does not."""
    inside = Node("input", (), {"name": "inside"}, (TensorType("bool", ()),), body.span, "inside")
    nodes = [_zeros_unless(Value(inside), v) for v in body.outputs[:carries]]
    inputs = (*body.inputs[:scanned], Value(inside), *body.inputs[scanned:])
    own = [n for n in body.nodes if n.op != "input"]
    return replace(body, inputs=inputs, nodes=(*(v.node for v in inputs), *own, *nodes), outputs=(*map(Value, nodes), *body.outputs[carries:]))


def _zeros_unless(here: Value, v: Value) -> Node:
    return Node("where", (here, v, literal(0, v.dtype)), {}, (v.type,), v.node.span, v.node.name)


def _several(d: Definition, node: Node, given: list[Value]) -> list[Value]:
    new = copy_node(node, dict(zip(node.args, given)).__getitem__, "", d.at.dims)
    new.args = tuple(given)
    d.nodes.append(new)
    return list(new.values)


def _one(d: Definition, node: Node, given: list[Value]) -> list[Value]:
    """The nodes of the body, on slices."""
    body, axes = node.attrs["body"], node.attrs["axes"]
    plain = [_at(d, v, axis, ("int", 0)) for v, axis in zip(given, axes)]
    inside: dict[Value, Value] = dict(zip(body.inputs, [*plain, *given[len(axes):]]))
    for inner in body.nodes:
        if inner.op != "input":
            d.node(inner, inside)
    count = len(node.attrs["carries"])
    outputs = [inside[v] for v in body.outputs]
    return [*(_at(d, y, axes[0], ("new",)) for y in outputs[count:]), *outputs[:count]]


def _at(d: Definition, value: Value, axis: int, item: tuple[Any, ...]) -> Value:
    """A value without an axis, of which it takes one position, or with a new one."""
    shape = value.shape[:axis] + ((1,) if item[0] == "new" else ()) + value.shape[axis + (item[0] == "int"):]
    items = (*((("slice", None, None, None),) * axis), item)
    new = Node("slice", (value,), {"items": items}, (TensorType(value.dtype, shape),), value.node.span, value.node.name)
    d.nodes.append(new)
    return Value(new)


def _is_zero(value: Value) -> bool:
    """Whether a tensor is known to hold zeros."""
    node = value.node
    if node.op in ("expand", "cast", "as_type", "at_least", "identity"):
        return _is_zero(node.args[0])
    return node.op == "zeros_like" or node.op == "literal" and node.attrs["value"] == 0
