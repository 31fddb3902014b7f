"""Routing by probability mass against its equations in plain torch, transformers' decoder around it, and a loop over experts."""
from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.parity.test_moe import without_casts
from tests.streaming.forms import agree

transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64
OURS: dict[str, Any] = dict(vocab=61, d=24, depth=3, heads=4, hidden=20, experts=6)
GATES = """
use std.routing { TopK, TopP }
model Gates(p: float = 0.4, k: int? = none, strict: bool = false)(chance: [B = 1, 4]) -> gates: f32[B, 4] {
  return if k is some { TopK(k, false)(at_least(chance, "f32")) } else { TopP(p, strict)(at_least(chance, "f32")) }
}
"""


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


def chosen(chance: torch.Tensor, p: float, strict: bool) -> torch.Tensor:
    """The set of one row, by counting up."""
    mask, total = torch.zeros_like(chance, dtype=torch.bool), 0.0
    for i in chance.argsort(descending=True):
        mask[i] = True
        total += chance[i].item()
        if total > p if strict else total >= p:
            break
    return mask


class Mixture(nn.Module):
    """Row by row and expert by expert."""

    def __init__(self, d: int, hidden: int, n: int, p: float, k: int | None, strict: bool):
        super().__init__()
        self.router = nn.Linear(d, n, bias=False)
        self.experts = nn.ModuleList(
            nn.ModuleDict({"gate_proj": nn.Linear(d, hidden, bias=False), "up_proj": nn.Linear(d, hidden, bias=False),
                           "down_proj": nn.Linear(hidden, d, bias=False)}) for _ in range(n))
        self.p, self.k, self.strict = p, k, strict

    def forward(self, x):
        rows = []
        for row in x.flatten(0, -2):
            chance = self.router(row).softmax(-1)
            sets = chosen(chance.detach(), self.p, self.strict) if self.k is None else chance >= chance.topk(self.k)[0][-1]
            y = 0
            for i in sets.nonzero().flatten().tolist():
                e = cast(nn.ModuleDict, self.experts[i])
                y = y + chance[i] * e["down_proj"](F.silu(e["gate_proj"](row)) * e["up_proj"](row))
            rows.append(y)
        return torch.stack(rows).view(x.shape)


class Renamed(transformers.models.llama.modeling_llama.LlamaDecoderLayer):
    """With the official code's names of the norms."""

    norms = {"input_layernorm": "input_norm", "post_attention_layernorm": "post_attention_norm"}

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(self.norms.get(name, name))


def peer(every: int, p: float, k: int | None, strict: bool) -> nn.Module:
    config = transformers.LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
                                      rms_norm_eps=1e-6, attn_implementation="sdpa", pad_token_id=None)
    model = transformers.LlamaForCausalLM(config)
    for i, layer in enumerate(model.model.layers):
        for theirs, name in Renamed.norms.items():
            layer._modules[name] = layer._modules.pop(theirs)
        layer.__class__ = Renamed
        layer.mlp = Mixture(24, 20, 6, p, k, strict) if every and i % every == 0 else nn.ModuleDict({"mlp": layer.mlp})
        if not isinstance(layer.mlp, Mixture):
            layer.mlp.forward = layer.mlp["mlp"].forward
    return model


@pytest.mark.parametrize(("every", "p", "k", "strict"), [(1, 0.4, None, False), (2, 0.6, None, True), (1, 0.9, None, False), (1, 0.4, 2, False),
                                                         (2, 0.4, 1, False), (0, 0.4, None, False)])
@pytest.mark.parametrize("shape", [(2, 7), (1, 1)])
def test_decoder(every, p, k, strict, shape):
    ours = archdsl.load("dynamic_moe").build(dtype=F64, every=every, p=p, k=k, strict=strict, **OURS)
    prove(ours, peer(every, p, k, strict).double(), tokens(*shape), source="official", call=lambda m, x: m(x, use_cache=False).logits,
          reference=without_casts)


@pytest.mark.parametrize(("p", "sets"), [(0.4, 1), (0.6, 2), (0.9, 3), (1.0, 4), (0.0, 1)])
def test_sets_by_hand(p, sets):
    """The expert that crosses the threshold stays; gates are raw probabilities. At p = 1 rounding must not lose an expert."""
    chance = torch.tensor([[0.15, 0.5, 0.05, 0.3]], dtype=F64)
    order = [1, 3, 0, 2]
    want = torch.zeros_like(chance)
    want[0, order[:sets]] = chance[0, order[:sets]]
    for strict in (False, True):
        got = archdsl.loads(GATES, "gates.arch").build(dtype=F64, p=p, strict=strict)(chance)
        assert torch.equal(got, want)


def test_strict_differs_where_the_sum_is_p():
    even = torch.full((1, 4), 0.25, dtype=F64)
    for strict, used in ((False, 1), (True, 2)):
        assert (archdsl.loads(GATES, "gates.arch").build(dtype=F64, p=0.25, strict=strict)(even) > 0).sum() == used


def losses(**knobs):
    spec = archdsl.load("dynamic_moe")
    return spec.build(dtype=F64, emit=("layers.*.moe.*",), seed=1, **{**OURS, **knobs})


def test_uniform_routing_takes_seven():
    """6 / 16 is less than 0.4. The balance is then the average number of experts, the entropy log 16."""
    model = losses(experts=16)
    with torch.no_grad():
        for name, w in model.named_parameters():
            if "router" in name:
                w.zero_()
    _, emitted = model(tokens(2, 7))
    for i in range(3):
        assert emitted[f"layers.{i}.moe.used"] == 7
        assert torch.isclose(emitted[f"layers.{i}.moe.balance"], torch.tensor(7.0, dtype=F64))
        assert torch.isclose(emitted[f"layers.{i}.moe.entropy"], torch.tensor(16.0, dtype=F64).log())


def test_losses_by_hand():
    model = losses()
    randomise(model)
    states: list[torch.Tensor] = []
    hook = model.layers[1].moe.router.register_forward_hook(lambda m, a, y: states.append(y))
    _, emitted = model(tokens(2, 7))
    hook.remove()
    chance = states[0].flatten(0, 1).softmax(-1)
    sets = torch.stack([chosen(c, 0.4, False) for c in chance]).to(F64)
    share, mass = sets.mean(0), chance.mean(0)
    assert relative(emitted["layers.1.moe.balance"], 6 * (share * mass).sum()) <= EXACT
    assert relative(emitted["layers.1.moe.entropy"], -(chance * chance.log()).sum(-1).mean()) <= EXACT
    assert relative(emitted["layers.1.moe.used"], sets.sum(-1).mean()) <= EXACT
    assert 1 < emitted["layers.1.moe.used"] < 6


def test_tokens_are_routed_apart():
    """A permutation of the rows permutes the results; nothing depends on who shares an expert."""
    model = archdsl.load("dynamic_moe").build(dtype=F64, **OURS)
    randomise(model)
    moe = model.layers[0].moe
    x = torch.randn(1, 9, 24, dtype=F64, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert relative(moe(x[:, order]), moe(x)[:, order]) <= EXACT


@pytest.mark.parametrize("knobs", [{}, {"k": 2}, {"every": 2, "p": 0.7}], ids=str)
def test_forms_agree(knobs):
    agree(archdsl.load("dynamic_moe"), T=11, **OURS, **knobs)


def test_losses_have_no_form_with_state():
    """They are means over all positions: the step form lacks them and says so."""
    with pytest.raises(archdsl.ArchError, match="no emitted value has an address like"):
        archdsl.load("dynamic_moe").build("tiny", form="step", emit=("layers.*.moe.balance",))


@pytest.mark.slow
def test_entropy_loss_sharpens_routing():
    """With the entropy in the loss, fewer experts are used after the same steps, at a comparable loss."""
    text = torch.tensor([ord(c) % 61 for c in (archdsl.__doc__ or "") + str(transformers.__doc__)] * 8)
    used, final = {}, {}
    for beta in (0.0, 0.05):
        model = archdsl.load("dynamic_moe").build(emit=("layers.*.moe.*",), seed=1, **{**OURS, "depth": 2})
        best = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(80):
            at = torch.randint(0, len(text) - 17, (8,), generator=torch.Generator().manual_seed(step))
            part = text[at[:, None] + torch.arange(17)]
            logits, e = model(part[:, :-1])
            lm = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            balance, entropy = (sum(e[f"layers.{i}.moe.{n}"] for i in range(2)) for n in ("balance", "entropy"))
            best.zero_grad()
            (lm + 0.01 * balance + beta * entropy).backward()
            best.step()
        used[beta] = sum(e[f"layers.{i}.moe.used"].item() for i in range(2)) / 2  # pyright: ignore[reportPossiblyUnboundVariable]
        final[beta] = lm.item()  # pyright: ignore[reportPossiblyUnboundVariable]
    assert used[0.05] < used[0.0] - 0.2 and final[0.05] < final[0.0] + 0.3, (used, final)
