"""State spaces and hybrids in all forms: all positions at once, in parts, one by one; rows that begin where they like; text."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
import archdsl.ops.ssd as ssd
import archdsl.ops.ssm as ssm
from tests.streaming.forms import agree, close, inputs_of, shaken

SPECS = ("mamba", "mamba2", "mamba2_hybrid")


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("length", [1, 23, 140])
def test_forms_agree(name: str, length: int):
    agree(archdsl.load(name), "tiny", T=length, batch=1 if length == 140 else 2)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("size", [16, 64])
def test_in_float32(name: str, size: int, monkeypatch: Any):
    monkeypatch.setattr(ssd, "CHUNK", size)
    monkeypatch.setattr(ssd, "BLOCK", size)
    monkeypatch.setattr(ssm, "BLOCK", size)
    agree(archdsl.load(name), "tiny", T=75, dtype=torch.float32, within=1e-4)


def test_mamba_in_a_hybrid():
    agree(archdsl.load("mamba2_hybrid"), "tiny", T=9, ssm="mamba", base=100.0)


@pytest.mark.parametrize("name", SPECS)
def test_rows_begin_where_they_like(name: str):
    spec = archdsl.load(name)
    model = shaken(spec.build("tiny", form="extend", dtype=torch.float64)).eval()
    room = {"length": 16} if name == "mamba2_hybrid" else {}
    x = inputs_of(spec, spec.elaborate("tiny"), 9, 3, torch.float64)[0]
    with torch.no_grad():
        alone, _ = model(x[1:2, 4:], model.init_state(1, **room))
        _, state = model(x[:, :4], model.init_state(3, **room))
        together, _ = model(x[:, 4:], model.reset_state(state, [1]))
        first, _ = model(x[:1], model.init_state(1, **room))
        swapped, _ = model(x[[2, 0], 4:], model.reorder_state(state, [2, 0]))
    close(together[1:2], alone, 1e-10)
    close(together[:1], first[:, 4:], 1e-10)
    close(swapped[1:], first[:, 4:], 1e-10)


@pytest.mark.parametrize("name", SPECS)
def test_prompts_of_different_lengths(name: str):
    """Together they give what each gives alone, by greedy choice and by beams."""
    model = shaken(archdsl.load(name).build("tiny", dtype=torch.float64)).eval()
    prompts = [[5, 9, 30, 2, 17], [41], [8, 8, 1]]
    cases: tuple[dict[str, Any], ...] = ({}, {"beams": 3})
    for options in cases:
        together = archdsl.generate(model, prompts, max_new_tokens=9, **options)
        for prompt, got in zip(prompts, together):
            assert got.tolist() == archdsl.generate(model, [prompt], max_new_tokens=9, **options)[0].tolist()


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_state_is_constant(name: str):
    """Bytes of state do not depend on the position, and are what the equations need."""
    spec = archdsl.load(name)
    made = {"mamba": 2 * 96 * (5 + 3), "mamba2": 2 * (96 * 5 + (96 + 2 * 2 * 5) * 3)}[name]
    sizes = [spec.cost("tiny", form="step", at={"T": length}).state_bytes for length in (1, 100, 100_000)]
    assert len(set(sizes)) == 1
    state = spec.build("tiny", form="step").init_state(1)
    held = sum(v.numel() for v in state.values() if v.is_floating_point())
    assert held == made and sizes[0] == sum(v.numel() * v.element_size() for v in state.values())


@pytest.mark.parametrize("name", ["mamba2_hybrid", *(pytest.param(name, marks=pytest.mark.proof) for name in ("mamba", "mamba2"))])
def test_compiles_and_exports(name: str):
    spec = archdsl.load(name)
    step = shaken(spec.build("tiny", form="step", dtype=torch.float64)).eval()
    room = {"length": 8} if name == "mamba2_hybrid" else {}
    x = inputs_of(spec, spec.elaborate("tiny"), 1, 2, torch.float64)[0]
    with torch.no_grad():
        state = step.init_state(2, **room)
        y, after = step(x, state)
        again, new = torch.export.export(step, (x, state)).module()(x, state)
        close(again, y, 1e-10)
        for k in after:
            close(new[k], after[k], 1e-10)
        whole = shaken(spec.build("tiny", dtype=torch.float64)).eval()
        long = inputs_of(spec, spec.elaborate("tiny"), 70, 2, torch.float64)[0]
        close(torch.compile(whole, fullgraph=True, backend="aot_eager")(long), whole(long), 1e-10)
