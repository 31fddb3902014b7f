"""Mistakes inside a word: strings, numbers, and signs and letters that the language does not have, with what was meant by them."""
from __future__ import annotations

import re
import unicodedata

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source, Span
from archdsl.syntax.describe import short
from archdsl.syntax.lexer import RESERVED, Token

SIGNS = {"!": "write `not`, or `!=` between values", "^": "a power is `**`", "\\": "a line needs no mark to go on",
         "$": "names have letters, digits and `_`", "~": "write `not`", "`": "names are written bare",
         **dict.fromkeys("'“”„‘’‚", "strings take double quotes")}
TYPESET = {"×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=", "→": "->", "⇒": "=>", "↔": "<->",
           "∈": "in", "∧": "and", "∨": "or", "¬": "not", "²": "**2", "³": "**3", **dict.fromkeys("−–—‐‑‒", "-")}
"""Signs of typeset text, by what stands for them here."""
LIKE_LATIN = str.maketrans("асеорхуіјѕԁАВЕКМНОРСТХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΧο", "aceopxyijsdABEKMHOPCTXIJSABEZHIKMNOPTXo")
"""Cyrillic and Greek letters that look like Latin ones."""


def _product(whole: str, start: int, text: str) -> str:
    """`4d` as `4 * d`, where the text has such a name."""
    product = re.fullmatch(r"(\d+)([a-zA-Z_]\w*)", text)
    if product is None or product[2] in RESERVED or not re.search(rf"\b{product[2]}\b", whole):
        return ""
    binds = whole[:start].rstrip().endswith(("/", "%", "**"))
    return f"({product[1]} * {product[2]})" if binds else f"{product[1]} * {product[2]}"


def explain_bad(source: Source, token: Token) -> Diagnostic:
    """A mistake inside a word: an unended string, a malformed number, a sign that the language does not have."""
    _, text, start, end = token
    where = Span(source, start, end)
    if text[0] == '"':
        written = text.rstrip()
        ends = start + len(written)
        taken = (len(written) - len(written.rstrip("\\"))) % 2  # a quote behind a backslash closes nothing
        fixes = () if taken else (Fix(f"close it: `{short(written)}\"`", ((Span(source, ends, ends), '"'),)),)
        if (closed := re.search("[“”„]", written)) is not None:  # closed by a typographic quote
            at = start + closed.start()
            fixes = (Fix(f"close it: `{short(written[:closed.start()])}\"`", ((Span(source, at, at + 1), '"'),)),)
        return Diagnostic("A0102", "this string does not end on its line", Span(source, start, start + 1), "it starts here",
                          help=('a line break inside is written `\\n`',), fixes=fixes)
    if text[0] in "'“”„‘’‚" and len(text) > 1:
        fix = Fix("use double quotes", ((where, '"' + text[1:-1].replace("\\", "\\\\").replace('"', '\\"') + '"'),))
        told = "single quotes" if text[0] == "'" else "typographic quotes"
        return Diagnostic("A0102", "strings take double quotes", where, told, fixes=(fix,))
    if text[0].isdigit():
        new = _product(source.text, start, text)
        fixes = (Fix(f"write `{new}`", ((where, new),)),) if new else ()
        return Diagnostic("A0104", f"`{short(text)}` is no number", where, "digits run into letters", fixes=fixes,
                          help=("numbers look like 3, 10_000, 0.5, 1e-6 or 30M (k, M, G, T); a name starts with a letter",))
    hint, label = SIGNS.get(text), "not part of the language"
    shown = short(text) if text.isprintable() else f"U+{ord(text[0]):04X}"
    meant = "**" if text == "^" else unicodedata.normalize("NFKC", "".join(TYPESET.get(c, c) for c in text))
    if text.isidentifier():
        hint, meant = "names have the letters a-z and A-Z, digits and `_`", meant.translate(LIKE_LATIN)
        foreign = next(c for c in text if not c.isascii())
        label = f"`{foreign}` is the letter U+{ord(foreign):04X}, {unicodedata.name(foreign, 'which has no name').lower()}"
    around = source.text[start - 1:start], source.text[end:end + 1]
    apart = meant.isalpha() and not text.isidentifier()  # a word for a sign
    before, behind = (" " if apart and c and not c.isspace() else "" for c in around)
    known = meant != text and meant.isascii() and meant.isprintable() and meant.strip()
    fixes = (Fix(f"write `{meant}`", ((where, f"{before}{meant}{behind}"),)),) if known else ()
    if not text.isprintable():
        hint, fixes = "it cannot be seen", (Fix("remove it", ((where, ""),)),)
    return Diagnostic("A0107", f"`{shown}` has no meaning here", where, label, help=(hint,) if hint else (), fixes=fixes)
