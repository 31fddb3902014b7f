"""flash-linear-attention's kernels (the package `flash-linear-attention`, 0.6), for those who ask for them by name: measured beside ours on Hopper
cards they are slower, and each tunes itself for minutes when it is first called. What it refuses itself is refused here, with the reason."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from archdsl.kernels.bindings import Types, fixed, kernel
from archdsl.kernels.gated import _alike, _many

ROWS = 256
"""The most columns of keys that its delta rule takes."""


def _gla(types: Types, attributes: Mapping[str, Any]) -> str | None:
    if types["decay"] is None or types["value_decay"] is not None:
        return "flash-linear-attention has gates by row alone: `decay`, and no `value_decay`"
    if attributes.get("before"):
        return "flash-linear-attention reads the memory behind its own position alone, not `before` it"
    return _alike(types, "q", "k", "v") or _many(types, "q")


def _delta(types: Types, attributes: Mapping[str, Any]) -> str | None:
    if types["decay"] is not None:
        return "flash-linear-attention refuses the gradients of gated delta rules on Hopper cards with Triton 3.4 to 3.7.0"
    keys = types["k"]
    assert keys is not None
    wide = fixed(keys.shape[-1])
    if wide is not None and wide > ROWS:
        return f"k is {wide} wide, and flash-linear-attention takes {ROWS} at most"
    return _alike(types, "q", "k", "v") or _many(types, "q")


def _called(function: Callable[..., Any], given: tuple[Any, ...], memory: Any, scale: float) -> tuple[Any, Any]:
    """y, [..., T, e], and the last memory, of a function of [B, T, heads, …] that takes the scale and the first memory."""
    lead, v = given[0].shape[:-2], given[2]
    sizes = lead if len(lead) == 2 else (1, lead.numel())
    turned = [x.reshape(*sizes, *x.shape[len(lead):]).transpose(1, 2) for x in given]
    first = None if memory is None else memory.reshape(*sizes, *memory.shape[-2:])
    y, last = function(*turned, scale=scale, initial_state=first, output_final_state=True)
    return y.transpose(1, 2).reshape(v.shape), last.reshape(*lead, *last.shape[-2:])


def _pulled(forward: Callable[..., Any], dy: Any, later: Any, *given: Any, **attributes: Any) -> tuple[Any, ...]:
    """Gradients by its own autograd functions, run once more. A torch op is called with autograd shut out, which is let in here."""
    import torch

    key: Any = torch._C.DispatchKey.AutogradFunctionality  # type: ignore[attr-defined]
    with torch._C._SetExcludeDispatchKeyGuard(key, False), torch.enable_grad():  # type: ignore[attr-defined]
        leaves = [None if x is None else x.detach().requires_grad_() for x in given]
        pairs = [(y, g) for y, g in zip(forward(*leaves, **attributes), (dy, later)) if g is not None]
        found = iter(torch.autograd.grad([y for y, _ in pairs], [x for x in leaves if x is not None], [g for _, g in pairs], allow_unused=True))
    return tuple(None if x is None else next(found) for x in leaves)


@kernel("gla", "fla", dtypes=("bf16", "f16"), needs=("fla", "triton"), fits=_gla, by_name=True)
class Gla:
    """flash-linear-attention's `chunk_gla`."""

    @staticmethod
    def forward(q: Any, k: Any, v: Any, decay: Any, value_decay: Any, memory: Any, *, scale: float = 1, before: bool = False) -> tuple[Any, Any]:
        from fla.ops.gla import chunk_gla  # pyright: ignore[reportMissingImports]

        return _called(chunk_gla, (q, k, v, decay), memory, scale)

    @staticmethod
    def gradient(*given: Any, **attributes: Any) -> tuple[Any, ...]:
        return _pulled(Gla.forward, *given, **attributes)


@kernel("delta_rule", "fla", dtypes=("bf16", "f16"), needs=("fla", "triton"), fits=_delta, by_name=True)
class DeltaRule:
    """flash-linear-attention's `chunk_delta_rule`."""

    @staticmethod
    def forward(q: Any, k: Any, v: Any, beta: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, Any]:
        from fla.ops.delta_rule import chunk_delta_rule  # pyright: ignore[reportMissingImports]

        return _called(chunk_delta_rule, (q, k, v, beta), memory, scale)

    @staticmethod
    def gradient(*given: Any, **attributes: Any) -> tuple[Any, ...]:
        return _pulled(DeltaRule.forward, *given, **attributes)
