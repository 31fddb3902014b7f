"""Zamba against transformers: logits, gradients, float32, decoding from its cache, rows that begin later."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl import import_weights
from tests.parity.decoding import decodes_padded
from tests.parity.proof import prove, randomise
from tests.parity.test_mamba import exact, tokens, without_casts

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64

SIZES: dict[str, dict[str, Any]] = {
    "small": dict(vocab=61, d=24, depth=6, attention_every=2, attention_at=1, heads=4, kv_heads=2, hidden=20, state=5, rank=7),
    "one part, biases, untied": dict(vocab=37, d=15, depth=4, attention_every=3, attention_at=0, heads=3, kv_heads=1, hidden=11, state=1, expand=3,
                                     kernel=2, rank=1, parts=1, bias=True, eps=1e-3, tie=False),
    "three parts, no bias at all": dict(vocab=29, d=12, depth=4, attention_every=2, attention_at=0, heads=2, kv_heads=2, hidden=8, state=2, parts=3,
                                        conv_bias=False),
}
sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def peer(vocab, d, depth, heads, kv_heads, hidden, attention_every=6, attention_at=4, state=16, expand=2, kernel=4, rank="auto", parts=2, bias=False,
         conv_bias=True, eps=1e-5, tie=True):
    model = transformers.ZambaForCausalLM(transformers.ZambaConfig(
        vocab_size=vocab, hidden_size=d, intermediate_size=hidden, num_hidden_layers=depth, num_attention_heads=heads, num_key_value_heads=kv_heads,
        attn_layer_period=attention_every, attn_layer_offset=attention_at, mamba_d_state=state, mamba_d_conv=kernel, mamba_expand=expand,
        mamba_dt_rank=rank, n_mamba_heads=parts, mamba_proj_bias=bias, mamba_conv_bias=conv_bias, rms_norm_eps=eps, tie_word_embeddings=tie,
        pad_token_id=None, attn_implementation="sdpa", use_associative_scan=False))
    for layer in model.model.layers:  # with a head of its own it ties nothing, the shared block neither
        if hasattr(layer, "shared_transf"):
            layer.shared_transf = model.model.layers[2].shared_transf
    return model


@pytest.mark.parametrize(("name", "shape"), [("small", (4, 1)), ("small", (1, 7)), *((name, (2, 23)) for name in SIZES)])
def test_logits_and_gradients(name, shape):
    sizes = SIZES[name]
    ours = archdsl.load("zamba").build(dtype=F64, **sizes)
    prove(ours, peer(**sizes).double(), tokens(sizes["vocab"], *shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits,
          reference=without_casts)


@sizes
def test_decoding_with_a_cache(sizes):
    """Behind a prompt, then token by token: our forms `extend` and `step` against its cache. The second row is padded on the left there, and begins
    later here."""
    theirs = peer(**sizes).double().eval()
    randomise(theirs)
    spec = archdsl.load("zamba")
    extend, step = (spec.build(form=form, dtype=F64, **sizes).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x, pad = tokens(sizes["vocab"], 2, 17), 3
    rows = [] if sizes.get("bias") else [1]  # their convolution reads the bias of what is padded
    with exact():
        state = decodes_padded(theirs, extend, step, x, pad, 9, rows)
    kept = [v.shape for k, v in state.items() if k.endswith((".keys", ".values"))]  # of each layer that reads the shared block
    readers = sum(hasattr(layer, "shared_transf") for layer in theirs.model.layers)
    assert kept == [(2, sizes["kv_heads"], 17, 2 * sizes["d"] // sizes["heads"])] * 2 * readers and readers > 1


def test_the_shared_block_is_one():
    """It has one set of weights, under the names of the first layer that reads it, as files have it."""
    with torch.device("meta"):
        theirs = peer(32_000, 3712, 76, 16, 16, 14_848)
    ours = archdsl.load("zamba").build("zamba_7b", device="meta")
    own = {k: v.shape for k, v in theirs.state_dict().items() if ".shared_transf." not in k or ".layers.2." in k}
    assert {k: v.shape for k, v in archdsl.export_weights(ours, "hf").items()} == own
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(("setting", "told"), [({"attention_at": 6}, "6 layers have no place 6"), ({"depth": 2}, "2 layers are too few"),
                                               ({"parts": 5}, "must divide the channels")])
def test_settings_that_do_not_fit(setting, told):
    with pytest.raises(archdsl.ArchError, match=told):
        archdsl.load("zamba").elaborate(knobs=setting)
