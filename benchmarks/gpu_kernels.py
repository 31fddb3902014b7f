"""Single kernels beside their peers: forward, and forward and backward; share of the device's copy bandwidth and arithmetic; errors.

    python benchmarks/gpu_kernels.py [--only PATTERN] [--without fla] [--tiny --device cpu]

`--without`: peers whose label it matches are left out (flash-linear-attention's first calls tune for minutes). The cases are those of
benchmarks/gpu_cases_*.py (see gpu_cases.py). The level-2 cache is swept before each run.
"""
from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_cases import Case, found
from benchmarks.gpu_common import Rows, kernel_seconds, ms, options, quiet, ratio, relative


def floats(values: Any) -> list[torch.Tensor]:
    return [v for v in (values if isinstance(values, (tuple, list)) else (values,)) if isinstance(v, torch.Tensor) and v.is_floating_point()]


def run(function: Callable[..., Any], given: tuple[Any, ...], backward: bool, ones: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
    """The floating results and, with `backward`, the gradients of the operands that require one. `ones`: what comes back, made before."""
    results = floats(function(*given))
    if not backward:
        return results
    into = [x for x in floats(given) if x.requires_grad]
    kept = [y for y in results if y.requires_grad]
    return [*results, *torch.autograd.grad(kept, into, ones or [torch.ones_like(y) for y in kept])]


def errors(case: Case, given: tuple[Any, ...]) -> dict[str, str]:
    """The greatest relative error over the results (and gradients), of ours and of each peer."""
    if case.reference is None:
        return {}
    wide = tuple(x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given)
    expected = [y.detach() for y in run(case.reference, wide, case.backward)]
    del wide
    cells = {}
    for label, function in (("ours", case.ours), *case.peers):
        try:
            got = run(function, given, case.backward)
            cells[f"error, {label}"] = f"{max(relative(a.detach(), b) for a, b in zip(got, expected, strict=True)):.1e}"
        except Exception as fault:  # a peer that refuses is said, not fatal
            if label == "ours":
                raise
            cells[f"error, {label}"] = f"refused: {type(fault).__name__}"
    return cells


def times(case: Case, given: tuple[Any, ...], device: str, repeats: int, copy: float, peak: float) -> dict[str, str]:
    """Milliseconds of ours and of the peers, and how much of the device ours uses."""
    cells: dict[str, str] = {}
    for kind, backward in (("forward", False), *((("forward+backward", True),) if case.backward else ())):
        moved, computed = (case.bytes, case.flops) if not backward else (case.bytes + case.backward_bytes, case.flops + case.backward_flops)
        ours = 0.0
        for label, function in (("ours", case.ours), *case.peers):
            ones: list[torch.Tensor] = []

            def once(function: Callable[..., Any] = function, backward: bool = backward, ones: list[torch.Tensor] = ones) -> None:
                with torch.set_grad_enabled(backward):
                    run(function, given, backward, ones)

            try:
                if backward:
                    ones += [torch.ones_like(y) for y in floats(function(*given)) if y.requires_grad]
                taken = kernel_seconds(once, device, repeats)
            except Exception as fault:
                if label == "ours":
                    raise
                cells[f"{kind}, {label}, ms"] = f"refused: {type(fault).__name__}"
                continue
            cells[f"{kind}, {label}, ms"] = ms(taken)
            if label == "ours":
                ours = taken
                if moved:
                    cells[f"{kind}, of copy"] = f"{moved / ours / copy:.0%}"
                if computed:
                    cells[f"{kind}, of peak"] = f"{computed / ours / peak:.0%}"
            else:
                cells[f"{kind}, ours / {label}"] = ratio(ours, taken)
    return cells


def device_limits(device: str, repeats: int) -> tuple[float, float]:
    """(bytes a second of a copy, read and written; FLOP/s of a bf16 matrix product)."""
    n, m = (2**30, 8192) if device == "cuda" else (2**20, 256)
    x = torch.empty(n, dtype=torch.int8, device=device)
    y = torch.empty_like(x)
    a, b = (torch.randn(m, m, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n / kernel_seconds(lambda: y.copy_(x), device, repeats), 2 * m**3 / kernel_seconds(lambda: a @ b, device, repeats)


def measure(rows: Rows, cases: Iterable[Case], device: str, repeats: int) -> None:
    copy, peak = device_limits(device, repeats)
    rows.measure("The device", "limits", lambda: {"copy, TB/s": f"{copy / 1e12:.2f}", "bf16 product, TFLOP/s": f"{peak / 1e12:.0f}"})
    for case in cases:
        def row(case: Case = case) -> dict[str, str]:
            torch.manual_seed(0)
            given = case.make(device)
            return {**errors(case, given), **times(case, given, device, repeats, copy, peak)}

        rows.measure(f"Kernels: {case.family}", case.name, row)


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--without", default="", help="a pattern: peers whose label it matches are left out")


def main() -> None:
    args = options(__doc__, more)
    quiet()
    rows = Rows("kernels", args)
    cases, failed = found(args.tiny)
    for family, fault in failed.items():
        def refuse(fault: Exception = fault) -> dict[str, str]:
            raise fault

        rows.measure("Kernels that could not be imported", family, refuse)
    if args.without:
        cases = [replace(c, peers=tuple(p for p in c.peers if not re.search(args.without, p[0]))) for c in cases]
    measure(rows, cases, args.device, args.repeats)


if __name__ == "__main__":
    main()
