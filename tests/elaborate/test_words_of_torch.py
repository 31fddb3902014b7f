"""What somebody writes who comes from PyTorch: each guess is answered with what is written here."""
from __future__ import annotations

import pytest

from archdsl.diagnostics.fixing import apply
from archdsl.spec import check_text

USE = "use std.linear { Linear }\nuse std.mixer { Attention }\n"


def model(body: str, header: str = "d: int = 8") -> str:
    return USE + f"model M({header})(x: [B, T, d]) -> [B, _, _] {{ return {body} }}\n"


@pytest.mark.parametrize(("written", "meant"), [
    ("Attention(num_heads = 2)(x) as a", "Attention(heads = 2)(x) as a"),
    ("Attention(2, causal = true)(x) as a", "Attention(2, mask = causal)(x) as a"),
    ("Attention(2, is_causal = true)(x) as a", "Attention(2, mask = causal)(x) as a"),
    ("MultiheadAttention(2)(x) as a", "Attention(2)(x) as a"),
    ("Linear(d, bias = False)(x) as a", "Linear(d, bias = false)(x) as a"),
    ("Linear(d, 2 * d, bias = false)(x) as a", "Linear(2 * d, bias = false)(x) as a"),
    ("GELU()(x)", "gelu(x)"), ("gelu()(x)", "gelu(x)"), ("x |> ReLU()", "x |> relu"),
    ("x.softmax(axis = -1)", "softmax(x, axis = -1)"), ("(x + x).sigmoid()", "sigmoid((x + x))"),
])
def test_the_fix_gives_what_was_meant(written: str, meant: str):
    text = model(written)
    assert check_text(model(meant), "a.arch") == []
    (d,) = check_text(text, "a.arch")
    fixed = [apply(text, [(span.start, span.end, new) for span, new in fix.edits]) for fix in d.fixes]
    assert model(meant) in fixed, [f.title for f in d.fixes]


@pytest.mark.parametrize("written", ["x |> w", "x |> gelu |> w", "x >> w"])
def test_two_tensors_are_not_exchanged(written: str):
    """`x |> w` with two tensors has no sure fix: the other way round it is as wrong."""
    text = "model M(d: int = 8)(x: [B, d], w: [B, d]) -> [B, d] { return " + written + " }\n"
    (d,) = check_text(text, "a.arch")
    assert d.code == "A0206" and not d.fixes


@pytest.mark.parametrize(("text", "help"), [
    (model("x", 'd: int = 8, kinds: list = ["a"]'), "`list[int]`"),
    (model("dropout(x, dropout)", "d: int = 8, dropout: float = 0.1"), "hides the function `dropout`"),
])
def test_the_help_says_what_to_do(text: str, help: str):
    (d,) = check_text(text, "a.arch")
    assert help in " ".join(d.help), d.help


def test_a_block_is_not_given_to_a_number():
    found = check_text("use std { Rope }\n" + model("Attention(2, rope = Rope())(x) as a"), "a.arch")
    assert [d.code for d in found] == ["A0202"] and not any("drop" in f.title for d in found for f in d.fixes)


def test_first_letters_stand_for_a_block():
    found = check_text("use std { GLA }\n" + model("GLA(2)(x) as a"), "a.arch")
    assert {d.fixes[0].title.split(" and add")[0] for d in found} == {"replace by `GatedLinearAttention`"}


def test_an_import_that_is_not_there_is_not_proposed():
    found = check_text("use std.mixer { MultiHeadAttention }\n" + model("MultiheadAttention(2)(x) as a"), "a.arch")
    assert [d.fixes[0].title for d in found] == ["replace by `Attention`"] * 2
