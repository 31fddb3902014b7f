"""Values of the rules of statements."""
from __future__ import annotations

from typing import Any

from archdsl.syntax import tree as t
from archdsl.syntax.build_expressions import Base, Parts, text_of
from archdsl.syntax.build_types import Types


class Statements(Types):
    """Rules of statements."""

    body = Base.seq

    def assign(self, c: Parts, start: int, end: int) -> Any:
        targets = tuple(x for x in c if type(x) is t.Target)
        return t.Assign(self.span(start, end), targets, tuple(c[len(targets):]))

    def extern_call(self, c: Parts, start: int, end: int) -> Any:
        return t.ExternCall(self.span(start, end), c[0][1], c[1], c[2])

    def target(self, c: Parts, start: int, end: int) -> Any:
        return t.Target(self.span(start, end), c[0][1], c[1])

    def require(self, c: Parts, start: int, end: int) -> Any:
        return t.Require(self.span(start, end), c[0], None if c[1] is None else self.unquote(c[1]))

    def default(self, c: Parts, start: int, end: int) -> Any:
        return t.Default(self.span(start, end), c[0][1], c[1])

    def share(self, c: Parts, start: int, end: int) -> Any:
        name, address, of, value, condition = c
        first = None if of is None else t.Name(self.span(of[2], of[3]), of[1])
        return t.Share(self.span(start, end), name[1], value, condition, self.span(name[2], name[3]), (address or name)[1], first)

    def param_decl(self, c: Parts, start: int, end: int) -> Any:
        return self.weight("param" if c[0] is None else "frozen", c[1:], start, end)

    def buffer(self, c: Parts, start: int, end: int) -> Any:
        return self.weight("buffer", c, start, end)

    def weight(self, kind: str, c: Parts, start: int, end: int) -> t.ParamDecl:
        name, address, type_, init, condition = c
        return t.ParamDecl(self.span(start, end), kind, name[1], (address or name)[1], type_, init, condition, self.span(name[2], name[3]))

    def const(self, c: Parts, start: int, end: int) -> Any:
        name, address, type_, value = c
        return t.Const(self.span(start, end), name[1], type_, value, address[1] if address else "")

    def draw(self, c: Parts, start: int, end: int) -> Any:
        return t.Draw(self.span(start, end), c[0][1], c[1], c[2])

    def control(self, c: Parts, start: int, end: int) -> Any:
        return t.Control(self.span(start, end), c[0][1], c[1], c[2], c[3])

    def emit(self, c: Parts, start: int, end: int) -> Any:
        return t.Emit(self.span(start, end), c[0][1], c[1])

    def update(self, c: Parts, start: int, end: int) -> Any:
        return t.Update(self.span(start, end), c[0][1], c[1])

    def static(self, c: Parts, start: int, end: int) -> Any:
        return t.Static(self.span(start, end), tuple(n[1] for n in c))

    def next(self, c: Parts, start: int, end: int) -> Any:
        return t.Next(self.span(start, end), c[0][1], c[1])

    def yield_(self, c: Parts, start: int, end: int) -> Any:
        return t.Yield(self.span(start, end), tuple(c))

    def return_(self, c: Parts, start: int, end: int) -> Any:
        values, names = c[0]
        return t.Return(self.span(start, end), values, names)

    def loop(self, c: Parts, start: int, end: int) -> Any:
        return t.For(self.span(start, end), text_of(c[0]), c[1], c[2], c[3])

    def patterns(self, c: Parts, start: int, end: int) -> Any:
        return c[0] if len(c) == 1 else t.Pattern(self.span(start, end), None, tuple(c))

    def pattern(self, c: Parts, start: int, end: int) -> Any:
        return t.Pattern(self.span(start, end), c[0][1])

    def pattern_items(self, c: Parts, start: int, end: int) -> Any:
        return t.Pattern(self.span(start, end), None, tuple(c))

    def if_stmt(self, c: Parts, start: int, end: int) -> Any:
        otherwise = c[-1]
        return t.If(self.span(start, end), tuple(zip(c[:-1:2], c[1:-1:2])), otherwise or (), otherwise is not None)

    def match_stmt(self, c: Parts, start: int, end: int) -> Any:
        return t.Match(self.span(start, end), c[0], tuple(c[1:]))

    def match_arm(self, c: Parts, start: int, end: int) -> Any:
        return t.MatchArm(self.span(start, end), c[0], c[1])

    expr_arm = match_arm

    def arm_patterns(self, c: Parts, start: int, end: int) -> Any:
        return tuple(t.Some(x.span) if type(x) is t.Name and x.id == "some" else x for x in c)

    def choose(self, c: Parts, start: int, end: int) -> Any:
        name, *arms, default, args = c
        return t.Choose(self.span(start, end), name[1], tuple(arms), default[1], args or (), self.span(name[2], name[3]))

    def choose_arm(self, c: Parts, start: int, end: int) -> Any:
        return t.ChooseArm(self.span(start, end), c[0][1], c[1] or (), c[2])

    def island(self, c: Parts, start: int, end: int) -> Any:
        return t.Island(self.span(start, end), c[0][1], c[1])

    def scan(self, c: Parts, start: int, end: int) -> Any:
        inputs, axis, *carries, merge, identity, body = c
        return t.Scan(self.span(start, end), inputs, axis[1], tuple(carries), merge, identity, body)

    def scan_inputs(self, c: Parts, start: int, end: int) -> Any:
        return tuple(n[1] for n in c)

    def carry(self, c: Parts, start: int, end: int) -> Any:
        return t.Carry(self.span(start, end), c[0][1], c[1], c[2])
