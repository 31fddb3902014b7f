"""Image models beside their official code, run from checkouts: outputs and gradients in float64, outputs in float32."""
from __future__ import annotations

import pytest
import torch

from tests.parity import test_sret as sret
from tests.parity import test_vit_resnas as res
from tests.parity.official import beside, importing, module

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
