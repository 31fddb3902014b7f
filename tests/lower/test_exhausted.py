"""What is said where memory does not suffice: faults raised where a device would raise them."""
from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.training.fit import fit

SAID = ("CUDA out of memory. Tried to allocate 88.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 11.00 MiB is free. Process 1 has 79.0 GiB "
        "memory in use.")
SPEC = """
use std { RMSNorm, Pre, SwiGLU, TokenEmbedding, Linear }
model Deep(d: int = 8)(tokens: int[B, T] in 0..<5000) -> [B, T, 5000] {
  x = TokenEmbedding(5000, d)(tokens) as embed
  layers: for i in range(3) { x = Pre(RMSNorm(), SwiGLU(3 * d))(x) as mlp }
  return Linear(5000)(x) as head
}
"""


def fails(*args: Any, **how: Any) -> Any:
    raise torch.OutOfMemoryError(SAID)


def deep(**knobs: Any) -> Any:
    return archdsl.loads(SPEC).build(**knobs).train()


def said(run: Any) -> str:
    with pytest.raises(torch.OutOfMemoryError) as found:
        run()
    return str(found.value)


def test_a_call_tells_the_block_and_what_is_kept():
    model, tokens = deep(), torch.zeros(4, 6, dtype=torch.long)
    model.layers[1].mlp.up.register_forward_pre_hook(fails)
    text = said(lambda: model(tokens))
    first, weights, kept, *ways = text.splitlines()
    assert first.startswith("out of memory in `layers.1.mlp.up`")
    assert "forward pass: 88.00 MiB were asked for, 11.00 MiB of 79.10 GiB were free" in first
    assert weights.strip() == "the weights take 348 kB"  # two tables of 5000 × 8, biases, 3 × (8 + 3 × 192 + 56)
    assert "at B = 4, T = 6" in kept and "3 × " in kept and "`layers.*`" in kept
    assert any("checkpoint_layers(model)" in w for w in ways) and any("B = 2 in place of 4" in w for w in ways)
    assert any("T = 3 in place of 6" in w for w in ways) and any("the scores of 5,000 classes" in w for w in ways)


def test_what_is_counted_is_what_costs_count():
    model, tokens = deep(), torch.zeros(4, 6, dtype=torch.long)
    model.head.register_forward_pre_hook(fails)
    found = archdsl.loads(SPEC).cost(at={"B": 4, "T": 6})
    from archdsl.cost.units import short

    assert f"{short(found.saved_bytes, 'B')} are kept" in said(lambda: model(tokens))
    with torch.no_grad():
        assert f"{short(found.peak_bytes, 'B')} alive at once" in said(lambda: model(tokens))


def test_nothing_is_kept_where_nothing_wants_a_gradient():
    model, tokens = deep().requires_grad_(False), torch.zeros(4, 6, dtype=torch.long)
    model.head.register_forward_pre_hook(fails)
    text = said(lambda: model(tokens))
    assert "alive at once" in text and "kept for the backward pass" not in text and "checkpoint_layers" not in text
    model.layers[2].mlp.down.weight.requires_grad_(True)
    assert "kept for the backward pass" in said(lambda: model(tokens))


def test_a_gradient_of_an_input_is_one():
    text = "use std { Linear }\nmodel M()(x: [B, 8]) -> [B, 8] {\n  x = Linear(32)(x) as up\n  return Linear(8)(relu(x)) as down\n}"
    model = archdsl.loads(text).build()
    model.requires_grad_(False).down.register_forward_pre_hook(fails)
    assert "kept for the backward pass" not in said(lambda: model(torch.rand(4, 8)))
    assert "kept for the backward pass" in said(lambda: model(torch.rand(4, 8).requires_grad_()))


def test_counts_are_of_the_type_that_the_weights_have_now():
    from archdsl.cost.units import short

    model, tokens = deep().bfloat16(), torch.zeros(4, 6, dtype=torch.long)
    model.head.register_forward_pre_hook(fails)
    text, found = said(lambda: model(tokens)), archdsl.loads(SPEC).cost(at={"B": 4, "T": 6}, dtype="bf16")
    assert "the weights take 174 kB" in text and f"{short(found.saved_bytes, 'B')} are kept" in text and "autocast" not in text
    with torch.autocast("cpu", torch.bfloat16):
        assert "counted in bf16" in said(lambda: model(tokens))


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "pickle"])
def test_the_error_is_carried_whole(again: Any):
    model = deep()
    model.head.register_forward_pre_hook(fails)
    with pytest.raises(torch.OutOfMemoryError) as found:
        model(torch.zeros(4, 6, dtype=torch.long))
    first: Any = found.value
    other = again(first)
    assert type(other) is type(first) and str(other) == str(first)
    assert (other.told, other.notes, other.ways) == (first.told, first.notes, first.ways)


def test_only_what_would_help_is_offered():
    model, tokens = deep(loss="cross_entropy"), torch.zeros(1, 2, dtype=torch.long)
    archdsl.checkpoint_layers(model)
    model.embed.register_forward_pre_hook(fails)
    text = said(lambda: model(tokens, tokens))
    assert "B = " not in text.split("it would help")[-1] and "checkpoint_layers" not in text and "cross_entropy" not in text
    assert "no_grad" in said(lambda: model.eval()(tokens, tokens)) and "no_grad" not in text


def test_a_training_tells_the_block_of_the_backward_pass():
    model = deep()
    model.layers[1].mlp.gate.weight.register_hook(fails)

    def objective(model: Any, batch: Any, step: int) -> Any:
        return model(batch).square().mean(), {}

    with pytest.raises(ArchError) as found:
        fit(model, objective, [torch.zeros(4, 6, dtype=torch.long)], steps=1)
    (told,) = found.value.diagnostics
    assert told.code == "A0527" and told.message.startswith("out of memory in the backward pass of `layers.1.mlp")
    assert "at B = 4, T = 6" in told.notes[1] and any("checkpoint_layers" in h for h in told.help)
    assert isinstance(found.value.__cause__, torch.OutOfMemoryError)


def test_a_block_that_is_computed_again_is_named():
    model = deep()
    archdsl.checkpoint_layers(model, "layers.*")
    calls: list[int] = []

    def second(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            fails()

    model.layers[2].mlp.down.register_forward_pre_hook(second)
    with pytest.raises(ArchError, match=r"`layers\.2\.mlp\.down`.*, computed again in the backward pass: 88"):
        fit(model, lambda model, batch, step: (model(batch).square().mean(), {}), [torch.zeros(4, 6, dtype=torch.long)], steps=1)


def test_an_optimiser_that_runs_out_is_told():
    class Greedy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            fails()

    model = deep()
    with pytest.raises(ArchError, match="in the optimiser's step"):
        fit(model, lambda model, batch, step: (model(batch).square().mean(), {}), [torch.zeros(1, 2, dtype=torch.long)], steps=1,
            optimizer=lambda groups: Greedy(groups, lr=1e-3))


# ---------------------------------------------------------------- weights and states
def test_a_weight_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch):
    """At which one, how much all take, in which type they take less."""
    made = torch.empty

    def empty(*shape: Any, **how: Any) -> torch.Tensor:
        return fails() if list(shape[0]) == [24, 8] else made(*shape, **how)

    monkeypatch.setattr(torch, "empty", empty)
    first, whole, *ways = said(deep).splitlines()
    assert first == ("out of memory where the weights of `Deep` are made on cpu, at `layers.0.mlp.gate.weight`: 88.00 MiB were asked for, "
                     "11.00 MiB of 79.10 GiB were free")
    assert whole.strip() == "all of them take 348 kB in f32" and "`build(dtype = torch.bfloat16)`, 174 kB in place of 348 kB" in ways[0]
    assert "by layer" in ways[1]


def test_initial_values_that_cannot_be_drawn_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("archdsl.lower.build.fill", fails)
    assert said(deep).startswith("out of memory where the weights of `Deep` are made on cpu, as they get their initial values: 88.00 MiB")


def test_weights_larger_than_a_card_are_told_before_they_are_made(monkeypatch: pytest.MonkeyPatch):
    """Counted in the type that was asked for, by its name too."""
    from archdsl.lower import memory

    spec = archdsl.loads(SPEC)
    monkeypatch.setattr(memory, "is_device", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("Card", (), {"total_memory": 200_000}))
    with pytest.raises(ArchError) as found:
        spec.build(device="cuda:0")
    (told,) = found.value.diagnostics
    assert told.code == "A0515" and "`cuda:0` has 0.0" in told.message and any("torch.bfloat16" in h for h in told.help)
    graph, span = spec.elaborate().graph, spec.decl.name_span
    for dtype in ("bf16", torch.bfloat16, torch.float16):
        memory.fits(graph, "cuda:0", dtype, span)
    memory.fits(graph, "meta", None, span)
    with FakeTensorMode():
        memory.fits(graph, "cuda:0", None, span)
    with FlopCounterMode(display=False), pytest.raises(ArchError, match="A0515"):
        memory.fits(graph, "cuda:0", None, span)


def test_fake_weights_larger_than_memory_lie_nowhere(monkeypatch: pytest.MonkeyPatch):
    from archdsl.lower import memory

    monkeypatch.setattr(memory, "physical", lambda: 200_000)
    spec = archdsl.loads(SPEC)
    graph, span = spec.elaborate().graph, spec.decl.name_span
    with pytest.raises(ArchError, match="this machine has"):
        memory.fits(graph, "cpu", None, span)
    with FakeTensorMode():
        memory.fits(graph, "cpu", None, span)


def test_a_card_without_memory_is_a_card(monkeypatch: pytest.MonkeyPatch):
    from archdsl.lazy import torch as known

    monkeypatch.setattr(known, "empty", fails)
    with pytest.raises(ArchError, match="`cuda` has no memory left") as found:
        archdsl.loads(SPEC).build(device="cuda")
    assert found.value.diagnostics[0].code == "A0515"


def test_a_state_that_cannot_be_made_says_what_takes_less(monkeypatch: pytest.MonkeyPatch):
    model = archdsl.load("llama").build("tiny", form="step")
    monkeypatch.setattr(torch, "zeros", fails)
    text = said(lambda: model.init_state(2, 64))
    assert text.startswith("init_state: a state of ") and "Tried to allocate 88.00 MiB" in text
    assert text.endswith("less `length` or a smaller `batch` takes less")


def test_the_command_tells_weights_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    from archdsl.cli.commands.train import Asked, train

    monkeypatch.setattr("archdsl.lower.build.fill", fails)
    asked = Asked(steps=1, size=2, seed=0, lr=1e-3, weight_decay=0.0, schedule="constant", warmup=0, clip=None, groups=[], every=1, device="cpu")
    with pytest.raises(ArchError) as found:
        train("ladder:tiny", "mqar", [], str(tmp_path / "out"), False, asked, False)
    assert found.value.diagnostics[0].code == "A0527" and "as they get their initial values: 88.00 MiB" in found.value.diagnostics[0].message
