"""T5 against transformers: biases by buckets of distances, in both directions and in one; sources padded on the left; decoding with a cache."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import archdsl
from tests.parity.proof import EXACT, _gradients, randomise, relative, run, single_precision

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
SPEC = "specs/language/t5.arch"
CASES: dict[str, dict[str, Any]] = {
    "tied": dict(vocab=61, d=24, depth=2, heads=3, head_dim=10, hidden=40, buckets=8, furthest=7),
    "version 1.1": dict(vocab=37, d=20, depth=3, heads=2, head_dim=6, hidden=28, gated=True, tie=False, buckets=12, furthest=9),
    "buckets of the paper": dict(vocab=17, d=12, depth=1, heads=1, head_dim=8, hidden=16),
}


def config(vocab, d, depth, heads, head_dim, hidden, gated=False, tie=True, buckets=32, furthest=128):
    return transformers.T5Config(vocab_size=vocab, d_model=d, num_layers=depth, num_heads=heads, d_kv=head_dim, d_ff=hidden, dropout_rate=0.0,
                                 feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=tie, attn_implementation="eager",
                                 relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest)


def peer_of(*sizes: Any, **knobs: Any):
    """transformers' model. It is made with a tied head whatever the configuration says; files of version 1.1 bring a head of their own."""
    model = transformers.T5ForConditionalGeneration(config(*sizes, **knobs))
    if not model.config.scale_decoder_outputs:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    return model


def without_casts(model):
    """transformers' model with the casts in its norms removed."""
    def norm(m, x):
        return x / (x.square().mean(-1, keepdim=True) + m.variance_epsilon).sqrt() * m.weight

    for m in model.modules():
        if type(m).__name__ == "T5LayerNorm":
            m.forward = norm.__get__(m)
    return model


def tokens(vocab: int, *shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))


def padded(batch: int, length: int, pad: int) -> torch.Tensor:
    """1 where a position counts: all rows but the first begin behind `pad` others."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1:, :pad] = 0
    return mask


def both_models(case: str) -> tuple[Any, Any, Any]:
    """Ours, transformers', and that without casts, with the same weights in float64."""
    peer = peer_of(**CASES[case]).double().eval()
    ours = archdsl.load(SPEC).build(dtype=F64, **CASES[case]).eval()
    randomise(peer)
    archdsl.import_weights(ours, peer.state_dict(), source="hf")
    return ours, peer, without_casts(copy.deepcopy(peer))


def calls(case: str, batch: int, sources: int, seed: int = 5) -> tuple[Any, Any]:
    """How logits of a target are asked for, of ours and of theirs, behind one source."""
    source, mask = tokens(CASES[case]["vocab"], batch, sources, seed=seed), padded(batch, sources, sources // 3)
    return (lambda m, v: m(source, mask.bool(), v),
            lambda m, v: m(input_ids=source, attention_mask=mask, decoder_input_ids=v, use_cache=False).logits)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch", "sources", "targets"), [(1, 1, 1), (2, 13, 9), (2, 3, 19)])
def test_logits_and_gradients(case, batch, sources, targets):
    ours, _, exact = both_models(case)
    x = tokens(CASES[case]["vocab"], batch, targets)
    probe = torch.randn(1 << 14, generator=torch.Generator().manual_seed(7), dtype=F64)
    mine, theirs = calls(case, batch, sources)
    got, want = run(ours, mine, x, probe)[0], run(exact, theirs, x, probe)[0]
    assert want.std() > 1e-4 and relative(got, want) <= EXACT
    _gradients(ours, exact, "hf")


@pytest.mark.parametrize("case", CASES)
def test_single_precision(case):
    ours, peer, exact = both_models(case)
    ours, peer, drawn = ours.float(), peer.float(), range(8)
    x = torch.cat([tokens(CASES[case]["vocab"], 1, 2, 19, seed=100 + i) for i in drawn])
    asked = [calls(case, 2, 13, seed=i) for i in drawn]

    def several(model: Any, side: int) -> Any:
        return lambda v: [torch.stack([asked[i][side](model, v[i]) for i in drawn])]

    single_precision(several(ours, 0), several(peer, 1), several(exact, 1), [x])


@pytest.mark.parametrize("case", CASES)
def test_decoding_with_a_cache(case):
    """The source once, then the target token by token; rows of source and target begin at different places."""
    knobs = CASES[case]
    peer = peer_of(**knobs).double().eval()
    randomise(peer)
    peer = without_casts(peer)
    spec = archdsl.load(SPEC)
    whole = spec.build(dtype=F64, **knobs).eval()
    archdsl.import_weights(whole, peer.state_dict(), source="hf")
    encode = spec.models["T5.encode"].build(dtype=F64, **knobs).eval()
    extend, step = (spec.models["T5.decode"].build(dtype=F64, form=form, **knobs).eval() for form in ("extend", "step"))
    for m in (encode, extend, step):
        archdsl.tie(m, whole)
    source, mask, x, pad = tokens(knobs["vocab"], 2, 9, seed=5), padded(2, 9, 4), tokens(knobs["vocab"], 2, 12), 3
    seen = padded(2, 12, pad)
    with torch.no_grad():
        memory = encode(source, mask.bool())
        encoded = peer.encoder(input_ids=source, attention_mask=mask)
        assert relative(memory, encoded.last_hidden_state) <= EXACT

        def theirs(a, b, cache=None):
            return peer(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=x[:, a:b], decoder_attention_mask=seen[:, :b],
                        past_key_values=cache, use_cache=True)

        state = extend.init_state(2, 12, S=9)
        _, state = extend(x[:, :pad], memory, mask.bool(), state)
        state = extend.reset_state(state, [1])
        y, state = extend(x[:, pad:6], memory, mask.bool(), state)
        known = theirs(0, 6)
        assert relative(y, known.logits[:, pad:]) <= EXACT
        for t in range(6, 12):
            y, state = step(x[:, t : t + 1], state)
            known = theirs(t, t + 1, known.past_key_values)
            assert relative(y, known.logits) <= EXACT
    depth, heads, width = knobs["depth"], knobs["heads"], knobs["head_dim"]
    # keys and values of 12 positions and of the source, once; which positions of the source count; where rows are and began
    assert sum(v.nbytes for v in state.values()) == depth * 2 * 2 * heads * (12 + 9) * width * 8 + 2 * 9 + 8 + 2 * 8


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (16, 9)])
def test_buckets(both, buckets, furthest):
    from transformers.models.t5.modeling_t5 import T5Attention

    text = "use std.embed { RelativeBias }\nmodel M(both: bool = false, n: int = 32, m: int = 128)(x: [T = 300, 4]) -> y: [3, T, T] " \
           "{ return RelativeBias(3, n, m, both)(x) as bias }"
    model = archdsl.loads(text, "m.arch").build(dtype=F64, both=both, n=buckets, m=furthest)
    i = torch.arange(300)
    bucket = T5Attention._relative_position_bucket(i - i[:, None], both, buckets, furthest)
    assert torch.equal(model(torch.zeros(300, 4, dtype=F64)), model.get_parameter("bias.weight")[bucket].permute(2, 0, 1))
    with pytest.raises(archdsl.ArchError, match="lies beyond them"):
        archdsl.loads(text, "m.arch").build(both=both, n=buckets, m=buckets // 4)


@pytest.mark.parametrize(("variant", "sizes"), [
    ("small", (512, 6, 8, 64, 2048)), ("t5_11b", (1024, 24, 128, 128, 65_536)), ("v11_base", (768, 12, 12, 64, 2048, True, False)),
])
def test_names_and_shapes(variant, sizes):
    with torch.device("meta"):
        peer = peer_of(32_128, *sizes)
    ours = archdsl.load(SPEC).build(variant, device="meta")
    written = archdsl.export_weights(ours, "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
