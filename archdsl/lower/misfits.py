"""What a failed call of a model says where a size is too small for an op: a kernel larger than its map, statistics of one number.

Sizes at run time are not checked before the call: each op has checked them as formulas, and torch refuses what they come to. Then the rules of the
ops are asked once more, with the numbers of this call.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import torch

from archdsl.dims import Dim, NotInteger, evaluate
from archdsl.elaborate.ops import parameters
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.lower.losses import TARGETS
from archdsl.ops.losses import IGNORE
from archdsl.ops.registry import OpError, find
from archdsl.source import Span


def misfit(graph: Graph, inputs: Iterable[tuple[Value, torch.Tensor]], training: bool) -> str | None:
    """The first op that cannot work on inputs of these shapes, and why; None where each can."""
    sizes = {name: n for v, x in inputs for name, n in _bound(v.type, tuple(x.shape)).items()}
    try:
        return _first(graph, sizes, training, "", graph.span)
    except (KeyError, NotInteger):  # a size that no input has
        return None


def bound_sizes(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, int]:
    """The run-time sizes that the inputs of a call of a whole model tell."""
    inputs = type(model).definition.source.inputs
    given = [*zip(inputs, args), *((v, kwargs.get(v.node.attrs["name"])) for v in inputs[len(args):])]
    return {name: n for v, x in given if isinstance(x, torch.Tensor) for name, n in _bound(v.type, tuple(x.shape)).items()}


def wrong_target(model: Any, inputs: Mapping[str, torch.Tensor]) -> str | None:
    """The first target on the CPU that is no class of a model that ends in its loss; None where there is none."""
    targets, classes = inputs.get(TARGETS), model.__dict__["_typed"].outputs[0].shape[-1] if model.__dict__.get("_loss") else None
    if targets is None or not isinstance(classes, int) or targets.device.type != "cpu":
        return None
    wrong = targets[(targets != IGNORE) & ((targets < 0) | (targets >= classes))]
    return f"`{TARGETS}` holds {int(wrong[0])}: it holds classes, 0 to {classes - 1}, and {IGNORE} where nothing is asked" if wrong.numel() else None


def _bound(formal: TensorType, shape: tuple[int, ...]) -> dict[str, int]:
    return {str(own): n for own, n in zip(formal.shape, shape) if isinstance(own, Dim) and str(own) in own.symbols}


def _first(graph: Graph, sizes: Mapping[str, int], training: bool, path: str, span: Span) -> str | None:
    for node in graph.nodes:
        at = span if node.span.source.module.startswith("std.") else node.span
        if node.op == "call":
            inner: Graph = node.attrs["graph"]
            own = {k: n for formal, v in zip(inner.inputs, node.args) if isinstance(v, Value)
                   for k, n in _bound(formal.type, _numbers(v.type, sizes).shape).items()}  # type: ignore[arg-type]
            told = _first(inner, {**sizes, **own}, training, ".".join(p for p in (path, node.attrs["path"]) if p), at)
            if told is not None:
                return told
        elif (why := _refusal(node, sizes, training)) is not None:
            line, _ = at.source.position(at.start)
            where = f", at `{path}`" if path else ""
            return f"`{node.op}` does not fit these inputs: {why} ({at.source.path}:{line}{where})"
    return None


def _refusal(node: Node, sizes: Mapping[str, int], training: bool) -> str | None:
    rule = find(node.op)
    if rule is None or rule.infer is None:
        return None
    operands = iter(node.args)
    given = {p.name: _numbers(next(operands, None) if p.operand else node.attrs[p.name], sizes) for p in parameters(node.op)}
    try:
        rule.infer(**given)
    except OpError as fault:
        return "; ".join(filter(None, (fault.message, fault.help)))
    if training and node.op == "batch_norm" and prod(given["x"].shape) == given["x"].shape[1]:
        return "in training it needs more than one number of each channel, for their variance; give a larger batch or map, or call `.eval()`"
    return None


def _numbers(value: Any, sizes: Mapping[str, int]) -> Any:
    """A value with the numbers of this call for sizes, and the type for a tensor."""
    if isinstance(value, Value):
        value = value.type
    if isinstance(value, TensorType):
        return TensorType(value.dtype, tuple(evaluate(s, sizes) for s in value.shape))
    if isinstance(value, Dim):
        return evaluate(value, sizes)
    return tuple(_numbers(v, sizes) for v in value) if type(value) is tuple else value
