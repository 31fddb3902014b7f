"""What a benchmark prints: tables of text. The last argument `--markdown FILE` writes them there as well."""
from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any, NamedTuple


class Table(NamedTuple):
    title: str
    note: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return f"### {self.title}\n{self.note}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def show(tables: Sequence[Table]) -> None:
    """Prints the tables, and writes them when the command line says so."""
    for t in tables:
        widths = [max(len(row[i]) for row in (t.header, *t.rows)) for i in range(len(t.header))]
        print(f"{t.title}\n  {t.note}")
        for row in (t.header, *t.rows):
            print("  " + "  ".join(f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths))).rstrip())
        print(flush=True)
    if "--markdown" in sys.argv:
        with open(sys.argv[sys.argv.index("--markdown") + 1], "w", encoding="utf-8") as file:
            file.write("\n".join(t.markdown() for t in tables))


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(wall, CPU) seconds, the median of some runs of each. What a run leaves is taken away before the next one starts."""
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(repeats):
        gc.collect()
        wall, cpu = perf_counter(), process_time()
        run()
        walls.append(perf_counter() - wall)
        cpus.append(process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.01 else f"{1e3 * seconds:.1f}"
