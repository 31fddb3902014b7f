"""Values of grammar rules to nodes of the tree: one method for each rule, `(children, start, end) -> node`.

Children are tokens (kind, text, start, end), nodes, tuples of nodes, or None where something optional is absent.
"""
from __future__ import annotations

from typing import Any

from archdsl.syntax import tree as t
from archdsl.syntax.build_expressions import Base, Parts, text_of
from archdsl.syntax.build_statements import Statements
from archdsl.syntax.lexer import Token


class Builder(Statements):
    """Builds the tree of one source: rules of declarations, and those below."""

    # ------------------------------------------------------------ starts
    def start(self, c: Parts, start: int, end: int) -> Any:
        return t.Module(self.span(0, len(self.source.text)), tuple(c))

    def signature(self, c: Parts, start: int, end: int) -> Any:
        return t.OpDecl(self.span(start, end), c[0][1], tuple(c[1]), tuple(c[2]), None, self.doc(start))

    expression = override = Base.same

    def selection(self, c: Parts, start: int, end: int) -> Any:
        return c[0]

    # ------------------------------------------------------------ declarations
    def use(self, c: Parts, start: int, end: int) -> Any:
        return t.Use(self.span(start, end), c[0][1], tuple(n for n in c[1:] if n is not None))

    def use_name(self, c: Parts, start: int, end: int) -> Any:
        return t.UseName(self.span(start, end), c[0][1], text_of(c[1]))

    def paper(self, c: Parts, start: int, end: int) -> Any:
        return t.Paper(self.span(start, end), c[0])

    def record(self, c: Parts, start: int, end: int) -> Any:
        return t.Record(self.span(start, end), c[0][1], tuple(c[1:]), self.doc(start))

    def fn(self, c: Parts, start: int, end: int) -> Any:
        return t.Fn(self.span(start, end), c[0][1], c[1], c[2], c[3], self.doc(start))

    def op(self, c: Parts, start: int, end: int) -> Any:
        return t.OpDecl(self.span(start, end), c[0][1], c[1], c[2], c[3], self.doc(start))

    def block(self, c: Parts, start: int, end: int) -> Any:
        wrap, name, params, inputs, outs, body = c
        return t.Block(self.span(start, end), name[1], params, inputs, outs, body, wrap is not None, self.span(name[2], name[3]), self.doc(start))

    def extern(self, c: Parts, start: int, end: int) -> Any:
        return self.block([None, *c, None], start, end)

    def model(self, c: Parts, start: int, end: int) -> Any:
        name, params, inputs, outs, stream, body = c
        place = self.span(name[2], name[3])
        return t.Model(self.span(start, end), name[1], params, inputs, outs, text_of(stream), body, None, (), place, self.doc(start))

    def model_edit(self, c: Parts, start: int, end: int) -> Any:
        name, params, base, edits = c
        return t.Model(self.span(start, end), name[1], params, None, (), None, (), base[1], edits, self.span(name[2], name[3]), self.doc(start))

    def model_entries(self, c: Parts, start: int, end: int) -> Any:
        name, params, body = c
        return t.Model(self.span(start, end), name[1], params, None, (), None, body, None, (), self.span(name[2], name[3]), self.doc(start))

    def entry(self, c: Parts, start: int, end: int) -> Any:
        name, inputs, outs, stream, body = c
        return t.Entry(self.span(start, end), name[1], inputs, outs, text_of(stream), body, self.doc(start))

    def variant(self, c: Parts, start: int, end: int) -> Any:
        name, base, *parts = c
        settings = tuple(p for p in parts if isinstance(p, t.Setting))
        transforms = tuple(p for p in parts if isinstance(p, t.Transform))
        claims = tuple(p for p in parts if isinstance(p, t.Claim))
        return t.Variant(self.span(start, end), name[1], text_of(base), settings, transforms, claims, self.span(name[2], name[3]), self.doc(start))

    settings = Base.seq

    def setting(self, c: Parts, start: int, end: int) -> Any:
        address, value = c
        return t.Setting(self.span(start, end), address[1], value, self.span(address[2], address[3]))

    def transform(self, c: Parts, start: int, end: int) -> Any:
        (name, args), selector, using = c
        return t.Transform(self.span(start, end), name[1], args or (), text_of(selector), using or ())

    def step_call(self, c: Parts, start: int, end: int) -> Any:
        return c

    def using(self, c: Parts, start: int, end: int) -> Any:
        return tuple(n[1] for n in c)

    def claim(self, c: Parts, start: int, end: int) -> Any:
        return t.Claim(self.span(start, end), text_of(c[0]), tuple(c[1:]), self.doc(start))

    def claim_item(self, c: Parts, start: int, end: int) -> Any:
        expr, within, source, condition = c
        return t.ClaimItem(self.span(start, end), expr, within, None if source is None else self.unquote(source), condition)

    def within(self, c: Parts, start: int, end: int) -> Any:
        return c[0], False

    def within_percent(self, c: Parts, start: int, end: int) -> Any:
        _, text, a, b = c[0]
        return self.number([(0, text[:-1], a, b - 1)], a, b - 1), True

    def space(self, c: Parts, start: int, end: int) -> Any:
        return t.Space(self.span(start, end), c[0][1], c[1][1], tuple(c[2:]), self.doc(start))

    def names(self, c: Parts, start: int, end: int) -> Any:
        return t.Names(self.span(start, end), c[0][1], c[1], tuple(c[2:]), self.doc(start))

    def named_models(self, c: Parts, start: int, end: int) -> Any:
        return tuple(model[1] for model in c)

    def map_name(self, c: Parts, start: int, end: int) -> Any:
        return self.name_line(start, end, "map", c[0], c[1], tuple(c[2:-1]), None, c[-1])

    def alias_name(self, c: Parts, start: int, end: int) -> Any:
        return self.name_line(start, end, "alias", c[0], c[1], tuple(c[2:-1]), None, c[-1])

    def drop_name(self, c: Parts, start: int, end: int) -> Any:
        return self.name_line(start, end, "drop", c[0], None, (), c[1], c[2])

    def ignore_name(self, c: Parts, start: int, end: int) -> Any:
        return self.name_line(start, end, "ignore", c[0], None, (), None, c[1])

    def name_line(self, start: int, end: int, kind: str, foreign: Token, address: Token | None, ops: tuple[t.Expr, ...], default: t.Expr | None,
                  condition: t.Expr | None) -> t.NameLine:
        return t.NameLine(self.span(start, end), kind, self.unquote(foreign), text_of(address), ops, default, condition)

    def name_op(self, c: Parts, start: int, end: int) -> Any:
        return t.Call(self.span(start, end), self.name(c, c[0][2], c[0][3]), c[1] or ())

    # ------------------------------------------------------------ names
    dotted = address = segment = alternatives = Base.token

    def selector_text(self, c: Parts, start: int, end: int) -> Any:
        """The selector as it is written, on one line."""
        lines = self.source.text[start:end].split("\n")
        return 0, " ".join(" ".join(line.split("#", 1)[0].split("///", 1)[0] for line in lines).split()), start, end

    select_and = select_or = select_minus = select_kind = select_call = select_group = select_path = selector_text


METHOD = {name: name + "_" for name in ("yield", "return", "tuple", "list", "set", "range", "slice")}  # words of Python, and its types
