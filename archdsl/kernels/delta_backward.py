"""The gradients of the delta rule: see `delta.py` for the names."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import CHUNK, between, column, heads, launch, parts, plain, precision, product, put, rows, strides, tile, width
from archdsl.kernels.delta import CONFIGS, _after, _gates, along, given, results, scanned, solved


@triton.jit(do_not_specialize=["T", "heads"])
def back_kernel(q, k, beta, decay, W, dy, local, later, after, pulled, first, qb, qh, qt, kb, kh, kt, bb, bh, bt, db, dh, dt, yb, yh, yt,
                heads, T, K, V, scale, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, LATER: tl.constexpr,
                PRECISION: tl.constexpr):
    """From the end of a sequence: `after`, the gradient of the memory behind each chunk, and `pulled`, D, of which a chunk's own results gave
    `local`."""
    v, n = tl.program_id(0) * BV, tl.program_id(1)
    row, col = tl.arange(0, BK), v + tl.arange(0, BV)
    inside, place = (row[:, None] < K) & (col[None, :] < V), row[:, None] * V + col[None, :]
    q, k, dy, beta = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(dy, n, heads, yb, yh), rows(beta, n, heads, bb, bh)
    W, local, pulled = W + n.to(tl.int64) * T * K, local + n.to(tl.int64) * T * V, pulled + n.to(tl.int64) * T * V
    chunks = tl.cdiv(T, C)
    S = tl.zeros([BK, BV], tl.float32)
    if LATER:
        S += tl.load(later + n.to(tl.int64) * K * V + place, mask=inside, other=0.0).to(tl.float32)
    for step in range(chunks):
        c = chunks - 1 - step
        at = c * C
        memory = S.to(after.dtype.element_ty)
        tl.store(after + (n.to(tl.int64) * chunks + c) * K * V + place, memory, mask=inside)
        D = product(tile(k, at, kt, T, 0, K, BK, C), memory, PRECISION)
        own = tile(dy, at, yt, T, v, V, BV, C)
        if GATED:
            a = _gates(decay, n, heads, db, dh, dt, at, T, C, GATED)
            D *= _after(a)[:, None]
            S *= tl.exp(tl.sum(a, 0))
            own = (own * (scale * tl.exp(tl.cumsum(a, 0)))[:, None]).to(memory.dtype)
        else:
            own = (own.to(tl.float32) * scale).to(memory.dtype)
        D += tile(local, at, V, T, v, V, BV, C)
        put(pulled, D, at, V, T, v, V, BV, C)
        S += product(tl.trans(tile(q, at, qt, T, 0, K, BK, C)), own, PRECISION)
        S -= product(tl.trans(tile(W, at, K, T, 0, K, BK, C)), (D * column(beta, at, bt, T, C)[:, None]).to(memory.dtype), PRECISION)
    tl.store(first + n.to(tl.int64) * K * V + place, S, mask=inside)


@triton.jit(do_not_specialize=["T", "heads"])
def pairs_kernel(q, k, beta, decay, M, wrong, pulled, dy, dv, dbeta, da, of_p, of_g, qb, qh, qt, kb, kh, kt, bb, bh, bt, db, dh, dt, yb, yh, yt,
                 heads, T, K, V, scale, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, PARTS: tl.constexpr,
                 PRECISION: tl.constexpr):
    """Of one chunk: the gradients of the values, Y, and of beta; those of all q_i · k_j and k_i · k_j, `of_p` and `of_g`; and what these pairs of
    positions have of the gates between them."""
    chunk, n = tl.program_id(0), tl.program_id(1)
    at, i = chunk * C, tl.arange(0, C)
    q, k, dy = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(dy, n, heads, yb, yh)
    wrong, pulled, dv = wrong + n.to(tl.int64) * T * V, pulled + n.to(tl.int64) * T * V, dv + n.to(tl.int64) * T * V
    square = (n.to(tl.int64) * tl.num_programs(0) + chunk) * C * C + (i[:, None] * C + i[None, :])
    weights = column(rows(beta, n, heads, bb, bh), at, bt, T, C)
    a = _gates(decay, n, heads, db, dh, dt, at, T, C, GATED)
    inverse = tl.trans(tl.load(M + square))
    of_results, of_values, of_beta = tl.zeros([C, C], tl.float32), tl.zeros([C, C], tl.float32), tl.zeros([C], tl.float32)
    for block in range(0, V, BV):
        D, e = tile(pulled, at, V, T, block, V, BV, C).to(tl.float32), tile(wrong, at, V, T, block, V, BV, C)
        of_beta += tl.sum(D * e, 1)
        Y = product(inverse, (D * weights[:, None]).to(e.dtype), PRECISION).to(e.dtype)
        put(dv, Y, at, V, T, block, V, BV, C)
        of_results += product(tile(dy, at, yt, T, block, V, BV, C), tl.trans(e), PRECISION)
        of_values += product(Y, tl.trans(e), PRECISION)
    of_q, of_k = tl.zeros([C, C], tl.float32), tl.zeros([C, C], tl.float32)
    for block in range(0, K, BK):
        keys = tile(k, at, kt, T, block, K, BK, C)
        of_k += product(keys, tl.trans(keys), PRECISION)
        if GATED:
            of_q += product(tile(q, at, qt, T, block, K, BK, C), tl.trans(keys), PRECISION)
    if GATED:
        left = between(a, C, PARTS)
        of_results *= left
        of_values *= left
    of_results = tl.where(i[:, None] >= i[None, :], of_results * (scale * weights)[None, :], 0.0)
    below = tl.where(i[:, None] > i[None, :], of_values, 0.0)
    tl.store(dbeta + n.to(tl.int64) * T + at + i, of_beta - tl.sum(below * of_k, 0), mask=i < T - at)
    below *= -weights[None, :]
    tl.store(of_p + square, of_results.to(of_p.dtype.element_ty))
    tl.store(of_g + square, below.to(of_g.dtype.element_ty))
    if GATED:
        ways = tl.where(i[:, None] > i[None, :], of_results * of_q, 0.0) + below * of_k
        tl.store(da + n.to(tl.int64) * T + at + i, tl.cumsum(tl.sum(ways, 1) - tl.sum(ways, 0), 0, reverse=True), mask=i < T - at)


@triton.jit(do_not_specialize=["T", "heads"])
def gradients_kernel(q, k, beta, decay, met, after, wrong, dv, dy, of_p, of_g, dq, dk, da, qb, qh, qt, kb, kh, kt, bb, bh, bt, db, dh, dt, yb, yh, yt,
                     heads, T, K, V, scale, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, PRECISION: tl.constexpr):
    """The gradients of one chunk's queries and keys, a block of columns, and what the memory has of its gates."""
    block, chunk, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    chunks, at, i, first = tl.num_programs(1), chunk * C, tl.arange(0, C), tl.program_id(0) * BK
    q, k, dy = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(dy, n, heads, yb, yh)
    wrong, dv = wrong + n.to(tl.int64) * T * V, dv + n.to(tl.int64) * T * V
    met, after = met + (n.to(tl.int64) * chunks + chunk) * K * V, after + (n.to(tl.int64) * chunks + chunk) * K * V
    square = (n.to(tl.int64) * chunks + chunk) * C * C + (i[:, None] * C + i[None, :])
    read, written, taken = tl.zeros([C, BK], tl.float32), tl.zeros([C, BK], tl.float32), tl.zeros([C, BK], tl.float32)
    held = tl.zeros([BK], tl.float32)
    for col in range(0, V, BV):
        memory, later = tile(met, first, V, K, col, V, BV, BK), tile(after, first, V, K, col, V, BV, BK)
        read += product(tile(dy, at, yt, T, col, V, BV, C), tl.trans(memory), PRECISION)
        written += product(tile(wrong, at, V, T, col, V, BV, C), tl.trans(later), PRECISION)
        taken += product(tile(dv, at, V, T, col, V, BV, C), tl.trans(memory), PRECISION)
        if GATED:
            held += tl.sum(memory.to(tl.float32) * later.to(tl.float32), 1)
    weights = column(rows(beta, n, heads, bb, bh), at, bt, T, C)
    queries, keys = tile(q, at, qt, T, first, K, BK, C), tile(k, at, kt, T, first, K, BK, C)
    read *= scale
    if GATED:
        a = _gates(decay, n, heads, db, dh, dt, at, T, C, GATED)
        start = tl.exp(tl.cumsum(a, 0))
        read *= start[:, None]
        taken *= start[:, None]
        weights *= _after(a)
    written *= weights[:, None]
    if GATED:
        wide = keys.to(tl.float32)
        ends = tl.sum(wide * written, 1)
        ways = tl.sum(read * queries.to(tl.float32) - wide * taken, 1) - ends
        behind = tl.exp(tl.sum(a, 0)) * tl.sum(held, 0) + tl.sum(ends, 0)
        tl.store(da + (block.to(tl.int64) * tl.num_programs(2) + n) * T + at + i, tl.cumsum(ways, 0, reverse=True) + behind, mask=i < T - at)
    p, g = tl.load(of_p + square), tl.load(of_g + square)
    put(dq + n.to(tl.int64) * T * K, read + product(p, keys, PRECISION), at, K, T, first, K, BK, C)
    written += product(tl.trans(p), queries, PRECISION) - taken + product(tl.trans(g), keys, PRECISION)
    put(dk + n.to(tl.int64) * T * K, written + product(g, keys, PRECISION), at, K, T, first, K, BK, C)


def gradient(dy: Any, later: Any, q: Any, k: Any, v: Any, beta: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, ...]:
    """Gradients of q, k, v, beta, decay and the first memory."""
    lead, gates = q.shape[:-2], beta.shape
    (q, k, v, beta, decay), dy = given(q, k, v, beta, decay), heads(dy, 2)
    W, U, M = solved(k, v, beta, decay)
    met, wrong, _ = scanned(k, beta, decay, W, U, memory)
    after, pulled, first = _back(q, k, beta, decay, W, dy, results(q, k, beta, decay, None, dy, scale, True), later, scale)
    bk = width(k.shape[-1], CONFIGS[k.element_size()]["gradients"][0])
    da = None if decay is None else beta.new_empty(1 + triton.cdiv(k.shape[-1], bk), k.shape[0] * k.shape[1], k.shape[2], dtype=torch.float32)
    dv, dbeta, of_p, of_g = _pairs(q, k, beta, decay, M, wrong, pulled, dy, da, scale)
    dq, dk = _gradients(q, k, beta, decay, met, after, wrong, dv, dy, of_p, of_g, da, scale)
    dq, dk, dv = (x.view(*lead, *x.shape[2:]) for x in (dq, dk, dv))
    return dq, dk, dv, dbeta.view(gates), None if da is None else da.sum(0).view(gates), first.view(*lead, k.shape[-1], v.shape[-1])


def _pairs(q: Any, k: Any, beta: Any, decay: Any, M: Any, wrong: Any, pulled: Any, dy: Any, da: Any, scale: float) -> tuple[Any, ...]:
    """dv, dbeta and the gradients of all products of queries and of keys with keys, [N, chunks, C, C]; of the gates' the first part, in da."""
    (B, H, T, K), V, chunks = k.shape, dy.shape[-1], M.shape[1]
    dv, dbeta = k.new_empty(dy.shape), k.new_empty(B * H, T, dtype=torch.float32)
    of_p, of_g = (torch.empty_like(M) for _ in range(2))
    bk, bv, warps, stages = CONFIGS[k.element_size()]["pairs"]
    pairs_kernel[(chunks, B * H)](
        q, k, beta, decay, M, wrong, pulled, dy, dv, dbeta, da, of_p, of_g, *strides(q), *strides(k), *strides(beta), *strides(decay), *strides(dy),
        H, T, K, V, scale, BK=width(K, bk), BV=width(V, bv), C=CHUNK, GATED=decay is not None, PARTS=parts(k), PRECISION=precision(k.dtype),
        **launch(warps, stages))
    return dv, dbeta, of_p, of_g


def _gradients(q: Any, k: Any, beta: Any, decay: Any, met: Any, after: Any, wrong: Any, dv: Any, dy: Any, of_p: Any, of_g: Any, da: Any,
               scale: float) -> tuple[Any, Any]:
    """dq and dk; of the gates' the other parts, in da."""
    (B, H, T, K), V, chunks = k.shape, dy.shape[-1], met.shape[1]
    dq, dk = q.new_empty(q.shape), k.new_empty(k.shape)
    bk, bv, warps, stages = CONFIGS[k.element_size()]["gradients"]
    bk = width(K, bk)
    gradients_kernel[(triton.cdiv(K, bk), chunks, B * H)](
        q, k, beta, decay, met, after, wrong, dv, dy, of_p, of_g, dq, dk, None if da is None else da[1:], *strides(q), *strides(k), *strides(beta),
        *strides(decay), *strides(dy), H, T, K, V, scale, BK=bk, BV=width(V, bv), C=CHUNK, GATED=decay is not None, PRECISION=precision(k.dtype),
        **launch(warps, stages, k.element_size() == 2))
    return dq, dk


def _back(q: Any, k: Any, beta: Any, decay: Any, W: Any, dy: Any, local: Any, later: Any, scale: float) -> tuple[Any, Any, Any]:
    """The gradients of the memories behind the chunks, [N, chunks, K, V], D, and the gradient of the first memory, [N, K, V] in float32."""
    (B, H, T, K), V = k.shape, dy.shape[-1]
    after, pulled = k.new_empty(B * H, triton.cdiv(T, CHUNK), K, V), local.new_empty(local.shape)
    first = k.new_empty(B * H, K, V, dtype=torch.float32)
    bk, bv, warps, stages = along("back", k, V)
    back_kernel[(triton.cdiv(V, bv), B * H)](
        q, k, beta, decay, W, dy, local, plain(later), after, pulled, first, *strides(q), *strides(k), *strides(beta), *strides(decay),
        *strides(dy), H, T, K, V, scale, BK=bk, BV=bv, C=CHUNK, GATED=decay is not None, LATER=later is not None,
        PRECISION=precision(k.dtype), **launch(warps, stages, k.element_size() == 2))
    return after, pulled, first
