# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportOptionalSubscript=false, reportAssignmentType=false
# (what a node is given may be a node, a number, a tuple of these; which it is follows from what the node calls)
"""Nodes of a lowered graph as what they compute, for those who compute several of them together."""
from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from archdsl.kernels.target import JOINED, Target

ASKED = "asked"
"""Marks a node whose kernel, or reference, is asked for by name."""
IN_PLACE = ("decode_attention", "decode_gla", "decode_ssd", "decode_conv", "decode_convolved")
"""Our ops that change an operand."""


def asked(target: Target, joined: str) -> bool:
    """Whether the target asks for an op that others are joined to, or for one of those."""
    return any(target.asked(op) is not None for op in (joined, *JOINED[joined]))


def stays(node: fx.Node) -> bool:
    """Whether a node is there for more than its result."""
    return node.op in ("placeholder", "output", "call_module") or ours(node) in IN_PLACE or (
        node.op == "call_method" and str(node.target).endswith("_"))


def call(graph: fx.Graph, name: str, *args: Any) -> fx.Node:
    return graph.call_function(getattr(torch.ops.archdsl, name).default, args)


def ours(x: fx.Node) -> str:
    """The op that a node calls as a torch op of ours, "" for none."""
    name = str(x.target)
    return name.removeprefix("archdsl.").removesuffix(".default").removesuffix("_unless_fused") if name.startswith("archdsl.") else ""


def linear(node: Any) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """(x, weight, bias) of a linear map whose weight is a parameter."""
    if not isinstance(node, fx.Node) or node.target is not F.linear or ASKED in node.meta:
        return None
    x, weight, *rest = node.args
    bias = rest[0] if rest else node.kwargs.get("bias")
    return (x, weight, bias) if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def norm(x: fx.Node) -> tuple[fx.Node, fx.Node, float] | None:
    """(what is normed, weight, eps) of an RMSNorm over one axis."""
    found = _rms_norm(x)
    return None if found is None or found[1] is None else (found[0], found[1], found[2])


def _plain_norm(x: fx.Node) -> tuple[fx.Node, float] | None:
    """As `norm`, of one without a weight."""
    found = _rms_norm(x)
    return None if found is None or found[1] is not None else (found[0], found[2])


def _rms_norm(x: fx.Node) -> tuple[fx.Node, fx.Node | None, float] | None:
    if ASKED in x.meta:
        return None
    if ours(x) == "rms_norm":
        return x.args[0], x.args[1], float(x.args[2])
    if x.target is not F.rms_norm:
        return None
    given: dict[str, Any] = dict(zip(("input", "normalized_shape", "weight", "eps"), x.args)) | dict(x.kwargs)
    eps = given.get("eps")
    return (given["input"], given.get("weight"), float(eps)) if eps is not None and len(given["normalized_shape"]) == 1 else None


def source(x: fx.Node) -> tuple[fx.Node, fx.Node | None, float]:
    """What stands in front of the norm of x: (input, weight of the norm, eps); x itself without one."""
    return norm(x) or (x, None, 0.0)


def weighted(x: fx.Node) -> tuple[fx.Node, fx.Node, float, Any] | None:
    """As `norm`, with the torch op of the norm, of weight ⊙ norm(x) whose norm, computed in float32, is of one group that holds the whole row."""
    if x.target is not operator.mul or len(x.args) != 2 or ASKED in x.meta:
        return None
    weight, y = x.args if getattr(x.args[0], "op", "") == "get_attr" else x.args[::-1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not is_cast(y):
        return None
    y = y.args[0]
    if y.target != "flatten" or y.args[1:] != (2, 3):
        return None
    inner = y.args[0]
    found = _plain_norm(inner)
    if found is None or found[0].target is not torch.unflatten or found[0].args[1] != 2 or found[0].args[2][0] != 1:
        return None
    x = found[0].args[0]
    return (x, weight, found[1], inner.target) if x.target == "flatten" and ours(x.args[0]) == "decode_ssd" else None


def act(node: Any) -> tuple[str, fx.Node] | None:
    """(name, operand) of an activation that the ops know."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or not node.args or ASKED in node.meta:
        return None
    approximate = node.kwargs.get("approximate", "none")
    named = {F.silu: "silu", F.relu: "relu", torch.relu: "relu", F.gelu: "gelu" if approximate == "none" else "gelu_tanh"}.get(node.target)
    return (named, node.args[0]) if named else None


def swiglu(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """(gate, x) of silu(gate) ⊙ x."""
    if ours(node) == "swiglu" and ASKED not in node.meta:
        return node.args[0], node.args[1]
    if node.target is not operator.mul or len(node.args) != 2:
        return None
    for first, second in (node.args, node.args[::-1]):
        found = act(first)
        if found is not None and found[0] == "silu" and isinstance(second, fx.Node) and len(first.users) == 1:
            return found[1], second
    return None


def is_cast(x: Any) -> bool:
    return isinstance(x, fx.Node) and x.op == "call_method" and x.target == "to"


def uncast(x: fx.Node) -> fx.Node:
    """A value before casts to float32, or to what is wider."""
    while is_cast(x) and len(x.args) == 2 and _wide(x.args[1], x.args[0]):
        x = x.args[0]
    return x


def _wide(dtype: Any, of: Any) -> bool:
    return isinstance(dtype, fx.Node) and dtype.target is torch.promote_types and dtype.args[1] == torch.float32 and (
        dtype.args[0].target is getattr and dtype.args[0].args == (of, "dtype"))


def dims(x: Any) -> int | None:
    """How many axes a value is known to have."""
    known = x.meta.get("type") if isinstance(x, fx.Node) else None
    return None if known is None else len(known.shape)


def shape(module: nn.Module, weight: fx.Node) -> tuple[int, ...]:
    """Of a weight: the same in all instances of a class."""
    scope, _, name = str(weight.target).rpartition(".")
    return tuple(getattr(module.get_submodule(scope), name).shape)


def bring(to: fx.Node, needed: list[fx.Node]) -> None:
    """Puts weights and inputs that are read behind a node in front of it."""
    order = {n: i for i, n in enumerate(to.graph.nodes)}
    for read in needed:
        if order[read] > order[to]:
            to.prepend(read)
