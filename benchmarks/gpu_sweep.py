"""How the pinned configurations of the chunked kernels were found: each kernel alone, in bf16, with every candidate of CANDIDATES.

    python benchmarks/gpu_sweep.py [--only PATTERN] [--repeats 20]

One process for each CPU compiles first; a candidate that the card refuses is told. The first row of a kernel is the one that is pinned.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_common import kernel_seconds

Config = tuple[int, ...]
SHAPES = {"long": (8, 16, 2048, 128, 128), "few heads": (2, 8, 8192, 128, 128)}
CANDIDATES: dict[str, dict[str, tuple[Config, ...]]] = {
    "gla": {
        "results": ((32, 128, 4, 1), (32, 128, 8, 2), (64, 64, 8, 1), (64, 128, 8, 1), (32, 64, 4, 2), (64, 64, 4, 1)),
        "gradients": ((32, 64, 4, 1), (32, 128, 4, 2), (32, 64, 8, 2), (64, 64, 8, 1), (64, 64, 8, 2), (64, 32, 8, 2)),
    },
    "gla_along": {
        "pairs": ((32, 4, 1), (32, 4, 2), (32, 2, 1), (16, 2, 2), (16, 1, 2), (32, 1, 2), (64, 2, 2)),
        "along": ((64, 4, 2), (64, 4, 1), (64, 8, 2), (64, 8, 3), (128, 8, 2), (128, 8, 3), (128, 4, 2), (32, 4, 2), (32, 4, 3), (32, 4, 4)),
        "states": ((64, 4, 2), (64, 8, 2), (128, 8, 2), (32, 4, 3)),
        "reverse": ((64, 4, 2), (64, 8, 2), (128, 8, 2), (32, 4, 3)),
    },
    "delta": {
        "solve": ((128, 128, 4, 1), (64, 64, 8, 1), (64, 64, 4, 2), (32, 32, 4, 1)),
        "scan": ((256, 64, 4, 1), (256, 64, 8, 2), (256, 32, 4, 1), (256, 32, 4, 2), (256, 32, 4, 3), (256, 128, 8, 2), (256, 16, 4, 3)),
        "back": ((256, 64, 4, 2), (256, 64, 8, 2), (256, 32, 4, 1), (256, 32, 4, 2), (256, 32, 4, 3), (256, 128, 8, 1), (256, 16, 4, 2)),
        "results": ((64, 64, 4, 2), (128, 128, 4, 1), (128, 128, 8, 1), (64, 128, 8, 2), (64, 128, 4, 3)),
        "pairs": ((64, 64, 4, 2), (32, 64, 4, 2), (64, 64, 8, 1), (128, 128, 4, 1), (32, 32, 4, 2)),
        "gradients": ((64, 64, 4, 1), (64, 64, 4, 3), (64, 64, 8, 2), (128, 64, 8, 1), (64, 128, 4, 1), (32, 64, 4, 2)),
    },
}

FORMS = {("gla_along", "states"): "along", ("gla_along", "reverse"): "along"}
"""Forms of a kernel that share its configuration."""


def operands(shape: tuple[int, ...], gate: tuple[int, ...]) -> tuple[Any, ...]:
    """q, k (of length 1), v, gates in float32 and beta, heads side by side in memory."""
    B, H, T, K, V = shape

    def made(*columns: int) -> torch.Tensor:
        return torch.randn(B, T, H, *columns, device="cuda", dtype=torch.bfloat16).transpose(1, 2)

    k = torch.nn.functional.normalize(made(K).float(), dim=-1).to(torch.bfloat16)
    return made(K), k, made(V), torch.nn.functional.logsigmoid(made(*gate).float()) / 16, torch.sigmoid(made())


def calls(family: str, shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Each kernel of a family on operands of a shape."""
    if family == "gla_along":
        from archdsl.kernels import gla_along

        q, k, v, a, _ = operands(shape, (shape[3],))
        found = gla_along.pairs(q, k, a, 1.0, False)
        return {"pairs": lambda: gla_along.pairs(q, k, a, 1.0, False), "along": lambda: gla_along.along(found, v, None, False),
                "states": lambda: gla_along.along(found, v, None, False, True, False), "reverse": lambda: gla_along.along(found, v, None, True, True)}
    if family == "gla":
        from archdsl.kernels import gla, gla_along

        q, k, v, a, _ = operands(shape, (shape[3],))
        found = gla_along.pairs(q, k, a, 1.0, False)
        met, least = gla_along.along(found, v, None, False, True, False)[1], found[-1]
        return {"results": lambda: gla._results(q, k, v, a, met, least, 1.0, False, False),
                "gradients": lambda: gla._gradients(q, k, v, a, met, met, least, v, 1.0, False)}
    from archdsl.kernels import delta, delta_backward

    q, k, v, _, beta = operands(shape, ())
    W, U, M = delta.solved(k, v, beta, None)
    met, wrong, _ = delta.scanned(k, beta, None, W, U, None)
    return {"solve": lambda: delta.solved(k, v, beta, None), "scan": lambda: delta.scanned(k, beta, None, W, U, None),
            "results": lambda: delta.results(q, k, beta, None, met, wrong, 1.0, False),
            "back": lambda: delta_backward._back(q, k, beta, None, W, v, wrong, None, 1.0),
            "pairs": lambda: delta_backward._pairs(q, k, beta, None, M, wrong, wrong, v, None, 1.0),
            "gradients": lambda: delta_backward._gradients(q, k, beta, None, met, met, wrong, v, v, M, M, None, 1.0)}


def candidates(only: str) -> Iterator[tuple[str, str, Config]]:
    """(family, kernel, configuration), the pinned one first."""
    for family, kernels in CANDIDATES.items():
        pinned = import_module(f"archdsl.kernels.{family}").CONFIGS[2]
        for kernel, others in kernels.items():
            if re.search(only, f"{family} {kernel}"):
                for config in (pinned[FORMS.get((family, kernel), kernel)], *others):
                    yield family, kernel, config


def run(family: str, kernel: str, config: Config, shape: tuple[int, ...], measure: Callable[[Callable[[], Any]], float]) -> float | str:
    """What `measure` says of one kernel with a configuration, or why it cannot be had."""
    configs = import_module(f"archdsl.kernels.{family}").CONFIGS[2]
    name = FORMS.get((family, kernel), kernel)
    before = configs[name]
    try:
        call = calls(family, shape)[kernel]
        configs[name] = config
        return measure(call)
    except Exception as fault:  # a candidate that does not fit leaves the others
        return f"{type(fault).__name__}: {str(fault).splitlines()[0][:80]}"
    finally:
        configs[name] = before


def compiled(task: tuple[str, str, Config]) -> float | str:
    """Into Triton's cache on disk."""
    def once(call: Callable[[], Any]) -> float:
        call()
        torch.cuda.synchronize()
        return 0.0

    return run(*task, (1, 2, 128, 128, 128), once)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    tasks = [*candidates(args.only)]
    with ProcessPoolExecutor(min(12, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        refused = {task: why for task, why in zip(tasks, pool.map(compiled, tasks)) if why}
    for label, shape in SHAPES.items():
        print("\n{}: B {}, H {}, T {}, {} × {}".format(label, *shape))
        for task in tasks:
            taken = refused.get(task) or run(*task, shape, lambda call: kernel_seconds(call, "cuda", args.repeats))
            print(f"{task[0]:6} {task[1]:10} {task[2]!s:18} {taken if isinstance(taken, str) else f'{1e3 * taken:.3f} ms'}", flush=True)


if __name__ == "__main__":
    main()
