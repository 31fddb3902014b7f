"""Colours: every shipped text is read without an error, and both grammars know the words of the language."""
from __future__ import annotations

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("pygments")
from pygments.token import Comment, Error, Keyword, Name, Number, String

from archdsl import highlight
from archdsl.elaborate.walk_headers import TYPES
from archdsl.syntax import table as tables
from archdsl.syntax.lexer import RESERVED, STARTERS

ROOT = Path(__file__).parent.parent
CODE = ROOT / "editors/vscode"
TEXTS = sorted([*(ROOT / "specs").rglob("*.arch"), *(ROOT / "stdlib").rglob("*.arch")])
FUNCTIONS = {"floordiv", "ceildiv", "mod", "min", "max", "rearrange", "under", "reduce", "einsum", "layout"}  # coloured as what is called
WORDS = {*highlight.DECLARE, *highlight.MODIFY, *highlight.STATEMENTS, *highlight.FLOW, *highlight.CLAUSES, *highlight.LOGIC, *highlight.CONSTANTS}


def tokens(text: str) -> list[tuple[object, str]]:
    return [(kind, word) for kind, word in highlight.ArchLexer().get_tokens(text) if word.strip()]


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.stem)
def test_shipped_texts(path):
    text = path.read_text(encoding="utf-8")
    found = list(highlight.ArchLexer(stripnl=False).get_tokens(text))
    assert "".join(word for _, word in found) == text
    assert [word for kind, word in found if kind is Error] == []


def test_what_words_are():
    text = 'use std.norm { Norm }\nblock Net(d: int = 8_000)(x: [..., d]) -> [..., d] {  # note\n  return Linear(d, bias = false)(x) as out\n}\n'
    found = {word: kind for kind, word in tokens(text)}
    assert found["use"] is Keyword.Namespace and found["std.norm"] is Name.Namespace
    assert found["block"] is Keyword.Declaration and found["Net"] is Name.Class and found["int"] is Keyword.Type
    assert found["8_000"] is Number and found["# note"] is Comment.Single and found["return"] is Keyword
    assert found["Linear"] is Name.Class and found["bias"] is Name.Attribute and found["false"] is Keyword.Constant and found["out"] is Name.Label
    assert (String.Interpol, "{d}") in tokens('require d > 2, "not {d}"') and (Error, "\n") in list(highlight.ArchLexer().get_tokens('x = "a\n'))
    assert (Name, "share") in tokens("y = share + 1"), "a word that may be a name is one"
    assert (Name.Label, "layers") in tokens("layers: for i in range(2) { x = relu(x) }")


def test_words_are_those_of_the_grammar():
    grammar = (ROOT / "archdsl/syntax/grammar.lark").read_text(encoding="utf-8")
    written = set(re.findall(r'"([a-z]\w*)"', re.sub(r"(?m)//.*$", "", grammar)))
    assert written - WORDS == set() and not RESERVED - WORDS
    assert WORDS - written - RESERVED <= {"wrap", "variant"}
    assert set(highlight.TYPES) == TYPES


def test_words_are_those_of_the_lexer():
    """Every word that the parse table has a kind of its own for is coloured, in both."""
    kinds = tables.load().words
    lexed = {*kinds.word, *RESERVED, *STARTERS} - set(highlight.TYPES) - FUNCTIONS
    assert lexed and lexed - WORDS == set()


def test_the_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["pygments.lexers"]["archdsl"].partition(":")
    assert getattr(importlib.import_module(module), name) is highlight.ArchLexer
    assert "*.arch" in highlight.ArchLexer.filenames


def test_textmate_grammar_has_the_same_words():
    grammar = json.loads((CODE / "syntaxes/archdsl.tmLanguage.json").read_text(encoding="utf-8"))
    rules = [rule for group in grammar["repository"].values() for rule in group.get("patterns", [])]
    text = " ".join(rule["match"] for rule in rules)
    assert WORDS | set(highlight.TYPES) <= set(re.findall(r"[a-z]\w*", text.replace("\\b", " ")))
    for rule in rules:
        re.compile(rule["match"])
    assert {i["include"][1:] for i in grammar["patterns"]} == set(grammar["repository"])


def test_the_extension_is_whole():
    package = json.loads((CODE / "package.json").read_text(encoding="utf-8"))
    locked = json.loads((CODE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert locked[""]["dependencies"] == package["dependencies"] and all(f"node_modules/{name}" in locked for name in package["dependencies"])
    files = [package["main"], *(g["path"] for g in package["contributes"]["grammars"]),
             *(entry["configuration"] for entry in package["contributes"]["languages"])]
    assert all((CODE / file).is_file() for file in files)
    json.loads((CODE / "language-configuration.json").read_text(encoding="utf-8"))
