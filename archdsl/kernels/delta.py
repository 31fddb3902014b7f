"""The delta rule, with and without a gate for each head, in chunks of 64 positions, by Triton: arxiv 2406.06484, section 3, and 2412.06464.

In a chunk with the memory S in front of it, g the sums of its gates and G_ij = exp(g_i - g_j) k_i · k_j below the diagonal, what position i finds
wrong in the memory is e = M (v - diag(exp g) k S), M = (1 + G diag(β))⁻¹, and everything is made of it:
y = scale (diag(exp g) q S + P diag(β) e), P_ij = exp(g_i - g_j) q_i · k_j for j ≤ i, and S ← exp(g_C) S + (β exp(g_C - g) k)ᵀ e.

Forward: U = M v and W = M diag(exp g) k of all chunks; along the sequence e = U - W S and S, a block of columns of S in registers; the results of all
chunks. Backward, with Y = Mᵀ diag(β) D: D, the gradient of β e, and that of S from the end; then the gradients of all chunks: that of v is Y, that of
G is - Y eᵀ diag(β). Nothing is divided by β, which may be 0."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import (
    CHUNK,
    between,
    column,
    floored,
    heads,
    inverse,
    launch,
    parts,
    plain,
    precision,
    product,
    put,
    rows,
    strides,
    tile,
    width,
)

CONFIGS = {  # element size -> columns of keys and of values, warps, stages
    2: {"solve": (64, 64, 4, 1), "scan": (256, 64, 4, 2), "back": (256, 64, 4, 1), "results": (64, 128, 4, 2), "pairs": (64, 64, 4, 1),
        "gradients": (64, 64, 4, 2)},
    4: {"solve": (32, 32, 4, 1), "scan": (256, 16, 4, 1), "back": (256, 16, 4, 1), "results": (32, 64, 4, 1), "pairs": (32, 32, 4, 1),
        "gradients": (32, 32, 4, 1)},
}
PROGRAMS = 256
"""Programs along sequences that keep a card busy: fewer are split into narrower ones, 32 columns wide."""
SUBBLOCK = 16
WIDEST = 256
"""Columns of keys: a program along the sequence has them all in registers."""


@triton.jit
def _gates(decay, n, heads, db, dh, dt, at, T, C: tl.constexpr, GATED: tl.constexpr):
    """The logarithms of a chunk's gates, [C]; zeros without."""
    if GATED:
        return floored(column(rows(decay, n, heads, db, dh), at, dt, T, C))
    return tl.zeros([C], tl.float32)


@triton.jit
def _after(a):
    """What is left at the end of a chunk of each position."""
    return tl.exp(tl.cumsum(a, 0, reverse=True) - a)


@triton.jit(do_not_specialize=["T", "heads"])
def solve_kernel(k, v, beta, decay, W, U, M, kb, kh, kt, vb, vh, vt, bb, bh, bt, db, dh, dt, heads, T, K, V,
                 BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr, GATED: tl.constexpr, PARTS: tl.constexpr,
                 PRECISION: tl.constexpr):
    """W, [N, T, K], U, [N, T, V], and M, [N, chunks, C, C], of one chunk."""
    chunk, n = tl.program_id(0), tl.program_id(1)
    at, i = chunk * C, tl.arange(0, C)
    k, v = rows(k, n, heads, kb, kh), rows(v, n, heads, vb, vh)
    weights = column(rows(beta, n, heads, bb, bh), at, bt, T, C)
    a = _gates(decay, n, heads, db, dh, dt, at, T, C, GATED)
    pairs = tl.zeros([C, C], tl.float32)
    for block in range(0, K, BK):
        keys = tile(k, at, kt, T, block, K, BK, C)
        pairs += product(keys, tl.trans(keys), PRECISION)
    if GATED:
        pairs *= between(a, C, PARTS)
    found = inverse(tl.where(i[:, None] > i[None, :], pairs * weights[None, :], 0.0), C, SIZE)
    solved = found.to(U.dtype.element_ty)
    tl.store(M + (n.to(tl.int64) * tl.num_programs(0) + chunk) * C * C + (i[:, None] * C + i[None, :]), solved)
    for block in range(0, V, BV):
        put(U + n.to(tl.int64) * T * V, product(solved, tile(v, at, vt, T, block, V, BV, C), PRECISION), at, V, T, block, V, BV, C)
    if GATED:
        solved = (found * tl.exp(tl.cumsum(a, 0))[None, :]).to(U.dtype.element_ty)
    for block in range(0, K, BK):
        put(W + n.to(tl.int64) * T * K, product(solved, tile(k, at, kt, T, block, K, BK, C), PRECISION), at, K, T, block, K, BK, C)


@triton.jit(do_not_specialize=["T", "heads"])
def scan_kernel(k, beta, decay, W, U, first, met, wrong, last, kb, kh, kt, bb, bh, bt, db, dh, dt, heads, T, K, V,
                BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr):
    """Along a sequence: `met`, the memory in front of each chunk, and `wrong`, e."""
    v, n = tl.program_id(0) * BV, tl.program_id(1)
    row, col = tl.arange(0, BK), v + tl.arange(0, BV)
    inside, place = (row[:, None] < K) & (col[None, :] < V), row[:, None] * V + col[None, :]
    k, W, U, wrong = rows(k, n, heads, kb, kh), W + n.to(tl.int64) * T * K, U + n.to(tl.int64) * T * V, wrong + n.to(tl.int64) * T * V
    beta, chunks = rows(beta, n, heads, bb, bh), tl.cdiv(T, C)
    S = tl.zeros([BK, BV], tl.float32)
    if FIRST:
        S += tl.load(first + n.to(tl.int64) * K * V + place, mask=inside, other=0.0).to(tl.float32)
    for c in range(chunks):
        at = c * C
        memory = S.to(met.dtype.element_ty)
        tl.store(met + (n.to(tl.int64) * chunks + c) * K * V + place, memory, mask=inside)
        e = tile(U, at, V, T, v, V, BV, C) - product(tile(W, at, K, T, 0, K, BK, C), memory, PRECISION)
        put(wrong, e, at, V, T, v, V, BV, C)
        weights = column(beta, at, bt, T, C)
        if GATED:
            a = _gates(decay, n, heads, db, dh, dt, at, T, C, GATED)
            weights *= _after(a)
            S *= tl.exp(tl.sum(a, 0))
        S += product(tl.trans(tile(k, at, kt, T, 0, K, BK, C)), (e * weights[:, None]).to(memory.dtype), PRECISION)
    tl.store(last + n.to(tl.int64) * K * V + place, S, mask=inside)


@triton.jit(do_not_specialize=["T", "heads"])
def results_kernel(q, k, beta, decay, met, x, out, qb, qh, qt, kb, kh, kt, bb, bh, bt, db, dh, dt, xb, xh, xt, heads, T, K, V, scale,
                   BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, REVERSE: tl.constexpr, PARTS: tl.constexpr,
                   PRECISION: tl.constexpr):
    """The results of one chunk, x = e. In reverse what its own results pull of D: scale Pᵀ x, where x are their gradients."""
    first, chunk, n = tl.program_id(0) * BV, tl.program_id(1), tl.program_id(2)
    at, i = chunk * C, tl.arange(0, C)
    q, k, x = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(x, n, heads, xb, xh)
    a = _gates(decay, n, heads, db, dh, dt, at, T, C, GATED)
    pairs, y = tl.zeros([C, C], tl.float32), tl.zeros([C, BV], tl.float32)
    for block in range(0, K, BK):
        queries = tile(q, at, qt, T, block, K, BK, C)
        pairs += product(queries, tl.trans(tile(k, at, kt, T, block, K, BK, C)), PRECISION)
        if not REVERSE:
            memory = tile(met + (n.to(tl.int64) * tl.num_programs(1) + chunk) * K * V, block, V, K, first, V, BV, BK)
            y += product(queries, memory, PRECISION)
    if GATED:
        pairs *= between(a, C, PARTS)
        if not REVERSE:
            y *= tl.exp(tl.cumsum(a, 0))[:, None]
    pairs = tl.where(i[:, None] >= i[None, :], pairs, 0.0)
    own = tile(x, at, xt, T, first, V, BV, C)
    if REVERSE:
        y += product(tl.trans(pairs.to(own.dtype)), own, PRECISION)
    else:
        weights = column(rows(beta, n, heads, bb, bh), at, bt, T, C)
        y += product((pairs * weights[None, :]).to(own.dtype), own, PRECISION)
    put(out + n.to(tl.int64) * T * V, y * scale, at, V, T, first, V, BV, C)


# ---------------------------------------------------------------- forwards
def forward(q: Any, k: Any, v: Any, beta: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, Any]:
    """y, [..., T, e] in the dtype of q, and the last memory, [..., k, e] in float32."""
    shape, lead = v.shape, q.shape[:-2]
    q, k, v, beta, decay = given(q, k, v, beta, decay)
    W, U, _ = solved(k, v, beta, decay)
    met, wrong, last = scanned(k, beta, decay, W, U, memory)
    return results(q, k, beta, decay, met, wrong, scale, False).view(shape), last.view(*lead, k.shape[-1], v.shape[-1])


def given(q: Any, k: Any, v: Any, beta: Any, decay: Any) -> tuple[Any, ...]:
    return (*(heads(x, 2) for x in (q, k, v)), heads(beta, 1), None if decay is None else heads(decay, 1))


def solved(k: Any, v: Any, beta: Any, decay: Any) -> tuple[Any, Any, Any]:
    """W, U and M of all chunks. Forwards M is of no use: to store it takes less time than to compile a second kernel."""
    (B, H, T, K), V, chunks = k.shape, v.shape[-1], triton.cdiv(k.shape[2], CHUNK)
    W, U, M = k.new_empty(k.shape), v.new_empty(v.shape), k.new_empty(B * H, chunks, CHUNK, CHUNK)
    bk, bv, warps, stages = CONFIGS[k.element_size()]["solve"]
    solve_kernel[(chunks, B * H)](
        k, v, beta, decay, W, U, M, *strides(k), *strides(v), *strides(beta), *strides(decay), H, T, K, V, BK=width(K, bk), BV=width(V, bv), C=CHUNK,
        SIZE=SUBBLOCK, GATED=decay is not None, PARTS=parts(k), PRECISION=precision(k.dtype), **launch(warps, stages))
    return W, U, M


def scanned(k: Any, beta: Any, decay: Any, W: Any, U: Any, first: Any) -> tuple[Any, Any, Any]:
    """The memory in front of each chunk, [N, chunks, K, V], e, and the last memory, [N, K, V] in float32."""
    (B, H, T, K), V = k.shape, U.shape[-1]
    met, wrong, last = k.new_empty(B * H, triton.cdiv(T, CHUNK), K, V), torch.empty_like(U), k.new_empty(B * H, K, V, dtype=torch.float32)
    bk, bv, warps, stages = along("scan", k, V)
    scan_kernel[(triton.cdiv(V, bv), B * H)](
        k, beta, decay, W, U, plain(first), met, wrong, last, *strides(k), *strides(beta), *strides(decay), H, T, K, V, BK=bk, BV=bv,
        C=CHUNK, GATED=decay is not None, FIRST=first is not None, PRECISION=precision(k.dtype), **launch(warps, stages, k.element_size() == 2))
    return met, wrong, last


def results(q: Any, k: Any, beta: Any, decay: Any, met: Any, x: Any, scale: float, reverse: bool) -> Any:
    (B, H, T, K), V = q.shape, x.shape[-1]
    out = q.new_empty(x.shape)
    bk, bv, warps, stages = CONFIGS[q.element_size()]["results"]
    bk, bv = width(K, bk), width(V, bv)
    results_kernel[(triton.cdiv(V, bv), triton.cdiv(T, CHUNK), B * H)](
        q, k, beta, decay, met, x, out, *strides(q), *strides(k), *strides(beta), *strides(decay), *strides(x), H, T, K, V, scale, BK=bk, BV=bv,
        C=CHUNK, GATED=decay is not None, REVERSE=reverse, PARTS=parts(q), PRECISION=precision(q.dtype), **launch(warps, stages))
    return out


def along(name: str, x: Any, V: int) -> tuple[int, int, int, int]:
    """Blocks, warps and stages of a kernel along sequences, which has all columns of keys: as narrow as it takes to keep the card busy, and as the
    registers want it."""
    (B, H, _, K), (most, bv, warps, stages) = x.shape, CONFIGS[x.element_size()][name]
    bk, bv = width(K, most), width(V, bv)
    if bv > 32 and (B * H * triton.cdiv(V, bv) < PROGRAMS or bk > 128):
        bv = 32
        if bk <= 128 and x.element_size() == 2:
            stages = 3
        if name == "scan" and 2 * B * H * triton.cdiv(V, bv) < PROGRAMS:
            bv = 16
    if name == "back" and bk > 128:  # two more blocks of operands: with 32 columns the assembler gives up and keeps nearly all of it in memory
        bv = 16
    return bk, bv, warps, stages
