"""silu(gate) · up and the grouped rational function, forward and backward, by Triton."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.tiles import rows_of

TILE, WARPS = 2048, 4
"""Numbers of a program, on Hopper: 16 bytes of each operand at a time for every thread, twice."""
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _place(width, stride, BLOCK: tl.constexpr):
    """A program's columns of its row: where they lie in an operand whose rows are `stride` apart, and in one without gaps; which there are."""
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return row * stride + i, row * width + i, i < width


@triton.jit
def _swiglu(gate, up, y, width, gate_stride, up_stride, BLOCK: tl.constexpr):
    at_gate, at, inside = _place(width, gate_stride, BLOCK)
    at_up, _, _ = _place(width, up_stride, BLOCK)
    g = tl.load(gate + at_gate, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at_up, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, (g / (1 + tl.exp2(g * -LOG2_E)) * u).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(dy, gate, up, dgate, dup, width, dy_stride, gate_stride, up_stride, BLOCK: tl.constexpr):
    at_dy, at, inside = _place(width, dy_stride, BLOCK)
    at_gate, _, _ = _place(width, gate_stride, BLOCK)
    at_up, _, _ = _place(width, up_stride, BLOCK)
    d = tl.load(dy + at_dy, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + at_gate, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at_up, mask=inside, other=0.0).to(tl.float32)
    open = 1 / (1 + tl.exp2(g * -LOG2_E))
    tl.store(dgate + at, (d * u * open * (1 + g * (1 - open))).to(dgate.dtype.element_ty), mask=inside)
    tl.store(dup + at, (d * g * open).to(dup.dtype.element_ty), mask=inside)


def _rows(*tensors: Tensor) -> list[Tensor]:
    """Operands of one shape as rows; as a single one where none has gaps."""
    if all(t.is_contiguous() for t in tensors):
        return [t.reshape(1, -1) for t in tensors]
    return [rows_of(t) for t in tensors]


def _grid(x: Tensor) -> tuple[tuple[int], dict[str, int]]:
    block = min(TILE, triton.next_power_of_2(x.shape[1]))
    return (x.shape[0] * triton.cdiv(x.shape[1], block),), {"BLOCK": block, "num_warps": max(1, WARPS * block // TILE)}


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, in float32 inside."""
    g, u = _rows(gate, up)
    y = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    grid, shape = _grid(g)
    run: Any = _swiglu
    run[grid](g, u, y, g.shape[1], g.stride(0), u.stride(0), **shape)
    return y


def swiglu_gradient(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up."""
    d, g, u = _rows(dy, gate, up)
    dgate, dup = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (gate, up))
    grid, shape = _grid(g)
    run: Any = _swiglu_backward
    run[grid](d, g, u, dgate, dup, g.shape[1], d.stride(0), g.stride(0), u.stride(0), **shape)
    return dgate, dup
