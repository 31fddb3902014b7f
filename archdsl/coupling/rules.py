"""Ops that merge, cut and join axes: what each couples, and the groups of its results. Free of torch."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.coupling.groups import Group, composed, couple, share_heads, taken_apart
from archdsl.dims import Size
from archdsl.graph import Node
from archdsl.ops.rules import each

if TYPE_CHECKING:
    from archdsl.coupling.walk import Coupling

Rule = Callable[["Coupling", Node], Iterable[Sequence[Group]]]
RULES: dict[str, Rule] = {}
KERNELS = ("conv", "conv_transpose", "causal_conv", "causal_conv_dense")
"""Ops whose second operand is a kernel, its taps behind all other axes."""


def _rule(*ops: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


def taps(node: Node, kernel: Sequence[Group]) -> None:
    """Says of the axes of a kernel, the last of its weight's, which tap reads the position itself: as many as the padding has lie before it, that of
    a `pad` before it too, or all the others where each position sees those before it alone."""
    if node.op in ("causal_conv", "causal_conv_dense"):
        axes, origins = kernel[-1:], [_number(k) - 1 for k in kernel[-1:]]
    else:
        axes, pad, n = kernel[2:], node.attrs["pad"], len(kernel) - 2
        dilations = each(node.attrs["dilation"], n, "dilation")
        before = [(_number(k) - 1) // 2 * d for k, d in zip(axes, dilations)] if pad == "same" else each(pad, n, "pad", 0)
        origins = [(p + front) // d for p, front, d in zip(before, _padded(node.args[0].node, n), dilations)]
    for group, origin in zip(axes, origins):
        group.lies_at(origin)


def _padded(node: Node, n: int) -> list[int]:
    """How many positions a node puts in front on each of the last `n` axes."""
    return [before if isinstance(before, int) else 0 for before, _ in node.attrs["widths"][-n:]] if node.op == "pad" else [0] * n


def _number(group: Group) -> int:
    """Kernels have known sizes: ops refuse others."""
    assert isinstance(group.size, int)
    return group.size


@_rule("rearrange")
def _rearrange(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    sizes, atoms = n.attrs["sizes"], {}
    for group, axis in zip(c.of(n.args[0]), n.attrs["ins"]):
        parts = [Group(sizes[a]) for a in axis if sizes[a] != 1]
        kept = [a for a in axis if sizes[a] != 1]
        if parts:
            atoms.update(zip(kept, taken_apart(group, "product", parts)))
    outs = []
    for axis in n.attrs["outs"]:
        parts = [atoms.setdefault(a, Group(sizes[a])) for a in axis if sizes[a] != 1]
        outs.append(parts[0] if len(parts) == 1 else composed("product", parts) if parts else Group(1))
    return [outs]


@_rule("split")
def _split(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    own, axis = c.of(n.args[0]), n.attrs["axis"] % len(n.args[0].shape)
    parts = taken_apart(own[axis], "joined", [Group(t.shape[axis]) for t in n.types])
    return [(*own[:axis], p, *own[axis + 1:]) for p in parts]


@_rule("concat")
def _concat(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    axis = n.attrs["axis"] % len(n.types[0].shape)
    operands = [c.of(x) for x in n.args[0]]
    for other in operands[1:]:
        for at, (a, b) in enumerate(zip(operands[0], other)):
            if at != axis:
                couple(a, b)
    joined = operands[0][axis] if len(operands) == 1 else composed("joined", [o[axis] for o in operands])
    return [(*operands[0][:axis], joined, *operands[0][axis + 1:])]


@_rule("stack")
def _stack(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    axis = n.attrs["axis"] % len(n.types[0].shape)
    first, *others = [c.of(x) for x in n.args[0]]
    for other in others:
        c.same(first, other)
    new = Group(n.types[0].shape[axis])
    new.fix()
    return [(*first[:axis], new, *first[axis:])]


@_rule("slice")
def _slice(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    own, shape, found, at = c.of(n.args[0]), n.types[0].shape, [], 0
    for kind, *rest in n.attrs["items"]:
        if kind == "new":
            found.append(Group(1))
            continue
        group, at = own[at], at + 1
        if kind == "int":
            group.fix()
            continue
        found.append(_part(group, rest, shape[len(found)]))
    return [(*found, *own[at:])]


def _part(group: Group, ends: Sequence[Any], size: Size) -> Group:
    """A slice of an axis."""
    start, _, step = ends
    if size == group.size:
        return group
    n = group.size
    if step in (None, 1) and isinstance(n, int) and isinstance(size, int):
        first = 0 if start is None else max(n + start, 0) if start < 0 else min(start, n)
        parts = [Group(s) for s in (first, size, n - first - size)]
        kept = [p for p in parts if p.size != 0]
        if len(kept) > 1 and parts[1] in kept:
            taken_apart(group, "joined", kept)
            return parts[1]
    group.fix()
    return Group(size)


@_rule("expand", "where", "straight_through")
def _pointwise(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    return [c.spread(n, n.args)]


@_rule("fake_quantize")
def _quantized(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    own = c.of(n.args[0])
    if n.attrs.get("group") is not None:
        own[-1].fix()  # neighbours share a scale
    return [own]


@_rule("reduce", "any", "all", "argmax", "logsumexp")
def _reduced(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    own = c.of(n.args[0])
    given = n.attrs["axes"] if n.op == "reduce" else n.attrs["axis"]
    axes = range(len(own)) if given is None else {a % len(own) for a in (given if isinstance(given, tuple) else (given,))}
    if n.op == "argmax":
        for a in axes:
            own[a].fix()
    if n.attrs["keep"]:
        return [[Group(1) if i in axes else g for i, g in enumerate(own)]]
    return [[g for i, g in enumerate(own) if i not in axes]]


@_rule("matmul")
def _matmul(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    a, b = map(c.of, n.args)
    couple(a[-1], b[-2])
    rest = Node("expand", (), {}, (n.types[0],), n.span)
    lead = c.spread(rest, ())[:-2]
    for x in (a[:-2], b[:-2]):
        lead = tuple(g if g.size == s.size else s for g, s in zip((*lead[:len(lead) - len(x)], *x), lead))
    c.same(a[:-2], b[:-2])
    return [(*lead, a[-2], b[-1])]


@_rule("einsum")
def _einsum(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    named: dict[str, Group] = {}
    for x, names in zip(n.args[0], n.attrs["ins"]):
        for name, group in zip(names, c.of(x)):
            if name in named:
                couple(named[name], group)
            named.setdefault(name, group)
    return [[named[name] for name in n.attrs["out"]]]


@_rule("conv")
def _conv(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    x, weight, bias = c.of(n.args[0]), c.of(n.args[1]), c.of(n.args[2])
    for group in (*x[2:], *weight[2:]):
        group.fix()
    groups = n.attrs["groups"]
    if groups == 1:
        couple(x[1], weight[1])
    elif weight[1].size == 1:  # depthwise: channel by channel, or several results for each
        many = weight[0].size // groups  # type: ignore[operator]
        couple(weight[0], x[1] if many == 1 else composed("product", [x[1], Group(many)]))
    else:
        shared = Group(groups)
        couple(x[1], composed("product", [shared, weight[1]]))
        couple(weight[0], composed("product", [shared, Group(weight[0].size // groups)]))  # type: ignore[operator]
    if bias:
        couple(weight[0], bias[0])
    space = [Group(s) for s in n.types[0].shape[2:]]
    for group in space:
        group.fix()
    return [(x[0], weight[0], *space)]


@_rule("group_norm")
def _group_norm(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    x, *weights = (c.of(a) for a in n.args[:3])
    for w in weights:
        if w:
            couple(x[1], w[0])
    groups = n.attrs["groups"]
    if groups != 1 and isinstance(x[1].size, int) and groups != x[1].size:
        couple(x[1], composed("product", [Group(groups), Group(x[1].size // groups)]))
    return [x]


@_rule("attention", "attention_weights")
def _attention(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    weighs = n.op == "attention_weights"
    q, k = c.of(n.args[0]), c.of(n.args[1])
    couple(q[-1], k[-1])
    share_heads(q[-3], k[-3])
    q[-2].fix()
    k[-2].fix()
    for group in (g for v in n.operands() if v not in n.args for g in c.of(v)):
        group.fix()  # of masks
    bias, sink = (c.of(a) for a in n.args[2 if weighs else 3:])
    c.same(q[-3:-2], sink)
    if len(bias) > 2:
        c.same((*q[:-2], k[-2], k[-2]), (*bias[:-2], *bias[-2:]))
    for group in bias[-2:]:
        group.fix()
    if weighs:
        return [(*q[:-1], k[-2])]
    v = c.of(n.args[2])
    couple(k[-3], v[-3])
    couple(k[-2], v[-2])
    return [(*q[:-1], v[-1])]


@_rule("repeat_interleave")
def _repeated(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    own, axis = c.of(n.args[0]), n.attrs["axis"] % len(n.args[0].shape)
    return [(*own[:axis], composed("product", [own[axis], Group(n.attrs["repeats"])]), *own[axis + 1:])]


@_rule("take")
def _take(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    own, places = c.of(n.args[0]), c.of(n.args[1])
    axis = n.attrs["axis"] % len(own)
    own[axis].fix()
    return [(*own[:axis], *places, *own[axis + 1:])]


@_rule("pad", "pad_to", "roll", "flip", "unfold", "fold", "gather", "put", "rotary", "cumsum", "sort", "topk", "topk_mask", "resize")
def _in_order(c: Coupling, n: Node) -> Iterable[Sequence[Group]]:
    """Axes that keep their size are carried on from the first operand; the order of the others means something."""
    own = c.of(n.args[0])
    touched = _touched(n, len(own))
    for i, group in enumerate(own):
        if touched is None or i in touched:
            group.fix()
    for x in n.args[1:]:
        for group in c.of(x):
            group.fix()
    found = []
    for t in n.types:
        same = len(t.shape) == len(own)
        kept = [own[i] if same and own[i].size == s and (touched is None or i not in touched) else Group(s) for i, s in enumerate(t.shape)]
        for i, group in enumerate(kept):
            if not same or touched is None or i in touched:
                group.fix()
        found.append(kept)
    return found


def _touched(n: Node, rank: int) -> set[int] | None:
    """The axes along which an op has an order; None: all."""
    if n.op == "rotary":
        return {rank - 1}
    if n.op == "pad":
        return {i for i, w in enumerate(n.attrs["widths"]) if tuple(w) != (0, 0)}
    if n.op == "resize":
        return set(range(2, rank))
    given = n.attrs.get("axes", n.attrs.get("axis"))
    if n.op in ("gather", "put", "fold", "unfold") or given is None:
        return None
    return {a % rank for a in (given if isinstance(given, tuple) else (given,))}
