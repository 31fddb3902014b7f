"""Tables of pairs of positions: made of `distance(T)`, added to the scores of attention.

In the parallel form both axes have T positions. Along the stream one counts the new positions, the queries, the other all places in which earlier
ones are kept, the keys. A table goes from op to op as long as each entry depends on its own pair alone."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from archdsl.dims import Size, sym
from archdsl.flatten import copy_node
from archdsl.graph import Node, TensorType, Value
from archdsl.ops.registry import LENGTH, OpError
from archdsl.streaming.rows import is_pointwise

Axes = tuple[int, int]  # of queries and of keys, from the right: -1 is the last
Rule = Callable[[Node, "dict[Value, Axes]", Callable[[Any], bool]], Axes]
WITH_KEYS: Axes = (-2, -1)


def table(t: TensorType, axes: Axes) -> TensorType:
    """The type of a table along the stream, from the parallel one."""
    shape = list(t.shape)
    shape[axes[1]] = sym(LENGTH)
    return TensorType(t.dtype, tuple(shape))


def is_difference(node: Node) -> bool:
    """Whether a node is `index(T)[:, none] - index(T)[none, :]`."""
    if node.op != "sub" or not all(isinstance(a, Value) and a.node.op == "slice" and a.node.args[0].node.op == "index" for a in node.args):
        return False
    whole, new = ("slice", None, None, None), ("new",)
    return [a.node.attrs["items"] for a in node.args] == [(whole, new), (new, whole)]


def axes_of(node: Node, held: dict[Value, Axes], timed: Callable[[Any], bool]) -> Axes:
    """Where the pairs lie in the result of a node that takes tables. Raises OpError for an op that mixes them, or is not known not to."""
    rule = _RULES.get(node.op, _pointwise if is_pointwise(node.op) else None)
    if rule is None:
        raise OpError("it compares positions with each other")
    return rule(node, held, timed)


def along(node: Node, held: dict[Value, Axes], known: Callable[[Value], Value], dims: Mapping[str, Size]) -> Node:
    """The same op on tables along the stream; its result types are to be inferred."""
    new = copy_node(node, known, "", dims)
    if node.op == "rearrange":
        sizes = list(new.attrs["sizes"])
        for size, (a, *more) in zip(known(node.args[0]).shape, (g or (None,) for g in node.attrs["ins"])):
            if a is not None and not more:
                sizes[a] = size
        new.attrs["sizes"] = tuple(sizes)
    return new


def _pointwise(node: Node, held: dict[Value, Axes], timed: Callable[[Any], bool]) -> Axes:
    axes = {held[v] for v in node.operands() if v in held}
    for v in node.operands():
        if v not in held and any(timed(s) and i - len(v.shape) != min(axes)[0] for i, s in enumerate(v.shape)):
            raise OpError("it joins pairs of positions with something of the keys")
    if len(axes) > 1:
        raise OpError("it joins pairs of positions with such in another order")
    return axes.pop()


def _slice(node: Node, held: dict[Value, Axes], timed: Callable[[Any], bool]) -> Axes:
    x, own, result = node.args[0], 0, 0
    found: dict[int, int] = {}
    items = list(node.attrs["items"])
    items += [("slice", None, None, None)] * (len(x.shape) - sum(i[0] != "new" for i in items))
    for kind, *rest in items:
        if kind == "slice" and all(r in (None, w) for r, w in zip(rest, (0, None, 1))):
            found[own - len(x.shape)] = result
        own += kind != "new"
        result += kind != "int"
    return _both(found, held[x], result)


def _rearrange(node: Node, held: dict[Value, Axes], timed: Callable[[Any], bool]) -> Axes:
    x, ins, outs = node.args[0], node.attrs["ins"], node.attrs["outs"]
    places = {g[0]: i for i, g in enumerate(outs) if len(g) == 1}
    return _both({i - len(ins): places[g[0]] for i, g in enumerate(ins) if len(g) == 1 and g[0] in places}, held[x], len(outs))


def _embedding(node: Node, held: dict[Value, Axes], timed: Callable[[Any], bool]) -> Axes:
    if node.args[0] not in held or node.args[1] in held:
        raise OpError("a table of embeddings depends on pairs of positions")
    q, k = held[node.args[0]]
    return q - 1, k - 1


def _both(found: dict[int, int], axes: Axes, rank: int) -> Axes:
    """Axes of an operand -> of a result of that rank."""
    if any(a not in found for a in axes):
        raise OpError("it takes pairs of positions apart")
    return found[axes[0]] - rank, found[axes[1]] - rank


_RULES: dict[str, Rule] = {"slice": _slice, "rearrange": _rearrange, "embedding": _embedding}
