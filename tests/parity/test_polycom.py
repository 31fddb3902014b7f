"""PolyReLU and PolyNorm against their equations, inside transformers' Llama and OLMoE; conversions, counts, recomputation."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import archdsl
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.parity.test_moe import without_casts
from tests.streaming.forms import agree

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
DENSE: dict[str, Any] = dict(vocab=61, d=24, depth=2, heads=4, hidden=36)
SPARSE: dict[str, Any] = dict(DENSE, hidden=12, experts=5, k=2)
CONFIG = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, rms_norm_eps=1e-5, attn_implementation="sdpa",
              pad_token_id=None, eos_token_id=0)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


class Poly(nn.Module):
    """weight: the numbers of the powers, the highest (the third in the paper's models) first; bias: the constant."""

    def __init__(self, kind: str, order: int = 3):
        super().__init__()
        self.weight, self.bias, self.kind = nn.Parameter(torch.ones(order) / order), nn.Parameter(torch.zeros(1)), kind

    def forward(self, x):
        def n(u):
            return u / (u.square().mean(-1, keepdim=True) + 1e-6).sqrt()

        orders = range(len(self.weight), 0, -1)
        powers = [F.relu(x) ** i for i in orders] if self.kind == "polyrelu" else [n(x**i) for i in orders]
        return sum(w * p for w, p in zip(self.weight, powers)) + self.bias


class Plain(nn.Module):
    def __init__(self, act: nn.Module):
        super().__init__()
        self.up_proj, self.down_proj, self.act_fn = nn.Linear(24, 36, bias=False), nn.Linear(36, 24, bias=False), act

    def forward(self, x):
        return self.down_proj(self.act_fn(self.up_proj(x)))


class PlainExperts(nn.Module):
    """One activation for all experts."""

    def __init__(self, act: nn.Module):
        super().__init__()
        self.up_proj, self.down_proj, self.act_fn = nn.Parameter(torch.randn(5, 12, 24)), nn.Parameter(torch.randn(5, 24, 12)), act

    def forward(self, x, index, weights):
        every = torch.stack([self.act_fn(x @ u.mT) @ d.mT for u, d in zip(self.up_proj, self.down_proj)], 1)
        return (every.gather(1, index[..., None].expand(*index.shape, 24)) * weights[..., None]).sum(1)


def acts(act: str, order: int = 3) -> nn.Module:
    return {"relu": nn.ReLU(), "gelu": nn.GELU()}[act] if act in ("relu", "gelu") else Poly(act, order)


@pytest.mark.parametrize(("act", "order"), [
    ("polynorm", 3), ("polyrelu", 3), ("relu", 3), ("gelu", 3), ("swiglu", 3), ("polynorm", 4), ("polyrelu", 2),
])
@pytest.mark.parametrize("shape", [(2, 7), (1, 1)])
def test_dense(act, order, shape):
    peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG, intermediate_size=36))
    if act != "swiglu":
        for layer in peer.model.layers:
            layer.mlp = Plain(acts(act, order))
    ours = archdsl.load("polycom").build(dtype=F64, act=act, order=order, **DENSE)
    prove(ours, peer.double(), tokens(*shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


@pytest.mark.parametrize("act", ["polynorm", "polyrelu", "swiglu"])
@pytest.mark.parametrize("shape", [(2, 7), (1, 1)])
def test_mixture(act, shape):
    config = transformers.OlmoeConfig(**CONFIG, intermediate_size=12, num_experts=5, num_experts_per_tok=2, norm_topk_prob=False,
                                      experts_implementation="eager")
    peer = transformers.OlmoeForCausalLM(config)
    if act != "swiglu":
        for layer in peer.model.layers:
            layer.mlp.experts = PlainExperts(acts(act))
    ours = archdsl.load("polycom").models["PolyComMoE"].build(dtype=F64, act=act, **SPARSE)
    prove(ours, peer.double(), tokens(*shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits, reference=without_casts)


def activation(name: str, dtype: torch.dtype = F64) -> Any:
    text = f"use std.channel {{ {name} }}\nmodel Act(d: int = 9)(x: [B = 2, d]) -> y: [B, d] {{ return {name}()(x) as act }}"
    return archdsl.loads(text, "act.arch").build(dtype=dtype)


def test_initial_values():
    model = activation("PolyNorm")
    assert {k: v.tolist() for k, v in model.state_dict().items()} == {"act.weight": [1 / 3] * 3, "act.bias": [0.0]}


def test_a_network_with_relu_becomes_one_with_polyrelu():
    """a = (0, 1, 0, 0) is ReLU bit for bit, also inside of a whole network."""
    relu, poly = (archdsl.load("polycom").build(act=act, seed=2, **DENSE) for act in ("relu", "polyrelu"))
    state = poly.state_dict() | relu.state_dict()
    for name in state:
        if ".act." in name:
            state[name] = torch.tensor([0.0, 0.0, 1.0]) if name.endswith("weight") else torch.zeros(1)
    poly.load_state_dict(state)
    x = tokens(2, 7)
    assert torch.equal(poly(x), relu(x)) and len(poly.state_dict()) == len(relu.state_dict()) + 4


def test_invariances():
    """PolyNorm ignores the scale of x, and only its odd terms change sign with x."""
    model = activation("PolyNorm")
    x = torch.randn(3, 9, dtype=F64, generator=torch.Generator().manual_seed(0)) * 3
    assert relative(model(5 * x), model(x)) <= 1e-5
    with torch.no_grad():
        model.get_parameter("act.bias").fill_(0.3)
        even = (model(x) + model(-x)) / 2 - 0.3
        odd = (model(x) - model(-x)) / 2
        model.get_parameter("act.weight").copy_(torch.tensor([0.0, 1 / 3, 0.0], dtype=F64))
        assert relative(model(x) - 0.3, even) <= EXACT
        model.get_parameter("act.weight").copy_(torch.tensor([1 / 3, 0.0, 1 / 3], dtype=F64))
        assert relative(model(x) - 0.3, odd) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    """A row of zeros gives the constant; the sixth power of 40 overflows float16, so the inside is float32."""
    model = activation("PolyNorm", dtype)
    with torch.no_grad():
        model.get_parameter("act.bias").fill_(0.25)
    assert torch.equal(model(torch.zeros(1, 9, dtype=dtype)), torch.full((1, 9), 0.25, dtype=dtype))
    x = torch.linspace(-40, 40, 9, dtype=dtype)[None]
    wide, reference = activation("PolyNorm"), Poly("polynorm").double()
    with torch.no_grad():
        reference.bias.fill_(0.25)
        wide.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    reference.weight.data.copy_(model.get_parameter("act.weight"))
    want = reference(x.double())
    assert relative(wide(x.double()), want) <= EXACT
    assert relative(model(x), want) <= {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]


def test_recomputed_activations_give_the_same_gradients():
    """The official code computes the activation again in the backward pass."""
    results = []
    for again in (False, True):
        model = archdsl.load("polycom").build(seed=2, dtype=F64, **DENSE)
        randomise(model)
        if again:
            for layer in model.layers:
                act = layer.mlp.act
                act.forward = lambda x, f=act.forward: checkpoint(f, x, use_reentrant=False)
        model(tokens(2, 7)).square().sum().backward()
        results.append({k: p.grad for k, p in model.named_parameters()})
    assert results[0] and all(relative(results[1][k], g) <= EXACT for k, g in results[0].items())


def test_norm_is_over_the_width_of_an_expert():
    """Permuting the hidden units of an expert changes nothing, which a norm over parts of them would not allow."""
    model = archdsl.load("polycom").models["PolyComMoE"].build(dtype=F64, **SPARSE)
    randomise(model)
    before = model(tokens(2, 7))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in model.layers:
            up, down = layer.get_parameter("moe.experts.up.weight"), layer.get_parameter("moe.experts.down.weight")
            up.copy_(up[:, order])
            down.copy_(down[:, :, order])
    assert relative(model(tokens(2, 7)), before) <= EXACT


@pytest.mark.parametrize("act", ["polynorm", "swiglu"])
def test_forms_agree(act):
    spec = archdsl.load("polycom")
    agree(spec, T=11, act=act, **DENSE)
    agree(spec.models["PolyComMoE"], T=11, act=act, **SPARSE)


@pytest.mark.slow
def test_learns_as_well_as_gelu():
    """A small language model over the documentation of Python's builtins: PolyNorm's loss is not above GELU's at equal steps and weights."""
    import builtins

    text = torch.tensor([min(ord(c), 127) for c in "\n".join(str(getattr(builtins, n).__doc__) for n in sorted(dir(builtins)))])
    final = {}
    for act in ("polynorm", "gelu"):
        model = archdsl.load("polycom").build(act=act, seed=4, vocab=128, d=32, depth=2, heads=4, hidden=96)
        best = torch.optim.Adam(model.parameters(), lr=2e-3)
        seen = []
        for step in range(250):
            at = torch.randint(0, len(text) - 33, (8,), generator=torch.Generator().manual_seed(step))
            part = text[at[:, None] + torch.arange(33)]
            loss = F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten())
            best.zero_grad()
            loss.backward()
            best.step()
            seen.append(loss.item())
        final[act] = sum(seen[-50:]) / 50
    assert final["polynorm"] <= final["gelu"], final
