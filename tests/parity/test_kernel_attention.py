"""Kernelised attention with relative positions against the sum over all pairs, written out; what it tends to; its models and their forms."""
from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.ops import toeplitz
from tests.parity.proof import EXACT, randomise, relative
from tests.streaming.forms import agree, shaken

F64 = torch.float64
SPEC = "kernel_attention"
Weights = dict[str, torch.Tensor]
USES = "use std.features { DistanceWeights, KernelAttention, MapDistanceWeights, MapKernelAttention, PositiveFeatures, TrigonometricFeatures }\n" \
       "use std.recurrent { PositiveElu }\n"


def one(expression: str, d: int = 6) -> archdsl.Spec:
    return archdsl.loads(f"{USES}model M(d: int = {d})(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {{ return {expression} as mix }}", "one.arch")


def features(w: Weights, y: torch.Tensor, kind: str) -> torch.Tensor:
    """y [..., w] of length 1 or not."""
    if kind == "elu":
        return torch.where(y > 0, y + 1, y.exp())
    rows = w["mix.phi.directions"]
    m = rows.shape[0]
    dots = torch.stack([(y * r).sum(-1) for r in rows], -1)
    square = (y ** 2).sum(-1, keepdim=True)
    if kind == "positive":
        return torch.exp(dots - square / 2) / math.sqrt(m)
    return torch.exp(square / 2) / math.sqrt(m) * torch.cat([dots.sin(), dots.cos()], -1)


def projected(w: Weights, x: torch.Tensor, heads: int, kind: str, normalized: bool) -> list[torch.Tensor]:
    """Features of q and k, and v: [B, h, n, .], all positions on one axis."""
    flat = x.flatten(1, -2)
    found = []
    for name in "qkv":
        y = F.linear(flat, w[f"mix.{name}.weight"], w[f"mix.{name}.bias"]).unflatten(-1, (heads, -1)).transpose(1, 2)
        if name != "v":
            y = features(w, y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt() if normalized else y, kind)
        found.append(y)
    return found


def reference(w: Weights, x: torch.Tensor, heads: int, b: torch.Tensor, seen: torch.Tensor, kind: str = "positive",
              normalized: bool = True) -> torch.Tensor:
    """b [h, n, n] of query i and key j; `seen` [B, n, n]: what attends to what."""
    q, k, v = projected(w, x, heads, kind, normalized)
    scores = torch.einsum("bhim,bhjm->bhij", q, k) * torch.exp(b) * seen[:, None]
    y = scores @ v / scores.sum(-1, keepdim=True)
    return F.linear(y.transpose(1, 2).flatten(2), w["mix.out.weight"], w["mix.out.bias"]).view(x.shape)


def compare(model: Any, x: torch.Tensor, want: Any, *more: Any) -> None:
    w = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()} | dict(model.named_buffers())
    x = x.requires_grad_()
    got, expected = model(x, *more), want(w, x)
    assert expected.abs().max() > 1e-2 and relative(got, expected) <= EXACT
    probe = torch.randn(expected.shape, dtype=F64, generator=torch.Generator().manual_seed(4))
    leaves = [n for n, _ in model.named_parameters()]
    mine = torch.autograd.grad((got * probe).sum(), [x, *model.parameters()])
    theirs = torch.autograd.grad((expected * probe).sum(), [x, *(w[n] for n in leaves)])
    largest = max(g.abs().max() for g in theirs)
    for name, a, b in zip(["x", *leaves], mine, theirs, strict=True):
        assert (a - b).abs().max() <= EXACT * largest, name


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dear", [0, 1 << 40], ids=["fft", "matrix"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("n", "kind", "normalized"), [(1, "positive", True), (9, "positive", True), (23, "positive", False), (23, "elu", True)])
def test_equation(both: bool, n: int, kind: str, normalized: bool, dear: int, monkeypatch: pytest.MonkeyPatch):
    """With numbers by distance that are not symmetric, and a table that reaches further than the sequence."""
    monkeypatch.setattr(toeplitz, "DEAR", dear)
    span = 2 * 25 - 1 if both else 25
    feature = {"positive": "PositiveFeatures(5)", "elu": "PositiveElu()"}[kind]
    norm = "" if normalized else ", qk_norm = identity"
    model = one(f"KernelAttention(2, DistanceWeights(2, {span}), {str(both).lower()}, {feature}{norm})(x)").build(dtype=F64)
    randomise(model)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    seen = torch.ones(2, n, n, dtype=F64) if both else (j <= i).to(F64).expand(2, n, n)

    def want(w: Weights, x: torch.Tensor) -> torch.Tensor:
        lag = (i - j + (24 if both else 0)).clamp(min=0)
        return reference(w, x, 2, w["mix.weights.weight"][:, lag], seen, kind, normalized)

    compare(model, drawn(2, n, 6), want)


def test_trigonometric_features():
    """Their weights may be negative: values as written, where none of the sums is below its floor."""
    model = one("KernelAttention(2, DistanceWeights(2, 17), true, TrigonometricFeatures(400))(x)").build(dtype=F64)
    n = 9
    lag = torch.arange(n)[:, None] - torch.arange(n) + 8
    compare(model, drawn(2, n, 6), lambda w, x: reference(w, x, 2, w["mix.weights.weight"][:, lag], torch.ones(2, n, n, dtype=F64), "trigonometric"))


@pytest.mark.parametrize("dear", [0, 1 << 40], ids=["fft", "matrix"])
@pytest.mark.parametrize(("H", "W"), [(1, 1), (4, 3), (2, 5)])
def test_equation_on_maps(H: int, W: int, dear: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toeplitz, "DEAR", dear)
    text = f"{USES}model M(d: int = 6)(x: [B = 2, H = 4, W = 5, d]) -> y: [B, H, W, d] " \
           "{ return MapKernelAttention(3, MapDistanceWeights(3, 7, 9), PositiveFeatures(4))(x) as mix }"
    model = archdsl.loads(text).build(dtype=F64)
    randomise(model)
    place = torch.arange(H * W)
    rows, columns = (place // W)[:, None] - place // W + 3, (place % W)[:, None] - place % W + 4

    def want(w: Weights, x: torch.Tensor) -> torch.Tensor:
        b = w["mix.weights.weight"].view(3, 7, 9)[:, rows, columns]
        return reference(w, x, 3, b, torch.ones(2, H * W, H * W, dtype=F64))

    compare(model, drawn(2, H, W, 6), want)


def test_padding():
    """What is not valid weighs nothing: the rest is what it is alone."""
    spec = archdsl.loads(f"{USES}model M(d: int = 6)(x: [B, T, d], valid: bool[B, T]) -> y: [B, T, d] "
                         "{ return KernelAttention(2, DistanceWeights(2, 23), true)(x, valid = valid) as mix }")
    model = spec.build(dtype=F64)
    randomise(model)
    x, valid = drawn(1, 12, 6), torch.arange(12)[None] < 8
    assert relative(model(x, valid)[:, :8], model(x[:, :8], valid[:, :8])) <= EXACT


@pytest.mark.parametrize("both", [False, True])
def test_without_distances(both: bool):
    """It is linear attention: with numbers by distance that are all equal too."""
    flag = str(both).lower()
    plain = one(f"KernelAttention(2, none, {flag}, PositiveFeatures(5))(x)").build(dtype=F64)
    table = one(f"KernelAttention(2, DistanceWeights(2, {49 if both else 25}), {flag}, PositiveFeatures(5))(x)").build(dtype=F64)
    randomise(plain)
    table.load_state_dict({**plain.state_dict(), "mix.weights.weight": torch.full((2, 49 if both else 25), 0.3)})
    x = drawn(2, 25, 6)
    assert relative(table(x), plain(x)) <= EXACT
    n = 25
    seen = torch.ones(2, n, n, dtype=F64) if both else torch.ones(n, n, dtype=F64).tril().expand(2, n, n)
    compare(plain, x, lambda w, x: reference(w, x, 2, torch.zeros(2, n, n, dtype=F64), seen))


@pytest.mark.parametrize("orthogonal", [False, True])
def test_tends_to_softmax(orthogonal: bool):
    """More features bring it closer to softmax(q k + b) v: the error falls about as 1 / √m. (Orthogonal ones at a width that has so many.)"""
    d, n, errors = 32, 20, []
    x, b = drawn(1, n, d), drawn(1, 2 * n - 1, seed=3)
    counts = (4, 32) if orthogonal else (16, 64, 256, 1024)
    for m in counts:
        init = f", sqrt({d}) * orthogonal()" if orthogonal else ""
        found = []
        for seed in range(4):
            torch.manual_seed(seed)
            model = one(f"KernelAttention(1, DistanceWeights(1, {2 * n - 1}), true, PositiveFeatures({m}{init}))(x)", d).build(dtype=F64, seed=seed)
            eye = {f"mix.{name}.weight": torch.eye(d) for name in ("q", "k", "v", "out")} | {f"mix.{name}.bias": torch.zeros(d) for name in
                                                                                          ("q", "k", "v", "out")}
            model.load_state_dict({**model.state_dict(), **eye, "mix.weights.weight": b})
            unit = F.normalize(x, dim=-1)
            lag = torch.arange(n)[:, None] - torch.arange(n) + n - 1
            want = torch.softmax(unit @ unit.mT + b[:, lag], -1) @ x
            found.append((model(x) - want).square().mean().sqrt())
        errors.append(torch.stack(found).mean().item())
    falls = [a / b for a, b in pairwise(errors)]
    assert all(f > (1.3 if orthogonal else 1.5) for f in falls), errors
    assert orthogonal or 4 < errors[0] / errors[-1] < 16, errors


@pytest.mark.parametrize("variant", ["lm_tiny", "lm_tiny_elu", "lm_tiny_plain"])
def test_forms(variant: str):
    spec = archdsl.load(SPEC).models["KernelLM"]
    for T, batch, room in ((40, 2, None), (17, 3, 29), (1, 1, None)):
        agree(spec, variant, T, batch, length=room)
    agree(spec, variant, T=33, dtype=torch.float32, within=1e-4)
    lengths = [4, 1, 19]
    whole, packed = shaken(spec.build(variant, dtype=F64)).eval(), spec.build(variant, dtype=F64, form="packed").eval()
    packed.load_state_dict(whole.state_dict())
    x = torch.randint(0, 31, (2, sum(lengths)))
    assert relative(packed(x, torch.tensor(lengths)), torch.cat([whole(part) for part in x.split(lengths, 1)], 1)) <= EXACT


def test_state():
    """Features of keys and values with a 1, for as many positions as there is room; without distances one sum of their products."""
    spec = archdsl.load(SPEC).models["KernelLM"]
    def held(variant: str, *room: int) -> int:
        return sum(v.numel() for v in spec.build(variant, form="step").init_state(1, *room).values() if v.is_floating_point())

    assert held("lm_tiny", 17) == 2 * 3 * 17 * (8 + 9) and held("lm_tiny", 1) == 2 * 3 * (8 + 9)
    assert held("lm_tiny_plain") == 2 * 3 * 8 * 9
    with pytest.raises(ValueError, match="distances for 40 positions"):
        spec.build("lm_tiny")(torch.zeros(1, 41, dtype=torch.int64))


def test_redrawn_directions():
    """New ones behind a forward pass in training, the same for queries and keys; none in evaluation."""
    model = archdsl.load(SPEC).models["KernelBERT"].build("bert_tiny_redrawn", dtype=F64)
    tokens, valid = torch.randint(0, 31, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    name = "layers.0.attn.phi.directions"
    before = model.state_dict()[name].clone()
    first = model.eval()(tokens, valid)
    assert torch.equal(model(tokens, valid), first) and torch.equal(model.state_dict()[name], before)
    torch.manual_seed(0)
    model.train()(tokens, valid)
    after = model.state_dict()[name].clone()
    assert not torch.equal(after, before) and not torch.equal(model.eval()(tokens, valid), first)
    assert abs(after.std().item() - 1) < 0.3 and len([k for k in model.state_dict() if k.startswith("distances")]) == 1


def test_translation_keeps_to_its_masks():
    """The decoder sees no later word, and nothing of the source that is not valid."""
    model = shaken(archdsl.load(SPEC).models["KernelTranslator"].build("translation_tiny", dtype=F64)).eval()
    source, target = torch.randint(1, 31, (2, 9)), torch.randint(1, 31, (2, 7))
    valid = torch.arange(9)[None] < torch.tensor([[9], [5]])
    y = model(source, target, valid)
    assert y.shape == (2, 7, 31)
    late, other = target.clone(), source.clone()
    late[:, 4:], other[1, 5:] = 0, 0
    assert relative(model(source, late, valid)[:, :4], y[:, :4]) <= EXACT and relative(model(source, late, valid)[:, 4:], y[:, 4:]) > 1e-3
    assert relative(model(other, target, valid), y) <= EXACT
    assert relative(model(other, target, torch.ones_like(valid)), y) > 1e-6


def test_images_of_other_sizes():
    """Any map up to the one that there are distances for, and not more; no part of a patch."""
    model = archdsl.load(SPEC).models["KernelViT"].build("vit_tiny").eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == model(torch.zeros(2, 3, 20, 12)).shape == (2, 10)
    with pytest.raises(ValueError, match="images of 32"):
        model(torch.zeros(1, 3, 36, 32))
