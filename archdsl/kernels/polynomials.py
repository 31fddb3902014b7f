"""Sums of normalised powers and rational functions by group of channels, forward and backward, by Triton: rows in registers, as in norms.py."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.tiles import Tile, programs_of, rows_of, shape_of, summed, summed_apart, sums, tile_of


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
                   STAGES: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, COLUMNS)[None, :]
    sums = tl.zeros((R, COLUMNS), tl.float32)  # of the weights, highest power first, then of the bias
    for block in tl.range(tl.program_id(0), tl.cdiv(count, R), tl.num_programs(0), num_stages=STAGES):
        z, at, inside = _tile(x, block, count, stride, D, R, BLOCK)
        g, _, _ = _tile(dy, block, count, dy_stride, D, R, BLOCK)
        there = (block * R + tl.arange(0, R) < count)[:, None]
        sums += tl.where(columns == M, tl.sum(g, 1)[:, None], 0.0)
        found = tl.zeros((R, BLOCK), tl.float32)
        power, lower = z, tl.full((R, BLOCK), 1.0, tl.float32)
        for i in tl.static_range(M):
            scale = tl.where(there, 1 / tl.sqrt(tl.sum(power * power, 1)[:, None] / D + eps), 0.0)  # infinite behind the last row without eps
            along = tl.sum(g * power, 1)[:, None] * scale
            sums += tl.where(columns == M - 1 - i, along, 0.0)
            a = tl.load(weight + (M - 1 - i)).to(tl.float32)
            found += (i + 1) * a * scale * (g - power * (scale * along / D)) * lower
            lower = power
            power = power * z
        tl.store(dx + at, found.to(dx.dtype.element_ty), mask=inside)
    tl.store(partial + tl.program_id(0) * (M + 1) + columns, tl.sum(sums, 0)[None, :], mask=columns <= M)


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, 0.0) - tl.where(x < 0, 1.0, 0.0)


@triton.jit
def _coefficients(numerator, denominator, group, M: tl.constexpr, N: tl.constexpr, APART: tl.constexpr):
    """Those above and those below the line, in float32, the latter as magnitudes where they are apart."""
    ups, downs = (), ()
    for i in tl.static_range(M):
        ups += (tl.load(numerator + i).to(tl.float32),)
    for j in tl.static_range(N):
        b = tl.load(denominator + group * N + j).to(tl.float32)
        downs += (tl.abs(b) if APART else b,)
    return ups, downs


@triton.jit
def _horner(z, coefficients, COUNT: tl.constexpr):
    """Σ c_i z^i."""
    total = tl.zeros_like(z) + coefficients[COUNT - 1]
    for i in tl.static_range(COUNT - 1):
        total = total * z + coefficients[COUNT - 2 - i]
    return total


@triton.jit
def _slope(z, coefficients, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """The slope of Σ c_i z^(i + FIRST)."""
    total = tl.zeros_like(z) + (COUNT - 1 + FIRST) * coefficients[COUNT - 1]
    for i in tl.static_range(COUNT - 1):
        if COUNT - 2 - i + FIRST > 0:
            total = total * z + (COUNT - 2 - i + FIRST) * coefficients[COUNT - 2 - i]
    return total


@triton.jit
def _group(WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The group of a program, whose columns are cut into blocks, and the number of its block."""
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    return tl.program_id(1) // blocks, tl.program_id(1) % blocks


@triton.jit
def _part(tile, count, stride, D: tl.constexpr, WIDTH: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """A program's columns in some rows: where they lie, and in an operand without gaps; which numbers there are."""
    group, block = _group(WIDTH, BLOCK)
    rows = (tile * R + tl.arange(0, R)).to(tl.int64)[:, None]
    i = block * BLOCK + tl.arange(0, BLOCK)[None, :]
    return rows * stride + group * WIDTH + i, rows * D + group * WIDTH + i, (rows < count) & (i < WIDTH)


@triton.jit
def _rational(x, numerator, denominator, y, count, stride, D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
              APART: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    place, at, inside = _part(tl.program_id(0), count, stride, D, WIDTH, R, BLOCK)
    z = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    ups, downs = _coefficients(numerator, denominator, _group(WIDTH, BLOCK)[0], M, N, APART)
    base = tl.abs(z) if APART else z
    inner = _horner(base, downs, N) * base  # the lowest power is 1
    tl.store(y + at, (_horner(z, ups, M) / (1 + tl.abs(inner))).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _rational_backward(dy, x, numerator, denominator, dx, above_sums, below_sums, count, dy_stride, stride, D: tl.constexpr, WIDTH: tl.constexpr,
                       M: tl.constexpr, N: tl.constexpr, APART: tl.constexpr, STAGES: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """The sums of a program lie in registers, one for each number of a tile and each coefficient: a0 to a7 above, b0 to b3 below. What is read of
    the coefficients, and the factors of the slopes, are the same for all tiles; both sums take their powers of x from one row of products."""
    group, block = _group(WIDTH, BLOCK)
    ups, downs = _coefficients(numerator, denominator, group, M, N, APART)
    a0 = tl.zeros((R, BLOCK), tl.float32)
    a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3 = a0, a0, a0, a0, a0, a0, a0, a0, a0, a0, a0
    for tile in tl.range(tl.program_id(0), tl.cdiv(count, R), tl.num_programs(0), num_stages=STAGES):
        place, at, inside = _part(tile, count, stride, D, WIDTH, R, BLOCK)
        from_dy, _, _ = _part(tile, count, dy_stride, D, WIDTH, R, BLOCK)
        z = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(dy + from_dy, mask=inside, other=0.0).to(tl.float32)
        above, slope = _horner(z, ups, M), _slope(z, ups, 0, M)
        base = tl.abs(z) if APART else z
        inner, steep = _horner(base, downs, N) * base, _slope(base, downs, 1, N)
        share = 1 / (1 + tl.abs(inner))
        to_above = g * share
        to_below = -to_above * (above * share)
        turned = to_below * (_sign(z) if APART else _sign(inner))
        tl.store(dx + at, (to_above * slope + turned * steep).to(dx.dtype.element_ty), mask=inside)
        below = to_below if APART else turned
        power = z
        a0 += to_above
        b0 += below * base
        if M > 1:
            a1 += to_above * power
        if M > 2 or N > 1:
            power = power * z
        if M > 2:
            a2 += to_above * power
        if N > 1:
            b1 += below * (tl.abs(power) if APART else power)
        if M > 3 or N > 2:
            power = power * z
        if M > 3:
            a3 += to_above * power
        if N > 2:
            b2 += below * (tl.abs(power) if APART else power)
        if M > 4 or N > 3:
            power = power * z
        if M > 4:
            a4 += to_above * power
        if N > 3:
            b3 += below * (tl.abs(power) if APART else power)
        if M > 5:
            power = power * z
            a5 += to_above * power
        if M > 6:
            power = power * z
            a6 += to_above * power
        if M > 7:
            a7 += to_above * (power * z)
    above_sums += (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * M
    tl.store(above_sums, tl.sum(a0))
    if M > 1:
        tl.store(above_sums + 1, tl.sum(a1))
    if M > 2:
        tl.store(above_sums + 2, tl.sum(a2))
    if M > 3:
        tl.store(above_sums + 3, tl.sum(a3))
    if M > 4:
        tl.store(above_sums + 4, tl.sum(a4))
    if M > 5:
        tl.store(above_sums + 5, tl.sum(a5))
    if M > 6:
        tl.store(above_sums + 6, tl.sum(a6))
    if M > 7:
        tl.store(above_sums + 7, tl.sum(a7))
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    below_sums += ((tl.program_id(0) * blocks + block) * (D // WIDTH) + group) * N
    denominator += group * N
    _leave(below_sums, denominator, b0, APART)
    if N > 1:
        _leave(below_sums + 1, denominator + 1, b1, APART)
    if N > 2:
        _leave(below_sums + 2, denominator + 2, b2, APART)
    if N > 3:
        _leave(below_sums + 3, denominator + 3, b3, APART)


@triton.jit
def _leave(into, coefficient, parts, APART: tl.constexpr):
    """The sum for a coefficient, whose magnitude alone counts where they are apart."""
    tl.store(into, tl.sum(parts) * (_sign(tl.load(coefficient).to(tl.float32)) if APART else 1.0))


# ---------------------------------------------------------------- launching
def poly_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """bias + Σ a_i N(x^i), in x's dtype."""
    flat = rows_of(x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    shape = shape_of(tile_of("poly", flat.shape[1]), flat.shape[1])
    run: Any = _poly
    run[(triton.cdiv(flat.shape[0], shape["R"]),)](flat, weight.contiguous(), bias, y, flat.shape[0], flat.stride(0), eps, D=flat.shape[1],
                                                   M=weight.shape[0], **shape)
    return y


def poly_norm_gradient(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias."""
    flat, back, m = rows_of(x), rows_of(dy), weight.shape[0]
    n, d = flat.shape
    tile = tile_of("poly_backward", d)
    shape = shape_of(tile, d)
    programs = programs_of(tile, triton.cdiv(n, shape["R"]), x)
    dx, partial = torch.empty(x.shape, dtype=x.dtype, device=x.device), sums(programs, (weight, bias), x)
    run: Any = _poly_backward
    run[(programs,)](back, flat, weight.contiguous(), dx, partial, n, back.stride(0), flat.stride(0), eps, D=d, M=m,
                     COLUMNS=triton.next_power_of_2(m + 1), STAGES=tile.stages, **shape)
    dweight, dbias = summed(partial, weight, bias)
    return dx, dweight, dbias


def _cut(kernel: str, width: int) -> tuple[Tile, dict[str, int], int]:
    """The tile of a kernel that needs no whole rows, its shape, and how many blocks of columns a group of a width is cut into."""
    tile = tile_of(kernel, 1)
    shape = shape_of(tile, min(width, tile.numbers))
    return tile, shape, triton.cdiv(width, shape["BLOCK"])


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, apart: bool) -> Tensor:
    """P(x) / Q(x), in x's dtype."""
    flat, (groups, n) = rows_of(x), denominator.shape
    count, d = flat.shape
    _, shape, blocks = _cut("rational", d // groups)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    run: Any = _rational
    run[(triton.cdiv(count, shape["R"]), groups * blocks)](flat, numerator.contiguous(), denominator.contiguous(), y, count, flat.stride(0), D=d,
                                                           WIDTH=d // groups, M=numerator.shape[0], N=n, APART=apart, **shape)
    return y


def rational_gradient(dy: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, numerator and denominator."""
    flat, back, m, (groups, n) = rows_of(x), rows_of(dy), numerator.shape[0], denominator.shape
    count, d = flat.shape
    tile, shape, blocks = _cut("rational_backward", d // groups)
    columns, tiles = groups * blocks, triton.cdiv(count, shape["R"])
    programs = triton.cdiv(programs_of(tile, columns * tiles, x), columns)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    above, below = (torch.empty(programs * columns, k, dtype=torch.float32, device=x.device) for k in (m, n))
    run: Any = _rational_backward
    run[(programs, columns)](back, flat, numerator.contiguous(), denominator.contiguous(), dx, above, below, count, back.stride(0), flat.stride(0),
                             D=d, WIDTH=d // groups, M=m, N=n, APART=apart, STAGES=tile.stages, **shape)
    return dx, *summed_apart(above, below.view(programs * blocks, groups * n), numerator, denominator)
