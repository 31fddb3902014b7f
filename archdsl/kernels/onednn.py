"""oneDNN's products, which torch brings, for those who ask for them by name: on an AMD EPYC with AVX-512 they take half the time of
torch's default, which is MKL; on other processors they have not been measured."""
from __future__ import annotations

from typing import Any

from archdsl.kernels.bindings import Types, kernel
from archdsl.kernels.rows import _alike

FEW = 4
"""Rows of `x` below which torch's default is mostly quicker (256 to 3,072 channels, an AMD EPYC with AVX-512)."""


def _brought(device: str, dtype: str, types: Types) -> str | None:
    from archdsl.lazy import torch

    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch was built without oneDNN"
    return None


def _product(x: Any, weight: Any, bias: Any = None) -> Any:
    """x Wᵀ + b, [..., o], of operands with any strides. The op is private to torch, whose compiler packs linear maps of frozen weights into it."""
    from archdsl.lazy import F, torch

    if x.numel() < FEW * x.shape[-1]:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@kernel("linear", "onednn", devices=("cpu",), dtypes=("f32",), needs=(), fits=_alike, limits=_brought, by_name=True)
class Linear:
    """oneDNN's product in float32, with its own for both gradients."""

    asks = True

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return _product(x, weight, bias)

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, bias: Any, *, needs: list[bool]) -> tuple[Any, ...]:
        rows, dys = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        return (_product(dy, weight.t()) if needs[0] else None, _between(dys, rows) if needs[1] else None,
                dys.sum(0) if len(needs) > 2 and needs[2] else None)


def _between(a: Any, b: Any) -> Any:
    """aᵀ b, [o, i], of [n, o] and [n, i]. torch lays the turned first operand of a product out in order, which costs as much as half of it where it
    is the wide one: then the product is turned instead."""
    (n, o), i = a.shape, b.shape[-1]
    return _product(b.t(), a.t()).t() if (n + o) * i < n * o else _product(a.t(), b.t())
