"""Kernels of a recorded step: what each torch op of `archdsl/decoding/` is computed by, and what that takes.

Operands and attributes are named as in the op's schema, those of a list `weights[0]`, `weights[1]`, …. Two attributes say how operands lie:
`strided`, the names of those whose last axis is not in order in memory, and `gaps`, of those that are not contiguous. `of`: the op of a model in
whose place one stands; where a kernel of that op, or the reference, is asked for by name, none does."""
from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from archdsl.kernels.bindings import Types, kernel, later
from archdsl.kernels.gated import SEQUENCES, TAPS, _alike
from archdsl.kernels.rows import WIDEST

DTYPES = ("bf16", "f16", "f32")
ROWS = 4
"""The most rows of x of a product."""
HEAD = 256
"""The widest head of attention that a program holds."""
MEMORY = 512
"""Rows of a memory, or numbers of a state, that a program holds."""
CONVOLVED = ("identity", "silu")
"""Activations behind a convolution by itself."""
Given = Mapping[str, Any]


def _shape(types: Types, name: str) -> tuple[int, ...]:
    found = types[name]
    assert found is not None
    return found.shape  # pyright: ignore[reportReturnType]  (of tensors that are there: all sizes are numbers)


def _floats(types: Types, *names: str) -> str | None:
    other = next(((n, t.dtype) for n in names if (t := types[n]) is not None and t.dtype not in DTYPES), None)
    return None if other is None else f"{other[0]} is {other[1]}, and it takes bf16, f16 or f32"


def _in_place(types: Types, given: Given, state: str) -> str | None:
    return f"{state} has gaps in memory, and it changes one without" if state in given["gaps"] else _floats(types, state)


# ---------------------------------------------------------------- attention
def _attention(types: Types, given: Given) -> str | None:
    if len(_shape(types, "q")) != 4:
        return f"it takes heads [B, heads, 1, w], and q has {len(_shape(types, 'q'))} axes"
    wide = max(_shape(types, "q")[-1], _shape(types, "values")[-1])
    if wide > HEAD:
        return f"heads are {wide} wide, and it holds at most {HEAD}"
    strided = next((n for n in ("keys", "values") if n in given["strided"]), None)
    return f"the rows of {strided} have gaps in memory" if strided is not None else _alike(types, "q", "keys", "values")


@kernel("decode_attention", "triton", dtypes=DTYPES, fits=_attention)
class Attention:
    """Split along the cache, into which the new position is written; queries and keys are turned where they are read."""

    of = "attention"
    forward = later("decode_attention", "attend")


def _heads(types: Types, given: Given) -> str | None:
    axes = len(_shape(types, "x"))
    return None if axes == 4 else f"it takes heads [B, heads, 1, w], and x has {axes} axes"


@kernel("decode_rotary", "triton", dtypes=DTYPES, fits=_heads)
class Rotary:
    """Heads of one position, turned by tables of any shape that fits them."""

    of = "rotary"
    forward = later("decode_attention", "turn")


# ---------------------------------------------------------------- linear maps
def _few_rows(types: Types, given: Given) -> str | None:
    rows, weights = prod(_shape(types, "x")[:-1]), [n for n in types if n.partition("[")[0] in ("weight", "weights")]
    if rows > ROWS:
        return f"x has {rows} rows, and {ROWS} are the most"
    strided = next((n for n in weights if n in given["strided"]), None)
    return f"the rows of {strided} have gaps in memory" if strided is not None else _alike(types, "x", *weights)


@kernel("decode_linears", "triton", dtypes=DTYPES, fits=_few_rows)
class Linears:
    """Weights of one x in one launch, each read once, with the norm in front and the activation or residual behind."""

    of = "linear"
    forward = later("gemv", "linears")


@kernel("decode_gated", "triton", dtypes=DTYPES, fits=_few_rows)
class Gated:
    """As that of `decode_linears`, the activation of one product times the other."""

    of = "linear"
    forward = later("gemv", "gated")


def _few_rows_convolved(types: Types, given: Given) -> str | None:
    return _few_taps(types) or _in_place(types, given, "tail") or _few_rows(types, given)


def _few_taps(types: Types) -> str | None:
    taps = _shape(types, "taps")[-1]
    return f"it has {taps} taps, and {TAPS} are the most" if taps > TAPS else None


@kernel("decode_convolved", "triton", dtypes=DTYPES, fits=_few_rows_convolved)
class Convolved:
    """As that of `decode_linears`, with a short convolution of some columns behind."""

    of = "causal_conv"
    forward = later("gemv", "convolved")


# ---------------------------------------------------------------- recurrences
def _memory(wide: str, *operands: str) -> Any:
    def fits(types: Types, given: Given) -> str | None:
        count, numbers = prod(_shape(types, "memory")[:2]), _shape(types, wide)[-1]
        if numbers > MEMORY:
            return f"{wide} is {numbers} wide, and it holds memories of at most {MEMORY}"
        if count > SEQUENCES:
            return f"there are {count} memories, and {SEQUENCES} are the most"
        return _in_place(types, given, "memory") or _floats(types, *operands)

    return fits


@kernel("decode_gla", "triton", dtypes=DTYPES, fits=_memory("k", "q", "k", "v", "u", "up", "up_bias"))
class GLA:
    """The memory is read once and written where it lies; rates are made of what is in front of them."""

    of = "gla"
    forward = later("decode_states", "gla")


@kernel("decode_ssd", "triton", dtypes=DTYPES, fits=_memory("b", "x", "dt", "dt_bias", "a", "b", "c", "skip", "gate"))
class SSD:
    """As that of `decode_gla`, with the gate behind."""

    of = "ssd"
    forward = later("decode_states", "ssd")


def _convolution(types: Types, given: Given) -> str | None:
    rows = _shape(types, "x")[0]
    if given["act"] not in CONVOLVED:
        return f"it has no {given['act']} behind"
    if rows > SEQUENCES:
        return f"there are {rows} sequences, and {SEQUENCES} are the most"
    return _few_taps(types) or _in_place(types, given, "tail")


@kernel("decode_conv", "triton", dtypes=DTYPES, fits=_convolution)
class Convolution:
    """The last positions are kept where they lie."""

    of = "causal_conv"
    empty = ("tail",)
    forward = later("causal_conv", "step_in_place")


def _no_wider(types: Types, given: Given) -> str | None:
    wide = _shape(types, "x")[-1]
    return f"heads are {wide} wide, and it holds at most {WIDEST}" if wide > WIDEST else _floats(types, "gate")


@kernel("decode_head_norm", "triton", dtypes=DTYPES, fits=_no_wider)
class HeadNorm:
    """A head for each program, with its gate."""

    of = "rms_norm"
    forward = later("decode_states", "head_norm")


# ---------------------------------------------------------------- tokens
@kernel("decode_take", "triton", dtypes=DTYPES)
class Take:
    """A row of logits for each program, and what is noted of its likeliest token."""

    of = ""
    empty = ("ends",)
    forward = later("greedy", "take")
