"""oneDNN's products, which torch brings, for those who ask for them by name: on processors that MKL has no paths of its own for they take half the
time of torch's default; on Intel's nobody has measured them here."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.kernels.bindings import Types, kernel

FEW = 8
"""Rows of `x` below which reading the weights bounds the time, and MKL is as fast."""


def _brought(device: str, dtype: str, types: Types) -> str | None:
    from archdsl.lazy import torch

    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch was built without oneDNN"
    return None


def _fits(types: Types, attributes: Mapping[str, Any]) -> str | None:
    found = {n: t.dtype for n, t in types.items() if t is not None}
    return None if len(set(found.values())) == 1 else f"{', '.join(f'{n} is {d}' for n, d in found.items())}: they have to be of one dtype"


def _product(x: Any, weight: Any, bias: Any = None) -> Any:
    """x Wᵀ + b, [..., o], of operands with any strides. torch's compiler calls the same op for what it compiles."""
    from archdsl.lazy import F, torch

    if x.numel() < FEW * x.shape[-1]:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@kernel("linear", "onednn", devices=("cpu",), dtypes=("f32",), needs=(), fits=_fits, limits=_brought, by_name=True)
class Linear:
    """oneDNN's product in float32, with its own for both gradients."""

    asks = True

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return _product(x, weight, bias)

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, bias: Any, *, needs: list[bool]) -> tuple[Any, ...]:
        rows, dys = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        return (_product(dy, weight.t()) if needs[0] else None, _product(dys.t(), rows.t()) if needs[1] else None,
                dys.sum(0) if len(needs) > 2 and needs[2] else None)
