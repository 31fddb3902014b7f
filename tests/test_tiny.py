"""The whole road in a few seconds: parse, check, format, cost, build, run, gradient, print. Run before each commit."""
from __future__ import annotations

import torch

import archdsl
from archdsl.printer import print_graph
from archdsl.source import Source
from archdsl.syntax.fmt import format_module

TEXT = """use std.channel { SwiGLU }
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }

model Tiny(vocab: int = 31, d: int = 16, depth: int = 2)(tokens: int[B, T] in 0..<vocab) -> logits: [B, T, vocab] {
  share embed = TokenEmbedding(vocab, d)
  x = embed(tokens)
  layers: for i in range(depth) {
    x = Pre(RMSNorm(), Attention(2, mask = causal, positions = Rope()))(x) as attn
    x = Pre(RMSNorm(), SwiGLU(24))(x) as mlp
  }
  return linear(x |> RMSNorm() as norm, embed.weight)
}
"""


def test_the_whole_road():
    assert format_module(Source("tiny.arch", TEXT)) == TEXT
    spec = archdsl.loads(TEXT)
    model = spec.build(seed=1)
    assert sum(p.numel() for p in model.parameters()) == spec.cost().params
    x = torch.randint(0, 31, (2, 5))
    y = model(x)
    assert y.shape == (2, 5, 31) and y.isfinite().all()
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    later = x.clone()
    later[:, -1] = (later[:, -1] + 1) % 31
    torch.testing.assert_close(model(later)[:, :-1], y[:, :-1])
    assert archdsl.loads(print_graph(spec.elaborate())).elaborate().graph.hash == spec.elaborate().graph.hash
