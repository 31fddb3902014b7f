"""Which tiles are best for the kernels of scalar decays on this card: every candidate compiled by all cores at once, then each kernel timed alone.

    python benchmarks/gpu_tiles.py [--seconds 120]

Prints, for each kernel and shape, the fastest candidates beside the pinned one of `archdsl/kernels/linear.py`. Nothing is changed.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from archdsl.kernels import linear
from archdsl.kernels.linear import Tile
from benchmarks.gpu_common import kernel_seconds

SHAPES = {"attention, B 8, T 2048": (8, 2048, False), "attention, B 2, T 8192": (2, 8192, False), "Mamba-2, B 8, T 2048": (8, 2048, True)}
CANDIDATES = {
    "states": [Tile(*t) for t in product((64, 128), (64, 128), (4, 8), (2, 3, 4))],
    "outputs": [Tile(*t) for t in product((32, 64, 128), (64, 128), (4, 8), (2, 3))],
    "queries": [Tile(*t) for t in product((32, 64, 128), (32, 64), (4, 8), (1, 2, 3))],
    "values": [Tile(*t) for t in product((32, 64, 128), (64, 128), (4, 8), (2, 3))],
}
CHUNKS = (64, 128)


def call(shape: str, device: str) -> linear.Heads:
    """16 heads of 128, or 32 heads of 64 with a state of 128, as the ops see them."""
    B, T, scan = SHAPES[shape]
    bf16: Any = {"device": device, "dtype": torch.bfloat16}
    f32: Any = {"device": device, "dtype": torch.float32}
    if scan:
        x, b, c = (torch.randn(B, T, h, n, **bf16) for h, n in ((32, 64), (1, 128), (1, 128)))
        dt, a = torch.rand(B, T, 32, **f32) * 0.1, -torch.rand(32, **f32) * 15 - 1
        return linear._scan(x, dt, a, b, c, torch.randn(32, **f32), None)
    q, k, v = (torch.randn(B, T, 16, 128, **bf16).transpose(1, 2) for _ in range(3))
    return linear._heads(q, k, v, (torch.rand(B, T, 16, **f32) * -0.1).transpose(1, 2), None, 128**-0.5)


def runs(heads: linear.Heads, kernel: str) -> Callable[[], Any]:
    """One launch of one kernel (the memories forwards), with room for what it writes."""
    dtype, device = heads.v.dtype, heads.v.device
    out = torch.empty_like(heads.v)
    kept = torch.empty(heads.batch, heads.heads, heads.chunks, heads.deep, heads.wide, dtype=dtype, device=device)
    if kernel == "states":
        return lambda: heads.memories(heads.k, heads.v, None, False)
    if kernel == "outputs":
        return lambda: heads.outputs(kept, out)
    if kernel == "values":
        return lambda: heads.values(heads.v, kept, kept, out)
    dq, dk = torch.empty_like(heads.q), torch.empty_like(heads.k)
    return lambda: heads.queries(heads.v, kept, kept, dq, dk)


def variants() -> Iterator[tuple[str, str, int, Tile]]:
    for kernel, tiles in CANDIDATES.items():
        for shape, chunk, tile in product(SHAPES, CHUNKS, tiles):
            if (tile.values <= 64 or "Mamba" not in shape) and (tile.warps == 8 or chunk == 64):  # the others are those, or spill
                yield shape, kernel, chunk, tile


def with_tile(shape: str, kernel: str, chunk: int, tile: Tile | None, device: str) -> Callable[[], Any]:
    """A launch with this tile (None: the pinned ones)."""
    heads = call(shape, device)
    if tile is not None:
        heads.chunk, heads.chunks = chunk, -(-heads.length // chunk)
        heads.tiles = {**heads.tiles, kernel: tile}
    return runs(heads, kernel)


def compile_part(part: int, parts: int) -> None:
    """Compiles a part of all variants into Triton's cache; what does not compile is said when it is timed."""
    from contextlib import suppress

    from tests.kernels.offline import compiled

    for variant in list(variants())[part::parts]:
        if variant[0] != "attention, B 2, T 8192":  # the same kernels
            with suppress(Exception):
                compiled([("", with_tile(*variant, device="meta"))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--part", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        compile_part(*args.part)
        return
    began, cores = time.monotonic(), os.cpu_count() or 1
    workers = [subprocess.Popen([sys.executable, __file__, "--part", str(i), str(cores)], stderr=subprocess.DEVNULL) for i in range(cores)]
    for worker in workers:
        try:
            worker.wait(max(1.0, began + args.seconds / 2 - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
    print(f"compiled in {time.monotonic() - began:.0f} s", flush=True)
    for shape, kernel in product(SHAPES, CANDIDATES):
        pinned = kernel_seconds(with_tile(shape, kernel, 0, None, "cuda"), "cuda", 10)
        found: list[tuple[float, int, Tile]] = []
        for _, _, chunk, tile in (v for v in variants() if v[:2] == (shape, kernel)):
            if time.monotonic() - began > args.seconds:
                break
            try:
                found.append((kernel_seconds(with_tile(shape, kernel, chunk, tile, "cuda"), "cuda", 5), chunk, tile))
            except Exception as fault:  # a tile that does not fit the card
                print(f"{shape} · {kernel} · chunk {chunk} {tuple(tile)}: {type(fault).__name__}")
        best = ", ".join(f"chunk {c} {tuple(t)} {s * 1e6:.0f} µs" for c in CHUNKS for s, _, t in sorted(f for f in found if f[1] == c)[:3])
        print(f"{shape} · {kernel}: pinned {pinned * 1e6:.0f} µs; {best}", flush=True)


if __name__ == "__main__":
    main()
