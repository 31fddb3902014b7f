"""Rules: matrix products and attention."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.capture import layouts
from archdsl.capture.masks import mask_of
from archdsl.capture.rules import aten
from archdsl.graph import FLOATS, Value
from archdsl.ops.masks import CAUSAL
from archdsl.ops.registry import OpError

if TYPE_CHECKING:
    from archdsl.capture.translate import Translation


# ---------------------------------------------------------------- products
@aten("linear.default")
def _linear(t: Translation, input: Value, weight: Value, bias: Any = None) -> Any:
    x, w, b = t.one_float(input, weight, bias)
    return t.flat.op("linear", x, w, b)


@aten("addmm.default")
def _addmm(t: Translation, self: Value, mat1: Value, mat2: Value, beta: Any = 1, alpha: Any = 1) -> Any:
    """bias + x W with W [in, out] is a linear map by the transposed weight."""
    b, x, w = t.one_float(self, mat1, mat2)
    if beta != 1 or alpha != 1:
        return t.flat.op("add", t.flat.op("mul", t.flat.op("matmul", x, w), alpha), t.flat.op("mul", b, beta))
    if len(b.shape) == 1:
        return t.flat.op("linear", x, layouts.swapped(t.flat, w), b)
    return t.flat.op("add", t.flat.op("matmul", x, w), b)


@aten("mm.default", "bmm.default", "matmul.default")
def _matmul(t: Translation, self: Value, mat2: Any = None, other: Any = None) -> Any:
    a, b = t.one_float(self, mat2 if other is None else other)
    if len(b.shape) == 2 and len(a.shape) >= 2 and _is_weight(b):
        return t.flat.op("linear", a, layouts.swapped(t.flat, b))
    return t.flat.op("matmul", a, b)


def _is_weight(v: Value) -> bool:
    return all(_is_weight(a) for a in v.node.operands()) if v.node.op == "rearrange" else v.node.op == "param"


@aten("baddbmm.default")
def _baddbmm(t: Translation, self: Value, batch1: Value, batch2: Value, beta: Any = 1, alpha: Any = 1) -> Any:
    b, x, w = t.one_float(self, batch1, batch2)
    product = t.flat.op("mul", t.flat.op("matmul", x, w), alpha)
    return product if beta == 0 else t.flat.op("add", product, t.flat.op("mul", b, beta))


@aten("einsum.default")
def _einsum(t: Translation, equation: str, tensors: list[Value]) -> Any:
    left, arrow, right = equation.replace(" ", "").partition("->")
    sides = left.split(",")
    if not arrow or "." in equation or any(len(set(s)) < len(s) for s in sides):
        raise OpError(f"the einsum `{equation}` has implicit or repeated axes")
    number: dict[str, int] = {}
    ins = tuple(tuple(number.setdefault(c, len(number)) for c in s) for s in sides)
    return t.flat.op("einsum", tuple(t.one_float(*tensors)), ins=ins, out=tuple(number[c] for c in right))


@aten("scaled_dot_product_attention.default")
def _attention(t: Translation, query: Value, key: Value, value: Value, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
               scale: Any = None, enable_gqa: bool = False) -> Any:
    q, k, v = t.one_float(query, key, value)
    options: dict[str, Any] = {"scale": scale, **({"mask": CAUSAL} if is_causal else {})}
    if attn_mask is None or attn_mask.dtype in FLOATS:
        return t.flat.op("attention", q, k, v, None if attn_mask is None else t.one_float(q, attn_mask)[1], **options)
    mask = mask_of(t.flat, attn_mask, q.shape, k.shape)
    if mask is not None:
        t.flat.lifts["mask"] = t.flat.lifts.get("mask", 0) + 1
        return t.flat.op("attention", q, k, v, scale=scale, mask=mask)
    bias = t.flat.op("where", attn_mask, t.flat.op("literal", value=0.0, dtype="float"), t.finite(float("-inf")))
    return t.flat.op("attention", q, k, v, bias, **options)
