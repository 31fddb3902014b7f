"""Norms on CPUs with gradients that are written out: torch computes those of its formula, in four times as many passes over memory."""
from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from archdsl.kernels.bindings import Types, kernel
from archdsl.kernels.rows import _alike

BLOCK = 2**18
"""Numbers that are computed at a time: what is read again, and what lies between, stays in the cache of a core."""
SMALL = 2**15
"""Numbers below which torch's own is as quick."""


def _spans(rows: Any) -> list[slice]:
    n, d = rows.shape
    step = max(1, BLOCK // d)
    return [slice(at, at + step) for at in range(0, n, step)]


def _forward(x: Any, weight: Any, eps: float) -> tuple[Any, Any]:
    """(x / √(mean(x²) + eps) · weight, 1 / √(mean(x²) + eps) of each row, [n, 1])."""
    from archdsl.lazy import torch

    rows, y = x.reshape(-1, x.shape[-1]), x.new_empty(x.shape)
    found, scale = y.view(rows.shape), x.new_empty(rows.shape[0], 1)
    for at in _spans(rows):
        part, own, to = rows[at], scale[at], found[at]
        torch.sum(torch.mul(part, part, out=to), -1, keepdim=True, out=own).div_(x.shape[-1]).add_(eps).rsqrt_()
        torch.mul(part, own, out=to)
        if weight is not None:
            to.mul_(weight)
    return y, scale


def _gradient(dy: Any, x: Any, weight: Any, scale: Any, needs: tuple[bool, bool]) -> tuple[Any, Any]:
    """With s of a row its scale: dx = s w dy - s³ mean(w dy x) x and dw = Σ s x dy."""
    from archdsl.lazy import torch

    d = x.shape[-1]
    rows, dys = x.reshape(-1, d), dy.reshape(-1, d)
    dx = x.new_empty(x.shape) if needs[0] else None
    dweight = x.new_zeros(d) if needs[1] else None
    back, spans = None if dx is None else dx.view(rows.shape), _spans(rows)
    room = x.new_empty(min(len(rows), max(1, BLOCK // d)), d)
    for at in spans:
        part, g, s = rows[at], dys[at], scale[at]
        both = torch.mul(g, part, out=room[:len(part)])
        along = None if back is None else both.sum(-1, keepdim=True) if weight is None else (both @ weight)[:, None]
        if dweight is not None:
            dweight += both.mul_(s).sum(0)
        if back is not None:
            to = torch.mul(g, s, out=back[at])
            if weight is not None:
                to.mul_(weight)
            to.addcmul_(part, s.pow(3).mul_(along).div_(-d))
    return dx, dweight


def _large(types: Types, attributes: Mapping[str, Any]) -> str | None:
    from archdsl.ops.rules import volume

    x, weight = types["x"], types["weight"]
    assert x is not None
    if weight is not None and weight.shape != x.shape[-1:]:
        return "sizes of the operands differ: what torch refuses or broadcasts is left to it"
    count = volume(x.shape)
    return f"of {count:,} numbers, fewer than {SMALL:,}, torch's own is as quick" if isinstance(count, int) and count < SMALL else None


@kernel("rms_norm", "written_out", devices=("cpu",), dtypes=("f32", "f64"), needs=(), fits=_alike, worth=_large)
class RMSNorm:
    """Some rows at a time, one scale for each row, and gradients by their formula."""

    asks = True

    @staticmethod
    def forward(x: Any, weight: Any, *, eps: float) -> Any:
        return _forward(x, weight, eps)[0]

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, *, eps: float, needs: list[bool]) -> tuple[Any, Any]:
        scale = _forward(x, None, eps)[1]
        return _gradient(dy, x, weight, scale, (needs[0], weight is not None and len(needs) > 1 and needs[1]))

    @staticmethod
    def eager(x: Any, weight: Any, *, eps: float) -> Any:
        from archdsl.kernels.eager import differentiated
        from archdsl.lazy import F

        if not x.is_contiguous():  # the result lies as x does
            return F.rms_norm(x, x.shape[-1:], weight, eps)
        return _function().apply(x, weight, eps) if differentiated(x, weight) else _forward(x, weight, eps)[0]


@cache
def _function() -> Any:
    """The norm for autograd."""
    import torch

    from archdsl.kernels.eager import seen_through

    class RMSNormWrittenOut(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, eps: float) -> Any:
            y, scale = _forward(x, weight, eps)
            ctx.save_for_backward(x, weight if ctx.needs_input_grad[0] else None, scale)
            ctx.eps = eps
            return y

        @staticmethod
        def backward(ctx: Any, dy: Any) -> tuple[Any, ...]:  # type: ignore[override]
            x, weight, scale = ctx.saved_tensors
            needs = ctx.needs_input_grad
            if not seen_through(dy):
                return *_gradient(dy, x, weight, scale, needs[:2]), None
            scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + ctx.eps)
            normed, g = x * scale, dy if weight is None else dy * weight
            return (scale * (g - normed * (g * normed).mean(-1, keepdim=True)) if needs[0] else None,
                    (dy * normed).reshape(-1, x.shape[-1]).sum(0) if needs[1] else None, None)

    return RMSNormWrittenOut
