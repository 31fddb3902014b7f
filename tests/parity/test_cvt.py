"""CvT against transformers, with every option of its stages, in evaluation and in training."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.spec import loads
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.passes.helpers import distance, ops, start

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
from transformers import CvtConfig, CvtForImageClassification  # noqa: E402
from transformers.activations import QuickGELUActivation  # noqa: E402
from transformers.models.cvt import modeling_cvt as theirs  # noqa: E402

SPEC = "specs/vision/cvt.arch"
F64 = torch.float64
CLASSES = 301
TINY: dict[str, Any] = {"stages.0.width": 16, "stages.1.width": 24, "stages.1.heads": 3, "stages.2.width": 32, "stages.2.heads": 4,
                        "stages.2.depth": 3, "classes": CLASSES}
PAPER = {"embed_dim": [64, 192, 384], "num_heads": [1, 3, 6], "depth": [1, 2, 10], "num_labels": 1000}
THEIR_TINY = {"embed_dim": [16, 24, 32], "num_heads": [1, 3, 4], "depth": [1, 2, 3], "num_labels": CLASSES}


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def tiny(knobs: dict[str, Any] | None = None, act: str = "gelu", emit: tuple[str, ...] = ()) -> Any:
    return archdsl.load(SPEC).build(dtype=F64, act=act, emit=emit, **{**TINY, **(knobs or {})})


def config(changes: dict[str, Any]) -> Any:
    return CvtConfig(**{**THEIR_TINY, **changes})


def peer(**changes: Any) -> Any:
    """transformers' model. It knows the names of the other projections but builds nothing for them: they are put in here."""
    model: Any = CvtForImageClassification(config(changes))
    own = model.config
    for i, stage in enumerate(model.cvt.encoder.stages):
        kernel, pad, stride = own.kernel_qkv[i], own.padding_kv[i], own.stride_kv[i]
        for layer in stage.layers:
            attention = layer.attention.attention
            for what, pool in ("query", False), ("key", True), ("value", True):
                projection = getattr(attention, f"convolution_projection_{what}")
                if own.qkv_projection_method[i] != "dw_bn":
                    average = pool and own.qkv_projection_method[i] == "avg"
                    projection.convolution_projection = torch.nn.AvgPool2d(kernel, stride, pad, ceil_mode=True) if average else torch.nn.Identity()
    return model.double()


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1, 2)


def sound(model: Any) -> Any:
    """transformers' `view(b, c, h * w).permute(0, 2, 1)` behind the batch norms, in one step. Of one image, the gradient behind the former has
    strides with which torch's batch norm on CPU computes a wrong gradient (finite differences tell)."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, theirs.CvtSelfAttentionLinearProjection):
                setattr(module, name, Flat())
    return model


def logits(model: Any, x: torch.Tensor) -> torch.Tensor:
    """With the maps, or else it looks for a class token where there is none."""
    return model(pixel_values=x, output_hidden_states=True).logits


def proven(ours: Any, model: torch.nn.Module, x: torch.Tensor, train: bool = False) -> None:
    prove(ours, model, x, source="transformers", call=logits, reference=sound, train=train)


def rates(graph: Any) -> list[float]:
    inner, out = {"call": "graph", "phase": "eval"}, []
    for n in graph.nodes:
        out += [float(n.attrs["rate"])] if n.op == "drop_path" else rates(n.attrs[inner[n.op]]) if n.op in inner else []
    return out


@pytest.mark.parametrize(("variant", "changes"), [
    ("cvt_13", {}), ("cvt_21", {"depth": [1, 4, 16]}), ("cvt_w24", {"depth": [2, 2, 20], "embed_dim": [192, 768, 1024], "num_heads": [3, 12, 16]}),
])
def test_counts(variant, changes):
    with torch.device("meta"):
        model = CvtForImageClassification(config({**PAPER, **changes}))
    assert archdsl.load(SPEC).cost(variant).params == sum(p.numel() for p in model.parameters())


def test_cvt_13_is_transformers():
    """The paper's widths on a map with remainders everywhere: 75 x 97 becomes 19 x 24, 10 x 12 and 5 x 6 cells."""
    shallow: dict[str, Any] = {"act": "gelu", "stages.2.depth": 3}
    proven(archdsl.load(SPEC).build("cvt_13", dtype=F64, **shallow), peer(**{**PAPER, "depth": [1, 2, 3]}), image(1, 3, 75, 97))


@pytest.mark.parametrize(("size", "batch", "changes", "same"), [
    ((64, 64), 2, {}, {}), ((51, 38), 1, {"num_channels": 1}, {"channels": 1}),
    ((75, 97), 1, {"stride_kv": [1, 3, 4], "padding_kv": [1, 0, 2]},
     {"stages.0.stride_kv": 1, "stages.1.stride_kv": 3, "stages.1.pad_kv": 0, "stages.2.stride_kv": 4, "stages.2.pad_kv": 2}),
    ((70, 64), 2, {"kernel_qkv": [1, 5, 3], "padding_kv": [0, 2, 1], "padding_q": [0, 2, 1]},
     {"stages.0.kernel": 1, "stages.0.pad_kv": 0, "stages.1.kernel": 5, "stages.1.pad_kv": 2}),
    ((75, 97), 1, {"qkv_projection_method": ["avg"] * 3}, {"stages.*.projection": "avg"}),
    ((64, 80), 1, {"qkv_projection_method": ["linear"] * 3}, {"stages.*.projection": "linear"}),
    ((75, 97), 2, {"qkv_projection_method": ["avg", "dw_bn", "linear"], "stride_kv": [3, 2, 2]},
     {"stages.0.projection": "avg", "stages.0.stride_kv": 3, "stages.2.projection": "linear"}),
    ((65, 70), 1, {"cls_token": [False] * 3}, {"stages.2.token": False}),
    ((65, 70), 2, {"qkv_bias": [False, True, False], "mlp_ratio": [4.0, 2.6, 3.0]},
     {"stages.0.bias": False, "stages.2.bias": False, "stages.1.ratio": 2.6, "stages.2.ratio": 3}),
    ((65, 71), 1, {"patch_sizes": [4, 2, 5], "patch_stride": [4, 2, 1], "patch_padding": [0, 0, 2]},
     {"stages.0.patch": 4, "stages.0.pad": 0, "stages.1.patch": 2, "stages.1.pad": 0, "stages.2.patch": 5, "stages.2.stride": 1, "stages.2.pad": 2}),
])
def test_other_stages_are_transformers(size, batch, changes, same):
    proven(tiny(same), peer(**changes), image(batch, changes.get("num_channels", 3), *size))


def test_two_stages_with_tokens_in_both():
    """The number of stages is free. transformers gives all class tokens the width of the last stage, so here both have it."""
    text = Path(SPEC).read_text(encoding="utf-8") + """
variant two { stages = [Stage(16, 1, 2, patch = 7, stride = 4, pad = 2, token = true), Stage(16, 2, 2, token = true)] }
"""
    ours = loads(text, "cvt.arch").build("two", classes=CLASSES, act="gelu", dtype=F64)
    proven(ours, peer(embed_dim=[16, 16], num_heads=[2, 2], depth=[1, 2], cls_token=[True, True]), image(2, 3, 45, 64))


@pytest.mark.parametrize(("size", "batch"), [((64, 64), 2), ((75, 97), 3)])
def test_training_step_is_transformers(size, batch):
    """Gradients through the statistics of the batch, and every running statistic after the step."""
    x, model = image(batch, 3, *size), peer(drop_path_rate=[0.0] * 3)
    ours = tiny({"stages.2.drop_path": 0})
    proven(ours, model, x, train=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    logits(model.train(), x)
    after, mine = model.state_dict(), archdsl.export_weights(ours, source="transformers")
    running = [k for k in after if "running_" in k]
    assert len(running) == 2 * 3 * 6
    for k in running:
        assert not torch.equal(after[k], before[k]) and relative(mine[k], after[k]) <= EXACT, k
    assert relative(ours.eval()(x), logits(model.eval(), x)) <= EXACT


def test_the_official_activation():
    """The default is the official model's, x sigmoid(1.702 x); with transformers' erf GELU the same weights give other logits."""
    x, model = image(1, 3, 64, 75), peer()
    hidden: list[Any] = [m for m in model.modules() if isinstance(m, theirs.CvtIntermediate)]
    for m in hidden:
        m.activation = QuickGELUActivation()
    ours = tiny(act="quick_gelu")
    proven(ours, model, x)
    other = tiny().eval()
    archdsl.import_weights(other, model.state_dict(), source="transformers")
    assert relative(other(x), ours.eval()(x)) > 1e-4


def test_stage_maps_are_transformers():
    model, ours = peer().eval(), tiny(emit=("stages.*.features",)).eval()
    randomise(model)
    archdsl.import_weights(ours, model.state_dict(), source="transformers")
    x = image(1, 3, 75, 97)
    _, emitted = ours(x)
    want = model(pixel_values=x, output_hidden_states=True).hidden_states
    assert list(emitted) == [f"stages.{i}.features" for i in range(3)] and len(want) == 3
    for a, b in zip(emitted.values(), want):
        assert a.shape == b.shape and relative(a, b) <= EXACT


def test_one_model_for_all_sizes():
    """No positions: the same weights take images of any size."""
    model, ours = peer().eval(), tiny().eval()
    archdsl.import_weights(ours, model.state_dict(), source="transformers")
    for size in (224, 224), (256, 256), (224, 288):
        assert relative(ours(image(1, 3, *size)), logits(model, image(1, 3, *size))) <= EXACT


@pytest.mark.parametrize(("variant", "last", "depth"), [("cvt_13", 0.1, [1, 2, 10]), ("cvt_w24", 0.3, [2, 2, 20])])
def test_drop_path_rates(variant, last, depth):
    """They start at 0 in each stage, and only the last one has any. (transformers gives all layers of a stage one rate.)"""
    want = [0.0] * 2 * (depth[0] + depth[1]) + [last * j / (depth[2] - 1) for j in range(depth[2]) for _ in range(2)]
    assert rates(archdsl.load(SPEC).elaborate(variant).graph) == pytest.approx(want)


@pytest.mark.parametrize(("changes", "words"), [
    ({"stages.1.kernel": 2}, r"an even kernel \(2\) gives no query for each token"), ({"stages.1.heads": 5}, "192 / 5 is not a whole number"),
    ({"stages.0.projection": "max"}, "max"),
])
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ArchError, match=words):
        archdsl.load(SPEC).build(**changes)


def test_batch_norms_fold_into_their_convolutions():
    """Five layers with three each: the convolutions get biases, the logits stay."""
    model = start(SPEC, "cvt_13", **{"stages.2.depth": 2})
    folded = model.apply("fold_batch_norm()")
    assert ops(model, "batch_norm") == 15 and ops(folded, "batch_norm") == 0
    assert sum(k.endswith("_map.conv.bias") for k in folded.weights) == 15 and len(model.weights) - len(folded.weights) == 15 * 3
    assert distance(model, folded, B=1, H=75, W=64) < 1e-11


def test_names_of_the_official_files():
    layer = [f"norm{k}.{p}" for k in (1, 2) for p in ("weight", "bias")] + [f"mlp.fc{k}.{p}" for k in (1, 2) for p in ("weight", "bias")]
    for w in "qkv":
        layer += [f"attn.conv_proj_{w}.conv.weight", *(f"attn.conv_proj_{w}.bn.{p}" for p in ("weight", "bias", "running_mean", "running_var"))]
        layer += [f"attn.proj_{w}.weight", f"attn.proj_{w}.bias"]
    layer += ["attn.proj.weight", "attn.proj.bias"]
    want = [f"stage{i}.blocks.{j}.{k}" for i, depth in enumerate([1, 2, 3]) for j in range(depth) for k in layer]
    want += [f"stage{i}.patch_embed.{k}.{p}" for i in range(3) for k in ("proj", "norm") for p in ("weight", "bias")]
    weights = archdsl.export_weights(tiny(), source="official")
    assert sorted(weights) == sorted([*want, "stage2.cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"])
    assert weights["stage2.cls_token"].shape == (1, 1, 32) and weights["stage1.blocks.0.attn.conv_proj_k.conv.weight"].shape == (24, 1, 3, 3)


def test_weights_of_another_variant_are_refused():
    model = tiny()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ArchError, match=r"stages\.2\.layers\.3"):
        archdsl.import_weights(model, peer(depth=[1, 2, 4]).state_dict(), source="transformers")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
