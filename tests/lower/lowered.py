"""Small specs for the tests of lowering."""
from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from archdsl.elaborate.frame import Session
from archdsl.elaborate.model import elaborate
from archdsl.graph import Graph
from archdsl.lower import lower
from archdsl.modules import Library
from archdsl.source import Source
from archdsl.syntax import tree

LLAMA = """
use std.embed    { TokenEmbedding, Rope }
use std.mixer    { Attention }
use std.channel  { SwiGLU }
use std.linear   { Linear }
use std.norm     { RMSNorm }
use std.residual { Pre }

/// A small decoder.
model Small(depth: int = 4, d: int = 16, tie: bool = false)(tokens: int[B, T] in 0..30) -> logits: [B, T, 31] {
  default Linear(bias = false)
  share embed = TokenEmbedding(31, d)
  x = embed(tokens)
  layers: for i in range(depth) {
    x = Pre(RMSNorm(), Attention(2, mask = causal, positions = Rope()))(x) as attn
    x = Pre(RMSNorm(), SwiGLU(24))(x) as mlp
  }
  x = RMSNorm()(x) as norm
  return if tie { linear(x, embed.weight) } else { Linear(31)(x) as head }
}
"""

CONVNET = """
use std.linear   { Linear }
use std.norm     { BatchNorm }
use std.vision   { Conv }

block Unit(rate: float)(x: [B, c, H, W]) -> [B, c, H, W] {
  y = x |> Conv(c, 3, pad = 1) as conv |> BatchNorm() as norm |> relu
  return x + drop_path(y, rate)
}

model Net(rate: float = 0.5, drop: float = 0.5, depth: int = 3)(image: [B, 3, H, W]) -> logits: [B, 5] {
  require H % 2 == 0, "the height must be even"
  x = image |> Conv(4, 2, stride = 2) as stem
  blocks: for i in range(depth) { x = Unit(rate)(x) as _ }
  emit features = x
  return x |> reduce([B, c, Y, X] -> [B, c], mean) |> dropout(drop) |> Linear(5) as head
}
"""

SIGMA = """
block Sigma(out: int)(x: [..., i]) -> [..., out] {
  param weight: [out, i] = normal()
  param gamma: [] = ones()
  buffer u: [i] = normal()
  v = stop(l2_norm(weight @ u))
  w = stop(l2_norm(v @ weight))
  update u = w
  return linear(x, weight * (gamma / dot(v, weight @ u)))
}

model Net()(x: [B, 6]) -> y: [B, 6] {
  layers: for i in range(3) { x = x + Sigma(6)(x) as f }
  return x
}
"""

ROUTED = """
use std.linear { Linear }

block Gate()(x: [B, d]) -> [B, d] {
  g = Linear(d)(x) |> sigmoid
  emit balance = mean(g)
  emit spread = mean(g * g)
  return g * x
}

model Routed(depth: int = 3)(x: [B, 4]) -> y: [B, 4] {
  layers: for i in range(depth) { x = x + Gate()(x) as gate }
  return x
}
"""


@cache
def typed(text: str, **knobs: object) -> Graph:
    """The typed graph of a spec's first model."""
    from archdsl.spec import python_setting

    module = Library().open(Source("test.arch", text), Path(__file__).parent)
    decl = next(d for d in module.tree.decls if isinstance(d, tree.Model))
    return elaborate(module, decl, tuple(python_setting(k, v) for k, v in knobs.items()), Session(module.library)).graph


def build(text: str, knobs: dict[str, object] | None = None, **options: Any) -> Any:
    return lower(typed(text, **(knobs or {})), **options)


def tokens(batch: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randint(0, 31, (batch, length), generator=torch.Generator().manual_seed(0))


def image(batch: int = 2, height: int = 8, width: int = 6) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
