"""What cannot be done is refused with its place and a way out, and the model stays as it was: one case for each kind of mistake."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.passes import Model, graph_pass
from archdsl.passes.contract import equal
from archdsl.passes.registry import PASSES
from tests.elaborate.helpers import USES

NET = USES + """
model Net(d: int = 12, heads: int = 4, groups: int = 3)(x: [B = 1, T = 8, d]) -> y: [B, T, d] {
  layers: for i in range(2) {
    x = Post(LayerNorm(), Attention(heads))(x) as attn
  }
  return x |> rearrange([B, T, d] -> [B, d, T, one], one = 1) |> Conv(d, 1, groups = groups) as mix |> rearrange([B, d, T, one] -> [B, T, d])
}
variant wide { d = 24 }
names own of Net {
  "a.{i}.{q, k, v, out}.weight" <-> layers.{i}.attn.{q, k, v, out}.weight
  "n.{i}.*" <-> layers.{i}.attn.norm.*
  "mix.*" <-> mix.*
}
"""


def raised(act: Callable[[], Any], code: str) -> Diagnostic:
    with pytest.raises(ArchError) as fault:
        act()
    (d,) = fault.value.diagnostics
    assert d.code == code and d.help, d
    return d


def line(d: Diagnostic) -> str:
    return d.span.source.line(d.span.source.position(d.span.start)[0])


def spec() -> archdsl.Spec:
    return archdsl.loads(NET, "net.arch")


def test_a_pass_on_a_graph_that_does_not_fit():
    model = Model.of(spec())
    before, state = model.graph.hash, {k: v.clone() for k, v in model.state_dict().items()}
    d = raised(lambda: model.apply("centre()"), "A0564")
    assert "Post(LayerNorm(), Attention(heads))" in line(d) and "layers.0.attn" in d.message and "pre-norm" in d.help[0]
    assert model.graph.hash == before and model.recipe == () and all(torch.equal(model.weights[k], v) for k, v in state.items())


@pytest.mark.parametrize(("step", "text", "way"), [
    ("fold_batch_norm()", "no batch norm", "leave it out"), ("recalibrate_batch_norm()", "needs an input", "using data"),
    ("fold_layer_scale()", "has no", "leave it out"), ("fold_norm_scales() on op:rms_norm", "chooses nothing", "there are"),
])
def test_a_pass_that_finds_nothing_says_how_to_go_on(step, text, way):
    model = Model.of(spec())
    with pytest.raises(ArchError) as fault:
        model.apply(step)
    (d,) = fault.value.diagnostics
    assert text in d.message and way in d.help[0] and model.recipe == ()


def test_a_contract_that_does_not_hold():
    @graph_pass("drop_norms()", contract=equal())
    def drop_norms(edit):
        """Takes the norms out, and says that nothing changes."""
        for n in edit.selected("layer_norm"):
            edit.replace(n.values[0], n.args[0])
            edit.remove(n)

    try:
        text = NET.replace("variant wide { d = 24 }", "variant wide { d = 24 }\nvariant bare { transform drop_norms() }")
        loaded = archdsl.loads(text, "net.arch")
        model = Model.of(loaded)
        before = model.graph.hash
        d = raised(lambda: model.apply(*loaded.steps("bare"), check=True), "A0566")
        assert "transform drop_norms()" in line(d) and any("in evaluation" in n for n in d.notes) and model.graph.hash == before
    finally:
        PASSES.pop("drop_norms")


def test_weights_of_another_variant():
    model = spec().build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    d = raised(lambda: archdsl.import_weights(model, archdsl.export_weights(spec().build("wide"), source="own"), source="own"), "A0541")
    assert "weights of `wide`" in d.help[0] and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_of_another_variant_under_own_names():
    """The first weight that differs is shown by the line that owns it, inside of the loop."""
    model = Model.of(spec(), "wide")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    d = raised(lambda: model.loaded(spec().build().state_dict()), "A0541")
    assert "Attention(heads)" in line(d) and "`layers.0.attn.q.weight` has the shape [12, 12], the model [24, 24]" in d.message
    assert d.help == ("these are the weights of `Net` as it stands",) and len(d.notes) == 6
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    foreign = archdsl.export_weights(spec().build("wide"), source="own")
    assert "FILE@own" in raised(lambda: model.loaded(foreign), "A0541").help[0]


@pytest.mark.parametrize("knob", ["groups", "heads"])
def test_groups_that_do_not_divide(knob):
    """The message points at where the knob is used, says what is divided, and which numbers do."""
    loaded = spec()
    d = raised(lambda: loaded.build(knobs={knob: 5}), "A0303")
    assert "12 / 5 is not a whole number" in d.message and knob in line(d)
    assert "4" in " ".join((*d.help, *(f.title for f in d.fixes)))
    assert loaded.build().state_dict().keys() == spec().build().state_dict().keys()


def test_a_window_that_does_not_fit():
    """The condition on sizes that vary is told on the first call, and at build time where the size is known."""
    model = archdsl.load("specs/vision/swin.arch").build(d=8, depths=[1, 1, 1, 1], heads=[1, 1, 1, 1], window=4, side=64, classes=3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="64"):
        model(torch.zeros(1, 3, 60, 64))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_foreign_model_that_decides_by_its_data():
    class Branch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.map = torch.nn.Linear(4, 4)

        def forward(self, x):
            y = self.map(x)
            return y if y.sum() > 0 else -y  # this line

    module = Branch()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    d = raised(lambda: archdsl.capture(module, torch.randn(2, 4)), "A0550")
    assert "this line" in line(d) or any("this line" in n or "test_refusals.py" in n for n in d.notes)
    assert module.training and all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
