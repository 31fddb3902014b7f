"""What the chunked Triton kernels share: where rows lie in memory, sums along a chunk, and products at the precision of their operands.

Matrices of gates of [C, K] are summed by products with matrices of 0 and 1, the gates in bfloat16 parts that add up to them: tensor cores do it in
the time of a load, and each sum is made of its own gates alone."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

CHUNK = 64
"""Positions that a program computes by products of matrices."""
FARTHEST = (2**31 - 1) // CHUNK - 2**16
"""The most numbers between two positions: kernels count within a chunk in 32 bits."""
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
FLOOR = tl.constexpr(-110.0)
"""exp of it is 0 in float32: smaller logarithms would only cost digits of the sums that they are in."""


# ---------------------------------------------------------------- on the host
def heads(x: Any, tail: int) -> Any:
    """[..., T, c] (tail 2) or [..., T] (tail 1) as [B, H, T, c] or [B, H, T]: a view where the memory lets it be one, the last axis in order."""
    lead = x.shape[:x.ndim - tail]
    if len(lead) != 2:
        x = x.reshape(-1, lead[-1], *x.shape[len(lead):]) if lead else x[None, None]
    in_order = tail == 1 or x.stride(-1) == 1 or x.shape[-1] == 1
    return x if in_order and abs(x.stride(2)) <= FARTHEST else x.contiguous()


def strides(x: Any) -> tuple[int, int, int]:
    """Of the batch, the head and the position; zeros of an absent one."""
    return (0, 0, 0) if x is None else x.stride()[:3]


def plain(x: Any) -> Any:
    """In order in memory; None for an absent one."""
    return None if x is None else x.contiguous()


def width(n: int, most: int = 1 << 30) -> int:
    """A block of n columns: a power of two that a product can take, and no more than `most`."""
    return min(max(16, triton.next_power_of_2(n)), most)


def precision(dtype: Any) -> str:
    """Of products whose operands are computed in float32."""
    return "tf32x3" if dtype == torch.float32 else "tf32"


def parts(x: Any) -> int:
    """Of gates in bfloat16: as many digits as the result can show."""
    return 3 if x.dtype == torch.float32 else 2


def launch(warps: int, stages: int, loaded: bool = False) -> dict[str, Any]:
    """How a kernel of products is compiled. `loaded`: the left operands of all its products are loaded as they are and of 16 bits, so that wgmma has
    none in registers (see `generation`)."""
    return {"num_warps": warps, "num_stages": stages, **({} if loaded else generation())}


def generation() -> dict[str, str]:
    """As `_generation`, of the card that is launched on: one machine may have several kinds."""
    return {} if INTERPRETED.value else _generation(torch.cuda.current_device() if torch.cuda.is_initialized() else -1)


@cache
def _generation(device: int) -> dict[str, str]:
    """What kernels with computed operands of products are compiled for. On Hopper cards that is the generation before, mma.sync: the assembler inside
    of Triton up to 3.7 (CUDA 12.8) miscompiles wgmma with operands in registers, which computed ones are. It uses these registers again before they
    were read, and kernels that mix such products return rubbish or write outside of shared memory: github.com/triton-lang/triton/issues/11366, pull
    11781."""
    target: Any = triton.runtime.driver.active.get_current_target()
    return {"arch": "sm80"} if (target.backend, target.arch) == ("cuda", 90) else {}


# ---------------------------------------------------------------- in kernels
@triton.jit
def rows(x, n, heads, sb, sh):
    """Where the rows of head n begin."""
    return x + (n // heads).to(tl.int64) * sb + (n % heads).to(tl.int64) * sh


@triton.jit
def tile(x, at, stride, T, first, columns, B: tl.constexpr, C: tl.constexpr):
    """[C, B] of rows from `at` and columns from `first`, zeros behind the ends."""
    i, j = tl.arange(0, C), tl.arange(0, B)
    x += tl.cast(at, tl.int64) * stride + first
    return tl.load(x + (i[:, None] * stride + j[None, :]), mask=(i[:, None] < T - at) & (j[None, :] < columns - first), other=0.0)


@triton.jit
def put(x, value, at, stride, T, first, columns, B: tl.constexpr, C: tl.constexpr):
    """Stores [C, B] where `tile` reads it."""
    i, j = tl.arange(0, C), tl.arange(0, B)
    x += tl.cast(at, tl.int64) * stride + first
    tl.store(x + (i[:, None] * stride + j[None, :]), value.to(x.dtype.element_ty), mask=(i[:, None] < T - at) & (j[None, :] < columns - first))


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """a @ b in float32. Triton's interpreter keeps bfloat16 as integers, and would multiply these."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def sums(ways, x, PARTS: tl.constexpr):
    """A matrix of 0 and 1, [C, C], times float32 [C, K], that in bfloat16 parts of 8 bits each."""
    ways = ways.to(tl.float32).to(tl.bfloat16)
    part = x.to(tl.bfloat16)
    found = product(ways, part, "tf32")
    for _ in tl.static_range(PARTS - 1):
        x = x - part.to(tl.float32)
        part = x.to(tl.bfloat16)
        found += product(ways, part, "tf32")
    return found


@triton.jit
def floored(a):
    """FLOOR at the least; what is not a number stays so."""
    return tl.where(a < FLOOR, FLOOR, a)


@triton.jit
def gates(x, at, stride, T, first, columns, B: tl.constexpr, C: tl.constexpr):
    """The logarithms of gates, [C, B] in float32."""
    return floored(tile(x, at, stride, T, first, columns, B, C).to(tl.float32))


@triton.jit
def column(x, at, stride, T, C: tl.constexpr):
    """[C] in float32 from `at`, zeros behind the end."""
    i = tl.arange(0, C)
    return tl.load(x + tl.cast(at, tl.int64) * stride + i * stride, mask=i < T - at, other=0.0).to(tl.float32)


@triton.jit
def between(a, C: tl.constexpr, PARTS: tl.constexpr):
    """What gates of a head, [C], leave at i of what came in at j, [C (i), C (j)], 0 where i < j."""
    i = tl.arange(0, C)
    own = tl.where(i[:, None] > i[None, :], a[:, None], 0.0)
    return tl.where(i[:, None] >= i[None, :], tl.exp(sums(i[None, :] <= i[:, None], own, PARTS)), 0.0)


@triton.jit
def inverse(x, C: tl.constexpr, SIZE: tl.constexpr):
    """(1 + x)⁻¹ of a strictly lower triangular x, [C, C], by blocks of twice the size from 2 on: below the diagonal it is - right x left, of the two
    inverses. Up to blocks of SIZE = 16, the least that products take, all those on the diagonal at once."""
    i, r, at = tl.arange(0, SIZE), tl.arange(0, C // SIZE), tl.arange(0, C)
    on = (r[:, None] == r[None, :])[:, None, :, None]
    own = tl.sum(tl.where(on, tl.reshape(x, [C // SIZE, SIZE, C // SIZE, SIZE]), 0.0), 2)
    found = tl.where(i[:, None] == i[None, :], 1.0, 0.0)[None, :, :] - tl.where((i[:, None] // 2 == i[None, :] // 2)[None, :, :], own, 0.0)
    for half in tl.static_range(1, 4):
        below = (i[:, None] >> (half + 1) == i[None, :] >> (half + 1)) & (i[:, None] >> half > i[None, :] >> half)
        found -= product(product(found, tl.where(below[None, :, :], own, 0.0), "tf32x3"), found, "tf32x3")
    whole = tl.reshape(tl.where(on, found[:, :, None, :], 0.0), [C, C])
    for half in tl.static_range(4, 6):
        below = (at[:, None] >> (half + 1) == at[None, :] >> (half + 1)) & (at[:, None] >> half > at[None, :] >> half)
        whole -= product(product(whole, tl.where(below, x, 0.0), "tf32x3"), whole, "tf32x3")
    return whole
