"""Dropout of attention weights: in training alone, and right on average."""

from __future__ import annotations

import pytest
import torch

import archdsl

TEXT = """use std.mixer { Attention }
model M(drop: float = 0.3, kv_heads: int = 4)(x: [B, T, 16]) -> y: [B, T, 16] {
  return Attention(4, kv_heads = kv_heads, mask = causal, bias = true, drop = drop)(x) as attn
}"""


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_weights_are_dropped_in_training_alone(kv_heads):
    spec = archdsl.loads(TEXT)
    net, plain = spec.build(dtype=torch.float64, kv_heads=kv_heads), spec.build(dtype=torch.float64, kv_heads=kv_heads, drop=0)
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    assert torch.allclose(net.eval()(x), plain(x), atol=1e-14)
    net.train()
    torch.manual_seed(0)
    draws = torch.stack([net(x) for _ in range(4000)])
    error = (draws.mean(0) - plain(x)).abs() / (draws.std(0) / 4000**0.5)
    assert draws.std(0).min() > 1e-3 and error.max() < 5  # 160 sums, each within five standard errors of the evaluation's value


def test_the_first_position_is_kept_or_dropped_whole():
    """With one key, a head's weight of 1 becomes 0 or 1 / (1 - rate)."""
    net = archdsl.loads(TEXT).build(dtype=torch.float64).train()
    with torch.no_grad():
        net.attn.out.weight.copy_(torch.eye(16))
        net.attn.out.bias.zero_()
    x = torch.randn(1, 1, 16, dtype=torch.float64)
    value = net.attn.v(x)[0, 0].unflatten(0, (4, 4))
    seen = {tuple((net(x)[0, 0].unflatten(0, (4, 4)) / value).mean(-1).round(decimals=9).tolist()) for _ in range(400)}
    assert {v for heads in seen for v in heads} == {0.0, round(1 / 0.7, 9)} and len(seen) == 16
