"""Colours for .arch text: the words by what they do, and a lexer for Pygments (entry point `pygments.lexers`, alias `archdsl`).

Pygments is not needed otherwise; `editors/vscode` holds the same words for TextMate grammars, and a test holds both to the grammar.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String, Text

DECLARE = ("block", "claim", "entry", "fn", "model", "names", "op", "record", "space", "variant")
"""Words in front of the name that they declare."""
MODIFY = ("extern", "paper", "use", "wrap")
STATEMENTS = (
    "buffer", "carry", "choose", "const", "control", "default", "draw", "emit", "frozen", "next", "param", "require", "return", "scan", "share",
    "static", "step", "transform", "update", "yield",
)
FLOW = ("else", "for", "if", "in", "is", "match", "phase", "when", "with", "as")
CLAUSES = ("by", "each", "from", "identity", "list", "of", "on", "over", "stream", "using", "within", "some", "alias", "drop", "ignore", "ragged")
LOGIC = ("and", "not", "or")
CONSTANTS = ("false", "none", "true")
TYPES = ("bf16", "block", "bool", "f16", "f32", "f64", "float", "i32", "i64", "i8", "init", "int", "mask", "str", "u8")


class ArchLexer(RegexLexer):
    """Text of archdsl. Words that may be names too are words where something follows that a word takes."""

    name = "archdsl"
    aliases: ClassVar[Sequence[str]] = ["archdsl", "arch"]
    filenames: ClassVar[Sequence[str]] = ["*.arch"]
    mimetypes: ClassVar[Sequence[str]] = ["text/x-archdsl"]
    tokens: ClassVar = {
        "root": [
            (r"\s+", Text),
            (r"///[^\n]*", String.Doc),
            (r"#[^\n]*", Comment.Single),
            (r'"', String.Double, "string"),
            (r"(use)(\s+)([^\W\d]\w*(?:\.\w+)*)", bygroups(Keyword.Namespace, Text, Name.Namespace)),
            (rf"({'|'.join(DECLARE)})(\s+)([^\W\d]\w*)", bygroups(Keyword.Declaration, Text, Name.Class)),
            (r"(as)(\s+)([^\W\d]\w*)", bygroups(Keyword, Text, Name.Label)),
            (r"[^\W\d]\w*(?=:\s+for\b)", Name.Label),
            (rf"(:)(\s*)({'|'.join(TYPES)})\b", bygroups(Punctuation, Text, Keyword.Type)),
            (words(MODIFY, suffix=r"\b(?=\s+[\w{])"), Keyword.Namespace),
            (words(STATEMENTS, suffix=r"\b(?=\s+[\w\[\"({-])"), Keyword),
            (words(("claim",), suffix=r"\b(?=\s*\{)"), Keyword.Declaration),
            (words(CLAUSES, suffix=r"\b(?=\s+[\w\[\"({])"), Keyword.Pseudo),
            (words(FLOW, suffix=r"\b"), Keyword),
            (words(LOGIC, suffix=r"\b"), Operator.Word),
            (words(CONSTANTS, suffix=r"\b"), Keyword.Constant),
            (words(TYPES, suffix=r"\b(?=\s*[\[?|,)=])"), Keyword.Type),
            (r"\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+|[kMGT]|[mu]s)?%?", Number),
            (r"([^\W\d]\w*)(\s*)(=)(?![=>])", bygroups(Name.Attribute, Text, Operator)),
            (r"[A-Z]\w*(?=\s*\()", Name.Class),
            (r"[^\W\d]\w*(?=\s*\()", Name.Function),
            (r"[^\W\d]\w*", Name),
            (r"<->|\.\.\.|\.\.<|\.\.|\|>|>>|->|=>|\?\?|==|!=|<=|>=|//|\*\*|[-+*/%<>=&|?@]", Operator),
            (r"[\[\](){},:;.]", Punctuation),
            (r".", Error),
        ],
        "string": [
            (r'\\["\\nt]', String.Escape),
            (r"\{\w+\}", String.Interpol),
            (r'"', String.Double, "#pop"),
            (r"\n", Error, "#pop"),
            (r'[^"\\{\n]+', String.Double),
            (r".", String.Double),
        ],
    }
