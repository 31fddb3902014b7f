"""What people write who come from Python or another language: each habit has its reading, its way out and, where the text says enough, its fix."""
from __future__ import annotations

import re

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax.describe import short, span
from archdsl.syntax.lexer import Token
from archdsl.syntax.recover import FAR, PARTNER, Repair, Situation

CONDITIONAL = "a choice between two values is `if condition { a } else { b }`"
WORDS = {
    "def": "`block`, `op` or `fn` starts a definition", "class": "`block` or `model` starts a definition", "elif": "write `else if`",
    "import": "`use std { LayerNorm }` brings names in; ops such as `relu` need no import",
    "from": "`use std { LayerNorm }` brings names in; ops such as `relu` need no import",
    "lambda": "write `block(x) => …`", "while": "loops are bounded: `for i in range(n) { … }`", "elseif": "write `else if`",
    "let": "a binding needs no word: `x = …`", "var": "a binding needs no word: `x = …`", "const": "`const name: [sizes] = …` is a tensor",
    "function": "`fn` starts a function of hyper values", "switch": "write `match value { … }`", "case": "an arm is `pattern => value`",
    "assert": "a rule is `require condition, \"message\"`", "raise": "`require condition, \"message\"` refuses what does not fit",
    "pass": "leave it out: `{ }` is an empty body", "try": "nothing is caught: `require` states a rule, `if` decides",
    "with": "leave it out: the model is data, and Python decides how it runs", "del": "leave it out", "global": "leave it out",
    "async": "leave it out", "break": "leave it out: the list behind `in` decides how often a loop runs",
    "continue": "`if condition { … }` around the rest of the body", "print": "`emit name = value` shows a value inside",
}
"""Words of other languages that start a statement or a declaration."""
TYPES = {"Optional": "`int?` is an int or none", "Union": "`int | str` takes either", "Tuple": "`(int, int)` is a type of pairs", "tuple":
         "`(int, int)` is a type of pairs", "Dict": "`record R { … }` declares fields", "dict": "`record R { … }` declares fields",
         "Callable": "`block` is the type of a block", "Literal": "`\"a\" | \"b\"` takes these words", "Sequence": "`list[int]`", "Tensor":
         "the type of a tensor is its shape, `[B, T, d]`"}
FORMS = {
    "`param`": "`param name: [sizes] = zeros()`", "`buffer`": "`buffer name: [sizes] = zeros()`", "`const`": "`const name: [sizes] = …`",
    "`use`": "`use std { Linear, RMSNorm }` names what comes from the library", "`share`": "`share f = Block(…)`",
    "a parameter": "a parameter has a type: `d: int = 64`, `x: [B, T, d]`", "`default`": "`default Linear(bias = false)`",
    "the header of `for`": "`for i in range(n) { … }`", "`variant`": "`variant small { d = 64 }`",
    "`choose`": "`choose f { a => …; b => … } = a`: behind `=` stands the arm that is the default",
    "`match`": "`match kind { \"a\" => …; \"b\" => … }`",
    "`if`": "`if condition { … } else { … }`", "`require`": "`require condition, \"message\"`", "`emit`": "`emit name = value`",
}
"""Constructs -> how they are written."""

Told = Diagnostic | tuple[Diagnostic, Repair | None] | None


def form(where: str) -> tuple[str, ...]:
    """How a construct is written, as help."""
    if where.startswith(("the header of `block", "the header of `model")):
        head = where.removeprefix("the header of ").strip("`")
        return (f"`{head}(d: int = 64)(x: [B, T, d]) -> y: [B, T, d] {{ … }}`: hyper values, tensors, results, body",)
    return (FORMS[where],) if where in FORMS else ()


# ---------------------------------------------------------------- words
def word(s: Situation, token: Token) -> Told:
    """A word of another language where a statement or a declaration starts."""
    for index in (s.at, s.at - 1):
        if index < 0 or s.tokens[index][1] not in WORDS:
            continue
        wrong = s.tokens[index]
        if wrong[1] in s.table.words.word and not (index == s.at and s.leads_line(wrong)):
            continue
        if index != s.at and not s.leads_line(wrong) and wrong[1] != "elif":
            continue
        help = WORDS[wrong[1]]
        if wrong[1] == "def" and s.in_body():
            help = "the body of a model or block is its forward pass; `block`, `op` and `fn` are declared beside it"
        where = span(s, wrong)
        if wrong[1] == "def" and s.in_body() and (end := _indented(s, index)):
            return Diagnostic("A0108", "`def` is no word of this language", span(s, wrong), "not known", help=(help,)), Repair(index, end - index, [])
        put = {"assert": ("require",), "elif": ("else", "if"), "elseif": ("else", "if")}.get(wrong[1])
        fixes = (Fix(f"write `{' '.join(put)}`", ((where, " ".join(put)),)),) if put else ()
        fault = Diagnostic("A0108", f"`{wrong[1]}` is no word of this language", where, "not known",
                           help=() if put and wrong[1] != "assert" else (help,), fixes=fixes)
        return fault, Repair(index, 1, [token_of(s, p, wrong) for p in put]) if put else None
    return None


def _indented(s: Situation, at: int) -> int:
    """Where the lines further right than that of a token end; 0 where there are none."""
    margin = s.column(s.tokens[at])
    end = next(i for i in range(at + 1, len(s.tokens)) if not s.tokens[i][1] or s.leads_line(s.tokens[i]) and s.column(s.tokens[i]) <= margin)
    inner = [t for t in s.tokens[at + 1 : end] if s.leads_line(t)]
    return end if inner and inner[0][1] != "}" else 0


def token_of(s: Situation, text: str, at: Token) -> Token:
    """A word or sign of the language at the place of a token."""
    words = s.table.words
    return words.word.get(text, words.fixed.get(text, words.name)), text, at[2], at[3]


def myself(s: Situation, token: Token) -> Told:
    """`self.fc = Linear(d)`"""
    first = s.at - 1
    if first < 0 or s.tokens[first][1] != "self" or token[1] != "." or not s.in_body() or not s.leads_line(s.tokens[first]):
        return None
    start = s.tokens[first][2]
    fix = Fix("remove `self.`", ((Span(s.run.source, start, token[3]), ""),))
    fault = Diagnostic("A0117", "a body has no `self`", span(s, s.tokens[first]), "names belong to the body", fixes=(fix,),
                       help=("`fc = Linear(d)` binds a block, `fc(x) as fc` applies it; the weights are called by what stands behind `as`",))
    return fault, Repair(first, 2, [])


def lambda_(s: Situation, token: Token) -> Told:
    """`lambda y: y + 1` as `block(y) => y + 1`."""
    low, high = line_of(s)
    at = next((i for i in range(low, min(s.at + 1, high)) if s.tokens[i][1] == "lambda"), None)
    colon = next((i for i in range(at + 1, high) if s.tokens[i][1] == ":"), None) if at is not None else None
    if at is None or colon is None:
        return None
    source, first, last = s.run.source, s.tokens[at], s.tokens[colon]
    names = source.text[first[3] : last[2]].strip()
    new = f"block({names}) =>"
    bare = not names or all(re.fullmatch(r"[A-Za-z_]\w*", name.strip()) for name in names.split(","))
    plain = bare and s.tokens[colon + 1][1] != "{"
    fault = Diagnostic("A0108", "`lambda` is no word of this language", span(s, first), "not known",
                       help=("a block without a name is `block(x) => …`",),
                       fixes=(Fix(f"write `{new} …`", ((Span(source, first[2], last[3]), new),)),) if plain else ())
    if not plain:  # a default or a star has no place there, nor a set
        return fault
    ids, words = s.table.ids, s.table.words
    made = [(ids["LITERAL"], "block", *first[2:]), (ids["_CALL"], "(", first[3], first[3]), *s.tokens[at + 1 : colon],
            (words.fixed[")"], ")", last[2], last[2]), (words.fixed["=>"], "=>", *last[2:])]
    return fault, Repair(at, colon + 1 - at, made)


def prefixed(s: Situation, token: Token) -> Told:
    """`f"layer{d}"`"""
    at = next((i for i in (s.at - 1, s.at) if 0 <= i < len(s.tokens) - 1 and s.names[s.tokens[i + 1][0]] == "STRING"), -1)
    if at < 0:
        return None
    before = s.tokens[at]
    if before[3] != s.tokens[at + 1][2] or before[1].lower() not in ("f", "r", "b", "u", "rb", "fr", "rf"):
        return None
    where = span(s, before)
    help = "`{d}` is filled in by the message of a `require` alone; `+` joins strings" if "f" in before[1].lower() else ()
    fault = Diagnostic("A0102", "a string has nothing in front of its quotes", where, "not part of the language", help=(help,) if help else (),
                       fixes=(Fix(f"remove `{before[1]}`", ((where, ""),)),))
    return fault, Repair(at, 1, [])


def layout(s: Situation, token: Token) -> Told:
    """`einsum("btd,de->bte", x, w)`"""
    if s.names[token[0]] != "STRING" or s.at < 2 or s.names[s.tokens[s.at - 2][0]] not in ("LAYOUT", "LAYOUT_ON"):
        return None
    word, following = s.tokens[s.at - 2][1], s.tokens[s.at + 1]
    new = shapes(token[1][1:-1], letters=word == "einsum")
    where = span(s, token)
    fixes = ()
    if new is not None and following[1] == ",":
        whole = Span(s.run.source, token[2], s.tokens[s.at + 2][2])
        fixes = (Fix(f"write `{word}({new})(…)`", ((whole, f"{new})("),)),)
    return Diagnostic("A0101", f"`{word}` takes shapes, not a string", where, "not expected", help=(LAYOUTS,), fixes=fixes)


LAYOUTS = "`einsum([b, t, d], [d, e] -> [b, t, e])(x, w)`, `rearrange(x, [b, t, (h w)] -> [b, h, t, w], h = 8)`"


def shapes(text: str, letters: bool = False) -> str | None:
    """A layout of einops, or of einsum's letters, in shapes; None where it is none."""
    sides = text.split("->")
    if len(sides) != 2 or not all(re.fullmatch(r"[\w\s.,()]*", side) for side in sides):
        return None

    def shape(part: str) -> str:
        names = list(part.strip().replace("...", "")) if letters else re.findall(r"\([^()]*\)|\.\.\.|\w+", part)
        return "[" + ", ".join([*(["..."] if letters and "..." in part else []), *names]) + "]"

    return " -> ".join(", ".join(shape(part) for part in side.split(",")) for side in sides)


# ---------------------------------------------------------------- signs
def doubled(s: Situation, token: Token) -> Told:
    """`a && b`, `a || b`"""
    before = s.tokens[s.at - 1] if s.at else token
    if token[1] not in ("&", "|") or before[1] != token[1] or before[3] != token[2]:
        return None
    meant = {"&": "and", "|": "or"}[token[1]]
    where = Span(s.run.source, before[2], token[3])
    fault = Diagnostic("A0107", f"`{token[1] * 2}` has no meaning here", where, f"`{meant}` joins conditions",
                       fixes=(Fix(f"write `{meant}`", ((where, meant),)),))
    return fault, Repair(s.at - 1, 2, [(s.table.words.word[meant], meant, before[2], token[3])])


def point(s: Situation, token: Token) -> Told:
    """`.5`"""
    following = s.tokens[s.at + 1] if s.at + 1 < len(s.tokens) else token
    if token[1] != "." or following[2] != token[3] or not following[1][:1].isdigit() or "NUMBER" not in s.expected(s.prior):
        return None
    number = (s.table.ids["NUMBER"], f"0.{following[1]}", token[2], following[3])
    fix = Fix(f"write `0.{following[1]}`", ((Span(s.run.source, token[2], token[2]), "0"),))
    fault = Diagnostic("A0104", f"`.{short(following[1])}` is no number", Span(s.run.source, token[2], following[3]),
                       "a digit is needed in front of the point", fixes=(fix,))
    return fault, Repair(s.at, 2, [number])


def path_of_module(s: Situation, token: Token) -> Told:
    """`use ../parts { A }`, `use /home/parts { A }`, `use parts/gates { A }`"""
    at = s.at
    if token[1] == "use":
        at += 1
    elif token[1] == "/":
        first = at
        while first and (s.tokens[first - 1][1] == "." or s.names[s.tokens[first - 1][0]] == "NAME"):
            first -= 1
        if not first or s.tokens[first - 1][1] != "use":
            return None
    else:
        return None
    if at >= len(s.tokens) or s.tokens[at][1] not in (".", "..", "...", "/"):
        return None
    return Diagnostic("A0101", "a module is named, not reached by a path", span(s, s.tokens[at]), "a path starts or goes on here",
                      help=("`use parts.gates { A }` reads `parts/gates.arch` in the spec's folder; what lies outside of that folder is never read",))


def choice(s: Situation, token: Token) -> Told:
    """`a if condition else b` and `condition ? a : b`."""
    if token[1] not in ("if", "else", "?"):
        return None
    sign, other = ("?", ":") if token[1] == "?" else ("if", "else")
    low, high = _lines_of(s)
    at = s.at if token[1] == sign else next((i for i in range(s.at - 1, low, -1) if s.tokens[i][1] == sign), low)
    if at <= low or s.tokens[at - 1][1] in ("else", "}", "=", "=>", "(", ",", "return"):
        return None
    start, end = _expression(s, at, low, high)
    middle = _at_depth(s, at + 1, end, other)
    if middle is None or start == at or middle + 1 >= end:
        return None
    parts = [s.tokens[start:at], s.tokens[at + 1 : middle], s.tokens[middle + 1 : end]]
    condition, yes, no = (parts[0], parts[1], parts[2]) if sign == "?" else (parts[1], parts[0], parts[2])
    if not all(parts) or any(t[1] in (sign, other) for t in no):
        return None
    help = Diagnostic("A0101", "a choice between two values starts with `if`", span(s, s.tokens[at]), "not expected", help=(CONDITIONAL,))
    if any(p[0][1] == "{" for p in parts):  # a list in braces, or a block: what is meant is not sure
        return help
    text = s.run.source.text
    shown = [text[p[0][2] : p[-1][3]] for p in (condition, yes, no)]
    new = "if {} {{ {} }} else {{ {} }}".format(*shown)
    whole = Span(s.run.source, s.tokens[start][2], s.tokens[end - 1][3])
    fault = replace(help, fixes=(Fix("write it so", ((whole, new),)),))
    near = s.tokens[at]
    brace, closed = token_of(s, "{", near), token_of(s, "}", near)
    made = [token_of(s, "if", near), *condition, brace, *yes, closed, token_of(s, "else", near), brace, *no, closed]
    return fault, Repair(start, end - start, made)


def line_of(s: Situation) -> tuple[int, int]:
    """The tokens of the line of the misfit, as a range of indices; of an endless line, those around it."""
    text = s.run.source.text
    begins = text.rfind("\n", 0, s.tokens[s.at][2]) + 1
    ends = text.find("\n", begins)
    ends = len(text) if ends < 0 else ends
    low = s.at
    while low and s.tokens[low - 1][2] >= begins and low > s.at - FAR:
        low -= 1
    high = s.at
    while high < len(s.tokens) and s.tokens[high][2] < ends and s.tokens[high][1] and high < s.at + FAR:
        high += 1
    return low, high


def _lines_of(s: Situation) -> tuple[int, int]:
    """The same of its line with those on which brackets of it are closed or were opened."""
    low, high = line_of(s)
    depth = 0
    for i in range(high - 1, low - 1, -1):  # brackets that are closed here and opened above
        depth += (s.tokens[i][1] in (")", "]", "}")) - (s.tokens[i][1] in PARTNER)
    while low and depth > 0 and s.tokens[low - 1][1] not in ("{", "}"):
        low -= 1
        depth += (s.tokens[low][1] in (")", "]")) - (s.tokens[low][1] in PARTNER)
    while low and not s.leads_line(s.tokens[low]):
        low -= 1
    depth = 0
    for i in range(low, high):
        depth += (s.tokens[i][1] in PARTNER) - (s.tokens[i][1] in (")", "]", "}"))
    while depth > 0 and s.tokens[high][1] not in ("{", "}", ""):
        depth += (s.tokens[high][1] in PARTNER) - (s.tokens[high][1] in (")", "]"))
        high += 1
    while high < len(s.tokens) and s.tokens[high][1] and not s.leads_line(s.tokens[high]):
        high += 1
    return low, high


def _expression(s: Situation, at: int, low: int, high: int) -> tuple[int, int]:
    """The range of the expression around an index, within brackets and commas of its line."""
    depth, start = 0, at
    while start > low:
        text = s.tokens[start - 1][1]
        depth += (text in (")", "]", "}")) - (text in PARTNER)
        if depth < 0 or depth == 0 and text in ("=", ",", ":", "=>", "return", ";"):
            break
        start -= 1
    depth, end = 0, at
    while end < high:
        text = s.tokens[end][1]
        depth += (text in PARTNER) - (text in (")", "]", "}"))
        if depth < 0 or depth == 0 and text in (",", ";", "for"):
            break
        end += 1
    return start, end


def _at_depth(s: Situation, start: int, end: int, text: str) -> int | None:
    """The first token of a text outside of brackets."""
    depth = 0
    for i in range(start, end):
        here = s.tokens[i][1]
        depth += (here in PARTNER) - (here in (")", "]", "}"))
        if depth == 0 and here == text:
            return i
    return None
