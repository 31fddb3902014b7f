"""How the tiles of the kernels on rows were found: each kernel alone, in bf16, with every candidate of CANDIDATES.

    python benchmarks/gpu_sweep_rows.py [--only PATTERN] [--repeats 20] [--device cpu --tiny]

Processes compile first, side by side; a candidate that the card refuses is told. Printed: microseconds, and the share of the device's copy bandwidth
that the numbers read and written once come to. The first row of a kernel is the one that is pinned.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from archdsl.kernels import prefixes, tiles
from archdsl.kernels.tiles import Tile
from benchmarks.gpu_common import kernel_seconds

ROWS = 16384
NARROW = ((4096, 8, 2, 16), (4096, 8, 2, 32), (2048, 4, 2, 16), (2048, 4, 1, 16), (2048, 2, 1, 8), (1024, 1, 1, 8), (1024, 1, 1, 12),
          (1024, 2, 1, 16), (1024, 2, 2, 16), (1024, 4, 1, 32), (1024, 4, 2, 32), (4096, 4, 1, 8), (8192, 8, 1, 8))
WIDE = ((4096, 8, 2, 16), (4096, 8, 2, 32), (4096, 16, 1, 32), (4096, 16, 2, 32), (4096, 4, 1, 8), (4096, 4, 2, 8))
FORWARD = ((2048, 4), (2048, 8), (1024, 4), (1024, 2), (1024, 1), (8192, 8), (4096, 4), (4096, 16))
ANYWHERE = ((1024, 4, 2, 12), (1024, 4, 3, 12), (1024, 4, 1, 12), (512, 4, 1, 16), (512, 4, 2, 20), (512, 2, 2, 12), (1024, 8, 1, 24),
            (1024, 8, 2, 24), (2048, 8, 2, 8), (2048, 8, 1, 8))
PREFIXES = tuple(product((16, 32), (1024, 2048, 4096, 8192), (1, 2, 4)))
CANDIDATES: dict[str, dict[int, tuple[Any, ...]]] = {
    "norm_backward_weighted": {1024: NARROW, 4096: WIDE},
    "norm_backward": {1024: NARROW},
    "norm": {1024: FORWARD},
    "poly": {1024: FORWARD},
    "poly_backward": {1024: NARROW, 4096: WIDE},
    "rational": {1024: FORWARD, 4096: FORWARD},
    "rational_backward": {1024: ANYWHERE, 4096: ANYWHERE},
    "prefixes": {64: PREFIXES},
    "prefixes_backward": {64: PREFIXES},
}


def calls(kernel: str, width: int, device: str, rows: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """Name -> (the launches of a kernel, how many numbers it reads and writes once)."""
    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, dtype=torch.bfloat16)

    if kernel.startswith("prefixes"):
        heads, positions = (128, rows // 8) if rows > 64 else (2, rows)
        s, v, dy = made(heads, positions), made(heads, positions, width), made(heads, positions, width)
        if kernel == "prefixes":
            return {"prefix_attention": (lambda: prefixes.forward(s, v), 2 * v.numel() + s.numel())}
        return {"prefix_attention": (lambda: prefixes.gradient(dy, s, v), 3 * v.numel() + 2 * s.numel())}
    from archdsl.kernels import norms, polynomials

    x, dy, w, size = made(rows, width), made(rows, width), made(width), rows * width
    if kernel == "norm":
        return {"layer_norm": (lambda: norms.forward(norms.LAYER, x, None, w, w, 1e-5), 2 * size)}
    if kernel == "norm_backward":
        return {"crms_norm": (lambda: norms.gradient(norms.CRMS, dy, None, x, None, None, 1e-5), 3 * size)}
    if kernel == "norm_backward_weighted":
        return {"rms_norm": (lambda: norms.gradient(norms.RMS, dy, None, x, w, None, 1e-5), 3 * size),
                "layer_norm": (lambda: norms.gradient(norms.LAYER, dy, None, x, w, w, 1e-5), 3 * size)}
    a, b, above, below = made(3), made(1), made(6), made(4, 4)
    return {"poly": {"poly_norm": (lambda: polynomials.poly_norm(x, a, b, 1e-6), 2 * size)},
            "poly_backward": {"poly_norm": (lambda: polynomials.poly_norm_gradient(dy, x, a, b, 1e-6), 3 * size)},
            "rational": {"grouped_rational": (lambda: polynomials.rational(x, above, below, True), 2 * size)},
            "rational_backward": {"grouped_rational": (lambda: polynomials.rational_gradient(dy, x, above, below, True), 3 * size)}}[kernel]


def candidates(only: str) -> Iterator[tuple[str, int, Any]]:
    """(kernel, width, configuration); None is the one that is pinned."""
    for kernel, width, found in sorted(((k, w, f) for k, widths in CANDIDATES.items() for w, f in widths.items()), key=lambda x: x[1]):
        if re.search(only, f"{kernel} {width}"):
            yield from ((kernel, width, c) for c in (None, *found))


def run(task: tuple[str, int, Any], device: str, rows: int, measure: Callable[[Callable[[], Any]], float]) -> dict[str, tuple[float, int] | str]:
    """What `measure` says of a kernel with a configuration, by name of the op, or why it cannot be had."""
    kernel, width, config = task
    pinned, before = dict(tiles.TILES), (prefixes.CHUNKS[2], prefixes.PROGRAMS, prefixes.WARPS)
    if config is not None and kernel in tiles.TILES:
        tiles.TILES[kernel] = ((1 << 30, Tile(*config)),)
    elif config is not None:
        prefixes.CHUNKS[2], prefixes.PROGRAMS, prefixes.WARPS = config
    found: dict[str, tuple[float, int] | str] = {}
    try:
        for name, (call, numbers) in calls(kernel, width, device, rows).items():
            try:
                found[name] = measure(call), numbers
            except Exception as fault:  # a candidate that does not fit leaves the others
                found[name] = f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:80]}"
    finally:
        tiles.TILES.update(pinned)
        prefixes.CHUNKS[2], prefixes.PROGRAMS, prefixes.WARPS = before
    return found


def compiled(task: tuple[str, int, Any]) -> None:
    """Into Triton's cache on disk."""
    def once(call: Callable[[], Any]) -> float:
        call()
        torch.cuda.synchronize()
        return 0.0

    run(task, "cuda", ROWS if "prefixes" in task[0] else 256, once)


def bandwidth(numbers: int, device: str, repeats: int) -> float:
    """Bytes a second of a copy."""
    x, y = (torch.empty(numbers, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 4 * numbers / kernel_seconds(lambda: y.copy_(x), device, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a rehearsal")
    args = parser.parse_args()
    tasks, rows = [*candidates(args.only)], 64 if args.tiny else ROWS
    if args.device == "cuda":
        with ProcessPoolExecutor(min(12, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
            list(pool.map(compiled, tasks))
    copy = bandwidth(2**10 if args.tiny else 2**28, args.device, args.repeats)
    print(f"copy {copy / 1e12:.2f} TB/s", flush=True)
    for task in tasks:
        for name, taken in run(task, args.device, rows, lambda call: kernel_seconds(call, args.device, args.repeats)).items():
            told = taken if isinstance(taken, str) else f"{1e6 * taken[0]:7.1f} µs  {2 * taken[1] / taken[0] / copy:4.0%}"
            config = "pinned" if task[2] is None else str(tuple(task[2]))
            print(f"{task[0]:24} {name:17} {task[1]:5}  {config:22} {told}", flush=True)


if __name__ == "__main__":
    main()
