"""Ops with a window over positions, before and behind each: convolutions and pools along the stream. The earlier positions are kept, and what lies
behind comes before the result does, which so is as late as the op looks ahead. A sequence that is padded by hand is part of the op that reads it."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.diagnostics.model import ArchError
from archdsl.flatten import copy_node
from archdsl.graph import Node, TensorType, Value
from archdsl.ops.registry import Window
from archdsl.records import record, replace

if TYPE_CHECKING:
    from archdsl.streaming.definition import Definition, Known

READERS = ("conv", "avg_pool", "max_pool")


@record(frozen=True)
class Padded:
    """A value with zeros before and behind its positions: of what, and how many. `node`: where they are put there."""

    of: Value
    before: int
    behind: int
    node: Node


def pads(d: Definition, node: Node, known: Known) -> bool:
    """Takes a node that pads the stream with zeros, or moves the axes of what is padded: it is no value of its own."""
    if d.session.form == "packed":
        return False
    x = node.args[0] if node.args else None
    if node.op == "pad" and isinstance(x, Value) and x not in d.padded:
        moving = [i for i, s in enumerate(x.shape) if d.at.timed(s)]
        widths = node.attrs["widths"]
        if len(moving) != 1 or any(tuple(w) != (0, 0) for i, w in enumerate(widths) if i != moving[0]) or not any(widths[moving[0]]):
            return False
        before, behind = widths[moving[0]]
        if not all(isinstance(n, int) and n >= 0 for n in (before, behind)) or node.attrs["value"] != 0 or node.attrs["mode"] != "constant":
            return False
        d.padded[Value(node)] = Padded(x, before, behind, node)
        return True
    if node.op == "rearrange" and isinstance(x, Value) and x in d.padded:
        found, size = d.padded[x], next(s for s in x.shape if d.at.timed(s))
        own = next(s for s in found.of.shape if d.at.timed(s))
        if any(size in [node.attrs["sizes"][a] for a in group] and len(group) > 1 for group in (*node.attrs["ins"], *node.attrs["outs"])):
            return False
        shape = tuple(own if s == size else s for s in node.types[0].shape)
        attrs = {**node.attrs, "sizes": tuple(own if s == size else s for s in node.attrs["sizes"])}
        moved = Node("rearrange", (found.of,), attrs, (TensorType(node.types[0].dtype, shape),), node.span, node.name)
        d.node(moved, getattr(known, "outside", known))
        d.padded[Value(node)] = replace(found, of=Value(moved))
        return True
    return False


def read_otherwise(d: Definition, node: Node) -> ArchError:
    """What is said where a padded value is read by something else than a window over it."""
    count = next(s for s in node.types[0].shape if d.at.timed(s))
    return d.refuse(node, f"its result has {count} positions, which a part of the stream does not tell",
                    help="a convolution or a mean of as many positions may read it at once; `causal_conv` and `causal_conv_dense` pad by themselves")


def window(d: Definition, node: Node, known: Known, w: Window) -> None:
    """The same op on earlier and new positions, without padding along the stream."""
    old = node.args[0]
    if (padded := d.padded.get(old)) is not None:
        if w.outside:
            raise read_otherwise(d, padded.node)
        old, w = padded.of, replace(w, past=w.past + padded.before, ahead=w.ahead - padded.before)
    x, kept = known[old], w.past + w.ahead
    if kept and d.session.form == "packed":
        raise d.refuse(node, f"it reads {_count(w.past)} before and {_count(w.ahead)} behind each, and knows no borders between documents")
    if kept:
        shape = tuple(kept if i == w.axis else s for i, s in enumerate(old.shape))
        name, type, before = d.slot(_scope(node) + "before", TensorType(old.dtype, shape), node.span)
        longer = tuple(s + kept if i == w.axis else s for i, s in enumerate(x.shape))
        join = Node("behind_extend", (x, before), {"axis": w.axis}, (TensorType(x.dtype, longer), before.type), node.span, x.node.name)
        join.call_result(1, name)
        d.nodes.append(join)
        x, after = join.values
        d.slots.append((name, type, before, after, False))
        if d.delays.now or w.ahead or w.outside:
            x = d.delays.covered(x, w.axis, w.outside, kept)
    if w.ahead:
        d.session.ahead = d.session.ahead or node.span
    known[node.args[0]] = x
    new = copy_node(node, known.__getitem__, "", d.at.dims)
    new.attrs = {**new.attrs, **w.attrs}
    d.put(node, new, known)
    d.delays.of.update(dict.fromkeys(new.values, d.delays.now + w.ahead))


def _scope(node: Node) -> str:
    """Where the weight of a window lies, below the definition in which it stands."""
    weight = node.args[1].node if len(node.args) > 1 and isinstance(node.args[1], Value) else None
    path = weight.attrs["path"] if weight is not None and weight.op == "param" else ""
    return path[:path.rfind(".") + 1]


def _count(n: int) -> str:
    return f"{n} position{'s' * (n != 1)}"
