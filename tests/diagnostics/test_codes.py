"""Codes that are explained are raised, and two that no single text can raise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import archdsl
from archdsl.diagnostics.codes import all_codes
from archdsl.diagnostics.model import ArchError
from archdsl.spec import check_file, load

SOURCE = Path(archdsl.__file__).parent


def raised() -> dict[str, str]:
    """Codes that stand in the source outside of the pages (whose keys are followed by `: Code(`), with a file that has them."""
    found: dict[str, str] = {}
    for path in SOURCE.rglob("*.py"):
        for code in re.findall(r'"(A0\d{3})"(?!: Code\()', path.read_text(encoding="utf-8")):
            found.setdefault(code, path.name)
    return found


def test_every_page_is_of_a_code_that_is_raised():
    assert set(all_codes()) - set(raised()) == set()


def test_a_file_without_a_model(tmp_path):
    path = tmp_path / "parts.arch"
    path.write_text("fn half(n: int) -> int { return n // 2 }\n")
    assert check_file(str(path)) == []
    with pytest.raises(ArchError) as fault:
        load(path)
    assert fault.value.diagnostics[0].code == "A0606"


def test_a_module_outside_of_the_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.arch").write_text("fn half(n: int) -> int { return n // 2 }\n")
    (tmp_path / "inside/secret.arch").symlink_to(tmp_path / "secret.arch")
    (tmp_path / "inside/a.arch").write_text("use secret { half }\n")
    assert [d.code for d in check_file(str(tmp_path / "inside/a.arch"))] == ["A0603"]
