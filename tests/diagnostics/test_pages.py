"""Every code has a golden case: the bad example of its page raises it, as rendered on file, and the good one is clean. Where no example says it,
`cases.py` raises it."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from archdsl.diagnostics.codes import Code, all_codes
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.diagnostics.render import render
from archdsl.spec import check_file, load
from tests.commands import write_program
from tests.diagnostics import cases, study_cases  # noqa: F401  it adds to the cases

TESTS = Path(__file__).parent.parent


def kind(page: Code) -> str:
    """What the example is written in: the language itself, the shell, or Python, which a page without example counts as."""
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


def test_every_code_has_a_golden_case_and_every_case_its_code():
    assert {f.stem for f in (TESTS / "golden/errors").glob("A*.txt")} == set(all_codes())


def shown(found: list[Diagnostic] | str, code: str) -> str:
    """What a user reads. The code is in it, and no path of this machine."""
    text = found if isinstance(found, str) else "\n\n".join(render(d) for d in found)
    assert code in text, f"{code} is not raised: {text or 'nothing is'}"
    text = re.sub(r"(?m)^( *= note: Could not guard) .*", r"\1 …", text)  # torch's own words, which change with its version
    return text.replace(os.path.realpath("."), "~")


@pytest.mark.parametrize(("code", "page"), pages("python", "bad"))
def test_bad_python_example(code, page, tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    assert shown(cases.faults_of(cases.example(code, page.bad, monkeypatch)), code) == golden.at(f"errors/{code}.txt")


@pytest.mark.parametrize(("code", "page"), pages("python", "good"))
def test_good_python_example(code, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cases.faults_of(cases.example(code, page.good, monkeypatch)) == []


@pytest.mark.parametrize("code", cases.CASES)
def test_cases_without_an_example(code, tmp_path, monkeypatch, golden):
    assert not all_codes()[code].bad, "its page has an example"
    monkeypatch.chdir(tmp_path)
    assert shown(cases.faults_of(lambda: cases.CASES[code](monkeypatch)), code) == golden.at(f"errors/{code}.txt")


@pytest.mark.parametrize(("code", "page"), pages("shell", "bad"))
def test_command_examples(code, page, tmp_path, golden):
    """In a folder with the files that the examples speak of, the bad command ends with its code, the good one does not."""
    write_program(tmp_path / "archdsl")
    for command, fails in ((page.bad, True), (page.good, False)):
        folder = tmp_path / str(fails)
        shutil.copytree(TESTS.parent / "specs", folder / "specs")
        (folder / "docs").mkdir()
        (folder / "some/other/folder").mkdir(parents=True)
        for name in ("llama.arch", "my.arch", "other.arch"):
            shutil.copy(folder / "specs/language/llama.arch", folder / name)
        shutil.copy(folder / "specs/vision/vit.arch", folder)
        if command == page.good and code == "A0624":
            (folder / "other.arch").write_text((folder / "my.arch").read_text(), encoding="utf-16")
        others = [] if code == "A0662" else [os.environ["PATH"]]  # that one is about a program that is not there
        environment = {**os.environ, "HOME": str(folder), "PATH": os.pathsep.join([str(tmp_path), *others])}
        done = subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
        assert (f"[{code}]" in done.stdout + done.stderr) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
        if fails:
            said = (done.stdout + done.stderr).replace(os.path.realpath(folder), "~").replace(str(folder), "~")
            assert re.sub(r"\^+", "^", said) == golden.at(f"errors/{code}.txt")
