"""The shipped specs that go along a stream, and which of them `generate` continues."""
from __future__ import annotations

from pathlib import Path

SPECS = Path(__file__).resolve().parents[2] / "specs"
NO_TOKENS = {"audio/lmuformer", "general/aaren", "general/kernel_attention", "general/pre_rmsnorm", "vision/fit"}
"""Whose stream is of numbers, or whose result is none of tokens: there is no next token."""
OTHERWISE = {"language/t5"}
"""Whose state has sizes that its inputs tell: nothing is recorded."""


def streaming() -> list[str]:
    found = sorted(str(p.relative_to(SPECS).with_suffix("")) for p in SPECS.rglob("*.arch") if "stream T" in p.read_text())
    assert set(found) >= NO_TOKENS | OTHERWISE
    return [p for p in found if p not in NO_TOKENS | OTHERWISE]
