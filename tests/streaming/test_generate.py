"""Generation against transformers with the same random weights, and its own rules."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import archdsl
from archdsl.generation import restricted
from tests.parity.proof import randomise
from tests.parity.test_t5 import peer_of

VOCAB = 41


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Any, Any]]:
    """(ours, theirs) with the same weights."""
    torch.manual_seed(0)
    out = {}
    peer: Any = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.4))
    ours = archdsl.load("llama").build(vocab=VOCAB, d=32, depth=2, heads=4, kv_heads=2, hidden=48)
    out["llama"] = ours, peer
    peer = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.4))
    ours = archdsl.load("gpt2").build(vocab=VOCAB, d=32, depth=2, heads=4, context=64)
    out["gpt2"] = ours, peer
    for ours, peer in out.values():
        peer.generation_config.pad_token_id = peer.generation_config.eos_token_id = peer.generation_config.bos_token_id = None
        archdsl.import_weights(ours.eval(), peer.eval().state_dict(), source="hf")
    return out


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_greedy(pairs: Any, name: str):
    ours, peer = pairs[name]
    prompt = torch.randint(0, VOCAB, (3, 5))
    expected = peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)
    assert torch.equal(archdsl.generate(ours, prompt, 12), expected)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_prompts_of_different_lengths(pairs: Any, name: str):
    """As the peer with left padding, and as each prompt alone."""
    ours, peer = pairs[name]
    prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
    got = archdsl.generate(ours, prompts, 9)
    padded = torch.tensor([[0] * (5 - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (5 - len(p)) + [1] * len(p) for p in prompts])
    expected = peer.generate(padded, attention_mask=mask, max_new_tokens=9, do_sample=False, pad_token_id=0)
    for p, g, e in zip(prompts, got, expected):
        assert g.tolist() == p + e[5:].tolist()
        assert g.tolist() == archdsl.generate(ours, [p], 9)[0].tolist()


def test_eos(pairs: Any):
    ours, peer = pairs["llama"]
    prompt = torch.randint(0, VOCAB, (4, 3), generator=torch.Generator().manual_seed(3))
    free = archdsl.generate(ours, prompt, 12)
    eos = int(free[0, 6])
    expected = peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, eos_token_id=eos, pad_token_id=eos)
    assert torch.equal(archdsl.generate(ours, prompt, 12, eos=eos), expected)
    rows = archdsl.generate(ours, prompt.tolist(), 12, eos=[eos])
    assert all(eos not in r.tolist()[3:-1] for r in rows) and int(rows[0][-1]) == eos


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("beams", [2, 5])
def test_beams(pairs: Any, name: str, beams: int):
    ours, peer = pairs[name]
    prompt = torch.randint(0, VOCAB, (3, 4), generator=torch.Generator().manual_seed(1))
    expected = peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, num_beams=beams)
    assert torch.equal(archdsl.generate(ours, prompt, 8, beams=beams), expected)


def test_beams_of_every_sequence_find_the_best():
    """With as many beams as tokens, two steps look at all sequences."""
    ours = archdsl.load("llama").build(vocab=7, d=16, depth=1, heads=2, kv_heads=2, hidden=16).eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn_like(p))
        prompt = torch.tensor([[1, 2]])
        every = torch.cartesian_prod(torch.arange(7), torch.arange(7))
        logits = ours(torch.cat([prompt.expand(49, -1), every], 1)).log_softmax(-1)
        total = logits[:, 1].gather(1, every[:, :1]) + logits[:, 2].gather(1, every[:, 1:])
    assert archdsl.generate(ours, prompt, 2, beams=7)[0, 2:].tolist() == every[total.argmax()].tolist()


def test_sampling_is_seeded_and_follows_the_distribution(pairs: Any):
    ours, _ = pairs["llama"]
    prompt = torch.tensor([[1, 2, 3]]).expand(4000, -1)
    one, two, other = (archdsl.generate(ours, prompt, 1, temperature=1.7, seed=s)[:, -1] for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)
    with torch.no_grad():
        expected = torch.softmax(ours(prompt[:1])[0, -1] / 1.7, -1)
    seen = torch.bincount(one, minlength=VOCAB) / 4000
    assert float((seen - expected).abs().max()) < 0.04
    few = archdsl.generate(ours, prompt, 1, temperature=1.7, top_k=3, seed=0)[:, -1]
    assert set(few.tolist()) <= set(expected.topk(3).indices.tolist())


def test_restrictions_equal_the_peers():
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits, none = torch.randn(50, 31), torch.LongTensor(50, 0)
    for k in (1, 5, 31):
        assert torch.equal(restricted(logits, k, None), TopKLogitsWarper(k)(none, logits))
    for p in (0.01, 0.5, 0.93, 1.0):
        assert torch.equal(restricted(logits, None, p), TopPLogitsWarper(p)(none, logits))


def test_stream_gives_the_same_tokens(pairs: Any):
    ours, _ = pairs["gpt2"]
    prompt = torch.randint(0, VOCAB, (2, 4))
    assert torch.equal(torch.stack(list(archdsl.generate_stream(ours, prompt, 6)), 1), archdsl.generate(ours, prompt, 6)[:, 4:])


def test_weights_are_those_of_the_model(pairs: Any):
    """Training between two calls shows in the second; the model's phase stays."""
    spec = archdsl.load("llama")
    model = spec.build(vocab=VOCAB, d=32, depth=1, heads=4, kv_heads=2, hidden=48).train()
    prompt = torch.tensor([[1, 2, 3]])
    archdsl.generate(model, prompt, 1)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[17] = model.norm(model.embed(prompt))[0, 0]
        expected = int(model.eval()(prompt)[0, -1].argmax())
    model.train()
    assert int(archdsl.generate(model, prompt, 1)[0, -1]) == expected and model.training
    assert set(model.state_dict()) == {a for a, _ in model.typed.parameters()}


@pytest.mark.parametrize(("settings", "told"), [
    ({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1}, "temperature"), ({"temperature": float("nan")}, "temperature"),
    ({"temperature": 1, "top_k": 0}, "top_k"), ({"temperature": 1, "top_p": 0}, "top_p"), ({"top_k": 3}, "draws nothing"),
    ({"temperature": "hot"}, "temperature"), ({"temperature": True}, "temperature"), ({"temperature": 1, "top_p": "all"}, "top_p"),
    ({"temperature": 1, "seed": 1.5}, "seed"), ({"temperature": 1, "seed": 2**70}, "seed"), ({"beams": None}, "beams"),
    ({"beams": 2, "length_penalty": float("nan")}, "length_penalty"), ({"beams": 2, "length_penalty": "x"}, "length_penalty"),
    ({"eos": 1.5}, "eos"), ({"eos": True}, "eos"), ({"eos": "</s>"}, "eos"), ({"eos": torch.tensor([0.5])}, "eos"),
    ({"beams": 2, "temperature": 1}, "beams"), ({"beams": 99}, "vocabulary"), ({"eos": VOCAB}, "eos"), ({"max_new_tokens": 100}, "64 positions"),
])
def test_bad_settings(pairs: Any, settings: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        archdsl.generate(pairs["gpt2"][0], [[1, 2]], **settings)


@pytest.mark.parametrize(("prompts", "told"), [
    ([], "no prompt"), ([[]], "prompt 0"), (torch.zeros(3, dtype=torch.int64), "batch, length"), ([[0.5]], "prompt 0"), ([[-1]], "0 or above"),
    ([1, 2], r"into brackets, `\[\[1, 2, 3\]\]`"), ([[10_000]], "the token id 10000, and the model has fewer"),
    (None, "a list of sequences of token ids"), (5, "a list of sequences of token ids"), ([None], "prompt 0"), ([[1], [1, None]], "prompt 1"),
    ([[2**70]], "prompt 0"), ([{1, 2}], "prompt 0"), ([[True]], "prompt 0"), (torch.zeros(2, 0, dtype=torch.int64), "prompt 0"),
])
def test_bad_prompts(pairs: Any, prompts: Any, told: str):
    with pytest.raises(ValueError, match=told):
        archdsl.generate(pairs["llama"][0], prompts)


def test_prompts_and_ends_of_other_kinds(pairs: Any):
    """Whatever gives token ids; a temperature close to 0 draws the likeliest."""
    ours, _ = pairs["llama"]
    free = archdsl.generate(ours, [[1, 2]], 6)[0]
    for prompts in (iter([[1, 2]]), [range(1, 3)], ((1, 2),), [torch.tensor([1, 2], dtype=torch.int32)]):
        assert torch.equal(archdsl.generate(ours, prompts, 6)[0], free)
    for temperature in (1e-30, 1e-320):
        assert torch.equal(archdsl.generate(ours, [[1, 2]], 6, temperature=temperature)[0], free)
    ends = free[4:5]
    assert torch.equal(archdsl.generate(ours, [[1, 2]], 6, eos=ends)[0], archdsl.generate(ours, [[1, 2]], 6, eos=int(ends))[0])


def test_models_moved_to_another_type():
    """Of a model in float32 made float64, the forms are float64 too; one without numbers is refused."""
    settings: dict[str, Any] = {"vocab": VOCAB, "d": 32, "depth": 1, "heads": 4, "kv_heads": 2, "hidden": 48}
    spec = archdsl.load("llama")
    model = spec.build(**settings)
    expected = archdsl.generate(model, [[1, 2, 3]], 5)
    assert torch.equal(archdsl.generate(model.double(), [[1, 2, 3]], 5)[0], expected[0])
    assert torch.equal(archdsl.generate(model.float(), [[1, 2, 3]], 5)[0], expected[0])
    with pytest.raises(ValueError, match=r"built in torch.float32, and its weights are torch.bfloat16 since: build\(form = …, dtype"):
        spec.build(form="step", **settings).bfloat16().init_state(1, 8)
    with pytest.raises(ValueError, match="a model on the meta device holds no numbers"):
        archdsl.generate(spec.build(device="meta", **settings), [[1]])


@pytest.mark.parametrize("prompts", ["text", b"text", ["a", "b"]])
def test_text_is_not_token_ids(pairs: Any, prompts: Any):
    with pytest.raises(TypeError, match="token ids, not text"):
        archdsl.generate(pairs["llama"][0], prompts)


def test_settings_are_checked_before_the_model_runs(pairs: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("archdsl.generation._Run._prefill", lambda self: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match="`max_new_tokens` is a whole number from 1 up, not -3"):
        archdsl.generate_stream(pairs["llama"][0], [[1]], max_new_tokens=-3)


def test_only_models_of_archdsl_have_forms():
    with pytest.raises(TypeError, match="Linear is no whole model that archdsl has built"):
        archdsl.generate(torch.nn.Linear(2, 2), [[1]])  # pyright: ignore[reportArgumentType]  (refused)


def test_models_of_another_kind():
    with pytest.raises(archdsl.ArchError, match="no streaming axis"):
        archdsl.generate(archdsl.load("vit").build("vit_tiny" if "vit_tiny" in archdsl.load("vit").variants else None, device="meta"), [[1]])


# ---------------------------------------------------------------- inputs without positions
@pytest.fixture(scope="module")
def translators() -> tuple[Any, Any]:
    """(ours, theirs): T5 with the same weights."""
    peer: Any = peer_of(**TRANSLATOR).eval()
    randomise(peer, seed=1)
    peer.generation_config.eos_token_id, peer.generation_config.decoder_start_token_id = None, 0
    ours = archdsl.load("t5").build(**TRANSLATOR).eval()
    archdsl.import_weights(ours, peer.state_dict(), source="hf")
    return ours, peer


TRANSLATOR: dict[str, Any] = dict(vocab=VOCAB, d=24, depth=2, heads=3, head_dim=8, hidden=40, gated=True, tie=False, buckets=8, furthest=7)
SOURCES = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8]]


@pytest.mark.parametrize("beams", [1, 3])
def test_an_encoder_and_a_decoder(translators: tuple[Any, Any], beams: int):
    """Prompts of different lengths are the encoder's; greedy and by beams, to an end and without one."""
    ours, peer = translators
    source = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in SOURCES], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(s), dtype=torch.int64) for s in SOURCES], batch_first=True)
    settings = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "num_beams": beams}
    free = archdsl.generate(ours, SOURCES, 9, start=0, beams=beams)
    assert torch.equal(torch.stack(free), peer.generate(source, **settings))
    assert all(len(set(r.tolist())) > 3 for r in free)
    eos = int(free[0][4])
    ended = archdsl.generate(ours, SOURCES, 9, start=0, beams=beams, eos=eos)
    expected = peer.generate(source, **settings, eos_token_id=eos, pad_token_id=eos, **({"early_stopping": "never"} if beams > 1 else {}))
    assert any(len(r) < 10 for r in ended)
    for r, e in zip(ended, expected):
        assert r.tolist() == e[:len(r)].tolist() and set(e[len(r):].tolist()) <= {eos}


def test_inputs_by_name(translators: tuple[Any, Any]):
    """What `start` makes of prompts, given by name; texts that begin with more than one token; and what they begin with goes on alike."""
    ours, _ = translators
    source = torch.tensor([[3, 1, 4, 1], [6, 2, 0, 0]])
    valid = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    expected = archdsl.generate(ours, [source[0], source[1, :2]], 6, start=0)
    got = archdsl.generate(ours, [expected[0][:3], expected[1][:1]], 6, inputs={"source": source, "valid": valid})
    assert got[0][:7].tolist() == expected[0].tolist() and got[1].tolist() == expected[1].tolist()
    streamed = archdsl.generate_stream(ours, [source[0], source[1, :2]], 6, start=0)
    assert torch.stack(list(streamed), 1).tolist() == [e[1:].tolist() for e in expected]
    decoder, encoder = (archdsl.load("t5").models[f"T5.{e}"].build(**TRANSLATOR) for e in ("decode", "encode"))
    for m in (decoder, encoder):
        archdsl.tie(m.eval(), ours)
    again = archdsl.generate(decoder, torch.tensor([[0], [0]]), 6, inputs={"memory": encoder(source, valid), "valid": valid})
    assert torch.equal(torch.stack(expected), again)


def test_a_translator_of_another_kind():
    """Kernelised attention in encoder and decoder: as all positions at once have it, a token at a time."""
    ours = archdsl.load("kernel_attention").models["KernelTranslator"].build("translation_tiny", seed=3).eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) / p.shape[-1] ** 0.5)
        for source, text in zip(SOURCES, archdsl.generate(ours, SOURCES, 7, start=2)):
            known = [2]
            for _ in range(7):
                logits = ours(torch.tensor([source]), torch.tensor([known]), torch.ones(1, len(source), dtype=torch.bool))
                known.append(int(logits[0, -1].argmax()))
            assert text.tolist() == known


@pytest.mark.parametrize(("settings", "told"), [
    ({}, r"takes `source: int\[B, S\]`, `valid: bool\[B, S\]` as well: inputs = \{'source': …, 'valid': …\}"),
    ({"inputs": {"source": [[1], [2]], "valid": [[True], [True]], "more": 1}}, "names 'more', and the others are `source"),
    ({"inputs": {"source": [[1]], "valid": [[True]]}}, r"`source` is int\[B, S\], for 2 rows here, and this is torch.int64 \[1, 1\]"),
    ({"inputs": {"source": [[1, 1], [2, 2]], "valid": [[True], [True]]}}, "valid"),
    ({"start": 0, "inputs": {"source": [[1], [2]]}}, "with `start`, prompts go to the one input of token ids"),
    ({"start": -1}, "`start` is a token id, not -1"), ({"start": True}, "`start` is a token id"),
    ({"start": 0, "recorded": True}, "sizes 'source', 'valid' tell is not recorded"),
    ({"start": VOCAB}, f"the model has fewer tokens: `start` is {VOCAB}, the prompts hold 1 to 2"),
    ({"inputs": {"source": torch.full((2, 3), 99999), "valid": torch.ones(2, 3, dtype=torch.bool)}}, "prompts hold 1 to 2, `source` holds 99999$"),
    ({"inputs": {"source": [[-1, 5], [2, 3]], "valid": [[True] * 2] * 2}}, "one of these token ids is below 0, .*`source` holds -1 to 5"),
    ({"inputs": {"source": None, "valid": [[True], [True]]}}, r"`source` is int\[B, S\], a tensor or lists of one length, and this is None"),
    ({"inputs": {"source": "text", "valid": [[True], [True]]}}, r"`source` is int\[B, S\], .* and this is 'text'"),
    ({"inputs": {"source": [[1, 2], [3]], "valid": [[True], [True]]}}, r"`source` is int\[B, S\], .* and this is \[\[1, 2\], \[3\]\]"),
    ({"inputs": {"source": [[1], [3]], "valid": [[1.0], [1.0]]}}, r"`valid` is bool\[B, S\], and this is torch.float32 \[2, 1\]"),
])
def test_inputs_that_do_not_fit(translators: tuple[Any, Any], settings: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        archdsl.generate(translators[0], [[1], [2]], 3, **settings)


def test_a_mask_that_is_given_is_used(translators: tuple[Any, Any]):
    """Sources of several lengths beside a mask of the caller's."""
    valid = torch.tensor([[True] * 3, [True, False, False]])
    free = archdsl.generate(translators[0], [[3, 1, 4], [6]], 3, start=0)
    given = archdsl.generate(translators[0], [[3, 1, 4], [6]], 3, start=0, inputs={"valid": valid})
    assert [r.tolist() for r in given] == [r.tolist() for r in free]


def test_a_decoder_alone_has_no_source(pairs: Any):
    with pytest.raises(ValueError, match="these could be it: none"):
        archdsl.generate(pairs["llama"][0], [[1]], 3, start=0)
    with pytest.raises(ValueError, match="names 'source', and the model takes tokens alone"):
        archdsl.generate(pairs["llama"][0], [[1]], 3, inputs={"source": torch.zeros(1, 1)})
