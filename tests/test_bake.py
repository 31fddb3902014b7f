"""`bake`: the same function without weight expressions, updates and draws; the given model is left alone."""
from __future__ import annotations

import pytest
import torch

import archdsl
from tests.elaborate.helpers import USES

F64 = torch.float64
SIGMA = """block SigmaLinear(out: int)(x: [..., i]) -> [..., out] {
  param weight: [out, i] = trunc_normal(std = 0.5)
  param gamma: [] = constant(value = 0.7)
  buffer u: [i] = normal()
  v = stop(l2_norm(einsum([out, i], [i] -> [out])(weight, u)))
  w = stop(l2_norm(einsum([out], [out, i] -> [i])(v, weight)))
  update u = w
  return linear(x, weight * (gamma / dot(v, einsum([out, i], [i] -> [out])(weight, w))))
}
model M()(x: [B, 8]) -> y: [B, 8] {
  layers: for i in range(2) { x = x + (x |> SigmaLinear(8) as f |> dropout(0.3)) }
  return x
}"""
EXPANDED = """model M()(x: [B, 8]) -> y: [B, 5] {
  param base: [5, 8] = normal()
  param slope: [5, 8] = normal()
  h = linear(x, base + 0.25 * slope)
  return h + linear(x, base)
}"""
LOW_RANK = """model M()(x: [B, 8]) -> y: [B, 6] {
  param a: [2, 8] = normal()
  param b: [6, 2] = normal()
  frozen param weight: [6, 8] = normal()
  return phase { train => linear(x, weight + matmul(b, a)) * 2  eval => linear(x, weight + matmul(b, a)) }
}"""


def baked(text):
    spec = archdsl.loads(USES + text)
    model = spec.build(seed=2, dtype=F64)
    return model, archdsl.bake(model)


@pytest.mark.parametrize(("text", "names"), [
    (SIGMA, [f"layers.{i}.f.weight" for i in range(2)]),
    (EXPANDED, ["base", "slope"]),
])
def test_the_same_outputs_with_plain_parameters(text, names):
    model, plain = baked(text)
    x = torch.randn(3, 8, dtype=F64)
    torch.testing.assert_close(plain(x), model.eval()(x), rtol=1e-12, atol=1e-12)
    assert sorted(k for k, _ in plain.named_parameters()) == names and not list(plain.buffers())


def test_phases_are_those_of_evaluation():
    model, plain = baked(LOW_RANK)
    x = torch.randn(3, 8, dtype=F64)
    torch.testing.assert_close(plain.train()(x), model.eval()(x), rtol=1e-12, atol=1e-12)


def test_bias_tables_of_windows_are_taken_once():
    spec = archdsl.load("specs/vision/swin.arch")
    model = spec.build(d=16, depths=[2, 1, 1, 1], heads=[1, 2, 2, 4], window=4, side=32, classes=3, dtype=F64, seed=1).eval()
    plain = archdsl.bake(model)
    x = torch.randn(2, 3, 32, 32, dtype=F64)
    torch.testing.assert_close(plain(x), model(x), rtol=1e-12, atol=1e-12)
    assert not any(k.endswith("table") for k in plain.state_dict())


def test_a_second_time_changes_nothing_and_the_model_is_left_alone():
    model, plain = baked(SIGMA)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    again = archdsl.bake(plain)
    assert again.typed.hash == plain.typed.hash
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), plain.state_dict().values()))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and model.training


def test_a_model_without_expressions_is_the_same_model():
    model = archdsl.load("specs/language/llama.arch").build("tiny")
    plain = archdsl.bake(model)
    assert list(plain.state_dict()) == list(model.state_dict())
    x = torch.randint(0, 512, (1, 5))
    assert torch.equal(plain(x), model.eval()(x))


@pytest.mark.parametrize("use", [archdsl.bake, archdsl.compile_layers, archdsl.checkpoint_layers])
def test_models_of_others_are_refused(use):
    with pytest.raises(TypeError, match="archdsl built"):
        use(torch.nn.Linear(2, 2))
