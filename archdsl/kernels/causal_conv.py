"""Short causal convolution by Triton, all sums in float32. Rows count from the first position: those of the tail are negative.

A program has a row of channels and goes along time: it reads its rows into registers at once, each once, and sums along time stay within a thread.
Backward, what a tap pulls of a row of x and what that pulls of the tap come of the same rows of gradients."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.chunks import FARTHEST, plain
from archdsl.kernels.overlap import follow, overlapping
from archdsl.kernels.tiles import summed

CONFIG = {"forward": (16, 512, 4), "backward": (8, 512, 4), "step": (1, 256, 4)}
"""Rows at a time, most channels of a program, and their warps, on Hopper."""
SPAN = 64
"""Rows whose gradients of the taps a program adds up."""


@triton.jit
def _rows(x, tail, first, channel, stride, T, c, COUNT: tl.constexpr, TAPS: tl.constexpr, TAIL: tl.constexpr):
    """A tuple of COUNT rows of x from `first`, or of the tail in front of them, zeros beyond: all loads are in flight together."""
    found, here = (), channel < c
    for i in tl.static_range(COUNT):
        row = first + i
        now = tl.load(x + tl.cast(row, tl.int64) * stride + channel, mask=here & (row >= 0) & (row < T), other=0.0)
        if TAIL:
            now += tl.load(tail + (row + TAPS - 1) * c + channel, mask=here & (row < 0) & (row > -TAPS), other=0.0)
        found += (now,)
    return found


@triton.jit
def _taps(weight, channel, c, TAPS: tl.constexpr):
    found = ()
    for j in tl.static_range(TAPS):
        found += (tl.load(weight + channel * TAPS + j, mask=channel < c, other=0.0).to(tl.float32),)
    return found


@triton.jit(do_not_specialize=["T"])
def forward_kernel(x, weight, bias, tail, y, later, xb, xt, T, c, R: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr,
                   TAIL: tl.constexpr):
    """Rows of one sequence; of the last of all, those that are the tail of what follows."""
    first, channel, n = tl.program_id(0) * R, tl.program_id(1) * C + tl.arange(0, C), tl.program_id(2).to(tl.int64)
    x, y, later = x + n * xb, y + n * T * c, later + n * (TAPS - 1) * c
    tail = tail + n * (TAPS - 1) * c if TAIL else tail
    here = channel < c
    rows = _rows(x, tail, first - (TAPS - 1), channel, xt, T, c, R + TAPS - 1, TAPS, TAIL)
    taps = _taps(weight, channel, c, TAPS)
    begun = tl.load(bias + channel, mask=here, other=0.0).to(tl.float32) if BIAS else tl.zeros([C], tl.float32)
    for i in tl.static_range(R):
        found = begun
        for j in tl.static_range(TAPS):
            found += rows[i + j].to(tl.float32) * taps[j]
        tl.store(y + tl.cast(first + i, tl.int64) * c + channel, found.to(y.dtype.element_ty), mask=here & (first + i < T))
    if first + R > T - (TAPS - 1):
        for i in tl.static_range(R):
            ahead = first + i - (T - (TAPS - 1))
            tl.store(later + ahead * c + channel, rows[i + TAPS - 1], mask=here & (ahead >= 0) & (first + i < T))


@triton.jit(do_not_specialize=["T"])
def backward_kernel(dy, dlater, x, weight, tail, dx, dtail, sums, yb, yt, xb, xt, T, c, ROWS: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
                    TAPS: tl.constexpr, BIAS: tl.constexpr, TAIL: tl.constexpr, LATER: tl.constexpr):
    """`sums`, [spans of all sequences, k or k + 1, c]: of a span of rows the gradients of the taps, [k, c], and of the bias behind them."""
    channel, n = tl.program_id(1) * C + tl.arange(0, C), tl.program_id(2).to(tl.int64)
    dy, x, dx = dy + n * yb, x + n * xb, dx + n * T * c
    tail = tail + n * (TAPS - 1) * c if TAIL else tail
    here = channel < c
    begin = tl.program_id(0) * ROWS - (TAPS - 1 if TAIL else 0)
    taps = _taps(weight, channel, c, TAPS)
    totals = ()
    for _ in tl.static_range(TAPS):
        totals += (tl.zeros([C], tl.float32),)
    shift = tl.zeros([C], tl.float32)
    for step in range(0, ROWS, R):
        first = begin + step
        own = _rows(x, tail, first, channel, xt, T, c, R, TAPS, TAIL)
        pulled = _rows(dy, dy, first, channel, yt, T, c, R + TAPS - 1, TAPS, False)
        for i in tl.static_range(R):
            row = first + i
            more = ()
            found = tl.zeros([C], tl.float32)
            for j in tl.static_range(TAPS):
                back = pulled[i + TAPS - 1 - j].to(tl.float32)
                found += back * taps[j]
                more += (totals[j] + back * own[i].to(tl.float32),)
            totals = more
            if BIAS:
                shift += pulled[i].to(tl.float32)
            if LATER:
                ahead = row - T + TAPS - 1
                found += tl.load(dlater + (n * (TAPS - 1) + ahead) * c + channel, mask=here & (ahead >= 0) & (row < T), other=0.0).to(tl.float32)
            tl.store(dx + tl.cast(row, tl.int64) * c + channel, found.to(dx.dtype.element_ty), mask=here & (row >= 0) & (row < T))
            if TAIL:
                tl.store(dtail + (n * (TAPS - 1) + row + TAPS - 1) * c + channel, found.to(dtail.dtype.element_ty),
                         mask=here & (row < 0) & (row > -TAPS))
    into = sums + (n * tl.num_programs(0) + tl.program_id(0)) * (TAPS + 1 if BIAS else TAPS) * c + channel
    for j in tl.static_range(TAPS):
        tl.store(into + j * c, totals[j], mask=here)
    if BIAS:
        tl.store(into + TAPS * c, shift, mask=here)


@triton.jit
def step_kernel(x, weight, bias, tail, y, later, xb, c, C: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr,
                SILU: tl.constexpr, WAIT: tl.constexpr):
    """`later` may be `tail`: all is read before anything is written."""
    channel, n = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(1).to(tl.int64)
    here = channel < c
    follow(WAIT)
    found = tl.load(bias + channel, mask=here, other=0.0).to(tl.float32) if BIAS else tl.zeros([C], tl.float32)
    rows = ()
    for j in tl.static_range(TAPS - 1):
        rows += (tl.load(tail + (n * (TAPS - 1) + j) * c + channel, mask=here, other=0.0),)
    rows += (tl.load(x + n * xb + channel, mask=here, other=0.0),)
    taps = _taps(weight, channel, c, TAPS)
    for j in tl.static_range(TAPS):
        found += rows[j].to(tl.float32) * taps[j]
    for j in tl.static_range(1, TAPS):
        tl.store(later + (n * (TAPS - 1) + j - 1) * c + channel, rows[j], mask=here)
    if SILU:
        found = found / (1 + tl.exp(-found))
    tl.store(y + n * c + channel, found.to(y.dtype.element_ty), mask=here)


# ---------------------------------------------------------------- on the host
def forward(x: Any, weight: Any, bias: Any, tail: Any) -> tuple[Any, Any]:
    """y, [..., T, c], and the last k - 1 positions, in the dtype of x."""
    lead, (flat, taps) = x.shape[:-2], (_flat(x), weight.shape[-1])
    N, T, c = flat.shape
    y, later = x.new_empty(x.shape), x.new_empty(*lead, taps - 1, c)
    R, C, warps = _block("forward", c)
    forward_kernel[(triton.cdiv(T, R), triton.cdiv(c, C), N)](
        flat, plain(weight), plain(bias), plain(tail), y, later, *flat.stride()[:2], T, c, R=R, C=C, TAPS=taps, BIAS=bias is not None,
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
    spans, slots = triton.cdiv(T + (taps - 1 if tail is not None else 0), SPAN), taps + (bias is not None)
    sums = x.new_empty(N * spans, slots, c, dtype=torch.float32)
    R, C, warps = _block("backward", c)
    backward_kernel[(spans, triton.cdiv(c, C), N)](
        pulled, plain(dlater), flat, plain(weight), plain(tail), dx, dtail, sums, *pulled.stride()[:2], *flat.stride()[:2], T, c,
        ROWS=SPAN, R=R, C=C, TAPS=taps, BIAS=bias is not None, TAIL=tail is not None, LATER=dlater is not None, num_warps=warps)
    (found,) = summed(sums.view(N * spans, slots * c), sums[0]) if N else [x.new_zeros(slots, c, dtype=torch.float32)]
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
    _, C, warps = _block("step", c)
    step_kernel[(triton.cdiv(c, C), N)](flat, plain(weight), plain(bias), tail, y, later, flat.stride(0), c, C=C, TAPS=taps,
                                        BIAS=bias is not None, SILU=act == "silu", num_warps=warps, **launch)
    return y


def _flat(x: Any) -> Any:
    """[N, T, c], channels in order in memory: a view where the memory lets it be one."""
    x = x.reshape(-1, *x.shape[-2:])
    return x if (x.stride(-1) == 1 or x.shape[-1] == 1) and x.stride(1) <= FARTHEST else x.contiguous()


def _block(name: str, c: int) -> tuple[int, int, int]:
    """Rows, channels and warps of a program."""
    rows, most, warps = CONFIG[name]
    C = min(most, triton.next_power_of_2(c))
    return rows, C, max(1, warps * C // most)
