"""The Extractors against their sums, written out position by position: all kinds, both ways to index taps, norms, biases."""
from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import archdsl
from tests.parity.proof import EXACT, randomise, relative
from tests.streaming.forms import agree

SPEC = "specs/language/extractors.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(vocab=13, d=6, depth=2, context=9, heads=2)
KINDS = ("she", "he", "we", "me")
BLOCK = archdsl.loads("""use std.memories { Extractor }
model One(kind: "she" | "he" | "we" | "me" = "she", index_by: "lag" | "absolute" = "lag", norm: "none" | "sqrt" | "mean" = "none", bias: bool = false,
  d: int = 6, length: int = 9)(x: [B, T, d]) -> y: [B, T, d] stream T { return Extractor(kind, length, index_by, norm, bias)(x) as mix }
""", "one.arch")


def by_sum(w: dict[str, torch.Tensor], x: torch.Tensor, kind: str, index_by: str, norm: str) -> torch.Tensor:
    """w: the weights by name, taps by `taps.weight`."""
    n, ys = x.shape[1], []
    v = x if kind == "she" else x @ w["v.weight"].mT
    for t in range(n):
        e = torch.zeros_like(x[:, 0])
        for j in range(t + 1):
            g = t - j if index_by == "lag" else j
            if kind == "me":
                e = e + v[:, j]
            elif kind == "she":
                e = e + v[:, j] @ w["taps.weight"][g].mT
            else:
                e = e + w["taps.weight"][g] * v[:, j]
        e = e / {"none": 1, "sqrt": (t + 1) ** 0.5, "mean": t + 1}[norm] + w.get("bias", 0)
        ys.append((x[:, t] @ w["adjust.weight"].mT + w.get("adjust.bias", 0)) * e)
    return torch.stack(ys, 1)


@pytest.mark.parametrize(("kind", "index_by"), [*itertools.product(KINDS[:3], ("lag", "absolute")), ("me", "lag")])
@pytest.mark.parametrize(("norm", "bias", "shape"), [("none", False, (2, 9)), ("sqrt", True, (1, 1)), ("mean", True, (3, 5))])
def test_sums(kind: str, index_by: str, norm: str, bias: bool, shape: tuple[int, int]):
    ours = BLOCK.build(dtype=F64, kind=kind, index_by=index_by, norm=norm, bias=bias)
    randomise(ours)
    weights = {k.removeprefix("mix."): p for k, p in ours.named_parameters()}
    assert len(weights) == 2 + 2 * bias + (kind in ("he", "we"))
    x = torch.randn(*shape, 6, dtype=F64, requires_grad=True)
    got, want = ours(x), by_sum(weights, x, kind, index_by, norm)
    assert relative(got, want) <= EXACT
    probe, every = torch.randn_like(want), [x, *weights.values()]
    for mine, theirs in zip(*(torch.autograd.grad((y * probe).sum(), every) for y in (got, want)), strict=True):
        assert (mine - theirs).abs().max() <= EXACT * max(1, theirs.abs().max())


@pytest.mark.parametrize("variant", [*KINDS, "she_absolute", "attention"])
def test_forms(variant: str):
    """Up to the last position for which there is a tap, and below it."""
    spec = archdsl.load(SPEC)
    for knobs in ({"T": 9}, {"T": 6, "index_by": "absolute", "norm": "sqrt"}, {"T": 1, "batch": 1, "bias": True}):
        agree(spec, variant, **{**SIZES, **knobs})
    agree(spec, variant, T=9, dtype=torch.float32, within=1e-4, **SIZES)


def test_state():
    """The last length - 1 inputs, or one sum: numbers of a row."""
    spec = archdsl.load(SPEC)
    def kept(variant: str, **knobs: Any) -> int:
        return sum(s.numel() for k, s in spec.build(variant, form="step", **{**SIZES, **knobs}).init_state(1).items() if k.startswith("layers.0"))

    for kind in ("she", "he", "we"):
        assert kept(kind) == 8 * 6 and kept(kind, index_by="absolute") == 6
    assert kept("me") == 6


def test_shifted():
    """Taps by lag do not care where a sequence begins; taps by place do."""
    x = torch.randn(1, 5, 6, dtype=F64)
    later = torch.cat([torch.zeros(1, 3, 6, dtype=F64), x], 1)
    for kind, index_by in itertools.product(KINDS, ("lag", "absolute")):
        model = BLOCK.build(dtype=F64, kind=kind, index_by=index_by)
        randomise(model)
        error = relative(model(later)[:, 3:], model(x))
        assert error <= EXACT if index_by == "lag" or kind == "me" else error > 1e-2


def test_no_taps_beyond_the_last():
    for kind in KINDS[:3]:
        with pytest.raises(ValueError, match="the taps end at 9 positions"):
            BLOCK.build(kind=kind)(torch.zeros(1, 10, 6))
        step = BLOCK.build(kind=kind, form="extend")
        state = step(torch.zeros(1, 9, 6), step.init_state(1))[1]
        with pytest.raises(ValueError, match="9 positions at most"):
            step(torch.zeros(1, 1, 6), state)
    assert BLOCK.build(kind="me")(torch.zeros(1, 10, 6)).shape == (1, 10, 6)


def test_shorter_critical_path():
    """How many ops wait for each other, from the input to the output of one mixer: fewer than in attention."""
    spec = archdsl.load(SPEC)

    def depth(variant: str) -> int:
        layer = next(n.attrs["graph"] for n in spec.elaborate(variant).graph.nodes if n.attrs.get("path") == "layers.0")
        return longest(next(n.attrs["graph"] for n in layer.nodes if n.attrs.get("path") == "mix"))

    around = 4  # norm, two kinds of dropout, the residual sum
    assert [depth(v) - around for v in (*KINDS, "attention")] == [2, 3, 3, 4, 5]  # ME divides by the number of positions


def longest(graph: Any) -> int:
    """The most ops on a path whose first reads an input: a call is what is in it, attention scores, softmax and sum, reshaping nothing."""
    at: dict[Any, int] = dict.fromkeys(graph.inputs, 0)
    for n in graph.nodes:
        before = [at[v] for v in n.operands() if v in at]
        if before and n.op != "input":
            cost = longest(n.attrs["graph"]) if n.op == "call" else {"rearrange": 0, "as_type": 0, "attention": 3}.get(n.op, 1)
            at.update((v, max(before) + cost) for v in n.values)
    return max(at.get(v, 0) for v in graph.outputs)
