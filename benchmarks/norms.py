"""The time claim of arxiv 2305.14858 on CPU: models of its sizes with layer norms, and what `centre` makes of them (RMSNorm, CRMSNorm).

    python benchmarks/norms.py [--pairs 15] [--threads 1] [--modes eager,compile] [--markdown FILE]

Each pair runs the layer-norm form and the other one after the other, in alternating order; the ratio is taken pair by pair. Times are CPU times
of the process, so that a busy machine counts less. Printed: medians, the geometric mean of the ratios and its 95% confidence interval (Student's
t on the logarithms). The paper reports 1% to 10% less time, on GPUs.
"""
from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from archdsl.passes import Model
from benchmarks.parity_speed import T95, both, forward
from benchmarks.tables import Table, show

SPEC = "specs/general/pre_rmsnorm.arch"
SIZES: list[tuple[str, str, str, dict[str, Any], Any]] = [
    ("ViT-Tiny, batch 1", "ViT", "tiny", {}, lambda: torch.randn(1, 3, 224, 224)),
    ("ViT-Small, batch 1", "ViT", "vit_small", {}, lambda: torch.randn(1, 3, 224, 224)),
    ("GPT Small, 128 tokens", "GPT", "small", {"vocab": 8000}, lambda: torch.randint(0, 8000, (1, 128))),
]
FORMS = {"RMSNorm": "centre()", "CRMSNorm": "centre(compress = true)"}


def clock(step: Any, model: Any, x: torch.Tensor) -> float:
    """CPU seconds of one pass."""
    start = time.process_time()
    step(model, x)
    return time.process_time() - start


def interval(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """(geometric mean of a / b, the ends of its 95% confidence interval)."""
    logs = [math.log(p / q) for p, q in zip(a, b)]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    t = T95[min(T95, key=lambda n: abs(n - len(logs)))]
    return math.exp(mean), math.exp(mean - t * error), math.exp(mean + t * error)


def compare(new: Any, old: Any, x: torch.Tensor, step: Any, pairs: int) -> tuple[str, ...]:
    """The cells of a row: medians in ms, ratio, interval."""
    for m in (new, old, new, old):
        step(m, x)
    times: dict[int, list[float]] = {id(new): [], id(old): []}
    gc.collect()
    gc.disable()
    for i in range(pairs):
        for m in (new, old) if i % 2 else (old, new):
            times[id(m)].append(clock(step, m, x))
    gc.enable()
    a, b = times[id(new)], times[id(old)]
    ratio, low, high = interval(a, b)
    return f"{statistics.median(b) * 1e3:.1f}", f"{statistics.median(a) * 1e3:.1f}", f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"


def rows(pairs: int, modes: list[str]) -> list[tuple[str, ...]]:
    out = []
    for name, kind, variant, knobs, inputs in SIZES:
        start = Model.of(archdsl.load(SPEC).models[kind], variant, knobs)
        for (form, text), mode in product(FORMS.items(), modes):
            torch._dynamo.reset()
            pair = [m.build() for m in (start.apply(text), start)]
            for label, step in (("forward", forward), ("forward+backward", both)):
                for m in pair:
                    m.train(step is both)
                new, old = (torch.compile(m) for m in pair) if mode == "compile" else pair
                out.append((name, form, mode, label, *compare(new, old, inputs(), step, pairs)))
                print(" | ".join(out[-1]), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    found = rows(args.pairs, args.modes.split(","))
    note = (f"CPU time, {args.threads} thread(s), {args.pairs} pairs. Ratio: time of the form by that of the model with layer norms; a gain below 1. "
            "The paper (arxiv 2305.14858) reports 0.90 to 0.99 on GPUs.")
    show([Table("Pre-RMSNorm and Pre-CRMSNorm against Pre-LN", note,
                ("model", "form", "mode", "pass", "LayerNorm, ms", "form, ms", "ratio", "95%"), found)])


if __name__ == "__main__":
    main()
