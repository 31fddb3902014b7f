"""Llama and GPT-2 against transformers."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import archdsl
from tests.parity.decoding import decodes_alike
from tests.parity.proof import prove, randomise

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")

LLAMA, GPT2 = "specs/language/llama.arch", "specs/language/gpt2.arch"
F64 = torch.float64
SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(3))


def llama_config(vocab, d, depth, heads, kv_heads, hidden, base=10_000.0, scaling=None, tie=False, context=2048):
    rope = {"rope_theta": base, **(scaling or {"rope_type": "default"})}
    return transformers.LlamaConfig(vocab_size=vocab, hidden_size=d, intermediate_size=hidden, num_hidden_layers=depth, num_attention_heads=heads,
                                    num_key_value_heads=kv_heads, rms_norm_eps=1e-5, rope_parameters=rope, tie_word_embeddings=tie,
                                    max_position_embeddings=context, attention_bias=False, mlp_bias=False)


def without_casts(model):
    """transformers' Llama with its two float32 casts removed: in the norm and in the rotary table (whose rates are redone in float64)."""

    def norm(module, x):
        return module.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon))

    for m in model.modules():
        if type(m).__name__ == "LlamaRMSNorm":
            m.forward = norm.__get__(m)
    c = model.config
    width = c.hidden_size // c.num_attention_heads
    rope = c.rope_parameters
    rates = [rope["rope_theta"] ** (-2 * i / width) for i in range(width // 2)]
    if rope["rope_type"] == "llama3":
        rates = [_llama3(r, rope) for r in rates]
    table = torch.tensor(rates, dtype=F64)

    def rotary(module, x, position_ids):
        angle = position_ids[:, :, None].to(F64) * table
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()

    model.model.rotary_emb.forward = rotary.__get__(model.model.rotary_emb)
    return model


def _llama3(rate, rope):
    """Wavelengths above context / low are stretched, those below context / high kept, those between interpolated."""
    wave, context = 2 * math.pi / rate, rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    if wave > context / low:
        return rate / factor
    if wave < context / high:
        return rate
    smooth = (context / wave - low) / (high - low)
    return (1 - smooth) * rate / factor + smooth * rate


LLAMAS = {
    "grouped": (dict(vocab=97, d=64, depth=3, heads=8, kv_heads=2, hidden=112), {}),
    "multi-query, tied": (dict(vocab=64, d=48, depth=2, heads=6, kv_heads=1, hidden=80, tie=True), {}),
    "full, long base": (dict(vocab=33, d=40, depth=2, heads=2, kv_heads=2, hidden=56, base=500_000), {}),
    "rescaled": (dict(vocab=50, d=64, depth=2, heads=2, kv_heads=1, hidden=96,
                      scaling="Llama3Scaling(factor = 8, low = 1, high = 4, context = 64)"), {"scaling": SCALING}),
}


@pytest.mark.parametrize("case", LLAMAS)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 37)])
def test_llama_is_transformers(case, batch, length):
    ours, changes = LLAMAS[case]
    peer = transformers.LlamaForCausalLM(llama_config(**{**ours, **changes})).double()
    settings = {k: v for k, v in ours.items() if k != "scaling"}
    if "scaling" in ours:
        settings["scaling"] = archdsl.expression(ours["scaling"])
    model = archdsl.load(LLAMA).build(dtype=F64, **settings)
    prove(model, peer, tokens(ours["vocab"], batch, length), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


def test_llama_decodes_with_a_cache():
    """Rows that begin later as well."""
    ours, _ = LLAMAS["grouped"]
    theirs = transformers.LlamaForCausalLM(llama_config(**ours)).double()
    randomise(theirs)
    decodes_alike(archdsl.load(LLAMA), without_casts(theirs), tokens(ours["vocab"], 3, 11), 3, 6, **ours)


def test_gpt2_decodes_with_a_cache():
    """Rows that begin later as well: their first position is the first of the table."""
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=61, n_positions=16, n_embd=48, n_layer=2, n_head=4)).double()
    randomise(theirs)
    decodes_alike(archdsl.load(GPT2), theirs, tokens(61, 3, 11), 3, 6, vocab=61, context=16, d=48, depth=2, heads=4)


def test_llama_with_settings_of_others():
    """What no variant has: biases of attention and of the MLP, another activation, ε and width of a head."""
    config = llama_config(vocab=41, d=48, depth=2, heads=4, kv_heads=2, hidden=56)
    config.update(dict(attention_bias=True, mlp_bias=True, hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-3, attention_dropout=0.1))
    peer = transformers.LlamaForCausalLM(config).double().eval()
    act = archdsl.expression('block(y) => gelu(y, approximate = "tanh")')
    ours = archdsl.load(LLAMA).build(dtype=F64, vocab=41, d=48, depth=2, heads=4, kv_heads=2, hidden=56, bias=True, mlp_bias=True, act=act, eps=1e-3,
                                     drop=0.1).eval()
    prove(ours, peer, tokens(41, 2, 11), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


CONFIGS = {
    "llama2_7b": dict(vocab=32_000, d=4096, depth=32, heads=32, kv_heads=32, hidden=11_008),
    "llama2_13b": dict(vocab=32_000, d=5120, depth=40, heads=40, kv_heads=40, hidden=13_824),
    "llama2_70b": dict(vocab=32_000, d=8192, depth=80, heads=64, kv_heads=8, hidden=28_672),
    "llama3_8b": dict(vocab=128_256, d=4096, depth=32, heads=32, kv_heads=8, hidden=14_336, base=500_000.0),
    "llama3_70b": dict(vocab=128_256, d=8192, depth=80, heads=64, kv_heads=8, hidden=28_672, base=500_000.0),
    "llama32_1b": dict(vocab=128_256, d=2048, depth=16, heads=32, kv_heads=8, hidden=8192, base=500_000.0, tie=True,
                       scaling={"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 8192}),
}


@pytest.mark.parametrize("variant", CONFIGS)
def test_llama_names_and_shapes(variant):
    """On the meta device: every weight of transformers' model is accounted for, under its name, with its shape."""
    with torch.device("meta"):
        peer = transformers.LlamaForCausalLM(llama_config(**CONFIGS[variant]))
    ours = archdsl.load(LLAMA).build(variant, device="meta")
    written = archdsl.export_weights(ours, "hf")
    theirs = {k: v.shape for k, v in peer.state_dict().items()}
    assert {k: v.shape for k, v in written.items()} == theirs
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize("variant", CONFIGS)
def test_llama_numbers_at_two_layers(variant):
    """Two layers with the variant's heads, groups, base and head of the vocabulary, in narrow: by the rule of parity."""
    narrow = {"vocab": 97, "d": 4 * CONFIGS[variant]["heads"], "depth": 2, "hidden": 72}
    peer = transformers.LlamaForCausalLM(llama_config(**{**CONFIGS[variant], **narrow})).double()
    ours = archdsl.load(LLAMA).build(variant, dtype=F64, **narrow)
    prove(ours, peer, tokens(97, 2, 9), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@pytest.mark.proof
@pytest.mark.parametrize("variant", ["llama3_8b", "llama3_70b"])
def test_llama_numbers_at_real_widths(variant):
    """A small vocabulary, two layers (of 70B one, for memory), float32 on both sides."""
    config = {**CONFIGS[variant], "depth": 2 if variant == "llama3_8b" else 1, "vocab": 512}
    peer = transformers.LlamaForCausalLM(llama_config(**config)).eval()
    from tests.parity.proof import relative

    randomise(peer)
    ours = archdsl.load(LLAMA).build(variant, depth=config["depth"], vocab=512).eval()
    archdsl.import_weights(ours, peer.state_dict(), source="hf")
    x = tokens(512, 1, 9)
    with torch.no_grad():
        assert relative(ours(x), peer(x, use_cache=False).logits) < 1e-5


GPTS: dict[str, dict[str, Any]] = {
    "small shape": dict(vocab=61, context=40, d=48, depth=3, heads=4),
    "one head": dict(vocab=17, context=9, d=20, depth=1, heads=1),
}


@pytest.mark.parametrize("case", GPTS)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 9)])
def test_gpt2_is_transformers(case, batch, length):
    c = GPTS[case]
    config = transformers.GPT2Config(vocab_size=c["vocab"], n_positions=c["context"], n_embd=c["d"], n_layer=c["depth"], n_head=c["heads"])
    peer = transformers.GPT2LMHeadModel(config).double()
    ours = archdsl.load(GPT2).build(dtype=F64, **c)
    prove(ours, peer, tokens(c["vocab"], batch, length), source="hf", call=lambda m, x: m(x, use_cache=False).logits)


@pytest.mark.parametrize(("changes", "ours"), [
    (dict(n_inner=72, activation_function="relu", layer_norm_epsilon=1e-3), dict(hidden=72, act="relu", eps=1e-3)),
    (dict(scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False), dict(scale_by_layer=True, tie=False)),
    (dict(scale_attn_weights=False), dict(scale=1.0)),
], ids=["width, activation, ε", "scale by layer, own head", "no scale"])
def test_gpt2_with_settings_of_others(changes, ours):
    config = transformers.GPT2Config(vocab_size=31, n_positions=16, n_embd=24, n_layer=3, n_head=2, **changes)
    peer = transformers.GPT2LMHeadModel(config).double()
    knobs = {"vocab": 31, "context": 16, "d": 24, "depth": 3, "heads": 2}
    knobs |= {k: archdsl.expression(v) if isinstance(v, str) else v for k, v in ours.items()}
    model = archdsl.load(GPT2).build(dtype=F64, knobs=knobs)
    prove(model, peer, tokens(31, 2, 7), source="hf", call=lambda m, x: m(x, use_cache=False).logits)


@pytest.mark.parametrize(("variant", "d", "depth", "heads"),
                         [("small", 768, 12, 12), ("medium", 1024, 24, 16), ("large", 1280, 36, 20), ("xl", 1600, 48, 25)])
def test_gpt2_names_and_shapes(variant, d, depth, heads):
    with torch.device("meta"):
        peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=d, n_layer=depth, n_head=heads))
    ours = archdsl.load(GPT2).build(variant, device="meta")
    written = archdsl.export_weights(ours, "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
