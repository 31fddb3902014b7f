"""Image models beside their official code, run from checkouts: outputs and gradients in float64, outputs in float32."""
from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import archdsl
from tests.parity import test_sret as sret
from tests.parity import test_vit_resnas as res
from tests.parity.official import Double, beside, importing, module
from tests.parity.proof import EXACT, randomise, relative

pytest.importorskip("timm", reason="timm is in the `parity` extra")


# ---------------------------------------------------------------- SReT
@pytest.mark.parametrize(("batch", "train", "changes"), [
    (2, False, {}),
    (1, False, {"groups": [[16, 4], [2, 8], [4, 2]]}),
    (3, True, {"size": [48, 48], "groups": [[9, 6], [9, 3], [1, 2]]}),
    (2, False, {"widths": [12, 24, 48], "heads": [3, 3, 6], "ratio": 3, "nll": 2}),
    (2, False, {"depths": [1, 4, 2], "passes": 1, "groups": [[1, 1]] * 3}),
    (2, True, {"groups": [[1, 1]] * 3}),
])
def test_sret(batch, train, changes):
    """Sliced, and by the file without slices where there are none."""
    knobs = {**sret.TINY, **changes}
    whole = knobs["groups"] == [[1, 1]] * 3
    with importing("SReT"):
        code = module("SReT_wo_slice" if whole else "SReT")

    def build():
        depths, heads = knobs["depths"], knobs["heads"]
        slices = {} if whole else {f"groups{i + 1}": [g[i] for g in knobs["groups"]] for i in range(2)}
        return (code.RecursiveTransformer if whole else code.SReT)(
            image_size=knobs["size"][0], patch_size=16, stride=8, base_dims=[d // h for d, h in zip(knobs["widths"], heads)],
            depth=[knobs["passes"] * n for n in depths], recursive_num=depths, heads=heads, mlp_ratio=knobs["ratio"], np_mlp_ratio=knobs["nll"],
            num_classes=knobs["classes"], drop_path_rate=0.0, **slices)

    beside(sret.drawing(sret.ours(**{**changes, "drop_path": 0})), build, sret.image(batch, knobs["size"]), source="official", call=sret.call,
           train=train)


# ---------------------------------------------------------------- ViT-Res
@pytest.mark.parametrize(("batch", "train", "changes"), [
    (2, False, {"size": [112, 112]}),
    (3, True, {"size": [56, 56]}),
    (1, False, {"widths": [6, 6, 6], "heads": [[1], [3, 2, 1], [2]], "hidden": [[5], [6, 7, 8], [9]], "size": [56, 56]}),
])
@pytest.mark.parametrize("labels", [False, True])
def test_vit_res(batch, train, changes, labels, monkeypatch):
    """With `labels`, the model that answers for each cell as well, which the official one does in training alone."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    with importing("vit-search"):
        code = module("nets.vit_sr_supernet")
    knobs = {**res.MINI, **changes}
    layout: list[tuple] = [(code._TYPE_IS_FLEXIBLE_CONV_EMBED, knobs["widths"][0], 24)]
    for s, c in enumerate(knobs["widths"]):
        if s:
            layout.append((code._TYPE_IS_SR, knobs["widths"][s - 1], c))
        layout += [(code._TYPE_IS_TRANS, (c, h, knobs["head_dims"][s]), (c, f), 1) for h, f in zip(knobs["heads"][s], knobs["hidden"][s])]
    layout.append((code._TYPE_IS_HEAD, knobs["widths"][2], knobs["classes"]))

    def build():
        return code.FlexibleDistillVisionTransformerSR(
            img_size=knobs["size"][0], num_classes=knobs["classes"], distill_token=False, network_def=layout, patch_output=labels and train)

    def joined(module, inputs, ys):
        return torch.cat([y.flatten(1) for y in ys], 1) if labels and train else ys

    model = res.ours("TokenLabels" if labels and train else "ViTRes", **changes)
    model.register_forward_hook(joined)
    beside(model, build, res.image(batch, knobs["size"]), source="official", call=lambda m, x: joined(m, x, m(x)), train=train)


# ---------------------------------------------------------------- Pre-RMSNorm
@pytest.mark.parametrize(("method", "changes", "transform"), [
    ("pre-ln", {}, None), ("pre-rms", {"norm": "rms"}, None), ("pre-crms", {"norm": "crms"}, None), ("pre-customized-ln", {"pool": "mean"}, None),
    ("pre-rms", {}, "train"),
])
@pytest.mark.parametrize("kind", ["ViT", "GPT"])
def test_pre_rmsnorm(kind, method, changes, transform):
    """`train`: weights that are centred in each forward pass, by the official class and by ours out of the model with LayerNorm."""
    if kind == "GPT" and "pool" in changes:
        changes = {}
    with importing("pre-rmsnorm-transformer", "torch", missing=("apex",), given={"torch.compile": lambda f: f}):
        code = module("model")
    sizes: dict[str, Any] = dict(dim=24, depth=2, heads=3, mlp_dim=20, method=method, pre_rms_training=transform == "train")
    spec = archdsl.load("specs/general/pre_rmsnorm.arch").models[kind]
    own: dict[str, Any] = dict(d=24, depth=2, heads=3, hidden=20, dtype=torch.float64, **changes)
    if kind == "ViT":
        variant = "tiny_train" if transform else "tiny"
        ours = spec.build(variant, patch=4, classes=7, H=12, W=20, **own)
        x = sret.image(2, [12, 20])
    else:
        variant = "small_train" if transform else "small"
        ours = spec.build(variant, vocab=61, context=16, **own)
        x = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(3))

    def build():
        if kind == "ViT":
            return code.ViT((12, 20), 4, 7, pool=changes.get("pool", "token").replace("token", "cls"), **sizes)
        return code.GPT(61, 16, **sizes)

    beside(ours, build, x, source="official", call=lambda m, v: m(v))


# ---------------------------------------------------------------- EfficientFormer
@pytest.mark.parametrize(("vit", "train", "distilled"), [(1, True, False), (2, True, True), (2, False, True)])
def test_efficientformer(vit, train, distilled):
    """At 224 x 224, for which its attention is built. In evaluation it keeps biases without gradients: outputs alone.
    In training its two heads are not averaged yet."""
    with importing("EfficientFormer", missing=("timm.models.layers.helpers",), bare=("models",)):
        code = module("models.efficientformer")
    code.to_2tuple = module("timm.layers").to_2tuple  # where timm has it now

    def build():
        return code.EfficientFormer(layers=[2, 1, 2, 3], embed_dims=[16, 24, 40, 48], downsamples=[True] * 4, vit_num=vit, num_classes=301,
                                    distillation=distilled)

    def call(m, v):
        y = m(v)
        return (y[0] + y[1]) / 2 if isinstance(y, tuple) else y

    ours = archdsl.load("specs/vision/efficientformer.arch").build(
        depths=[2, 1, 2, 3], widths=[16, 24, 40, 48], vit=vit, size=[224, 224], classes=301, dtype=torch.float64, distilled=distilled)
    x = res.image(2, [224, 224])
    if train:
        beside(ours, build, x, source="official", call=call, train=True)
        return
    with Double():
        peer = build().double()
    randomise(peer)
    archdsl.import_weights(ours, peer.state_dict(), source="official")
    with Double():
        want = peer.eval()(x)
    assert relative(ours.eval()(x), want) <= EXACT and want.std() > 1e-4


# ---------------------------------------------------------------- Next-ViT
@pytest.mark.parametrize("train", [False, True])
def test_nextvit(train):
    """The paper's widths, with one block in three stages."""
    with importing("Next-ViT", "classification"):
        code = module("nextvit")
    ours = archdsl.load("specs/vision/nextvit.arch").build("small", depths=[1, 1, 5, 1], classes=301, drop_path=0, dtype=torch.float64)
    beside(ours, lambda: code.NextViT(stem_chs=[64, 32, 64], depths=[1, 1, 5, 1], path_dropout=0, num_classes=301), res.image(2, [43, 64]),
           source="official", call=lambda m, v: m(v), train=train)


# ---------------------------------------------------------------- CvT
@pytest.mark.parametrize(("projection", "tokens", "train"), [
    ("dw_bn", [False, False, True], False), ("dw_bn", [False, False, True], True), ("avg", [False] * 3, False), ("avg", [False, True, True], True),
])
def test_cvt(projection, tokens, train):
    """But for projections without a convolution, which the official code cannot run."""
    with importing("CvT", "lib", missing=("torch._six",), bare=("models",)):
        code = module("models.cls_cvt")
    spec = {"NUM_STAGES": 3, "PATCH_SIZE": [7, 3, 3], "PATCH_STRIDE": [4, 2, 2], "PATCH_PADDING": [2, 1, 1], "DIM_EMBED": [16, 24, 32],
            "DEPTH": [1, 2, 3], "NUM_HEADS": [1, 3, 4], "MLP_RATIO": [4.0] * 3, "QKV_BIAS": [True] * 3, "DROP_RATE": [0.0] * 3,
            "ATTN_DROP_RATE": [0.0] * 3, "DROP_PATH_RATE": [0.0] * 3, "CLS_TOKEN": tokens, "QKV_PROJ_METHOD": [projection] * 3,
            "KERNEL_QKV": [3] * 3, "PADDING_Q": [1] * 3, "PADDING_KV": [1] * 3, "STRIDE_KV": [2] * 3, "STRIDE_Q": [1] * 3}
    knobs: dict[str, Any] = {f"stages.{i}.{k}": v for i in range(3) for k, v in {
        "width": spec["DIM_EMBED"][i], "heads": spec["NUM_HEADS"][i], "depth": spec["DEPTH"][i], "projection": projection, "token": tokens[i],
        "drop_path": 0}.items()}
    ours = archdsl.load("specs/vision/cvt.arch").build(dtype=torch.float64, classes=301, **knobs)
    norm = partial(torch.nn.LayerNorm, eps=1e-5)
    beside(ours, lambda: code.ConvolutionalVisionTransformer(num_classes=301, act_layer=code.QuickGELU, norm_layer=norm, spec=spec),
           res.image(2, [56, 72]), source="official", call=lambda m, v: m(v), train=train)
