"""BLOOM against transformers: a bias of attention that falls with distance."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from tests.parity.decoding import decodes_alike
from tests.parity.proof import prove, randomise
from tests.streaming.forms import agree

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
modeling_bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
BIAS = modeling_bloom.build_alibi_tensor
F64 = torch.float64
SPEC = "specs/language/bloom.arch"
CASES: dict[str, dict[str, Any]] = {"four heads": dict(vocab=61, d=24, depth=3, heads=4), "six heads": dict(vocab=37, d=18, depth=2, heads=6),
                                    "one head": dict(vocab=17, d=10, depth=1, heads=1)}


def config(vocab, d, depth, heads):
    return transformers.BloomConfig(vocab_size=vocab, hidden_size=d, n_layer=depth, n_head=heads, hidden_dropout=0.0, attention_dropout=0.0,
                                    bos_token_id=None, eos_token_id=0, pad_token_id=None)


def _slopes(heads: int) -> torch.Tensor:
    """Sequences that halve 8 times, as the paper's appendix has them: whole for powers of two, filled up from the next longer one."""
    n = 1 << (heads.bit_length() - 1)
    whole, longer = (torch.logspace(-8 / m, -8, m, 2, dtype=F64) for m in (n, 2 * n))
    return torch.cat([whole, longer[::2][: heads - n]])


def _alibi(attention_mask, num_heads, dtype):
    """transformers' tensor without its cast to float32."""
    places = (attention_mask.cumsum(-1) - 1) * attention_mask
    bias = _slopes(num_heads)[:, None] * places[:, None, :]
    return bias.reshape(-1, 1, places.shape[-1]).to(dtype)


@pytest.fixture(autouse=True)
def without_cast(monkeypatch):
    soft = torch.nn.functional.softmax
    monkeypatch.setattr(modeling_bloom, "build_alibi_tensor", _alibi)
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: soft(x, dim))


def without_casts(model):
    """transformers' model with the activation that its rounded constants stand for."""
    for m in model.modules():
        if type(m).__name__ == "BloomGelu":
            m.forward = lambda x: torch.nn.functional.gelu(x, approximate="tanh")
    return model


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 16, 112])
def test_slopes(heads):
    spec = archdsl.loads("use std.embed { Alibi }\nmodel M(n: int = 2)(x: [T = 9, 4]) -> y: [n, T, T] { return Alibi(n)(x) }", "m.arch")
    bias = spec.build(dtype=F64, n=heads)(torch.zeros(9, 4, dtype=F64))
    n = max(2**k for k in range(8) if 2**k <= heads)
    slopes = [2.0 ** (-8 * (h + 1) / n) for h in range(n)] + [2.0 ** (-8 * (2 * h + 1) / (2 * n)) for h in range(heads - n)]
    expected = torch.tensor([[[slope * (j - i) for j in range(9)] for i in range(9)] for slope in slopes], dtype=F64)
    torch.testing.assert_close(bias, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(_slopes(heads), torch.tensor(slopes, dtype=F64), rtol=1e-14, atol=0)
    theirs = BIAS(torch.ones(1, 9, dtype=torch.int64), heads, F64)[:, 0, 1]
    torch.testing.assert_close(theirs, _slopes(heads), rtol=1e-6, atol=0)  # theirs are rounded to float32


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 13)])
def test_logits_and_gradients(case, shape):
    knobs = CASES[case]
    peer = transformers.BloomForCausalLM(config(**knobs)).double()
    prove(archdsl.load(SPEC).build(dtype=F64, **knobs), peer, tokens(knobs["vocab"], *shape), source="hf",
          call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@pytest.mark.parametrize("case", CASES)
def test_decoding_with_a_cache(case):
    """Rows that begin later as well: only distances count."""
    knobs = CASES[case]
    peer = transformers.BloomForCausalLM(config(**knobs)).double()
    randomise(peer)
    decodes_alike(archdsl.load(SPEC), without_casts(peer), tokens(knobs["vocab"], 3, 11), 3, 6, placed=False, **knobs)


def test_forms_agree():
    agree(archdsl.load(SPEC), T=11, **CASES["six heads"])


@pytest.mark.parametrize(("variant", "d", "depth", "heads"),
                         [("bloom_560m", 1024, 24, 16), ("bloom_7b1", 4096, 30, 32), ("bloom_176b", 14_336, 70, 112)])
def test_names_and_shapes(variant, d, depth, heads):
    with torch.device("meta"):
        peer = transformers.BloomForCausalLM(config(250_880, d, depth, heads))
    ours = archdsl.load(SPEC).build(variant, device="meta")
    written = archdsl.export_weights(ours, "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
