"""The layout, construct by construct: `stays` is already formatted, `becomes` shows before and after."""

from __future__ import annotations

from pathlib import Path

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.source import NOWHERE as S
from archdsl.source import Source
from archdsl.syntax import tree as t
from archdsl.syntax.fmt import format_module
from archdsl.syntax.parser import parse
from archdsl.syntax.print_parts import number_text
from archdsl.syntax.printer import print_node
from tests.syntax.helpers import expression
from tests.syntax.texts import TEXTS

ROOT = Path(__file__).parents[2]
SPECS = sorted([*(ROOT / "stdlib").rglob("*.arch"), *(ROOT / "specs").rglob("*.arch")])


def fmt(text: str) -> str:
    return format_module(Source("test.arch", text))


def stays(text: str):
    assert fmt(text) == text


def becomes(before: str, after: str):
    assert fmt(before) == after
    stays(after)


def test_empty_texts():
    becomes("", "")
    becomes(" \n\n", "")
    becomes("# only this", "# only this\n")


def test_spaces():
    becomes(
        "use   std.norm{LayerNorm,RMSNorm  as N}\nfn f( n:int,xs : list[ int ;3] )->int{return n*2+xs[ 0 ]}\n",
        "use std.norm { LayerNorm, RMSNorm as N }\nfn f(n: int, xs: list[int; 3]) -> int { return n * 2 + xs[0] }\n",
    )


def test_alignment_is_not_kept():
    becomes(
        "model M(\n  d:        int = 192 in 128..384 step 64,\n  depth:    int = 12  in 8..16,\n) (x: [d]) -> [d] { return x }\n",
        "model M(\n  d: int = 192 in 128..384 step 64,\n  depth: int = 12 in 8..16,\n)(x: [d]) -> [d] { return x }\n",
    )


def test_one_statement_a_line():
    becomes(
        "block A()(x: [d]) -> [d] {\n  default Linear(bias = false);  default Norm()\n  y = x; return y\n}\n",
        "block A()(x: [d]) -> [d] {\n  default Linear(bias = false)\n  default Norm()\n  y = x\n  return y\n}\n",
    )


def test_blocks_stay_on_one_line_when_written_so_and_short():
    stays("block A()(x: [d]) -> [d] { return x }\n")
    stays("block A()(x: [d]) -> [d] {\n  return x\n}\n")
    stays("block A()(x: [d]) -> [d] { y = x; return y }\n")
    stays("block A()(x: [d]) -> [d] {\n  if a { x = 1 } else { x = 2 }\n  return x\n}\n")
    becomes(
        "block A()(x: [d]) -> [d] { " + "; ".join(f"name_{i} = function_{i}(x)" for i in range(5)) + " }\n",
        "block A()(x: [d]) -> [d] {\n" + "".join(f"  name_{i} = function_{i}(x)\n" for i in range(5)) + "}\n",
    )


def test_blank_lines():
    becomes(
        "\n\nuse a\n\n\n\nuse b\nblock A()(x: [d]) -> [d] {\n\n  y = x\n\n\n  z = y\n  return z\n\n}\n\n\n",
        "use a\n\nuse b\nblock A()(x: [d]) -> [d] {\n  y = x\n\n  z = y\n  return z\n}\n",
    )


def test_pipes_break_one_link_a_line():
    becomes(
        "block A()(x: [d]) -> [d] {\n  return x |> Linear(d) as first |> gelu |> Dropout(rate = 0.1) as dropping_a_few |> Linear(4 * d) as second |> "
        "LayerNorm(eps = 1e-6) as norm\n}\n",
        """block A()(x: [d]) -> [d] {
  return x
    |> Linear(d) as first
    |> gelu
    |> Dropout(rate = 0.1) as dropping_a_few
    |> Linear(4 * d) as second
    |> LayerNorm(eps = 1e-6) as norm
}
""",
    )
    becomes(
        "block A()(x: [d]) -> [d] {\n  y = x\n      |> f\n      |> g\n  return y\n}\n",
        "block A()(x: [d]) -> [d] {\n  y = x |> f |> g\n  return y\n}\n",
    )


def test_arguments_break_one_a_line():
    becomes(
        "block A()(x: [d]) -> [d] {\n  y = Attention(heads = 32, kv_heads = 8, head_dim = 128, mask = causal & window(4096), "
        "positions = Rope(base = 10_000), bias = true)(x)\n  return y\n}\n",
        """block A()(x: [d]) -> [d] {
  y = Attention(
    heads = 32,
    kv_heads = 8,
    head_dim = 128,
    mask = causal & window(4096),
    positions = Rope(base = 10_000),
    bias = true,
  )(x)
  return y
}
""",
    )


def test_a_break_after_the_bracket_is_kept():
    stays("block A()(x: [d]) -> [d] {\n  y = f(\n    a,\n    b,\n  )\n  return [\n    1,\n    2,\n  ]\n}\n")
    becomes("block A()(x: [d]) -> [d] { return f(a,\n  b) }\n", "block A()(x: [d]) -> [d] {\n  return f(a, b)\n}\n")


def test_headers_break_their_first_list():
    long = ", ".join(f"parameter_{i}: int = {i}" for i in range(6))
    becomes(
        f"block A({long})(x: [B, T, d]) -> [B, T, d] {{ return x }}\n",
        "block A(\n" + "".join(f"  parameter_{i}: int = {i},\n" for i in range(6)) + ")(x: [B, T, d]) -> [B, T, d] { return x }\n",
    )
    becomes(
        f"fn f({long}) -> int {{ return 1 }}\n",
        "fn f(\n" + "".join(f"  parameter_{i}: int = {i},\n" for i in range(6)) + ") -> int { return 1 }\n",
    )


def test_branches():
    stays("fn f(a: int) -> int {\n  b = if a > 0 { 1 } else if a < 0 { 2 } else { 3 }\n  return b\n}\n")
    stays("fn f(a: int) -> int {\n  b = if a > 0 {\n    1\n  } else {\n    3\n  }\n  return b\n}\n")
    stays('fn f(a: str) -> int {\n  return match a {\n    "x" | "y" => 1\n    none => 2\n  }\n}\n')
    stays('fn f(a: str) -> int { return match a { "x" => 1; "y" => 2 } }\n')


def test_long_sums_break_before_operators():
    terms = [f"a_rather_long_name_{i}" for i in range(7)]
    becomes(
        "fn f() -> int {\n  return " + " + ".join(terms) + "\n}\n",
        "fn f() -> int {\n  return " + terms[0] + "".join(f"\n    + {term}" for term in terms[1:]) + "\n}\n",
    )


def test_written_parentheses_around_operators_stay():
    stays("fn f() -> int { return (a * b) + c - (d) }\n".replace("(d)", "d"))
    becomes("fn f() -> int { return ((a * b)) + (c) }\n", "fn f() -> int { return (a * b) + c }\n")


def test_long_lists_of_numbers_fill_lines():
    numbers = ", ".join(str(i * 1000) for i in range(40))
    text = fmt(f"fn f() -> list[int] {{\n  return [{numbers}]\n}}\n")
    assert max(len(line) for line in text.split("\n")) <= 120
    assert text.count("\n") == 7
    stays(text)


def test_a_condition_and_what_is_said_when_it_fails():
    stays("model M(d: int)(x: [d]) -> [d] {\n  require d % 8 == 0, \"no\"\n  return x\n}\n")
    condition, said = "width % heads == 0 and " * 3 + "depth > 0", "w" * 60
    stays(f'block F()(x: [d]) -> [d] {{\n  require {condition},\n    "{said}"\n  return x\n}}\n')


def test_declarations():
    stays('paper { title = "A title", arxiv = "2307.09288" }\n')
    stays("variant tiny {}\nvariant small of tiny { d = 384, heads = repeat(6, 12) }\nvariant large {\n  d = 1024, layers.{0, 2 * i}.x = 3\n}\n")
    stays("variant v of M { d = 1; transform fold() on layers[1:3].*.q & op:linear using data; claim { params == 3 } }\n")
    stays('claim tiny { params == 30M from "sheet"; macs(H = 224) == 4.5G within 0.5% when a }\nclaim {\n  f(x)\n  g(y) within 1e-4\n}\n')
    stays("space s of M {\n  params <= 30M\n  count(mixer == none) <= 2\n}\n")
    stays('names hf of M, parts.N {\n  ignore "b"\n}\n')
    stays('names hf of M {\n  "a.{i}" <-> layers.{i}.{q, k} concat\n  alias "b" <-> embed.weight\n'
          '  alias "e.{i}" <-> layers.{i}.{q, k} concat transpose when tie\n  drop "c" = zeros()\n  ignore "d" when tie\n}\n')
    stays("record R { a: int = 3, b: str }\n")
    stays("block F()(x: [d]) -> [d] {\n  share f as a.b = G(1) when tied\n  share g of f = G(2)\n  return g(f(x))\n}\n")
    stays("extern block F(a: int)(x: [B = 1, ragged T, some V <= 3]) -> [B]\n")
    stays("model L(rank: int = 8) of llama.Llama with { layers.*.attn.{q, v} = LowRank(inner, rank) }\n")
    stays("op f(x: [B, (heads width)], xs: list[[...]]) -> (a: [B], b: f32[B])\n")


def test_long_name_lines_break_before_their_operations():
    stays("""names meta of M {
  "layers.{i}.attention.{wq, wk}.weight" <-> layers.{i}.attn.{q, k}.weight
    rearrange([(n w two), d] -> [(n two w), d], two = 2, w = head_dim / 2)
}
""")


def test_comments_stay_where_they_are():
    stays("""# the file

# imports
use std.norm { LayerNorm }  # norms

/// A block.
/// With two lines.
block A(
  # first
  a: int,  # the width
  /// documented
  b: int = 3,

  # last
)(x: [d]) -> [d] {  # opens
  # before y
  y = x
    |> f  # one
    # between
    |> g
  layers: for i in range(3) {  # layers.0
    x = f(
      a,  # why
      # and
      b,
      # end of list
    )
    # end of loop
  }

  # end of body
}

claim {
  # two figures
  params == 3  # exact
  f(x)
}

# end of file
""")


def test_comments_inside_expressions_move_above_their_statement():
    becomes(
        "block A()(x: [d]) -> [d] {\n  y = x + # why\n    z\n  return y\n}\n",
        "block A()(x: [d]) -> [d] {\n  # why\n  y = x + z\n  return y\n}\n",
    )


def test_texts_that_do_not_parse_are_refused():
    with pytest.raises(ArchError):
        fmt("block A(")


@pytest.mark.parametrize("text", TEXTS + [pytest.param(p.read_text(encoding="utf-8"), id=str(p.relative_to(ROOT))) for p in SPECS])
def test_formatting_keeps_tree_comments_and_documentation(text: str):
    before = parse(Source("before.arch", text))
    once = fmt(text)
    after = parse(Source("after.arch", once))
    assert after == before
    assert [c.text for c in after.comments] == [c.text for c in before.comments]
    assert [getattr(d, "doc", "") for d in after.decls] == [getattr(d, "doc", "") for d in before.decls]
    stays(once)
    code = [line.split("  #")[0].split("  ///")[0] for line in once.split("\n") if '"' not in line and line.lstrip()[:1] not in ("#", "/")]
    assert max((len(line) for line in code), default=0) <= 120


def test_printing_without_a_source():
    block = t.Block(
        S,
        "Twice",
        (t.Param(S, "f", t.NameType(S, "block"), None, None, True, doc="what is applied"),),
        (t.Param(S, "x", t.TensorType(S, None, t.Shape(S, (t.AnyAxes(S), t.AxisName(S, "d")))), None, None),),
        (t.Out(S, None, t.TensorType(S, None, t.Shape(S, (t.AnyAxes(S), t.AxisName(S, "d"))))),),
        (
            t.Return(
                S,
                (
                    t.Call(
                        S,
                        t.Name(S, "f"),
                        (t.Arg(S, None, t.Binary(S, "*", t.Number(S, 2, ""), t.Binary(S, "+", t.Name(S, "x"), t.Name(S, "y"), S), S)),),
                    ),
                ),
                (None,),
            ),
        ),
        doc="Twice.",
    )
    text = print_node(t.Module(S, (t.Use(S, "std.norm", ()), block)))
    assert (
        text
        == """use std.norm

/// Twice.
block Twice(
  /// what is applied
  _ f: block,
)(x: [..., d]) -> [..., d] { return f(2 * (x + y)) }
"""
    )
    assert parse(Source("printed.arch", text)).decls[1] == block


@pytest.mark.parametrize("text", ["0.5", "1e-6", "4.456G", "30M", "2.5ms", "123.456", "0.000001", "1.5E3", "17"])
def test_numbers_are_printed_exactly(text: str):
    value = expression(text).value
    shown = number_text(value)
    assert expression(shown).value == value


def test_items_never_go_on_with_the_line_above():
    stays("claim {\n  a == 3\n  (from(3))\n  (step == 4) within 3\n  (-x) < 3\n}\n")
    becomes("variant v {\n  a = 1..3\n  step.x = 3\n}\n", "variant v {\n  a = 1..3, step.x = 3\n}\n")


def test_settings_fill_their_lines():
    long = ", ".join(f"width_{i} = {1000 * i}" for i in range(12))
    rows = [", ".join(f"width_{i} = {1000 * i}" for i in part) for part in (range(7), range(7, 12))]
    becomes(f"variant v {{ {long} }}\n", f"variant v {{\n  {rows[0]},\n  {rows[1]}\n}}\n")
    stays("variant v {\n  a = 1  # kept\n  b = 2\n}\nvariant w {\n  a = 1\n\n  b = 2\n}\n")
    stays(f"variant v {{\n  a = [\n    {'a' * 110},\n    {'b' * 110},\n  ]\n  b = 2\n}}\n")


def test_imports_fill_their_lines():
    names = [f"Block{i}" for i in range(20)]
    becomes(f"use std {{ {', '.join(names)} }}\n", f"use std {{\n  {', '.join(names[:14])},\n  {', '.join(names[14:])}\n}}\n")
    stays("use std {\n  A,  # the first\n  B,\n}\n")
