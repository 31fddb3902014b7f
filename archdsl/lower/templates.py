"""Classes to be as pieces of text: lines with their numbers apart, so that blocks that differ in numbers alone become one class with arguments."""
from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from archdsl.lower.plan import Definition

RESERVED = frozenset(keyword.kwlist) | frozenset(dir(nn.Module)) | {"self", "torch", "F", "nn", "math", "Tensor", "x", "_"}


@dataclass(frozen=True)
class Number:
    """A number in the text that may become an argument. `hint`: a name for it; `written`: the spec gives it that name."""

    value: int | float
    hint: str = ""
    written: bool = False


@dataclass(frozen=True)
class Made:
    """`Class(arguments)`: an instance of the class that a template belongs to, with all its numbers."""

    template: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Repeated:
    """A ModuleList of such instances, or with a `key` of ModuleDicts that hold one each."""

    items: tuple[Made, ...]
    key: str = ""


Piece = str | Number | Made | Repeated


@dataclass
class Template:
    """A class: the pieces of `__init__` and `forward`. `key`: the pieces without their numbers. `members`: the numbers of each definition."""

    definition: Definition
    setup: list[list[Piece]]
    forward: list[list[Piece]]
    inputs: list[str]
    key: str = ""
    members: list[tuple[Number, ...]] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    name: str = ""
    arguments: dict[str, list[int]] = field(default_factory=dict)

    def numbers(self) -> tuple[Number, ...]:
        return tuple(n for line in (*self.setup, *self.forward) for piece in line for n in numbers(piece))


def numbers(piece: Piece) -> Iterator[Number]:
    if isinstance(piece, Number):
        yield piece
    elif isinstance(piece, Made):
        yield from piece.numbers
    elif isinstance(piece, Repeated):
        for made in piece.items:
            yield from made.numbers


def blank(piece: Piece) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, Number):
        return f"<{type(piece.value).__name__}>"
    if isinstance(piece, Made):
        return f"<{piece.template}>"
    return f"<{','.join(m.template for m in piece.items)}>"


# ---------------------------------------------------------------- names of classes
def uses(templates: dict[str, Template]) -> dict[str, list[tuple[str, str]]]:
    """Key of a template -> (block, attribute) of each line that makes an instance."""
    found: dict[str, list[tuple[str, str]]] = {}
    for t in templates.values():
        for line in t.setup:
            target = re.search(r"(\w+)\W*= $", line[0]) if isinstance(line[0], str) else None
            for piece in line[1:] if target else ():
                for made in (piece,) if isinstance(piece, Made) else piece.items if isinstance(piece, Repeated) else ():
                    found.setdefault(made.template, []).append((t.definition.name, target[1] if target else ""))
    return found


def telling_names(base: str, places: list[tuple[str, str]]) -> Iterator[str]:
    """Names for one of several classes of a block, by where it is used: `LinearHead`, `MLPLinear`. Items of a list called after them have none."""
    attributes, owners = {a for _, a in places}, {o for o, _ in places}
    words = [w for w in next(iter(attributes)).split("_") if w and not w.isdigit()] if len(attributes) == 1 else []
    if any(w.lower() in (base.lower(), f"{base.lower()}s") for a in attributes for w in a.split("_")):
        return
    own = [w for w in words if not _within(w.lower(), base.lower())]
    if own:
        yield base + "".join(w[:1].upper() + w[1:] for w in own)
    if len(owners) == 1 and base not in (owner := next(iter(owners))):
        yield f"{owner}{base}"


def _within(word: str, name: str) -> bool:
    """Whether a word is a name or short for it: `attn` for attention."""
    letters = iter(name)
    return all(c in letters for c in word)


def by_children(base: str, t: Template) -> Iterator[str]:
    """A name by the one block that a class holds: `PreAttentionLayer`."""
    if len(t.definition.children) == 1 and not t.definition.graph.params:
        yield next(iter(t.definition.children.values())).name + base


def by_weights(base: str, first: Template, t: Template) -> Iterator[str]:
    """A name by the one weight that a class has beside those of the first of its block, or lacks: `LinearWithBias`."""
    one, other = ({p.path for p in s.definition.graph.params} for s in (first, t))
    for word, left in (("With", other - one), ("Without", one - other)):
        if len(left) == len(one ^ other) == 1:
            yield base + word + "".join(w.capitalize() for w in re.split(r"[._]", next(iter(left))))


# ---------------------------------------------------------------- arguments
def find_arguments(t: Template, root: bool) -> None:
    """Numbers that are not the same in all members become arguments, and so does what the spec names, but for the model's own class. Numbers that
    always agree become one, unless the block itself calls them differently."""
    pieces = [piece for line in (*t.setup, *t.forward) for piece in line]
    own = {i for i, piece in enumerate(p for p in pieces for _ in numbers(p)) if isinstance(piece, Number)}
    first = t.members[0]
    columns = [tuple((type(m[i].value), m[i].value) for m in t.members) for i in range(len(first))]
    groups: dict[tuple[Any, str], list[int]] = {}
    for i in sorted(range(len(columns)), key=lambda i: not (i in own and first[i].hint)):
        named, column = i in own and first[i].hint, columns[i]
        if all(v == column[0] for v in column) and (root or not (named and first[i].written)):
            continue
        same = None if named else next((key for key in groups if key[0] == column), None)
        groups.setdefault(same or (column, named or ""), []).append(i)
    _join_widths(groups, columns, first, own)
    fixed = {str(n.attrs.get("name")) for n in t.definition.graph.nodes if n.op == "input"} | RESERVED
    fixed |= {p.path.split(".")[0] for p in t.definition.graph.params} | {path.split(".")[0] for path in t.definition.graph.children}
    taken = set(fixed)
    for where in sorted(map(sorted, groups.values())):
        hint = _hint(t, where, own)
        base = name = hint if hint not in fixed else f"{hint}_size"
        k = 2
        while name in taken:
            name, k = f"{base}{k}", k + 1
        taken.add(name)
        t.arguments[name] = where


def _join_widths(groups: dict[tuple[Any, str], list[int]], columns: list[Any], first: tuple[Number, ...], own: set[int]) -> None:
    """The sizes of blocks inside that are the width of this one take the argument that says it, also where it never varies."""
    taken = {i for where in groups.values() for i in where}
    for (column, named), where in groups.items():
        if named in WIDTHS and any(i in own for i in where):
            where += [i for i, c in enumerate(columns) if i not in taken and i not in own and c == column and first[i].hint in SIZES]


WIDTHS = frozenset(("d", "c"))
"""What blocks call the width of their input."""
SIZES = frozenset(("d", "c", "i", "out", "c_per_group"))
"""What blocks call sizes of their weights."""


def _hint(t: Template, where: list[int], own: set[int]) -> str:
    """A name for equal numbers: what the block itself calls them, else what the blocks inside do. Of linear maps inside, `out` and `i` say little
    about the block around them: what one gives and a later one takes is hidden, what one takes first is the width."""
    hints = [(i, h) for i in where if (h := t.members[0][i].hint)]
    said = [h for i, h in hints if i in own] or [h for _, h in hints if h not in ("out", "i")]
    if said or not hints:
        return said[0] if said else "n"
    if len({h for _, h in hints}) == 1:
        return hints[0][1]
    (first, name), (second, _) = hints[:2]
    return "hidden" if name == "out" and second > first + 1 else "width"


def kind_of(t: Template, columns: list[int]) -> str:
    return type(t.members[0][columns[0]].value).__name__


def kept(t: Template, names: dict[int, str]) -> list[str]:
    """Arguments that `forward` reads."""
    before = sum(1 for line in t.setup for piece in line for _ in numbers(piece))
    return [name for name, columns in t.arguments.items() if any(i >= before for i in columns)]


# ---------------------------------------------------------------- lines
def split(text: str) -> list[Piece]:
    """A line with its numbers apart. `\x00name\x00` before a number is a hint; else the keyword that it is given to is."""
    pieces: list[Piece] = []
    at = 0
    for token, before in _number_tokens(text):
        pieces.append(text[at:token.start])
        pieces.append(Number(_value(token.text), before))
        at = token.end
    pieces.append(text[at:])
    return _hinted(pieces)


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


def _number_tokens(text: str) -> Iterator[tuple[_Token, str]]:
    lines = text.replace("\x00", "\x01").split("\n")
    starts = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    clean = re.sub(r"\x01[^\x01]*\x01", lambda m: " " * len(m[0]), "\n".join(lines))
    last: list[str] = ["", ""]
    for t in tokenize.generate_tokens(io.StringIO(clean).readline):
        if t.type == tokenize.NUMBER:
            start = starts[t.start[0] - 1] + t.start[1]
            yield _Token(t.string, start, start + len(t.string)), last[0] if last[1] == "=" and last[0].isidentifier() else ""
        last = [last[1], t.string]


def _hinted(pieces: list[Piece]) -> list[Piece]:
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and (found := re.search(r"\x00([^\x00]*)\x00$", piece)):
            out += [piece[:found.start()], found[1]]
            continue
        if isinstance(piece, Number) and out and isinstance(out[-1], str) and len(out) > 1 and isinstance(out[-2], str):
            name = str(out.pop())
            piece = Number(piece.value, name or piece.hint, bool(name))
        out.append(piece)
    return [p for p in out if p != ""]


def _value(text: str) -> int | float:
    return float(text) if any(c in text for c in ".eE") else int(text)
