"""Comments and documentation as other languages write them."""
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source, Span
from archdsl.syntax.habits import Told
from archdsl.syntax.lexer import Lexed, Token
from archdsl.syntax.recover import Repair, Situation

_LEADING = re.compile(r"^[ \t]*(?:(//)(?!/)([^\n]*)|/\*)", re.MULTILINE)
_MARGIN = re.compile(r"[ \t]*")
_ENDS = re.compile(r"[^\S\n]*(?:\n|\Z)")
_TWO_WORDS = re.compile(r"(?<![\w'])(?=([A-Za-z_]\w*)[ \t]+([A-Za-z_]\w*))")
MOST_TEXTS = 100  # in triple quotes, that are told


def comments(source: Source, lexed: Lexed, words: Container[str]) -> list[Diagnostic]:
    """One fault for each line that starts with `//` and goes on as no operand does (two words in a row that are not of the language, an apostrophe)
    and for each `/*` that starts one; its tokens go. Other lines with `//` in front may go on with the one above."""
    found: list[Diagnostic] = []
    text, tokens, end = source.text, lexed.tokens, 0
    for m in _LEADING.finditer(text):
        start = m.end() - 2 if m[1] is None else m.start(1)
        rest = re.sub(r'"[^"]*"|#.*', '""', m[2] or "")
        prose = "'" in rest or any(a not in words and b not in words for a, b in _TWO_WORDS.findall(rest))
        if start < end or m[1] is not None and (not prose or "=" in rest):
            continue
        close = text.find("*/", m.end()) if m[1] is None else -2
        end = m.end() if m[1] is not None else len(text) if close < 0 else close + 2
        gone = [i for i, t in enumerate(tokens) if start <= t[2] < end and t[1]]
        if not gone or tokens[gone[0]][2] != start:  # inside of another comment
            continue
        lexed.bad[:] = [b for b in lexed.bad if not start <= b[2] < end]
        del tokens[gone[0] : gone[-1] + 1]
        found.append(_no_comment(Span(source, start, start + 2)))
    return found


def _no_comment(where: Span) -> Diagnostic:
    return Diagnostic("A0107", f"`{where.text}` starts no comment", where, "not part of the language",
                      help=("`#` starts a comment, `///` documentation",), fixes=(Fix("write `#`", ((where, "#"),)),) if where.text == "//" else ())


def docstrings(source: Source, lexed: Lexed) -> list[Diagnostic]:
    """One fault for each text between triple quotes; its tokens go, so that nothing else is said of it."""
    found: list[Diagnostic] = []
    text, tokens = source.text, lexed.tokens
    left: list[Token] = []  # the tokens outside
    wholes: list[tuple[int, int]] = []
    begins = i = 0  # where the line begins
    while i < len(tokens):
        start = tokens[i][2]
        quotes = text[start : start + 3]
        if quotes not in ('"""', "'''") or i == len(tokens) - 1 or (end := text.find(quotes, start + 3)) < 0:
            left.append(tokens[i])
            i += 1
            continue
        while tokens[i][1] and tokens[i][2] < end + 3:
            i += 1
        wholes.append((start, end + 3))
        begins = max(text.rfind("\n", begins, start) + 1, begins)
        if len(found) < MOST_TEXTS:
            found.append(_docstring(source, quotes, begins, start, end + 3))
    ends = dict(wholes)
    starts = sorted(ends)
    lexed.bad[:] = [b for b in lexed.bad if (at := bisect_right(starts, b[2])) == 0 or b[2] >= ends[starts[at - 1]]]
    tokens[:] = left
    return found


def _docstring(source: Source, quotes: str, begins: int, start: int, end: int) -> Diagnostic:
    """The fault of a text in triple quotes from `start` to `end`, on a line that begins at `begins`."""
    text = source.text
    indented = _MARGIN.match(text, begins, start)
    margin = indented.group() if indented is not None else ""
    alone = begins + len(margin) == start and _ENDS.match(text, end) is not None  # else a comment would take in what follows
    sign = "///" if begins == start else "#"
    lines = [f"{sign} {line.strip()}" for line in text[start + 3 : end - 3].strip().split("\n")]
    fixes = (Fix(f"write `{sign} …`", ((Span(source, start, end), f"\n{margin}".join(lines)),)),) if alone else ()
    return Diagnostic("A0107", f"{quotes} has no meaning here", Span(source, start, start + 3), "not part of the language",
                      help=("`#` starts a comment, `///` in front of a declaration its documentation",), fixes=fixes)


def comment(s: Situation, token: Token) -> Told:
    """`// text` or `/* text */` on a line of its own."""
    text = s.run.source.text
    if not s.leads_line(token) or token[1] != "//" and not text.startswith("/*", token[2]):
        return None
    end = text.find("\n", token[2]) if token[1] == "//" else text.find("*/", token[2])
    end = len(text) if end < 0 else end
    high = next((i for i in range(s.at, len(s.tokens)) if s.tokens[i][2] >= end + (token[1] != "//") * 2 or not s.tokens[i][1]), len(s.tokens) - 1)
    where = Span(s.run.source, token[2], token[2] + 2)
    return _no_comment(where), Repair(s.at, high - s.at, [])
