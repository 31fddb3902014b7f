# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false
"""Products of one to four rows with weights, for decoding: what takes the time is reading the weights once.

y = act(norm(x) Wᵀ + b) + residual for weights that share x, [M, K] · [N_i, K]ᵀ, their results behind each other (`linears`), or
act(norm(x) W₁ᵀ + b₁) ⊙ (norm(x) W₂ᵀ + b₂) (`gated`), in one launch. The weights stay where they are: a program finds out from its number whose
rows are its own. The norm is that of the root mean square: its factor multiplies the sums, so that x is read once. Sums are float32, whatever the
operands (bf16, f16 or f32, all alike). Some columns of the results may go through a short causal convolution, whose last positions are kept in place
(`convolved`): a channel belongs to one program.
"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from archdsl.kernels.overlap import follow, overlapping

CHANNELS, HELD, EACH = 1024, 49152, 2048
"""Channels of a step; bytes of weights, times rows of x, of a program: all are in flight together; bytes of a step for each warp. Chosen on an H200
among 4 to 8 rows, 512 to 2048 channels and 4 or 8 warps, at the sizes of models of 1.1 billion weights."""
AT_ONCE, A_WARP, RESIDENT = 20480, 2816, 16
"""Of a program that goes along a weight: bytes that are on their way, of each warp; how many warps of a multiprocessor the programs fill. Near what
was quickest on an H100 in whole steps of models of 1.1 billion weights, among 10, 20 and 40 KiB, 2.5 and 5 a warp, 12 and 16 warps."""
MOST = 6
"""The most weights of one launch."""
ACTIVATIONS = ("identity", "silu", "gelu", "gelu_tanh", "relu")


@triton.jit
def _activated(x, ACT: tl.constexpr):
    if ACT == "silu":
        x = x / (1 + tl.exp(-x))
    elif ACT == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif ACT == "gelu_tanh":
        x = x / (1 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    elif ACT == "relu":
        x = tl.where(x < 0, 0.0, x)  # a NaN stays one
    return x


@triton.jit
def _rows(w_at, n, n_in, w_n, K, C: tl.constexpr, STEPS: tl.constexpr):
    """Rows of a weight as a tuple of [N, C]: all loads are in flight together."""
    parts = ()
    for i in tl.static_range(STEPS):
        k = i * C + tl.arange(0, C)
        parts += (tl.load(w_at + n[:, None] * w_n + k[None, :], mask=n_in[:, None] & (k < K)[None, :], other=0.0, eviction_policy="evict_first"),)
    return parts


@triton.jit
def _products(x_at, norm_at, w_at, b_at, n, n_in, w_n, K, eps, R: tl.constexpr, M: tl.constexpr, NORM: tl.constexpr, N: tl.constexpr,
              C: tl.constexpr, STEPS: tl.constexpr, WAIT: tl.constexpr):
    """[M, N] of norm(x) wᵀ + b for the rows `n` of a weight, which are read before anything is waited for."""
    w = _rows(w_at, n, n_in, w_n, K, C, STEPS)
    follow(WAIT)
    m, c = tl.arange(0, M), tl.arange(0, C)
    sums = tl.zeros((M, N, C), tl.float32)
    squares = tl.zeros((M, C), tl.float32)
    for i in tl.static_range(STEPS):
        k = i * C + c
        x = tl.load(x_at + m[:, None] * K + k[None, :], mask=(m < R)[:, None] & (k < K)[None, :], other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_at + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
        sums += x[:, None, :] * w[i].to(tl.float32)[None, :, :]
    y = tl.sum(sums, 2)
    if NORM:
        y = y * tl.rsqrt(tl.sum(squares, 1) / K + eps)[:, None]
    if b_at is not None:
        y += tl.load(b_at + n, mask=n_in, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _write(x_at, norm_at, w_at, b_at, residual_at, y_at, block, count, before, whole, w_n, K, eps, taps_at, taps_b_at, tail_at, first, channels,
           R: tl.constexpr, M: tl.constexpr, NORM: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr, TAPS: tl.constexpr, N: tl.constexpr,
           C: tl.constexpr, STEPS: tl.constexpr, WAIT: tl.constexpr):
    """The results of one block of rows of one weight, `before` columns into y."""
    n, m = (block * N + tl.arange(0, N)).to(tl.int64), tl.arange(0, M)
    n_in = n < count
    y = _products(x_at, norm_at, w_at, b_at, n, n_in, w_n, K, eps, R, M, NORM, N, C, STEPS, WAIT)
    inside = (m < R)[:, None] & n_in[None, :]
    if TAPS > 0:
        y = _convolved(y, n, m, inside, taps_at, taps_b_at, tail_at, first, channels, y_at.dtype.element_ty, ACT, TAPS)
    else:
        y = _activated(y, ACT)
    out = m[:, None] * whole + before + n[None, :]
    if RESIDUAL:
        y += tl.load(residual_at + out, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_at + out, y.to(y_at.dtype.element_ty), mask=inside)


@triton.jit
def _convolved(y, n, m, inside, taps_at, bias_at, tail_at, first, channels, DTYPE: tl.constexpr, ACT: tl.constexpr, TAPS: tl.constexpr):
    """act of the convolution along time of the columns from `first` on, so many `channels`; the others as they are."""
    channel = n - first
    here = (channel >= 0) & (channel < channels)
    both = inside & here[None, :]
    y = y.to(DTYPE).to(tl.float32)  # what is kept of it
    sums = y * tl.load(taps_at + channel * TAPS + TAPS - 1, mask=here, other=0.0).to(tl.float32)[None, :]
    if bias_at is not None:
        sums += tl.load(bias_at + channel, mask=here, other=0.0).to(tl.float32)[None, :]
    tail = tail_at + m[:, None] * (TAPS - 1) * channels + channel[None, :]
    old = ()
    for j in tl.static_range(TAPS - 1):  # all is read before anything is written: no load waits for another
        old += (tl.load(tail + j * channels, mask=both, other=0.0),)
        sums += old[j].to(tl.float32) * tl.load(taps_at + channel * TAPS + j, mask=here, other=0.0).to(tl.float32)[None, :]
    for j in tl.static_range(1, TAPS - 1):
        tl.store(tail + (j - 1) * channels, old[j], mask=both)
    tl.store(tail + (TAPS - 2) * channels, y.to(tail_at.dtype.element_ty), mask=both)
    return tl.where(here[None, :], _activated(sums, ACT), y)


@triton.jit
def _linears(x_at, norm_at, w_at, b_at, residual_at, y_at, counts, w_n, whole, K, eps, taps_at, taps_b_at, tail_at, first, channels,
             PARTS: tl.constexpr, R: tl.constexpr, M: tl.constexpr, NORM: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr,
             TAPS: tl.constexpr, N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr, WAIT: tl.constexpr):
    """A tuple each of weights, biases, counts of rows and strides."""
    block, begun, before = tl.program_id(0), 0, 0
    for i in tl.static_range(PARTS):
        blocks = tl.cdiv(counts[i], N)
        if (block >= begun) & (block < begun + blocks):
            _write(x_at, norm_at, w_at[i], b_at[i], residual_at, y_at, block - begun, counts[i], before, whole, w_n[i], K, eps, taps_at, taps_b_at,
                   tail_at, first, channels, R, M, NORM, RESIDUAL, ACT, TAPS, N, C, STEPS, WAIT)
        begun += blocks
        before += counts[i]


@triton.jit
def _row(x_at, norm_at, K, eps, NORM: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr):
    """One row of x as a tuple of [C], times the weight of the norm, and the factor of the norm."""
    parts = ()
    squares = tl.zeros((C,), tl.float32)
    for i in tl.static_range(STEPS):
        k = i * C + tl.arange(0, C)
        x = tl.load(x_at + k, mask=k < K, other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_at + k, mask=k < K, other=0.0).to(tl.float32)
        parts += (x,)
    return parts, tl.rsqrt(tl.sum(squares, 0) / K + eps) if NORM else 1.0


@triton.jit
def _dots(w, x, N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr):
    sums = tl.zeros((N, C), tl.float32)
    for i in tl.static_range(STEPS):
        sums += x[i][None, :] * w[i].to(tl.float32)
    return tl.sum(sums, 1)


@triton.jit
def _along(x_at, norm_at, w_at, b_at, residual_at, y_at, count, w_n, K, eps, taps_at, taps_b_at, tail_at, first, channels, NORM: tl.constexpr,
           RESIDUAL: tl.constexpr, ACT: tl.constexpr, TAPS: tl.constexpr, N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr,
           WAIT: tl.constexpr):
    """One row of x, which stays in registers while a program goes over rows of one weight, the next of them on their way."""
    block, rows, m = tl.program_id(0), tl.arange(0, N).to(tl.int64), tl.arange(0, 1)
    n = block * N + rows
    w = _rows(w_at, n, n < count, w_n, K, C, STEPS)
    follow(WAIT)
    x, factor = _row(x_at, norm_at, K, eps, NORM, C, STEPS)
    while block * N < count:
        n = block * N + rows
        block += tl.num_programs(0)
        after = _rows(w_at, block * N + rows, block * N + rows < count, w_n, K, C, STEPS)
        y = _dots(w, x, N, C, STEPS) * factor
        w = after
        if b_at is not None:
            y += tl.load(b_at + n, mask=n < count, other=0.0).to(tl.float32)
        y, inside = y[None, :], (n < count)[None, :]
        if TAPS > 0:
            y = _convolved(y, n, m, inside, taps_at, taps_b_at, tail_at, first, channels, y_at.dtype.element_ty, ACT, TAPS)
        else:
            y = _activated(y, ACT)
        if RESIDUAL:
            y += tl.load(residual_at + n[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(y_at + n[None, :], y.to(y_at.dtype.element_ty), mask=inside)


@triton.jit
def _gated_along(x_at, norm_at, w0_at, w1_at, b0_at, b1_at, y_at, count, w0_n, w1_n, K, eps, NORM: tl.constexpr, ACT: tl.constexpr,
                 N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr, WAIT: tl.constexpr):
    """As `_along`, of two weights."""
    block, rows = tl.program_id(0), tl.arange(0, N).to(tl.int64)
    n = block * N + rows
    w0, w1 = _rows(w0_at, n, n < count, w0_n, K, C, STEPS), _rows(w1_at, n, n < count, w1_n, K, C, STEPS)
    follow(WAIT)
    x, factor = _row(x_at, norm_at, K, eps, NORM, C, STEPS)
    while block * N < count:
        n = block * N + rows
        block += tl.num_programs(0)
        late = block * N + rows
        after0, after1 = _rows(w0_at, late, late < count, w0_n, K, C, STEPS), _rows(w1_at, late, late < count, w1_n, K, C, STEPS)
        gate, up = _dots(w0, x, N, C, STEPS) * factor, _dots(w1, x, N, C, STEPS) * factor
        w0, w1 = after0, after1
        if b0_at is not None:
            gate += tl.load(b0_at + n, mask=n < count, other=0.0).to(tl.float32)
        if b1_at is not None:
            up += tl.load(b1_at + n, mask=n < count, other=0.0).to(tl.float32)
        tl.store(y_at + n, (_activated(gate, ACT) * up).to(y_at.dtype.element_ty), mask=n < count)


@triton.jit
def _gated(x_at, norm_at, w0_at, w1_at, b0_at, b1_at, y_at, n0, w0_n, w1_n, K, eps, R: tl.constexpr, M: tl.constexpr, NORM: tl.constexpr,
           ACT: tl.constexpr, N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr, WAIT: tl.constexpr):
    n, m = (tl.program_id(0) * N + tl.arange(0, N)).to(tl.int64), tl.arange(0, M)
    n_in = n < n0
    w0, w1 = _rows(w0_at, n, n_in, w0_n, K, C, STEPS), _rows(w1_at, n, n_in, w1_n, K, C, STEPS)
    follow(WAIT)
    gates, ups = tl.zeros((M, N, C), tl.float32), tl.zeros((M, N, C), tl.float32)
    squares = tl.zeros((M, C), tl.float32)
    for i in tl.static_range(STEPS):
        k = i * C + tl.arange(0, C)
        x = tl.load(x_at + m[:, None] * K + k[None, :], mask=(m < R)[:, None] & (k < K)[None, :], other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_at + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
        gates += x[:, None, :] * w0[i].to(tl.float32)[None, :, :]
        ups += x[:, None, :] * w1[i].to(tl.float32)[None, :, :]
    gate, up = tl.sum(gates, 2), tl.sum(ups, 2)
    if NORM:
        factor = tl.rsqrt(tl.sum(squares, 1) / K + eps)[:, None]
        gate, up = gate * factor, up * factor
    if b0_at is not None:
        gate += tl.load(b0_at + n, mask=n_in, other=0.0).to(tl.float32)[None, :]
    if b1_at is not None:
        up += tl.load(b1_at + n, mask=n_in, other=0.0).to(tl.float32)[None, :]
    tl.store(y_at + m[:, None] * n0 + n[None, :], (_activated(gate, ACT) * up).to(y_at.dtype.element_ty), mask=(m < R)[:, None] & n_in[None, :])


# ---------------------------------------------------------------- launching
def shape_of(x: torch.Tensor, rows: int, weights: int = 1) -> dict[str, Any]:
    """Rows of a weight in a program, channels at a time, how many times, warps: loads of 16 bytes a thread, as many as the registers hold at once."""
    K, size = x.shape[-1], x.element_size()
    C = min(CHANNELS, triton.next_power_of_2(K))
    N = max(1, min(4, HELD // (rows * weights * triton.cdiv(K, C) * C * size)))
    N = 1 << (N.bit_length() - 1)
    return {"N": N, "C": C, "STEPS": triton.cdiv(K, C), "num_warps": max(1, min(8, rows * N * C * size // EACH)), **overlapping()}


def along_of(x: torch.Tensor, count: int, weights: int = 1) -> tuple[int, dict[str, Any]]:
    """How many programs go along the rows of a weight, all of them at once, and their shape."""
    K, size = x.shape[-1], x.element_size()
    C = next((c for c in (1024, 512) if K % c == 0), min(1024, triton.next_power_of_2(K)))
    steps = triton.cdiv(K, C)
    N = max(1, min(8, AT_ONCE // (weights * steps * C * size)))
    N = 1 << (N.bit_length() - 1)
    warps = max(1, min(8, weights * N * steps * C * size // A_WARP))
    warps = 1 << (warps.bit_length() - 1)
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 132  # those of an H100
    return min(processors * max(1, RESIDENT // warps), triton.cdiv(count, N)), {"N": N, "C": C, "STEPS": steps, "num_warps": warps, **overlapping()}


def linears(x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor | None], norm: torch.Tensor | None, eps: float, act: str,
            residual: torch.Tensor | None) -> torch.Tensor:
    """x [..., K], weights [N_i, K], biases [N_i], norm [K] -> [..., N_1 + …]. `residual`: as the result."""
    return _launch(x, weights, biases, norm, eps, act, residual, None, None, None, 0)


def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, norm: torch.Tensor | None, eps: float, taps: torch.Tensor,
              taps_bias: torch.Tensor | None, tail: torch.Tensor, first: int, act: str) -> torch.Tensor:
    """norm(x) Wᵀ + b, [B, 1, N], whose columns from `first` on, c of them, go through act(causal convolution): `taps` [c, k], `taps_bias` [c], and
    `tail` [B, k - 1, c], the last positions of these columns, which is changed in place."""
    return _launch(x, [weight], [bias], norm, eps, act, None, taps, taps_bias, tail, first)


def _launch(x: Any, weights: list[Any], biases: list[Any], norm: Any, eps: float, act: str, residual: Any, taps: Any, taps_bias: Any, tail: Any,
            first: int) -> torch.Tensor:
    flat, K = x.reshape(-1, x.shape[-1]).contiguous(), x.shape[-1]
    norm, taps, taps_bias, residual, *biases = (None if v is None else v.contiguous() for v in (norm, taps, taps_bias, residual, *biases))
    rows, counts = len(flat), tuple(len(w) for w in weights)
    M = triton.next_power_of_2(rows)
    y = torch.empty(rows, sum(counts), dtype=x.dtype, device=x.device)
    if rows == len(weights) == 1:
        programs, shape = along_of(x, counts[0])
        _along[(programs,)](flat, norm, weights[0], biases[0], residual, y, counts[0], weights[0].stride(0), K, eps, taps, taps_bias, tail, first,
                            0 if taps is None else len(taps), NORM=norm is not None, RESIDUAL=residual is not None, ACT=act,
                            TAPS=0 if taps is None else taps.shape[-1], **shape)
        return y.view(*x.shape[:-1], -1)
    shape = shape_of(x, M)
    _linears[(sum(triton.cdiv(n, shape["N"]) for n in counts),)](
        flat, norm, tuple(weights), tuple(biases), residual, y, counts, tuple(w.stride(0) for w in weights), sum(counts), K, eps, taps, taps_bias,
        tail, first, 0 if taps is None else len(taps), PARTS=len(weights), R=rows, M=M, NORM=norm is not None, RESIDUAL=residual is not None,
        ACT=act, TAPS=0 if taps is None else taps.shape[-1], **shape)
    return y.view(*x.shape[:-1], -1)


def gated(x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor | None], norm: torch.Tensor | None, eps: float,
          act: str) -> torch.Tensor:
    """x [..., K], two weights [N, K] -> [..., N]."""
    flat, K = x.reshape(-1, x.shape[-1]).contiguous(), x.shape[-1]
    norm, *biases = (None if v is None else v.contiguous() for v in (norm, *biases))
    rows, count = len(flat), len(weights[0])
    M = triton.next_power_of_2(rows)
    y = torch.empty(rows, count, dtype=x.dtype, device=x.device)
    if rows == 1:
        programs, shape = along_of(x, count, 2)
        _gated_along[(programs,)](flat, norm, *weights, *biases, y, count, *(w.stride(0) for w in weights), K, eps, NORM=norm is not None, ACT=act,
                                  **shape)
        return y.view(*x.shape[:-1], -1)
    shape = shape_of(x, M, 2)
    _gated[(triton.cdiv(count, shape["N"]),)](flat, norm, *weights, *biases, y, count, *(w.stride(0) for w in weights), K, eps, R=rows, M=M,
                                              NORM=norm is not None, ACT=act, **shape)
    return y.view(*x.shape[:-1], -1)
