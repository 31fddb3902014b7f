"""Torch ops of a decoding step that write a recurrence's state where it lies, with what stands around the recurrence.

As those of `ops.py`, each is a kernel where one takes its operands, and plain torch everywhere else."""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archdsl.decoding.choice import by_kernel
from archdsl.decoding.ops import ACTIVATIONS, normed
from archdsl.ops import memories as _memories  # noqa: F401  (registers the torch ops)
from archdsl.ops import time as _time  # noqa: F401  (registers the torch ops)


def _wide(memory: Tensor) -> Tensor:
    """A memory as it is computed with: at least in float32."""
    return memory.to(torch.promote_types(memory.dtype, torch.float32))


# ---------------------------------------------------------------- gated linear attention
@torch.library.custom_op("archdsl::decode_gla", mutates_args=("memory",))
def decode_gla(q: Tensor, k: Tensor, v: Tensor, u: Tensor, up: Tensor | None, up_bias: Tensor | None, memory: Tensor, tau: float | None,
               scale: float, before: bool) -> Tensor:
    """`gla` of one position, [B, H, 1, V], that changes its memory. Its `decay` is u, with `tau` -softplus(-u) / tau, with `up` of u Wᵀ + b first,
    u [B, 1, rank], by heads."""
    if (found := by_kernel("decode_gla", q, k, v, u, up, up_bias, memory, tau, scale, before)) is not None:
        return found[0]
    if up is not None:
        u = F.linear(u, up, up_bias).unflatten(-1, (k.shape[1], k.shape[-1])).transpose(1, 2)
    if tau is not None:
        u = -F.softplus(-u.to(torch.promote_types(u.dtype, torch.float32))) / tau
    y, new = torch.ops.archdsl.gla(q, k, v, u, None, _wide(memory), scale, before)
    memory.copy_(new)
    return y.contiguous()


@decode_gla.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    return v.new_empty(v.shape)


# ---------------------------------------------------------------- state spaces with one rate a head
@torch.library.custom_op("archdsl::decode_ssd", mutates_args=("memory",))
def decode_ssd(x: Tensor, dt: Tensor, dt_bias: Tensor | None, a: Tensor, b: Tensor, c: Tensor, skip: Tensor | None, gate: Tensor | None,
               memory: Tensor, softplus: bool) -> Tensor:
    """`ssd` of one position, [B, 1, h, p], that changes its memory, of dt or of softplus(dt + dt_bias), times silu(gate)."""
    if (found := by_kernel("decode_ssd", x, dt, dt_bias, a, b, c, skip, gate, memory, softplus)) is not None:
        return found[0]
    dt = dt.to(torch.promote_types(dt.dtype, torch.float32))
    dt = dt if dt_bias is None else dt + dt_bias
    y, new = torch.ops.archdsl.ssd(x, F.softplus(dt) if softplus else dt, a, b, c, skip, _wide(memory))
    memory.copy_(new)
    if gate is not None:
        wide = torch.promote_types(y.dtype, torch.float32)
        y = (F.silu(gate.to(wide)) * y.to(wide)).to(y.dtype)
    return y.contiguous()


@decode_ssd.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


# ---------------------------------------------------------------- convolutions along time
@torch.library.custom_op("archdsl::decode_conv", mutates_args=("tail",))
def decode_conv(x: Tensor, taps: Tensor, bias: Tensor | None, tail: Tensor, act: str) -> Tensor:
    """act(`causal_conv`) of one position, [B, 1, c], that changes the positions it keeps."""
    if (found := by_kernel("decode_conv", x, taps, bias, tail, act)) is not None:
        return found[0]
    y, new = torch.ops.archdsl.causal_conv(x, taps, bias, tail)
    tail.copy_(new)
    return ACTIVATIONS[act](y).contiguous()


@decode_conv.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("archdsl::decode_convolved", mutates_args=("tail",))
def decode_convolved(x: Tensor, weight: Tensor, bias: Tensor | None, norm: Tensor | None, eps: float, taps: Tensor, taps_bias: Tensor | None,
                     tail: Tensor, first: int, act: str) -> Tensor:
    """norm(x) Wᵀ + b, [B, 1, n], whose columns from `first` on, as many as `taps` has, go through `decode_conv`."""
    if (found := by_kernel("decode_convolved", x, weight, bias, norm, eps, taps, taps_bias, tail, first, act)) is not None:
        return found[0]
    y = F.linear(normed(x, norm, eps), weight, bias)
    here = slice(first, first + len(taps))
    y[..., here] = decode_conv(y[..., here], taps, taps_bias, tail, act)
    return y


@decode_convolved.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


# ---------------------------------------------------------------- norms of heads
@torch.library.custom_op("archdsl::decode_head_norm", mutates_args=())
def decode_head_norm(x: Tensor, weight: Tensor | None, eps: float, gate: Tensor) -> Tensor:
    """silu(gate) times the root-mean-square norm of each head: x [B, h, 1, w], gate [B, 1, h w] -> [B, 1, h w]."""
    if (found := by_kernel("decode_head_norm", x, weight, eps, gate)) is not None:
        return found[0]
    y = F.rms_norm(x, (x.shape[-1],), weight, eps).transpose(1, 2).flatten(2, 3)
    return (F.silu(gate) * y).contiguous()


@decode_head_norm.register_fake
def _(x: Tensor, weight: Tensor | None, eps: float, gate: Tensor) -> Tensor:
    return x.new_empty(gate.shape)
