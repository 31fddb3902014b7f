"""The shipped language models: logits of all positions at once equal those from a state, in parts and one by one."""
from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import archdsl
from tests.streaming.forms import agree, close, inputs_of

SMALL: dict[str, tuple[str | None, dict[str, Any]]] = {
    "llama": ("tiny", {}),
    "gpt2": (None, {"d": 32, "depth": 2, "heads": 4, "vocab": 61}),
    "gemma2": ("tiny", {}),
    "olmo2": ("tiny", {}),
    "peri_ln": (None, {"d": 32, "depth": 2, "heads": 2, "vocab": 61, "hidden": 48}),
    "ladder": (None, {"d": 32, "depth": 3, "heads": 2, "kv_heads": 2, "vocab": 61, "hidden": 48}),
}


@pytest.mark.parametrize("name", SMALL)
def test_forms_agree(name: str):
    variant, knobs = SMALL[name]
    agree(archdsl.load(name), variant, T=23, **knobs)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_in_float32(name: str):
    variant, knobs = SMALL[name]
    agree(archdsl.load(name), variant, dtype=torch.float32, within=1e-4, **knobs)


@pytest.fixture(scope="module")
def llama() -> tuple[archdsl.Spec, Any, Any]:
    spec = archdsl.load("llama")
    return spec, spec.build("tiny", form="extend", dtype=torch.float64).eval(), spec.build("tiny", form="step", dtype=torch.float64).eval()


def test_rows_begin_where_they_like(llama: Any):
    """A row that begins later gives what it gives alone, for positions that are learned as well as turned."""
    for name in ("llama", "gpt2"):
        variant, knobs = SMALL[name]
        spec = archdsl.load(name)
        model = spec.build(variant, form="extend", dtype=torch.float64, **knobs).eval()
        x = inputs_of(spec, spec.elaborate(variant, knobs), 9, 2, torch.float64)[0]
        with torch.no_grad():
            alone, _ = model(x[1:, 4:], model.init_state(1, 16))
            _, state = model(x[:, :4], model.init_state(2, 16))
            together, after = model(x[:, 4:], model.reset_state(state, [1]))
            first, _ = model(x[:1], model.init_state(1, 16))
        close(together[1:], alone, 1e-10)
        close(together[:1], first[:, 4:], 1e-10)
        assert after["start"].tolist() == [0, 4] and int(after["position"]) == 9


@pytest.mark.parametrize("mask", ["causal & own_block(4)", "causal_by(1) & own_block(3, previous = 1)"])
def test_blocks_are_counted_from_where_a_row_begins(mask: str):
    spec = archdsl.loads(f"""use std {{ Attention }}
model M(d: int = 4)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {{ return Attention(1, mask = {mask})(x) as mix }}
""")
    whole, step = (spec.build(dtype=torch.float64, form=form, seed=1).eval() for form in ("parallel", "step"))
    x, state, ys = torch.randn(2, 12, 4, dtype=torch.float64), step.init_state(2, 12), []
    with torch.no_grad():
        for t in range(12):
            y, state = step(x[:, t:t + 1], state if t != 3 else step.reset_state(state, [1]))
            ys.append(y)
        close(torch.cat(ys, 1)[:1], whole(x[:1]), 1e-10)
        close(torch.cat(ys, 1)[1:, 3:], whole(x[1:, 3:]), 1e-10)


def test_reordered_for_beams(llama: Any):
    spec, extend, step = llama
    x = inputs_of(spec, spec.elaborate("tiny"), 6, 3, torch.float64)[0]
    with torch.no_grad():
        _, state = extend(x[:, :5], extend.init_state(3, 8))
        for rows in ([2, 0, 0, 1], [1]):
            got, _ = step(x[rows, 5:], step.reorder_state(state, rows))
            whole, _ = extend(x[rows], extend.init_state(len(rows), 8))
            close(got, whole[:, 5:], 1e-10)
        parts = [step.reorder_state(state, rows) for rows in ([0, 1], [2])]
        close(step(x[:, 5:], step.stack_states(parts))[0], step(x[:, 5:], state)[0], 1e-10)


def test_state_is_plain_tensors(llama: Any, tmp_path: Any):
    """It is saved, copied and moved as any dict of tensors, and a call changes nothing of the one it was given."""
    spec, extend, step = llama
    x = inputs_of(spec, spec.elaborate("tiny"), 6, 2, torch.float64)[0]
    with torch.no_grad():
        _, state = extend(x[:, :5], extend.init_state(2, 8))
        torch.save(state, tmp_path / "state.pt")
        before = {k: v.clone() for k, v in state.items()}
        y, _ = step(x[:, 5:], state)
        assert all(torch.equal(v, before[k]) for k, v in state.items())
        for other in (torch.load(tmp_path / "state.pt"), copy.deepcopy(state)):
            close(step(x[:, 5:], other)[0], y, 0)
        for model in (pickle.loads(pickle.dumps(step)), copy.deepcopy(step)):
            close(model(x[:, 5:], state)[0], y, 0)
            assert list(model.init_state(2, 8)) == list(state)


def test_compiles_and_exports(llama: Any):
    spec, extend, step = llama
    x = inputs_of(spec, spec.elaborate("tiny"), 6, 2, torch.float64)[0]
    with torch.no_grad():
        _, state = extend(x[:, :5], extend.init_state(2, 8))
        y, after = step(x[:, 5:], state)
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")  # tests/lower holds what Inductor makes of models
        got, new = compiled(x[:, 5:], state)
        close(got, y, 1e-10)
        program = torch.export.export(step, (x[:, 5:], state))
        again, state_again = program.module()(x[:, 5:], state)
        close(again, y, 1e-10)
        for k in after:
            close(new[k], after[k], 1e-10)
            close(state_again[k], after[k], 1e-10)


def test_bad_states(llama: Any):
    _, _, step = llama
    x = torch.zeros(2, 1, dtype=torch.int64)
    state = step.init_state(2, 8)
    key = "layers.0.attn.keys"
    for bad, told in (
        ({**state, key: state[key][:, :1]}, r"the state `layers.0.attn.keys` is torch.float64 \[B, 2, Length, 32\]"),
        ({**state, key: state[key].float()}, "this is torch.float32"),
        ({k: v for k, v in state.items() if k != key}, "lacks `layers.0.attn.keys`"),
        ({**state, "more": x}, "also has `more`"),
        (list(state.values()), "a dict of tensors by address"),
        (step.init_state(3, 8), "B = 2"),
        ({**state, key: state[key][:, :, :4]}, "Length"),
        ({**state, key: None}, "this is NoneType"),
    ):
        with pytest.raises(ValueError, match=told):
            step(x, bad)
    with pytest.raises(ValueError, match=r"tokens.*1"):
        step(torch.zeros(2, 2, dtype=torch.int64), state)
    for call, told in (
        (lambda: step.init_state(0), "batch"), (lambda: step.init_state(2, 0), "length"), (lambda: step.init_state(2, True), "length"),
        (lambda: step.reorder_state(state, [0, 5]), "rows 0 to 1"), (lambda: step.reset_state(state, [-1]), "rows 0 to 1"),
        (lambda: step.reorder_state({}, [0]), "not the state"), (lambda: step.reset_state(state, torch.tensor([True, False])), "numbers of rows"),
        (lambda: step.reset_state(state, [0.5]), "numbers of rows"), (lambda: step.reorder_state(state, [True, False]), "numbers of rows"),
        (lambda: step.reorder_state(state, [[0]]), "numbers of rows"), (lambda: step.reorder_state(state, 1), "numbers of rows: this is 1"),
        (lambda: step.stack_states([state, step.init_state(1, 5)]), r"differ in `layers.0.attn.keys`: .* \[2, 2, 8, 32\], .* \[1, 2, 5, 32\]"),
        (lambda: step.stack_states([state, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}]), "differ in .*float32"),
        (lambda: step.stack_states([state, {**state, "position": state["position"] + 1}]), "differ in `position`: 0, 1"),
        (lambda: step.stack_states([]), "at least one state"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    with pytest.raises(ValueError, match="parallel"):
        archdsl.load("llama").build("tiny", device="meta").init_state()


def test_full_state(llama: Any):
    """More positions than there is room for."""
    _, extend, step = llama
    state = step.init_state(1, 3)
    x = torch.zeros(1, 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(3):
            _, state = step(x, state)
        with pytest.raises(ValueError, match="room for 3 positions"):
            step(x, state)
        with pytest.raises(ValueError, match="room for 3 positions"):
            extend(torch.zeros(1, 4, dtype=torch.int64), extend.init_state(1, 3))

    spec = archdsl.load("gpt2")
    model = spec.build(None, form="extend", d=32, depth=1, heads=4, vocab=61, context=8).eval()
    with torch.no_grad(), pytest.raises(ValueError, match="8 positions at most"):
        model(torch.zeros(1, 9, dtype=torch.int64), model.init_state(1, 8))
    with pytest.raises(ValueError, match="8 positions at most"):
        model.init_state(1, 9)
