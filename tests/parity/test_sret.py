"""SReT against its equations in plain torch, with the modules' names of the official repository: a slice is a mask there, never a split."""
from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.weights import WeightsError
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/vision/sret.arch"
F64 = torch.float64
TINY: dict[str, Any] = {"widths": [8, 16, 32], "heads": [2, 2, 4], "depths": [2, 3, 1], "passes": 2,
                        "groups": [[8, 2], [4, 2], [1, 1]], "ratio": 3.6, "nll": 1, "size": [64, 64], "classes": 301, "drop_path": 0}
PAPER: dict[str, Any] = {"widths": [64, 128, 256], "heads": [2, 4, 8], "depths": [2, 5, 3], "passes": 2,
                         "groups": [[8, 2], [4, 1], [1, 1]], "ratio": 3.6, "nll": 1, "size": [224, 224], "classes": 1000, "drop_path": 0.1}


def image(batch: int, size: tuple[int, int] | list[int]) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0), dtype=F64)


class Coefficient(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1))


class Perceptron(nn.Module):
    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, hidden), nn.Linear(hidden, d)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * 0.5 * (1 + torch.erf(h / 2**0.5)))


class Block(nn.Module):
    """`labels`: the slice of each token; tokens of different slices do not see each other."""

    def __init__(self, d: int, heads: int, ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(d, 3 * d), "proj": nn.Linear(d, d)})
        self.mlp = Perceptron(d, int(d * ratio))
        self.coefficient1, self.coefficient2, self.coefficient3, self.coefficient4 = (Coefficient() for _ in range(4))

    def forward(self, x, labels):
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1)).unbind(2)
        scores = torch.einsum("bihw,bjhw->bhij", q, k) * q.shape[-1] ** -0.5
        apart = labels[:, None] != labels[None, :]
        y = torch.einsum("bhij,bjhw->bihw", scores.masked_fill(apart, -torch.inf).softmax(-1), v).flatten(2)
        x = self.coefficient1.bias * x + self.coefficient2.bias * self.attn["proj"](y)
        return self.coefficient3.bias * x + self.coefficient4.bias * self.mlp(self.norm2(x))


class Projection(nn.Module):
    def __init__(self, d: int, ratio: float):
        super().__init__()
        self.norm1, self.mlp = nn.LayerNorm(d, eps=1e-6), Perceptron(d, int(d * ratio))
        self.coefficient1, self.coefficient2 = Coefficient(), Coefficient()

    def forward(self, x):
        return self.coefficient1.bias * x + self.coefficient2.bias * self.mlp(self.norm1(x))


class Stage(nn.Module):
    """Blocks, each followed by a projection; where they are shared, a block stands in the list once for each pass."""

    def __init__(self, d: int, heads: int, depth: int, groups: list[int], passes: int, ratio: float, nll: float, sharing: bool):
        super().__init__()
        self.groups, self.passes = groups, passes
        parts: list[nn.Module] = []
        for _ in range(depth):
            block = Block(d, heads, ratio)
            for p in range(self.passes):
                parts += [block if sharing or p == 0 else Block(d, heads, ratio), Projection(d, nll)]
        self.blocks = nn.ModuleList(parts)

    def forward(self, x):
        h, w = x.shape[2:]
        n = h * w
        x = x.flatten(2).transpose(1, 2)
        for i in range(0, len(self.blocks), 2):
            again = i // 2 % self.passes > 0
            g = self.groups[1 if again else 0]
            labels = torch.arange(n) // (n // g)
            if again and g > 1:
                order = torch.randperm(n)  # place i holds the token order[i]
                labels = torch.empty_like(labels).scatter(0, order, labels)
            x = self.blocks[i + 1](self.blocks[i](x, labels))
        return x.transpose(1, 2).unflatten(2, (h, w))


class Reference(nn.Module):
    def __init__(self, widths, heads, depths, passes, groups, ratio, nll, size, classes, drop_path, sharing=True):
        super().__init__()
        stem: dict[str, nn.Module] = {}
        for k, (a, b) in enumerate([(3, widths[0] // 2), (widths[0] // 2, widths[0]), (widths[0], widths[0])], 1):
            stem |= {f"conv{k}": nn.Conv2d(a, b, 3, stride=2, padding=1), f"bn{k}": nn.BatchNorm2d(b)}
        self.patch_embed = nn.ModuleDict(stem)
        self.pos_embed = nn.Parameter(torch.zeros(1, widths[0], *(-(-s // 8) for s in size)))
        self.transformers = nn.ModuleList(Stage(*own, passes, ratio, nll, sharing) for own in zip(widths, heads, depths, groups))
        self.pools = nn.ModuleList(nn.ModuleDict({"conv": nn.Conv2d(a, b, 3, stride=2, padding=1, groups=a)}) for a, b in pairwise(widths))
        self.norm, self.head = nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], classes)

    def forward(self, x):
        for k in "123":
            x = self.patch_embed["bn" + k](self.patch_embed["conv" + k](x)).relu()
        x = x + self.pos_embed
        for i, stage in enumerate(self.transformers):
            x = stage(self.pools[i - 1].get_submodule("conv")(x) if i else x)
        return self.head(self.norm(x.mean((2, 3))))


def ours(**changes: Any) -> Any:
    return archdsl.load(SPEC).build(dtype=F64, **{**TINY, **changes})


def drawing(model: Any) -> Any:
    """The model with the same random orders in every forward pass."""
    model.register_forward_pre_hook(lambda module, inputs: torch.manual_seed(11) and None)
    return model


def call(model: Any, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(11)
    return model(x)


# ---------------------------------------------------------------- parity
@pytest.mark.parametrize(("batch", "train", "changes"), [
    (2, False, {}),
    (1, False, {"groups": [[16, 4], [2, 8], [4, 2]]}),
    (2, False, {"groups": [[1, 1], [1, 1], [1, 1]], "ratio": 4}),
    (1, False, {"size": [56, 104], "groups": [[7, 13], [4, 7], [1, 4]]}),
    (3, True, {"size": [72, 48], "groups": [[9, 6], [5, 3], [3, 2]]}),
    (2, False, {"widths": [12, 24, 48], "heads": [3, 3, 6], "ratio": 3, "nll": 2}),
    (2, False, {"sharing": False}),
    (2, False, {"depths": [1, 4, 2], "passes": 1}),
    (2, False, {"depths": [2, 1, 1], "passes": 3, "sharing": False}),
])
def test_equations(batch, train, changes):
    knobs = {**TINY, **changes}
    prove(drawing(ours(**changes)), Reference(**knobs).double(), image(batch, knobs["size"]), source="official", call=call, train=train)


def test_the_paper_s_tiny_model():
    """At full size, with shallower stages."""
    shallow: dict[str, Any] = {"depths": [1, 1, 1]}
    model = drawing(archdsl.load(SPEC).build("tiny", dtype=F64, **shallow))
    prove(model, Reference(**{**PAPER, **shallow}).double(), image(1, (224, 224)), source="official", call=call)


@pytest.mark.parametrize(("variant", "changes"), [
    ("tiny", {}), ("untied", {"sharing": False}), ("large_tiny", {"ratio": 4}), ("large_tiny_16", {"ratio": 4}),
    ("tiny_star_384", {"size": [384, 384]}), ("small", {"widths": [126, 252, 504], "heads": [3, 6, 12], "ratio": 3, "nll": 2}),
])
def test_counts(variant, changes):
    with torch.device("meta"):
        peer = Reference(**{**PAPER, **changes})
    model = archdsl.load(SPEC).build(variant, device="meta")
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in peer.parameters())
    if variant == "tiny":
        hidden = [model.get_parameter(f"stages.{s}.blocks.0.layer.mlp.up.weight").shape[0] for s in range(3)]
        assert hidden == [230, 460, 921], "cut, not rounded"


# ---------------------------------------------------------------- sharing
@pytest.mark.parametrize("passes", [2, 3])
def test_the_gradient_of_a_shared_block_is_the_sum_over_its_passes(passes):
    """Two passes as in the paper, and three: every pass after the first shuffles and has the later slices."""
    tied = ours(passes=passes, order_seed=5)
    untied = ours(passes=passes, order_seed=5, sharing=False)
    randomise(tied)
    weights = tied.state_dict()
    copies = {k: k if ".layer." not in k else ".".join(p for i, p in enumerate(k.split(".")) if i not in (4, 5)) for k in untied.state_dict()}
    untied.load_state_dict({k: weights[own] for k, own in copies.items()})
    x = image(2, TINY["size"])
    probe = torch.randn(2, TINY["classes"], dtype=F64, generator=torch.Generator().manual_seed(1))
    for m in (tied, untied):
        (m.eval()(x) * probe).sum().backward()
    assert relative(tied(x), untied(x)) <= EXACT
    largest = max(p.grad.abs().max() for p in tied.parameters())
    parts = dict(untied.named_parameters())
    for name, p in tied.named_parameters():
        grads = [parts[k].grad for k, own in copies.items() if own == name]
        assert len(grads) == (passes if ".layer." in name else 1)
        assert (p.grad - sum(grads)).abs().max() <= EXACT * largest, name
        assert ".layer." not in name or all(g.abs().max() > 0 for g in grads)


def test_weights_fit_with_and_without_slices():
    sliced, star = ours(order_seed=5).eval(), ours(groups=[[1, 1]] * 3).eval()
    randomise(sliced)
    star.load_state_dict(sliced.state_dict())
    x = image(1, TINY["size"])
    assert relative(star(x), sliced(x)) > 1e-6


def test_a_file_whose_copies_of_a_shared_block_differ_is_refused():
    peer, model = Reference(**TINY).double(), ours()
    weights = {k: v.clone() for k, v in peer.state_dict().items()}
    archdsl.import_weights(model, weights, source="official")
    weights["transformers.1.blocks.6.attn.qkv.weight"][3, 2] += 1
    with pytest.raises(WeightsError) as fault:
        archdsl.import_weights(model, weights, source="official")
    assert fault.value.report.unequal == {"transformers.1.blocks.6.attn.qkv.weight": "transformers.1.blocks.4.attn.qkv.weight"}


def test_files_of_the_official_repository_repeat_shared_blocks():
    peer, model = Reference(**TINY).double(), ours()
    archdsl.import_weights(model, peer.state_dict(), source="official")
    back = archdsl.export_weights(model, source="official")
    want = {k: v for k, v in peer.state_dict().items() if "tracked" not in k}
    assert back.keys() == want.keys() and all(torch.equal(v, want[k]) for k, v in back.items())


# ---------------------------------------------------------------- random orders
def test_a_seed_fixes_the_order():
    """Without one, each forward pass has orders of its own, in evaluation as well."""
    x = image(1, TINY["size"])
    fresh, fixed, other = ours().eval(), ours(order_seed=5).eval(), ours(order_seed=6).eval()
    for m in (fixed, other):
        m.load_state_dict(fresh.state_dict())
    assert relative(fresh(x), fresh(x)) > 1e-9
    assert torch.equal(fixed(x), fixed(x)) and relative(other(x), fixed(x)) > 1e-9
    assert torch.equal(fixed.train()(x[[0, 0]]), fixed(x[[0, 0]]))


def test_one_slice_draws_nothing():
    x, model = image(1, TINY["size"]), ours(groups=[[8, 1], [4, 1], [2, 1]]).eval()
    before = torch.get_rng_state()
    y = model(x)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(model(x), y)
    ours().eval()(x)
    assert not torch.equal(torch.get_rng_state(), before)


def test_all_images_of_a_batch_have_one_order():
    x, model = image(1, TINY["size"]), drawing(ours().eval())
    y = model(x.expand(3, -1, -1, -1))
    assert relative(y, model(x).expand(3, -1)) <= EXACT


# ---------------------------------------------------------------- the rest
def test_drop_path_rates():
    """0.1 i / 20 over all passes, of which block b of a stage takes the b-th there; both its passes have it, projections none."""
    graph = archdsl.load(SPEC).elaborate("tiny").graph
    want = [rate for start, blocks in ((0, 2), (4, 5), (14, 3)) for b in range(blocks)
            for rate in 2 * [0.1 * (start + b) / 20, 0.1 * (start + b) / 20, 0]]
    assert _rates(graph) == pytest.approx(want)
    assert max(_rates(archdsl.load(SPEC).elaborate("small").graph)) == pytest.approx(0.2 * 16 / 20), "SReT_S is trained with 0.2"


def _rates(graph: Any) -> list[float]:
    inner, out = {"call": "graph", "phase": "eval"}, []
    for n in graph.nodes:
        out += [float(n.attrs["rate"])] if n.op == "drop_path" else _rates(n.attrs[inner[n.op]]) if n.op in inner else []
    return out


@pytest.mark.parametrize(("changes", "words"), [
    ({"groups": [[3, 1], [1, 1], [1, 1]]}, "3 slices do not divide 64 tokens"),
    ({"size": [72, 64], "groups": [[1, 5], [1, 1], [1, 1]]}, "5 slices do not divide 72"),
    ({"widths": [8, 20, 32]}, "must divide the output channels"),
])
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ArchError, match=words):
        ours(**changes)


def test_another_image_needs_another_map_of_positions():
    with pytest.raises(ValueError, match="build with another `size`"):
        ours()(torch.zeros(1, 3, 64, 96, dtype=F64))
