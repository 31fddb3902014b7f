"""Zamba2 against transformers: logits, gradients, float32, decoding from its cache, rows that begin later."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl import import_weights
from tests.parity.decoding import decodes_padded
from tests.parity.proof import prove, randomise
from tests.parity.test_mamba import tokens, without_casts

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64

SIZES: dict[str, dict[str, Any]] = {
    "two blocks, adapted": dict(vocab=61, d=24, depth=7, places=[1, 3, 4, 6], blocks=2, heads=4, hidden=20, rank=3, adapt=True, base=10_000, state=5,
                                head_dim=6),
    "one block, biases, groups, untied": dict(vocab=37, d=15, depth=4, places=[0, 2], blocks=1, heads=3, hidden=11, rank=1, state=3, groups=2,
                                              head_dim=3, expand=2, kernel=2, bias=True, tie=False),
    "three blocks, four readers, least step": dict(vocab=29, d=12, depth=5, places=[0, 1, 2, 4], blocks=3, heads=2, hidden=8, rank=2, base=100,
                                                   state=2, head_dim=4, dt_min=0.4),
}
FREE = 1e-300
"""A least step that no step is below: their decoding leaves it out, and their initial values need one."""


def peer(vocab, d, depth, places, blocks, heads, hidden, rank=128, adapt=False, base=None, state=64, groups=1, head_dim=64, expand=2, kernel=4,
         dt_min=0.001, bias=False, tie=True):
    kinds = ["hybrid" if i in places else "mamba" for i in range(depth)]
    model = transformers.Zamba2ForCausalLM(transformers.Zamba2Config(
        vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, layers_block_type=kinds, num_mem_blocks=blocks, num_attention_heads=heads,
        intermediate_size=hidden, adapter_rank=rank, use_shared_attention_adapter=adapt, use_mem_rope=base is not None,
        rope_parameters={"rope_type": "default", "rope_theta": base or 1.0}, mamba_d_state=state, mamba_ngroups=groups,
        n_mamba_heads=expand * d // head_dim, mamba_expand=expand, mamba_d_conv=kernel, time_step_min=dt_min, add_bias_linear=bias,
        tie_word_embeddings=tie, chunk_size=16, pad_token_id=None, attn_implementation="sdpa"))
    layers = model.model.layers
    for use, i in enumerate(places):  # with a head of its own it ties nothing, the shared blocks neither
        layers[i].shared_transformer = layers[places[use % blocks]].shared_transformer
    return model


def reference(model: Any) -> Any:
    """Without casts, and with the rates of rotary positions in float64."""
    if (rotary := getattr(model.model, "rotary_emb", None)) is not None:
        base, n = model.config.rope_parameters["rope_theta"], len(rotary.inv_freq)
        rotary.inv_freq = base ** (-torch.arange(n, dtype=F64) / n)
    return without_casts(model)


@pytest.mark.parametrize(("name", "shape"), [("two blocks, adapted", (4, 1)), ("two blocks, adapted", (1, 7)), *((name, (2, 23)) for name in SIZES)])
def test_logits_and_gradients(name, shape):
    sizes = SIZES[name]
    ours = archdsl.load("zamba2").build(dtype=F64, **sizes)
    prove(ours, peer(**sizes).double(), tokens(sizes["vocab"], *shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits,
          reference=reference)


@pytest.mark.parametrize("name", SIZES)
def test_decoding_with_a_cache(name):
    """Behind a prompt, then token by token: our forms `extend` and `step` against its cache. The second row is padded on the left there, and begins
    later here."""
    sizes = {**SIZES[name], "dt_min": FREE}
    theirs = reference(peer(**sizes).double().eval())
    randomise(theirs)
    spec = archdsl.load("zamba2")
    extend, step = (spec.build(form=form, dtype=F64, **sizes).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x, pad = tokens(sizes["vocab"], 2, 17), 3
    rows = [] if sizes.get("bias") else [1]  # their convolution reads the bias of what is padded
    state = decodes_padded(theirs, extend, step, x, pad, 9, rows)
    kept = [v.shape for k, v in state.items() if k.endswith((".keys", ".values"))]  # of each layer that reads a shared block
    assert kept == [(2, sizes["heads"], 17, 2 * sizes["d"] // sizes["heads"])] * 2 * len(sizes["places"])


def test_the_shared_blocks_are_one_each():
    """They have one set of weights each, under the names of the first layer that reads them, as files have it; adapters stand in the block that they
    are added to."""
    published: dict[str, Any] = dict(vocab=32_000, d=2560, depth=54, places=[6, 12, 18, 24, 30, 36, 42, 47, 51], blocks=2, heads=32, hidden=10_240)
    with torch.device("meta"):
        theirs = peer(**published)
    ours = archdsl.load("zamba2").build("zamba2_2_7b", device="meta")
    own = {k: v.shape for k, v in theirs.state_dict().items() if ".shared_transformer." not in k or k.split(".")[2] in ("6", "12")}
    assert {k: v.shape for k, v in archdsl.export_weights(ours, "hf").items()} == own
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(("setting", "told"), [({"places": [6, 54]}, "there are 54 layers"), ({"blocks": 10}, "10 shared blocks for 9 places"),
                                               ({"places": [12, 6]}, "ascend"), ({"places": [6, 6]}, "ascend"),
                                               ({"heads": 7}, "7 is not a whole number")])
def test_settings_that_do_not_fit(setting, told):
    with pytest.raises(archdsl.ArchError, match=told):
        archdsl.load("zamba2").elaborate(knobs=setting)
