"""Normalisations. Statistics of 16-bit input are computed in float32 inside."""
from __future__ import annotations

from typing import Any

from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import axis_of, cast_to, floats, need_count, need_equal, need_float, need_rank, replaced, size, wider


def _affine(x: TensorType, axis: int, **operands: TensorType | None) -> TensorType:
    need_float(x)
    for name, v in operands.items():
        if v is not None:
            if len(v.shape) != 1:
                raise OpError(f"one axis is needed, and this has {len(v.shape)}: {v}", name)
            need_equal(v.shape[0], x.shape[axis], f"the length of `{name}` and axis {axis} of `x`", name)
            if v.dtype != x.dtype:
                raise OpError(f"`x` is {x} and `{name}` is {v}: the element types differ", name, help=f"cast it: {cast_to(x.dtype, name)}",
                              mixed=("x", name))
    return TensorType(x.dtype, x.shape)


def _last(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, **_: Any) -> TensorType:
    return _affine(x, -1, weight=weight, bias=bias)


def _layer(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, eps: float = 1e-5,
           count: int | None = None) -> TensorType:
    if count is not None:
        need_count(count, "count")
        if x.shape and isinstance(x.shape[-1], int) and count > x.shape[-1]:
            raise OpError(f"`count` is at most the {x.shape[-1]} channels of `x`, not {count}", "count")
    return _affine(x, -1, weight=weight, bias=bias)


def _layer_norm_saves(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, eps: float = 1e-5,
                      count: int | None = None) -> Any:
    row = TensorType(x.dtype, (*x.shape[:-1], 1))
    if count is None:
        return "x", "weight", "bias", row, row
    centred = TensorType(x.dtype, x.shape)
    own = (centred, row, row)
    return {"x": (*own, "weight"), "weight": (TensorType(x.dtype, x.shape),), "bias": ()}


@op("layer_norm(x: [..., d], weight: [d]? = none, bias: [d]? = none, eps: float = 1e-5, count: int? = none) -> [..., d]", infer=_layer,
    roles={"d": "normalise"}, source="arxiv 1607.06450", saves=_layer_norm_saves,
    samples=lambda: [{"x": floats(2, 3, 7), "weight": floats(7), "bias": floats(7)}, {"x": floats(1, 5)}, {"x": floats(1, 1, 2), "weight": floats(2)},
                     {"x": floats(2, 6), "weight": floats(6), "bias": floats(6), "count": 4}])
def layer_norm(x, weight=None, bias=None, *, eps=1e-5, count=None):
    """(x - μ) / √(σ² + eps) · weight + bias over the last axis, σ² the mean of squares around μ.

    `count`: x holds that many channels and is zero in the others; the statistics are those of the `count` channels alone."""
    if count is None:
        return F.layer_norm(x, (size(x, -1),), weight, bias, eps)
    mean = x.sum(-1, keepdim=True) / count
    centred = x - mean
    variance = (centred.square().sum(-1, keepdim=True) - (size(x, -1) - count) * mean.square()) / count
    y = centred * torch.rsqrt(variance + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _rms_saves(x: TensorType, weight: TensorType | None = None, eps: float = 1e-5) -> Any:
    """16-bit input is widened first; then the wide copy is kept."""
    wide = wider(x.dtype)
    return {"x": ("x" if wide == x.dtype else TensorType(wide, x.shape), "weight", TensorType(wide, (*x.shape[:-1], 1))),
            "weight": (TensorType(wide, x.shape),)}


@op("rms_norm(x: [..., d], weight: [d]? = none, eps: float = 1e-5) -> [..., d]", infer=_last, roles={"d": "normalise"}, source="arxiv 1910.07467",
    saves=_rms_saves,
    samples=lambda: [{"x": floats(2, 3, 7), "weight": floats(7)}, {"x": floats(1, 5)}, {"x": floats(1, 1, 1), "weight": floats(1)}])
def rms_norm(x, weight=None, *, eps=1e-5):
    """x / √(mean(x²) + eps) · weight over the last axis."""
    return F.rms_norm(x, (size(x, -1),), weight, eps)


@op("crms_norm(x: [..., m], eps: float = 1e-5) -> [..., m]", infer=_last, roles={"m": "normalise"}, source="arxiv 2305.14858",
    saves=lambda x, eps=1e-5: ("x", TensorType(x.dtype, (*x.shape[:-1], 1)), TensorType(x.dtype, (*x.shape[:-1], 1))),
    samples=lambda: [{"x": floats(2, 3, 6)}, {"x": floats(1, 1)}])
def crms_norm(x, *, eps=1e-5):
    """RMSNorm of d = m + 1 recentred values of which the last, -Σx, is left out: x / √((Σx² + (Σx)²) / d + eps)."""
    squares = x.square().sum(-1, keepdim=True) + x.sum(-1, keepdim=True).square()
    return x * torch.rsqrt(squares / (size(x, -1) + 1) + eps)


def _groups(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, groups: int = 1, **_: Any) -> TensorType:
    if len(x.shape) < 2:
        raise OpError(f"batch and channels are needed, and this is {x}", "x")
    need_count(groups, "groups")
    if not isinstance(x.shape[1], int) or x.shape[1] % groups:
        raise OpError(f"{x.shape[1]} channels cannot be split into {groups} groups of one size", "groups")
    return _affine(x, 1, weight=weight, bias=bias)


def _group_saves(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, groups: int = 1, eps: float = 1e-5) -> Any:
    row = TensorType(x.dtype, (x.shape[0], groups))
    return "x", "weight", row, row


@op("group_norm(x: [B, c, ...], weight: [c]? = none, bias: [c]? = none, groups: int = 1, eps: float = 1e-5) -> [B, c, ...]", infer=_groups,
    filled=True, roles={"c": "normalise"}, source="arxiv 1803.08494", saves=_group_saves,
    samples=lambda: [{"x": floats(2, 6, 3, 5), "weight": floats(6), "bias": floats(6), "groups": 3}, {"x": floats(1, 4, 3), "groups": 2},
                     {"x": floats(1, 2, 1, 1), "weight": floats(2), "bias": floats(2)}])
def group_norm(x, weight=None, bias=None, *, groups=1, eps=1e-5):
    """(x - μ) / √(σ² + eps) · weight + bias, μ and σ² over the channels of a group and all later axes."""
    return F.group_norm(x, groups, weight, bias, eps)


def _batch(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, mean: TensorType | None = None,
           variance: TensorType | None = None, eps: float = 1e-5, **_: Any) -> TensorType:
    if len(x.shape) < 2:
        raise OpError(f"batch and channels are needed, and this is {x}", "x")
    _affine(x, 1, weight=weight, bias=bias)
    if (mean is None) != (variance is None):
        raise OpError("`mean` and `variance` are given together or not at all", "mean" if variance is None else "variance")
    if eps <= 0:
        raise OpError(f"`eps` is above 0, not {eps}", "eps")
    for name, v in (("mean", mean), ("variance", variance)):
        if v is not None:
            need_rank(v, (1,), name)
            need_float(v, name)
            need_equal(v.shape[0], x.shape[1], f"the length of `{name}` and axis 1 of `x`", name)
    return TensorType(x.dtype, x.shape)


def _batch_saves(x: TensorType, weight: TensorType | None = None, bias: TensorType | None = None, mean: Any = None, variance: Any = None,
                 **_: Any) -> Any:
    row = TensorType(x.dtype, (x.shape[1],))
    return "x", "weight", "mean", "variance", row, row


@op("batch_norm(x: [B, c, ...], weight: [c]? = none, bias: [c]? = none, mean: [c]? = none, variance: [c]? = none, momentum: float = 0.1, "
    "eps: float = 1e-5) -> [B, c, ...]", infer=_batch, filled=True, roles={"B": "normalise"}, source="arxiv 1502.03167", phase=True,
    saves=_batch_saves,
    samples=lambda: [{"x": floats(4, 3, 5, 2), "weight": floats(3), "bias": floats(3), "mean": floats(3), "variance": floats(3, low=0.5)},
                     {"x": floats(3, 2)}, {"x": floats(1, 1, 7), "mean": floats(1), "variance": floats(1, low=0.5)}])
def batch_norm(x, weight=None, bias=None, mean=None, variance=None, *, momentum=0.1, eps=1e-5, training=False):
    """(x - μ) / √(σ² + eps) · weight + bias for each channel (axis 1). Training: μ, σ² of this batch, and the running `mean` and `variance`
    move to them by `momentum`, in place; evaluation: the running ones (of this batch where they are none)."""
    return F.batch_norm(x, mean, variance, weight, bias, training or mean is None, momentum, eps)


def _l2_norm(x: TensorType, eps: float = 1e-6, axis: int = -1) -> TensorType:
    axis_of(axis, len(x.shape))
    return _affine(x, 0)


@op("l2_norm(x: [...], eps: float = 1e-6, axis: int = -1) -> [...]", infer=_l2_norm, source="fla: l2norm",
    saves=lambda x, eps=1e-6, axis=-1: ("x", TensorType(x.dtype, replaced(x.shape, axis % len(x.shape), 1))),
    samples=lambda: [{"x": floats(2, 3, 7)}, {"x": floats(1, 1)}, {"x": floats(4, 5), "axis": 0}])
def l2_norm(x, *, eps=1e-6, axis=-1):
    """x / √(Σx² + eps) along an axis."""
    return x * torch.rsqrt(x.square().sum(axis, keepdim=True) + eps)
