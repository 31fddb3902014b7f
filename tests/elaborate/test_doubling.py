"""Blocks that apply others twice, level over level: what copies cost is paid for."""
from __future__ import annotations

from archdsl.elaborate.limits import MAX_STEPS
from tests.elaborate.helpers import fault, made


def nested(levels: int) -> str:
    blocks = "".join(f"block F{i}()(x: [..., d]) -> [..., d] {{ return x |> F{i - 1}() |> F{i - 1}() }}\n" for i in range(1, levels))
    return f"block F0()(x: [..., d]) -> [..., d] {{ return relu(x) }}\n{blocks}model M()(x: [B, 8]) -> y: [B, 8] {{ return F{levels - 1}()(x) }}"


def test_a_copied_node_costs_more_than_a_step():
    """A copy of a node takes several times what a step takes, so that doubling ends at far fewer nodes than there are steps."""
    e = made(nested(13))
    copies = sum(2 ** k for k in range(1, 13))
    assert 4 * copies < e.steps < 8 * copies
    d = fault(lambda: made(nested(50)))
    assert d.code == "A0602" and f"{MAX_STEPS:,} elaboration steps" in d.message
