"""Documents that know where they may break, and their layout in a width. After Wadler's and prettier's printers.

A document is a string, a list of documents, or one of the classes below. A group is laid out on one line when it fits, else all its own
lines break. `hard` says that a document holds a break that cannot be avoided; it breaks every group around it.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(slots=True)
class Line:
    """A line break when the group is broken, `flat` otherwise."""

    flat: str | None  # None: always a break
    blank: bool = False  # an empty line before it

    @property
    def hard(self) -> bool:
        return self.flat is None


@dataclass(slots=True)
class Group:
    body: Doc
    broken: bool = False
    hard: bool = field(init=False)

    def __post_init__(self):
        self.hard = is_hard(self.body)
        self.broken = self.broken or self.hard


@dataclass(slots=True)
class Indent:
    body: Doc
    hard: bool = field(init=False)

    def __post_init__(self):
        self.hard = is_hard(self.body)


@dataclass(slots=True)
class IfBroken:
    """A text that stands only in a broken group, another one only in a flat one."""

    broken: str
    flat: str = ""
    hard: bool = False


@dataclass(slots=True)
class Comment:
    """A comment that ends the line on which it comes to stand."""

    text: str
    hard: bool = True


@dataclass(slots=True)
class Fill:
    """Items with breaks only where the line is full; an item must not hold a break itself."""

    items: list[str]
    hard: bool = False


Doc: TypeAlias = "str | list[Doc] | Line | Group | Indent | IfBroken | Comment | Fill"

LINE = Line(" ")
SOFT = Line("")
HARD = Line(None)
BLANK = Line(None, True)


def is_hard(doc: Doc) -> bool:
    if isinstance(doc, str):
        return False
    if isinstance(doc, list):
        return any(is_hard(d) for d in doc)
    return doc.hard


def join(separator: Doc, docs: list[Doc]) -> list[Doc]:
    """The documents with a separator between them."""
    out: list[Doc] = []
    for i, doc in enumerate(docs):
        if i:
            out.append(separator)
        out.append(doc)
    return out


def layout(doc: Doc, width: int = 120, step: int = 2) -> str:
    """The text of a document, with lines of at most `width` columns where it may break. Lines have no spaces at their ends."""
    out: list[str] = []
    comment = ""
    column = 0
    todo: list[tuple[int, bool, Doc]] = [(0, True, doc)]  # (indentation, broken, document), last first
    while todo:
        indent, broken, top = todo.pop()
        if isinstance(top, str):
            out.append(top)
            column += len(top)
        elif isinstance(top, list):
            todo.extend((indent, broken, d) for d in reversed(top))
        elif isinstance(top, Indent):
            todo.append((indent + step, broken, top.body))
        elif isinstance(top, Group):
            # what stands in a flat group fits: that was seen when the group was
            todo.append((indent, top.broken or broken and not _fits(top.body, width - column, todo), top.body))
        elif isinstance(top, IfBroken):
            todo.append((indent, broken, top.broken if broken else top.flat))
        elif isinstance(top, Comment):
            comment = top.text
        elif isinstance(top, Fill):
            todo.append((indent, True, _filled(top.items, width, indent, column)))
        elif top.flat is not None and not broken:
            out.append(top.flat)
            column += len(top.flat)
        else:
            _end_line(out, comment)
            comment = ""
            out.append("\n\n" if top.blank else "\n")
            out.append(" " * indent)
            column = indent
    _end_line(out, comment)
    return "".join(out)


def _end_line(out: list[str], comment: str) -> None:
    while out and not out[-1].strip(" "):
        out.pop()
    if out:
        out[-1] = out[-1].rstrip(" ")
    if comment:
        out.append(("" if not out or out[-1].endswith("\n") else "  ") + comment)


def _filled(items: list[str], width: int, indent: int, column: int) -> str:
    lines = [""]
    room = width - column
    for i, item in enumerate(items):
        piece = item + ("," if i < len(items) - 1 else "")
        if lines[-1] and len(lines[-1]) + 1 + len(piece) > room:
            lines.append(piece)
            room = width - indent
        else:
            lines[-1] += (" " if lines[-1] else "") + piece
    return ("\n" + " " * indent).join(lines)


def _fits(doc: Doc, room: int, rest: list[tuple[int, bool, Doc]]) -> bool:
    """Does a document fit flat, together with what follows it up to the next possible break?"""
    todo: list[tuple[bool, Doc]] = [(False, doc)]
    at = len(rest)
    while room >= 0:
        if not todo:
            if at == 0:
                return True
            at -= 1
            todo.append((rest[at][1], rest[at][2]))
            continue
        broken, top = todo.pop()
        if isinstance(top, str):
            room -= len(top)
        elif isinstance(top, list):
            todo.extend((broken, d) for d in reversed(top))
        elif isinstance(top, Indent):
            todo.append((broken, top.body))
        elif isinstance(top, Group):
            todo.append((broken and top.broken, top.body) if at == len(rest) else (broken, top.body))
        elif isinstance(top, IfBroken):
            room -= len(top.broken if broken else top.flat)
        elif isinstance(top, Fill):
            room -= sum(len(i) + 2 for i in top.items)
        elif isinstance(top, Line):
            if broken or top.flat is None:
                return True
            room -= len(top.flat)
    return False
