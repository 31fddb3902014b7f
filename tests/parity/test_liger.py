"""Liger's architectures: the weights of transformers' Llama with each recurrence written out beside attention over a window; all forms; what is kept
of the model that is converted."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.claims import verify
from tests.parity.fla_layout import rope
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.streaming.forms import agree

pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
from tests.parity.test_language import llama_config, transformers, without_casts

SPEC = "specs/language/liger.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=61, d=32, depth=2, heads=4, kv_heads=2, hidden=48, base=10_000)
KINDS: dict[str, dict[str, Any]] = {
    "gla": {"kind": "gla"}, "hgrn2": {"kind": "hgrn2"}, "gsa": {"kind": "gsa"}, "gsa, few slots": {"kind": "gsa", "slots": 2}}
kinds = pytest.mark.parametrize("case", KINDS)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


def pooled(k: torch.Tensor, slots: int) -> torch.Tensor:
    """The gates: all heads' channels side by side through torch's adaptive average pool."""
    heads = k.shape[1]
    flat = k.transpose(1, 2).flatten(2)
    return F.adaptive_avg_pool1d(flat, heads * slots).unflatten(-1, (heads, slots)).transpose(1, 2)


def recurrence(kind: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """[B, h, T, e], one position after the other; queries, keys, values and gates by head."""
    if kind == "gsa":
        alpha = u.sigmoid() ** (1 / 16)
        keys = q.new_zeros(*q.shape[:2], alpha.shape[-1], k.shape[-1])
        values = q.new_zeros(*q.shape[:2], alpha.shape[-1], v.shape[-1])
        out = []
        for t in range(q.shape[2]):
            a = alpha[:, :, t, :, None]
            keys = a * keys + (1 - a) * k[:, :, t, None]
            values = a * values + (1 - a) * v[:, :, t, None]
            out.append((torch.softmax((keys @ q[:, :, t, :, None])[..., 0], -1)[..., None] * values).sum(-2))
        return torch.stack(out, 2)
    gate, key = (u.sigmoid() ** (1 / 16), k.softmax(-1)) if kind == "gla" else (u.sigmoid(), 1 - u.sigmoid())
    state = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1])
    out = []
    for t in range(q.shape[2]):
        state = gate[:, :, t, :, None] * state + key[:, :, t, :, None] * v[:, :, t, None]
        out.append((q.softmax(-1)[:, :, t, :, None] * state).sum(-2))
    return torch.stack(out, 2)


def converted(model: Any, kind: str, span: int = 5, slots: int = 8) -> Any:
    """transformers' Llama, its attention replaced in each layer."""

    def attend(m: Any, hidden_states: torch.Tensor, **_: Any) -> Any:
        q, k, v = (f(hidden_states).unflatten(-1, (-1, m.head_dim)).transpose(1, 2) for f in (m.q_proj, m.k_proj, m.v_proj))
        u = pooled(k, slots) if kind == "gsa" else k
        k, v, u = (x.repeat_interleave(m.num_key_value_groups, 1) for x in (k, v, u))
        n = torch.arange(q.shape[2])
        far = n[:, None] - n
        scores = (rope(q, SIZES["base"]) @ rope(k, SIZES["base"]).mT / m.head_dim**0.5).masked_fill((far < 0) | (far >= span), float("-inf"))
        y = 0.5 * recurrence(kind, q, k, v, u) + 0.5 * scores.softmax(-1) @ v
        return m.o_proj(y.transpose(1, 2).flatten(2).to(hidden_states.dtype)), None

    for layer in model.model.layers:
        layer.self_attn.forward = attend.__get__(layer.self_attn)
    return model


def llama() -> Any:
    return transformers.LlamaForCausalLM(llama_config(**SIZES)).double()


@kinds
@pytest.mark.parametrize("shape", [(1, 37), (4, 19)])
def test_equations(case: str, shape: tuple[int, int]):
    given = KINDS[case]
    ours = archdsl.load(SPEC).build(dtype=F64, **SIZES, span=5, **given)
    rest = {"kind": given["kind"], "slots": given.get("slots", 8)}
    prove(ours, converted(llama(), **rest), tokens(*shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits,
          reference=lambda m: converted(without_casts(m), **rest))


@kinds
def test_one_token(case: str):
    given = KINDS[case]
    theirs = llama()
    randomise(theirs)
    ours = archdsl.load(SPEC).build(dtype=F64, **SIZES, span=5, **given)
    archdsl.import_weights(ours, theirs.state_dict(), source="hf")
    exact = converted(without_casts(theirs), given["kind"], slots=given.get("slots", 8))
    assert relative(ours(tokens(4, 1)), exact(tokens(4, 1), use_cache=False).logits) <= EXACT


def test_source_is_llama():
    ours = archdsl.load(SPEC).build(dtype=F64, kind="softmax", **SIZES)
    prove(ours, llama(), tokens(2, 19), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@kinds
@pytest.mark.parametrize("T", [3, 75])
def test_forms(case: str, T: int):
    """Both branches together: prefill, then token by token, within the window and far beyond it."""
    agree(archdsl.load(SPEC), T=T, **SIZES, span=5, **KINDS[case])


def test_short_inputs_see_all_of_it():
    """Up to `span` positions the near branch is full causal attention."""
    spec = archdsl.load(SPEC)
    narrow, wide = (spec.build(dtype=F64, **SIZES, span=s).eval() for s in (6, 100))
    wide.load_state_dict(narrow.state_dict())
    x = tokens(2, 9)
    torch.testing.assert_close(narrow(x)[:, :6], wide(x)[:, :6], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(narrow(x)[:, 6:], wide(x)[:, 6:], atol=1e-6)


@pytest.mark.parametrize(("variant", "numbers"), [
    ("gla_8b", 32 * 128 * 128), ("hgrn2_8b", 32 * 128 * 128), ("gsa_8b", 2 * 32 * 128 * 128)])
def test_state(variant: str, numbers: int):
    """A matrix for each head, two for slots, and the keys and values of a window: nothing that grows."""
    step: Any = archdsl.load(SPEC).build(variant, form="step", device="meta")
    state = step.init_state(1)
    layer = {k: t for k, t in state.items() if k.startswith("layers.31.")}
    window = sum(t.numel() for k, t in layer.items() if k.split(".")[-1] in ("keys", "values"))
    assert window in (2 * 64 * 8 * 128, 2 * 63 * 8 * 128)
    assert sum(t.numel() for t in layer.values()) - window == numbers


def test_conversion_keeps_every_key():
    """On the meta device: Llama 3 8B's own keys and shapes, no more and no fewer, from each of the three."""
    config = llama_config(128_256, 4096, 32, 32, 8, 14_336, base=500_000.0)
    with torch.device("meta"):
        source = transformers.LlamaForCausalLM(config)
    shapes = {k: v.shape for k, v in source.state_dict().items()}
    for variant in ("gla_8b", "hgrn2_8b", "gsa_8b"):
        ours = archdsl.load(SPEC).build(variant, device="meta")
        assert {k: v.shape for k, v in archdsl.export_weights(ours, "hf").items()} == shapes
        assert sum(p.numel() for p in ours.parameters()) == 8_030_261_248


def test_sources_with_biases():
    """Qwen2.5 7B's keys: biases on queries, keys and values alone."""
    config = transformers.Qwen2Config(vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
                                      num_key_value_heads=4)
    with torch.device("meta"):
        source = transformers.Qwen2ForCausalLM(config)
    written = archdsl.export_weights(archdsl.load(SPEC).build("gla_qwen25_7b", device="meta"), "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in source.state_dict().items()}


def test_claims():
    assert all(r["passed"] for r in verify(archdsl.load(SPEC)))


def test_reference_models_differ():
    """The three recurrences and the source are four models."""
    theirs = llama()
    randomise(theirs)
    models = [without_casts(copy.deepcopy(theirs))] + [converted(without_casts(copy.deepcopy(theirs)), k) for k in ("gla", "hgrn2", "gsa")]
    ys = [m(tokens(1, 9), use_cache=False).logits for m in models]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(ys) for b in ys[:i])
