"""RWKV-4 against transformers: logits, gradients, float32, decoding from its state; the op against its sums written out."""
from __future__ import annotations

import inspect
import types
from typing import Any

import pytest
import torch

import archdsl
from archdsl import import_weights
from archdsl.ops.registry import find
from tests.parity.proof import EXACT, prove, randomise, relative

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
SIZES: dict[str, dict[str, Any]] = {
    "small": dict(vocab=61, d=24, depth=2, hidden=40),
    "wide, tied": dict(vocab=37, d=10, depth=3, width=14, hidden=11, eps=1e-3, tie=True),
}
sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def peer(vocab: int, d: int, depth: int, hidden: int, width: int | None = None, eps: float = 1e-5, tie: bool = False) -> Any:
    return transformers.RwkvForCausalLM(transformers.RwkvConfig(
        vocab_size=vocab, context_length=64, hidden_size=d, num_hidden_layers=depth, attention_hidden_size=width, intermediate_size=hidden,
        layer_norm_epsilon=eps, rescale_every=0, tie_word_embeddings=tie)).double()


def without_casts(model: Any) -> Any:
    """transformers' model whose sums are of the type of its weights."""
    from transformers.models.rwkv import modeling_rwkv as theirs

    text = inspect.getsource(theirs.rwkv_linear_attention_cpu).replace(".float()", "").replace(", dtype=torch.float32", "")
    known: dict[str, Any] = dict(vars(theirs))
    exec(text, known)
    known["rwkv_linear_attention"] = known["rwkv_linear_attention_cpu"]
    forward = types.FunctionType(theirs.RwkvSelfAttention.forward.__code__, known, argdefs=theirs.RwkvSelfAttention.forward.__defaults__)
    for m in model.modules():
        if isinstance(m, theirs.RwkvSelfAttention):
            m.forward = forward.__get__(m)
    return model


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(3))


@sizes
@pytest.mark.parametrize("shape", [(4, 1), (1, 7), (2, 23)])
def test_logits_and_gradients(sizes: dict[str, Any], shape: tuple[int, int]):
    ours = archdsl.load("rwkv4").build(dtype=F64, **sizes)
    prove(ours, peer(**sizes), tokens(sizes["vocab"], *shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@sizes
def test_decoding_from_its_state(sizes: dict[str, Any]):
    """Behind a prompt, then token by token. Theirs is one tensor for all layers; its sums are as ours up to their scale."""
    theirs = without_casts(peer(**sizes)).eval()
    randomise(theirs)
    spec = archdsl.load("rwkv4")
    extend, step = (spec.build(form=form, dtype=F64, **sizes).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x, width = tokens(sizes["vocab"], 2, 17), sizes.get("width", sizes["d"])
    begun = [[torch.zeros(1, n, sizes["depth"], dtype=F64) for n in (sizes["d"], sizes["d"], width, width, width)] for _ in range(2)]
    for row in begun:
        row[4] -= 1e30
    with torch.no_grad():  # row by row there: of several, one token of each is joined with the positions before the others
        known = [theirs(x[i:i + 1, :9], state=begun[i], use_cache=True) for i in range(2)]
        y, state = extend(x[:, :9], extend.init_state(2))
        assert relative(y, torch.cat([k.logits for k in known])) <= EXACT
        for t in range(9, 17):
            known = [theirs(x[i:i + 1, t:t + 1], state=known[i].state, use_cache=True) for i in range(2)]
            y, state = step(x[:, t:t + 1], state)
            assert relative(y, torch.cat([k.logits for k in known])) <= EXACT
        for i in range(sizes["depth"]):
            sums = {k.rpartition(".")[2]: v for k, v in state.items() if k.startswith(f"layers.{i}.time.")}
            for ours, at in (("numerator", 2), ("denominator", 3)):
                expected = torch.cat([k.state[at][..., i] * k.state[4][..., i].exp() for k in known])
                assert relative(sums[ours] * sums["peak"].exp(), expected) <= EXACT


@sizes
def test_rows_that_begin_later(sizes: dict[str, Any]):
    """A batch padded on the left: each row is what transformers, whose model has no mask, gives for the row alone; so are the tokens generated."""
    theirs = without_casts(peer(**sizes)).eval()
    randomise(theirs)
    spec = archdsl.load("rwkv4")
    extend, step = (spec.build(form=form, dtype=F64, **sizes).eval() for form in ("extend", "step"))
    for model in (extend, step):
        import_weights(model, theirs.state_dict(), source="hf")
    x, begins = tokens(sizes["vocab"], 3, 13), (0, 4, 9)
    with torch.no_grad():
        alone = [theirs(x[i:i + 1, at:], use_cache=False).logits[0] for i, at in enumerate(begins)]
        got, state, before = [], extend.init_state(3), 0
        for at in (*begins[1:], 11):
            y, state = extend(x[:, before:at], state)
            got.append(y)
            state, before = extend.reset_state(state, [i for i, b in enumerate(begins) if b == at]), at
        for t in range(11, 13):
            y, state = step(x[:, t:t + 1], state)
            got.append(y)
        for i, at in enumerate(begins):
            assert relative(torch.cat(got, 1)[i, at:], alone[i]) <= EXACT
        prompts = [row[at:].tolist() for row, at in zip(x, begins)]
        for prompt, new in zip(prompts, archdsl.generate(step, prompts, 5)):
            for _ in range(5):
                prompt = [*prompt, int(theirs(torch.tensor([prompt]), use_cache=False).logits[0, -1].argmax())]
            assert new.tolist() == prompt


@pytest.mark.parametrize("length", [1, 16, 37])
def test_the_op_is_its_sums(length: int):
    g = torch.Generator().manual_seed(length)
    k, v = (torch.randn(2, length, 3, generator=g, dtype=F64) for _ in range(2))
    decay, bonus = -torch.rand(3, generator=g, dtype=F64), torch.randn(3, generator=g, dtype=F64)
    op = find("wkv")
    assert op is not None
    y = op.body(k, v, decay, bonus)
    for t in range(length):
        weights = [((t - 1 - j) * decay + k[:, j]).exp() for j in range(t)] + [(bonus + k[:, t]).exp()]
        expected = sum(w * v[:, j] for j, w in enumerate(weights)) / sum(weights)
        assert relative(y[:, t], torch.as_tensor(expected)) <= 1e-12


def test_names_and_shapes():
    with torch.device("meta"):
        theirs = peer(50_277, 768, 12, 3072)
    written = archdsl.export_weights(archdsl.load("rwkv4").build("rwkv_169m", device="meta"), "hf")
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in theirs.state_dict().items()}
