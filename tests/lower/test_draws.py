"""Draws: from torch's generator, or fed by address."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from lowered import build

from archdsl.diagnostics.model import ArchError
from archdsl.lower.emit_python import python_source

NOISY = """
use std.linear { Linear }

block Noisy(scale: float)(x: [B, T, d]) -> [B, T, d] {
  draw noise: [B, T, d] = normal(std = scale)
  draw spread: [d] = uniform(low = 1, high = 2)
  return Linear(d)(x + noise) * spread
}

model Net(depth: int = 3)(x: [B, T, 4]) -> y: [B, T, 4] {
  draw order = permutation(T)
  x = take(x, order, axis = 1)
  layers: for i in range(depth) { x = x + dropout(Noisy(0.5)(x) as mix, 0.5) }
  return x
}
"""
ADDRESSES = ["order", *(f"layers.{i}.mix.{n}" for i in range(3) for n in ("noise", "spread"))]


def draws(batch: int = 2, length: int = 5) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    found: dict[str, torch.Tensor] = {"order": torch.randperm(length, generator=g)}
    for i in range(3):
        found[f"layers.{i}.mix.noise"] = torch.randn(batch, length, 4, generator=g)
        found[f"layers.{i}.mix.spread"] = torch.rand(4, generator=g) + 1
    return found


def by_hand(model: Any, x: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
    weights = dict(model.named_parameters())
    x = x[:, given["order"]]
    for i in range(3):
        p = f"layers.{i}.mix."
        w, b = weights[f"{p}linear.weight"], weights[f"{p}linear.bias"]
        x = x + torch.nn.functional.linear(x + given[f"{p}noise"], w, b) * given[f"{p}spread"]
    return x


@pytest.mark.parametrize("flat", [False, True])
def test_fed_draws_are_used(flat):
    model = build(NOISY, feed="**", flat=flat).eval()
    x, given = torch.randn(2, 5, 4), draws()
    y = model(x, draws=given)
    torch.testing.assert_close(y, by_hand(model, x, given))
    assert torch.equal(model(x, draws=given), y)
    more = draws(1, 7)
    x = torch.randn(1, 7, 4)
    torch.testing.assert_close(model(x, draws=more), by_hand(model, x, more))


def test_equal_layers_stay_one_class():
    model = build(NOISY, feed="layers.*.mix.noise")
    assert len({type(layer) for layer in model.layers}) == 1
    assert list(model.state_dict()) == list(build(NOISY).state_dict())


def test_gradients_reach_a_fed_draw():
    model = build(NOISY, feed="layers.1.mix.noise").eval()
    noise = torch.randn(2, 5, 4, requires_grad=True)
    model(torch.randn(2, 5, 4), draws={"layers.1.mix.noise": noise}).sum().backward()
    assert noise.grad is not None and noise.grad.abs().sum() > 0


def test_all_others_come_from_the_generator():
    """Feeding what the generator would have given changes nothing, dropout of the training phase included."""
    plain, some = build(NOISY), build(NOISY, feed=["order"])
    x = torch.randn(2, 5, 4)
    torch.manual_seed(4)
    y = plain(x)
    torch.manual_seed(4)
    order = torch.randperm(5)
    assert torch.equal(some(x, draws={"order": order}), y)
    assert not torch.equal(some(x, draws={"order": order}), y)


def test_a_model_without_feed_takes_no_draws():
    with pytest.raises(TypeError, match="draws"):
        build(NOISY)(torch.randn(2, 5, 4), draws=draws())


@pytest.mark.parametrize("how", ["compile", "export", "deepcopy", "model.py"])
def test_fed_models_go_on(how, tmp_path):
    import copy

    model = build(NOISY, feed="**").eval()
    x, given = torch.randn(2, 5, 4), draws()
    expected = model(x, draws=given)
    if how == "compile":
        run = torch.compile(model, fullgraph=True, backend="aot_eager")
    elif how == "export":
        batch, length = torch.export.Dim.AUTO, torch.export.Dim.AUTO
        axes = {a: {0: batch, 1: length} if a.endswith("noise") else {0: length} if a == "order" else {} for a in given}
        program = torch.export.export(model, (x,), {"draws": given}, dynamic_shapes={"x": {0: batch, 1: length}, "draws": axes})
        torch.export.save(program, tmp_path / "model.pt2")
        run = torch.export.load(tmp_path / "model.pt2").module()
        more, xs = draws(3, 6), torch.randn(3, 6, 4)
        torch.testing.assert_close(run(xs, draws=more), model(xs, draws=more))
    elif how == "deepcopy":
        run = copy.deepcopy(model)
    else:
        namespace: dict[str, Any] = {}
        exec(python_source(model), namespace)
        run = namespace["Net"]()
        run.load_state_dict(model.state_dict())
        run.eval()
    torch.testing.assert_close(run(x, draws=given), expected)


@pytest.mark.parametrize(("change", "message"), [
    ({"order": None}, "`order` is missing"),
    ({"other": torch.zeros(1)}, "`other` is none of them"),
    ({"order": torch.zeros(5)}, r"the draw `order` is a tensor of torch.int64: this is torch.float32"),
    ({"layers.0.mix.spread": [1.0] * 4}, "the draw `layers.0.mix.spread` is a tensor of torch.float32: this is list"),
    ({"layers.2.mix.noise": torch.zeros(2, 4, 4)}, r'`draws\["layers.2.mix.noise"\]` is \[B, T, 4\], B = 2, T = 5: this is \[2, 4, 4\]'),
    ({"layers.0.mix.spread": torch.zeros(1, 4)}, r'`draws\["layers.0.mix.spread"\]` is \[4\]: this is \[1, 4\]'),
])
def test_what_does_not_fit_is_refused(change, message):
    model = build(NOISY, feed="**")
    given = {k: v for k, v in (draws() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 5, 4), draws=given)


def test_an_address_that_is_none():
    with pytest.raises(ArchError, match="A0517") as caught:
        build(NOISY, feed="layers.*.noise")
    assert "layers.0.mix.noise" in str(caught.value)
    with pytest.raises(ArchError, match="draws nothing that has a name"):
        build("model M()(x: [B, 4]) -> y: [B, 4] { return dropout(x, 0.5) }", feed="**")


def test_blocks_that_own_nothing_number_their_draws():
    text = """
    block Jitter()(x: [B, 4]) -> [B, 4] { draw by: [B, 4] = normal()  return x + by }
    model M()(x: [B, 4]) -> y: [B, 4] { return x |> Jitter() |> Jitter() }
    """
    model = build(text, feed="**")
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    torch.testing.assert_close(model(torch.zeros(2, 4), draws={"by": a, "by_2": b}), a + b)


def test_shared_blocks_draw_at_each_call():
    text = """
    use std.linear { Linear }
    block Noisy()(x: [B, 4]) -> [B, 4] { draw noise: [B, 4] = normal()  return Linear(4)(x) + noise }
    model M()(x: [B, 4]) -> y: [B, 4] { share f = Noisy()  return f(f(x)) }
    """
    model = build(text, feed="**")
    a, b, x = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4)
    expected = model.f.linear(model.f.linear(x) + a) + b
    torch.testing.assert_close(model(x, draws={"f.noise": a, "f.noise_2": b}), expected)
    one = build(text, feed="f.noise_2")
    assert list(one.state_dict()) == list(model.state_dict())
    torch.manual_seed(0)
    first = torch.randn(2, 4)
    torch.manual_seed(0)
    w, c = one.state_dict().values()
    torch.testing.assert_close(one(x, draws={"f.noise_2": b}), torch.nn.functional.linear(torch.nn.functional.linear(x, w, c) + first, w, c) + b)
