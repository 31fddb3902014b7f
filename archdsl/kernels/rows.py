"""Kernels whose time is that of reading and writing: what they compute of a row stays in registers."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from archdsl.kernels.bindings import Types, fixed, kernel, later

DTYPES = ("bf16", "f16", "f32")
WIDEST = 16384
"""The longest row that a program holds."""
SCANNED = 65_535 * 64
"""Channels of a scan: its programs are counted along an axis of the grid that CUDA limits."""


@kernel("linear_cross_entropy", "triton", dtypes=DTYPES)
class InPlace:
    """A row for each program: the scores are read once for the logarithm of their sum, and again, from the cache, to be replaced by the gradient.
    `forward(scores [n, v], targets [n], *, scale, cap, ignore, factor) -> losses [n]`, as `loss_in_place` of `archdsl/ops/chunked_loss.py`."""

    forward = later("cross_entropy", "loss_in_place")


def _no_wider(types: Types, attributes: Mapping[str, Any]) -> str | None:
    """Rows have to fit into registers, and operands be of one dtype."""
    x = types["x"]
    assert x is not None
    wide = fixed(x.shape[-1])
    if wide is not None and wide > WIDEST:
        return f"rows are {wide} long, and it holds at most {WIDEST}"
    if attributes.get("count") is not None:
        return "it has no `count`"
    return _alike(types)


def _alike(types: Types, attributes: Mapping[str, Any] | None = None) -> str | None:
    found = {n: t.dtype for n, t in types.items() if t is not None and t.dtype != "int"}
    return None if len(set(found.values())) == 1 else f"{', '.join(f'{n} is {d}' for n, d in found.items())}: they have to be of one dtype"


@kernel("rms_norm", "triton", dtypes=DTYPES, fits=_no_wider, fuses=True)
class RMSNorm:
    """Rows in registers: each number is read and written once; the backward pass computes the scale again."""

    @staticmethod
    def forward(x: Any, weight: Any, *, eps: float) -> Any:
        from archdsl.kernels.norms import RMS, forward

        return forward(RMS, x, None, weight, None, eps)[0]

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, *, eps: float) -> Any:
        from archdsl.kernels.norms import RMS, gradient

        return gradient(RMS, dy, None, x, weight, None, eps)[:2]


@kernel("layer_norm", "triton", dtypes=DTYPES, fits=_no_wider, fuses=True)
class LayerNorm:
    """As that of `rms_norm`; the mean is taken off before squares are added up."""

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any, *, eps: float, count: None) -> Any:
        from archdsl.kernels.norms import LAYER, forward

        return forward(LAYER, x, None, weight, bias, eps)[0]

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, bias: Any, *, eps: float, count: None) -> Any:
        from archdsl.kernels.norms import LAYER, gradient

        return gradient(LAYER, dy, None, x, weight, bias, eps)


@kernel("crms_norm", "triton", dtypes=DTYPES, fits=_no_wider, fuses=True)
class CRMSNorm:
    """As that of `rms_norm`."""

    @staticmethod
    def forward(x: Any, *, eps: float) -> Any:
        from archdsl.kernels.norms import CRMS, forward

        return forward(CRMS, x, None, None, None, eps)[0]

    @staticmethod
    def gradient(dy: Any, x: Any, *, eps: float) -> Any:
        from archdsl.kernels.norms import CRMS, gradient

        return gradient(CRMS, dy, None, x, None, None, eps)[:1]


def _rows_alone(types: Types, attributes: Mapping[str, Any]) -> str | None:
    x = types["x"]
    assert x is not None
    if attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        return "it takes the last axis alone"
    return _row(types)


@kernel("l2_norm", "triton", dtypes=DTYPES, fits=_rows_alone, fuses=True)
class L2Norm:
    """As that of `rms_norm`, along the last axis."""

    @staticmethod
    def forward(x: Any, *, eps: float, axis: int) -> Any:
        from archdsl.kernels.norms import L2, forward

        return forward(L2, x, None, None, None, eps)[0]

    @staticmethod
    def gradient(dy: Any, x: Any, *, eps: float, axis: int) -> Any:
        from archdsl.kernels.norms import L2, gradient

        return gradient(L2, dy, None, x, None, None, eps)[:1]


@kernel("swiglu", "triton", dtypes=DTYPES, fits=_alike, fuses=True)
class SwiGLU:
    """One pass over both operands, forwards and backwards; what lies between is computed again."""

    @staticmethod
    def forward(gate: Any, up: Any) -> Any:
        from archdsl.kernels.pointwise import swiglu

        return swiglu(gate, up)

    @staticmethod
    def gradient(dy: Any, gate: Any, up: Any) -> Any:
        from archdsl.kernels.pointwise import swiglu_gradient

        return swiglu_gradient(dy, gate, up)


def _tables(types: Types, attributes: Mapping[str, Any]) -> str | None:
    x, cos, sin = (types[n] for n in ("x", "cos", "sin"))
    assert x is not None and cos is not None and sin is not None
    if len(x.shape) < 3 or cos.shape != x.shape[-2:] or sin.shape != x.shape[-2:]:
        return "it turns heads [..., T, w] by tables [T, w]"
    return _alike(types)


@kernel("rotary", "triton", dtypes=DTYPES, fits=_tables, fuses=True)
class Rotary:
    """One pass over the heads, whose positions may lie anywhere; the tables stay in the cache. The way back is the inverse turn, for which the heads
    are not kept. Gradients of the tables, if wanted, are torch's."""

    asks = True
    spares: ClassVar = {"x": ("cos", "sin")}

    @staticmethod
    def forward(x: Any, cos: Any, sin: Any) -> Any:
        from archdsl.kernels.rotary import turned

        return turned(x, cos, sin)

    @staticmethod
    def gradient(dy: Any, x: Any, cos: Any, sin: Any, *, needs: list[bool]) -> Any:
        from archdsl.kernels.rotary import gradient

        return gradient(dy, x, cos, sin, needs)


def _from_nothing(types: Types, attributes: Mapping[str, Any]) -> str | None:
    v = types["v"]
    assert v is not None
    if types["peak"] is not None:
        return "it begins at the first position"
    wide = fixed(v.shape[-1])
    return f"values are {wide} wide, and it holds at most 256" if wide is not None and wide > 256 else _alike(types)


@kernel("prefix_attention", "triton", dtypes=DTYPES, fits=_from_nothing)
class PrefixAttention:
    """Segments side by side: what each adds up to, then each from what lies before it, in chunks, by products of matrices. It begins
    at the first position. Gradients through the states behind the last are the reference's."""

    @staticmethod
    def forward(scores: Any, v: Any, peak: None, denominator: None, numerator: None) -> Any:
        from archdsl.kernels.prefixes import forward

        return forward(scores, v)

    @staticmethod
    def gradient(dy: Any, dpeak: Any, ddenominator: Any, dnumerator: Any, scores: Any, v: Any, *states: Any) -> Any:
        from archdsl.kernels.prefixes import gradient

        if any(g is not None for g in (dpeak, ddenominator, dnumerator)):
            return (*_by_reference((dy, dpeak, ddenominator, dnumerator), scores, v), None, None, None)
        return (*gradient(dy, scores, v), None, None, None)


def _few_channels(types: Types, attributes: Mapping[str, Any]) -> str | None:
    a = types["a"]
    assert a is not None
    many = fixed(a.shape[-1])
    return f"there are {many:,} channels, and {SCANNED:,} are the most" if many is not None and many > SCANNED else _alike(types)


@kernel("linear_scan", "triton", dtypes=DTYPES, fits=_few_channels)
class LinearScan:
    """Some channels of a sequence for each program, a few positions at a time by prefix scans; a step of one position is torch's."""

    forward = later("linear_scan", "forward")
    gradient = later("linear_scan", "gradient")


def _by_reference(grads: tuple[Any, ...], scores: Any, v: Any) -> list[Any]:
    from archdsl.ops.kernels import derived
    from archdsl.ops.memories import prefix_attention

    wide = [scores.float(), v.float()]
    given = [g if g is None else g.float() for g in grads]
    return derived(lambda s, x: prefix_attention.body(s, x, *prefix_attention.zeros([s, x])), wide, given)


def _row(types: Types) -> str | None:
    x = types["x"]
    assert x is not None
    wide = fixed(x.shape[-1])
    return f"rows are {wide} long, and it holds at most {WIDEST}" if wide is not None and wide > WIDEST else None


@kernel("poly_norm", "triton", dtypes=DTYPES, fits=lambda types, attributes: _row(types))
class PolyNorm:
    """Rows in registers: all powers and their means at once; the backward pass computes them again."""

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        from archdsl.kernels.polynomials import poly_norm

        return (poly_norm(x, weight, bias, eps),)

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        from archdsl.kernels.polynomials import poly_norm_gradient

        return poly_norm_gradient(dy, x, weight, bias, eps)


def _low_order(types: Types, attributes: Mapping[str, Any]) -> str | None:
    for name, most in (("numerator", 8), ("denominator", 4)):
        found = types[name]
        assert found is not None
        many = fixed(found.shape[-1])
        if many is not None and many > most:
            return f"the {name} has {many} coefficients, and it takes at most {most}"
    return None


@kernel("grouped_rational", "triton", dtypes=DTYPES, fits=_low_order)
class GroupedRational:
    """One pass forwards, one backwards, which adds the gradients of all coefficients up in registers."""

    @staticmethod
    def forward(x: Any, numerator: Any, denominator: Any, *, apart: bool) -> Any:
        from archdsl.kernels.polynomials import rational

        return (rational(x, numerator, denominator, apart),)

    @staticmethod
    def gradient(dy: Any, x: Any, numerator: Any, denominator: Any, *, apart: bool) -> Any:
        from archdsl.kernels.polynomials import rational_gradient

        return rational_gradient(dy, x, numerator, denominator, apart)


def _table_alike(types: Types, attributes: Mapping[str, Any]) -> str | None:
    weight = types["weight"]
    assert weight is not None
    return _alike(types) if weight.dtype in DTYPES else f"it takes tables of {', '.join(DTYPES)}, not of {weight.dtype}"


@kernel("embedding_bag", "triton", dtypes=("int",), fits=_table_alike)
class EmbeddingBag:
    """Rows are gathered and added up in float32; what comes back to a row is added up in the order of the sums."""

    asks = True

    @staticmethod
    def forward(index: Any, weight: Any, scale: Any) -> Any:
        from archdsl.kernels.bags import forward

        return forward(index, weight, scale)

    @staticmethod
    def gradient(dy: Any, index: Any, weight: Any, scale: Any, *, needs: list[bool]) -> Any:
        from archdsl.kernels.bags import gradient

        return gradient(dy, index, weight, scale, needs)
