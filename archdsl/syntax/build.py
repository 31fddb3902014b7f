"""Values of grammar rules to nodes of the tree: one method for each rule, `(children, start, end) -> node`.

Children are tokens (kind, text, start, end), nodes, tuples of nodes, or None where something optional is absent.
"""
from __future__ import annotations

from fractions import Fraction
from typing import Any

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source, Span
from archdsl.syntax import tree as t
from archdsl.syntax.lexer import Token

SUFFIX = {"k": 3, "M": 6, "G": 9, "T": 12}
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}
MAX_DIGITS = 400
MAX_EXPONENT = 400

Parts = list[Any]
_new_tuple: Any = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _text(token: Any) -> str | None:
    return None if token is None else token[1]


class Builder:
    """Builds the tree of one source. `faults` are mistakes inside tokens; `parens` the spans of written parentheses around expressions."""

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

    # ------------------------------------------------------------ starts
    def start(self, c: Parts, start: int, end: int) -> Any:
        return t.Module(self.span(0, len(self.source.text)), tuple(c))

    def signature(self, c: Parts, start: int, end: int) -> Any:
        return t.OpDecl(self.span(start, end), c[0][1], tuple(c[1]), tuple(c[2]), None, self.doc(start))

    expression = override = same

    def selection(self, c: Parts, start: int, end: int) -> Any:
        return c[0]

    # ------------------------------------------------------------ declarations
    def use(self, c: Parts, start: int, end: int) -> Any:
        return t.Use(self.span(start, end), c[0][1], tuple(n for n in c[1:] if n is not None))

    def use_name(self, c: Parts, start: int, end: int) -> Any:
        return t.UseName(self.span(start, end), c[0][1], _text(c[1]))

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
        return t.Model(self.span(start, end), name[1], params, inputs, outs, _text(stream), body, None, (), place, self.doc(start))

    def model_edit(self, c: Parts, start: int, end: int) -> Any:
        name, params, base, edits = c
        return t.Model(self.span(start, end), name[1], params, None, (), None, (), base[1], edits, self.span(name[2], name[3]), self.doc(start))

    def model_entries(self, c: Parts, start: int, end: int) -> Any:
        name, params, body = c
        return t.Model(self.span(start, end), name[1], params, None, (), None, body, None, (), self.span(name[2], name[3]), self.doc(start))

    def entry(self, c: Parts, start: int, end: int) -> Any:
        name, inputs, outs, stream, body = c
        return t.Entry(self.span(start, end), name[1], inputs, outs, _text(stream), body, self.doc(start))

    def variant(self, c: Parts, start: int, end: int) -> Any:
        name, base, *parts = c
        settings = tuple(p for p in parts if isinstance(p, t.Setting))
        transforms = tuple(p for p in parts if isinstance(p, t.Transform))
        claims = tuple(p for p in parts if isinstance(p, t.Claim))
        return t.Variant(self.span(start, end), name[1], _text(base), settings, transforms, claims, self.span(name[2], name[3]), self.doc(start))

    settings = seq

    def setting(self, c: Parts, start: int, end: int) -> Any:
        address, value = c
        return t.Setting(self.span(start, end), address[1], value, self.span(address[2], address[3]))

    def transform(self, c: Parts, start: int, end: int) -> Any:
        (name, args), selector, using = c
        return t.Transform(self.span(start, end), name[1], args or (), _text(selector), using or ())

    def step_call(self, c: Parts, start: int, end: int) -> Any:
        return c

    def using(self, c: Parts, start: int, end: int) -> Any:
        return tuple(n[1] for n in c)

    def claim(self, c: Parts, start: int, end: int) -> Any:
        return t.Claim(self.span(start, end), _text(c[0]), tuple(c[1:]), self.doc(start))

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
        return t.Names(self.span(start, end), c[0][1], c[1][1], tuple(c[2:]), self.doc(start))

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
        return t.NameLine(self.span(start, end), kind, self.unquote(foreign), _text(address), ops, default, condition)

    def name_op(self, c: Parts, start: int, end: int) -> Any:
        return t.Call(self.span(start, end), self.name(c, c[0][2], c[0][3]), c[1] or ())

    # ------------------------------------------------------------ parameters and types
    params = args = seq

    def field(self, c: Parts, start: int, end: int) -> Any:
        name, type_, default = c[:3]
        domain = c[3] if len(c) > 3 else None
        return t.Param(self.span(start, end), name[1], type_, default, domain, False, False, self.doc(start))

    def param_inner(self, c: Parts, start: int, end: int) -> Any:
        _, name, type_, default = c
        return t.Param(self.span(start, end), name[1], type_, default, None, True, False, self.doc(start))

    def param_rest(self, c: Parts, start: int, end: int) -> Any:
        return t.Param(self.span(start, end), "..." if c[0] is None else c[0][1], None, None, None, False, True, self.doc(start))

    outs = plain

    def out(self, c: Parts, start: int, end: int) -> Any:
        return t.Out(self.span(start, end), _text(c[0]), c[1])

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
        return t.Ragged(self.span(start, end), c[0][1])

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

    # ------------------------------------------------------------ statements
    body = seq

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
        name, address, value, condition = c
        return t.Share(self.span(start, end), name[1], value, condition, self.span(name[2], name[3]), (address or name)[1])

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
        return t.For(self.span(start, end), _text(c[0]), c[1], c[2], c[3])

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

    # ------------------------------------------------------------ expressions
    def name(self, c: Parts, start: int, end: int) -> Any:
        return t.Name(_new_tuple(Span, (self.source, start, end)), c[0][1])

    def number(self, c: Parts, start: int, end: int) -> Any:
        text = self.digits(c[0])
        plain = text.replace("_", "")
        if plain.isdecimal():
            return t.Number(self.span(start, end), int(plain), text)
        power = SUFFIX.get(plain[-1], 0)
        mantissa, _, exponent = (plain[:-1] if power else plain).lower().partition("e")
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

    # ------------------------------------------------------------ names
    dotted = address = segment = alternatives = token

    def selector_text(self, c: Parts, start: int, end: int) -> Any:
        """The selector as it is written, on one line."""
        lines = self.source.text[start:end].split("\n")
        return 0, " ".join(" ".join(line.split("#", 1)[0].split("///", 1)[0] for line in lines).split()), start, end

    select_and = select_or = select_minus = select_kind = select_call = select_group = select_path = selector_text

    # ------------------------------------------------------------
    def fault(self, code: str, message: str, start: int, end: int, label: str, help: str = "") -> None:
        self.faults.append(Diagnostic(code, message, self.span(start, end), label, help=(help,) if help else ()))


METHOD = {name: name + "_" for name in ("yield", "return", "tuple", "list", "set", "range", "slice")}  # words of Python, and its types
