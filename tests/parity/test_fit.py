"""FIT by its equations in plain torch: encoder, denoiser and autoregressive form; what of which token may depend on what; costs by the formulas."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from tests.parity.proof import EXACT, randomise, relative, single_precision

SPEC = "specs/vision/fit.arch"
F64 = torch.float64
SMALL = {"s.m": 3, "s.dx": 24, "s.dl": 40, "s.hx": 6, "s.hl": 4, "s.ratio": 2}
IMAGE = {"grid": [2, 3], "side": 6, "patch": 2, **SMALL}  # 2 × 3 sub-images of 3 × 3 patches
TEXT = {"vocab": 17, "t": 4, "n": 5, **SMALL}


def build(name, **knobs):
    return archdsl.load(SPEC).models[name].build(dtype=F64, **knobs)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def ids(*shape, seed=0):
    return torch.randint(17, shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the equations
def linear(w, at, x):
    return F.linear(x, w[f"{at}.weight"], w[f"{at}.bias"])


def norm(w, at, x):
    centred = x - x.mean(-1, keepdim=True)
    return w[f"{at}.weight"] * centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() + w[f"{at}.bias"]


def attention(w, at, x, y, heads, allowed=None):
    """From x [N, T, ·] to y [N, S, ·]; `allowed`: [T, S]."""
    q, k, v = (linear(w, f"{at}.{name}", u).unflatten(-1, (heads, -1)).transpose(1, 2) for name, u in (("q", x), ("k", y), ("v", y)))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return linear(w, f"{at}.out", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def mlp(w, at, x):
    return linear(w, f"{at}.down", F.gelu(linear(w, f"{at}.up", x)))


def layer(w, at, x, heads, allowed=None):
    u = norm(w, f"{at}.attn.norm", x)
    x = x + attention(w, f"{at}.attn", u, u, heads, allowed)
    return x + mlp(w, f"{at}.mlp", norm(w, f"{at}.mlp.norm", x))


def read(w, at, x, y, heads):
    x = x + attention(w, at, norm(w, f"{at}.norm", x), norm(w, f"{at}.norm_memory", y), heads)
    return x + mlp(w, f"{at}.mlp", norm(w, f"{at}.mlp.norm", x)) if f"{at}.mlp.up.weight" in w else x


def trunk(w, plan, x, l, hx=6, hl=4, memory=None, ordered=False):
    """x: [B, t, n, dx], l: [B, t, m, dl]; groups one by one. `plan`: the pairs of a layout."""
    (b, t, n, _), m = x.shape, l.shape[2]
    over = torch.tensor([[j // m <= i // m for j in range(t * m)] for i in range(t * m)]) if ordered else None
    within = torch.ones(n, n, dtype=torch.bool).tril() if ordered else None
    for i, (near, far) in enumerate(plan):
        at = f"blocks.{i}"
        for j in range(near):
            x = torch.stack([layer(w, f"{at}.tokens.{j}", x[:, g], hx, within) for g in range(t)], 1)
        if far == 0:
            continue
        l = torch.stack([read(w, f"{at}.gather", l[:, g], x[:, g], min(hx, hl)) for g in range(t)], 1)
        z = l.reshape(b, t * m, -1)
        if memory is not None:
            z = read(w, f"{at}.condition", z, memory, hl)
        for j in range(far):
            z = layer(w, f"{at}.latents.{j}", z, hl, over)
        l = z.reshape(b, t, m, -1)
        if i + 1 < len(plan):
            told = [torch.zeros_like(l[:, 0]) if ordered and g == 0 else l[:, g - ordered] for g in range(t)]
            x = torch.stack([read(w, f"{at}.scatter", x[:, g], told[g], min(hx, hl)) for g in range(t)], 1)
    return x, l


def patches(image, side, patch):
    """Sub-images in rows, their patches in rows, the pixels of a patch in rows with the channels last."""
    groups = []
    for top in range(0, image.shape[2], side):
        for left in range(0, image.shape[3], side):
            sub = image[:, :, top : top + side, left : left + side]
            cut = [sub[:, :, y : y + patch, x : x + patch] for y in range(0, side, patch) for x in range(0, side, patch)]
            groups.append(torch.stack([p.permute(0, 2, 3, 1).flatten(1) for p in cut], 1))
    return torch.stack(groups, 1)


def image_of(tokens, rows, columns, side, patch):
    image = tokens.new_zeros(tokens.shape[0], 3, rows * side, columns * side)
    for g in range(tokens.shape[1]):
        for k in range(tokens.shape[2]):
            top, left = g // columns * side + k // (side // patch) * patch, g % columns * side + k % (side // patch) * patch
            image[:, :, top : top + patch, left : left + patch] = tokens[:, g, k].reshape(-1, patch, patch, 3).permute(0, 3, 1, 2)
    return image


def stem(w, image):
    return norm(w, "stem_norm", linear(w, "stem", patches(image, 6, 2))) + w["positions"]


def table(w, batch):
    return w["latents"].expand(batch, *w["latents"].shape)


def encoder(w, plan, image):
    x, l = trunk(w, plan, stem(w, image), table(w, len(image)))
    return norm(w, "norm_x", x), norm(w, "norm_l", l)


def time_code(t, d):
    """Scaled by 1000, sines before cosines, then mean 0 and deviation 1 (no eps)."""
    angles = [1000 * t / 10_000 ** (2 * i / d) for i in range(d // 2)]
    code = torch.stack([a.sin() for a in angles] + [a.cos() for a in angles], -1)
    return (code - code.mean(-1, keepdim=True)) / code.std(-1, keepdim=True, unbiased=False)


def denoiser(w, plan, image, time, label, previous=None):
    l = table(w, len(image))
    if "previous_norm.weight" in w:
        z = torch.zeros_like(l) if previous is None else previous
        l = l + norm(w, "previous_norm", z + mlp(w, "previous", norm(w, "previous.norm", z)))
    t = linear(w, "time.out", F.silu(linear(w, "time.up", time_code(time, w["latents"].shape[-1] // 4))))
    x, l = trunk(w, plan, stem(w, image), l, memory=torch.stack([t, linear(w, "label", label)], 1))
    return image_of(linear(w, "head", norm(w, "norm", x)), 2, 3, 6, 2), l


def decoder(w, plan, tokens):
    x = w["embed.weight"][tokens].unflatten(1, (-1, 5)) + w["positions"]
    x, _ = trunk(w, plan, x, table(w, len(tokens))[:, : x.shape[1]], ordered=True)
    return F.linear(norm(w, "norm", x), w["embed.weight"], w["bias"]).flatten(1, 2)


# ---------------------------------------------------------------- parity
def prove(ours, equations, inputs):
    """Outputs, gradients of float inputs and of every weight, single precision."""
    ours.eval()
    w = {k: v.detach().clone().requires_grad_() for k, v in ours.named_parameters()}
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    floats = [x for x in leaves if x.is_floating_point()]
    got, want = ([y] if isinstance(y, torch.Tensor) else list(y) for y in (ours(*leaves), equations(w, *leaves)))
    assert [y.shape for y in got] == [y.shape for y in want]
    assert all(b.std() > 1e-3 and relative(a, b) <= EXACT for a, b in zip(got, want))
    probes = [random(*y.shape, seed=9) for y in want]
    mine, theirs = (torch.autograd.grad(torch.stack([(y * p).sum() for y, p in zip(ys, probes)]).sum(), [*floats, *weights], materialize_grads=True)
                    for ys, weights in ((got, ours.parameters()), (want, w.values())))
    assert all(b.abs().max() > 0 and relative(a, b) <= EXACT for a, b in zip(mine[: len(floats)], theirs[: len(floats)]))
    largest = max(g.abs().max() for g in theirs[len(floats) :])
    for name, a, b in zip(w, mine[len(floats) :], theirs[len(floats) :]):
        assert (a - b).abs().max() <= EXACT * largest, name
    low, weights = ours.float(), {k: v.float() for k, v in w.items()}
    single_precision(lambda *xs: listed(low(*xs)), lambda *xs: listed(equations(weights, *xs)),
                     lambda *xs: listed(equations(w, *(x.double() if x.is_floating_point() else x for x in xs))), inputs)


def listed(y):
    return [y] if isinstance(y, torch.Tensor) else list(y)


def randomised(name, **knobs):
    model = build(name, **knobs)
    randomise(model)
    return model


LAYOUTS = {"(2)2(1)": [(2, 2), (1, 0)], "(1)1(1)1": [(1, 1), (1, 1)], "(0)1(1)2(1)": [(0, 1), (1, 2), (1, 0)]}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_encoder(layout, batch):
    prove(randomised("FIT", **IMAGE, **{"s.layout": layout}), lambda w, x: encoder(w, LAYOUTS[layout], x), [random(batch, 3, 12, 18)])


def test_one_group_of_one_patch_with_one_latent():
    sizes = {**IMAGE, "grid": [1, 1], "side": 2, "s.m": 1, "s.layout": "(1)1(1)"}

    def equations(w, image):
        x = norm(w, "stem_norm", linear(w, "stem", patches(image, 2, 2))) + w["positions"]
        x, l = trunk(w, [(1, 1), (1, 0)], x, table(w, 1))
        return norm(w, "norm_x", x), norm(w, "norm_l", l)

    prove(randomised("FIT", **sizes), equations, [random(1, 3, 2, 2)])


@pytest.mark.parametrize("read_ratio", [None, 3])
@pytest.mark.parametrize("reuse", ["previous", "first", "never"])
def test_denoiser(reuse, read_ratio):
    changes = {"previous": {}, "first": {"previous": None}, "never": {"previous": None, "reuse": False}}[reuse]
    layout = "(1)2(1)1(1)"
    model = randomised("Denoiser", classes=7, read_ratio=read_ratio, **IMAGE, **changes, **{"s.layout": layout})
    inputs = [random(2, 3, 12, 18), torch.tensor([0.3, 0.8], dtype=F64), random(2, 7, seed=1)]
    inputs += [random(2, 6, 3, 40, seed=2)] if reuse == "previous" else []
    prove(model, lambda w, *x: denoiser(w, [(1, 2), (1, 1), (1, 0)], *x), inputs)


@pytest.mark.parametrize("layout", ["(2)2(1)", "(1)1(1)1(1)"])
@pytest.mark.parametrize("groups", [1, 3, 4])
def test_autoregressive(layout, groups):
    plan = {"(2)2(1)": [(2, 2), (1, 0)], "(1)1(1)1(1)": [(1, 1), (1, 1), (1, 0)]}[layout]
    prove(randomised("Autoregressive", **TEXT, **{"s.layout": layout}), lambda w, x: decoder(w, plan, x), [ids(2, 5 * groups)])


# ---------------------------------------------------------------- who depends on whom
def test_a_group_is_alone_until_the_first_global_layer():
    image = random(1, 3, 12, 18)
    other = image.clone()
    other[:, :, 1, 7] += 1  # in the second sub-image of the first row

    def moved(layout):
        model = randomised("FIT", **IMAGE, **{"s.layout": layout}).eval()
        with torch.no_grad():
            return [((a - b).abs().amax((0, 2, 3)) > 1e-12).tolist() for a, b in zip(model(image), model(other))]

    alone = [False, True, False, False, False, False]
    assert moved("(2)") == [alone, [False] * 6]  # nothing reads the tokens
    assert moved("(2)1") == [alone, [True] * 6]
    assert moved("(2)1(1)") == [[True] * 6, [True] * 6]


@pytest.mark.parametrize("layout", ["(1)2(1)", "(1)1(1)1(1)"])
def test_order_of_the_autoregressive_form(layout):
    """Logits at (g, p) depend on all tokens of groups before g and on those of g up to p, and on nothing else."""
    model = randomised("Autoregressive", **TEXT, **{"s.layout": layout}).eval()
    x, groups = ids(1, 15), 3
    base = model(x)
    for g in range(groups):
        for p in range(5):
            other = x.clone()
            other[0, 5 * g + p] = (x[0, 5 * g + p] + 1) % 17
            moved = ((model(other) - base).abs().amax(-1)[0] > 1e-12).unflatten(0, (groups, 5))
            assert not moved[:g].any() and moved[g].tolist() == [q >= p for q in range(5)] and moved[g + 1 :].all()


def test_the_first_group_has_no_latent_information():
    """It reads zeros: other latents change later groups, not this one."""
    model = randomised("Autoregressive", **TEXT).eval()
    x = ids(1, 15)
    before = model(x)
    with torch.no_grad():
        model.get_parameter("latents").mul_(2)
    moved = ((model(x) - before).abs().amax(-1)[0] > 1e-12).tolist()
    assert moved == [False] * 5 + [True] * 10


def test_positions_are_those_of_a_group():
    """Equal groups with equal latents stay equal; tokens trade places only if their positions do."""
    model = randomised("FIT", **IMAGE).eval()
    with torch.no_grad():
        w = model.get_parameter("latents")
        w.copy_(w[:1].expand_as(w).clone())
    assert model.get_parameter("positions").shape == (9, 24)
    x, l = model(random(1, 3, 6, 6).repeat(1, 1, 2, 3))
    assert relative(x, x[:, :1].expand_as(x)) <= 1e-12 and relative(l, l[:, :1].expand_as(l)) <= 1e-12
    assert (x[:, :, :1] - x).abs().max() > 1e-3


def test_previous_latents_count_for_nothing_at_first():
    """The norm behind them starts with a scale of zero; its shift, too, so the table alone is left."""
    first, later, plain = (build("Denoiser", classes=7, **IMAGE, **c) for c in ({"previous": None}, {}, {"previous": None, "reuse": False}))
    image, time, label, previous = random(1, 3, 12, 18), random(1).abs(), random(1, 7), random(1, 6, 3, 40)
    assert torch.count_nonzero(later.get_parameter("previous_norm.weight")) == 0
    for a, b, c in zip(first(image, time, label), later(image, time, label, previous), plain(image, time, label)):
        assert a.std() > 1e-3 and torch.equal(a, b) and torch.equal(a, c)
    with torch.no_grad():
        later.get_parameter("previous_norm.weight").fill_(1)
    assert relative(later(image, time, label, previous)[0], first(image, time, label)[0]) > 1e-4


def test_sampling_hands_its_latents_on():
    """The latents of one step fit the next, of the same weights."""
    first, later = (build("Denoiser", classes=7, **IMAGE, **c) for c in ({"previous": None}, {}))
    randomise(first)
    later.load_state_dict(first.state_dict())
    image, label = random(2, 3, 12, 18), F.one_hot(torch.tensor([1, 4]), 7).to(F64)
    y, latents = first(image, torch.full((2,), 0.9, dtype=F64), label)
    assert relative(later(image, torch.full((2,), 0.9, dtype=F64), label, torch.zeros_like(latents))[0], y) <= 1e-12, "none means zeros"
    assert relative(later(image, torch.full((2,), 0.9, dtype=F64), label, latents)[0], y) > 1e-4


# ---------------------------------------------------------------- costs
def rows(name, variant, at=None, **knobs):
    return {r.path: r for r in archdsl.load(SPEC).models[name].cost(variant, at, **knobs).layers}


def mlp_and_attention(d, r=4):
    return 4 * d * d + 4 * d + 2 * r * d * d + r * d + d + 4 * d


@pytest.mark.parametrize(("variant", "local", "far", "back"), [("enc_a", 4, 4, 1), ("enc_b", 6, 8, 2), ("enc_c", 4, 4, 1)])
def test_parameters_of_the_encoder(variant, local, far, back):
    """Cross-attention is min(dx, dl) wide inside, whatever asks; LayerNorms on both sides; after the last block nothing is read back."""
    gather = 512 * 256 + 256 + 2 * (256 * 256 + 256) + 256 * 512 + 512 + 2 * 512 + 2 * 256
    scatter = 256 * 256 + 256 + 2 * (512 * 256 + 256) + 256 * 256 + 256 + 2 * 256 + 2 * 512
    reads = back + (variant == "enc_c")
    expected = 192 * 256 + 256 + 2 * 256 + 64 * 256 + 128 * 512 + local * mlp_and_attention(256) + far * mlp_and_attention(512)
    expected += reads * gather + back * scatter + 2 * 256 + 2 * 512
    assert archdsl.load(SPEC).cost(variant).params == expected


def test_pairs_of_positions():
    """t n² pairs in a local layer, (t m)² in a global one, each multiplied twice by the width."""
    found = rows("FIT", "enc_a")
    assert found["blocks.0.tokens.0.attn"].macs == 16 * 64 * 4 * 256**2 + 2 * 16 * 64**2 * 256
    assert found["blocks.0.latents.0.attn"].macs == 16 * 8 * 4 * 512**2 + 2 * (16 * 8) ** 2 * 512
    assert found["blocks.0.gather"].macs == 16 * (8 * 512 * 256 * 2 + 64 * 256 * 256 * 2 + 2 * 8 * 64 * 256)


def test_growth():
    """Eight times the tokens in groups twice as large: the pairs of both kinds of layer grow by 8^(4/3)."""
    def pairs(t, n):
        found = rows("Autoregressive", "ar_a", {"T": t * n}, t=t, n=n)
        return (found["blocks.0.tokens.0.attn"].macs - t * n * 4 * 256**2, found["blocks.0.latents.0.attn"].macs - t * 8 * 4 * 512**2)

    assert [b / a for a, b in zip(pairs(16, 64), pairs(64, 128))] == [16, 16]


def test_an_image_of_160_000_tokens_fits_16_gb():
    """The abstract's claim; its sizes are not published, these are enc_a's with patches of 16. Weights count four times: as such, gradients, two
    moments of Adam."""
    cost = archdsl.load(SPEC).cost(grid=[50, 50], side=128, patch=16)
    assert cost.layers[0].output == (1, 2500, 64, 256)
    assert 15e9 < cost.saved_bytes + 4 * cost.weight_bytes < 16e9


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize("layout", ["2(4)", "", "(2)0(2)", "(2", "(2)4(2)x", "(a)1"])
def test_layouts_that_are_none(layout):
    with pytest.raises(ArchError):
        archdsl.load(SPEC).elaborate(knobs={"s.layout": layout})


@pytest.mark.parametrize(("name", "knobs", "words"), [
    ("FIT", {"patch": 7}, "64 / 7"), ("FIT", {"s.hx": 7}, "256 / 7"), ("Denoiser", {"reuse": False}, "previous = none"),
])
def test_what_does_not_fit_is_refused(name, knobs, words):
    with pytest.raises(ArchError, match=words):
        archdsl.load(SPEC).models[name].elaborate(knobs=knobs)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="12"):
        build("FIT", **IMAGE)(random(1, 3, 18, 12))


@pytest.mark.parametrize(("length", "words"), [(14, "groups of 5"), (25, "at most 4 groups")])
def test_lengths_that_do_not_fit(length, words):
    with pytest.raises(ValueError, match=words):
        build("Autoregressive", **TEXT)(ids(1, length))
