"""Mamba's selective state space by Triton: S ← exp(dt a) S + dt x bᵀ, y = S c + skip x, [channels, numbers].

Short chunks of positions, all at once: what each adds to a state that was 0 is a sum over its positions, for what is left of one is exp(a Σ dt) over
the later ones. A kernel goes along the chunks with these, element by element. With the state in front of a chunk known, all its states come of one
scan in registers; backwards their gradients of a scan from the end. Sums and states are float32."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import plain

CHUNK, CHANNELS, BLOCKS, WARPS = 16, 16, 8, 4
"""Positions and channels of a block in registers, with all numbers of their states; blocks of channels of a program backwards; warps."""
ELEMENTS = 256
"""State elements that a program along the chunks goes on with."""


@triton.jit
def softplus(x):
    e = tl.exp(-tl.abs(x))  # log1p(e) of small e is e - e² / 2
    return tl.maximum(x, 0.0) + tl.where(e < 1e-3, e - 0.5 * e * e, tl.log(1 + e))


@triton.jit
def _tile(x, row, column, stride, T, columns):
    """[R, C] in float32, zeros beyond."""
    return tl.load(x + row.to(tl.int64)[:, None] * stride + column[None, :],
                   mask=(row[:, None] >= 0) & (row[:, None] < T) & (column[None, :] < columns), other=0.0).to(tl.float32)


@triton.jit
def _steps(dt, row, channel, stride, T, D, SOFTPLUS: tl.constexpr):
    """dt of positions, 0 beyond the end: what is there changes nothing."""
    t = _tile(dt, row, channel, stride, T, D)
    if SOFTPLUS:
        t = tl.where((row[:, None] < T) & (channel[None, :] < D), softplus(t), 0.0)
    return t


@triton.jit
def _then(kept, added, more_kept, more_added):
    """One step after another."""
    return kept * more_kept, added * more_kept + more_added


@triton.jit(do_not_specialize=["T"])
def ends_kernel(u, dt, a, w, out, total, ub, ut, tb, tt, wb, wt, T, D, S, C: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr, REVERSE: tl.constexpr,
                SOFTPLUS: tl.constexpr):
    """What a chunk adds to the state behind it: u = x, w = b; in reverse to the gradient of that in front of it: u = dy, w = c. And its sum of dt."""
    channel, number, chunk, n = (tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BS), tl.program_id(1), tl.program_id(2).to(tl.int64))
    row, chunks = chunk * C + tl.arange(0, C), tl.num_programs(1)
    place, inside = channel[:, None] * S + number[None, :], (channel[:, None] < D) & (number[None, :] < S)
    t, x = _steps(dt + n * tb, row, channel, tt, T, D, SOFTPLUS), _tile(u + n * ub, row, channel, ut, T, D)
    way = tl.cumsum(t, 0, reverse=not REVERSE)
    if not REVERSE:
        x *= t
        way -= t
    rate = tl.load(a + place, mask=inside, other=0.0)
    found = tl.exp(way[:, :, None] * rate[None, :, :]) * x[:, :, None] * _tile(w + n * wb, row, number, wt, T, S)[:, None, :]
    tl.store(out + (n * chunks + chunk) * D * S + place, tl.sum(found, 0), mask=inside)
    tl.store(total + (n * chunks + chunk) * D + channel, tl.sum(t, 0), mask=channel < D)


@triton.jit(do_not_specialize=["chunks"])
def along_kernel(ends, total, a, first, met, last, D, S, chunks, E: tl.constexpr, REVERSE: tl.constexpr, FIRST: tl.constexpr):
    """Along the chunks, or from the last: `met` is the state in front of each, or the gradient of the one behind it."""
    at, n = tl.program_id(0) * E + tl.arange(0, E), tl.program_id(1).to(tl.int64)
    here = at < D * S
    rate, state = tl.load(a + at, mask=here, other=0.0), tl.zeros([E], tl.float32)
    if FIRST:
        state += tl.load(first + n * D * S + at, mask=here, other=0.0).to(tl.float32)
    for step in range(chunks):
        c = n * chunks + (chunks - 1 - step if REVERSE else step)
        tl.store(met + c * D * S + at, state, mask=here)
        kept = tl.exp(rate * tl.load(total + c * D + at // S, mask=here, other=0.0))
        state = state * kept + tl.load(ends + c * D * S + at, mask=here, other=0.0)
    tl.store(last + n * D * S + at, state, mask=here)


@triton.jit
def _states(x, t, rate, b, first, C: tl.constexpr):
    """All states of a chunk, [C, BD, BS], and what each position added."""
    added = (t * x)[:, :, None] * b[:, None, :]
    kept = tl.exp(t[:, :, None] * rate[None, :, :])
    begins = (tl.arange(0, C) == 0)[:, None, None]
    found = tl.associative_scan((kept, added + tl.where(begins, kept * first[None, :, :], 0.0)), 0, _then)[1]
    return found, added


@triton.jit(do_not_specialize=["T"])
def results_kernel(x, dt, a, b, c, skip, met, y, xb, xt, tb, tt, ib, it, ob, ot, T, D, S, C: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr,
                   SKIP: tl.constexpr, SOFTPLUS: tl.constexpr):
    channel, number, chunk, n = (tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BS), tl.program_id(1), tl.program_id(2).to(tl.int64))
    row, chunks = chunk * C + tl.arange(0, C), tl.num_programs(1)
    place, inside = channel[:, None] * S + number[None, :], (channel[:, None] < D) & (number[None, :] < S)
    u, t = _tile(x + n * xb, row, channel, xt, T, D), _steps(dt + n * tb, row, channel, tt, T, D, SOFTPLUS)
    rate, first = tl.load(a + place, mask=inside, other=0.0), tl.load(met + (n * chunks + chunk) * D * S + place, mask=inside, other=0.0)
    states, _ = _states(u, t, rate, _tile(b + n * ib, row, number, it, T, S), first, C)
    found = tl.sum(states * _tile(c + n * ob, row, number, ot, T, S)[:, None, :], 2)
    if SKIP:
        found += tl.load(skip + channel, mask=channel < D, other=0.0)[None, :] * u
    tl.store(y + (n * T + row[:, None]) * D + channel[None, :], found.to(y.dtype.element_ty), mask=(row[:, None] < T) & (channel[None, :] < D))


@triton.jit(do_not_specialize=["T", "N"])
def gradients_kernel(x, dt, a, b, c, skip, dy, met, after, dx, ddt, da, db, dc, dskip, xb, xt, tb, tt, ib, it, ob, ot, yb, yt, N, T, D, S,
                     C: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr, MANY: tl.constexpr, SKIP: tl.constexpr, SOFTPLUS: tl.constexpr):
    """`after`: the gradient of the state behind the chunk. Of a, and skip, by chunk; of b and c by group of channels, of MANY blocks."""
    group, number, chunk, n = tl.program_id(0), tl.arange(0, BS), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, chunks = chunk * C + tl.arange(0, C), tl.num_programs(1)
    x, dt, dy = x + n * xb, dt + n * tb, dy + n * yb
    keys, queries = _tile(b + n * ib, row, number, it, T, S), _tile(c + n * ob, row, number, ot, T, S)
    of_b, of_c = tl.zeros([C, BS], tl.float32), tl.zeros([C, BS], tl.float32)
    ends, where = (tl.arange(0, C) == C - 1)[:, None, None], (n * chunks + chunk) * D
    for block in range(MANY):
        channel = (group * MANY + block) * BD + tl.arange(0, BD)
        place, inside = channel[:, None] * S + number[None, :], (channel[:, None] < D) & (number[None, :] < S)
        u, g, t = _tile(x, row, channel, xt, T, D), _tile(dy, row, channel, yt, T, D), _steps(dt, row, channel, tt, T, D, SOFTPLUS)
        rate, first = tl.load(a + place, mask=inside, other=0.0), tl.load(met + where * S + place, mask=inside, other=0.0)
        states, added = _states(u, t, rate, keys, first, C)
        of_c += tl.sum(states * g[:, :, None], 1)
        next_t = _steps(dt, row + 1, channel, tt, tl.minimum(T, chunk * C + C), D, SOFTPLUS)
        pulled = g[:, :, None] * queries[:, None, :]
        pulled += tl.where(ends, tl.load(after + where * S + place, mask=inside, other=0.0)[None, :, :], 0.0)
        grads = tl.associative_scan((tl.exp(next_t[:, :, None] * rate[None, :, :]), pulled), 0, _then, reverse=True)[1]
        of_b += tl.sum(grads * (t * u)[:, :, None], 1)
        written = tl.sum(grads * keys[:, None, :], 2)
        fades = grads * (states - added)  # by the logarithm of what is left of the state before
        of_t = u * written + tl.sum(fades * rate[None, :, :], 2)
        of_u = t * written
        if SOFTPLUS:
            of_t *= tl.sigmoid(_tile(dt, row, channel, tt, T, D))
        if SKIP:
            of_u += tl.load(skip + channel, mask=channel < D, other=0.0)[None, :] * g
            tl.store(dskip + where + channel, tl.sum(g * u, 0), mask=channel < D)
        whole = (row[:, None] < T) & (channel[None, :] < D)
        tl.store(dx + (n * T + row[:, None]) * D + channel[None, :], of_u.to(dx.dtype.element_ty), mask=whole)
        tl.store(ddt + (n * T + row[:, None]) * D + channel[None, :], of_t.to(ddt.dtype.element_ty), mask=whole)
        tl.store(da + where * S + place, tl.sum(fades * t[:, :, None], 0), mask=inside)
    place = ((group * N + n) * T + row[:, None]) * S + number[None, :]
    tl.store(db + place, of_b, mask=(row[:, None] < T) & (number[None, :] < S))
    tl.store(dc + place, of_c, mask=(row[:, None] < T) & (number[None, :] < S))


# ---------------------------------------------------------------- on the host
def forward(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, *, dt_softplus: bool = False) -> tuple[Any, Any]:
    """y, [..., T, d], and the last memory, [..., d, n] in float32."""
    lead = x.shape[:-2]
    (x, dt, b, c), a = (_flat(v) for v in (x, dt, b, c)), plain(a)
    met, last = _carried(x, dt, a, b, memory, False, dt_softplus)
    (N, T, D), S, y = x.shape, a.shape[-1], x.new_empty(x.shape)
    bd, bs = _blocks(D, S)
    results_kernel[(triton.cdiv(D, bd), triton.cdiv(T, CHUNK), N)](
        x, dt, a, b, c, plain(skip), met, y, *_strides(x, dt, b, c), T, D, S, C=CHUNK, BD=bd, BS=bs, SKIP=skip is not None, SOFTPLUS=dt_softplus,
        num_warps=WARPS)
    return y.view(*lead, T, D), last.view(*lead, D, S)


def gradient(dy: Any, later: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, *, dt_softplus: bool = False) -> tuple[Any, ...]:
    """Gradients of all operands and of the first memory; None for an absent skip."""
    shapes = [v.shape for v in (x, dt, b, c)]
    (x, dt, b, c, dy), a = (_flat(v) for v in (x, dt, b, c, dy)), plain(a)
    met, _ = _carried(x, dt, a, b, memory, False, dt_softplus)
    after, first = _carried(dy, dt, a, c, later, True, dt_softplus)
    (N, T, D), S, chunks = x.shape, a.shape[-1], triton.cdiv(x.shape[1], CHUNK)
    bd, bs = _blocks(D, S)
    groups = triton.cdiv(D, bd * BLOCKS)
    dx, ddt = x.new_empty(x.shape), dt.new_empty(dt.shape)
    da, dskip = (x.new_empty(N * chunks, D, *more, dtype=torch.float32) for more in ((S,), ()))
    db, dc = (x.new_empty(groups, N, T, S, dtype=torch.float32) for _ in range(2))
    gradients_kernel[(groups, chunks, N)](
        x, dt, a, b, c, plain(skip), dy, met, after, dx, ddt, da, db, dc, dskip, *_strides(x, dt, b, c, dy), N, T, D, S, C=CHUNK, BD=bd, BS=bs,
        MANY=min(BLOCKS, triton.cdiv(D, bd)), SKIP=skip is not None, SOFTPLUS=dt_softplus, num_warps=WARPS)
    dx, ddt, db, dc = (v.view(s) for v, s in zip((dx, ddt, db.sum(0), dc.sum(0)), shapes))
    return dx, ddt, da.sum(0), db, dc, None if skip is None else dskip.sum(0), first.view(*shapes[0][:-2], D, S)


def _carried(u: Any, dt: Any, a: Any, w: Any, first: Any, reverse: bool, softplus: bool) -> tuple[Any, Any]:
    """The states in front of all chunks, or the gradients of those behind them, [N, chunks, d, n], and the last, [N, d, n]."""
    (N, T, D), S, chunks = u.shape, a.shape[-1], triton.cdiv(u.shape[1], CHUNK)
    bd, bs = _blocks(D, S)
    ends, met = (a.new_empty(N, chunks, D, S, dtype=torch.float32) for _ in range(2))
    total, last = (a.new_empty(N, *shape, dtype=torch.float32) for shape in ((chunks, D), (D, S)))
    ends_kernel[(triton.cdiv(D, bd), chunks, N)](u, dt, a, w, ends, total, *_strides(u, dt, w), T, D, S, C=CHUNK, BD=bd, BS=bs, REVERSE=reverse,
                                                 SOFTPLUS=softplus, num_warps=WARPS)
    along_kernel[(triton.cdiv(D * S, ELEMENTS), N)](ends, total, a, plain(first), met, last, D, S, chunks, E=ELEMENTS, REVERSE=reverse,
                                                    FIRST=first is not None, num_warps=WARPS)
    return met, last


def _flat(x: Any) -> Any:
    """[N, T, c], the last axis in order in memory: a view where the memory lets it be one."""
    x = x.reshape(-1, *x.shape[-2:])
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _strides(*operands: Any) -> tuple[int, ...]:
    """Of sequences and positions."""
    return tuple(s for x in operands for s in x.stride()[:2])


def _blocks(D: int, S: int) -> tuple[int, int]:
    """Channels and numbers of a block in registers."""
    numbers = triton.next_power_of_2(S)
    return max(1, min(triton.next_power_of_2(D), CHANNELS * 16 // numbers, 64)), numbers
