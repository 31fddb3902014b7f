"""Rotary positions and their scalings against transformers' tables, in every form that they have."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")

F64 = torch.float64
SPEC = """use std.embed { DynamicScaling, LinearScaling, Llama3Scaling, LongScaling, Rope, YarnScaling, longrope_amplitude, yarn_amplitude }

model Turned(w: int = 16)(x: [B = 2, 1, T = 9, w]) -> y: [B, 1, T, w] stream T { return Rope(500, ARGUMENTS)(x) }
"""
LONG = [1.0 + 0.3 * i for i in range(8)]
SHORT = [1.0 + 0.05 * i for i in range(8)]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("", {"rope_type": "default"}),
    "linear": ("scaling = LinearScaling(3)", {"rope_type": "linear", "factor": 3.0}),
    "llama3": ("scaling = Llama3Scaling(8, low = 1, high = 4, context = 64)",
               {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
    "yarn": ("scaling = YarnScaling(4, 200), amplitude = yarn_amplitude(4)",
             {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 200}),
    "yarn, no whole pairs": ("scaling = YarnScaling(32, 900, fast = 20, slow = 2, round = false), amplitude = yarn_amplitude(32)",
                             {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 900, "beta_fast": 20.0, "beta_slow": 2.0,
                              "truncate": False}),
    "yarn, two scales": ("scaling = YarnScaling(40, 96), amplitude = yarn_amplitude(40, 1.2) / yarn_amplitude(40, 0.707)",
                         {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 96, "mscale": 1.2, "mscale_all_dim": 0.707}),
    "yarn, one pair between": ("scaling = YarnScaling(4, 7), amplitude = yarn_amplitude(4)",
                               {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 7}),
    "partial": ("width = 8", {"rope_type": "default", "partial_rotary_factor": 0.5}),
    "partial yarn": ("width = 12, scaling = YarnScaling(4, 200), amplitude = yarn_amplitude(4)",
                     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 200, "partial_rotary_factor": 0.75}),
    "longrope, short": ("scaling = LongScaling(SHORT, LONG, 64), amplitude = longrope_amplitude(4, 64)",
                        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 4.0, "original_max_position_embeddings": 64}),
    "longrope, long": ("scaling = LongScaling(SHORT, LONG, 6), amplitude = longrope_amplitude(4, 6)",
                       {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 4.0, "original_max_position_embeddings": 6}),
    "dynamic": ("scaling = DynamicScaling(4, 6)", {"rope_type": "dynamic", "factor": 4.0}),
    "dynamic, short": ("scaling = DynamicScaling(4, 64)", {"rope_type": "dynamic", "factor": 4.0}),
}
FIXED = {"longrope, long": "scaling = LongScaling(SHORT, LONG, 6, length = 9), amplitude = longrope_amplitude(4, 6)",
         "longrope, short": "scaling = LongScaling(SHORT, LONG, 64, length = 9), amplitude = longrope_amplitude(4, 64)",
         "dynamic": "scaling = DynamicScaling(4, 6, length = 9)", "dynamic, short": "scaling = DynamicScaling(4, 64, length = 9)"}


def spec(arguments: str) -> archdsl.Spec:
    text = SPEC.replace("ARGUMENTS", arguments).replace("500, )", "500)").replace("SHORT", str(SHORT)).replace("LONG", str(LONG))
    return archdsl.loads(text, "turned.arch")


def table(rope: dict[str, Any], length: int, context: int, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, float]:
    """transformers' rates and amplitude for so many positions, in float64: its casts to float32 are taken out."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, max_position_embeddings=context,
                                      rope_parameters={"rope_theta": 500.0, **rope})
    config.standardize_rope_params()
    with monkeypatch.context() as m:
        m.setattr(torch, "float", F64)
        m.setattr(torch, "float32", F64)
        m.setattr(torch.Tensor, "float", torch.Tensor.double)
        if rope["rope_type"] == "default":
            width = int(16 * rope.get("partial_rotary_factor", 1))
            return 500.0 ** (-torch.arange(0, width, 2, dtype=F64) / width), 1.0
        rates, amplitude = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", seq_len=length)
    assert rates.dtype == F64
    return rates, amplitude


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 9])
def test_tables(case: str, length: int, monkeypatch: pytest.MonkeyPatch):
    arguments, rope = CASES[case]
    context = 6 if case == "dynamic" else 64
    rates, amplitude = table(rope, length, context, monkeypatch)
    width = 2 * len(rates)
    x = torch.randn(2, 1, length, 16, dtype=F64)
    angle = torch.arange(length, dtype=F64)[:, None] * rates
    a, b = x[..., :width].chunk(2, -1)
    c, s = amplitude * angle.cos(), amplitude * angle.sin()
    want = torch.cat([a * c - b * s, b * c + a * s, x[..., width:]], -1)
    got = spec(arguments).build(dtype=F64)(x)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_forms(case: str):
    """Positions go on from call to call. Scalings by the number of positions need to be told how many there will be."""
    if case in FIXED:
        with pytest.raises(archdsl.ArchError, match="all positions at once"):
            spec(CASES[case][0]).build(form="step")
        x = torch.randn(2, 1, 9, 16, dtype=F64)
        torch.testing.assert_close(spec(FIXED[case]).build(dtype=F64)(x), spec(CASES[case][0]).build(dtype=F64)(x), rtol=1e-12, atol=1e-12)
    made = spec(FIXED.get(case, CASES[case][0]))
    whole, extend = (made.build(dtype=F64, form=form) for form in ("parallel", "extend"))
    x = torch.randn(2, 1, 9, 16, dtype=F64)
    first, state = extend(x[:, :, :4], extend.init_state(2))
    then, state = extend(x[:, :, 4:], state)
    torch.testing.assert_close(torch.cat([first, then], 2), whole(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [16, 6])
def test_neighbours(width: int):
    """Pairs (2i, 2i + 1) as complex numbers, each turned."""
    x = torch.randn(2, 1, 9, 16, dtype=F64)
    rates = 500.0 ** (-torch.arange(0, width, 2, dtype=F64) / width)
    turn = torch.polar(torch.ones(9, width // 2, dtype=F64), torch.arange(9, dtype=F64)[:, None] * rates)
    pairs = torch.view_as_complex(x[..., :width].reshape(2, 1, 9, -1, 2)) * turn
    want = torch.cat([torch.view_as_real(pairs).flatten(-2), x[..., width:]], -1)
    torch.testing.assert_close(spec(f"neighbours = true, width = {width}").build(dtype=F64)(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("arguments", "told"), [
    ("width = 5", "must be even"), ("width = 20", "20 of 16 channels"), ("width = 2, scaling = DynamicScaling(2, 4)", "a single pair"),
    ("scaling = LongScaling([1, 2], [1, 2], 4)", "hold 8 numbers each"),
])
def test_wrong_arguments(arguments: str, told: str):
    with pytest.raises(archdsl.ArchError, match=told):
        spec(arguments).build()
