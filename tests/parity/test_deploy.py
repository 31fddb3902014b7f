"""Deploy forms: our folded models against the fused ones of timm (`reparameterize`), of torch.fx (convolutions with their norms) and of both."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.fx.experimental.optimization import fuse

import archdsl
from archdsl.passes import Model, Step
from archdsl.passes.manager import rewrite
from tests.parity.proof import EXACT, randomise, relative
from tests.parity.test_nextvit import TINY, tiny_peer
from tests.passes.helpers import closed, ops, params

timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")
from timm.models import efficientformer, nextvit  # noqa: E402

F64 = torch.float64
NEXT, FORMER = "specs/vision/nextvit.arch", "specs/vision/efficientformer.arch"
FEW: dict[str, Any] = {"depths": [1, 1, 5, 1], "classes": 9}


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def random_peer(name: str, **changes: Any) -> torch.nn.Module:
    peer = timm.create_model(name, **changes).double().eval()
    randomise(peer)
    return peer


def count(peer: torch.nn.Module) -> int:
    return sum(p.numel() for p in peer.parameters())


def merged(peer: Any) -> Any:
    """timm's own fusing: norms in front of the maps that read them."""
    peer = copy.deepcopy(peer)
    for m in peer.modules():
        if hasattr(m, "reparameterize"):
            m.reparameterize()
    return peer


def deployed(peer: Any) -> Any:
    """Its convolutions take the norms behind them too, and the head the last one: it passes the mean over the map."""
    peer = merged(peer)
    nextvit.merge_pre_bn(peer.head.fc, peer.norm)
    peer.norm = torch.nn.Identity()
    return fuse(peer)


def norms(peer: torch.nn.Module) -> int:
    return sum(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in peer.modules())


def follow(made: Model, before: Model, x: torch.Tensor, want: torch.Tensor) -> None:
    """The same outputs, and the folded model prints as a spec."""
    built = made.build().eval()
    assert want.std() > 1e-4 and relative(built(x), want) <= EXACT
    assert relative(before.build().eval()(x), want) <= EXACT
    closed(made)


@pytest.mark.parametrize(("variant", "fused", "left"), [("small_merged", merged, None), ("small_deploy", deployed, 0)])
def test_nextvit(variant, fused, left):
    """A map with remainders everywhere: runs of cells that do not divide it, odd halves."""
    peer = tiny_peer().eval()
    randomise(peer)
    spec = archdsl.load(NEXT)
    before = Model.of(spec, "small", TINY, dtype=F64, weights=peer.state_dict(), source="timm")
    made = Model.of(spec, variant, TINY, dtype=F64, weights=peer.state_dict(), source="timm")
    theirs, x = fused(peer), image(1, 3, 75, 97)
    with torch.no_grad():
        want = theirs(x)
        follow(made, before, x, want)
    assert params(made) == count(theirs) < count(peer)
    assert ops(made, "batch_norm") == norms(theirs) < norms(peer) and left in (None, norms(theirs))


def test_nextvit_weights_are_timms():
    """Address by address: what `reparameterize` leaves in each map."""
    peer = random_peer("nextvit_small", depths=(1, 1, 5, 1), num_classes=9)
    made = Model.of(archdsl.load(NEXT), "small_merged", FEW, dtype=F64, weights=peer.state_dict(), source="timm")
    theirs = merged(peer).state_dict()
    pairs = {"mlp.up": "mlp.fc1", "mhsa.q": "e_mhsa.q", "mhsa.k": "e_mhsa.k", "mhsa.v": "e_mhsa.v"}
    seen = 0
    for address, w in made.weights.items():
        for mine, other in pairs.items():
            if f".{mine}." in address:
                seen += 1
                assert relative(w, theirs[address.replace(f".{mine}.", f".{other}.")]) <= EXACT, address
    assert seen == 2 * (8 + 3 * 3)  # eight blocks, three of them with attention


@pytest.mark.parametrize("variant", ["small", *(pytest.param(v, marks=pytest.mark.proof) for v in ("base", "large"))])
def test_counts_of_nextvit(variant):
    """Of the models as published, both forms."""
    spec, peer = archdsl.load(NEXT), timm.create_model(f"nextvit_{variant}").eval()
    for form, fused in (("merged", merged), ("deploy", deployed)):
        (step,) = spec.steps(f"small_{form}")
        assert parameters(spec, variant, step) == count(fused(peer))


def parameters(spec: archdsl.Spec, variant: str, step: Step) -> int:
    """Counted without torch."""
    graph = rewrite(spec.elaborate(variant), step).graph
    return sum(torch.Size(p.type.shape).numel() for _, p in graph.parameters() if p.kind == "param")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("name", "variant"), [("efficientformer_l1", "l1_deploy")])
def test_efficientformer(name, variant):
    """Every norm stands behind a convolution; torch.fx folds them."""
    peer = random_peer(name, num_classes=9)
    spec, x = archdsl.load(FORMER), image(2, 3, 224, 224)
    before = Model.of(spec, variant.removesuffix("_deploy"), {"classes": 9}, dtype=F64, weights=peer.state_dict(), source="timm")
    made = Model.of(spec, variant, {"classes": 9}, dtype=F64, weights=peer.state_dict(), source="timm")
    theirs: Any = fuse(peer)
    with torch.no_grad():
        follow(made, before, x, theirs(x))
    assert norms(peer) == 33 and norms(theirs) == ops(made, "batch_norm") == 0 and params(made) == count(theirs)


@pytest.mark.parametrize("variant", ["l1", *(pytest.param(v, marks=pytest.mark.proof) for v in ("l3", "l7"))])
def test_counts_of_efficientformer(variant):
    peer = timm.create_model(f"efficientformer_{variant}").eval()
    assert isinstance(peer, efficientformer.EfficientFormer)
    assert parameters(archdsl.load(FORMER), variant, Step.parse("fold_batch_norm()")) == count(fuse(peer))
