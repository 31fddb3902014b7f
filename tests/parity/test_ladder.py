"""Ladder-residual with the branches of transformers' Llama, chained as the paper says; its desynchronised form against one device and by shares."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import EXACT, randomise, relative

pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
from tests.parity.test_language import LLAMA, llama_config, tokens, transformers, without_casts
from tests.parity.test_peri_ln import rope

SPEC = "specs/language/ladder.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=61, d=32, depth=4, heads=4, kv_heads=2, hidden=48, base=10_000)


def chained(peer, x, stale):
    """Sub-block k reads s_(k-1) in the layers `stale`, and s_k in the others; s_(-1) = s_0."""
    m = peer.model
    positions = m.rotary_emb(m.embed_tokens(x), torch.arange(x.shape[1])[None])
    s = [m.embed_tokens(x)] * 2
    for i, layer in enumerate(m.layers):
        for attends in (True, False):
            u = s[-2] if i in stale else s[-1]
            if attends:
                y = layer.self_attn(layer.input_layernorm(u), position_embeddings=positions, attention_mask=None)[0]
            else:
                y = layer.mlp(layer.post_attention_layernorm(u))
            s.append(s[-1] + y)
    return peer.lm_head(m.norm(s[-1]))


@pytest.fixture(scope="module")
def peer():
    model = transformers.LlamaForCausalLM(llama_config(**SIZES)).double()
    randomise(model)
    return without_casts(copy.deepcopy(model))


@pytest.mark.parametrize("ladder", [[0, 1, 2, 3], [2, 3], [0, 2], [1], []])
@pytest.mark.parametrize("shape", [(1, 1), (2, 13)])
def test_recurrence(peer, ladder, shape):
    ours = archdsl.load(SPEC).build(dtype=F64, ladder=ladder, **SIZES)
    archdsl.import_weights(ours, peer.state_dict(), source="hf")
    x = tokens(61, *shape)
    want, got = chained(peer, x, ladder), ours(x)
    assert relative(got, want) <= EXACT
    if ladder:
        assert relative(got, peer(x, use_cache=False).logits) > 1e-3
    probe = torch.randn(want.shape, dtype=F64)
    mine = torch.autograd.grad((got * probe).sum(), ours.get_parameter("embed.weight"))[0]
    theirs = torch.autograd.grad((want * probe).sum(), peer.model.embed_tokens.weight)[0]
    assert theirs.abs().max() > 0 and relative(mine, theirs) <= EXACT


def test_no_ladder_is_llama_bit_for_bit(peer):
    plain, llama = (archdsl.load(f).build(**extra, **SIZES) for f, extra in ((SPEC, {"ladder": None}), (LLAMA, {})))
    archdsl.import_weights(plain, peer.float().state_dict(), source="hf")
    llama.load_state_dict(plain.state_dict())
    peer.double()
    x = tokens(61, 2, 9)
    assert torch.equal(plain(x), llama(x))


@pytest.mark.parametrize("reduced", [list(range(8)), [1, 3, 5, 7], [7]])
def test_desync(reduced):
    """Two devices, from the sheet: x_d + y_d without a reduction, mean(x) + sum(y) with one."""
    model = archdsl.load(SPEC).models["Desync"].build(dtype=F64, devices=2, reduced=reduced, **SIZES)
    randomise(model)
    x, w = tokens(61, 2, 7), model.state_dict()
    streams = [w["embed.weight"][x]] * 2
    for i in range(4):
        for k, f in enumerate((_attention, _mlp)):
            at = f"layers.{i}.branches.{k}"
            shares = [f(w, f"{at}.shards.{j}.share", _norm(w, f"{at}.norm", s)) for j, s in enumerate(streams)]
            if 2 * i + k in reduced:
                streams = [sum(streams) / 2 + sum(shares)] * 2
            else:
                streams = [s + y for s, y in zip(streams, shares)]
    assert relative(model(x), F.linear(_norm(w, "norm", streams[0]), w["head.weight"])) <= EXACT


def _norm(w, at, x):
    return w[f"{at}.weight"] * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def _attention(w, at, x):
    q, k, v = (F.linear(x, w[f"{at}.{n}.weight"]).unflatten(-1, (-1, 8)).transpose(1, 2) for n in "qkv")
    scores = rope(q) @ rope(k).mT / 8**0.5
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
    return F.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), w[f"{at}.out.weight"])


def _mlp(w, at, x):
    return F.linear(F.silu(F.linear(x, w[f"{at}.gate.weight"])) * F.linear(x, w[f"{at}.up.weight"]), w[f"{at}.down.weight"])
