"""Rules: element by element, element types, new tensors."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from archdsl.capture import layouts
from archdsl.capture.formulas import Reader
from archdsl.capture.rules import RULES, Rule, aten, last_or_front
from archdsl.dims import Dim, Size
from archdsl.graph import Value
from archdsl.ops.registry import OpError
from archdsl.ops.rules import number_dtype

if TYPE_CHECKING:
    from archdsl.capture.translate import Translation


# ---------------------------------------------------------------- element by element
UNARY = {n: n for n in ("exp log log1p sqrt rsqrt reciprocal square abs sign floor round sin cos erf tanh sigmoid relu relu6 silu neg "
                        "hardswish hardsigmoid logical_not").split()}
UNARY |= {"bitwise_not": "logical_not"}
BINARY = {"add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "remainder": "mod", "floor_divide": "floordiv",
          "maximum": "maximum", "minimum": "minimum"}
COMPARED = {n: n for n in "eq ne lt le gt ge".split()}


WHOLE = {"abs", "neg", "square", "logical_not", "relu", "relu6", "sign", "floor", "round"}
"""Whole numbers stay whole under these; torch makes floats of them under the others."""


def _unary(op: str) -> Rule:
    def rule(t: Translation, self: Value) -> Any:
        if self.type.is_float or op in WHOLE - {"sign", "floor", "round"}:
            return t.flat.op(op, self)
        if op in ("floor", "round"):
            return self
        return t.flat.op("cast", t.flat.op(op, t.floated(self)), dtype=self.dtype) if op == "sign" else t.flat.op(op, t.floated(self))
    return rule


def _binary(op: str) -> Rule:
    def rule(t: Translation, self: Any, other: Any, alpha: Any = 1) -> Any:
        return _elementwise(t, op, self, other if alpha == 1 else t.flat.op("mul", other, alpha) if type(other) is Value else other * alpha)
    return rule


def _elementwise(t: Translation, op: str, x: Any, y: Any) -> Any:
    """Numbers and sizes take part; whole tensors meet a fraction as torch has it, in the default float type."""
    if type(x) is not Value and type(y) is not Value:
        x = t.flat.op("literal", value=x, dtype=t.number_type(x))
    for a, b in ((x, y), (y, x)):
        if type(a) is Value and not a.type.is_float and type(b) is not Value and number_dtype(b) == "number":
            x, y = (t.floated(v) if v is a else v for v in (x, y))
    x, y = t.finite(x), t.finite(y)
    if op in ("add", "sub", "mul") and all(type(v) is not Value or v.dtype == "bool" for v in (x, y)):
        x, y = (t.flat.op("cast", v, dtype="int") if type(v) is Value else v for v in (x, y))
    return t.flat.op(op, x, y)


for _name, _op in UNARY.items():
    RULES[f"{_name}.default"] = _unary(_op)
for _name, _op in (BINARY | COMPARED).items():
    RULES[f"{_name}.Tensor"] = RULES[f"{_name}.Scalar"] = RULES[f"{_name}.default"] = _binary(_op)
RULES["max.other"], RULES["min.other"] = _binary("maximum"), _binary("minimum")
RULES["gelu.default"] = lambda t, self, approximate="none": t.flat.op("gelu", self, approximate=approximate)
RULES["leaky_relu.default"] = lambda t, self, negative_slope=0.01: t.flat.op("leaky_relu", self, slope=negative_slope)
RULES["log_softmax.int"] = lambda t, self, dim, dtype=None: t.flat.op("log_softmax", t.cast(self, dtype), axis=last_or_front(len(self.shape), dim))
RULES["softmax.int"] = lambda t, self, dim, dtype=None: t.flat.op("softmax", t.cast(self, dtype), axis=last_or_front(len(self.shape), dim))


@aten("ceil.default")
def _ceil(t: Translation, self: Value) -> Any:
    return t.flat.op("neg", t.flat.op("floor", t.flat.op("neg", self))) if self.type.is_float else self


@aten("item.default")
def _item(t: Translation, self: Value) -> Any:
    """A number that is known before the run, as the size that was made a tensor."""
    formula = Reader(t.flat).read(self)
    element = None if formula is None or self.dtype == "bool" else formula.element
    if not isinstance(element, (int, float, Dim)):
        raise OpError("a number that depends on data cannot be read out of its tensor", help="keep it as a tensor")
    return element


@aten("elu.default")
def _elu(t: Translation, self: Value, alpha: Any = 1) -> Any:
    return t.flat.op("elu", self, alpha=alpha)


@aten("softplus.default")
def _softplus(t: Translation, self: Value) -> Any:
    return t.flat.op("softplus", self)


@aten("hardtanh.default", "clamp.default", "clip.default")
def _clamp(t: Translation, self: Value, min: Any = None, max: Any = None, min_val: Any = -1, max_val: Any = 1) -> Any:
    low, high = (min, max) if min is not None or max is not None else (min_val, max_val)
    return t.flat.op("clamp", self, low=low, high=high)


@aten("clamp_min.default")
def _clamp_min(t: Translation, self: Value, min: Any) -> Any:
    return t.flat.op("clamp", self, low=min)


@aten("clamp_max.default")
def _clamp_max(t: Translation, self: Value, max: Any) -> Any:
    return t.flat.op("clamp", self, high=max)


@aten("rsub.Scalar", "rsub.Tensor")
def _rsub(t: Translation, self: Value, other: Any, alpha: Any = 1) -> Any:
    return _elementwise(t, "sub", other, self if alpha == 1 else t.flat.op("mul", self, alpha))


@aten("addcmul.default")
def _addcmul(t: Translation, self: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    return _elementwise(t, "add", self, t.flat.op("mul", _elementwise(t, "mul", tensor1, tensor2), value))


@aten("addcdiv.default")
def _addcdiv(t: Translation, self: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    return _elementwise(t, "add", self, t.flat.op("mul", t.flat.op("div", tensor1, tensor2), value))


@aten("div.Tensor", "div.Scalar", "true_divide.Tensor", "divide.Tensor")
def _div(t: Translation, self: Any, other: Any) -> Any:
    x, y = (t.floated(v) if type(v) is Value and not v.type.is_float else v for v in (self, other))
    return t.flat.op("div", x, y)


@aten("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(t: Translation, self: Any, other: Any, rounding_mode: Any = None) -> Any:
    if rounding_mode != "floor":
        raise OpError(f"division that rounds by `{rounding_mode}` has no op")
    return _elementwise(t, "floordiv", self, other)


@aten("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def _pow(t: Translation, self: Any, exponent: Any) -> Any:
    return _elementwise(t, "pow", self, exponent)


@aten("logical_and.default", "__and__.Tensor", "bitwise_and.Tensor")
def _and(t: Translation, self: Value, other: Value) -> Any:
    return t.flat.op("logical_and", self, other)


@aten("logical_or.default", "__or__.Tensor", "bitwise_or.Tensor")
def _or(t: Translation, self: Value, other: Value) -> Any:
    return t.flat.op("logical_or", self, other)


@aten("logical_xor.default", "__xor__.Tensor", "bitwise_xor.Tensor")
def _xor(t: Translation, self: Value, other: Value) -> Any:
    return t.flat.op("ne", self, other) if self.dtype == other.dtype == "bool" else NotImplemented


@aten("fill.Tensor", "fill.Scalar")
def _fill(t: Translation, self: Value, value: Any) -> Any:
    if type(value) is Value:
        return layouts.expand(t.flat, t.cast_like(value, self), list(self.shape))
    return _full(t, list(self.shape), value, None, self)


@aten("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(t: Translation, condition: Value, self: Any, other: Any) -> Any:
    self, other = t.finite(self), t.finite(other)
    if type(self) is not Value and type(other) is not Value:
        other = t.flat.op("literal", value=other, dtype=t.number_type(other))
    return t.flat.op("where", condition, self, other)


@aten("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(t: Translation, self: Value, mask: Value, value: Any) -> Any:
    return t.flat.op("where", mask, t.finite(value), self)


@aten("dropout.default", "feature_dropout.default", "native_dropout.default")
def _dropout(t: Translation, input: Value, p: float, train: bool) -> Any:
    return t.flat.op("dropout", input, rate=p)


# ---------------------------------------------------------------- types
@aten("to.dtype", "to.dtype_layout", "to.device", "_to_copy.default", "to.prim_dtype", "type_as.default")
def _to(t: Translation, self: Value, dtype: Any = None, other: Any = None) -> Any:
    return t.flat.op("as_type", self, other) if other is not None else t.cast(self, dtype)


@aten("clone.default", "contiguous.default", "alias.default", "lift_fresh_copy.default", "lift_fresh.default")
def _same(t: Translation, self: Value) -> Any:
    return self


@aten("detach.default", "detach_.default")
def _detach(t: Translation, self: Value) -> Any:
    """Tracing detaches every constant, which has no gradient to stop."""
    return t.flat.op("stop", self) if self.type.is_float and _has_gradient(t, self) else self


def _has_gradient(t: Translation, v: Value) -> bool:
    """Whether a value depends on a parameter or on an input that is no index."""
    stack, seen = [v.node], set[int]()
    while stack:
        n = stack.pop()
        if n.op == "input" and n.types[0].is_float or n.op == "param" and t.flat.params[n.attrs["path"]].kind == "param":
            return True
        if id(n) not in seen:
            seen.add(id(n))
            stack += [x.node for x in n.operands()]
    return False


@aten("_assert_tensor_metadata.default", "sym_constrain_range_for_size.default", "sym_constrain_range.default")
def _nothing(t: Translation, **_: Any) -> Any:
    return None


@aten("_assert_scalar.default")
def _assert(t: Translation, self: Any, assert_msg: str) -> Any:
    t.require(self)


@aten("sym_size.int", "size.int")
def _size(t: Translation, self: Value, dim: int) -> Any:
    return self.shape[dim]


# ---------------------------------------------------------------- new tensors
@aten("arange.default", "arange.start", "arange.start_step")
def _arange(t: Translation, end: Any, start: Any = 0, step: Any = 1, dtype: Any = None) -> Any:
    if any(isinstance(v, float) for v in (start, end, step)):
        count = math.ceil((t.fixed_number(end) - t.fixed_number(start)) / t.fixed_number(step))
        places = t.floated(t.flat.op("iota", n=count))
        return t.cast(t.flat.op("add", t.flat.op("mul", places, float(step)), float(start)), dtype)
    count = end - start if step == 1 else -((start - end) // step)
    return t.cast(t.flat.op("add", t.flat.op("mul", t.flat.op("iota", n=count), step), start), dtype)


@aten("full.default", "new_full.default")
def _full(t: Translation, size: list[Size], fill_value: Any, dtype: Any = None, self: Any = None) -> Any:
    kind = t.dtype(dtype) if dtype is not None else self.dtype if self is not None else t.number_type(fill_value)
    if isinstance(fill_value, float) and abs(fill_value) == float("inf"):
        return layouts.expand(t.flat, t.cast(t.finite(fill_value), dtype), list(size))
    return layouts.expand(t.flat, t.flat.op("literal", value=fill_value, dtype=kind), list(size))


@aten("ones.default", "new_ones.default")
def _ones(t: Translation, size: list[Size], dtype: Any = None, self: Any = None) -> Any:
    return _full(t, size, t.one(dtype, self), dtype, self)


@aten("zeros.default", "new_zeros.default")
def _zeros(t: Translation, size: list[Size], dtype: Any = None, self: Any = None) -> Any:
    return _full(t, size, t.one(dtype, self) and type(t.one(dtype, self))(0), dtype, self)


@aten("zeros_like.default", "ones_like.default", "full_like.default")
def _full_like(t: Translation, self: Value, fill_value: Any, dtype: Any = None) -> Any:
    return _full(t, list(self.shape), fill_value, dtype, self)


RULES["zeros_like.default"] = lambda t, self, dtype=None: _zeros(t, list(self.shape), dtype, self)
RULES["ones_like.default"] = lambda t, self, dtype=None: _ones(t, list(self.shape), dtype, self)


@aten("scalar_tensor.default")
def _scalar(t: Translation, s: Any, dtype: Any = None) -> Any:
    size = isinstance(s, Dim)
    if isinstance(s, float) and abs(s) == float("inf"):
        return t.cast(t.finite(s), dtype)
    value = t.flat.op("literal", value=0 if size else s, dtype="int" if size else t.number_type(s))
    return t.cast(t.flat.op("add", value, s) if size else value, dtype)


@aten("tril.default", "triu.default")
def _triangle(t: Translation, self: Value, diagonal: int = 0, upper: bool = False) -> Any:
    rows, columns = self.shape[-2:]
    i = layouts.rearrange(t.flat, t.flat.op("iota", n=rows), [rows], [[0]], [[0], []])
    ahead = t.flat.op("sub", t.flat.op("iota", n=columns), i)
    kept = t.flat.op("ge" if upper else "le", ahead, diagonal)
    return t.flat.op("logical_and", self, kept) if self.dtype == "bool" else t.flat.op("where", kept, self, 0)


RULES["triu.default"] = lambda t, self, diagonal=0: _triangle(t, self, diagonal, True)
