"""Gated linear attention against the paper's recurrence under flash-linear-attention's names; all forms; counts; extreme gates in a whole model."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.claims import verify
from tests.parity.fla_layout import Decoder, GatedLinearAttention
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.streaming.forms import agree, close

SPEC = "specs/language/gla.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=61, d=32, depth=2, heads=4, hidden=48)
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {}, "tied": {"tie": True}, "grouped, relu, no gate": {"kv_heads": 2, "feature": "relu", "gate": False},
    "conv, least": {"conv": 4, "least": -0.02, "kv_heads": 1}, "standalone": {"gate_bias": True, "head_norm": "layer", "eps": 1e-5},
}


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


def peer(tie: bool = False, eps: float = 1e-6, **options: Any) -> Decoder:
    mixers: list[Any] = [GatedLinearAttention(SIZES["d"], SIZES["heads"], eps, **options) for _ in range(SIZES["depth"])]
    return Decoder(SIZES["vocab"], SIZES["d"], SIZES["hidden"], mixers, eps, tie).double()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1, 40), (8, 19)])
def test_recurrence(options: str, shape: tuple[int, int]):
    given = OPTIONS[options]
    prove(archdsl.load(SPEC).build(dtype=F64, **SIZES, **given), peer(**given), tokens(*shape), source="fla", call=lambda m, x: m(x))


@pytest.mark.parametrize("options", OPTIONS)
def test_one_token(options: str):
    given = OPTIONS[options]
    theirs, ours = peer(**given), archdsl.load(SPEC).build(dtype=F64, **SIZES, **given)
    randomise(theirs)
    archdsl.import_weights(ours, theirs.state_dict(), source="fla")
    assert relative(ours(tokens(4, 1)), theirs(tokens(4, 1))) <= EXACT


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("T", [1, 63, 64, 65, 200])
def test_forms(options: str, T: int):
    if T in (1, 65) or options == "paper":
        agree(archdsl.load(SPEC), T=T, **SIZES, **OPTIONS[options])


def test_closed_gates():
    """Gates whose logits are all -80: finite in every form, and a model that forgets nearly all."""
    spec = archdsl.load(SPEC)
    models: dict[str, Any] = {f: spec.build(form=f, tau=1, **SIZES).eval() for f in ("parallel", "extend", "step")}
    for name, p in models["parallel"].named_parameters():
        if name.endswith("rate.up.bias"):
            torch.nn.init.constant_(p, -80)
    x = tokens(2, 130)
    with torch.no_grad():
        whole = models["parallel"](x)
        assert whole.isfinite().all()
        for form, lengths in (("extend", [130]), ("step", [1] * 130)):
            models[form].load_state_dict(models["parallel"].state_dict())
            state, outs, at = models[form].init_state(2), [], 0
            for n in lengths:
                y, state = models[form](x[:, at:at + n], state)
                outs.append(y)
                at += n
            close(torch.cat(outs, 1), whole, 1e-4)
        alone = models["parallel"](x[:, 129:])
    assert (alone[:, 0] - whole[:, 129]).abs().max() <= 1e-4 * whole.abs().max()  # one position sees itself alone


def test_counts_by_formula():
    """Queries and keys of half the width, gates of rank 16, a gate of the output; a norm of a head's width."""
    spec = archdsl.load(SPEC)
    for variant, d, heads, hidden, tie in (("m340", 1024, 4, 2816, True), ("m340_untied", 1024, 4, 2816, False), ("b1_3", 2048, 4, 5632, False)):
        layer = 2 * d * d // 2 + 3 * d * d + 16 * d + 16 * d // 2 + d // 2 + 2 * d + d // heads + 3 * d * hidden
        assert spec.cost(variant).params == 24 * layer + (1 if tie else 2) * 32_000 * d + d
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 16 * 4096 + 17 * 1024 + 2 * 4096 + 128 + 3 * 4096 * 14_336
    assert spec.cost("b7").params == 32 * layer + 2 * 32_000 * 4096 + 4096


def test_costs_along_time():
    """Work grows with T, the state does not: heads · 128 · 256 numbers in float32 for each layer."""
    spec = archdsl.load(SPEC)
    assert spec.cost("m340", {"T": 8192}).macs == 8 * spec.cost("m340", {"T": 1024}).macs
    near, far = (spec.cost("m340", {"B": 3, "T": t}, "step") for t in (1, 100_000))
    assert near.macs == far.macs and near.state_bytes == far.state_bytes
    memories = [t for k, t in spec.build("m340", form="step", device="meta").init_state(3).items() if k.endswith("memory")]
    assert [tuple(t.shape) for t in memories] == [(3, 4, 128, 256)] * 24 and {t.dtype for t in memories} == {torch.float32}


def test_claims():
    assert all(r["passed"] for r in verify(archdsl.load(SPEC)))
