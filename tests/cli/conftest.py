"""The command line as a user meets it: arguments, output, exit code."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.commands import program

Run = Callable[..., SimpleNamespace]


def checked(code: int, done: SimpleNamespace) -> SimpleNamespace:
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def archdsl(tmp_path, monkeypatch, capsys) -> Run:
    """`archdsl("check", "a.arch")` in an empty folder, within this process; `code=` is the exit code that is expected."""
    from archdsl import helper
    from archdsl.cli.main import main

    monkeypatch.setattr(helper, "allow", lambda: None)  # this process is not the command line's, neither now nor for the tests behind this one
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    monkeypatch.setattr("archdsl.pace.EVERY", float("inf"))  # nothing is said of what takes long on a slow machine
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(*arguments: object, code: int = 0) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["archdsl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        stdout, stderr = capsys.readouterr()
        return checked(code, SimpleNamespace(returncode=ended.value.code or 0, stdout=stdout, stderr=stderr))

    return run


@pytest.fixture
def archdsl_process(tmp_path) -> Run:
    """The same in a process of its own, for what only a process shows; `cold`: one that has imported nothing yet."""

    def run(*arguments: object, code: int = 0, cold: bool = False) -> SimpleNamespace:
        command, encoding = ([sys.executable, "-m", "archdsl.cli.main"], {"PYTHONIOENCODING": "utf-8"}) if cold else ([program()], {})
        environment = {**os.environ, "TMPDIR": str(tmp_path), **encoding}
        done = subprocess.run([*command, *map(str, arguments)],
                              capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, env=environment, timeout=500)
        return checked(code, SimpleNamespace(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr))

    return run
