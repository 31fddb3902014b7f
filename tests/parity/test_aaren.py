"""Aaren against the formula that it stands for, softmax of one query over each prefix; its baseline against torch's encoder layers; the merging of
states, whatever the scores."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.streaming.forms import agree

SPEC = "specs/general/aaren.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(d=12, depth=2, heads=3, hidden=20)
BLOCK = """use std.memories { Aaren, MergedPrefixes }
model Masked(d: int = 6)(x: [B, T, d], valid: bool[B, T]) -> y: [B, T, d] stream T { return Aaren(heads = 2)(x, valid) as mix }
model Merged(w: int = 4)(m: f32[B, H], c: f32[B, H], a: f32[B, H, w], n: f32[B, H], d: f32[B, H], b: f32[B, H, w])
  -> (m: f32[B, H], c: f32[B, H], a: f32[B, H, w]) { return MergedPrefixes()(m, c, a, n, d, b) }
"""
MODELS = archdsl.loads(BLOCK, "block.arch").models


def by_formula(w: dict[str, Any], x: torch.Tensor, heads: int, depth: int) -> torch.Tensor:
    """All prefixes at once, each with its own softmax."""
    for i in range(depth):
        a, m = (lambda n, s=s, i=i: w[f"layers.{i}.{s}.{n}"] for s in ("attn", "mlp"))
        x = F.layer_norm(x + mixed(a, x, heads), x.shape[-1:], a("norm.weight"), a("norm.bias"))
        y = F.linear(F.relu(F.linear(x, m("up.weight"), m("up.bias"))), m("down.weight"), m("down.bias"))
        x = F.layer_norm(x + y, x.shape[-1:], m("norm.weight"), m("norm.bias"))
    return x


def mixed(a: Any, x: torch.Tensor, heads: int, valid: torch.Tensor | None = None) -> torch.Tensor:
    q = F.linear(a("query"), a("q.weight"), a("q.bias")).unflatten(-1, (heads, -1))
    k, v = (F.linear(x, a(f"{n}.weight"), a(f"{n}.bias")).unflatten(-1, (heads, -1)) for n in "kv")
    scores = (k * q).sum(-1) / q.shape[-1] ** 0.5
    ys = []
    for t in range(1, x.shape[1] + 1):
        s = scores[:, :t] if valid is None else scores[:, :t].masked_fill(~valid[:, :t, None], float("-inf"))
        p = torch.nan_to_num(torch.softmax(s, 1)) if valid is not None else torch.softmax(s, 1)
        ys.append((p[..., None] * v[:, :t]).sum(1).flatten(-2))
    return F.linear(torch.stack(ys, 1), a("out.weight"), a("out.bias"))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 131)])
def test_aaren(shape: tuple[int, int]):
    ours = archdsl.load(SPEC).build("aaren", dtype=F64, **SIZES)
    randomise(ours)
    x = torch.randn(*shape, 12, dtype=F64, requires_grad=True)
    weights = dict(ours.named_parameters())
    got, want = ours(x), by_formula(weights, x, 3, 2)
    assert relative(got, want) <= EXACT
    probe = torch.randn_like(want)
    every = [x, *weights.values()]
    for mine, theirs in zip(*(torch.autograd.grad((y * probe).sum(), every) for y in (got, want)), strict=True):
        assert (mine - theirs).abs().max() <= EXACT * max(1, theirs.abs().max())
    assert relative(ours.float()(x.float()), want) <= 1e-5


def test_masked():
    """Padded positions count for nothing; where nothing has counted yet, the mixer gives its output's bias."""
    ours = MODELS["Masked"].build(dtype=F64)
    randomise(ours)
    x, valid = torch.randn(2, 9, 6, dtype=F64, requires_grad=True), torch.rand(2, 9, generator=torch.Generator().manual_seed(0)) > 0.4
    valid[0, :3] = False
    w = {k.removeprefix("mix."): p for k, p in ours.named_parameters()}
    got = ours(x, valid)
    assert relative(got, mixed(w.__getitem__, x, 2, valid)) <= EXACT and torch.equal(got[0, 0], w["out.bias"])
    grad = torch.autograd.grad(got.square().sum(), x)[0]
    assert grad.isfinite().all() and not grad[~valid].any() and grad[valid].abs().sum(-1).all()
    alone = ours(x[:1, 3:][:, valid[0, 3:]], torch.ones(1, int(valid[0].sum()), dtype=torch.bool))
    assert relative(got[:1][:, valid[0]], alone) <= EXACT


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_baseline_is_torchs_encoder(act: str):
    layer = torch.nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, activation=act, batch_first=True)
    peer = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    ours = archdsl.load(SPEC).build("transformer", dtype=F64, act=act, **SIZES)
    mask = torch.ones(7, 7).triu(1).bool()
    prove(ours, peer, torch.randn(3, 7, 12, dtype=F64), source="torch", call=lambda m, x: m(x, mask=mask))


def test_query_is_no_token():
    """The last output of a layer stays when earlier positions change places, and the first layer's is no self-attention."""
    ours = archdsl.load(SPEC).build("aaren", dtype=F64, **{**SIZES, "depth": 1})
    randomise(ours)
    x = torch.randn(2, 8, 12, dtype=F64)
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4, 7])
    assert relative(ours(x[:, order])[:, -1], ours(x)[:, -1]) <= EXACT and relative(ours(x[:, order])[:, -2], ours(x)[:, -2]) > 1e-3


# ---------------------------------------------------------------- the scan
def extend(scores: torch.Tensor, v: torch.Tensor, state: Any = None) -> Any:
    from archdsl.ops.memories import prefix_attention as scan

    found = scan._kernel(scores, v, *(state or (None, None, None)))
    return found[0], found[1:]


@pytest.mark.parametrize("cut", [0, 1, 64, 100, 129, 130])
def test_states_merge(cut: int):
    """Those of two halves give that of the whole, in any order; a half of nothing changes nothing."""
    g = torch.Generator().manual_seed(3)
    scores, v = 80 * torch.randn(2, 3, 130, generator=g, dtype=F64), torch.randn(2, 3, 130, 4, generator=g, dtype=F64)
    merge = MODELS["Merged"].build(dtype=F64)
    zeros = extend(scores[..., :1], v[..., :1, :])[1]
    a, b = (extend(s, x)[1] if s.shape[-1] else tuple(map(torch.zeros_like, zeros)) for s, x in (
        (scores[..., :cut], v[..., :cut, :]), (scores[..., cut:], v[..., cut:, :])))
    whole = extend(scores, v)[1]
    for one, other in ((a, b), (b, a)):
        assert all(relative(x, y) <= EXACT for x, y in zip(merge(*one, *other), whole))


def test_merging_is_associative():
    g = torch.Generator().manual_seed(4)
    merge = MODELS["Merged"].build(dtype=F64)
    triples = [(50 * torch.randn(5, 2, generator=g, dtype=F64), 1 + torch.rand(5, 2, generator=g, dtype=F64),
                torch.randn(5, 2, 4, generator=g, dtype=F64)) for _ in range(3)]
    triples[1][1][0], triples[1][2][0] = 0, 0  # the identity, whatever its peak
    a, b, c = triples
    left, right = merge(*merge(*a, *b), *c), merge(*a, *merge(*b, *c))
    assert all(relative(x, y) <= EXACT for x, y in zip(left, right))
    assert all(torch.equal(x[0], y[0]) for x, y in zip(merge(*a, *b), a))


@pytest.mark.parametrize("sizes", [[1] * 67, [7] * 9 + [4], [64, 3], [67]])
def test_blocks_of_any_size(sizes: list[int]):
    g = torch.Generator().manual_seed(5)
    scores, v = 20 * torch.randn(2, 67, generator=g, dtype=F64), torch.randn(2, 67, 3, generator=g, dtype=F64)
    got, state = [], None
    for s, x in zip(scores.split(sizes, -1), v.split(sizes, -2)):
        y, state = extend(s, x, state)
        got.append(y)
    want = torch.stack([(torch.softmax(scores[:, :t], -1)[..., None] * v[:, :t]).sum(1) for t in range(1, 68)], 1)
    assert relative(torch.cat(got, 1), want) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_long_and_extreme(dtype: torch.dtype):
    """8,192 positions with scores far beyond what exp can hold: the running softmax in float64, one position after the other."""
    g = torch.Generator().manual_seed(6)
    scores = (2000 * torch.randn(1, 2, 8192, generator=g)).to(dtype)
    scores[:, 1] = torch.linspace(-5000, 5000, 8192)  # each position outshines all before it
    v = torch.randn(1, 2, 8192, 3, generator=g).to(dtype)
    got = extend(scores, v)[0]
    lse = torch.logcumsumexp(scores.double(), -1)
    m, want = torch.zeros(1, 2, 3, dtype=F64), []
    for t in range(8192):
        p = torch.exp(scores[..., t].double() - lse[..., t])[..., None]
        m = m + p * (v[..., t, :].double() - m)
        want.append(m)
    assert got.isfinite().all() and relative(got, torch.stack(want, -2)) <= (1e-10 if dtype == F64 else 1e-5)


def test_forms_and_state():
    """The state is two numbers and a vector for each head and layer, however long the stream; keys and values of the baseline grow."""
    spec = archdsl.load(SPEC)
    for variant in ("aaren", "transformer"):
        agree(spec, variant, T=70, **SIZES)
        agree(spec, variant, T=1, batch=1, **SIZES)
    state = agree(spec, "rl", T=9, dtype=torch.float32, within=1e-4)["state"]
    for T in (1, 10_000):
        assert spec.cost("rl", at={"T": T}, form="step").state_bytes == 3 * (128 + 2) * 4 == sum(s.numel() * 4 for s in state.values()) // 2
    kept, twice = (spec.cost("rl_transformer", at={"T": T}, form="step").state_bytes for T in (1000, 2000))
    assert twice > 1.99 * kept
