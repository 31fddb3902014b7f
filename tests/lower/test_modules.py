"""Names, shared classes, copies, edits, printing."""
from __future__ import annotations

import copy
import gc
import io
import linecache
import multiprocessing
import pickle
import traceback
from typing import Any

import pytest
import torch
from lowered import CONVNET, LLAMA, SIGMA, build, image, tokens, typed
from torch import fx, nn

import archdsl
from archdsl.lower import ArchModule, lower
from archdsl.lower.module import blocks


@pytest.fixture
def llama() -> Any:
    return build(LLAMA)


def classes(model: nn.Module) -> dict[str, type]:
    return {name: type(m) for name, m in blocks(model)}


def test_weights_have_the_written_addresses(llama):
    names = list(llama.state_dict())
    assert names[0] == "embed.weight"
    assert "layers.3.attn.q.weight" in names
    assert names[-1] == "head.weight"
    assert isinstance(llama.layers, nn.ModuleList)
    assert len(llama.layers) == 4
    assert isinstance(llama, fx.GraphModule)


def test_equal_layers_share_one_class(llama):
    assert len({type(m) for m in llama.layers}) == 1
    assert len({type(m.attn) for m in llama.layers}) == 1
    assert llama.layers[0].forward.__func__ is llama.layers[3].forward.__func__
    assert type(llama.layers[0]).__name__ == "Layer"
    assert type(llama) is type(build(LLAMA))
    assert llama.layers[0] is not llama.layers[1]


def test_definitions_that_differ_have_classes_of_their_own():
    model = build(CONVNET)
    assert type(model.stem) is not type(model.blocks[0].conv)
    assert type(model) is not type(lower(typed(CONVNET), dtype=torch.float64))


@pytest.mark.parametrize(("body", "first", "second", "y", "z"), [
    ("where(n == c, x, -x)", "16777216", "16777216.0", [-1, 1], [1, 1]),  # a comparison with a float is one of float32
    ("1 / (x * c)", "1e-400", "-1e-400", [torch.inf, torch.inf], [-torch.inf, -torch.inf]),  # 0.0 and -0.0
])
def test_numbers_that_are_equal_and_compute_something_else(body, first, second, y, z):
    n, x = torch.tensor([16777217, 16777216]), torch.ones(2)
    both = build(f"""
        block Scaled(c: float)(n: int[d], x: [d]) -> [d] {{ param w: [d] = ones return w * {body} }}
        model M()(n: int[2], x: [2]) -> (y: [2], z: [2]) {{ return Scaled({first})(n, x) as a, Scaled({second})(n, x) as b }}""")
    assert [made.tolist() for made in both(n, x)] == [y, z]
    text = f"model M(second: bool = false)(n: int[2], x: [2]) -> y: [2] {{ c = if second {{ {second} }} else {{ {first} }} return {body} }}"
    models = [build(text, {"second": which}) for which in (False, True)]
    assert [model(n, x).tolist() for model in models] == [y, z]


def test_a_guard_says_what_its_own_model_says():
    text = "model M()(x: [B, T, 8]) -> y: [B, T, 8] {{ require T % 4 == 0, \"{}\"\n return x * 2 }}"
    models = [archdsl.loads(text.format(message)).build() for message in ("one", "two")]
    for model, message in zip(models, ("one", "two")):
        with pytest.raises(ValueError, match=message):
            model(torch.ones(1, 3, 8))


def test_a_tied_head_reads_the_embedding():
    model = build(LLAMA, {"tie": True})
    assert "head.weight" not in model.state_dict()
    model(tokens()).sum().backward()
    assert model.embed.weight.grad is not None
    assert "self.embed.weight" in model.code


def test_typed_graph_is_linked(llama):
    assert llama.typed is typed(LLAMA)
    assert llama.layers[2].typed.hash == typed(LLAMA).children["layers.2"].hash
    assert copy.deepcopy(llama).typed is llama.typed


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_come_back_to_the_shared_class(way, llama):
    if way == "deepcopy":
        other = copy.deepcopy(llama)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(llama))
    else:
        file = io.BytesIO()
        torch.save(llama, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert classes(other) == classes(llama)
    assert other.typed.hash == llama.typed.hash
    assert torch.equal(other(tokens()), llama(tokens()))
    assert other.layers[0].attn.q.weight is not llama.layers[0].attn.q.weight


def test_one_layer_can_be_pickled_alone(llama):
    layer = pickle.loads(pickle.dumps(llama.layers[1]))
    assert type(layer) is type(llama.layers[1])


def _forward(data: bytes, queue) -> None:
    torch.set_num_threads(1)
    model = pickle.loads(data)
    queue.put((model(tokens()).sum().item(), len(set(map(type, model.layers)))))


@pytest.mark.slow
def test_a_fresh_process_rebuilds_the_model(llama):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_forward, args=(pickle.dumps(llama), queue))
    process.start()
    total, kinds = queue.get(timeout=500)
    process.join()
    assert total == pytest.approx(llama(tokens()).sum().item(), rel=1e-5)
    assert kinds == 1


def test_shallow_copies_share_weights_but_not_tables(llama):
    other = copy.copy(llama)
    other.add_module("extra", nn.Identity())
    assert not hasattr(llama, "extra")
    assert other.embed is llama.embed


def test_state_dict_round_trip():
    a, b = build(CONVNET, seed=1).eval(), build(CONVNET, seed=2).eval()
    assert not torch.equal(a(image()), b(image()))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(image()), b(image()))


# ---------------------------------------------------------------- edits
def negate_head(model: ArchModule) -> None:
    """Returns -logits instead."""
    (output,) = model.graph.find_nodes(op="output")
    with model.graph.inserting_before(output):
        output.args = (model.graph.call_function(torch.neg, (output.args[0],)),)


def test_graph_is_a_private_copy(llama):
    before = llama(tokens())
    negate_head(llama)
    assert torch.equal(llama(tokens()), before)
    assert llama.graph is llama.graph
    assert build(LLAMA).graph is not llama.graph


@pytest.mark.parametrize("how", ["recompile", "assign"])
def test_editing_one_layer_leaves_the_others(how, llama):
    x = torch.randn(2, 5, 16)
    plain = llama.layers[0].mlp(x)
    shared = type(llama.layers[0].mlp)
    layer = llama.layers[1].mlp
    layer.load_state_dict(llama.layers[0].mlp.state_dict())
    negate_head(layer)
    if how == "recompile":
        layer.recompile()
    else:
        layer.graph = layer.graph
    assert torch.equal(layer(x), -plain)
    assert torch.equal(llama.layers[0].mlp(x), plain)
    assert type(layer) is not shared
    assert type(llama.layers[0].mlp) is shared is type(llama.layers[2].mlp)
    assert isinstance(layer, shared)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_edited_layers_survive_copies(copier, llama):
    negate_head(llama)
    llama.recompile()
    other = copier(llama)
    assert torch.equal(other(tokens()), llama(tokens()))
    assert type(other).detached
    assert type(other) is not type(llama)
    assert type(other.layers[0]) is type(llama.layers[0])
    negate_head(other)
    other.recompile()
    assert torch.equal(other(tokens()), -llama(tokens()))


def test_recompiling_the_root_does_not_touch_blocks_inside(llama):
    before = classes(llama)
    llama.recompile()
    after = classes(llama)
    assert {k: v for k, v in before.items() if k} == {k: v for k, v in after.items() if k}


def test_graph_runs_in_the_interpreter(llama):
    assert torch.equal(fx.Interpreter(llama).run(tokens()), llama(tokens()))


# ---------------------------------------------------------------- reading
def test_code_reads_like_the_spec(llama, golden):
    assert llama.print_readable(print_output=False) == golden
    assert "80 x" not in str(llama)
    assert "4 x Layer" in str(llama)
    assert llama.code in str(llama)


def test_tracebacks_show_the_line_of_the_spec(llama):
    with pytest.raises(ValueError, match="`tokens` holds whole numbers") as info:
        llama(tokens().float())
    text = "".join(traceback.format_exception(info.value))
    assert "test.arch:13: x = embed(tokens)" in text
    assert "std/embed.arch:4: return embedding(tokens, weight)" in text


def test_nodes_know_their_place(llama):
    node = next(n for n in llama.graph.nodes if n.op == "call_module" and n.target == "head")
    assert node.meta["arch"].text.startswith("Linear(31)(x)")
    assert [str(t) for t in (node.meta["type"],)] == ["[B, T, 31]"]


def test_classes_and_their_source_go_when_the_last_instance_goes():
    def file_of(model: Any) -> str:
        return model.forward.__func__.__code__.co_filename

    model = build(LLAMA, {"depth": 1, "d": 8})
    file = file_of(model)
    assert file in linecache.cache
    del model
    gc.collect()
    assert file not in linecache.cache


def test_private_modules_own_no_weights():
    model = build(CONVNET)
    assert isinstance(model._dropout_0, nn.Dropout)
    assert not [k for k in model.state_dict() if "._" in k or k.startswith("_")]
    assert "_drop_path_0" not in dict(build(CONVNET, {"rate": 0}).blocks[0].named_modules())
    assert "_commit_0" in dict(build(SIGMA).named_modules())


def test_reserved_addresses_are_what_a_module_has_itself():
    """An address that hid one of these would break the module; `init_state` is kept for the step form."""
    import archdsl
    from archdsl.elaborate.builder import RESERVED
    from archdsl.lower.module import ArchModule

    made = archdsl.load("specs/language/llama.arch").build("tiny", device="meta")
    names = {n for n in {*dir(ArchModule), *dir(type(made)), *made.__dict__} if not n.startswith("_")}
    foreign = {n for n in names if getattr(getattr(torch.nn.Module, n, None), "__module__", "torch").split(".")[0] not in ("torch", "typing")}
    names -= foreign  # transformers puts a method of its own on nn.Module
    assert names <= RESERVED, names - RESERVED
    assert {n for n in RESERVED if not n.startswith("_")} - names <= {"init_state", "check_state", "state_shapes"}  # the last two are written models'


@pytest.mark.parametrize("name", ["__init__", "__class__", "__inner", "__", "_parameters", "_modules", "_buffers", "_forward_hooks", "_typed",
                                  "check_state"])
def test_addresses_that_a_module_uses_inside(name: str):
    for body in (f"param {name}: [d] = normal()\n  return x * {name}", f"return Linear(d)(x) as {name}",
                 f"{name}: for i in range(2) {{ x = Linear(d)(x) as map }}\n  return x"):
        text = f"use std {{ Linear }}\nmodel Net(d: int = 4)(x: [B, d]) -> [B, d] {{\n  {body}\n}}"
        with pytest.raises(archdsl.ArchError, match=rf"A0210.*`{name}`") as told:
            archdsl.loads(text, "net.arch")
        (d,) = told.value.diagnostics
        assert ("module's own" in d.label) == (not name.startswith("__")), "not each name with `__` in front is one of the module"
        other = d.help[0].split("as ")[1].rstrip("`")
        archdsl.loads(text.replace(name, other), "net.arch")
