"""Inputs without positions: what is made of them is computed once, when a text begins, and kept in the state."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source
from tests.streaming.forms import close, shaken

TEXT = """use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm }
use std.recurrent { Retention }

block Layer()(x: [B, T, d], memory: [B, S, e], valid: bool[B, S], shift: [B, d]) -> [B, T, d] {
  x = x + Retention(2)(x) as mix
  x = x + Attention(2)(x, memory = memory, also = keys(valid)) as cross
  scale = phase { train => dropout(shift, 0.1)  eval => shift * 2 }
  gate = tanh(scale)
  return x + gate[:, none]
}

block Reads()(memory: [B, S, e]) -> ([B, S, e], [B, e]) {
  m = Linear(e)(memory) as fc
  emit read = m
  return m, mean(m, axis = 1)
}

model Net(d: int = 8, depth: int = 2)(
  memory: [B = 2, S = 5, 6],
  x: [B, T = 7, d],
  label: int[B] in 0..<3,
  valid: bool[B, S],
) -> (y: [B, T, d], pooled: [B, 6]) stream T {
  m, pooled = Reads()(memory) as reads
  start = TokenEmbedding(3, d)(label) as labels
  layers: for i in range(depth) { x = Layer()(x, m, valid, start) as layer }
  return LayerNorm()(x) as norm, pooled
}
"""
F64 = torch.float64
S, T = 5, 7


def given(batch: int = 2, sources: int = S, length: int = T) -> tuple[torch.Tensor, ...]:
    valid = torch.ones(batch, sources, dtype=torch.bool)
    valid[0, :2] = False
    return (torch.randn(batch, sources, 6, dtype=F64), torch.randn(batch, length, 8, dtype=F64), torch.randint(0, 3, (batch,)), valid)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    spec = archdsl.loads(TEXT)
    whole = shaken(spec.build(dtype=F64)).eval()
    found = {form: spec.build(form=form, dtype=F64).eval() for form in ("extend", "step")}
    for m in found.values():
        m.load_state_dict(whole.state_dict())
    return {"spec": spec, "whole": whole, **found}


@pytest.mark.parametrize(("batch", "sources"), [(2, S), (1, 1)])
def test_once_then_steps(models: dict[str, Any], batch: int, sources: int):
    memory, x, label, valid = given(batch, sources)
    if sources == 1:
        valid[:] = True
    with torch.no_grad():
        y, pooled = models["whole"](memory, x, label, valid)
        for first in (1, 4):
            state = models["extend"].init_state(batch, S=sources)
            (begun, mean), state = models["extend"](memory, x[:, :first], label, valid, state)
            close((begun, mean), (y[:, :first], pooled), 1e-12)
            before = {k: v.clone() for k, v in state.items()}
            for t in range(first, T):
                (now, mean), state = models["step"](x[:, t:t + 1], state)
                close((now, mean), (y[:, t:t + 1], pooled), 1e-12)
            assert set(state) == set(before) and all(torch.equal(state[k], before[k]) for k in KEPT)


KEPT = {"valid", "pooled"} | {f"layers.{i}.layer.{name}" for i in range(2) for name in ("cross.keys", "cross.values", "gate")}


def test_the_state_is_what_positions_read(models: dict[str, Any]):
    """No memory, no encoder in the step: the signature, the bytes, the products."""
    spec, step = models["spec"], models["step"]
    streamed = step.__dict__["_streamed"]
    assert streamed.takes == ("x",) and {s.address for s in streamed.slots if s.kept} == KEPT
    cost = spec.cost(form="step", at={"B": 2, "T": T, "S": S}, dtype="f64")
    state = step.init_state(2, S=S)
    assert cost.state_bytes == sum(v.nbytes for v in state.values())
    assert cost.state_bytes == 2 * (S + 8 * 6 + 2 * (2 * S * 8 * 8 + 8 * 8)) + sum(v.nbytes for k, v in state.items() if k not in KEPT)
    # a layer at one position: four maps of Retention and its products, two maps of attention and its products with S keys
    per_layer = cost.macs / 2 / 2
    retention = archdsl.loads(TEXT.replace("x = x + Attention(2)(x, memory = memory, also = keys(valid)) as cross", "x = x")).cost(
        form="step", at={"B": 2, "T": T, "S": S}).macs / 2 / 2
    assert per_layer - retention == 2 * 8 * 8 + 2 * S * 8
    with pytest.raises(TypeError):
        step(*given(), state)


def test_a_later_call_sets_it_anew(models: dict[str, Any]):
    memory, x, label, valid = given()
    other = torch.randn_like(memory)
    with torch.no_grad():
        state = models["extend"].init_state(2, S=S)
        _, state = models["extend"](memory, x[:, :3], label, valid, state)
        _, again = models["extend"](other, x[:, 3:4], label, valid, dict(state))
        assert not torch.equal(again["pooled"], state["pooled"])
        swapped = models["step"].reorder_state(state, [1, 0])
        (y, _), _ = models["step"](x[:, 3:4].flip(0), swapped)
        (expected, _), _ = models["step"](x[:, 3:4], state)
        close(y.flip(0), expected, 1e-12)
        fresh = models["step"].reset_state(state, [1])
        assert all(torch.equal(fresh[k], state[k]) for k in KEPT)
        (y, _), _ = models["step"](x[:, 3:4], fresh)
        close(y[1:], models["whole"](memory, x[:, 3:4], label, valid)[0][1:], 1e-12)
        with pytest.raises(ValueError, match=r"cross\.keys"):
            models["step"](x[:, :1], {**state, "layers.0.layer.cross.keys": state["layers.0.layer.cross.keys"][:, :, :2]})


def test_written_out_and_exported(models: dict[str, Any]):
    memory, x, label, valid = given()
    with torch.no_grad():
        _, state = models["extend"](memory, x[:, :3], label, valid, models["extend"].init_state(2, S=S))
        expected, after = models["step"](x[:, 3:4], state)
        program = torch.export.export(models["step"], (x[:, 3:4], state)).module()
        for form in ("extend", "step"):
            name: dict[str, Any] = {}
            exec(compile(python_source(models[form]), "model.py", "exec", dont_inherit=True), name)
            other = name["Net"]().double().eval()
            other.load_state_dict(models[form].state_dict())
            if form == "extend":
                begin = {k: v.to(state[k].dtype) for k, v in other.init_state(2, S=S).items()}
                _, theirs = other(memory, x[:, :3], label, valid, begin)
                assert all(torch.allclose(theirs[k], state[k], atol=1e-12) for k in state)
            else:
                close(other(x[:, 3:4], state)[0], expected, 1e-12)
        y, kept = program(x[:, 3:4], state)
        close(y, expected, 1e-12)
        assert all(torch.allclose(kept[k], after[k], atol=1e-12) for k in after)


def test_emitted_values_of_a_source_are_those_of_the_first_call():
    spec = archdsl.loads(TEXT)
    spec.build(form="extend", emit="reads.read")
    with pytest.raises(archdsl.ArchError, match="no emitted value"):
        spec.build(form="step", emit="reads.read")
