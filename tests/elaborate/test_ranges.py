"""Ranges of inputs against the tables that they index, at check; what shows only when a model runs, as a diagnostic of the claim."""
from __future__ import annotations

from typing import Any

import pytest

from archdsl.claims import verify
from archdsl.spec import loads
from tests.elaborate.helpers import fault, made

HEADER = "model M(d: int = 64, vocab: int = 1000)(tokens: int[B, T = 8] in 0..<vocab) -> y: [B, T, _] stream T {{\n  {}\n}}\n"


def table(body: str, **settings: Any) -> Any:
    return made(HEADER.format(body), **settings)


@pytest.mark.parametrize(("body", "rows", "held"), [
    ("return TokenEmbedding(d, vocab)(tokens) as e", 64, "0 to 999"),
    ("share e = TokenEmbedding(999, d)\n  return e(tokens)", 999, "0 to 999"),
    ("return TokenEmbedding(vocab, d)(tokens + 1) as e", 1000, "1 to 1000"),
    ("return TokenEmbedding(vocab, d)(tokens - 1) as e", 1000, "-1 to 998"),
    ("param w: [10, d] = normal()\n  return embedding(tokens, w)", 10, "0 to 999"),
    ("param w: [d, 10] = normal()\n  return take(w, tokens, axis = 1) |> rearrange([c, B, T] -> [B, T, c])", 10, "0 to 999"),
    ("return tokens |> rearrange([B, T] -> [(B T)]) |> TokenEmbedding(5, d) as e |> rearrange([(B T), c] -> [B, T, c], T = T)", 5, "0 to 999"),
    ("y = TokenEmbedding(vocab, d)(tokens) as a\n  l: for i in range(2) { y = y + TokenEmbedding(9, d)(tokens) }\n  return y", 9, "0 to 999"),
])
def test_an_input_that_exceeds_the_table_it_indexes(body: str, rows: int, held: str):
    d = fault(lambda: table(body))
    assert (d.code, d.message) == ("A0304", f"`tokens` holds numbers from {held}, the table that it indexes has {rows} rows")
    assert d.span.source.path == "test.arch"


def test_exchanged_arguments_are_named():
    assert "exchanged" in fault(lambda: table("return TokenEmbedding(d, vocab)(tokens) as e")).label


@pytest.mark.parametrize("body", ["return TokenEmbedding(vocab, d)(tokens) as e", "return TokenEmbedding(1024, d)(tokens) as e",
                                  "return TokenEmbedding(vocab + 1, d)(tokens + 1) as e"])
def test_a_table_with_a_row_for_each_value(body: str):
    assert table(body).graph


def test_a_setting_that_makes_the_input_exceed_its_table():
    text = "return TokenEmbedding(1000, d)(tokens) as e"
    assert table(text).graph
    assert "0 to 2000" in fault(lambda: table(text, vocab=2001)).message


def test_an_index_that_leaves_its_table_while_a_claim_runs_is_a_fault_of_the_claim():
    spec = loads("model M(d: int = 16)(x: [B, T = 8, d], i: int[B, T]) -> y: [B, T, d] stream T {\n"
                 "  param t: [4, d] = normal()\n  return x + take(t, i + 4)\n}\nclaim { causal(y, x) }\n")
    row, = verify(spec)
    assert not row["passed"]
    assert row["actual"].startswith("A0410: the model does not run: its index holds 5, and `take` takes ")
