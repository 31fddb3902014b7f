"""Every mixer along time in both directions, in windows, and behind a sequence of others, against the mixer alone."""
from __future__ import annotations

import pytest
import torch

import archdsl
from tests.parity.proof import EXACT, relative
from tests.streaming.forms import shaken

F64 = torch.float64
SIZE, MEMORY = 4, 5
USES = """use std.features { DistanceWeights, KernelAttention }
use std.hyena { Hyena, HyenaFilter }
use std.memories { Aaren, Extractor, LMU }
use std.mixer { Attention }
use std.recurrent { Bidirectional, Cross, DeltaNet, GatedDeltaNet, GatedLinearAttention, GatedSlotAttention, LinearAttention }
use std.recurrent { Retention, ShortConv, Windowed }
use std.rwkv { ChannelMix, RWKV6, RWKV7 }
use std.ssm { CausalConv, Mamba, Mamba2 }

block FirstOfRWKV7()(x: [..., T, d]) -> [..., T, d] {
  y, _ = RWKV7(4, 3, 2, 3, 5)(x) as one
  return y
}

block Spikes()(x: [..., T, d]) -> [..., T, d] { return lif(3 * x) }

block Sums()(x: [..., T, d]) -> [..., T, d] { return cumsum(x, axis = -2) }
"""
MIXERS = {
    "softmax attention": "Attention(3, mask = causal)", "linear attention": "LinearAttention(3)", "retention": "Retention(2)",
    "gla": "GatedLinearAttention(3)", "delta rule": "DeltaNet(3)", "gated delta rule": "GatedDeltaNet(2, head_dim = 4)",
    "gated slots": "GatedSlotAttention(3, slots = 5)", "rwkv6": "RWKV6(4, 3, 5)", "rwkv7": "FirstOfRWKV7()", "channel mixing": "ChannelMix(16)",
    "mamba": "Mamba(state = 3)", "mamba2": "Mamba2(state = 5, head_dim = 6)", "aaren": "Aaren(3)", "lmu": "LMU(4, theta = 8, act = tanh)",
    "she": 'Extractor("she", 24)', "he": 'Extractor("he", 24)', "we": 'Extractor("we", 24)', "me": 'Extractor("me", 24)',
    "short convolution": "ShortConv(3)", "convolution": "CausalConv(4)", "hyena": "Hyena(24, filter = HyenaFilter(24, bands = 2, hidden = 5))",
    "kernelised attention": "KernelAttention(3, DistanceWeights(3, 24))", "spikes": "Spikes()", "sums": "Sums()",
}
MODEL = """
model M(d: int = 12)(x: [B, T, d], memory: [B, S, d]) -> (
  alone: [B, T, d], back: [B, T, d], both: [B, T, d], joined: [B, T, 2 * d], windows: [B, T, d], cross: [B, T, d], whole: [B, S + T, d],
) {
  share f = MIXER
  share g = MIXER
  back = flip(g(flip(x, axes = 1)), axes = 1)
  both = Bidirectional(f, g)(x)
  joined = Bidirectional(f, g, join = "concat")(x)
  windows = Windowed(f, SIZE)(x)
  cross = Cross(f)(x, memory)
  whole = f(concat([memory, x], axis = 1))
  return f(x), back, both, joined, windows, cross, whole
}
"""


def drawn(batch: int, T: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, T, 12, dtype=F64, generator=torch.Generator().manual_seed(seed))


def text(mixer: str) -> str:
    return USES + MODEL.replace("MIXER", MIXERS[mixer]).replace("SIZE", str(SIZE))


@pytest.mark.parametrize("mixer", MIXERS)
def test_uses(mixer: str):
    model = shaken(archdsl.loads(text(mixer)).build(dtype=F64)).eval()
    x, memory = drawn(2, 3 * SIZE, 1), drawn(2, MEMORY, 2).requires_grad_()
    alone, back, both, joined, windows, cross, whole = model(x, memory)
    assert alone.abs().max() > 1e-3 and not torch.allclose(alone, back)
    assert relative(both, alone + back) <= EXACT and relative(joined, torch.cat([alone, back], -1)) <= EXACT
    parts = torch.cat([model(part, memory)[0] for part in x.split(SIZE, 1)], 1)
    assert relative(windows, parts) <= EXACT
    assert relative(cross, whole[:, MEMORY:]) <= EXACT
    heard = torch.autograd.grad(cross[:, 0].sum(), memory)[0].abs().amax((0, 2)) > 0  # the positions of the memory that reach the first one of x
    assert int(heard.sum()) == {"short convolution": 2, "convolution": 3, "channel mixing": 1}.get(mixer, MEMORY)


def test_both_directions_see_all():
    """A change of the last position reaches the first one, in windows that of the window."""
    source = text("gla").replace("return f(x)", f"return Windowed(Bidirectional(f, g), {SIZE})(x)")
    model = shaken(archdsl.loads(source).build(dtype=F64)).eval()
    x, memory = drawn(1, 3 * SIZE, 1), drawn(1, MEMORY, 2)
    late = x.clone()
    late[:, -1] += 1
    before, after = model(x, memory), model(late, memory)
    changed = lambda i: (after[i] - before[i]).abs().amax((0, 2)) > 1e-9
    assert changed(2).all() and changed(0).tolist() == [False] * 2 * SIZE + [True] * SIZE


def test_windows_that_do_not_fit():
    model = archdsl.loads(text("gla")).build()
    with pytest.raises(ValueError, match="windows of 4 positions"):
        model(torch.zeros(1, 6, 12), torch.zeros(1, 2, 12))


def test_forms_with_state():
    """Windows and directions have none, and the refusal names what stands in the way."""
    for use, why in (("Bidirectional(LinearAttention(3))", "flip"), ("Windowed(LinearAttention(3), 4)", "the number of positions")):
        spec = archdsl.loads(f"{USES}model N(d: int = 12)(x: [B = 1, T = 8, d]) -> y: [B, T, d] stream T {{ return {use}(x) as mix }}")
        with pytest.raises(archdsl.ArchError, match=why):
            spec.build(form="step")
