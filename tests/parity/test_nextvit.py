"""Next-ViT against timm, in evaluation and in training, with the running statistics after a step."""
from __future__ import annotations

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from tests.parity.proof import EXACT, prove, relative

timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")
from timm.models.nextvit import NextConvBlock, NextStage, NextTransformerBlock, NextViT  # noqa: E402

SPEC = "specs/vision/nextvit.arch"
F64 = torch.float64
TINY = {"depths": [1, 2, 4, 2], "widths": [32, 64, 96, 64], "wide": [64, 128, 160, 128], "every": [0, 2, 2, 2], "stem": [16, 8, 24, 24], "classes": 7,
        "drop_path": 0.0}


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def tiny_peer(reduction=(8, 4, 2, 1), mix=0.75, head_dim=32, strides=(1, 2, 2, 2), channels=3) -> NextViT:
    """timm's model with stages of other widths: its constructor fixes them, its stages do not."""
    peer = NextViT(channels, num_classes=7, stem_chs=(16, 8, 24), depths=(1, 1, 5, 1), drop_path_rate=0.0)
    stages, before = [], 24
    for i, depth in enumerate(TINY["depths"]):
        last = [TINY["every"][i] > 0 and (j + 1) % TINY["every"][i] == 0 for j in range(depth)]
        channels = [TINY["wide" if t else "widths"][i] for t in last]
        stages.append(NextStage(before, channels, [NextTransformerBlock if t else NextConvBlock for t in last], stride=strides[i],
                                sr_ratio=reduction[i], mix_block_ratio=mix, head_dim=head_dim))
        before = channels[-1]
    peer.stages = torch.nn.Sequential(*stages)
    peer.norm, peer.head.fc = torch.nn.BatchNorm2d(before), torch.nn.Linear(before, 7)
    return peer.double()


@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_counts(variant):
    with torch.device("meta"):
        peer = timm.create_model(f"nextvit_{variant}")
    assert archdsl.load(SPEC).cost(variant).params == sum(p.numel() for p in peer.parameters())


@pytest.mark.proof
def test_small_is_timms():
    """The paper's widths on a map with remainders everywhere: 75 x 97 becomes 19 x 25, 10 x 13, 5 x 7 and 3 x 4 cells."""
    peer = timm.create_model("nextvit_small", depths=(1, 1, 5, 1), num_classes=9).double()
    ours = archdsl.load(SPEC).build("small", depths=[1, 1, 5, 1], classes=9, dtype=F64)
    prove(ours, peer, image(1, 3, 75, 97), source="timm", call=lambda m, x: m(x))


def test_one_channel_is_timms():
    prove(archdsl.load(SPEC).build(**TINY, channels=1, dtype=F64), tiny_peer(channels=1), image(1, 1, 64, 43), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize(("size", "batch", "changes"), [
    ((64, 64), 2, {}), ((91, 75), 1, {}), ((129, 33), 1, {"reduction": [8, 2, 4, 2]}), ((70, 70), 2, {"mix": 0.5, "head_dim": 16}),
    ((40, 56), 1, {"strides": (2, 1, 2, 1), "reduction": [2, 1, 2, 1]}),
])
def test_other_variants_are_timms(size, batch, changes):
    prove(archdsl.load(SPEC).build(**TINY, **changes, dtype=F64), tiny_peer(**changes), image(batch, 3, *size), source="timm", call=lambda m, x: m(x))


@pytest.mark.parametrize("size", [(64, 64), (75, 107)])
def test_training_step_is_timms(size):
    """Gradients through the statistics of the batch, and every running statistic after the step."""
    x, peer = image(3, 3, *size), tiny_peer()
    ours = archdsl.load(SPEC).build(**TINY, dtype=F64)
    prove(ours, peer, x, source="timm", call=lambda m, v: m(v), train=True)
    before = {k: v.clone() for k, v in peer.state_dict().items()}
    peer.train()(x)
    after, mine = peer.state_dict(), archdsl.export_weights(ours, source="timm")
    running = [k for k in after if "running_" in k]
    assert len(running) == 2 * sum(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in peer.modules())
    for k in running:
        assert not torch.equal(after[k], before[k]) and relative(mine[k], after[k]) <= EXACT, k
    assert relative(ours.eval()(x), peer.eval()(x)) <= EXACT


def test_stage_maps_are_timms():
    peer, ours = tiny_peer().eval(), archdsl.load(SPEC).build(**TINY, dtype=F64, emit=("stages.*.features",))
    archdsl.import_weights(ours, peer.state_dict(), source="timm")
    x = image(1, 3, 75, 97)
    _, emitted = ours.eval()(x)
    want = peer.forward_intermediates(x, intermediates_only=True)
    assert list(emitted) == [f"stages.{i}.features" for i in range(4)] and len(want) == 4
    for mine, theirs in zip(emitted.values(), want):
        assert mine.shape == theirs.shape and relative(mine, theirs) <= EXACT


def test_drop_path_rates():
    """Linear over all blocks; attention takes the share `mix` of its block's rate, the convolution beside it the rest."""
    graph = archdsl.load(SPEC).elaborate("small").graph
    rates = _rates(graph)
    blocks = [0.1 * b / 19 for b in range(20)]
    want = []
    for b, rate in enumerate(blocks):
        want += [0.75 * rate, 0.25 * rate, rate] if b in (6, 11, 16, 19) else [rate, rate]
    assert [float(r) for r in rates] == pytest.approx(want)


def _rates(graph) -> list:
    inner = {"call": "graph", "phase": "eval"}
    return [r for n in graph.nodes for r in ([n.attrs["rate"]] if n.op == "drop_path" else _rates(n.attrs[inner[n.op]]) if n.op in inner else [])]


@pytest.mark.parametrize(("changes", "words"), [
    ({"depths": [3, 4, 11, 3]}, "stage 2 does not end in a transformer block"), ({"widths": [90, 192, 384, 768]}, "must divide 90 channels"),
    ({"mix": 1.0}, "leaves none to the convolution"),
])
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ArchError, match=words):
        archdsl.load(SPEC).build(**changes)


def test_a_map_smaller_than_a_run_is_refused():
    model = archdsl.load(SPEC).build(**TINY)
    with pytest.raises(ValueError, match="less than one run of 16"):
        model(torch.zeros(1, 3, 20, 20))
