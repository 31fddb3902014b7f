"""Pre-LN → Pre-RMSNorm → Pre-CRMSNorm (arxiv 2305.14858)."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.passes import Step, steps
from archdsl.passes.manager import rewrite
from tests.passes.helpers import F64, closed, distance, inputs, ops, outputs, params, start

VIT: dict[str, Any] = {"side": 32, "patch": 8, "depth": 2, "d": 24, "heads": 2, "classes": 7}
GPT: dict[str, Any] = {"vocab": 23, "context": 9, "d": 12, "heads": 2, "depth": 2}
FORMS = ["centre()", "centre(compress = true)", 'centre(form = "train")', 'centre(compress = true, form = "train")']
PRE = """model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] {
  layers: for i in range(2) {
    x = Pre(LayerNorm(), Attention(2, bias = true))(x) as attn
    x = Pre(LayerNorm(), MLP(12))(x) as mlp
  }
  return x |> LayerNorm() as norm |> Linear(d) as head
}"""


@pytest.mark.parametrize("step", FORMS)
@pytest.mark.parametrize(("spec", "knobs", "sizes"), [
    ("specs/vision/vit.arch", VIT, {"B": 1}), ("specs/vision/vit.arch", {**VIT, "pool": "mean", "distilled": True}, {"B": 3}),
    ("specs/language/gpt2.arch", GPT, {"B": 2, "T": 1}), ("specs/language/gpt2.arch", {**GPT, "drop": 0.0}, {"B": 1, "T": 7}),
    (PRE, {}, {"B": 1, "T": 3}),
])
def test_the_same_outputs(spec, knobs, sizes, step):
    model = start(spec, **knobs)
    new = model.apply(step)
    assert distance(model, new, **sizes) < 1e-12
    norms = ops(model, "layer_norm")
    kind = "crms_norm" if "compress" in step else "rms_norm"
    assert ops(new, "layer_norm") == 0 and ops(new, kind) == norms
    closed(new)
    assert {a.rpartition(".")[2] for a in new.weights} <= {a.rpartition(".")[2] for a in model.weights} | {"linear_weight", "linear_bias"}
    assert params(new) == params(model) if "train" in step else params(new) != params(model)


def own_size(p: Any) -> int:
    return torch.Size(p.type.shape).numel()


def test_the_numbers_of_the_paper():
    """Fact sheet: ViT-Tiny/16 has 5,717,416 parameters, 5,707,816 with its norms folded, 5,678,177 compressed; 25 norms; sums of width d - 1."""
    made = archdsl.load("specs/vision/vit.arch").elaborate("tiny")
    for step, expected in (("fold_norm_scales()", 5_707_816), ("centre()", 5_707_816), ("centre(compress = true)", 5_678_177)):
        graph = rewrite(made, Step.parse(step)).graph
        assert sum(own_size(p) for _, p in graph.parameters()) == expected
    sums = [n for g in graph.definitions() for n in g.nodes if n.op == "add" and len(n.types[0].shape) == 3]
    assert sums and all(n.types[0].shape[-1] == 191 for n in sums)
    assert set(made.graph.children) - set(graph.children) == {"norm"} and graph.children["layers.0"] is graph.children["layers.11"]


def test_the_stream_has_mean_zero():
    """Every writer is recentred, seen from outside: the value that the last norm reads."""
    new = start(PRE.replace("return x |> LayerNorm() as norm |> Linear(d) as head", "x = x |> LayerNorm() as norm\n  return Linear(d)(x) as head"))
    centred = steps.centre()(new)
    built = centred.build().eval()
    seen = []
    built.layers[1].register_forward_hook(lambda m, i, o: seen.append(o))
    built(*inputs(new.made, B=2, T=3))
    assert seen[0].abs().max() > 0.1 and seen[0].mean(-1).abs().max() < 1e-14


def test_gradients_of_the_training_form_are_the_old_ones():
    """And so are some steps of SGD on the raw parameters."""
    model = start("specs/language/gpt2.arch", **{**GPT, "drop": 0.0})
    tokens = inputs(model.made, B=2, T=6)[0]
    losses, first = [], {}
    for step in (None, 'centre(form = "train")', 'centre(compress = true, form = "train")'):
        built = (model.apply(step) if step else model).build().train()
        optimiser = torch.optim.SGD(built.parameters(), lr=0.05)
        curve = []
        for _ in range(5):
            loss = torch.nn.functional.cross_entropy(built(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            optimiser.zero_grad()
            loss.backward()
            if not curve:
                grads = {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in built.named_parameters()}
                first = first or grads
                largest = max(float(g.abs().max()) for g in first.values())
                assert first.keys() == grads.keys() and all(float((first[k] - grads[k]).abs().max()) < 1e-12 * largest for k in first)
            optimiser.step()
            curve.append(float(loss.detach()))
        losses.append(curve)
    assert losses[0][0] - losses[0][-1] > 0.01
    torch.testing.assert_close(torch.tensor(losses[1:], dtype=F64), torch.tensor([losses[0]] * 2, dtype=F64), rtol=1e-10, atol=1e-10)


def test_a_tied_head_is_untied_where_its_norm_is_folded():
    model = start("specs/language/gpt2.arch", **GPT)
    new = model.apply("centre()")
    assert params(new) == params(model) + 23 * 12 - 5 * 2 * 12 + 23  # one more table and the head's bias for γ and β of five norms
    assert new.recipe[-1].notes == ("`linear_weight` is no longer tied to `embed.weight`: they hold different numbers now",)
    assert new.weights["embed.weight"].mean(-1).abs().max() < 1e-15 < model.weights["embed.weight"].mean(-1).abs().max()


@pytest.mark.parametrize(("drop", "phases"), [(0.0, ("train", "eval")), (0.1, ("eval",))])
def test_dropout_of_the_stream_limits_the_folded_form_to_evaluation(drop, phases):
    made = archdsl.load("specs/language/gpt2.arch").elaborate(None, {**GPT, "drop": drop})
    for step, expected in (("centre()", phases), ('centre(form = "train")', ("train", "eval"))):
        contract = rewrite(made, Step.parse(step)).contract
        assert contract is not None and contract.phases == expected


def test_dropout_in_the_training_form():
    model = start("specs/language/gpt2.arch", **{**GPT, "drop": 0.3})
    assert distance(model, model.apply('centre(form = "train")'), train=True, B=2, T=5) < 1e-12


def test_float32_error_is_that_of_the_model_itself():
    model = start("specs/vision/vit.arch", **VIT)
    image = inputs(model.made, B=2)[0]
    exact = outputs(model, (image,))[0].detach()
    errors = []
    for m in (model, model.apply("centre()"), model.apply("centre(compress = true)")):
        y = m.build().float().eval()(image.float()).detach()
        errors.append(float((y.double() - exact).abs().max() / exact.abs().max()))
    assert all(e < 1e-5 for e in errors)


def test_a_gain_of_branches_is_folded_first():
    text = """model M(d: int = 6)(x: [B, d]) -> y: [B, d] {
      layers: for i in range(2) { x = LayerScale(LayerNorm(), Linear(d), scale = 0.5)(x) as f }
      return x |> LayerNorm() as norm |> Linear(d) as head
    }"""
    model = start("use std.residual { LayerScale }\n" + text)
    for step in FORMS:
        new = model.apply(step)
        assert distance(model, new) < 1e-12
        assert all("run time" not in n or "net.arch:" in n for n in new.recipe[-1].notes) and sum("run time" in n for n in new.recipe[-1].notes) == 1
        assert ("layers.0.f.gamma" in new.weights) == ("train" in step)


SWIN: dict[str, Any] = {"d": 8, "depths": [1, 1, 1, 2], "heads": [1, 1, 2, 2], "window": 4, "side": 64, "classes": 3}


@pytest.mark.parametrize("step", FORMS)
def test_of_swin_the_last_stage_alone(step):
    """Patch merging reads four cells at once: its norm is over 4 C."""
    model = start("specs/vision/swin.arch", drop_path=0.0, **SWIN)
    new = model.apply(step)
    assert distance(model, new, B=2) < 1e-12
    assert ops(new, "layer_norm") == ops(model, "layer_norm") - 5  # of two blocks, and the last one
    told = [n for n in new.recipe[-1].notes if "keeps its layer norms" in n]
    assert any("width 8" in n and "specs/vision/swin.arch" in n and "`rearrange`" in n for n in told)
    assert [n for n in told if "width 64" in n and "layers.3.blocks" in n] == []
    closed(new)


def refused(text: str, step: str = "centre()") -> ArchError:
    model = start(text)
    before = (model.graph.hash, {k: v.clone() for k, v in model.state_dict().items()})
    with pytest.raises(ArchError) as fault:
        model.apply(step)
    assert fault.value.diagnostics[0].code == "A0564"
    assert model.graph.hash == before[0] and all(torch.equal(model.weights[k], v) for k, v in before[1].items())
    return fault.value


@pytest.mark.parametrize(("text", "reason", "line"), [
    (PRE.replace("Pre(", "Post("), "`linear` reads it", "Attention(2"),
    (PRE.replace("LayerNorm", "RMSNorm"), "RMS norms already", "RMSNorm()"),
    (PRE.replace("|> LayerNorm() as norm |>", "|>"), "`linear` reads it", "Linear(d) as head"),
    (PRE.replace("as mlp\n", "as mlp\n    emit hidden = x\n"), "emitted value `layers.0.hidden`", ""),
    (PRE.replace("return x |> LayerNorm() as norm |> Linear(d) as head", "return x"), "the output `y`", ""),
    ("model M()(x: [B, 8]) -> y: [B, 8] { return Linear(8)(x) as f }", "no layer norm reads", "M"),
    ("model M()(x: [B, 8]) -> y: [B, 8] { return x |> Linear(8) as f |> LayerNorm() as n |> Linear(8) as g }", "no residual stream", "LayerNorm()"),
])
def test_refusals_name_the_reader(text, reason, line):
    fault = refused(text)
    d = fault.diagnostics[0]
    assert reason in d.message + "".join(d.notes), fault
    spans = [d.span, *(label.span for label in d.labels)]
    assert any(line in s.source.line(s.source.position(s.start)[0]) for s in spans), fault


def test_streams_that_fit_are_rewritten_and_the_others_named():
    model = start(PRE.replace("as attn\n", "as attn\n    x = x * sigmoid(x)\n"))
    new = model.apply("centre()")
    assert distance(model, new) < 1e-12 and 0 < ops(new, "layer_norm") < ops(model, "layer_norm")
    assert any("keeps its layer norms (net.arch:11" in n and "sigmoid" in n for n in new.recipe[-1].notes)


def test_a_part_of_a_stream_is_refused():
    with pytest.raises(ArchError, match="not selected"):
        start(PRE).apply("centre() on layers[0]")


@pytest.mark.parametrize("kind", ["vit", "gpt2", "opt", "bert"])
def test_captured_models(kind):
    """The structure is found on graphs of torch.export as well; post-norm models are refused there too."""
    module, example = captured(kind)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=F64) * 0.2 + (p.dim() == 1))
    found = archdsl.capture(module, example)
    from archdsl.passes import Model

    model = Model.of(found.spec, dtype=F64, weights=found.weights)
    args = example if isinstance(example, tuple) else tuple(example.values())
    if kind == "bert":
        with pytest.raises(ArchError, match="`linear` reads it"):
            model.apply("centre()")
        return
    for step in FORMS:
        new = model.apply(step)
        assert ops(new, "layer_norm") == 0 and ops(model, "layer_norm") == 5
        (a,), (b,) = outputs(model, args), outputs(new, args)
        assert float(((a - b).abs().max() / a.abs().max()).detach()) < 1e-12
        closed(new)


def captured(kind: str) -> tuple[Any, Any]:
    if kind == "vit":
        timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")
        config: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 7}
        return timm.models.vision_transformer.VisionTransformer(**config).double().eval(), (torch.randn(2, 3, 32, 32, dtype=F64),)
    transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
    tokens = {"input_ids": torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))}
    if kind == "gpt2":
        config = {"vocab_size": 50, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False, **config)).double().eval(), tokens
    config = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    config["use_cache"] = False
    if kind == "opt":
        return transformers.OPTForCausalLM(transformers.OPTConfig(ffn_dim=48, word_embed_proj_dim=24, **config)).double().eval(), tokens
    return transformers.BertModel(transformers.BertConfig(intermediate_size=48, **config)).double().eval(), tokens


def test_timm_vit():
    """Published weights' names, the real implementation, random values: rewritten, the logits are timm's."""
    timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")
    from archdsl.passes import Model

    config = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 7}
    peer = timm.models.vision_transformer.VisionTransformer(**config).double().eval()
    g = torch.Generator().manual_seed(0)
    state = {k: torch.randn(v.shape, generator=g, dtype=F64) * (0.3 if v.dim() > 1 else 0.5) + (v.dim() == 1) for k, v in peer.state_dict().items()}
    peer.load_state_dict(state)
    model = Model.of(archdsl.load("specs/vision/vit.arch"), None, VIT, dtype=F64, weights=state, source="timm")
    image = inputs(model.made, B=2)[0]
    for step in FORMS:
        ours, theirs = model.apply(step).build().eval()(image), peer(image)
        assert float(((ours - theirs).abs().max() / theirs.abs().max()).detach()) < 1e-12
