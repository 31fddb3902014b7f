"""Mixtral, Qwen2-MoE and Qwen3-MoE against transformers: logits and gradients, float32, and decoding with a cache."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import archdsl
from tests.parity.proof import EXACT, prove, relative
from tests.streaming.forms import agree

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
SIZES = dict(vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, pad_token_id=None, eos_token_id=0,
             attn_implementation="sdpa", experts_implementation="eager")
OURS: dict[str, Any] = dict(vocab=61, d=24, depth=3, heads=4, kv_heads=2)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


def mixtral(experts, k):
    config = transformers.MixtralConfig(**SIZES, intermediate_size=20, num_local_experts=experts, num_experts_per_tok=k, rms_norm_eps=1e-5,
                                        sliding_window=None, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    return transformers.MixtralForCausalLM(config), "mixtral", dict(OURS, hidden=20, experts=experts, k=k, base=500.0)


def qwen2(experts, k, normalise):
    config = transformers.Qwen2MoeConfig(**SIZES, moe_intermediate_size=12, shared_expert_intermediate_size=28, num_experts=experts,
                                         num_experts_per_tok=k, norm_topk_prob=normalise, rms_norm_eps=1e-6, decoder_sparse_step=1, qkv_bias=True,
                                         use_sliding_window=False, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    knobs = dict(OURS, hidden=12, shared=28, experts=experts, k=k, normalise=normalise, base=500.0, head_dim=6)
    return transformers.Qwen2MoeForCausalLM(config), "qwen_moe", knobs


def qwen3(experts, k, normalise):
    config = transformers.Qwen3MoeConfig(**SIZES, head_dim=10, moe_intermediate_size=12, num_experts=experts, num_experts_per_tok=k,
                                         norm_topk_prob=normalise, rms_norm_eps=1e-6, decoder_sparse_step=1, attention_bias=False,
                                         use_sliding_window=False, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    knobs = dict(OURS, hidden=12, shared=0, experts=experts, k=k, normalise=normalise, base=500.0, head_dim=10, qk_norm=True)
    return transformers.Qwen3MoeForCausalLM(config), "qwen_moe", knobs


CASES = {"mixtral": (mixtral, 5, 2), "mixtral, one expert": (mixtral, 4, 1), "mixtral, all experts": (mixtral, 3, 3), "qwen2": (qwen2, 6, 2, False),
         "qwen2, normalised": (qwen2, 6, 3, True), "qwen3": (qwen3, 7, 3, True), "qwen3, raw": (qwen3, 4, 2, False)}


@pytest.fixture(params=CASES)
def case(request):
    make, *sizes = CASES[request.param]
    return make(*sizes)


def without_casts(model):
    """transformers' model with its float32 casts removed: norms, the rotary table, the router's softmax."""
    c = model.config
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    table = c.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2, dtype=F64) / width)

    def norm(m, x):
        return x / (x.square().mean(-1, keepdim=True) + m.variance_epsilon).sqrt() * m.weight

    def rotary(m, x, position_ids):
        angle = (position_ids[:, :, None].to(F64) * table).repeat(1, 1, 2)
        return angle.cos(), angle.sin()

    def router(m, x):
        scores = torch.nn.functional.linear(x.reshape(-1, m.hidden_dim), m.weight)
        value, index = torch.topk(scores.softmax(-1), m.top_k)
        return scores, value / value.sum(-1, keepdim=True) if getattr(m, "norm_topk_prob", True) else value, index

    for m in model.modules():
        for end, change in (("RMSNorm", norm), ("RotaryEmbedding", rotary), ("TopKRouter", router)):
            if type(m).__name__.endswith(end):
                m.forward = change.__get__(m)
    return model


@pytest.mark.parametrize("shape", [(2, 13), (1, 1)])
def test_logits_and_gradients(case, shape):
    peer, name, knobs = case
    ours = archdsl.load(name).build(dtype=F64, **knobs)
    prove(ours, peer.double(), tokens(*shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


def test_decoding_with_a_cache(case):
    """Logits and caches behind a prompt, then token by token; one row of the batch begins later (padded on the left)."""
    peer, name, knobs = case
    peer = without_casts(peer.double()).eval()
    spec = archdsl.load(name)
    extend, step = (spec.build(form=form, dtype=F64, **knobs).eval() for form in ("extend", "step"))
    for m in (extend, step):
        archdsl.import_weights(m, peer.state_dict(), source="hf")
    x, pad = tokens(2, 9), 3
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, :pad] = 0
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        want = peer(x, attention_mask=mask, position_ids=places, use_cache=False).logits
        _, state = extend(x[:, :pad], extend.init_state(2, 9))
        state = extend.reset_state(state, [1])
        y, state = extend(x[:, pad:6], state)
        got = [y]
        known = peer(x[:, :6], attention_mask=mask[:, :6], position_ids=places[:, :6], use_cache=True)
        cache = known.past_key_values
        for t in range(6, 9):
            y, state = step(x[:, t : t + 1], state)
            theirs = peer(x[:, t : t + 1], attention_mask=mask[:, : t + 1], position_ids=places[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = theirs.past_key_values
            assert relative(y, theirs.logits) <= EXACT
            got.append(y)
    assert relative(torch.cat(got, 1), want[:, pad:]) <= EXACT


def test_forms_agree(case):
    _, name, knobs = case
    agree(archdsl.load(name), T=11, **knobs)


def test_names_of_published_files():
    """Each expert's matrices apart, as the files of Mixtral have them; back and forth."""
    peer, name, knobs = mixtral(5, 2)
    ours = archdsl.load(name).build(dtype=F64, **knobs)
    state = peer.double().state_dict()
    archdsl.import_weights(ours, state, source="hf")
    files = archdsl.export_weights(ours, source="files")
    at = "model.layers.1.block_sparse_moe.experts.4"
    gate, up = state["model.layers.1.mlp.experts.gate_up_proj"][4].chunk(2)
    assert torch.equal(files[f"{at}.w1.weight"], gate) and torch.equal(files[f"{at}.w3.weight"], up)
    assert torch.equal(files[f"{at}.w2.weight"], state["model.layers.1.mlp.experts.down_proj"][4])
    other = copy.deepcopy(ours)
    archdsl.import_weights(other, {k: v + 1 for k, v in files.items()}, source="files")
    assert all(torch.equal(a, b + 1) for a, b in zip(other.state_dict().values(), ours.state_dict().values()))


def test_balance_is_that_of_transformers():
    """The emitted losses of each layer. transformers computes its own in float32."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    peer, name, knobs = mixtral(5, 2)
    spec = archdsl.load(name)
    ours = spec.build(dtype=F64, emit=("layers.*.moe.balance", "layers.*.moe.used", "layers.*.moe.z", "layers.*.moe.entropy"), **knobs)
    peer = without_casts(peer.double())
    archdsl.import_weights(ours, peer.state_dict(), source="hf")
    x = tokens(2, 13)
    _, emitted = ours(x)
    scores = peer(x, output_router_logits=True).router_logits
    for i, s in enumerate(scores):
        chance = s.softmax(-1)
        chosen = torch.nn.functional.one_hot(chance.topk(2)[1], 5).sum(1).to(F64)
        assert relative(emitted[f"layers.{i}.moe.balance"], 5 * (chosen.mean(0) * chance.mean(0)).sum()) <= EXACT
        assert relative(emitted[f"layers.{i}.moe.balance"], load_balancing_loss_func((s,), 5, 2)) <= 1e-6  # pyright: ignore[reportArgumentType]
        assert relative(emitted[f"layers.{i}.moe.z"], s.logsumexp(-1).square().mean()) <= EXACT
        assert relative(emitted[f"layers.{i}.moe.entropy"], torch.distributions.Categorical(logits=s).entropy().mean()) <= EXACT
        assert emitted[f"layers.{i}.moe.used"] == 2
