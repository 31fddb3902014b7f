"""Values of the rules of parameters, types and shapes."""
from __future__ import annotations

from typing import Any

from archdsl.syntax import tree as t
from archdsl.syntax.build_expressions import Base, Expressions, Parts, text_of
from archdsl.syntax.lexer import Token


class Types(Expressions):
    """Rules of parameters, types and shapes."""

    params = args = Base.seq

    def field(self, c: Parts, start: int, end: int) -> Any:
        name, type_, default = c[:3]
        domain = c[3] if len(c) > 3 else None
        return t.Param(self.span(start, end), name[1], type_, default, domain, False, False, self.doc(start))

    def param_inner(self, c: Parts, start: int, end: int) -> Any:
        _, name, type_, default = c
        return t.Param(self.span(start, end), name[1], type_, default, None, True, False, self.doc(start))

    def param_rest(self, c: Parts, start: int, end: int) -> Any:
        return t.Param(self.span(start, end), "..." if c[0] is None else c[0][1], None, None, None, False, True, self.doc(start))

    outs = Base.plain

    def out(self, c: Parts, start: int, end: int) -> Any:
        return t.Out(self.span(start, end), text_of(c[0]), c[1])

    def union(self, c: Parts, start: int, end: int) -> Any:
        return t.UnionType(self.span(start, end), tuple(c))

    def optional(self, c: Parts, start: int, end: int) -> Any:
        return t.OptionalType(self.span(start, end), c[0])

    def tensor_type(self, c: Parts, start: int, end: int) -> Any:
        return t.TensorType(self.span(start, end), None, c[0])

    def tensor_type_of(self, c: Parts, start: int, end: int) -> Any:
        return t.TensorType(self.span(start, end), c[0][1], c[1])

    def name_type(self, c: Parts, start: int, end: int) -> Any:
        return t.NameType(self.span(start, end), c[0][1])

    def literal_type(self, c: Parts, start: int, end: int) -> Any:
        return t.LiteralType(self.span(start, end), self.unquote(c[0]))

    def list_type(self, c: Parts, start: int, end: int) -> Any:
        return t.ListType(self.span(start, end), c[0], c[1])

    def tuple_type(self, c: Parts, start: int, end: int) -> Any:
        return t.TupleType(self.span(start, end), tuple(c))

    def each(self, c: Parts, start: int, end: int) -> Any:
        return t.Each(self.span(start, end), None, c[0])

    def each_by(self, c: Parts, start: int, end: int) -> Any:
        return t.Each(self.span(start, end), c[0][1], c[1])

    # ------------------------------------------------------------ shapes
    def shape(self, c: Parts, start: int, end: int) -> Any:
        return t.Shape(self.span(start, end), tuple(a for a in c if a is not None))

    def axis_sized(self, c: Parts, start: int, end: int) -> Any:
        return t.AxisSized(self.span(start, end), c[0][1], c[1])

    def any_axes(self, c: Parts, start: int, end: int) -> Any:
        return t.AnyAxes(self.span(start, end))

    def axes_var(self, c: Parts, start: int, end: int) -> Any:
        return t.AxesVar(self.span(start, end), c[1][1])

    def ragged(self, c: Parts, start: int, end: int) -> Any:
        return t.Ragged(self.span(start, end), c[0][1], c[1] if len(c) > 1 else None)

    def bounded(self, c: Parts, start: int, end: int) -> Any:
        return t.Bounded(self.span(start, end), c[0][1], c[2])

    def axis_arith(self, c: Parts, start: int, end: int) -> Any:
        """Operators of one level, from the left."""
        self.longest = max(self.longest, len(c) // 2)
        left = c[0]
        for i in range(1, len(c), 2):
            right = c[i + 1]
            left = t.AxisOp(self.span(start, right.span[2]), c[i][1], (left, right))
        return left

    def axis_int(self, c: Parts, start: int, end: int) -> Any:
        return t.AxisInt(self.span(start, end), int(self.digits(c[0])))

    def axis_name(self, c: Parts, start: int, end: int) -> Any:
        expr = c[0]
        return t.AxisName(expr.span, expr.id) if type(expr) is t.Name else t.AxisField(expr.span, expr)

    def dname(self, c: Parts, start: int, end: int) -> Any:
        first = c[0]
        head = t.Name(self.span(first[2], first[3]), first[1])
        return self.postfix([head, *c[1:]], start, end) if len(c) > 1 else head

    def factors(self, c: Parts, start: int, end: int) -> Any:
        return t.AxisFactors(self.span(start, end), tuple(c))

    def axis_call(self, c: Parts, start: int, end: int) -> Any:
        return t.AxisOp(self.span(start, end), c[0][1], tuple(c[1:]))

    def layout(self, c: Parts, start: int, end: int) -> Any:
        return tuple(c)

    def layout_call(self, c: Parts, start: int, end: int) -> Any:
        word, layout, *args = c
        return t.LayoutCall(self.span(start, end), word[1], layout[:-1], layout[-1], None, tuple(args))

    def layout_named(self, c: Parts, start: int, end: int) -> Any:
        word, name, *args = c
        return t.LayoutCall(self.span(start, end), word[1], (), None, self.dotted_expr(name), tuple(args))

    def layout_on(self, c: Parts, start: int, end: int) -> Any:
        word, value, layout, *args = c
        return t.LayoutCall(self.span(start, end), word[1], layout[:-1], layout[-1], None, tuple(args), value)

    def dotted_expr(self, token: Token) -> t.Expr:
        """`a.b` as an expression."""
        _, text, start, _ = token
        first, *rest = text.split(".")
        node = t.Name(self.span(start, start + len(first)), first)
        at = start + len(first)
        for part in rest:
            at = self.source.text.index(part, at)
            node = t.Member(self.span(start, at + len(part)), node, part, self.span(at, at + len(part)))
            at += len(part)
        return node
