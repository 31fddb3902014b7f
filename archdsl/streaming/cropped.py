"""Convolutions that are padded on both sides and whose result is cut to the positions that came in: padded by as many less, they give these alone.

`conv(x, w, pad = 2)[:, :, :-2]` with three taps is causal: nothing behind a position is in its result. A convolution in a block of its own, which
gives the positions too many to its caller, is taken out of it."""
from __future__ import annotations

from archdsl.dims import Dim
from archdsl.flatten import Rewriting, copy_node, inline
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.ops.rules import each
from archdsl.records import record
from archdsl.streaming.rows import is_pointwise

WHOLE = ("slice", None, None, None)
Widths = tuple[int, int]
"""Positions in front and behind."""


@record(frozen=True)
class Way:
    """From a convolution to a slice of what it gives: the nodes between, the first first; the axis of the convolution, how much of it is cut off, and
    the place of what does so among the slice's items."""

    conv: Node
    between: tuple[Node, ...]
    axis: int
    cut: Widths
    item: int


class Cropped(Rewriting):
    """Graphs whose convolutions are padded by what is left of them alone."""

    def __init__(self) -> None:
        super().__init__(self._cropped, "slice")
        self.made: dict[tuple[Node, int, Widths], dict[Value, Value]] = {}  # of a convolution and a cut: what is in the place of what is longer

    def _graph(self, graph: Graph) -> Graph:
        givers = [giver for node in graph.nodes if node.op == "slice" and (giver := _giver(node)) is not None]
        opened = {id(g.attrs["graph"]) for g in givers if g.op == "call" and _wide(g)}
        return super()._graph(inline(graph, lambda call: id(call.attrs["graph"]) in opened or _wide(call)) if opened else graph)

    def _cropped(self, node: Node) -> tuple[list[Node], tuple[Value, ...]] | None:
        """The nodes in the place of a slice, and its result; None where it stays. What is cut alike elsewhere is computed once."""
        way = _way(node)
        if way is None:
            return None
        known = self.made.setdefault((way.conv, way.axis, way.cut), {})
        made, result = _padded_less(way, known), known[node.args[0]]
        items = tuple(WHOLE if i == way.item else item for i, item in enumerate(node.attrs["items"]))
        if any(item != WHOLE for item in items):
            made.append(Node("slice", (result,), {"items": items}, node.types, node.span, node.name))
            result = Value(made[-1])
        return made, (result,)


def _carries(node: Node) -> bool:
    """Whether an op treats all positions alike, and takes them from one operand alone."""
    return node.op in ("rearrange", "dropout") or is_pointwise(node.op) and len(node.operands()) == 1


def _carried(node: Node) -> Value | None:
    """What an op that treats all positions alike takes; None for another op."""
    return node.operands()[0] if _carries(node) else None


def _giver(node: Node) -> Node | None:
    """The call or convolution that gives what a node takes, through ops that treat positions alike."""
    value = node.operands()[0]
    while (inner := _carried(value.node)) is not None:
        value = inner
    return value.node if value.node.op in ("call", "conv") else None


def _wide(call: Node) -> bool:
    """Whether what is called is no more than a convolution that gives more positions than it takes."""
    graph = call.attrs["graph"]
    if len(graph.outputs) != 1 or graph.emits:
        return False
    result = graph.outputs[0].node
    giver = result if result.op in ("call", "conv") else _giver(result) if _carries(result) else None
    if giver is None or giver.op == "call":
        return giver is not None and _wide(giver)
    sizes = zip(giver.args[0].shape[2:], giver.types[0].shape[2:])
    return any(isinstance(after, Dim) and isinstance(more := after - before, int) and more > 0 for before, after in sizes)


def _way(node: Node) -> Way | None:
    """From where the positions come that a slice leaves, if it leaves as many as came into a convolution."""
    cuts = [(axis, item, cut) for axis, item, cut in _cuts(node) if cut != (0, 0)]
    if len(cuts) != 1:
        return None
    axis, item, cut = cuts[0]
    at, between = node.args[0].node, []
    while at.op != "conv":
        if (value := _carried(at)) is None or (inner := _same_axis(at, value, axis)) is None:
            return None
        between.append(at)
        at, axis = value.node, inner
    x, place, rank = at.args[0], axis - 2, len(at.types[0].shape) - 2
    if place < 0 or at.attrs["pad"] == "same" or not isinstance(x.shape[axis], Dim) or each(at.attrs["stride"], rank, "stride")[place] != 1:
        return None
    width, wide = each(at.attrs["pad"], rank, "pad", 0)[place], at.types[0].shape[axis]
    if not isinstance(width, int) or min(width - cut[0], width - cut[1]) < 0 or wide - sum(cut) != x.shape[axis] or at.types[0].shape.count(wide) > 1:
        return None
    return Way(at, tuple(reversed(between)), axis, cut, item)


def _cuts(node: Node) -> list[tuple[int, int, Widths]]:
    """Axes of what a slice takes whose size varies and of which it takes a plain range: the axis, the place of its item, what the range cuts off."""
    found: list[tuple[int, int, Widths]] = []
    axes = iter(range(len(node.args[0].shape)))
    for place, (kind, *bounds) in enumerate(node.attrs["items"]):
        axis = None if kind == "new" else next(axes)
        if axis is None or kind != "slice" or bounds[2] not in (None, 1) or not isinstance(size := node.args[0].shape[axis], Dim):
            continue
        low, high = bounds[0] or 0, size if bounds[1] is None else bounds[1]
        behind = -high if isinstance(high, int) else size - high
        if isinstance(low, int) and isinstance(behind, int) and min(low, behind) >= 0:
            found.append((axis, place, (low, behind)))
    return found


def _same_axis(node: Node, value: Value, axis: int) -> int | None:
    """The axis of the value that a node takes that is the given one of its result."""
    if node.op != "rearrange":
        return axis + len(value.shape) - len(node.types[0].shape)
    group = node.attrs["outs"][axis]
    found = [i for i, g in enumerate(node.attrs["ins"]) if len(group) == 1 and g == group]
    return found[0] if found else None


def _padded_less(way: Way, known: dict[Value, Value]) -> list[Node]:
    """The nodes in the place of a convolution and of those behind it that `known` lacks, and takes."""
    conv, x = way.conv, way.conv.args[0]
    rank, place, wide, size = len(x.shape) - 2, way.axis - 2, conv.types[0].shape[way.axis], x.shape[way.axis]
    pads, made = each(conv.attrs["pad"], rank, "pad", 0), list[Node]()
    if x not in known:
        widths = tuple((pads[place] - way.cut[0], pads[place] - way.cut[1]) if i == way.axis else (0, 0) for i in range(rank + 2))
        longer = tuple(s + sum(w) for s, w in zip(x.shape, widths))
        made.append(Node("pad", (x,), {"widths": widths, "mode": "constant", "value": 0}, (TensorType(x.dtype, longer),), conv.span, conv.name))
        known[x] = Value(made[-1])
    for old in (conv, *way.between):
        if Value(old) in known:
            continue
        new = copy_node(old, lambda v: known.get(v, v))
        if old is conv:
            new.attrs["pad"] = tuple(0 if i == place else p for i, p in enumerate(pads))
        if "sizes" in new.attrs:
            new.attrs["sizes"] = tuple(size if s == wide else s for s in new.attrs["sizes"])
        t = old.types[0]
        new.types = (TensorType(t.dtype, tuple(size if s == wide else s for s in t.shape)),)
        known[Value(old)] = Value(new)
        made.append(new)
    return made
