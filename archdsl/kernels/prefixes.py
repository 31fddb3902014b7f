"""Attention as a prefix scan (arxiv 2405.13956), forward and backward, by Triton.

A sequence is cut into segments, a program for each. First, what each segment adds up to: its largest score, and the sums of exponentials and of
values. Then each begins with the sum of those before it and goes along in chunks: the weights of a chunk's positions are a triangular matrix,
exponentials of scores less the largest score so far, and meet the values in one product. Backward: with l_t the logarithm of the denominator at t,
never falling, position j takes exp(s_j - l_t) of what comes back at t ≥ j; what segments and chunks behind send is a sum again, from the end, of
exp(l - l_t) with l that of the place in front of them."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNKS = {2: 16, 4: 32}
"""Positions of a chunk by the bytes of a number, on Hopper."""
PROGRAMS = 2048
"""With fewer, a chunk is a segment."""
SEGMENTS = 64
"""The most of a sequence: each reads the sums of all others."""
WARPS = 1
"""Of up to 64 columns; of more, four."""
LEAST = tl.constexpr(-1.0e30)
"""In the place of -∞, so that differences are numbers."""


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _ends(scores, v, peaks, belows, aboves, positions, width, s_row, s_step, v_row, v_step, K: tl.constexpr, C: tl.constexpr, E: tl.constexpr):
    """What a segment of K chunks adds up to."""
    row, segment = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = tl.program_id(2) * E + tl.arange(0, E)
    peak = tl.full((), LEAST, tl.float32)
    below = tl.zeros((), tl.float32)
    above = tl.zeros((E,), tl.float32)
    for k in range(K):
        t = ((segment * K + k) * C + tl.arange(0, C)).to(tl.int64)
        s = tl.load(scores + row * s_row + t * s_step, mask=t < positions, other=float("-inf")).to(tl.float32)
        values = tl.load(v + row * v_row + t[:, None] * v_step + e[None, :], mask=(t < positions)[:, None] & (e < width)[None, :], other=0.0)
        higher = tl.maximum(peak, tl.max(s, 0))
        weights, kept = tl.exp(s - higher), tl.exp(peak - higher)
        below = below * kept + tl.sum(weights, 0)
        above = above * kept + tl.sum(weights[:, None] * values.to(tl.float32), 0)
        peak = higher
    at = row * tl.num_programs(1) + segment
    tl.store(aboves + at * width + e, above, mask=e < width)
    if tl.program_id(2) == 0:
        tl.store(peaks + at, peak)
        tl.store(belows + at, below)


@triton.jit
def _before(peaks, belows, aboves, row, segment, segments, e, width, S: tl.constexpr):
    """What the segments in front of one add up to."""
    m = tl.arange(0, S)
    at = row * segments + m
    each = tl.load(peaks + at, mask=m < segment, other=LEAST)
    peak = tl.max(each, 0)
    shares = tl.exp(each - peak)
    below = tl.sum(shares * tl.load(belows + at, mask=m < segment, other=0.0), 0)
    there = (m < segment)[:, None] & (e < width)[None, :]
    above = tl.sum(shares[:, None] * tl.load(aboves + at[:, None] * width + e[None, :], mask=there, other=0.0), 0)
    return peak, below, above


@triton.jit
def _chunk(s, values, peak, below, above, C: tl.constexpr, PRECISION: tl.constexpr):
    """The means of a chunk's positions, the logarithms of their denominators, and what there is behind it."""
    steps = tl.arange(0, C)
    peaks = tl.maximum(tl.associative_scan(s, 0, _larger), peak)
    weights = tl.exp(tl.where(steps[:, None] >= steps[None, :], s[None, :] - peaks[:, None], float("-inf")))
    kept = tl.exp(peak - peaks)
    sums = tl.sum(weights, 1) + kept * below
    whole = tl.where(sums == 0, 1.0, sums)
    found = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION) + kept[:, None] * above[None, :]
    last = steps == C - 1  # positions behind the end have a score of -∞: they add nothing
    peak = tl.sum(tl.where(last, peaks, 0.0), 0)
    below = tl.sum(tl.where(last, sums, 0.0), 0)
    above = tl.sum(tl.where(last[:, None], found, 0.0), 0)
    return found / whole[:, None], peaks + tl.log(whole), peak, below, above


@triton.jit
def _forward(scores, v, y, peaks, belows, aboves, ends, numerators, positions, width, s_row, s_step, v_row, v_step, K: tl.constexpr, C: tl.constexpr,
             E: tl.constexpr, S: tl.constexpr, PRECISION: tl.constexpr):
    row, segment, segments = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    e = tl.program_id(2) * E + tl.arange(0, E)
    peak, below, above = _before(peaks, belows, aboves, row, segment, segments, e, width, S)
    for k in range(K):
        t = ((segment * K + k) * C + tl.arange(0, C)).to(tl.int64)
        inside = (t < positions)[:, None] & (e < width)[None, :]
        s = tl.load(scores + row * s_row + t * s_step, mask=t < positions, other=float("-inf")).to(tl.float32)
        values = tl.load(v + row * v_row + t[:, None] * v_step + e[None, :], mask=inside, other=0.0)
        found, _, peak, below, above = _chunk(s, values, peak, below, above, C, PRECISION)
        tl.store(y + (row * positions + t)[:, None] * width + e[None, :], found.to(y.dtype.element_ty), mask=inside)
    if segment == segments - 1:
        tl.store(numerators + row * width + e, above, mask=e < width)
        if tl.program_id(2) == 0:
            tl.store(ends + row * 2, tl.where(peak == LEAST, 0.0, peak))
            tl.store(ends + row * 2 + 1, below)


@triton.jit
def _sent(scores, v, dy, peaks, belows, aboves, logs, shares, sents, takens, positions, width, s_row, s_step, v_row, v_step, dy_row, dy_step,
          K: tl.constexpr, C: tl.constexpr, E: tl.constexpr, S: tl.constexpr, PRECISION: tl.constexpr):
    """The logarithms, y_t · dy_t, and what a segment sends to those in front of it."""
    row, segment, segments = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    e = tl.arange(0, E)
    peak, below, above = _before(peaks, belows, aboves, row, segment, segments, e, width, S)
    front = peak + tl.log(tl.where(below == 0, 1.0, below))
    sent = tl.zeros((E,), tl.float32)
    taken = tl.zeros((), tl.float32)
    for k in range(K):
        t = ((segment * K + k) * C + tl.arange(0, C)).to(tl.int64)
        here = t < positions
        inside = here[:, None] & (e < width)[None, :]
        s = tl.load(scores + row * s_row + t * s_step, mask=here, other=float("-inf")).to(tl.float32)
        values = tl.load(v + row * v_row + t[:, None] * v_step + e[None, :], mask=inside, other=0.0)
        back = tl.load(dy + row * dy_row + t[:, None] * dy_step + e[None, :], mask=inside, other=0.0).to(tl.float32)
        found, log, peak, below, above = _chunk(s, values, peak, below, above, C, PRECISION)
        share = tl.sum(found * back, 1)
        tl.store(logs + row * positions + t, log, mask=here)
        tl.store(shares + row * positions + t, share, mask=here)
        weights = tl.exp(front - log)
        sent += tl.sum(weights[:, None] * back, 0)
        taken += tl.sum(weights * share, 0)
    at = row * segments + segment
    tl.store(sents + at * width + e, sent, mask=e < width)
    tl.store(takens + at, taken)


@triton.jit
def _backward(scores, v, dy, logs, shares, sents, takens, dscores, dv, positions, width, s_row, s_step, v_row, v_step, dy_row, dy_step,
              K: tl.constexpr, C: tl.constexpr, E: tl.constexpr, S: tl.constexpr, PRECISION: tl.constexpr):
    row, segment, segments = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    e, steps, m = tl.arange(0, E), tl.arange(0, C), tl.arange(0, S)
    logs += row * positions
    end = tl.load(logs + tl.minimum((segment + 1) * K * C, positions) - 1)
    behind = (m > segment) & (m < segments)
    fades = tl.exp(end - tl.load(logs + m * K * C - 1, mask=behind, other=float("inf")))
    at = row * segments + m
    rows = tl.load(sents + at[:, None] * width + e[None, :], mask=behind[:, None] & (e < width)[None, :], other=0.0)
    later = tl.sum(fades[:, None] * rows, 0)  # Σ exp(l - l_t) dy_t over what lies behind, l that of the last place here; of dy_t · y_t
    taken = tl.sum(fades * tl.load(takens + at, mask=behind, other=0.0), 0)
    for k in range(K):
        first = (segment * K + K - 1 - k) * C
        t = (first + steps).to(tl.int64)
        here = t < positions
        inside = here[:, None] & (e < width)[None, :]
        s = tl.load(scores + row * s_row + t * s_step, mask=here, other=float("-inf")).to(tl.float32)
        log = tl.load(logs + t, mask=here, other=float("inf"))
        share = tl.load(shares + row * positions + t, mask=here, other=0.0)
        end = tl.load(logs + tl.minimum(first + C, positions) - 1)
        values = tl.load(v + row * v_row + t[:, None] * v_step + e[None, :], mask=inside, other=0.0).to(tl.float32)
        back = tl.load(dy + row * dy_row + t[:, None] * dy_step + e[None, :], mask=inside, other=0.0)
        sent = tl.exp(tl.where(steps[:, None] <= steps[None, :], s[:, None] - log[None, :], float("-inf")))  # [j, t]
        far = tl.exp(s - end)
        gradient = tl.dot(sent.to(back.dtype), back, input_precision=PRECISION) + far[:, None] * later[None, :]
        tl.store(dv + (row * positions + t)[:, None] * width + e[None, :], gradient.to(dv.dtype.element_ty), mask=inside)
        own = tl.sum(gradient * values, 1) - tl.sum(sent * share[None, :], 1) - far * taken
        tl.store(dscores + row * positions + t, own.to(dscores.dtype.element_ty), mask=here)
        if K > 1:
            front = tl.load(logs + tl.maximum(tl.minimum(first, positions) - 1, 0))  # the end of the chunk before, at most any log here
            fade, weights = tl.exp(front - end), tl.exp(front - log)
            later = later * fade + tl.sum(weights[:, None] * back.to(tl.float32), 0)
            taken = taken * fade + tl.sum(weights * share, 0)


# ---------------------------------------------------------------- launching
def _rows(x: Tensor, axes: int) -> Tensor:
    """The leading axes as one, the last contiguous where it is not that of time."""
    flat = x.reshape(-1, *x.shape[x.ndim - axes:])
    return flat if axes == 1 or flat.stride(-1) == 1 else flat.contiguous()


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def _cut(rows: int, positions: int, chunk: int) -> tuple[int, int]:
    """How many chunks a segment has, and how many segments a sequence."""
    chunks = triton.cdiv(positions, chunk)
    each = max(1, triton.cdiv(chunks, SEGMENTS), min(chunks, rows * chunks // PROGRAMS))
    return each, triton.cdiv(chunks, each)


class _Sums:
    """Scores and values as rows, cut into segments, and what each segment adds up to."""

    def __init__(self, scores: Tensor, v: Tensor, chunk: int, block: int):
        self.s, self.values = _rows(scores, 1), _rows(v, 2)
        self.rows, self.positions, self.width = self.values.shape
        each, self.segments = _cut(self.rows, self.positions, chunk)
        self.grid = self.rows, self.segments, triton.cdiv(self.width, block)
        self.strides = *self.s.stride(), *self.values.stride()[:2]
        self.shape: dict[str, Any] = {"K": each, "C": chunk, "E": block, "num_warps": WARPS if block <= 64 else 4}
        self.more: dict[str, Any] = {"S": triton.next_power_of_2(self.segments), "PRECISION": _precision(v)}
        self.sums = self.peaks, self.belows, self.aboves = self.empty(self.segments), self.empty(self.segments), self.empty(self.segments, self.width)
        run: Any = _ends
        run[self.grid](self.s, self.values, *self.sums, self.positions, self.width, *self.strides, **self.shape)

    def empty(self, *shape: int) -> Tensor:
        """In float32, for each row."""
        return torch.empty(self.rows, *shape, dtype=torch.float32, device=self.values.device)


def forward(scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y in the dtype of the scores; the largest score, the denominator and the numerator behind the last position, in float32."""
    sums = _Sums(scores, v, CHUNKS[v.element_size()], max(16, min(64, triton.next_power_of_2(v.shape[-1]))))
    y = torch.empty(v.shape, dtype=scores.dtype, device=v.device)
    ends, numerators = sums.empty(2), sums.empty(sums.width)
    run: Any = _forward
    run[sums.grid](sums.s, sums.values, y, *sums.sums, ends, numerators, sums.positions, sums.width, *sums.strides, **sums.shape, **sums.more)
    peak, below = ends.unbind(-1)
    lead = scores.shape[:-1]
    return y, peak.reshape(lead), below.reshape(lead), numerators.view(*lead, sums.width)


def gradient(dy: Tensor, scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of scores and values."""
    block = max(16, triton.next_power_of_2(v.shape[-1]))
    sums, back = _Sums(scores, v, 32 if block > 64 else CHUNKS[v.element_size()], block), _rows(dy, 2)
    logs, shares, takens = (sums.empty(n) for n in (sums.positions, sums.positions, sums.segments))
    sents = sums.empty(sums.segments, sums.width)
    dscores, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (scores, v))
    sizes = sums.positions, sums.width, *sums.strides, *back.stride()[:2]
    run: Any = _sent
    run[sums.grid](sums.s, sums.values, back, *sums.sums, logs, shares, sents, takens, *sizes, **sums.shape, **sums.more)
    run = _backward
    run[sums.grid](sums.s, sums.values, back, logs, shares, sents, takens, dscores, dv, *sizes, **sums.shape, **sums.more)
    return dscores, dv
