"""Strategies on the spaces of specs, and what `archdsl explain` says about them."""
from __future__ import annotations

import json
import re

import pytest

import archdsl
from archdsl.cli.pages import find_page
from archdsl.search.model import Objective
from archdsl.search.registry import STRATEGIES
from archdsl.search.strategies.base import numbers
from archdsl.search.testing import made, proposes_valid, resumes, rounds
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


@pytest.mark.parametrize("name", ["nsga2(population = 6)", "nsga3(population = 6)", "evolution"])
def test_a_state_is_read_without_models(name, monkeypatch):
    """What a large population was is made again when it is looked at, member by member: a search goes on at once."""
    problem, again = Sized(specs.DEPTH), Sized(specs.DEPTH)
    strategy = made(name, problem, budget=24)  # type: ignore[arg-type]
    _ = list(rounds(strategy, problem, 12))  # type: ignore[arg-type]
    state = json.loads(json.dumps(strategy.state()))
    revived = made(name, again, budget=24)  # type: ignore[arg-type]
    looked_at = []
    monkeypatch.setattr(again.space, "from_json", lambda knobs: looked_at.append(knobs) or again.space.candidate(knobs))
    revived.restore(state)
    assert json.loads(json.dumps(revived.state())) == state and not looked_at
    assert [dict(p.candidate) for p in revived.propose(4)] == [dict(p.candidate) for p in strategy.propose(4)]
    assert 0 < len(looked_at) < 12


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
