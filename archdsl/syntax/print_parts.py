"""Expressions, types and shapes as documents. Parentheses follow the table of operators; those that were written around operators stay."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from archdsl.source import Source
from archdsl.syntax import tree as t
from archdsl.syntax.layout import LINE, SOFT, Doc, Fill, Group, IfBroken, Indent, join, layout

# How tightly an expression holds together; a place asks for a least tightness, else parentheses are put.
ANY, OR, AND, NOT, COMPARE, COAL, SUM, PRODUCT, UNARY, POWER, OPERAND, NAMED, APPLIED, POSTFIX, PRIMARY = range(15)
_BINARY = {"or": OR, "and": AND, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT, "@": PRODUCT, "**": POWER}
_OWN_CALLS = frozenset(("block", "rearrange", "under", "reduce", "einsum", "layout"))  # words that are no names before `(`


def quote(text: str) -> str:
    """A string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def number_text(value: int | Fraction, text: str = "") -> str:
    """A number literal of exactly this value; `text` is kept when it is one."""
    if text:
        return text
    if isinstance(value, int):
        return str(value)
    if value.denominator == 1:
        return f"{value.numerator}.0"
    shift, rest = 0, value.denominator
    while rest % 10 == 0:
        rest, shift = rest // 10, shift + 1
    twos = fives = 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        raise ValueError(f"{value} has no literal: it is no decimal fraction")
    places = shift + max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator)
    if places > 6:
        return f"{digits}e-{places}"
    return f"{digits[:-places] or '0'}.{digits[-places:]}" if len(digits) > places else "0." + digits.rjust(places, "0")


def address_text(address: str) -> str:
    """An address with spaces inside its alternatives, as it is written: `layers.{q, k}.{2 * i}`."""
    return re.sub(r"\{[^}]*\}", lambda m: re.sub(r"\s*([*+/%-]+)\s*", r" \1 ", m[0]).replace(",", ", "), address)


class PartPrinter:
    """Documents of what stands inside statements. Without a source nothing is known of comments, line breaks and written parentheses."""

    def __init__(self, source: Source | None = None, parens: set[tuple[int, int]] | None = None):
        self.source, self.parens = source, parens or set()

    # ------------------------------------------------------------ what the source knows
    def written(self, node: t.Node) -> bool:
        """Does the node's span belong to the text that is being formatted?"""
        return self.source is not None and node.span.source is self.source

    def breaks_at(self, start: int, first: Any) -> bool:
        """Is there a line break between an opening bracket and the first thing in it?"""
        text = self.source.text if self.source else ""
        return self.source is not None and isinstance(first, t.Node) and self.written(first) and "\n" in text[start : first.span.start]

    def before(self, start: int | None) -> list[Doc]:
        """Comments that stand before an offset and have not been printed; see fmt.py."""
        return []

    def items(self, nodes: Sequence[t.Node], docs: Callable[[Any], Doc], end: int | None, separator: str) -> list[Doc]:
        """Documents of the items of a list, each with the separator that follows it (the last with a broken-only one)."""
        out: list[Doc] = []
        for i, node in enumerate(nodes):
            last = i == len(nodes) - 1
            out.append([docs(node), IfBroken(separator) if last else separator])
        return out

    # ------------------------------------------------------------ brackets
    def bracket(self, left: str, right: str, nodes: Sequence[t.Node], docs: Callable[[Any], Doc], end: int | None = None, start: int | None = None,
                comma: bool = True) -> Doc:
        """A list in brackets, one item a line when it does not fit or was written so. `start` and `end` are the offsets of the brackets."""
        lines = self.items(nodes, docs, end, ",")
        if not lines:
            return left + right
        if not comma:
            lines[-1] = [lines[-1][0]] if isinstance(lines[-1], list) else lines[-1]
        broken = start is not None and bool(nodes) and self.breaks_at(start, nodes[0])
        if len(nodes) == 1 and len(lines) == 1 and not broken and self.hugs(nodes[0]) and isinstance(lines[0], list) and len(lines[0]) == 2:
            return [left, lines[0][0], right]
        return Group([left, Indent([SOFT, *join(LINE, lines)]), SOFT, right], broken)

    def hugs(self, node: t.Node) -> bool:
        """May the brackets of this sole item close together with those around it?"""
        value = node.value if isinstance(node, t.Arg) and node.name is None else node
        return isinstance(value, (t.List, t.Call, t.MatchExpr, t.IfExpr, t.LayoutCall))

    # ------------------------------------------------------------ expressions
    def expr(self, node: t.Expr, least: int = ANY) -> Doc:
        """An expression where at least this tightness is needed."""
        lead = self.before(node.span.start) if self.written(node) else []
        doc = self.bare(node)
        if self.level(node) < least or (self.written(node) and node.span[1:] in self.parens and self.level(node) < POSTFIX):
            doc = Group(["(", Indent([SOFT, doc]), SOFT, ")"])
        return [*lead, doc] if lead else doc

    def level(self, node: t.Expr) -> int:
        """The tightness of an expression."""
        if isinstance(node, t.Binary):
            return _BINARY.get(node.op, COMPARE)
        if isinstance(node, t.Chain):
            return ANY if node.op in ("|>", ">>") else COAL
        if isinstance(node, t.Unary):
            return NOT if node.op == "not" else UNARY
        return _LEVELS.get(type(node), PRIMARY)

    def bare(self, node: t.Expr) -> Doc:
        """The expression without parentheses."""
        return getattr(self, "x_" + type(node).__name__)(node)

    def x_Name(self, node: t.Name) -> Doc:
        return node.id

    def x_Number(self, node: t.Number) -> Doc:
        return number_text(node.value, node.text)

    def x_Str(self, node: t.Str) -> Doc:
        return quote(node.value)

    def x_Bool(self, node: t.Bool) -> Doc:
        return "true" if node.value else "false"

    def x_NoneLit(self, node: t.NoneLit) -> Doc:
        return "none"

    def x_Some(self, node: t.Some) -> Doc:
        return "some"

    def x_Rest(self, node: t.Rest) -> Doc:
        return "..."

    def x_Tuple(self, node: t.Tuple) -> Doc:
        if len(node.items) == 1:
            return ["(", self.expr(node.items[0]), ",)"]
        return self.bracket("(", ")", node.items, self.expr, *self.ends(node))

    def x_List(self, node: t.List) -> Doc:
        return self.filled("[", "]", node) or self.bracket("[", "]", node.items, self.expr, *self.ends(node))

    def x_SetLit(self, node: t.SetLit) -> Doc:
        return self.filled("{", "}", node) or self.bracket("{", "}", node.items, self.expr, *self.ends(node))

    def ends(self, node: t.Node) -> tuple[int | None, int | None]:
        """The offsets of the last and the first character: the brackets of a list."""
        return (node.span.end - 1, node.span.start + 1) if self.written(node) else (None, None)

    def filled(self, left: str, right: str, node: t.List | t.SetLit) -> Doc | None:
        """A long list of numbers or words fills its lines."""
        atoms = (t.Number, t.Str, t.Name, t.Bool, t.NoneLit)
        if len(node.items) < 8 or not all(isinstance(i, atoms) for i in node.items) or (self.written(node) and self.comments_in(node)):
            return None
        texts = [str(self.bare(i)) for i in node.items]
        return Group([left, Indent([SOFT, Fill(texts)]), SOFT, right])

    def comments_in(self, node: t.Node) -> bool:
        return False

    def x_Range(self, node: t.Range) -> Doc:
        by: Doc = self.expr(node.step, SUM) if node.step is not None else "..."
        step: list[Doc] = [" step * " if node.scaled else " step ", by] if node.scaled or node.step is not None else []
        return [self.expr(node.start, SUM), ".." if node.inclusive else "..<", self.expr(node.stop, SUM), *step]

    def x_Each(self, node: t.Each) -> Doc:
        return ["each ", f"{node.name} => " if node.name else "", self.domain(node.domain)]

    def domain(self, node: t.Expr) -> Doc:
        return self.expr(node, ANY if isinstance(node, (t.Range, t.SetLit, t.Each)) else COAL)

    def x_Comprehension(self, node: t.Comprehension) -> Doc:
        tail: list[Doc] = [LINE, "if ", self.expr(node.condition)] if node.condition is not None else []
        head = [self.expr(node.item), LINE, "for ", self.pattern(node.pattern, True), " in ", self.iterable(node.iterable)]
        return Group(["[", Indent([SOFT, *head, *tail]), SOFT, "]"])

    def iterable(self, node: t.Expr) -> Doc:
        return self.expr(node, ANY)

    def pattern(self, node: t.Pattern, outermost: bool = False) -> str:
        if node.name is not None:
            return node.name
        inner = ", ".join(self.pattern(i) for i in node.items)
        return inner if outermost else f"({inner})"

    def x_Unary(self, node: t.Unary) -> Doc:
        if node.op == "not":
            return ["not ", self.expr(node.operand, NOT)]
        return ["-", self.expr(node.operand, UNARY)]

    def x_Binary(self, node: t.Binary) -> Doc:
        level = self.level(node)
        if level == POWER:
            return [self.expr(node.left, OPERAND), " ** ", self.expr(node.right, UNARY)]
        if level == COMPARE:
            right = node.right if not isinstance(node.right, (t.Range, t.SetLit)) else None
            return [self.expr(node.left, COAL), f" {node.op} ", self.expr(node.right, COAL) if right is not None else self.expr(node.right)]
        spine: list[t.Binary] = []
        operand = node
        while True:  # operators of one level from the left are one flat sequence of lines
            spine.append(operand)
            left = operand.left
            if not isinstance(left, t.Binary) or self.level(left) != level or (self.written(left) and left.span[1:] in self.parens):
                break
            operand = left
        spine.reverse()
        first = self.expr(spine[0].left, level)
        return Group([first, Indent([[LINE, b.op, " ", self.expr(b.right, level + 1)] for b in spine])])

    def x_IsSome(self, node: t.IsSome) -> Doc:
        return [self.expr(node.operand, COAL), " is none" if node.negate else " is some"]

    def x_Chain(self, node: t.Chain) -> Doc:
        first, *rest = node.items
        head = self.expr(first, OPERAND)
        links: list[Doc] = []
        for i, item in enumerate(rest):
            previous = node.items[i]
            links.append([*self.between(previous, item), LINE, node.op, " ", self.expr(item, OPERAND)])
        return Group([head, Indent(links)])

    def between(self, previous: t.Node, node: t.Node) -> list[Doc]:
        """Comments between two links of a chain."""
        return []

    def x_Call(self, node: t.Call) -> Doc:
        return [self.callee(node.func), self.args(node.args, node.span.end - 1 if self.written(node) else None)]

    def callee(self, node: t.Expr) -> Doc:
        """What is called, indexed or asked for a member."""
        if isinstance(node, t.Number) or (isinstance(node, t.Name) and node.id in _OWN_CALLS):
            return ["(", self.expr(node), ")"]
        return self.expr(node, POSTFIX)

    def args(self, args: tuple[t.Arg, ...], end: int | None) -> Doc:
        return self.bracket("(", ")", args, self.arg, end, self.seq(args)[0])

    def seq(self, nodes: Any) -> tuple[int | None, int | None]:
        """The offsets after the opening and before the closing bracket of a Seq of this source."""
        if isinstance(nodes, t.Seq) and self.source is not None and nodes.span.source is self.source:
            return nodes.span.start + 1, nodes.span.end - 1
        return None, None

    def arg(self, node: t.Arg) -> Doc:
        if node.spread:
            return ["...", self.expr(node.value)]
        return [f"{node.name} = ", self.expr(node.value)] if node.name is not None else self.expr(node.value)

    def x_Item(self, node: t.Item) -> Doc:
        return [self.callee(node.value), self.bracket("[", "]", node.indices, self.expr)]

    def x_Slice(self, node: t.Slice) -> Doc:
        parts = [self.expr(p) if p is not None else "" for p in (node.start, node.stop)]
        step: list[Doc] = [":", self.expr(node.step)] if node.step is not None else []
        return [parts[0], ":", parts[1], *step]

    def x_Member(self, node: t.Member) -> Doc:
        return [self.callee(node.value), ".", address_text(node.name)]

    def x_Named(self, node: t.Named) -> Doc:
        return [self.expr(node.expr, APPLIED), " as ", address_text(node.name)]

    def x_Edited(self, node: t.Edited) -> Doc:
        return [self.expr(node.expr, POSTFIX), " with ", self.settings(node.settings)]

    def settings(self, settings: tuple[t.Setting, ...]) -> Doc:
        """Settings in braces: after commas on one line, one a line without them."""
        if not settings:
            return "{}"
        start, end = self.seq(settings)
        broken = start is not None and self.breaks_at(start, settings[0])
        docs = self.items(settings, self.setting, end, "")
        return Group(["{", Indent([LINE, *join([IfBroken("", ","), LINE], docs)]), LINE, "}"], broken)

    def setting(self, node: t.Setting) -> Doc:
        return [address_text(node.address), " = ", self.expr(node.value)]

    def branches(self, parts: list[tuple[str, Doc, tuple[t.Expr, ...]]], broken: bool) -> Doc:
        """`if c { a } else { b }`: all branches on one line, or each in lines of its own."""
        docs: list[Doc] = []
        for word, condition, results in parts:
            docs.append([word, condition, "{", Indent([LINE, *join([",", LINE], [self.expr(r) for r in results])]), LINE, "}"])
        return Group(join(" ", docs), broken)

    def x_IfExpr(self, node: t.IfExpr) -> Doc:
        results = node.branches[0][1]
        broken = isinstance(results, t.Seq) and self.written(node) and self.breaks_at(results.span.start, results[0])
        parts = [("if " if i == 0 else "else if ", [self.condition(c), " "], r) for i, (c, r) in enumerate(node.branches)]
        return self.branches([*parts, ("else ", "", node.otherwise)], broken)

    def condition(self, node: t.Expr) -> Doc:
        """An expression before `{`: the name `phase` must not touch it."""
        last: Any = node
        while isinstance(last, (t.Binary, t.Unary)):
            last = last.right if isinstance(last, t.Binary) else last.operand
        return ["(", self.expr(node), ")"] if isinstance(last, t.Name) and last.id == "phase" else self.expr(node)

    def x_MatchExpr(self, node: t.MatchExpr) -> Doc:
        broken = self.breaks_at(node.subject.span.end, node.arms[0]) if self.written(node) else True
        arms = self.items(node.arms, self.expr_arm, node.span.end - 1 if self.written(node) else None, "")
        return Group(["match ", self.condition(node.subject), " {", Indent([LINE, *join([IfBroken("", ";"), LINE], arms)]), LINE, "}"], broken)

    def expr_arm(self, node: t.MatchArm) -> Doc:
        return [self.arm_patterns(node), " => ", self.expr(node.body)]

    def arm_patterns(self, node: t.MatchArm) -> str:
        return " | ".join(str(self.bare(p)) for p in node.patterns)

    def x_PhaseExpr(self, node: t.PhaseExpr) -> Doc:
        arms: list[Doc] = [[name, " => ", *join(", ", [self.expr(r) for r in results])] for name, results in node.arms]
        broken = self.breaks_at(node.span.start, node.arms[0][1][0])
        return Group(["phase {", Indent([LINE, *join([IfBroken("", ";"), LINE], arms)]), LINE, "}"], broken)

    def x_BlockLiteral(self, node: t.BlockLiteral) -> Doc:
        params: list[Doc] = [[name, ": ", self.type(type_)] if type_ is not None else name for name, type_ in node.params]
        return ["block(", *join(", ", params), ") => ", self.expr(node.body)]

    def x_LayoutCall(self, node: t.LayoutCall) -> Doc:
        parts: list[Doc] = []
        if node.value is not None:
            value = self.expr(node.value)
            parts += [["(", value, ")"] if layout(value, 10**9).startswith("[") else value, ",", LINE]  # a bracket first would be a shape
        if node.layout is not None:
            parts.append(self.expr(node.layout))
        elif node.output is not None:
            parts += [*join([",", LINE], [self.shape(s) for s in node.inputs]), " -> ", self.shape(node.output)]
        if node.args:
            end = node.span.end - 1 if self.written(node) else None
            parts += [",", LINE, *join(LINE, self.items(node.args, self.arg, end, ","))]
        return Group([node.word, "(", Indent([SOFT, *parts]), SOFT, ")"])

    # ------------------------------------------------------------ shapes and types
    def shape(self, node: t.Shape) -> Doc:
        return self.bracket("[", "]", node.axes, self.axis)

    def axis(self, node: t.Axis) -> Doc:
        return getattr(self, "s_" + type(node).__name__)(node)

    def s_AxisName(self, node: t.AxisName) -> Doc:
        return node.id

    def s_AxisInt(self, node: t.AxisInt) -> Doc:
        return self.int_text(node)

    def int_text(self, node: t.AxisInt) -> str:
        """The size as it is written, `32_000`."""
        text = node.span.text if self.written(node) else ""
        return text if text.replace("_", "").isdecimal() else str(node.value)

    def s_AxisOp(self, node: t.AxisOp) -> Doc:
        if node.op.isalpha():
            return [node.op, "(", *join(", ", [self.axis(o) for o in node.operands]), ")"]
        level = {"+": 0, "-": 0, "**": 2}.get(node.op, 1)
        left, right = node.operands
        lefts = self.axis_at(left, 3 if level == 2 else level)
        return [lefts, f" {node.op} ", self.axis_at(right, 3 if level == 2 else level + 1)]

    def axis_at(self, node: t.Axis, least: int) -> Doc:
        """A size with parentheses where it holds together less tightly than needed."""
        level = {"+": 0, "-": 0, "**": 2}.get(node.op, 1) if isinstance(node, t.AxisOp) and not node.op.isalpha() else 3
        return ["(", self.axis(node), ")"] if level < least else self.axis(node)

    def s_AxisField(self, node: t.AxisField) -> Doc:
        return self.expr(node.expr, POSTFIX)

    def s_AxisFactors(self, node: t.AxisFactors) -> Doc:
        return ["(", *join(" ", [self.axis_at(i, 3) for i in node.items]), ")"]

    def s_AnyAxes(self, node: t.AnyAxes) -> Doc:
        return "..."

    def s_AxesVar(self, node: t.AxesVar) -> Doc:
        return "*" + node.id

    def s_Ragged(self, node: t.Ragged) -> Doc:
        return ["ragged ", node.id, *([" = ", self.axis(node.size)] if node.size is not None else [])]

    def s_Bounded(self, node: t.Bounded) -> Doc:
        return [f"some {node.id} <= ", self.axis(node.bound)]

    def s_AxisSized(self, node: t.AxisSized) -> Doc:
        return [node.id, " = ", self.axis(node.size)]

    def type(self, node: t.Type) -> Doc:
        return getattr(self, "t_" + type(node).__name__)(node)

    def t_TensorType(self, node: t.TensorType) -> Doc:
        return [node.dtype or "", self.shape(node.shape)]

    def t_NameType(self, node: t.NameType) -> Doc:
        return node.name

    def t_LiteralType(self, node: t.LiteralType) -> Doc:
        return quote(node.value)

    def t_ListType(self, node: t.ListType) -> Doc:
        length: list[Doc] = ["; ", self.expr(node.length, SUM)] if node.length is not None else []
        return ["list[", self.type(node.item), *length, "]"]

    def t_TupleType(self, node: t.TupleType) -> Doc:
        return ["(", *join(", ", [self.type(i) for i in node.items]), ")"]

    def t_UnionType(self, node: t.UnionType) -> Doc:
        return join(" | ", [self.type(o) for o in node.options])

    def t_OptionalType(self, node: t.OptionalType) -> Doc:
        return [self.type(node.item), "?"]


_LEVELS: dict[type, int] = {
    t.BlockLiteral: ANY, t.Range: ANY, t.SetLit: ANY, t.Each: ANY, t.Slice: ANY, t.Rest: PRIMARY, t.IsSome: COMPARE, t.IfExpr: OPERAND,
    t.MatchExpr: OPERAND, t.PhaseExpr: OPERAND, t.Named: NAMED, t.Edited: APPLIED, t.Call: POSTFIX, t.Item: POSTFIX, t.Member: POSTFIX,
    t.LayoutCall: PRIMARY, t.ExternCall: PRIMARY,
}
