"""Comments and documentation as other languages write them."""
from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Container
from itertools import accumulate, pairwise
from operator import itemgetter

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source, Span
from archdsl.syntax.habits import Told
from archdsl.syntax.lexer import Lexed, Token
from archdsl.syntax.recover import Repair, Situation

_SIGN = re.compile(r"(?<!/)//(?!/)|/\*|(?<!-)--(?=[ \t])")
_STATEMENT = re.compile(r"[ \t]*(?:[A-Za-z_]\w*[ \t]*(?:=(?![=>])|:[ \t]*for\b)|for[ \t]+\w+(?:,[ \t]*\w+)*[ \t]+in\b"
                        r"|(?:return|require|emit|param|const|draw|share|default|update|use)[ \t]+"
                        r"(?!(?:and|as|else|for|if|in|is|not|or|with)\b)[A-Za-z_])")  # before these, such a word is the name of a value
_NO_OPERAND = re.compile(r"[ \t]*(?:(?:[\w.]+[ \t]*)?(?:[-+*/]?=(?!=)|->)|[A-Za-z_]\w*[ \t]*:[ \t]*\S|not[ \t]+\w)")
"""How nothing goes on that divides; brackets have been taken out."""
_PYTHON = re.compile(r"[ \t]*(?:if|elif|else|for|while|def|class|with)\b")  # a line of which `:` ends the head
_MARGIN = re.compile(r"[ \t]*")
_ENDS = re.compile(r"[^\S\n]*(?:\n|\Z)")
_WORDS = re.compile(r"(?<![\w'])(?=([^\W\d]\w*+|\d++)[ \t]++([^\W\d]\w*+|\d++))")
_TEXTS = re.compile(r'"[^"]*"|#.*')
_FACTORS = re.compile(r"\A[ \t]*\([\w \t]*\)")  # an axis of several, as in `[..., n // (heads d)]`
_ITEMS = re.compile(r"[ \t]*(?:(?:shape|size|dims?|now)(?::[ \t]*|[ \t]+))?[\[(][^()\[\]]*,[^()\[\]]*[\])][ \t]*\Z")
MOST_TEXTS = 100  # comments and texts in triple quotes that are told
NOT_BEHIND = frozenset("+ - * / // % @ ** == != < <= > >= |> >> & | ?? = and or not".split())  # a sign too many, or an operand that is missing


def comments(source: Source, lexed: Lexed, words: Container[str]) -> list[Diagnostic]:
    """One fault for each `//` and `--` behind which their line goes on as no operand does, and for each `/*`; their tokens go. Other `//` divide,
    also at the start of a line, which may go on with the one above."""
    gone: list[tuple[int, int]] = []
    text, tokens = source.text, lexed.tokens
    looked = begins = line = 0  # up to where nothing is to be found any more; where the line begins and ends
    depth = counted = 0  # brackets that are open, and in front of which token
    last = text.rfind("*/") + 2  # behind it none is closed, and nobody looks
    for m in _SIGN.finditer(text):
        start, stop = m.span()
        at = bisect_left(tokens, start, key=itemgetter(2)) if start >= looked else len(tokens)
        if at >= len(tokens) or tokens[at][2] != start or not tokens[at][1]:  # inside of another comment, of a line that was looked at, of a string
            continue
        if m[0] == "/*":
            close = text.find("*/", stop, last)
            looked = _end_of_line(text, stop) if close < 0 else close + 2
            gone.append((start, looked))
            depth += _opened(tokens, counted, at)
            counted = bisect_left(tokens, looked, lo=at, key=itemgetter(2))
            continue
        if start >= line:
            begins, line = text.rfind("\n", line, start) + 1 or begins, _end_of_line(text, stop)
        depth += _opened(tokens, counted, at)
        counted = at
        sign = text.find(m[0], stop, line)
        rest = text[stop : line if sign < 0 else sign]  # what follows another sign is looked at there
        if _is_prose(rest, words) or depth == 0 and _is_no_operand(rest, _PYTHON.match(text, begins) is not None):
            looked = line
            if not _closes(text[stop:line]):
                gone.append((start, line))
                counted = bisect_left(tokens, line, lo=at, key=itemgetter(2))
    _drop(lexed, gone)
    return [_no_comment(Span(source, start, start + 2), end) for start, end in gone[:MOST_TEXTS]]


def _opened(tokens: list[Token], start: int, end: int) -> int:
    """How many brackets are opened by tokens and not closed."""
    return sum((t[1] in ("(", "[")) - (t[1] in (")", "]")) for t in tokens[start:end])


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _is_prose(rest: str, words: Container[str]) -> bool:
    """Whether what follows `//` is no operand: it has an apostrophe, two words in a row that do not follow each other in the language, a number
    behind a word or in front of one, is a list such as `(B, T, d)`, or a statement that was left out."""
    rest = _TEXTS.sub('""', rest)
    return _STATEMENT.match(rest) is not None or "=" not in rest and (
        "'" in rest or _ITEMS.match(rest) is not None or any(_apart(a, b, rest, words) for a, b in _WORDS.findall(_FACTORS.sub("x", rest))))


def _is_no_operand(rest: str, head: bool) -> bool:
    """Whether what follows `//` begins as nothing that divides, as `x[0] = 3`, `a: what it is`, `-> [B, d]`, `not used` do, and closes no bracket
    that was opened in front of it. `head`: the line begins as one that ends with `:` in Python."""
    outside = _outside(_TEXTS.sub('""', rest).partition(";")[0])
    return outside is not None and _NO_OPERAND.match(outside) is not None and not (head and ":" in outside)


def _outside(rest: str) -> str | None:
    """A text without what stands in brackets: those that touch a word are gone, others are a number. None where one is closed that it has not
    opened."""
    out: list[str] = []
    depth = 0
    for before, sign in pairwise(f" {rest}"):
        if sign in "([{":
            if not depth and not (before.isalnum() or before == "_"):
                out.append("0")
            depth += 1
        elif sign in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif not depth:
            out.append(sign)
    return "".join(out)


def _closes(rest: str) -> bool:
    """Whether a bracket is closed that was opened in front of this: it is none of a comment, a comma may be missing."""
    return min(accumulate((c in "([") - (c in ")]") for c in _TEXTS.sub("", rest)), default=0) < 0


def _apart(a: str, b: str, text: str, words: Container[str]) -> bool:
    """Whether these two, one behind the other in `text`, are nothing of the language."""
    if "of" in (a, b):
        return "{" not in text  # as `variant a of b {` has
    if a.isdigit() or b.isdigit():
        return any(len(w) > 1 and w not in words for w in (a, b) if not w.isdigit())
    return a not in words and (b not in words or b == "for" and " in " not in text)


def _drop(lexed: Lexed, ranges: list[tuple[int, int]]) -> None:
    """Removes the tokens that start in ranges, which are in order."""
    starts = [start for start, _ in ranges]

    def outside(token: Token) -> bool:
        at = bisect_right(starts, token[2])
        return at == 0 or token[2] >= ranges[at - 1][1] or not token[1]

    if ranges:
        lexed.bad[:] = filter(outside, lexed.bad)
        lexed.tokens[:] = filter(outside, lexed.tokens)


def _no_comment(where: Span, end: int) -> Diagnostic:
    """`end`: of the comment that the sign `where` starts."""
    text, sign = where.source.text, where.text
    fixes: tuple[Fix, ...] = ()
    if sign != "/*" or text[end - 2 : end] != "*/" or end - where.start < 4:  # one that is never closed is read to the end of its line
        fixes = (Fix("write `#`", ((where, "#"),)),)
    elif (edits := _lines(where, end)) is not None:
        fixes = (Fix("write `#`" if "\n" not in text[where.start : end] else "write `# …`", edits),)
    return Diagnostic("A0107", f"`{sign}` starts no comment", where, "not part of the language",
                      help=("`#` starts a comment, `///` documentation",), fixes=fixes)


def _lines(where: Span, end: int) -> tuple[tuple[Span, str], ...] | None:
    """`/* … */` as comments of one line each. None where code stands behind it and in front of it."""
    source, text = where.source, where.source.text
    begins = text.rfind("\n", 0, where.start) + 1
    margin = text[begins : where.start]
    leads, ends = not margin.strip(), _ENDS.match(text, end) is not None
    if not (leads or ends):
        return None
    if not leads and "\n" not in text[where.start : end]:  # nothing but the two signs changes
        return (where, "#"), (Span(source, end - 2 - text[where.end : end - 2].endswith(" "), end), "")
    margin = margin if leads else margin[: len(margin) - len(margin.lstrip())]
    inside = [line.strip() for line in text[where.end : end - 2].split("\n")]
    inside = [line[1:].strip() if i and line.startswith("*") else line.lstrip("*").strip() if not i else line for i, line in enumerate(inside)]
    while len(inside) > 1 and not inside[-1]:
        inside.pop()
    while len(inside) > 1 and not inside[0]:
        inside.pop(0)
    end_of_line = "\r\n" if "\r\n" in text else "\n"
    new = f"{end_of_line}{margin}".join(f"# {line}".rstrip() for line in inside)
    if ends:
        return ((Span(source, where.start, end), new),)
    code = _MARGIN.match(text, end)
    return ((Span(source, where.start, code.end() if code is not None else end), f"{new}{end_of_line}{margin}"),)


def docstrings(source: Source, lexed: Lexed) -> list[Diagnostic]:
    """One fault for each text between triple quotes; its tokens go, so that nothing else is said of it."""
    found: list[Diagnostic] = []
    text, tokens = source.text, lexed.tokens
    wholes: list[tuple[int, int]] = []
    begins = i = 0  # where the line begins
    while i < len(tokens) - 1:
        start = tokens[i][2]
        quotes = text[start : start + 3]
        if quotes not in ('"""', "'''") or (end := text.find(quotes, start + 3)) < 0:
            i += 1
            continue
        while tokens[i][1] and tokens[i][2] < end + 3:
            i += 1
        wholes.append((start, end + 3))
        begins = max(text.rfind("\n", begins, start) + 1, begins)
        if len(found) < MOST_TEXTS:
            found.append(_docstring(source, quotes, begins, start, end + 3))
    _drop(lexed, wholes)
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
    """`// text` where no division can stand: on a line of its own, behind a brace, a comma, a `;`."""
    text = s.run.source.text
    if token[1] != "//" or not s.leads_line(token) and s.tokens[s.at - 1][1] in NOT_BEHIND:
        return None
    end = text.find("\n", token[2])
    end = len(text) if end < 0 else end
    high = bisect_left(s.tokens, end, lo=s.at, hi=len(s.tokens) - 1, key=itemgetter(2))
    return _no_comment(Span(s.run.source, token[2], token[2] + 2), end), Repair(s.at, high - s.at, [])
