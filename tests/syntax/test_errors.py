"""Mistakes: code, words, place, fix, and that reading goes on behind them."""

from __future__ import annotations

import pytest

from archdsl.diagnostics.render import render
from archdsl.source import Source
from archdsl.syntax.errors import CODES, distance
from archdsl.syntax.parser import parse, parse_recover
from tests.syntax.helpers import faults, recovered, repaired

BODY = "block A()(x: [d]) -> [d] {{\n  {}\n  return x\n}}\n"

CASES = [  # (id, statement, code, part of the message, marked text, does the fix mend it)
    ("misspelt word", "retrun x", "A0108", "`retrun` is no word", "retrun", True),
    ("misspelt word within", "y = f(x) ass z", "A0108", "`ass` is no word", "ass", True),
    ("misspelt loop", "fro i in range(3) { y = x }", "A0108", "`fro` is no word", "fro", True),
    ("another language's word", "elif x { y = 1 }", "A0108", "`elif` is no word", "elif", False),
    ("unclosed arguments", "y = Linear(4 * d", "A0109", "the argument list of `Linear` is not closed", "return", True),
    ("unclosed second arguments", "y = Pre(Norm(), f)(x", "A0109", "the argument list of `Pre(Norm(), f)` is not closed", "return", True),
    ("unclosed index", "y = rows[1", "A0109", "the index of `rows` is not closed", "return", True),
    ("unclosed list", "y = [1, 2", "A0109", "the list is not closed", "return", True),
    ("unclosed parenthesis", "y = (a + b", "A0109", "the parenthesis is not closed", "return", True),
    ("unclosed shape", "param w: [d, k", "A0109", "the shape", "k", False),
    ("unclosed layout call", "y = rearrange([a, b] -> [b, a]", "A0109", "the argument list of `rearrange` is not closed", "return", True),
    ("wrong closing bracket", "y = f(a]", "A0109", "the argument list of `f` is not closed", "]", False),
    ("call apart", "y = f (x)", "A0110", "the call does not touch `f`", "(", True),
    ("index apart", "y = f [0]", "A0110", "the index does not touch `f`", "[", True),
    ("bracket on a new line", "y = f\n  (x)", "A0117", "a statement cannot start with `(`", "(", False),
    ("sum before a pipe", "y = x + z |> f", "A0111", "`|>` cannot follow `+`", "|>", True),
    ("pipe before a sum", "y = x |> f + z", "A0111", "`+` cannot follow `|>`", "+", True),
    ("pipe and composition", "y = x |> f >> g", "A0111", "`>>` cannot follow `|>`", ">>", True),
    ("masks mixed", "y = a & b | c", "A0111", "`|` cannot follow `&`", "|", True),
    ("sum before an alternative", "y = a + b ?? c", "A0111", "`??` cannot follow `+`", "??", True),
    ("comparisons in a row", "require 0 < a < b", "A0112", "comparisons do not chain", "<", False),
    ("binding in a branch", "y = if c { z = 1 } else { 2 }", "A0113", "it binds no names", "1", False),
    ("reserved name", "in = 3", "A0114", "`in` is a word of the language", "in", False),
    ("reserved parameter", "param match: [d] = zeros()", "A0114", "`match` is a word of the language", "match", False),
    ("assignment for comparison", "if a = b { y = 1 }", "A0115", "a comparison is written `==`", "=", True),
    ("assignment operator", "x += 1", "A0115", "there is no `+=`", "+=", False),
    ("missing comma", "y = f(a b)", "A0116", "a comma is missing in the argument list of `f`", "b", True),
    ("missing comma in a list", "y = [1 2]", "A0116", "a comma is missing in the list", "2", True),
    ("bare call", "f(x)", "A0117", "an expression alone is no statement", "f", False),
    ("bare arithmetic", "x + 1", "A0117", "an expression alone is no statement", "x", False),
    ("number first", "3 = x", "A0117", "a statement cannot start with `3`", "3", False),
    ("missing equals", "share f Linear(d)", "A0101", "`=` is missing in `share`", "Linear", True),
    ("missing default", "choose f { a => b; c => d }", "A0101", "`=` is missing in `choose`", "}", False),
    ("missing colon", "param w [d] = zeros()", "A0101", "`:` is missing in `param`", "[", True),
    ("missing in", "for i range(3) { y = x }", "A0101", "`in` is missing in the header of `for`", "range", True),
    ("missing else", "y = if a { b }", "A0101", "`else` is missing in `if`", "}", False),
    ("missing brace of a branch", "y = if a { f(b) else { c }", "A0109", "the braces of `if` are not closed", "else", True),
    ("missing body", "if a y = 1", "A0101", "`y` cannot stand here", "y", False),
    ("missing value", "y = ", "A0101", "an expression is missing in a binding", "=", False),
    ("missing value in arguments", "y = f(a,", "A0109", "the argument list of `f` is not closed", "return", True),
    ("unended string", 'y = "abc', "A0102", "this string does not end", '"', False),
    ("single quotes", "y = 'abc'", "A0102", "strings take double quotes", "'abc'", True),
    ("unknown escape", r'y = "a\qb"', "A0103", r"no escape `\q`", r"\q", True),
    ("malformed number", "y = 12abc", "A0104", "`12abc` is no number", "12abc", False),
    ("huge exponent", "y = 1e99999", "A0104", "exponent", "1e99999", False),
    ("unknown sign", "y = a ! b", "A0107", "`!` has no meaning", "!", False),
    ("unknown letter", "größe = 3", "A0107", "`größe` has no meaning", "größe", False),
]


@pytest.mark.parametrize(("text", "code", "message", "marked", "mends"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_statement(text: str, code: str, message: str, marked: str, mends: bool):
    whole = BODY.format(text)
    found = faults(whole)
    assert [d.code for d in found] == [code], "\n".join(render(d) for d in found)
    (fault,) = found
    assert message in fault.message
    assert fault.label
    if mends:
        parse(Source("mended.arch", repaired(whole, found)))
    if code not in ("A0101", "A0109"):
        assert fault.span.text == marked
    else:
        assert fault.span.text.startswith(marked) or marked.startswith(fault.span.text)
    module = recovered(whole)
    assert len(module.decls) == 1, "the block itself is read all the same"
    assert type(module.decls[0].body[-1]).__name__ == "Return"


DECLARATIONS = [
    ("misspelt declaration", "modle M()(x: [d]) -> [d] { return x }", "A0108", "`modle` is no word"),
    ("no results", "block B()(x: [d]) { return x }", "A0101", "`->` is missing in the header of `block B`"),
    ("no body", "fn f(a: int) -> int return a", "A0101", "`{` is missing in the header of `fn f`"),
    (
        "missing comma in a header",
        "model M(\n  d: int = 3\n  e: int,\n)(x: [d]) -> [d] { return x }",
        "A0116",
        "a comma is missing in the parameter list of `model M`",
    ),
    ("missing type", "block B(a)(x: [d]) -> [d] { return x }", "A0101", "`:` is missing"),
    ("unclosed header", "block B(a: int(x: [d]) -> [d] { return x }", "A0109", "the parameter list of `block B` is not closed"),
    *((f"unclosed header behind {value}", f"block B(a: int, b: T = {value}(x: [d], y: [d]) -> [d] {{ return x }}", "A0109",
       "the parameter list of `block B` is not closed") for value in ("8", "a", "true", '"a"', "0.5", "max(a, 3)", "-a", "a in {1, 2}", "[1, 2]")),
    ("brace too many", "block B()(x: [d]) -> [d] { return x }\n}", "A0109", "this `}` closes nothing"),
    ("statement outside", "x = 3", "A0101", "a statement stands outside of any body"),
    ("no declaration", "hello world", "A0101", "no declaration starts with `hello`"),
    *((f"path {path}", f"use {path} {{ M }}", "A0101", "a module is named, not reached by a path")
      for path in ("../a", "../../a", "./a", "/etc/a", "a/b")),
    ("separated declarations", "fn f() -> int { return 1 }; use std.linear", "A0101", "no `;` stands between declarations"),
    ("python", "def f(x): return x", "A0108", "`def` is no word"),
    ("unclosed body", "block B()(x: [d]) -> [d] {\n  return x\n", "A0109", "the body of `block B` is not closed"),
    ("unclosed variant", "variant v { d = 3\n", "A0109", "`variant v` is not closed"),
    ("claim with an assignment", "claim { params = 3 }", "A0115", "a comparison is written `==`"),
    ("names without an arrow", 'names n of M { "a" b }', "A0101", "`<->` is missing in a line of `names`"),
]


@pytest.mark.parametrize(("text", "code", "message"), [pytest.param(*case[1:], id=case[0]) for case in DECLARATIONS])
def test_declaration(text: str, code: str, message: str):
    found = faults("use std.norm\n" + text + "\n")
    assert found[0].code == code, render(found[0])
    assert message in found[0].message
    assert len(found) == 1, "\n".join(render(d) for d in found)
    module = recovered("use std.norm\n" + text + "\nuse std.mixer\n")
    assert module.decls[0].module == "std.norm"


def test_independent_mistakes_are_told_together():
    text = """use std.norm { LayerNorm
block A()(x: [d]) -> [d] {
  retrun x
  y = f(a b)
  if a = b { y = Linear(3 }
  share g Linear(d)
  y = x + x |> f
  good = y
}
block Good()(x: [d]) -> [d] { return x }
modle M()(x: [d]) -> [d] { return 'x' }
claim { params = 3 }
fn half(n: int) -> int { return n / 2 }
"""
    source = Source("test.arch", text)
    module, found = recovered(text), parse_recover(source)[1]
    assert [(d.code, source.position(d.span.start)[0]) for d in found] == [
        ("A0109", 1),
        ("A0108", 3),
        ("A0116", 4),
        ("A0115", 5),
        ("A0109", 5),
        ("A0101", 6),
        ("A0111", 7),
        ("A0108", 11),
        ("A0102", 11),
        ("A0115", 12),
    ]
    names = [d.name for d in module.decls if hasattr(d, "name")]
    assert {"A", "Good", "half"} <= set(names)
    assert module.decls[[getattr(d, "name", "") for d in module.decls].index("A")].body[-1].targets[0].name == "good"


def test_a_mistake_in_a_nested_block_spares_its_surroundings():
    text = BODY.format("""layers: for i in range(3) {
    x = f(x
    if i > 1 {
      x = = 3
      z = 1
    }
    y = x
  }
  after = y""")
    module, found = recovered(text), faults(text)
    assert [d.code for d in found] == ["A0109", "A0101"]
    loop, after, result = module.decls[0].body
    assert [type(s).__name__ for s in loop.body] == ["Assign", "If", "Assign"]
    assert loop.body[1].branches[0][1][0].targets[0].name == "z"
    assert after.targets[0].name == "after"
    assert result.names == (None,)


def test_a_missing_brace_is_looked_for():
    text = "block A()(x: [d]) -> [d] {\n  for i in range(3) {\n    x = x\n  return x\n}\n"
    (fault,) = faults(text)
    assert fault.message == "the body of `for i in range(3)` is not closed"
    assert fault.span.text == "{" and fault.labels[0].span.text == "return"
    (fix,) = fault.fixes
    ((place, new),) = fix.edits
    assert text[: place.start] + new + text[place.end :] == text.replace("    x = x\n", "    x = x\n  }\n")


def test_rendering():
    (fault,) = faults("block A()(x: [d]) -> [d] {\n  y = Linear(8\n  return y\n}\n")
    assert (
        render(fault)
        == """error[A0109]: the argument list of `Linear` is not closed
 --> test.arch:3:3
  |
2 |   y = Linear(8
  |             - opened by this `(`
3 |   return y
  |   ^^^^^^ `)` is missing before this
  = help: insert `)`"""
    )


def test_no_more_than_a_screenful():
    found = faults("block A()(x: [d]) -> [d] {\n" + "  y = = 3\n" * 100 + "}\n")
    assert len(found) == 25
    assert len({d.span.start for d in found}) == 25


def test_an_unended_string_is_closed_where_a_quote_closes_it():
    for text in ('y = "abc', 'y = "abc  ', 'y = "abc\\\\'):
        whole = BODY.format(text)
        parse(Source("mended.arch", repaired(whole, faults(whole))))
    (fault,) = faults(BODY.format('y = "abc\\'))
    assert fault.code == "A0102" and not fault.fixes, "a quote behind a backslash is one inside of the string"


@pytest.mark.parametrize("quote", "'“‘")
def test_a_quote_alone(quote: str):
    found = faults(BODY.format(f"y = {quote}abc"))
    assert found[0].code == "A0107" and found[0].help == ("strings take double quotes",)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("return", "return", 0), ("retrun", "return", 1), ("fro", "for", 1), ("ass", "as", 1), ("modle", "model", 1), ("x", "emit", 4)],
)
def test_distance(a: str, b: str, expected: int):
    assert distance(a, b) == expected


@pytest.mark.parametrize("code", sorted(CODES))
def test_pages(code: str):
    page = CODES[code]
    assert page.title
    assert page.explanation
    if page.bad:
        assert code in [d.code for d in faults(page.bad)]
        parse(Source("good.arch", page.good))
