"""Statements and declarations as documents: the whole language."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from archdsl.syntax import tree as t
from archdsl.syntax.layout import BLANK, HARD, LINE, SOFT, Doc, Fill, Group, IfBroken, Indent, is_hard, join, layout
from archdsl.syntax.print_parts import ANY, COAL, COMPARE, SUM, PartPrinter, address_text, quote

WIDTH = 120
_GLUES = re.compile(r"(?:within|from|when|step)\b")  # words that would go on with the item above


class Printer(PartPrinter):
    """Documents of any node. With a source, comments and written line breaks are kept: that is fmt.py."""

    # ------------------------------------------------------------ sequences of lines
    def lines(self, nodes: Sequence[t.Node], doc: Callable[[Any], Doc], end: int | None) -> list[Doc]:
        """Nodes one a line, with breaks between them."""
        out: list[Doc] = []
        for i, node in enumerate(nodes):
            if i:
                out.append(HARD)
            out.append(doc(node))
        return out

    def braces(self, nodes: Sequence[t.Node], doc: Callable[[Any], Doc], start: int | None, end: int | None, separator: str = ";") -> Doc:
        """`{ … }`: on one line when it was written so and fits, else one node a line."""
        lead = self.after_bracket(start)
        if not nodes and not lead and not self.pending(end):
            return "{}"
        if not lead and self.one_line(nodes, start, end):
            docs: list[Doc] = [doc(node) for node in nodes]
            flat: Doc = ["{ ", *join(separator + " ", docs), " }"]
            if not is_hard(flat):
                inner: list[Doc] = []
                for i, one in enumerate(docs):
                    inner += [one] if i == 0 else [IfBroken("", separator), LINE, one]
                return Group(["{", Indent([LINE, *inner]), LINE, "}"])
            return ["{", Indent([HARD, *join(HARD, docs)]), HARD, "}"]
        return ["{", *lead, Indent([HARD, *self.lines(nodes, doc, end)]), HARD, "}"]

    def one_line(self, nodes: Sequence[t.Node], start: int | None, end: int | None) -> bool:
        """Was this written on one line? Without a source: is it a single short thing?"""
        if start is None or end is None or self.source is None:
            return len(nodes) <= 1 and not any(isinstance(n, (t.For, t.If, t.Match, t.Choose, t.Scan, t.Island)) for n in nodes)
        return "\n" not in self.source.text[start:end]

    def after_bracket(self, start: int | None) -> list[Doc]:
        """A comment on the line of an opening bracket."""
        return []

    def pending(self, end: int | None) -> bool:
        """Are there comments to print before an offset?"""
        return False

    def opening(self, node: t.Node, after: int | None = None) -> tuple[int | None, int | None]:
        """The offsets inside the first braces of a node behind an offset, where the node ends with the closing one."""
        if not self.written(node) or self.source is None:
            return None, None
        text, at = self.source.text, node.span.start if after is None else after
        while text[at] != "{":
            at = text.find("\n", at) if text[at] == "#" or text.startswith("///", at) else at + 1
        return at + 1, node.span.end - 1

    # ------------------------------------------------------------ any node
    def node(self, node: t.Node) -> Doc:
        """The document of any node of the tree."""
        if isinstance(node, t.Expr):
            return self.expr(node)
        if isinstance(node, t.Axis):
            return self.axis(node)
        if isinstance(node, t.Type):
            return self.type(node)
        if isinstance(node, t.Shape):
            return self.shape(node)
        return getattr(self, "n_" + type(node).__name__)(node)

    def n_Module(self, node: t.Module) -> Doc:
        end = len(self.source.text) if self.source is not None else None
        return self.lines(node.decls, self.node, end)

    def doc_lines(self, node: Any) -> list[Doc]:
        """The documentation of a node that comes from no source."""
        if self.written(node) or not node.doc:
            return []
        return [part for line in node.doc.split("\n") for part in (f"/// {line}".rstrip(), HARD)]

    def n_Setting(self, node: t.Setting) -> Doc:
        return self.setting(node)

    def n_Arg(self, node: t.Arg) -> Doc:
        return self.arg(node)

    def n_Pattern(self, node: t.Pattern) -> Doc:
        return self.pattern(node, True)

    def n_Target(self, node: t.Target) -> Doc:
        return [node.name, ": ", self.type(node.type)] if node.type is not None else node.name

    def n_Carry(self, node: t.Carry) -> Doc:
        return [node.name, ": ", self.type(node.type), " = ", self.expr(node.init, COAL)]

    def n_UseName(self, node: t.UseName) -> Doc:
        return f"{node.name} as {node.alias}" if node.alias else node.name

    def n_Out(self, node: t.Out) -> Doc:
        return [f"{node.name}: " if node.name else "", self.type(node.type)]

    def n_Comment(self, node: t.Comment) -> Doc:
        return node.text

    def n_MatchArm(self, node: t.MatchArm) -> Doc:
        return self.stmt_arm(node) if isinstance(node.body, tuple) else self.expr_arm(node)

    # ------------------------------------------------------------ statements
    def body(self, statements: tuple[t.Statement, ...]) -> Doc:
        return self.braces(statements, self.node, *self.seq(statements))

    def values(self, values: Sequence[t.Expr]) -> Doc:
        """`a, b`: one value a line when they do not fit."""
        if len(values) == 1:
            return self.expr(values[0])
        first, *rest = [self.expr(v) for v in values]
        return Group([first, Indent([[",", LINE, v] for v in rest])])

    def when(self, condition: t.Expr | None) -> Doc:
        return [" when ", self.expr(condition)] if condition is not None else ""

    def n_Assign(self, node: t.Assign) -> Doc:
        return [*join(", ", [self.n_Target(x) for x in node.targets]), " = ", self.values(node.values)]

    def n_Require(self, node: t.Require) -> Doc:
        if node.message is None:
            return ["require ", self.expr(node.condition)]
        return Group(["require ", self.expr(node.condition), Indent([",", LINE, quote(node.message)])])

    def n_Default(self, node: t.Default) -> Doc:
        return ["default ", node.block, self.args(node.args, node.span.end - 1 if self.written(node) else None)]

    def n_Share(self, node: t.Share) -> Doc:
        named = f" as {address_text(node.address)}" if node.address and node.address != node.name else ""
        of = f" of {node.of.id}" if node.of is not None else ""
        return [f"share {node.name}{named}{of} = ", self.expr(node.value), self.when(node.condition)]

    def n_ParamDecl(self, node: t.ParamDecl) -> Doc:
        word = {"frozen": "frozen param"}.get(node.kind, node.kind)
        named = f" as {address_text(node.address)}" if node.address != node.name else ""
        return [f"{word} {node.name}{named}: ", self.type(node.type), " = ", self.expr(node.init), self.when(node.condition)]

    def typed(self, words: str, node: t.Const | t.Draw) -> Doc:
        type_: Doc = [": ", self.type(node.type)] if node.type is not None else ""
        return [words, type_, " = ", self.expr(node.value)]

    def n_Const(self, node: t.Const) -> Doc:
        named = f" as {address_text(node.address)}" if node.address else ""
        return self.typed(f"const {node.name}{named}", node)

    def n_Draw(self, node: t.Draw) -> Doc:
        return self.typed(f"draw {node.name}", node)

    def n_Control(self, node: t.Control) -> Doc:
        return [f"control {node.name}: ", self.type(node.type), *self.default_and_domain(node.default, node.domain, False)]

    def n_Emit(self, node: t.Emit) -> Doc:
        return [f"emit {address_text(node.name)}", [" = ", self.expr(node.value)] if node.value is not None else ""]

    def n_Update(self, node: t.Update) -> Doc:
        return [f"update {node.name} = ", self.expr(node.value)]

    def n_Static(self, node: t.Static) -> Doc:
        return "static " + ", ".join(node.names)

    def n_Next(self, node: t.Next) -> Doc:
        return [f"next {node.name} = ", self.expr(node.value)]

    def n_Yield(self, node: t.Yield) -> Doc:
        return ["yield ", self.values(node.values)]

    def n_Return(self, node: t.Return) -> Doc:
        docs: list[Doc] = [[f"{name} = " if name else "", self.expr(value)] for name, value in zip(node.names, node.values, strict=True)]
        return ["return ", Group([docs[0], Indent([[",", LINE, d] for d in docs[1:]])]) if len(docs) > 1 else docs[0]]

    def n_For(self, node: t.For) -> Doc:
        label = f"{node.label}: " if node.label else ""
        return [f"{label}for {self.pattern(node.pattern, True)} in ", self.condition(node.iterable), " ", self.body(node.body)]

    def n_If(self, node: t.If) -> Doc:
        parts: list[Doc] = []
        for i, (condition, body) in enumerate(node.branches):
            parts.append(["if " if i == 0 else "else if ", self.condition(condition), " ", self.body(body)])
        if node.has_else or node.otherwise:
            parts.append(["else ", self.body(node.otherwise)])
        return join(" ", parts)

    def n_Match(self, node: t.Match) -> Doc:
        start, end = self.opening(node, node.subject.span.end if self.written(node) else None)
        subject = self.condition(node.subject)
        return ["match ", subject, " ", self.braces(node.arms, self.stmt_arm, start, end, "")]

    def stmt_arm(self, node: t.MatchArm) -> Doc:
        return [self.arm_patterns(node), " => ", self.body(node.body)]

    def n_Choose(self, node: t.Choose) -> Doc:
        start, _ = self.opening(node)
        last = node.arms[-1].span.end if self.written(node) else None
        end = self.source.text.index("}", last) if self.source is not None and last is not None else None
        arms = self.braces(node.arms, self.n_ChooseArm, start, end)
        return [f"choose {node.name} ", arms, f" = {node.default}", self.args(node.default_args, None) if node.default_args else ""]

    def n_ChooseArm(self, node: t.ChooseArm) -> Doc:
        return [node.name, self.params(node.params) if node.params else "", " => ", self.expr(node.value)]

    def n_Island(self, node: t.Island) -> Doc:
        return [node.dtype, " ", self.body(node.body)]

    def n_Scan(self, node: t.Scan) -> Doc:
        inputs = node.inputs[0] if len(node.inputs) == 1 else "(" + ", ".join(node.inputs) + ")"
        carries = join(", ", [self.n_Carry(c) for c in node.carries])
        merge: Doc = ""
        if node.merge is not None and node.identity is not None:
            merge = [" by ", self.expr(node.merge), " identity ", self.condition(node.identity)]
        return [f"scan {inputs} over {node.axis} carry ", *carries, merge, " ", self.body(node.body)]

    # ------------------------------------------------------------ headers
    def default_and_domain(self, default: t.Expr | None, domain: t.Expr | None, literal: bool = True) -> list[Doc]:
        """` = value in domain`: a default holds tighter than a comparison, a block literal stands bare only in parameters without a domain."""
        parts: list[Doc] = []
        if default is not None:
            chain = isinstance(default, t.Chain) or (literal and isinstance(default, t.BlockLiteral) and domain is None)
            parts += [" = ", self.expr(default, ANY if chain else COAL)]
        if domain is not None:
            parts += [" in ", self.domain(domain)]
        return parts

    def param(self, node: t.Param) -> Doc:
        """A header's parameter."""
        if node.rest:
            return [*self.doc_lines(node), "..." + (node.name if node.name != "..." else "")]
        lead = "_ " if node.anonymous else ""
        type_: Doc = self.type(node.type) if node.type is not None else ""
        return [*self.doc_lines(node), f"{lead}{node.name}: ", type_, *self.default_and_domain(node.default, node.domain)]

    n_Param = param

    def params(self, params: tuple[t.Param, ...], broken: bool = False) -> Doc:
        start, end = self.seq(params)
        lead = self.after_bracket(start)
        docs = self.items(params, self.param, end, ",")
        if not docs and not lead:
            return "()"
        written = start is not None and bool(params) and self.breaks_at(start, params[0])
        return Group(["(", *lead, Indent([SOFT, *join(LINE, docs)]), SOFT, ")"], broken or written)

    def outs(self, outs: tuple[t.Out, ...]) -> Doc:
        if len(outs) == 1:
            return self.n_Out(outs[0])
        return self.bracket("(", ")", outs, self.n_Out)

    def x_ExternCall(self, node: t.ExternCall) -> Doc:
        return [f"extern {node.op}", self.args(node.args, None), " -> ", self.outs(node.outs)]

    def header(self, start: str, lists: list[tuple[t.Param, ...]], tail: list[Doc]) -> list[Doc]:
        """Parameter lists and results. When they do not fit on one line, the first list that has parameters breaks first."""
        docs = [self.params(p) for p in lists]
        line = layout([start, *docs, *tail, " {"], 10**9)
        if "\n" not in line and len(line) > WIDTH:
            longest = next((i for i, p in enumerate(lists) if p), 0)
            if isinstance(docs[longest], Group):
                docs[longest].broken = True  # type: ignore[union-attr]
        return [start, *docs, *tail]

    def n_Block(self, node: t.Block) -> Doc:
        word = "extern block" if node.body is None else "wrap block" if node.wrap else "block"
        head = self.header(f"{word} {node.name}", [node.params, node.inputs], [" -> ", self.outs(node.outs)])
        return [*self.doc_lines(node), *head, [" ", self.body(node.body)] if node.body is not None else ""]

    def n_Model(self, node: t.Model) -> Doc:
        start = f"model {node.name}"
        if node.base is not None:
            return [*self.doc_lines(node), start, self.params(node.params), f" of {node.base} with ", self.settings(node.edits)]
        if node.inputs is None:
            return [*self.doc_lines(node), start, self.params(node.params), " ", self.body(node.body)]
        stream = f" stream {node.stream}" if node.stream else ""
        head = self.header(start, [node.params, node.inputs], [" -> ", self.outs(node.outs), stream])
        return [*self.doc_lines(node), *head, " ", self.body(node.body)]

    def n_Entry(self, node: t.Entry) -> Doc:
        stream = f" stream {node.stream}" if node.stream else ""
        head = self.header(f"entry {node.name}", [node.inputs], [" -> ", self.outs(node.outs), stream])
        return [*self.doc_lines(node), *head, " ", self.body(node.body)]

    def n_Fn(self, node: t.Fn) -> Doc:
        head = self.header(f"fn {node.name}", [node.params], [" -> ", self.type(node.result)])
        return [*self.doc_lines(node), *head, " ", self.body(node.body)]

    def n_OpDecl(self, node: t.OpDecl) -> Doc:
        head = self.header(f"op {node.name}", [node.params], [" -> ", self.outs(node.outs)])
        return [*self.doc_lines(node), *head, [" ", self.body(node.body)] if node.body is not None else ""]

    # ------------------------------------------------------------ other declarations
    def n_Use(self, node: t.Use) -> Doc:
        if not node.names:
            return f"use {node.module}"
        names = self.items(node.names, self.n_UseName, node.span.end - 1 if self.written(node) else None, ",")
        inner: Doc = Fill([str(self.n_UseName(n)) for n in node.names]) if len(names) == len(node.names) else join(LINE, names)  # one: with comments
        return Group([f"use {node.module} {{", Indent([LINE, inner]), LINE, "}"])

    def n_Paper(self, node: t.Paper) -> Doc:
        return ["paper ", self.settings(node.settings)]

    def n_Record(self, node: t.Record) -> Doc:
        start, end = self.opening(node)
        lead = self.after_bracket(start)
        if not node.fields and not lead and not self.pending(end):
            return [*self.doc_lines(node), f"record {node.name} {{}}"]
        broken = start is not None and bool(node.fields) and self.breaks_at(start, node.fields[0])
        fields = self.items(node.fields, self.param, end, ",")
        return [*self.doc_lines(node), Group([f"record {node.name} {{", *lead, Indent([LINE, *join(LINE, fields)]), LINE, "}"], broken)]

    def n_Variant(self, node: t.Variant) -> Doc:
        parts = [*node.settings, *node.transforms, *node.claims]
        if self.written(node):
            parts.sort(key=lambda p: p.span.start)
        base = f" of {node.base}" if node.base else ""
        separator = "," if len(parts) == len(node.settings) else ";"
        start, end = self.opening(node)
        inside = self.row(node.settings, start, end) if len(parts) == len(node.settings) else None
        return [*self.doc_lines(node), f"variant {node.name}{base} ", inside or self.braces(parts, self.node, start, end, separator)]

    def row(self, settings: Sequence[t.Setting], start: int | None, end: int | None) -> Doc | None:
        """The settings of a variant fill their lines, as a row of a table of figures: None where there are comments or blank lines between them, or
        one is too long for a line."""
        written = "" if self.source is None or start is None else self.source.text[start:end]
        if not settings or self.pending(end) or re.search(r"\n[ \t]*\n", written):
            return None
        texts = [layout(self.setting(s), 10 * WIDTH) for s in settings]
        if any("\n" in text or len(text) > WIDTH - 4 for text in texts):
            return None
        return Group(["{", Indent([LINE, Fill(texts)]), LINE, "}"], "\n" in written)

    def n_Transform(self, node: t.Transform) -> Doc:
        written = self.written(node) and "(" in node.span.text.split("on ", 1)[0]
        args: Doc = self.args(node.args, None) if node.args or written else ""
        using = " using " + ", ".join(node.using) if node.using else ""
        return [f"transform {node.name}", args, f" on {node.selector}" if node.selector else "", using]

    def n_Claim(self, node: t.Claim) -> Doc:
        target = f"{node.target} " if node.target else ""
        return [*self.doc_lines(node), f"claim {target}", self.braces(node.items, self.n_ClaimItem, *self.opening(node))]

    def n_ClaimItem(self, node: t.ClaimItem) -> Doc:
        within: Doc = ""
        if node.within is not None:
            within = [" within ", self.expr(node.within[0], SUM), "%" if node.within[1] else ""]
        source = f" from {quote(node.source)}" if node.source is not None else ""
        return [self.item(node.expr), within, source, self.when(node.condition)]

    def item(self, node: t.Expr) -> Doc:
        """An expression that may stand under another one: it starts with neither `-` nor `not`, nor with a chain."""
        doc = self.expr(node)
        return ["(", doc, ")"] if self.starts_loosely(node, ANY) or _GLUES.match(layout(doc, 10**9)) else doc

    def starts_loosely(self, node: t.Expr, least: int) -> bool:
        """Is the first thing of an expression a chain, a block literal or a sign, without parentheses?"""
        if self.level(node) < least or (self.written(node) and node.span[1:] in self.parens):
            return False
        if isinstance(node, t.IsSome):
            return self.starts_loosely(node.operand, COAL)
        if isinstance(node, t.Binary):
            return self.starts_loosely(node.left, COAL if self.level(node) == COMPARE else self.level(node))
        return isinstance(node, (t.Chain, t.BlockLiteral, t.Unary))

    def n_Space(self, node: t.Space) -> Doc:
        return [*self.doc_lines(node), f"space {node.name} of {node.model} ", self.braces(node.items, self.item, *self.opening(node))]

    def n_Names(self, node: t.Names) -> Doc:
        models = ", ".join(node.models)
        return [*self.doc_lines(node), f"names {node.name} of {models} ", self.braces(node.lines, self.n_NameLine, *self.opening(node))]

    def n_NameLine(self, node: t.NameLine) -> Doc:
        foreign, when = quote(node.foreign), self.when(node.condition)
        if node.kind == "ignore":
            return [f"ignore {foreign}", when]
        if node.kind == "drop":
            return [f"drop {foreign} = ", self.expr(node.default) if node.default is not None else "", when]
        ops: list[Doc] = [[LINE, self.name_op(op)] for op in node.ops]
        word = "alias " if node.kind == "alias" else ""
        return Group([f"{word}{foreign} <-> {address_text(node.address or '')}", Indent(ops), when])

    def name_op(self, op: t.Expr) -> Doc:
        return op.func.id if isinstance(op, t.Call) and not op.args and isinstance(op.func, t.Name) else self.expr(op)


def print_node(node: t.Node) -> str:
    """The text of any node, as the formatter would write it, from the tree alone."""
    from archdsl.syntax.parser import deep

    with deep():
        return layout(Bare().node(node), WIDTH)


class Bare(Printer):
    """Prints trees that come from no text: blank lines between declarations, none elsewhere."""

    def n_Module(self, node: t.Module) -> Doc:
        out: list[Doc] = []
        for i, decl in enumerate(node.decls):
            if i:
                short = type(decl) is type(node.decls[i - 1]) and isinstance(decl, (t.Use, t.Variant, t.Claim))
                out.append(HARD if short else BLANK)
            out.append(self.node(decl))
        return [*out, HARD] if out else ""


__all__ = ["Bare", "Printer", "print_node"]
