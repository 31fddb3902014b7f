"""What a step of few rows computes together: linear maps of one input, with the norm in front and the activation, gate or residual behind.

Reading the weights is what such a step costs, so all that stands between two readings is done along with one of them.
"""
from __future__ import annotations

import operator
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from archdsl.decoding import ops as _ops  # noqa: F401  (registers the torch ops)
from archdsl.kernels.target import JOINED, Target

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

MOST = 3
"""Linear maps of one launch."""
ASKED = "asked"
"""Marks a node whose kernel, or reference, is asked for by name."""


def fuse(graph: fx.Graph, module: ArchModule) -> None:
    """Rewrites a graph in place. The result of every node that stays is what it was, but for the roundings between the joined ones. An op for which
    the model's target asks by name, the reference for all of them first of all, is left alone."""
    target = type(module).definition.target
    fuse_rotary(graph, module)
    for node in graph.nodes:
        if target.asked(node.meta.get("op", "")) is not None:
            node.meta[ASKED] = True
    if not _asked(target, "swiglu"):
        _gated(graph, module)
    _together(graph, module)
    _residual(graph)
    graph.eliminate_dead_code(_stays)


def fuse_rotary(graph: fx.Graph, module: ArchModule) -> None:
    """As `fuse`, of what does not depend on how many rows there are."""
    if not _asked(type(module).definition.target, "rotary"):
        _turned(graph)


def _asked(target: Target, joined: str) -> bool:
    """Whether the target asks for an op that others are joined to, or for one of those."""
    return any(target.asked(op) is not None for op in (joined, *JOINED[joined]))


def _stays(node: fx.Node) -> bool:
    """Whether a node is there for more than its result."""
    return node.op in ("placeholder", "output", "call_module") or str(node.target).rpartition(".")[0].endswith("decode_attention") or (
        node.op == "call_method" and str(node.target).endswith("_"))


def _call(graph: fx.Graph, name: str, *args: Any) -> fx.Node:
    return graph.call_function(getattr(torch.ops.archdsl, name).default, args)


def _linear(node: Any) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """(x, weight, bias) of a linear map whose weight is a parameter."""
    if not isinstance(node, fx.Node) or node.target is not F.linear or ASKED in node.meta:
        return None
    x, weight, *rest = node.args
    bias = rest[0] if rest else node.kwargs.get("bias")
    return (x, weight, bias) if isinstance(weight, fx.Node) and weight.op == "get_attr" else None  # type: ignore[return-value]


def _ours(x: fx.Node) -> str:
    """The op that a node calls as a torch op of ours, "" for none."""
    return str(x.target).removeprefix("archdsl.").removesuffix("_unless_fused") if str(x.target).startswith("archdsl.") else ""


def _norm(x: fx.Node) -> tuple[fx.Node, fx.Node, float] | None:
    """(what is normed, weight, eps) of an RMSNorm over one axis."""
    if ASKED in x.meta:
        return None
    if _ours(x) == "rms_norm":
        source, weight, eps = x.args
        return None if weight is None else (source, weight, float(eps))  # type: ignore[return-value, arg-type]
    if x.target is not F.rms_norm:
        return None
    given: dict[str, Any] = dict(zip(("input", "normalized_shape", "weight", "eps"), x.args)) | dict(x.kwargs)
    weight, eps = given.get("weight"), given.get("eps")
    return (given["input"], weight, float(eps)) if weight is not None and eps is not None and len(given["normalized_shape"]) == 1 else None


def _act(node: Any) -> tuple[str, fx.Node] | None:
    """(name, operand) of an activation that the ops know."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or not node.args or ASKED in node.meta:
        return None
    approximate = node.kwargs.get("approximate", "none")
    named = {F.silu: "silu", F.relu: "relu", torch.relu: "relu", F.gelu: "gelu" if approximate == "none" else "gelu_tanh"}.get(node.target)
    return (named, node.args[0]) if named else None  # type: ignore[return-value]


def _source(x: fx.Node) -> tuple[fx.Node, fx.Node | None, float]:
    """What stands in front of the norm of x: (input, weight of the norm, eps); x itself without one."""
    return _norm(x) or (x, None, 0.0)


def _turned(graph: fx.Graph) -> None:
    """x cos + (-x₂, x₁) sin for one position, by tables in any shape that fits x."""
    for node in list(graph.nodes):
        products: list[Any] = [a for a in node.args if isinstance(a, fx.Node) and a.target is operator.mul and len(a.users) == 1]
        if node.target is not operator.add or len(products) != 2:
            continue
        (x, cos), (halves, sin) = (p.args for p in products)
        if not all(isinstance(v, fx.Node) for v in (x, cos, halves, sin)) or halves.target is not torch.cat or not _crossed(halves, x):
            continue
        with graph.inserting_before(node):
            made = _call(graph, "decode_rotary", x, _uncast(graph, cos, x), _uncast(graph, sin, x))
        made.meta.update(node.meta)
        node.replace_all_uses_with(made)
    graph.eliminate_dead_code(_stays)


def _crossed(halves: Any, x: fx.Node) -> bool:
    """Whether a node is (-x₂, x₁), the halves of the last axis of x, of which it is known that one position is there."""
    known, parts = x.meta.get("type"), halves.args[0]
    axis = halves.args[1] if len(halves.args) > 1 else halves.kwargs.get("dim", 0)
    if known is None or len(known.shape) != 4 or known.shape[2] != 1 or axis not in (-1, 3) or len(parts) != 2:
        return False
    far, near = parts
    if far.target is not operator.neg or far.args[0].target is not operator.getitem or near.target is not operator.getitem:
        return False
    half, whole = known.shape[3] // 2, (slice(None), slice(None), slice(None))
    return far.args[0].args == (x, (*whole, slice(half, None, None))) and near.args == (x, (*whole, slice(None, half, None)))


def _uncast(graph: fx.Graph, table: Any, x: fx.Node) -> fx.Node:
    """A table before it was cast to the type of x: the op casts."""
    inner, items = table.args if table.target is operator.getitem else (table, None)
    if inner.op != "call_method" or inner.target != "to" or len(inner.args) != 2:
        return table
    source, dtype = inner.args
    if not (isinstance(dtype, fx.Node) and dtype.target is getattr and dtype.args == (x, "dtype")):
        return table
    return source if items is None else graph.call_function(operator.getitem, (source, items))


def _count(module: nn.Module, weight: fx.Node) -> int:
    """The rows of a weight: the same in all instances of a class."""
    scope, _, name = str(weight.target).rpartition(".")
    return getattr(module.get_submodule(scope), name).shape[0]


def _gated(graph: fx.Graph, module: nn.Module) -> None:
    """act(x W₁ᵀ) ⊙ x W₂ᵀ."""
    for node in list(graph.nodes):
        whole = _ours(node) == "swiglu"
        if not whole and node.target is not operator.mul or len(node.args) != 2:
            continue
        for first, second in (node.args,) if whole else (node.args, node.args[::-1]):
            act, up = ("silu", first) if whole else _act(first), _linear(second)
            gate = act and _linear(act[1])
            if not (act and gate and up) or gate[0] is not up[0] or any(len(n.users) != 1 for n in (first, act[1], second)):
                continue
            if _count(module, gate[1]) != _count(module, up[1]):
                continue
            x, norm, eps = _source(up[0])
            with graph.inserting_before(node):
                made = _call(graph, "decode_gated", x, [gate[1], up[1]], [gate[2], up[2]], norm, eps, act[0])
            node.replace_all_uses_with(made)
            break
    graph.eliminate_dead_code(_stays)


def _together(graph: fx.Graph, module: nn.Module) -> None:
    """Linear maps of one x, at the place of the first: what they read is there. A lone one behind a norm takes the norm with it."""
    groups: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    order = {n: i for i, n in enumerate(graph.nodes)}
    for node in graph.nodes:
        found = _linear(node)
        if found:
            groups[found[0]].append(node)
    for x, members in groups.items():
        source, norm, eps = _source(x)
        for i in range(0, len(members), MOST):
            part = members[i:i + MOST]
            maps = [m for m in map(_linear, part) if m is not None]
            if len(part) == 1 and norm is None:
                continue
            for _, weight, bias in maps:  # weights are read where the first of them is
                for read in (weight, bias):
                    if read is not None and order[read] > order[part[0]]:
                        part[0].prepend(read)
            with graph.inserting_before(part[0]):
                whole = _call(graph, "decode_linears", source, [m[1] for m in maps], [m[2] for m in maps], norm, eps, "identity", None)
                at = 0
                for node, (_, weight, _bias) in zip(part, maps):
                    count = _count(module, weight)
                    node.replace_all_uses_with(whole if len(part) == 1 else graph.call_method("narrow", (whole, -1, at, count)))
                    at += count
    graph.eliminate_dead_code(_stays)


def _residual(graph: fx.Graph) -> None:
    """y + x Wᵀ of one shape, where the product has no other use."""
    for node in list(graph.nodes):
        if node.target is not operator.add or len(node.args) != 2 or ASKED in node.meta:
            continue
        for rest, product in (node.args, node.args[::-1]):
            found = _linear(product)
            if found is None or not isinstance(rest, fx.Node) or len(product.users) != 1 or not _alike(rest, node):
                continue
            with graph.inserting_before(node):
                made = _call(graph, "decode_linears", found[0], [found[1]], [found[2]], None, 0.0, "identity", rest)
            made.meta.update(node.meta)
            node.replace_all_uses_with(made)
            break
    graph.eliminate_dead_code(_stays)


def _alike(a: fx.Node, b: fx.Node) -> bool:
    """Whether two values are known to have one shape and type."""
    return a.meta.get("type") is not None and a.meta.get("type") == b.meta.get("type")
