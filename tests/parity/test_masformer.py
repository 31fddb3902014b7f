"""MASFormer: transformers' GPT-Neo with the masks of each layer set by hand; pairs, costs, what is kept, how far a position sees."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.ops.masks import pairs
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.streaming.forms import agree

pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
from tests.parity.test_language import tokens, transformers

SPEC = "specs/language/masformer.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=61, d=24, depth=4, heads=3, hidden=40, context=32, size=5, full=1)
NEAR: dict[str, Any] = {
    "block": lambda i, j: i // 5 == j // 5, "previous": lambda i, j: i // 5 - j // 5 <= 1, "window": lambda i, j: i - j < 5}


def plain(types: list[Any]) -> Any:
    config = transformers.GPTNeoConfig(vocab_size=61, hidden_size=24, num_layers=4, attention_types=types, num_heads=3, intermediate_size=40,
                                       max_position_embeddings=32, window_size=5)
    config._attn_implementation = "eager"
    return transformers.GPTNeoForCausalLM(config).double()


def gpt_neo(keep: list[int], local: str) -> Any:
    peer = plain([[["global"], 4]])
    i, j = torch.arange(32)[:, None], torch.arange(32)
    for k, layer in enumerate(peer.transformer.h):
        layer.attn.attention.bias = ((j <= i) & (NEAR[local](i, j) if k not in keep else j <= i))[None, None]
    return peer


def in_double(model: Any) -> Any:
    """Without the two casts of queries and keys to float32."""

    def scores(module: Any, q: Any, k: Any, v: Any, attention_mask: Any = None) -> Any:
        s = (q @ k.mT).masked_fill(~module.bias[:, :, :q.shape[-2], :k.shape[-2]], float("-inf"))
        weights = s.softmax(-1)
        return weights @ v, weights

    for layer in model.transformer.h:
        layer.attn.attention._attn = scores.__get__(layer.attn.attention)
    return model


@pytest.mark.parametrize(("local", "keep"), [("block", [0]), ("previous", [1, 3]), ("window", [3]), ("block", []), ("window", [0, 1, 2, 3])])
@pytest.mark.parametrize("shape", [(2, 23), (1, 1)])
def test_gpt_neo(local: str, keep: list[int], shape: tuple[int, int]):
    ours = archdsl.load(SPEC).build(dtype=F64, local=local, keep=keep, **SIZES)
    prove(ours, gpt_neo(keep, local), tokens(61, *shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=in_double)


def test_gpt_neos_own_pattern():
    """transformers' lists of global and local layers are the variant gpt_neo."""
    ours = archdsl.load(SPEC).build("gpt_neo", dtype=F64, **{**SIZES, "keep": [0, 2]})
    peer = plain([[["global", "local"], 2]])
    prove(ours, peer, tokens(61, 2, 21), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=in_double)


@pytest.mark.parametrize("T", [1, 5, 15, 23])
def test_blocks_apart(T: int):
    """Block by block equals the mask, whether the blocks come out even or not; gradients too."""
    masked, apart = (archdsl.load(SPEC).build(dtype=F64, apart=a, **SIZES) for a in (False, True))
    randomise(masked)
    apart.load_state_dict(masked.state_dict())
    x = tokens(61, 2, T)
    assert relative(apart(x), masked(x)) <= EXACT
    for m in (masked, apart):
        m(x).square().sum().backward()
    for p, q in zip(masked.parameters(), apart.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and (p.grad - q.grad).abs().max() <= EXACT * p.grad.abs().max().clamp_min(1)


def test_nothing_is_lost():
    """With every layer full, or blocks that hold everything, it is the dense model."""
    spec, x = archdsl.load(SPEC), tokens(61, 2, 23)
    dense = spec.build(dtype=F64, **{**SIZES, "full": 4})
    randomise(dense)
    for knobs in ({"size": 23}, {"size": 32, "local": "window"}, {"size": 23, "local": "previous"}, {"size": 32, "apart": True}):
        other = spec.build(dtype=F64, **{**SIZES, **knobs})
        other.load_state_dict(dense.state_dict())
        assert relative(other(x), dense(x)) <= EXACT


def test_place():
    spec = archdsl.load(SPEC)
    for place, want in (("bottom", [0, 1, 2, 3]), ("top", [20, 21, 22, 23]), ("even", [3, 9, 15, 21])):
        assert list(masks(spec.elaborate("masformer_4", {"place": place}), "causal")) == want


def masks(made: Any, kind: str) -> list[int]:
    """The layers whose mask is of that kind."""
    return [i for i, m in enumerate(all_masks(made)) if m.kind == kind]


def all_masks(made: Any) -> list[Any]:
    def inside(graph: Any) -> Any:
        for n in graph.nodes:
            if n.op == "attention":
                yield n.attrs["mask"]
            elif n.op == "call":
                yield from inside(n.attrs["graph"])

    return list(inside(made.graph))


@pytest.mark.parametrize(("variant", "share"), [("masformer_4", 0.271), ("masformer_previous", 0.453), ("masformer_window", 0.362)])
def test_pairs(variant: str, share: float):
    """At T = 8192, b = 1024, 4 of 24 layers full: exact counts, and the sheet's shares of all pairs."""
    T, b, n = 8192, 1024, 8
    found = [pairs(m, T, T) for m in all_masks(archdsl.load(SPEC).elaborate(variant, {"full": 4}))]
    full, own = T * (T + 1) // 2, n * b * (b + 1) // 2
    local = {"masformer_4": own, "masformer_previous": own + (n - 1) * b * b, "masformer_window": sum(min(i + 1, b) for i in range(T))}[variant]
    assert found == [full] * 4 + [local] * 20
    assert abs(sum(found) / (24 * full) - share) < 5e-4


def test_cost_of_blocks_apart():
    """A local layer's products grow with T, a full one's with its square."""
    spec = archdsl.load(SPEC)
    per = [spec.cost("masformer_apart", at={"T": T}, full=0).macs / T for T in (4096, 8192)]
    assert per[0] == per[1] < spec.cost("dense", at={"T": 8192}).macs / 8192


@pytest.mark.parametrize("keep", [[], [0], [3]])
def test_how_far_a_position_sees(keep: list[int]):
    """Without a full layer, nothing comes from another block; one anywhere brings all of the past."""
    ours = archdsl.load(SPEC).build(dtype=F64, keep=keep, **SIZES)
    randomise(ours)
    seen: dict[str, torch.Tensor] = {}

    def keep_gradient(module: Any, given: Any, y: torch.Tensor) -> None:
        y.retain_grad()
        seen["y"] = y

    ours.get_submodule("positions").register_forward_hook(keep_gradient)
    ours(tokens(61, 1, 15))[0, 12].square().sum().backward()
    assert seen["y"].grad is not None
    grad = seen["y"].grad[0].abs().sum(-1)
    assert grad[10:13].all() and not grad[13:].any() and bool(grad[:10].any()) == bool(keep) and bool(grad[:10].all()) == bool(keep)


@pytest.mark.parametrize("local", NEAR)
def test_forms_and_what_is_kept(local: str):
    """Token by token across the borders of blocks. A full layer keeps all positions, a local one no more than it can see."""
    spec = archdsl.load(SPEC)
    state = agree(spec, None, T=23, local=local, **SIZES)["state"]
    agree(spec, None, T=1, batch=1, local=local, **SIZES)
    kept = [state[f"layers.{i}.attn.keys"].shape[-2] for i in range(4)]
    assert kept == [23] + [{"block": 4, "previous": 9, "window": 4}[local]] * 3
