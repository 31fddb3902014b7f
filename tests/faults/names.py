"""Misspelt names, unknown variants, missing imports. That a word is declared nowhere decides that it is a fault."""
from __future__ import annotations

import random

from archdsl.syntax import tree

from .text import Planting, Text, known_words, misspell

SHORTEST = 3  # letters of a name that is misspelt: of one or two, nobody could tell which was meant


def _wrong(text: Text, word: str, at: tuple[int, int] | None, rng: random.Random) -> Planting | None:
    """The word at a place misspelt, unless the result is a word that means something."""
    if at is None or len(word) < SHORTEST:
        return None
    new = misspell(word, rng)
    if new == word or not new.isidentifier() or new in text.words or new in known_words():
        return None
    return Planting(((*at, new),))


def value_name(text: Text, rng: random.Random) -> Planting | None:
    """A name that is read: variables, arguments, blocks, ops, functions."""
    node, _ = rng.choice([(n, up) for n, up in text.of(tree.Name)
                          if len(n.id) >= SHORTEST and not any(isinstance(p, (tree.MatchArm, tree.Paper, tree.Claim, tree.NameLine)) for p in up)])
    return _wrong(text, node.id, (node.span.start, node.span.end), rng)


def argument_name(text: Text, rng: random.Random) -> Planting | None:
    """The name in front of an argument."""
    found = [n for n, up in text.of(tree.Arg) if n.name and n.name_span and not any(isinstance(p, (tree.LayoutCall, tree.Claim)) for p in up)]
    node = rng.choice(found)
    return _wrong(text, node.name, (node.name_span.start, node.name_span.end), rng)


def setting_name(text: Text, rng: random.Random) -> Planting | None:
    """A knob in a variant."""
    found = [n for n, up in text.of(tree.Setting) if isinstance(up[-1], tree.Variant)]
    if not found:
        return None
    node = rng.choice(found)
    words = [t for t in text.tokens if node.address_span.start <= t[2] < node.address_span.end and t[1].isidentifier()]
    token = rng.choice(words)
    return _wrong(text, token[1], (token[2], token[3]), rng)


def imported_name(text: Text, rng: random.Random) -> Planting | None:
    """A name in a `use`."""
    node = rng.choice([n for n, _ in text.of(tree.UseName)])
    return _wrong(text, node.name, (node.span.start, node.span.start + len(node.name)), rng)


def module_name(text: Text, rng: random.Random) -> Planting | None:
    """The last part of a module's name in a `use`."""
    node = rng.choice([n for n, _ in text.of(tree.Use)])
    last = node.module.rsplit(".", 1)[-1]
    return _wrong(text, last, text.word_in(node.span, last), rng)


def type_name(text: Text, rng: random.Random) -> Planting | None:
    """The type of an argument."""
    node = rng.choice([n for n, _ in text.of(tree.NameType)])
    return _wrong(text, node.name, (node.span.start, node.span.end), rng)


def claim_name(text: Text, rng: random.Random) -> Planting | None:
    """A word of a claim, or what it speaks of."""
    found = [n for n, up in text.of(tree.Name) if any(isinstance(p, tree.Claim) for p in up) and len(n.id) >= SHORTEST
             and not _of_variant(up)]
    if not found:
        return None
    node = rng.choice(found)
    return _wrong(text, node.id, (node.span.start, node.span.end), rng)


def address_name(text: Text, rng: random.Random) -> Planting | None:
    """A segment of an address in `names`."""
    found = [n for n, _ in text.of(tree.NameLine) if n.address]
    if not found:
        return None
    node = rng.choice(found)
    middle = next((t[2] for t in text.tokens if t[1] == "<->" and node.span.start <= t[2] < node.span.end), node.span.end)
    words = [t for t in text.tokens if middle < t[2] < node.span.end and t[1].isidentifier() and t[1] in node.address]
    if not words:
        return None
    token = rng.choice(words)
    return _wrong(text, token[1], (token[2], token[3]), rng)


def keyword(text: Text, rng: random.Random) -> Planting | None:
    """A word that starts a statement or a declaration."""
    starts = {n.span.start for n, up in text.nodes if isinstance(n, (tree.Decl, tree.Statement)) and not isinstance(n, (tree.Assign, tree.Module))}
    token = rng.choice([t for t in text.tokens if t[2] in starts and t[1] in known_words()])
    return _wrong(text, token[1], (token[2], token[3]), rng)


# ---------------------------------------------------------------- variants
def _of_variant(up: tuple[object, ...]) -> bool:
    return any(isinstance(p, tree.Call) and isinstance(p.func, tree.Name) and p.func.id in ("equal", "interchangeable") for p in up)


def base(text: Text, rng: random.Random) -> Planting | None:
    found = [n for n, _ in text.of(tree.Variant) if n.base]
    if not found:
        return None
    node = rng.choice(found)
    return _wrong(text, node.base, text.word_in(node.span, node.base, node.name_span.end), rng)


def target(text: Text, rng: random.Random) -> Planting | None:
    found = [n for n, _ in text.of(tree.Claim) if n.target and "." not in n.target]
    if not found:
        return None
    node = rng.choice(found)
    return _wrong(text, node.target, text.word_in(node.span, node.target), rng)


def compared(text: Text, rng: random.Random) -> Planting | None:
    found = [n for n, up in text.of(tree.Name) if _of_variant(up) and n.id not in ("equal", "interchangeable")]
    if not found:
        return None
    node = rng.choice(found)
    return _wrong(text, node.id, (node.span.start, node.span.end), rng)


def mapped_model(text: Text, rng: random.Random) -> Planting | None:
    """The model that a `names` or a `space` is of."""
    found = [n for n, _ in text.of(tree.Names, tree.Space)]
    if not found:
        return None
    node = rng.choice(found)
    model = node.model if isinstance(node, tree.Space) else rng.choice(node.models)
    return _wrong(text, model, text.word_in(node.span, model), rng)


# ---------------------------------------------------------------- imports
def left_out(text: Text, rng: random.Random) -> Planting | None:
    """One name of several in a `use`."""
    found = [(n, i) for n, _ in text.of(tree.Use) if len(n.names) > 1 for i in range(len(n.names))]
    if not found:
        return None
    node, i = rng.choice(found)
    one = node.names[i]
    start, end = (one.span.start, node.names[i + 1].span.start) if i + 1 < len(node.names) else (node.names[i - 1].span.end, one.span.end)
    return _without(text, one.alias or one.name, (start, end, ""))


def line_left_out(text: Text, rng: random.Random) -> Planting | None:
    """A whole `use` of one name."""
    found = [n for n, _ in text.of(tree.Use) if len(n.names) == 1]
    if not found:
        return None
    node = rng.choice(found)
    end = node.span.end + (text.text[node.span.end : node.span.end + 1] == "\n")
    return _without(text, node.names[0].alias or node.names[0].name, (node.span.start, end, ""))


def _without(text: Text, name: str, edit: tuple[int, int, str]) -> Planting | None:
    """Without an import: any place that reads the name is a faulty one."""
    uses = tuple((t[2], t[3]) for t in text.tokens if t[1] == name and not edit[0] <= t[2] < edit[1])
    return Planting((edit,), uses, maybe=True) if uses else None  # claims may speak of blocks that are not imported


NAMES = {s.__name__: s for s in (value_name, argument_name, setting_name, imported_name, module_name, type_name, claim_name, address_name, keyword)}
VARIANTS = {s.__name__: s for s in (base, target, compared, mapped_model)}
IMPORTS = {s.__name__: s for s in (left_out, line_left_out)}
