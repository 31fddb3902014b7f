"""Long lines of Python, broken inside their brackets."""
from __future__ import annotations

from itertools import pairwise

WIDTH = 120


def wrapped(text: str, indent: int) -> list[str]:
    """Lines indented, and broken inside their longest bracket when they are too long."""
    out: list[str] = []
    for line in text.split("\n"):
        pad = " " * (indent + len(line) - len(line.lstrip()))
        out += _broken(line.strip(), pad)
    return out


def _broken(line: str, pad: str) -> list[str]:
    groups = _groups(line) if len(pad) + len(line) > WIDTH and not line.startswith('"""') else []
    if not groups:
        return [pad + line]
    start, end, commas = max(groups, key=lambda g: g[1] - g[0])
    if end == start + 1:
        return [pad + line]
    cuts = [start, *commas, end]
    parts = [line[a + 1:b].strip() for a, b in pairwise(cuts)]
    rows: list[str] = []
    for part in parts:
        if rows and len(pad) + 4 + len(rows[-1]) + len(part) + 3 <= WIDTH:
            rows[-1] += f", {part}"
        elif part:
            rows.append(part)
    comma = "," if len(parts) > 1 else ""
    out = [f"{pad}{line[:start + 1]}"]
    for i, row in enumerate(rows):
        *inner, last = _broken(row, f"{pad}    ")
        out += [*inner, last + ("," if i + 1 < len(rows) else comma)]
    return [*out, f"{pad}{line[end:]}"]


def _groups(line: str) -> list[tuple[int, int, list[int]]]:
    """The outermost brackets: start, end, commas directly inside."""
    found: list[tuple[int, int, list[int]]] = []
    depth, start, commas, quote = 0, 0, [], ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote and line[i - 1] != "\\" else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
            if depth == 1:
                start, commas = i, []
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                found.append((start, i, commas))
        elif c == "," and depth == 1:
            commas.append(i)
    return found
