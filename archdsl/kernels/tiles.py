"""How rows are cut into tiles and spread over programs, and sums over programs, by Triton.

A program of a backward pass goes over many tiles and adds up what weights get; it leaves one row of sums, and `summed` adds these up in one
launch."""
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tile(NamedTuple):
    """Of a program: how many numbers of each operand, by how many warps; how many tiles are on their way while one is computed (1: none); how many
    warps of a multiprocessor the programs of a backward pass fill."""

    numbers: int
    warps: int
    stages: int = 1
    resident: int = 32


TILES: dict[str, tuple[tuple[int, Tile], ...]] = {
    "norm": ((1 << 30, Tile(4096, 8)),),
    "norm_backward": ((1 << 30, Tile(4096, 8, 1, 32)),),
    "norm_backward_weighted": ((2048, Tile(2048, 4, 1, 16)), (1 << 30, Tile(4096, 4, 2, 8))),
    "poly": ((2048, Tile(1024, 1)), (1 << 30, Tile(4096, 8))),
    "poly_backward": ((2048, Tile(1024, 1, 1, 12)), (1 << 30, Tile(4096, 4, 1, 8))),
    "rational": ((1 << 30, Tile(1024, 1)),),
    "rational_backward": ((1 << 30, Tile(1024, 4, 3, 12)),),
}
"""By kernel: (the longest row, its tile), for Hopper, as `benchmarks/gpu_sweep_rows.py` found them."""


def tile_of(kernel: str, width: int) -> Tile:
    """The tile of rows of a width; with more warps where a row is longer than the tile."""
    tile = next(t for longest, t in TILES[kernel] if width <= longest)
    longer = max(1, triton.next_power_of_2(width) // tile.numbers)
    return tile._replace(warps=min(32, tile.warps * longer))


def shape_of(tile: Tile, width: int) -> dict[str, int]:
    """Rows and columns of a tile, and its warps, as a kernel takes them."""
    block = triton.next_power_of_2(width)
    rows = max(1, tile.numbers // block)
    return {"R": rows, "BLOCK": block, "num_warps": tile.warps if rows * block >= tile.numbers else max(1, tile.warps * rows * block // tile.numbers)}


def programs_of(tile: Tile, tiles: int, x: Tensor) -> int:
    """How many programs share the tiles, so that all of them run at once."""
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 132  # those of an H100
    return min(tiles, processors * max(1, tile.resident // tile.warps))


def rows_of(x: Tensor) -> Tensor:
    """[..., D] as [n, D] with D contiguous."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(-1) == 1 else flat.contiguous()


# ---------------------------------------------------------------- sums over programs
@triton.jit
def _over_rows(partial, i, count, columns, R: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros((R, BLOCK), tl.float32)
    for row in range(0, count, R):
        rows = row + tl.arange(0, R)[:, None]
        total += tl.load(partial + rows.to(tl.int64) * columns + i, mask=(rows < count) & (i < columns), other=0.0)
    return tl.sum(total, 0)[None, :]


@triton.jit
def _summed(partial, first, second, count, columns, split, R: tl.constexpr, BLOCK: tl.constexpr, TWO: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    found = _over_rows(partial, i, count, columns, R, BLOCK)
    tl.store(first + i, found.to(first.dtype.element_ty), mask=i < split)
    if TWO:
        tl.store(second + i - split, found.to(second.dtype.element_ty), mask=(i >= split) & (i < columns))


@triton.jit
def _summed_apart(partial, other, first, second, count, columns, other_count, other_columns, blocks, R: tl.constexpr, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    if block < blocks:
        i = block * BLOCK + tl.arange(0, BLOCK)[None, :]
        tl.store(first + i, _over_rows(partial, i, count, columns, R, BLOCK).to(first.dtype.element_ty), mask=i < columns)
    else:
        i = (block - blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
        tl.store(second + i, _over_rows(other, i, other_count, other_columns, R, BLOCK).to(second.dtype.element_ty), mask=i < other_columns)


def summed_apart(partial: Tensor, other: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over programs of two tensors [programs, columns] of their own numbers of programs, as `first` and `second` in shape and dtype."""
    into = torch.empty(first.shape, dtype=first.dtype, device=first.device), torch.empty(second.shape, dtype=second.dtype, device=second.device)
    widest = max(partial.shape[1], other.shape[1])
    block = min(32, triton.next_power_of_2(widest))
    rows = min(2048 // block, triton.next_power_of_2(max(len(partial), len(other))))
    blocks, others = triton.cdiv(partial.shape[1], block), triton.cdiv(other.shape[1], block)
    run: Any = _summed_apart
    run[(blocks + others,)](partial, other, *into, *partial.shape, *other.shape, blocks, R=rows, BLOCK=block, num_warps=4)
    return into


def summed(partial: Tensor, *like: Tensor) -> list[Tensor]:
    """The sums over programs of partial [programs, columns]: one or two tensors, as these in shape and dtype, whose columns lie side by side."""
    found = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in like]
    count, columns = partial.shape
    block = min(32, triton.next_power_of_2(columns))
    rows = min(2048 // block, triton.next_power_of_2(count))
    run: Any = _summed
    run[(triton.cdiv(columns, block),)](partial, found[0], found[-1], count, columns, found[0].numel(), R=rows, BLOCK=block, TWO=len(found) > 1,
                                        num_warps=4)
    return found


def sums(programs: int, like: Sequence[Tensor], x: Tensor) -> Tensor:
    """Room for the sums of each program, in float32: [programs, the numbers of all tensors]."""
    return torch.empty(programs, sum(t.numel() for t in like), dtype=torch.float32, device=x.device)
