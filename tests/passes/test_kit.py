"""The test kit: our passes on random hybrids, and a pass that breaks each rule is found."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.graph import STRUCTURE
from archdsl.passes import Model, graph_pass
from archdsl.passes.contract import equal
from archdsl.passes.registry import PASSES
from archdsl.passes.testing import check_pass, hybrid
from archdsl.spec import loads

PASSES.load()
OURS = [(step, p.name) for p in PASSES.values() for step in p.samples]


@pytest.mark.parametrize(("step", "name"), OURS, ids=[s for s, _ in OURS])
def test_our_passes(step, name):
    verdict = check_pass(step, range(16), fits=3)
    assert verdict.refused or name == "bake"


@pytest.mark.proof
@pytest.mark.parametrize(("step", "name"), OURS, ids=[s for s, _ in OURS])
def test_our_passes_on_many(step, name):
    check_pass(step, range(100, 500), fits=100)


def test_hybrids_are_models_of_all_kinds():
    texts = [hybrid(s) for s in range(60)]
    assert texts == [hybrid(s) for s in range(60)] and len(set(texts)) == 60
    for word in ("TokenEmbedding(", "BatchNorm(", "Post(", "Peri(", "LayerScale(", "embed.weight)", "dropout(", "emit ", "slope", "Attention("):
        assert any(word in t.split("\nmodel")[1] for t in texts), word
    for t in texts[:10]:
        loads(t).elaborate()


@pytest.fixture
def own():
    with PASSES.apart():
        yield


def double(edit):
    for n in edit.selected("linear"):
        edit.set(n, n.args[0], edit.add("mul", n.args[1], 2, at=n), n.args[2])


def harmless(edit):
    """Adds and takes away: the same function, but more of it each time."""
    for n in edit.selected("linear"):
        edit.set(n, n.args[0], edit.add("mul", edit.add("mul", n.args[1], 2, at=n), 0.5, at=n), n.args[2])


def in_place(edit):
    for n in edit.source.nodes:
        if n.op == "linear":
            n.name = "spoilt"
    harmless(edit)


def crashes(edit):
    raise edit.refuse("no reason")


@pytest.mark.parametrize(("body", "told"), [(double, "the contract does not hold"), (harmless, "a second application changes more"),
                                            (in_place, "changed the graph that it was given")])
def test_faulty_passes_are_found(own, body, told):
    graph_pass("faulty()", contract=equal())(body)
    text = "model M()(x: [B = 2, 4]) -> y: [B, 3] { param w: [3, 4] = normal()  return linear(x, w) }"
    with pytest.raises(AssertionError, match=told):
        check_pass("faulty()", (), models=[text])


def test_how_many_fit_is_asked_for(own):
    graph_pass("never()", contract=equal())(crashes)
    assert check_pass("never()", range(3), fits=0, refuses=3).refused == 3
    with pytest.raises(AssertionError, match="at least 1 were wanted"):
        check_pass("never()", range(3))
    graph_pass("again()", contract=equal())(harmless)
    assert check_pass("again()", range(4), idempotent=False).fitted == 4


def test_words_that_are_no_op_are_told(own):
    def finds(edit):
        edit.selected("swish")

    def makes(edit):
        for n in edit.selected("linear"):
            edit.add("sigmoyd", n.values[0], at=n)

    text = "model M()(x: [B = 2, 4]) -> y: [B, 3] { param w: [3, 4] = normal()  return linear(x, w) }"
    for body, told in ((finds, "there is no op `swish`: did you mean `hardswish`"), (makes, "there is no op `sigmoyd`: did you mean `sigmoid`")):
        PASSES.pop("misspelt", None)
        graph_pass("misspelt()", contract=equal())(body)
        with pytest.raises(ValueError, match=told):
            Model.of(loads(text)).apply("misspelt()")

    def looks(edit):
        for kind in STRUCTURE:
            edit.selected(kind)

    graph_pass("looks()", contract=equal())(looks)
    Model.of(loads(text)).apply("looks()")


def test_what_breaks_a_contract_is_told_in_words(own):
    graph_pass("faulty()", contract=equal())(double)
    with pytest.raises(AssertionError, match=r"the output `y` in training, given weights: differs by .*, 1e-10 is allowed"):
        check_pass("faulty()", (), models=["model M()(x: [B = 2, 4]) -> y: [B, 3] { param w: [3, 4] = normal()  return linear(x, w) }"])


def test_a_pass_that_is_not_known_says_how_ones_own_are_found():
    with pytest.raises(ArchError, match=r"entry point `archdsl\.passes`"):
        Model.of(loads("model M()(x: [B, 4]) -> y: [B, 4] { return x }")).apply("mine_alone()")


def test_knobs_may_be_called_as_arguments_are():
    spec = loads("use std.norm { LayerNorm }\nuse std.linear { Linear }\nuse std.residual { Pre }\n"
                 "model M(weights: int = 8, source: int = 6)(x: [B, source]) -> y: [B, weights] {\n  x = Linear(weights)(x) as a\n"
                 "  x = Pre(LayerNorm(), Linear(weights) as f)(x)\n  return x |> LayerNorm() as n |> Linear(weights) as b\n}\n"
                 "variant centred { transform centre() }\n")
    knobs: dict[str, Any] = {"weights": 5, "source": 7}
    assert Model.of(spec, "centred", knobs, seed=1).weights["a.weight"].shape == (5, 7)
    assert spec.build("centred", **knobs)(torch.zeros(1, 7)).shape == (1, 5)


def test_models_are_made_of_specs_and_shown_in_a_line():
    spec = loads("use std.norm { LayerNorm }\nuse std.linear { Linear }\nuse std.residual { Pre }\n"
                 "model M(d: int = 8)(x: [B, d]) -> y: [B, d] {\n  x = Linear(d)(x) as a\n  x = Pre(LayerNorm(), Linear(d) as f)(x)\n"
                 "  return x |> LayerNorm() as n |> Linear(d) as b\n}\n")
    for wrong in (spec.build(), "m.arch", spec.graph()):
        with pytest.raises(TypeError, match=r"m.archdsl.spec"):
            Model.of(wrong)  # pyright: ignore[reportArgumentType]  (refused)
    done = Model.of(spec, None, {"d": 4}).apply("centre()")
    assert repr(done) == f"Model(M, {len(done.weights)} weights, behind centre())"
    built = spec.build()
    assert all(len(repr(x)) < 200 for x in (done.made, done.graph, spec, spec.cost(), archdsl.capture(built, torch.ones(2, 8))))
