"""Blocks below others may use ops with an attribute `size`, which is no run-time size."""
from __future__ import annotations

import torch
import torch.nn.functional as F

import archdsl

SPEC = """
use std.vision { Conv }

block Halve()(x: [B, c, H, W]) -> [B, c, _, _] {
  y = resize(max_pool(x, 2), [8, 8])
  return avg_pool(y, 2) |> Conv(c, 1) as conv
}

model M()(x: [B, 2, H = 12, W = 12]) -> y: [B, 2, _, _] {
  return Halve()(x) as halve
}
"""


def test_pools_below_a_block(tmp_path):
    (tmp_path / "m.arch").write_text(SPEC)
    model, x = archdsl.load(tmp_path / "m.arch").build(), torch.randn(2, 2, 12, 10)
    want = F.avg_pool2d(F.interpolate(F.max_pool2d(x, 2), (8, 8), mode="bilinear"), 2)
    want = F.conv2d(want, model.halve.conv.weight, model.halve.conv.bias)
    torch.testing.assert_close(model(x), want)
