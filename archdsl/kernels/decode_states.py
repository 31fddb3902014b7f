# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false, reportAssignmentType=false, reportOptionalMemberAccess=false
"""One position of gated linear attention and of Mamba-2's state space for decoding: the memory is read once and written where it lies, and what the
models put around it, rates in front and gates behind, is computed along with it. And the norm of each head with a gate.

A memory is read before the launch in front has ended (see overlap.py): what wrote it last was a step before, and between two steps of one memory lies
at least one launch that waits, the one that makes the operands of the second.

Operands are bf16, f16 or f32, with any strides but along the last axis; memories are of these types too and contiguous, and computed with in f32."""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import plain, width
from archdsl.kernels.overlap import follow, overlapping
from archdsl.kernels.selective_scan import softplus
from archdsl.kernels.steps import COLUMNS, FEW, WARPS, _place

RANK = 64
"""The most numbers of a low-rank rate."""
NUMBERS = 4096
"""Of a state space's memory in a program."""


@triton.jit
def _silu(x):
    return x / (1 + tl.exp(-x))


# ---------------------------------------------------------------- gated linear attention
@triton.jit
def _gla(q, k, v, u, up, up_bias, memory, out, qb, qh, kb, kh, vb, vh, ub, uh, heads, K, V, rank, tau, scale, RANK: tl.constexpr,
         LOG_SIGMOID: tl.constexpr, BEFORE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, WAIT: tl.constexpr):
    """`u`: the logarithms of the rates [N, K]; with LOG_SIGMOID what log sigmoid(u) / tau makes them of; with RANK what a linear map makes u of."""
    n = tl.program_id(1)
    b, h = (n // heads).to(tl.int64), (n % heads).to(tl.int64)
    row, col, place, inside = _place(n, K, V, BK, BV)
    if RANK > 0:
        r = tl.arange(0, RANK)
        maps = tl.load(up + (h * K + row[:, None]) * rank + r[None, :], mask=(row[:, None] < K) & (r[None, :] < rank), other=0.0).to(tl.float32)
    S = tl.load(memory + place, mask=inside, other=0.0).to(tl.float32)
    follow(WAIT)
    queries = tl.load(q + b * qb + h * qh + row, mask=row < K, other=0.0).to(tl.float32)
    keys = tl.load(k + b * kb + h * kh + row, mask=row < K, other=0.0).to(tl.float32)
    values = tl.load(v + b * vb + h * vh + col, mask=col < V, other=0.0).to(tl.float32)
    if RANK > 0:
        decay = tl.sum(maps * tl.load(u + b * ub + r, mask=r < rank, other=0.0).to(tl.float32)[None, :], 1)
        if up_bias is not None:
            decay += tl.load(up_bias + h * K + row, mask=row < K, other=0.0).to(tl.float32)
    else:
        decay = tl.load(u + b * ub + h * uh + row, mask=row < K, other=0.0).to(tl.float32)
    if LOG_SIGMOID:
        decay = -softplus(-decay) / tau
    y = tl.sum(queries[:, None] * S, 0)
    S = S * tl.exp(decay)[:, None] + keys[:, None] * values[None, :]
    if not BEFORE:
        y = tl.sum(queries[:, None] * S, 0)
    tl.store(memory + place, S.to(memory.dtype.element_ty), mask=inside)
    tl.store(out + n.to(tl.int64) * V + col, (scale * y).to(out.dtype.element_ty), mask=col < V)


def gla(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor, up: torch.Tensor | None, up_bias: torch.Tensor | None,
        memory: torch.Tensor, tau: float | None, scale: float, before: bool) -> torch.Tensor:
    """y [B, H, 1, V] of q, k [B, H, 1, K], v [B, H, 1, V] and memory [B, H, K, V], which is changed in place. `u` [B, H, 1, K]: the logarithms of the
    rates, or with `tau` what -softplus(-u) / tau makes them of; with `up` [H K, rank] and `up_bias` [H K] what this linear map makes u of,
    [B, 1, rank]."""
    q, k, v, u = (_rows(x) for x in (q, k, v, u))
    (B, H, _, K), V = k.shape, v.shape[-1]
    bv, warps = width(V, COLUMNS), 4 * memory.element_size()  # on an H100 at 32 rows, among 16 to 128 columns and 2 to 16 warps
    if B * H * triton.cdiv(V, bv) < FEW:
        bv, warps = 16, WARPS
    rank = 0 if up is None else up.shape[1]
    out = torch.empty(B, H, 1, V, dtype=v.dtype, device=v.device)
    _gla[(triton.cdiv(V, bv), B * H)](
        q, k, v, u, plain(up), plain(up_bias), memory, out, *(s for x in (q, k, v) for s in x.stride()[:2]), u.stride(0),
        0 if up is not None else u.stride(1), H, K, V, rank, tau or 1.0, float(scale), RANK=triton.next_power_of_2(rank) if rank else 0,
        LOG_SIGMOID=tau is not None, BEFORE=before, BK=width(K), BV=bv, num_warps=warps, **overlapping())
    return out


# ---------------------------------------------------------------- state spaces with one rate a head
@triton.jit
def _ssd(x, dt, dt_bias, a, b, c, skip, gate, memory, out, xb, xh, tb, th, bb, bh, cb, ch, gb, gh, heads, group, P, S, SOFTPLUS: tl.constexpr,
         BP: tl.constexpr, BS: tl.constexpr, WAIT: tl.constexpr):
    n = tl.program_id(1).to(tl.int64)
    row, h = n // heads, n % heads
    channel, number = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BS)
    here, there = channel < P, number < S
    place, inside = n * P * S + channel[:, None] * S + number[None, :], here[:, None] & there[None, :]
    state = tl.load(memory + place, mask=inside, other=0.0).to(tl.float32)
    follow(WAIT)
    rate = tl.load(a + h).to(tl.float32)  # not in front: a launch of the step may have made them
    t = tl.load(dt + row * tb + h * th).to(tl.float32)
    if dt_bias is not None:
        t += tl.load(dt_bias + h).to(tl.float32)
    if SOFTPLUS:
        t = softplus(t)
    u = tl.load(x + row * xb + h * xh + channel, mask=here, other=0.0).to(tl.float32)
    into = tl.load(b + row * bb + (h // group) * bh + number, mask=there, other=0.0).to(tl.float32)
    read = tl.load(c + row * cb + (h // group) * ch + number, mask=there, other=0.0).to(tl.float32)
    state = state * tl.exp(t * rate) + (t * u)[:, None] * into[None, :]
    y = tl.sum(state * read[None, :], 1)
    if skip is not None:
        y += tl.load(skip + h).to(tl.float32) * u
    if gate is not None:
        y *= _silu(tl.load(gate + row * gb + h * gh + channel, mask=here, other=0.0).to(tl.float32))
    tl.store(memory + place, state.to(memory.dtype.element_ty), mask=inside)
    tl.store(out + n * P + channel, y.to(out.dtype.element_ty), mask=here)


def ssd(x: torch.Tensor, dt: torch.Tensor, dt_bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
        skip: torch.Tensor | None, gate: torch.Tensor | None, memory: torch.Tensor, softplus: bool) -> torch.Tensor:
    """y [B, 1, h, p] of x [B, 1, h, p], dt [B, 1, h], a, skip, dt_bias [h], b, c [B, 1, g, n] and memory [B, h, p, n], which is changed in place.
    `softplus`: of dt + dt_bias. `gate` [B, 1, h, p]: the result times its SiLU."""
    x, b, c, gate = (None if v is None else _rows(v) for v in (x, b, c, gate))
    (B, _, H, P), S = x.shape, b.shape[-1]
    numbers = triton.next_power_of_2(S)
    channels = max(1, min(triton.next_power_of_2(P), NUMBERS // numbers))
    out = torch.empty(B, 1, H, P, dtype=x.dtype, device=x.device)
    strides = (s for v in (x, dt, b, c, gate) for s in ((0, 0) if v is None else (v.stride(0), v.stride(2))))
    _ssd[(triton.cdiv(P, channels), B * H)](
        x, dt, plain(dt_bias), plain(a), b, c, plain(skip), gate, memory, out, *strides, H, H // b.shape[2], P, S, SOFTPLUS=softplus, BP=channels,
        BS=numbers, num_warps=WARPS, **overlapping())
    return out


# ---------------------------------------------------------------- norms of heads
@triton.jit
def _head_norm(x, weight, gate, out, xb, xh, gb, heads, width, eps, BLOCK: tl.constexpr, WAIT: tl.constexpr):
    row, head, i = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.arange(0, BLOCK)
    inside = i < width
    follow(WAIT)
    v = tl.load(x + row * xb + head * xh + i, mask=inside, other=0.0).to(tl.float32)
    by = _silu(tl.load(gate + row * gb + head * width + i, mask=inside, other=0.0).to(tl.float32))
    v = v / tl.sqrt(tl.sum(v * v, 0) / width + eps)
    if weight is not None:
        v = v * tl.load(weight + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + (row * heads + head) * width + i, (v * by).to(out.dtype.element_ty), mask=inside)


def head_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float, gate: torch.Tensor) -> torch.Tensor:
    """silu(gate) ⊙ norm(x), the norm that of the root mean square of each head: x [B, h, 1, w], weight [w], gate [B, 1, h w] -> [B, 1, h w]."""
    x, gate = _rows(x), _rows(gate)
    B, H, _, W = x.shape
    block = triton.next_power_of_2(W)
    out = torch.empty(B, 1, H * W, dtype=x.dtype, device=x.device)
    _head_norm[(B, H)](x, plain(weight), gate, out, x.stride(0), x.stride(1), gate.stride(0), H, W, eps, BLOCK=block,
                       num_warps=max(1, min(8, block // 128)), **overlapping())
    return out


def _rows(x: Any) -> Any:
    """With the last axis in order in memory."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
