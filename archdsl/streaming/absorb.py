"""Keys and values that are linear in fewer numbers: forms with state keep those, and attend to them.

Where v = c W and k = [c U, far], c one vector for all heads, far likewise or absent, a score is q k = (q_near U^T) c + q_far far, and what is read is
(Σ weights c) W. So the maps go to the queries and to what is read, and c and far are all that is kept of a position: fewer numbers, more products.
Source: arxiv 2405.04434, section 2.1.2 and appendix C. Whether the state becomes smaller is known from the sizes alone.
"""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.flatten import Rewriting
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.records import record
from archdsl.source import Span

WHOLE = ("slice", None, None, None)
NAME = "absorb"


@record(frozen=True)
class Absorbed:
    """One attention that was rewritten: where it is written, and how many numbers a position keeps, before and now."""

    span: Span
    before: int
    now: int

    def __str__(self) -> str:
        return f"{NAME}: the attention at {self.span!r} keeps {self.now:,} numbers of each position, not {self.before:,}"


class Absorb:
    """The rewrite of graphs; `found` tells of the attentions."""

    def __init__(self) -> None:
        self.found: list[Absorbed] = []

    def __call__(self, graph: Graph) -> Graph:
        return Rewriting(self._attention, "attention")(graph)

    def _attention(self, node: Node) -> tuple[list[Node], tuple[Value, ...]] | None:
        """The nodes in the place of attention, and its result; None where it stays."""
        parts = _parts(*node.args[:3])
        if parts is None:
            return None
        c, up, far, down = parts
        heads, rank, near = up.shape
        more = far.shape[-1] if far is not None else 0
        before, now = heads * (near + more + down.shape[-1]), rank + more
        if not (isinstance(before, int) and isinstance(now, int) and now < before):
            return None
        self.found.append(Absorbed(node.span, before, now))
        nodes = _rewritten(node, c, up, far, down)
        return nodes, nodes[-1].values


def _rewritten(node: Node, c: Value, up: Value, far: Value | None, down: Value) -> list[Node]:
    nodes: list[Node] = []

    def add(op: str, args: tuple[Any, ...], attrs: dict[str, Any], shape: tuple[Size, ...], dtype: str = node.types[0].dtype) -> Value:
        nodes.append(Node(op, args, attrs, (TensorType(dtype, shape),), node.span, ""))
        return Value(nodes[-1])

    q = node.args[0]
    heads, rank, near = up.shape
    whole = (WHOLE,) * (len(q.shape) - 1)
    lead = q.shape[:-1]
    turned = add("rearrange", (up,), {"sizes": up.shape, "ins": ((0,), (1,), (2,)), "outs": ((0,), (2,), (1,))}, (heads, near, rank), up.dtype)
    k = c
    if far is None:
        q = add("matmul", (q, turned), {}, (*lead, rank))
    else:
        own = add("slice", (q,), {"items": (*whole, ("slice", None, near, None))}, (*lead, near))
        rest = add("slice", (q,), {"items": (*whole, ("slice", near, None, None))}, (*lead, far.shape[-1]))
        q = add("concat", ((add("matmul", (own, turned), {}, (*lead, rank)), rest),), {"axis": -1}, (*lead, rank + far.shape[-1]))
        k = add("concat", ((c, far),), {"axis": -1}, (*c.shape[:-1], rank + far.shape[-1]))
    v = add("slice", (k,), {"items": (*((WHOLE,) * (len(k.shape) - 1)), ("slice", None, rank, None))}, c.shape)
    scale = node.attrs.get("scale")
    attrs = {**node.attrs, "scale": node.args[0].shape[-1] ** -0.5 if scale is None else scale}
    y = add("attention", (q, k, v, *node.args[3:]), attrs, (*lead, rank))
    add("matmul", (y, down), {}, node.types[0].shape)
    return nodes


# ---------------------------------------------------------------- the pattern
def _mapped(value: Value) -> tuple[Value, Value] | None:
    """(c [..., 1, T, rank], w [heads, rank, width]) of a value c @ w whose w is made of weights alone."""
    node = value.node
    if node.op != "matmul":
        return None
    c, w = node.args
    if len(c.shape) < 3 or c.shape[-3] != 1 or len(w.shape) != 3 or any(n.op == "input" for n in _nodes(w)):
        return None
    return c, w


def _parts(q: Value, k: Value, v: Value) -> tuple[Value, Value, Value | None, Value] | None:
    """c, the map of the keys, what stands behind it in them, the map of the values."""
    values = _mapped(v)
    if values is None:
        return None
    c, down = values
    far: Value | None = None
    if k.node.op == "concat" and len(k.node.args[0]) == 2 and k.node.attrs["axis"] in (-1, len(k.shape) - 1):
        k, repeated = k.node.args[0]
        far = _one_head(repeated)
        if far is None:
            return None
    keys = _mapped(k)
    if keys is None or keys[0] != c or keys[1].shape[0] != down.shape[0] or q.shape[-3] != down.shape[0]:
        return None
    return c, keys[1], far, down


def _one_head(value: Value) -> Value | None:
    """The value of one head that is repeated for all of them."""
    node = value.node
    if node.op not in ("rearrange", "expand"):
        return None
    one = node.args[0]
    same = len(one.shape) == len(value.shape) and one.shape[-3] == 1 and one.shape[:-3] + one.shape[-2:] == value.shape[:-3] + value.shape[-2:]
    if not same or node.op == "expand":
        return one if same else None
    ins, outs, at = node.attrs["ins"], node.attrs["outs"], len(one.shape) - 3
    apart = all(i == o and len(i) == 1 for axis, (i, o) in enumerate(zip(ins, outs)) if axis != at)
    return one if apart and not set(outs[at]) & {a for group in ins for a in group if group != ins[at]} else None


def _nodes(value: Value) -> list[Node]:
    """The nodes that a value depends on."""
    found, stack = {}, [value.node]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found[id(node)] = node
            stack += [v.node for v in node.operands()]
    return list(found.values())
