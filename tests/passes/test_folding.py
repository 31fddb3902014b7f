"""Batch norms, scales of norms and gains of branches, folded into the maps beside them; expressions of weights, baked."""
from __future__ import annotations

import pytest
import torch

from archdsl.diagnostics.model import ArchError
from tests.passes.helpers import closed, distance, inputs, ops, params, start

CONVS = """model M(c: int = 6)(x: [B, c, H = 9, W = 7]) -> y: [B, c, _, _] {
  x = x |> Conv(c, 3, pad = 1, bias = false) as a |> BatchNorm() as a_norm |> relu
  x = x |> Conv(c, 3, pad = 1, groups = 3) as b |> rearrange([B, c, H, W] -> [B, c, W, H]) |> BatchNorm(affine = false) as b_norm |> relu
  z = x |> BatchNorm() as c_norm
  return (z |> Conv(c, 1, bias = false) as c1) + (z |> Conv(c, 1, groups = 2) as c2)
}"""


def test_batch_norms_before_and_behind_maps():
    model = start(CONVS)
    new = model.apply("fold_batch_norm()")
    assert distance(model, new, B=2, H=5, W=4) < 1e-12 and ops(new, "batch_norm") == 0
    assert sorted(new.weights) == ["a.bias", "a.weight", "b.bias", "b.weight", "c1.bias", "c1.weight", "c2.bias", "c2.weight"]
    closed(new)
    assert all(p.kind == "param" for _, p in new.graph.parameters())


@pytest.mark.parametrize(("spec", "knobs"), [
    ("specs/vision/efficientformer.arch", {}), ("specs/vision/nextvit.arch", {}), ("specs/vision/cvt.arch", {}),
])
def test_shipped_models_lose_all_their_batch_norms(spec, knobs):
    import archdsl
    from archdsl.claims.count import count_ops
    from archdsl.passes import Step
    from archdsl.passes.manager import rewrite

    made = archdsl.load(spec).elaborate()
    graph = rewrite(made, Step.parse("fold_batch_norm()")).graph
    assert count_ops(made.graph, "batch_norm") > 10 and count_ops(graph, "batch_norm") == 0
    assert not any(a.endswith(("running_mean", "running_var")) for a, _ in graph.parameters())


def test_efficientformer_folded_is_the_same():
    model = start("specs/vision/efficientformer.arch", "l1")
    new = model.apply("fold_batch_norm()", "fold_layer_scale()")
    assert distance(model, new, B=1) < 1e-11 and ops(new, "batch_norm") == 0
    closed(new)


def test_padding_behind_a_shift_stays():
    text = "model M()(x: [B, 4, H = 6, W = 6]) -> y: [B, 4, H, W] { return x |> relu |> BatchNorm() as norm |> Conv(4, 3, pad = 1) as f }"
    with pytest.raises(ArchError) as fault:
        start(text).apply("fold_batch_norm()")
    (d,) = fault.value.diagnostics
    assert d.code == "A0564" and "`norm`" in d.message and d.span.source.text[d.span.start:d.span.end] == "BatchNorm()"
    assert "relu" in d.message or "pads with zeros" in d.message


def test_a_norm_that_cannot_be_folded_is_named():
    text = """model M()(x: [B, 4, H = 6, W = 6]) -> y: [B, 4, H, W] {
      x = x |> Conv(4, 1) as a |> BatchNorm() as a_norm
      return x + (relu(x) |> BatchNorm() as b_norm)
    }"""
    model = start(text)
    new = model.apply("fold_batch_norm()")
    assert distance(model, new) < 1e-12 and ops(new, "batch_norm") == 1
    assert new.recipe[-1].notes == ("a batch norm stays (net.arch:10, at `b_norm`): `relu` stands between",)


NORMS = """model M(d: int = 6)(x: [B, T, d]) -> y: [B, d] {
  x = x |> LayerNorm() as a |> Linear(d, bias = false) as f
  x = x |> RMSNorm() as b |> Linear(d) as g |> relu
  x = x |> LayerNorm(bias = false) as c
  z = x[:, 0] |> Linear(d) as h
  x = x |> LayerNorm() as e
  return z + mean(x, axis = 1)
}"""


@pytest.mark.parametrize("form", ["folded", "train"])
def test_scales_of_norms(form):
    model = start(NORMS)
    new = model.apply(f'fold_norm_scales(form = "{form}")')
    assert distance(model, new, B=2, T=3) < 1e-12
    assert len(new.recipe[-1].notes) == 2 and "layer_norm" in new.recipe[-1].notes[0] and "an output" not in new.recipe[-1].notes[1]
    left = {a for a in new.weights if a.split(".")[0] in "abce"}
    assert left == ({"c.weight", "e.weight", "e.bias"} if form == "folded" else {"a.weight", "a.bias", "b.weight", "c.weight", "e.weight", "e.bias"})
    closed(new)


def test_baking_the_training_form_gives_the_folded_one():
    model = start(NORMS)
    folded, late = model.apply("fold_norm_scales()"), model.apply('fold_norm_scales(form = "train")', "bake()")
    assert folded.graph.hash == late.graph.hash
    assert all(torch.equal(folded.weights[k], late.weights[k]) for k in folded.weights)


def test_what_stays_for_one_reason_is_told_in_one_note():
    model = start("specs/vision/efficientformer.arch", widths=[4, 4, 4, 4], depths=[1, 1, 1, 2], size=[32, 32], classes=3)
    mixers, mlps = model.apply("fold_layer_scale()").recipe[-1].notes
    assert mixers.startswith("4 gains stay (") and "; and 1 more): `sub` stands between" in mixers
    assert mlps.endswith("`batch_norm` stands between, which `fold_batch_norm()` may take out first")
    both = model.apply("fold_batch_norm()", "fold_layer_scale()")
    assert both.recipe[-1].notes == (mixers,) and distance(model, both) < 1e-12


def test_a_selector_limits_what_is_folded():
    model = start("specs/vision/vit.arch", side=16, patch=8, depth=3, d=8, heads=2, classes=3)
    new = model.apply("fold_norm_scales() on layers[1:].mlp")
    assert distance(model, new) < 1e-12
    assert params(model) - params(new) == 2 * 2 * 8 and "layers.0.mlp.norm.weight" in new.weights and "layers.2.mlp.norm.weight" not in new.weights


EXPRESSIONS = """block Expanded(out: int)(x: [..., i]) -> [..., out] {
  param base: [out, i] = normal()
  param slope: [out, i] = normal()
  buffer scale: [] = 2
  update scale = scale + 1
  return linear(x, base + scale * slope)
}
model M()(x: [B, 6]) -> y: [B, 6] {
  layers: for i in range(2) { x = x |> Expanded(6) as f |> dropout(0.5) }
  share t = Linear(6)
  x = t(x)
  return linear(x, t.weight * t.weight) + phase { train => 2 * x  eval => 3 * x }
}"""


def test_bake():
    model = start(EXPRESSIONS)
    new = model.apply("bake()")
    assert distance(model, new) < 1e-12 and distance(new, new, train=True) == 0
    assert sorted(new.weights) == ["layers.0.f.base", "layers.1.f.base", "linear_weight", "t.bias", "t.weight"]
    assert ops(new, "dropout") == 0 and not any(n.op in ("phase", "update") for g in new.graph.definitions() for n in g.nodes)
    assert new.graph.children["layers.0"] is new.graph.children["layers.1"]
    closed(new)
    again = new.apply("bake()")
    assert again.graph is new.graph


def test_weights_are_made_when_they_are_asked_for():
    model = start("specs/vision/vit.arch", side=16, patch=8, depth=1, d=8, heads=2, classes=3).apply("centre(compress = true)")
    assert set(model.weights) == {a for a, _ in model.graph.parameters()}
    assert all(tuple(model.weights[a].shape) == p.type.shape for a, p in model.graph.parameters())
    assert inputs(model.made)
