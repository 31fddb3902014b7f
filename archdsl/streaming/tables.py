"""Nodes that give or take tables of pairs of positions."""
from __future__ import annotations

from archdsl.graph import Node, Value
from archdsl.ops.registry import OpError
from archdsl.streaming import pairs
from archdsl.streaming.definition import PLACES, POSITION, Definition, Known
from archdsl.streaming.rows import NoRows, infer


def distance(d: Definition, node: Node, known: Known) -> None:
    """How far positions lie behind each other: of the new ones and all places."""
    value = Value(node)
    d.pairs[value] = pairs.WITH_KEYS
    if d.session.form == "packed":
        d.keep(node, known)  # it is read within a document, where it is right
        return
    size = node.types[0].shape[0]
    if not d.at.is_time(size):
        raise d.refuse(node, f"it counts {size} positions, of which the stream is a part")
    args = (d.counter(POSITION), d.counter(PLACES))
    d.put(node, Node("distance_extend", args, {"n": d.size(size)}, (d.table(value.type, pairs.WITH_KEYS),), node.span, node.name), known)


def table_of(d: Definition, node: Node, known: Known) -> None:
    """An op on a table, which keeps its entries apart."""
    if any(known[v] in d.rows.held for v in node.operands()):
        raise NoRows(f"{node.op} joins pairs of positions with positions that differ from row to row")
    try:
        axes = pairs.axes_of(node, d.pairs, d.at.timed)
    except OpError as e:
        raise d.refuse(node, e.message) from None
    d.pairs.update(dict.fromkeys(node.values, axes))
    if d.session.form == "packed":
        d.keep(node, known)
        return
    new = pairs.along(node, d.pairs, known.__getitem__, d.at.dims)
    new.types = infer(new)
    d.put(node, new, known)
