"""HAT against spandrel's, which loads the official files, and against its equations; without its two additions it is SwinIR."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/vision/hat.arch"
F64 = torch.float64
TINY = {"d": 24, "heads": 2, "window": 4, "compress": 5, "squeeze": 7, "features": 6, "side": 16}
SHADE = torch.tensor([0.4488, 0.4371, 0.4040], dtype=F64)[:, None, None]
quiet = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def ours(depths: list[int], scale: int, **changes):
    return archdsl.load(SPEC).build(depths=depths, scale=scale, dtype=F64, **{**TINY, **changes})


def theirs(depths: list[int], scale: int, d=24, heads=2, window=4, compress=5, squeeze=7, features=6, side=16, overlap=0.5, conv_scale=0.01, ratio=2,
           channels=3):
    hat = pytest.importorskip("spandrel.architectures.HAT", reason="spandrel is in the `parity` extra").HAT
    return hat(img_size=side, in_chans=channels, embed_dim=d, depths=depths, num_heads=[heads] * len(depths), window_size=window,
               compress_ratio=compress, squeeze_factor=squeeze, conv_scale=conv_scale, overlap_ratio=overlap, mlp_ratio=ratio, upscale=scale,
               upsampler="pixelshuffle", num_feat=features)


def exact(model: Any) -> Any:
    """With the colour's mean in float64; theirs is rounded to float32 first."""
    if model.mean.shape[1] == 3:
        model.mean = SHADE[None]
    return model


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("name", "d", "compress", "squeeze", "groups"), [("small", 144, 24, 24, 6), ("", 180, 3, 30, 6), ("large", 180, 3, 30, 12)])
def test_counts(name, d, compress, squeeze, groups, scale):
    """Each term from the equations, then the sum."""
    def conv(i, o, k=3):
        return k * k * i * o + o

    attention, mlp = 4 * d * d + 4 * d, 4 * d * d + 3 * d
    branch = conv(d, d // compress) + conv(d // compress, d) + conv(d, d // squeeze, 1) + conv(d // squeeze, d, 1)
    block = 4 * d + attention + 6 * 31**2 + mlp + branch
    overlap = 4 * d + attention + 6 * 39**2 + mlp
    upsampler = {2: conv(64, 256), 3: conv(64, 576), 4: 2 * conv(64, 256)}[scale]
    ends = conv(3, d) + 2 * d + 2 * d + conv(d, d) + conv(d, 64) + upsampler + conv(64, 3)
    variant = f"{name}_x{scale}" if name else f"x{scale}"
    assert archdsl.load(SPEC).cost(variant).params == groups * (6 * block + overlap + conv(d, d)) + ends


@quiet
@pytest.mark.parametrize(("name", "scale", "sizes"), [
    ("x4", 4, {"d": 180, "compress": 3, "squeeze": 30}), ("small_x3", 3, {"d": 144, "compress": 24, "squeeze": 24}),
])
def test_counts_are_spandrels(name, scale, sizes):
    peer = theirs([6] * 6, scale, heads=6, window=16, features=64, side=64, **sizes)
    assert archdsl.load(SPEC).cost(name).params == sum(p.numel() for p in peer.parameters())


@quiet
@pytest.mark.parametrize(("depths", "scale", "shape", "changes"), [
    ([2, 3], 4, (1, 3, 16, 16), {}),
    ([2], 4, (1, 3, 13, 18), {}),
    ([2], 2, (2, 3, 8, 20), {"overlap": 1.0, "conv_scale": 0.7}),
    ([1, 2], 3, (1, 3, 9, 5), {"overlap": 0, "ratio": 3, "heads": 3}),
    ([2], 8, (1, 3, 3, 4), {"features": 4}),
    ([3], 2, (3, 3, 11, 7), {"window": 6, "overlap": 0.34, "compress": 3, "squeeze": 24}),
    ([2], 2, (1, 3, 12, 8), {"side": 4}),
    ([2], 2, (1, 1, 7, 8), {"channels": 1}),
])
def test_is_spandrels(depths, scale, shape, changes):
    """Maps of other sizes than in training, padded or not; one training window leaves everything unshifted; the table of offsets wraps."""
    peer = theirs(depths, scale, **changes).double()
    prove(ours(depths, scale, **changes), peer, image(*shape), source="official", call=lambda m, x: m(x), reference=exact)


@pytest.mark.proof
@quiet
def test_the_sizes_of_the_paper():
    """One group at full width, with windows of 16 inside a map that needs padding. Torch's convolution on CPU rounds otherwise for maps whose
    channels lie side by side, as they do behind our windows: theirs is told to keep them so too."""
    sizes = {"d": 180, "heads": 6, "window": 16, "compress": 3, "squeeze": 30, "features": 64, "side": 64}
    peer = theirs([2], 4, **sizes).double().to(memory_format=torch.channels_last)
    prove(ours([2], 4, **sizes), peer, image(1, 3, 24, 37), source="official", call=lambda m, x: m(x), reference=exact)


@quiet
@pytest.mark.parametrize(("scale", "shape"), [(4, (1, 3, 16, 20)), (3, (2, 3, 9, 14)), (1, (1, 3, 10, 12)), (1, (2, 1, 11, 7))])
def test_without_its_additions_it_is_swinir(scale, shape):
    swinir = pytest.importorskip("spandrel.architectures.SwinIR", reason="spandrel is in the `parity` extra").SwinIR
    peer = swinir(img_size=8, in_chans=shape[1], embed_dim=24, depths=[2, 3], num_heads=[2, 2], window_size=4, mlp_ratio=2, upscale=scale,
                  upsampler="pixelshuffle" if scale > 1 else "")
    mine = ours([2, 3], scale, compress=None, overlap=None, features=64, channels=shape[1])
    prove(mine, peer.double(), image(*shape), source="official", call=lambda m, x: m(x), reference=exact)


def test_a_branch_of_scale_zero_is_no_branch():
    """The ablation as two settings; the model without the branch has the other's weights."""
    whole, bare = ours([2, 2], 2, conv_scale=0, overlap=None), ours([2, 2], 2, compress=None, overlap=None)
    randomise(whole)
    kept = {k: v for k, v in whole.state_dict().items() if k in bare.state_dict()}
    assert len(kept) < len(whole.state_dict())
    bare.load_state_dict(kept)
    x = image(1, 3, 10, 13)
    assert torch.equal(whole.eval()(x), bare.eval()(x))


# ---------------------------------------------------------------- the equations in plain torch, cell by cell
@pytest.mark.parametrize(("depths", "shape", "scale", "overlap"), [([2], (1, 3, 8, 12), 2, 0.5), ([3, 1], (2, 3, 7, 5), 3, 1.0)])
def test_equations(depths, shape, scale, overlap):
    model = ours(depths, scale, overlap=overlap, conv_scale=0.3).eval()
    randomise(model)
    x, w = image(*shape), model.state_dict()
    leaf, copy = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, want = model(leaf), _hat(copy, w, depths, scale, 4, 4 + int(overlap * 4))
    assert got.shape == (shape[0], 3, scale * shape[2], scale * shape[3]) and want.std() > 1e-2
    assert relative(got, want) <= EXACT
    probe = torch.randn(want.shape, dtype=F64)
    assert relative(torch.autograd.grad((got * probe).sum(), leaf)[0], torch.autograd.grad((want * probe).sum(), copy)[0]) <= EXACT


def _conv(x, w, at, pad=1):
    return F.conv2d(x, w[at + ".weight"], w[at + ".bias"], padding=pad)


def _linear(x, w, at):
    return x @ w[at + ".weight"].T + w[at + ".bias"]


def _norm(x, w, at):
    u = x - x.mean(-1, keepdim=True)
    return u / (u.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[at + ".weight"] + w[at + ".bias"]


def _gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def _mlp(x, w, at):
    return _linear(_gelu(_linear(x, w, at + ".up")), w, at + ".down")


def _attend(q, ks, vs, bias):
    """One query [B, c] on keys [n, B, c] with a bias [n, heads]; two heads."""
    (b, c), n = q.shape, ks.shape[0]
    scores = torch.einsum("bhe,nbhe->bhn", q.view(b, 2, c // 2), ks.view(n, b, 2, c // 2)) * (c // 2) ** -0.5 + bias.T
    return torch.einsum("bhn,nbhe->bhe", scores.softmax(-1), vs.view(n, b, 2, c // 2)).reshape(b, c)


def _windows(x, w, at, m, shift):
    """A cell of the map attends to those cells of its (moved) window that are its neighbours in the map without going round."""
    _, H, W, _ = x.shape
    q, k, v = (_linear(x, w, f"{at}.{n}") for n in "qkv")
    out = torch.zeros_like(x)
    for r in range(H):
        for c in range(W):
            def place(i, size):
                return (i - shift) % size  # where the cell lies after the roll
            cells = [(i, j) for i in range(H) for j in range(W)
                     if place(i, H) // m == place(r, H) // m and place(j, W) // m == place(c, W) // m and abs(i - r) < m and abs(j - c) < m]
            index = [(r - i + m - 1) * (2 * m - 1) + c - j + m - 1 for i, j in cells]
            ks, vs = (torch.stack([t[:, i, j] for i, j in cells]) for t in (k, v))
            out[:, r, c] = _attend(q[:, r, c], ks, vs, w[at + ".bias.table"][index])
    return _linear(out, w, at + ".out")


def _overlapping(x, w, at, m, o):
    """Keys and values beyond the map are zero vectors that have a bias and a share of the softmax."""
    B, H, W, C = x.shape
    q, k, v = (_linear(x, w, f"{at}.{n}") for n in "qkv")
    nothing, side, out = x.new_zeros(B, C), m + o - 1, torch.zeros_like(x)
    for r in range(H):
        for c in range(W):
            top, left = r // m * m - (o - m) // 2, c // m * m - (o - m) // 2
            ks, vs, index = [], [], []
            for i in range(o):
                for j in range(o):
                    inside = 0 <= top + i < H and 0 <= left + j < W
                    ks.append(k[:, top + i, left + j] if inside else nothing)
                    vs.append(v[:, top + i, left + j] if inside else nothing)
                    index.append(((i - r % m + m - o + 1) * side + j - c % m + m - o + 1) % side**2)
            out[:, r, c] = _attend(q[:, r, c], torch.stack(ks), torch.stack(vs), w[at + ".bias.table"][index])
    return _linear(out, w, at + ".out")


def _hat(image, w, depths, scale, m, o):
    H, W = image.shape[2:]
    x0 = _conv(F.pad(image - SHADE, (0, -W % m, 0, -H % m), mode="reflect"), w, "conv_first")
    t = _norm(x0.permute(0, 2, 3, 1), w, "embed_norm")
    for g, depth in enumerate(depths):
        u = t
        for j in range(depth):
            at = f"layers.{g}.blocks.{j}"
            n = _norm(u, w, at + ".norm1")
            y = _conv(_gelu(_conv(n.permute(0, 3, 1, 2), w, at + ".conv.down")), w, at + ".conv.up")
            s = _conv(_conv(y.mean((2, 3), keepdim=True), w, at + ".conv.gate.down", 0).clamp_min(0), w, at + ".conv.gate.up", 0)
            u = u + _windows(n, w, at + ".attn", m, m // 2 * (j % 2)) + 0.3 * (y / (1 + torch.exp(-s))).permute(0, 2, 3, 1)
            u = u + _mlp(_norm(u, w, at + ".norm2"), w, at + ".mlp")
        at = f"layers.{g}.overlap"
        u = u + _overlapping(_norm(u, w, at + ".norm"), w, at, m, o)
        u = u + _mlp(_norm(u, w, at + "_mlp.norm"), w, at + "_mlp")
        t = t + _conv(u.permute(0, 3, 1, 2), w, f"layers.{g}.conv").permute(0, 2, 3, 1)
    x = _conv(x0 + _conv(_norm(t, w, "norm").permute(0, 3, 1, 2), w, "conv_after"), w, "conv_before")
    x = F.pixel_shuffle(_conv(torch.where(x > 0, x, 0.01 * x), w, "up.0.conv"), scale)
    return _conv(x, w, "conv_last")[:, :, : scale * H, : scale * W] + SHADE


# ---------------------------------------------------------------- training and mistakes
def test_the_branch_is_never_dropped():
    """With a rate of 1 the last block keeps its convolutional branch and nothing else."""
    model = ours([1, 1], 2, drop_path=1, conv_scale=0.5)
    randomise(model)
    x = image(2, 3, 8, 8)
    trained = model.train()(x)
    same = ours([1, 1], 2, conv_scale=0.5).eval()
    same.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name in ("attn.out", "mlp.down"):
            for kind in ("weight", "bias"):
                same.get_parameter(f"layers.1.blocks.0.{name}.{kind}").zero_()
    assert relative(trained, same(x)) <= EXACT
    with torch.no_grad():
        same.get_parameter("layers.1.blocks.0.conv.up.weight").zero_()
    assert relative(trained, same(x)) > 1e-3


def test_rates_rise_over_all_blocks():
    graph = archdsl.load(SPEC).elaborate(knobs={"depths": [2, 3], "drop_path": 0.4})
    rates = sorted({float(n.attrs["rate"]) for g in graph.graph.definitions() for n in g.nodes if n.op == "drop_path"})
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_fresh_weights():
    w = archdsl.load(SPEC).build("small_x2", depths=[2], seed=3).state_dict()
    for name in ("blocks.1.attn.q.weight", "overlap_mlp.up.weight", "blocks.0.attn.bias.table", "overlap.bias.table"):
        assert w["layers.0." + name].std().item() == pytest.approx(0.02, rel=0.05), name
    assert not w["layers.0.overlap.out.bias"].any() and w["conv_first.bias"].any()


@pytest.mark.parametrize(("changes", "words"), [
    ({"side": 2}, "a window of 4 does not fit"), ({"overlap": 0.25}, "windows of 5 do not lie evenly around windows of 4"), ({"heads": 5}, "24 / 5"),
    ({"scale": 5}, "no arm"),
])
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ArchError, match=words):
        ours([1], changes.pop("scale", 2), **changes)


def test_an_image_too_small_for_its_reflection():
    with pytest.raises(ValueError, match="too few rows to be padded to windows of 4 by reflection"):
        ours([1], 2)(image(1, 3, 2, 8))
