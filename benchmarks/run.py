"""All benchmarks: `python benchmarks/run.py [PART …]` with parts frontend, bad_input, keystroke, faults, parse, cost, build, first_step,
norms, search, study, strategies, latency, supernet, sequence, parity, gpu; all but gpu, which needs a device, when none is named. What follows
`--` goes to the scripts:
`python benchmarks/run.py parity -- --only vit,llama --minutes 9` (`-- --help` lists a script's options); what benchmarks/gpu.py measured on another
machine and kept in a file goes in by `python benchmarks/run.py gpu -- --show --kept FILE`.

Each part runs in a process of its own. What it prints goes to benchmarks/RESULTS.md with the machine, its load, versions and date; parts that did
not run keep what they said before. Parity with timm and transformers takes by far the longest, most of it compiling and eight images at a time,
and may be run in pieces.
"""
from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PARTS = {
    "frontend": "Checking specs",
    "bad_input": "Specs from a stranger",
    "keystroke": "Typing in an editor",
    "faults": "Faults planted in shipped specs",
    "parse": "Reading and formatting",
    "cost": "Costs of an 80-layer Llama",
    "build": "Building and compiling",
    "first_step": "First training step",
    "norms": "RMSNorm in the place of LayerNorm",
    "search": "Candidates of a search space",
    "study": "Studies on disk",
    "strategies": "Strategies of search",
    "latency": "Latency by a table of blocks",
    "tabulated": "A tabulated benchmark",
    "supernet": "Supernets",
    "sequence": "Sequence mixers",
    "parity": "Against timm and transformers",
    "gpu": "On a GPU",
}
SCRIPTS = {"parity": "parity_speed"}
PACKAGES = ("torch", "timm", "transformers", "optuna", "pymoo")


def machine() -> str:
    """One line: processor, cores, memory, system, Python."""
    cpu = platform.processor() or platform.machine()
    memory = ""
    if os.path.exists("/proc/cpuinfo"):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1] if found else cpu
        total = re.search(r"^MemTotal: *(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
        memory = f", {int(total[1]) / 2**20:.0f} GiB" if total else ""
    return f"{cpu}, {os.cpu_count()} cores{memory}, {platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"


def versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def load() -> str:
    """The number of processes that want to run, over the last minute: above 0 before a start, others share the machine."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def run(part: str, options: list[str]) -> str:
    """The section of a part."""
    before = load()
    script = f"benchmarks/{SCRIPTS.get(part, part)}.py"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tables.md"
        done = subprocess.run([sys.executable, script, *options, "--markdown", str(out)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if done.returncode:
            raise SystemExit(f"{script} failed")
        if not out.exists():  # it was asked for its options
            raise SystemExit(0)
        tables = out.read_text(encoding="utf-8")
    command = " ".join([f"python {script}", *options])
    return f"## {PARTS[part]}\n`{command}`, {date.today()}, load before the start {before}, {versions()}.\n\n{tables.strip()}\n"


def sections() -> dict[str, str]:
    """The sections of the last results, by title."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    return {part.split("\n", 1)[0]: f"## {part.strip()}\n" for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}


def main() -> None:
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    wanted, options = sys.argv[1:at] or [p for p in PARTS if p != "gpu"], sys.argv[at + 1:]
    unknown = [p for p in wanted if p not in PARTS]
    if unknown:
        raise SystemExit(f"no part is called {unknown[0]}; there are {', '.join(PARTS)}")
    for part in wanted:
        section = run(part, options)
        kept = sections()
        kept[PARTS[part]] = section
        text = [f"# Results\n\nWritten by `python benchmarks/run.py`. Machine: {machine()}.\n"]
        RESULTS.write_text("\n".join([*text, *(kept[title] for title in PARTS.values() if title in kept)]), encoding="utf-8")
    print(f"written to {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
