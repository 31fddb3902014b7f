"""Long lines of Python, broken inside their brackets."""
from __future__ import annotations

import re
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
    start, end, commas = _chosen(line, groups, len(pad))
    if end == start + 1:
        return [pad + line]
    body = line[start + 1:end].strip()
    inner = f"{pad}    "
    if len(inner) + len(body) <= WIDTH and not body.endswith(","):
        rows = [f"{inner}{body}"]
    else:
        generator = _is_generator(body)
        pieces = re.split(r" (?=for )", body, maxsplit=1) if generator else [line[a + 1:b].strip() for a, b in pairwise([start, *commas, end])]
        parts = [p for p in pieces if p]
        rows = []
        for part in parts:
            *first, last = _summed(part, inner) or _broken(part, inner)
            rows += [*first, last if generator else f"{last},"]
    return [f"{pad}{line[:start + 1]}", *rows, f"{pad}{line[end:]}"]


def _summed(part: str, pad: str) -> list[str]:
    """An argument too long for a line that is a sum: a line for each term, its sign in front. Empty where it is none, or a term is too long."""
    inside = [range(start, end) for start, end, _ in _groups(part)]
    signs = [m.start() + 1 for m in re.finditer(r" [+-] ", part) if not any(m.start() in r for r in inside)]
    rows = [pad + part[a:b].strip() for a, b in pairwise([0, *signs, len(part)])]
    return rows if signs and len(pad) + len(part) + 1 > WIDTH and max(map(len, rows)) < WIDTH else []


def _chosen(line: str, groups: list[tuple[int, int, list[int]]], pad: int) -> tuple[int, int, list[int]]:
    """The last bracket, if what stands before it fits on a line, else the longest; of a function, its arguments."""
    if line.startswith("def "):
        return groups[0]
    last = groups[-1]
    if pad + last[0] + 1 <= WIDTH and last[1] - last[0] > 1:
        return last
    return max(groups, key=lambda g: g[1] - g[0])


def _is_generator(body: str) -> bool:
    """Whether a comprehension stands in these brackets, not arguments."""
    depth = 0
    for word in re.findall(r"[(\[{]|[)\]}]|\bfor\b", body):
        depth += (word in "([{") - (word in ")]}")
        if word == "for" and depth == 0:
            return True
    return False


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
