"""h_t = a_t h_(t-1) + b_t, element by element, forward and backward, by Triton: a program goes along some channels of one sequence, a few positions
at a time, which are prefix scans over pairs; all sums in float32. Backward, g_t = dy_t + a_(t+1) g_(t+1) is such a scan from the end."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, CHANNELS, WARPS = 32, 64, 4
"""Positions at a time, channels of a program."""


@triton.jit
def _pair(gate, total, gate_behind, total_behind):
    return gate * gate_behind, gate_behind * total + total_behind


@triton.jit
def _forward(a, b, h, y, last, positions, channels, a_row, a_step, b_row, b_step, HAS_H: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i, steps = tl.program_id(1) * C + tl.arange(0, C), tl.arange(0, R)
    there = i < channels
    met = tl.load(h + row * channels + i, mask=there, other=0.0).to(tl.float32) if HAS_H else tl.zeros((C,), tl.float32)
    for start in range(0, positions, R):
        t = (start + steps).to(tl.int64)[:, None]
        inside = (t < positions) & there[None, :]
        gates = tl.load(a + row * a_row + t * a_step + i[None, :], mask=inside, other=1.0).to(tl.float32)
        totals = tl.load(b + row * b_row + t * b_step + i[None, :], mask=inside, other=0.0).to(tl.float32)
        gates, totals = tl.associative_scan((gates, totals), 0, _pair)
        found = totals + gates * met[None, :]
        tl.store(y + (row * positions + t) * channels + i[None, :], found.to(y.dtype.element_ty), mask=inside)
        met = tl.sum(tl.where(steps[:, None] == R - 1, found, 0.0), 0)  # positions behind the end change nothing
    tl.store(last + row * channels + i, met.to(last.dtype.element_ty), mask=there)


@triton.jit
def _backward(dy, later, a, h, states, da, db, dh, positions, channels, dy_row, dy_step, a_row, a_step, HAS_DY: tl.constexpr, HAS_LATER: tl.constexpr,
              HAS_H: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i, steps = tl.program_id(1) * C + tl.arange(0, C), tl.arange(0, R)
    there = i < channels
    a += row * a_row
    come = tl.load(later + row * channels + i, mask=there, other=0.0).to(tl.float32) if HAS_LATER else tl.zeros((C,), tl.float32)
    begun = tl.load(h + row * channels + i, mask=there, other=0.0).to(tl.float32) if HAS_H else tl.zeros((C,), tl.float32)
    chunks = tl.cdiv(positions, R)
    for n in range(chunks):
        t = ((chunks - 1 - n) * R + steps).to(tl.int64)[:, None]
        inside = (t < positions) & there[None, :]
        gates = tl.load(a + (t + 1) * a_step + i[None, :], mask=(t + 1 < positions) & there[None, :], other=1.0).to(tl.float32)
        if HAS_DY:
            totals = tl.load(dy + row * dy_row + t * dy_step + i[None, :], mask=inside, other=0.0).to(tl.float32)
        else:
            totals = tl.zeros((R, C), tl.float32)
        gates, totals = tl.associative_scan((gates, totals), 0, _pair, reverse=True)
        found = totals + gates * come[None, :]
        at = (row * positions + t) * channels + i[None, :]
        front = tl.load(states + at - channels, mask=inside & (t > 0), other=0.0) + tl.where(t == 0, begun[None, :], 0.0)
        tl.store(da + at, (found * front).to(da.dtype.element_ty), mask=inside)
        tl.store(db + at, found.to(db.dtype.element_ty), mask=inside)
        come = tl.sum(tl.where(steps[:, None] == 0, found, 0.0), 0)
    if HAS_H:
        first = tl.load(a + i, mask=there, other=0.0).to(tl.float32)
        tl.store(dh + row * channels + i, (first * come).to(dh.dtype.element_ty), mask=there)


def _rows(x: Tensor) -> Tensor:
    """[..., T, c] with one axis in front, the last contiguous."""
    flat = x.reshape(-1, *x.shape[-2:])
    return flat if flat.stride(-1) == 1 else flat.contiguous()


def forward(a: Tensor, b: Tensor, h: Tensor | None, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """All h_t, [..., T, c], in the dtype of a or the one that is asked for, and the last, [..., c], in that of a."""
    gates, values = _rows(a), _rows(b)
    rows, positions, channels = gates.shape
    y, last = (torch.empty(s, dtype=d, device=a.device) for s, d in ((a.shape, dtype or a.dtype), (a.shape[:-2] + a.shape[-1:], a.dtype)))
    c = min(CHANNELS, triton.next_power_of_2(channels))
    run: Any = _forward
    run[(rows, triton.cdiv(channels, c))](gates, values, h if h is None else h.contiguous(), y, last, positions, channels, *gates.stride()[:2],
                                          *values.stride()[:2], HAS_H=h is not None, R=ROWS, C=c, num_warps=WARPS)
    return y, last


def gradient(dy: Tensor | None, later: Tensor | None, a: Tensor, b: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of a, b and h."""
    states, _ = forward(a, b, h, torch.float32)
    gates, back = _rows(a), None if dy is None else _rows(dy)
    rows, positions, channels = gates.shape
    da, db = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (a, b))
    dh = None if h is None else torch.empty(h.shape, dtype=h.dtype, device=h.device)
    c = min(CHANNELS, triton.next_power_of_2(channels))
    later, h = (None if x is None else x.contiguous() for x in (later, h))
    run: Any = _backward
    strides = *((0, 0) if back is None else back.stride()[:2]), *gates.stride()[:2]
    run[(rows, triton.cdiv(channels, c))](back, later, gates, h, states, da, db, dh, positions, channels, *strides, HAS_DY=back is not None,
                                          HAS_LATER=later is not None, HAS_H=h is not None, R=ROWS, C=c, num_warps=WARPS)
    return da, db, dh
