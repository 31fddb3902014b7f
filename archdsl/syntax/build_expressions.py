"""Values of the rules of expressions."""
from __future__ import annotations

from fractions import Fraction
from typing import Any

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source, Span
from archdsl.syntax import tree as t
from archdsl.syntax.lexer import Token

SUFFIX = {"k": 3, "M": 6, "G": 9, "T": 12, "ms": -3, "us": -6}
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}
MAX_DIGITS = 400
MAX_EXPONENT = 400

Parts = list[Any]
_new_tuple: Any = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def text_of(token: Any) -> str | None:
    return None if token is None else token[1]


class Base:
    """What rules of all kinds use. `faults` are mistakes inside tokens; `parens` the spans of written parentheses around expressions."""

    def __init__(self, source: Source, docs: dict[int, str]):
        self.source, self.docs = source, docs
        self.faults: list[Diagnostic] = []
        self.parens: set[tuple[int, int]] = set()
        self.longest = 0  # the longest chain that was folded to one side: how deep a flat text may make the tree

    def span(self, start: int, end: int) -> Span:
        return _new_tuple(Span, (self.source, start, end))

    def doc(self, start: int) -> str:
        return self.docs.get(start, "")

    def same(self, c: Parts, start: int, end: int) -> Any:
        return c[0]

    def seq(self, c: Parts, start: int, end: int) -> Any:
        return t.Seq.at(self.span(start, end), (x for x in c if x is not None))

    def plain(self, c: Parts, start: int, end: int) -> Any:
        return tuple(c)

    def token(self, c: Parts, start: int, end: int) -> Any:
        """The text between, without spaces and comments: a name, an address."""
        text = self.source.text[start:end]
        if not text.isidentifier():
            text = "".join("".join(line.split("#", 1)[0].split("///", 1)[0].split()) for line in text.split("\n"))
        return 0, text, start, end

    def fault(self, code: str, message: str, start: int, end: int, label: str, help: str = "") -> None:
        self.faults.append(Diagnostic(code, message, self.span(start, end), label, help=(help,) if help else ()))


class Expressions(Base):
    """Rules of expressions."""

    def name(self, c: Parts, start: int, end: int) -> Any:
        return t.Name(_new_tuple(Span, (self.source, start, end)), c[0][1])

    def number(self, c: Parts, start: int, end: int) -> Any:
        text = self.digits(c[0])
        plain = text.replace("_", "")
        if plain.isdecimal():
            return t.Number(self.span(start, end), int(plain), text)
        suffix = plain[len(plain.rstrip("kMGTmsu")):]
        power = SUFFIX[suffix] if suffix else 0
        mantissa, _, exponent = plain.removesuffix(suffix).lower().partition("e")
        if exponent and abs(int(exponent)) > MAX_EXPONENT:
            self.fault("A0104", f"the exponent of `{text}` is beyond {MAX_EXPONENT}", start, end, "too large to be meant")
            exponent = "0"
        return t.Number(self.span(start, end), Fraction(mantissa) * Fraction(10) ** (int(exponent or 0) + power), text)

    def digits(self, token: Token) -> str:
        _, text, start, end = token
        if len(text) > MAX_DIGITS:
            self.fault("A0104", f"a number of {len(text)} characters is too long", start, end, f"at most {MAX_DIGITS} are read")
            return "0"
        return text

    def string(self, c: Parts, start: int, end: int) -> Any:
        return t.Str(self.span(start, end), self.unquote(c[0]))

    def unquote(self, token: Token) -> str:
        """The text that a string literal means."""
        _, text, start, _ = token
        if "\\" not in text:
            return text[1:-1]
        out: list[str] = []
        at = 1
        while (slash := text.find("\\", at)) >= 0:
            out.append(text[at:slash])
            letter = text[slash + 1]
            if letter not in ESCAPES:
                place = self.span(start + slash, start + slash + 2)
                fix = Fix("write the backslash itself", ((place, "\\\\" + letter),))
                self.faults.append(Diagnostic("A0103", f"strings know no escape `\\{letter}`", place, "unknown escape",
                                              help=('the escapes are \\" \\\\ \\n and \\t; `\\\\` is a backslash',), fixes=(fix,)))
            out.append(ESCAPES.get(letter, letter))
            at = slash + 2
        out.append(text[at:-1])
        return "".join(out)

    def boolean(self, c: Parts, start: int, end: int) -> Any:
        return t.Bool(self.span(start, end), c[0][1] == "true")

    def none(self, c: Parts, start: int, end: int) -> Any:
        return t.NoneLit(self.span(start, end))

    def some(self, c: Parts, start: int, end: int) -> Any:
        return t.Some(self.span(start, end))

    def group(self, c: Parts, start: int, end: int) -> Any:
        node = c[0]
        node.span = self.span(start, end)
        self.parens.add((start, end))
        return node

    def tuple_(self, c: Parts, start: int, end: int) -> Any:
        return t.Tuple(self.span(start, end), tuple(x for x in c if x is not None))

    def list_(self, c: Parts, start: int, end: int) -> Any:
        return t.List(self.span(start, end), tuple(x for x in c if x is not None))

    def set_(self, c: Parts, start: int, end: int) -> Any:
        return t.SetLit(self.span(start, end), tuple(c))

    def comprehension(self, c: Parts, start: int, end: int) -> Any:
        return t.Comprehension(self.span(start, end), *c)

    def range_(self, c: Parts, start: int, end: int) -> Any:
        return t.Range(self.span(start, end), c[0], c[2], c[1][1] == "..", None)

    def range_step(self, c: Parts, start: int, end: int) -> Any:
        return t.Range(self.span(start, end), c[0], c[2], c[1][1] == "..", c[3])

    def range_scale(self, c: Parts, start: int, end: int) -> Any:
        return t.Range(self.span(start, end), c[0], c[2], c[1][1] == "..", c[4], True)

    def range_log(self, c: Parts, start: int, end: int) -> Any:
        return t.Range(self.span(start, end), c[0], c[2], c[1][1] == "..", None, True)

    def rest(self, c: Parts, start: int, end: int) -> Any:
        return t.Rest(self.span(start, end))

    def slice_(self, c: Parts, start: int, end: int) -> Any:
        return t.Slice(self.span(start, end), *c)

    def arg(self, c: Parts, start: int, end: int) -> Any:
        return t.Arg(self.span(start, end), None, c[0])

    def keyword(self, c: Parts, start: int, end: int) -> Any:
        name, value = c
        return t.Arg(self.span(start, end), name[1], value, self.span(name[2], name[3]))

    def rest_arg(self, c: Parts, start: int, end: int) -> Any:
        span = self.span(start, end)
        return t.Arg(span, None, t.Rest(span)) if c[0] is None else t.Arg(span, None, c[0], None, True)

    def trail_call(self, c: Parts, start: int, end: int) -> Any:
        return "call", c[0], start, end

    def trail_item(self, c: Parts, start: int, end: int) -> Any:
        return "item", tuple(c), start, end

    def trail_member(self, c: Parts, start: int, end: int) -> Any:
        return "member", c[0], start, end

    def postfix(self, c: Parts, start: int, end: int) -> Any:
        """`f(a).b[c]`: trails are folded from the left."""
        if len(c) - 1 > self.longest:
            self.longest = len(c) - 1
        node, source = c[0], self.source
        for kind, what, _, stop in c[1:]:
            span = _new_tuple(Span, (source, start, stop))
            if kind == "call":
                node = t.Call(span, node, what)
            elif kind == "item":
                node = t.Item(span, node, what)
            else:
                node = t.Member(span, node, what[1], _new_tuple(Span, (source, what[2], what[3])))
        return node

    def named(self, c: Parts, start: int, end: int) -> Any:
        return t.Named(self.span(start, end), c[0], c[1][1], self.span(c[1][2], c[1][3]))

    def edited(self, c: Parts, start: int, end: int) -> Any:
        return t.Edited(self.span(start, end), c[0], c[1])

    def pipe(self, c: Parts, start: int, end: int) -> Any:
        return t.Chain(self.span(start, end), "|>", tuple(c))

    def compose(self, c: Parts, start: int, end: int) -> Any:
        return t.Chain(self.span(start, end), ">>", tuple(c))

    def coalesce(self, c: Parts, start: int, end: int) -> Any:
        return t.Chain(self.span(start, end), "??", tuple(c))

    def mask_and(self, c: Parts, start: int, end: int) -> Any:
        return t.Chain(self.span(start, end), "&", tuple(c))

    def mask_or(self, c: Parts, start: int, end: int) -> Any:
        return t.Chain(self.span(start, end), "|", tuple(c))

    def block_literal(self, c: Parts, start: int, end: int) -> Any:
        return t.BlockLiteral(self.span(start, end), tuple(p for p in c[1:-1] if p is not None), c[-1])

    def lambda_param(self, c: Parts, start: int, end: int) -> Any:
        return c[0][1], c[1]

    def binary(self, op: str, sign: Any, left: t.Expr, right: t.Expr) -> t.Expr:
        """One operator; `sign` is its token (the first of `not in`)."""
        return t.Binary(left.span.to(right.span), op, left, right, self.span(sign[2], sign[3]))

    def negative(self, c: Parts, start: int, end: int) -> Any:
        return t.Unary(self.span(start, end), "-", c[1])

    def power(self, c: Parts, start: int, end: int) -> Any:
        return self.binary("**", c[1], c[0], c[2])

    def arith(self, c: Parts, start: int, end: int) -> Any:
        """Operands and operators in turn: `* / // % @` before `+ -`, each from the left."""
        self.longest = max(self.longest, len(c) // 2)
        total: t.Expr | None = None
        sign: Any = None
        product: t.Expr = c[0]
        for i in range(1, len(c), 2):
            op, right = c[i], c[i + 1]
            if op[1] in "+-":
                total = product if total is None else self.binary(sign[1], sign, total, product)
                sign, product = op, right
            else:
                product = self.binary(op[1], op, product, right)
        return product if total is None else self.binary(sign[1], sign, total, product)

    def logic(self, c: Parts, start: int, end: int) -> Any:
        """Comparisons before `not` before `and` before `or`."""
        self.longest = max(self.longest, len(c) // 2)
        ors: list[t.Expr] = []
        ands: list[t.Expr] = []
        signs: list[Any] = []
        or_signs: list[Any] = []
        at = 0
        while True:
            node, at = self.negation(c, at)
            ands.append(node)
            if at == len(c):
                break
            if c[at][1] == "and":
                signs.append(c[at])
            else:
                or_signs.append(c[at])
                ors.append(self.fold("and", ands, signs))
                ands, signs = [], []
            at += 1
        ors.append(self.fold("and", ands, signs))
        return self.fold("or", ors, or_signs)

    def fold(self, op: str, operands: list[t.Expr], signs: list[Any]) -> t.Expr:
        left = operands[0]
        for sign, right in zip(signs, operands[1:]):
            left = self.binary(op, sign, left, right)
        return left

    def negation(self, c: Parts, at: int) -> tuple[t.Expr, int]:
        nots: list[Token] = []
        while type(c[at]) is tuple and c[at][1] == "not":
            nots.append(c[at])
            at += 1
        node, at = self.comparison(c, at)
        for sign in reversed(nots):
            node = t.Unary(self.span(sign[2], node.span[2]), "not", node)
        return node, at

    def comparison(self, c: Parts, at: int) -> tuple[t.Expr, int]:
        left, at = c[at], at + 1
        first = None
        while at < len(c) and c[at][1] not in ("and", "or"):
            sign = c[at]
            if first is not None:
                self.fault("A0112", "comparisons do not chain", sign[2], sign[3], "a second comparison of the same values",
                           help=f"write both comparisons and join them: `a {first[1]} b and b {sign[1]} c`")
            first = sign
            if sign[1] == "is":
                word = c[at + 1]
                left = t.IsSome(self.span(left.span[1], word[3]), left, word[1] == "none")
                at += 2
            elif sign[1] == "not":
                left = self.binary("not in", (0, "", sign[2], c[at + 1][3]), left, c[at + 2])
                at += 3
            else:
                left = self.binary(sign[1], sign, left, c[at + 1])
                at += 2
        return left, at

    def if_expr(self, c: Parts, start: int, end: int) -> Any:
        return t.IfExpr(self.span(start, end), tuple(zip(c[:-1:2], c[1:-1:2])), c[-1])

    def branch(self, c: Parts, start: int, end: int) -> Any:
        return t.Seq.at(self.span(start, end), self.values(c[0]))

    def match_expr(self, c: Parts, start: int, end: int) -> Any:
        return t.MatchExpr(self.span(start, end), c[0], tuple(c[1:]))

    def phase_expr(self, c: Parts, start: int, end: int) -> Any:
        return t.PhaseExpr(self.span(start, end), tuple(c))

    def phase_arm(self, c: Parts, start: int, end: int) -> Any:
        return c[0][1], self.values(c[1])

    def results(self, c: Parts, start: int, end: int) -> Any:
        return tuple(value for value, _ in c), tuple(name for _, name in c)

    def result(self, c: Parts, start: int, end: int) -> Any:
        return c[0], None

    def named_result(self, c: Parts, start: int, end: int) -> Any:
        return c[1], c[0][1]

    def values(self, results: tuple[tuple[t.Expr, ...], tuple[str | None, ...]]) -> tuple[t.Expr, ...]:
        """The values of a branch, which has no names to give."""
        values, names = results
        for value, name in zip(values, names):
            if name is not None:
                self.fault("A0113", "a branch gives values, it binds no names", value.span[1], value.span[2], f"this value is called `{name}`",
                           help="name the results where the whole expression is bound: `a, b = if c { u, v } else { w, x }`")
        return values
