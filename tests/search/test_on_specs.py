"""Strategies on the spaces of specs, and what `archdsl explain` says about them."""
from __future__ import annotations

import re

import pytest

import archdsl
from archdsl.cli.pages import find_page
from archdsl.search.model import Objective
from archdsl.search.registry import STRATEGIES
from archdsl.search.strategies.base import numbers
from archdsl.search.testing import proposes_valid, resumes
from tests.search import specs

KINDS = ("CHOICES", "LISTS", "DEPENDENT", "DEPTH")


class Sized:
    """A problem of a spec: few parameters, many decisions."""

    def __init__(self, text: str) -> None:
        self.name, self.reference = "sized", (1e9, 0.0)
        self.space = archdsl.loads(text).space()
        self.objectives = (Objective("params"), Objective("decisions", "max"))

    def measure(self, candidate, fidelity):
        return {"params": self.space.costs(candidate, ["params"])["params"], "decisions": float(len(candidate))}


@pytest.mark.parametrize("name", [n for n in STRATEGIES.own() if n not in ("milp", "tpe")])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_contract(name, kind):
    problem = Sized(getattr(specs, kind))
    proposes_valid(name, problem, 24)  # type: ignore[arg-type]
    resumes(name, problem, 24)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["milp", "tpe"])
def test_contract_of_the_slow_ones(name):
    problem = Sized(specs.CHOICES if name == "milp" else specs.DEPENDENT)
    resumes(name, problem, 24 if name == "milp" else 14)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_assignment_has_one_number(kind):
    space = archdsl.loads(getattr(specs, kind)).space()
    found = [tuple(c.items()) for i in range(numbers(space)) if (c := space.at(i)) is not None]
    assert len(found) == len(set(map(repr, found))) == space.size
    assert space.at(10**30) is None


@pytest.mark.parametrize("name", STRATEGIES.own())
def test_page(name):
    rule = STRATEGIES[name]
    page = find_page(name)
    assert page["kind"] == "strategy" and rule.signature in page["text"]
    told = set(re.findall(r"`(\w+)`", rule.doc))
    assert {p.name for p in rule.params} <= told, "an option that the page does not tell about"
