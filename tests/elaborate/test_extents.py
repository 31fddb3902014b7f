"""How many elements tensors have at sizes of a run: told when the text is checked, never an overflow later."""
from __future__ import annotations

import pytest

import archdsl
from archdsl.diagnostics.model import ArchError
from tests.elaborate.helpers import fault, made


def test_an_input_beyond_the_limit_at_its_example_sizes():
    d = fault(lambda: made("model M()(x: [B = 1, T = 200000000000000, S = 200000, 8]) -> y: [B, T, S, 8] { return x }"))
    assert (d.code, d.message) == ("A0602", "a tensor [B, T, S, 8] is too large at B = 1, S = 200,000, T = 200,000,000,000,000")


@pytest.mark.parametrize("size", ["10 ** 30", "2 ** 48 + 1"])
def test_an_example_size_that_no_axis_has(size: str):
    d = fault(lambda: made(f"model M()(x: [B = {size}, 8]) -> y: [B, 8] {{ return x }}"))
    assert d.code == "A0602" and "the example size `B`" in d.message and d.help == ("a size of a run is at most 281,474,976,710,656",)


def test_a_tensor_inside_that_grows_beyond_it():
    """Symbolic sizes have coefficients of any length."""
    grow = "x = concat([x, x], axis = 1)\n"
    d = fault(lambda: made(f"model M()(x: [B, T, 8]) -> y: [_, _, _] {{ {grow * 64} return x[:, 1:] }}"))
    assert d.code == "A0602" and d.span.text == "concat([x, x], axis = 1)"
    assert made(f"model M()(x: [B, T, 8]) -> y: [_, _, _] {{ {grow * 50} return x[:, 1:] }}").graph


def test_the_same_at_the_sizes_that_costs_are_asked_for():
    spec = archdsl.loads("model M()(x: [B, T, S]) -> y: [B, T, S] { return x }")
    with pytest.raises(ArchError) as e:
        spec.cost(None, {"T": 2**40, "S": 2**40})
    assert e.value.diagnostics[0].code == "A0602"
