"""The examples of `archdsl explain` are golden cases: the bad one raises its code, as rendered on file; the good one is clean."""
from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archdsl.diagnostics.codes import Code, all_codes
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.diagnostics.render import render
from archdsl.spec import check_file, load

TESTS = Path(__file__).parent.parent


def kind(page: Code) -> str:
    """What the example is written in: the language itself, the shell, or Python. Those in Python are left to other tests."""
    words = (page.bad or page.good).split()
    if not words or "archdsl." in page.bad + page.good:
        return "python"
    return "shell" if words[0] in ("archdsl", "iconv", "mkdir") else "spec"


def pages(of: str, part: str) -> list:
    return [pytest.param(code, page, id=code) for code, page in all_codes().items() if kind(page) == of and getattr(page, part)]


def faults(code: str, text: str) -> list[Diagnostic]:
    """What checking finds, and for codes of lowering what building finds."""
    Path("example.arch").write_text(text.strip("\n") + "\n", encoding="utf-8")
    found = check_file("example.arch", lints=code.startswith("A07"))
    if not found and code.startswith("A05"):
        try:
            load("example.arch").build(device="meta")
        except ArchError as fault:
            return fault.diagnostics
    return found


@pytest.mark.parametrize(("code", "page"), pages("spec", "bad"))
def test_bad_example(code, page, tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    found = faults(code, page.bad)
    assert code in [d.code for d in found], f"raises {[d.code for d in found]} instead"
    assert "\n\n".join(render(d) for d in found) == golden.at(f"errors/{code}.txt")


@pytest.mark.parametrize(("code", "page"), pages("spec", "good"))
def test_good_example(code, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [render(d) for d in faults(code, page.good)] == []


def test_no_golden_case_without_its_code():
    assert {f.stem for f in (TESTS / "golden/errors").glob("A*.txt")} == {p.values[0] for p in (*pages("spec", "bad"), *pages("shell", "bad"))}


@pytest.mark.parametrize(("code", "page"), pages("shell", "bad"))
def test_command_examples(code, page, tmp_path, golden):
    """In a folder with the files that the examples speak of, the bad command ends with its code, the good one does not."""
    script = tmp_path / "archdsl"
    script.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m archdsl.cli.main \"$@\"\n")
    script.chmod(0o755)
    for command, fails in ((page.bad, True), (page.good, False)):
        folder = tmp_path / str(fails)
        shutil.copytree(TESTS.parent / "specs", folder / "specs")
        (folder / "docs").mkdir()
        (folder / "some/other/folder").mkdir(parents=True)
        for name in ("llama.arch", "my.arch", "other.arch"):
            shutil.copy(folder / "specs/language/llama.arch", folder / name)
        if command == page.good and code == "A0624":
            (folder / "other.arch").write_text((folder / "my.arch").read_text(), encoding="utf-16")
        environment = {**os.environ, "HOME": str(folder), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
        assert (f"[{code}]" in done.stdout + done.stderr) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
        if fails:
            shown = (done.stdout + done.stderr).replace(os.path.realpath(folder), "~").replace(str(folder), "~")
            shown = re.sub(r"\^+", "^", shown)  # as wide as the folder's path
            assert shown == golden.at(f"errors/{code}.txt")


def test_every_code_is_raised_by_a_test():
    """A code is a case above, or some other test names it."""
    shown = {p.values[0] for p in (*pages("spec", "bad"), *pages("shell", "bad"))}
    others = "".join(path.read_text() for path in TESTS.rglob("*.py") if path != Path(__file__))
    assert {code for code in all_codes() if code not in shown and code not in others} == set()
