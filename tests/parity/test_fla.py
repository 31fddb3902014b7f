"""Recurrences against flash-linear-attention's own references, a position at a time in plain torch: results, last memories and gradients."""
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from tests.parity.proof import relative

pytest.importorskip("fla.ops", reason="flash-linear-attention is in the `parity` extra")  # it warns that there is no card, which is ignored here
B, H, K, V, M = 2, 3, 8, 6, 5
HEAD = f"()(q: [B, {H}, T, {K}], k: [B, {H}, T, {K}], v: [B, {H}, T, {V}]"
OUT = f" -> y: [B, {H}, T, {V}] stream T"
NEAR = 4e-6  # their references compute in float32, ours in float64 here


def naive(module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(f"fla.ops.{module}.naive"), name)


def turned(*xs: torch.Tensor) -> list[torch.Tensor]:
    """[B, H, T, …] as [B, T, H, …]."""
    return [x.transpose(1, 2) for x in xs]


def gla(q, k, v, decay):
    y, memory = naive("gla", "naive_recurrent_gla")(*turned(q, k, v, decay), output_final_state=True)
    return y.transpose(1, 2), memory


def simple_gla(q, k, v, decay):
    y, memory = naive("simple_gla", "naive_recurrent_simple_gla")(*turned(q, k, v, decay))
    return y.transpose(1, 2), memory


def gated_delta_rule(q, k, v, beta, decay):
    y, memory = naive("gated_delta_rule", "naive_recurrent_gated_delta_rule")(*turned(q, k, v, beta, decay), output_final_state=True)
    return y.transpose(1, 2), memory


def slots(q, k, v, rate):
    y, memories = naive("gsa", "naive_recurrent_gsa")(*turned(q, k, v, 1 - rate.exp(), rate), output_final_state=True)
    return y.transpose(1, 2), memories


def retention(q, k, v):
    return naive("retention", "naive_retention")(q, k, v), None


def delta_rule(q, k, v, beta):
    return naive("delta_rule", "delta_rule_recurrence")(q, k, v, beta)


SCALE = f"scale = {K} ** -0.5"
BY_HEAD, BY_ROW, BY_SLOT = (f", {{}}: [B, {H}, T{more}]" for more in ("", f", {K}", f", {M}"))
BY_HEAD, BY_ROW, BY_SLOT = (f", {{}}: [B, {H}, T{more}]" for more in ("", f", {K}", f", {M}"))
RATES = "[log(1 - 2 ** (-5 - i)) for i in range(3)]"
CASES: dict[str, tuple[str, Callable[..., Any]]] = {
    "gla": (BY_ROW.format("decay") + f"){OUT} {{ return gla(q, k, v, decay, {SCALE}) }}", gla),
    "simple gla": (BY_HEAD.format("decay") + f"){OUT} {{ return linear_attention(q, k, v, decay, {SCALE}) }}", simple_gla),
    "retention": (f"){OUT} {{\n  f32 {{ decay = log1p(-2 ** (-5 - cast(iota({H}), \"f32\")))[:, none] + 0 * q[..., 0] }}\n"
                  f"  return linear_attention(q, k, v, decay, {SCALE})\n}}", retention),
    "delta rule": (BY_HEAD.format("beta") + f"){OUT} {{ return delta_rule(q, k, v, beta, {SCALE}) }}", delta_rule),
    "gated delta rule": (BY_HEAD.format("beta") + BY_HEAD.format("decay") + f"){OUT} {{ return delta_rule(q, k, v, beta, decay, {SCALE}) }}",
                         gated_delta_rule),
    "gated slots": (BY_SLOT.format("rate") + f"){OUT} {{ return SlotAttention({SCALE})(q, k, v, rate) }}", slots),
}


WIDE = {"gla": (K,), "gated slots": (M,)}


def operands(case: str, names: list[str], length: int) -> list[torch.Tensor]:
    """Keys of length 1, betas between 0 and 1, logarithms of rates below 0."""
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(B, H, length, *shape, generator=g)

    made = {"q": normal(K), "k": F.normalize(normal(K), dim=-1), "v": normal(V), "beta": torch.sigmoid(normal())}
    return [made[n] if n in made else F.logsigmoid(normal(*WIDE.get(case, ()))) for n in names]


@pytest.mark.parametrize("length", [1, 7, 70])
@pytest.mark.parametrize("case", CASES)
def test_recurrences(case: str, length: int):
    header, theirs = CASES[case]
    spec = archdsl.loads(f"use std {{ SlotAttention }}\nmodel M{HEAD}{header}\n" if case == "gated slots" else f"model M{HEAD}{header}\n")
    given = operands(case, [i.name for i in spec.elaborate().inputs], length)
    mine, others = ([x.to(dtype).requires_grad_() for x in given] for dtype in (torch.float64, torch.float32))
    model = spec.build(form="extend", dtype=torch.float64)
    y, last = model(*mine, model.init_state(B))
    want, memories = theirs(*others)
    assert y.shape == want.shape and relative(y, want) <= NEAR
    if memories is not None:
        kept = [x for x in last.values() if x.is_floating_point()]
        memories = memories if isinstance(memories, tuple) else (memories,)
        assert len(kept) == len(memories) and all(relative(a, m) <= NEAR for a, m in zip(kept, memories))
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    got, found = (torch.autograd.grad((o * probe.to(o.dtype)).sum(), xs) for o, xs in ((y, mine), (want, others)))
    largest = max(g.abs().max() for g in found)
    assert all((a - b).abs().max() <= 4 * NEAR * largest for a, b in zip(got, found))
