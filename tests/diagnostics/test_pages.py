"""The examples of `archdsl explain` are golden cases: the bad one raises its code, as rendered on file; the good one is clean."""
from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from archdsl.diagnostics.codes import all_codes
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.diagnostics.render import render
from archdsl.spec import check_file

TESTS = Path(__file__).parent.parent
COMMANDS = ("A06", "A09")  # about files and the command line: their examples are commands, not specs
SPECS = [pytest.param(code, page, id=code) for code, page in all_codes().items() if page.bad and not code.startswith(COMMANDS)]

# Codes that no text of one file shows by itself, with the tests that raise them.
ELSEWHERE: dict[str, str] = {
    "A0621": "test_files.py",
    "A0622": "test_files.py",
    "A0623": "test_files.py",
    "A0624": "test_files.py",
    "A0625": "test_files.py",
    "A0626": "test_files.py",
    "A0627": "test_files.py",
    "A0628": "test_checkpoints.py",
    "A0651": "cli/test_explain.py",
    "A0652": "cli/test_new.py",
    "A0653": "cli/test_new.py",
    "A0901": "cli/test_main.py",
}


def faults(folder: Path, text: str) -> list[Diagnostic]:
    (folder / "example.arch").write_text(text.strip("\n") + "\n", encoding="utf-8")
    try:
        return check_file("example.arch")
    except ArchError as fault:
        return fault.diagnostics


@pytest.mark.parametrize(("code", "page"), SPECS)
def test_bad_example(code, page, tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    found = faults(tmp_path, page.bad)
    assert code in [d.code for d in found], f"raises {[d.code for d in found]} instead"
    assert "\n\n".join(render(d) for d in found) == golden.at(f"errors/{code}.txt")


@pytest.mark.parametrize(("code", "page"), [p for p in SPECS if p.values[1].good])
def test_good_example(code, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [render(d) for d in faults(tmp_path, page.good)] == []


def test_every_code_is_shown_by_a_test():
    shown = {p.values[0] for p in SPECS}
    assert not shown & set(ELSEWHERE), "one case is enough"
    assert shown | set(ELSEWHERE) == set(all_codes())
    for code, file in ELSEWHERE.items():
        assert code in (TESTS / file).read_text(), f"{file} does not raise {code}"


def test_no_golden_case_without_its_code():
    assert {f.stem for f in (TESTS / "golden/errors").glob("A*.txt")} == {p.values[0] for p in SPECS}


COMMAND_EXAMPLES = [pytest.param(code, page, id=code) for code, page in all_codes().items() if page.bad and code.startswith(("A0627", "A065"))]


@pytest.mark.parametrize(("code", "page"), COMMAND_EXAMPLES)
def test_command_examples(code, page, tmp_path):
    """In an empty folder the bad command ends with its code, the good one does not."""
    script = tmp_path / "archdsl"
    script.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m archdsl.cli.main \"$@\"\n")
    script.chmod(0o755)
    for command, fails in ((page.bad, True), (page.good, False)):
        folder = tmp_path / str(fails)
        folder.mkdir()
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert (f"error[{code}]" in done.stderr) == fails and (done.returncode != 0) == fails, done.stderr
