"""Ops that look ahead: forms with state give what plain PyTorch gives for all positions at once, later by the delay that they tell, behind a start
and up to an end that are those of the sequence; and so does every mixer that comes behind."""
from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from archdsl.claims import verify
from archdsl.store import compile_to
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
    made = spec.cost(at={"B": BATCH, "T": T}, form="step", dtype="f64")
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
    mean, variance, weight, bias = (w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x.mT, mean, variance, weight, bias).mT


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
    whole, packed = streaming(model("  return x + Conv(1)(x) as a"), "packed")
    x = torch.randn(1, 7, 4, dtype=F64)
    close(packed(x, torch.tensor([3, 4])), whole(x), 1e-10)


def test_concatenated():
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(torch.cat([x, conv(w, "a", x, 1, 1), conv(w, "b", x, 3, 3)], -1), w["out.weight"], w["out.bias"])

    late(model("""  y = concat([x, Conv(3, 1)(x) as a, Conv(7, 3)(x) as b], axis = -1)
  return Linear(4)(y) as out"""), 3, peer)


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


def test_beside_the_stream():
    """What slides over the numbers of one position, with positions and batch in one axis, moves along no stream."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        x = conv(w, "a", x, 1, 1)
        return F.max_pool1d(F.conv1d(x.reshape(-1, 1, 4), w["w"], padding=1), 3, 1, 1).view_as(x)

    late(model("""  param w: [1, 1, 3] = normal()
  y = rearrange(Conv(3, 1)(x) as a, [B, T, d] -> [(B T), 1, d]) |> conv(w, pad = 1) |> max_pool(3, stride = 1, pad = 1)
  return rearrange(y, [(B T), 1, d] -> [B, T, d], B = B)"""), 1, peer)


# ---------------------------------------------------------------- what comes behind
class Turned(nn.Module):
    """Causal attention with rotary positions, by its equations."""

    def forward(self, w: dict[str, torch.Tensor], name: str, x: torch.Tensor, reach: int | None = None) -> torch.Tensor:
        q, k, v = (F.linear(x, w[f"{name}.{n}.weight"], w[f"{name}.{n}.bias"]) for n in "qkv")
        at = torch.arange(x.shape[1], dtype=x.dtype)
        angle = at[:, None] * 100.0 ** -(torch.arange(2, dtype=x.dtype) / 2)
        c, s = angle.cos(), angle.sin()
        q, k = (torch.cat([y[..., :2] * c - y[..., 2:] * s, y[..., 2:] * c + y[..., :2] * s], -1) for y in (q, k))
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


def test_as_many_as_the_table_has():
    """What comes behind the last position of all reads no further."""
    text = """
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  require T <= 9
  param w: [9, d] = normal()
  param a: [d, 1, 3] = normal()
  y = rearrange(x + take(w, index(T)), [B, T, d] -> [B, d, T]) |> conv(a, pad = 1, groups = d)
  return rearrange(y, [B, d, T] -> [B, T, d]) * take(w, index(T))
}
"""
    late(text, 1, lambda w, x: F.conv1d((x + w["w"]).mT, w["a"], padding=1, groups=4).mT * w["w"])
    _, step = streaming(text)
    with pytest.raises(ValueError, match="10 positions at most"):
        fed(step, torch.zeros(2, 10, 4, dtype=F64), [1] * 10)


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


def test_a_carry_called_as_a_counter_is():
    _, step = streaming(model("  return Sums()(Conv(3, 1)(x) as a)", blocks="""
block Sums()(x: [B, T, d]) -> [B, T, d] {
  scan x over T carry end: [B, d] = zeros() {
    next end = end + x
    yield end + x
  }
}"""))
    assert list(step.init_state(2)) == ["a.before", "end_2", "position", "end"]
    _, state = step(torch.ones(2, 1, 4, dtype=F64), step.init_state(2))
    assert step.flush(state)[0].any() and step.end_state(state)["end"] == 1


def test_a_scan_carries_nothing_from_outside():
    """A linear one, computed for all positions at once, whose body makes no number of what holds nothing."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        x, h, found = 1 / (x * conv(w, "a", x, 2, 2)), torch.zeros(BATCH, 4, dtype=F64), []
        for t in range(x.shape[1]):
            h = h / 2 + x[:, t]
            found.append(h)
        return torch.stack(found, 1)

    late(model("  return Faded()(x * (Conv(5, 2)(x) as a))", blocks="""
block Faded()(x: [B, T, d]) -> [B, T, d] {
  scan x over T carry h: [B, d] = zeros() {
    next h = h / 2 + 1 / x
    yield h / 2 + 1 / x
  }
}"""), 2, peer)


@pytest.mark.parametrize("scale", [1, -1e5, 1e30])
def test_means_of_keys_of_any_size(scale: float):
    """What stands in front of the first position weighs nothing beside keys however low."""
    text = model(f"""  param decay: [4] = normal()
  param bonus: [4] = normal()
  k = {scale} * (Conv(3, 1)(x) as a) - {2 * abs(scale)}
  return wkv(k, x, -exp(decay), bonus)""")

    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        k, found = scale * conv(w, "a", x, 1, 1) - 2 * abs(scale), []
        for t in range(x.shape[1]):
            back = torch.arange(t - 1, -1, -1, dtype=x.dtype)[:, None]
            weights = torch.cat([k[:, :t] - back * w["decay"].exp(), k[:, t:t + 1] + w["bonus"]], 1).softmax(1)
            found.append((weights * x[:, :t + 1]).sum(1))
        return torch.stack(found, 1)

    late(text, 1, peer)
    spec = archdsl.loads(text, "net.arch")
    whole = shaken(spec.build()).eval()
    x = torch.randn(BATCH, T, 4, generator=torch.Generator().manual_seed(8))
    for form, lengths in (("extend", parts(T, 2, 1, 1)), ("step", [1] * T)):
        stepping = spec.build(form=form).eval()
        stepping.load_state_dict(whole.state_dict())
        close(fed(stepping, x, lengths), whole(x), 1e-4 if scale == 1 else 2e-2)  # float32 has no closer exponents


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


def between(mixer: str) -> tuple[archdsl.Spec, dict[str, Any]]:
    """A mixer between convolutions that look ahead: a spec, and knobs for it."""
    text = TEXT.read_text().replace("\n/// A stack in which", AHEAD).replace("  layers: for", "  x = x + 3 * Ahead(5)(x) as first\n  layers: for")
    spec = archdsl.loads(text.replace("  return x |> RMSNorm()", "  x = x + Ahead(4)(x) as second\n  return x |> RMSNorm()"), "ahead.arch")
    return spec, {"depth": 1, "layers.0.mixer": mixer, "layers.0.channels": "shifted"}


@pytest.mark.parametrize("mixer", ARMS)
def test_every_mixer(mixer: str):
    spec, knobs = between(mixer)
    whole = shaken(spec.build(knobs=knobs, dtype=F64)).eval()
    tokens = torch.randint(0, 23, (BATCH, T), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = whole(tokens)
    for form, lengths in (("extend", parts(T, 1, 4)), ("extend", parts(T, 4, 2)), ("step", [1] * T)):
        streaming = spec.build(knobs=knobs, dtype=F64, form=form).eval()
        streaming.load_state_dict(whole.state_dict())
        assert streaming.delay == 4
        close(fed(streaming, tokens, lengths, room=T + 4), expected, 1e-10)


@pytest.mark.parametrize("mask", ["window(3)", "own_block(4)", "causal_by(3)", "own_block(3, previous = 1) & window(4)"])
def test_attention_ahead(mask: str):
    """Behind and in front of convolutions: masks that let a position attend to some later ones, none of which is behind the end."""
    def peer(w: Any, x: torch.Tensor) -> torch.Tensor:
        x = conv(w, "a", x, 1, 1)
        q, k, v = (F.linear(x, w[f"attn.{n}.weight"]) for n in "qkv")
        i, j = torch.arange(T)[:, None], torch.arange(T)
        allowed = {"window(3)": (i - j).abs() < 3, "own_block(4)": i // 4 == j // 4, "causal_by(3)": j // 3 <= i // 3,
                   "own_block(3, previous = 1) & window(4)": (i // 3 - j // 3 >= 0) & (i // 3 - j // 3 <= 1) & ((i - j).abs() < 4)}[mask]
        y = (q @ k.mT / 2).masked_fill(~allowed, -math.inf).softmax(-1) @ v
        return conv(w, "b", x + F.linear(y, w["attn.out.weight"]), 1, 1)

    ahead = {"window(3)": 2, "own_block(4)": 3, "causal_by(3)": 2}.get(mask, 2)
    late(model(f"""  x = Conv(3, 1)(x) as a
  x = x + Attention(1, mask = {mask})(x) as attn
  return Conv(3, 1)(x) as b""", use="Attention, BatchNorm"), 2 + ahead, peer, room="causal_by" in mask)


def test_padded_by_hand():
    """Zeros before and behind the positions, and the axes moved between: as if the op had padded."""
    late("""
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  param w: [d, d, 3] = normal()
  y = rearrange(pad(x, [(0, 0), (2, 0), (0, 0)]), [B, N, d] -> [B, d, N])
  y = rearrange(conv(y, w), [B, d, N] -> [B, N, d])
  z = pad(rearrange(y + x, [B, T, d] -> [B, d, T]), [(0, 0), (0, 0), (1, 3)])
  return rearrange(avg_pool(z, 5, stride = 1), [B, d, T] -> [B, T, d])
}
""", 3, lambda w, x: F.avg_pool1d(F.pad(x.mT + F.conv1d(F.pad(x.mT, (2, 0)), w["w"]), (1, 3)), 5, 1).mT)
    late("""
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  param w: [d, 1, 3] = normal()
  y = pad(rearrange(x, [B, T, d] -> [B, d, T]), [(0, 0), (0, 0), (4, 0)])
  return x + rearrange(conv(y, w, dilation = 2, groups = d), [B, d, T] -> [B, T, d])
}
""", 0, lambda w, x: x + F.conv1d(F.pad(x.mT, (4, 0)), w["w"], dilation=2, groups=4).mT, state_bytes=8 * BATCH * 4 * 4)


# ---------------------------------------------------------------- rows, calls and files
STACK = model("""  x = Conv(3, 1)(x) as a |> Norm() as n
  x = x + Attention(2, mask = causal, positions = Rope())(x) as attn
  return x + Conv(5, 2)(x) as b""", use="Attention, BatchNorm, Rope")


def streaming(text: str = STACK, form: str = "step") -> tuple[Any, Any]:
    """All positions at once, and a form with state."""
    spec = archdsl.loads(text, "net.arch")
    whole = shaken(spec.build(dtype=F64)).eval()
    found = spec.build(form=form, dtype=F64).eval()
    found.load_state_dict(whole.state_dict())
    return whole, found


@pytest.mark.parametrize("n", [1, 4])
@torch.no_grad()
def test_rows_end_and_begin_apart(n: int):
    """Sequences of different lengths side by side, in calls of n positions: a row that has ended is flushed and begun anew while the others go on."""
    whole, stepping = streaming(form="step" if n == 1 else "extend")
    assert stepping.delay == 3
    g = torch.Generator().manual_seed(2)
    rows = [[8, 4], [4, 20], [12]]
    sequences = [[torch.randn(t, 4, generator=g, dtype=F64) for t in row] for row in rows]
    state, found = stepping.init_state(3, 40), [[[] for _ in row] for row in rows]
    at = [(0, 0)] * 3
    for _ in range(0, 32, n):
        x = torch.full((3, n, 4), math.nan, dtype=F64)
        for i, (k, t) in enumerate(at):
            if t == sum(rows[i][k:k + 1]) and k < len(rows[i]):
                state = stepping.end_state(state, [i])
            if k < len(rows[i]) and t < rows[i][k]:
                x[i] = sequences[i][k][t:t + n]
        y, state = stepping(x, state)
        for i, (k, t) in enumerate(at):
            if k < len(rows[i]):
                found[i][k].append(y[i])
                done = t + n >= rows[i][k] + 3
                at[i] = (k + 1, 0) if done else (k, t + n)
                state = stepping.reset_state(state, [i]) if done else state
    for i, row in enumerate(rows):
        for k, t in enumerate(row):
            close(torch.cat(found[i][k])[3:3 + t], whole(sequences[i][k][None])[0], 1e-10)


@torch.no_grad()
def test_rows_are_moved():
    whole, stepping = streaming()
    x = torch.randn(2, 6, 4, dtype=F64)
    alone = []
    for row in x:
        state = stepping.init_state(1, 16)
        for t in range(4):
            _, state = stepping(row[None, t:t + 1], state)
        alone.append(state)
    state = stepping.reorder_state(stepping.stack_states(alone), [1, 0, 1])
    ys = []
    for t in (4, 5):
        y, state = stepping(x[[1, 0, 1], t:t + 1], state)
        ys.append(y)
    y, state = stepping.flush(state)
    close(torch.cat([*ys, y], 1)[:, -5:], whole(x)[[1, 0, 1], 1:], 1e-10)
    assert stepping.end_state(state)["end"].tolist() == [6] * 3


def test_exported(tmp_path: Any):
    """The step as a program and as plain PyTorch, to the last result."""
    (tmp_path / "net.arch").write_text(STACK)
    spec = archdsl.load(tmp_path / "net.arch")
    manifest = compile_to(tmp_path / "out", spec, form="step", export=True, dtype=F64)
    assert manifest.delay == 3
    opened = archdsl.open(tmp_path / "out").eval()
    whole = spec.build(dtype=F64).eval()
    whole.load_state_dict(opened.state_dict())
    program: Any = torch.export.load(tmp_path / "out" / "model.pt2").module()
    names: dict[str, Any] = {}
    exec((tmp_path / "out" / "model.py").read_text(), names)
    plain: Any = next(v for v in names.values() if isinstance(v, type) and issubclass(v, nn.Module) and hasattr(v, "end_state"))().double().eval()
    plain.load_state_dict(opened.state_dict())
    x = torch.randn(2, 5, 4, dtype=F64)
    with torch.no_grad():
        step: Any
        for step in (opened, program, plain):
            state = plain.init_state(2, 8)
            ys = []
            for t in range(8):
                state = plain.end_state(state) if t == 5 else state
                y, state = step(x[:, min(t, 4):min(t, 4) + 1], state)
                ys.append(y)
            close(torch.cat(ys, 1)[:, plain.delay:], whole(x), 1e-10)


def test_the_form_in_claims():
    spec = archdsl.loads(STACK + "claim { forms(y) within 1e-10 }\n", "net.arch")
    (verdict,) = verify(spec)
    assert verdict["passed"], verdict


def test_in_a_space():
    """What a choice adds to the state depends on the others': values wait for the latest. A figure of a candidate is that of its model."""
    spec = archdsl.loads(model("""  layers: for i in range(2) { x = x + Pick()(x) as part }
  return x""", blocks="""block Pick(k: int = 1 in {1, 3, 5})(x: [B, T, c]) -> [B, T, c] { return Conv(k, "same")(x) as conv }"""))
    space: Any = spec.space()
    figure, found = "state_bytes(B = 2, T = 9)", set()
    for k in (1, 3, 5):
        for j in (1, 5):
            knobs = {"layers.0.part.k": k, "layers.1.part.k": j}
            (bytes_,) = space.costs(knobs, [figure]).values()
            assert bytes_ == spec.cost(at={"B": 2, "T": 9}, form="step", knobs=knobs).state_bytes
            found.add(bytes_)
    assert found == {8, *(40 + 96 * n for n in (1, 2, 3, 4))}  # three counters; 2 earlier positions and 1 that waits for each that is ahead


# ---------------------------------------------------------------- what does not go
@torch.no_grad()
def test_wrong_calls():
    _, stepping = streaming()
    state = stepping.init_state(2)
    assert state["attn.keys"].shape[2] == 9 + 3, "the delay has room as well"
    with pytest.raises(ValueError, match="one position or more"):
        stepping.end_state(state)
    with pytest.raises(ValueError, match="rows 0 to 1"):
        stepping.end_state({**state, "position": state["position"] + 1}, [2])
    with pytest.raises(ValueError, match="takes 0 inputs without positions"):
        stepping.flush({**state, "position": state["position"] + 1}, torch.zeros(1))
    whole, plain = streaming(model("  return x"))
    with pytest.raises(ValueError, match="none are left"):
        plain.flush(plain.init_state(1))
    assert whole.delay == plain.delay == 0 and plain.end_state(plain.init_state(1)) == plain.init_state(1)
    rows = model("  param w: [9, 4] = normal()\n  return Conv(3, 1)(x) as a * take(w, index(T))")
    _, together = streaming(rows)
    state = {**together.init_state(2), "position": torch.tensor(3)}
    with pytest.raises(ValueError, match="all of them end together"):
        together.end_state(state, [0])


def test_no_text_from_what_looks_ahead():
    text = """use std { Attention, Linear, TokenEmbedding }
model Net(d: int = 4)(tokens: int[B = 2, T = 9] in 0..<7) -> logits: [B, T, 7] stream T {
  return TokenEmbedding(7, d)(tokens) as embed |> Attention(1, mask = window(3)) as attn |> Linear(7) as head
}
"""
    with pytest.raises(ValueError, match=r"looks 2 positions ahead, first at net.arch:3.*cannot make text"):
        archdsl.generate(archdsl.loads(text, "net.arch").build(), [[1, 2]], max_new_tokens=2)


@pytest.mark.parametrize(("body", "form", "place", "told"), [
    ("Strided()(x) as a", "step", "conv(", "it gives one result for 2 positions"),
    ("Conv(3, 1)(x) as a", "packed", "conv(", "it reads 1 position before and 1 position behind each"),
    ("x + last(Conv(3, 1)(x) as a) [:, none]", "step", "", "of the last one"),
    ("flip(Conv(3, 1)(x) as a, 1)", "step", "flip", "it looks at all positions at once"),
    ("rearrange(relu(pad(x, [(0, 0), (2, 0), (0, 0)]))[:, 2:], [B, T, d] -> [B, T, d])", "step", "pad", "T + 2 positions"),
    ("Mean()(x)", "step", "avg_pool", "of fewer numbers at the ends"),
    ("Halves()(x)", "step", "conv", "it looks at all positions at once"),
    ("(Given()(x) as a) + rearrange(avg_pool(collect(p) [0], 3, stride = 1), [B, d, T] -> [B, T, d])", "step", "pad", "T + 2 positions"),
])
def test_refused(body: str, form: str, place: str, told: str):
    blocks = """
block Strided()(x: [B, T, c]) -> [B, T, c] {
  param weight: [c, c, 3] = normal()
  y = x |> rearrange([B, T, c] -> [B, c, T]) |> conv(weight, pad = 1, stride = 2) |> resize(T, mode = "nearest")
  return rearrange(y, [B, c, T] -> [B, T, c])
}
block Halves()(x: [B, T, c]) -> [B, T, c] {
  param weight: [2, 2, 3] = normal()
  y = x |> rearrange([B, T, (p e)] -> [B, e, (T p)], p = 2) |> conv(weight, pad = 1)
  return rearrange(y, [B, e, (T p)] -> [B, T, (p e)], p = 2)
}
block Given()(x: [B, T, c]) -> [B, T, c] {
  emit p = pad(rearrange(x, [B, T, c] -> [B, c, T]), [(0, 0), (0, 0), (1, 1)])
  return x
}
block Mean()(x: [B, T, c]) -> [B, T, c] {
  return x |> rearrange([B, T, c] -> [B, c, T]) |> avg_pool(3, stride = 1, pad = 1, count_include_pad = false) |> rearrange([B, c, T] -> [B, T, c])
}"""
    with pytest.raises(archdsl.ArchError) as e:
        archdsl.loads(model(f"  return {body.replace(') [', ')[')}", blocks), "net.arch").build(form=form)
    fault = e.value.diagnostics[0]
    assert fault.code == "A0501" and told in fault.message and place in fault.span.text, (fault.message, fault.span.text)


# ---------------------------------------------------------------- at random
LAYERS = {
    "conv": 'Conv({k}, "same", dilation = {n})({x})', "norm": "Norm()({x})", "pool": "Pool({odd})({x})", "before": "Before({k})({x})",
    "attention": "Attention(1, mask = causal, positions = Rope())({x})", "window": "Attention(2, mask = window({n}))({x})",
    "block": "Attention(2, mask = own_block({k}))({x})", "scan": "Rolled()({x})", "recurrence": "GatedLinearAttention(2)({x})",
    "place": "{x} * sin(as_type(index(T), {x}))[:, none]", "sum": "0.1 * cumsum({x}, axis = 1)", "neurons": "lif({x} + 0.3)", "map": "Linear(4)({x})",
    "before all": "shift({x})", "inner": 'Residual(Conv({k}, "same"))({x})',
}
BLOCKS = """
block Pool(k: int)(x: [B, T, c]) -> [B, T, c] {
  y = rearrange(x, [B, T, c] -> [B, c, T])
  return rearrange(max_pool(y, k, stride = 1, pad = floordiv(k, 2)), [B, c, T] -> [B, T, c])
}
block Before(k: int)(x: [B, T, c]) -> [B, T, c] {
  param weight: [c, 1, k] = normal()
  y = pad(x, [(0, 0), (k - 1, 0), (0, 0)]) |> rearrange([B, N, c] -> [B, c, N]) |> conv(weight, groups = c)
  return rearrange(y, [B, c, N] -> [B, N, c])
}
block Rolled()(x: [B, T, d]) -> [B, T, d] {
  scan x over T carry h: [B, d] = zeros() {
    new = tanh(h + x + 0.1)
    next h = new
    yield new
  }
}
"""


def stack(seed: int) -> str:
    """Layers one behind the other, each of which reads earlier values, alone, summed, multiplied or side by side."""
    draw, values, lines = random.Random(seed), ["x"], []
    for i in range(draw.randint(3, 7)):
        k = draw.randint(2, 5)
        a, b = draw.choice(values), draw.choice(values[-3:])
        x = draw.choice([b, b, f"({a} + {b})", f"({a} * {b})", f"(Linear(4)(concat([{a}, {b}], axis = -1)) as both{i})"])
        lines += [f"  u{i} = {x}", f"  v{i} = {LAYERS[draw.choice([*LAYERS])].format(x=f'u{i}', k=k, n=draw.randint(1, 3), odd=draw.choice((3, 5)))}"]
        lines[-1] += f" as layer{i}" if lines[-1].split("= ", 1)[1][0].isupper() else ""
        values.append(f"v{i}")
    return model("\n".join([*lines, f"  return {values[-1]} + {draw.choice(values)}"]), BLOCKS,
                 "Attention, BatchNorm, GatedLinearAttention, Linear, Residual, Rope")


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(6, 300))])
def test_stacks(seed: int):
    """Whatever meets whatever: the sequence at once, in parts, position by position."""
    spec, draw = archdsl.loads(stack(seed), "net.arch"), random.Random(seed)
    whole = shaken(spec.build(dtype=F64), seed).eval()
    g = torch.Generator().manual_seed(seed)
    for name, b in whole.named_buffers():
        if "running" in name:
            b.copy_(torch.rand(b.shape, generator=g, dtype=F64) + 0.5)
    length = draw.randint(1, 14)
    x = torch.randn(BATCH, length, 4, generator=g, dtype=F64)
    with torch.no_grad():
        expected = whole(x)
    for form, lengths in (("extend", [length]), ("extend", parts(length, *(draw.randint(1, 3) for _ in range(3)))), ("step", [1] * length)):
        moving = spec.build(form=form, dtype=F64).eval()
        moving.load_state_dict(whole.state_dict())
        close(fed(moving, x, lengths, room=length + moving.delay if moving.__dict__["_streamed"].has_length else None), expected, 1e-10)
