"""Rotary positions with the halves of a head as pairs, forward and backward, by Triton."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, WARPS = 2048, 4
"""Pairs of a program, on Hopper."""


@triton.jit
def _turn(x, cos, sin, y, heads, positions, half, b_stride, h_stride, t_stride, BACK: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    blocks = tl.cdiv(positions, P)
    head = tl.program_id(0) // blocks
    t = (tl.program_id(0) % blocks * P + tl.arange(0, P)).to(tl.int64)[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    inside = (t < positions) & (i < half)
    x += (head // heads).to(tl.int64) * b_stride + (head % heads).to(tl.int64) * h_stride
    near = tl.load(x + t * t_stride + i, mask=inside, other=0.0).to(tl.float32)
    far = tl.load(x + t * t_stride + half + i, mask=inside, other=0.0).to(tl.float32)
    at = t * (2 * half) + i
    c_near = tl.load(cos + at, mask=inside, other=0.0).to(tl.float32)
    c_far = tl.load(cos + at + half, mask=inside, other=0.0).to(tl.float32)
    s_near = tl.load(sin + at, mask=inside, other=0.0).to(tl.float32)
    s_far = tl.load(sin + at + half, mask=inside, other=0.0).to(tl.float32)
    if BACK:
        first, second = near * c_near + far * s_far, far * c_far - near * s_near
    else:
        first, second = near * c_near - far * s_near, far * c_far + near * s_far
    y += head.to(tl.int64) * positions * (2 * half)
    tl.store(y + at, first.to(y.dtype.element_ty), mask=inside)
    tl.store(y + at + half, second.to(y.dtype.element_ty), mask=inside)


def turned(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """[..., T, w] turned by cosines and sines [T, w]: x cos + (-x₂, x₁) sin, where x₁ and x₂ are the halves of x; `back`: its transpose."""
    t, w = x.shape[-2:]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    four = x if x.ndim == 4 else x.reshape(1, -1, t, w)
    four = four if four.stride(-1) == 1 else four.contiguous()
    batch, heads = four.shape[:2]
    block = triton.next_power_of_2(w // 2)
    p = min(max(1, TILE // block), triton.next_power_of_2(t))
    run: Any = _turn
    run[(batch * heads * triton.cdiv(t, p),)](four, cos.contiguous(), sin.contiguous(), y, heads, t, w // 2, *four.stride()[:3], BACK=back, P=p,
                                             BLOCK=block, num_warps=max(1, WARPS * p * block // TILE))
    return y


def gradient(dy: Tensor, x: Tensor, cos: Tensor, sin: Tensor, needs: list[bool]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, cos and sin, as far as they are wanted."""
    lead = tuple(range(x.ndim - 2))
    near, far = x.chunk(2, -1)
    return (turned(dy, cos, sin, back=True) if needs[0] else None, (dy.float() * x).sum(lead) if needs[1] else None,
            (dy.float() * torch.cat((-far, near), -1)).sum(lead) if needs[2] else None)
