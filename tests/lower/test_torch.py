"""What torch does with a lowered model: compile, export, checkpointing, autocast, sharding."""
from __future__ import annotations

import copy
import pickle
from functools import cache
from threading import Barrier
from typing import Any

import pytest
import torch
from lowered import CONVNET, LLAMA, ROUTED, SIGMA, build, image, tokens

import archdsl
from archdsl.lower import checkpoint_layers, compile_layers
from archdsl.lower.module import blocks

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo looks at every input's .grad


class Counting:
    """A backend that counts the graphs it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, gm, inputs):
        self.graphs += 1
        return gm.forward


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("text", "inputs"), [(LLAMA, tokens()), (CONVNET, image()), (SIGMA, torch.randn(2, 6))], ids=["llama", "convnet", "sigma"])
@pytest.mark.parametrize("train", [True, False])
def test_compiles_without_graph_breaks(text, inputs, train):
    model = build(text, {"rate": 0, "drop": 0} if text is CONVNET else {"depth": 2} if text is LLAMA else {}).train(train)
    other = copy.deepcopy(model)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    a, b = model(inputs), compiled(inputs)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(torch.autograd.grad(a.sum(), list(model.parameters())), torch.autograd.grad(b.sum(), list(other.parameters())))
    torch.testing.assert_close(dict(model.named_buffers()), dict(other.named_buffers()))


def test_compiled_models_take_other_sizes():
    backend = Counting()
    model = build(CONVNET).eval()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    for height in (8, 12, 16):
        torch.testing.assert_close(compiled(image(2, height, 10)), model(image(2, height, 10)))
    assert backend.graphs == 1


def test_layers_of_one_class_share_compiled_code():
    backend = Counting()
    model, plain = build(LLAMA), build(LLAMA)
    assert compile_layers(model, "layers.*", backend=backend) == [f"layers.{i}" for i in range(4)]
    torch.testing.assert_close(model(tokens()), plain(tokens()))
    assert backend.graphs == 1
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(copy.deepcopy(model)(tokens()), plain(tokens()))
    assert torch.equal(pickle.loads(pickle.dumps(model))(tokens()), plain(tokens()))


def test_code_is_made_before_torch_compiles_it():
    """Torch's compiler would have to trace how it is made, which torch 2.11 refuses."""
    model = archdsl.loads("""
    use std { Linear, Pre, RMSNorm }
    model Fresh(d: int = 24)(x: [B, d]) -> [B, d] {
      layers: for i in range(2) { x = Pre(RMSNorm(), Linear(d))(x) as only_here }
      return x
    }
    """).build()
    inner = [type(b) for name, b in blocks(model) if name.startswith("layers.1")]
    assert inner and not any("forward" in cls.__dict__ for cls in inner)
    compile_layers(model, "layers.*", backend="eager")
    assert all("forward" in cls.__dict__ for cls in inner)


def test_repeated_blocks_are_compiled_by_default():
    assert compile_layers(build(LLAMA), backend="eager") == [f"layers.{i}" for i in range(4)]
    with pytest.raises(ValueError, match="no block"):
        compile_layers(build(LLAMA), "layer.*")


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_dynamic_batch_and_length(strict):
    model = build(LLAMA, {"depth": 2}).eval()
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=512)
    program = torch.export.export(model, (tokens(),), dynamic_shapes=({0: batch, 1: length},), strict=strict)
    for shape in ((1, 3), (5, 20)):
        torch.testing.assert_close(program.module()(tokens(*shape)), model(tokens(*shape)))
    assert sorted(program.state_dict) == sorted(model.state_dict())


OLD = torch.__version__.startswith("2.9.")
STRICTLY = pytest.param(True, marks=pytest.mark.skipif(OLD, reason="torch 2.9 cannot run the guards of strict exports that it writes"))


@pytest.mark.parametrize("strict", [False, STRICTLY])
def test_exports_with_a_guard_on_sizes(strict):
    model = build(CONVNET).eval()
    half = torch.export.Dim("half", min=2, max=64)
    program = torch.export.export(model, (image(),), dynamic_shapes=({0: torch.export.Dim.AUTO, 2: 2 * half},), strict=strict)
    torch.testing.assert_close(program.module()(image(3, 12, 6)), model(image(3, 12, 6)))
    with pytest.raises((RuntimeError, AssertionError)):
        program.module()(image(3, 13, 6))


@pytest.mark.parametrize(("text", "inputs"), [(LLAMA, tokens()), (CONVNET, image()), (SIGMA, torch.randn(2, 6))], ids=["llama", "convnet", "sigma"])
def test_checkpointing_changes_no_gradient_and_updates_once(text, inputs):
    plain, model = build(text), build(text)
    assert checkpoint_layers(model, "layers.*" if text is not CONVNET else "blocks.*")
    for m in (plain, model):
        torch.manual_seed(0)
        m(inputs).square().sum().backward()
    for a, b in zip(plain.parameters(), model.parameters()):
        torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(dict(plain.named_buffers()), dict(model.named_buffers()))


def test_checkpointing_computes_again_and_survives_copies():
    model = build(ROUTED)
    checkpoint_layers(model, "layers.*")
    assert len({type(m) for m in model.layers}) == 1
    for m in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        calls = []
        for layer in m.layers:
            layer.gate.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        m(torch.randn(2, 4)).sum().backward()
        assert len(calls) == 6
        calls.clear()
        with torch.no_grad():
            m(torch.randn(2, 4))
        assert len(calls) == 3
    assert type(copy.deepcopy(model).layers[0]) is type(model.layers[0])


def test_checkpointed_layers_compile():
    plain, model = build(LLAMA), build(LLAMA)
    checkpoint_layers(model, "layers.*")
    compile_layers(model, "layers.*", backend="aot_eager")
    for m in (plain, model):
        m(tokens()).square().sum().backward()
    for a, b in zip(plain.parameters(), model.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_edited_layer_can_be_checkpointed():
    model = build(ROUTED)
    layer = model.layers[0]
    (output,) = layer.graph.find_nodes(op="output")
    with layer.graph.inserting_before(output):
        output.args = (layer.graph.call_function(torch.neg, (output.args[0],)),)
    layer.recompile()
    x = torch.randn(2, 4)
    y = layer(x)
    checkpoint_layers(model, "layers.0")
    assert torch.equal(layer(x), y)
    assert type(layer).rematerialised
    assert type(layer).detached


def test_autocast_keeps_float32_statistics():
    seen: dict[str, Any] = {}
    model = build(LLAMA)
    for name, m in blocks(model):
        def note(module: Any, inputs: Any, output: Any, name: str = name) -> None:
            seen[name] = output.dtype

        m.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(tokens())
        tables = [v for v in model.graph.nodes if v.target is torch.cos]
    assert {y.dtype, seen["layers.0.attn.q"]} == {torch.bfloat16}
    assert len(tables) == 1
    assert torch.allclose(y.float(), model(tokens()), atol=0.2)


def test_f32_islands_under_autocast():
    text = """
use std.linear { Linear }
model M()(x: [B, 4]) -> y: f32[B] {
  h = Linear(4)(x)
  f32 { s = h * h }
  return sum(s, axis = 1)
}
"""
    with torch.autocast("cpu", torch.bfloat16):
        assert build(text)(torch.randn(2, 4)).dtype == torch.float32


def test_dynamo_sees_training_and_evaluation():
    model = build(CONVNET)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    model.eval()
    torch.testing.assert_close(compiled(image()), model(image()))
    model.train()
    before = model.blocks[0].norm.running_mean.clone()
    compiled(image())
    assert not torch.equal(model.blocks[0].norm.running_mean, before)


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    yield
    torch.distributed.destroy_process_group()


def test_shards_by_layer(one_process):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain, model = build(LLAMA), build(LLAMA)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert len({type(layer) for layer in model.layers}) == 1
    model(tokens()).sum().backward()
    plain(tokens()).sum().backward()
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    for (name, a), b in zip(plain.named_parameters(), model.parameters()):
        torch.testing.assert_close(b.grad.to_local(), a.grad, msg=name)


def test_inductors_probes_run_side_by_side(monkeypatch):
    """Each waits for the other, which trial compilations one after another never would; what the processor lacks is not tried."""
    from torch._inductor import config, cpu_vec_isa

    from archdsl.lower import compile
    from archdsl.lower.compile import probe_vector_instructions

    monkeypatch.setattr(compile, "processors", lambda: 2)
    meeting, seen = Barrier(2, timeout=500), []

    class Instructions(str):
        def __bool__(self) -> bool:
            meeting.wait()
            seen.append(str(self))
            return True

    monkeypatch.setattr(cpu_vec_isa, "supported_vec_isa_list", [Instructions("one"), Instructions("one two"), Instructions("three")])
    monkeypatch.setattr(cpu_vec_isa, "x86_isa_checker", lambda: ["one", "two"])
    with config.patch({"cpp.vec_isa_ok": None}):
        for thread in probe_vector_instructions():
            thread.join()
    assert sorted(seen) == ["one", "one two"]
    with config.patch({"cpp.vec_isa_ok": True}):
        assert probe_vector_instructions() == [], "the answer is given"


@pytest.mark.parametrize(("runs", "seen"), [(True, ["two three"]), (False, ["two three", "two"])])
def test_with_few_processors_the_widest_instructions_answer_for_the_others(monkeypatch, runs, seen):
    """Inductor, which asks for each, compiles no trial program for a narrower set where the widest runs, and all where it does not."""
    from torch._inductor import config, cpu_vec_isa

    from archdsl.lower import compile

    tried = []

    class Instructions(cpu_vec_isa.VecISA):
        def __init__(self, name):
            self.name = name

        def __str__(self):
            return self.name

        __hash__ = cpu_vec_isa.VecISA.__hash__

        def check_build(self, code):
            tried.append(self.name)
            return runs or self.name == "two"

    valid = cache(cpu_vec_isa.valid_vec_isa_list.__wrapped__)
    monkeypatch.setattr(cpu_vec_isa, "supported_vec_isa_list", [Instructions("two three"), Instructions("two"), Instructions("four")])
    monkeypatch.setattr(cpu_vec_isa, "x86_isa_checker", lambda: ["two", "three"])
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", valid)
    monkeypatch.setattr(compile, "processors", lambda: 1)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    with config.patch({"cpp.vec_isa_ok": None}):
        assert compile.probe_vector_instructions() == []
        assert config.cpp.vec_isa_ok is None, "what is compiled later is compiled with the user's settings"
        assert str(cpu_vec_isa.pick_vec_isa()) == ("two three" if runs else "two")
    assert tried == seen
