"""How fast specs are read and formatted: `python benchmarks/parse.py [--markdown FILE]`."""
from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, ms, show, timed

ROOT = Path(__file__).resolve().parents[1]
RUNS = 7
COLD = """import time
start = time.perf_counter()
from archdsl.source import Source
from archdsl.syntax.parser import parse
parse(Source("small.arch", {text!r}))
print(time.perf_counter() - start)"""


def generated(lines: int) -> str:
    """Shipped specs, repeated until there are enough lines."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").rglob("*.arch")))
    return text * (lines // text.count("\n") + 1)


def main() -> None:
    from archdsl.source import Source
    from archdsl.syntax.fmt import format_module
    from archdsl.syntax.parser import parse

    small = min((ROOT / "stdlib").rglob("*.arch"), key=lambda path: path.stat().st_size).read_text(encoding="utf-8")
    command = [sys.executable, "-c", COLD.format(text=small)]
    cold = [float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout) for _ in range(RUNS)]
    rows = [("import the parser, read a small file, cold", ms(statistics.median(cold)), "", "")]
    for what, run, lines in (("parse", parse, 1_000), ("parse", parse, 10_000), ("format", format_module, 1_000)):
        source = Source("generated.arch", generated(lines))
        count = source.text.count("\n")
        wall, cpu = timed(lambda run=run, source=source: run(source), 3)
        rows.append((f"{what} {count:,} lines", ms(wall), ms(cpu), f"{count / wall:,.0f}"))
    show([Table("Reading and formatting", "Shipped specs, repeated; medians.", ("", "wall, ms", "CPU, ms", "lines a second"), rows)])


if __name__ == "__main__":
    main()
