"""SimQ-NAS's ResNet space: once-for-all's ResNet-50 against timm's ResNet-50-D with the skip in its stem, and how many candidates it has."""
from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import archdsl
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/general/simq_nas.arch"


def called(peer: Any, x: Tensor) -> Tensor:
    """timm's model; the stem's second convolution stands beside a skip, as in once-for-all."""
    stem = peer.conv1
    x = stem[2](stem[1](stem[0](x)))
    x = peer.act1(peer.bn1(stem[6](x + stem[5](stem[4](stem[3](x))))))
    x = peer.maxpool(x)
    for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        x = layer(x)
    return peer.fc(peer.global_pool(x))


@pytest.mark.parametrize("narrow", [True, pytest.param(False, marks=pytest.mark.proof)])
def test_resnet_50d(narrow: bool):
    """3, 4, 6 and 3 blocks, a quarter as wide inside; odd maps are halved upwards beside the strides. At other widths, and at its own."""
    timm = pytest.importorskip("timm")
    knobs: dict[str, Any]
    knobs, changes = ({"stem": [8, 16], "widths": [32, 64, 96, 128]}, {"stem_width": 8, "channels": (8, 16, 24, 32)}) if narrow else ({}, {})
    model = archdsl.load(SPEC).models["ResNet"].build("resnet_50d", dtype=torch.float64, classes=10, **knobs)
    x = torch.randn(2, 3, 75, 61, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prove(model, timm.create_model("resnet50d", num_classes=10, **changes).double(), x, source="timm", call=called)


def test_widths_are_those_of_the_official_code():
    """Multiples of 8 next to the shares 1, 0.8 and 0.65, as its supernet lists them."""
    header = archdsl.load(SPEC).models["ResNet"].space().header
    widths, stem = ([[*d.values] for d in header.domain(name, {}).items] for name in ("widths", "stem"))
    assert widths == [[256, 208, 168], [512, 408, 336], [1024, 816, 664], [2048, 1640, 1328]] and stem == [[32, 24], [64, 48, 40]]


NARROW = """
variant narrow of ResNet { shares = [1, 0.5], stem = [16, 32], widths = [32, 64], policy = [32], modes = [true], classes = 5 }
"""


@pytest.mark.proof
def test_candidates_are_the_net_with_the_rest_zeroed():
    """A narrow supernet of two stages: of each candidate the net of all its blocks whose maps read no channel that the candidate leaves out."""
    with open(SPEC, encoding="utf-8") as f:
        text = f.read()
    for before, after in (("list[int; 4] = [256, 512, 1024, 2048]", "list[int; 2] = [32, 64]"), ("[2, 2, 4, 2]", "[1, 1]"),
                          ("stem: list[int; 2] = [32, 64]", "stem: list[int; 2] = [16, 32]"),
                          ("narrowed(64, shares)", "narrowed(32, shares)"), ("count: int = 2 in 0..2", "count: int = 1 in 0..1")):
        assert before in text
        text = text.replace(before, after)
    text = "".join(part for part in re.split(r"(?m)^(?=variant|claim|names)", text) if not re.match(r"(variant|claim|names).*(resnet|ResNet)", part))
    net = archdsl.loads(text + NARROW, "simq_nas.arch").models["ResNet"].supernet(variant="narrow", dtype=torch.float64).eval()
    randomise(net)
    x = torch.randn(2, 3, 37, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    widest = {"stem": [16, 32], "widths": [32, 64], "expand": 0.35}
    sizes = set()
    for seed in range(8):
        c = net.space.sample(seed)
        own = net.extract(c)
        masked = net.extract(net.space.candidate({a: widest.get(a.rsplit(".", 1)[-1], v) for a, v in c.items()}))
        weights = dict(masked.named_parameters())
        with torch.no_grad():
            for name, p in own.named_parameters():
                if p.dim() > 1:
                    weights[name][:, p.shape[1]:] = 0
            assert relative(own(x), masked(x)) <= EXACT and relative(own(x), net.run(c, x)) <= EXACT
        sizes.add(sum(p.numel() for p in own.parameters()))
    assert len(sizes) == 8


@pytest.mark.proof
def test_the_paper_s_space():
    """Below each of 2 * 3 * 3^4 settings of the widths: of each block 3 expansions and of each of its convolutions 2 numbers of bits and 2 kinds of
    grid; up to two more blocks in each of four stages; a stem with a convolution that may be missing. The paper's vectors have values for what is
    missing as well, two ways to leave the stem's convolution out and two names for one of its widths: 3^5 * 3^18 * 3^6 * 4^61, some 10^50.6."""
    unit, more, size = 4, 3 * 4**3, 4 * (1 + 4) * 4
    for base in (2, 2, 4, 2):
        size *= (3 * unit**4) * more ** (base - 1) * (1 + more + more**2)
    space = archdsl.load(SPEC).models["ResNet"].space(variant="resnet_wide")
    assert space.size == size and space.uniform
    assert archdsl.load(SPEC).models["ResNet"].space().header.count == 2 * 3 * 3**4


@pytest.mark.proof
def test_the_whole_supernet():
    """All of the published space in one set of weights, without memory for them: of its candidates the largest, the smallest and ResNet-50-D."""
    net = archdsl.load(SPEC).models["ResNet"].supernet(device="meta")
    shape = {"expand": 0.25, "stages.0.more.count": 1, "stages.3.more.count": 1}
    wanted = {a: shape.get(a, shape.get(a.rsplit(".", 1)[-1], v)) for a, v in net.space.candidate({}).items()
              if not a.startswith(("stages.0.more.blocks.1", "stages.3.more.blocks.1"))}
    for candidate, params in ((net.largest, 48_105_992), (net.smallest, 6_539_280), (net.space.candidate(wanted), 25_576_264)):
        assert sum(p.numel() for p in net.extract(candidate).parameters()) == params
