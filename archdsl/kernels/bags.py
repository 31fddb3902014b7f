"""Weighted sums of rows of a table, forward and backward, by Triton: the lookups of MemoryFormer (arxiv 2411.12992).

Forward a program gathers the rows of one sum, block of columns by block. Backward the sums that a row went into are found by sorting the indices: a
program adds up what comes back to one row of the table, in the order of the sums, so that results do not differ from run to run."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS, WARPS = 1024, 4
"""Columns of a program, on Hopper."""


@triton.jit
def _gather(index, weight, scale, y, rows, k, width, weight_stride, BLOCK: tl.constexpr):
    blocks = tl.cdiv(width, BLOCK)
    bag = (tl.program_id(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for j in range(k):
        row = tl.load(index + bag * k + j)
        known = (row >= 0) & (row < rows)  # an index beyond the table gives NaN
        values = tl.load(weight + row * weight_stride + i, mask=(i < width) & known, other=float("nan")).to(tl.float32)
        total += tl.load(scale + bag * k + j).to(tl.float32) * values
    tl.store(y + bag * width + i, total.to(y.dtype.element_ty), mask=i < width)


@triton.jit
def _to_scale(dy, index, weight, dscale, rows, k, width, dy_stride, weight_stride, BLOCK: tl.constexpr):
    bag = tl.program_id(0).to(tl.int64)
    steps = tl.arange(0, BLOCK)
    for j in range(k):
        row = tl.load(index + bag * k + j)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, width, BLOCK):
            i = start + steps
            g = tl.load(dy + bag * dy_stride + i, mask=i < width, other=0.0).to(tl.float32)
            total += g * tl.load(weight + row * weight_stride + i, mask=(i < width) & (row >= 0) & (row < rows),
                                 other=0.0).to(tl.float32)
        tl.store(dscale + bag * k + j, tl.sum(total, 0).to(dscale.dtype.element_ty))


@triton.jit
def _to_weight(dy, places, ends, scale, dweight, k, width, dy_stride, BLOCK: tl.constexpr):
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for n in range(tl.load(ends + row), tl.load(ends + row + 1)):
        place = tl.load(places + n)
        g = tl.load(dy + place // k * dy_stride + i, mask=i < width, other=0.0).to(tl.float32)
        total += tl.load(scale + place).to(tl.float32) * g
    tl.store(dweight + row * width + i, total.to(dweight.dtype.element_ty), mask=i < width)


def _table(weight: Tensor) -> Tensor:
    return weight if weight.stride(-1) == 1 else weight.contiguous()


def forward(index: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Σₖ scale[…, k] weight[index[…, k]]."""
    k, table, width = index.shape[-1], _table(weight), weight.shape[1]
    y = torch.empty(*index.shape[:-1], width, dtype=weight.dtype, device=weight.device)
    block = min(COLUMNS, triton.next_power_of_2(width))
    run: Any = _gather
    grid = (index.numel() // k * triton.cdiv(width, block),)
    run[grid](index.contiguous(), table, scale.contiguous(), y, weight.shape[0], k, width, table.stride(0), BLOCK=block, num_warps=WARPS)
    return y


def gradient(dy: Tensor, index: Tensor, weight: Tensor, scale: Tensor, needs: list[bool]) -> tuple[None, Tensor | None, Tensor | None]:
    """The gradients of weight and scale, as far as they are wanted."""
    k, (rows, width) = index.shape[-1], weight.shape
    flat = dy.reshape(-1, width)
    flat, places = flat if flat.stride(-1) == 1 else flat.contiguous(), index.contiguous()
    block = min(COLUMNS, triton.next_power_of_2(width))
    dweight = dscale = None
    if needs[2]:
        table, dscale = _table(weight), torch.empty(scale.shape, dtype=scale.dtype, device=scale.device)
        run: Any = _to_scale
        run[(places.numel() // k,)](flat, places, table, dscale, rows, k, width, flat.stride(0), table.stride(0), BLOCK=block, num_warps=WARPS)
    if needs[1]:
        in_order, order = places.view(-1).sort(stable=True)
        ends = torch.searchsorted(in_order, torch.arange(rows + 1, device=places.device))
        dweight = torch.empty(rows, width, dtype=weight.dtype, device=weight.device)
        run = _to_weight
        run[(rows * triton.cdiv(width, block),)](flat, order, ends, scale.contiguous(), dweight, k, width, flat.stride(0), BLOCK=block,
                                                 num_warps=WARPS)
    return None, dweight, dscale
