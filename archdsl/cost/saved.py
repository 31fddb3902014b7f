"""What autograd keeps of an op's operands where it depends on how they lie: products that cannot view an operand as a matrix keep a copy.

The rules beside the ops speak of contiguous operands; these are the ops for which strides matter. Free of torch.
"""
from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod
from typing import Any

from archdsl.cost.memory import Placed, fused, with_one_batch
from archdsl.cost.strides import Laid, Sizes, contiguous, expanded, viewed
from archdsl.graph import TensorType
from archdsl.ops.linear import einsum_steps
from archdsl.ops.registry import Op
from archdsl.ops.rules import broadcast, wider

Kept = tuple["str | TensorType", ...]


def kept(op: Op, arguments: dict[str, Any], needs: Collection[str]) -> Kept:
    """What autograd keeps for the gradients of the operands `needs`: names of operands, "out" and "out1", and tensors of the op's own."""
    rule = _RULES.get(op.name)
    return rule(op, arguments, needs) if rule and needs else op.kept(arguments, needs)


def _linear(op: Op, a: dict[str, Any], needs: Collection[str]) -> Kept:
    return tuple(TensorType(a["x"].dtype, a["x"].shape) if k == "x" and not _rows(a["x"].laid) else k for k in op.kept(a, needs))


def _rows(laid: Laid) -> bool:
    """Whether the tensor can be viewed as a matrix of its last axis."""
    sizes = laid[0]
    return len(sizes) <= 2 or viewed(laid, (prod(sizes[:-1]), sizes[-1])) is not None


def _matmul(op: Op, a: dict[str, Any], needs: Collection[str]) -> Kept:
    x, y = a["a"], a["b"]
    if min(len(x.extent), len(y.extent)) <= 2:
        return tuple(_folded(k, a, needs) for k in op.kept(a, needs))
    sizes = _batch(x.extent[:-2], y.extent[:-2])
    shape = broadcast(x.shape[:-2], y.shape[:-2])

    def side(t: Placed, name: str) -> str | TensorType:
        whole = expanded(t.laid, (*sizes, *t.extent[-2:]))
        view = viewed(whole, (prod(sizes), *t.extent[-2:]))
        return name if view is not None else TensorType(t.dtype, (*shape, *t.shape[-2:]))

    return tuple(side(t, n) for n, t, other in (("b", y, "a"), ("a", x, "b")) if other in needs)


def _folded(name: str | TensorType, a: dict[str, Any], needs: Collection[str]) -> str | TensorType:
    """With one matrix or vector, the side with more axes becomes a matrix: a copy where it must, if the other side needs a gradient."""
    x = a[name] if isinstance(name, str) else None
    other = a["b" if name == "a" else "a"]
    if x is None or len(x.extent) < 3 or len(x.extent) < len(other.extent):
        return name
    sizes, strides = x.laid
    laid = x.laid if name == "a" else ((*sizes[:-2], sizes[-1], sizes[-2]), (*strides[:-2], strides[-1], strides[-2]))
    return name if _rows(laid) else TensorType(x.dtype, x.shape)


def _batch(a: Sizes, b: Sizes) -> Sizes:
    n = max(len(a), len(b))
    return tuple(max(s, t) for s, t in zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b))


def _einsum(op: Op, a: dict[str, Any], needs: Collection[str]) -> Kept:
    """Both sides of each product, as [both, own, summed], each for the gradient of the other."""
    xs, ins, out = a["xs"], a["ins"], a["out"]
    shapes = {n: s for x, names in zip(xs, ins) for n, s in zip(names, x.shape)}
    sizes = {n: s for x, names in zip(xs, ins) for n, s in zip(names, x.extent)}
    found: list[str | TensorType] = []
    grads = [f"xs.{i}" in needs for i in range(len(xs))] if any(n.startswith("xs.") for n in needs) else [True] * len(xs)
    memory: tuple[str, ...] = ()
    for i, (left, right, result) in enumerate(einsum_steps(ins, out), 1):
        both, summed = [n for n in result if n in left and n in right], [n for n in left if n in right and n not in result]
        first = xs[0].strides if i == 1 else _strides_by(memory, left, sizes)
        for names, strides, whole, wanted in ((left, first, "xs.0" if i == 1 else None, grads[i]), (right, xs[i].strides, f"xs.{i}", any(grads[:i]))):
            groups = both, [n for n in result if n in names and n not in both], summed
            order = [n for g in groups for n in g]
            laid = tuple(sizes[n] for n in order), tuple(strides[names.index(n)] for n in order)
            view = not summed or viewed(laid, tuple(prod(sizes[n] for n in g) for g in groups)) is not None
            if wanted:
                found.append(whole if view and whole else TensorType(xs[0].dtype, tuple(shapes[n] for n in names)))
        memory = (*both, *(n for n in result if n in left and n not in both), *(n for n in result if n in right and n not in both))
    return tuple(found)


def _strides_by(memory: tuple[str, ...], names: tuple[str, ...], sizes: dict[str, int]) -> Sizes:
    packed = dict(zip(memory, contiguous([sizes[n] for n in memory])))
    return tuple(packed[n] for n in names)


def _attention(op: Op, a: dict[str, Any], needs: Collection[str]) -> Kept:
    """The fused kernel keeps what it was given, leading axes merged; the plain formula scaled queries and keys, the values and the weights."""
    a = {**a, "bias_grad": "bias" in needs}
    q, k, v = a["q"], a["k"], a["v"]
    if fused(a):
        merged = {n: viewed(a[n].laid, with_one_batch(a[n].laid)[0]) is not None for n in ("q", "k", "v")}
        items = op.kept({n: t for n, t in a.items() if n != "bias_grad"}, needs)
        return tuple(i if not isinstance(i, str) or merged.get(i, True) else TensorType(a[i].dtype, a[i].shape) for i in items)
    if a.get("cap") is not None or a.get("sink") is not None:
        return _by_heads("q", "k", "v")(op, {n: t for n, t in a.items() if n != "bias_grad"}, needs)
    wide, heads, scores = wider(q.dtype), q.shape[-3], {"q", "k", "bias"} & set(needs)
    lead = q.shape[:-3]
    views = q.extent[-3] == k.extent[-3] and wide == q.dtype and viewed(v.laid, (prod(v.extent[:-2]), *v.extent[-2:])) is not None
    values = "v" if views else TensorType(wide, (*lead, heads, k.shape[-2], v.shape[-1]))
    mask = [i for i in op.kept({n: t for n, t in a.items() if n != "bias_grad"}, {"bias"}) if isinstance(i, TensorType) and i.dtype == "bool"]
    items = ((TensorType(wide, (*lead, heads, q.shape[-2], k.shape[-2])), True), (TensorType(wide, (*lead, heads, *k.shape[-2:])), "q" in needs),
             (TensorType(wide, q.shape), "k" in needs), (values, bool(scores)))
    return (*(t for t, wanted in items if wanted), *(mask if "bias" in needs else ()))


def _by_heads(first: str, keys: str, *others: str) -> Callable[[Op, dict[str, Any], Collection[str]], Kept]:
    """Products by head, one for each head of `keys`: the heads of `first` that share one stand below each other."""

    def rule(op: Op, a: dict[str, Any], needs: Collection[str]) -> Kept:
        groups = a[keys].extent[-3]
        copied = {n for n in (first, keys, *others)
                  if viewed(a[n].laid, (prod(a[n].extent[:-3]) * groups, prod(a[n].extent[-3:-1]) // groups, a[n].extent[-1])) is None}
        return tuple(TensorType(a[i].dtype, a[i].shape) if i in copied else i for i in op.kept(a, needs))

    return rule


def _cross_entropy(op: Op, a: dict[str, Any], needs: Collection[str]) -> Kept:
    """Targets in a row: a copy where they do not lie so."""
    t = a["targets"]
    copied = viewed(t.laid, (prod(t.extent),)) is None
    return tuple(TensorType(t.dtype, t.shape) if k == "targets" and copied else k for k in op.kept(a, needs))


_RULES: dict[str, Callable[[Op, dict[str, Any], Collection[str]], Kept]] = {
    "linear": _linear, "matmul": _matmul, "einsum": _einsum, "attention": _attention,
    "attention_weights": _by_heads("q", "k"), "attend": _by_heads("weights", "v"),
    "cross_entropy": _cross_entropy,
}
