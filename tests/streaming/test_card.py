"""Forms with state on a card: what looks ahead, what is cut, what is emitted, every mixer late. Position by position, as one CUDA graph that is
replayed for each, and in parts, against all positions at once in float64 on the CPU. The same runs on the CPU, with calls in the place of replays."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.decoding.decoder import CudaGraph, Rerun
from tests.streaming.forms import parts, shaken
from tests.streaming.test_cropped import BLOCKS
from tests.streaming.test_delay import STACK, between, model
from tests.streaming.test_emitted import TEXT as EMITTING
from tests.streaming.test_hybrids import ARMS

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths", "ignore:Plan failed")  # cuDNN tries the next one
F64 = torch.float64
T, BATCH = 9, 2
TEXTS = {
    "convolutions": STACK,
    "means": model("""  param decay: [4] = normal()
  param bonus: [4] = normal()
  k = 30 * (Conv(3, 1)(x) as a) - 60
  return wkv(k, x, -exp(decay), bonus)"""),
    "attention ahead": model("""  x = Conv(3, 1)(x) as a
  x = x + Attention(1, mask = window(3))(x) as attn
  return Conv(3, 1)(x) as b""", use="Attention, BatchNorm"),
    "gates": model("""  x = Conv(3, 1)(x) as a |> Norm() as n
  return x + (GatedLinearAttention(2)(x) as mixer) * sin(as_type(index(T), x))[:, none]""", use="BatchNorm, GatedLinearAttention"),
    "cut": model("""  y = Within(3, 2, 0, 2)(x) as a
  return Conv(3, 1)(x + y) as b""", BLOCKS),
}


class Replayed:
    """Calls of a model, each with one more position, whose state stays where it is. What comes before the first position is gone when it is made."""

    def __init__(self, step: Any, x: torch.Tensor, room: int | None):
        self.step, self.x = step, torch.zeros_like(x[:, :1])
        self.state = step.init_state(len(x), room) if room else step.init_state(len(x))
        self.results: list[torch.Tensor] = []
        self.recording = (CudaGraph if x.is_cuda else Rerun)(self._once, None)
        for kept in self.state.values():
            kept.zero_()

    def _once(self) -> None:
        y, new = self.step(self.x, self.state)
        (y, new), more = (y, new) if isinstance(y, tuple) else ((y, new), {})  # with what is emitted
        fresh = {address: new[address].clone() for address in self.state}
        for address, kept in self.state.items():
            kept.copy_(fresh[address])
        given = [y, *more.values()]
        for into, z in zip(self.results, given, strict=bool(self.results)):
            into.copy_(z)
        self.results = self.results or [z.clone() for z in given]

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.x.copy_(x)
        self.recording.replay()
        return [y.clone() for y in self.results]


def end(step: Any, state: dict[str, torch.Tensor]) -> None:
    for address, kept in step.end_state(dict(state)).items():
        state[address].copy_(kept)


def position_by_position(step: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The results of a sequence, the late ones too; what comes behind its end is no number."""
    replayed = Replayed(step, x, x.shape[1] + step.delay if step.__dict__["_streamed"].has_length else None)
    found = [replayed(x[:, t:t + 1]) for t in range(x.shape[1])]
    if step.delay:
        end(step, replayed.state)
    junk = torch.full_like(x[:, :1], float("nan")) if x.is_floating_point() else x[:, :1]
    found += [replayed(junk) for _ in range(step.delay)]
    return [torch.cat(ys, 1)[:, step.delay:] for ys in zip(*found, strict=True)]


def in_parts(extend: Any, x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    room = {"length": x.shape[1] + extend.delay} if extend.__dict__["_streamed"].has_length else {}
    state, found, at = extend.init_state(len(x), **room), [], 0
    for n in lengths:
        y, state = extend(x[:, at:at + n], state)
        found.append(y)
        at += n
    if extend.delay:
        y, state = extend(torch.full_like(x[:, :extend.delay], 3), extend.end_state(state))
        found.append(y)
    return torch.cat(found, 1)[:, extend.delay:]


def near(found: torch.Tensor, expected: torch.Tensor, within: float) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found.cpu().double(), expected, rtol=within, atol=within)


@torch.no_grad()
def held(spec: archdsl.Spec, x: torch.Tensor, device: str, dtype: torch.dtype, within: float, **knobs: Any) -> None:
    whole = shaken(spec.build(dtype=F64, **knobs)).eval()
    expected = whole(x)
    moved = x.to(device, dtype) if x.is_floating_point() else x.to(device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for form in ("step", "extend"):
            streaming = spec.build(form=form, dtype=dtype, device=device, **knobs).eval()
            streaming.load_state_dict(whole.state_dict())
            near(position_by_position(streaming, moved)[0] if form == "step" else in_parts(streaming, moved, parts(T, 4, 2)), expected, within)


def late(name: str, device: str, dtype: torch.dtype, within: float) -> None:
    x = torch.randn(BATCH, T, 4, generator=torch.Generator().manual_seed(7), dtype=F64)
    held(archdsl.loads(TEXTS[name], "net.arch"), x, device, dtype, within)


def mixer_behind(mixer: str, device: str, dtype: torch.dtype, within: float) -> None:
    spec, knobs = between(mixer)
    tokens = torch.randint(0, 23, (BATCH, T), generator=torch.Generator().manual_seed(3))
    held(spec, tokens, device, dtype, within, knobs=knobs)


@torch.no_grad()
def emitted(device: str, dtype: torch.dtype, within: float) -> None:
    spec = archdsl.loads(EMITTING.replace("BEHIND", "return x"), "net.arch")
    whole = shaken(spec.build(dtype=F64, emit="layers.*.part.side.each")).eval()
    x = torch.randn(BATCH, T, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected, values = whole(x)
    step = spec.build(form="step", dtype=dtype, device=device, emit="layers.*.part.side.each").eval()
    step.load_state_dict(whole.state_dict())
    for found, wanted in zip(position_by_position(step, x.to(device, dtype)), (expected, *values.values()), strict=True):
        near(found, wanted, within)


# ---------------------------------------------------------------- on this device
@pytest.mark.parametrize("name", ["convolutions", "means"])
def test_late(name: str):
    late(name, "cpu", F64, 1e-10)


def test_a_mixer():
    mixer_behind("gla" if "gla" in ARMS else ARMS[0], "cpu", F64, 1e-10)


def test_emitted():
    emitted("cpu", F64, 1e-10)


# ---------------------------------------------------------------- on a card
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("name", TEXTS)
def test_late_on_a_card(name: str, dtype: torch.dtype):
    late(name, "cuda", dtype, 1e-9 if dtype == F64 else 1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", ARMS)
def test_mixers_on_a_card(mixer: str):
    mixer_behind(mixer, "cuda", torch.float32, 2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_emitted_on_a_card(dtype: torch.dtype):
    emitted("cuda", dtype, 1e-9 if dtype == F64 else 1e-3)
