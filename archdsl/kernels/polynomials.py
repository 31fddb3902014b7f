"""Sums of normalised powers and rational functions by group of channels, forward and backward, by Triton: rows in registers, as in norms.py."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.norms import processors, rows_of, shape_of

RESIDENT = 32
"""Warps of a multiprocessor that the programs of a backward pass fill, on Hopper."""
EACH = 8
"""Numbers of each operand in a thread's registers where the sums of a denominator lie beside them."""


@triton.jit
def _tile(x, block, count, stride, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """Some rows in float32, 0 beside them; where they lie in an operand without gaps; which numbers there are."""
    rows = (block * R + tl.arange(0, R)).to(tl.int64)[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    inside = (rows < count) & (i < D)
    return tl.load(x + rows * stride + i, mask=inside, other=0.0).to(tl.float32), rows * D + i, inside


@triton.jit
def _poly(x, weight, bias, y, count, stride, eps, D: tl.constexpr, M: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    z, at, inside = _tile(x, tl.program_id(0), count, stride, D, R, BLOCK)
    total = tl.zeros((R, BLOCK), tl.float32) + tl.load(bias).to(tl.float32)
    power = z
    for i in tl.static_range(M):
        mean = tl.sum(power * power, 1)[:, None] / D
        total += power * (tl.load(weight + (M - 1 - i)).to(tl.float32) / tl.sqrt(mean + eps))
        power = power * z
    tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _poly_backward(dy, x, weight, dx, partial, count, dy_stride, stride, eps, D: tl.constexpr, M: tl.constexpr, COLUMNS: tl.constexpr,
                   R: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, COLUMNS)[None, :]
    sums = tl.zeros((R, COLUMNS), tl.float32)  # of the weights, highest power first, then of the bias
    for block in range(tl.program_id(0), tl.cdiv(count, R), tl.num_programs(0)):
        z, at, inside = _tile(x, block, count, stride, D, R, BLOCK)
        g, _, _ = _tile(dy, block, count, dy_stride, D, R, BLOCK)
        sums += tl.where(columns == M, tl.sum(g, 1)[:, None], 0.0)
        found = tl.zeros((R, BLOCK), tl.float32)
        power, lower = z, tl.full((R, BLOCK), 1.0, tl.float32)
        for i in tl.static_range(M):
            scale = 1 / tl.sqrt(tl.sum(power * power, 1)[:, None] / D + eps)
            along = tl.sum(g * power, 1)[:, None] * scale
            sums += tl.where(columns == M - 1 - i, along, 0.0)
            a = tl.load(weight + (M - 1 - i)).to(tl.float32)
            found += (i + 1) * a * scale * (g - power * (scale * along / D)) * lower
            lower = power
            power = power * z
        tl.store(dx + at, found.to(dx.dtype.element_ty), mask=inside)
    tl.store(partial + tl.program_id(0) * COLUMNS + columns, tl.sum(sums, 0)[None, :])


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, 0.0) - tl.where(x < 0, 1.0, 0.0)


@triton.jit
def _quotient(z, numerator, denominator, group, M: tl.constexpr, N: tl.constexpr, APART: tl.constexpr):
    """P, P', what Q is 1 more than the magnitude of, and its slope."""
    above, slope = tl.zeros_like(z), tl.zeros_like(z)
    for i in tl.static_range(M):
        slope = slope * z + above
        above = above * z + tl.load(numerator + (M - 1 - i)).to(tl.float32)
    inner, steep = tl.zeros_like(z), tl.zeros_like(z)
    base = tl.abs(z) if APART else z
    for j in tl.static_range(N):
        b = tl.load(denominator + group * N + (N - 1 - j)).to(tl.float32)
        steep = steep * base + inner
        inner = inner * base + (tl.abs(b) if APART else b)
    return above, slope, inner * base, steep * base + inner  # the lowest power is 1


@triton.jit
def _rational(x, numerator, denominator, y, count, stride, width, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, APART: tl.constexpr,
              R: tl.constexpr, BLOCK: tl.constexpr):
    z, at, inside = _tile(x, tl.program_id(0), count, stride, D, R, BLOCK)
    group = tl.minimum(tl.arange(0, BLOCK), D - 1)[None, :] // width
    above, _, inner, _ = _quotient(z, numerator, denominator, group, M, N, APART)
    tl.store(y + at, (above / (1 + tl.abs(inner))).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _rational_backward(dy, x, numerator, denominator, dx, above_sums, below_sums, count, dy_stride, stride, width, D: tl.constexpr,
                       M: tl.constexpr, N: tl.constexpr, APART: tl.constexpr, COLUMNS: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    columns = tl.arange(0, COLUMNS)[None, :]
    i = tl.arange(0, BLOCK)[None, :]
    group = tl.minimum(i, D - 1) // width
    sums = tl.zeros((R, COLUMNS), tl.float32)
    first, second, third, fourth = (tl.zeros((R, BLOCK), tl.float32), tl.zeros((R, BLOCK), tl.float32), tl.zeros((R, BLOCK), tl.float32),
                                    tl.zeros((R, BLOCK), tl.float32))
    for block in range(program, tl.cdiv(count, R), tl.num_programs(0)):
        z, at, inside = _tile(x, block, count, stride, D, R, BLOCK)
        g, _, _ = _tile(dy, block, count, dy_stride, D, R, BLOCK)
        above, slope, inner, steep = _quotient(z, numerator, denominator, group, M, N, APART)
        share = 1 / (1 + tl.abs(inner))
        to_above = g * share
        to_below = -to_above * above * share
        turn = _sign(z) if APART else _sign(inner)
        found = to_above * slope + to_below * turn * steep
        tl.store(dx + at, found.to(dx.dtype.element_ty), mask=inside)
        part = to_above
        for k in tl.static_range(M):
            sums += tl.where(columns == k, tl.sum(part, 1)[:, None], 0.0)
            part = part * z
        base = tl.abs(z) if APART else z
        part = (to_below if APART else to_below * turn) * base
        first += part
        if N > 1:
            part = part * base
            second += part
        if N > 2:
            part = part * base
            third += part
        if N > 3:
            fourth += part * base
    tl.store(above_sums + program * COLUMNS + columns, tl.sum(sums, 0)[None, :])
    at = below_sums + program * N * D + i
    tl.store(at, tl.sum(first, 0)[None, :], mask=i < D)
    if N > 1:
        tl.store(at + D, tl.sum(second, 0)[None, :], mask=i < D)
    if N > 2:
        tl.store(at + 2 * D, tl.sum(third, 0)[None, :], mask=i < D)
    if N > 3:
        tl.store(at + 3 * D, tl.sum(fourth, 0)[None, :], mask=i < D)


# ---------------------------------------------------------------- launching
def _programs(rows: int, shape: dict[str, int], x: Tensor) -> int:
    return min(triton.cdiv(rows, shape["R"]), processors(x) * max(1, RESIDENT // shape["num_warps"]))


def poly_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """bias + Σ a_i N(x^i), in x's dtype."""
    flat = rows_of(x)
    y, shape = torch.empty(x.shape, dtype=x.dtype, device=x.device), shape_of(flat.shape[1])
    run: Any = _poly
    run[(triton.cdiv(flat.shape[0], shape["R"]),)](flat, weight.contiguous(), bias, y, flat.shape[0], flat.stride(0), eps, D=flat.shape[1],
                                                   M=weight.shape[0], **shape)
    return y


def poly_norm_gradient(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias."""
    flat, back, m = rows_of(x), rows_of(dy), weight.shape[0]
    dx, shape = torch.empty(x.shape, dtype=x.dtype, device=x.device), shape_of(flat.shape[1])
    programs, columns = _programs(flat.shape[0], shape, x), triton.next_power_of_2(m + 1)
    partial = torch.empty(programs, columns, dtype=torch.float32, device=x.device)
    run: Any = _poly_backward
    run[(programs,)](back, flat, weight.contiguous(), dx, partial, flat.shape[0], back.stride(0), flat.stride(0), eps, D=flat.shape[1], M=m,
                     COLUMNS=columns, **shape)
    sums = partial.sum(0)
    return dx, sums[:m], sums[m:m + 1]


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, apart: bool) -> Tensor:
    """P(x) / Q(x), in x's dtype."""
    flat, (groups, n) = rows_of(x), denominator.shape
    y, shape = torch.empty(x.shape, dtype=x.dtype, device=x.device), shape_of(flat.shape[1])
    run: Any = _rational
    run[(triton.cdiv(flat.shape[0], shape["R"]),)](flat, numerator.contiguous(), denominator.contiguous(), y, flat.shape[0], flat.stride(0),
                                                   flat.shape[1] // groups, D=flat.shape[1], M=numerator.shape[0], N=n, APART=apart, **shape)
    return y


def rational_gradient(dy: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, numerator and denominator."""
    flat, back, m, (groups, n) = rows_of(x), rows_of(dy), numerator.shape[0], denominator.shape
    dx, shape = torch.empty(x.shape, dtype=x.dtype, device=x.device), shape_of(flat.shape[1], EACH)
    programs, columns, width = _programs(flat.shape[0], shape, x), triton.next_power_of_2(m), flat.shape[1]
    above, below = (torch.empty(programs, k, dtype=torch.float32, device=x.device) for k in (columns, n * width))
    run: Any = _rational_backward
    run[(programs,)](back, flat, numerator.contiguous(), denominator.contiguous(), dx, above, below, flat.shape[0], back.stride(0), flat.stride(0),
                     width // groups, D=width, M=m, N=n, APART=apart, COLUMNS=columns, **shape)
    ddenominator = below.sum(0).view(n, groups, -1).sum(-1).mT
    return dx, above.sum(0)[:m], ddenominator * denominator.float().sign() if apart else ddenominator
