"""A shipped spec as the planters see it: its text, its tree with the way down to each node, its tokens, the headers that it can call."""
from __future__ import annotations

import functools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from archdsl.modules import library_modules, library_tree
from archdsl.ops.registry import OPS, load
from archdsl.source import Source, Span
from archdsl.spec import shipped_files
from archdsl.syntax import table, tree
from archdsl.syntax.lexer import Token, lex
from archdsl.syntax.parser import parse

Edit = tuple[int, int, str]
CALLED = (tree.Block, tree.Record, tree.Fn)


@dataclass(frozen=True)
class Planting:
    """Edits of a sound text that make one fault. `places`: where a message may point, as spans of the sound text (an edited span stands for its new
    text). `exact`: the sound text follows from the faulty one; else any program that checks and differs at the fault alone is a right one.
    `maybe`: whether it is a fault at all has to be asked of the elaborated program; else it is one by the rules of the language."""

    edits: tuple[Edit, ...]
    places: tuple[tuple[int, int], ...] = ()
    exact: bool = True
    maybe: bool = False


@dataclass(frozen=True)
class Fault:
    kind: str
    style: str
    path: str
    before: str
    text: str
    places: tuple[tuple[int, int], ...]  # of `text`
    edits: tuple[Edit, ...]  # of `before`
    exact: bool = True
    drawn: int = 1  # plantings until one was a fault

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


@dataclass
class Text:
    """`nodes`: every node with its ancestors, outermost first, in the order of the text; without what stands in a claim's `fails(…)`, where a mistake
    may be meant."""

    path: str
    text: str
    module: tree.Module = field(init=False)
    nodes: list[tuple[Any, tuple[Any, ...]]] = field(init=False)
    tokens: list[Token] = field(init=False)

    def __post_init__(self) -> None:
        self.module = parse(Source(self.path, self.text))
        self.nodes = list(_walk(self.module, ()))
        self.tokens = lex(self.text, table.load().words).tokens[:-1]
        self.words = {t[1] for t in self.tokens if t[1][:1].isalpha() or t[1][:1] == "_"}

    @functools.cached_property
    def headers(self) -> dict[str, Any]:
        """Blocks, records and functions that a call in this file may name."""
        known = {d.name: d for m in library_modules() for d in library_tree(m).decls if isinstance(d, CALLED)}
        imported = {n.alias or n.name: known[n.name] for d in self.module.decls if isinstance(d, tree.Use) for n in d.names if n.name in known}
        return imported | {d.name: d for d in self.module.decls if isinstance(d, CALLED)}

    def of(self, *kinds: type) -> list[tuple[Any, tuple[Any, ...]]]:
        return [(n, up) for n, up in self.nodes if isinstance(n, kinds)]

    def token_at(self, offset: int) -> int | None:
        """The index of the token that starts at an offset."""
        return next((i for i, t in enumerate(self.tokens) if t[2] == offset), None)

    def word_in(self, span: Span, word: str, after: int = 0) -> tuple[int, int] | None:
        """The first token of that text in a span."""
        return next(((t[2], t[3]) for t in self.tokens if t[1] == word and max(span.start, after) <= t[2] and t[3] <= span.end), None)

    def gap(self, i: int) -> tuple[int, int]:
        """From the start of the token before the i-th one to the end of the one behind it."""
        return self.tokens[max(i - 1, 0)][2], self.tokens[min(i + 1, len(self.tokens) - 1)][3]


def _walk(node: Any, up: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    yield node, up
    if isinstance(node, tree.Call) and isinstance(node.func, tree.Name) and node.func.id == "fails":
        return
    for child in tree.children(node):
        yield from _walk(child, (*up, node))


@functools.cache
def texts() -> tuple[Text, ...]:
    out = []
    for path in shipped_files():
        with open(path, encoding="utf-8") as file:
            out.append(Text(path, file.read()))
    return tuple(out)


def plant(kind: str, style: str, text: Text, planting: Planting) -> Fault:
    """The text with the edits made, and where the places are in it."""
    new = text.text
    for start, end, put in sorted(planting.edits, reverse=True):
        new = new[:start] + put + new[end:]
    places = planting.places or tuple((a, b) for a, b, _ in planting.edits)
    return Fault(kind, style, text.path, text.text, new, tuple((moved(a, planting.edits), moved(b, planting.edits, end=True)) for a, b in places),
                 planting.edits, planting.exact)


def moved(at: int, edits: tuple[Edit, ...], end: bool = False) -> int:
    """Where a place of the sound text is in the faulty one."""
    shift = sum(len(put) - (b - a) for a, b, put in edits if b < at or b == at and (end or a < b))
    return at + shift


def canonical(source: str, path: str) -> tree.Module | None:
    """The tree of a text with its imports in one order; None where it cannot be read. Layout and comments do not count."""
    try:
        module = parse(Source(path, source))
    except Exception:
        return None
    uses: dict[str, list[tree.UseName]] = {}
    for d in module.decls:
        if isinstance(d, tree.Use):
            uses.setdefault(d.module, []).extend(d.names)
    ordered = tuple(tree.Use(module.span, m, tuple(sorted(uses[m], key=lambda n: (n.name, n.alias or "")))) for m in sorted(uses))
    return replace_decls(module, (*ordered, *(d for d in module.decls if not isinstance(d, tree.Use))))


def replace_decls(module: tree.Module, decls: tuple[Any, ...]) -> tree.Module:
    return tree.Module(module.span, decls)


def misspell(word: str, rng: random.Random) -> str:
    """One slip of the fingers: a letter left out, doubled, exchanged with its neighbour, or the one beside it on the keyboard."""
    rows = ["qwertyuiop", "asdfghjkl", "zxcvbnm", "1234567890"]
    beside = {c: (row[max(i - 1, 0) : i] + row[i + 1 : i + 2]) for row in rows for i, c in enumerate(row)}
    letters = [i for i, c in enumerate(word) if c.isalnum()]
    i = rng.choice(letters)
    slip = rng.choice(["drop", "double", "swap", "beside"])
    if slip == "drop" and len(word) > 3:
        return word[:i] + word[i + 1 :]
    if slip == "double":
        return word[: i + 1] + word[i] + word[i + 1 :]
    if slip == "swap" and i + 1 < len(word) and word[i + 1] != word[i]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    new = rng.choice(beside.get(word[i].lower(), "x"))
    return word[:i] + (new.upper() if word[i].isupper() else new) + word[i + 1 :]


@functools.cache
def known_words() -> frozenset[str]:
    """Every word that some file may use without declaring it."""
    from archdsl.elaborate.library import names
    from archdsl.modules import library_exports

    load()
    return frozenset({*names(), *library_exports(), *OPS, *table.load().words.word})


__all__ = ["Fault", "Planting", "Text", "canonical", "known_words", "misspell", "moved", "plant", "replace", "texts"]
