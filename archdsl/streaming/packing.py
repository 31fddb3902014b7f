"""Documents behind each other: masks that count from the begin of each, and scans that carry there what they begin with."""
from __future__ import annotations

from archdsl.flatten import copy_node
from archdsl.graph import Graph, Mask, Node, TensorType, Value
from archdsl.records import replace

COUNTED = ("causal_by", "own_block")
"""Masks to which it matters where positions are counted from; for others their order and distance is all."""


def packed_mask(mask: Mask, labels: Value, nodes: list[Node]) -> Mask:
    """The mask within each document. Adds the nodes it needs."""
    same = Mask("equal_labels", (labels,))
    if mask.kind == "full":
        return same
    place: list[Value] = []

    def counted(m: Mask) -> Mask:
        if m.kind not in COUNTED:
            return Mask(m.kind, tuple(counted(a) if isinstance(a, Mask) else a for a in m.args))
        if not place:
            nodes.append(Node("index_packed", (labels,), {}, (labels.type,), labels.node.span, "place"))
            place.append(Value(nodes[-1]))
        return Mask("at", (m, place[0]))

    return Mask("and", (counted(mask), same))


def firsts(labels: Value, nodes: list[Node]) -> Value:
    """bool[T], whether a position is the first of its document. Adds its nodes."""
    place = Node("index_packed", (labels,), {}, (labels.type,), labels.node.span, "place")
    first = Node("eq", (Value(place), 0), {}, (TensorType("bool", labels.shape),), labels.node.span, "first")
    nodes += [place, first]
    return Value(first)


def packed_scan(node: Node, args: tuple[Value, ...], first: Value) -> Node:
    """The scan of a node on other operands, which walks along `first` as well: (what is scanned…, first, carries…, others…, initial values…)."""
    n, carries = node.attrs["scanned"], len(node.attrs["carries"])
    scanned, initial, others = args[:n], args[n:n + carries], args[n + carries:]
    attrs = {**node.attrs, "body": _body(node.attrs["body"], n, carries), "scanned": n + 1, "axes": (*node.attrs["axes"], 0)}
    return Node("scan", (*scanned, first, *initial, *others, *initial), attrs, node.types, node.span, node.name)


def _body(body: Graph, scanned: int, carries: int) -> Graph:
    """The body with two kinds of inputs more: whether this is a first position, and what the carries begin with."""
    first = Node("input", (), {"name": "first"}, (TensorType("bool", ()),), body.span, "first")
    nodes: list[Node] = []
    known: dict[Value, Value] = {}
    begins: list[Node] = []
    for i, value in enumerate(body.inputs):
        old = value.node
        if not scanned <= i < scanned + carries:
            known[value] = value
            continue
        begin = Node("input", (), {"name": f"{old.attrs['name']}_first"}, old.types, old.span, f"{old.attrs['name']}_first")
        here = Node("where", (Value(first), Value(begin), value), {}, old.types, old.span, old.name)
        begins.append(begin)
        nodes.append(here)
        known[value] = Value(here)
    for old in body.nodes:
        if old.op != "input":
            new = copy_node(old, known.__getitem__)
            nodes.append(new)
            known.update(zip(old.values, new.values))
    inputs = (*body.inputs[:scanned], Value(first), *body.inputs[scanned:], *map(Value, begins))
    return replace(body, inputs=inputs, nodes=(*(v.node for v in inputs), *nodes), outputs=tuple(known[v] for v in body.outputs))
