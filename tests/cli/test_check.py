"""archdsl check on the command line: text, JSON, folders, exit codes."""
from __future__ import annotations

import json

GOOD = "block Id()(x: [B, d]) -> [B, d] {\n  return x\n}\n"
BAD = "block Bad()(x: [B, d]) -> [B, d] {\n  return y\n}\n"


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.arch").write_text(text)


def test_clean(archdsl, tmp_path):
    write(tmp_path, a=GOOD)
    assert archdsl("check", "a.arch").stdout == "1 file checked: no errors\n"
    assert archdsl("check", "a.arch", "--json").stdout == "[]\n"


def test_findings(archdsl, tmp_path, golden):
    write(tmp_path, a=GOOD, b=BAD)
    assert archdsl("check", ".", code=1).stdout == golden
    (d,) = json.loads(archdsl("check", ".", "--json", code=1).stdout)
    assert set(d) == {"code", "severity", "message", "path", "line", "column", "end_line", "end_column", "help", "notes"}
    assert (d["path"], d["line"], d["column"], d["end_line"], d["end_column"]) == ("./b.arch", 2, 10, 2, 11)


def test_a_file_given_twice_is_checked_once(archdsl, tmp_path):
    write(tmp_path, a=GOOD)
    assert archdsl("check", "a.arch", "./a.arch", ".").stdout == "1 file checked: no errors\n"


def test_unreadable_files_do_not_stop_the_others(archdsl, tmp_path):
    write(tmp_path, b=BAD)
    (tmp_path / "latin.arch").write_bytes(b"caf\xe9")
    found = json.loads(archdsl("check", "absent.arch", "latin.arch", "b.arch", "--json", code=1).stdout)
    assert [d["code"] for d in found[:2]] == ["A0621", "A0624"] and len(found) == 3


def test_plain_start_and_typer_agree(archdsl, tmp_path):
    write(tmp_path, b=BAD)
    assert archdsl("check", "b.arch", code=1).stdout == archdsl("check", "--", "b.arch", code=1).stdout


def test_no_color_on_a_pipe(archdsl, tmp_path):
    write(tmp_path, b=BAD)
    assert "\x1b" not in archdsl("check", "b.arch", code=1).stdout
