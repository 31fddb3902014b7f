"""Kernels when a model is built: which body an op is lowered to for its target."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.ops import parameters
from archdsl.graph import Node, TensorType, Value
from archdsl.kernels.bindings import REFERENCE, KernelError, bindings, choose
from archdsl.kernels.target import Target
from archdsl.ops.registry import Op


def body_for(node: Node, op: Op, target: Target, dtype: str, written: bool = False) -> Callable[..., Any]:
    """The body that computes a node of the graph. A recurrence calls its torch op, which chooses when it is called; it is told what is asked for,
    and that a step of one position is to call it too where a kernel has one. Any other op becomes a torch op where a kernel takes it. `dtype`: of the
    build, as the language names it. `written`: for a text that needs torch alone, in which no such op is one of ours. Raises ArchError A0519 for a
    kernel that is asked for and cannot be used."""
    if target.caches and "late" not in node.attrs and "ahead" not in node.attrs:  # no text is made by what looks ahead
        from archdsl.decoding import bodies

        own = getattr(bodies, f"{op.name}_{target.caches}", None)
        if own is not None:
            plain = own is bodies.attention_extend_in_place and REFERENCE in (target.asked("attention"), target.asked(op.name))
            return partial(own, plain=True) if plain else own
    name = op.form_of or op.name
    if target.plain or not bindings(name):
        return op.body
    asked, types = target.asked(name), operand_types(node, dtype)
    if target.device == "cpu" and asked is None:  # left to torch, in whose place kernels stand at run time (`archdsl/kernels/eager.py`)
        return op.body
    first = next(t for t in types.values() if t is not None)
    try:
        found = choose(name, target.device, first.dtype, types, node.attrs, asked=asked)
    except KernelError as fault:
        taken = choose(name, target.device, first.dtype, types, node.attrs).name
        raise error("A0519", str(fault), node.span, f"`{asked}` is asked for", help=f"build for the device and the types that it takes, or leave the "
                    f"choice, which is `{taken}` here: `kernels = {{\"{name}\": \"auto\"}}`") from None
    if op.form_of:
        steps = found.binding is not None and found.binding.step is not None
        return partial(op.body, kernel=asked or "auto") if asked or steps else op.body
    if found.binding is None or asked == REFERENCE or written:
        return op.body
    if found.binding.inline is not None:
        return found.binding.inline
    from archdsl.kernels.opaque import called

    return called(name, asked, found.binding.fuses)


def operand_types(node: Node, dtype: str) -> dict[str, TensorType | None]:
    """The types of a node's operands by name, the model's own float type as `dtype`."""
    names = [p.name for p in parameters(node.op) if p.operand]
    return {name: _concrete(a.type, dtype) if isinstance(a, Value) else None for name, a in zip(names, node.args)}


def _concrete(t: TensorType, dtype: str) -> TensorType:
    return TensorType(dtype, t.shape) if t.dtype == "float" else t
