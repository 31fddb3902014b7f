"""Each construct as a tree."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from archdsl.source import NOWHERE as S
from archdsl.source import Source
from archdsl.syntax import tree as t
from archdsl.syntax.parser import parse, parse_expression, parse_selector, parse_setting, parse_signature, parse_transform
from archdsl.syntax.printer import print_node
from tests.syntax.helpers import decl, expression, module, statement, statements
from tests.syntax.texts import TEXTS


def n(id: str) -> t.Name:
    return t.Name(S, id)


def i(value) -> t.Number:
    return t.Number(S, value, "")


def binary(op: str, left, right) -> t.Binary:
    return t.Binary(S, op, left, right, S)


def shown(node: t.Expr) -> str:
    """An expression with all its parentheses."""
    if isinstance(node, t.Binary):
        return f"({shown(node.left)} {node.op} {shown(node.right)})"
    if isinstance(node, t.Unary):
        return f"({node.op} {shown(node.operand)})"
    if isinstance(node, t.IsSome):
        return f"({shown(node.operand)} is {'none' if node.negate else 'some'})"
    if isinstance(node, t.Named):
        return f"({shown(node.expr)} as {node.name})"
    if isinstance(node, t.Edited):
        return f"({shown(node.expr)} with)"
    if isinstance(node, t.Chain):
        return "(" + f" {node.op} ".join(shown(item) for item in node.items) + ")"
    if isinstance(node, t.Call):
        return f"{shown(node.func)}({', '.join(shown(a.value) for a in node.args)})"
    return print_node(node)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a * b / c // d % e @ f", "(((((a * b) / c) // d) % e) @ f)"),
        ("-a ** 2", "(- (a ** 2))"),
        ("2 ** -a ** b", "(2 ** (- (a ** b)))"),
        ("a ** b ** c", "(a ** (b ** c))"),
        ("-a * -b", "((- a) * (- b))"),
        ("not a == b and c or d", "(((not (a == b)) and c) or d)"),
        ("a or b and not c in d", "(a or (b and (not (c in d))))"),
        ("a + 1 < b * 2", "((a + 1) < (b * 2))"),
        ("a not in {1, 2} and b in 1..3", "((a not in {1, 2}) and (b in 1..3))"),
        ("x is some and y is none", "((x is some) and (y is none))"),
        ("x + f(x) as y", "(x + (f(x) as y))"),
        ("f(x) as y ** 2", "((f(x) as y) ** 2)"),
        ("A with { b = 1 } as c", "((A with) as c)"),
        ("x |> f(1) as a |> g", "(x |> (f(1) as a) |> g)"),
        ("f >> g", "(f >> g)"),
        ("(a |> f) + 1", "((a |> f) + 1)"),
        ("a ?? b", "(a ?? b)"),
        ("causal & window(3) & keys(v)", "(causal & window(3) & keys(v))"),
        ("a ?? b == c", "((a ?? b) == c)"),
    ],
)
def test_precedence(text: str, tree: str):
    assert shown(expression(text)) == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("32_000", 32_000),
        ("0.5", Fraction(1, 2)),
        ("1e-6", Fraction(1, 10**6)),
        ("4.456G", Fraction(4_456_000_000)),
        ("30M", Fraction(30_000_000)),
        ("2.5ms", Fraction(1, 400)),
        ("800us", Fraction(1, 1250)),
        ("2k", Fraction(2000)),
        ("1T", Fraction(10**12)),
        ("1.5E3", Fraction(1500)),
        ("9" * 300, int("9" * 300)),
    ],
)
def test_numbers_are_exact(text: str, value):
    found = expression(text)
    assert found == i(value)
    assert isinstance(found.value, int) == isinstance(value, int)
    assert found.text == text


def test_literals():
    assert expression(r'"a \"b\" \\ \n \t {c}"') == t.Str(S, 'a "b" \\ \n \t {c}')
    assert expression("[true, false, none]") == t.List(S, (t.Bool(S, True), t.Bool(S, False), t.NoneLit(S)))
    assert expression("(a,)") == t.Tuple(S, (n("a"),))
    assert expression("(a, b,)") == t.Tuple(S, (n("a"), n("b")))
    assert expression("[2..4, 6..<27 step 3]") == t.List(S, (t.Range(S, i(2), i(4), True), t.Range(S, i(6), i(27), False, i(3))))


def test_postfix():
    assert expression("f(1)(x, ..., ...cfg, k = v).weight.0[1:, none, ..., :2:3]") == t.Item(
        S,
        t.Member(
            S,
            t.Member(
                S,
                t.Call(
                    S,
                    t.Call(S, n("f"), (t.Arg(S, None, i(1)),)),
                    (t.Arg(S, None, n("x")), t.Arg(S, None, t.Rest(S)), t.Arg(S, None, n("cfg"), None, True), t.Arg(S, "k", n("v"), S)),
                ),
                "weight",
                S,
            ),
            "0",
            S,
        ),
        (t.Slice(S, i(1), None, None), t.NoneLit(S), t.Rest(S), t.Slice(S, None, i(2), i(3))),
    )


def test_control_expressions():
    assert expression("if a { 1, 2 } else if b { 3, 4 } else { 5, 6 }") == t.IfExpr(S, ((n("a"), (i(1), i(2))), (n("b"), (i(3), i(4)))), (i(5), i(6)))
    assert expression('match k { "a" | 1 => x; some => y; none => z }') == t.MatchExpr(
        S, n("k"), (t.MatchArm(S, (t.Str(S, "a"), i(1)), n("x")), t.MatchArm(S, (t.Some(S),), n("y")), t.MatchArm(S, (t.NoneLit(S),), n("z")))
    )
    assert expression("phase { train => a, b eval => c, d }") == t.PhaseExpr(S, (("train", (n("a"), n("b"))), ("eval", (n("c"), n("d")))))
    assert expression("block(x, m: [B]) => x |> f") == t.BlockLiteral(
        S, (("x", None), ("m", t.TensorType(S, None, t.Shape(S, (t.AxisName(S, "B"),))))), t.Chain(S, "|>", (n("x"), n("f")))
    )
    assert expression("[2 * i for i, (a, b) in xs if i > 1]") == t.Comprehension(
        S,
        binary("*", i(2), n("i")),
        t.Pattern(S, None, (t.Pattern(S, "i"), t.Pattern(S, None, (t.Pattern(S, "a"), t.Pattern(S, "b"))))),
        n("xs"),
        binary(">", n("i"), i(1)),
    )


def shape(*names: str) -> t.Shape:
    return t.Shape(S, tuple(t.AxisName(S, name) for name in names))


def test_layouts():
    merged = t.Shape(S, (t.AxisName(S, "B"), t.AxisFactors(S, (t.AxisName(S, "t"), t.AxisName(S, "m")))))
    m = t.Arg(S, "m", i(2), S)
    assert expression("rearrange([B, (t m)] -> [B, t, m], m = 2)") == t.LayoutCall(S, "rearrange", (merged,), shape("B", "t", "m"), None, (m,))
    assert expression("rearrange(x.y[0], [B, (t m)] -> [B, t, m], m = 2)").value == t.Item(S, t.Member(S, n("x"), "y", S), (i(0),))
    assert expression("einsum([a, b], [b, c] -> [a, c])(x, y)").func == t.LayoutCall(
        S, "einsum", (shape("a", "b"), shape("b", "c")), shape("a", "c"), None, ()
    )
    assert expression("under(grid.tokens, f)") == t.LayoutCall(S, "under", (), None, t.Member(S, n("grid"), "tokens", S), (t.Arg(S, None, n("f")),))
    assert expression("layout([B, c] -> [c, B])").word == "layout"


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[...]",
        "[*s]",
        "[B = 1, 3, H = 224]",
        "[ragged T]",
        "[ragged T = 3 * n]",
        "[some V <= 3 * n]",
        "[(3 heads width), inner]",
        "[(...), d]",
        "[(Y (X 2)), d]",
        "[side / 8, 1 + cells, n // 2 % 3 - 1]",
        "[a ** 2, (a + b) ** 2]",
        "[floordiv(n, 2), ceildiv(n + 1, k), mod(a, b), min(a, b, c), max(a, 3)]",
        "[widths[0], widths[i + 1], spec.w * 2, stages[0].width]",
        "[heads * (q + 1) - (a - b)]",
        "[ragged, some, step]",
    ],
)
def test_shapes_print_as_written(text: str):
    (param,) = decl(f"op f(x: {text}) -> [a]").params
    assert print_node(param.type) == text


def test_axes():
    (param,) = decl("op f(x: [B = 1, ragged T, some V <= n, *s, (h w), max(a, 2), w[0]]) -> [a]").params
    assert param.type.shape.axes == (
        t.AxisSized(S, "B", t.AxisInt(S, 1)),
        t.Ragged(S, "T"),
        t.Bounded(S, "V", t.AxisName(S, "n")),
        t.AxesVar(S, "s"),
        t.AxisFactors(S, (t.AxisName(S, "h"), t.AxisName(S, "w"))),
        t.AxisOp(S, "max", (t.AxisName(S, "a"), t.AxisInt(S, 2))),
        t.AxisField(S, t.Item(S, n("w"), (i(0),))),
    )


@pytest.mark.parametrize(
    "text",
    [
        "int",
        "float?",
        "block",
        "lib.Config?",
        "list[int; 4]",
        "list[list[int; 2]; depth + 1]",
        "list[(int, str)]",
        '"pre" | "post"',
        "int | none_like",
        "(int, f32[B])",
        "f32[..., experts]",
        "int[B, T]?",
        "[o]?",
        "list[[...]]",
        "bool",
    ],
)
def test_types_print_as_written(text: str):
    (param,) = decl(f"op f(x: {text}) -> [a]").params
    assert print_node(param.type) == text


def test_parameters():
    block = decl(
        "block A(a: int = 3 in {1, 2}, b: block = f >> g in {x}, c: block = block(x) => x, _ f: block = h, ...Config)"
        "(x: [d] in 0..<9, ...) -> (y: [d], p: f32[d]) { return x }"
    )
    a, b, c, f, config = block.params
    assert (a.default, a.domain) == (i(3), t.SetLit(S, (i(1), i(2))))
    assert (b.default, b.domain) == (t.Chain(S, ">>", (n("f"), n("g"))), t.SetLit(S, (n("x"),)))
    assert c.default == t.BlockLiteral(S, (("x", None),), n("x"))
    assert (f.name, f.anonymous, f.default) == ("f", True, n("h"))
    assert (config.name, config.rest) == ("Config", True)
    x, rest = block.inputs
    assert x.domain == t.Range(S, i(0), i(9), False)
    assert (rest.name, rest.rest) == ("...", True)
    assert [o.name for o in block.outs] == ["y", "p"]


@pytest.mark.parametrize(
    "text",
    [
        "a: int in each {1, 2}",
        "a: int in each [2..4, 6..27 step 3]",
        "a: int in each w => multiples(32, w / 2)",
        "a: int = heads in {1, heads}",
        "a: int in 512..8192 step 128",
        "a: int = (b == c)",
        "a: float = head_dim ** -0.5",
        "a: bool = (not b)",
        "a: block = x |> f",
    ],
)
def test_domains_and_defaults_print_as_written(text: str):
    (param,) = decl(f"block A({text})() -> [a] {{}}").params
    assert print_node(param) == text


def test_statements():
    found = statements("""
      a, b: [d] = f(x), g
      require a == b, "a ({a}) is not b"
      default lib.Linear(bias = false); default Norm()
      share s = T when c
      param shift as bias: [d] = zeros() when bias
      frozen param base: [d] = zeros()
      buffer u: [d] = ones()
      const table: int[4] = iota(4)
      draw noise = normal()
      control tau: float = 1 in 0..2
      emit x
      emit y = x + 1
      update u = v
      static H, W
      f32 { z = x }
      yield a, b
      next s = a
      return logits = x, y
    """)
    assert [type(s).__name__ for s in found] == (
        "Assign Require Default Default Share ParamDecl ParamDecl ParamDecl Const Draw Control Emit Emit Update Static Island Yield Next Return"
    ).split()
    assert [(x.name, x.type is not None) for x in found[0].targets] == [("a", False), ("b", True)]
    assert len(found[0].values) == 2
    assert found[1].message == "a ({a}) is not b"
    assert found[2].block == "lib.Linear"
    assert (found[5].kind, found[5].name, found[5].address, found[5].condition) == ("param", "shift", "bias", n("bias"))
    assert [s.kind for s in found[6:8]] == ["frozen", "buffer"]
    assert found[10].domain == t.Range(S, i(0), i(2), True)
    assert found[14].names == ("H", "W")
    assert found[15].dtype == "f32"
    assert found[18].names == ("logits", None)


def test_loops_and_branches():
    loop = statement("layers: for i, (a, b) in enumerate(xs) { y = a }")
    assert (loop.label, [p.name for p in loop.pattern.items]) == ("layers", ["i", None])
    assert statement("for i in 0..<n step 2 { }").iterable == t.Range(S, i(0), n("n"), False, i(2))
    branch = statement("if a { x = 1 } else if b { } else { x = 2 }")
    assert (len(branch.branches), len(branch.otherwise), branch.has_else) == (2, 1, True)
    assert not statement("if a { x = 1 }").has_else
    match = statement('match k { "a" | none => { x = 1 } some => { } }')
    assert [a.patterns for a in match.arms] == [(t.Str(S, "a"), t.NoneLit(S)), (t.Some(S),)]


def test_choose_and_scan():
    choose = statement("choose mixer { conv(k: int = 7 in {3, 5}) => Conv(k); none_at_all => zero } = conv(k = 5)")
    assert (choose.name, [a.name for a in choose.arms], choose.default) == ("mixer", ["conv", "none_at_all"], "conv")
    assert choose.default_args == (t.Arg(S, "k", i(5), S),)
    scan = statement("scan (q, k) over T carry s: f32[B] = zeros(), m: [] = 1 by add identity zero { next s = q yield s }")
    assert (scan.inputs, scan.axis, [c.name for c in scan.carries]) == (("q", "k"), "T", ["s", "m"])
    assert (scan.merge, scan.identity) == (n("add"), n("zero"))
    assert statement("scan x over T carry s: [] = 0 { yield s }").merge is None


def test_declarations():
    use = decl("use std.norm { LayerNorm, RMSNorm as N, }")
    assert (use.module, [(u.name, u.alias) for u in use.names]) == ("std.norm", [("LayerNorm", None), ("RMSNorm", "N")])
    assert decl("use std.norm").names == ()
    paper = decl('paper { title = "T"  arxiv = "1"; year = 2020 }')
    assert [s.address for s in paper.settings] == ["title", "arxiv", "year"]
    assert [f.name for f in decl("record R { a: int = 3, b: str c: int }").fields] == ["a", "b", "c"]
    assert decl("fn f(n: int) -> list[str] { return [] }").result == t.ListType(S, t.NameType(S, "str"), None)
    assert decl("op f(x: [a]) -> [a]").body is None
    assert len(decl("op f(x: [a]) -> [a] { return x }").body) == 1
    assert decl("wrap block P(norm: block, _ f: block)(x: [d], ...) -> [d] { return x }").wrap
    extern = decl("extern block F(size: int)(x: [B]) -> [B]")
    assert (extern.body, extern.wrap) == (None, False)


def test_models():
    model = decl("model M(d: int)(x: int[B, T]) -> y: [B, T, d] stream T { return x }")
    assert (model.stream, model.inputs[0].name, model.outs[0].name) == ("T", "x", "y")
    several = decl("model M(d: int) { entry a(x: [B]) -> [B] stream B { return x } entry b() -> [B] { } }")
    assert (several.inputs, [e.name for e in several.body], several.body[0].stream) == (None, ["a", "b"], "B")
    edit = decl("model L(rank: int = 8) of llama.Llama with { layers.*.attn.{q, v} = LowRank(inner, rank), a.{2 * i + 1} = 3 }")
    assert (edit.base, [s.address for s in edit.edits]) == ("llama.Llama", ["layers.*.attn.{q,v}", "a.{2*i+1}"])


def test_variants_claims_spaces():
    variant = decl("""variant v of M { d = 1, layers.0.mixer = conv(kernel = 3)
      transform fold(all = true) on layers[8:24].*.q  &  op:linear using data, scales; transform centre
      claim { params == 3 } }""")
    assert (variant.base, [s.address for s in variant.settings]) == ("M", ["d", "layers.0.mixer"])
    fold, centre = variant.transforms
    assert (fold.name, fold.selector, fold.using) == ("fold", "layers[8:24].*.q & op:linear", ("data", "scales"))
    assert (centre.args, centre.selector) == ((), None)
    assert variant.claims[0].target is None
    claim = decl('claim M.tiny { params == 30M from "the paper"; macs(H = 224) == 4G within 0.5% when a  f(x) within 1e-4 }')
    assert claim.target == "M.tiny"
    params, macs, close = claim.items
    assert (params.source, params.within) == ("the paper", None)
    assert (macs.within, macs.condition) == ((i(Fraction(1, 2)), True), n("a"))
    assert close.within == (i(Fraction(1, 10_000)), False)
    space = decl("space s of M { params <= 30M; count(mixer == none) <= 2  layers.0.mixer == conv  sum(heads) >= 2 * d and max(heads) < 3 }")
    assert len(space.items) == 4


def test_names():
    names = decl("""names hf of M {
      "a.{i}.{q, k}" <-> layers.{i}.{q, k}.{weight, bias} concat transpose(1, 0)
      "b" <-> {a, b}.* rearrange([c] -> [c, 1]) when not tie
      alias "c" <-> embed.weight
      drop "d" = zeros() when x
      ignore "e.*"
    }""")
    assert [line.kind for line in names.lines] == ["map", "map", "alias", "drop", "ignore"]
    first, second, alias, drop, _ = names.lines
    assert (first.foreign, first.address) == ("a.{i}.{q, k}", "layers.{i}.{q,k}.{weight,bias}")
    assert first.ops == (t.Call(S, n("concat"), ()), t.Call(S, n("transpose"), (t.Arg(S, None, i(1)), t.Arg(S, None, i(0)))))
    assert isinstance(second.ops[0], t.LayoutCall)
    assert second.condition == t.Unary(S, "not", n("tie"))
    assert alias.address == "embed.weight"
    assert (drop.default, drop.condition) == (t.Call(S, n("zeros"), ()), n("x"))


def test_words_are_names_elsewhere():
    for word in (
        "use step from each default share param emit next model block variant claim when by over carry names f32 int list static phase op on"
    ).split():
        assert statement(f"{word} = {word} + {word}") == t.Assign(S, (t.Target(S, word),), (binary("+", n(word), n(word)),))
        assert expression(f"f({word} = 1, {word})").args[0].name == word
        assert decl(f"fn f({word}: int) -> int {{ return {word} }}").params[0].name == word


def test_newlines_are_space_and_semicolons_optional():
    assert module("block A ( ) ( x : [ d ] )\n->\n[ d ] { y =\nx ; return\ny }") == module("block A()(x: [d]) -> [d] { y = x return y }")


def test_documentation_belongs_to_what_follows():
    text = "/// gone\n\n/// two\n/// lines\nblock A(\n  /// the size\n  a: int, b: int)() -> [d] {}\n"
    block = decl(text)
    assert (block.doc, block.params[0].doc, block.params[1].doc) == ("two\nlines", "the size", "")
    assert [c.text for c in module(text).comments] == ["/// gone", "/// two", "/// lines", "/// the size"]


def test_comments():
    found = module("# one\nuse a  # two\n\n  # three").comments
    assert [(c.text, c.own_line) for c in found] == [("# one", True), ("# two", False), ("# three", True)]
    assert [c.span.text for c in found] == ["# one", "# two", "# three"]


def test_spans_are_the_text():
    source = Source("test.arch", "block Foo()(x: [d]) -> [d] {\n  y = (a + b) * c as d\n  return y\n}")
    block: Any = parse(source).decls[0]
    product = block.body[0].values[0]
    assert block.span.text == source.text
    assert block.name_span.text == "Foo"
    assert product.span.text == "(a + b) * c as d"
    assert (product.left.span.text, product.op_span.text, product.right.span.text) == ("(a + b)", "*", "c as d")
    assert product.right.name_span.text == "d"
    assert block.body.span.text.startswith("{")


def test_texts_that_stand_alone():
    op = parse_signature("linear(x: [..., i], weight: [o, i], bias: [o]? = none, stride: int = 1, xs: list[[...]]) -> (a: [B], b: int[B])")
    assert (op.name, [p.name for p in op.params], [o.name for o in op.outs], op.body) == (
        "linear",
        ["x", "weight", "bias", "stride", "xs"],
        ["a", "b"],
        None,
    )
    assert parse_signature("f() -> bool[...]").outs[0].type == t.TensorType(S, "bool", t.Shape(S, (t.AnyAxes(S),)))
    assert parse_expression("{1, 2}") == t.SetLit(S, (i(1), i(2)))
    assert parse_expression("2..8 step 2") == t.Range(S, i(2), i(8), True, i(2))
    assert parse_expression("2..8 step * 2") == t.Range(S, i(2), i(8), True, i(2), True)
    assert parse_expression("2..8 step * ...") == t.Range(S, i(2), i(8), True, None, True)
    assert parse_expression("step * 2") == binary("*", n("step"), i(2))
    assert parse_expression("a * step * b") == binary("*", binary("*", n("a"), n("step")), n("b"))
    assert parse_expression("4 * d") == binary("*", i(4), n("d"))
    assert parse_selector(" layers[8:24].*.q  &  op:linear ") == "layers[8:24].*.q & op:linear"
    assert parse_transform("fold(a = 1) on layers.* | norm using x").selector == "layers.* | norm"
    assert parse_setting("layers.0.{q, k} = 3").address == "layers.0.{q,k}"


@pytest.mark.parametrize("text", TEXTS)
def test_sample_texts_parse(text: str):
    assert len(module(text).decls) > 5
