"""Decoding against the length of the context: the state's bytes by hand, the roofline, the picture."""
from __future__ import annotations

from xml.etree import ElementTree

import pytest

import archdsl as package
from archdsl.cost import DEVICES, Device, decode
from archdsl.cost.decode import LENGTHS, least_time
from archdsl.cost.plot import svg

HYBRID = """\
use std.embed { TokenEmbedding }
use std.linear { Linear }

model Hybrid(d: int = 8, reach: int? = none, window: mask = if reach is some { causal & window(reach) } else { causal })(
  tokens: int[B = 2, T = 64] in 0..<11,
) -> y: [B, T, d] stream T {
  x = TokenEmbedding(11, d)(tokens)
  q = Linear(d)(x) as q
  x = x + linear_attention(q, q, x)
  z = rearrange(x, [B, T, (h w)] -> [B, h, T, w], h = 2)
  return rearrange(attention(z, z, z, mask = window), [B, h, T, w] -> [B, T, (h w)])
}
variant near { reach = 5 }
"""


@pytest.fixture(scope="module")
def spec() -> package.Spec:
    return package.loads(HYBRID)


@pytest.mark.parametrize(("dtype", "size"), [("f32", 4), ("bf16", 2)])
def test_state_by_hand(spec, dtype: str, size: int):
    """A memory of 8 x 8 float32 numbers by row; keys and values of 8 for each position; the position, and where each row began."""
    found = decode(spec.elaborate(), {"B": 3}, dtype)
    assert [c.length for c in found.contexts] == sorted({*LENGTHS, 64})
    for c in found.contexts:
        assert c.state_bytes == 3 * (64 * 4 + 2 * 8 * c.length * size + 8) + 8
        assert c.per_token == 3 * 2 * 8 * size
        assert c.state_bytes == spec.cost(None, {"B": 3, "T": c.length}, "step", dtype).state_bytes
        assert c.macs == spec.cost(None, {"B": 3, "T": c.length}, "step", dtype).macs
        assert c.seconds is None and c.bound is None


def test_a_window_stops_to_grow(spec):
    contexts = decode(spec.elaborate("near")).contexts
    assert {c.per_token for c in contexts} == {0} and len({c.state_bytes for c in contexts}) == 1 and len({c.macs for c in contexts}) == 1


def test_positions_beyond_the_model_are_left_out():
    found = decode(package.load("gpt2").elaborate(knobs={"d": 32, "heads": 4, "depth": 1, "vocab": 61}), {"T": 100})
    assert [c.length for c in found.contexts] == [100, 1024]


def test_least_time():
    """1 GB at 100 GB/s is 10 ms; 10 G multiply-accumulates at 1 TFLOP/s are 20 ms."""
    device = Device("d", "D", 100e9, {"f32": 1e12}, "here")
    assert least_time(10**9, 10**8, "f32", device) == (0.01, "memory")
    assert least_time(10**9, 10**10, "f32", device) == (0.02, "compute")


def test_step_time_reads_weights_and_state(spec):
    device = Device("slow", "Slow", 1e6, {"f32": 1e15}, "here")
    found = decode(spec.elaborate(), {"B": 1}, device=device, lengths=[100])
    weights = 4 * (1 * 8 + 8 * 8 + 8)  # one row of the table of tokens
    last = found.contexts[-1]
    assert last.length == 100 and last.bound == "memory"
    assert last.seconds == pytest.approx((weights + last.state_bytes) / 1e6)


@pytest.mark.parametrize(("rows", "experts", "vectors"), [(1, 2, 1), (2, 4, 2), (3, 5, 3), (40, 5, 31)])
def test_step_time_reads_what_is_chosen(rows: int, experts: int, vectors: int):
    """Of five experts those that the rows choose, two each, at most; of a table that is the head as well everything."""
    text = """use std { ExpertSwiGLU, Linear, MoE, TokenEmbedding, TopK }
model Net(d: int = 8, tie: bool = false)(tokens: int[B = 1, T = 4] in 0..<31) -> y: [B, T, 31] stream T {
  share embed = TokenEmbedding(31, d)
  x = cumsum(embed(tokens), axis = 1)
  x = MoE(5, ExpertSwiGLU(5, 6), TopK(2), active = 2)(x) as mlp
  return if tie { linear(x, embed.weight) } else { Linear(31, bias = false)(x) as head }
}"""
    device = Device("slow", "Slow", 1e6, {"f32": 1e15}, "here")
    for tie in (False, True):
        found = decode(package.loads(text).elaborate(knobs={"tie": tie}), {"B": rows}, device=device, lengths=[100]).contexts[-1]
        weights = 5 * 8 + experts * 3 * 8 * 6 + 31 * 8 + (0 if tie else vectors * 8)
        assert found.seconds == pytest.approx((4 * weights + found.state_bytes) / 1e6)


def test_step_time_reads_rows_of_all_positions():
    """A table by distance is read once for each position of the context, until all of its rows are."""
    text = """use std.mixer { Attention }
model Net(d: int = 8)(x: [B = 1, T = 4, d]) -> y: [B, T, d] stream T {
  param table: [100, 2] = zeros()
  bias = rearrange(embedding(minimum(maximum(distance(T), 0), 99), table), [T, S, h] -> [h, T, S])
  return Attention(2, mask = causal, bias = false)(x, bias_table = bias) as attn
}"""
    device = Device("slow", "Slow", 1e6, {"f32": 1e15}, "here")
    found = decode(package.loads(text).elaborate(), {"T": 10}, device=device, lengths=[10, 60, 300]).contexts
    for c, rows in zip(found, (10, 60, 100), strict=True):
        assert c.seconds == pytest.approx((4 * (4 * 8 * 8 + 2 * rows) + c.state_bytes) / 1e6)


def test_devices_have_all_types_and_sources():
    for name, d in DEVICES.items():
        assert name == d.name and d.source and set(d.flops) == {"f32", "f64", "bf16", "f16"} and d.bandwidth > 1e11
        assert d.flops["f64"] <= d.flops["f32"] <= d.flops["bf16"]


def test_the_picture_shows_every_context(spec):
    """Points lie where the numbers say: equal factors are equal distances."""
    found = decode(spec.elaborate(), device=DEVICES["h100-sxm"], lengths=[1024, 2048, 4096])
    root = ElementTree.fromstring(svg(found, "Hybrid <1>"))
    space = "{http://www.w3.org/2000/svg}"
    lines = [[tuple(map(float, p.split(","))) for p in e.attrib["points"].split()] for e in root.iter(f"{space}polyline")]
    assert len(lines) == 2 and all(len(points) == len(found.contexts) == 4 for points in lines)
    xs = [x for x, _ in lines[0]]
    assert xs[2] - xs[1] == pytest.approx(xs[3] - xs[2], abs=0.2) and xs == sorted(xs)
    ys = [y for _, y in lines[0]]
    assert ys == sorted(ys, reverse=True)
    said = "".join(root.itertext())
    assert "Hybrid <1>" in said and "positions of context" in said and "weights, 640 B" in said and "4,096" in said
