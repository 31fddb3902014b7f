"""Fixes applied to files: golden texts before and after, and what must never happen to the rest of the text."""
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from archdsl.diagnostics.fixing import apply, fix_text
from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source, Span
from archdsl.spec import check_text

CASES = sorted((Path(__file__).parent.parent / "golden/fix").glob("*.before.arch"))


@pytest.mark.parametrize("before", CASES, ids=lambda p: p.name.partition(".")[0])
def test_before_and_after(before, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = before.read_text(encoding="utf-8")
    made = fix_text(text, "a.arch", lambda t: check_text(t, "a.arch"))
    assert made.text == golden.at(f"fix/{before.name.replace('before', 'after')}")
    assert made.done and len(made.left) < len(check_text(text, "a.arch"))
    assert fix_text(made.text, "a.arch", lambda t: check_text(t, "a.arch")).text == made.text, "a second time changes nothing"
    comments = [line[line.index("#"):] for line in text.splitlines() if "#" in line]
    assert [line[line.index("#"):] for line in made.text.splitlines() if "#" in line] == comments


def fault(text: str, start: int, end: int, new: str, path: str = "a") -> Diagnostic:
    span = Span(Source(path, text), start, end)
    return Diagnostic("A0201", f"fault {start}", span, fixes=(Fix("do it", ((span, new),)),))


def test_fixes_that_touch_wait_for_the_next_round():
    def check(text: str) -> list[Diagnostic]:
        return [fault(text, i, i + 2, "x") for i in range(len(text) - 1) if text[i : i + 2] in ("aa", "bb")]

    made = fix_text("aaa bb", "a", check)
    assert (made.text, made.left) == ("xa x", [])
    assert apply("abc", [(0, 1, ""), (2, 2, "-"), (3, 3, "!")]) == "b-c!"


def test_a_fix_that_does_not_mend_is_taken_back():
    made = fix_text("one two", "a", lambda text: [fault(text, 0, 3, "uno" if text.startswith("one") else "one")])
    assert (made.text, made.done) == ("one two", ())


def test_a_name_that_is_no_better_is_taken_back():
    def check(text: str) -> list[Diagnostic]:
        span = Span(Source("a", text), 0, len(text))
        other = {"n": "ne", "ne": "neg", "neg": "ne"}[text]
        return [Diagnostic("A0201", f"the name `{text}` is not in scope", span, fixes=(Fix(f"replace by `{other}`", ((span, other),)),))]

    assert fix_text("n", "a", check).text == "n"


def test_a_guess_that_leads_astray_is_taken_back():
    """With the bracket that is offered, the rest of the line makes no sense, and nothing is known to mend that."""
    def check(text: str) -> list[Diagnostic]:
        return [syntax(text, 3, 3, ")")] if text == "f(x y" else [Diagnostic("A0101", "`y` cannot stand here", Span(Source("a", text), 5, 6))]

    assert fix_text("f(x y", "a", check).text == "f(x y"


def test_several_commas():
    text = "block A(d: int)(x: [..., d]) -> [..., d] {\n  return where(x > 0 x x * 2)\n}\n"
    assert "where(x > 0, x, x * 2)" in fix_text(text, "a.arch", lambda t: check_text(t, "a.arch")).text


def test_edits_of_other_files_are_left_alone():
    made = fix_text("one", "a", lambda text: [fault("one", 0, 3, "two", path="b")])
    assert (made.text, len(made.left)) == ("one", 1)


def test_a_fix_that_breaks_the_syntax_is_taken_back():
    def check(text: str) -> list[Diagnostic]:
        return [fault(text, 0, 1, "(")] if text == "x" else [Diagnostic("A0109", "not closed", Span(Source("a", text), 0, 1))]

    assert fix_text("x", "a", check).text == "x"


def syntax(text: str, start: int, end: int, new: str) -> Diagnostic:
    span = Span(Source("a", text), start, end)
    return Diagnostic("A0116", f"fault {start}", span, fixes=(Fix("do it", ((span, new),)),))


def test_a_fix_that_breaks_what_stands_above_is_taken_back():
    texts = {"f\nx": [(2, 3, ")")], "f\n)": [(0, 1, "g"), (2, 3, "y")]}
    made = fix_text("f\nx", "a", lambda text: [syntax(text, *f) for f in texts[text]])
    assert (made.text, made.done, len(made.left)) == ("f\nx", (), 1)


def test_fixes_that_bring_reading_no_further_are_taken_back():
    def check(text: str) -> list[Diagnostic]:
        return [syntax(text, i, i, ",") for i in range(len(text))]

    made = fix_text("xy", "a", check)
    assert (made.text, made.done, len(made.left)) == ("xy", (), 2)


def test_several_faults_of_a_line_are_mended_together():
    text = "model M(d: int = 8)(x: [B, 8]) -> y: [B, 8] {\n  k = [1 2 3 4]\n  if d = k[0] && d = 9 { x = rellu(x) + geluu(x) }\n  return x\n}\n"
    made = fix_text(text, "a.arch", lambda t: check_text(t, "a.arch"))
    assert made.left == [] and "[1, 2, 3, 4]" in made.text and "if d == k[0] and d == 9 { x = relu(x) + gelu(x) }" in made.text


def test_the_command(archdsl_folder, capsys):
    path = archdsl_folder / "a.arch"
    text = "use std.linear { Linear }\r\nblock A(d: int)(x: [..., d]) -> [..., d] {\r\n  return Linear(d, bais = false)(x) as l # é\r\n}\r\n"
    path.write_bytes(text.encode())
    path.chmod(0o640)
    from archdsl.cli.commands.check import check

    assert check(["a.arch"], fix=True) == 0
    assert capsys.readouterr().out == "1 file checked: no errors; 1 fix applied\n"
    assert path.read_bytes() == text.replace("bais", "bias").encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and os.listdir() == ["a.arch"]
    before = path.stat().st_mtime_ns
    assert check(["a.arch"], fix=True) == 0 and path.stat().st_mtime_ns == before


def test_a_file_that_cannot_be_written(archdsl_folder, capsys, monkeypatch):
    (archdsl_folder / "a.arch").write_text("block A(d: int)(x: [..., d]) -> [..., d] {\n  return rlu(x)\n}\n")
    from archdsl.cli.commands.check import check

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert check(["a.arch"], fix=True) == 1
    assert "A0627" in capsys.readouterr().out
    assert os.listdir() == ["a.arch"] and "rlu" in (archdsl_folder / "a.arch").read_text()


@pytest.fixture
def archdsl_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
