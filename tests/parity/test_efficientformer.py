"""EfficientFormer against timm: both heads, the maps of four stages, training with running statistics; dense prediction by its equations."""
from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from tests.parity.proof import EXACT, prove, randomise, relative

timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")
from timm.models import efficientformer as theirs  # noqa: E402

SPEC = "specs/vision/efficientformer.arch"
F64 = torch.float64
ATTENTION = theirs.Attention
DEPTHS, WIDTHS = [2, 1, 2, 3], [16, 24, 40, 48]


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1, 2)


def sound(model: torch.nn.Module) -> torch.nn.Module:
    """timm's `flatten(2).transpose(1, 2)` with the axes moved in one step. Of one image, the gradient behind the former has strides with which
    torch's batch norm on CPU computes a wrong gradient (finite differences tell)."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, theirs.Flat):
                setattr(module, name, Flat())
    return model


@pytest.fixture
def peer(monkeypatch):
    """timm's model for other grids than its 7 x 7: only the attention knows them."""
    def make(size: tuple[int, int], vit: int, **changes) -> torch.nn.Module:
        grid = tuple(-(-s // 32) for s in size)
        monkeypatch.setattr(theirs, "Attention", partial(ATTENTION, resolution=grid))  # pyright: ignore[reportArgumentType]  (timm takes a pair)
        return theirs.EfficientFormer(depths=tuple(DEPTHS), embed_dims=tuple(WIDTHS), num_vit=vit, num_classes=7, **changes).double()
    return make


def ours(size: tuple[int, int], vit: int, **changes):
    return archdsl.load(SPEC).build(depths=DEPTHS, widths=WIDTHS, vit=vit, size=list(size), classes=7, dtype=F64, **changes)


@pytest.mark.parametrize("variant", ["l1", "l3", "l7"])
def test_counts(variant):
    with torch.device("meta"):
        model = timm.create_model(f"efficientformer_{variant}")
    assert archdsl.load(SPEC).cost(variant).params == sum(p.numel() for p in model.parameters())


def test_l1_is_timms():
    model = timm.create_model("efficientformer_l1").double()
    prove(archdsl.load(SPEC).build("l1", dtype=F64), model, image(1, 3, 224, 224), source="timm", call=lambda m, x: m(x), reference=sound)


@pytest.mark.parametrize(("size", "vit", "batch", "changes", "same"), [
    ((96, 96), 1, 2, {}, {}), ((93, 129), 2, 1, {"mlp_ratios": 3}, {"ratio": 3}), pytest.param((64, 70), 3, 1, {}, {}, marks=pytest.mark.proof),
    ((64, 64), 1, 1, {"in_chans": 1}, {"channels": 1}), ((65, 33), 1, 3, {"pool_size": 5}, {"stages.*.blocks.*.pool": 5}),
])
def test_other_variants_are_timms(peer, size, vit, batch, changes, same):
    x, model = image(batch, changes.get("in_chans", 3), *size), peer(size, vit, **changes)
    prove(ours(size, vit, **same), model, x, source="timm", call=lambda m, v: m(v), reference=sound)


def test_training_step_is_timms(peer):
    """Gradients through the statistics of the batch, every running statistic after the step, and both heads, which the loss of distillation takes."""
    size, x = (93, 70), image(2, 3, 93, 70)
    model, mine = peer(size, 2), ours(size, 2, emit=["label", "teacher"])
    prove(ours(size, 2), model, x, source="timm", call=lambda m, v: m(v), train=True)
    archdsl.import_weights(mine, model.state_dict(), source="timm")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train().set_distilled_training(True)
    label, teacher = model(x)
    logits, heads = mine.train()(x)
    assert relative(heads["label"], label) <= EXACT and relative(heads["teacher"], teacher) <= EXACT
    assert relative(logits, (label + teacher) / 2) <= EXACT and relative(label, teacher) > 0.1
    after, own = model.state_dict(), archdsl.export_weights(mine, source="timm")
    running = [k for k in after if "running_" in k]
    assert len(running) == 2 * sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    for k in running:
        assert not torch.equal(after[k], before[k]) and relative(own[k], after[k]) <= EXACT, k
    assert relative(mine.eval()(x)[0], model.eval()(x)) <= EXACT


def test_without_distillation_the_first_head_is_left(peer):
    size, x = (64, 64), image(2, 3, 64, 64)
    model = peer(size, 1).eval()
    randomise(model)
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("head_dist")}
    mine = ours(size, 1, distilled=False).eval()
    archdsl.import_weights(mine, weights, source="timm")
    assert relative(mine(x), model.head(model.forward_features(x).mean(1))) <= EXACT


@pytest.mark.parametrize(("size", "vit"), [((96, 64), 3), ((96, 128), 1)])
def test_stage_maps_are_timms(peer, size, vit):
    model, mine = peer(size, vit), ours(size, vit, emit=["stages.*.features"])
    randomise(model)
    archdsl.import_weights(mine, model.state_dict(), source="timm")
    x = image(2, 3, *size)
    _, emitted = mine.eval()(x)
    want = model.eval().forward_intermediates(x, intermediates_only=True)
    assert list(emitted) == [f"stages.{i}.features" for i in range(4)] and len(want) == 4
    for a, b in zip(emitted.values(), want):
        assert a.shape == b.shape and relative(a, b) <= EXACT


@pytest.mark.parametrize("size", [(96, 96), (75, 130)])
def test_maps_for_dense_prediction(peer, size):
    """The same trunk, a group norm of one group for each map; the table is for a 3 x 3 grid and stretched to the image's own."""
    spec = archdsl.load(SPEC)
    dense = spec.models["Features"].build(depths=DEPTHS, widths=WIDTHS, vit=1, size=[96, 96], dtype=F64).eval()
    weights = {k: torch.randn(v.shape, dtype=F64, generator=torch.Generator().manual_seed(i)) * 0.3 + ("weight" in k and "norm" in k)
               for i, (k, v) in enumerate(dense.state_dict().items())}
    weights.update({k: v.abs() + 0.5 for k, v in weights.items() if k.endswith("running_var")})
    dense.load_state_dict(weights)
    x = image(2, 3, *size)
    maps = dense(x)
    u = x
    for k in range(2):
        p = f"stem.{k}."
        u = _norm(F.conv2d(u, weights[p + "conv.weight"], weights[p + "conv.bias"], stride=2, padding=1), weights, p + "norm").relu()
    for i in range(4):
        p = f"stages.{i}."
        if i:
            u = _norm(F.conv2d(u, weights[p + "down.weight"], weights[p + "down.bias"], stride=2, padding=1), weights, p + "down_norm")
        for j in range(DEPTHS[i] - (i == 3)):
            u = _map_block(u, weights, f"{p}blocks.{j}.")
        if i == 3:
            b, c, h, w = u.shape
            u = _token_block(u.flatten(2).mT, weights, p + "tokens.0.").mT.reshape(b, c, h, w)
        flat = u.flatten(1)
        v = (u - flat.mean(1)[:, None, None, None]) / (flat.var(1, unbiased=False) + 1e-5).sqrt()[:, None, None, None]
        v = v * weights[f"outputs.{i}.norm.weight"][:, None, None] + weights[f"outputs.{i}.norm.bias"][:, None, None]
        assert v.shape == maps[i].shape and relative(maps[i], v) <= EXACT


def _norm(u, w, p):
    scale = w[p + ".weight"] / (w[p + ".running_var"] + 1e-5).sqrt()
    return u * scale[:, None, None] + (w[p + ".bias"] - scale * w[p + ".running_mean"])[:, None, None]


def _map_block(u, w, p):
    ones = torch.ones(1, 1, 3, 3, dtype=u.dtype)
    total = F.conv2d(u, ones.expand(u.shape[1], 1, 3, 3), padding=1, groups=u.shape[1])
    count = F.conv2d(torch.ones_like(u[:1, :1]), ones, padding=1)  # 9, on edges 6, in corners 4
    u = u + w[p + "mixer.gamma"][:, None, None] * (total / count - u)
    v = _norm(torch.einsum("bchw,oc->bohw", u, w[p + "mlp.up.weight"][:, :, 0, 0]) + w[p + "mlp.up.bias"][:, None, None], w, p + "mlp.up_norm")
    v = v * 0.5 * (1 + torch.erf(v / 2**0.5))
    v = _norm(torch.einsum("bchw,oc->bohw", v, w[p + "mlp.down.weight"][:, :, 0, 0]) + w[p + "mlp.down.bias"][:, None, None], w, p + "mlp.down_norm")
    return u + w[p + "mlp.gamma"][:, None, None] * v


def _token_block(x, w, p):
    """Offsets are numbered in the order in which pairs of cells first show them, as in the official code."""
    points = [(i, j) for i in range(3) for j in range(3)]
    numbers: dict[tuple[int, int], int] = {}
    index = [[numbers.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(numbers)) for b in points] for a in points]
    bias = w[p + "mixer.bias.table"][:, torch.tensor(index)]
    b, n, c = x.shape
    bias = F.interpolate(bias[None], size=(n, n), mode="bicubic")
    u = F.layer_norm(x, (c,), w[p + "mixer.norm.weight"], w[p + "mixer.norm.bias"])
    q, k, v = (u @ w[p + "mixer.qkv.weight"].T + w[p + "mixer.qkv.bias"]).reshape(b, n, 8, 192).split([32, 32, 128], dim=-1)
    weights = (torch.einsum("bihe,bjhe->bhij", q, k) * 32**-0.5 + bias).softmax(-1)
    o = torch.einsum("bhij,bjhe->bihe", weights, v).reshape(b, n, 1024)
    x = x + w[p + "mixer.gamma"] * (o @ w[p + "mixer.out.weight"].T + w[p + "mixer.out.bias"])
    u = F.layer_norm(x, (c,), w[p + "mlp.norm.weight"], w[p + "mlp.norm.bias"])
    u = u @ w[p + "mlp.up.weight"].T + w[p + "mlp.up.bias"]
    u = u * 0.5 * (1 + torch.erf(u / 2**0.5))
    return x + w[p + "mlp.gamma"] * (u @ w[p + "mlp.down.weight"].T + w[p + "mlp.down.bias"])


@pytest.mark.parametrize(("variant", "vit"), [("l1", 1), ("l3", 4), ("l7", 8)])
def test_one_flatten(variant, vit):
    """Between the last map block and the first token block; besides it, attention rearranges three times (qkv, bias, result)."""
    graph = archdsl.load(SPEC).elaborate(variant).graph
    assert _rearranges(graph) == 1 + 3 * vit


def _rearranges(graph) -> int:
    """Those that the outputs depend on."""
    used, count = set(graph.outputs), 0
    for node in reversed(graph.nodes):
        if used.isdisjoint(node.values):
            continue
        used.update(node.operands())
        count += node.op == "rearrange"
        if node.op == "call":
            count += _rearranges(node.attrs["graph"])
    return count


@pytest.mark.parametrize(("changes", "words"), [
    ({"vit": 5}, "has 4 blocks, not 5"), ({"widths": [47, 96, 224, 448]}, "halves the first width"),
    ({"stages.*.blocks.*.pool": 4}, "would shift the map"),
])
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ArchError, match=words):
        archdsl.load(SPEC).build(**changes)


def test_another_image_needs_another_table():
    with pytest.raises(ValueError, match="build with another `size`"):
        ours((64, 64), 1)(torch.zeros(1, 3, 64, 96, dtype=F64))
