"""The stored parse table and the cost of loading it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from archdsl.syntax import table
from archdsl.syntax.compile import compile_grammar
from archdsl.syntax.lexer import RESERVED


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
