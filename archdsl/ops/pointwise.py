"""Elementwise ops: arithmetic, comparison, activations, casts and gradient stops."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.graph import FLOATS, TensorType
from archdsl.lazy import F, torch
from archdsl.ops.registry import OPS, Op, OpError, op
from archdsl.ops.rules import (
    DTYPES,
    Sample,
    bools,
    broadcast,
    cast_to,
    chosen,
    elementwise,
    floats,
    ints,
    is_float,
    is_tensor,
    need_dtype,
    need_float,
    need_number,
    promote,
    shape_of,
    torch_dtype,
)
from archdsl.shapes import infer_by_signature

_SHAPES = ((2, 3, 5), (1, 1), (7,))


def _float_unary(x: TensorType, **_: Any) -> TensorType:
    need_float(x)
    return TensorType(x.dtype, x.shape)


def _number_unary(x: TensorType, **_: Any) -> TensorType:
    if x.dtype == "bool":
        raise OpError(f"a tensor of numbers is needed, and this one is {x}", "x", help=f"cast it first: {cast_to('int')}")
    return TensorType(x.dtype, x.shape)


def unary(signature: str, low: float = -2.0, high: float = 2.0, **rules: Any) -> Callable[[Callable[..., Any]], Op]:
    """A function of one float tensor (unless `infer` takes more), elementwise. Samples lie in [low, high)."""
    name, _, hyper = signature.partition("(")
    hyper = ", " + hyper if hyper else ")"
    samples = rules.pop("samples", lambda: [{"x": floats(*s, low=low, high=high)} for s in _SHAPES])
    return op(f"{name}(x: [*s]{hyper} -> [*s]", infer=rules.pop("infer", _float_unary), samples=samples, **rules)


def _binary_samples(low: float = -2.0) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [{"x": floats(2, 3, 5, low=low), "y": floats(3, 1, low=low)}, {"x": floats(1, 4, low=low), "y": floats(2, 1, 4, low=low)},
                    {"x": floats(7, low=low), "y": 1.5}, {"x": 2, "y": floats(1, low=low)}, {"x": floats(3, low=low), "y": floats(low=low)}]


def _arithmetic(x: Any, y: Any, **_: Any) -> TensorType:
    return elementwise(x, y)


def binary(name: str, low: float = -2.0, **rules: Any) -> Callable[[Callable[..., Any]], Op]:
    """Two tensors, or a tensor and a number, broadcast against each other."""
    return op(f"{name}(x: [*s], y: [*t]) -> [*u]", infer=rules.pop("infer", _arithmetic), numbers=("x", "y"),
              samples=rules.pop("samples", _binary_samples(low)), **rules)


# ---------------------------------------------------------------- arithmetic
@binary("add")
def add(x, y):
    """x + y. Shapes broadcast; a number takes the tensor's element type."""
    return x + y


def _difference(x: Any, y: Any) -> TensorType:
    need_number(x, "x")
    need_number(y, "y")
    return elementwise(x, y)


@binary("sub", infer=_difference)
def sub(x, y):
    """x - y."""
    return x - y


@binary("mul", saves={"x": ("y",), "y": ("x",)})
def mul(x, y):
    """x · y, elementwise."""
    return x * y


def _div_infer(x: Any, y: Any) -> TensorType:
    for name, value in (("x", x), ("y", y)):
        need_float(value, name)
    return elementwise(x, y)


@op("div(x: [*s], y: [*t]) -> [*u]", infer=_div_infer, numbers=("x", "y"), samples=_binary_samples(0.5),
    saves=lambda x, y: {"x": ("y",), "y": ("x", "y") if isinstance(x, TensorType) else (TensorType(y.dtype, y.shape),)})
def div(x, y):
    """x / y for floats (`//` divides whole numbers)."""
    return x / y


@binary("pow", low=0.5, saves=lambda x, y: ("x",) if not isinstance(y, TensorType) else ("x", "y", "out"))
def pow_(x, y):
    """x to the power y."""
    return x**y


def _integers() -> list[dict[str, Any]]:
    return [{"x": ints(9, 2, 5), "y": 3}, {"x": floats(2, 5), "y": 0.7}, {"x": floats(4), "y": floats(2, 4, low=0.5)}, {"x": ints(7, 1), "y": 1}]


def _remainder(x: Any, y: Any) -> TensorType:
    if not isinstance(y, TensorType) and y == 0:
        raise OpError("a division by 0", "y")
    return _difference(x, y)


@binary("mod", infer=_remainder, saves={"y": ("x", "y")}, samples=_integers)
def mod(x, y):
    """x - y ⌊x / y⌋, with the sign of y."""
    return x % y


@binary("floordiv", infer=_remainder, grad="none", samples=_integers)
def floordiv(x, y):
    """⌊x / y⌋; its gradient is zero."""
    if is_float(x) or is_float(y):  # `//` has no derivative at all, which would stop a backward pass
        return torch.floor_divide(x.detach() if is_tensor(x) else x, y.detach() if is_tensor(y) else y)
    return x // y


def _signed() -> list[dict[str, Any]]:
    return [*({"x": floats(*s)} for s in _SHAPES), {"x": Sample("int", (2, 5), -4, 5)}]


@unary("neg", infer=_number_unary, samples=_signed)
def neg(x):
    """-x."""
    return -x


def _extremum_saves(x, y):
    return {"x": ("x", "y"), "y": ("x", "y")}


@binary("maximum", saves=_extremum_saves)
def maximum(x, y):
    """The greater of x and y, elementwise; either may be a number."""
    if not is_tensor(x):
        x, y = y, x
    return torch.maximum(x, y) if is_tensor(y) else torch.clamp(x, min=y)


@binary("minimum", saves=_extremum_saves)
def minimum(x, y):
    """The lesser of x and y, elementwise; either may be a number."""
    if not is_tensor(x):
        x, y = y, x
    return torch.minimum(x, y) if is_tensor(y) else torch.clamp(x, max=y)


def _any_unary(x: TensorType, **_: Any) -> TensorType:
    return TensorType(x.dtype, x.shape)


def _clamp(x: TensorType, low: Any = None, high: Any = None) -> TensorType:
    need_number(x)
    if low is None and high is None:
        raise OpError("`low`, `high` or both are needed", help="`clamp(x, low = 0)`")
    return TensorType(promote(*(v for v in (x, low, high) if v is not None)), x.shape)


@op("clamp(x: [*s], low: int | float? = none, high: int | float? = none) -> [*s]", infer=_clamp, saves=("x",),
    samples=lambda: [{"x": floats(2, 5), "low": -1.0, "high": 0.5}, {"x": floats(1), "low": 0.0}, {"x": floats(3), "high": 0.3}])
def clamp(x, *, low=None, high=None):
    """min(max(x, low), high)."""
    return torch.clamp(x, low, high)


# ---------------------------------------------------------------- functions
@unary("exp", saves=("out",))
def exp(x):
    """eˣ."""
    return torch.exp(x)


@unary("log", low=0.1, saves=("x",))
def log(x):
    """The natural logarithm."""
    return torch.log(x)


@unary("log1p", low=-0.9, saves=("x",))
def log1p(x):
    """ln(1 + x), exact near 0."""
    return torch.log1p(x)


@unary("sqrt", low=0.1, saves=("out",))
def sqrt(x):
    """√x."""
    return torch.sqrt(x)


@unary("rsqrt", low=0.1, saves=("out",))
def rsqrt(x):
    """1 / √x."""
    return torch.rsqrt(x)


@unary("reciprocal", low=0.1, saves=("out",))
def reciprocal(x):
    """1 / x."""
    return torch.reciprocal(x)


@unary("square", saves=("x",))
def square(x):
    """x²."""
    return torch.square(x)


@unary("abs", saves=("x",), infer=_number_unary, samples=_signed)
def abs_(x):
    """|x|."""
    return torch.abs(x)


@unary("sign", grad="none")
def sign(x):
    """-1, 0 or 1; its gradient is zero everywhere."""
    return torch.sign(x)


@unary("floor", grad="none")
def floor(x):
    """The greatest whole number ≤ x; its gradient is zero."""
    return torch.floor(x)


@unary("round", grad="none")
def round_(x):
    """The nearest whole number, halves to even; its gradient is zero."""
    return torch.round(x)


@unary("sin", saves=("x",))
def sin(x):
    """sin x."""
    return torch.sin(x)


@unary("cos", saves=("x",))
def cos(x):
    """cos x."""
    return torch.cos(x)


@unary("erf", saves=("x",))
def erf(x):
    """The error function 2/√π ∫₀ˣ e^(-t²) dt."""
    return torch.erf(x)


# ---------------------------------------------------------------- activations
@unary("tanh", saves=("out",))
def tanh(x):
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return torch.tanh(x)


@unary("sigmoid", saves=("out",))
def sigmoid(x):
    """1 / (1 + e⁻ˣ)."""
    return torch.sigmoid(x)


@unary("relu", saves=("out",))
def relu(x):
    """max(x, 0)."""
    return F.relu(x)


@unary("relu6", low=-3, high=9, saves=("x",))
def relu6(x):
    """min(max(x, 0), 6)."""
    return F.relu6(x)


@unary('gelu(approximate: "none" | "tanh" = "none")', saves=("x",), source="arxiv 1606.08415",
       samples=lambda: [{"x": floats(2, 3, 5)}, {"x": floats(1, 1), "approximate": "tanh"}])
def gelu(x, *, approximate="none"):
    """x Φ(x), Φ the normal distribution function; `approximate = "tanh"` is the faster formula of GPT-2."""
    return F.gelu(x, **chosen(approximate=(approximate, "none")))


@unary("silu", saves=("x",), source="arxiv 1702.03118")
def silu(x):
    """x σ(x), also called swish."""
    return F.silu(x)


@unary("leaky_relu(slope: float = 0.01)", saves=("x",))
def leaky_relu(x, *, slope=0.01):
    """max(x, 0) + slope · min(x, 0)."""
    return F.leaky_relu(x, slope)


@unary("elu(alpha: float = 1)", saves=("x",), source="arxiv 1511.07289")
def elu(x, *, alpha=1):
    """x for x > 0, else α (eˣ - 1)."""
    return F.elu(x, alpha)


@unary("softplus", saves=("x",))
def softplus(x):
    """ln(1 + eˣ)."""
    return F.softplus(x)


@unary("hardswish", low=-5, high=5, saves=("x",), source="arxiv 1905.02244")
def hardswish(x):
    """x · relu6(x + 3) / 6."""
    return F.hardswish(x)


@unary("hardsigmoid", low=-5, high=5, saves=("x",), source="arxiv 1905.02244")
def hardsigmoid(x):
    """relu6(x + 3) / 6."""
    return F.hardsigmoid(x)


def _gated(gate: TensorType, up: TensorType) -> TensorType:
    need_float(gate, "gate")
    need_float(up, "up")
    return infer_by_signature(OPS["swiglu"], {"gate": gate, "up": up})[0]


@op("swiglu(gate: [*s], up: [*s]) -> [*s]", source="arxiv 2002.05202", infer=_gated,
    saves=lambda gate, up: {"gate": ("gate", "up"), "up": (TensorType(gate.dtype, gate.shape),)},
    samples=lambda: [{"gate": floats(2, 3, 5), "up": floats(2, 3, 5)}, {"gate": floats(1, 1), "up": floats(1, 1)}])
def swiglu(gate, up):
    """silu(gate) · up. What is written as `silu(gate) * up` becomes it where a kernel computes both at once."""
    return F.silu(gate) * up


@unary("softcap(cap: float)", saves=lambda x, cap: (TensorType(x.dtype, x.shape),), source="arxiv 2408.00118",
       samples=lambda: [{"x": floats(2, 5), "cap": 1.5}, {"x": floats(1), "cap": 50.0}])
def softcap(x, *, cap):
    """cap · tanh(x / cap): scores that stay within ±cap."""
    return cap * torch.tanh(x / cap)


# ---------------------------------------------------------------- comparison and choice
def _compared(x: Any, y: Any) -> TensorType:
    return elementwise(x, y, dtype="bool")


def comparison(name: str) -> Callable[[Callable[..., Any]], Op]:
    samples: Callable[[], list[dict[str, Any]]] = lambda: [
        {"x": ints(4, 2, 5), "y": ints(4, 5)}, {"x": floats(1, 3), "y": floats(2, 1)}, {"x": ints(3, 7), "y": 1}, {"x": ints(3, 1), "y": 0.5}]
    return op(f"{name}(x: [*s], y: [*t]) -> bool[*u]", infer=_compared, numbers=("x", "y"), grad="none", samples=samples)


@comparison("eq")
def eq(x, y):
    """x = y, elementwise."""
    return x == y


@comparison("ne")
def ne(x, y):
    """x ≠ y, elementwise."""
    return x != y


@comparison("lt")
def lt(x, y):
    """x < y, elementwise."""
    return x < y


@comparison("le")
def le(x, y):
    """x ≤ y, elementwise."""
    return x <= y


@comparison("gt")
def gt(x, y):
    """x > y, elementwise."""
    return x > y


@comparison("ge")
def ge(x, y):
    """x ≥ y, elementwise."""
    return x >= y


def _logical(x: Any, y: Any = False) -> TensorType:
    for name, value in (("x", x), ("y", y)):
        need_dtype(value, ("bool",), name, "a bool tensor")
        if not isinstance(value, (TensorType, bool)):
            raise OpError("this is neither true nor false", name, help="compare it: `… > 0`")
    return elementwise(x, y, dtype="bool")


_LOGICAL: dict[str, Any] = {"infer": _logical, "grad": "none", "numbers": ("x", "y"),
                            "samples": lambda: [{"x": bools(2, 5), "y": bools(5)}, {"x": bools(1, 1), "y": bools(3, 1)}, {"x": bools(3), "y": True},
                                                {"x": False, "y": bools(2, 1)}]}


@op("logical_and(x: bool[*s], y: bool[*t]) -> bool[*u]", **_LOGICAL)
def logical_and(x, y):
    """Both."""
    return torch.logical_and(x, y) if is_tensor(x) and is_tensor(y) else x & y


@op("logical_or(x: bool[*s], y: bool[*t]) -> bool[*u]", **_LOGICAL)
def logical_or(x, y):
    """Either or both."""
    return torch.logical_or(x, y) if is_tensor(x) and is_tensor(y) else x | y


@op("logical_not(x: bool[*s]) -> bool[*s]", infer=_logical, grad="none", samples=lambda: [{"x": bools(2, 5)}, {"x": bools(1)}])
def logical_not(x):
    """Not x."""
    return torch.logical_not(x)


def _where(condition: Any, x: Any, y: Any) -> TensorType:
    need_dtype(condition, ("bool",), "condition", "a bool tensor")
    return elementwise(TensorType("bool", shape_of(condition)), x, y, dtype=elementwise(x, y).dtype)


@op("where(condition: bool[*c], x: [*s], y: [*t]) -> [*u]", infer=_where, numbers=("x", "y"), saves=("condition",),
    samples=lambda: [{"condition": bools(2, 5), "x": floats(5), "y": floats(2, 1)}, {"condition": bools(3), "x": floats(3), "y": -3.5},
                     {"condition": bools(1, 1), "x": 0, "y": floats(1, 4)}])
def where(condition, x, y):
    """x where the condition holds, y elsewhere; either may be a number."""
    return torch.where(condition, x, y)


def _rotary(x: TensorType, cos: TensorType, sin: TensorType) -> TensorType:
    for t, about in ((x, "x"), (cos, "cos"), (sin, "sin")):
        need_float(t, about)
    width = x.shape[-1] if x.shape else 0
    if not isinstance(width, int) or width % 2 or not width:
        raise OpError(f"pairs are turned: the last axis has an even number of channels, and this is {x}", "x")
    for t, about in ((cos, "cos"), (sin, "sin")):
        if not t.shape or t.shape[-1] != width or broadcast(x.shape, t.shape) != x.shape:
            raise OpError(f"one angle for each of {width} channels is needed, in a shape that fits {x}, and this is {t}", about)
    return TensorType(promote(x, cos, sin), x.shape)


@op("rotary(x: [..., w], cos: [*c], sin: [*t]) -> [..., w]", infer=_rotary, roles={"w": "mix"}, source="arxiv 2104.09864",
    saves=lambda x, cos, sin: {"x": ("cos", "sin"), "cos": ("x",), "sin": (TensorType(x.dtype, x.shape),)},
    samples=lambda: [{"x": floats(2, 3, 5, 8), "cos": floats(5, 8), "sin": floats(5, 8)},
                     {"x": floats(1, 2), "cos": floats(1, 2), "sin": floats(2)}, {"x": floats(6), "cos": floats(6), "sin": floats(6)}])
def rotary(x, cos, sin):
    """Turns the pairs (i, i + w/2) of the last axis: x · cos + (-x₂, x₁) · sin, with x₁ and x₂ the halves of x."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


# ---------------------------------------------------------------- types and gradients
def _cast(x: TensorType, dtype: str) -> TensorType:
    if dtype not in FLOATS and dtype not in DTYPES:
        raise OpError(f"there is no element type `{dtype}`", "dtype", help=f"it is one of float, {', '.join(DTYPES)}")
    return TensorType(dtype, x.shape)


@op("cast(x: [*s], dtype: str) -> [*s]", infer=_cast, view=True,
    samples=lambda: [{"x": floats(2, 5), "dtype": "f32"}, {"x": ints(4, 3), "dtype": "f64"}, {"x": floats(1), "dtype": "int"},
                     {"x": ints(2, 3), "dtype": "bool"}])
def cast(x, *, dtype):
    """x in another element type (`float`: the model's). Lowering gives the dtype of this build."""
    return x.to(torch_dtype(dtype) if isinstance(dtype, str) else dtype)


def _at_least(x: TensorType, dtype: str = "f32") -> TensorType:
    need_float(x)
    if dtype not in ("f32", "f64"):
        raise OpError(f"a float type of at least 32 bits is meant, not `{dtype}`", "dtype")
    return TensorType(dtype if x.dtype != "f64" else "f64", x.shape)


@op('at_least(x: [*s], dtype: "f32" | "f64" = "f32") -> [*s]', infer=_at_least, view=True,
    samples=lambda: [{"x": floats(2, 5)}, {"x": floats(1, dtype="f64")}, {"x": floats(3, dtype="bf16")}])
def at_least(x, *, dtype="f32"):
    """x in `dtype` or wider: an island of float32 for statistics that stays float64 in a float64 build."""
    return x.to(torch.promote_types(x.dtype, torch_dtype(dtype)))


@op("stop(x: [*s]) -> [*s]", infer=_any_unary, grad="none", view=True, samples=lambda: [{"x": floats(2, 5)}, {"x": ints(3, 1)}])
def stop(x):
    """x, without a gradient."""
    return x.detach()


def _straight_through(value: TensorType, like: TensorType) -> TensorType:
    need_float(like, "like")
    return elementwise(value, like)


@op("straight_through(value: [*s], like: [*s]) -> [*s]", infer=_straight_through, grad="straight_through",
    samples=lambda: [{"value": floats(2, 5), "like": floats(2, 5)}, {"value": floats(1), "like": floats(1)}])
def straight_through(value, like):
    """`value` in the forward pass, bit for bit; its gradient goes to `like` unchanged."""
    return value.detach() + (like - like.detach())


@op("zeros_like(x: [*s]) -> [*s]", infer=_any_unary, grad="none", samples=lambda: [{"x": floats(2, 5)}, {"x": ints(3, 1)}])
def zeros_like(x):
    """Zeros of the shape and type of x."""
    return torch.zeros_like(x)


@op("ones_like(x: [*s]) -> [*s]", infer=_any_unary, grad="none", samples=lambda: [{"x": floats(2, 5)}, {"x": ints(3, 1)}])
def ones_like(x):
    """Ones of the shape and type of x."""
    return torch.ones_like(x)


@op("identity(x: [*s]) -> [*s]", infer=_any_unary, view=True, samples=lambda: [{"x": floats(2, 5)}, {"x": ints(3, 1)}])
def identity(x):
    """x."""
    return x
