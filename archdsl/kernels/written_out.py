"""Norms on CPUs with gradients that are written out: torch computes those of its formula, in twice as many passes over memory."""
from __future__ import annotations

from typing import Any

from archdsl.kernels.bindings import kernel
from archdsl.kernels.rows import _alike


def _scale(x: Any, eps: float) -> Any:
    """1 / √(mean(x²) + eps), [..., 1]."""
    from archdsl.lazy import torch

    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


@kernel("rms_norm", "written_out", devices=("cpu",), dtypes=("f32", "f64"), needs=(), fits=_alike, by_name=True)
class RMSNorm:
    """One scale for each row, computed again backwards: with s of it, dx = s w dy - s³ mean(w dy x) x and dw = Σ s x dy."""

    asks = True

    @staticmethod
    def forward(x: Any, weight: Any, *, eps: float) -> Any:
        y = x * _scale(x, eps)
        return y if weight is None else y.mul_(weight)

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, *, eps: float, needs: list[bool]) -> tuple[Any, Any]:
        from archdsl.lazy import torch

        scale, room = _scale(x, eps), dy * x
        along = room.sum(-1, keepdim=True) if weight is None else (room @ weight)[..., None]
        dweight = None if weight is None or not needs[1] else room.mul_(scale).reshape(-1, x.shape[-1]).sum(0)
        if not needs[0]:
            return None, dweight
        dx = torch.mul(dy, scale, out=room)
        if weight is not None:
            dx.mul_(weight)
        return dx.addcmul_(x, scale.pow(3).mul_(along).div_(-x.shape[-1])), dweight
