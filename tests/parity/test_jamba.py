"""Jamba against transformers: logits, gradients, float32, decoding from its cache."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl import import_weights
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.parity.test_mamba import exact, tokens
from tests.parity.test_mamba import without_casts as mamba_without_casts

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64

SIZES: dict[str, dict[str, Any]] = {
    "small": dict(vocab=61, d=24, depth=4, attention_every=4, attention_at=2, heads=4, kv_heads=2, state=5, rank=7, hidden=20, experts=4),
    "attention first, all experts, biases, tied": dict(vocab=37, d=15, depth=3, attention_every=2, attention_at=0, heads=3, kv_heads=1, state=1,
                                                       expand=3, kernel=2, rank=1, bias=True, hidden=11, experts_every=1, experts_at=0, experts=3,
                                                       k=3, eps=1e-3, tie=True),
    "one expert in every third layer, no bias at all": dict(vocab=29, d=16, depth=5, attention_every=3, attention_at=2, heads=2, kv_heads=2,
                                                            conv_bias=False, hidden=8, experts_every=3, experts_at=1, experts=5, k=1),
    "no mixture": dict(vocab=29, d=16, depth=2, attention_every=2, attention_at=1, heads=2, kv_heads=1, hidden=8, experts=1, k=1),
}
sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def peer(vocab, d, depth, attention_every, attention_at, heads, kv_heads, hidden, state=16, expand=2, kernel=4, rank="auto", bias=False,
         conv_bias=True, experts_every=2, experts_at=1, experts=16, k=2, eps=1e-6, tie=False):
    return transformers.JambaForCausalLM(transformers.JambaConfig(
        vocab_size=vocab, hidden_size=d, intermediate_size=hidden, num_hidden_layers=depth, num_attention_heads=heads, num_key_value_heads=kv_heads,
        rms_norm_eps=eps, num_experts=experts, num_experts_per_tok=k, expert_layer_period=experts_every, expert_layer_offset=experts_at,
        attn_layer_period=attention_every, attn_layer_offset=attention_at, mamba_d_state=state, mamba_d_conv=kernel, mamba_expand=expand,
        mamba_dt_rank=rank, mamba_conv_bias=conv_bias, mamba_proj_bias=bias, tie_word_embeddings=tie, pad_token_id=None,
        attn_implementation="sdpa", experts_implementation="eager")).double()


def without_casts(model: Any) -> Any:
    """The routers' probabilities are float32 as well."""
    def route(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores = torch.nn.functional.linear(x, self.weight)
        value, index = torch.topk(scores.softmax(-1), self.top_k)
        return scores, value, index

    for m in model.modules():
        if type(m).__name__ == "JambaTopKRouter":
            m.forward = route.__get__(m)
    return mamba_without_casts(model)


@sizes
@pytest.mark.parametrize("shape", [(4, 1), (1, 7), (2, 23)])
def test_logits_and_gradients(sizes, shape):
    ours = archdsl.load("jamba").build(dtype=F64, **sizes)
    prove(ours, peer(**sizes), tokens(sizes["vocab"], *shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@sizes
def test_decoding_with_a_cache(sizes):
    """Behind a prompt, then token by token: our forms `extend` and `step` against its cache."""
    theirs = without_casts(peer(**sizes)).eval()
    randomise(theirs)
    spec = archdsl.load("jamba")
    extend, step = (spec.build(form=form, dtype=F64, **sizes).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x = tokens(sizes["vocab"], 2, 17)
    with torch.no_grad(), exact():
        known = theirs(x[:, :9], use_cache=True)
        y, state = extend(x[:, :9], extend.init_state(2, 17))
        assert relative(y, known.logits) <= EXACT
        for t in range(9, 17):
            known = theirs(x[:, t:t + 1], past_key_values=known.past_key_values, use_cache=True)
            y, state = step(x[:, t:t + 1], state)
            assert relative(y, known.logits) <= EXACT
        assert relative(y, theirs(x, use_cache=False).logits[:, -1:]) <= EXACT


def test_decoding_rows_that_begin_later():
    """Padded on the left there, begun later here."""
    knobs = SIZES["small"]
    theirs = without_casts(peer(**knobs)).eval()
    randomise(theirs)
    spec = archdsl.load("jamba")
    extend, step = (spec.build(form=form, dtype=F64, **knobs).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x, pad = tokens(61, 2, 11), 3
    mask = torch.ones(2, 11, dtype=torch.int64)
    mask[1, :pad] = 0
    with torch.no_grad(), exact():
        known = theirs(x[:, :7], attention_mask=mask[:, :7], use_cache=True)
        _, state = extend(x[:, :pad], extend.init_state(2, 11))
        y, state = extend(x[:, pad:7], extend.reset_state(state, [1]))
        assert relative(y[:, -1], known.logits[:, -1]) <= EXACT
        for t in range(7, 11):
            known = theirs(x[:, t:t + 1], attention_mask=mask[:, :t + 1], past_key_values=known.past_key_values, use_cache=True)
            y, state = step(x[:, t:t + 1], state)
            assert relative(y, known.logits) <= EXACT


@pytest.mark.parametrize(("setting", "told"), [({"attention_at": 8}, "8 layers have no place 8"), ({"experts_at": 2}, "2 layers have no place 2")])
def test_places_that_there_are_not(setting, told):
    with pytest.raises(archdsl.ArchError, match=told):
        archdsl.load("jamba").elaborate(knobs=setting)
