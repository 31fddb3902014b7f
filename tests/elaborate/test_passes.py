"""Passes of labelled loops: bodies are shared where nothing that counts differs, and only there."""
from __future__ import annotations

import pytest

import archdsl
from archdsl.elaborate import loops, passes

MODEL = """use std.linear {{ Linear }}
use std.norm {{ LayerNorm, RMSNorm }}
fn wide(i: int) -> int {{ return if i > 2 {{ 16 }} else {{ 8 }} }}
block Other(n: int)(x: [..., d]) -> [..., d] {{ return Linear(d)(Linear(n)(x) as up) as down }}
model M(depth: int = 6, widths: list[int] = [8, 16, 8, 16, 8, 16], every: int = 2, eps: float? = none,
  few: list[int]? = [1, 2])(x: [B = 1, T, 8]) -> [B, _, _] {{
{body}
  return x
}}
"""


@pytest.fixture
def elaborated(monkeypatch):
    """The bodies that are elaborated."""
    calls = []
    real = loops._body_graph

    def counted(*args, **kwargs):
        calls.append(args[1].label)
        return real(*args, **kwargs)

    monkeypatch.setattr(loops, "_body_graph", counted)
    return calls


def graph(body: str):
    return archdsl.loads(MODEL.format(body=body)).elaborate().graph


@pytest.mark.parametrize(("body", "times"), [
    ("layers: for i in range(depth) { x = if i % 2 == 0 { LayerNorm()(x) as n } else { RMSNorm()(x) as n } }", 2),
    ("layers: for i in range(depth) { x = Other(widths[i])(x) as f }", 2),
    ("layers: for i in range(depth) { x = Other(wide(i))(x) as f }", 2),
    ("layers: for i in range(depth) { x = Other(max(widths[i], 16))(x) as f }", 1),
    ("layers: for i in range(depth) { n = if i > 0 and depth % i == 0 { 4 } else { 2 } x = Other(n)(x) as f }", 2),
    ("layers: for i in range(depth) { if i > 3 { x = Other(widths[i])(x) as f } else { x = LayerNorm()(x) as n } }", 3),
    ("layers: for i in range(depth) { if eps is some { x = LayerNorm(eps = eps / i)(x) as n } else { x = LayerNorm()(x) as n } }", 1),
    ("layers: for i in range(depth) { n = i + 1 x = Other(n)(x) as f }", 6),
    ("layers: for i in range(depth) { require T > i, \"pass {i} needs more\" x = LayerNorm()(x) as n }", 6),
    ("layers: for i in range(depth) { x = x + i }", 6),
    ("layers: for i in range(depth) { y = i in (few ?? []) x = if y { LayerNorm()(x) as n } else { RMSNorm()(x) as n } }", 2),
    ("layers: for i in range(depth) { x = Other(if i > 3 { 4 } else { 8 })(x) as f }", 2),
    ("layers: for w in widths { x = Other(w)(x) as f }", 2),
    ("layers: for i in range(depth) { inner: for j in range(2) { x = Other(widths[i + j * 2 - j * 2])(x) as f } }", 8),
    ("y = x\n  layers: for i in range(depth) { x = if i % every == 0 { x + y } else { x * y } }", 3),
])
def test_bodies_are_elaborated_once_for_what_counts(body, times, elaborated, monkeypatch):
    found = graph(body)
    assert len(elaborated) == times
    monkeypatch.setattr(passes, "plan", lambda frame, s: None)
    assert graph(body).hash == found.hash


def test_a_message_names_its_pass(elaborated):
    messages = [g.message for g in graph('layers: for i in range(3) { require T > i, "pass {i} needs more" x = LayerNorm()(x) as n }').guards]
    assert messages == ["pass 0 needs more", "pass 1 needs more", "pass 2 needs more"] or messages == ["pass 1 needs more", "pass 2 needs more"]


def test_a_division_that_is_not_reached_is_no_fault():
    graph("layers: for i in range(depth) { if i > 0 { n = 8 // i x = Other(n)(x) as f } else { x = LayerNorm()(x) as n } }")


def test_a_variable_that_hides_a_function_is_what_counts():
    body = "wide_ = 8\n  layers: for i in range(depth) { wide_ = wide_ + i x = Other(wide_)(x) as f }"
    children = graph(body).children
    assert [c.children["f"].children["up"].params[0].type.shape[0] for c in children.values()] == [8, 9, 11, 14, 18, 23]
