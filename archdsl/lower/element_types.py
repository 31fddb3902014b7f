"""What a failed call of a model says where an input has another element type than the model takes; sizes are told by misfits.py.

Nothing is looked at before the call: under autocast, in mixed precision and with weights that were cast one by one, more fits than a check of the
types could know. Where torch refuses the call, an input of another type is told as the cause.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from archdsl.graph import FLOATS, Value
from archdsl.ops.rules import torch_dtype

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

REFUSALS = (RuntimeError, IndexError)
"""What torch raises for a tensor of a type that an op does not take."""
OF_STATISTICS = "more than 1 value per channel"
"""What torch says, in a ValueError, where a batch norm in training has no two numbers."""
INDICES = (torch.int64, torch.int32)
LOW = (torch.float32, torch.bfloat16, torch.float16)
"""What ops take under autocast."""


def call(self: ArchModule, *args: Any, **kwargs: Any) -> Any:
    """`__call__` of a whole model. Raises ValueError for an input of an element type that it does not take, or too small for one of its ops, and
    on the CPU for targets that are no classes and for an index outside of a table (an IndexError as well); torch.OutOfMemoryError that says which
    block, what is kept, and what would help."""
    if torch.compiler.is_compiling():
        return nn.Module.__call__(self, *args, **kwargs)
    try:
        return nn.Module.__call__(self, *args, **kwargs)
    except (*REFUSALS, ValueError) as fault:
        if isinstance(fault, torch.OutOfMemoryError):
            from archdsl.lower.exhausted import OutOfMemory, exhausted
            from archdsl.lower.misfits import bound_sizes

            if isinstance(fault, OutOfMemory):  # of a model inside this one
                raise
            raise exhausted(self, fault, bound_sizes(self, args, kwargs), (*args, *kwargs.values())) from fault
        if isinstance(fault, ValueError) and OF_STATISTICS not in str(fault):
            raise
        told = _told(self, args, kwargs)
        if told is None:
            from archdsl.lower.misfits import misfit, wrong_target
            from archdsl.lower.outside import outside

            inputs = {name: x for name, _, x in _given(self, args, kwargs)}
            told = wrong_target(self, inputs)
            if told is None and (found := outside(self, args, kwargs, inputs.items(), fault)) is not None:
                raise found from fault
            told = told or misfit(type(self).definition.source, ((v, x) for _, v, x in _given(self, args, kwargs)), self.training)
        if told is None:
            raise
        raise ValueError(told) from fault


def _told(model: ArchModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The first input whose element type is another; None where there is none, and the fault is of another kind."""
    for name, v, x in _given(model, args, kwargs):
        kind = v.type.dtype
        taken, told = _taken(model, kind, x.device.type)
        if x.dtype not in taken:
            return f"the input `{name}` holds {told}: this one holds {x.dtype}"
    return None


def _given(model: ArchModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Value, torch.Tensor]]:
    """Name, declaration and tensor of the inputs; the state and the draws have checks of their own."""
    definition = type(model).definition
    inputs = definition.source.inputs
    inputs = inputs[:len(inputs) - len(definition.state)]
    for v, x in [*zip(inputs, args), *((v, kwargs.get(v.node.attrs["name"])) for v in inputs[len(args):])]:
        if isinstance(x, torch.Tensor):
            yield v.node.attrs["name"], v, x


def _taken(model: ArchModule, kind: str, device: str) -> tuple[tuple[torch.dtype, ...], str]:
    """The element types that an input may have, and these in words."""
    if kind == "int":
        return INDICES, f"whole numbers, {torch.int64}"
    weights = tuple(dict.fromkeys(p.dtype for p in model.parameters() if p.is_floating_point()))
    built = getattr(torch, type(model).definition.dtype)
    if kind not in FLOATS:
        return (torch_dtype(kind, built),), str(torch_dtype(kind, built))
    low = LOW if torch.is_autocast_enabled(device) else ()
    if kind != "float":
        return (*low, *(torch_dtype(kind, d) for d in weights or (built,))), str(torch_dtype(kind, (weights or (built,))[0]))
    told = f"{' or '.join(map(str, weights))}, as the weights do" if weights else str(built)
    return (*low, *(weights or (built,))), told
