"""Short causal convolution by Triton, all sums in float32. Rows count from the first position: those of the tail are negative.

A program has all channels of a block in a row of threads, so that sums along time stay within a thread. Backward, each row of x is read once: what
a tap pulls of it and what it pulls of the tap come of the same rows of gradients."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import FARTHEST, plain
from archdsl.kernels.overlap import follow, overlapping

CONFIG = {"forward": (1024, 4, 4), "backward": (1024, 4, 4), "step": (512, 1, 4)}
"""Most channels of a program, rows at a time of 1,024 channels, warps."""
SPAN = 64
"""Rows whose gradients of the taps a program adds up."""


@triton.jit
def _rows(x, tail, first, channel, stride, T, c, R: tl.constexpr, TAPS: tl.constexpr, TAIL: tl.constexpr):
    """[R, C] of rows of x from `first`, or of the tail in front of them, zeros beyond."""
    row, here = tl.arange(0, R), channel[None, :] < c
    found = tl.load(x + tl.cast(first, tl.int64) * stride + (row[:, None] * stride + channel[None, :]),
                    mask=(row[:, None] >= -first) & (row[:, None] < T - first) & here, other=0.0).to(tl.float32)
    if TAIL:
        found += tl.load(tail + (first + TAPS - 1) * c + (row[:, None] * c + channel[None, :]),
                         mask=(row[:, None] < -first) & (row[:, None] > -first - TAPS) & here, other=0.0).to(tl.float32)
    return found


@triton.jit
def _tap(weight, channel, c):
    return tl.load(weight + channel, mask=channel < c, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=["T"])
def forward_kernel(x, weight, bias, tail, y, later, xb, xt, T, c, R: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr,
                   TAIL: tl.constexpr):
    """Rows of one sequence; of the last of all, those that are the tail of what follows."""
    first, channel, n = tl.program_id(0) * R, tl.program_id(1) * C + tl.arange(0, C), tl.program_id(2).to(tl.int64)
    row, x, y, later = tl.arange(0, R), x + n * xb, y + (n * T + first) * c, later + n * (TAPS - 1) * c
    tail = tail + n * (TAPS - 1) * c if TAIL else tail
    place, inside = row[:, None] * c + channel[None, :], (row[:, None] < T - first) & (channel[None, :] < c)
    found = tl.zeros([R, C], tl.float32)
    if BIAS:
        found += _tap(bias, channel, c)
    for j in tl.static_range(TAPS):
        now = _rows(x, tail, first + (j - TAPS + 1), channel, xt, T, c, R, TAPS, TAIL)
        found += now * _tap(weight + j * c, channel, c)
        if j == TAPS - 1:
            ahead = first - T + TAPS - 1
            tl.store(later + ahead * c + place, now.to(later.dtype.element_ty), mask=inside & (row[:, None] >= -ahead))
    tl.store(y + place, found.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["T"])
def backward_kernel(dy, dlater, x, weight, tail, dx, dtail, sums, yb, yt, xb, xt, T, c, ROWS: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
                    TAPS: tl.constexpr, SLOTS: tl.constexpr, BIAS: tl.constexpr, TAIL: tl.constexpr, LATER: tl.constexpr):
    """`sums`, [spans of all sequences, SLOTS, c]: of a span of rows the gradients of the taps, [k, c], and of the bias behind them."""
    channel, n = tl.program_id(1) * C + tl.arange(0, C), tl.program_id(2).to(tl.int64)
    dy, x, dx, row, slot = dy + n * yb, x + n * xb, dx + n * T * c, tl.arange(0, R), tl.arange(0, SLOTS)
    tail = tail + n * (TAPS - 1) * c if TAIL else tail
    place, here = row[:, None] * c + channel[None, :], channel[None, :] < c
    begin = tl.program_id(0) * ROWS - (TAPS - 1 if TAIL else 0)
    total = tl.zeros([SLOTS, C], tl.float32)
    for step in range(0, ROWS, R):
        first = begin + step
        own = _rows(x, tail, first, channel, xt, T, c, R, TAPS, TAIL)
        found = tl.zeros([R, C], tl.float32)
        for j in tl.static_range(TAPS):
            pulled = _rows(dy, dy, first + (TAPS - 1 - j), channel, yt, T, c, R, TAPS, False)
            found += pulled * _tap(weight + j * c, channel, c)
            total += tl.where(slot[:, None] == j, tl.sum(pulled * own, 0)[None, :], 0.0)
            if BIAS and j == TAPS - 1:
                total += tl.where(slot[:, None] == TAPS, tl.sum(tl.where(row[:, None] >= -first, pulled, 0.0), 0)[None, :], 0.0)
        if LATER:
            ahead = first - T + TAPS - 1
            found += tl.load(dlater + (n * (TAPS - 1) + ahead) * c + place, mask=(row[:, None] >= -ahead) & (row[:, None] < T - first) & here,
                             other=0.0).to(tl.float32)
        tl.store(dx + tl.cast(first, tl.int64) * c + place, found.to(dx.dtype.element_ty),
                 mask=(row[:, None] >= -first) & (row[:, None] < T - first) & here)
        if TAIL:
            tl.store(dtail + (n * (TAPS - 1) + first + TAPS - 1) * c + place, found.to(dtail.dtype.element_ty), mask=(row[:, None] < -first) & here)
    span = n * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + span * SLOTS * c + (slot[:, None] * c + channel[None, :]), total, mask=here & (slot[:, None] < (TAPS + 1 if BIAS else TAPS)))


@triton.jit
def step_kernel(x, weight, bias, tail, y, later, xb, c, C: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr,
                SILU: tl.constexpr, WAIT: tl.constexpr):
    """`later` may be `tail`: a place is read before it is written."""
    channel, n = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(1).to(tl.int64)
    here = channel < c
    follow(WAIT)
    found = tl.load(bias + channel, mask=here, other=0.0).to(tl.float32) if BIAS else tl.zeros([C], tl.float32)
    for j in tl.static_range(TAPS):
        if j < TAPS - 1:
            now = tl.load(tail + (n * (TAPS - 1) + j) * c + channel, mask=here, other=0.0)
        else:
            now = tl.load(x + n * xb + channel, mask=here, other=0.0)
        found += now.to(tl.float32) * tl.load(weight + j * c + channel, mask=here, other=0.0).to(tl.float32)
        if j > 0:
            tl.store(later + (n * (TAPS - 1) + j - 1) * c + channel, now, mask=here)
    if SILU:
        found = found / (1 + tl.exp(-found))
    tl.store(y + n * c + channel, found.to(y.dtype.element_ty), mask=here)


# ---------------------------------------------------------------- on the host
def forward(x: Any, weight: Any, bias: Any, tail: Any) -> tuple[Any, Any]:
    """y, [..., T, c], and the last k - 1 positions, in the dtype of x."""
    lead, (flat, taps) = x.shape[:-2], (_flat(x), weight.shape[-1])
    N, T, c = flat.shape
    y, later = x.new_empty(x.shape), x.new_empty(*lead, taps - 1, c)
    R, C, warps = _block("forward", T, c)
    forward_kernel[(triton.cdiv(T, R), triton.cdiv(c, C), N)](
        flat, plain(weight.mT), plain(bias), plain(tail), y, later, *flat.stride()[:2], T, c, R=R, C=C, TAPS=taps, BIAS=bias is not None,
        TAIL=tail is not None, num_warps=warps)
    if taps - 1 > T:
        kept = later[..., :taps - 1 - T, :]
        kept.zero_() if tail is None else kept.copy_(tail[..., T:, :])
    return y, later


def gradient(dy: Any, dlater: Any, x: Any, weight: Any, bias: Any, tail: Any) -> tuple[Any, ...]:
    """Gradients of x, the weight, the bias and the tail, None for one that is absent."""
    flat, pulled, taps = _flat(x), _flat(dy), weight.shape[-1]
    N, T, c = flat.shape
    dx, dtail = x.new_empty(x.shape), None if tail is None else tail.new_empty(tail.shape)
    spans, slots = triton.cdiv(T + (taps - 1 if tail is not None else 0), SPAN), triton.next_power_of_2(taps + (bias is not None))
    sums = x.new_empty(N * spans, slots, c, dtype=torch.float32)
    R, C, warps = _block("backward", SPAN, c)
    backward_kernel[(spans, triton.cdiv(c, C), N)](
        pulled, plain(dlater), flat, plain(weight.mT), plain(tail), dx, dtail, sums, *pulled.stride()[:2], *flat.stride()[:2], T, c,
        ROWS=SPAN, R=R, C=C, TAPS=taps, SLOTS=slots, BIAS=bias is not None, TAIL=tail is not None, LATER=dlater is not None, num_warps=warps)
    found = sums[:, :taps + (bias is not None)].sum(0)
    return dx, found[:taps].mT, None if bias is None else found[taps], dtail


def step(x: Any, weight: Any, bias: Any, tail: Any) -> tuple[Any, Any]:
    """One position, [..., 1, c], from the last k - 1: y and the new tail."""
    later = tail.new_empty(tail.shape)
    return _step(x, weight, bias, plain(tail), later, "identity", {"WAIT": False}), later


def step_in_place(x: Any, weight: Any, bias: Any, tail: Any, act: str) -> Any:
    """As `step`, and `act` of y, `identity` or `silu`; the tail, without gaps, is changed in place."""
    return _step(x, weight, bias, tail, tail, act, overlapping())


def _step(x: Any, weight: Any, bias: Any, tail: Any, later: Any, act: str, launch: dict[str, Any]) -> Any:
    flat, taps = _flat(x), weight.shape[-1]
    N, _, c = flat.shape
    y = x.new_empty(x.shape)
    _, C, warps = _block("step", 1, c)
    step_kernel[(triton.cdiv(c, C), N)](flat, plain(weight.mT), plain(bias), tail, y, later, flat.stride(0), c, C=C, TAPS=taps,
                                        BIAS=bias is not None, SILU=act == "silu", num_warps=warps, **launch)
    return y


def _flat(x: Any) -> Any:
    """[N, T, c], channels in order in memory: a view where the memory lets it be one."""
    x = x.reshape(-1, *x.shape[-2:])
    return x if (x.stride(-1) == 1 or x.shape[-1] == 1) and x.stride(1) <= FARTHEST else x.contiguous()


def _block(name: str, T: int, c: int) -> tuple[int, int, int]:
    """Rows, channels and warps of a program: fewer channels, more rows."""
    most, rows, warps = CONFIG[name]
    C = min(most, triton.next_power_of_2(c))
    return min(triton.next_power_of_2(T), SPAN, rows * (most // C)), C, warps
