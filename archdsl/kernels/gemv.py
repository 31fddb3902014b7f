# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false
"""Products of one to four rows with weights, for decoding: what takes the time is reading the weights once.

y = act(norm(x) Wᵀ + b) + residual for up to three weights that share x, [M, K] · [N_i, K]ᵀ, their results behind each other (`linears`),
or act(norm(x) W₁ᵀ + b₁) ⊙ (norm(x) W₂ᵀ + b₂) (`gated`), in one launch. The weights stay where they are: a program finds out from its number whose
rows are its own. The norm is that of the root mean square: its factor multiplies the sums, so that x is read once. Sums are float32, whatever the
operands (bf16, f16 or f32, all alike).
"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

ROWS = 4
"""The most rows of x."""
MANY = 6
"""Steps along a row beyond which the loads of a program wait for each other."""
MOST = 3
"""The most weights of one launch."""
ACTIVATIONS = ("identity", "silu", "gelu", "gelu_tanh", "relu")
OVERLAP = False
"""Whether a launch begins while the one before it ends (programmatic dependent launch, from Hopper on): its first weights are read meanwhile."""


def fits(x: torch.Tensor, weights: list[torch.Tensor]) -> str | None:
    """Why these tensors cannot be taken, or None."""
    rows = x.numel() // max(x.shape[-1], 1)
    if not 1 <= rows <= ROWS:
        return f"it takes 1 to {ROWS} rows, not {rows}"
    if x.dtype not in (torch.bfloat16, torch.float16, torch.float32) or any(w.dtype != x.dtype for w in weights):
        return "it takes x and weights in bf16, f16 or f32 alike"
    if any(w.stride(-1) != 1 for w in weights):
        return "the rows of its weights are contiguous"
    return None


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
def _products(x_at, norm_at, w_at, b_at, n, n_in, w_n, K, eps, R: tl.constexpr, M: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr,
              N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr, WAIT: tl.constexpr):
    """[M, N] of norm(x) wᵀ + b for the rows `n` of a weight. All loads of a program are in flight together: its steps are written out."""
    m, c = tl.arange(0, M), tl.arange(0, C)
    sums = tl.zeros((M, N, C), tl.float32)
    squares = tl.zeros((M, C), tl.float32)
    for i in tl.static_range(STEPS):
        k = i * C + c
        k_in = k < K
        w = tl.load(w_at + n[:, None] * w_n + k[None, :], mask=n_in[:, None] & k_in[None, :], other=0.0, eviction_policy="evict_first").to(tl.float32)
        if WAIT and i == 0:  # behind it, all that earlier launches wrote is there
            tl.extra.cuda.gdc_wait()
            tl.extra.cuda.gdc_launch_dependents()
        x = tl.load(x_at + m[:, None] * K + k[None, :], mask=(m < R)[:, None] & k_in[None, :], other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_at + k, mask=k_in, other=0.0).to(tl.float32)[None, :]
        sums += x[:, None, :] * w[None, :, :]
    y = tl.sum(sums, 2)
    if NORM:
        y = y * tl.rsqrt(tl.sum(squares, 1) / K + eps)[:, None]
    if BIAS:
        y += tl.load(b_at + n, mask=n_in, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _write(x_at, norm_at, w_at, b_at, residual_at, y_at, block, count, before, whole, w_n, K, eps, R: tl.constexpr, M: tl.constexpr,
           NORM: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
           STEPS: tl.constexpr, WAIT: tl.constexpr):
    """The results of one block of rows of one weight, `before` columns into y."""
    n, m = (block * N + tl.arange(0, N)).to(tl.int64), tl.arange(0, M)
    n_in = n < count
    y = _activated(_products(x_at, norm_at, w_at, b_at, n, n_in, w_n, K, eps, R, M, NORM, BIAS, N, C, STEPS, WAIT), ACT)
    out = m[:, None] * whole + before + n[None, :]
    inside = (m < R)[:, None] & n_in[None, :]
    if RESIDUAL:
        y += tl.load(residual_at + out, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_at + out, y.to(y_at.dtype.element_ty), mask=inside)


@triton.jit
def _linears(x_at, norm_at, w0_at, w1_at, w2_at, b0_at, b1_at, b2_at, residual_at, y_at, n0, n1, n2, w0_n, w1_n, w2_n, K, eps,
             BIAS0: tl.constexpr, BIAS1: tl.constexpr, BIAS2: tl.constexpr, PARTS: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
             NORM: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr, N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr,
             WAIT: tl.constexpr):
    block = tl.program_id(0)
    if PARTS == 1:
        _write(x_at, norm_at, w0_at, b0_at, residual_at, y_at, block, n0, 0, n0, w0_n, K, eps, R, M, NORM, BIAS0, RESIDUAL, ACT, N, C, STEPS, WAIT)
    else:
        one, two, whole = tl.cdiv(n0, N), tl.cdiv(n0, N) + tl.cdiv(n1, N), n0 + n1 + n2
        if block < one:
            _write(x_at, norm_at, w0_at, b0_at, residual_at, y_at, block, n0, 0, whole, w0_n, K, eps, R, M, NORM, BIAS0, RESIDUAL, ACT, N, C, STEPS,
                   WAIT)
        elif block < two:
            _write(x_at, norm_at, w1_at, b1_at, residual_at, y_at, block - one, n1, n0, whole, w1_n, K, eps, R, M, NORM, BIAS1, RESIDUAL, ACT, N, C,
                   STEPS, WAIT)
        else:
            _write(x_at, norm_at, w2_at, b2_at, residual_at, y_at, block - two, n2, n0 + n1, whole, w2_n, K, eps, R, M, NORM, BIAS2, RESIDUAL, ACT,
                   N, C, STEPS, WAIT)


@triton.jit
def _gated(x_at, norm_at, w0_at, w1_at, b0_at, b1_at, y_at, n0, w0_n, w1_n, K, eps, BIAS0: tl.constexpr, BIAS1: tl.constexpr,
           R: tl.constexpr, M: tl.constexpr, NORM: tl.constexpr, ACT: tl.constexpr, N: tl.constexpr, C: tl.constexpr, STEPS: tl.constexpr,
           WAIT: tl.constexpr):
    n, m = (tl.program_id(0) * N + tl.arange(0, N)).to(tl.int64), tl.arange(0, M)
    n_in = n < n0
    gate = _products(x_at, norm_at, w0_at, b0_at, n, n_in, w0_n, K, eps, R, M, NORM, BIAS0, N, C, STEPS, WAIT)
    up = _products(x_at, norm_at, w1_at, b1_at, n, n_in, w1_n, K, eps, R, M, NORM, BIAS1, N, C, STEPS, False)
    tl.store(y_at + m[:, None] * n0 + n[None, :], (_activated(gate, ACT) * up).to(y_at.dtype.element_ty), mask=(m < R)[:, None] & n_in[None, :])


def shape_of(K: int, rows: int) -> dict[str, Any]:
    """Rows of a weight in a program, channels at a time, how many times, warps: loads of 16 bytes a thread, as many as fit the registers at once."""
    # A few steps, the least beyond the end of a row.
    C = min((2048, 1024, 512, 256, 128), key=lambda c: (max(triton.cdiv(K, c) - MANY, 0), triton.cdiv(K, c) * c, -c))
    N = max(1, min(4, 8192 // (rows * C)))
    overlap = {"WAIT": True, "launch_pdl": True} if OVERLAP else {"WAIT": False}
    return {"N": N, "C": C, "STEPS": triton.cdiv(K, C), "num_warps": 8 if N * C >= 4096 else 4, **overlap}


def linears(x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor | None], norm: torch.Tensor | None, eps: float, act: str,
            residual: torch.Tensor | None) -> torch.Tensor:
    """x [..., K], weights [N_i, K], biases [N_i], norm [K] -> [..., N_1 + …]. `residual`: as the result."""
    flat, K = x.reshape(-1, x.shape[-1]).contiguous(), x.shape[-1]
    norm, *biases = (None if v is None else v.contiguous() for v in (norm, *biases))
    rows, counts, more = len(flat), [len(w) for w in weights], MOST - len(weights)
    M = triton.next_power_of_2(rows)
    shape = shape_of(K, M)
    y = torch.empty(rows, sum(counts), dtype=x.dtype, device=x.device)
    given, added = [*weights, *[weights[0]] * more], [*biases, *[None] * more]
    _linears[(sum(triton.cdiv(n, shape["N"]) for n in counts),)](
        flat, norm, *given, *added, None if residual is None else residual.contiguous(), y, *counts, *[0] * more, *(w.stride(0) for w in given),
        K, eps, **{f"BIAS{i}": b is not None for i, b in enumerate(added)}, PARTS=len(weights), R=rows, M=M, NORM=norm is not None,
        RESIDUAL=residual is not None, ACT=act, **shape)
    return y.view(*x.shape[:-1], -1)


def gated(x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor | None], norm: torch.Tensor | None, eps: float,
          act: str) -> torch.Tensor:
    """x [..., K], two weights [N, K] -> [..., N]."""
    flat, K = x.reshape(-1, x.shape[-1]).contiguous(), x.shape[-1]
    norm, *biases = (None if v is None else v.contiguous() for v in (norm, *biases))
    rows, count = len(flat), len(weights[0])
    M = triton.next_power_of_2(rows)
    shape = shape_of(K, 2 * M)
    y = torch.empty(rows, count, dtype=x.dtype, device=x.device)
    _gated[(triton.cdiv(count, shape["N"]),)](
        flat, norm, *weights, *biases, y, count, *(w.stride(0) for w in weights), K, eps, BIAS0=biases[0] is not None,
        BIAS1=biases[1] is not None, R=rows, M=M, NORM=norm is not None, ACT=act, **shape)
    return y.view(*x.shape[:-1], -1)
