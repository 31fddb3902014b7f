"""Gated linear attention with gates by row of the memory, in two kernels: see `gla.py` for the names.

The first computes, chunk by chunk, what every pair of positions in it gives, P, [C, C], and queries and keys times what is left between them and the
ends of their chunk. The second goes along the sequence with the memory in registers: y = q S + P v and S ← exp(total) S + kᵀ v. All its operands
but S are loaded as they are, so that they stay out of registers, and no memory is stored between chunks unless somebody asks for it. Backwards the
second runs once more, to leave the memory in front of each chunk, and from the end, for the gradients of values and of the memories; then the
gradients of all chunks."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import CHUNK, gates, heads, launch, parts, plain, precision, product, put, rows, strides, sums, tile, width
from archdsl.kernels.gla import LEVELS, SAFE, _gradients, _halves

CONFIGS = {  # element size -> columns of keys or of values, warps, stages: of the pairs and along the sequence
    2: {"pairs": (32, 2, 2), "along": (64, 4, 3)},
    4: {"pairs": (32, 4, 1), "along": (16, 4, 1)},
}
PROGRAMS = 128
"""Programs along sequences that keep a card busy: fewer sequences are split into narrower ones."""


@triton.jit(do_not_specialize=["T", "heads"])
def pairs_kernel(q, k, decay, of_q, of_k, scores, totals, qb, qh, qt, kb, kh, kt, db, dh, dt, heads, T, K, scale, BK: tl.constexpr, C: tl.constexpr,
                 LEVELS: tl.constexpr, BEFORE: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Of one chunk: P, queries times what is left of the memory in front of the chunk, keys times what is left of them at its end, and the gates'
    totals."""
    chunk, n = tl.program_id(0), tl.program_id(1)
    at, i, j = chunk * C, tl.arange(0, C), tl.arange(0, BK)
    q, k, decay = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(decay, n, heads, db, dh)
    start, where = n.to(tl.int64) * T * K, n.to(tl.int64) * tl.num_programs(0) + chunk
    found, own = tl.zeros([C, C], tl.float32), tl.zeros([C], tl.float32)
    for block in range(0, K, BK):
        a = gates(decay, at, dt, T, block, K, BK, C)
        queries, keys = tile(q, at, qt, T, block, K, BK, C).to(tl.float32), tile(k, at, kt, T, block, K, BK, C).to(tl.float32)
        if not BEFORE:
            own += tl.sum(queries * keys, 1)
        total = tl.sum(a, 0)
        tl.store(totals + where * K + block + j, total, mask=j < K - block)
        if tl.min(total) > SAFE:
            g, middle = sums(i[None, :] <= i[:, None], a, PARTS), 0.5 * total[None, :]
            queries *= tl.exp((g - a if BEFORE else g) - middle)
            keys *= tl.exp(middle - g)
            found += product(queries, tl.trans(keys), PRECISION)
            queries *= tl.exp(middle)
            if PARTS == 2:
                keys *= tl.exp(middle)
            else:  # a small difference of large sums has too few digits for float32
                keys = tile(k, at, kt, T, block, K, BK, C).to(tl.float32) * tl.exp(sums(i[None, :] > i[:, None], a, PARTS))
        else:
            for level in range(LEVELS):
                left_q, left_k, same = _halves(a, level, C, BEFORE, PARTS)
                found += tl.where(same, product(queries * left_q, tl.trans(keys * left_k), PRECISION), 0.0)
            queries *= tl.exp(sums((i[None, :] < i[:, None]) if BEFORE else (i[None, :] <= i[:, None]), a, PARTS))
            keys *= tl.exp(sums(i[None, :] > i[:, None], a, PARTS))
        put(of_q + start, queries * scale, at, K, T, block, K, BK, C)
        put(of_k + start, keys, at, K, T, block, K, BK, C)
    found = scale * (tl.where(i[:, None] > i[None, :], found, 0.0) + tl.where(i[:, None] == i[None, :], own[:, None], 0.0))
    tl.store(scores + where * C * C + (i[:, None] * C + i[None, :]), found.to(scores.dtype.element_ty))


@triton.jit(do_not_specialize=["T", "heads"])
def along_kernel(read, written, scores, totals, v, first, met, last, out, vb, vh, vt, heads, T, K, V, BK: tl.constexpr, BV: tl.constexpr,
                 C: tl.constexpr, REVERSE: tl.constexpr, FIRST: tl.constexpr, KEEP: tl.constexpr, RESULTS: tl.constexpr, PRECISION: tl.constexpr):
    """Along a sequence, a block of columns of the memory: `out`, with RESULTS, and S in front of each chunk, `met`, with KEEP. In reverse keys are
    read and queries written, v are gradients of results, and `out` those of values."""
    column, n = tl.program_id(0) * BV, tl.program_id(1)
    i, row, col = tl.arange(0, C), tl.arange(0, BK), column + tl.arange(0, BV)
    inside, place = (row[:, None] < K) & (col[None, :] < V), row[:, None] * V + col[None, :]
    read, written, v = read + n.to(tl.int64) * T * K, written + n.to(tl.int64) * T * K, rows(v, n, heads, vb, vh)
    S = tl.zeros([BK, BV], tl.float32)
    if FIRST:
        S += tl.load(first + n.to(tl.int64) * K * V + place, mask=inside, other=0.0).to(tl.float32)
    chunks = tl.cdiv(T, C)
    for step in range(chunks):
        c = chunks - 1 - step if REVERSE else step
        where = n.to(tl.int64) * chunks + c
        values = tile(v, c * C, vt, T, column, V, BV, C)
        memory = S.to(values.dtype)
        if KEEP:
            tl.store(met + where * K * V + place, memory, mask=inside)
        if RESULTS:
            P = tl.load(scores + where * C * C + (i[:, None] * C + i[None, :]))
            y = product(tile(read, c * C, K, T, 0, K, BK, C), memory, PRECISION)
            y += product(tl.trans(P) if REVERSE else P, values, PRECISION)
            put(out + n.to(tl.int64) * T * V, y, c * C, V, T, column, V, BV, C)
        total = tl.load(totals + where * K + row, mask=row < K, other=0.0)
        S = S * tl.exp(total)[:, None] + product(tl.trans(tile(written, c * C, K, T, 0, K, BK, C)), values, PRECISION)
    tl.store(last + n.to(tl.int64) * K * V + place, S, mask=inside)


def pairs(q: Any, k: Any, decay: Any, scale: float, before: bool) -> tuple[Any, ...]:
    """Queries and keys of the second kernel, [N, T, K], P, [N, chunks, C, C], all in the dtype of q, and the totals, [N, chunks, K] in float32."""
    (B, H, T, K), chunks = k.shape, triton.cdiv(k.shape[2], CHUNK)
    of_q, of_k = q.new_empty(B * H, T, K), q.new_empty(B * H, T, K)
    scores, totals = q.new_empty(B * H, chunks, CHUNK, CHUNK), q.new_empty(B * H, chunks, K, dtype=torch.float32)
    bk, warps, stages = CONFIGS[q.element_size()]["pairs"]
    pairs_kernel[(chunks, B * H)](
        q, k, decay, of_q, of_k, scores, totals, *strides(q), *strides(k), *strides(decay), H, T, K, scale, BK=width(K, bk), C=CHUNK, LEVELS=LEVELS,
        BEFORE=before, PARTS=parts(q), PRECISION=precision(q.dtype), **launch(warps, stages))
    return of_q, of_k, scores, totals


def along(found: tuple[Any, ...], v: Any, first: Any, reverse: bool, keep: bool = False, results: bool = True) -> tuple[Any, Any, Any]:
    """The results, [N, T, V] in the dtype of v, or None; the memories in front of all chunks, [N, chunks, K, V], where `keep`, or None; the last,
    [N, K, V] in float32. `found`: what `pairs` gave."""
    of_q, of_k, scores, totals = found
    (B, H, T, V), K = v.shape, of_k.shape[-1]
    bk, (most, warps, stages) = width(K), CONFIGS[v.element_size()]["along"]
    bv = width(V, most if bk <= 128 else max(16, most * 128 // bk))
    while bv > 16 and B * H * triton.cdiv(V, bv) < PROGRAMS:
        bv //= 2
    out = v.new_empty(v.shape) if results else None
    met = v.new_empty(B * H, triton.cdiv(T, CHUNK), K, V) if keep else None
    last = v.new_empty(B * H, K, V, dtype=torch.float32)
    along_kernel[(triton.cdiv(V, bv), B * H)](
        *((of_k, of_q) if reverse else (of_q, of_k)), scores, totals, v, plain(first), met, last, out, *strides(v), H, T, K, V, BK=bk, BV=bv,
        C=CHUNK, REVERSE=reverse, FIRST=first is not None, KEEP=keep, RESULTS=results, PRECISION=precision(v.dtype),
        **launch(warps, max(1, min(stages, round(stages * 128 / bk))), loaded=v.element_size() == 2))
    return out, met, last


# ---------------------------------------------------------------- the two passes
def forward(q: Any, k: Any, v: Any, decay: Any, value_decay: Any, memory: Any, *, scale: float = 1, before: bool = False) -> tuple[Any, Any]:
    """y, [..., T, e] in the dtype of q, and the last memory, [..., k, e] in float32. Gates by row or by column: those by column are the same sums
    with gradients of y in the place of queries, values in that of keys and the other way round, so that y is the gradient of queries."""
    shape, lead = v.shape, q.shape[:-2]
    q, k, v, gate = (heads(x, 2) for x in (q, k, v, decay if value_decay is None else value_decay))
    if value_decay is None:
        y, _, last = along(pairs(q, k, gate, scale, before), v, memory, False)
    else:
        found = pairs(v, v, gate, scale, before)  # for the memories alone
        _, met, last = along(found, k, _turned(memory), False, keep=True, results=False)
        (y,), last = _gradients(None, v, k, gate, met, None, found[-1], q, scale, before), last.mT
    return y.view(shape), last.reshape(*lead, k.shape[-1], v.shape[-1])


def gradient(dy: Any, later: Any, q: Any, k: Any, v: Any, decay: Any, value_decay: Any, memory: Any, *, scale: float = 1,
             before: bool = False) -> tuple[Any, ...]:
    """Gradients of q, k, v, decay, value_decay and the first memory, None for a gate that is absent."""
    shapes, lead = [x.shape for x in (q, k, v)], q.shape[:-2]
    q, k, v, gate, dy = (heads(x, 2) for x in (q, k, v, decay if value_decay is None else value_decay, dy))
    if value_decay is None:
        found = pairs(q, k, gate, scale, before)
        _, met, _ = along(found, v, memory, False, keep=True, results=False)
        dv, after, first = along(found, dy, later, True, keep=True)
        dq, dk, dgate = _gradients(q, k, v, gate, met, after, found[-1], dy, scale, before)
    else:
        found = pairs(dy, v, gate, scale, before)
        dq, met, _ = along(found, k, _turned(memory), False, keep=True)
        dk, after, first = along(found, q, _turned(later), True, keep=True)
        (_, dv, dgate), first = _gradients(dy, v, k, gate, met, after, found[-1], q, scale, before), first.mT
    dq, dk, dv = (x.view(s) for x, s in zip((dq, dk, dv), shapes))
    dgate, first = dgate.view(*lead, *dgate.shape[2:]), first.reshape(*lead, k.shape[-1], v.shape[-1])
    return dq, dk, dv, *((dgate, None) if value_decay is None else (None, dgate)), first


def _turned(memory: Any) -> Any:
    return None if memory is None else memory.mT
