"""Ops that look ahead: forms with state give what plain PyTorch gives for all positions at once, later by the delay that they tell, behind a start
and up to an end that are those of the sequence; and so does every mixer that comes behind."""
from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from tests.streaming.forms import close, parts, shaken
from tests.streaming.test_hybrids import ARMS, TEXT

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
F64 = torch.float64
T, BATCH = 9, 2
JUNK = count(1)


def fed(model: Any, x: torch.Tensor, lengths: list[int], batch: int = BATCH, room: int | None = None) -> torch.Tensor:
    """The results of a whole sequence, in calls of these lengths; behind its end come numbers that no result may depend on."""
    state = model.init_state(batch, room) if room else model.init_state(batch)
    size = sum(s.numel() * s.element_size() for s in state.values())
    found, at = [], 0
    with torch.no_grad():
        for n in lengths:
            y, state = model(x[:, at:at + n], state)
            found.append(y)
            at += n
        state = model.end_state(state)
        for n in [1] * model.delay if model.__dict__["_streamed"].form == "step" else [model.delay] * bool(model.delay):
            junk = torch.full((batch, n, *x.shape[2:]), math.nan if next(JUNK) % 2 else 3.0, dtype=x.dtype) if x.is_floating_point() else x[:, :n] * 0
            y, state = model(junk, state)
            found.append(y)
    assert sum(s.numel() * s.element_size() for s in state.values()) == size
    got = torch.cat(found, 1)
    assert not got[:, :model.delay].any(), "nothing comes before the first position"
    return got[:, model.delay:]


def late(text: str, delay: int, peer: Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor], T: int = T, room: bool = False,
         state_bytes: int | None = None) -> None:
    """All forms of a model of [B, T, 4] against plain PyTorch."""
    spec = archdsl.loads(text, "net.arch")
    whole = shaken(spec.build(dtype=F64)).eval()
    g = torch.Generator().manual_seed(7)
    for name, b in whole.named_buffers():
        if "running" in name:
            b.copy_(torch.rand(b.shape, generator=g, dtype=F64) + 0.5)
    x = torch.randn(BATCH, T, 4, generator=g, dtype=F64)
    with torch.no_grad():
        expected = whole(x)
        close(peer({**dict(whole.named_parameters()), **dict(whole.named_buffers())}, x), expected, 1e-10)
    for form, lengths in (("extend", [T]), ("extend", parts(T, 1, 4)), ("extend", parts(T, 2, 1, 1)), ("step", [1] * T)):
        model = spec.build(form=form, dtype=F64).eval()
        model.load_state_dict(whole.state_dict())
        assert model.delay == delay
        close(fed(model, x, lengths, room=T + delay if room else None), expected, 1e-10)
    made = spec.cost(at={"B": BATCH, "T": T + delay}, form="step", dtype="f64")
    assert made.delay == delay and made.state_bytes == sum(s.numel() * s.element_size() for s in model.init_state(BATCH, T + delay).values())
    assert state_bytes is None or made.state_bytes == state_bytes


def model(body: str, blocks: str = "", use: str = "BatchNorm, Linear") -> str:
    return f"""use std {{ {use} }}
{blocks}
/// Along the channels that come second.
block Conv(k: int, pad: int | list[int] | "same" = 0, dilation: int = 1)(x: [B, T, c]) -> [B, T, c] {{
  param weight: [c, c, k] = normal(std = 0.5)
  param bias: [c] = normal()
  return x |> rearrange([B, T, c] -> [B, c, T]) |> conv(weight, bias, pad = pad, dilation = dilation) |> rearrange([B, c, T] -> [B, T, c])
}}
block Norm()(x: [B, T, c]) -> [B, T, c] {{ return x |> under([B, T, c] -> [B, c, T], BatchNorm() as _) }}
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {{
{body}
}}
"""


def conv(w: dict[str, torch.Tensor], name: str, x: torch.Tensor, left: int, right: int, dilation: int = 1) -> torch.Tensor:
    return F.conv1d(F.pad(x.mT, (left, right)), w[f"{name}.weight"], w[f"{name}.bias"], dilation=dilation).mT


def norm(w: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x.mT, *(w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))).mT


# ---------------------------------------------------------------- paths that meet
def test_padding_is_zero_behind_a_norm():
    """Two convolutions with a batch norm between, whose result outside of the sequence is not 0; the padding of the second is."""
    late(model("""  y = Conv(3, 1)(x) as a |> Norm() as n
  return Conv(3, 1)(relu(y)) as b"""), 2, lambda w, x: conv(w, "b", norm(w, "n", conv(w, "a", x, 1, 1)).relu(), 1, 1),
         state_bytes=8 * (2 * BATCH * 2 * 4) + 8 * (1 + 2 * BATCH))


def test_skips_wait():
    """x waits 3 positions, the first convolution's result 2; one line of x serves two sums."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        a = norm(w, "n", conv(w, "a", x, 1, 1))
        b = a + conv(w, "b", a, 2, 2, 2)
        return x + b * x

    late(model("""  y = Conv(3, 1)(x) as a |> Norm() as n
  y = y + Conv(3, 2, dilation = 2)(y) as b
  return x + y * x"""), 3, peer, state_bytes=8 * BATCH * 4 * (2 + 4 + 2 + 3) + 8 * (1 + 2 * BATCH))


@pytest.mark.parametrize(("k", "left", "right"), [(2, 0, 1), (4, 1, 2), (7, 3, 3)])
def test_even_kernels(k: int, left: int, right: int):
    late(model(f"""  return x - Conv({k}, "same")(x) as a"""), right, lambda w, x: x - conv(w, "a", x, left, right))


def test_one_tap_keeps_nothing():
    spec = archdsl.loads(model("  return x + Conv(1)(x) as a"))
    assert list(spec.build(form="step").init_state()) == ["position"] and spec.build(form="step").delay == 0
    late(model("  return x + Conv(1)(x) as a"), 0, lambda w, x: x + conv(w, "a", x, 0, 0))


def test_concatenated():
    late(model("""  y = concat([x, Conv(3, 1)(x) as a, Conv(7, 3)(x) as b], axis = -1)
  return Linear(4)(y) as out"""), 3, lambda w, x: F.linear(torch.cat([x, conv(w, "a", x, 1, 1), conv(w, "b", x, 3, 3)], -1), w["out.weight"], w["out.bias"]))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_shorter_than_the_delay(length: int):
    """A sequence that ends before its first result comes."""
    late(model("""  y = Conv(5, 2)(x) as a |> Norm() as n
  return x + Conv(3, 1)(y) as b"""), 3, lambda w, x: x + conv(w, "b", norm(w, "n", conv(w, "a", x, 2, 2)), 1, 1), T=length)


def test_pools_and_two_axes():
    """A maximum ignores padding; a map of [T, F] is convolved and pooled along both."""
    late("""use std { Linear }
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  param w: [3, 1, 5, 3] = normal()
  y = x |> rearrange([B, T, d] -> [B, 1, T, d]) |> conv(w, pad = [2, 1])
  y = max_pool(y, [3, 2], stride = [1, 2], pad = [1, 0]) + avg_pool(y, [5, 2], stride = [1, 2], pad = [2, 0])
  return rearrange(y, [B, c, T, F] -> [B, T, (c F)]) |> Linear(d) as out
}
""", 4, lambda w, x: F.linear((lambda y: F.max_pool2d(y, (3, 2), (1, 2), (1, 0)) + F.avg_pool2d(y, (5, 2), (1, 2), (2, 0)))(
        F.conv2d(x[:, None], w["w"], padding=(2, 1))).transpose(1, 2).flatten(2), w["out.weight"], w["out.bias"]))


# ---------------------------------------------------------------- what comes behind
class Turned(nn.Module):
    """Causal attention with rotary positions, by its equations."""

    def forward(self, w: dict[str, torch.Tensor], name: str, x: torch.Tensor, reach: int | None = None) -> torch.Tensor:
        q, k, v = (F.linear(x, w[f"{name}.{n}.weight"], w[f"{name}.{n}.bias"]) for n in "qkv")
        at = torch.arange(x.shape[1], dtype=x.dtype)
        angle = at[:, None] * 100.0 ** -(torch.arange(2, dtype=x.dtype) / 2)
        q, k = (torch.cat([y[..., :2] * angle.cos() - y[..., 2:] * angle.sin(), y[..., 2:] * angle.cos() + y[..., :2] * angle.sin()], -1) for y in (q, k))
        scores = q @ k.mT / 2
        back = at[:, None] - at
        hidden = (back < 0) | (back >= (reach or math.inf))
        return F.linear(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v, w[f"{name}.out.weight"], w[f"{name}.out.bias"])


@pytest.mark.parametrize("reach", [None, 3])
def test_attention(reach: int | None):
    """Keys before the first position are not attended to, and positions count from it; a convolution behind attention pads with zeros."""
    mask = "causal" if reach is None else f"causal & window({reach})"

    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        x = conv(w, "a", x, 1, 1)
        x = x + Turned()(w, "attn", x, reach)
        return x + conv(w, "b", norm(w, "n", x), 2, 2)

    late(model(f"""  x = Conv(3, 1)(x) as a
  x = x + Attention(1, bias = true, mask = {mask}, positions = Rope(100))(x) as attn
  return x + Conv(5, 2)(Norm()(x) as n) as b""", use="Attention, BatchNorm, Rope"), 3, peer, room=reach is None)


def test_positions():
    """A table of positions, chosen from behind the delay as before; what is made of positions alone is kept nowhere."""
    text = model("""  param table: [10, 4] = normal()
  place = take(table, index(T))
  return Conv(3, 1)(x + place) as a * place""")  # which rows begin where cannot be told: a table is read alike for all
    late(text, 1,
         lambda w, x: conv(w, "a", x + w["table"][:9], 1, 1) * w["table"][:9], state_bytes=8 * BATCH * 2 * 4 + 8 * 2)


def test_a_recurrence_begins_at_the_first_position():
    """A state that moves without input as well."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        x, h, found = conv(w, "a", x, 2, 2), torch.zeros(BATCH, 4, dtype=F64), []
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t] + w["b"])
            found.append(h)
        return torch.stack(found, 1) - x

    text = model("""  x = Conv(5, 2)(x) as a
  return Rolled()(x, b) - x""".replace("x = Conv", "param b: [4] = normal()\n  x = Conv"), blocks="""
block Rolled()(x: [B, T, d], b: [d]) -> [B, T, d] {
  scan x over T carry h: [B, d] = zeros() {
    new = tanh(h + x + b)
    next h = new
    yield new
  }
}""")
    late(text, 2, peer)


def test_sums_and_the_last():
    spec = archdsl.loads(model("  return cumsum(Conv(3, 1)(x) as a, axis = 1)"))
    whole = shaken(spec.build(dtype=F64)).eval()
    late(model("  return cumsum(Conv(3, 1)(x) as a, axis = 1)"), 1, lambda w, x: conv(w, "a", x, 1, 1).cumsum(1))
    last = archdsl.loads(model("  return last(x + Conv(3, 1)(x) as a)").replace("y: [B, T, d]", "y: [B, d]"))
    x = torch.randn(BATCH, T, 4, dtype=F64)
    for form in ("extend", "step"):
        streaming = last.build(form=form, dtype=F64).eval()
        streaming.load_state_dict(whole.state_dict())
        state = streaming.init_state(BATCH)
        with torch.no_grad():
            for t in range(T):
                _, state = streaming(x[:, t:t + 1], state)
            y, _ = streaming.flush(state)
            w = dict(whole.named_parameters())
            close(y, (x + conv(w, "a", x, 1, 1))[:, -1], 1e-10)


AHEAD = """
block Ahead(k: int)(x: [B, T, c]) -> [B, T, c] {
  param weight: [c, 1, k] = normal(std = 0.5)
  param bias: [c] = normal()
  return x |> rearrange([B, T, c] -> [B, c, T]) |> conv(weight, bias, pad = "same", groups = c) |> rearrange([B, c, T] -> [B, T, c])
}

/// A stack in which"""


@pytest.mark.parametrize("mixer", ARMS)
def test_every_mixer(mixer: str):
    """Between convolutions that look ahead."""
    text = TEXT.read_text().replace("\n/// A stack in which", AHEAD).replace("  layers: for", "  x = x + 3 * Ahead(5)(x) as first\n  layers: for")
    spec = archdsl.loads(text.replace("  return x |> RMSNorm()", "  x = x + Ahead(4)(x) as second\n  return x |> RMSNorm()"), "ahead.arch")
    knobs = {"depth": 1, "layers.0.mixer": mixer, "layers.0.channels": "shifted"}
    whole = shaken(spec.build(knobs=knobs, dtype=F64)).eval()
    tokens = torch.randint(0, 23, (BATCH, T), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = whole(tokens)
    for form, lengths in (("extend", parts(T, 1, 4)), ("extend", parts(T, 4, 2)), ("step", [1] * T)):
        streaming = spec.build(knobs=knobs, dtype=F64, form=form).eval()
        streaming.load_state_dict(whole.state_dict())
        assert streaming.delay == 4
        close(fed(streaming, tokens, lengths, room=T + 4), expected, 1e-10)
