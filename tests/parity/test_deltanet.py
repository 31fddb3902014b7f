"""DeltaNet and its hybrids against the paper's recurrence under flash-linear-attention's names; all forms; counts; what the state holds."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.claims import verify
from tests.parity.fla_layout import Attention, Decoder, DeltaNet
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.streaming.forms import agree

SPEC = "specs/language/deltanet.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=61, d=32, depth=3, heads=2, hidden=48)
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {}, "gate, negative": {"gate": True, "negative": True}, "relu, sums, no beta": {"act": "relu", "qk_norm": "sum", "beta": False},
    "elu, sums": {"act": "elu", "qk_norm": "sum"}, "identity": {"act": "identity"}, "tied": {"tie": True},
    "shorter convolution": {"conv": 3}, "no convolution": {"conv": None},
    "window": {"attention": [1], "span": 4}, "global": {"attention": [0, 2]},
}


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


def peer(attention: tuple[int, ...] = (), span: int | None = None, tie: bool = False, eps: float = 1e-6, **options: Any) -> Decoder:
    d, heads = SIZES["d"], SIZES["heads"]
    mixers = [Attention(d, heads, span) if i in attention else DeltaNet(d, heads, eps, **options) for i in range(SIZES["depth"])]
    return Decoder(SIZES["vocab"], d, SIZES["hidden"], mixers, eps, tie).double()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1, 40), (8, 19)])
def test_recurrence(options: str, shape: tuple[int, int]):
    given = OPTIONS[options]
    ours = archdsl.load(SPEC).build(dtype=F64, **SIZES, **given)
    prove(ours, peer(**given), tokens(*shape), source="fla", call=lambda m, x: m(x))


@pytest.mark.parametrize("options", OPTIONS)
def test_one_token(options: str):
    """In float64 alone: behind the norm, the float32 error of one token is that of whether its key and its query are close to a right angle."""
    given = OPTIONS[options]
    theirs, ours = peer(**given), archdsl.load(SPEC).build(dtype=F64, **SIZES, **given)
    randomise(theirs)
    archdsl.import_weights(ours, theirs.state_dict(), source="fla")
    assert relative(ours(tokens(4, 1)), theirs(tokens(4, 1))) <= EXACT


@pytest.mark.parametrize("options", ["paper", "gate, negative", "window", "global"])
def test_forms(options: str):
    """All at once, in parts, one by one: longer than a chunk and not a multiple of one."""
    agree(archdsl.load(SPEC), T=75, **SIZES, **OPTIONS[options])


def test_window_reaches_everything_within_it():
    """Up to `span` positions the window is global attention; beyond, it is not."""
    spec = archdsl.load(SPEC)
    near, far = (spec.build(dtype=F64, **SIZES, attention=[1], span=s).eval() for s in (6, None))
    far.load_state_dict(near.state_dict())
    x = tokens(2, 9)
    torch.testing.assert_close(near(x)[:, :6], far(x)[:, :6], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(near(x)[:, 6:], far(x)[:, 6:], atol=1e-6)


@pytest.mark.parametrize(("variant", "at"), [("b1_3_window", range(1, 24, 2)), ("b1_3_global", [1, 12])])
def test_hybrid_layers(variant: str, at: Any):
    """Attention in the stated layers; the state holds keys and values there, a memory and three tails elsewhere."""
    spec = archdsl.load(SPEC)
    step: Any = spec.build(variant, form="step", device="meta")
    state = step.init_state(1, 4096)
    for i in range(24):
        names = sorted(k.split(".")[-1] for k in state if k.startswith(f"layers.{i}."))
        assert names == (["keys", "values"] if i in at else ["memory", "tail", "tail", "tail"]), i
    memory = state["layers.0.mixer.memory"]
    assert list(memory.shape) == [1, 16, 128, 128] and memory.dtype == torch.float32


def test_counts_by_formula():
    """Four maps, beta, three convolutions, two norms of d and one of a head's width, three maps of the MLP; embedding, head, last norm."""
    for variant, d, heads, hidden in (("m340", 1024, 8, 2816), ("b1_3", 2048, 16, 5632)):
        layer = 4 * d * d + d * heads + 3 * 4 * d + 2 * d + d // heads + 3 * d * hidden
        assert archdsl.load(SPEC).cost(variant).params == 24 * layer + 2 * 32_000 * d + d


def test_constant_state():
    """The recurrent model's state does not grow with what came before."""
    spec = archdsl.load(SPEC)
    near, far = (spec.cost("m340", {"T": t}, "step") for t in (1, 100_000))
    assert near.state_bytes == far.state_bytes and near.macs == far.macs
    assert near.state_bytes == 24 * (8 * 128 * 128 + 3 * 3 * 1024) * 4 + _positions(spec)


def _positions(spec: Any) -> int:
    """Bytes of the state that is no layer's."""
    state = spec.build("m340", form="step", device="meta").init_state(1)
    return sum(t.numel() * t.element_size() for k, t in state.items() if not k.startswith("layers."))


def test_claims():
    assert all(r["passed"] for r in verify(archdsl.load(SPEC)))
