"""Long specs for the benchmarks of the front end: `python benchmarks/generate.py LINES > long.arch`.

A chapter is what a file about one family holds: a function, four blocks written out (gated channel mixing, attention, a gated token mixer, an
inverted bottleneck), a language model and a vision model over them, variants, claims, names, comments. Chapters differ in their sizes, depths
and ratios, so no two of them share a definition; models of one chapter do.
"""
from __future__ import annotations

import sys

HEAD = """# Written by benchmarks/generate.py.
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.norm { BatchNorm, LayerNorm, RMSNorm }
use std.residual { Pre }
use std.vision { Conv }

paper { title = "Chapters of a generated book", domain = "language" }
"""

CHAPTER = """
# ---------------------------------------------------------------- chapter {n}
/// The multiple of k nearest to n, at least k.
fn near{n}(n: int, k: int) -> int {{
  m = (n + k / 2) // k * k
  return max(k, m)
}}

/// Gated channel mixing: down(act(gate(x)) * up(x)).
block Gated{n}(hidden: int, act: block = silu, drop: float = 0)(x: [..., d]) -> [..., d] {{
  a = x |> Linear(hidden, bias = false) as gate |> act  # the gate
  b = x |> Linear(hidden, bias = false) as up
  return (a * b) |> dropout(drop) |> Linear(d, bias = false) as down
}}

/// Attention, written out: one row of weights for each query, over all keys up to it.
block Heads{n}(heads: int, width: int = 16, scale: float = {scale})(x: [B, T, d]) -> [B, T, d] {{
  require 8 * heads * width >= d, "{{heads}} heads of {{width}} are narrow for {{d}} channels"
  q = x |> Linear(heads * width) as q |> rearrange([B, T, (h w)] -> [B, h, T, w], h = heads)
  k = x |> Linear(heads * width) as k |> rearrange([B, T, (h w)] -> [B, h, T, w], h = heads)
  v = x |> Linear(heads * width) as v |> rearrange([B, T, (h w)] -> [B, h, T, w], h = heads)
  y = attention(q, k, v, scale = scale, mask = causal)
  return y |> rearrange([B, h, T, w] -> [B, T, (h w)]) |> Linear(d) as out
}}

/// Mixes neighbouring tokens, channel by channel, and gates the result.
block Tokens{n}(kernel: int = {kernel}, ratio: int = {ratio})(x: [B, T, d]) -> [B, T, d] {{
  param gate: [d] = constant(0.5)
  param shift: [ratio, d] = normal(std = 0.02)
  u = x |> Linear(ratio * d) as spread |> rearrange([B, T, (r c)] -> [B, T, r, c], r = ratio)
  u = (u + shift) |> reduce([B, T, r, c] -> [B, T, c], mean) |> gelu
  # an odd kernel keeps the length
  require kernel % 2 == 1
  return x + u * sigmoid(gate)
}}

/// Inverted bottleneck: wide, depthwise, narrow.
block Bottleneck{n}(out: int, stride: int = 1, expand: int = {expand}, drop: float = 0)(x: [B, c, H, W]) -> [B, out, _, _] {{
  y = x |> Conv(expand * c, 1, bias = false) as wide |> BatchNorm() as norm1 |> relu6
  y = y |> Conv(expand * c, 3, stride = stride, pad = 1, groups = expand * c, bias = false) as depthwise |> BatchNorm() as norm2 |> relu6
  y = y |> Conv(out, 1, bias = false) as narrow |> BatchNorm() as norm3
  return if stride == 1 and out == c {{ x + (y |> drop_path(drop)) }} else {{ y }}
}}

/// A decoder of {depth} layers; every {every}th one mixes tokens without attention.
model Text{n}(
  vocab: int = {vocab},
  d: int = {d} in 32..1024 step 32,
  depth: int = {depth} in 2..48,
  heads: int = {heads} in {{2, 3, 4, 6, 8}},
  hidden: int = near{n}(8 * d // 3, 32),
  drop: float = {drop},
)(tokens: int[B = 1, T = 64] in 0..<vocab) -> logits: [B, T, vocab] {{
  default Linear(init = normal(std = 0.02))
  share embed = TokenEmbedding(vocab, d, init = normal(std = 0.02))
  x = embed(tokens)
  rates = linspace(0, drop, depth)
  layers: for i in range(depth) {{
    x = if i % {every} == 0 {{
      Pre(RMSNorm(), Tokens{n}(), drop = rates[i])(x) as mix
    }} else {{
      Pre(RMSNorm(), Heads{n}(heads), drop = rates[i])(x) as mix
    }}
    x = Pre(RMSNorm(), Gated{n}(hidden), drop = rates[i])(x) as channels
  }}
  x = x |> LayerNorm() as norm
  return linear(x, embed.weight)
}}

variant small{n} of Text{n} {{ d = {small}, depth = 3 }}
variant wide{n} of Text{n} {{ d = {wide}, heads = 8 }}
claim small{n} {{ params > 0 }}

names flat{n} of Text{n} {{
  "wte.weight" <-> embed.weight
  "h.{{i}}.*" <-> layers.{{i}}.mix.*
  "h.{{i}}.*.*" <-> layers.{{i}}.mix.*.*
  "h.{{i}}.mlp.{{gate, up, down}}.*" <-> layers.{{i}}.channels.{{gate, up, down}}.*
  "h.{{i}}.mlp_norm.*" <-> layers.{{i}}.channels.norm.*
  "ln_f.*" <-> norm.*
}}

/// Stages of inverted bottlenecks, each half as large as the one before.
model Image{n}(
  widths: list[int; 3] = [{w0}, {w1}, {w2}] in each w => multiples(8, w / 2, w * 2),
  depths: list[int; 3] = [2, {stage}, 2] in each 1..8,
  classes: int = {classes},
  drop: float = {drop},
)(image: [B = 1, 3, H = 64, W = 64]) -> logits: [B, classes] {{
  x = image |> Conv(widths[0], 3, stride = 2, pad = 1, bias = false) as stem |> BatchNorm() as stem_norm |> relu6
  rates = ramp(0, drop, depths)
  stages: for i, (w, blocks) in enumerate(zip(widths, depths)) {{
    blocks: for j in range(blocks) {{
      stride = if i > 0 and j == 0 {{ 2 }} else {{ 1 }}
      x = Bottleneck{n}(w, stride, drop = rates[i][j])(x) as _
    }}
    emit features = x
  }}
  return x |> reduce([B, c, Y, X] -> [B, c], mean) |> Linear(classes) as head
}}

variant deep{n} of Image{n} {{ depths = [3, {deep}, 3] }}
"""


def chapter(n: int) -> str:
    d = 32 * (2 + n % 7)
    return CHAPTER.format(
        n=n, d=d, small=d // 2, wide=d + 64, depth=4 + n % 9, every=2 + n % 3, heads=(2, 4, 8)[n % 3], vocab=500 + n,
        drop=f"0.{n % 4}", scale=f"0.{2 + n % 7}",
        kernel=3 + 2 * (n % 3), ratio=2 + n % 3, expand=2 + n % 4, w0=8 * (2 + n % 5), w1=8 * (4 + n % 5), w2=8 * (8 + n % 5), stage=2 + n % 4,
        deep=4 + n % 5, classes=10 + n,
    )


def generated(lines: int) -> str:
    """A spec of about that many lines, by whole chapters."""
    text, n = HEAD, 0
    have = HEAD.count("\n")
    while have < lines:
        part = chapter(n)
        text += part
        have += part.count("\n")
        n += 1
    return text


if __name__ == "__main__":
    print(generated(int(sys.argv[1])), end="")
