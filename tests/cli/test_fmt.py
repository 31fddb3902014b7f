"""archdsl fmt: what it changes, what it only reports, and that nothing is lost on the way."""
from __future__ import annotations

import os
import stat

UGLY = "block  Id( )(x:[B,d])->[B,d]{return x}   # kept\n"
BROKEN = "block Id( (x: [B, d])"


def test_check_changes_nothing(archdsl, tmp_path):
    (tmp_path / "a.arch").write_text(UGLY)
    done = archdsl("fmt", "--check", "a.arch", code=1)
    assert done.stdout == "a.arch\n" and "1 file: 1 not formatted" in done.stderr
    assert (tmp_path / "a.arch").read_text() == UGLY


def test_formats_once(archdsl, tmp_path):
    path = tmp_path / "a.arch"
    path.write_text(UGLY)
    path.chmod(0o640)
    assert archdsl("fmt", "a.arch").stdout == "a.arch\n"
    text = path.read_text()
    assert text != UGLY and "# kept" in text and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert archdsl("fmt", "a.arch").stdout == "" and path.read_text() == text
    assert archdsl("fmt", "a.arch", "--check").stderr == "1 file: all formatted\n"
    assert archdsl("fmt", "a.arch").stderr == "1 file: none changed\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.arch"]


def test_folders_and_faults(archdsl, tmp_path):
    """A file that cannot be parsed is reported and left; the others are formatted all the same."""
    for name, text in (("a/ugly.arch", UGLY), ("a/broken.arch", BROKEN)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = archdsl("fmt", "a", code=1)
    assert done.stdout == os.path.join("a", "ugly.arch") + "\n" and "error[A01" in done.stderr
    assert done.stderr.endswith("2 files: 1 changed, 1 cannot be formatted\n")
    for flags in ((), ("--check",)):
        assert archdsl("fmt", *flags, "a/broken.arch", code=1).stderr.endswith("\n1 file: 1 cannot be formatted\n")
    assert (tmp_path / "a/broken.arch").read_text() == BROKEN
    assert "A0621" in archdsl("fmt", "absent.arch", code=1).stderr


def test_plain_start_and_typer_agree(archdsl, tmp_path):
    """`fmt --check PATH` starts without typer, `fmt --check -- PATH` with it."""
    (tmp_path / "a.arch").write_text(UGLY)
    plain, full = archdsl("fmt", "--check", "a.arch", code=1), archdsl("fmt", "--check", "--", "a.arch", code=1)
    assert (plain.stdout, plain.stderr) == (full.stdout, full.stderr)
