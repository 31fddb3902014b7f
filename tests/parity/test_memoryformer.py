"""MemoryFormer against its equations in plain torch: explicit one-hot products, brute force over codes, the whole decoder with gradients."""
from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import EXACT, randomise, relative
from tests.streaming.forms import agree

SPEC = "specs/language/memoryformer.arch"
F64 = torch.float64
TOY: dict[str, Any] = dict(vocab=53, d=24, depth=2, heads=3, bits=4, rotary=4)
LAYER = """
use std.tables { MemoryLayer }
model Layer(d: int = 12, out: int = 5, bits: int = 3)(x: [B = 2, T = 4, d]) -> y: [B, T, out] { return MemoryLayer(out, bits)(x) as m }
"""


def memory(x, tables, bias, bits):
    """bias + OneHot(code) diag(score) T, chunk by chunk."""
    z = x.unflatten(-1, (-1, bits))
    rows = tables.unflatten(0, (z.shape[-2], 2**bits))
    digits = torch.tensor([2 ** (bits - 1 - j) for j in range(bits)])
    code = ((z >= 0).long() * digits).sum(-1)
    likelihood = (z.abs().exp() / (z.exp() + (-z).exp())).prod(-1)
    score = z.abs().sum(-1) * likelihood
    return bias + torch.einsum("...kc,...k,kco->...o", F.one_hot(code, 2**bits).to(x.dtype), score, rows)


def rope(x, base=10_000.0):
    t, w = x.shape[-2:]
    z = torch.polar(torch.ones(t, w // 2, dtype=F64), torch.arange(t)[:, None] * base ** (-torch.arange(0, w, 2, dtype=F64) / w))
    turned = torch.complex(x[..., : w // 2], x[..., w // 2 :]) * z
    return torch.cat([turned.real, turned.imag], -1)


def decoder(s, x, d=24, depth=2, heads=3, bits=4, rotary=4, widen="bits", extra=2, value_dim=8):
    def norm(name, v):
        return s[f"{name}.weight"] * v / (v.square().mean(-1, keepdim=True) + 1e-8).sqrt()

    def table(name, v, b):
        return memory(v, s[f"{name}.tables"], s[f"{name}.bias"], b)

    x = s["embed.weight"][x]
    for i in range(depth):
        u = norm(f"layers.{i}.attn_norm", x)
        q, k, v = (table(f"layers.{i}.attn.{n}", u, bits).unflatten(-1, (heads, -1)).transpose(-2, -3) for n in "qkv")
        q, k = (torch.cat([rope(z[..., :rotary]), z[..., rotary:]], -1) for z in (q, k))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
        a = (scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2)
        surplus = a.shape[-1] - d
        a = a + F.pad(x, (0, surplus))
        h = table(f"layers.{i}.mlp.up", norm(f"layers.{i}.mlp_norm", a), bits)
        h = F.layer_norm(h, h.shape[-1:], s[f"layers.{i}.mlp.norm.weight"], s[f"layers.{i}.mlp.norm.bias"])
        y = table(f"layers.{i}.mlp.down", h, bits + extra if widen == "bits" else bits) + a[..., :d]
        x = y + F.pad(a[..., d:], (0, d - surplus))
    return F.linear(norm("norm", x), s["head.weight"])


@pytest.mark.parametrize("shape", [(2, 9), (1, 1)])
@pytest.mark.parametrize("knobs", [{}, {"widen": "tables"}, {"value_dim": 12}, {"extra": 1}], ids=str)
def test_equations(shape, knobs):
    model = archdsl.load(SPEC).build(dtype=F64, **TOY, **knobs)
    randomise(model)
    x = torch.randint(0, 53, shape, generator=torch.Generator().manual_seed(3))
    state = {k: v.detach().clone().requires_grad_() for k, v in model.state_dict().items()}
    want, got = decoder(state, x, **knobs), model(x)
    assert relative(got, want) <= EXACT
    probe = torch.randn(want.shape, dtype=F64, generator=torch.Generator().manual_seed(4))
    names, params = zip(*model.named_parameters())
    mine = torch.autograd.grad((got * probe).sum(), params)
    theirs = torch.autograd.grad((want * probe).sum(), [state[n] for n in names])
    largest = max(g.abs().max() for g in theirs)
    assert largest > 0 and all((a - b).abs().max() <= EXACT * largest for a, b in zip(mine, theirs))


def test_every_code():
    """All sign patterns of three bits: the first number is the most significant digit, zero counts as positive."""
    model = archdsl.loads(LAYER, "layer.arch").build(dtype=F64, d=3, out=8, bits=3)
    with torch.no_grad():
        model.get_parameter("m.tables").copy_(torch.eye(8))
        model.get_parameter("m.bias").zero_()
        for code, signs in enumerate(itertools.product((-1.0, 1.0), repeat=3)):
            y = model(torch.tensor(signs, dtype=F64).view(1, 1, 3) * 0.7)[0, 0]
            assert y.nonzero().tolist() == [[code]] and y[code] > 0
        assert model(torch.tensor([[[0.0, -1.0, 1.0]]], dtype=F64))[0, 0].nonzero().tolist() == [[5]]


def test_gradients_of_a_layer():
    """Only addressed rows get a gradient, and x gets its own through the scores alone."""
    model = archdsl.loads(LAYER, "layer.arch").build(dtype=F64)
    randomise(model)
    x = torch.randn(2, 4, 12, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(model, (x,))
    model(x).sum().backward()
    code = ((x.detach().unflatten(-1, (4, 3)) >= 0).long() * torch.tensor([4, 2, 1])).sum(-1) + 8 * torch.arange(4)
    hit = torch.zeros(32, dtype=torch.bool).index_fill(0, code.flatten(), True)
    grad = model.get_parameter("m.tables").grad
    assert torch.equal(grad.abs().sum(-1) > 0, hit) and 0 < hit.sum() < 32


def test_one_hash_for_each_attention():
    """The lowered graph hashes once for three tables; the MLP hashes twice."""
    model = archdsl.load(SPEC).build(flat=True, device="meta", **TOY)
    calls = [n.target.__name__ for n in model.graph.nodes if n.op == "call_function" and hasattr(n.target, "__name__")]
    assert calls.count("ge") == 3 * 2 and calls.count("embedding_bag") == 5 * 2


def test_bytes_gathered():
    """Each multiply-accumulate of a table reads one number: 344,064 bytes a token and layer of `tiny` in float16, and 18 times fewer than dense."""
    spec = archdsl.load(SPEC)
    macs = spec.cost("tiny", at={"B": 1, "T": 1}).macs - 512 * 50_304
    layer = macs // 6 - 2 * 512
    assert 2 * layer == 344_064 and 12 * 512**2 / layer > 18


def test_large_values_are_finite():
    model = archdsl.loads(LAYER, "layer.arch").build()
    y = model(torch.full((1, 2, 12), 300.0))
    assert y.isfinite().all() and y.abs().max() > 0


@pytest.mark.parametrize("knobs", [{}, {"widen": "tables"}, {"value_dim": 12}], ids=str)
def test_forms_agree(knobs):
    agree(archdsl.load(SPEC), T=11, **TOY, **knobs)


@pytest.mark.slow
def test_learns_characters():
    """Below the entropy of single characters within a few steps."""
    import this as zen

    text = torch.tensor([ord(c) % 128 for c in zen.s])
    share = torch.bincount(text, minlength=128) / len(text)
    unigram = -(share[share > 0] * share[share > 0].log()).sum()
    model = archdsl.load(SPEC).build(vocab=128, d=64, depth=1, heads=4, bits=4, seed=1)
    best = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        at = torch.randint(0, len(text) - 33, (8,), generator=torch.Generator().manual_seed(_))
        part = text[at[:, None] + torch.arange(33)]
        loss = F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten())
        best.zero_grad()
        loss.backward()
        best.step()
    assert loss < 0.8 * unigram  # pyright: ignore[reportPossiblyUnboundVariable]
