"""RMSNorm, LayerNorm, the compressed RMSNorm and division by the length over the last axis, by Triton, with the sum of two streams in front if
wanted.

A program holds whole rows in registers: each number is read once and written once. The backward pass computes the statistics again; a program goes
over many rows and adds the gradients of weight and bias up in registers, which `summed` adds up over the programs."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.tiles import programs_of, rows_of, shape_of, summed, sums, tile_of

RMS, LAYER, CRMS, L2 = (tl.constexpr(i) for i in range(4))


@triton.jit
def _statistics(x, inside, eps, D: tl.constexpr, KIND: tl.constexpr):
    """The rows without their mean where it counts, what multiplies them, and their sums."""
    sums = tl.sum(x, 1)[:, None]
    if KIND == LAYER:
        x = tl.where(inside, x - sums / D, 0.0)
    squares = tl.sum(x * x, 1)[:, None]
    if KIND == CRMS:
        mean = (squares + sums * sums) / (D + 1)
    elif KIND == L2:
        mean = squares
    else:
        mean = squares / D
    return x, 1 / tl.sqrt(mean + eps), sums


@triton.jit
def _forward(x, more, weight, bias, y, total, count, x_stride, more_stride, eps, D: tl.constexpr, KIND: tl.constexpr, ADD: tl.constexpr,
             WEIGHT: tl.constexpr, BIAS: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    rows = (tl.program_id(0).to(tl.int64) * R + tl.arange(0, R))[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    inside = (rows < count) & (i < D)
    v = tl.load(x + rows * x_stride + i, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        v += tl.load(more + rows * more_stride + i, mask=inside, other=0.0).to(tl.float32)
        v = v.to(total.dtype.element_ty)  # the norm sees the sum as the stream has it
        tl.store(total + rows * D + i, v, mask=inside)
        v = v.to(tl.float32)
    v, scale, _ = _statistics(v, inside, eps, D, KIND)
    v = v * scale
    if WEIGHT:
        v = v * tl.load(weight + i, mask=i < D, other=0.0).to(tl.float32)
    if BIAS:
        v = v + tl.load(bias + i, mask=i < D, other=0.0).to(tl.float32)
    tl.store(y + rows * D + i, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(dy, later, x, weight, dx, partial, count, dy_stride, later_stride, x_stride, eps, D: tl.constexpr, KIND: tl.constexpr,
              LATER: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, STAGES: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    i = tl.arange(0, BLOCK)[None, :]
    if WEIGHT:
        w = tl.load(weight + i, mask=i < D, other=0.0).to(tl.float32)
        to_weight = tl.zeros((R, BLOCK), tl.float32)
    if BIAS:
        to_bias = tl.zeros((R, BLOCK), tl.float32)
    for block in tl.range(program, tl.cdiv(count, R), tl.num_programs(0), num_stages=STAGES):
        rows = (block * R + tl.arange(0, R)).to(tl.int64)[:, None]
        inside = (rows < count) & (i < D)
        v = tl.load(x + rows * x_stride + i, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(dy + rows * dy_stride + i, mask=inside, other=0.0).to(tl.float32)
        v, scale, sums = _statistics(v, inside, eps, D, KIND)
        scale = tl.where(rows < count, scale, 0.0)  # behind the last row it is infinite without eps
        if BIAS:
            to_bias += g
        if WEIGHT:
            to_weight += g * v * scale
            g = g * w
        along = tl.sum(g * v, 1)[:, None] * scale * scale
        if KIND == LAYER:
            found = scale * (g - tl.sum(g, 1)[:, None] / D - v * along / D)
        elif KIND == CRMS:
            found = scale * (g - (v + sums) * along / (D + 1))
        elif KIND == L2:
            found = scale * (g - v * along)
        else:
            found = scale * (g - v * along / D)
        if LATER:
            found += tl.load(later + rows * later_stride + i, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + rows * D + i, found.to(dx.dtype.element_ty), mask=inside)
    if WEIGHT:
        tl.store(partial + program * (D + D * BIAS) + i, tl.sum(to_weight, 0)[None, :], mask=i < D)
    if BIAS:
        tl.store(partial + program * (D * WEIGHT + D) + D * WEIGHT + i, tl.sum(to_bias, 0)[None, :], mask=i < D)


# ---------------------------------------------------------------- launching
def _plain(*vectors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Weight and bias without gaps, as the kernels read them."""
    return tuple(None if v is None else v.contiguous() for v in vectors)


def forward(kind: Any, x: Tensor, more: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The normed rows of x, or of x + more, and that sum (empty without `more`), in x's dtype and order."""
    flat, (weight, bias) = rows_of(x), _plain(weight, bias)
    other = flat if more is None else rows_of(more)
    n, d = flat.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = torch.empty_like(y) if more is not None else y.new_empty(0)
    shape = shape_of(tile_of("norm", d), d)
    run: Any = _forward
    run[(triton.cdiv(n, shape["R"]),)](flat, other, weight, bias, y, total, n, flat.stride(0), other.stride(0), eps, D=d, KIND=kind,
                                       ADD=more is not None, WEIGHT=weight is not None, BIAS=bias is not None, **shape)
    return y, total


def gradient(kind: Any, dy: Tensor, later: Tensor | None, x: Tensor, weight: Tensor | None, bias: Tensor | None,
             eps: float) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of x, weight and bias. `later`: what else comes back to x."""
    flat, back, (weight, bias) = rows_of(x), rows_of(dy), _plain(weight, bias)
    more = back if later is None else rows_of(later)
    n, d = flat.shape
    weights = [t for t in (weight, bias) if t is not None]
    tile = tile_of("norm_backward_weighted" if weights else "norm_backward", d)
    shape = shape_of(tile, d)
    programs = programs_of(tile, triton.cdiv(n, shape["R"]), x)
    dx, partial = torch.empty(x.shape, dtype=x.dtype, device=x.device), sums(programs, weights, x)
    run: Any = _backward
    run[(programs,)](back, more, flat, weight, dx, partial, n, back.stride(0), more.stride(0), flat.stride(0), eps, D=d, KIND=kind,
                     LATER=later is not None, WEIGHT=weight is not None, BIAS=bias is not None, STAGES=tile.stages, **shape)
    found = iter(summed(partial, *weights) if weights else ())
    return dx, None if weight is None else next(found), None if bias is None else next(found)
