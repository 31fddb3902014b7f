"""Attention as a prefix scan (arxiv 2405.13956), forward and backward, by Triton.

A program goes along one sequence in chunks: the weights of a chunk's positions are a triangular matrix, exponentials of scores less the largest score
so far, and meet the values in one product; what came before is a sum that each chunk rescales. Backward: with l_t the logarithm of the denominator at
t, never falling, position j takes exp(s_j - l_t) of what comes back at t ≥ j; what chunks behind send is a sum again, from the end."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNKS = {2: 64, 4: 32}
"""Positions of a chunk by the bytes of a number, on Hopper."""
LEAST = tl.constexpr(-1.0e30)
"""In the place of -∞, so that differences are numbers."""


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _forward(scores, v, y, logs, ends, numerators, positions, width, s_row, s_step, v_row, v_step, E: tl.constexpr, C: tl.constexpr,
             PRECISION: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * E + tl.arange(0, E)
    steps = tl.arange(0, C)
    peak = tl.full((), LEAST, tl.float32)
    below = tl.zeros((), tl.float32)
    above = tl.zeros((E,), tl.float32)
    for start in range(0, positions, C):
        t = (start + steps).to(tl.int64)
        here = t < positions
        s = tl.load(scores + row * s_row + t * s_step, mask=here, other=float("-inf")).to(tl.float32)
        values = tl.load(v + row * v_row + t[:, None] * v_step + e[None, :], mask=here[:, None] & (e < width)[None, :], other=0.0)
        peaks = tl.maximum(tl.associative_scan(s, 0, _larger), peak)
        weights = tl.exp(tl.where(steps[:, None] >= steps[None, :], s[None, :] - peaks[:, None], float("-inf")))
        kept = tl.exp(peak - peaks)
        sums = tl.sum(weights, 1) + kept * below
        whole = tl.where(sums == 0, 1.0, sums)
        found = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION) + kept[:, None] * above[None, :]
        tl.store(y + (row * positions + t)[:, None] * width + e[None, :], (found / whole[:, None]).to(y.dtype.element_ty),
                 mask=here[:, None] & (e < width)[None, :])
        if tl.program_id(1) == 0:
            tl.store(logs + row * positions + t, peaks + tl.log(whole), mask=here)
        last = steps == C - 1  # positions behind the end have a score of -∞: they add nothing
        peak = tl.sum(tl.where(last, peaks, 0.0), 0)
        below = tl.sum(tl.where(last, sums, 0.0), 0)
        above = tl.sum(tl.where(last[:, None], found, 0.0), 0)
    tl.store(numerators + row * width + e, above, mask=e < width)
    if tl.program_id(1) == 0:
        tl.store(ends + row * 2, tl.where(peak == LEAST, 0.0, peak))
        tl.store(ends + row * 2 + 1, below)


@triton.jit
def _backward(scores, v, y, dy, logs, dscores, dv, positions, width, s_row, s_step, v_row, v_step, dy_row, dy_step, E: tl.constexpr, C: tl.constexpr,
              PRECISION: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, E)
    steps = tl.arange(0, C)
    later = tl.zeros((E,), tl.float32)  # Σ exp(l - l_t) dy_t over the chunks behind, l that of this one's end; of dy_t · y_t
    taken = tl.zeros((), tl.float32)
    chunks = tl.cdiv(positions, C)
    for n in range(chunks):
        t = ((chunks - 1 - n) * C + steps).to(tl.int64)
        here = t < positions
        inside = here[:, None] & (e < width)[None, :]
        s = tl.load(scores + row * s_row + t * s_step, mask=here, other=float("-inf")).to(tl.float32)
        log = tl.load(logs + row * positions + t, mask=here, other=float("inf"))
        end = tl.load(logs + row * positions + tl.minimum((chunks - n) * C, positions) - 1)
        values = tl.load(v + row * v_row + t[:, None] * v_step + e[None, :], mask=inside, other=0.0).to(tl.float32)
        back = tl.load(dy + row * dy_row + t[:, None] * dy_step + e[None, :], mask=inside, other=0.0)
        outs = tl.load(y + (row * positions + t)[:, None] * width + e[None, :], mask=inside, other=0.0).to(tl.float32)
        shares = tl.sum(outs * back.to(tl.float32), 1)
        sent = tl.exp(tl.where(steps[:, None] <= steps[None, :], s[:, None] - log[None, :], float("-inf")))  # [j, t]
        far = tl.exp(s - end)
        gradient = tl.dot(sent.to(back.dtype), back, input_precision=PRECISION) + far[:, None] * later[None, :]
        tl.store(dv + (row * positions + t)[:, None] * width + e[None, :], gradient.to(dv.dtype.element_ty), mask=inside)
        own = tl.sum(gradient * values, 1) - tl.sum(sent * shares[None, :], 1) - far * taken
        tl.store(dscores + row * positions + t, own.to(dscores.dtype.element_ty), mask=here)
        front = tl.load(logs + row * positions + tl.maximum((chunks - 1 - n) * C - 1, 0))  # the end of the chunk before, at most any log here
        fade, weights = tl.exp(front - end), tl.exp(front - log)
        later = later * fade + tl.sum(weights[:, None] * back.to(tl.float32), 0)
        taken = taken * fade + tl.sum(weights * shares, 0)


def _rows(x: Tensor, axes: int) -> Tensor:
    """The leading axes as one, the last contiguous where it is not that of time."""
    flat = x.reshape(-1, *x.shape[x.ndim - axes:])
    return flat if axes == 1 or flat.stride(-1) == 1 else flat.contiguous()


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def forward(scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y in the dtype of the scores; the largest score, the denominator and the numerator behind the last position, and the logarithms of the
    denominators [rows, T], in float32."""
    s, values = _rows(scores, 1), _rows(v, 2)
    rows, positions, width = values.shape
    y = torch.empty(v.shape, dtype=scores.dtype, device=v.device)
    logs, ends, numerators = (torch.empty(rows, n, dtype=torch.float32, device=v.device) for n in (positions, 2, width))
    block = max(16, min(64, triton.next_power_of_2(width)))
    run: Any = _forward
    run[(rows, triton.cdiv(width, block))](s, values, y, logs, ends, numerators, positions, width, *s.stride(), *values.stride()[:2], E=block,
                                           C=CHUNKS[v.element_size()], PRECISION=_precision(v), num_warps=4)
    peak, below = ends.unbind(-1)
    lead = scores.shape[:-1]
    return y, peak.reshape(lead), below.reshape(lead), numerators.view(*lead, width), logs


def gradient(dy: Tensor, scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of scores and values."""
    y, *_, logs = forward(scores, v)
    s, values, back = _rows(scores, 1), _rows(v, 2), _rows(dy, 2)
    rows, positions, width = values.shape
    dscores, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (scores, v))
    run: Any = _backward
    block = max(16, triton.next_power_of_2(width))
    run[(rows,)](s, values, y, back, logs, dscores, dv, positions, width, *s.stride(), *values.stride()[:2], *back.stride()[:2], E=block,
                 C=32 if block > 64 else CHUNKS[v.element_size()], PRECISION=_precision(v), num_warps=4 if block <= 64 else 8)
    return dscores, dv
