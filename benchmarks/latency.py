"""Predicted latency: `python benchmarks/latency.py [--markdown FILE]`.

The latency of whole models, measured as a whole, against the sum over a table of their blocks: candidates drawn from two spaces, on the CPU and,
where torch finds one, on a GPU. The table is empty at first, and no whole model is ever part of it.
"""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import archdsl
from archdsl.search.latency import Latency, validate
from benchmarks.tables import Table, show

MODELS = 12
HYBRID = """
use std.channel { MLP }
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }

model Hybrid(d: int = 64 in {64, 128, 192}, depth: int = 2 in 1..6)(tokens: int[B = 1, T = 64] in 0..<512) -> logits: [B, T, 512] {
  x = TokenEmbedding(512, d)(tokens) as embed
  layers: for i in range(depth) {
    choose mixer {
      attention(heads: int = 2 in {2, 4}) => Attention(heads, mask = causal)
      mlp(hidden: int = 2 * d in {d, 2 * d, 4 * d}) => MLP(hidden)
    } = attention
    x = Pre(RMSNorm(), mixer)(x) as block
  }
  return x |> RMSNorm() as norm |> Linear(512) as head
}
"""
CONVOLUTIONS = """
use std.linear { Linear }
use std.norm { BatchNorm }

block Unit(out: int, kernel: int, expand: int = 2 in {1, 2, 3})(x: [B, c, H, W]) -> [B, out, _, _] {
  inner = c * expand
  param up: [inner, c, 1, 1] = kaiming_uniform()
  param deep: [inner, 1, kernel, kernel] = kaiming_uniform()
  param down: [out, inner, 1, 1] = kaiming_uniform()
  y = relu(conv(x, up) |> BatchNorm() as first)
  y = relu(conv(y, deep, stride = 2, pad = kernel // 2, groups = inner) |> BatchNorm() as second)
  return conv(y, down) |> BatchNorm() as third
}

model Conv(widths: list[int; 3] = [16, 32, 32] in each {16, 24, 32, 48}, kernel: int = 5 in {3, 5})(
  x: [B = 1, 3, H = 64, W = 64],
) -> y: [B, 10] {
  stages: for w in widths { x = Unit(w, kernel)(x) as unit }
  return mean(x, axis = [2, 3]) |> Linear(10) as head
}
"""


def main() -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = []
    for device in devices:
        for name, text in (("hybrid", HYBRID), ("convolutions", CONVOLUTIONS)):
            with tempfile.TemporaryDirectory() as folder:
                latency = Latency(device, table=str(Path(folder) / "latency.db"))
                start = perf_counter()
                v = validate(archdsl.loads(text).space(), MODELS, 0, latency)
                measured = sorted(m for _, _, m in v.rows)
                rows.append((latency.bench.name, name, f"{1e3 * measured[0]:.2f} to {1e3 * measured[-1]:.2f} ms", f"{v.error:.1%}", f"{v.bias:+.1%}",
                             f"{v.spearman:.3f}", f"{v.kendall:.3f}", str(v.pieces), f"{perf_counter() - start:.1f} s"))
                latency.table.close()
    note = f"{MODELS} candidates of each space. Error: of the sums over blocks, against whole models; bias: its mean with the sign."
    header = ("device", "space", "measured", "error", "bias", "Spearman", "Kendall", "pieces", "time")
    show([Table("Latency by a table of blocks", note, header, rows)])


if __name__ == "__main__":
    main()
