"""How fast specs are read and formatted: `python benchmarks/parse.py [LINES]`.

Prints the cold start (a new process that imports the parser and reads a small file), lines a second for a generated spec of LINES lines
(default 10,000) and one of a tenth, the formatter's rate, and what the cache of library trees saves.
"""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COLD = """import time
start = time.perf_counter()
from archdsl.source import Source
from archdsl.syntax.parser import parse
parse(Source("small.arch", {text!r}))
print(time.perf_counter() - start)"""


def best(run: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def generated(lines: int) -> str:
    """Shipped specs, repeated until there are enough lines."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").rglob("*.arch")))
    return text * (lines // text.count("\n") + 1)


def main() -> None:
    """Print the table."""
    from archdsl.source import Source
    from archdsl.syntax import cache
    from archdsl.syntax.fmt import format_module
    from archdsl.syntax.parser import parse, parse_cached

    small = min((ROOT / "stdlib").rglob("*.arch"), key=lambda path: path.stat().st_size).read_text(encoding="utf-8")
    command = [sys.executable, "-c", COLD.format(text=small)]
    subprocess.run(command, check=True, capture_output=True)  # compiles the modules
    cold = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(7)]
    print(f"cold: import and a small file   {statistics.median(cold) * 1e3:8.1f} ms")

    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for size in (lines // 10, lines):
        source = Source("generated.arch", generated(size))
        count = source.text.count("\n")
        seconds = best(lambda source=source: parse(source))
        print(f"parse {count:7,} lines             {seconds * 1e3:8.1f} ms  {count / seconds:10,.0f} lines/s")
    source = Source("generated.arch", generated(lines // 10))
    count = source.text.count("\n")
    seconds = best(lambda: format_module(source))
    print(f"format {count:6,} lines             {seconds * 1e3:8.1f} ms  {count / seconds:10,.0f} lines/s")

    library = [Source(str(path), path.read_text(encoding="utf-8")) for path in sorted((ROOT / "archdsl" / "stdlib").rglob("*.arch"))]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        cache.folder.cache_clear()
        parsed = best(lambda: [parse(module) for module in library])
        [parse_cached(module) for module in library]
        kept = best(lambda: [parse_cached(module) for module in library])
    print(f"library of {len(library):2} modules           {parsed * 1e3:8.1f} ms parsed, {kept * 1e3:.1f} ms from the cache")


if __name__ == "__main__":
    main()
