"""Kernels of the memories of key-value pairs, and of the short convolution in front of them."""
from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from archdsl.kernels.bindings import Types, fixed, kernel, later

DTYPES = ("bf16", "f32")
TAPS, NUMBERS, SEQUENCES, GATED_ROWS = 32, 256, 65535, 512
"""The most taps of a convolution, numbers of a channel's state, sequences or chunks (a launch's second and third axes take no more), and rows of a
memory with gates of their own in 16 bits: half as many in float32."""


def _many(types: Types, name: str) -> str | None:
    """More sequences, heads counted, or positions than a launch has room for."""
    first = types[name]
    assert first is not None
    count, positions = prod(n for n in first.shape[:-2] if isinstance(n, int)), fixed(first.shape[-2])
    if positions is not None and positions > SEQUENCES * 16:
        return f"there are {positions} positions, and {SEQUENCES * 16} are the most"
    return f"there are {count} sequences, and {SEQUENCES} are the most" if count > SEQUENCES else None


def _alike(types: Types, *names: str) -> str | None:
    """Products want their operands in one dtype."""
    found = {n: t.dtype for n in names if (t := types[n]) is not None}
    return None if len(set(found.values())) == 1 else ", ".join(f"{n} is {d}" for n, d in found.items()) + ": they have to be of one dtype"


def _step(name: str, state: str) -> Any:
    """Fits one position alone, from a state."""
    def fits(types: Types, attributes: Mapping[str, Any]) -> str | None:
        first = types[name]
        one = first is not None and fixed(first.shape[-2]) == 1 and types.get(state) is not None
        return _many(types, name) if one else "it computes one position, from a state"

    return fits


def _gla(types: Types, attributes: Mapping[str, Any]) -> str | None:
    if types["value_decay"] is not None and types["decay"] is not None:
        return "it takes `decay` or `value_decay`, and these are both"
    if types["value_decay"] is None and types["decay"] is None:
        return "without gates it is linear attention"
    q, operand = types["q"], "k" if types["value_decay"] is None else "v"
    assert q is not None
    gated, most = types[operand], GATED_ROWS if q.dtype != "f32" else GATED_ROWS // 2
    assert gated is not None
    wide = fixed(gated.shape[-1])
    if wide is not None and wide > most:
        return f"{operand} is {wide} wide, and it holds memories of at most {most} gated rows"
    return _alike(types, "q", "k", "v") or _many(types, "q")


def _delta(types: Types, attributes: Mapping[str, Any]) -> str | None:
    keys = types["k"]
    assert keys is not None
    wide = fixed(keys.shape[-1])
    if wide is not None and wide > 256:
        return f"k is {wide} wide, and it holds memories of at most 256 rows"
    return _alike(types, *(n for n in ("q", "k", "v", "a", "b") if n in types)) or _many(types, "q")


def _conv(types: Types, attributes: Mapping[str, Any]) -> str | None:
    weight = types["weight"]
    assert weight is not None
    taps = fixed(weight.shape[-1])
    return f"it has {taps} taps, and {TAPS} are the most" if taps is not None and taps > TAPS else _many(types, "x")


def _scan(types: Types, attributes: Mapping[str, Any]) -> str | None:
    rates = types["a"]
    assert rates is not None
    numbers = fixed(rates.shape[-1])
    return f"a has {numbers} numbers a channel, and {NUMBERS} are the most" if numbers is not None and numbers > NUMBERS else _many(types, "x")


@kernel("gla", "triton", dtypes=DTYPES, fits=_gla)
class Gla:
    """Gates by row or by column, chunks of 64 positions by products of matrices; a position alone reads and writes its memory once. Memories between
    chunks are kept in the dtype of the operands."""

    forward = later("gla_along", "forward")
    gradient = later("gla_along", "gradient")
    step = later("steps", "gla")


@kernel("gla", "triton_step", dtypes=("bf16", "f16", "f32"), fits=_step("q", "memory"))
class GlaStep:
    """One position, with gates by row, by column, both or none: it reads and writes its memory once."""

    forward = step = later("steps", "gla")


@kernel("delta_rule", "triton", dtypes=DTYPES, fits=_delta)
class DeltaRule:
    """Chunks of 64 positions by products of matrices and one triangular inverse (the WY form); a position alone reads and writes its memory once.
    Memories between chunks are kept in the dtype of the operands."""

    forward = later("delta", "forward")
    gradient = later("delta_backward", "gradient")
    step = later("steps", "delta_rule")


@kernel("causal_conv", "triton", dtypes=("bf16", "f16", "f32"), fits=_conv)
class CausalConv:
    """Each number read once and written once, forwards; the gradients of the taps in spans of positions, added up in float32."""

    forward = later("causal_conv", "forward")
    gradient = later("causal_conv", "gradient")
    step = later("causal_conv", "step")


@kernel("dplr_delta_rule", "triton", dtypes=DTYPES, fits=_delta)
class DplrDeltaRule:
    """Chunks of 64 positions: one triangular inverse, and gated linear attention of two pairs at each position; a position alone reads and writes its
    memory once. Memories between chunks are kept in the dtype of the operands."""

    forward = later("dplr", "forward")
    gradient = later("dplr", "gradient")
    step = later("steps", "dplr_delta_rule")


@kernel("selective_scan", "triton", dtypes=("bf16", "f16", "f32"), fits=_scan)
class SelectiveScan:
    """Chunks of 16 positions, a scan of each in registers; a position alone reads and writes its memory once. States are float32."""

    forward = later("selective_scan", "forward")
    gradient = later("selective_scan", "gradient")
    step = later("steps", "selective_scan")


@kernel("wkv", "triton_step", dtypes=("bf16", "f16", "f32"), fits=_step("k", "peak"))
class WkvStep:
    """One position of RWKV-4's mean of the values: operands and states are read and written once."""

    forward = step = later("steps", "wkv")


@kernel("prefix_attention", "triton_step", dtypes=("bf16", "f16", "f32"), fits=_step("v", "peak"))
class PrefixAttentionStep:
    """One position of attention as a prefix scan: operands and states are read and written once."""

    forward = step = later("steps", "prefix_attention")
