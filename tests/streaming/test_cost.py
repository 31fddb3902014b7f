"""Bytes of the state before it exists: as numbers and as formulas, against the tensors themselves."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.dims import evaluate
from tests.streaming.test_forms import SMALL


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("form", ["extend", "step"])
def test_state_bytes(name: str, form: str):
    variant, knobs = SMALL[name]
    spec = archdsl.load(name)
    for dtype, name_of in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        model: Any = spec.build(variant, form=form, dtype=dtype, device="meta", **knobs)
        for batch, length in ((1, 1), (3, 17)):
            state = model.init_state(batch, length)
            real = sum(t.numel() * t.element_size() for t in state.values())
            cost = spec.cost(variant, {"B": batch, "T": length}, form, name_of, **knobs)
            assert cost.state_bytes == real
            assert evaluate(cost.formulas["state_bytes"], {"B": batch, "Length": length, "T": 1}) == real


def test_a_step_costs_one_token():
    """Matrix products of the weights once, and pairs with everything that is kept."""
    spec = archdsl.load("llama")
    whole, step = spec.cost("tiny", {"B": 2, "T": 16}), spec.cost("tiny", {"B": 2, "T": 16}, "step")
    assert step.macs * 16 == whole.macs and step.params == whole.params and whole.state_bytes == 0


def test_without_a_stream():
    with pytest.raises(archdsl.ArchError, match="declares no streaming axis"):
        archdsl.load("vit").cost(form="step")
