"""The choice of a kernel for tensors, when an op is called."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any

from archdsl.graph import TensorType
from archdsl.kernels import bindings as b
from archdsl.lazy import torch


def bound(op: str, names: Iterable[str], tensors: Iterable[Any], attributes: dict[str, Any], asked: str | None) -> b.Binding | None:
    """The kernel for these operands and states, None for the reference. Raises KernelError for one that was asked for and cannot be used."""
    if not b.bindings(op):
        return None
    given = tuple((name, None if x is None else (x.dtype, tuple(x.shape))) for name, x in zip(names, tensors, strict=True))
    first = next(x for x in tensors if x is not None)
    return _choose(op, first.device, given, tuple(attributes.items()), asked, (b.VERSION, b.interpreted()))


def named(names: Iterable[str], tensors: Iterable[Any]) -> dict[str, TensorType | None]:
    """Operands as `choose` takes them."""
    return {name: None if x is None else TensorType(_name(x.dtype), tuple(x.shape)) for name, x in zip(names, tensors, strict=True)}


@lru_cache(4096)
def _choose(op: str, device: Any, given: tuple[Any, ...], attributes: tuple[tuple[str, Any], ...], asked: str | None,
            state: tuple[int, bool]) -> b.Binding | None:
    """`state`: what of this process the choice depends on besides, which changes what is kept."""
    types = {name: None if x is None else TensorType(_name(x[0]), x[1]) for name, x in given}
    dtype = next(t.dtype for t in types.values() if t is not None)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return b.choose(op, device.type, dtype, types, dict(attributes), asked=asked, capability=capability).binding


def run(call: Callable[..., Any], tensors: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """Calls a kernel where its first operand lies: Triton launches on the current card. Raises KernelError where the card has too little of
    something for it, such as shared memory: Triton tells when it is first launched."""
    device = next(x for x in tensors if x is not None).device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        try:
            return call(*tensors, **attributes)
        except Exception as fault:
            short = _short_of(fault)
            if short is None:
                raise
            owner = b.owner(call)
            name = "a kernel" if owner is None else f"the kernel `{owner.name}` of `{owner.op}`"
            instead = "" if owner is None or not owner.of else f'; `kernels = {{"{owner.of}": "{b.REFERENCE}"}}` takes plain torch instead'
            raise b.KernelError(f"{name} cannot be used here: {short}{instead}") from fault


def _short_of(fault: Any) -> str | None:
    """What a launch wanted more of than the card has, where that is the fault: Triton is there then, and loaded."""
    import sys

    known: Any = sys.modules.get("triton.runtime.errors")
    if known is None or not isinstance(fault, known.OutOfResources):
        return None
    return f"it needs {fault.required:,} of {fault.name}, and this card has {fault.limit:,}"


@cache
def _name(dtype: Any) -> str:
    """As the language names it; torch's own name where it does not."""
    from archdsl.ops.rules import DTYPES

    plain = str(dtype).removeprefix("torch.")
    return next((name for name, known in DTYPES.items() if known == plain), plain)
