"""The LALR(1) table of the language: compiled by lark (compile.py), stored in table.bin, read without lark."""
from __future__ import annotations

import os
import zlib
from operator import itemgetter
from typing import Any

from archdsl.syntax.build import METHOD, Builder
from archdsl.syntax.lexer import Words

try:
    from _pickle import loads  # pickle gives the same function, and takes as long to import as the table to load
except ImportError:
    from pickle import loads

HERE = os.path.dirname(os.path.abspath(__file__))
GRAMMAR, STORED = os.path.join(HERE, "grammar.lark"), os.path.join(HERE, "table.bin")
STARTS = ("start", "signature", "expression", "selection", "step", "override")

# How the values of a rule's symbols become the value of the rule.
PASS, BUILD, PICK, FLATTEN, LIST, GROW = range(6)


class Table:
    """`actions[state][terminal]` is a state to shift to, or ~rule to reduce by; `goto[state][rule]` the state after a reduction.

    `symbol[state]` is what was read last to come into a state, `owners[state]` the rules that may be under way there.
    """

    def __init__(self, data: dict[str, Any]):
        self.terminals: list[str] = data["terminals"]
        self.rules: list[tuple[int, int, int, Any, str]] = data["rules"]  # (length, left side, how, which, builder's method)
        rows: list[dict[int, int]] = data["rows"]
        self.actions: list[dict[int, int]] = [rows[i] for i in data["actions"]]
        self.goto: list[dict[int, int]] = data["goto"]
        self.start: dict[str, int] = data["start"]
        self.end: dict[str, int] = data["end"]
        self.symbol: list[str] = data["symbol"]
        self.owners: list[tuple[tuple[str, int], ...]] = data["owners"]
        self.grammar: str = data["grammar"]
        self.words = Words(self.terminals, data["texts"])
        self.ids = self.words.ids
        self.texts: dict[str, str] = data["texts"]
        # For each rule what builds its value, with the builder in front; None where values only pass through.
        self.methods: list[Any] = [getattr(Builder, METHOD.get(name, name)) if name else None for _, _, _, _, name in self.rules]

    def value_of(self, rule: int, parts: list[Any], builder: Builder, start: int, end: int) -> Any:
        """The value of a rule from those of its symbols; the parser's loop has the same in line."""
        how, which = self.rules[rule][2:4]
        if how == PASS:
            return parts[which]
        if how == BUILD:
            return self.methods[rule](builder, parts, start, end)
        if how == PICK:
            return self.methods[rule](builder, which([*parts, None]), start, end)
        value: list[Any] = []
        for i, inline in which:
            value += parts[i] if inline else [None if i < 0 else parts[i]]
        return self.methods[rule](builder, value, start, end) if how == FLATTEN else value



_loaded: Table | None = None


def load() -> Table:
    """The table of the language, read once."""
    global _loaded
    if _loaded is None:
        with open(STORED, "rb") as file:
            data = loads(zlib.decompress(file.read()))
        data["rules"] = [(n, left, how, itemgetter(*which) if how == PICK else which, name) for n, left, how, which, name in data["rules"]]
        _loaded = Table(data)
    return _loaded
