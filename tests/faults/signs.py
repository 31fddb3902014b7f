"""Missing braces and commas. The parser's table decides whether the text without one is a program."""
from __future__ import annotations

import random

from archdsl.syntax import tree

from .text import Planting, Text, canonical


def _without(text: Text, i: int, places: tuple[tuple[int, int], ...] = ()) -> Planting | None:
    start, end = text.tokens[i][2:]
    if canonical(text.text[:start] + text.text[end:], text.path) is not None:
        return None  # another program, or the same
    return Planting(((start, end, ""),), (text.gap(i), *places))


def _pairs(text: Text, opening: str = "{", closing: str = "}") -> dict[int, int]:
    """Token of a `{` -> token of its `}`."""
    stack, pairs = [], {}
    for i, t in enumerate(text.tokens):
        if t[1] in opening:
            stack.append(i)
        elif t[1] in closing:
            pairs[stack.pop()] = i
    return pairs


def _bodies(text: Text) -> dict[int, int]:
    """The same of what holds statements, arms, settings or lines, not of sets and alternatives."""
    inner = {(n.span.start, n.span.end) for n, _ in text.of(tree.SetLit)}
    out = {}
    for a, b in _pairs(text).items():
        if (text.tokens[a][2], text.tokens[b][3]) in inner or text.tokens[a - 1][1] == "." or text.tokens[a + 1][1] in ("weight", "q", "k"):
            continue
        out[a] = b
    return out


def closing_brace(text: Text, rng: random.Random) -> Planting | None:
    """Of a body. The message may stand where the brace is missing, or at the block that is not closed: its `{` or the words in front of it."""
    opened, closed = rng.choice(list(_bodies(text).items()))
    brace = text.tokens[opened]
    line = text.text.rfind("\n", 0, brace[2]) + 1
    first = next(t for t in text.tokens if t[2] >= line)
    return _without(text, closed, ((first[2], brace[3]),))


def opening_brace(text: Text, rng: random.Random) -> Planting | None:
    return _without(text, rng.choice(list(_bodies(text))))


def brace_of_a_set(text: Text, rng: random.Random) -> Planting | None:
    """Of a set of values or of alternatives in an address, either one. Of a pair, the message may stand at the one that is left."""
    bodies = _bodies(text)
    found = [pair for pair in _pairs(text).items() if pair[0] not in bodies]
    pair = rng.choice(found) if found else (0, 0)
    gone, left = pair if rng.random() < 0.5 else pair[::-1]
    return _without(text, gone, (text.tokens[left][2:],)) if found else None


def bracket(text: Text, rng: random.Random) -> Planting | None:
    """A round or square one that closes; the message may stand at its partner."""
    pairs = list(_pairs(text, "([", ")]").items())
    opened, closed = rng.choice(pairs)
    return _without(text, closed, (text.tokens[opened][2:],))


def comma(text: Text, rng: random.Random) -> Planting | None:
    found = [i for i, t in enumerate(text.tokens[:-1]) if t[1] == "," and text.tokens[i + 1][1] not in (")", "]", "}")]
    return _without(text, rng.choice(found))


BRACES = {s.__name__: s for s in (closing_brace, opening_brace, brace_of_a_set, bracket)}
COMMAS = {s.__name__: s for s in (comma,)}
