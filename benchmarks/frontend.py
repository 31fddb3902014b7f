"""How long it takes to check specs: `python benchmarks/frontend.py [--markdown FILE]`.

Cold: `archdsl check SPEC` in a new process, from start to end, its bytecode already written. Warm: a generated spec in a process that has
checked another one. Both check everything that `check` does: names, every model and variant elaborated, claims read, names blocks compiled.
"""
from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.generate import generated
from benchmarks.tables import Table, ms, show, timed

ROOT = Path(__file__).resolve().parents[1]
RUNS = 11
COLD_LIMIT, WARM_LIMIT, GROWTH_LIMIT = 0.25, 0.3, 12
NO_TORCH = """import sys
from archdsl.cli.main import main
sys.argv[1:] = ["check", sys.argv[1]]
try:
    main()
except SystemExit:
    print("torch" in sys.modules)"""
IMPORT = "from time import perf_counter as t; a = t(); import {}; print(t() - a)"


def environment() -> dict[str, str]:
    """That of this process, with bytecode written as an installation does."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT)}


def fresh(arguments: list[str], runs: int = RUNS) -> tuple[float, float]:
    """(wall, CPU) seconds of a new process, medians."""
    walls: list[float] = []
    cpus: list[float] = []
    for run in range(runs + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment(), cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if run:  # the first one may write bytecode
            walls.append(perf_counter() - start)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(walls), statistics.median(cpus)


def cold() -> Table:
    rows = []
    bare = fresh(["-c", "pass"])
    rows.append(("Python alone", ms(bare[0]), ms(bare[1]), "", ""))
    for path in sorted((ROOT / "specs").rglob("*.arch")):
        spec = str(path.relative_to(ROOT))
        wall, cpu = fresh(["-m", "archdsl.cli.main", "check", spec])
        done = subprocess.run([sys.executable, "-c", NO_TORCH, spec], capture_output=True, text=True, check=True, env=environment(), cwd=ROOT)
        assert done.stdout.split()[-1] == "False", f"checking {spec} imports torch"
        lines = path.read_text(encoding="utf-8").count("\n")
        rows.append((spec, ms(wall), ms(cpu), f"{lines}", "yes" if wall <= COLD_LIMIT else "no"))
    return Table("Cold `archdsl check`", f"Median of {RUNS} new processes each; torch is never imported. Limit: {ms(COLD_LIMIT)} ms of wall time. "
                 "Variants of a large file are looked at by two processes where a processor is idle (the first has not had to wait for one): "
                 "CPU is that of both.",
                 ("spec", "wall, ms", "CPU, ms", "lines", "within"), rows)


def imports() -> Table:
    def seconds(module: str) -> float:
        command = [sys.executable, "-c", IMPORT.format(module)]
        found = [subprocess.run(command, check=True, capture_output=True, text=True, env=environment()) for _ in range(RUNS)]
        return statistics.median(float(done.stdout) for done in found)

    rows = [(f"import {m}", ms(seconds(m))) for m in ("archdsl", "archdsl.spec", "archdsl.cli.main", "archdsl.cli.shell")]
    return Table("Imports", f"In a new process, median of {RUNS}, without Python's own start.", ("", "ms"), rows)


def warm() -> Table:
    from archdsl.source import Source
    from archdsl.spec import _load

    def check(text: str) -> None:
        spec, found, _ = _load(Source("generated.arch", text), None)
        assert spec is not None and not found, found[:1]

    check(generated(300))
    rows = []
    walls: dict[int, float] = {}
    for lines, repeats in ((1_000, 7), (10_000, 3)):
        text = generated(lines)
        wall, cpu = timed(lambda text=text: check(text), repeats)
        walls[lines] = wall
        count = text.count("\n")
        within = wall <= WARM_LIMIT if lines == 1_000 else wall <= GROWTH_LIMIT * walls[1_000]
        rows.append((f"{count:,} lines", ms(wall), ms(cpu), f"{wall / walls[1_000]:.1f}", "yes" if within else "no"))
    note = ("benchmarks/generate.py: blocks, models over them, loops with rates, variants, claims, names. "
            f"Limits: {ms(WARM_LIMIT)} ms for 1,000 lines, {GROWTH_LIMIT} times that for 10,000.")
    return Table("Warm check of a generated spec", note, ("", "wall, ms", "CPU, ms", "ratio", "within"), rows)


def main() -> None:
    show([cold(), imports(), warm()])


if __name__ == "__main__":
    main()
