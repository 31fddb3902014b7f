"""Asking the server, and what every answer must keep to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 2.0, 500_000_000
REFERENCE = 0.02  # seconds for the server's measure of speed on the machine that the budget of seconds is for
HANGS = 10.0
"""Times the budget of seconds before a test fails: what else runs on a machine, and its caches, tell in no measure of its speed, and a test is for
what hangs. How long each of these texts takes against the budget is told by `benchmarks/bad_input.py`."""
OWN = tuple(
    os.path.realpath(p) + os.sep
    # pydantic asks every installed distribution whether it has plugins for it, an editable install of this one included
    for p in (ROOT / "archdsl", ROOT / "stdlib", ROOT / "specs", ROOT / "archdsl.egg-info", sys.prefix, sys.base_prefix, os.path.dirname(os.__file__),
              # those of another environment, which a .pth file adds, or of a folder that pip filled by --target
              *(p for p in sys.path if p and any(Path(p).glob("*.dist-info"))))
)
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "archdsl") + os.sep


class Server:
    """A process that runs commands, each in a fork of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bad.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.slower = max(1.0, self.ask(speed=True)["speed"] / REFERENCE)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, folder: Path, *argv: str, seconds: float = SECONDS, most: int = BYTES, reads: tuple[Path, ...] = ()) -> dict[str, Any]:
        """Runs `archdsl ARGV` in a folder. Exit 0 or 1, no traceback, within the budgets, nothing read but that folder, `reads` and the library."""
        allowed = HANGS * seconds * self.slower
        a = self.ask(argv=list(argv), cwd=str(folder), cpu=4 * allowed)
        said = a["err"][-3000:] or a["out"][-3000:]
        assert a["rc"] in (0, 1), (a["rc"], a["cpu"], said)
        assert "Traceback" not in a["err"] and "A0901" not in a["err"] + a["out"], said
        if a["cpu"] > allowed:  # is the machine slower now than when it was measured?
            allowed = max(allowed, HANGS * seconds * self.ask(speed=True)["speed"] / REFERENCE)
        assert a["cpu"] <= allowed, f"{a['cpu']:.2f} s of {allowed:.2f}: {said}"
        assert a["bytes"] <= most, f"{a['bytes']:,} bytes: {said}"
        assert a["did"] == [], a["did"]
        places = (*OWN, CACHE, *(os.path.realpath(p) + os.sep for p in (folder, *reads)))
        outside = [p for p in a["opened"] if not (os.path.realpath(p) + os.sep).startswith(places) and p not in (os.devnull, str(ROOT), *sys.path)]
        assert outside == [], outside
        a["codes"] = re.findall(r"\berror\[(A\d{4})\]|\"code\": \"(A\d{4})\",\s*\"severity\": \"error\"", a["out"] + a["err"])  # no warnings
        a["codes"] = sorted({x or y for x, y in a["codes"]})
        return a

    def close(self) -> None:
        self.process.communicate()
