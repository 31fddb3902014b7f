"""How long `archdsl check` takes on specs that try to take the machine: `python benchmarks/bad_input.py [--markdown FILE]`.

The texts are those of tests/bad, second tier included. Each runs in a fork of a process that has the package loaded; the budgets are 2 seconds of CPU
time and 500 MB. The tests fail on what hangs; this tells how near the dearest come.
"""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, ms, show
from tests.bad import limits, texts  # noqa: F401  more cases
from tests.bad.cases import CASES
from tests.bad.client import BYTES, REFERENCE, SECONDS, Server

SHOWN = 12


def main() -> None:
    server = Server()
    found = []
    for name, (text, _) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "m.arch").write_text(text, encoding="utf-8")
            a = server.run(Path(folder), "check", "m.arch")
        found.append((a["cpu"], a["bytes"], name, ", ".join(a["codes"]) or "accepted"))
    slower = server.ask(speed=True)["speed"] / REFERENCE
    server.close()
    beyond = sum(cpu > SECONDS or size > BYTES for cpu, size, *_ in found)
    note = f"""{len(found)} specs, {beyond} beyond {SECONDS:.0f} s of CPU time or {BYTES / 1e6:.0f} MB; the {SHOWN} dearest. A loop of pure Python \
takes {slower:.2f} × the {REFERENCE} s of the machine that the budget is for."""
    rows = [(name, code, ms(cpu), f"{size / 1e6:.0f}") for cpu, size, name, code in sorted(found, reverse=True)[:SHOWN]]
    show([Table("Specs that try to take the machine", note, ("spec", "answer", "CPU, ms", "MB"), rows)])


if __name__ == "__main__":
    main()
