"""One position of a memory of key-value pairs, by Triton: a program reads a block of columns of the memory once and
writes it once."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from archdsl.kernels.chunks import heads, plain, rows, strides, width

COLUMNS, FEW, WARPS = 32, 132, 4
"""Columns of values of a program; programs below which a card has work left for more, of half the columns; warps."""


@triton.jit
def _place(n, K, V, BK: tl.constexpr, BV: tl.constexpr):
    """Rows and columns of a program's block, where it lies in memory and which of it is there."""
    row, col = tl.arange(0, BK), tl.program_id(0) * BV + tl.arange(0, BV)
    return row, col, n.to(tl.int64) * K * V + row[:, None] * V + col[None, :], (row[:, None] < K) & (col[None, :] < V)


@triton.jit
def _vector(x, n, heads, xb, xh, at, size):
    return tl.load(rows(x, n, heads, xb, xh) + at, mask=at < size, other=0.0).to(tl.float32)


@triton.jit
def gla_kernel(q, k, v, decay, value_decay, memory, out, new, qb, qh, kb, kh, vb, vh, db, dh, eb, eh, heads, K, V, scale,
               BK: tl.constexpr, BV: tl.constexpr, DECAY: tl.constexpr, VALUE_DECAY: tl.constexpr, BEFORE: tl.constexpr):
    n = tl.program_id(1)
    row, col, place, inside = _place(n, K, V, BK, BV)
    S = tl.load(memory + place, mask=inside, other=0.0)
    queries = _vector(q, n, heads, qb, qh, row, K)
    y = tl.sum(queries[:, None] * S, 0)
    if DECAY:
        S *= tl.exp(_vector(decay, n, heads, db, dh, row, K))[:, None]
    if VALUE_DECAY:
        S *= tl.exp(_vector(value_decay, n, heads, eb, eh, col, V))[None, :]
    S += _vector(k, n, heads, kb, kh, row, K)[:, None] * _vector(v, n, heads, vb, vh, col, V)[None, :]
    if not BEFORE:
        y = tl.sum(queries[:, None] * S, 0)
    tl.store(new + place, S, mask=inside)
    tl.store(out + n.to(tl.int64) * V + col, (scale * y).to(out.dtype.element_ty), mask=col < V)


@triton.jit
def delta_kernel(q, k, v, beta, decay, memory, out, new, qb, qh, kb, kh, vb, vh, bb, bh, db, dh, heads, K, V, scale,
                 BK: tl.constexpr, BV: tl.constexpr, DECAY: tl.constexpr):
    n = tl.program_id(1)
    row, col, place, inside = _place(n, K, V, BK, BV)
    S = tl.load(memory + place, mask=inside, other=0.0)
    if DECAY:
        S *= tl.exp(tl.load(rows(decay, n, heads, db, dh)).to(tl.float32))
    keys = _vector(k, n, heads, kb, kh, row, K)
    wrong = _vector(v, n, heads, vb, vh, col, V) - tl.sum(keys[:, None] * S, 0)
    S += keys[:, None] * (tl.load(rows(beta, n, heads, bb, bh)).to(tl.float32) * wrong)[None, :]
    y = scale * tl.sum(_vector(q, n, heads, qb, qh, row, K)[:, None] * S, 0)
    tl.store(new + place, S, mask=inside)
    tl.store(out + n.to(tl.int64) * V + col, y.to(out.dtype.element_ty), mask=col < V)


def gla(q: Any, k: Any, v: Any, decay: Any, value_decay: Any, memory: Any, *, scale: float = 1, before: bool = False) -> tuple[Any, Any]:
    """One position, [..., 1, k] and [..., 1, e], of gated linear attention, with gates by row, by column, both or none: y and the new memory."""
    shape = v.shape
    q, k, v, decay, value_decay = (None if x is None else heads(x, 2) for x in (q, k, v, decay, value_decay))
    out, new, grid, sizes = _made(q, k, v, shape, memory)
    gla_kernel[grid](q, k, v, decay, value_decay, plain(memory), out, new, *_lead(q, k, v, decay, value_decay), *sizes, scale,
                     **_blocks(k, v, grid), DECAY=decay is not None, VALUE_DECAY=value_decay is not None, BEFORE=before, num_warps=WARPS)
    return out, new


def delta_rule(q: Any, k: Any, v: Any, beta: Any, decay: Any, memory: Any, *, scale: float = 1) -> tuple[Any, Any]:
    """One position of the delta rule, with a gate or without: y and the new memory."""
    shape = v.shape
    q, k, v, beta, decay = *(heads(x, 2) for x in (q, k, v)), heads(beta, 1), None if decay is None else heads(decay, 1)
    out, new, grid, sizes = _made(q, k, v, shape, memory)
    delta_kernel[grid](q, k, v, beta, decay, plain(memory), out, new, *_lead(q, k, v, beta, decay), *sizes, scale,
                       **_blocks(k, v, grid), DECAY=decay is not None, num_warps=WARPS)
    return out, new


def _made(q: Any, k: Any, v: Any, shape: Any, memory: Any) -> tuple[Any, Any, tuple[int, int], tuple[int, int, int]]:
    """Results, the new memory, the grid and (heads, K, V)."""
    (B, H, _, K), V = k.shape, v.shape[-1]
    bv = width(V, COLUMNS)
    if B * H * triton.cdiv(V, bv) < FEW:
        bv = 16
    return q.new_empty(shape), memory.new_empty(memory.shape), (triton.cdiv(V, bv), B * H), (H, K, V)


def _blocks(k: Any, v: Any, grid: tuple[int, int]) -> dict[str, int]:
    return {"BK": width(k.shape[-1]), "BV": width(triton.cdiv(v.shape[-1], grid[0]))}


def _lead(*operands: Any) -> tuple[int, ...]:
    """Strides of batch and head."""
    return tuple(s for x in operands for s in strides(x)[:2])
