"""A model of blocks that were lowered before is the model that is lowered anew."""
from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest
import torch
from small_specs import CASES, id_of, small_knobs

import archdsl
from archdsl.lower import moulds, recipes, shared_tables
from archdsl.lower.containers import RARE
from archdsl.lower.module import ArchModule, blocks
from archdsl.lower.shared_tables import SHARED

TEXT = """use std.channel { SwiGLU }
use std.embed { Rope }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }
use std.recurrent { Retention }

model Net(d: int = 8, depth: int = 4)(x: [B = 2, T = 4, d]) -> y: [B, T, d] {
  layers: for i in range(depth) {
    choose mixer {
      attention(heads: int = 2 in {1, 2, 4}) => Attention(heads, mask = causal, positions = Rope())
      retention(heads: int = 2 in {1, 2}) => Retention(heads)
      wide(ratio: int = 2 in {1, 2, 3}) => SwiGLU(ratio * d)
    } = attention
    x = Pre(RMSNorm(), mixer)(x) as mix
  }
  return x
}
"""


def told(model: torch.nn.Module) -> Any:
    """Everything about a model that does not depend on when it was made."""
    weights = [(name, tuple(p.shape), p.dtype, p.requires_grad, p.is_meta) for name, p in model.named_parameters(remove_duplicate=False)]
    buffers = [(name, tuple(b.shape), b.dtype, b.is_meta) for name, b in model.named_buffers(remove_duplicate=False)]
    kinds = [(name, type(m).__name__, sorted({*m.__dict__, *RARE}), m.training, m.extra_repr()) for name, m in model.named_modules()]
    codes = [(name, m.code, m.typed.hash) for name, m in blocks(model)]
    return weights, buffers, kinds, codes, list(model.state_dict()), str(model)


def drawn(count: int, depth: int = 4) -> tuple[Any, list[Any]]:
    spec = archdsl.loads(TEXT.replace("depth: int = 4", f"depth: int = {depth}"))
    space = spec.space()
    return spec, [space.sample(seed) for seed in range(count)]


def test_candidates_built_one_after_the_other_are_those_built_alone():
    spec, candidates = drawn(12)
    for candidate in candidates:
        assert told(spec.build(device="meta", **candidate)) == told(archdsl.loads(TEXT).build(device="meta", **candidate))


def forget(model: Any) -> None:
    """Nothing is left of what the lowering of models made for later ones."""
    recipes._KEPT.clear()
    SHARED.clear()
    archdsl.lower.module._CLASSES.clear()
    for graph in model.typed.definitions():
        graph.derived.clear()


def test_tables_are_written_as_in_a_model_without_others_before():
    spec, candidates = drawn(8, depth=9)
    for candidate in candidates:
        spec.build(device="meta", **candidate)
    known = [(model, nodes_of(model), model.code) for model in (spec.build(device="meta", **c) for c in candidates)]
    assert any("torch.sin" in code and "log1p" in code for _, _, code in known)
    for candidate, (model, nodes, code) in zip(candidates, known):
        forget(model)
        anew = spec.build(device="meta", **candidate)
        assert type(anew) is not type(model) and nodes_of(anew) == nodes and anew.code == code


def test_a_few_kept_tables_are_enough(monkeypatch):
    spec, candidates = drawn(4, depth=9)
    expected = [nodes_of(spec.build(device="meta", **c)) for c in candidates]
    SHARED.clear()
    monkeypatch.setattr(shared_tables, "MOST", 5)
    for _ in range(2):
        assert [nodes_of(spec.build(device="meta", **c)) for c in candidates] == expected
    assert len(SHARED._nodes) + len(SHARED._programs) <= 5 and len(SHARED.written) <= 5


def test_what_was_lowered_before_changes_no_class():
    spec, candidates = drawn(8)
    for candidate in candidates:
        spec.build(device="meta", **candidate)
    for candidate in candidates:
        known = spec.build(device="meta", **candidate)
        for graph in known.typed.definitions():
            graph.derived.clear()
        anew = spec.build(device="meta", **candidate)
        assert told(known) == told(anew)
        assert {n: type(m).definition.key for n, m in blocks(known)} == {n: type(m).definition.key for n, m in blocks(anew)}


def nodes_of(model: Any) -> Any:
    """The fx graphs of a model's classes, with the types of values."""
    return [[(n.op, n.name, str(n.target), str(n.args), str(n.kwargs), str(n.meta.get("type")), n.meta.get("hint"))
             for n in type(m)._graph.nodes] for _, m in blocks(model)]


FIRST = {case[1]: case for case in reversed(CASES)}


@pytest.mark.parametrize("case", [FIRST[n] for n in ("ConvNeXt", "Mixtral", "RWKV", "GLA", "T5", "LMUFormer", "NextViT", "Gemma2")], ids=id_of)
def test_a_second_build_is_the_first(case):
    path, name, variant = case
    spec, knobs = archdsl.load(path).models[name], small_knobs(case)
    first, second = (spec.build(variant, device="meta", knobs=knobs) for _ in range(2))
    assert told(first) == told(second)
    assert {n: type(m) for n, m in blocks(first)} == {n: type(m) for n, m in blocks(second)}
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared
    known = nodes_of(first)
    forget(first)
    anew = spec.build(variant, device="meta", knobs=knobs)
    assert type(anew) is not type(first)
    assert nodes_of(anew) == known, "bodies write other nodes than what was kept of them"


def test_weights_and_containers_are_of_each_instance():
    spec, (candidate, *_) = drawn(1)
    a, b = (spec.build(device="meta", **candidate) for _ in range(2))
    mine, others = dict(a.named_modules()), dict(b.named_modules())
    for name, module in mine.items():
        for key, value in module.__dict__.items():
            if isinstance(value, (dict, list, set)):
                assert value is not others[name].__dict__[key], (name, key)
    storages = [p.untyped_storage()._cdata for m in (a, b) for p in m.parameters()]
    assert len(set(storages)) == len(storages)
    a.layers[0].register_forward_hook(lambda *_: None)
    assert not b.layers[0]._forward_hooks


def test_an_instance_from_a_mould_takes_weights_runs_and_copies():
    spec, (candidate, *_) = drawn(1)
    spec.build(device="meta", **candidate)
    real = spec.build(seed=3, **candidate).eval()
    empty = spec.build(device="meta", **candidate).to_empty(device="cpu").eval()
    empty.load_state_dict(real.state_dict())
    x = torch.randn(2, 4, 8)
    expected = real(x)
    assert torch.equal(empty(x), expected)
    for copied in (copy.deepcopy(empty), pickle.loads(pickle.dumps(empty))):
        assert type(copied) is type(real)
        assert torch.equal(copied(x), expected)
    meta = spec.build(device="meta", **candidate)
    assert meta(x.to("meta")).shape == expected.shape
    for copied in (copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))):
        assert told(copied) == told(meta)


def test_another_dtype_has_weights_of_its_own():
    spec, (candidate, *_) = drawn(1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32):
        assert {p.dtype for p in spec.build(device="meta", dtype=dtype, **candidate).parameters()} == {dtype}


def test_what_a_spec_has_lowered_goes_with_it():
    spec, candidates = drawn(3)
    models = [spec.build(device="meta", **c) for c in candidates]
    graph, cls = weakref.ref(models[0].layers[0].typed), weakref.ref(type(models[0].layers[0]))
    assert graph() is not None and cls() is not None
    del models, spec, candidates
    gc.collect()
    assert graph() is None and cls() is None


def test_code_is_made_when_it_is_asked_for():
    spec = archdsl.loads(TEXT.replace("d: int = 8", "d: int = 20"))
    model, x = spec.build(), torch.randn(2, 4, 20)
    assert "forward" not in vars(type(model)) and "forward" not in vars(type(model.layers[0]))
    copied = pickle.loads(pickle.dumps(model))
    assert "forward" not in vars(type(model))
    found = model(x)
    assert "forward" in vars(type(model)) and torch.equal(found, copied(x))
    assert type(model).forward.__qualname__ == "Net.forward" and model.code.startswith("def forward(self, x):")
    with pytest.raises(AttributeError, match="for each definition"):
        _ = ArchModule.forward


def test_containers_of_torch_fx_are_of_each_instance():
    spec, (candidate, *_) = drawn(1)
    a, b = (spec.build(device="meta", **candidate) for _ in range(2))
    a.meta["seen"] = True
    a.register_forward_hook(lambda *_: None)
    a._register_replace_node_hook(print)
    assert b.meta == {} and b._replace_hooks == [] and a._replace_hooks == [print]
    assert copy.deepcopy(a).meta == {"seen": True}


def test_blocks_with_one_outline_and_other_numbers_are_of_two_classes():
    text = "model Net(d: int = 3)(x: [B, d]) -> y: [B, d] { return Scaled()(x) as s }\nblock Scaled()(x: [..., d]) -> [..., d] { return x * 2 }\n"
    twice, thrice, again = (archdsl.loads(t).build() for t in (text, text.replace("* 2", "* 3"), text))
    assert type(twice) is not type(thrice) and type(twice) is type(again)
    assert type(twice).definition.outline == type(thrice).definition.outline
    x = torch.randn(4, 3)
    assert torch.equal(twice(x), 2 * x) and torch.equal(thrice(x), 3 * x) and torch.equal(again(x), 2 * x)
    del twice  # the first of its outline: the others are found without it
    gc.collect()
    assert type(archdsl.loads(text).build()) is type(again)


def test_hooks_of_an_instance_are_its_own():
    spec, (candidate, *_) = drawn(1)
    spec.build(**candidate)
    poured = [spec.build(device="meta", **candidate).to_empty(device="cpu") for _ in range(2)]
    seen: list[str] = []
    a, b = (model.layers[1].mix for model in poured)
    assert not any(name in a.__dict__ for name in RARE)
    assert all(name in torch.nn.Module().__dict__ and name in vars(ArchModule) for name in RARE)
    a.register_state_dict_post_hook(lambda *_: seen.append("saved"))
    a.register_state_dict_pre_hook(lambda *_: seen.append("saving"))
    a.register_load_state_dict_pre_hook(lambda *_: seen.append("loading"))
    a.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    a.register_forward_hook(lambda *_, **__: seen.append("called"), with_kwargs=True, always_call=True)
    a.register_forward_pre_hook(lambda *_, **__: seen.append("calling"), with_kwargs=True)
    a.register_buffer("extra", torch.ones(1), persistent=False)
    x = torch.randn(2, 4, 8)
    for model, expected in zip(poured, (["saving", "saved", "loading", "loaded", "calling", "called"], [])):
        seen.clear()
        state = model.state_dict()
        model.load_state_dict(state)
        model(x)
        assert seen == expected and list(state) == list(spec.build(**candidate).state_dict())
    assert not hasattr(b, "extra")
    for copied in (copy.deepcopy(a), copy.copy(a)):
        assert copied._forward_hooks_with_kwargs == a._forward_hooks_with_kwargs and copied._non_persistent_buffers_set == {"extra"}


def test_two_threads_that_ask_first():
    """One has seen that there is no function yet, and goes on when the other has made it and let go of its text."""
    mould, begun, made, found = moulds.Mould(torch.nn.Linear(2, 3, device="meta")), threading.Event(), threading.Event(), []

    class Values(list):
        def __len__(self) -> int:
            if threading.current_thread() is late:
                begun.set()
                made.wait(500)
            return super().__len__()

    mould.values = Values(mould.values)
    late = threading.Thread(target=lambda: found.append(mould()))
    late.start()
    begun.wait(500)
    found.append(mould())
    made.set()
    late.join()
    assert [str(m) for m in found] == ["Linear(in_features=2, out_features=3, bias=True)"] * 2 and mould.written == []


def test_a_block_of_more_modules_than_one_function_makes():
    inside = "\n".join(f"  x = Two()(x) as s{i}" for i in range(moulds.INLINE))
    text = ("use std.linear { Linear }\nmodel Net(d: int = 4)(x: [B, d]) -> y: [B, d] {\n  layers: for i in range(3) { x = Many()(x) as many }\n"
            f"  return x\n}}\nblock Many()(x: [..., d]) -> [..., d] {{\n{inside}\n  return x\n}}\n"
            "block Two()(x: [..., d]) -> [..., d] {\n  x = Linear(d)(x) as a\n  x = Linear(d)(x) as b\n  return x\n}\n")
    model = archdsl.loads(text).build(device="meta")
    assert told(model.layers[0]) == told(model.layers[1]) == told(model.layers[2])
    weights = [p.untyped_storage()._cdata for p in model.parameters()]
    assert len(set(weights)) == len(weights) == 3 * moulds.INLINE * 4
    assert all(type(p) is torch.nn.Parameter and p.is_leaf and p.requires_grad for p in model.parameters())
    assert len({id(m) for m in model.modules()}) == 2 + 3 * (2 + 3 * moulds.INLINE)
