"""oneDNN's products, which torch brings, for those who ask for them by name: on an AMD EPYC with AVX-512 they take half the time of torch's default,
which is MKL, one by one as large matrices; on other processors they have not been measured."""
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
    return torch.ops.mkldnn._linear_pointwise(x, _dense(weight), bias, "none", [], "")


def _dense(weight: Any) -> Any:
    """Matrices with gaps are for oneDNN's slowest code, which takes a thousand times as long."""
    rows, columns = weight.shape
    return weight if weight.stride() in ((columns, 1), (1, rows)) else weight.contiguous()


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


LARGE = 2**21
"""Multiplications of a product of two matrices above which a call for each is worth it (an AMD EPYC with AVX-512)."""


def _batched(a: Any, b: Any, apart: bool = False) -> Any:
    """a b of matrices, [k, B, g, m, i] and [k, B, g, i, n], of which oneDNN takes one at a time in torch; `apart`: as `k` results."""
    from archdsl.lazy import torch

    (m, i), n = a.shape[-2:], b.shape[-1]
    if m * i * n < LARGE:
        return torch.matmul(a, b).unbind() if apart else torch.matmul(a, b)
    times, turned = torch.ops.mkldnn._linear_pointwise.default, (b if b.stride()[-2:] in ((n, 1), (1, i)) else b.contiguous()).mT
    found = [times(v, w, None, "none", [], "") for v, w in zip(a.reshape(-1, m, i).unbind(), turned.reshape(-1, n, i).unbind(), strict=True)]
    if apart and len(found) == len(a):
        return [v.view(*a.shape[1:-1], n) for v in found]
    whole = torch.stack(found).view(*a.shape[:-1], n)
    return whole.unbind() if apart else whole


@kernel("ssd", "onednn", devices=("cpu",), dtypes=("f32",), needs=(), fits=_alike, limits=_brought, by_name=True)
class Ssd:
    """The reference, whose products with states, which are the largest, are oneDNN's."""

    @staticmethod
    def forward(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any) -> Any:
        from archdsl.ops.ssd import scan

        return scan(_batched, x, dt, a, b, c, skip, _memory(x, b) if memory is None else memory)

    @staticmethod
    def gradient(dy: Any, later: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any) -> tuple[Any, ...]:
        from archdsl.ops.ssd import scan_back

        nothing = _memory(x, b) if memory is None or later is None else None
        *found, first = scan_back(_batched, dy, nothing if later is None else later, x, dt, a, b, c, skip, nothing if memory is None else memory)
        return *found, None if memory is None else first

    @staticmethod
    def step(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any) -> Any:
        from archdsl.ops.ssd import one_position

        y, memory = one_position(x.squeeze(-3), dt.squeeze(-2), a, b.squeeze(-3), c.squeeze(-3), skip, memory)
        return y.unsqueeze(-3), memory


def _memory(x: Any, b: Any) -> Any:
    """The state in front of the first position, [..., h, p, n]."""
    return x.new_zeros(*x.shape[:-3], *x.shape[-2:], b.shape[-1])
