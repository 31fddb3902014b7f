"""gpt-oss against transformers' eager attention: sinks in layers that look back a window and in those that look back at all."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from tests.parity.decoding import decodes_alike
from tests.parity.proof import prove
from tests.streaming.forms import agree

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
SPEC = "specs/language/gpt_oss.arch"
CASES: dict[str, dict[str, Any]] = {
    "grouped": dict(vocab=61, d=24, depth=3, heads=4, kv_heads=2, head_dim=10, hidden=12, experts=5, k=2, reach=4, base=500, context=20),
    "one expert, one key head": dict(vocab=37, d=20, depth=2, heads=3, kv_heads=1, head_dim=6, hidden=8, experts=3, k=1, reach=2, factor=4, limit=0.5,
                                     context=40),
}


def config(vocab, d, depth, heads, kv_heads, head_dim, hidden, experts, k, reach, base=150_000, factor=32, context=4096, limit=7.0):
    rope = {"rope_type": "yarn", "rope_theta": float(base), "factor": float(factor), "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": context}
    return transformers.GptOssConfig(vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, num_attention_heads=heads,
                                     num_key_value_heads=kv_heads, head_dim=head_dim, intermediate_size=hidden,
                                     num_local_experts=experts, num_experts_per_tok=k,
                                     sliding_window=reach, rope_parameters=rope, swiglu_limit=limit, attn_implementation="eager",
                                     experts_implementation="eager", pad_token_id=None, eos_token_id=0)


def without_casts(model):
    """transformers' model with its float32 casts removed: norms and the rotary table, whose rates are redone in float64."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    with pytest.MonkeyPatch.context() as m:
        m.setattr(torch, "float", F64)
        m.setattr(torch, "float32", F64)
        rates, amplitude = ROPE_INIT_FUNCTIONS["yarn"](model.config, "cpu")

    def norm(m, x):
        return x / (x.square().mean(-1, keepdim=True) + m.variance_epsilon).sqrt() * m.weight

    def rotary(m, x, position_ids):
        angle = position_ids[:, :, None].to(F64) * rates
        return amplitude * angle.cos(), amplitude * angle.sin()

    for m in model.modules():
        for end, change in (("RMSNorm", norm), ("RotaryEmbedding", rotary)):
            if type(m).__name__.endswith(end):
                m.forward = change.__get__(m)
    return model


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 13)])
def test_logits_and_gradients(case, shape):
    knobs = CASES[case]
    peer = transformers.GptOssForCausalLM(config(**knobs)).double()
    prove(archdsl.load(SPEC).build(dtype=F64, **knobs), peer, tokens(knobs["vocab"], *shape), source="hf",
          call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@pytest.mark.parametrize("case", CASES)
def test_decoding_with_a_cache(case):
    from tests.parity.proof import randomise

    knobs = CASES[case]
    peer = transformers.GptOssForCausalLM(config(**knobs)).double()
    randomise(peer)
    state = decodes_alike(archdsl.load(SPEC), without_casts(peer), tokens(knobs["vocab"], 3, 11), 3, 6, **knobs)
    kept = [state[f"layers.{i}.attn.keys"].shape[-2] for i in range(knobs["depth"])]
    assert kept == [knobs["reach"] - 1 if i % 2 == 0 else 11 for i in range(knobs["depth"])]


def test_forms_agree():
    agree(archdsl.load(SPEC), T=11, **CASES["grouped"])


@pytest.mark.parametrize(("variant", "depth", "experts"), [("gpt_oss_20b", 24, 32), ("gpt_oss_120b", 36, 128)])
def test_names_and_shapes(variant, depth, experts):
    with torch.device("meta"):
        peer = transformers.GptOssForCausalLM(transformers.GptOssConfig(num_hidden_layers=depth, num_local_experts=experts))
    ours = archdsl.load(SPEC).build(variant, device="meta")
    written = archdsl.export_weights(ours, "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
