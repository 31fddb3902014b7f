"""Random stacks of all mixers, drawn from a spec with `choose`: whatever stands beside what, all forms give the same, the state is as large as
predicted, and what goes through the state is all that later positions need."""
from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import archdsl
from archdsl.graph import Graph
from archdsl.ops.registry import OPS
from tests.streaming.forms import close, inputs_of, run, shaken

TEXT = Path(__file__).parent / "hybrids.arch"
STACKS = 500
T, BATCH, WITHIN = 13, 2, 1e-4


@cache
def spec() -> archdsl.Spec:
    return archdsl.load(TEXT)


def drawn(seed: int) -> dict[str, Any]:
    """A value from the domain of every knob. The outermost are drawn first: they decide which others there are."""
    draw = random.Random(seed)
    knobs: dict[str, Any] = {}
    while left := {a: k.allowed for a, k in spec().elaborate(knobs=knobs).knobs.items() if k.allowed is not None and a not in knobs}:
        least = min(a.count(".") for a in left)
        knobs.update({a: draw.choice(list(domain)) for a, domain in left.items() if a.count(".") == least})
    return knobs


def split(draw: random.Random) -> list[int]:
    """Random lengths with the sum T."""
    found: list[int] = []
    while sum(found) < T:
        found.append(min(draw.choice((1, 2, 3, 5, 8)), T - sum(found)))
    return found


def agrees(seed: int) -> None:
    knobs, draw = drawn(seed), random.Random(seed)
    whole = shaken(spec().build(knobs=knobs), seed).eval()
    models = {form: spec().build(form=form, knobs=knobs).eval() for form in ("extend", "step")}
    for m in models.values():
        m.load_state_dict(whole.state_dict())
    made = spec().elaborate(knobs=knobs)
    x = inputs_of(spec(), made, T, BATCH, torch.float32, seed)
    predicted = {form: spec().cost(at={"B": BATCH, "T": T}, form=form, knobs=knobs).state_bytes for form in models}
    with torch.no_grad():
        expected = whole(*x)
        assert expected.std() > 0.1 and expected.isfinite().all()
        prefill = draw.randint(1, T - 1)
        begun, behind = run(models["extend"], (x[0][:, :prefill],), [prefill], models["extend"].init_state(BATCH, T))
        rest, last = run(models["step"], (x[0][:, prefill:],), [1] * (T - prefill), behind)
        close(torch.cat([begun, rest], 1), expected, WITHIN)
        states = [last]
        for form, lengths in (("extend", [T]), ("extend", split(draw)), ("extend", split(draw)), ("step", [1] * T)):
            state = models[form].init_state(BATCH, T)
            assert sum(s.numel() * s.element_size() for s in state.values()) == predicted[form]
            got, after = run(models[form], x, lengths, state)
            close(got, expected, WITHIN)
            assert {k: (v.shape, v.dtype) for k, v in after.items()} == {k: (v.shape, v.dtype) for k, v in state.items()}
            states.append(after)
    for other in states[1:]:
        for address, value in other.items():
            close(value, states[0][address], WITHIN)


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(12, 24))])
def test_stacks(seed: int):
    agrees(seed)


@pytest.mark.proof
@pytest.mark.parametrize("part", range(10))
def test_500_stacks(part: int):
    for seed in range(part * STACKS // 10, (part + 1) * STACKS // 10):
        agrees(seed)


ARMS = sorted(spec().elaborate().knobs["layers.0.mixer"].allowed)


@pytest.mark.parametrize("mixer", ARMS)
def test_half_precision(mixer: str):
    """A step of one position computes in the types in which all positions at once do, and leaves the state in its own."""
    knobs = {"depth": 1, "layers.0.mixer": mixer, "layers.0.channels": "nothing"}
    whole, step = (spec().build(form=form, knobs=knobs, dtype=torch.bfloat16).eval() for form in ("parallel", "step"))
    step.load_state_dict(shaken(whole).state_dict())
    x = inputs_of(spec(), spec().elaborate(knobs=knobs), 5, BATCH, torch.bfloat16)
    state = step.init_state(BATCH, 5)
    with torch.no_grad():
        expected = whole(*x)
        got, after = run(step, x, [1] * 5, state)
    assert got.dtype == expected.dtype == torch.bfloat16 and {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in state.items()}
    assert (got - expected).abs().max() <= 0.03 * expected.abs().max()


def ops_of(graph: Graph) -> set[str]:
    found: set[str] = set()
    for n in graph.nodes:
        found |= {n.op} if n.op != "call" else ops_of(n.attrs["graph"])
    return found


def test_the_spec_has_all_mixers():
    """Each op that goes on from a state occurs in some arm, but for `last`, which ends the stream, spikes, which
    rounding may flip, quantisers, which passes put in, and what looks ahead (test_delay.py)."""
    streaming = {name for name, op in OPS.items() if op.stream is not None} | {"scan"}
    found: set[str] = set()
    for arm in ARMS:
        for i in range(4):
            found |= ops_of(spec().elaborate(knobs={"depth": 1, "layers.0.mixer": arm, **_kind(arm, i)}).graph)
    assert streaming - found == {"last", "lif", "fake_quantize", "conv", "avg_pool", "max_pool"}


def _kind(arm: str, i: int) -> dict[str, Any]:
    return {"layers.0.mixer.kind": ("she", "he", "we", "me")[i]} if arm == "extractor" else {}


def packed(seed: int) -> None:
    """Documents behind each other give what each gives alone."""
    knobs, draw = drawn(seed), random.Random(seed)
    whole = shaken(spec().build(knobs=knobs), seed).eval()
    joined = spec().build(form="packed", knobs=knobs).eval()
    joined.load_state_dict(whole.state_dict())
    (x,) = inputs_of(spec(), spec().elaborate(knobs=knobs), T, BATCH, torch.float32, seed)
    lengths = split(draw)
    with torch.no_grad():
        close(joined(x, torch.tensor(lengths)), torch.cat([whole(d) for d in x.split(lengths, 1)], 1), WITHIN)


@pytest.mark.parametrize("seed", range(24, 36))
def test_packed_stacks(seed: int):
    packed(seed)


@pytest.mark.proof
@pytest.mark.parametrize("part", range(10))
def test_500_packed_stacks(part: int):
    for seed in range(part * STACKS // 10, (part + 1) * STACKS // 10):
        packed(seed)
