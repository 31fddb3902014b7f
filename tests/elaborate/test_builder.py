"""Which nodes of a graph under construction are one."""
from __future__ import annotations

import pytest

from archdsl.elaborate.builder import Builder
from archdsl.graph import Mask, TensorType
from archdsl.source import NOWHERE


@pytest.mark.parametrize("values", [
    (1, 1.0, True), (0, 0.0, -0.0, False), ((1, 0), (1.0, 0.0), (True, False)), (((1,),), ((True,),)), (None, False), ("1", 1)])
@pytest.mark.parametrize("place", ["attribute", "operand", "operand in a list", "number of a mask"])
def test_numbers_of_other_types_make_other_nodes(values, place):
    builder = Builder()
    x = builder.input("x", TensorType("int", (3,)), NOWHERE)

    def node(v):
        if place == "attribute":
            return builder.add("literal", (), {"value": v}, (TensorType("float", (2,)),), NOWHERE)
        if place == "number of a mask":
            v = Mask("and", (Mask("causal"), Mask("window", (v,))))
        return builder.add("concat", ((x, v) if place == "operand in a list" else v,), {"axis": 0}, (TensorType("int", (3,)),), NOWHERE)

    made = [node(v) for v in values]
    assert len({id(n) for n in made}) == len(values)
    assert all(node(v) is n for v, n in zip(values, made))
