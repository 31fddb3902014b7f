"""Linear attention whose memory fades by one number for each head and position, in chunks of positions; and Mamba-2's state space, the same thing.

For one head, with queries q and keys k of K numbers, values v of V, logarithms of decay g, weights w of what is written (dt of a state space) and the
memory S in front, [K, V], G the sum of g inside the chunk up to and with a position:

    y_i = scale · (e^{G_i} q_i S + Σ_{j ≤ i} e^{G_i - G_j} w_j (q_i · k_j) v_j) + skip v_i,    S ← e^{G_last} S + Σ_j e^{G_last - G_j} w_j k_j v_jᵀ

`_states` walks over the chunks of a head and writes the memory in front of each, or backwards the gradient of the memory behind each; the others
take all chunks at once. Backwards the memories are computed again. Sums are taken in float32, what is computed and enters a product has the type of
the memories.

Results stand with positions in columns, so that what is computed under way is the right operand of a product, which lies in shared memory: the
assembler inside of Triton up to 3.7 miscompiles wgmma with a left operand in registers (see `chunks.generation`).

q and k are [B, groups, T, K], v and y [B, H, T, V], the heads of a group, H / groups in a row, share q and k. g and w are [B, H, T]. The last axis of
q, k, v has a stride of 1. Memories between chunks are [B, H, chunks, K, V], in the operands' type (float32 for float16, whose range they may leave).
A decay below e^-100 counts as e^-100, which is nothing in float32: so sums of logarithms keep their digits behind a reset.
"""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAttributeAccessIssue=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _logs(G, at, step, n, BT: tl.constexpr, WIDE: tl.constexpr):
    """The logarithms of a chunk, summed up to each position, and their whole; positions from n on change nothing."""
    i = tl.arange(0, BT)
    g = tl.load(G + at + i * step, mask=i < n, other=0.0).to(tl.float32)
    g = tl.where(g < -100.0, -100.0, g)  # a NaN stays one
    if WIDE:
        g = g.to(tl.float64)
    return tl.cumsum(g, 0), tl.sum(g, 0)


@triton.jit
def _decays(logs, BT: tl.constexpr, BACK: tl.constexpr):
    """e^{G_i - G_j} where j ≤ i and 0 elsewhere, [i, j]; [j, i] for BACK."""
    i = tl.arange(0, BT)
    if BACK:
        away = (logs[None, :] - logs[:, None]).to(tl.float32)
        return tl.exp(tl.where(i[None, :] >= i[:, None], away, -float("inf")))
    away = (logs[:, None] - logs[None, :]).to(tl.float32)
    return tl.exp(tl.where(i[:, None] >= i[None, :], away, -float("inf")))


@triton.jit
def _states(X, Y, G, W, FIRST, OUT, LAST, scale, T, H, R, NT, sxb, sxh, sxt, syb, syh, syt, sgb, sgh, sgt, swb, swh, swt,
            K: tl.constexpr, V: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BACK: tl.constexpr, TURNED: tl.constexpr,
            HAS_G: tl.constexpr, HAS_W: tl.constexpr, HAS_FIRST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    """X, Y: keys and values, or backwards (BACK) queries and gradients of y. FIRST, LAST: [B, H, K, V] in float32, its last axes TURNED or not."""
    head = tl.program_id(0).to(tl.int64)
    b, h = head // H, head % H
    k, v = tl.program_id(1) * BK + tl.arange(0, BK), tl.program_id(2) * BV + tl.arange(0, BV)
    inside = (k[:, None] < K) & (v[None, :] < V)
    whole = head * K * V + (v[None, :] * K + k[:, None] if TURNED else k[:, None] * V + v[None, :])
    state = tl.zeros((BK, BV), tl.float32)
    if HAS_FIRST:
        state = tl.load(FIRST + whole, mask=inside, other=0.0).to(tl.float32)
    i = tl.arange(0, BT)
    X += b * sxb + (h // R) * sxh
    Y += b * syb + h * syh
    for n in range(NT):
        chunk = NT - 1 - n if BACK else n
        t = chunk.to(tl.int64) * BT
        here = t + i < T
        tl.store(OUT + (head * NT + chunk) * K * V + k[:, None] * V + v[None, :], state.to(OUT.dtype.element_ty), mask=inside)
        x = tl.load(X + (t + i)[None, :] * sxt + k[:, None], mask=here[None, :] & (k[:, None] < K), other=0.0)
        y = tl.load(Y + (t + i)[:, None] * syt + v[None, :], mask=here[:, None] & (v[None, :] < V), other=0.0)
        factor = tl.full((BT,), scale if BACK else 1.0, tl.float32)
        if HAS_G:
            logs, total = _logs(G, b * sgb + h * sgh + t * sgt, sgt, T - t, BT, WIDE)
            factor *= tl.exp((logs if BACK else total - logs).to(tl.float32))
            state *= tl.exp(total.to(tl.float32))
        if HAS_W:
            factor *= tl.load(W + b * swb + h * swh + (t + i) * swt, mask=here, other=0.0).to(tl.float32)
        state += tl.dot(x.to(OUT.dtype.element_ty), (y * factor[:, None]).to(OUT.dtype.element_ty), input_precision=PRECISION)
    tl.store(LAST + whole, state, mask=inside)


@triton.jit
def _outputs(Q, KEY, VAL, G, W, SKIP, S, OUT, scale, T, H, R, NT, sqb, sqh, sqt, skb, skh, skt, svb, svh, svt, sgb, sgh, sgt, swb, swh, swt,
             sob, soh, sot, K: tl.constexpr, V: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_G: tl.constexpr,
             HAS_W: tl.constexpr, HAS_SKIP: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    """One chunk of one head, BV of its values."""
    head, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, h = head // H, head % H
    t, v, i = chunk.to(tl.int64) * BT, tl.program_id(2) * BV + tl.arange(0, BV), tl.arange(0, BT)
    here = t + i < T
    Q += b * sqb + (h // R) * sqh
    KEY += b * skb + (h // R) * skh
    scores, y = tl.zeros((BT, BT), tl.float32), tl.zeros((BV, BT), tl.float32)  # [j, i], [v, i]
    for at in range(0, K, BK):
        k = at + tl.arange(0, BK)
        q = tl.load(Q + (t + i)[:, None] * sqt + k[None, :], mask=here[:, None] & (k[None, :] < K), other=0.0)
        key = tl.load(KEY + (t + i)[:, None] * skt + k[None, :], mask=here[:, None] & (k[None, :] < K), other=0.0)
        s = tl.load(S + (head * NT + chunk) * K * V + k[:, None] * V + v[None, :], mask=(k[:, None] < K) & (v[None, :] < V), other=0.0)
        scores += tl.dot(key, tl.trans(q), input_precision=PRECISION)
        y += tl.dot(tl.trans(s), tl.trans(q).to(s.dtype), input_precision=PRECISION)
    if HAS_G:
        logs, _ = _logs(G, b * sgb + h * sgh + t * sgt, sgt, T - t, BT, WIDE)
        y *= tl.exp(logs.to(tl.float32))[None, :]
        scores *= _decays(logs, BT, True)
    else:
        scores = tl.where(i[None, :] >= i[:, None], scores, 0.0)
    if HAS_W:
        scores *= tl.load(W + b * swb + h * swh + (t + i) * swt, mask=here, other=0.0).to(tl.float32)[:, None]
    value = tl.load(VAL + b * svb + h * svh + (t + i)[:, None] * svt + v[None, :], mask=here[:, None] & (v[None, :] < V), other=0.0)
    y = scale * (y + tl.dot(tl.trans(value).to(S.dtype.element_ty), scores.to(S.dtype.element_ty), input_precision=PRECISION))
    if HAS_SKIP:
        y += tl.load(SKIP + h).to(tl.float32) * tl.trans(value)
    tl.store(OUT + b * sob + h * soh + (t + i)[None, :] * sot + v[:, None], y.to(OUT.dtype.element_ty), mask=here[None, :] & (v[:, None] < V))


@triton.jit
def _queries_back(KEY, VAL, DY, G, W, S, DQ, scale, T, H, R, NT, PARTS, skb, skh, skt, svb, svh, svt, syb, syh, syt, sgb, sgh, sgt, swb, swh, swt,
                  sop, sob, soh, sot, K: tl.constexpr, V: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_G: tl.constexpr,
                  HAS_W: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    """The gradients of BK numbers of the queries of one chunk, summed over the heads of one part of a group. S: memories in front of the chunks."""
    group, chunk, i = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, BT)
    part, group = group % PARTS, group // PARTS
    b, g = group // (H // R), group % (H // R)
    t, k = chunk.to(tl.int64) * BT, tl.program_id(2) * BK + tl.arange(0, BK)
    here = t + i < T
    dq, pairs = tl.zeros((BK, BT), tl.float32), tl.zeros((BT, BT), tl.float32)  # [k, i], [j, i]
    for r in range(part * (R // PARTS), (part + 1) * (R // PARTS)):
        h = g * R + r
        of_pairs, of_start, factor = tl.zeros((BT, BT), tl.float32), tl.zeros((BK, BT), tl.float32), tl.full((BT,), scale, tl.float32)
        if HAS_G:
            logs, _ = _logs(G, b * sgb + h * sgh + t * sgt, sgt, T - t, BT, WIDE)
            factor *= tl.exp(logs.to(tl.float32))
        for at in range(0, V, BV):
            v = at + tl.arange(0, BV)
            inside = here[:, None] & (v[None, :] < V)
            value = tl.load(VAL + b * svb + h * svh + (t + i)[:, None] * svt + v[None, :], mask=inside, other=0.0)
            dy = tl.load(DY + b * syb + h * syh + (t + i)[:, None] * syt + v[None, :], mask=inside, other=0.0)
            s = tl.load(S + ((b * H + h) * NT + chunk) * K * V + k[:, None] * V + v[None, :], mask=(k[:, None] < K) & (v[None, :] < V), other=0.0)
            of_pairs += tl.dot(value, tl.trans(dy), input_precision=PRECISION)
            of_start += tl.dot(s, tl.trans(dy).to(s.dtype), input_precision=PRECISION)
        dq += of_start * factor[None, :]
        if HAS_G:
            of_pairs *= _decays(logs, BT, True)
        if HAS_W:
            of_pairs *= tl.load(W + b * swb + h * swh + (t + i) * swt, mask=here, other=0.0).to(tl.float32)[:, None]
        pairs += of_pairs
    within = here[:, None] & (k[None, :] < K)
    key = tl.load(KEY + b * skb + g * skh + (t + i)[:, None] * skt + k[None, :], mask=within, other=0.0)
    pairs = tl.where(i[None, :] >= i[:, None], scale * pairs, 0.0)
    dq += tl.dot(tl.trans(key).to(S.dtype.element_ty), pairs.to(S.dtype.element_ty), input_precision=PRECISION)
    tl.store(DQ + part * sop + b * sob + g * soh + (t + i)[None, :] * sot + k[:, None], dq.to(DQ.dtype.element_ty),
             mask=here[None, :] & (k[:, None] < K))


@triton.jit
def _keys_back(Q, VAL, DY, G, W, DS, DK, scale, T, H, R, NT, PARTS, sqb, sqh, sqt, svb, svh, svt, syb, syh, syt, sgb, sgh, sgt, swb, swh, swt,
               sop, sob, soh, sot, K: tl.constexpr, V: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_G: tl.constexpr,
               HAS_W: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    """The same of the keys. DS: gradients of the memories behind the chunks. Positions that read stand in rows here, those that write in columns: a
    product of matrices is never turned around, for Triton 3.4 to 3.7.0 then multiplies wrongly on Hopper cards."""
    group, chunk, i = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, BT)
    part, group = group % PARTS, group // PARTS
    b, g = group // (H // R), group % (H // R)
    t, k = chunk.to(tl.int64) * BT, tl.program_id(2) * BK + tl.arange(0, BK)
    here = t + i < T
    dk, pairs = tl.zeros((BK, BT), tl.float32), tl.zeros((BT, BT), tl.float32)  # [k, j], [i, j]
    for r in range(part * (R // PARTS), (part + 1) * (R // PARTS)):
        h = g * R + r
        of_pairs, of_end, factor = tl.zeros((BT, BT), tl.float32), tl.zeros((BK, BT), tl.float32), tl.full((BT,), 1.0, tl.float32)
        if HAS_W:
            w = tl.load(W + b * swb + h * swh + (t + i) * swt, mask=here, other=0.0).to(tl.float32)
            factor *= w
        if HAS_G:
            logs, total = _logs(G, b * sgb + h * sgh + t * sgt, sgt, T - t, BT, WIDE)
            factor *= tl.exp((total - logs).to(tl.float32))
        for at in range(0, V, BV):
            v = at + tl.arange(0, BV)
            inside = here[:, None] & (v[None, :] < V)
            value = tl.load(VAL + b * svb + h * svh + (t + i)[:, None] * svt + v[None, :], mask=inside, other=0.0)
            dy = tl.load(DY + b * syb + h * syh + (t + i)[:, None] * syt + v[None, :], mask=inside, other=0.0)
            ds = tl.load(DS + ((b * H + h) * NT + chunk) * K * V + k[:, None] * V + v[None, :], mask=(k[:, None] < K) & (v[None, :] < V), other=0.0)
            of_pairs += tl.dot(dy, tl.trans(value), input_precision=PRECISION)
            of_end += tl.dot(ds, tl.trans(value).to(ds.dtype), input_precision=PRECISION)
        dk += of_end * factor[None, :]
        if HAS_G:
            of_pairs *= _decays(logs, BT, False)
        if HAS_W:
            of_pairs *= w[None, :]
        pairs += of_pairs
    within = here[:, None] & (k[None, :] < K)
    q = tl.load(Q + b * sqb + g * sqh + (t + i)[:, None] * sqt + k[None, :], mask=within, other=0.0)
    pairs = tl.where(i[:, None] >= i[None, :], scale * pairs, 0.0)
    dk += tl.dot(tl.trans(q).to(DS.dtype.element_ty), pairs.to(DS.dtype.element_ty), input_precision=PRECISION)
    tl.store(DK + part * sop + b * sob + g * soh + (t + i)[None, :] * sot + k[:, None], dk.to(DK.dtype.element_ty),
             mask=here[None, :] & (k[:, None] < K))


@triton.jit
def _values_back(Q, KEY, VAL, DY, G, W, SKIP, S, DS, DV, DG, DW, DSKIP, scale, T, H, R, NT, sqb, sqh, sqt, skb, skh, skt, svb, svh, svt,
                 syb, syh, syt, sgb, sgh, sgt, swb, swh, swt, sob, soh, sot, sdp, sdb, sdh, sdt,
                 K: tl.constexpr, V: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_G: tl.constexpr, HAS_W: tl.constexpr,
                 HAS_SKIP: tl.constexpr, WANTED: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    """The gradients of BV of the values of one chunk of one head; of the decays (WANTED), the weights and the skip what these values add, at each
    position. S, DS: memories in front of the chunks, and gradients of those behind them."""
    head, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, h = head // H, head % H
    t, v, i = chunk.to(tl.int64) * BT, tl.program_id(2) * BV + tl.arange(0, BV), tl.arange(0, BT)
    here = t + i < T
    Q += b * sqb + (h // R) * sqh
    KEY += b * skb + (h // R) * skh
    scores, du = tl.zeros((BT, BT), tl.float32), tl.zeros((BV, BT), tl.float32)  # [i, j], [v, j]
    read, of_all = tl.zeros((BV, BT), tl.float32), tl.zeros((BV,), tl.float32)  # [v, i]
    for at in range(0, K, BK):
        k = at + tl.arange(0, BK)
        place, tile = (head * NT + chunk) * K * V + k[:, None] * V + v[None, :], (k[:, None] < K) & (v[None, :] < V)
        q = tl.load(Q + (t + i)[:, None] * sqt + k[None, :], mask=here[:, None] & (k[None, :] < K), other=0.0)
        key = tl.load(KEY + (t + i)[:, None] * skt + k[None, :], mask=here[:, None] & (k[None, :] < K), other=0.0)
        ds = tl.load(DS + place, mask=tile, other=0.0)
        scores += tl.dot(q, tl.trans(key), input_precision=PRECISION)
        du += tl.dot(tl.trans(ds), tl.trans(key).to(ds.dtype), input_precision=PRECISION)
        if WANTED:
            s = tl.load(S + place, mask=tile, other=0.0)
            read += tl.dot(tl.trans(s), tl.trans(q).to(s.dtype), input_precision=PRECISION)
            of_all += tl.sum(s.to(tl.float32) * ds.to(tl.float32), 0)
    if HAS_G:
        logs, total = _logs(G, b * sgb + h * sgh + t * sgt, sgt, T - t, BT, WIDE)
        du *= tl.exp((total - logs).to(tl.float32))[None, :]
        scores *= _decays(logs, BT, False)
    else:
        scores = tl.where(i[:, None] >= i[None, :], scores, 0.0)
    scores *= scale
    within = here[:, None] & (v[None, :] < V)
    dy = tl.load(DY + b * syb + h * syh + (t + i)[:, None] * syt + v[None, :], mask=within, other=0.0)
    at = tl.program_id(2) * sdp + b * sdb + h * sdh + (t + i) * sdt
    if HAS_W or HAS_SKIP or WANTED:
        value = tl.load(VAL + b * svb + h * svh + (t + i)[:, None] * svt + v[None, :], mask=within, other=0.0)
    if HAS_W:
        w = tl.load(W + b * swb + h * swh + (t + i) * swt, mask=here, other=0.0).to(tl.float32)
    if WANTED:  # what a position wrote does not fade where it is: without the diagonal little is left to cancel
        ways = tl.where(i[:, None] > i[None, :], scores * tl.dot(dy, tl.trans(value), input_precision=PRECISION), 0.0)
        written = tl.sum(du * tl.trans(value), 0)
        if HAS_W:
            ways *= w[None, :]
            written *= w
        between = scale * tl.exp(logs.to(tl.float32)) * tl.sum(read * tl.trans(dy), 0) + tl.sum(ways, 1) - tl.sum(ways, 0)
        kept = tl.cumsum(written, 0) - written + tl.sum(of_all, 0) * tl.exp(total.to(tl.float32))
        tl.store(DG + at, tl.cumsum(between, 0, reverse=True) + kept, mask=here)
    du += tl.dot(tl.trans(dy).to(DS.dtype.element_ty), scores.to(DS.dtype.element_ty), input_precision=PRECISION)
    dv = du
    if HAS_W:
        dv = du * w[None, :]
        tl.store(DW + at, tl.sum(du * tl.trans(value), 0), mask=here)
    if HAS_SKIP:
        dv += tl.load(SKIP + h).to(tl.float32) * tl.trans(dy)
        tl.store(DSKIP + at, tl.sum(dy.to(tl.float32) * value, 1), mask=here)
    tl.store(DV + b * sob + h * soh + (t + i)[None, :] * sot + v[:, None], dv.to(DV.dtype.element_ty), mask=here[None, :] & (v[:, None] < V))


@triton.jit
def _one(Q, KEY, VAL, G, W, SKIP, FIRST, OUT, LAST, scale, H, R, sqb, sqh, skb, skh, svb, svh, sgb, sgh, swb, swh, sob, soh,
         K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, TURNED: tl.constexpr, HAS_G: tl.constexpr, HAS_W: tl.constexpr,
         HAS_SKIP: tl.constexpr):
    """One position of one head, BV of its values: the memory is read once and written once. FIRST, LAST as for `_states`."""
    head = tl.program_id(0).to(tl.int64)
    b, h = head // H, head % H
    k, v = tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    if TURNED:
        whole, inside = head * K * V + v[:, None] * K + k[None, :], (v[:, None] < V) & (k[None, :] < K)
    else:
        whole, inside = head * K * V + k[:, None] * V + v[None, :], (k[:, None] < K) & (v[None, :] < V)
    state = tl.load(FIRST + whole, mask=inside, other=0.0).to(tl.float32)
    q = tl.load(Q + b * sqb + (h // R) * sqh + k, mask=k < K, other=0.0).to(tl.float32)
    key = tl.load(KEY + b * skb + (h // R) * skh + k, mask=k < K, other=0.0).to(tl.float32)
    value = tl.load(VAL + b * svb + h * svh + v, mask=v < V, other=0.0).to(tl.float32)
    new = value
    if HAS_W:
        new = value * tl.load(W + b * swb + h * swh).to(tl.float32)
    if HAS_G:
        state *= tl.exp(tl.load(G + b * sgb + h * sgh).to(tl.float32))
    if TURNED:
        state += new[:, None] * key[None, :]
        y = scale * tl.sum(state * q[None, :], 1)
    else:
        state += key[:, None] * new[None, :]
        y = scale * tl.sum(state * q[:, None], 0)
    if HAS_SKIP:
        y += tl.load(SKIP + h).to(tl.float32) * value
    tl.store(LAST + whole, state, mask=inside)
    tl.store(OUT + b * sob + h * soh + v, y.to(OUT.dtype.element_ty), mask=v < V)
