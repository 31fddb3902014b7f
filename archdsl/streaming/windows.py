"""Ops with a window over positions, before and behind each: convolutions and pools along the stream. The earlier positions are kept, and what lies
behind comes before the result does, which so is as late as the op looks ahead."""
from __future__ import annotations

from archdsl.flatten import copy_node
from archdsl.graph import Node, TensorType, Value
from archdsl.ops.registry import Window
from archdsl.streaming.definition import Definition, Known


def window(d: Definition, node: Node, known: Known, w: Window) -> None:
    """The same op on earlier and new positions, without padding along the stream."""
    old = node.args[0]
    x, kept = known[old], w.past + w.ahead
    if d.session.form == "packed":
        raise d.refuse(node, f"it reads {_count(w.past)} before and {_count(w.ahead)} behind each, and knows no borders between documents")
    if kept:
        shape = tuple(kept if i == w.axis else s for i, s in enumerate(old.shape))
        name, type, before = d.slot("before", TensorType(old.dtype, shape), node.span)
        longer = tuple(s + kept if i == w.axis else s for i, s in enumerate(x.shape))
        join = Node("behind_extend", (x, before), {"axis": w.axis}, (TensorType(x.dtype, longer), before.type), node.span, x.node.name)
        join.call_result(1, name)
        d.nodes.append(join)
        x, after = join.values
        d.slots.append((name, type, before, after, False))
    if w.ahead:
        d.session.ahead = d.session.ahead or node.span
    if d.delays.now or w.ahead or w.outside:
        x = d.delays.covered(x, w.axis, w.outside, kept)
    new = copy_node(node, known.__getitem__, "", d.at.dims)
    new.args, new.attrs = (x, *new.args[1:]), {**new.attrs, **w.attrs}
    d.put(node, new, known)
    d.delays.of.update(dict.fromkeys(new.values, d.delays.now + w.ahead))


def _count(n: int) -> str:
    return f"{n} position{'s' * (n != 1)}"
