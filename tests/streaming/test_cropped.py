"""Convolutions padded on both sides whose result is cut to the positions that came in, as temporal convolutional networks have them."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from tests.streaming.forms import close, parts, shaken
from tests.streaming.test_delay import conv, late, model, norm

F64 = torch.float64
BLOCKS = """
block Wide(k: int, pad: int, dilation: int = 1)(x: [B, c, N]) -> [B, c, _] {
  param weight: [c, c, k] = normal(std = 0.5)
  param bias: [c] = normal()
  return conv(x, weight, bias, pad = pad, dilation = dilation)
}
block Turned(k: int, pad: int)(x: [B, N, c]) -> [B, _, c] {
  return relu(rearrange(Wide(k, pad)(rearrange(x, [B, N, c] -> [B, c, N])) as wide, [B, c, M] -> [B, M, c]))
}
block Chomp(p: int)(x: [B, c, N]) -> [B, c, _] { return x[:, :, :-p] }
block Within(k: int, pad: int, low: int, high: int)(x: [B, T, c]) -> [B, T, c] {
  y = Wide(k, pad)(rearrange(x, [B, T, c] -> [B, c, T])) as wide
  return rearrange(y[:, :, low:-high], [B, c, T] -> [B, T, c])
}"""


def within(k: int, pad: int, low: int, high: int, of: str = "x") -> str:
    return f"Within({k}, {pad}, {low}, {high})({of})"


@pytest.mark.parametrize(("k", "pad", "low", "high"), [(3, 2, 0, 2), (3, 2, 1, 1), (2, 1, 0, 1), (5, 4, 1, 3), (4, 3, 2, 1), (2, 1, 1, 0)])
def test_any_cut(k: int, pad: int, low: int, high: int):
    """All that is cut behind is causal; what is cut in front is looked ahead."""
    cut = f"{low}:-{high}" if high else f"{low}:"
    body = BLOCKS.replace("low:-high", cut)
    late(model(f"  return x - {within(k, pad, low, high)} as a", body), low + k - 1 - pad,
         lambda w, x: x - conv({n.replace(".wide", ""): p for n, p in w.items()}, "a", x, pad - low, pad - high))


def test_blocks_of_a_tcn():
    """Two causal convolutions and a skip, dilated more from block to block, the cut a block of its own; the state is what the taps reach."""
    block = BLOCKS + """
block Temporal(dilation: int)(x: [B, c, T]) -> [B, c, T] {
  y = Wide(3, 2 * dilation, dilation)(x) as first |> Chomp(2 * dilation) |> relu |> dropout(0.1)
  y = Wide(3, 2 * dilation, dilation)(y) as second |> relu |> Chomp(2 * dilation)
  return relu(x + y)
}"""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        for i in range(3):
            y = conv(w, f"layers.{i}.part.first", x, 2 * 2**i, 0, 2**i).relu()
            x = (x + conv(w, f"layers.{i}.part.second", y, 2 * 2**i, 0, 2**i).relu()).relu()
        return x

    late(model("""  x = rearrange(x, [B, T, d] -> [B, d, T])
  layers: for i in range(3) { x = Temporal(2**i)(x) as part }
  return rearrange(x, [B, d, T] -> [B, T, d])""", block), 0, peer, state_bytes=8 * 2 * 4 * 2 * (2 + 4 + 8))


def test_behind_what_looks_ahead():
    """And in front of it: what a cut leaves is padded with zeros, whatever stands there."""
    late(model(f"""  y = Conv(3, 1)(x) as a |> Norm() as n
  y = {within(3, 2, 0, 2, "y")} as b
  return Conv(3, 1)(x + y) as c""", BLOCKS), 2,
         lambda w, x: conv(w, "c", x + conv({n.replace(".wide", ""): p for n, p in w.items()}, "b", norm(w, "n", conv(w, "a", x, 1, 1)), 2, 0), 1, 1))


def test_turned_and_in_part():
    """Cut behind a rearrangement and an activation, up to T by name; of two cuts of one result each has its own; channels are cut with positions."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        w = {n.replace(".wide", ""): p for n, p in w.items()}
        return conv(w, "a", x, 2, 0).relu() + conv(w, "a", x, 1, 1).relu() * conv(w, "b", x, 2, 0)[..., :1]

    late(model("""  y = Turned(3, 2)(x) as a
  z = (Wide(3, 2)(rearrange(x, [B, T, c] -> [B, c, T])) as b)[:, :1, :-2]
  return y[:, :-2] + y[:, 1:-1] * rearrange(z, [B, c, T] -> [B, T, c])""", BLOCKS), 1, peer)


def test_gated():
    """What is cut alike in two places is computed, and its past kept, once: halves of the channels, and what was made of the whole result."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        y = conv({n.replace(".wide", ""): p for n, p in w.items()}, "a", x, 2, 0)
        return (1 - 2 * y).tanh() * y.sigmoid() * torch.cat([y[..., 2:], y[..., :2]], 2)

    late(model("""  y = Wide(3, 2)(rearrange(x, [B, T, c] -> [B, c, T])) as a
  z = concat([y[:, 2:, :-2], y[:, :2, :T]], axis = 1)
  return rearrange(tanh(1 - 2 * y)[:, :, :-2] * sigmoid(y)[:, :, :-2] * z, [B, c, T] -> [B, T, c])""", BLOCKS), 0, peer, state_bytes=8 * 2 * 2 * 4)


def test_of_two_axes():
    """A map of [T, F]: cut along the stream, padded as before beside it."""
    late("""use std { Linear }
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  param w: [3, 1, 3, 3] = normal()
  y = (x |> rearrange([B, T, d] -> [B, 1, T, d]) |> conv(w, pad = [2, 1]))[:, :, :-2, :]
  return rearrange(y, [B, c, T, F] -> [B, T, (c F)]) |> Linear(d) as out
}
""", 0, lambda w, x: F.linear(F.conv2d(F.pad(x[:, None], (1, 1, 2, 0)), w["w"]).transpose(1, 2).flatten(2), w["out.weight"], w["out.bias"]))


class Chomp(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :-self.size].contiguous()


class Temporal(nn.Module):
    def __init__(self, channels: int, dilation: int):
        super().__init__()
        each = [(nn.Conv1d(channels, channels, 3, padding=2 * dilation, dilation=dilation), Chomp(2 * dilation), nn.ReLU(), nn.Dropout(0.1))
                for _ in range(2)]
        self.net = nn.Sequential(*each[0], *each[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.net(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(Temporal(4, 2**i) for i in range(3)))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x.mT).mT)


@torch.no_grad()
def test_a_captured_tcn():
    theirs = shaken(Network().double()).eval()
    captured = archdsl.capture(theirs, torch.randn(2, 11, 4, dtype=F64), dynamic={0: "B", 1: "T"}, stream="T")
    x = torch.randn(3, 20, 4, dtype=F64, generator=torch.Generator().manual_seed(2))
    for form, lengths in (("extend", parts(20, 1, 7, 2)), ("step", [1] * 20)):
        ours = captured.spec.build(form=form, dtype=F64).eval()
        ours.load_state_dict(captured.build().double().state_dict())
        state, found, at = ours.init_state(3), [], 0
        assert list(state) == [f"layers.{i}.net.{j}.before" for i in range(3) for j in (0, 4)] and ours.delay == 0
        for n in lengths:
            y, state = ours(x[:, at:at + n], state)
            found.append(y)
            at += n
        close(torch.cat(found, 1), theirs(x), 1e-10)


@pytest.mark.parametrize("cut", [":, :, :-1", ":, :, 1:", ":, :, 3:", ":, :, ::2"])
def test_other_cuts_are_refused(cut: str):
    text = model(f"""  y = rearrange(x, [B, T, c] -> [B, c, T])
  return x + sum((Wide(3, 2)(y) as a)[{cut}], axis = -1)[:, none]""", BLOCKS)
    with pytest.raises(archdsl.ArchError, match=r"it looks at all positions|T \+ 2 positions"):
        archdsl.loads(text, "net.arch").build(form="step")
