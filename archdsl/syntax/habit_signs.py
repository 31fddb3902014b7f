"""Signs and lines that other languages have in the same place: `;` between items, `:` in front of a value, `:=`, brackets around names, imports of
Python and JavaScript."""
from __future__ import annotations

import re
from collections.abc import Callable

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax.describe import describe_open, place, span
from archdsl.syntax.habits import Told, token_of
from archdsl.syntax.lexer import Token
from archdsl.syntax.recover import FAR, NEVER_FIRST, PARTNER, Repair, Situation

FOREIGN = frozenset(
    "torch torchvision numpy scipy math jax flax haiku hk equinox optax tensorflow keras einops transformers timm lightning pytorch_lightning typing "
    "dataclasses functools collections os sys abc enum copy __future__ archdsl".split())
"""Packages of Python; nothing of them has a place in a spec."""
_NAMES = r"(?P<names>\(\s*[\w\s,]*?,?\s*\)|\{\s*[\w\s,]*?,?\s*\}|\w+(?:[ \t]+as[ \t]+\w+)?(?:[ \t]*,[ \t]*\w+(?:[ \t]+as[ \t]+\w+)?)*)"
_MODULE = r"(?P<dots>\.*)(?P<module>\w+(?:\.\w+)*)"
_END = r"[ \t]*(?P<end>;?)[ \t]*(?=\n|#|\Z)"
_IMPORTS = tuple(re.compile(text + _END, re.ASCII) for text in (
    rf"from[ \t]+{_MODULE}[ \t]+import[ \t]*{_NAMES}",
    rf"(?:import|use)[ \t]*{_NAMES}[ \t]+from[ \t]+{_MODULE}",
    rf"use[ \t]+{_MODULE}[ \t]+import[ \t]*{_NAMES}",
    rf"use[ \t]+{_MODULE}[ \t]*(?=\(){_NAMES}",
    rf"import[ \t]+{_MODULE}(?:[ \t]+as[ \t]+(?P<alias>\w+))?",
    rf"use[ \t]+{_MODULE}[ \t]+as[ \t]+(?P<alias>\w+)",
    r"use[ \t]+(?P<module>\w+(?:::[a-z]\w*)+)",
    rf"use[ \t]+(?P<module>\w+(?:::\w+)*)::{_NAMES}",
))
"""`from std.norm import A, B as C`, `import { A } from std.norm`, `use std.norm import A`, `use std.norm (A)`, `import std.norm as n`,
`use std::norm`, `use std::norm::{A}`."""


def separator(s: Situation, token: Token) -> Told:
    """`Linear(d; bias = false)`: items are separated by commas."""
    opened = s.opened()
    if token[1] != ";" or not opened or opened[0].rules & {"if_expr", "match_expr", "phase_expr", "expr_arm", "phase_arm"}:
        return None
    told = _exchanged(s, lambda i: s.tokens[i][1] == ";", ",")
    if told is None:
        return None
    edits, repair = told
    return Diagnostic("A0116", f"commas separate the items of {describe_open(s, opened[0])}", span(s, token), "`;` ends a statement",
                      fixes=(Fix("write `,`", edits),)), repair


def value(s: Situation, token: Token) -> Told:
    """`Linear(out: d)`, `variant small { d: 64 }`: `=` gives a value."""
    if token[1] != ":" or not s.at or "EQUAL" not in (expected := s.expected(s.prior)) or s.names[s.tokens[s.at - 1][0]] != "NAME":
        return None
    where = place(s, expected & {"EQUAL"})
    if where not in ("an argument", "a setting"):
        return None

    def gives(i: int) -> bool:
        first = i - 1
        while s.tokens[first - 1][1] == ".":
            first -= 2
        return s.tokens[i][1] == ":" and (s.tokens[first - 1][1] in ("(", "{", ",", ";") or s.leads_line(s.tokens[first]))

    told = _exchanged(s, gives, "=")
    if told is None:
        return None
    edits, repair = told
    return Diagnostic("A0101", f"`=` gives {where} its value, not `:`", span(s, token), "not expected", fixes=(Fix("write `=`", edits),)), repair


def _exchanged(s: Situation, meant: Callable[[int], bool], new: str) -> tuple[tuple[tuple[Span, str], ...], Repair] | None:
    """The edits that put another sign in the place of the misfit and of those behind it in its bracket that are `meant`; None where the bracket
    cannot be read to its end with it."""
    places, depth, after = list[int](), 0, s.prior
    for i in range(s.at, min(s.at + FAR, len(s.tokens))):
        token = s.tokens[i]
        if depth == 0 and (i == s.at or meant(i)):
            places.append(i)
            token = token_of(s, new, token)
        depth += (token[1] in PARTNER) - (token[1] in (")", "]", "}"))
        taken = s.take(after, token)
        if taken is None:
            return None
        after = taken
        if depth < 0:
            break
    else:
        return None
    edits = tuple((_sign(s, s.tokens[i], new), f" {new}" if new == "=" else new) for i in places)
    last = places[-1]
    made = [token_of(s, new, s.tokens[i]) if i in places else s.tokens[i] for i in range(s.at, last + 1)]
    return edits, Repair(s.at, last + 1 - s.at, made)


def _sign(s: Situation, token: Token, new: str) -> Span:
    """A sign, with the blanks before it where the new one brings its own."""
    text = s.run.source.text
    start = len(text[: token[2]].rstrip(" \t")) if new == "=" else token[2]
    return Span(s.run.source, start, token[3])


def _begins(s: Situation, index: int) -> bool:
    """Does a token stand where a statement may begin?"""
    return s.leads_line(s.tokens[index]) or s.tokens[index - 1][1] in ("{", "}", ";")


def unpacked(s: Situation, token: Token) -> Told:
    """`(a, b) = split(x, 2)`"""
    if token[1] not in ("(", "[") or not s.in_body() or not _begins(s, s.at):
        return None
    end = s.at + 1
    while s.names[s.tokens[end][0]] in ("NAME", "UNDERSCORE"):
        end += 1 + (s.tokens[end + 1][1] == ",")
        if s.tokens[end - 1][1] != ",":
            break
    closing = s.tokens[end]
    if closing[1] != PARTNER[token[1]] or s.tokens[end + 1][1] != "=" or end == s.at + 1:
        return None
    names = s.tokens[s.at + 1 : end - (s.tokens[end - 1][1] == ",")]
    edits = ((span(s, token), ""), (Span(s.run.source, names[-1][3], closing[3]), ""))
    return Diagnostic("A0117", "the names on the left of `=` stand without brackets", span(s, token), "not expected",
                      fixes=(Fix("remove the brackets", edits),)), Repair(s.at, end + 1 - s.at, names)


def binding(s: Situation, token: Token) -> Told:
    """`x := y`, `x <- y`"""
    at = s.at - 1 if token[1] == "=" else s.at
    if not s.in_body() or at < 1 or at + 1 >= len(s.tokens):
        return None
    first, second = s.tokens[at], s.tokens[at + 1]
    if (first[1], second[1]) not in ((":", "="), ("<", "-")) or first[3] != second[2] or s.start(s.anchor()) != at - 1:
        return None
    where = Span(s.run.source, first[2], second[3])
    fault = Diagnostic("A0115", f"there is no `{where.text}`", where, "a name is bound by `=`", fixes=(Fix("write `=`", ((where, "="),)),))
    return fault, Repair(at, 2, [(s.table.words.fixed["="], "=", first[2], second[3])])


def further(s: Situation, token: Token) -> Told:
    """`*args` and `**kwargs` in a header."""
    following = s.tokens[s.at + 1] if s.at + 1 < len(s.tokens) else token
    if token[1] not in ("*", "**") or s.names[following[0]] != "NAME" or place(s, s.expected(s.prior)) != "a parameter list":
        return None
    where = Span(s.run.source, token[2], following[3])
    help = "a header names all of its arguments; `...` in the second list of a block takes further ones, and `f(x, ...)` passes them on"
    return Diagnostic("A0101", f"there is no `{where.text}`", where, "not part of the language", help=(help,)), Repair(s.at, 2, [])


def chained(s: Situation, token: Token) -> Told:
    """`a = b = x`, `a = b = c = x`"""
    first = s.start(s.anchor())
    if token[1] != "=" or first is None or first != s.at - 3 or not s.in_body() or s.tokens[first + 1][1] != "=":
        return None
    start = s.at + 1
    while s.names[s.tokens[start][0]] == "NAME" and s.tokens[start + 1][1] == "=" and start < s.at + FAR:
        start += 2
    names = s.tokens[start - 2 : first - 1 if first else None : -2]  # the last one is bound first
    if any(s.names[t[0]] != "NAME" for t in names):
        return None
    fault = Diagnostic("A0115", "a statement binds one value once", span(s, token), "the second `=`",
                       help=(f"write `{names[0][1]} = …`, then `{names[1][1]} = {names[0][1]}`",))
    end = _statement_end(s, start)
    if end is None:
        return fault
    last, pairs = s.tokens[end - 1], [*zip(names[1:], names)]
    further = "".join(f"; {outer[1]} = {inner[1]}" for outer, inner in pairs)
    edits = ((Span(s.run.source, names[-1][2], names[0][2]), ""), (Span(s.run.source, last[3], last[3]), further))
    made = [*s.tokens[start - 2 : end], *(t for outer, inner in pairs for t in (token_of(s, ";", last), outer, s.tokens[first + 1], inner))]
    told = ", then ".join(f"`{n[1]}`" for n in names)
    return replace(fault, help=(), fixes=(Fix(f"bind {told}", edits),)), Repair(first, end - first, made)


def _statement_end(s: Situation, at: int) -> int | None:
    """The index behind the statement of which a token is part; None where its brackets are not closed."""
    depth = 0
    for i in range(at, min(at + FAR, len(s.tokens))):
        text = s.tokens[i][1]
        if not depth and (not text or text in (";", "}") or s.leads_line(s.tokens[i]) and text not in NEVER_FIRST):
            return i
        depth += (text in PARTNER) - (text in (")", "]", "}"))
    return None


def grown(s: Situation, token: Token) -> Told:
    """`xs.append(x)`, `xs.extend(ys)`"""
    first = s.at - 1
    if token[1] != "." or not s.in_body() or first < 1 or s.names[s.tokens[first][0]] != "NAME" or not _begins(s, first):
        return None
    word, opening = s.tokens[s.at + 1], s.tokens[s.at + 2] if s.at + 2 < len(s.tokens) else token
    if word[1] not in ("append", "extend") or opening[1] != "(":
        return None
    name, end = s.tokens[first], _partner(s, s.at + 2)
    help = (f"write `{name[1]} = {name[1]} + {'[…]' if word[1] == 'append' else '…'}`",)
    fault = Diagnostic("A0117", "a list does not grow in place", Span(s.run.source, name[2], word[3]), "nothing takes its value", help=help)
    if end is None or end == s.at + 3 or _statement_end(s, end + 1) != end + 1:
        return fault
    closing, item = s.tokens[end], s.tokens[s.at + 3 : end]
    left, right = ("[", "]") if word[1] == "append" else ("(", ")") if len(item) > 1 else ("", "")
    edits = ((Span(s.run.source, name[3], opening[3]), f" = {name[1]} + {left}"), (span(s, closing), right))
    plus = [token_of(s, "=", token), name, token_of(s, "+", word)]
    made = [name, *plus, *([token_of(s, left, opening)] if left else []), *item, *([token_of(s, right, closing)] if right else [])]
    shown = Fix(f"write `{name[1]} = {name[1]} + …`", edits)
    return replace(fault, help=(), fixes=(shown,)), Repair(first, end + 1 - first, made)


def _partner(s: Situation, at: int) -> int | None:
    """The bracket that closes one."""
    depth = 0
    for i in range(at, min(at + FAR, len(s.tokens))):
        depth += (s.tokens[i][1] in PARTNER) - (s.tokens[i][1] in (")", "]", "}"))
        if not depth:
            return i
    return None


def results(s: Situation, token: Token) -> Told:
    """`-> y: [B, d], z: [B, d] {`: several results stand in parentheses."""
    start = s.start(s.anchor())
    if token[1] != "," or start is None or s.tokens[start][1] not in ("block", "wrap", "extern", "model", "entry", "fn"):
        return None
    low = next((i + 1 for i in range(s.at - 1, start, -1) if s.tokens[i][1] == "->"), None)
    prior = s.before(low) if low is not None else None
    if low is None or prior is None:
        return None
    depth, end = 0, s.at
    while end < min(s.at + FAR, len(s.tokens)) and s.tokens[end][1] and (depth or s.tokens[end][1] not in ("{", "stream")):
        depth += (s.tokens[end][1] in PARTNER) - (s.tokens[end][1] in (")", "]", "}"))
        end += 1
    inner = s.tokens[low:end]
    made = [token_of(s, "(", inner[0]), *inner, token_of(s, ")", inner[-1])]
    after: list[int] | None = prior
    for t in [*made, s.tokens[end]]:
        after = None if after is None else s.take(after, t)
    if after is None:
        return None
    edits = tuple((Span(s.run.source, at, at), sign) for at, sign in ((inner[0][2], "("), (inner[-1][3], ")")))
    return Diagnostic("A0101", "several results stand in parentheses", span(s, token), "not expected",
                      fixes=(Fix("put parentheses around them", edits),)), Repair(low, end - low, made)


def dictionary(s: Situation, token: Token) -> Told:
    """`{"out": 4}`"""
    behind = s.tokens[s.at + 1 : s.at + 3]
    if token[1] != "{" or "NUMBER" not in s.expected(s.prior) or len(behind) < 2 or behind[1][1] != ":" or \
            s.names[behind[0][0]] not in ("NAME", "STRING", "INT"):
        return None
    end = _partner(s, s.at)
    where = place(s, s.expected(s.prior))
    if where != "`return`":
        return Diagnostic("A0101", "there are no dictionaries", Span(s.run.source, token[2], behind[1][3]), "not part of the language",
                          help=("`record R { width: int, depth: int = 2 }` declares named values, `R(width = 64)` gives them",))
    fault = Diagnostic("A0101", "results stand without braces", span(s, token), "not expected",
                       help=("`return y, loss = z` gives results by position and by name",))
    keys = [i for i in range(s.at + 1, end or 0) if s.tokens[i + 1][1] == ":" and s.tokens[i - 1][1] in ("{", ",")]
    words = [s.tokens[i][1].strip('"') for i in keys]
    nested = any(s.tokens[i][1] == "{" and s.tokens[i + 2][1] == ":" for i in range(s.at + 1, end or 0))
    if end is None or nested or not all(w.isidentifier() and w.isascii() and w not in s.table.words.reserved for w in words):
        return fault
    last = s.tokens[end - 1 - (s.tokens[end - 1][1] == ",")]
    edits = [(Span(s.run.source, token[2], s.tokens[s.at + 1][2]), ""), (Span(s.run.source, last[3], s.tokens[end][3]), "")]
    edits += [(Span(s.run.source, s.tokens[i][2], s.tokens[i + 1][3]), s.tokens[i][1].strip('"') + " =") for i in keys]
    return replace(fault, fixes=(Fix("name them by `=`", tuple(edits)),))


def based(s: Situation, token: Token) -> Told:
    """`variant small: Net { d = 32 }`, `variant small extends Net { … }`, `variant small(Net) { … }`"""
    at, tokens = s.at, s.tokens
    bracket = token[1] == "("
    end = at + 1 + bracket
    if at < 2 or tokens[at - 2][1] != "variant" or token[1] not in (":", "extends", "from", "(") or end + 1 >= len(tokens):
        return None
    base = tokens[at + 1]
    if s.names[base[0]] != "NAME" or bracket and tokens[end][1] != ")" or tokens[end + 1][1] != "{":
        return None
    whole = Span(s.run.source, tokens[at - 1][3], tokens[end][3])
    fault = Diagnostic("A0101", "a variant says what it starts from by `of`", span(s, token), "not expected",
                       fixes=(Fix(f"write `of {base[1]}`", ((whole, f" of {base[1]}"),)),))
    return fault, Repair(at, end + 1 - at, [token_of(s, "of", token), base])


def imported(s: Situation, token: Token) -> Told:
    """`from std.norm import RMSNorm`, `import torch`"""
    if s.in_body():
        return None
    text = s.run.source.text
    begins = text.rfind("\n", 0, token[2]) + 1
    found = next((m for pattern in _IMPORTS if (m := pattern.match(text, begins))), None)
    first = s.index_of(begins) if found is not None else None
    if found is None or first is None:
        return None
    end = next(i for i in range(first, len(s.tokens)) if s.tokens[i][2] >= found.end("end") or not s.tokens[i][1])
    stop = found.end("end") if found["end"] else begins + len(found[0].rstrip())
    module, whole = found["module"].replace("::", "."), Span(s.run.source, begins, stop)
    word = s.tokens[first][1]
    code, message, label = ("A0101", "`use` names the module, and then what comes of it", "not expected") if word == "use" else \
        ("A0108", f"`{word}` is no word of this language", "not known")
    where = span(s, s.tokens[first] if word != "use" else token)
    if module.partition(".")[0] in FOREIGN:
        line = Span(s.run.source, begins, found.end() + (text[found.end() : found.end() + 1] == "\n"))
        help = ("`use std { LayerNorm }` brings blocks of the library in; ops such as `relu` need no import, and nothing comes from Python",)
        fault = Diagnostic(code, message, where, label, help=help, fixes=(Fix("remove the line", ((line, ""),)),))
        return fault, Repair(first, end - first, [])
    names = found["names"] if "names" in found.re.groupindex else ""
    listed = ", ".join(" ".join(name.split()) for name in names.strip("(){} \t\n").split(",") if name.strip())
    new = f"use {module} {{ {listed} }}" if listed else f"use {module}"
    alias = found["alias"] if "alias" in found.re.groupindex else ""
    last = module.rpartition(".")[2]
    help = (f"its names are read behind the last part of the module's, `{last}.NAME`",) if alias else ()
    fault = Diagnostic(code, message, where, label, help=help, fixes=(Fix(f"write `{new}`", ((whole, new),)),))
    return fault, Repair(first, end - first, _use(s, found, first, end) if found["module"].partition(".")[0] == "std" else [])


def _use(s: Situation, found: re.Match[str], first: int, end: int) -> list[Token]:
    """The tokens of the line as those of a `use`."""
    def inside(group: str) -> list[Token]:
        if group not in found.re.groupindex:
            return []
        read = [t for t in s.tokens[first:end] if found.start(group) <= t[2] < found.end(group) and t[1] not in PARTNER and t[1] not in (")", "}")]
        points = [t for t in read if t[1] == ":"][::2]  # `::` is two tokens
        return [token_of(s, ".", t) if t in points else t for t in read if t[1] != ":" or t in points]

    names = inside("names")
    at = s.tokens[first]
    braces = [token_of(s, "{", names[0]), *names, token_of(s, "}", names[-1])] if names else []
    return [token_of(s, "use", at), *inside("module"), *braces]
