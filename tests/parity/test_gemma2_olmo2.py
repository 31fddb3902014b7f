"""Gemma 2 and OLMo 2 against transformers."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from tests.parity.decoding import decodes_alike
from tests.parity.proof import prove, randomise

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")

GEMMA2, OLMO2 = "specs/language/gemma2.arch", "specs/language/olmo2.arch"
F64 = torch.float64


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(3))


def gemma2_config(vocab, d, depth, heads, kv_heads, head_dim, hidden, query_width=None, reach=4096, period=2, cap=50.0, logit_cap=30.0,
                  base=10_000.0, bias=False, act="gelu_pytorch_tanh"):
    kinds = ["sliding_attention" if reach is not None and (i + 1) % period else "full_attention" for i in range(depth)]
    return transformers.Gemma2Config(vocab_size=vocab, hidden_size=d, intermediate_size=hidden, num_hidden_layers=depth, num_attention_heads=heads,
                                     num_key_value_heads=kv_heads, head_dim=head_dim, query_pre_attn_scalar=query_width or head_dim,
                                     sliding_window=reach or 4096, layer_types=kinds, attn_logit_softcapping=cap, final_logit_softcapping=logit_cap,
                                     attention_bias=bias, hidden_activation=act,
                                     rope_parameters={"rope_type": "default", "rope_theta": base}, attn_implementation="eager", pad_token_id=None)


def olmo2_config(vocab, d, depth, heads, hidden, kv_heads=None, base=500_000.0, eps=1e-6, tie=False, bias=False, act="silu"):
    return transformers.Olmo2Config(vocab_size=vocab, hidden_size=d, intermediate_size=hidden, num_hidden_layers=depth, num_attention_heads=heads,
                                    num_key_value_heads=kv_heads or heads, rms_norm_eps=eps, tie_word_embeddings=tie,
                                    attention_bias=bias, hidden_act=act,
                                    rope_parameters={"rope_type": "default", "rope_theta": base}, pad_token_id=None, eos_token_id=0)


def without_casts(model):
    """transformers' model with its float32 casts removed: in norms, rotary table, the softmax of the eager attention, and Gemma's scale."""
    c = model.config
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    table = c.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2, dtype=F64) / width)

    def gemma_norm(m, x):
        return x / (x.square().mean(-1, keepdim=True) + m.eps).sqrt() * (1 + m.weight)

    def olmo_norm(m, x):
        return x / (x.square().mean(-1, keepdim=True) + m.variance_epsilon).sqrt() * m.weight

    def rotary(m, x, position_ids):
        angle = (position_ids[:, :, None].to(F64) * table).repeat(1, 1, 2)
        return angle.cos(), angle.sin()

    changes = {"Gemma2RMSNorm": gemma_norm, "Olmo2RMSNorm": olmo_norm, "Gemma2RotaryEmbedding": rotary, "Olmo2RotaryEmbedding": rotary,
               "Gemma2Attention": _gemma_attention}
    for m in model.modules():
        if (change := changes.get(type(m).__name__)) is not None:
            m.forward = change.__get__(m)
        if type(m).__name__ == "Gemma2TextScaledWordEmbedding":
            m.embed_scale.fill_(c.hidden_size**0.5)
    return model


def _gemma_attention(m, hidden_states, position_embeddings, attention_mask, cache=None, **_):
    """Softmax without its cast; the mask and the cache are those of transformers."""
    b, t, _ = hidden_states.shape
    q, k, v = (f(hidden_states).view(b, t, -1, m.head_dim).transpose(1, 2) for f in (m.q_proj, m.k_proj, m.v_proj))
    cos, sin = (a[:, None] for a in position_embeddings)

    def turned(x):
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    k = turned(k)
    if cache is not None:
        k, v = cache.update(k, v, m.layer_idx)
    k, v = (x.repeat_interleave(m.num_key_value_groups, 1) for x in (k, v))
    scores = turned(q) @ k.mT * m.scaling
    if m.attn_logit_softcapping is not None:
        scores = torch.tanh(scores / m.attn_logit_softcapping) * m.attn_logit_softcapping
    weights = torch.softmax(scores if attention_mask is None else scores + attention_mask, -1)
    return m.o_proj((weights @ v).transpose(1, 2).reshape(b, t, -1)), weights


GEMMAS = {
    "two caps": dict(vocab=67, d=48, depth=3, heads=4, kv_heads=2, head_dim=16, hidden=80, query_width=9, reach=5, cap=1.5, logit_cap=2.0),
    "no caps, no windows": dict(vocab=41, d=40, depth=2, heads=4, kv_heads=1, head_dim=6, hidden=56, reach=None, cap=None, logit_cap=None,
                                base=500.0),
    "every third far": dict(vocab=29, d=24, depth=4, heads=3, kv_heads=3, head_dim=8, hidden=40, reach=2, period=3, cap=0.7),
    "biases, relu": dict(vocab=23, d=16, depth=2, heads=2, kv_heads=1, head_dim=6, hidden=24, reach=3, bias=True, act="relu"),
}


def knobs(case: dict[str, Any]) -> dict[str, Any]:
    """The case with its activation as a template."""
    return {k: archdsl.expression(v) if k == "act" else v for k, v in case.items()}


@pytest.mark.parametrize("case", GEMMAS)
@pytest.mark.parametrize(("batch", "length"), [(4, 1), (1, 7), (2, 23)])
def test_gemma2_is_transformers(case, batch, length):
    ours = GEMMAS[case]
    peer = transformers.Gemma2ForCausalLM(gemma2_config(**ours)).double()
    model = archdsl.load(GEMMA2).build(dtype=F64, knobs=knobs(ours))
    prove(model, peer, tokens(ours["vocab"], batch, length), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


OLMOS = {
    "full": dict(vocab=59, d=48, depth=3, heads=4, hidden=80),
    "grouped, other base": dict(vocab=37, d=40, depth=2, heads=4, kv_heads=2, hidden=56, base=900.0, eps=1e-5),
    "tied": dict(vocab=31, d=36, depth=1, heads=3, kv_heads=1, hidden=40, tie=True),
    "biases, gelu": dict(vocab=23, d=16, depth=2, heads=2, kv_heads=1, hidden=24, bias=True, act="gelu"),
}


@pytest.mark.parametrize("case", OLMOS)
@pytest.mark.parametrize(("batch", "length"), [(4, 1), (1, 7), (2, 23)])
def test_olmo2_is_transformers(case, batch, length):
    ours = OLMOS[case]
    peer = transformers.Olmo2ForCausalLM(olmo2_config(**ours)).double()
    model = archdsl.load(OLMO2).build(dtype=F64, knobs=knobs(ours))
    prove(model, peer, tokens(ours["vocab"], batch, length), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@pytest.mark.parametrize(("spec", "peer", "ours"), [
    *((GEMMA2, lambda c: transformers.Gemma2ForCausalLM(gemma2_config(**c)), c) for c in GEMMAS.values()),
    *((OLMO2, lambda c: transformers.Olmo2ForCausalLM(olmo2_config(**c)), c) for c in OLMOS.values()),
], ids=[*GEMMAS, *OLMOS])
def test_decoding_with_a_cache(spec, peer, ours):
    """Rows that begin later as well; windows of the first begin before those rows."""
    theirs = peer(ours).double()
    randomise(theirs)
    decodes_alike(archdsl.load(spec), without_casts(theirs), tokens(ours["vocab"], 3, 11), 3, 6, **knobs(ours))


CONFIGS = {
    "gemma2_2b": (GEMMA2, gemma2_config(256_000, 2304, 26, 8, 4, 256, 9216)),
    "gemma2_9b": (GEMMA2, gemma2_config(256_000, 3584, 42, 16, 8, 256, 14_336)),
    "gemma2_27b": (GEMMA2, gemma2_config(256_000, 4608, 46, 32, 16, 128, 36_864, 144)),
    "olmo2_1b": (OLMO2, olmo2_config(100_352, 2048, 16, 16, 8192)),
    "olmo2_7b": (OLMO2, olmo2_config(100_352, 4096, 32, 32, 11_008)),
    "olmo2_13b": (OLMO2, olmo2_config(100_352, 5120, 40, 40, 13_824)),
    "olmo2_32b": (OLMO2, olmo2_config(100_352, 5120, 64, 40, 27_648, kv_heads=8)),
}


@pytest.mark.parametrize("variant", CONFIGS)
def test_names_and_shapes(variant):
    """On the meta device: every weight of transformers' model is accounted for, under its name, with its shape."""
    spec, config = CONFIGS[variant]
    with torch.device("meta"):
        peer = (transformers.Gemma2ForCausalLM if spec == GEMMA2 else transformers.Olmo2ForCausalLM)(config)
    ours = archdsl.load(spec).build(variant, device="meta")
    written = archdsl.export_weights(ours, "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
