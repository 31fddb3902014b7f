"""Bits as costs: what quantised weights take, and products times the bits of their factors, counted by hand; in a space, sums over parts."""
from __future__ import annotations

import pytest

import archdsl
from archdsl.cost import figure

TEXT = """use std.linear { Linear }
use std.norm { RMSNorm }
use std.quantized { FakeQuantize, QuantizedConv, QuantizedLinear }

block Own(out: int, w: int = 8 in {4, 8, 32}, a: int = 8 in {8, 32})(x: [..., i]) -> [..., out] {
  return QuantizedLinear(out, w, a, symmetric = w > 4, group = if w == 4 { 4 } else { none })(x) as _
}

model M(d: int = 8, n: int = 3)(x: [B = 2, T = 3, d]) -> y: [B, T, d] {
  layers: for i in range(n) { x = RMSNorm()(x) as norm  x = Own(d)(x) as map }
  return Linear(4 * d, bias = false)(x) as up |> Linear(d) as down
}
"""


def of(name: str, **knobs) -> int | None:
    return figure(archdsl.loads(TEXT).elaborate(None, knobs), name)


def test_bytes():
    others = 3 * (8 + 8) * 4 + (2 * 32 * 8 + 8) * 4  # norms and biases, the maps that are not quantised
    assert of("quantized_bytes") == others + 3 * (64 + 8 * 4)
    four = {f"layers.{i}.map.w": 4 for i in range(3)}
    assert of("quantized_bytes", **four) == others + 3 * (32 + 16 * (4 + 1))
    assert of("quantized_bytes", **dict.fromkeys(four, 32)) == of("weight_bytes") == others + 3 * 64 * 4
    made = archdsl.loads(TEXT).elaborate()
    assert figure(made, "quantized_bytes", dtype="bf16") == others // 2 + 3 * (64 + 8 * 4)


def test_bit_operations():
    inner, outer = 6 * 64, 6 * 2 * 8 * 32
    assert of("bops") == 3 * inner * 8 * 8 + outer * 32 * 32
    assert of("bops", **{"layers.0.map.w": 4, "layers.1.map.a": 32}) == inner * (4 * 8 + 8 * 32 + 8 * 8) + outer * 32 * 32
    assert of("bops", **{f"layers.{i}.map.{k}": 32 for i in range(3) for k in "wa"}) == 1024 * (3 * inner + outer) == 1024 * (of("macs") or 0)


@pytest.mark.parametrize(("body", "bops", "bytes"), [
    ("a = FakeQuantize(4)(x) |> rearrange([B, i, j] -> [B, j, i])\n  return x @ a", 2 * 27 * 32 * 4, 0),
    ("a = FakeQuantize(4)(x)\n  return einsum([B, i, j], [B, k, j] -> [B, i, k])(a, a)", 2 * 27 * 4 * 4, 0),
    ("param w: [3, 3] = zeros()\n  return x @ (FakeQuantize(8)(w) + w)", 2 * 27 * 32 * 32, 36),
    ("param w: [3, 3] = zeros()\n  return x @ FakeQuantize(8)(w) @ FakeQuantize(4)(w)", 2 * 27 * 32 * (8 + 4), 9 + 2 * 4),
    ("a = FakeQuantize(8)(x)\n  return attention(a[:, none], a[:, none], a[:, none])[:, 0]", 2 * 2 * 27 * 32 * 32, 0),
])
def test_factors_and_readers(body, bops, bytes):
    """Bits go where numbers are moved, not where they are computed with; a weight that is read as it is as well is stored as it is."""
    text = f"use std.quantized {{ FakeQuantize }}\nmodel M()(x: [B = 2, 3, 3]) -> y: [B, 3, 3] {{\n  {body}\n}}\n"
    made = archdsl.loads(text).elaborate()
    assert (figure(made, "bops"), figure(made, "quantized_bytes")) == (bops, bytes)


@pytest.mark.parametrize(("body", "bytes"), [
    ("y, w = Own()(x) as own\n  return y", 64), ("y, w = Own()(x) as own\n  return y @ w", 64),
    ("share q = QuantizedLinear(4, bias = false)\n  return q(q(x))", 16 + 4 * 4),
    ("share q = QuantizedLinear(4, bias = false)\n  return linear(q(x), q.weight)", 64),
])
def test_weights_that_other_blocks_read(body, bytes):
    text = f"""use std.quantized {{ FakeQuantize, QuantizedLinear }}
block Own()(x: [B, 4]) -> ([B, 4], [4, 4]) {{
  param w: [4, 4] = zeros()
  return x @ FakeQuantize(8)(w), w
}}
model M()(x: [B = 2, 4]) -> y: [B, 4] {{
  {body}
}}
"""
    assert figure(archdsl.loads(text).elaborate(), "quantized_bytes") == bytes


def test_in_a_space_they_are_sums_over_parts():
    spec = archdsl.loads(TEXT)
    space = spec.space()
    for seed in range(4):
        c = space.sample(seed)
        made = spec.elaborate(None, dict(c))
        assert space.costs(c, ["quantized_bytes", "bops"]) == {n: figure(made, n) for n in ("quantized_bytes", "bops")}
    every = [space.costs(c, ["bops", "quantized_bytes"]) for i in range(6**3) if (c := space.at(i)) is not None]
    limited = spec.space(limits=["bops <= 3_300_000", "quantized_bytes <= 2_700"])
    fit = sum(c["bops"] <= 3_300_000 and c["quantized_bytes"] <= 2_700 for c in every)
    assert limited.uniform and limited.size == fit and 0 < fit < 216
