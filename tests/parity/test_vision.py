"""ViT, DeiT and ConvNeXt against timm and torchvision."""
from __future__ import annotations

import pytest
import torch

import archdsl
from tests.parity.proof import prove

timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")

VIT, CONVNEXT = "specs/vision/vit.arch", "specs/vision/convnext.arch"
F64 = torch.float64


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize(("variant", "name"), [
    ("tiny", "vit_tiny_patch16_224"), ("small", "vit_small_patch16_224"), ("base", "vit_base_patch16_224"), ("base_32", "vit_base_patch32_224"),
    ("large", "vit_large_patch16_224"), ("huge", "vit_huge_patch14_224"), ("deit_tiny", "deit_tiny_patch16_224"),
    ("deit_small", "deit_small_patch16_224"), ("deit_base", "deit_base_patch16_224"), ("deit_tiny_distilled", "deit_tiny_distilled_patch16_224"),
    ("deit_small_distilled", "deit_small_distilled_patch16_224"), ("deit_base_distilled", "deit_base_distilled_patch16_224"),
])
def test_vit_counts(variant, name):
    with torch.device("meta"):
        peer = timm.create_model(name, num_classes=1000)
    assert archdsl.load(VIT).cost(variant).params == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize(("size", "batch"), [((224, 224), 1), ((224, 224), 3)])
def test_deit_tiny_is_timms(size, batch):
    peer = timm.create_model("deit_tiny_patch16_224", depth=3).double()
    prove(archdsl.load(VIT).build("deit_tiny", depth=3, dtype=F64), peer, image(batch, 3, *size), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize("variant", ["tiny", "small", *(pytest.param(v, marks=pytest.mark.proof) for v in ("base", "deit_small", "deit_base"))])
def test_vits_at_their_widths_are_timms(variant):
    """Two layers of the real widths, in the rest as published."""
    name = {"tiny": "vit_tiny", "small": "vit_small", "base": "vit_base"}.get(variant, variant)
    peer = timm.create_model(f"{name}_patch16_224", depth=2, num_classes=1000).double()
    prove(archdsl.load(VIT).build(variant, depth=2, dtype=F64), peer, image(1, 3, 224, 224), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize(("side", "width", "batch"), [(32, 56, 2), (40, 8, 1)])
def test_vits_of_other_shapes_are_timms(side, width, batch):
    peer = timm.models.vision_transformer.VisionTransformer(embed_dim=48, num_heads=3, depth=2, patch_size=8, img_size=(side, width), num_classes=7)
    ours = archdsl.load(VIT).build(dtype=F64, d=48, heads=3, depth=2, patch=8, side=side, width=width, classes=7)
    prove(ours, peer.double(), image(batch, 3, side, width), source="timm", call=lambda m, x: m(x))


def test_distilled_deit_is_timms():
    peer = timm.create_model("deit_tiny_distilled_patch16_224", depth=2).double()
    prove(archdsl.load(VIT).build("deit_tiny_distilled", depth=2, dtype=F64), peer, image(2, 3, 224, 224), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize(("changes", "peer_changes"), [
    (dict(d=96, heads=4, depth=2, patch=8, side=40, classes=7, hidden=200),
     dict(embed_dim=96, num_heads=4, depth=2, patch_size=8, img_size=40, num_classes=7, mlp_ratio=200 / 96)),
    (dict(d=66, heads=3, depth=2, patch=7, side=49, classes=5, pool="mean"),
     dict(embed_dim=66, num_heads=3, depth=2, patch_size=7, img_size=49, num_classes=5, global_pool="avg")),
])
def test_other_vits_are_timms(changes, peer_changes):
    peer = timm.models.vision_transformer.VisionTransformer(**peer_changes).double()
    prove(archdsl.load(VIT).build(dtype=F64, **changes), peer, image(2, 3, changes["side"], changes["side"]), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize(("variant", "name"), [
    ("tiny", "convnext_tiny"), ("small", "convnext_small"), ("base", "convnext_base"), ("large", "convnext_large"), ("xlarge", "convnext_xlarge"),
    ("atto", "convnext_atto"), ("femto", "convnext_femto"), ("pico", "convnext_pico"), ("nano", "convnext_nano"),
])
def test_convnext_counts(variant, name):
    with torch.device("meta"):
        peer = timm.create_model(name)
    assert archdsl.load(CONVNEXT).cost(variant).params == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize(("size", "batch"), [((64, 64), 2), ((97, 75), 1), ((33, 128), 1)])
def test_convnext_is_timms(size, batch):
    widths, depths = [24, 40, 56, 80], [2, 1, 3, 1]
    peer = timm.models.convnext.ConvNeXt(dims=widths, depths=depths, num_classes=11).double()
    ours = archdsl.load(CONVNEXT).build(widths=widths, depths=depths, classes=11, dtype=F64)
    prove(ours, peer, image(batch, 3, *size), source="timm", call=lambda m, x: m(x))


def test_convnext_atto_is_timms():
    peer = timm.create_model("convnext_atto").double()
    prove(archdsl.load(CONVNEXT).build("atto", dtype=F64), peer, image(1, 3, 70, 96), source="timm_conv", call=lambda m, x: m(x))


def test_convnext_is_torchvisions():
    import torchvision

    widths, depths = [24, 40, 56, 80], [2, 1, 3, 1]
    stages = [torchvision.models.convnext.CNBlockConfig(*stage) for stage in zip(widths, [*widths[1:], None], depths)]
    peer = torchvision.models.ConvNeXt(stages, num_classes=11).double()
    ours = archdsl.load(CONVNEXT).build("tiny", widths=widths, depths=depths, classes=11, dtype=F64)
    prove(ours, peer, image(1, 3, 64, 96), source="torchvision", call=lambda m, x: m(x))


@pytest.mark.parametrize("variant", ["isotropic_small", "isotropic_base", "isotropic_large"])
def test_isotropic_counts(variant):
    """From the equations: stem 768 d + d; a block 49 d + d + 2 d + 8 d² + 5 d (+ d with layer scale); head 2 d + 1000 d + 1000."""
    d, depth, scaled = {"isotropic_small": (384, 18, 0), "isotropic_base": (768, 18, 0), "isotropic_large": (1024, 36, 1)}[variant]
    derived = 769 * d + depth * (57 * d + 8 * d * d + scaled * d) + 1002 * d + 1000
    cost = archdsl.load(CONVNEXT).models["Isotropic"].cost(variant)
    assert cost.params == derived


def test_isotropic_by_its_equations():
    """The equations of the fact sheet in plain torch, NHWC inside as written there."""
    import torch.nn.functional as F

    model = archdsl.load(CONVNEXT).models["Isotropic"].build(d=24, depth=2, classes=5, scale=0.5, dtype=F64).eval()
    w = {k: torch.randn(v.shape, dtype=F64, generator=torch.Generator().manual_seed(i)) * 0.3 for i, (k, v) in enumerate(model.state_dict().items())}
    model.load_state_dict(w)
    x = image(2, 3, 49, 33)
    u = F.conv2d(x, w["stem.weight"], w["stem.bias"], stride=16)
    for j in range(2):
        b = f"blocks.{j}."
        v = F.conv2d(u, w[b + "conv_dw.weight"], w[b + "conv_dw.bias"], padding=3, groups=24).permute(0, 2, 3, 1)
        mean = v.mean(-1, keepdim=True)
        v = (v - mean) / ((v - mean) ** 2).mean(-1, keepdim=True).add(1e-6).sqrt() * w[b + "norm.weight"] + w[b + "norm.bias"]
        v = v @ w[b + "fc1.weight"].T + w[b + "fc1.bias"]
        v = v * 0.5 * (1 + torch.erf(v / 2**0.5))
        v = (v @ w[b + "fc2.weight"].T + w[b + "fc2.bias"]) * w[b + "gamma"]
        u = u + v.permute(0, 3, 1, 2)
    p = u.mean((2, 3))
    p = (p - p.mean(-1, keepdim=True)) / p.var(-1, unbiased=False, keepdim=True).add(1e-6).sqrt() * w["head_norm.weight"] + w["head_norm.bias"]
    torch.testing.assert_close(model(x), p @ w["head.weight"].T + w["head.bias"], rtol=1e-10, atol=1e-10)


SWIN = "specs/vision/swin.arch"


@pytest.mark.parametrize(("name", "peer", "knobs", "changes"), [
    ("vit", timm.models.vision_transformer.VisionTransformer, dict(d=24, heads=2, depth=1, patch=8, side=40, classes=3),
     dict(embed_dim=24, num_heads=2, depth=1, patch_size=8, img_size=40)),
    ("convnext", timm.models.convnext.ConvNeXt, dict(widths=[8, 12, 16, 20], depths=[1] * 4, classes=3), dict(dims=[8, 12, 16, 20], depths=[1] * 4)),
    ("swin", timm.models.swin_transformer.SwinTransformer, dict(d=12, depths=[2, 1, 1, 1], heads=[1, 2, 2, 2], window=3, side=40, classes=3),
     dict(embed_dim=12, depths=[2, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=3, img_size=40)),
], ids=["vit", "convnext", "swin"])
@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_other_channels_are_timms(name, peer, knobs, changes, channels):
    theirs = peer(in_chans=channels, num_classes=3, **changes).double()
    ours = archdsl.load(f"specs/vision/{name}.arch").build(channels=channels, dtype=F64, **knobs)
    prove(ours, theirs, image(1, channels, 40, 40), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize(("variant", "name"), [
    ("tiny", "swin_tiny_patch4_window7_224"), ("small", "swin_small_patch4_window7_224"), ("base", "swin_base_patch4_window7_224"),
    ("large", "swin_large_patch4_window7_224"), ("base_384", "swin_base_patch4_window12_384"), ("large_384", "swin_large_patch4_window12_384"),
    ("s3_tiny", "swin_s3_tiny_224"), ("s3_small", "swin_s3_small_224"), ("s3_base", "swin_s3_base_224"),
])
def test_swin_counts(variant, name):
    with torch.device("meta"):
        peer = timm.create_model(name, num_classes=1000)
    assert archdsl.load(SWIN).cost(variant).params == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize(("side", "window"), [(56, 3), (96, 7)])
def test_swin_is_timms(side, window):
    """Shifted windows, padding to whole windows, merging of odd maps."""
    depths, heads = [2, 2, 2, 2], [1, 2, 3, 4]
    changes = dict(img_size=side, embed_dim=24, depths=depths, num_heads=heads, window_size=window, num_classes=5)
    peer = timm.models.swin_transformer.SwinTransformer(**changes).double()
    ours = archdsl.load(SWIN).build(d=24, depths=depths, heads=heads, window=window, side=side, classes=5, dtype=F64)
    prove(ours, peer, image(2, 3, side, side), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize(("size", "changes", "theirs"), [
    ((64, 40), dict(windows=[3, 5, 2, 7], ratio=2.5), dict(window_size=(3, 5, 2, 7), mlp_ratio=2.5)),
    ((24, 56), dict(window=4, patch=2), dict(window_size=4, patch_size=2)), ((26, 37), dict(window=7), dict(window_size=7)),
])
def test_other_swins_are_timms(size, changes, theirs):
    """A window for each stage, and images that are not square: where one window holds all cells of an axis, only the other axis is shifted. What is
    left beside the last whole patch is not seen."""
    depths, heads = [2, 2, 2, 2], [1, 2, 1, 2]
    peer = timm.models.swin_transformer.SwinTransformer(img_size=size, embed_dim=8, depths=depths, num_heads=heads, num_classes=5, **theirs).double()
    ours = archdsl.load(SWIN).build(d=8, depths=depths, heads=heads, size=size, classes=5, dtype=F64, **changes)
    prove(ours, peer, image(2, 3, *size), source="timm", call=lambda m, x: m(x))
