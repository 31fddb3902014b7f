"""Losses that a model ends in. Of a linear map and the loss behind it: one op, which never holds all scores."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.linear import linear
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import Sample, floats, ints, need_equal, need_float, need_index, volume

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
"""A target that does not count, as in torch."""


def _targets(shape: tuple[Size, ...], targets: TensorType, name: str) -> None:
    """One target for each row. Raises OpError."""
    need_index(targets, "targets")
    if len(targets.shape) != len(shape) - 1:
        raise OpError(f"there is one target for each row of `{name}`, which has {len(shape) - 1} axes of rows: {targets}", "targets")
    for i, (a, b) in enumerate(zip(targets.shape, shape)):
        need_equal(a, b, f"axis {i} of `targets` and of `{name}`", "targets")


def _cross_entropy(scores: TensorType, targets: TensorType, ignore: int = IGNORE) -> TensorType:
    need_float(scores, "scores")
    if not scores.shape:
        raise OpError("scores have an axis of classes", "scores")
    _targets(scores.shape, targets, "scores")
    return TensorType(scores.dtype, ())


def _answers(classes: int, *shape: int) -> Sample:
    """Targets, or -1."""
    return Sample("int", shape, -1, classes)


@op("cross_entropy(scores: [..., v], targets: int[...], ignore: int = -100) -> []", infer=_cross_entropy, own=("targets",), filled=True,
    roles={"v": "normalise"}, saves=lambda scores, targets, ignore=IGNORE: (TensorType(scores.dtype, scores.shape), "targets"),
    samples=lambda: [{"scores": floats(2, 3, 5), "targets": ints(5, 2, 3)}, {"scores": floats(7, 3), "targets": _answers(3, 7), "ignore": -1},
                     {"scores": floats(1, 1), "targets": ints(1, 1)}])
def cross_entropy(scores, targets, *, ignore=IGNORE):
    """The mean of log Σ exp(scores) - scores[target] over the rows whose target is not `ignore`, in nats; NaN where there is no such row."""
    return F.cross_entropy(scores.flatten(0, -2), targets.flatten(), ignore_index=ignore)


# ---------------------------------------------------------------- with the linear map in front
def _fused(x: TensorType, weight: TensorType, targets: TensorType, bias: TensorType | None = None, scale: float = 1, cap: float | None = None,
           ignore: int = IGNORE) -> TensorType:
    assert linear.infer is not None
    _targets(linear.infer(x, weight, bias).shape, targets, "x")
    if cap is not None and cap <= 0:
        raise OpError(f"`cap` is above 0, not {cap}", "cap")
    return TensorType("f32", ())


def _fused_saves(x: TensorType, weight: TensorType, targets: TensorType, bias: TensorType | None = None, **_: Any) -> dict[str, Any]:
    """The gradients themselves: they are computed along with the loss."""
    return {n: (TensorType(t.dtype, t.shape),) for n, t in (("x", x), ("weight", weight), ("bias", bias)) if t is not None}


def linear_cross_entropy_plain(x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None, scale: float = 1.0,
                               cap: float | None = None, ignore: int = -100) -> Tensor:
    """The mean cross-entropy of scores weight x + bias, times scale, bounded to ±cap; targets of `ignore` do not count."""
    scores = F.linear(x, weight, bias)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    return F.cross_entropy(scores.reshape(targets.numel(), scores.shape[-1]), targets.reshape(-1), ignore_index=ignore)


@op("linear_cross_entropy(x: [..., i], weight: [v, i], targets: int[...], bias: [v]? = none, scale: float = 1, cap: float? = none, "
    "ignore: int = -100) -> f32[]", infer=_fused, own=("x", "weight", "targets", "bias"), roles={"i": "contract"}, saves=_fused_saves,
    macs=lambda x, weight, **_: volume(x.shape) * weight.shape[0], reference=linear_cross_entropy_plain, plain=linear_cross_entropy_plain,
    source="Liger kernel: arxiv 2410.10989", form_of="linear_cross_entropy",
    samples=lambda: [{"x": floats(2, 3, 5), "weight": floats(7, 5), "targets": ints(7, 2, 3)},
                     {"x": floats(7, 4), "weight": floats(3, 4), "targets": _answers(3, 7), "bias": floats(3), "scale": 0.5, "cap": 2.5,
                      "ignore": -1},
                     {"x": floats(1, 1), "weight": floats(1, 1), "targets": ints(1, 1)}])
def linear_cross_entropy(x, weight, targets, bias=None, *, scale=1, cap=None, ignore=IGNORE, kernel=None):
    """`cross_entropy` of the scores scale · (W x + b), bounded to ±cap by `softcap` where it is given, in float32 at least. A chunk of rows at a
    time: all scores are never held, and what the backward pass needs are the gradients, computed with the loss. There is no second derivative."""
    from archdsl.ops import chunked_loss  # noqa: F401  (registers the torch op)

    return torch.ops.archdsl.linear_cross_entropy(x, weight, targets, bias, scale, cap, ignore, *(() if kernel is None else (kernel,)))
