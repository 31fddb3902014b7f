"""The command line as a user meets it: a process, its output, its exit code."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def archdsl(tmp_path) -> Run:
    """`archdsl("check", "a.arch")` in an empty folder; `code=` is the exit code that is expected."""

    def run(*arguments: object, code: int = 0, **options) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run([sys.executable, "-m", "archdsl.cli.main", *map(str, arguments)],
                              capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, env=environment, timeout=120, **options)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run
