"""The placements of norms against their equations in plain torch."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import EXACT, randomise, relative

SPEC = "specs/language/peri_ln.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=53, d=24, depth=3, heads=4, kv_heads=2, hidden=40)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 53, shape, generator=torch.Generator().manual_seed(3))


def rope(x, base=10_000.0):
    t, w = x.shape[-2:]
    z = torch.polar(torch.ones(t, w // 2, dtype=F64), torch.arange(t)[:, None] * base ** (-torch.arange(0, w, 2, dtype=F64) / w))
    turned = torch.complex(x[..., : w // 2], x[..., w // 2 :]) * z
    return torch.cat([turned.real, turned.imag], -1)


def decoder(s, x, placement, kind, embed_norm):
    """x [B, T] of tokens, s the state dict: logits."""

    def norm(name, v):
        if kind == "rms":
            return s[f"{name}.weight"] * v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return F.layer_norm(v, v.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)

    def attention(name, v):
        q, k, u = (F.linear(v, s[f"{name}.{n}.weight"]).unflatten(-1, (-1, 6)).transpose(1, 2) for n in "qkv")
        k, u = k.repeat_interleave(2, 1), u.repeat_interleave(2, 1)
        scores = rope(q) @ rope(k).mT / 6**0.5
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
        return F.linear((scores.softmax(-1) @ u).transpose(1, 2).flatten(2), s[f"{name}.out.weight"])

    def mlp(name, v):
        return F.linear(F.silu(F.linear(v, s[f"{name}.gate.weight"])) * F.linear(v, s[f"{name}.up.weight"]), s[f"{name}.down.weight"])

    x = s["embed.weight"][x]
    if embed_norm:
        x = norm("embed_norm", x)
    for i in range(3):
        for f, name in ((attention, f"layers.{i}.attn"), (mlp, f"layers.{i}.mlp")):
            match placement:
                case "pre":
                    x = x + f(name, norm(f"{name}.norm", x))
                case "post":
                    x = norm(f"{name}.norm", x + f(name, x))
                case "peri":
                    x = x + norm(f"{name}.norm_out", f(name, norm(f"{name}.norm_in", x)))
                case "output":
                    x = x + norm(f"{name}.norm", f(name, x))
    return F.linear(x if placement == "post" else norm("norm", x), s["head.weight"])


@pytest.mark.parametrize("placement", ["pre", "post", "peri", "output"])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_equations(placement, kind):
    model = archdsl.load(SPEC).build(dtype=F64, placement=placement, kind=kind, **SIZES)
    randomise(model)
    x = tokens(2, 11)
    state = {k: v.detach().clone().requires_grad_() for k, v in model.state_dict().items()}
    want, got = decoder(state, x, placement, kind, placement == "peri"), model(x)
    assert relative(got, want) <= EXACT
    probe = torch.randn(want.shape, dtype=F64)
    names, params = zip(*model.named_parameters())
    mine, theirs = torch.autograd.grad((got * probe).sum(), params), torch.autograd.grad((want * probe).sum(), [state[n] for n in names])
    largest = max(g.abs().max() for g in theirs)
    assert largest > 0 and all((a - b).abs().max() <= EXACT * largest for a, b in zip(mine, theirs))


@pytest.mark.parametrize(("placement", "changes"), [("peri", False), ("output", False), ("pre", True)])
def test_output_norms_hide_the_scale_of_a_branch(placement, changes):
    model = archdsl.load(SPEC).build(dtype=F64, placement=placement, eps=1e-12, **SIZES)
    randomise(model)
    before = model(tokens(1, 9))
    with torch.no_grad():
        model.get_parameter("layers.1.attn.out.weight").mul_(10)
        model.get_parameter("layers.2.mlp.down.weight").mul_(0.1)
    assert (relative(model(tokens(1, 9)), before) > 1e-3) == changes


def test_variance_grows_linearly_under_peri():
    """At the start each branch adds a variance of about 1, so a layer adds about 2."""
    torch.manual_seed(0)
    model = archdsl.load(SPEC).build(emit=("stream", "layers.*.stream"), vocab=512, d=256, depth=24, heads=4, hidden=512, eps=1e-12)
    with torch.no_grad():
        _, seen = model(torch.randint(0, 512, (2, 64)))
    variance = torch.stack([v.var() for v in seen.values()])
    assert len(variance) == 25
    line = torch.linspace(0, 24, 25)
    assert torch.corrcoef(torch.stack([line, variance]))[0, 1] ** 2 > 0.98
    assert 1.3 < (variance[-1] - variance[0]) / 24 < 3.5
