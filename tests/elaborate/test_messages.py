"""Where messages point and what they say, for mistakes that newcomers make."""
from __future__ import annotations

import pytest

from tests.elaborate.helpers import fault, model


@pytest.mark.parametrize(("call", "at"), [
    ("Pre(LayerNorm(), Attention(3))", "3"),
    ("Pre(norm = LayerNorm(), f = Attention(heads = 3))", "heads = 3"),
    ("Pre(LayerNorm(scale = eye()), Attention(2))", "scale = eye()"),
    ("Post(LayerNorm(), Pre(LayerNorm(), Attention(3)))", "3"),
    ("Pre(LayerNorm(), BatchNorm())", "BatchNorm()"),
    ("Pre(BatchNorm(), Attention(2))", "BatchNorm()"),
])
def test_a_fault_inside_a_wrapper_points_at_the_argument_whose_block_failed(call: str, at: str):
    header = "(x: [8]) -> y: [8]" if "Batch" in call else "(x: [B, T, 8]) -> y: [B, T, 8]"  # a batch norm needs two axes
    assert fault(lambda: model(f"return {call}(x) as a", header)).span.text == at
