"""Which kernel computes an op of a step: chosen as for any op (`archdsl/kernels/bindings.py`), of what a call of its torch op is given."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.running import bound, run


def described(op: str, given: Sequence[Any]) -> tuple[list[str], list[Tensor | None], dict[str, Any]]:
    """The operands' names, the operands and the attributes of a call of the torch op `op` of ours, as `archdsl/kernels/decode.py` says."""
    names: list[str] = []
    tensors: list[Tensor | None] = []
    attributes: dict[str, Any] = {}
    for argument, x in zip(getattr(torch.ops.archdsl, op).default._schema.arguments, given):
        if "Tensor" not in str(argument.type):
            attributes[argument.name] = tuple(x) if isinstance(x, list) else x
            continue
        listed = isinstance(x, (list, tuple))
        names += [f"{argument.name}[{i}]" for i in range(len(x))] if listed else [argument.name]
        tensors += x if listed else [x]
    there = [(name, x) for name, x in zip(names, tensors) if x is not None]
    attributes["strided"] = tuple(name for name, x in there if x.dim() and x.shape[-1] > 1 and x.stride(-1) != 1)
    attributes["gaps"] = tuple(name for name, x in there if not x.is_contiguous())
    return names, tensors, attributes


def by_kernel(op: str, *given: Any) -> tuple[Any] | None:
    """(what the kernel of an op of a step gives,), None where plain torch computes it. Chosen when the op is called: a recording has the choice."""
    names, tensors, attributes = described(op, given)
    found = bound(op, names, tensors, attributes, None)
    return None if found is None else (run(found.forward, given, {}),)
