"""One position of a recurrence, by Triton: a program reads a block of the memory once and writes it once. A block is some columns of
key-value pairs, or some channels of a state space."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from archdsl.kernels.chunks import heads, plain, rows, strides, width

COLUMNS, FEW, CHANNELS, WARPS = 32, 132, 64, 4
"""Columns of values of a program; programs below which a card has work left for more, of half the columns; channels of a program; warps."""


@triton.jit
def _place(n, K, V, BK: tl.constexpr, BV: tl.constexpr):
    """Rows and columns of a program's block, where it lies in memory and which of it is there."""
    row, col = tl.arange(0, BK), tl.program_id(0) * BV + tl.arange(0, BV)
    return row, col, n.to(tl.int64) * K * V + row[:, None] * V + col[None, :], (row[:, None] < K) & (col[None, :] < V)


@triton.jit
def _vector(x, n, heads, xb, xh, at, size):
    return tl.load(rows(x, n, heads, xb, xh) + at, mask=at < size, other=0.0).to(tl.float32)


@triton.jit
def gla_kernel(q, k, v, decay, value_decay, memory, out, new, qb, qh, kb, kh, vb, vh, db, dh, eb, eh, heads, K, V, scale,
               BK: tl.constexpr, BV: tl.constexpr, DECAY: tl.constexpr, VALUE_DECAY: tl.constexpr, BEFORE: tl.constexpr):
    n = tl.program_id(1)
    row, col, place, inside = _place(n, K, V, BK, BV)
    S = tl.load(memory + place, mask=inside, other=0.0)
    queries = _vector(q, n, heads, qb, qh, row, K)
    y = tl.sum(queries[:, None] * S, 0)
    if DECAY:
        S *= tl.exp(_vector(decay, n, heads, db, dh, row, K))[:, None]
    if VALUE_DECAY:
        S *= tl.exp(_vector(value_decay, n, heads, eb, eh, col, V))[None, :]
    S += _vector(k, n, heads, kb, kh, row, K)[:, None] * _vector(v, n, heads, vb, vh, col, V)[None, :]
    if not BEFORE:
        y = tl.sum(queries[:, None] * S, 0)
    tl.store(new + place, S, mask=inside)
    tl.store(out + n.to(tl.int64) * V + col, (scale * y).to(out.dtype.element_ty), mask=col < V)


@triton.jit
def delta_kernel(q, k, v, beta, decay, memory, out, new, qb, qh, kb, kh, vb, vh, bb, bh, db, dh, heads, K, V, scale,
                 BK: tl.constexpr, BV: tl.constexpr, DECAY: tl.constexpr):
    n = tl.program_id(1)
    row, col, place, inside = _place(n, K, V, BK, BV)
    S = tl.load(memory + place, mask=inside, other=0.0)
    if DECAY:
        S *= tl.exp(tl.load(rows(decay, n, heads, db, dh)).to(tl.float32))
    keys = _vector(k, n, heads, kb, kh, row, K)
    wrong = _vector(v, n, heads, vb, vh, col, V) - tl.sum(keys[:, None] * S, 0)
    S += keys[:, None] * (tl.load(rows(beta, n, heads, bb, bh)).to(tl.float32) * wrong)[None, :]
    y = scale * tl.sum(_vector(q, n, heads, qb, qh, row, K)[:, None] * S, 0)
    tl.store(new + place, S, mask=inside)
    tl.store(out + n.to(tl.int64) * V + col, y.to(out.dtype.element_ty), mask=col < V)


@triton.jit
def dplr_kernel(q, k, v, a, b, decay, memory, out, new, qb, qh, kb, kh, vb, vh, ab, ah, bb, bh, db, dh, heads, K, V, scale,
                BK: tl.constexpr, BV: tl.constexpr):
    n = tl.program_id(1)
    row, col, place, inside = _place(n, K, V, BK, BV)
    S = tl.load(memory + place, mask=inside, other=0.0)
    read = tl.sum(_vector(a, n, heads, ab, ah, row, K)[:, None] * S, 0)
    S *= tl.exp(_vector(decay, n, heads, db, dh, row, K))[:, None]
    S += _vector(b, n, heads, bb, bh, row, K)[:, None] * read[None, :]
    S += _vector(k, n, heads, kb, kh, row, K)[:, None] * _vector(v, n, heads, vb, vh, col, V)[None, :]
    y = scale * tl.sum(_vector(q, n, heads, qb, qh, row, K)[:, None] * S, 0)
    tl.store(new + place, S, mask=inside)
    tl.store(out + n.to(tl.int64) * V + col, y.to(out.dtype.element_ty), mask=col < V)


@triton.jit
def scan_kernel(x, dt, a, b, c, skip, memory, out, new, xb, tb, ib, ob, D, S, BD: tl.constexpr, BS: tl.constexpr, SKIP: tl.constexpr,
                SOFTPLUS: tl.constexpr):
    """`D` channels of `S` numbers each."""
    channel, number, n = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BS), tl.program_id(1).to(tl.int64)
    here, there = channel < D, number < S
    place, inside = channel[:, None] * S + number[None, :], here[:, None] & there[None, :]
    u, t = tl.load(x + n * xb + channel, mask=here, other=0.0).to(tl.float32), tl.load(dt + n * tb + channel, mask=here, other=0.0).to(tl.float32)
    if SOFTPLUS:  # log1p(e) of small e is e - e² / 2
        e = tl.exp(-tl.abs(t))
        t = tl.maximum(t, 0.0) + tl.where(e < 1e-3, e - 0.5 * e * e, tl.log(1 + e))
    state = tl.load(memory + n * D * S + place, mask=inside, other=0.0) * tl.exp(t[:, None] * tl.load(a + place, mask=inside, other=0.0))
    state += (t * u)[:, None] * tl.load(b + n * ib + number, mask=there, other=0.0).to(tl.float32)[None, :]
    y = tl.sum(state * tl.load(c + n * ob + number, mask=there, other=0.0).to(tl.float32)[None, :], 1)
    if SKIP:
        y += tl.load(skip + channel, mask=here, other=0.0).to(tl.float32) * u
    tl.store(new + n * D * S + place, state, mask=inside)
    tl.store(out + n * D + channel, y.to(out.dtype.element_ty), mask=here)


@triton.jit
def wkv_kernel(k, v, decay, bonus, peak, denominator, numerator, out, peak_new, denominator_new, numerator_new, kb, vb, C,
               BC: tl.constexpr):
    """Exponents are differences to the larger of two: none is above 0."""
    channel, n = tl.program_id(0) * BC + tl.arange(0, BC), tl.program_id(1).to(tl.int64)
    there, at = channel < C, n * C + channel
    key = tl.load(k + n * kb + channel, mask=there, other=0.0).to(tl.float32)
    value = tl.load(v + n * vb + channel, mask=there, other=0.0).to(tl.float32)
    rate, own = tl.load(decay + channel, mask=there, other=0.0).to(tl.float32), key + tl.load(bonus + channel, mask=there, other=0.0).to(tl.float32)
    below, above = tl.load(denominator + at, mask=there, other=0.0), tl.load(numerator + at, mask=there, other=0.0)
    old = tl.where(below == 0, float("-inf"), tl.load(peak + at, mask=there, other=0.0))
    largest = tl.maximum(old, own)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    kept, fresh = tl.exp(old - largest), tl.exp(own - largest)
    weights = kept * below + fresh
    y = (kept * above + fresh * value) / tl.where(weights == 0, 1.0, weights)
    new = tl.maximum(old + rate, key)
    new = tl.where(new == float("-inf"), 0.0, new)
    kept, fresh = tl.exp(old - new + rate), tl.exp(key - new)
    tl.store(peak_new + at, new, mask=there)
    tl.store(denominator_new + at, kept * below + fresh, mask=there)
    tl.store(numerator_new + at, kept * above + fresh * value, mask=there)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=there)


@triton.jit
def prefix_kernel(scores, v, peak, denominator, numerator, out, peak_new, denominator_new, numerator_new, sb, vb, V, BV: tl.constexpr):
    """Some columns of the values; all programs of a row find the same peak and denominator."""
    col, n = tl.program_id(0) * BV + tl.arange(0, BV), tl.program_id(1).to(tl.int64)
    there, at = col < V, n * V + col
    score, below = tl.load(scores + n * sb).to(tl.float32), tl.load(denominator + n)
    before = tl.where(below == 0, float("-inf"), tl.load(peak + n))
    new = tl.maximum(score, before)
    new = tl.where(new == float("-inf"), 0.0, new)
    kept, weight = tl.exp(before - new), tl.exp(score - new)
    below = kept * below + weight
    value = tl.load(v + n * vb + col, mask=there, other=0.0).to(tl.float32)
    above = kept * tl.load(numerator + at, mask=there, other=0.0) + weight * value
    tl.store(numerator_new + at, above, mask=there)
    tl.store(out + at, (above / tl.where(below == 0, 1.0, below)).to(out.dtype.element_ty), mask=there)
    if tl.program_id(0) == 0:
        tl.store(peak_new + n, new)
        tl.store(denominator_new + n, below)


def gla(q: Any, k: Any, v: Any, decay: Any, value_decay: Any, memory: Any, *, scale: float = 1, before: bool = False) -> tuple[Any, Any]:
    """One position, [..., 1, k] and [..., 1, e], of gated linear attention, with gates by row, by column, both or none: y and the new memory."""
    shape = v.shape
    q, k, v, decay, value_decay = (None if x is None else heads(x, 2) for x in (q, k, v, decay, value_decay))
    out, new, grid, sizes = _made(q, k, v, shape, memory)
    gla_kernel[grid](q, k, v, decay, value_decay, plain(memory), out, new, *_lead(q, k, v, decay, value_decay), *sizes, scale,
                     **_blocks(k, v, grid), DECAY=decay is not None, VALUE_DECAY=value_decay is not None, BEFORE=before, num_warps=WARPS)
    return out, new


def delta_rule(q: Any, k: Any, v: Any, beta: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, Any]:
    """One position of the delta rule, with a gate or without: y and the new memory."""
    shape = v.shape
    q, k, v, beta, decay = *(heads(x, 2) for x in (q, k, v)), heads(beta, 1), None if decay is None else heads(decay, 1)
    out, new, grid, sizes = _made(q, k, v, shape, memory)
    delta_kernel[grid](q, k, v, beta, decay, plain(memory), out, new, *_lead(q, k, v, beta, decay), *sizes, scale,
                       **_blocks(k, v, grid), DECAY=decay is not None, num_warps=WARPS)
    return out, new


def dplr_delta_rule(q: Any, k: Any, v: Any, a: Any, b: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, Any]:
    """One position of the generalised delta rule: y and the new memory."""
    shape = v.shape
    q, k, v, a, b, decay = (heads(x, 2) for x in (q, k, v, a, b, decay))
    out, new, grid, sizes = _made(q, k, v, shape, memory)
    dplr_kernel[grid](q, k, v, a, b, decay, plain(memory), out, new, *_lead(q, k, v, a, b, decay), *sizes, scale, **_blocks(k, v, grid),
                      num_warps=WARPS)
    return out, new


def selective_scan(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, *, dt_softplus: bool = False) -> tuple[Any, Any]:
    """One position of Mamba's state space: y and the new memory, [..., d, n]."""
    shape = x.shape
    x, dt, b, c = (_one(v) for v in (x, dt, b, c))
    (N, D), S = x.shape, a.shape[-1]
    out, new = x.new_empty(shape), memory.new_empty(memory.shape)
    scan_kernel[(triton.cdiv(D, CHANNELS), N)](
        x, dt, plain(a), b, c, plain(skip), plain(memory), out, new, *(v.stride(0) for v in (x, dt, b, c)), D, S, BD=CHANNELS,
        BS=triton.next_power_of_2(S), SKIP=skip is not None, SOFTPLUS=dt_softplus, num_warps=WARPS)
    return out, new


def wkv(k: Any, v: Any, decay: Any, bonus: Any, peak: Any, denominator: Any, numerator: Any) -> tuple[Any, Any, Any, Any]:
    """One position, [..., 1, c], of RWKV-4's mean of the values: y and the new states, [..., c]."""
    shape = k.shape
    k, v = _one(k), _one(v)
    (N, C), old = k.shape, [plain(x) for x in (peak, denominator, numerator)]
    out, new = k.new_empty(shape), [x.new_empty(x.shape) for x in old]
    wkv_kernel[(triton.cdiv(C, CHANNELS), N)](k, v, plain(decay), plain(bonus), *old, out, *new, k.stride(0), v.stride(0), C, BC=CHANNELS,
                                              num_warps=1)
    return out, *new


def prefix_attention(scores: Any, v: Any, peak: Any, denominator: Any, numerator: Any) -> tuple[Any, Any, Any, Any]:
    """One position, scores [..., 1] and v [..., 1, e], of attention as a prefix scan: y and the new states, [...], [...] and [..., e]."""
    (N, V), old = _one(v).shape, [plain(x) for x in (peak, denominator, numerator)]
    flat, values = scores.reshape(-1), _one(v)
    out, new = scores.new_empty(v.shape), [x.new_empty(x.shape) for x in old]
    prefix_kernel[(triton.cdiv(V, CHANNELS), N)](flat, values, *old, out, *new, flat.stride(0), values.stride(0), V, BV=CHANNELS, num_warps=1)
    return out, *new


def _one(x: Any) -> Any:
    """[..., 1, c] as [N, c], the last axis in order in memory."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _made(q: Any, k: Any, v: Any, shape: Any, memory: Any) -> tuple[Any, Any, tuple[int, int], tuple[int, int, int]]:
    """Results, the new memory, the grid and (heads, K, V)."""
    (B, H, _, K), V = k.shape, v.shape[-1]
    bv = width(V, COLUMNS)
    if B * H * triton.cdiv(V, bv) < FEW:
        bv = 16
    return q.new_empty(shape), memory.new_empty(memory.shape), (triton.cdiv(V, bv), B * H), (H, K, V)


def _blocks(k: Any, v: Any, grid: tuple[int, int]) -> dict[str, int]:
    return {"BK": width(k.shape[-1]), "BV": width(triton.cdiv(v.shape[-1], grid[0]))}


def _lead(*operands: Any) -> tuple[int, ...]:
    """Strides of batch and head."""
    return tuple(s for x in operands for s in strides(x)[:2])
