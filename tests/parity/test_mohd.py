"""MoHD against its equations in plain torch with masks, and against transformers' Llama where everything is active."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import EXACT, randomise, relative
from tests.parity.test_moe import without_casts
from tests.streaming.forms import agree

F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=61, d=24, depth=2, heads=4, hidden=40, n=8)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


def rope(x, base=10_000.0):
    t, w = x.shape[-2:]
    z = torch.polar(torch.ones(t, w // 2, dtype=F64), torch.arange(t)[:, None] * base ** (-torch.arange(0, w, 2, dtype=F64) / w))
    turned = torch.complex(x[..., : w // 2], x[..., w // 2 :]) * z
    return torch.cat([turned.real, turned.imag], -1)


def routed(scores, n, active, always):
    """(gates with zeros, mask) [B, T, n], by sorting the routed scores of each row."""
    s = scores.softmax(-1)
    mask = torch.zeros_like(s, dtype=torch.bool)
    mask[..., :always] = True
    best = s[..., always:].argsort(-1, descending=True)[..., : active - always] + always
    mask = mask.scatter(-1, best, True)
    g = torch.where(mask, s, 0)
    return n * g.sum(-1, keepdim=True) * g, mask


def monarch(right, left):
    """The matrix P' L P R."""
    a, b = right.shape[0], left.shape[0]
    swap = torch.zeros(a * b, a * b, dtype=F64)
    for i in range(a):
        for j in range(b):
            swap[j * a + i, i * b + j] = 1
    return swap.T @ torch.block_diag(*left) @ swap @ torch.block_diag(*right)


def decoder(s, x, site, fusion, active, always, vocab, d, depth, heads, hidden, n):
    def norm(name, v):
        return s[f"{name}.weight"] * v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def gates(name, v, width):
        g, mask = routed(F.linear(v, s[f"{name}.router.centroids.weight"]), n, active, always)
        return g.repeat_interleave(width // n, -1), mask.repeat_interleave(width // n, -1)

    def fuse(name, v):
        if fusion == "monarch":
            return v @ monarch(s[f"{name}.fusion.right"], s[f"{name}.fusion.left"]).T
        return v if fusion == "none" else v @ torch.block_diag(*s[f"{name}.fusion.weight"]).T

    def maps(name, v, *which):
        return [F.linear(v, s[f"{name}.{w}.weight"]) for w in which]

    def attend(q, k, v):
        q, k, v = (z.unflatten(-1, (heads, -1)).transpose(1, 2) for z in (q, k, v))
        scores = rope(q) @ rope(k).mT / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    x = s["embed.weight"][x]
    for i in range(depth):
        a, m = f"layers.{i}.attn", f"layers.{i}.mlp"
        u = norm(f"{a}.norm", x)
        if site == "ffn":
            x = x + F.linear(attend(*maps(a, u, "q", "k", "v")), s[f"{a}.out.weight"])
            u = norm(f"{m}.norm", x)
            g, _ = gates(m, u, hidden)
            x = x + F.linear(F.silu(fuse(m, g * maps(m, u, "up")[0])), s[f"{m}.down.weight"])
            continue
        g, mask = gates(a, u, d)
        x = x + fuse(a, mask * F.linear(attend(*maps(a, g * u, "q", "k", "v")), s[f"{a}.out.weight"]))
        u = norm(f"{m}.norm", x)
        g, mask = gates(m, u, d)
        gate, up = maps(m, g * u, "gate", "up")
        x = x + fuse(m, mask * F.linear(F.silu(gate) * up, s[f"{m}.down.weight"]))
    return F.linear(norm("norm", x), s["head.weight"])


CASES = [("model_dim", "monarch", 4, 3, True), ("model_dim", "blocks", 3, 0, True), ("model_dim", "none", 5, 5, False),
         ("model_dim", "monarch", 8, 2, False), ("ffn", "blocks", 4, 3, True), ("ffn", "monarch", 6, 2, False)]


@pytest.mark.parametrize("shape", [(2, 7), (1, 1)])
@pytest.mark.parametrize(("site", "fusion", "active", "always", "sparse"), CASES)
def test_equations(shape, site, fusion, active, always, sparse):
    model = archdsl.load("mohd").build(dtype=F64, site=site, fusion=fusion, active=active / 8, always=always / 8, sparse=sparse, **SIZES)
    randomise(model)
    x = tokens(*shape)
    state = {k: v.detach().clone().requires_grad_() for k, v in model.state_dict().items()}
    want, got = decoder(state, x, site, fusion, active, always, **SIZES), model(x)
    assert relative(got, want) <= EXACT
    probe = torch.randn(want.shape, dtype=F64, generator=torch.Generator().manual_seed(4))
    names, params = zip(*model.named_parameters())
    mine = torch.autograd.grad((got * probe).sum(), params, allow_unused=True)
    theirs = torch.autograd.grad((want * probe).sum(), [state[n] for n in names], allow_unused=True)
    largest = max(g.abs().max() for g in theirs if g is not None)
    for a, b in zip(mine, theirs):
        assert (0 if a is None else a).sub(0 if b is None else b).abs().max() <= EXACT * largest  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("sparse", [False, True])
def test_all_active_is_llama(sparse):
    """With every part active, equal scores and nothing mixed, gates are ones: a dense Llama."""
    transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
    config = transformers.LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                                      rms_norm_eps=1e-5, attn_implementation="sdpa", pad_token_id=None)
    ours = archdsl.load("mohd").build(dtype=F64, fusion="none", active=1, sparse=sparse, **SIZES)
    x = tokens(2, 7)
    peer = transformers.LlamaForCausalLM(config).double()
    randomise(peer)
    llama = archdsl.load("llama").build(dtype=F64, kv_heads=4, head_dim=6, **{k: v for k, v in SIZES.items() if k != "n"})
    archdsl.import_weights(llama, peer.state_dict(), source="hf")
    scores = {k: torch.zeros_like(v) for k, v in ours.state_dict().items() if "centroids" in k}
    ours.load_state_dict({**llama.state_dict(), **scores})
    assert relative(ours(x), without_casts(peer)(x, use_cache=False).logits) <= EXACT


@pytest.mark.parametrize("d", [256, 24, 6])
def test_monarch(d):
    text = "use std.linear { Linear }\n" + MONARCH + f"model M(d: int = {d})(x: [B = 1, T = 3, d]) -> y: [B, T, d] {{ return Monarch()(x) as m }}"
    model = archdsl.loads(text.removeprefix("use std.linear { Linear }\n"), "m.arch").build(dtype=F64)
    x = torch.randn(2, 3, d, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), x), "starts as the identity"
    randomise(model)
    right, left = model.get_parameter("m.right"), model.get_parameter("m.left")
    assert relative(model(x), x @ monarch(right, left).T) <= EXACT
    if d == 256:
        assert right.numel() + left.numel() == 8_192 == 2 * d * 16


def _block(name: str) -> str:
    """The text of a block or function of the spec."""
    with open("specs/language/mohd.arch", encoding="utf-8") as f:
        text = f.read()
    at = text.index(name)
    return text[at : text.index("\n\n", at)] + "\n\n"


MONARCH = _block("fn side") + _block("block Monarch")


def test_exactly_so_many_parts():
    """The shared parts for every token, so many others, also where all scores are equal; then each time the same ones."""
    text = "use std.linear { Linear }\n" + _block("block Parts") + (
        "model M(d: int = 12)(x: [B = 1, T = 5, d]) -> (gates: [B, T, 5], index: int[B, T, 5]) { return Parts(8, 5, 3)(x) as p }")
    model = archdsl.loads(text, "p.arch").build(dtype=F64)
    randomise(model)
    gates, index = model(torch.randn(3, 7, 12, dtype=F64, generator=torch.Generator().manual_seed(0)))
    assert (index[..., :3] == torch.arange(3)).all() and (index.diff(dim=-1) > 0).all() and (gates > 0).all()
    assert len({tuple(i) for i in index.flatten(0, 1).tolist()}) > 3
    _, even = model(torch.zeros(2, 4, 12, dtype=F64))
    assert (even == even[0, 0]).all() and torch.equal(even, model(torch.zeros(2, 4, 12, dtype=F64))[1])


def test_balance():
    """At equal scores any use gives (n - always) (active - always) / (n - always) / n; in general, what the shares of picks and the scores say."""
    model = archdsl.load("mohd").build(dtype=F64, emit=("layers.*.*.router.*",), active=4 / 8, always=2 / 8, **SIZES)
    randomise(model)
    x = tokens(2, 9)
    _, emitted = model(x)
    for at in ("layers.0.attn", "layers.1.mlp"):
        picked = emitted[f"{at}.router.picked"]
        assert picked.shape == (6,) and torch.isclose(picked.sum(), torch.tensor(2.0, dtype=F64))
    states: list[torch.Tensor] = []
    hook = model.layers[0].attn.router.centroids.register_forward_hook(lambda m, a, y: states.append(y))
    _, emitted = model(x)
    hook.remove()
    _, mask = routed(states[0], 8, 4, 2)
    want = 6 * (mask.double().mean((0, 1)) * states[0].softmax(-1).mean((0, 1)))[2:].sum()
    assert relative(emitted["layers.0.attn.router.balance"], want) <= EXACT
    with torch.no_grad():
        model.layers[0].attn.router.centroids.weight.zero_()
    _, emitted = model(x)
    assert torch.isclose(emitted["layers.0.attn.router.balance"], torch.tensor(6 * 2 / 8, dtype=F64)), "at equal scores: 2 of 6 picks of 1 / 8 each"


@pytest.mark.parametrize(("site", "fusion", "sparse"), [("model_dim", "monarch", True), ("model_dim", "blocks", False), ("ffn", "blocks", True)])
def test_forms_agree(site, fusion, sparse):
    agree(archdsl.load("mohd"), T=11, site=site, fusion=fusion, sparse=sparse, **SIZES)
