"""oneDNN's products, which torch brings: on an AMD EPYC with AVX-512 they take half the time of torch's default, which is MKL, one by one as large
matrices, and are taken by themselves on such processors; on others they are for those who ask for them by name."""
from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from archdsl.kernels.bindings import Types, kernel
from archdsl.kernels.processor import mkl_is_slow
from archdsl.kernels.rows import _alike

FEW = 4
"""Rows of `x` below which torch's default is mostly quicker (256 to 3,072 channels, an AMD EPYC with AVX-512)."""


def _brought(device: str, dtype: str, types: Types) -> str | None:
    from archdsl.lazy import torch

    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch was built without oneDNN"
    return None


EXACT = 192
"""Numbers that oneDNN adds up in turn without erring by more than MKL, which begins a new sum after so many; of thousands the error is twice that."""
MANY = 512
"""The same of products with states: what is added to them errs by more."""


def _product(x: Any, weight: Any, bias: Any = None) -> Any:
    """x Wᵀ + b, [..., o], of operands with any strides."""
    from archdsl.lazy import F

    return F.linear(x, weight, bias) if x.numel() < FEW * x.shape[-1] else _sums(x, weight, bias, EXACT)


def _sums(x: Any, weight: Any, bias: Any, most: int) -> Any:
    """`_product`, whose sums of more than `most` numbers are sums of sums. The op is private to torch, whose compiler packs linear maps of frozen
    weights into it."""
    from archdsl.lazy import torch

    i, call = x.shape[-1], torch.ops.mkldnn._linear_pointwise.default
    bias = None if bias is None else bias.contiguous()  # oneDNN reads it as if it were
    if i <= most:
        return call(x, _dense(weight), bias, "none", [], "")
    step = -(-i // (-(-i // most) * 16)) * 16
    y = call(x[..., :step], _dense(weight[:, :step]), bias, "none", [], "")
    for at in range(step, i, step):
        y += call(x[..., at:at + step], _dense(weight[:, at:at + step]), None, "none", [], "")  # oneDNN's own addition takes longer
    return y


def _dense(weight: Any) -> Any:
    """Matrices with gaps are for oneDNN's slowest code, which takes a thousand times as long."""
    rows, columns = weight.shape
    return weight if weight.stride() in ((columns, 1), (1, rows)) else weight.contiguous()


WORTH = 2**23
"""Multiplications of a linear map above which oneDNN's product is quicker by more than what it takes to call it (64 to 2,048 rows, 8 to 2,048
channels, an AMD EPYC with AVX-512)."""
ROWS = 64
"""Below so many rows reading the weights takes longer than multiplying by them."""


def _large(types: Types, attributes: Mapping[str, Any]) -> str | None:
    """Whether the product is one that oneDNN computes more quickly on this processor."""
    from archdsl.ops.rules import volume

    x, weight = types["x"], types["weight"]
    assert x is not None and weight is not None
    if x.shape[-1] != weight.shape[-1] or types["bias"] is not None and types["bias"].shape != weight.shape[:1]:
        return "sizes of the operands differ: what torch refuses or broadcasts is left to it"
    rows, count = volume(x.shape[:-1]), volume((*x.shape, weight.shape[0]))
    if isinstance(rows, int) and rows < ROWS:
        return f"of {rows} rows torch's product is as quick"
    if isinstance(count, int) and count < WORTH:
        return f"it has {count:,} multiplications, and takes less time from {WORTH:,} on"
    return mkl_is_slow()


@kernel("linear", "onednn", devices=("cpu",), dtypes=("f32",), needs=(), fits=_alike, limits=_brought, worth=_large)
class Linear:
    """oneDNN's product in float32, with its own for both gradients."""

    asks = True

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return _product(x, weight, bias)

    @staticmethod
    def gradient(dy: Any, x: Any, weight: Any, bias: Any, *, needs: list[bool]) -> tuple[Any, ...]:
        dys = dy.reshape(-1, dy.shape[-1])
        return (_product(dy, weight.t()) if needs[0] else None, _between(dys, x.reshape(-1, x.shape[-1])) if needs[1] else None,
                dys.sum(0) if len(needs) > 2 and needs[2] else None)

    @staticmethod
    def eager(x: Any, weight: Any, bias: Any) -> Any:
        from archdsl.kernels.eager import differentiated
        from archdsl.lazy import F, torch

        if not torch._C._get_mkldnn_enabled():  # torch.backends.mkldnn.flags(enabled = False)
            return F.linear(x, weight, bias)
        return _function().apply(x, weight, bias) if differentiated(x, weight, bias) else _product(x, weight, bias)


@cache
def _function() -> Any:
    """The linear map for autograd."""
    import torch

    from archdsl.kernels.eager import seen_through

    class LinearByOnednn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
            ctx.save_for_backward(*(v if needed else None for v, needed in zip((x, weight), ctx.needs_input_grad[1::-1])))
            y = _product(x, weight, bias)
            return torch.ops.aten._unsafe_view.default(y, y.shape)  # a view must not be written to

        @staticmethod
        def backward(ctx: Any, dy: Any) -> tuple[Any, ...]:  # type: ignore[override]
            x, weight = ctx.saved_tensors
            needs = list(ctx.needs_input_grad)
            if not seen_through(dy):
                return Linear.gradient(dy, x, weight, None, needs=needs)
            dys = dy.reshape(-1, dy.shape[-1])
            return (dy @ weight if needs[0] else None, dys.mT @ x.reshape(-1, x.shape[-1]) if needs[1] else None,
                    dys.sum(0) if needs[2] else None)

    return LinearByOnednn


def _between(a: Any, b: Any) -> Any:
    """aᵀ b, [o, i], of [n, o] and [n, i]. torch lays the turned first operand of a product out in order, which costs as much as half of it where it
    is the wide one: then the product is turned instead."""
    (n, o), i = a.shape, b.shape[-1]
    return _product(b.t(), a.t()).t() if (n + o) * i < n * o else _product(a.t(), b.t())


LARGE = 2**21
"""Multiplications of a product of two matrices above which a call for each is worth it (an AMD EPYC with AVX-512)."""


def _batched(a: Any, b: Any, way: int) -> Any:
    """`_times` of archdsl/ops/ssd.py: a b of matrices, [k, B, g, m, i] and [k, B, g, i, n], of which oneDNN takes one at a time in torch."""
    from archdsl.lazy import torch
    from archdsl.ops.ssd import _times

    (m, i), n, many = a.shape[-2:], b.shape[-1], a.shape[1:-2]
    if m * i * n < LARGE or not torch._C._get_mkldnn_enabled():
        return _times(a, b, way)
    found = (_sums(v, w, None, MANY) for v, w in zip(a.reshape(-1, m, i).unbind()[::way], b.reshape(-1, i, n).mT.unbind()[::way]))
    if many.numel() == 1:
        return (v.view(*many, m, n) for v in found)
    return (torch.stack([next(found) for _ in range(many.numel())][::way]).view(*many, m, n) for _ in range(len(a)))


def _large_states(types: Types, attributes: Mapping[str, Any]) -> str | None:
    """Whether products with states are such as `_batched` leaves to oneDNN."""
    from archdsl.ops.ssd import CHUNK

    x, b = types["x"], types["b"]
    assert x is not None and b is not None
    (length, heads, p), (groups, n) = x.shape[-3:], b.shape[-2:]
    if isinstance(length, int) and length < CHUNK:
        return f"of {length} positions, fewer than {CHUNK}, torch's products are as quick"
    if isinstance(heads, int) and isinstance(groups, int) and isinstance(count := CHUNK * n * (heads // groups) * p, int) and count < LARGE:
        return f"its products with states have {count:,} multiplications, and take less time from {LARGE:,} on"
    return mkl_is_slow()


@kernel("ssd", "onednn", devices=("cpu",), dtypes=("f32",), needs=(), fits=_alike, limits=_brought, worth=_large_states)
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
