"""Names before evaluation: what the walk over the trees reports, and what it leaves alone."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from archdsl import modules, spec
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.hints import FORMULAS
from archdsl.elaborate.resolve import resolve
from archdsl.source import Source
from archdsl.spec import loads

USES = """\
use std.linear { Linear }
use std.norm { LayerNorm, RMSNorm }
use std.embed { Rope }
use std.residual { Pre }
use std.mixer { Attention }
record Scaling { factor: float, low: float, high: float, context: int }
"""


def faults(text: str) -> list[str]:
    """The faults of a text as `CODE message`."""
    module = modules.Library().open(Source("t.arch", USES + textwrap.dedent(text)), None)
    assert not module.diagnostics, module.diagnostics
    return [f"{d.code} {d.message}" for d in resolve(module)]


def body(text: str, header: str = "block B(n: int = 2, f: block = identity)(x: [B, T, d], ...) -> [B, T, d]") -> list[str]:
    return faults(f"{header} {{\n{textwrap.dedent(text)}\n}}\n")


def test_shipped_specs_and_the_library_are_clean():
    for name in modules.library_modules():
        source = modules.library_source(name)
        assert source is not None
        assert resolve(modules.Library().open(source, None)) == [], name
    for path in spec.shipped_files():
        assert resolve(modules.Library().open(Source(path, Path(path).read_text()), Path(path).parent)) == [], path


@pytest.mark.parametrize(
    "text",
    [
        "return x + B * T * d",
        "y: [_, t, e] = x\nreturn x * e * t",
        "a, b = split(x, 2)\nreturn a + b",
        "if n > 1 { y = x } else { y = x + 1 }\nreturn y",
        "if n > 1 { y = x }\nreturn y",
        "y = x\nlayers: for i, (a, b) in enumerate(zip([1], [2])) { y = y * a * b + i }\nreturn y",
        "y = x\nfor i in range(3) { if i > 0 { y = y + late }\n late = y }\nreturn y",
        "g = [k * 2 for k in range(n) if k > 0]\nreturn x * g[0]",
        "choose m { a(k: int = 3 in {1, 3}) => Linear(k)  b => identity } = a\nreturn m(x)",
        "return f(x, ...)",
        "return x |> rearrange([B, T, (h w)] -> [B, h, T, w], h = n) |> rearrange([B, h, T, w] -> [B, T, (h w)])",
        "return x |> reduce([B, T, d] -> [B, d], mean)",
        "return einsum([b, t, c], [b, s, c] -> [b, t, s])(x, x)",
        "return x |> under([B, t, c] -> [B, c, t], block(z) => z |> Linear(d) as q)",
        "param w: [d, n] = zeros() when n > 1\nbuffer u: [d] = zeros()\nupdate u = u * 2\nemit w\nreturn x",
        "const c: [2] = [1, 2]\nemit aux = x\nreturn x * sum(collect(aux))",
        "f32 { y = x }\nreturn y",
        "y = match n { 1 => x  _ => f(x) }\nmatch n { 1 => { z = y } _ => { z = x } }\nreturn z",
        "return phase { train => x * 2  eval => x }",
        "share s = Linear(d)\nreturn s(x) + linear(x, s.weight)",
        "return Attention(n, mask = causal & window(8), positions = Rope())(x, also = full)",
        "return Pre(LayerNorm() as pre, block(z) => f(z))(x, anything = 3) as attn",
        'require d % n == 0, "{n} and {unknown words}"\nreturn x',
        "return x[:, 0:n, ..., none]",
        "default Linear(out = n)\nreturn Linear()(x)",
    ],
)
def test_legal_bodies(text):
    assert body(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("return y", "A0201 the name `y` is not in scope"),
        ("if n > 100 { z = nothing_at_all }\nreturn x", "A0201 the name `nothing_at_all` is not in scope"),
        ("y = z\nz = x\nreturn y", "A0201 `z` is read before it has a value"),
        ("y = y + x\nreturn y", "A0201 `y` is read before it has a value"),
        ("for i in range(2) { y = x }\nreturn y", "A0201 `y` ended with its loop"),
        ("for i in range(2) { z = i }\nreturn x * i", "A0201 `i` ended with its loop"),
        ("return x * MLP(3)(x)", "A0201 the name `MLP` is not in scope"),
        ("param w: [d, q] = zeros()\nreturn x", "A0201 the name `q` is not in scope"),
        ("emit missing\nreturn x", "A0201 the name `missing` is not in scope"),
        ("update missing = x\nreturn x", "A0201 the name `missing` is not in scope"),
        ("return x |> rearrange([B, T, d] -> [B, T, q, d])", "A0308 `rearrange`: `q` is on the right only"),
        ("return Linear(4, bais = false)(x)", "A0202 `Linear` has no argument `bais`"),
        ("return Linear()(x)", "A0203 `Linear` needs `out`"),
        ("return LayerNorm(1e-5, true, true, ones(), 3)(x)", "A0205 `LayerNorm` takes 4 arguments, not 5"),
        ("return Linear(4, out = 3)(x)", "A0205 `out` is given twice"),
        ("return Linear(bias = false, 4)(x)", "A0205 an argument without a name cannot follow one with a name"),
        ("return Linear(4)(x, x)", "A0205 `Linear` takes 1 input, not 2"),
        ("return Linear(4)()", "A0203 `Linear` needs the input `x`"),
        ("return Linear(4)(x, y = x)", "A0202 `Linear` has no input `y`"),
        ("return x |> Linear |> gelu", "A0203 `Linear` needs its arguments"),
        ("return softmax(x, axes = 1)", "A0202 `softmax` has no argument `axes`"),
        ("return x |> softmax(-1, 0, 3, 4, 5)", "A0205 `softmax` takes"),
        ("return linear(x)", "A0203 `linear` needs `weight`"),
        ("param w: [d] = normal(sdt = 1)\nreturn x", "A0202 the initialiser `normal` has no argument `sdt`"),
        ("y = repeat(3)\nreturn x", "A0203 `repeat` needs `n`"),
        ("y = Scaling(factor = 1, low = 1, high = 2, contex = 3)\nreturn x", "A0202 the record Scaling has no field `contex`"),
        ("y = Scaling(factor = 1, low = 1)\nreturn x", "A0203 the record Scaling needs `high`"),
        ("n = 3\nreturn x", "A0208 `n` is already a name of this header"),
        ("for n in range(3) { z = n }\nreturn x", "A0208 `n` is already a name of this header"),
        ("choose m { a => identity  a => identity } = a\nreturn m(x)", "A0208 `m` has two arms `a`"),
        ("choose m { a => identity } = b\nreturn m(x)", "A0224 `m` has no arm `b`"),
        ("choose m { a(k: int = 1) => Linear(k) } = a(j = 2)\nreturn m(x)", "A0202 the arm `a` has no argument `j`"),
        ("default Linear(bais = false)\nreturn x", "A0202 `Linear` has no argument `bais`"),
        ("default Linear(false)\nreturn x", "A0205 a default names its arguments"),
        ("default Missing(a = 1)\nreturn x", "A0201 the name `Missing` is not in scope"),
        ("y = x", "A0220 `B` returns nothing"),
        ("return x, x", "A0220 `B` declares 1 result, this returns 2"),
        ("g = block(z) => f(z, ...)\nreturn g(x)", "A0202 `...` forwards"),
        ("return phase { train => x }", "A0227 both phases need an arm"),
        ("return phase { train => x  test => x }", "A0227 a phase is `train` or `eval`"),
    ],
)
def test_faults_of_bodies(text, expected):
    (found,) = body(text)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("block A(n: int, n: int)(x: [d]) -> [d] { return x }", "A0208 `n` is declared twice in this header"),
        ("block A()(x: [d]) -> [d, e] { return x }", "A0309 the size `e` occurs only in a result"),
        ("block A(r: RopeScalin)(x: [d]) -> [d] { return x }", "A0201 the type `RopeScalin` is not known"),
        ("block A(r: Scaling)(x: [d]) -> [d] { return x * r.fctor }", "A0201 the record Scaling has no field `fctor`"),
        ("block A(n: int = q)(x: [d]) -> [d] { return x }", "A0201 the name `q` is not in scope"),
        ("block A(n: int = 1 in 1..q)(x: [d]) -> [d] { return x }", "A0201 the name `q` is not in scope"),
        ("block A()(x: [d]) -> [d] { return f(x, ...) }\nblock f()(x: [d]) -> [d] { return x }", "A0202 `...` forwards"),
        ("block A()(x: [d]) -> [d] { return A()(x) }", "A0226 `A` contains itself"),
        (
            "block A()(x: [d]) -> [d] { return C()(x) }\nblock C()(x: [d]) -> [d] { return Pre(LayerNorm(), A())(x) }",
            "A0226 `A` contains itself: `A` -> `C` -> `A`",
        ),
        ("fn f(n: int) -> int { return if n > 0 { f(n - 1) } else { 0 } }", "A0226 `f` calls itself"),
        ("fn f(n: int) -> int { m = n }", "A0220 `f` returns nothing"),
        ("fn f(n: int) -> int { return n }\nblock A()(x: [d]) -> [d] { return x * f(1, 2) }", "A0205 `f` takes 1 argument, not 2"),
        ("record R { a: int, a: int }", "A0208 `a` is declared twice in the record R"),
        ("model M(a: int = b, b: int = 2)(x: [B, a]) -> [B, a] { return x }", "A0201 the default of `a` reads `b`, which is declared after it"),
        ("model M(a: int = 2)(x: [B, c]) -> [B, c] { return x }", "A0309 nothing binds the size `c`"),
        ("model M()(x: [B, T]) -> [B, T] stream S { return x }", "A0309 `stream S`: no input has an axis `S`"),
        ("model M()(x: [B, T]) -> [B, T] { B = 3  return x }", "A0208 `B` is already a name of this header"),
        ("model M(a: int = 2)(x: [B, a]) -> [B, a] { return x }\nvariant v { a = q }", "A0201 the name `q` is not in scope"),
        ("model M(a: int = 2)(x: [B, a]) -> [B, a] { return x }\nvariant v of N { a = 3 }", "A0401 `N` is neither a model nor a variant"),
        ("model M(a: int = 2)(x: [B, a]) -> [B, a] { return x }\nvariant v { a = 3, a = 4 }", "A0402 `a` is set twice"),
    ],
)
def test_faults_of_headers(text, expected):
    (found,) = faults(text)
    assert found.startswith(expected)


def test_independent_faults_are_reported_together():
    found = body("y = x |> Linaer(3)\nz = w\nq = LayerNorm(epz = 1)(y)\nreturn z + y + q")
    assert [f.split(" ")[0] for f in found] == ["A0201", "A0201", "A0202"]


def test_one_fault_is_reported_once():
    assert len(body("y = foo(x)\nz = foo(y)\nreturn foo(z) + foo(x)")) == 1
    assert len(faults("block A()(x: [d]) -> [d] { return MLP(3)(x) }\nblock C()(x: [d]) -> [d] { return MLP(3)(x) }")) == 1
    assert len(body("return Linear(ouut = 4)(x)")) == 1, "a misspelt argument is not missing as well"


def test_consequences_are_not_reported():
    module = modules.Library().open(Source("t.arch", "use std.norm { LayerNorn }\nblock A()(x: [d]) -> [d] { return LayerNorm()(x) }\n"), None)
    assert [d.code for d in [*module.diagnostics, *resolve(module)]] == ["A0207"]
    assert [
        f[:5]
        for f in faults("""
        model M(a: int = 2)(x: [B, a]) -> [B, a] { return x }
        variant v of small { a = 3 }
        variant w of small { a = 4 }
        claim small { params == 0 }
        claim v { parms == 0 fromm "the paper" }
    """)
    ] == ["A0401"]


def test_a_default_elsewhere_may_supply_an_argument():
    assert (
        faults("""
        block A()(x: [B, d]) -> [B, d] { return Linear()(x) }
        model M()(x: [B, 4]) -> [B, 4] { default Linear(out = 4)  return A()(x) }
    """)
        == []
    )


def test_a_choice_in_a_variant_is_no_name():
    assert (
        faults("""
        model M(k: str = "a")(x: [B, 4]) -> [B, 4] {
          layers: for i in range(2) { choose m { small => identity  large => identity } = small  x = m(x) }
          return x
        }
        variant v { layers.*.m = large }
    """)
        == []
    )


def test_names_from_other_modules(tmp_path):
    (tmp_path / "other.arch").write_text("block Half()(x: [d]) -> [d] { return x / 2 }\n")
    text = "use other\nmodel M()(x: [B, 4]) -> [B, 4] { return other.Half()(x) + other.Hlaf()(x) + other.Half(3)(x) }\n"
    module = modules.Library().open(Source("t.arch", text), tmp_path)
    assert [d.message for d in resolve(module)] == ["the module `other` has no `Hlaf`", "`Half` takes no arguments, not 1"]


def test_fixes_mend_the_text():
    text = USES + "block A()(x: [d]) -> [d] { return LayerNorm(epz = 1e-6)(x) |> gelo }\n"
    module = modules.Library().open(Source("t.arch", text), None)
    found = resolve(module)
    edits = sorted((e for d in found for f in d.fixes for e in f.edits), key=lambda e: -e[0].start)
    for span, new in edits:
        text = text[: span.start] + new + text[span.end :]
    assert "LayerNorm(eps = 1e-6)(x) |> gelu" in text
    assert resolve(modules.Library().open(Source("t.arch", text), None)) == []


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("block A()(x: [d]) -> [d] {\n  y = = x\n  return y + z\n}\n", {"A01", "A02"}),
        ("block A()(x: [d]) -> [d] {\n  y = x + * 2\n  w = y\n  return w\n}\n", {"A01"}),
        ("block A(()(x: [d]) -> [d] { return x }\nblock C()(x: [d]) -> [d] { return A()(x) }\n", {"A01"}),
        ("block A()(x: [d]) -> [d] {\n  if d > 2 {\n    y = \n  }\n  return y\n}\n", {"A01"}),
        ("model M()(x: [B, 4]) -> [B, 4] { return x }\nclaim { not params == 3 }\n", {"A01"}),
    ],
)
def test_a_syntax_fault_is_not_followed_by_names_that_it_hid(text, codes):
    module = modules.Library().open(Source("t.arch", text), None)
    assert {d.code[:3] for d in [*module.diagnostics, *resolve(module)]} == codes


def test_every_kind_of_node_is_walked():
    from archdsl.elaborate import walk
    from archdsl.syntax import tree

    def kinds(base: type) -> set[type]:
        return {kind for kind in vars(tree).values() if isinstance(kind, type) and issubclass(kind, base) and kind is not base}

    assert kinds(tree.Expr) - set(walk.EXPRESSIONS) == set()
    assert kinds(tree.Statement) - set(walk.STATEMENTS) == set()


REST = "use std.norm { RMSNorm }\nmodel M(d: int = 8)(x: [B, d]) -> y: [B, d] {\n  %s\n}\n"


@pytest.mark.parametrize(("text", "code", "at"), [
    (REST % "return RMSNorm(eps: 4)(x)", "A0101", ":"),
    (REST % "return", "A0101", "}"),
    (REST % "return RMSNorm()(x) as", "A0101", "}"),
    (REST % "return relu(x) if true else x", "A0101", "if"),
    (REST % "y = [x if true else x]\n  return y[0]", "A0101", "if"),
    (REST % 'return einsum("bd,bd->b", x, x)', "A0101", '"bd,bd->b"'),
    (REST % "default RMSNorm(eps 4)\n  return RMSNorm()(x)", "A0116", "4"),
    ("record R { w: int; n: int = 2 }\nmodel M(rs: list[R] = [R(1), R(2, n = 3)])(x: [B]) -> y: [B] { return x }", "A0116", ";"),
    ("use std.norm { * }\nmodel M(d: int = 8)(x: [B, d]) -> y: [B, d] { return x |> RMSNorm() |> LayerNorm() as b }", "A0101", "*"),
    ('paper { title = "a, domain = "b" }\nmodel M()(x: [B]) -> y: [B] { return x }', "A0102", '"'),
    ("fn f(n: int) -> int { return n : }\nmodel M(d: int = f(3))(x: [B, d]) -> y: [B, d] { return x }", "A0101", ":"),
])
def test_one_fault_of_syntax_is_one_message(text: str, code: str, at: str):
    found = spec.check_text(text, "t.arch")
    assert [d.code for d in found] == [code]
    assert found[0].span.text == at


def test_a_second_fault_on_another_line_is_told_too():
    text = REST % "y = relu(x : 3)\n  z = [1 2]\n  return nonsense(x)"
    assert [d.code for d in spec.check_text(text, "t.arch")] == ["A0101", "A0116", "A0201"]


def test_pythons_choice_is_told_in_the_words_of_the_language():
    found, = spec.check_text(REST % "return relu(x) if d > 3 else x", "t.arch")
    assert found.help == ("a choice between two values is `if condition { a } else { b }`",)


NET = "model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] {\n  BODY\n}\n"


@pytest.mark.parametrize(("text", "said"), [
    ("y = softmax(x, dim = -1)", "replace by `axis`"), ("y = concat([x, x], dim = 1)", "replace by `axis`"),
    ("y = dropout(x, p = 0.1)", "replace by `rate`"),
    ("y = Linear(out_features = 8)(x)", "replace by `out`"), ("y = cat([x, x])", "replace by `concat`"), ("y = permute(x, 0, 2, 1)", "rearrange("),
    ("y = x |> transpose(1, 2)", "rearrange("), ("y = reshape(x, 3)", "rearrange("), ("y = None", "replace by `none`"),
    ("y = True", "replace by `true`"),
    ("y = False", "replace by `false`"), ("y = unsqueeze(x, 1)", "`x[:, none]`"), ("y = bmm(x, x)", "replace by `matmul`"),
    ("y = torch.silu(x)", "no module in front"), ("y = nn.Linear(4)(x)", "no module in front"), ("y = F.gelu(x)", "no module in front"),
    ("view = 3\n  y = views(x)", "replace by `view`"), ("sizes = 3\n  y = size + 1", "did you mean `sizes`?"),
])
def test_words_of_torch_are_told_in_the_words_of_the_language(text: str, said: str):
    found, = spec.check_text("use std.linear { Linear }\n" + NET.replace("BODY", f"{text}\n  return x"), "t.arch")
    assert any(said in line for line in (*found.help, *(f.title for f in found.fixes)))
    assert sum(len(f.edits) for f in found.fixes) <= 1


@pytest.mark.parametrize(("text", "said"), [
    ("y = x.silu()", "write `silu(x)`"), ("y = x.transpose(1, 2)", "rearrange("), ("y = x.shape[0]", "the header names the sizes"),
    ("y = x.T", "rearrange("),
])
def test_a_method_of_a_tensor(text: str, said: str):
    found, = spec.check_text(NET.replace("BODY", f"{text}\n  return x"), "t.arch")
    assert found.code == "A0201"
    assert any(said in line for line in (*found.help, *(f.title for f in found.fixes)))


@pytest.mark.parametrize(("call", "at", "said"), [
    ("Attention(2, memory = x)(x)", "memory", "`memory` is an input: it stands in the second list"),
    ("Attention()(x, heads = 2)", "heads", "`heads` configures the block: it stands in the first list"),
    ("(x |> Attention(2, also = causal))", "also", "`also` is an input"),
])
def test_an_argument_in_the_other_list(call: str, at: str, said: str):
    found, = spec.check_text("use std.mixer { Attention }\n" + NET.replace("BODY", f"return {call}"), "t.arch")
    assert (found.code, found.span.text) == ("A0202", at)
    assert found.help[0].startswith(said)


FOUR = {"pixel_shuffle": "[B = 2, 12, 3, 5]", "pixel_unshuffle": "[B = 2, 3, 4, 6]"}


@pytest.mark.parametrize("name", FORMULAS)
def test_what_is_written_for_a_function_of_torch_gives_the_same(name: str):
    import torch

    header = FOUR.get(name, "[B = 2, 7]")
    result = ", ".join("_" for _ in header.split(","))
    built = loads(f"model M()(x: {header}) -> y: [{result}] {{ return {FORMULAS[name]} }}").build(dtype=torch.float64)
    x = 3 * torch.randn(*map(int, re.findall(r"\d+", header)), dtype=torch.float64)
    theirs = getattr(torch.nn.functional, name.replace("log_sigmoid", "logsigmoid"))
    wanted = theirs(x, 2) if name in FOUR else theirs(x, dim=-1) if name in ("softmin", "normalize") else theirs(x)
    torch.testing.assert_close(built(x), wanted, atol=1e-12, rtol=1e-12)


def test_a_size_of_a_layout_is_told_to_be_known_there_alone():
    text = """use std.linear { Linear }
model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] {
  q = rearrange(x, [B, T, (h w)] -> [B, h, T, w], h = 2)
  return x * w
}
"""
    with pytest.raises(ArchError, match="`w` is a size inside a layout, and known there alone"):
        loads(text)
    with pytest.raises(ArchError) as caught:
        loads(text.replace("x * w", "x * v"))
    assert "layout" not in str(caught.value)


def test_the_words_of_torch_lead_to_words_of_the_language():
    from archdsl.elaborate.hints import TORCH, WORDS
    from archdsl.elaborate.library import find

    assert [w for w, (here, _) in WORDS.items() if here and here not in ("none", "true", "false") and find(here) is None] == []
    assert [w for w in WORDS if find(w) is not None] == ["repeat", "float"]  # methods of torch's tensors; here functions of numbers
    assert all(here and "" not in here for here in TORCH.values())


def test_names_in_the_message_of_a_requirement():
    """Though it holds: who reads the message later would find the braces."""
    text = 'model M(d: int = 4)(x: [B, d]) -> y: [B, d] {\n  require d > 2, "{ d } of {most} is few; {not so}, {d / 2}"\n  return x\n}'
    with pytest.raises(ArchError) as fault:
        loads(text)
    told = [(d.code, d.span.text) for d in fault.value.diagnostics]
    assert told == [("A0201", "most")]


@pytest.mark.parametrize("word", ["attentio", "poolin", "gatted_delta", "rmsnorms"])
def test_near_names_do_not_depend_on_what_was_loaded_before(word):
    """Ops are known in the order in which specs before asked for their families, and sets of words have another order in each process."""
    from archdsl.elaborate.hints import mend, nearest
    from archdsl.ops.registry import OPS, load

    def told() -> list[tuple[str, ...]]:
        module = modules.Library().open(Source("t.arch", f"model M()(x: [B, 8]) -> y: [B, 8] {{ return {word}(x) }}\n"), None)
        return [(d.message, *d.help, *(f.title for f in (*d.fixes, *d.rivals))) for d in resolve(module)]

    load()
    before = dict(OPS)
    first = told()
    try:
        OPS.clear()
        OPS.update(reversed(before.items()))
        assert told() == first and len(first) == 1
    finally:
        OPS.clear()
        OPS.update(before)
    words = {f"width{c}" for c in "abcde"}
    assert nearest("width", words) == ["widtha", "widthb", "widthc"]
    assert mend("width", words, None)["help"] == ("did you mean `widtha` or `widthb` or `widthc`?",)
