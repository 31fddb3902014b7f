"""Lints: each finds what it is for, says nothing about what is like it, and can be silenced."""
from __future__ import annotations

from pathlib import Path

import pytest

from archdsl.diagnostics.fixing import fix_text
from archdsl.spec import check_file, check_text, load
from tests.effort import calls

SPECS = sorted((Path(__file__).parents[2] / "specs").rglob("*.arch"))


def lints(text: str, path: str = "a.arch") -> list[tuple[str, str]]:
    """(code, marked text) of the warnings; an error fails."""
    found = check_text(text, path, lints=True)
    assert all(d.severity == "warning" for d in found), found
    return [(d.code, d.span.text) for d in found]


def block(body: str, params: str = "d: int", inputs: str = "x: [..., d]", before: str = "") -> str:
    return f"{before}block Net({params})({inputs}) -> [..., _] {{\n{body}\n}}\n"


def scan(body: str, carry: str = "") -> str:
    return f"block Net()(x: [B, T, d]) -> [B, T, d] {{\nscan x over T carry s: [B, d] = zeros(){carry} {{\n{body}\n}}\n}}\n"


@pytest.mark.parametrize(("text", "found"), [
    (block("return x"), []),
    ("use std.linear { Linear }\n" + block("return x"), [("A0701", "Linear")]),
    ("use std.linear { Linear as Map }\n" + block("return Map(d)(x) as m"), []),
    ("use std.linear { Linear as Map }\n" + block("return x"), [("A0701", "Linear as Map")]),
    ("use std.linear\n" + block("return linear.Linear(d)(x) as m"), []),
    ("use std.linear\n" + block("return x"), [("A0701", "use std.linear")]),
    ("use std.linear { Linear }\n" + block("default Linear(bias = false)\nreturn x"), []),
    ("use std.linear { Linear }\n"
     + "model M(d: int = 4)(x: [B, d]) -> y: [B, d] { return x * 2 }\nclaim M { count(Linear) == 0 }", []),
    (block("y = x * 2\nreturn x"), [("A0702", "y")]),
    (block("_y = x * 2\nreturn x"), []),
    (block("y = x\ny = y * 2\nreturn y"), []),
    (block("for i in range(3) { x = x * 2 }\nreturn x"), []),
    (block("a, b = split(x, 2)\nreturn a"), [("A0702", "b")]),
    (block("y = x\nfor i in range(3) { y = y + x }\nreturn x"), [("A0702", "y")]),
    (block("y = x\nfor i in range(3) {\nx = x + y\ny = y * 2\n}\nreturn x"), []),
    (block("y = x\nz = x\nfor i in range(3) {\ny = z * 2\nz = y + 1\n}\nreturn x"), [("A0702", "y"), ("A0702", "z")]),
    (block("y = x\nfor i in range(3) { y = y + x }\nemit y\nreturn x"), []),
    (block("n = 1\nfor i in range(3) { n = n + i }\nrequire n > d\nreturn x"), []),
    (block("n = 1\nfor i in range(3) { n = n + i }\nreturn x + param_of(n)", before="fn param_of(n: int) -> int { return n }\n"), []),
    (scan("next s = s + x\nyield s"), []),
    (scan("next s = s + x\nyield x"), [("A0702", "s")]),
    (scan("next s = x\nyield x"), [("A0702", "s")]),
    (scan("next s = s + r\nnext r = x\nyield s", carry=", r: [B, d] = zeros()"), []),
    (scan("next s = s + x\nnext r = r + s\nyield s", carry=", r: [B, d] = zeros()"), [("A0702", "r")]),
    (block("a, _ = split(x, 2)\nreturn a"), []),
    (block("return x", params="d: int, k: int = 3"), [("A0703", "k")]),
    (block("return x", params="d: int, _k: int = 3"), []),
    (block("return x", params="d: int, k: int = 3").replace("x: [..., d]", "x: [..., k * d]"), []),
    (block("return x", inputs="x: [..., d], mask: [..., d]"), [("A0703", "mask")]),
    (block("return x * n", inputs="x: [..., d], other: [n]"), []),
    ("fn f(a: int, b: int) -> int { return a }\n" + block("return x * f(1, 2)"), [("A0703", "b")]),
    ("model M(d: int = 4, depth: int = 2 in 1..4)(x: [B, d]) -> y: [B, d] { return x }", [("A0704", "depth")]),
    ("model M(d: int = 4, depth: int = 2 in 1..4)(x: [B, d]) -> y: [B, d] { require depth > 1\n return x }", []),
    (block("choose f { a => relu b => gelu } = a\nreturn f(x)"), []),
    (block("choose f { a => relu b => gelu } = a\nreturn x"), [("A0704", "f")]),
    (block("for i in range(2) { choose f { a => relu b => gelu } = a }\nreturn x"), [("A0704", "f")]),
    (block("choose f { a => relu b => gelu c => relu } = a\nreturn f(x)"), [("A0704", "relu")]),
    (block("choose f { a(k: float = 2, s: float = k) => block(y) => y * s  b(k: int = 2) => relu } = a\nreturn f(x)"), [("A0704", "k")]),
    (block("choose f { a(k: float = 2) => block(y) => y * k  b(k: float = 3) => block(y) => y * k } = a\nreturn f(x)"), []),
    (block("half = x * half(d)\nreturn half", before="fn half(n: int) -> int { return n // 2 }\n"), [("A0705", "half")]),
    (block("for i in range(2) { for i in range(3) { x = x * i } }\nreturn x"), [("A0705", "i")]),
    (block("for i in range(2) { x = x * i }\nfor i in range(3) { x = x * i }\nreturn x"), []),
    (block("for i in range(2) { x = x * [i for i in range(3)][0] }\nreturn x"), [("A0705", "i")]),
    (block("if true { x = x * 2 }\nreturn x"), [("A0706", "true")]),
    (block("if 2 > 3 { x = x * 2 }\nreturn x"), [("A0706", "2 > 3")]),
    (block("if d == d { x = x * 2 }\nreturn x"), [("A0706", "d == d")]),
    (block("if d > 3 { x = x * 2 } else if d  >  3 { x = x * 3 }\nreturn x"), [("A0706", "d  >  3")]),
    (block("if d > 3 { x = x * 2 } else if d > 2 { x = x * 3 }\nreturn x"), []),
    (block("if d is none { x = x * 2 }\nreturn x"), [("A0706", "d is none")]),
    (block("if k is none { x = x * 2 }\nreturn x", params="d: int, k: int? = none"), []),
    (block("require d > 0 or true\nreturn x"), [("A0706", "d > 0 or true")]),
    (block('match kind { "a" => { return x }\n"b" => { return x * 2 }\n_ => { return x * 3 } }', params='d: int, kind: "a" | "b" = "a"'),
     [("A0706", "_")]),
    (block('match kind { "a" => { return x }\n_ => { return x * 3 } }', params='d: int, kind: "a" | "b" = "a"'), []),
    (block('match d { 1 => { return x }\n1 => { return x * 2 }\n_ => { return x * 3 } }'), [("A0706", "1")]),
])
def test_names_and_branches(text, found):
    assert lints(text) == found


CHOICE = """use std {{ Linear }}
block Part(d: int)(x: [..., d]) -> [..., d] {{
  choose f {{ good => Linear(d)  {arm} }} = good
  return f(x) as g
}}
model M(d: int = 6)(x: [B, d]) -> y: [B, d] {{
  default Linear(bias = false)
  layers: for i in range(2) {{ x = x + Part(d)(x) as part }}
  return x
}}
"""


@pytest.mark.parametrize(("arm", "found"), [
    ("bad => Linear(2 * d)", "bad => Linear(2 * d)"), ("bad => Linear(d) >> Linear(2.5)", "2.5"),
    ("bad => block(y) => concat([y, y], axis = -1)", "bad"),
    ("bad => identity", ""), ("bad(k: int = 3 in {2, 3}) => block(y) => y |> Linear(2 * d / k) as up |> Linear(d) as down", ""),
    ("bad(k: int = 4 in {2, 4}) => block(y) => y |> Linear(d / k) as up |> Linear(d) as down", ""), ("bad => block(y) => y + 1", ""),
])
def test_arms_that_the_defaults_leave_out(arm, found):
    """Told once, at the arm; divisions limit a space, and settings and defaults that reach nothing are for other arms."""
    text = CHOICE.format(arm=arm)
    told = check_text(text, "a.arch", lints=True)
    assert [d.code for d in told] == ["A0708"] * bool(found), told
    for d in told:
        line = text.splitlines().index(next(x for x in text.splitlines() if "choose" in x)) + 1
        assert d.severity == "warning" and d.span.source.position(d.span.start)[0] == line and d.span.text.startswith(found)
        assert d.message.startswith("with `layers.0.part.f = bad`, ")
    assert not check_text(text.replace("= good\n", "= good # allow A0708\n"), "a.arch", lints=True)
    assert not check_text(text, "a.arch"), "a spec that is read may be one whose arms fit with other settings"


@pytest.mark.parametrize(("claim", "empty"), [
    ("params >= 0", True), ("0 <= params", True), ("macs + params > -1", True), ("1 == 1", True), ("params == params", True),
    ("params > 0", False), ("params >= 1", False), ("params <= 0", False), ("params == 0", False), ("macs == 0", False),
    ("count(linear) >= 0", True), ("params == 5 when false", True), ("params == 0 when d == 4", False),
])
def test_claims(claim, empty):
    text = f"model M(d: int = 4)(x: [B, d]) -> y: [B, d] {{ return x * 2 }}\nclaim {{ {claim} }}\n"
    assert [code for code, _ in lints(text)] == ["A0707"] * empty


USE = "use std.linear { Linear }"


@pytest.mark.parametrize(("text", "found"), [
    (f"{USE} # allow A0701\n", 0), (f"{USE} # allow A0701: for later\n", 0), (f"{USE} # allow A0702\n", 1), (f"# allow A0701\n{USE}\n", 0),
    (f"# allow A0702, A0701\n{USE}\n", 0), (f"# allow everything\n{USE}\n", 1), (f"{USE}\n# allow A0701\n", 1),
    (f"use std.norm {{ RMSNorm }}\n# allow A0701\n{USE}\n", 1), (f"# allow A0701\n\nuse std.norm {{ RMSNorm }}\n\n{USE}\n", 0),
])
def test_allow(text, found):
    assert len(lints(text + block("return x"))) == found


def test_fixes_remove_imports():
    text = """\
use std.linear { Linear }
use std.norm { LayerNorm, RMSNorm }  # kept
use std.channel {
  SwiGLU, # with a comment
}
use std.residual { Pre, Post }

""" + block("return LayerNorm()(x) as n")
    made = fix_text(text, "a.arch", lambda t: check_text(t, "a.arch", lints=True))
    assert made.text == """\
use std.norm { LayerNorm }  # kept
use std.channel {
  SwiGLU, # with a comment
}

""" + block("return LayerNorm()(x) as n")
    assert [d.code for d in made.left] == ["A0701"]


def test_a_file_with_an_error_has_no_lints_and_load_never_has():
    assert [d.code for d in check_text(USE + "\n" + block("return y"), "a.arch", lints=True)] == ["A0201"]
    assert check_text(USE + "\n" + block("return x"), "a.arch") == []


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_shipped_specs_need_none(path):
    from archdsl.files import read_source
    from archdsl.lints import lint
    from archdsl.modules import Library

    assert lint(Library().open(read_source(path), path.parent)) == []


def test_the_command(archdsl, tmp_path, golden):
    (tmp_path / "a.arch").write_text(USE + "\n" + block("y = x\nreturn x"))
    assert archdsl("check", "a.arch").stdout == golden
    assert archdsl("check", "a.arch", "--no-lints").stdout == "1 file checked: no errors\n"
    assert archdsl("check", "--no-lints", "--", "a.arch").stdout == "1 file checked: no errors\n"
    assert archdsl("check", "--fix", "a.arch").stdout.endswith("1 file checked: no errors, 1 warning; 1 fix applied\n")
    assert check_file("a.arch") == []
    (tmp_path / "b.arch").write_text(USE + "\nmodel M(d: int = 4)(x: [B, d]) -> y: [B, d] { return x }")
    assert load("b.arch").name == "M"


def test_many_names_take_linear_time():
    from archdsl.lints import lint
    from archdsl.modules import Library
    from archdsl.source import Source

    def work(n: int) -> int:
        body = "\n".join(f"v{i} = x" for i in range(3 * n)) + "\n" + "\n".join(f"if d == {i} {{ x = x }}" for i in range(n)) + "\nreturn x"
        module = Library().open(Source("a.arch", block(body)), None)
        assert len(lint(module)) == 100
        return calls(lambda: lint(module))

    few, many = map(work, (250, 1000))
    assert many < 4.1 * few < 1_000_000
