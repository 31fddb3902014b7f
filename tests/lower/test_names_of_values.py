"""Printed code and printed graphs keep the names of the spec's variables, in nested and in flat form."""
from __future__ import annotations

import re

import pytest
from lowered import build, typed

from archdsl.lower.emit_python import python_source
from archdsl.printer import print_graph

NAMED = """
use std.linear { Linear }

block Halves()(x: [B, d]) -> (sum: [B, d // 2], gap: [B, d // 2]) {
  left, right = split(Linear(d)(x), 2)
  return left + right, gap = left - right
}

model Named()(x: [B, 8]) -> y: [B, 4] {
  total, gap = Halves()(x) as halves
  _, kept = Halves()(x) as others
  streams = [total, gap]
  layers: for i in range(3) {
    mixed = Linear(4)(streams[0]) as mix
    streams = [mixed + streams[1], kept * mixed]
  }
  return streams[0] * streams[1]
}
"""


def assigned(text: str) -> set[str]:
    return {n for line in re.findall(r"^ *([\w, ]+) = ", text, re.M) for n in line.split(", ")}


@pytest.mark.parametrize("flat", [False, True])
def test_code_keeps_names(flat):
    model = build(NAMED, flat=flat)
    for text in (model.print_readable(print_output=False), python_source(model)):
        names = assigned(text)
        assert {"left", "right", "mixed"} <= names, names
        assert {"total", "gap", "kept"} <= names or flat and {"total", "gap"} <= names, names
        assert not [n for n in names if n.startswith("getitem")], names


def test_passes_of_a_loop_give_what_they_carry():
    text = build(NAMED).print_readable(print_output=False)
    assert re.search(r"streams_0, streams_1 = self\.layers\[0\]\(", text), text
    assert "_, kept = self.others(x)" in text


def test_the_printed_graph_keeps_names():
    text = print_graph(typed(NAMED))
    assert "left, right = split(" in text and "total, gap = Halves" in text, text
    assert re.search(r"streams_0\w*, streams_1\w* = ", text), text
