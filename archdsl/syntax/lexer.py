"""Text to tokens: one regular expression, one table of words.

A token is a tuple (kind, text, start, end); kinds are numbers from the parse table. Where a text may be two kinds, the token carries the
narrow one and `FALLBACK` names the wider: the parser takes the first one that fits (`step` the word, else `step` the name; a `(` that
touches what stands before it is a call, else a plain parenthesis).
"""
from __future__ import annotations

import re
from typing import NamedTuple

Token = tuple[int, str, int, int]

RESERVED = frozenset("and or not in is as with if else match for true false none".split())

STATEMENTS = frozenset("require default share frozen param buffer const draw control emit update static choose scan next yield return".split())
DECLARATIONS = frozenset("use paper record fn op block wrap extern model entry variant claim space names".split())
STARTERS = STATEMENTS | DECLARATIONS  # where a line starts with one of these like a statement, it is no name: its kind is `RETURN!`, say

FALLBACK = {
    "_CALL": "LPAR", "_INDEX": "LSQB", "INT": "NUMBER",
    "LITERAL": "BLOCK", "BLOCK": "NAME", "ISLAND": "DTYPE", "DTYPE": "NAME", "UNDERSCORE": "NAME",
    "LAYOUT": "NAME", "LAYOUT_ON": "NAME", "DIMFN": "NAME", "SELKIND": "NAME",
}

_DTYPES = frozenset("int bool f64 f32 f16 bf16 i64 i32 i8 u8".split())
_ISLANDS = frozenset("f64 f32 f16 bf16".split())
_LAYOUTS = frozenset("rearrange under reduce einsum layout".split())
_DIMFNS = frozenset("floordiv ceildiv mod min max".split())
_SELKINDS = frozenset("op block branch role group".split())

_TOKEN = re.compile(
    r"""([^\W\d]\w*)
      |((?<=[\w)}*\]]\.)[0-9]+(?![A-Za-z0-9_])|[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?(?:[kMGT]|[mu]s)?(?![A-Za-z0-9_]))
      |("(?:[^"\\\n]++|\\.)*+")
      |((?:(?<=[\w)"\]])|(?<=\.\*))[(\[])
      |(\#[^\n]*|///[^\n]*)
      |(\.\.\.|\.\.<|<->|->|=>|\|>|>>|\?\?|\*\*|//|==|!=|<=|>=|\.\.)
      |([][(){},:;.=<>+\-*/%@|&?])
      |("[^"\\\s(),[\]{}\#][^"\\\n(),[\]{}\#]{0,100}(?=[)\]}][^"\n]*(?:\n|\Z)|,\ *\w+\ *[=:])
       |"(?:[^"\\\n]|\\.){0,400}?(?=[)\]},;\ ]{0,20}(?:\n|\Z))|"[^\n]*|'[^'\n]*'|[“”„][^“”„"\n]*[“”"]|[‘’‚][^‘’‚\n]*[‘’]|[0-9]\w*|[^\s])""",
    re.VERBOSE,
)
_WORD, _NUMBER, _STRING, _TOUCHING, _COMMENT, _LONG, _SHORT, _BAD = range(1, 9)

_GAP = r"(?:\s++|\#[^\n]*+|///[^\n]*+)*+"  # what may stand between two tokens
_names_itself = re.compile(_GAP + r"(?:=(?![>])|[,:.)\]}|&+*/%<>?;@!]|\Z)").match  # after a contextual word: it is a name here
_scales = re.compile(_GAP + r"\*").match  # after `step`: it may be the word of a range
_binds = re.compile(_GAP + r"(?:=(?![>])|[,:])").match
_opens_brace = re.compile(_GAP + r"\{").match
_starts_domain = re.compile(r"(?=[\s#/{])" + _GAP + r"(?:[A-Za-z0-9_\"(\[{]|-\S)").match
_names_axis = re.compile(r"(?=[\s#/])" + _GAP + "[A-Za-z_]").match


_goes_on = re.compile(r"[ \t]+(?!(?:for|in|if|is|and|or|not|as|with|when|else|from|within|step|by|identity|over)\b)[A-Za-z0-9_\"(\[{]").match


class Lexed(NamedTuple):
    tokens: list[Token]  # the last one is $END
    comments: list[tuple[int, int]]
    docs: dict[int, str]  # start of a token -> the `///` lines right above it
    bad: list[Token]  # what is no token; it stands among the tokens as what was meant, or with kind -1


class Words:
    """The kinds of a parse table, looked up by text."""

    def __init__(self, terminals: list[str], texts: dict[str, str]):
        ids = {name: i for i, name in enumerate(terminals)}
        self.ids = ids
        self.name = ids["NAME"]
        self.fixed = {text: ids[name] for name, text in texts.items() if not text[0].isalpha()}
        self.fixed.update(dict.fromkeys(("==", "!=", ">=", "<", ">"), ids["COMPARE"]))
        self.fixed["..<"] = ids["RANGE"]
        self.word = {text: ids[name] for name, text in texts.items() if text[0].isalpha()}
        self.reserved = {text: kind for text, kind in self.word.items() if text in RESERVED}
        self.fallback: dict[int, int] = {ids[a]: ids[b] for a, b in FALLBACK.items()}
        for text, kind in self.word.items():
            if text not in RESERVED and kind not in self.fallback:
                self.fallback[kind] = self.name
        self.starter = {word: ids[word.upper() + "!"] for word in STARTERS}
        self.special = _DTYPES | _LAYOUTS | _DIMFNS | _SELKINDS | {"_", "phase", "some", "ragged", "each"}

    def special_kind(self, text: str, source: str, end: int) -> int:
        """The narrowest kind of a word whose meaning hangs on what follows it."""
        ids, following = self.ids, source[end : end + 1]
        if text == "_":
            return ids["UNDERSCORE"]
        if following == "(":
            if text in _LAYOUTS:
                return ids["LAYOUT"]
            if text in _DIMFNS:
                return ids["DIMFN"]
            if text == "block":
                return ids["LITERAL"]
        elif following == ":" and text in _SELKINDS:
            return ids["SELKIND"]
        if text in _DTYPES:
            if following == ":":
                return self.name
            return ids["ISLAND"] if text in _ISLANDS and _opens_brace(source, end) else ids["DTYPE"]
        if text == "phase":
            return ids["PHASE"] if _opens_brace(source, end) else self.name
        if text == "each":
            return ids["EACH"] if _starts_domain(source, end) else self.name
        if text == "some":
            return self.name if _binds(source, end) else ids["SOME"]
        if text == "ragged":
            return ids["RAGGED"] if _names_axis(source, end) else self.name
        if text in self.word and not _names_itself(source, end):
            return self.word[text]
        return self.name


def lex(text: str, words: Words, limit: int = 1 << 62, start: int = 0, stop: int | None = None) -> Lexed:
    """All tokens of a text or of whole lines of it, or a few more than `limit` of them. Takes time in proportion to the length of the text."""
    stop = len(text) if stop is None else stop
    tokens: list[Token] = []
    comments: list[tuple[int, int]] = []
    docs: dict[int, str] = {}
    bad: list[Token] = []
    doc: list[tuple[int, int]] = []
    starter = words.starter
    ids, fixed, word, reserved, special, name = words.ids, words.fixed, words.word, words.reserved, words.special, words.name
    call, index, string = ids["_CALL"], ids["_INDEX"], ids["STRING"]
    layout, modulo = ids["LAYOUT"], ids["MODULO"]
    layouts: list[int] = []  # indices of layout words
    add = tokens.append
    for m in _TOKEN.finditer(text, start, stop):
        group = m.lastindex
        piece = m.group()
        start, end = m.span()
        if group == _COMMENT:
            comments.append((start, end))
            if piece[0] == "/":
                doc.append((start, end))
            continue
        if group == _WORD:
            if not piece.isascii():
                bad.append((-1, piece, start, end))
                kind = name
            elif piece in reserved:
                kind = reserved[piece]
            elif piece in starter and _goes_on(text, end) and _leads(text, start, piece):
                kind = starter[piece]
            elif piece in special:
                kind = words.special_kind(piece, text, end)
                if piece == "some" and tokens and tokens[-1][1] == "is":
                    kind = word[piece]
                elif kind == layout:
                    layouts.append(len(tokens))
            elif piece in word and (not _names_itself(text, end) or piece == "step" and _scales(text, end)):
                kind = word[piece]
            else:
                kind = name
        elif group in (_SHORT, _LONG):
            kind = fixed[piece]
            if kind == modulo and _is_percent(tokens, start):
                number = tokens.pop()
                kind, piece, start = ids["PERCENT"], number[1] + "%", number[2]
        elif group == _TOUCHING:
            kind = call if piece == "(" else index
        elif group == _NUMBER:
            kind = ids["INT"] if piece.isdecimal() or piece.replace("_", "").isdecimal() else ids["NUMBER"]
        elif group == _STRING:
            kind = string
        else:
            bad.append((-1, piece, start, end))
            if len(bad) > 1000:
                break
            if piece[0].isdigit():  # go on as with what was meant
                kind, piece = ids["INT"], "0"
            elif len(piece) > 1:
                kind, piece = string, '""'
            else:
                kind = -1  # fits nowhere
        if doc:
            docs[start] = _doc_text(text, doc)
            doc = []
        add((kind, piece, start, end))
        if len(tokens) > limit:
            break
    if layouts:
        _with_values(tokens, layouts, ids)
    tokens.append((ids["$END"], "", stop, stop))
    return Lexed(tokens, comments, docs, bad)


def _leads(text: str, start: int, word: str) -> bool:
    """Does a word stand first on its line, and a declaration's word at its very start?"""
    if word in DECLARATIONS:
        return start == 0 or text[start - 1] == "\n"
    while start and text[start - 1] in " \t":
        start -= 1
    return start == 0 or text[start - 1] == "\n"


def _doc_text(text: str, lines: list[tuple[int, int]]) -> str:
    """The text of the last unbroken run of `///` lines."""
    kept = [lines[-1]]
    for line in reversed(lines[:-1]):
        if text.count("\n", line[1], kept[-1][0]) > 1:
            break
        kept.append(line)
    found = (text[a + 3 : b].rstrip() for a, b in reversed(kept))
    return "\n".join(line[1:] if line[:1] == " " else line for line in found)


def _is_percent(tokens: list[Token], at: int) -> bool:
    """`within 0.5%`: a `%` that touches the number that follows `within`."""
    return len(tokens) > 1 and tokens[-1][3] == at and tokens[-1][1][:1].isdigit() and tokens[-2][1] == "within"


def _with_values(tokens: list[Token], layouts: list[int], ids: dict[str, int]) -> None:
    """Tells `rearrange(x, [..] -> [..])`, the tensor written first: a shape stands behind the first comma, and none in front. One walk for all."""
    opening = {ids["LPAR"], ids["_CALL"], ids["LSQB"], ids["_INDEX"], ids["LBRACE"]}
    closing = {ids["RPAR"], ids["RSQB"], ids["RBRACE"]}
    comma, lsqb, end = ids["COMMA"], ids["LSQB"], len(tokens)
    calls = {at + 1: at for at in layouts if at + 2 < end and tokens[at + 2][0] != lsqb}  # the bracket of each -> its word
    open_: list[int] = []  # for each open bracket its layout word while its first comma is to come, or -1
    for i in range(layouts[0] + 1, end - 1):
        kind = tokens[i][0]
        if kind in opening:
            open_.append(calls.get(i, -1))
        elif not open_:
            continue
        elif kind in closing:
            open_.pop()
        elif kind == comma and open_[-1] >= 0:
            if tokens[i + 1][0] == lsqb:
                tokens[open_[-1]] = (ids["LAYOUT_ON"], *tokens[open_[-1]][1:])
            open_[-1] = -1
