"""Small models whose costs are counted: spec, knobs, sizes. Sizes are odd where they can be."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HEAD = """
use std.channel  { MLP, SwiGLU }
use std.embed    { LearnedPositions, Rope, TokenEmbedding }
use std.linear   { Linear }
use std.mixer    { Attention }
use std.norm     { BatchNorm, CRMSNorm, LayerNorm, MapNorm, RMSNorm }
use std.residual { LayerScale, Peri, Post, Pre }
use std.vision   { Conv }
"""

TEXTS = {
    "swin": """
model Swin(d: int = 12, window: int = 2)(image: [B = 2, 3, H = 16, W = 24]) -> y: [B, 5] {
  require H % 8 == 0 and W % 8 == 0
  x = image |> Conv(d, 4, stride = 4) as stem |> rearrange([B, d, Y, X] -> [B, Y, X, d])
  layers: for shift in [0, 1] {
    y = LayerNorm()(x) as norm
    y = roll(y, shifts = (-shift, -shift), axes = (1, 2))
    y = y |> under([B, (Y v), (X w), d] -> [(B Y X), (v w), d], Attention(3, bias = true) as attn, v = window, w = window)
    x = x + roll(y, shifts = (shift, shift), axes = (1, 2))
    x = Pre(LayerNorm(), MLP(2 * d))(x) as mlp
  }
  return mean(x, axis = (1, 2)) |> Linear(5) as head
}
""",
    "convnet": """
block Unit(rate: float)(x: [B, c, H, W]) -> [B, c, H, W] {
  y = x |> Conv(c, 3, pad = 1) as conv |> BatchNorm() as norm |> relu
  return x + drop_path(y, rate)
}
model Net(rate: float = 0.5, drop: float = 0.3)(image: [B = 3, 3, H = 10, W = 7]) -> y: [B, 5] {
  x = image |> Conv(4, 2, stride = 2) as stem
  x = Unit(rate)(x) as a
  x = max_pool(x, size = 2)
  x = Unit(0)(x) as b
  emit features = x
  return x |> reduce([B, c, Y, X] -> [B, c], mean) |> dropout(drop) |> Linear(5) as head
}
""",
    "sigma": """
block Sigma(out: int)(x: [..., i]) -> [..., out] {
  param weight: [out, i] = normal()
  param gamma: [] = ones()
  buffer u: [i] = normal()
  v = stop(l2_norm(weight @ u))
  w = stop(l2_norm(v @ weight))
  update u = w
  return linear(x, weight * (gamma / dot(v, weight @ u)))
}
model Net()(x: [B = 3, 6]) -> y: [B, 6] {
  layers: for i in range(3) { x = x + Sigma(6)(x) as f }
  return x
}
""",
    "shared": """
model Shared(d: int = 6)(x: [B = 2, T = 5, d]) -> y: [B, T, d] {
  share f = MLP(2 * d, act = block(x) => square(relu(x)))
  share norm = LayerNorm()
  loops: for i in range(3) {
    x = x + f(norm(x)) as step
    x = Pre(CRMSNorm(), Linear(d))(x) as own
  }
  return softmax(x) * sigmoid(x) - tanh(x)
}
""",
    "attention": """
model Cross(d: int = 12)(x: [B = 2, T = 5, d], memory: [B, S = 7, d], pad: bool[B, S]) -> y: [B, T, d] {
  x = Pre(RMSNorm(), Attention(4, kv_heads = 2, qk_norm = RMSNorm()))(x, memory) as cross
  y = LayerNorm()(x) as norm
  y = Attention(3, mask = window(3))(y) as local
  x = x + y
  q = x |> Linear(d) as q
  scores = einsum([B, T, d], [B, S, d] -> [B, T, S])(q, memory)
  weights = softmax(scores)
  return x + weights @ memory
}
""",
    "layouts": """
model Layouts()(x: [B = 2, T = 6, 8]) -> (y: [B, T, 4], z: [B, 2]) {
  require T % 2 == 0
  a, b = split(Linear(8)(x) as up, sizes = 2)
  a = a |> rearrange([B, (n two), d] -> [B, n, (two d)], two = 2) |> Linear(8) as mix |> rearrange([B, n, (two d)] -> [B, (n two), d], two = 2)
  c = concat([a, flip(b, axes = 1)], axis = -1)[:, :, 1:5]
  g = exp(-abs(c)) / (1 + b * b)
  return g + where(b > 0, a, b), stack([mean(g, axis = (1, 2)), max(g, axis = (1, 2))], axis = 1)
}
""",
    "peri": """
model Decoder()(tokens: int[B = 2, T = 5] in 0..20) -> y: [B, T, 21] {
  share embed = TokenEmbedding(21, 12)
  x = embed(tokens) |> LearnedPositions(9) as positions
  layers: for i in range(2) {
    x = Peri(RMSNorm(), Attention(3, mask = causal, positions = Rope()))(x) as attn
    x = Post(LayerNorm(), MLP(24, drop = 0.1))(x) as mlp
    x = LayerScale(LayerNorm(bias = false), SwiGLU(10), drop = 0.2)(x) as glu
  }
  return linear(x, embed.weight)
}
""",
    "pinned": """
model Pinned(d: int = 6)(x: [B = 3, d]) -> y: [B, d] {
  f32 { s = rsqrt(mean(x * x, axis = -1, keep = true) + 1e-6) }
  y = x * as_type(s, x)
  z = Linear(d)(y) |> tanh |> cast("f32")
  return cast(2 * z, "float")
}
""",
    "constants": """
model Constants()(x: [B = 3, 4]) -> y: [B, 4] {
  const table: [4] = [1, 2, 4, 8]
  w = literal([0.5, 1, 2, 4]) * table
  return take(Linear(4)(x * w) as f, permutation(4, seed = 3), axis = 1)
}
""",
    "phases": """
model Phases(d: int = 6)(x: [B = 3, d]) -> y: [B, d] {
  param weight: [d, d] = normal()
  frozen param base: [d] = ones()
  y = phase {
    train => tanh(x @ weight) * exp(x @ weight)
    eval => x @ weight
  }
  return y * base
}
""",
}


@dataclass(frozen=True)
class Case:
    """A spec by shipped name or by its name above, with settings. `inside`: bytes that the bodies of its ops may hold at the peak."""

    name: str
    variant: str | None = None
    at: dict[str, int] = field(default_factory=dict)
    knobs: dict[str, Any] = field(default_factory=dict)
    inside: int = 0

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}{v}" for k, v in self.at.items()), *(k for k in self.knobs if k in ("tie", "pool", "drop_path", "scale"))])


VIT = {"d": 36, "depth": 2, "heads": 3, "side": 48, "classes": 7}
NEXT = {"widths": [16, 16, 32, 64], "depths": [2, 3, 2, 2], "classes": 5}
GPT = {"vocab": 50, "d": 12, "depth": 2, "heads": 3}

CASES = [
    Case("llama", "tiny", {"B": 3, "T": 7}), Case("llama", "tiny", {"B": 1, "T": 1}),
    Case("llama", "tiny", {"B": 2, "T": 9}, {"tie": True, "kv_heads": 4}),
    Case("gpt2", None, {"B": 3, "T": 7}, GPT),
    Case("vit", None, {"B": 3, "H": 48, "W": 48}, VIT),
    Case("vit", None, {"B": 1, "H": 48, "W": 48}, {**VIT, "pool": "mean"}),
    Case("vit", None, {"B": 2, "H": 48, "W": 48}, {**VIT, "drop_path": 0.2, "distilled": True}),
    Case("convnext", None, {"B": 3, "H": 37, "W": 45}, NEXT),
    Case("convnext", None, {"B": 1, "H": 32, "W": 32}, {**NEXT, "scale": None, "drop_path": 0}),
    *(Case(name, inside=8 * 5 * 5 if name == "attention" else 0) for name in TEXTS),
]
