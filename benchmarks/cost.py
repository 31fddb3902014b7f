"""Time and memory of the costs of an 80-layer Llama with 70 billion parameters: python benchmarks/cost.py

Everything after the imports counts: reading the spec from its file, checking, elaborating, the costs, the formulas, the rows by layer.
"""
from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, ms, show

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import archdsl.claims, archdsl.cost, archdsl.elaborate.resolve, archdsl.names, archdsl.spaces, archdsl.spec
from benchmarks.cost import measure
measure({trace})
"""
STEPS = ("check and elaborate", "cost", "cost, other sizes", "formulas", "rows by layer")


def measure(trace: bool) -> None:
    """Prints seconds by step; with `trace` the most megabytes that Python held instead, which slows it down."""
    from archdsl.spec import resolve_source

    if trace:
        tracemalloc.start()
    times = [perf_counter()]
    spec, variant = resolve_source("llama:llama2_70b")
    made = spec.elaborate(variant)
    times.append(perf_counter())
    found = spec.cost(variant)
    times.append(perf_counter())
    spec.cost(variant, at={"B": 4, "T": 4096})
    times.append(perf_counter())
    formulas = found.formulas
    times.append(perf_counter())
    rows = found.layers
    times.append(perf_counter())
    assert made.steps and formulas and len(rows) > 900 and "torch" not in sys.modules
    if trace:
        print(f"{tracemalloc.get_traced_memory()[1] / 1e6:.1f}")
    else:
        print(*(b - a for a, b in pairwise(times)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def run(trace: bool) -> list[float]:
    done = subprocess.run([sys.executable, "-c", RUN.format(trace=trace)], capture_output=True, text=True, check=True, cwd=ROOT)
    return [float(x) for x in done.stdout.split()]


def main() -> None:
    rows = [run(trace=False) for _ in range(5)]
    best = [min(column) for column in zip(*rows)]
    total, held = sum(best[:-1]), run(trace=True)[0]
    show([
        Table("Time", "From the file on: check, elaborate, count. Best of 5 new processes, after the imports. Limit: 500 ms in all.",
              ("", "ms", "within"),
              [*((name, ms(seconds), "") for name, seconds in zip(STEPS, best)), ("in all", ms(total), "yes" if total <= 0.5 else "no")]),
        Table("Memory", "Limit: 200 MB held by Python.", ("", "MB", "within"),
              [("the whole process", f"{best[-1]:.0f}", ""), ("held by Python at most", f"{held:.0f}", "yes" if held <= 200 else "no")]),
    ])


if __name__ == "__main__":
    main()
