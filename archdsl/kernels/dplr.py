"""The delta rule with gates by row, generalised, by Triton: S ← (diag(exp decay) + b aᵀ) S + k vᵀ. With what each position reads at a of the memory
in front of it, r, the memory is that of gated linear attention of two pairs at each position, (k, v) and (b, r): so are results and gradients.

What r needs is a triangular system for each chunk: r = M (Ã S + A_k v), M = (1 - A_b)⁻¹, A_x the pairs of a and x before it, Ã = a times what is left
from the start. A scan along the chunks gives S and r. Backward the same from the end: Z, the gradient of r, is Mᵀ (B̃ dS + A_qᵀ dy), where B̃ is b
times what is left of it at the end and A_q the pairs of q and b."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import CHUNK, gates, heads, inverse, launch, parts, plain, precision, product, put, rows, strides, sums, tile, width
from archdsl.kernels.gla import LEVELS, SAFE, _gradients, _halves, _results

CONFIGS = {  # element size -> columns of keys and of values, warps, stages
    2: {"solve": (32, 64, 4, 1), "scan": (256, 32, 4, 2)},
    4: {"solve": (32, 32, 4, 1), "scan": (256, 16, 4, 1)},
}


@triton.jit
def _pairs(x, y, a, C: tl.constexpr, FAST: tl.constexpr, LEVELS: tl.constexpr, BEFORE: tl.constexpr, PARTS: tl.constexpr,
           PRECISION: tl.constexpr):
    """x_i · what is left at i of y_j, for j < i."""
    i = tl.arange(0, C)
    if FAST:
        g, middle = sums(i[None, :] <= i[:, None], a, PARTS), 0.5 * tl.sum(a, 0)[None, :]
        found = product(x * tl.exp((g - a if BEFORE else g) - middle), tl.trans(y * tl.exp(middle - g)), PRECISION)
        return tl.where(i[:, None] > i[None, :], found, 0.0)
    found = tl.zeros([C, C], tl.float32)
    for level in range(LEVELS):
        of_x, of_y, same = _halves(a, level, C, BEFORE, PARTS)
        found += tl.where(same, product(x * of_x, tl.trans(y * of_y), PRECISION), 0.0)
    return found


@triton.jit(do_not_specialize=["T", "heads"])
def solve_kernel(q, k, a, b, values, decay, M, W, U, of_r, of_v, total, least, qb, qh, qt, kb, kh, kt, ab, ah, at_, bb, bh, bt, vb, vh, vt, db, dh,
                 dt, heads, T, K, V, scale, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, FAST: tl.constexpr, REVERSE: tl.constexpr,
                 LEVELS: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Of one chunk, forwards: M, W = M Ã, U = M A_k v, and b and k times what is left of them at the end. In reverse, where the values are gradients
    of y: W = Mᵀ B̃, U = Mᵀ A_qᵀ dy, and a and q times what is left from the start."""
    chunk, n = tl.program_id(0), tl.program_id(1)
    at, i, here = chunk * C, tl.arange(0, C), n.to(tl.int64) * tl.num_programs(0) + chunk
    q, k, a, b = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(a, n, heads, ab, ah), rows(b, n, heads, bb, bh)
    values, decay, start = rows(values, n, heads, vb, vh), rows(decay, n, heads, db, dh), n.to(tl.int64) * T
    fades = 0.0
    for block in range(0, K, BK):
        whole = tl.sum(gates(decay, at, dt, T, block, K, BK, C), 0)
        fades = tl.minimum(fades, tl.min(whole))
        tl.store(total + here * K + block + tl.arange(0, BK), whole, mask=block + tl.arange(0, BK) < K)
    tl.store(least + here, fades)
    if (fades > SAFE) != FAST:
        return
    by_b, by_values, own = tl.zeros([C, C], tl.float32), tl.zeros([C, C], tl.float32), tl.zeros([C], tl.float32)
    for block in range(0, K, BK):
        g = gates(decay, at, dt, T, block, K, BK, C)
        wide_b = tile(b, at, bt, T, block, K, BK, C).to(tl.float32)
        if REVERSE:
            wide_q = tile(q, at, qt, T, block, K, BK, C).to(tl.float32)
            by_values += _pairs(wide_q, wide_b, g, C, FAST, LEVELS, False, PARTS, PRECISION)
            own += tl.sum(wide_q * wide_b, 1)
        else:
            wide_a = tile(a, at, at_, T, block, K, BK, C).to(tl.float32)
            by_b += _pairs(wide_a, wide_b, g, C, FAST, LEVELS, True, PARTS, PRECISION)
            by_values += _pairs(wide_a, tile(k, at, kt, T, block, K, BK, C).to(tl.float32), g, C, FAST, LEVELS, True, PARTS, PRECISION)
    square = here * C * C + (i[:, None] * C + i[None, :])
    if REVERSE:
        solved = tl.trans(tl.load(M + square))
        by_values = scale * tl.trans(by_values + tl.where(i[:, None] == i[None, :], own[:, None], 0.0))
    else:
        solved = inverse(-by_b, C, 16).to(M.dtype.element_ty)
        tl.store(M + square, solved)
    by_values = product(solved.to(tl.float32), by_values, PRECISION).to(solved.dtype)
    for block in range(0, V, BV):
        put(U + start * V, product(by_values, tile(values, at, vt, T, block, V, BV, C), PRECISION), at, V, T, block, V, BV, C)
    for block in range(0, K, BK):
        g = gates(decay, at, dt, T, block, K, BK, C)
        ends = tl.exp(sums(i[None, :] > i[:, None], g, PARTS))
        wide_b = tile(b, at, bt, T, block, K, BK, C) * ends
        wide_a = tile(a, at, at_, T, block, K, BK, C) * tl.exp(sums(i[None, :] < i[:, None], g, PARTS))
        put(W + start * K, product(solved, (wide_b if REVERSE else wide_a).to(solved.dtype), PRECISION), at, K, T, block, K, BK, C)
        put(of_r + start * K, wide_a if REVERSE else wide_b, at, K, T, block, K, BK, C)
        if REVERSE:
            kept = tile(q, at, qt, T, block, K, BK, C) * (scale * tl.exp(sums(i[None, :] <= i[:, None], g, PARTS)))
        else:
            kept = tile(k, at, kt, T, block, K, BK, C) * ends
        put(of_v + start * K, kept, at, K, T, block, K, BK, C)


@triton.jit(do_not_specialize=["T", "heads"])
def scan_kernel(W, U, of_r, of_v, values, total, first, met, read, last, vb, vh, vt, heads, T, K, V, BK: tl.constexpr, BV: tl.constexpr,
                C: tl.constexpr, REVERSE: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr):
    """Along a sequence, or from its end: `met`, the memory in front of each chunk, or the gradient of the one behind; and r = U + W S, or Z."""
    v, n = tl.program_id(0) * BV, tl.program_id(1)
    row, col = tl.arange(0, BK), v + tl.arange(0, BV)
    inside, place = (row[:, None] < K) & (col[None, :] < V), row[:, None] * V + col[None, :]
    start, chunks, values = n.to(tl.int64) * T, tl.cdiv(T, C), rows(values, n, heads, vb, vh)
    W, U, of_r, of_v, read = W + start * K, U + start * V, of_r + start * K, of_v + start * K, read + start * V
    S = tl.zeros([BK, BV], tl.float32)
    if FIRST:
        S += tl.load(first + n.to(tl.int64) * K * V + place, mask=inside, other=0.0).to(tl.float32)
    for step in range(chunks):
        c = chunks - 1 - step if REVERSE else step
        at = c * C
        memory = S.to(met.dtype.element_ty)
        tl.store(met + (n.to(tl.int64) * chunks + c) * K * V + place, memory, mask=inside)
        r = (tile(U, at, V, T, v, V, BV, C) + product(tile(W, at, K, T, 0, K, BK, C), memory, PRECISION)).to(memory.dtype)
        put(read, r, at, V, T, v, V, BV, C)
        S *= tl.exp(tl.load(total + (n.to(tl.int64) * chunks + c) * K + row, mask=row < K, other=0.0))[:, None]
        S += product(tl.trans(tile(of_r, at, K, T, 0, K, BK, C)), r, PRECISION)
        S += product(tl.trans(tile(of_v, at, K, T, 0, K, BK, C)), tile(values, at, vt, T, v, V, BV, C), PRECISION)
    tl.store(last + n.to(tl.int64) * K * V + place, S, mask=inside)


# ---------------------------------------------------------------- the two passes
def forward(q: Any, k: Any, v: Any, a: Any, b: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, Any]:
    """y, [..., T, e] in the dtype of q, and the last memory, [..., k, e] in float32."""
    shape, lead = v.shape, q.shape[:-2]
    q, k, v, a, b, decay = (heads(x, 2) for x in (q, k, v, a, b, decay))
    met, read, last, least, _ = _carried(q, k, a, b, v, decay, None, memory, 1.0, False)
    y = _results(q, k, v, decay, met, least, scale, False, False) + _results(q, b, read, decay, None, least, scale, False, False)
    return y.view(shape), last.view(*lead, k.shape[-1], v.shape[-1])


def gradient(dy: Any, later: Any, q: Any, k: Any, v: Any, a: Any, b: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, ...]:
    """Gradients of all operands and of the first memory: those of gated linear attention, once for each kind of query and of pair."""
    shapes, lead = [x.shape for x in (q, k, v, a, b, decay)], q.shape[:-2]
    q, k, v, a, b, decay, dy = (heads(x, 2) for x in (q, k, v, a, b, decay, dy))
    met, read, _, least, M = _carried(q, k, a, b, v, decay, None, memory, 1.0, False)
    after, z, first, _, _ = _carried(q, k, a, b, dy, decay, M, later, scale, True)
    dq, dk, dg = _gradients(q, k, v, decay, met, after, least, dy, scale, False)
    da, db, more = _gradients(a, b, read, decay, met, after, least, z, 1.0, True, held=False)
    dv = _results(q, k, dy, decay, after, least, scale, True, False) + _results(a, k, z, decay, None, least, 1.0, True, True)
    dg += more
    for x, y, values, pulled, factor, before, of_x, of_y in ((q, b, read, dy, scale, False, dq, db), (a, k, v, z, 1.0, True, da, dk)):
        for whole, part in zip((of_x, of_y, dg), _gradients(x, y, values, decay, None, None, least, pulled, factor, before)):
            whole += part
    return *(x.view(s) for x, s in zip((dq, dk, dv, da, db, dg), shapes)), first.view(*lead, k.shape[-1], v.shape[-1])


def _carried(q: Any, k: Any, a: Any, b: Any, values: Any, decay: Any, M: Any, first: Any, scale: float, reverse: bool) -> tuple[Any, ...]:
    """Memories in front of the chunks (or the gradients of those behind), r (or its gradient), the last memory, how far channels fade at most in each
    chunk, and M."""
    (B, H, T, K), V, chunks, N = k.shape, values.shape[-1], triton.cdiv(k.shape[2], CHUNK), k.shape[0] * k.shape[1]
    (W, of_r, of_v), (U, read) = (k.new_empty(k.shape) for _ in range(3)), (k.new_empty(B, H, T, V) for _ in range(2))
    M = k.new_empty(N, chunks, CHUNK, CHUNK) if M is None else M
    total, least = (k.new_empty(N, chunks, n, dtype=torch.float32) for n in (K, 1))
    met, last = k.new_empty(N, chunks, K, V), k.new_empty(N, K, V, dtype=torch.float32)
    bk, bv, warps, stages = CONFIGS[k.element_size()]["solve"]
    for fast in (True, False):
        solve_kernel[(chunks, N)](
            q, k, a, b, values, decay, M, W, U, of_r, of_v, total, least, *strides(q), *strides(k), *strides(a), *strides(b), *strides(values),
            *strides(decay), H, T, K, V, scale, BK=width(K, bk), BV=width(V, bv), C=CHUNK, FAST=fast, REVERSE=reverse, LEVELS=LEVELS, PARTS=parts(k),
            PRECISION=precision(k.dtype), **launch(warps, stages))
    bk, bv, warps, stages = CONFIGS[k.element_size()]["scan"]
    bk, bv = width(K, bk), width(V, bv)
    scan_kernel[(triton.cdiv(V, bv), N)](
        W, U, of_r, of_v, values, total, plain(first), met, read, last, *strides(values), H, T, K, V, BK=bk, BV=bv, C=CHUNK, REVERSE=reverse,
        FIRST=first is not None, PRECISION=precision(k.dtype), **launch(warps, stages if bk <= 128 else 1))
    return met, read, last, least, M
