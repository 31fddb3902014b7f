"""Sums, means, extrema, softmax, sorting: ops that look along an axis."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.registry import Extension, OpError, op
from archdsl.ops.rules import axes_of, axis_of, bools, chosen, floats, ints, need_count, need_dtype, need_float, need_number, rank, replaced

HOW = ("mean", "sum", "max", "min", "var", "any", "all")


def _reduce_type(x: TensorType, axis: Any, how: str, keep: bool) -> TensorType:
    axes = axes_of(axis, len(x.shape))
    if how not in HOW:
        raise OpError(f"there is no reduction `{how}`", "how", help=f"it is one of {', '.join(HOW)}")
    if how in ("mean", "var"):
        need_float(x)
    if how in ("any", "all"):
        need_dtype(x, ("bool",), "x", "a bool tensor")
    if how in ("max", "min") and any(x.shape[i] == 0 for i in axes) or how == "var" and 0 in x.shape:
        raise OpError(f"there is no {how} of no positions: {x}", "x")
    dtype = "int" if how == "sum" and not x.is_float else x.dtype
    return TensorType(dtype, tuple(1 if i in axes else s for i, s in enumerate(x.shape) if keep or i not in axes))


def _apply(x: Any, axes: Any, how: str, keep: bool) -> Any:
    if how == "var":
        return x.var(axes, correction=0, **chosen(keepdim=(keep, False)))
    function = {"mean": "mean", "sum": "sum", "max": "amax", "min": "amin", "any": "any", "all": "all"}[how]
    if axes is None and not keep:
        return getattr(x, function)()
    return getattr(x, function)(tuple(range(rank(x))) if axes is None else axes, **chosen(keepdim=(keep, False)))


_KEPT: dict[str, tuple[str, ...]] = {"max": ("x", "out"), "min": ("x", "out"), "var": ("x",)}


@op('reduce(x: [...], axes: list[int], how: "mean" | "sum" | "max" | "min" | "var" | "any" | "all", keep: bool = false) -> [*r]',
    infer=lambda x, axes, how, keep=False: _reduce_type(x, axes, how, keep), saves=lambda x, axes, how, keep=False: _KEPT.get(how, ()),
    samples=lambda: [{"x": floats(2, 3, 5), "axes": (0, 2), "how": how} for how in ("mean", "sum", "max", "min", "var")]
    + [{"x": bools(2, 3, 1), "axes": (2,), "how": "any", "keep": True}, {"x": ints(9, 1, 4), "axes": (1,), "how": "sum"}])
def reduce(x, *, axes, how, keep=False):
    """The mean, sum, maximum, minimum, variance (mean of squares around the mean), any or all over `axes`; `keep` leaves them with size 1."""
    return _apply(x, tuple(axes), how, keep)


def reduction(name: str, **rules: Any) -> Callable[[Callable[..., Any]], Any]:
    """A reduction by its own name: over one axis, several, or all (none)."""
    return op(f"{name}(x: [...], axis: int | list[int]? = none, keep: bool = false) -> [*r]", saves=_KEPT.get(name, ()),
              infer=lambda x, axis=None, keep=False: _reduce_type(x, axis, name, keep),
              samples=lambda: [{"x": floats(2, 3, 5), "axis": 1}, {"x": floats(1, 4), "axis": (0, -1), "keep": True}, {"x": floats(7)},
                               {"x": floats(2, 3), "keep": True}], **rules)


@reduction("sum")
def sum_(x, *, axis=None, keep=False):
    """Σx over an axis, several, or all; integers and bools add up to an int."""
    return _apply(x, axis, "sum", keep)


@reduction("mean")
def mean(x, *, axis=None, keep=False):
    """The mean over an axis, several, or all."""
    return _apply(x, axis, "mean", keep)


@reduction("max")
def max_(x, *, axis=None, keep=False):
    """The maximum over an axis, several, or all; equal maxima share the gradient."""
    return _apply(x, axis, "max", keep)


@reduction("min")
def min_(x, *, axis=None, keep=False):
    """The minimum over an axis, several, or all; equal minima share the gradient."""
    return _apply(x, axis, "min", keep)


@reduction("var")
def var(x, *, axis=None, keep=False):
    """mean((x - mean(x))²) over an axis, several, or all."""
    return _apply(x, axis, "var", keep)


def _truth_samples() -> list[dict[str, Any]]:
    return [{"x": bools(2, 3, 5), "axis": 1}, {"x": bools(1, 4), "axis": (0, 1), "keep": True}, {"x": bools(3)}]


@op("any(x: bool[...], axis: int | list[int]? = none, keep: bool = false) -> bool[*r]", grad="none", samples=_truth_samples,
    infer=lambda x, axis=None, keep=False: _reduce_type(x, axis, "any", keep))
def any_(x, *, axis=None, keep=False):
    """Whether one holds."""
    return _apply(x, axis, "any", keep)


@op("all(x: bool[...], axis: int | list[int]? = none, keep: bool = false) -> bool[*r]", grad="none", samples=_truth_samples,
    infer=lambda x, axis=None, keep=False: _reduce_type(x, axis, "all", keep))
def all_(x, *, axis=None, keep=False):
    """Whether all hold."""
    return _apply(x, axis, "all", keep)


# ---------------------------------------------------------------- along one axis
def _along(x: TensorType, axis: int = -1, **_: Any) -> TensorType:
    need_float(x)
    axis_of(axis, len(x.shape))
    return TensorType(x.dtype, x.shape)


def _axis_samples() -> list[dict[str, Any]]:
    return [{"x": floats(2, 3, 5)}, {"x": floats(2, 3, 5), "axis": 1}, {"x": floats(1, 1)}]


@op("softmax(x: [...], axis: int = -1) -> [...]", infer=_along, saves=("out",), samples=_axis_samples)
def softmax(x, *, axis=-1):
    """eˣ / Σeˣ along an axis."""
    return torch.softmax(x, axis)


@op("log_softmax(x: [...], axis: int = -1) -> [...]", infer=_along, saves=("out",), samples=_axis_samples)
def log_softmax(x, *, axis=-1):
    """x - ln Σeˣ along an axis."""
    return torch.log_softmax(x, axis)


def _logsumexp(x: TensorType, axis: Any = -1, keep: bool = False) -> TensorType:
    need_float(x)
    return _reduce_type(x, axis, "sum", keep)


@op("logsumexp(x: [...], axis: int | list[int] = -1, keep: bool = false) -> [*r]", infer=_logsumexp, saves=("x", "out"),
    samples=lambda: [*_axis_samples(), {"x": floats(2, 3), "axis": (0, 1), "keep": True}])
def logsumexp(x, *, axis=-1, keep=False):
    """ln Σeˣ over an axis or several."""
    return torch.logsumexp(x, axis, keep)


def cumsum_type(x: TensorType, axis: int = -1) -> TensorType:
    axis_of(axis, len(x.shape))
    return TensorType(x.dtype if x.is_float else "int", x.shape)


def _sums_so_far(time: dict[str, tuple[int, ...]], x: TensorType, axis: int = -1) -> Extension | None:
    a = axis_of(axis, len(x.shape))
    if a - len(x.shape) not in time["x"]:
        return None
    whole = cumsum_type(x, axis)
    return Extension("cumsum_extend", {"total": TensorType(whole.dtype, (*x.shape[:a], *x.shape[a + 1:]))}, idle={})


@op("cumsum(x: [...], axis: int = -1) -> [...]", infer=cumsum_type, stream=_sums_so_far,
    samples=lambda: [*_axis_samples(), {"x": ints(5, 2, 4), "axis": 0}, {"x": bools(3)}])
def cumsum(x, *, axis=-1):
    """y[t] = x[0] + … + x[t] along an axis."""
    return torch.cumsum(x, axis)


def _argmax(x: TensorType, axis: int = -1, keep: bool = False) -> TensorType:
    need_number(x)
    return TensorType("int", _reduce_type(x, axis, "max", keep).shape)


@op("argmax(x: [...], axis: int = -1, keep: bool = false) -> int[*r]", infer=_argmax, grad="none", samples=_axis_samples)
def argmax(x, *, axis=-1, keep=False):
    """The position of the maximum along an axis (the first of equal ones)."""
    return torch.argmax(x, axis, keep)


# ---------------------------------------------------------------- order
def _sort(x: TensorType, axis: int = -1, **_: Any) -> tuple[TensorType, TensorType]:
    axis_of(axis, len(x.shape))
    return TensorType(x.dtype, x.shape), TensorType("int", x.shape)


@op("sort(x: [...], axis: int = -1, descending: bool = false, stable: bool = false) -> (values: [...], places: int[...])", infer=_sort,
    saves=("out1",),
    samples=lambda: [*_axis_samples(), {"x": floats(2, 5), "descending": True, "stable": True}])
def sort(x, *, axis=-1, descending=False, stable=False):
    """The values in order along an axis, and where each came from; `stable` keeps the order of equal ones."""
    return torch.sort(x, dim=axis, descending=descending, stable=stable)


def _topk(x: TensorType, k: int, axis: int = -1, largest: bool = True) -> tuple[TensorType, TensorType]:
    a = axis_of(axis, len(x.shape))
    n = x.shape[a]
    need_number(x)
    if isinstance(k, int) or isinstance(n, int):
        need_count(k, "k")
    if isinstance(n, int) and isinstance(k, int) and k > n:
        raise OpError(f"the {k} largest of {n} values are asked for", "k")
    shape = replaced(x.shape, a, k)
    return TensorType(x.dtype, shape), TensorType("int", shape)


@op("topk(x: [...], k: int, axis: int = -1, largest: bool = true) -> (values: [*r], places: int[*r])", infer=_topk, saves=("out1",),
    samples=lambda: [{"x": floats(2, 3, 5), "k": 2}, {"x": floats(1, 1), "k": 1}, {"x": floats(4, 3), "k": 3, "axis": 0, "largest": False}])
def topk(x, *, k, axis=-1, largest=True):
    """The k largest (smallest) values along an axis, in order, and their positions."""
    return torch.topk(x, k, axis, largest)


def _topk_mask(x: TensorType, k: int, axis: int = -1) -> TensorType:
    _topk(x, k, axis)
    return TensorType("bool", x.shape)


@op("topk_mask(x: [...], k: int, axis: int = -1) -> bool[...]", infer=_topk_mask, grad="none",
    samples=lambda: [{"x": floats(2, 3, 5), "k": 2}, {"x": floats(1, 1), "k": 1}, {"x": floats(4, 3), "k": 3, "axis": 0}])
def topk_mask(x, *, k, axis=-1):
    """True at the k largest values along an axis (exactly k, also among equal ones)."""
    return torch.zeros_like(x, dtype=torch.bool).scatter(axis, torch.topk(x, k, axis)[1], True)
