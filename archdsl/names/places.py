"""Where the parts of a `names` block stand in its text, and how messages list them."""
from __future__ import annotations

from collections import defaultdict

from archdsl.names.patterns import outline
from archdsl.source import Span
from archdsl.syntax import tree


def header(decl: tree.Names) -> Span:
    """`names timm of ViT`"""
    text = decl.span.text.split("{", 1)[0].rstrip()
    return Span(decl.span.source, decl.span.start, decl.span.start + len(text))


def quoted(line: tree.NameLine) -> Span:
    """The string of a line, with its quotes."""
    text = line.span.text
    start = text.index('"')
    at = start + 1
    while text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return Span(line.span.source, line.span.start + start, line.span.start + at + 1)


def addressed(line: tree.NameLine) -> Span:
    """The address of a line."""
    assert line.address is not None
    after = quoted(line).end
    text = line.span.source.text
    start = text.index("<->", after) + 3
    while text[start].isspace():
        start += 1
    end, left = start, len(line.address)
    while left and end < line.span.end:  # spaces inside braces are no part of the address's text
        left -= not text[end].isspace()
        end += 1
    return Span(line.span.source, start, end)


def condensed(addresses: list[str], most: int = 10) -> list[str]:
    """One row for addresses that differ in numbers only: an example and how many there are."""
    rows: dict[str, list[str]] = defaultdict(list)
    for a in addresses:
        rows[outline(a)].append(a)
    out = [f"{same[0]}{f' and {len(same) - 1:,} like it' if len(same) > 1 else ''}" for same in rows.values()]
    return out if len(out) <= most else [*out[:most], f"… and {len(out) - most:,} more kinds"]


def count(items: list[str], what: str) -> str:
    return f"{len(items):,} {what}{'s' * (len(items) != 1)}"
