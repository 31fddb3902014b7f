"""The bar of capture: timm and transformers, without opaque nodes, for any batch and length, with the same outputs and gradients."""
from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import archdsl
from archdsl.spec import check_file
from tests.capture.models import LARGER, MODELS, OTHERS, Foreign, exact, image_model, outputs
from tests.parity.proof import relative


@pytest.fixture(scope="module", params=MODELS)
def captured(request):
    foreign = MODELS[request.param]()
    return foreign, archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)


def test_nothing_stays_opaque(captured):
    assert captured[1].opaque == ()


def test_it_is_lifted(captured, request):
    """Attention, norms and activations are single ops, and masks are masks."""
    name = request.node.callspec.params["captured"]
    ops = [n for g in captured[1].graph.definitions() for n in g.nodes]
    assert not {n.op for n in ops} & {"softmax", "rsqrt", "var", "erf", "tanh", "sigmoid", "cumsum"} - ({"tanh"} if name == "bert" else set())
    masks = {n.attrs["mask"].kind for n in ops if n.op == "attention"}
    assert masks == {"convnext": set(), "gpt2": {"causal"}, "opt": {"causal"}, "llama": {"causal"}}.get(name, {"full"})
    turned = [n for n in ops if n.op == "rotary"]
    assert len(turned) == (2 if name == "llama" else 0)  # queries and keys of the one definition of a layer
    assert name != "llama" or not any(n.op == "slice" for g in captured[1].graph.definitions() if g.name == "LlamaAttention" for n in g.nodes)


def test_the_text_is_a_sound_spec_of_the_same_graph(captured, tmp_path):
    _, found = captured
    file = tmp_path / "graph.arch"
    file.write_text(found.text)
    assert check_file(str(file)) == []
    assert archdsl.load(file).graph().hash == found.graph.hash
    assert archdsl.load(file).cost().params == sum(
        t.numel() for a, t in found.weights.items() if dict(found.graph.parameters())[a].kind in ("param", "frozen"))


def test_outputs_are_equal_for_every_size(captured):
    foreign, found = captured
    ours = found.build().eval()
    for x in foreign.others:
        with torch.no_grad():
            for mine, theirs in zip(outputs(ours, x), outputs(foreign.module, x), strict=True):
                assert mine.shape == theirs.shape and theirs.abs().max() > 1e-3
                assert relative(mine, theirs) <= 1e-6


def test_outputs_in_float64(captured):
    foreign, found = captured
    ours = found.build(dtype=torch.float64).eval()
    for x in foreign.others:
        x = x.double() if x.is_floating_point() else x
        with exact(foreign.module) as peer, torch.no_grad():
            theirs = outputs(peer, x)
        with torch.no_grad():
            assert all(relative(a, b) <= 1e-10 for a, b in zip(outputs(ours, x), theirs, strict=True))


def test_gradients_in_float64(captured):
    """Of every weight. (An embedding's `padding_idx`, which withholds the gradient of one row, is no part of a graph.)"""
    foreign, found = captured
    x = foreign.example.double() if foreign.example.is_floating_point() else foreign.example
    with exact(foreign.module) as peer:
        for m in peer.modules():
            if isinstance(m, torch.nn.Embedding):
                m.padding_idx = None
        theirs = outputs(peer, x)
        probes = [torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) for y in theirs]
        torch.stack([(y * p).sum() for y, p in zip(theirs, probes, strict=True)]).sum().backward()
    ours = found.build(dtype=torch.float64).eval()
    torch.stack([(y * p).sum() for y, p in zip(outputs(ours, x), probes, strict=True)]).sum().backward()
    wanted = {found.names[k]: p.grad for k, p in peer.named_parameters() if p.grad is not None}
    largest = max(g.abs().max() for g in wanted.values())
    assert largest > 0 and set(wanted) == {a for a, p in ours.named_parameters() if p.grad is not None}
    for address, p in ours.named_parameters():
        if address in wanted:
            assert (p.grad - wanted[address]).abs().max() <= 1e-10 * largest, address


def sound(foreign: Foreign, file: Path) -> tuple[set[str], set[str]]:
    """(ops, masks) of a model captured without opaque nodes, whose outputs are the module's for all sizes, and whose text is a sound spec."""
    found = archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)
    file.write_text(found.text)
    assert found.opaque == () and check_file(str(file)) == [] and archdsl.load(file).graph().hash == found.graph.hash
    ours = found.build().eval()
    for x in foreign.others:
        with torch.no_grad():
            for mine, theirs in zip(outputs(ours, x), outputs(foreign.module, x), strict=True):
                assert mine.shape == theirs.shape and theirs.abs().max() > 1e-3 and relative(mine, theirs) <= 1e-6
    nodes = [n for g in found.graph.definitions() for n in g.nodes]
    return {n.op for n in nodes}, {n.attrs["mask"].kind for n in nodes if n.op == "attention"}


@pytest.mark.parametrize("name", OTHERS)
def test_held_out_models(name, tmp_path):
    ops, masks = sound(OTHERS[name](), tmp_path / "graph.arch")
    assert not ops & {"softmax", "rsqrt", "var", "erf", "tanh", "cumsum", "extern"}
    wanted = {"mistral": {"and"}, "gpt_neo": {"causal", "and"}, "mixer": set(), "efficientnet": set(),
              **{key: {"causal"} for key in ("qwen2", "gemma", "phi", "bloom", "mpt")}}
    assert masks == wanted.get(name, {"full"})


@pytest.mark.proof
@pytest.mark.parametrize("name", LARGER)
def test_larger_held_out_models(name, tmp_path):
    sound(LARGER[name](), tmp_path / "graph.arch")


def test_islands_of_float32_stay_in_a_bfloat16_model():
    """Rotary angles and the statistics of norms: without them positions would not survive. Errors against float32 are those of the module."""
    foreign = MODELS["llama"]()
    half = copy.deepcopy(foreign.module).bfloat16()
    found = archdsl.capture(half, foreign.example, dynamic=foreign.dynamic)
    assert found.dtype is torch.bfloat16 and found.lifts["RMSNorm"] == 15
    ours = found.build().eval()
    for x in foreign.others:
        with torch.no_grad():
            wanted, theirs, mine = (outputs(m, x)[0].float() for m in (foreign.module, half, ours))
        mine, theirs = ((y - wanted).square().mean().sqrt() for y in (mine, theirs))
        assert mine <= 1.2 * theirs and mine < 0.02 * wanted.abs().max()


@pytest.mark.proof
@pytest.mark.parametrize(("name", "side"), [("vit_tiny_patch16_224", 224), ("swin_tiny_patch4_window7_224", 224), ("convnext_tiny", 224),
                                            ("mobilevit_xxs", 256), ("efficientformer_l1", 224)])
def test_models_as_published(name, side):
    foreign = image_model(name, side=side)
    found = archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)
    assert found.opaque == ()
    ours = found.build().eval()
    with torch.no_grad():
        for x in foreign.others[:2]:
            assert relative(ours(x), foreign.module(x)) <= 1e-6
