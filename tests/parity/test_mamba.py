"""Mamba, Mamba-2 and hybrids against transformers: logits, gradients, decoding from its cache."""
from __future__ import annotations

import functools
from contextlib import contextmanager
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import pytest
import torch

import archdsl
from archdsl import ArchError, import_weights
from tests.parity.proof import prove, randomise, relative

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")

MAMBA, MAMBA2, HYBRID = (f"specs/language/{name}.arch" for name in ("mamba", "mamba2", "mamba2_hybrid"))
F64 = torch.float64


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(3))


@contextmanager
def exact():
    """What transformers casts to float32 stays float64."""
    to = torch.Tensor.to

    def kept(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        lower = torch.float32 in (*args, *options.values()) and x.dtype == F64
        return x if lower else to(x, *args, **options)

    with patch.object(torch.Tensor, "to", kept), patch.object(torch.Tensor, "float", lambda x: x):
        yield


def without_casts(model: Any) -> Any:
    plain = model.forward

    @functools.wraps(plain)
    def forward(*args: Any, **options: Any) -> Any:
        with exact():
            return plain(*args, **options)

    model.forward = forward
    return model


def mamba(vocab, d, depth, state=16, expand=2, kernel=4, rank="auto", bias=False, conv_bias=True, eps=1e-5, tie=True):
    return transformers.MambaForCausalLM(transformers.MambaConfig(
        vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, state_size=state, expand=expand, conv_kernel=kernel, time_step_rank=rank,
        use_bias=bias, use_conv_bias=conv_bias, layer_norm_epsilon=eps, tie_word_embeddings=tie, residual_in_fp32=False, pad_token_id=None))


def mamba2(vocab, d, depth, state=128, groups=1, head_dim=64, expand=2, kernel=4, bias=False, conv_bias=True, eps=1e-5, tie=True, dt_min=0.0,
           dt_max=float("inf")):
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(
        vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, state_size=state, n_groups=groups, head_dim=head_dim, expand=expand,
        num_heads=expand * d // head_dim, conv_kernel=kernel, use_bias=bias, use_conv_bias=conv_bias, layer_norm_epsilon=eps,
        tie_word_embeddings=tie, residual_in_fp32=False, pad_token_id=None, chunk_size=16, time_step_limit=(dt_min, dt_max)))


def nemotron(vocab, d, pattern, depth=None, state=128, groups=8, ssm_head_dim=64, ssm_heads=None, dt_min=0.0, heads=32, kv_heads=8, head_dim=128,
             hidden=None, act="gelu", eps=1e-5):
    assert depth in (None, len(pattern))
    return transformers.NemotronHForCausalLM(transformers.NemotronHConfig(
        vocab_size=vocab, hidden_size=d, hybrid_override_pattern=pattern, ssm_state_size=state, n_groups=groups, mamba_head_dim=ssm_head_dim,
        mamba_num_heads=ssm_heads or 2 * d // ssm_head_dim, time_step_min=dt_min or 1e-300, num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=head_dim, intermediate_size=hidden or 4 * d, mlp_hidden_act=act, layer_norm_epsilon=eps, pad_token_id=None, chunk_size=16,
        attn_implementation="sdpa"))


MAMBAS = {
    "defaults": dict(vocab=61, d=48, depth=2),
    "odd sizes, biases, untied": dict(vocab=37, d=36, depth=3, state=5, expand=3, kernel=3, rank=7, bias=True, eps=1e-3, tie=False),
    "no biases at all": dict(vocab=29, d=20, depth=1, state=1, expand=1, kernel=2, rank=1, conv_bias=False),
}
MAMBA2S = {
    "grouped": dict(vocab=61, d=48, depth=2, state=5, groups=2, head_dim=12),
    "one group, odd sizes, biases, untied": dict(vocab=37, d=35, depth=3, state=7, head_dim=5, expand=3, kernel=3, bias=True, eps=1e-3, tie=False),
    "a group for each head": dict(vocab=29, d=24, depth=1, state=1, groups=4, head_dim=6, expand=1, kernel=2, conv_bias=False),
    "steps from a range": dict(vocab=29, d=24, depth=2, state=3, head_dim=6, dt_min=0.4, dt_max=0.9),
}
HYBRIDS = {
    "all three": dict(vocab=61, d=48, pattern="M-*M--M", state=5, groups=2, ssm_head_dim=12, heads=4, kv_heads=2, head_dim=10, hidden=72),
    "least step, own width, other MLP": dict(vocab=37, d=40, pattern="*MM-", state=3, groups=3, ssm_head_dim=7, ssm_heads=6, dt_min=0.4, heads=3,
                                             kv_heads=1, head_dim=6, hidden=33, act="relu2", eps=1e-3),
    "no attention": dict(vocab=29, d=16, pattern="M-", state=2, groups=1, ssm_head_dim=4),
}
CASES = [(MAMBA, mamba, c) for c in MAMBAS.values()] + [(MAMBA2, mamba2, c) for c in MAMBA2S.values()] \
    + [(HYBRID, nemotron, {**c, "depth": len(c["pattern"])}) for c in HYBRIDS.values()]
IDS = [f"{spec}: {name}" for spec, table in (("mamba", MAMBAS), ("mamba2", MAMBA2S), ("hybrid", HYBRIDS)) for name in table]
cases = pytest.mark.parametrize(("spec", "peer", "sizes"), CASES, ids=IDS)


@cases
@pytest.mark.parametrize(("batch", "length"), [(4, 1), (1, 7), (2, 70)])
def test_is_transformers(spec, peer, sizes, batch, length):
    ours = archdsl.load(spec).build(dtype=F64, **sizes)
    prove(ours, peer(**sizes).double(), tokens(sizes["vocab"], batch, length), source="hf", call=lambda m, x: m(x, use_cache=False).logits,
          reference=without_casts)


@pytest.mark.parametrize(("spec", "peer", "sizes"), [c for c in CASES if "*" in c[2].get("pattern", "*")])  # else it has no length of its cache
def test_decodes_like_transformers(spec, peer, sizes):
    """A prompt, then token by token: our forms `extend` and `step` against its cache, and the state at the end."""
    sizes = {n: v for n, v in sizes.items() if n not in ("dt_min", "dt_max")}  # its decoding by single tokens leaves the range of steps out
    theirs = peer(**sizes).double().eval()
    randomise(theirs)
    loaded = archdsl.load(spec)
    extend, step = (loaded.build(form=form, dtype=F64, **sizes).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x = tokens(sizes["vocab"], 2, 29)
    room = {"length": 29} if "*" in sizes.get("pattern", "") else {}
    state = extend.init_state(2, **room)
    with torch.no_grad(), exact():
        cached = theirs(x[:, :20], use_cache=True)
        y, state = extend(x[:, :20], state)
        assert relative(y, cached.logits) <= 1e-10
        for t in range(20, 29):
            cached = theirs(x[:, t:t + 1], cache=cached.cache if hasattr(cached, "cache") else cached.past_key_values, use_cache=True)
            y, state = step(x[:, t:t + 1], state)
            assert relative(y, cached.logits) <= 1e-10
        whole = theirs(x, use_cache=False).logits[:, -1:]
    assert relative(y, whole) <= 1e-10


@pytest.mark.parametrize(("spec", "peer", "sizes"), [c for c in CASES if "dt_min" in c[2]])
def test_steps_from_a_range_are_decoded(spec, peer, sizes):
    """The range of steps holds for each token that is decoded. transformers' cache keeps to it where it gets two tokens or more, its whole forward
    pass always: either is ours, token by token."""
    theirs = peer(**sizes).double().eval()
    randomise(theirs)
    loaded = archdsl.load(spec)
    extend, step, free = (loaded.build(form=form, dtype=F64, **{**sizes, **more}).eval() for form, more in
                          (("extend", {}), ("step", {}), ("extend", {"dt_min": 0} | ({"dt_max": None} if "dt_max" in sizes else {}))))
    for model in (extend, step, free):
        import_weights(model, theirs.state_dict(), source="hf")
    x = tokens(sizes["vocab"], 2, 21)
    room = {"length": 21} if "*" in sizes.get("pattern", "") else {}
    with torch.no_grad(), exact():
        whole = theirs(x, use_cache=False).logits
        cached = theirs(x[:, :9], use_cache=True)
        y, state = extend(x[:, :9], extend.init_state(2, **room))
        assert relative(y, whole[:, :9]) <= 1e-10
        for at, end in ((9, 11), (11, 16), (16, 18), (18, 21)):
            cached = theirs(x[:, at:end], cache=cached.cache, use_cache=True)
            for t in range(at, end):
                y, state = step(x[:, t:t + 1], state)
                assert relative(y, cached.logits[:, t - at:t - at + 1]) <= 1e-10
                assert relative(y, whole[:, t:t + 1]) <= 1e-10
        y, _ = free(x, free.init_state(2, **room))
    assert relative(y, whole) > 1e-3  # the range is felt


@cases
def test_generates_like_transformers(spec, peer, sizes):
    theirs = peer(**sizes).double().eval()
    randomise(theirs)
    ours = archdsl.load(spec).build(dtype=F64, **sizes).eval()
    import_weights(ours, theirs.state_dict(), source="hf")
    x = tokens(sizes["vocab"], 1, 9)
    with torch.no_grad(), exact():
        for _ in range(12):
            x = torch.cat([x, theirs(x, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    assert archdsl.generate(ours, [x[0, :9].tolist()], max_new_tokens=12)[0].tolist() == x[0].tolist()


@pytest.mark.parametrize(("spec", "peer", "sizes"), [c for c in CASES if not c[2].get("bias")])  # its convolution reads the bias of what is padded
def test_left_padded_prompts(spec, peer, sizes):
    """A batch that transformers pads on the left and masks is our batch of prompts of different lengths."""
    theirs = peer(**sizes).double().eval()
    randomise(theirs)
    ours = archdsl.load(spec).build(dtype=F64, **sizes).eval()
    import_weights(ours, theirs.state_dict(), source="hf")
    x = tokens(sizes["vocab"], 2, 9)
    mask = torch.ones_like(x)
    mask[1, :4] = 0
    prompts = [x[0].tolist(), x[1, 4:].tolist()]
    with torch.no_grad(), exact():
        for _ in range(6):
            new = theirs(x, attention_mask=mask, use_cache=False).logits[:, -1:].argmax(-1)
            x, mask = torch.cat([x, new], 1), torch.cat([mask, torch.ones_like(new)], 1)
    got = archdsl.generate(ours, prompts, max_new_tokens=6)
    assert [g.tolist() for g in got] == [x[0].tolist(), x[1, 4:].tolist()]


PUBLISHED = {
    "mamba_130m": (MAMBA, mamba, dict(vocab=50_280, d=768, depth=24)),
    "mamba_370m": (MAMBA, mamba, dict(vocab=50_280, d=1024, depth=48)),
    "mamba_790m": (MAMBA, mamba, dict(vocab=50_280, d=1536, depth=48)),
    "mamba_1_4b": (MAMBA, mamba, dict(vocab=50_280, d=2048, depth=48)),
    "mamba_2_8b": (MAMBA, mamba, dict(vocab=50_280, d=2560, depth=64)),
    "mamba2_130m": (MAMBA2, mamba2, dict(vocab=50_288, d=768, depth=24)),
    "mamba2_370m": (MAMBA2, mamba2, dict(vocab=50_288, d=1024, depth=48)),
    "mamba2_780m": (MAMBA2, mamba2, dict(vocab=50_288, d=1536, depth=48)),
    "mamba2_1_3b": (MAMBA2, mamba2, dict(vocab=50_288, d=2048, depth=48)),
    "mamba2_2_7b": (MAMBA2, mamba2, dict(vocab=50_288, d=2560, depth=64)),
    "codestral_7b": (MAMBA2, mamba2, dict(vocab=32_768, d=4096, depth=64, groups=8, tie=False)),
    "hybrid_8b": (HYBRID, nemotron, dict(vocab=256_000, d=4096, pattern="M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-")),
    "mamba2_8b": (HYBRID, nemotron, dict(vocab=256_000, d=4096, pattern="M" * 56)),
    "nemotron_h_8b": (HYBRID, nemotron, dict(vocab=131_072, d=4096, pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
                                             hidden=21_504, act="relu2")),
    "nemotron_h_4b": (HYBRID, nemotron, dict(vocab=131_072, d=3072, pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
                                             hidden=12_288, act="relu2", ssm_heads=112)),
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_names_and_shapes(variant):
    """On the meta device: every weight of transformers' model is accounted for, under its name, with its shape."""
    spec, peer, sizes = PUBLISHED[variant]
    with torch.device("meta"):
        theirs = peer(**sizes)
    ours = archdsl.load(spec).build(variant, device="meta")
    assert {k: v.shape for k, v in archdsl.export_weights(ours, "hf").items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


# ---------------------------------------------------------------- the pattern
def walked(n: int, attention: Any, mlp: Any) -> tuple[str, bool]:
    """The allocator's rule in the arithmetic of its arguments: runs of Mamba between attention layers, then MLPs in the places of Mamba layers.
    And whether a run ended on a half."""
    kinds, tie = ["M"] * n, False
    for share, mark in ((attention, "*"), (mlp, "-")):
        free = [i for i, k in enumerate(kinds) if k == "M"]
        many = round(n * share)
        runs = many + (mark == "*")
        if runs == 0:
            continue
        run = type(share)(len(free) - many) / runs
        x = run
        for i in free:
            tie = tie or x == Fraction(1, 2)
            kinds[i], x = (mark, x + run) if x < 0.5 else (kinds[i], x - 1)
    return "".join(kinds), tie


def test_allocator():
    """Over depths and shares. Ours counts in fractions, and is what floats give where no run ends on a half."""
    spec = archdsl.load(HYBRID)
    assert walked(56, 0.08, 0.5)[0] == "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"
    as_floats = 0
    for n in (1, 2, 7, 10, 24, 48, 56, 61):
        for attention, mlp in (("0", "0"), ("0.08", "0.5"), ("0.2", "0.3"), ("0.5", "0.5"), ("0", "0.3"), ("0.3", "0"), ("1", "0")):
            got = spec.elaborate(knobs={"depth": n, "attention": float(attention), "mlp": float(mlp)}).knobs["pattern"].value
            expected, tie = walked(n, Fraction(attention), Fraction(mlp))
            assert got == expected and len(got) == n and got.count("*") == round(n * Fraction(attention))
            if not tie:
                assert got == walked(n, float(attention), float(mlp))[0], (n, attention, mlp)
                as_floats += 1
    assert as_floats >= 40


def test_patterns_that_do_not_fit():
    spec = archdsl.load(HYBRID)
    with pytest.raises(ArchError, match="3 letters for 4 layers"):
        spec.elaborate(knobs={"depth": 4, "pattern": "M-M"})
    with pytest.raises(ArchError, match="the letters of a pattern are"):
        spec.elaborate(knobs={"depth": 4, "pattern": "M-E*"})


def test_state_of_the_hybrid():
    """Constant but for the keys and values of the four attention layers: 16 KiB a token in bfloat16."""
    spec = archdsl.load(HYBRID)
    at = lambda length: spec.cost("hybrid_8b", form="step", dtype="bf16", at={"T": length}).state_bytes
    per_token = 4 * 2 * 8 * 128 * 2
    fixed = 24 * (128 * 64 * 128 * 4 + 10_240 * 3 * 2)
    rest = at(1) - per_token - fixed
    assert at(4097) - at(1) == 4096 * per_token and per_token == 16 * 1024
    assert 0 <= rest <= 64  # the counter of positions and where rows begin
    transformer = lambda length: spec.cost("transformer_8b", form="step", dtype="bf16", at={"T": length}).state_bytes
    assert transformer(4097) - transformer(1) == 4096 * per_token * 32  # 32 layers for 4, 32 heads for 8
