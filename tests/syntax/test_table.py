"""The stored parse table, the cost of loading it, and the cache of trees."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from archdsl.source import Source
from archdsl.syntax import cache, table
from archdsl.syntax.compile import compile_grammar
from archdsl.syntax.lexer import RESERVED
from archdsl.syntax.parser import parse, parse_cached

LIBRARY = Path(table.HERE).parent / "stdlib"


def test_the_grammar_has_no_conflict_and_the_stored_table_is_fresh():
    """lark's strict mode refuses shift/reduce and reduce/reduce conflicts. `python -m archdsl.syntax.compile` renews the table."""
    data = compile_grammar(Path(table.GRAMMAR).read_text(encoding="utf-8"))
    stored = pickle.loads(zlib.decompress(Path(table.STORED).read_bytes()))
    assert stored == data, "run python -m archdsl.syntax.compile"


def test_conflicts_are_refused():
    from lark.exceptions import GrammarError

    grammar = Path(table.GRAMMAR).read_text(encoding="utf-8")
    with pytest.raises(GrammarError, match="Shift/Reduce"):
        compile_grammar(
            grammar.replace("?sum: unary\n    | unary _arith_rest+", "?sum: unary\n    | sum PLUS sum -> arith\n    | unary _arith_rest+")
        )


def test_words():
    words = table.load().words
    assert set(words.reserved) == RESERVED
    assert all(kind in words.fallback for text, kind in words.word.items() if text not in RESERVED), "every other word may be a name"


def test_parsing_loads_neither_lark_nor_torch():
    code = (
        "import sys; from archdsl.source import Source; from archdsl.syntax.parser import parse; parse(Source('x', 'use a')); "
        "print([m for m in ('lark', 'torch', 'pydantic', 'typer', 'archdsl.syntax.errors') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.folder.cache_clear()
    yield tmp_path / "archdsl"
    cache.folder.cache_clear()


def library_source() -> Source:
    path = LIBRARY / "std" / "norm.arch" if (LIBRARY / "std" / "norm.arch").exists() else next(LIBRARY.rglob("*.arch"))
    return Source(str(path), path.read_text(encoding="utf-8"), "std.norm")


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tree")) if folder.exists() else []


def test_trees_of_the_library_are_kept(folder, monkeypatch):
    source = library_source()
    first = parse_cached(source)
    assert len(entries(folder)) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("archdsl.syntax.parser.parse", lambda source: pytest.fail("parsed again"))
    again = parse_cached(source)
    assert again == first
    assert again is not first
    assert again.decls[0].span.source is source
    assert [c.text for c in again.comments] == [c.text for c in first.comments]


def test_other_files_are_not_kept(folder, tmp_path):
    path = tmp_path / "mine.arch"
    path.write_text("use a\n")
    assert parse_cached(Source(str(path), "use a\n")) == parse(Source("x", "use a\n"))
    assert entries(folder) == []


def test_a_changed_text_is_parsed_anew(folder):
    source = library_source()
    parse_cached(source)
    changed = Source(source.path, source.text + "\nuse std.added\n", source.module)
    assert parse_cached(changed).decls[-1] == parse(Source("x", "use std.added")).decls[0]
    assert parse_cached(source) == parse(source)


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x80\x05", None])
def test_damaged_entries_are_ignored(folder, damage):
    source = library_source()
    expected = parse_cached(source)
    (entry,) = entries(folder)
    data = entry.read_bytes()
    head = data.split(b"\n", 1)[0] + b"\n"
    entry.write_bytes(data[: len(data) // 2] if damage is None else head + damage)
    assert parse_cached(source) == expected
    assert entry.read_bytes() == data


def test_an_unusable_folder_is_no_fault(folder, monkeypatch):
    folder.parent.joinpath("archdsl").write_text("a file stands in the way")
    assert parse_cached(library_source()).decls
    cache.folder.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert parse_cached(library_source()).decls


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_that_others_may_write_is_not_used(folder):
    folder.mkdir()
    folder.chmod(0o777)
    assert parse_cached(library_source()).decls
    assert entries(folder) == []
