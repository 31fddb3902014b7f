"""DeepSeek-V2 against transformers: keys and values written out, and absorbed into the queries for decoding."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from tests.parity.decoding import decodes_alike
from tests.parity.proof import prove, randomise
from tests.streaming.forms import agree

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
SPEC = "specs/language/deepseek_v2.arch"
SMALL: dict[str, Any] = dict(vocab=61, d=24, depth=3, dense=1, heads=4, rank=10, q_rank=9, head_dim=6, rope_dim=8, value_dim=5, hidden=20,
                             expert_hidden=12, experts=8, shared=2, k=3, groups=4, chosen=2, times=2.5, context=20, factor=4, base=500)
CASES: dict[str, dict[str, Any]] = {
    "groups of experts": SMALL,
    "no groups, no vector of queries": {**SMALL, "q_rank": None, "groups": 1, "times": 1, "depth": 2, "shared": 1, "heads": 3, "context": 200},
    "dense, as wide values": {**SMALL, "dense": 2, "depth": 2, "value_dim": 6},
}


def config(vocab, d, depth, dense, heads, rank, q_rank, head_dim, rope_dim, value_dim, hidden, expert_hidden, experts, shared, k, groups=1, chosen=1,
           times=1.0, context=4096, factor=40, base=10_000):
    rope = {"rope_type": "yarn", "rope_theta": float(base), "factor": float(factor), "original_max_position_embeddings": context, "mscale": 0.707,
            "mscale_all_dim": 0.707}
    method = "group_limited_greedy" if groups > 1 else "greedy"
    return transformers.DeepseekV2Config(
        vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, first_k_dense_replace=dense, num_attention_heads=heads, num_key_value_heads=heads,
        kv_lora_rank=rank, q_lora_rank=q_rank, qk_nope_head_dim=head_dim, qk_rope_head_dim=rope_dim, v_head_dim=value_dim, intermediate_size=hidden,
        moe_intermediate_size=expert_hidden, n_routed_experts=experts, n_shared_experts=shared, num_experts_per_tok=k,
        routed_scaling_factor=float(times), rope_parameters=rope, attn_implementation="sdpa", experts_implementation="eager",
        pad_token_id=None, eos_token_id=0, bos_token_id=None,
        topk_method=method, n_group=groups, topk_group=chosen)


def _turned(q, k, turn):
    """transformers' rotary positions without its casts to float32."""
    def one(x):
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn.unsqueeze(1)).flatten(3).to(x.dtype)

    return one(q), one(k)


@pytest.fixture(autouse=True)
def rotary_without_casts(monkeypatch):
    from transformers.models.deepseek_v2 import modeling_deepseek_v2

    monkeypatch.setattr(modeling_deepseek_v2, "apply_rotary_emb", _turned)


def without_casts(model):
    """transformers' model with its float32 casts removed: norms, the rotary table, whose rates are redone in float64, and the router."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    with pytest.MonkeyPatch.context() as m:
        m.setattr(torch, "float", F64)
        m.setattr(torch, "float32", F64)
        rates, amplitude = ROPE_INIT_FUNCTIONS["yarn"](model.config, "cpu")
    assert amplitude == 1

    def norm(m, x):
        return x / (x.square().mean(-1, keepdim=True) + m.variance_epsilon).sqrt() * m.weight

    def rotary(m, x, position_ids):
        angle = position_ids[:, :, None].to(F64) * rates
        return torch.polar(torch.ones_like(angle), angle)

    def router(m, x):
        scores = torch.nn.functional.linear(x.reshape(-1, m.hidden_dim), m.weight)
        chance = scores.softmax(-1)
        if m.topk_method == "group_limited_greedy":
            parts = chance.view(len(chance), m.num_group, -1)
            best = parts.amax(-1).topk(m.topk_group)[1]
            chance = parts.masked_fill(~torch.nn.functional.one_hot(best, m.num_group).sum(1).bool()[..., None], 0).flatten(1)
        value, index = chance.topk(m.top_k)
        return scores, value * m.routed_scaling_factor, index

    for m in model.modules():
        for end, change in (("RMSNorm", norm), ("RotaryEmbedding", rotary), ("TopkRouter", router)):
            if type(m).__name__.endswith(end):
                m.forward = change.__get__(m)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 13)])
def test_logits_and_gradients(case, absorb, shape):
    knobs = CASES[case]
    peer = transformers.DeepseekV2ForCausalLM(config(**knobs)).double()
    prove(archdsl.load(SPEC).build(dtype=F64, absorb=absorb, **knobs), peer, tokens(*shape), source="hf",
          call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("form", "given"), [
    ("written out", {"rewrites": ()}), ("absorbed by the compiler", {}), ("absorbed in the spec", {"absorb": True})])
def test_decoding_with_a_cache(case, form, given):
    knobs = CASES[case]
    peer = transformers.DeepseekV2ForCausalLM(config(**knobs)).double()
    randomise(peer)
    state = decodes_alike(archdsl.load(SPEC), without_casts(peer), tokens(3, 11), 3, 6, **given, **knobs)
    kept = {k: list(v.shape) for k, v in state.items() if k.startswith("layers.0")}
    heads, width = knobs["heads"], knobs["head_dim"] + knobs["rope_dim"]
    assert kept == ({"layers.0.attn.keys": [3, heads, 11, width], "layers.0.attn.values": [3, heads, 11, knobs["value_dim"]]} if form == "written out"
                    else {"layers.0.attn.keys": [3, 1, 11, knobs["rank"] + knobs["rope_dim"]]})


@pytest.mark.parametrize("absorb", [False, True])
def test_forms_agree(absorb):
    agree(archdsl.load(SPEC), T=11, absorb=absorb, **SMALL)


def test_training_weights_decode_absorbed():
    """One set of weights: prompts in the form with keys written out, then tokens in the absorbed one."""
    spec = archdsl.load(SPEC)
    whole = spec.build(dtype=F64, **SMALL).eval()
    step: Any = spec.build(dtype=F64, form="step", absorb=True, **SMALL).eval()
    step.load_state_dict(whole.state_dict())
    x = tokens(2, 7)
    state, y = step.init_state(2, 7), torch.empty(0)
    with torch.no_grad():
        for t in range(7):
            y, state = step(x[:, t : t + 1], state)
        torch.testing.assert_close(y[:, 0], whole(x)[:, -1], rtol=1e-10, atol=1e-10)


CONFIGS = {"v2": (5120, 60, 128, 1536, 12_288, 1536, 160, 8, 3, 16.0), "v2_lite": (2048, 27, 16, None, 10_944, 1408, 64, 1, 1, 1.0)}


@pytest.mark.parametrize("variant", CONFIGS)
def test_names_and_shapes(variant):
    """On the meta device: every weight of transformers' model is accounted for, under its name, with its shape."""
    d, depth, heads, q_rank, hidden, expert_hidden, experts, groups, chosen, times = CONFIGS[variant]
    with torch.device("meta"):
        peer = transformers.DeepseekV2ForCausalLM(config(102_400, d, depth, 1, heads, 512, q_rank, 128, 64, 128, hidden, expert_hidden, experts, 2, 6,
                                                         groups, chosen, times))
    for name in (variant, f"{variant}_absorbed"):
        ours = archdsl.load(SPEC).build(name, device="meta")
        written = archdsl.export_weights(ours, "hf")
        assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
        assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
