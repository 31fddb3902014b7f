"""The library's attention against torch's own module: what queries, keys and values read may be three tensors of three widths."""
from __future__ import annotations

import pytest
import torch

from archdsl.spec import loads
from tests.parity.proof import prove

F64 = torch.float64
SPEC = """use std.mixer { Attention }

/// Queries read 12 of 30 channels and not the first two positions; keys read 8 others, values the last 10.
model Reader()(x: [B = 2, S = 7, 30]) -> y: [B, S - 2, 12] {
  require S > 2
  return Attention(3, bias = true)(x[:, 2:, :12], memory = x[..., 12:20], values = x[..., 20:]) as attn
}

names torch of Reader {
  "{q, k, v}_proj_weight" <-> attn.{q, k, v}.weight
  "in_proj_bias" <-> attn.{q, k, v}.bias concat
  "out_proj.*" <-> attn.out.*
}
"""


@pytest.mark.parametrize("batch", [1, 3])
def test_queries_keys_and_values_read_three_tensors(batch):
    peer = torch.nn.MultiheadAttention(12, 3, kdim=8, vdim=10, batch_first=True).double()
    x = torch.randn(batch, 7, 30, generator=torch.Generator().manual_seed(0), dtype=F64)
    prove(loads(SPEC, "reader.arch").build(dtype=F64), peer, x, source="torch",
          call=lambda m, v: m(v[:, 2:, :12], v[..., 12:20], v[..., 20:], need_weights=False)[0])
