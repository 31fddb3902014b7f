"""The plan for several devices, carried out: each does its part with torch, sums are taken where the plan says, the model's result comes out."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.inputs import sample_inputs
from archdsl.ops.registry import OPS
from archdsl.reports.parallel import plan
from archdsl.reports.work import Tensor, program
from archdsl.spec import shipped_files

F64 = torch.float64
TINY = {"vocab": 40, "d": 32, "depth": 2, "heads": 4}
BODY = """use std.channel { MLP }
use std.embed { Rope }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm, RMSNorm }
use std.residual { LayerScale, OutputNorm, Parallel, Peri, Post, Pre, ReZero }

model Net(d: int = 16)(x: [B = 2, T = 5, d]) -> y: [B, T, d] {
  layers: for i in range(2) { BODY }
  return x |> LayerNorm() as norm
}
"""


class Devices:
    """Runs a program on `p` devices: each value is a list of what each of them has."""

    def __init__(self, found, made, weights):
        self.found, self.made, self.weights, self.p = found, made, weights, made.devices
        self.values: dict[Tensor, list[torch.Tensor]] = {}
        self.sums = 0

    def run(self, inputs):
        given = iter(inputs)
        for w in self.found.works:
            if w.op in ("input", "param"):
                x = next(given) if w.op == "input" else self.weights[w.path]
                results = [[x if self.has(w.results[0], device) else None] for device in range(self.p)]
            else:
                results = [self.apply(w, device) for device in range(self.p)]
            for t, per_device in zip(w.results, zip(*results)):
                self.values[t] = list(per_device)
        return [self.whole(t) for t in self.found.outputs]

    def whole(self, t):
        """What every device has behind the communication, or the parts put together."""
        kind, at = self.made.state[t].kind, self.made.state[t].at
        self.sums += kind == "sum"
        return sum(self.values[t]) if kind == "sum" else torch.cat(self.values[t], at) if kind == "part" else self.values[t][0]

    def has(self, t, device):
        state = self.made.state[t]
        return state.kind != "lane" or state.at == device

    def apply(self, w, device):
        if not self.has(w.results[0], device):
            return [None] * len(w.types)
        read = {t: self.whole(t) if t in self.made.reduced and (w, t) not in self.made.local else self.values[t][device] for _, t in w.operands}
        state = self.made.state[w.results[0]]
        read = {t: torch.zeros(t.shape, dtype=F64) if x is None else x for t, x in read.items()}  # a summand of another device
        parts = {t for _, t in w.operands if self.made.state[t].kind == "part" and (t not in self.made.reduced or (w, t) in self.made.local)}
        share = {name: self.share(w, name, t, read[t], device) if w in self.made.split and t not in parts else read[t] for name, t in w.operands}
        attrs: dict[str, Any] = {k: "f64" if (k, v) == ("dtype", "f32") else v for k, v in w.attrs.items()}
        if w.op == "rearrange" and w in self.made.split:
            (t,) = parts
            sizes = list(attrs["sizes"])
            lead = next(a for a in attrs["ins"][self.made.state[t].at] if sizes[a] > 1)
            sizes[lead] //= self.p
            attrs["sizes"] = tuple(sizes)
        if w.op == "linear" and state.kind == "sum" and w in self.made.split and device:
            share["bias"] = None  # once is enough
        args = [tuple(read[a] for a in arg) if isinstance(arg, tuple) else share.get(name, arg) for name, arg in w.args.items()]
        op = OPS[w.op]
        y = op.body(*args, **attrs, **({"training": False} if op.phase else {}))
        return y if isinstance(y, (tuple, list)) else (y,)

    def share(self, w, name, t, x, device):
        """A device's part of an operand that all have."""
        state = self.made.state[w.results[0]]
        if w.op == "linear":
            axis = {("weight", "part"): 0, ("bias", "part"): 0, ("weight", "sum"): 1}.get((name, state.kind))
            return x if axis is None else x.chunk(self.p, axis)[device]
        axis = state.at - len(w.types[0].shape)
        if w.op == "attention" and name in "kv":
            x = x.repeat_interleave(w.types[0].shape[axis] // x.shape[axis], axis)  # the head that a query needs
        return x.chunk(self.p, axis)[device] if x.dim() >= -axis and x.shape[axis] == w.types[0].shape[axis] != 1 and name != "like" else x


def carry_out(spec, p, variant=None, lanes=None, **knobs):
    made = spec.elaborate(variant, knobs)
    sizes = made.example_sizes(small=True)
    found = program(made.graph, sizes)
    chosen = plan(found, p, lanes)
    model = spec.build(variant, dtype=F64, **knobs).eval()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=F64) / max(p[0].numel() if p.dim() > 1 else 1, 1) ** 0.5)
        inputs = [x.double() if x.is_floating_point() else x for x in sample_inputs(made, sizes)]
        want = model(*inputs)
        weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        run = Devices(found, chosen, weights)
        got = run.run(inputs)
    for a, b in zip(got, want if isinstance(want, tuple) else (want,)):
        assert b.std() > 1e-3 and (a - b).abs().max() <= 1e-11 * b.abs().max()
    return chosen, found


def spec(name):
    return archdsl.load(f"specs/{name}.arch")


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("ladder", [[], [1], [0, 1]])
def test_ladder(ladder, devices):
    chosen, found = carry_out(spec("language/ladder"), devices, kv_heads=4, hidden=48, ladder=ladder, **TINY)
    assert [t.work.path for t in chosen.reduced] == [f"layers.{i}.{b}" for i in range(2) for b in ("attn.out", "mlp.down")]
    assert all(w in chosen.split for w in found.works if w.macs)


def test_key_heads_that_do_not_divide():
    """Two heads of keys on four devices: each device computes both."""
    chosen, found = carry_out(spec("language/llama"), 4, kv_heads=2, hidden=48, **TINY)
    assert {w.path for w in found.works if w.macs and w not in chosen.split} == {f"layers.{i}.attn.{n}" for i in range(2) for n in "kv"}
    assert len(chosen.reduced) == 4


@pytest.mark.parametrize(("name", "knobs"), [
    ("language/gpt2", {**TINY, "context": 64}), ("language/gemma2", {**TINY, "kv_heads": 2, "hidden": 48, "head_dim": 8}),
    ("vision/vit", {"d": 32, "depth": 2, "heads": 4, "side": 32, "classes": 10}),
    ("vision/fit", {"grid": [2, 2], "side": 4, "patch": 2, "s.m": 2, "s.dx": 16, "s.dl": 32, "s.hx": 2, "s.hl": 4}),
    ("timeseries/itransformer", {"lookback": 12, "horizon": 8, "depth": 2, "d": 32, "hidden": 16, "heads": 4}),
])
def test_shipped_models(name, knobs):
    chosen, _ = carry_out(spec(name), 2, **knobs)
    assert chosen.reduced and chosen.split


@pytest.mark.parametrize(("reduced", "sums"), [([0, 1, 2, 3], 4), ([1, 3], 2), ([3], 1), ([0, 3], 2)])
def test_lanes(reduced, sums):
    """Each device has the weights of its lane alone, and its part of the head."""
    spec = archdsl.load("specs/language/ladder.arch").models["Desync"]
    chosen, found = carry_out(spec, 99, lanes="shards", kv_heads=4, hidden=48, devices=2, reduced=reduced, **TINY)
    assert chosen.devices == 2 and len(chosen.reduced) == sums
    owned = [sum(chosen.lane.get(w) == device for w in found.works if w.macs) for device in (0, 1)]
    assert owned == [2 * 8, 2 * 8] and [w.path for w in chosen.split] == ["head"]


BRANCHES = [
    ("x = Pre(LayerNorm(), MLP(32))(x) as mlp", 2), ("x = Post(LayerNorm(), MLP(32))(x) as mlp", 2),
    ("x = Peri(RMSNorm(), MLP(32) as mlp)(x) as m", 2),
    ("x = OutputNorm(RMSNorm(), Attention(4, bias = true))(x) as attn", 2), ("x = LayerScale(LayerNorm(), MLP(32), scale = 0.5)(x) as mlp", 2),
    ("x = Pre(LayerNorm(), Attention(4, qk_norm = RMSNorm(), positions = Rope()))(x) as attn", 2), ("x = ReZero(MLP(32))(x) as mlp", 2),
    ("x = Parallel(LayerNorm(), Attention(4), MLP(32))(x)", 2),  # two summands, one sum
    ("x = x + sigmoid(Linear(16)(x) as gate) * (Linear(16)(x) as value)", 0),  # no pair: the product goes into the stream
    ("u = Linear(32)(x) as up\nx = x + (u |> LayerNorm() as mid |> Linear(16) as down)", 0),  # the norm needs all of it
    ("u = Linear(32)(x) as up\nx = x + (Linear(16)(u) as a) + (Linear(16)(relu(u)) as b)", 4),  # the first is added to the stream by itself
    ("u = Linear(32)(x) as up\nx = x + 0.5 * ((Linear(16)(u) as a) + (Linear(16)(relu(u)) as b))", 2),
    ("a, b = split(Linear(32)(x) as up, 2)\nx = x + (Linear(16)(a * b) as down)", 0),  # the halves lie in the split axis
    ("u = Linear(32)(x) as up\nx = x + (u |> rearrange([B, T, (n w)] -> [B, n, T, w], w = 4) |> softmax |> rearrange([B, n, T, w] -> [B, T, (n w)]) "
     "|> Linear(16) as down)", 2),
    ("u = Linear(32)(x) as up\nx = x + (u |> rearrange([B, T, (n w)] -> [B, T, (w n)], w = 4) |> Linear(16) as down)", 0),  # an inner factor
]


@pytest.mark.parametrize(("body", "sums"), BRANCHES)
def test_branches(body, sums):
    chosen, _ = carry_out(archdsl.loads(BODY.replace("BODY", body)), 2)
    assert len(chosen.reduced) == sums and bool(chosen.split) == bool(sums)


@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: p.rsplit("/", 1)[-1])
def test_multiply_adds_are_those_of_cost(path):
    """And every model has a plan."""
    for model in archdsl.load(path).models.values():
        cost = model.cost()
        found = program(model.elaborate().graph, cost.sizes)
        assert sum(w.macs for w in found.works) == cost.macs
        for devices in (1, 2, 8):
            made = plan(found, devices, None)
            assert len(made.state) == sum(len(w.types) for w in found.works) and bool(made.reduced) <= bool(made.split)
