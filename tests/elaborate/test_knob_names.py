"""Knobs whose names Python's functions need for their own arguments."""
from __future__ import annotations

import inspect

import pytest

from archdsl.elaborate.model import OF_PYTHON
from archdsl.spec import Spec, loads
from tests.elaborate.helpers import fault, model


def test_the_names_are_those_of_the_functions():
    own = {name for f in (Spec.build, Spec.cost) for name, p in inspect.signature(f).parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert own - {"self"} | {"knobs"} == OF_PYTHON


@pytest.mark.parametrize("name", sorted(OF_PYTHON))
def test_a_hyper_argument_of_such_a_name(name):
    d = fault(lambda: model(f"return {name} * x", params=f"{name}: int = 1"))
    assert d.code == "A0231" and f"`{name}`" in d.message and d.span.text.startswith(name)


def test_a_choice_of_such_a_name():
    d = fault(lambda: model("choose flat { yes => identity no => MLP(4) } = yes\nreturn flat(x)"))
    assert d.code == "A0231" and "`flat`" in d.message


def test_inside_a_block_the_names_are_free():
    text = "use std.channel { MLP }\nblock Part(seed: int = 1 in {1, 2})(x: [..., d]) -> [..., d] {\n"
    text += "  choose flat { yes => identity no => MLP(4) } = yes\n  return flat(seed * x)\n}\n"
    text += "model M()(x: [B, 4]) -> y: [B, 4] { return Part()(x) as part }\n"
    spec = loads(text)
    assert list(spec.knobs) == ["part.seed", "part.flat"] and spec.build(seed=3, knobs={"part.seed": 2}).archdsl.knobs == {"part.seed": "2"}
