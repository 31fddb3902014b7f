"""Emitted values of forms with state: what nobody asks for, or a form does not have, is no part of the state; the others are the parallel form's."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from tests.streaming.forms import close, shaken

F64 = torch.float64
B, T, D = 2, 9, 4
CACHE = 2 * B * T * D * 8  # keys and values
TEXT = """use std { Attention, Linear }
block Conv(k: int)(x: [B, T, c]) -> [B, T, c] {
  param weight: [c, c, k] = normal(std = 0.5)
  return x |> rearrange([B, T, c] -> [B, c, T]) |> conv(weight, pad = 1) |> rearrange([B, c, T] -> [B, T, c])
}
block Side()(x: [B, T, c]) -> [B, T, c] {
  emit whole = mean(Attention(1, mask = causal)(x) as lost, axis = 1)
  emit each = x + (Attention(1, mask = causal)(x) as mixer)
  return Linear(c)(x) as map
}
block Layer()(x: [B, T, c]) -> [B, T, c] {
  return (Side()(x) as side) + cumsum(x, axis = 1)
}
model Net(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  layers: for i in range(3) { x = Layer()(x) as part }
  BEHIND
}
"""


def streaming(behind: str, form: str, emit: Any = ()) -> tuple[Any, Any, torch.Tensor, Any, dict[str, Any]]:
    """A spec, its model in a form, an input, and the results and emitted values of the parallel form."""
    spec = archdsl.loads(TEXT.replace("BEHIND", behind), "net.arch")
    whole = shaken(spec.build(dtype=F64, emit="**")).eval()
    model = spec.build(form=form, dtype=F64, emit=emit).eval()
    model.load_state_dict(whole.state_dict())
    x = torch.randn(B, T, D, dtype=F64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return spec, model, x, *whole(x)


def size(model: Any) -> int:
    return sum(s.numel() * s.element_size() for s in model.init_state(B).values())


@torch.no_grad()
@pytest.mark.parametrize("form", ["extend", "step"])
def test_what_nobody_asks_for_is_not_kept(form: str):
    spec, model, x, expected, _ = streaming("return x", form)
    assert [*model.init_state(B)] == [f"layers.{i}.part.total" for i in range(3)]
    assert size(model) == 3 * B * D * 8 == spec.cost(at={"B": B, "T": T}, form="step", dtype="f64").state_bytes
    y, _ = model(x[:, :1], model.init_state(B))
    close(y, expected[:, :1], 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("emit", ["**", "layers.*.part.side.each", ["layers.1.part.side.each"], "layers.2.**"])
def test_what_is_asked_for(emit: Any):
    """And no state of what looks at all positions."""
    _, model, x, expected, offered = streaming("return x", "step", iter(emit) if isinstance(emit, list) else emit)
    found, emitted, state = [], {}, model.init_state(B)
    for t in range(T):
        (y, state), emitted = model(x[:, t:t + 1], state)
        found.append((y, *emitted.values()))
    count = len(emitted)
    assert count == (3 if isinstance(emit, str) and "2" not in emit else 1) and all(name.endswith(".side.each") for name in emitted)
    assert size(model) == 3 * B * D * 8 + count * CACHE + 8 + B * 8 and not any("lost" in address for address in state)
    for got, want in zip(zip(*found), (expected, *(offered[name] for name in emitted)), strict=True):
        close(torch.cat(got, 1), want, 1e-10)


def test_what_comes_at_another_time_is_not_kept():
    spec, model, *_ = streaming("return Conv(3)(x) as ahead", "step")
    assert size(model) == 3 * B * D * 8 + 2 * B * D * 8 + 8 + 2 * B * 8 == spec.cost(at={"B": B, "T": T}, form="step", dtype="f64").state_bytes
    with pytest.raises(archdsl.ArchError, match="no emitted value"):
        streaming("return Conv(3)(x) as ahead", "step", "**")
    _, model, *_ = streaming("""ahead = Conv(3)(x) as conv
  emit late = cumsum(ahead, axis = 1)
  emit early = cumsum(relu(x), axis = 1)
  return ahead + x""", "step", "**")
    assert size(model) == 3 * B * D * 8 + B * D * 8 * (2 + 1) + B * D * 8 + 8 + 2 * B * 8
    assert model.definition.emits == ("late",)


def test_a_layer_is_one_definition():
    """Layers of which the same is asked are made once; of others there is one more."""
    _, every, *_ = streaming("return x", "step", "layers.*.part.side.each")
    assert len({type(every.get_submodule(f"layers.{i}.part")) for i in range(3)}) == 1
    _, one, *_ = streaming("return x", "step", "layers.1.part.side.each")
    a, b, c = (type(one.get_submodule(f"layers.{i}.part")) for i in range(3))
    assert a is c is not b


@torch.no_grad()
def test_values_that_are_collected_stay():
    """Of a block applied twice with the same weights, one application's value is read: its state stays, and is that of both."""
    text = TEXT.replace("BEHIND", "side = Side() as twice\n  a = side(x) as first\n  b = side(a) as second\n  return b + collect(each)[4]")
    spec = archdsl.loads(text, "net.arch")
    whole = shaken(spec.build(dtype=F64)).eval()
    model = spec.build(form="step", dtype=F64).eval()
    model.load_state_dict(whole.state_dict())
    x, state, found = torch.randn(B, T, D, dtype=F64, generator=torch.Generator().manual_seed(1)), model.init_state(B), []
    for t in range(T):
        y, state = model(x[:, t:t + 1], state)
        found.append(y)
    close(torch.cat(found, 1), whole(x), 1e-10)
