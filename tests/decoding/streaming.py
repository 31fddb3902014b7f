"""The shipped specs that go along a stream, and which of them `generate` continues; steps as they are lowered for a card, on this device."""
from __future__ import annotations

from pathlib import Path

import pytest

from archdsl.kernels.bindings import Binding
from archdsl.lower import forms
from archdsl.records import replace

SPECS = Path(__file__).resolve().parents[2] / "specs"
NO_TOKENS = {"audio/lmuformer", "general/aaren", "general/kernel_attention", "general/pre_rmsnorm", "vision/fit"}
"""Whose stream is of numbers, or whose result is none of tokens: there is no next token."""
OTHERWISE = {"language/t5"}
"""Whose state has sizes that its inputs tell: nothing is recorded."""


def streaming() -> list[str]:
    found = sorted(str(p.relative_to(SPECS).with_suffix("")) for p in SPECS.rglob("*.arch") if "stream T" in p.read_text())
    assert set(found) >= NO_TOKENS | OTHERWISE
    return [p for p in found if p not in NO_TOKENS | OTHERWISE]


def lowered_for_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on forms are lowered as for a card, which has kernels of float64 too; here the ops are those of plain torch."""
    refusal = Binding.refusal
    monkeypatch.setattr(Binding, "refusal", lambda self, device, dtype, *rest: refusal(self, device, "f32" if dtype == "f64" else dtype, *rest))
    monkeypatch.setattr(forms, "replace", lambda target, **changes: replace(target, **{**changes, "device": "cuda"}))
