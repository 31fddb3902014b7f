"""The chunks of gated linear attention with gates by row of the memory, 64 positions each, by Triton: arxiv 2312.06635, section 4. `gla_along.py` has
the two passes; the generalised delta rule uses these kernels too.

Within a chunk position i sees j through exp(g_i - g_j), g the sums of its gates. Where no channel fades by more than `SAFE` over the chunk it is a
product of exp(g_i - m) and exp(m - g_j), m the middle, and all pairs are one product of matrices. Else halves of halves: pairs on either side of
the middle of 2, 4, …, 64 positions, so that no exponent is above 0, however small the gates are."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from archdsl.kernels.chunks import CHUNK, gates, launch, parts, precision, product, put, rows, strides, sums, tile, width

LEVELS = CHUNK.bit_length() - 1
SAFE = tl.constexpr(-80.0)
"""A channel's logarithm over a chunk down to which products of its two factors stay inside of float32, those that are not used too."""

CONFIGS = {  # element size -> columns of keys and of values, warps, stages: of the results and the gradients
    2: {"results": (32, 128, 4, 2), "gradients": (32, 64, 4, 2)},
    4: {"results": (32, 64, 4, 1), "gradients": (32, 32, 4, 1)},
}


@triton.jit
def _fast(least, n, chunk, chunks, blocks, BLOCKS: tl.constexpr):
    """Whether no channel of a chunk fades below `SAFE`."""
    i = tl.arange(0, BLOCKS)
    return tl.min(tl.load(least + (n * chunks + chunk) * blocks + i, mask=i < blocks, other=0.0)) > SAFE


@triton.jit
def _halves(a, level, C: tl.constexpr, BEFORE: tl.constexpr, PARTS: tl.constexpr):
    """Of queries behind the middle of 2^(level + 1) positions and of keys before it, [C, K], what is left on the way between them and the middle; and
    which pairs, [C (i), C (j)], lie in the same positions."""
    i = tl.arange(0, C)
    late, same = (i & (1 << level)) != 0, (i[:, None] >> (level + 1)) == (i[None, :] >> (level + 1))
    passed = (i[None, :] < i[:, None]) if BEFORE else (i[None, :] <= i[:, None])
    ways = same & (late[:, None] == late[None, :]) & tl.where(late[:, None], passed, i[None, :] > i[:, None])
    left = tl.exp(sums(ways, a, PARTS))
    return tl.where(late[:, None], left, 0.0), tl.where(late[:, None], 0.0, left), same


@triton.jit(do_not_specialize=["T", "heads"])
def results_kernel(q, k, v, decay, met, least, out, qb, qh, qt, kb, kh, kt, vb, vh, vt, db, dh, dt, heads, T, K, V, blocks, scale,
                   BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, BLOCKS: tl.constexpr, FAST: tl.constexpr, LEVELS: tl.constexpr,
                   REVERSE: tl.constexpr, BEFORE: tl.constexpr, STATES: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """The results of one chunk, from the memory in front of it, `met`, and from its own pairs of positions. In reverse the gradients of its values:
    v are those of the results, `met` that of the memory behind the chunk, and keys stand where queries did. FAST leaves the chunks alone that
    fade too much for one product, and is followed by the one that computes these. Without STATES of the chunk's own pairs alone."""
    column, chunk, n = tl.program_id(0) * BV, tl.program_id(1), tl.program_id(2)
    chunks, at, i = tl.num_programs(1), chunk * C, tl.arange(0, C)
    if _fast(least, n, chunk, chunks, blocks, BLOCKS) != FAST:
        return
    q, k, v, decay = rows(q, n, heads, qb, qh), rows(k, n, heads, kb, kh), rows(v, n, heads, vb, vh), rows(decay, n, heads, db, dh)
    y = tl.zeros([C, BV], tl.float32)
    scores = tl.zeros([C, C], tl.float32)
    own = tl.zeros([C], tl.float32)
    for block in range(0, K, BK):
        a = gates(decay, at, dt, T, block, K, BK, C)
        queries, keys = tile(q, at, qt, T, block, K, BK, C).to(tl.float32), tile(k, at, kt, T, block, K, BK, C).to(tl.float32)
        if not BEFORE:
            own += tl.sum(queries * keys, 1)
        if FAST:
            g, middle = sums(i[None, :] <= i[:, None], a, PARTS), 0.5 * tl.sum(a, 0)[None, :]
            queries *= tl.exp((g - a if BEFORE else g) - middle)
            keys *= tl.exp(middle - g)
            scores += tl.where(i[:, None] > i[None, :], product(queries, tl.trans(keys), PRECISION), 0.0)
            if STATES:
                read = (keys if REVERSE else scale * queries) * tl.exp(middle)
        else:
            for level in range(LEVELS):
                of_q, of_k, same = _halves(a, level, C, BEFORE, PARTS)
                scores += tl.where(same, product(queries * of_q, tl.trans(keys * of_k), PRECISION), 0.0)
            if STATES and REVERSE:
                read = keys * tl.exp(sums(i[None, :] > i[:, None], a, PARTS))
            elif STATES:
                read = queries * (scale * tl.exp(sums((i[None, :] < i[:, None]) if BEFORE else (i[None, :] <= i[:, None]), a, PARTS)))
        if STATES:
            memory = tile(met + (n.to(tl.int64) * chunks + chunk) * K * V, block, V, K, column, V, BV, BK)
            y += product(read.to(memory.dtype), memory, PRECISION)
    values = tile(v, at, vt, T, column, V, BV, C)
    scores = (scale * (scores + tl.where(i[:, None] == i[None, :], own[:, None], 0.0))).to(values.dtype)
    y += product(tl.trans(scores) if REVERSE else scores, values, PRECISION)
    put(out + n.to(tl.int64) * T * V, y, at, V, T, column, V, BV, C)


@triton.jit(do_not_specialize=["T", "heads"])
def gradients_kernel(q, k, v, decay, met, after, least, dy, dq, dk, da, qb, qh, qt, kb, kh, kt, vb, vh, vt, db, dh, dt, yb, yh, yt, heads, T, K, V,
                     blocks, scale, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, BLOCKS: tl.constexpr, FAST: tl.constexpr,
                     LEVELS: tl.constexpr, BEFORE: tl.constexpr, QUERIES: tl.constexpr, STATES: tl.constexpr, HELD: tl.constexpr,
                     PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """The gradients of one chunk's queries, keys and gates, or those of queries alone (QUERIES): `met` is the memory in front of it, `after` the
    gradient of the one behind it. A gate's is the sum over later queries of q dq, less that over later keys of k dk, and what the memory behind the
    chunk has of it. Without STATES of the chunk's own pairs alone; without HELD another call counts what fades of the memory in front."""
    block, chunk, n = tl.program_id(0) * BK, tl.program_id(1), tl.program_id(2)
    chunks, at, i = tl.num_programs(1), chunk * C, tl.arange(0, C)
    if _fast(least, n, chunk, chunks, blocks, BLOCKS) != FAST:
        return
    k, v = rows(k, n, heads, kb, kh), rows(v, n, heads, vb, vh)
    decay, dy = rows(decay, n, heads, db, dh), rows(dy, n, heads, yb, yh)
    where = (n.to(tl.int64) * chunks + chunk) * K * V
    pairs, own, met_after = tl.zeros([C, C], tl.float32), tl.zeros([C], tl.float32), tl.zeros([BK], tl.float32)
    of_q, of_k = tl.zeros([C, BK], tl.float32), tl.zeros([C, BK], tl.float32)
    for column in range(0, V, BV):
        pulled, values = tile(dy, at, yt, T, column, V, BV, C), tile(v, at, vt, T, column, V, BV, C)
        pairs += product(pulled, tl.trans(values), PRECISION)
        own += tl.sum(pulled.to(tl.float32) * values.to(tl.float32), 1)
        if STATES:
            memory = tile(met + where, block, V, K, column, V, BV, BK)
            of_q += product(pulled, tl.trans(memory), PRECISION)
        if STATES and not QUERIES:
            later = tile(after + where, block, V, K, column, V, BV, BK)
            of_k += product(values, tl.trans(later), PRECISION)
            if HELD:
                met_after += tl.sum(memory.to(tl.float32) * later.to(tl.float32), 1)
    pairs, own = tl.where(i[:, None] > i[None, :], scale * pairs, 0.0), scale * own
    a = gates(decay, at, dt, T, block, K, BK, C)
    keys = tile(k, at, kt, T, block, K, BK, C).to(tl.float32)
    queries = keys if QUERIES else tile(rows(q, n, heads, qb, qh), at, qt, T, block, K, BK, C).to(tl.float32)
    total = tl.sum(a, 0)
    if FAST:
        g, middle = sums(i[None, :] <= i[:, None], a, PARTS), 0.5 * total[None, :]
        left_q, left_k = tl.exp((g - a if BEFORE else g) - middle), tl.exp(middle - g)
        half = tl.exp(middle)
        of_q = left_q * (of_q * (scale * half) + product(pairs, keys * left_k, PRECISION))
        if not QUERIES:
            of_k *= left_k * half
            behind = tl.exp(total) * met_after + tl.sum(keys * of_k, 0)
            of_k += left_k * product(tl.trans(pairs), queries * left_q, PRECISION)
    else:
        of_q *= scale * tl.exp(sums((i[None, :] < i[:, None]) if BEFORE else (i[None, :] <= i[:, None]), a, PARTS))
        if not QUERIES:
            of_k *= tl.exp(sums(i[None, :] > i[:, None], a, PARTS))
            behind = tl.exp(total) * met_after + tl.sum(keys * of_k, 0)
        for level in range(LEVELS):
            left_q, left_k, same = _halves(a, level, C, BEFORE, PARTS)
            near = tl.where(same, pairs, 0.0)
            of_q += left_q * product(near, keys * left_k, PRECISION)
            if not QUERIES:
                of_k += left_k * product(tl.trans(near), queries * left_q, PRECISION)
    start = n.to(tl.int64) * T * K
    if not QUERIES:
        if BEFORE:  # a query reads nothing of its own gate
            of_a = sums(i[None, :] > i[:, None], queries * of_q, 3) - sums(i[None, :] >= i[:, None], keys * of_k, 3)
        else:
            of_a = sums(i[None, :] >= i[:, None], queries * of_q - keys * of_k, 3)
            of_k += own[:, None] * queries
        put(da + start, of_a + behind[None, :], at, K, T, block, K, BK, C)
        put(dk + start, of_k, at, K, T, block, K, BK, C)
    if not BEFORE:
        of_q += own[:, None] * keys
    put(dq + start, of_q, at, K, T, block, K, BK, C)


# ---------------------------------------------------------------- on the host
def _gradients(q: Any, k: Any, v: Any, decay: Any, met: Any, after: Any, least: Any, dy: Any, scale: float, before: bool,
               held: bool = True) -> list[Any]:
    """Those of queries, keys and gates; without queries, theirs alone."""
    (B, H, T, K), V = k.shape, v.shape[-1]
    found = [x.new_empty(x.shape) for x in ((k,) if q is None else (q, k, decay))]
    bk, bv, warps, stages = CONFIGS[k.element_size()]["gradients"]
    bk, bv = width(K, bk), width(V, bv)
    for fast in (True, False):
        gradients_kernel[(triton.cdiv(K, bk), triton.cdiv(T, CHUNK), B * H)](
            q, k, v, decay, met, after, least, dy, *(*found, None, None)[:3], *strides(q), *strides(k), *strides(v), *strides(decay), *strides(dy),
            H, T, K, V, least.shape[-1], scale, BK=bk, BV=bv, C=CHUNK, BLOCKS=triton.next_power_of_2(least.shape[-1]), FAST=fast, LEVELS=LEVELS,
            BEFORE=before, QUERIES=q is None, STATES=met is not None, HELD=held, PARTS=parts(k), PRECISION=precision(k.dtype),
            **launch(warps, stages))
    return found


def _results(q: Any, k: Any, v: Any, decay: Any, met: Any, least: Any, scale: float, reverse: bool, before: bool) -> Any:
    (B, H, T, K), V = k.shape, v.shape[-1]
    bk, bv, warps, stages = CONFIGS[q.element_size()]["results"]
    bk, bv = width(K, bk), width(V, bv)
    out = q.new_empty(v.shape)
    for fast in (True, False):
        results_kernel[(triton.cdiv(V, bv), triton.cdiv(T, CHUNK), B * H)](
            q, k, v, decay, met, least, out, *strides(q), *strides(k), *strides(v), *strides(decay), H, T, K, V, least.shape[-1], scale, BK=bk, BV=bv,
            C=CHUNK, BLOCKS=triton.next_power_of_2(least.shape[-1]), FAST=fast, LEVELS=LEVELS, REVERSE=reverse, BEFORE=before, STATES=met is not None,
            PARTS=parts(q), PRECISION=precision(q.dtype), **launch(warps, stages))
    return out
