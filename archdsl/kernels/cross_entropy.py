"""Scores into losses and gradients, in place: one program for each row."""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 4096, 8
"""Scores of a row that a program holds at a time, on Hopper."""
LOG2_E = tl.constexpr(1.4426950408889634)
LEAST = tl.constexpr(-1.0e38)


@triton.jit
def _bounded(scores, i, classes, scale, cap, CAPPED: tl.constexpr):
    """The scores at i, scaled and bounded; what the bound leaves of their slope; both in float32, -∞ behind the last class."""
    z = tl.load(scores + i, mask=i < classes, other=float("-inf")).to(tl.float32) * scale
    if CAPPED:
        bent = 1 - 2 / (1 + tl.exp2(z * (2 * LOG2_E / cap)))  # tanh
        return tl.where(i < classes, cap * bent, float("-inf")), 1 - bent * bent
    return z, tl.full(z.shape, 1.0, tl.float32)


@triton.jit
def _loss(scores, targets, losses, factor, stride, classes, scale, cap, ignore, CAPPED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    scores += row * stride
    target = tl.load(targets + row)
    steps = tl.arange(0, BLOCK)
    if target == ignore:
        tl.store(losses + row, 0.0)
        if GRADIENT:
            for at in range(0, classes, BLOCK):
                tl.store(scores + at + steps, tl.zeros((BLOCK,), scores.dtype.element_ty), mask=at + steps < classes)
    else:
        peak = tl.full((), LEAST, tl.float32)
        total = tl.zeros((), tl.float32)
        own = tl.zeros((), tl.float32)
        for at in range(0, classes, BLOCK):
            z, _ = _bounded(scores, at + steps, classes, scale, cap, CAPPED)
            higher = tl.maximum(peak, tl.max(z, 0))
            total = total * tl.exp2((peak - higher) * LOG2_E) + tl.sum(tl.exp2((z - higher) * LOG2_E), 0)
            own += tl.sum(tl.where(at + steps == target, z, 0.0), 0)  # here: behind this loop its place may hold a gradient
            peak = higher
        whole = peak + tl.log(total)
        known = (target >= 0) & (target < classes)
        tl.store(losses + row, tl.where(known, whole - own, float("nan")))
        if GRADIENT:
            by = tl.load(factor).to(tl.float32) * scale
            for at in range(0, classes, BLOCK):
                i = at + steps
                z, slope = _bounded(scores, i, classes, scale, cap, CAPPED)
                gradient = (tl.exp2((z - whole) * LOG2_E) - tl.where(i == target, 1.0, 0.0)) * slope * by
                tl.store(scores + i, gradient.to(scores.dtype.element_ty), mask=i < classes)


def loss_in_place(scores: Tensor, targets: Tensor, scale: float, cap: float | None, ignore: int, factor: Tensor | None) -> Tensor:
    """As `loss_in_place` of `archdsl/ops/chunked_loss.py`, for scores [n, v] whose rows are contiguous."""
    losses = torch.empty(scores.shape[0], dtype=torch.float32, device=scores.device)
    block = min(BLOCK, triton.next_power_of_2(scores.shape[1]))
    run: Any = _loss
    run[(scores.shape[0],)](scores, targets.contiguous(), losses, factor, scores.stride(0), scores.shape[1], float(scale),
                            1.0 if cap is None else float(cap), ignore, CAPPED=cap is not None, GRADIENT=factor is not None, BLOCK=block,
                            num_warps=WARPS)
    return losses
