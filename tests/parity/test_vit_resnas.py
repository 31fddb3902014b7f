"""ViT-Res and its supernets against their equations in plain torch, with the official repository's names: there, what a candidate leaves out is
masked away, and norms divide by the share of channels that is left."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.supernet.net import Supernet
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/vision/vit_resnas.arch"
F64 = torch.float64
MINI: dict[str, Any] = {"widths": [6, 10, 12], "heads": [[2, 3], [1], [2, 1]], "hidden": [[7, 9], [12], [8, 24]], "head_dims": [2, 3, 4],
                        "size": [112, 56], "classes": 23, "drop_path": 0}
PAPER: dict[str, Any] = {"widths": [192, 384, 768], "heads": [[3] * 4, [6] * 4, [12] * 4], "hidden": [[768] * 4, [1536] * 4, [3072] * 4],
                         "head_dims": [64] * 3, "size": [224, 224], "classes": 1000}
SUPER = """
variant wide {
  widths = [8, 12, 16],
  heads = [[3] * 2, [2] * 3, [4]],
  hidden = [[12] * 2, [16] * 3, [24]],
  head_dims = [2, 3, 4],
  choices = [
    Choices([8, 6], [3, 1], [12, 7]),
    Choices([12], [2, 1], [16, 12]),
    Choices([16, 13], [4, 3], [24, 13]),
  ],
  removable = true,
  size = [56, 112],
  classes = 5,
  drop_path = 0,
}
"""


class Norm(nn.Module):
    """Over the channels that `keep` (..., c) leaves: sums are divided by the share that it leaves, and what it takes is 0 behind the norm too."""

    def __init__(self, c: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x, keep):
        share = keep.mean(-1, keepdim=True)
        mean, square = x.mean(-1, keepdim=True) / share, x.square().mean(-1, keepdim=True) / share
        return ((x - mean) / (square - mean.square() + 1e-6).sqrt() * self.weight + self.bias) * keep


class Block(nn.Module):
    def __init__(self, c: int, heads: int, head_dim: int, hidden: int):
        super().__init__()
        self.heads, self.head_dim, wide = heads, head_dim, heads * head_dim
        self.norm1, self.norm2 = Norm(c), Norm(c)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(c, 3 * wide), "proj": nn.Linear(wide, c)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(c, hidden), "fc2": nn.Linear(hidden, c)})

    def forward(self, x, keep, heads=None, hidden=None):
        """`heads`, `hidden`: of each row how many are kept; none: all."""
        q, k, v = self.attn["qkv"](self.norm1(x, keep)).unflatten(2, (3, self.heads, self.head_dim)).unbind(2)
        weights = (torch.einsum("bihw,bjhw->bhij", q, k) * self.head_dim**-0.5).softmax(-1)
        y = torch.einsum("bhij,bjhw->bihw", weights, v).flatten(2)
        x = x + self.attn["proj"](y * first(heads, self.heads, x).repeat_interleave(self.head_dim, -1)) * keep
        h = self.mlp["fc1"](self.norm2(x, keep))
        h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
        return x + self.mlp["fc2"](h * first(hidden, h.shape[2], x)) * keep


def first(counts: list[int] | None, most: int, like: torch.Tensor) -> torch.Tensor:
    """[B, 1, most]: ones for the first so many of each row."""
    full = torch.tensor(counts if counts is not None else [most] * len(like))
    return (torch.arange(most) < full[:, None])[:, None].to(like.dtype)


class Reduction(nn.Module):
    def __init__(self, c: int, out: int, grid: list[int]):
        super().__init__()
        self.grid, self.out = grid, out
        self.norm, self.patch_reduce, self.token_transform = Norm(c), nn.Conv2d(c, out, 3, stride=2, padding=1), nn.Linear(c, out)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1] // 4, out))

    def forward(self, x, keep):
        z = self.norm(x, keep)
        cells, plain = (t[:, 1:].mT.unflatten(2, self.grid) for t in (z, x))
        main = torch.cat([self.token_transform(z[:, :1]), self.patch_reduce(cells).flatten(2).mT + self.pos_embed], 1)
        pooled = plain.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)).flatten(2).mT
        return main + F.pad(torch.cat([x[:, :1], pooled], 1), (0, self.out - x.shape[2]))


class ConvNorm(nn.Module):
    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(b)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Reference(nn.Module):
    def __init__(self, widths, heads, hidden, head_dims, size, classes, patch_head=False, **_: Any):
        super().__init__()
        grid = [n // 14 for n in size]
        self.tokens = nn.Parameter(torch.zeros(1, 1, widths[0]))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], widths[0]))
        self.patch_embed = nn.ModuleDict({"conv1": ConvNorm(3, 24, 2), "conv2": ConvNorm(24, 24, 1), "conv3": ConvNorm(24, 24, 1),
                                          "conv_proj": nn.Conv2d(24, widths[0], 7, stride=7)})
        blocks: list[nn.Module] = []
        for s, c in enumerate(widths):
            if s:
                blocks.append(Reduction(widths[s - 1], c, [g // 2 ** (s - 1) for g in grid]))
            blocks += [Block(c, h, head_dims[s], f) for h, f in zip(heads[s], hidden[s])]
        self.blocks, self.norm, self.cls_head = nn.ModuleList(blocks), Norm(widths[2]), nn.Linear(widths[2], classes)
        if patch_head:
            self.patch_head = nn.Linear(widths[2], classes)

    def forward(self, image, chosen=None):
        """`chosen(s, i) -> (widths, heads, hidden, kept)` of each row for block i of stage s; none: all of everything."""
        e = self.patch_embed
        a = e["conv1"](image)
        x = e["conv_proj"](e["conv3"](e["conv2"](a)) + a).flatten(2).mT
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1) + self.pos_embed
        s, i, keep = 0, 0, torch.ones(len(x), 1, x.shape[2], dtype=x.dtype)
        for block in self.blocks:
            if isinstance(block, Reduction):
                x, s, i = block(x, keep), s + 1, 0
                keep = torch.ones(len(x), 1, x.shape[2], dtype=x.dtype)
                continue
            if chosen is None:
                x = block(x, keep)
            else:
                widths, heads, hidden, kept = chosen(s, i)
                keep = first(widths, x.shape[2], x)
                x = x * keep
                y = block(x, keep, heads, hidden)
                x = torch.where(torch.tensor(kept)[:, None, None], y, x)
            i += 1
        z = self.norm(x, keep)
        logits = self.cls_head(z[:, 0])
        return (logits, self.patch_head(z[:, 1:])) if hasattr(self, "patch_head") else logits


def image(batch: int, size: list[int]) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0), dtype=F64)


def ours(model: str = "ViTRes", **changes: Any) -> Any:
    return archdsl.load(SPEC).models[model].build(dtype=F64, **{**MINI, **changes})


# ---------------------------------------------------------------- parity
@pytest.mark.parametrize(("batch", "train", "changes"), [
    (2, False, {}),
    (3, True, {"size": [56, 56]}),
    (1, False, {"widths": [6, 6, 6], "heads": [[1], [3, 2, 1], [2]], "hidden": [[5], [6, 7, 8], [9]], "size": [56, 112]}),
])
def test_equations(batch, train, changes):
    knobs = {**MINI, **changes}
    prove(ours(**changes), Reference(**knobs).double(), image(batch, knobs["size"]), source="official", call=lambda m, x: m(x), train=train)


def test_labels_of_cells():
    peer, model = Reference(**MINI, patch_head=True).double().eval(), ours("TokenLabels").eval()
    randomise(peer)
    archdsl.import_weights(model, peer.state_dict(), source="official")
    x = image(2, MINI["size"])
    for mine, theirs in zip(model(x), peer(x), strict=True):
        assert relative(mine, theirs) <= EXACT
    archdsl.import_weights(ours(), peer.state_dict(), source="official")  # a classifier leaves the second head


@pytest.mark.parametrize(("variant", "changes"), [
    ("res_tiny", {}), ("super_tiny", {"widths": [256, 512, 1024], "heads": [[6] * 6, [12] * 6, [12] * 6], "head_dims": [32, 48, 64],
                                      "hidden": [[768] * 6, [1536] * 6, [3072] * 6]}),
])
def test_counts(variant, changes):
    with torch.device("meta"):
        peer = Reference(**{**PAPER, **changes})
    model = archdsl.load(SPEC).models["ViTRes"].build(variant, device="meta")
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in peer.parameters())
    archdsl.export_weights(model, source="official")


def test_a_reduction_of_zeros_is_the_mean_with_channels_of_zeros():
    model = ours().eval()
    x = torch.randn(2, 33, 6, dtype=F64)
    reduce = model.get_submodule("stages.1.reduce")
    with torch.no_grad():
        for name, p in reduce.named_parameters():
            if "norm" not in name:
                p.zero_()
    y = reduce(x)
    assert y.shape == (2, 9, 10) and torch.equal(y[:, 0, :6], x[:, 0]) and not y[:, :, 6:].any()
    want = torch.stack([x[:, 1 + 8 * r + 2 * c + at] for at in (0, 1, 4, 5) for r in range(4) for c in range(2)], 1).unflatten(1, (4, 8)).mean(1)
    assert relative(y[:, 1:, :6], want) <= EXACT


def test_drop_path_rates():
    """From 0 to the rate over all blocks of all stages, those that may be left out among them, both branches alike."""
    graph = archdsl.load(SPEC).models["ViTRes"].elaborate("super_tiny").graph
    assert _rates(graph) == pytest.approx([0.2 * i / 17 for i in range(18) for _ in range(2)])


def _rates(graph: Any) -> list[float]:
    inner, out = {"call": "graph", "phase": "eval"}, []
    for n in graph.nodes:
        out += [float(n.attrs["rate"])] if n.op == "drop_path" else _rates(n.attrs[inner[n.op]]) if n.op in inner else []
    return out


# ---------------------------------------------------------------- the supernet
@pytest.fixture(scope="module")
def pair() -> tuple[Supernet, Reference]:
    """A supernet, and the masked net with its weights."""
    with open(SPEC, encoding="utf-8") as f:
        spec = archdsl.loads(f.read() + SUPER, "vit_resnas.arch").models["ViTRes"]
    net = spec.supernet(variant="wide", dtype=F64).eval()
    peer = Reference([8, 12, 16], [[3] * 2, [2] * 3, [4]], [[12] * 2, [16] * 3, [24]], [2, 3, 4], [56, 112], 5).double().eval()
    randomise(peer)
    whole = spec.build("wide", dtype=F64)
    archdsl.import_weights(whole, peer.state_dict(), source="official")
    net.load_state_dict(whole.state_dict())
    return net, peer


def rows(candidates: list[Any], each: int) -> Any:
    """What `chosen` of the reference gives for `each` rows of every candidate."""
    def chosen(s: int, i: int) -> tuple[list[int], list[int], list[int], list[bool]]:
        at = f"stages.{s}.blocks.{i}."
        found = [(c["widths"][s], c.get(at + "heads", 1), c.get(at + "hidden", 1), c.get(at + "layer") != "removed")
                 for c in candidates for _ in range(each)]
        return tuple(map(list, zip(*found)))  # type: ignore[return-value]

    return chosen


def test_candidates_are_the_masked_net(pair):
    net, peer = pair
    x = image(2, [56, 112])
    seen = set()
    with torch.no_grad():
        for seed in range(10):
            c = net.space.sample(seed)
            seen |= {c["widths"], *(v for a, v in c.items() if a.endswith("layer"))}
            want = peer(x, rows([c], 2))
            assert relative(net.run(c, x), want) <= EXACT and relative(net.extract(c)(x), want) <= EXACT
    assert {"kept", "removed", (6, 12, 13)} < seen and len(seen) > 4


def test_several_architectures_in_a_batch(pair):
    """Each group of rows as the masked net answers with a mask for each row, and gradients of all weights."""
    net, peer = pair
    x = image(6, [56, 112])
    chosen = [net.largest, net.space.sample(1), net.space.sample(4)]
    mine, want = net.run_each(chosen, x), peer(x, rows(chosen, 2))
    assert relative(mine, want) <= EXACT
    probe = torch.randn(6, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
    for m, y in ((net, mine), (peer, want)):
        m.zero_grad(set_to_none=True)
        (y * probe).sum().backward()
    grads = {k: p.grad if p.grad is not None else torch.zeros_like(p) for k, p in peer.named_parameters()}
    holder = net.space.spec.build("wide", dtype=F64)
    archdsl.import_weights(holder, {**peer.state_dict(), **grads}, source="official")
    largest = max(float(g.abs().max()) for g in grads.values())
    for name, p in holder.named_parameters():
        assert (p.detach() - net.get_parameter(name).grad).abs().max() <= EXACT * largest, name


def test_the_space(pair):
    """All combinations of widths, and in each block of heads and hidden units, or none where it may be left out."""
    assert pair[0].space.size == 2 * 2 * (4 * 5) * (4 * 5 * 4) * 4 and pair[0].space.uniform
    with pytest.raises(ArchError, match=r"`stages\.0\.blocks\.0\.heads` lies outside of its domain"):
        pair[0].space.candidate({"stages.0.blocks.0.heads": 2})


@pytest.mark.parametrize(("variant", "blocks", "last"), [("search_tiny", 6, (12, 10, 8, 6)), ("search_small", 7, (16, 14, 12, 10))])
def test_the_paper_s_choices(variant, blocks, last):
    made = archdsl.load(SPEC).models["ViTRes"].elaborate(variant)
    found = {a: k.allowed.values for a, k in made.knobs.items() if "." in a and k.allowed is not None}
    assert all(len(found[f"stages.{s}.blocks.{i}.{what}"]) == n for s in range(3) for i in range(blocks) for what, n in (("heads", 4), ("hidden", 7)))
    assert [a for a, v in found.items() if v == ("kept", "removed")] == [f"stages.{s}.blocks.{i}.layer" for s in range(3) for i in (1, 3, 5)]
    assert len(found) == 3 * (2 * blocks + 3) and found[f"stages.2.blocks.{blocks - 1}.heads"] == last


@pytest.mark.proof
@pytest.mark.parametrize(("variant", "widest", "below"), [
    ("search_tiny", (256, 512, 1024), (28 * 29) ** 9), ("search_small", (320, 640, 1280), 28**12 * 29**9),
])
def test_the_paper_s_number_of_candidates(variant, widest, below):
    """Of one setting of the widths, of which there are 125."""
    space = archdsl.load(SPEC).models["ViTRes"].space(variant=variant)
    assert space.header.count == 125 and space.root({"widths": widest}).settled(lambda r: r.top.count) == below
