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
from archdsl.decoding import patterns as p
from archdsl.decoding.fuse_states import convolve, fuse_states
from archdsl.kernels.target import family

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

MOST = 6
"""Linear maps of one launch."""


def fuse(graph: fx.Graph, module: ArchModule) -> None:
    """Rewrites a graph of few rows in place. The result of every node that stays is what it was, but for the roundings between the joined ones. An op
    for which the model's target asks by name, the reference for all of them first of all, is left alone."""
    fuse_any(graph, module)
    if not p.asked(type(module).definition.target, "swiglu"):
        _gated(graph, module)
    _residual(graph)
    _together(graph, module)
    convolve(graph, module)
    graph.eliminate_dead_code(p.stays)


def fuse_any(graph: fx.Graph, module: ArchModule) -> None:
    """As `fuse`, of what does not depend on how many rows there are."""
    target = type(module).definition.target
    for node in graph.nodes:
        if target.asked(family(node.meta.get("op", ""))) is not None:
            node.meta[p.ASKED] = True
    if not p.asked(target, "rotary"):
        _turned(graph)
        _turned_by_attention(graph)
    fuse_states(graph, module)
    _normed(graph, module)


def _normed(graph: fx.Graph, module: nn.Module) -> None:
    """weight ⊙ norm(x) as one norm."""
    for node in list(graph.nodes):
        found = p.weighted(node)
        if found is not None:
            x, weight, eps, op = found
            args = (x, p.shape(module, weight), weight, eps) if op is F.rms_norm else (x, weight, eps)
            with graph.inserting_before(node):
                made = graph.call_function(op, args)
            made.meta.update(node.meta)
            node.replace_all_uses_with(made)
    graph.eliminate_dead_code(p.stays)


def _turned(graph: fx.Graph) -> None:
    """x cos + (-x₂, x₁) sin for one position, by tables in any shape that fits x."""
    for node in list(graph.nodes):
        products: list[Any] = [a for a in node.args if isinstance(a, fx.Node) and a.target is operator.mul and len(a.users) == 1]
        if node.target is not operator.add or len(products) != 2:
            continue
        (x, cos), (halves, sin) = (a.args for a in products)
        if not all(isinstance(v, fx.Node) for v in (x, cos, halves, sin)) or halves.target is not torch.cat or not _crossed(halves, x):
            continue
        with graph.inserting_before(node):
            made = p.call(graph, "decode_rotary", x, _uncast(graph, cos, x), _uncast(graph, sin, x))
        made.meta.update(node.meta)
        node.replace_all_uses_with(made)
    graph.eliminate_dead_code(p.stays)


def _turned_by_attention(graph: fx.Graph) -> None:
    """Queries and keys that nothing but attention reads are turned where it reads them."""
    for node in graph.nodes:
        if p.ours(node) != "decode_attention" or not all(p.ours(x) == "decode_rotary" and len(x.users) == 1 for x in node.args[:2]):
            continue
        (q, *of_q), (k, *of_k) = (x.args for x in node.args[:2])
        node.args = (q, k, *node.args[2:-1], [*of_q, *of_k])
    graph.eliminate_dead_code(p.stays)


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


def _gated(graph: fx.Graph, module: nn.Module) -> None:
    """p.act(x W₁ᵀ) ⊙ x W₂ᵀ."""
    for node in list(graph.nodes):
        whole = p.ours(node) == "swiglu"
        if not whole and node.target is not operator.mul or len(node.args) != 2:
            continue
        for first, second in (node.args,) if whole else (node.args, node.args[::-1]):
            act, up = ("silu", first) if whole else p.act(first), p.linear(second)
            gate = act and p.linear(act[1])
            if not (act and gate and up) or gate[0] is not up[0] or any(len(n.users) != 1 for n in (first, act[1], second)):
                continue
            if p.shape(module, gate[1])[0] != p.shape(module, up[1])[0]:
                continue
            x, norm, eps = p.source(up[0])
            with graph.inserting_before(node):
                made = p.call(graph, "decode_gated", x, [gate[1], up[1]], [gate[2], up[2]], norm, eps, act[0])
            node.replace_all_uses_with(made)
            break
    graph.eliminate_dead_code(p.stays)


def _together(graph: fx.Graph, module: nn.Module) -> None:
    """Linear maps of one x, at the place of the first: what they read is there. A lone one behind a norm takes the norm with it."""
    groups: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        found = p.linear(node)
        if found:
            groups[found[0]].append(node)
    for x, members in groups.items():
        source, norm, eps = p.source(x)
        for i in range(0, len(members), MOST):
            part = members[i:i + MOST]
            maps = [m for m in map(p.linear, part) if m is not None]
            if len(part) == 1 and norm is None:
                continue
            p.bring(part[0], [read for _, *reads in maps for read in reads if read is not None])  # weights are read where the first of them is
            with graph.inserting_before(part[0]):
                whole = p.call(graph, "decode_linears", source, [m[1] for m in maps], [m[2] for m in maps], norm, eps, "identity", None)
                at = 0
                for node, (_, weight, _bias) in zip(part, maps):
                    count = p.shape(module, weight)[0]
                    node.replace_all_uses_with(whole if len(part) == 1 else graph.call_method("narrow", (whole, -1, at, count)))
                    at += count
    graph.eliminate_dead_code(p.stays)


def _residual(graph: fx.Graph) -> None:
    """y + x Wᵀ of one shape, where the product has no other use."""
    for node in list(graph.nodes):
        if node.target is not operator.add or len(node.args) != 2 or p.ASKED in node.meta:
            continue
        for rest, product in (node.args, node.args[::-1]):
            found = p.linear(product)
            if found is None or not isinstance(rest, fx.Node) or len(product.users) != 1 or not _alike(rest, node):
                continue
            if len([n for n in found[0].users if p.linear(n)]) != 1:  # several maps of one x are computed together
                continue
            x, norm, eps = p.source(found[0])
            with graph.inserting_before(node):
                made = p.call(graph, "decode_linears", x, [found[1]], [found[2]], norm, eps, "identity", rest)
            made.meta.update(node.meta)
            node.replace_all_uses_with(made)
            break
    graph.eliminate_dead_code(p.stays)


def _alike(a: fx.Node, b: fx.Node) -> bool:
    """Whether two values are known to have one shape and type."""
    return a.meta.get("type") is not None and a.meta.get("type") == b.meta.get("type")
