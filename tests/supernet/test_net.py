"""Supernets: a candidate on its part of the weights is the model that it would be alone, and the net with what is left out masked away."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.inputs import sample_inputs
from archdsl.search.space import Drawn
from archdsl.supernet.draws import dealt, each_decision, with_value
from archdsl.supernet.folder import load, save
from archdsl.supernet.net import Supernet
from archdsl.supernet.sandwich import Sandwich, fair, sandwich, widening
from archdsl.tasks import parse
from archdsl.training.interface import check_inputs
from tests.parity.proof import EXACT, relative

MIXED = """
use std.channel { MLP }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm, RMSNorm }
use std.residual { Pre }

model Net(d: int = 24 in {12, 24}, depth: int = 2 in 1..3, act: block = gelu in {gelu, relu})(x: [B = 2, T = 5, 7]) -> y: [B, T, 3] {
  x = Linear(d)(x) as embed
  layers: for i in range(depth) {
    choose mixer {
      attention(heads: int = 2 in {2, 4}) => Attention(heads)
      mlp(hidden: int = 2 * d in {d, 2 * d, 4 * d}) => MLP(hidden)
      nothing => identity
    } = attention
    x = Pre(RMSNorm(), mixer)(x) as block
  }
  return x |> LayerNorm() as norm |> Linear(3) as head
}
"""
CONV = """
use std.linear { Linear }
use std.norm { BatchNorm }
block Unit(out: int, kernel: int, expand: int = 2 in {1, 2, 3})(x: [B, c, H, W]) -> [B, out, H, W] {
  inner = c * expand
  param up: [inner, c, 1, 1] = kaiming_uniform()
  param deep: [inner, 1, kernel, kernel] = kaiming_uniform()
  param down: [out, inner, 1, 1] = kaiming_uniform()
  y = relu(conv(x, up) |> BatchNorm() as first)
  y = relu(conv(y, deep, pad = kernel // 2, groups = inner) |> BatchNorm() as second)
  return conv(y, down) |> BatchNorm() as third
}
model Conv(widths: list[int] = [8, 16] in each {8, 12, 16}, kernel: int = 5 in {3, 5})(x: [B = 4, 3, H = 9, W = 7]) -> y: [B, 5] {
  stages: for w in widths {
    x = Unit(w, kernel)(x) as unit
  }
  return mean(x, axis = [2, 3]) |> Linear(5) as head
}
"""
HYBRID = """
use std.channel { MLP }
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.recurrent { GatedLinearAttention }
use std.residual { Pre }
use std.ssm { Mamba2 }
model Words(d: int = 16 in {8, 16}, depth: int = 2 in 1..2, vocab: int = 11)(tokens: int[B = 2, T = 6] in 0..<vocab) -> logits: [B, T, vocab] {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {
    choose mixer {
      attention(heads: int = 2 in {2, 4}) => Attention(heads, mask = causal)
      gla => GatedLinearAttention(2)
      mamba2 => Mamba2(state = 4, head_dim = 8)
    } = attention
    x = Pre(RMSNorm(), mixer)(x) as mix
    x = Pre(RMSNorm(), MLP(2 * d))(x) as mlp
  }
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}
"""


def net_of(text: str, **how: Any) -> Supernet:
    net = archdsl.loads(text).supernet(dtype=torch.float64, **how)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for t in (*net.parameters(), *net.buffers()):
            t.add_(0.1 * torch.randn(t.shape, generator=generator, dtype=t.dtype).abs())
    return net


def inputs_of(net: Supernet) -> tuple[torch.Tensor, ...]:
    made = net.space.model(net.largest)
    return tuple(sample_inputs(made, made.example_sizes(), dtype=torch.float64))


@pytest.fixture(scope="module")
def mixed() -> Supernet:
    return net_of(MIXED)


def test_extracted_candidates_are_fresh_builds_with_the_same_numbers(mixed: Supernet):
    x = inputs_of(mixed)
    keys = set()
    for seed in range(25):
        c = mixed.space.sample(seed)
        keys.add(c.key)
        alone = mixed.extract(c)
        fresh = mixed.space.spec.build(dtype=torch.float64, **c)
        assert {k: v.shape for k, v in alone.state_dict().items()} == {k: v.shape for k, v in fresh.state_dict().items()}
        assert relative(alone(*x), mixed.run(c, *x)) <= EXACT < relative(alone(*x), fresh(*x)) and alone(*x).isfinite().all()
    assert len(keys) > 12


def test_words_by_attention_recurrence_or_state_space():
    """A language model: each operator in each place is the fresh build with its names, and is causal; gradients reach the operator that ran."""
    net = net_of(HYBRID)
    (x,) = inputs_of(net)
    changed = torch.cat([x[:, :-1], (x[:, -1:] + 1) % 11], 1)
    for d, first, second in ((8, "attention", "gla"), (16, "gla", "mamba2")):
        c = net.space.candidate({"d": d, "depth": 2, "layers.0.mixer": first, "layers.1.mixer": second})
        alone, y = net.extract(c), net.run(c, x)
        fresh = net.space.spec.build(dtype=torch.float64, **c)
        assert {k: v.shape for k, v in alone.state_dict().items()} == {k: v.shape for k, v in fresh.state_dict().items()}
        assert relative(alone(x), y) <= EXACT and torch.allclose(net.run(c, changed)[:, :-1], y[:, :-1], rtol=1e-12, atol=1e-12)
        y.square().sum().backward()
        assert all(p.grad is not None for n, p in net.named_parameters() if n.startswith("layers.1.mix.") and n in alone.state_dict())
        net.zero_grad()


def test_a_narrow_mlp_is_the_wide_one_with_masked_channels(mixed: Supernet):
    """Computed in plain torch from the whole weights: channels beyond the first are zero, norms count those that are there."""
    (x,) = inputs_of(mixed)
    d, hidden = 12, 24
    c = mixed.space.candidate({"d": d, "depth": 1, "act": "gelu", "layers.0.mixer": "mlp", "layers.0.mixer.hidden": hidden})
    w = dict(mixed.named_parameters())
    keep, inner = torch.zeros(24, dtype=torch.float64), torch.zeros(w["layers.0.block.up.weight"].shape[0], dtype=torch.float64)
    keep[:d], inner[:hidden] = 1, 1
    h = F.linear(x, w["embed.weight"], w["embed.bias"]) * keep
    scale = torch.rsqrt((h * h).sum(-1, keepdim=True) / d + 1e-5)
    n = h * scale * w["layers.0.block.norm.weight"] * keep
    u = F.gelu(F.linear(n, w["layers.0.block.up.weight"], w["layers.0.block.up.bias"])) * inner
    h = h + F.linear(u, w["layers.0.block.down.weight"], w["layers.0.block.down.bias"]) * keep
    mean = h.sum(-1, keepdim=True) / d
    centred = (h - mean) * keep
    n = centred * torch.rsqrt((centred * centred).sum(-1, keepdim=True) / d + 1e-5) * w["norm.weight"] + w["norm.bias"] * keep
    torch.testing.assert_close(mixed.run(c, x), F.linear(n * keep, w["head.weight"], w["head.bias"]), rtol=1e-10, atol=1e-10)


def test_moved_after_use():
    """Gathered channels and what is computed from the sizes are on the device that the weights went to."""
    net = net_of(MIXED)
    x, weights = inputs_of(net), net.state_dict()
    c = net.space.candidate({"d": 12, "depth": 1, "layers.0.mixer": "attention", "layers.0.mixer.heads": 4})
    expected = net_of(MIXED).run(c, *x)
    net.to("meta")
    assert {w.device.type for w in net.weights(c).values()} == {"meta"}
    net.to_empty(device="cpu").load_state_dict(weights)
    assert torch.equal(net.run(c, *x), expected)


def test_converted_after_use(tmp_path: Path):
    """`net.double()`: candidates, extracted models and the folder have the new element type."""
    net = net_of(CONV).float()
    (x,) = inputs_of(net)
    c = net.space.sample(3)
    single = net.eval().run(c, x.float())
    net.double()
    assert net.dtype == torch.float64 == net.run(c, x).dtype == net.extract(c)(x).dtype
    assert relative(net.extract(c)(x), net.run(c, x)) <= EXACT
    torch.testing.assert_close(net.run(c, x).float(), single)
    save(net, tmp_path / "net")
    assert torch.equal(load(tmp_path / "net").eval().run(c, x), net.run(c, x))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_so_many_candidates_are_kept_lowered(kept: int):
    net = net_of(MIXED)
    chosen = [net.space.sample(i) for i in range(4)]
    assert len({c.key for c in chosen}) == 4
    for c in chosen:
        net.set(c)
    net.kept = kept
    net.set(net.smallest)
    assert len(net._parts) == max(kept, 1) and net.current.key in net._parts


def test_heads_are_kept_whole(mixed: Supernet):
    """4 heads of 3 channels of a model of 4 heads of 6: of each head the first ones."""
    wide = mixed.space.candidate({"d": 24, "depth": 1, "layers.0.mixer": "attention", "layers.0.mixer.heads": 4})
    narrow = mixed.space.candidate({"d": 12, "depth": 1, "layers.0.mixer": "attention", "layers.0.mixer.heads": 2})
    q = dict(mixed.named_parameters())["layers.0.block.q.weight"]
    assert torch.equal(mixed.weights(wide)["layers.0.block.q.weight"], q)
    assert torch.equal(mixed.weights(narrow)["layers.0.block.q.weight"], q[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]][:, :12])
    four = mixed.space.candidate({"d": 12, "depth": 1, "layers.0.mixer": "attention", "layers.0.mixer.heads": 4})
    assert torch.equal(mixed.weights(four)["layers.0.block.q.weight"], q[[0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]][:, :12])


def test_gradients_reach_the_part_that_ran(mixed: Supernet):
    x = inputs_of(mixed)
    c = mixed.space.candidate({"d": 12, "depth": 1, "layers.0.mixer": "mlp", "layers.0.mixer.hidden": 12})
    alone = mixed.extract(c)
    mixed.zero_grad()
    (mixed.run(c, *x) ** 2).sum().backward()
    (alone(*x) ** 2).sum().backward()
    grads = {n: p.grad for n, p in mixed.named_parameters() if p.grad is not None}
    for name, p in alone.named_parameters():
        whole = grads.pop(name)
        part = whole[tuple(slice(0, n) for n in p.shape)]
        torch.testing.assert_close(part, p.grad, rtol=1e-12, atol=1e-12)
        assert float(part.abs().max()) > 0
        assert int(whole.count_nonzero()) == int(part.count_nonzero())
    assert not grads


def test_convolutions_with_statistics():
    net = net_of(CONV)
    x = inputs_of(net)
    assert dict(net.named_parameters())["stages.1.unit.deep"].shape == (48, 1, 5, 5)
    for seed in range(12):
        c = net.space.sample(seed)
        alone = net.extract(c)
        assert relative(alone.eval()(*x), net.eval().run(c, *x)) <= EXACT
        alone.train()
        net.train()
        before = {n: t.clone() for n, t in net.named_buffers()}
        assert relative(alone(*x), net.run(c, *x)) <= EXACT
        for name, value in alone.named_buffers():
            if value.is_floating_point():
                whole = net.get_buffer(name)
                n = len(value)
                assert torch.equal(whole[:n], value) and not torch.equal(before[name][:n], value)
                assert torch.equal(whole[n:], before[name][n:])


KERNELS = """
model Net(kernel: int = 5 in KERNELS)(x: [B = 2, 3, L = 11]) -> y: [B, 3, L] {
  param w: [SHAPE, kernel] = normal(std = 1)
  return OP
}
"""


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kernels", "shape", "op"), [
    ("{3, 5}", "3, 1", "conv(x, w, pad = kernel // 2, groups = 3)"),
    ("{2, 3, 4, 5}", "3, 3", 'conv(x, w, pad = "same")'),
    ("{3, 5}", "3, 3", "conv(x, w, pad = kernel - 1, dilation = 2)"),
    ("{3, 5}", "3, 3", "conv_transpose(x, w, pad = kernel // 2)"),
    ("{2, 3, 4, 5}", "3, 3", "conv(pad(x, [(0, 0), (0, 0), (kernel - 1, 0)]), w)"),
    ("{2, 3, 5}", "3, 3", "conv(pad(x, [(0, 0), (0, 0), (2 * kernel - 3, -1)]), w, pad = 1, dilation = 2)"),
    ("{2, 3, 5}", "3", "rearrange(causal_conv(rearrange(x, [b, c, l] -> [b, l, c]), w), [b, l, c] -> [b, c, l])"),
    ("{2, 3, 5}", "3, 3", "rearrange(causal_conv_dense(rearrange(x, [b, c, l] -> [b, l, c]), w), [b, l, c] -> [b, c, l])"),
    ("{3, 5}", "3, 3", "mean(conv(rearrange(x, [b, c, l] -> [b, c, l, 1]), rearrange(w, [o, i, k] -> [o, i, k, 1]), pad = [kernel // 2, 0]), "
                       "axis = 3)"),
])
def test_a_small_kernel_is_the_large_one_with_masked_taps(kernels: str, shape: str, op: str):
    """Taps of all kernels read the same positions: the small one's lie around the position itself, behind those that read earlier ones where nothing
    reads later ones. Gradients go where the taps lie."""
    text = KERNELS.replace("KERNELS", kernels).replace("SHAPE", shape).replace("OP", op)
    net = archdsl.loads(text).supernet(dtype=torch.float64)
    x = torch.randn(2, 3, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for size in map(int, kernels.strip("{}").split(",")):
        small = net.run({"kernel": size}, x)
        net.zero_grad()
        net.run_each([{"kernel": size}] * 2, x).square().sum().backward()
        (weight,) = net.parameters()
        assert weight.grad is not None
        other = archdsl.loads(text).supernet(dtype=torch.float64)
        with torch.no_grad():
            other.get_parameter("w").copy_(weight * (weight.grad != 0))  # what the small one does not use is masked
        assert int((weight.grad != 0).sum()) == weight.numel() // 5 * size
        torch.testing.assert_close(other.run({"kernel": 5}, x), small, rtol=1e-12, atol=1e-12)
        assert relative(net.extract({"kernel": size})(x), small) <= EXACT


def test_pieces_lie_in_their_pieces_where_limits_leave_the_largest_out():
    """No candidate has both the widest stream and the most hidden units; gates stay gates."""
    net = archdsl.loads("""
use std.linear { Linear }
model Net(d: int = 4 in {4, 12}, hidden: int = 4 in {4, 8})(x: [B = 2, 3]) -> y: [B, 3] {
  gate, up = Linear(d)(x) as first |> Linear(2 * hidden, bias = false) as both |> split(2)
  return Linear(3)(silu(gate) * up) as head
}
""").supernet(limits=["params <= 160"])
    both = dict(net.named_parameters())["both.weight"]
    assert both.shape == (16, 12)
    assert torch.equal(net.weights({"d": 12, "hidden": 4})["both.weight"], both[[0, 1, 2, 3, 8, 9, 10, 11]])
    assert torch.equal(net.weights({"d": 4, "hidden": 8})["both.weight"], both[:, :4])


def test_several_in_one_pass(mixed: Supernet):
    (x,) = inputs_of(mixed)
    x = torch.cat([x, x.flip(0), 2 * x])
    chosen = [mixed.largest, mixed.smallest, mixed.space.sample(5)]
    together = mixed.run_each(chosen, x)
    assert relative(together, torch.cat([mixed.run(c, part) for c, part in zip(chosen, x.chunk(3))])) <= EXACT
    with pytest.raises(ValueError, match="3 candidates need a batch that they divide"):
        mixed.run_each(chosen, x[:5])
    with pytest.raises(ValueError, match="one task for each candidate, not 2 for 3"):
        mixed.ask(chosen, [lambda model: model(x)] * 2)
    with pytest.raises(TypeError, match="the seed is a whole number"):
        mixed.space.spec.supernet(seed="x")  # type: ignore[arg-type]


def test_sorted_channels_change_no_candidate_of_full_width():
    net = net_of(MIXED)
    x = inputs_of(net)
    full = [c for c in (net.space.sample(i) for i in range(60)) if c["d"] == 24 and all(v == 96 for a, v in c.items() if a.endswith("hidden"))]
    before = [net.run(c, *x) for c in full]
    narrow = net.space.candidate({"d": 12, "depth": 1, "layers.0.mixer": "nothing"})
    small = net.run(narrow, *x)
    weights = net.state_dict()["head.weight"].clone()
    assert net.sort_channels() >= 8 and len({c.key for c in full}) > 3
    for c, y in zip(full, before):
        torch.testing.assert_close(net.run(c, *x), y, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(net.run(narrow, *x), small) and not torch.equal(net.state_dict()["head.weight"], weights)


@pytest.mark.parametrize(("arms", "least"), [("MLP(4 * d)  thin => MLP(d)", 1), ("Attention(2)  thin => GatedLinearAttention(2)", 2)])
def test_an_arm_that_shares_a_part_of_a_weight_keeps_it_when_channels_are_sorted(arms: str, least: int):
    """The first 16 of 64 hidden units; half of the queries' channels, and with them those of the gates, which attention lacks. The rest is sorted."""
    net = net_of(f"""
use std.channel {{ MLP }}
use std.linear {{ Linear }}
use std.mixer {{ Attention }}
use std.recurrent {{ GatedLinearAttention }}
model Net(d: int = 16 in {{8, 16}})(x: [B = 2, T = 5, 5]) -> y: [B, T, 3] {{
  x = Linear(d)(x) as up
  choose f {{ wide => {arms} }} = wide
  return (x + f(x) as branch) |> Linear(3) as head
}}
""")
    (x,) = inputs_of(net)
    full = [net.space.candidate({"d": 16, "f": arm}) for arm in ("wide", "thin")]
    narrow = net.space.candidate({"d": 8, "f": "thin"})
    before, less = [net.run(c, x) for c in full], net.run(narrow, x)
    assert net.sort_channels() >= least
    for c, y in zip(full, before):
        torch.testing.assert_close(net.run(c, x), y, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(net.run(narrow, x), less)


@pytest.mark.parametrize("heads", ["{2, 4, 8}", "2..8 step 2"])
def test_heads_of_an_arm_that_is_not_the_first_are_sorted_as_all_of_them_allow(heads: str):
    """2, 4 and 8 heads take the same 16 channels apart in three ways."""
    net = net_of(f"""
use std.linear {{ Linear }}
use std.mixer {{ Attention }}
model Net(d: int = 16 in {{8, 16}})(x: [B = 2, T = 5, 5]) -> y: [B, T, 3] {{
  x = Linear(d)(x) as up
  layers: for i in range(4) {{
    choose f {{ linear => Linear(d)  attention(heads: int = 4 in {heads}) => Attention(heads) }} = linear
    x = x + f(x) as branch
  }}
  return x |> Linear(3) as head
}}
""")
    (x,) = inputs_of(net)
    full = [net.space.candidate({"d": 16, **{f"layers.{i}.f": "attention" for i in range(4)}, **{f"layers.{i}.f.heads": n for i in range(4)}})
            for n in (2, 4, 8)]
    before = [net.run(c, x) for c in full]
    assert net.sort_channels() >= 1
    for c, y in zip(full, before):
        torch.testing.assert_close(net.run(c, x), y, rtol=1e-11, atol=1e-11)


def test_moments_are_sorted_with_their_weights():
    net = net_of(MIXED)
    optimizer = torch.optim.AdamW(net.parameters())
    for p in net.parameters():
        optimizer.state[p] = {"step": torch.tensor(3.0), "exp_avg": p.detach().clone(), "exp_avg_sq": 2 * p.detach()}
    before = net.state_dict()["head.weight"].clone()
    net.sort_channels(optimizer)
    assert not torch.equal(net.state_dict()["head.weight"], before)
    for p in net.parameters():
        assert torch.equal(optimizer.state[p]["exp_avg"], p) and torch.equal(optimizer.state[p]["exp_avg_sq"], 2 * p)


def test_plain_importance():
    """Of the hidden units of an MLP: the sums of |w| over their row of the first weight, their bias, their column of the second."""
    net = net_of(MIXED)
    weights = {n.rsplit("block.", 1)[1]: p for n, p in net.named_parameters() if n.startswith("layers.0.block.")}
    with torch.no_grad():
        weights["up.weight"].mul_(100)  # which each weight's mean as the unit would hide
        weights["up.weight"][5].mul_(10)
    up, bias, down = (weights[n].detach().clone() for n in ("up.weight", "up.bias", "down.weight"))
    order = (up.abs().sum(1) + bias.abs() + down.abs().sum(0)).argsort(descending=True, stable=True)
    net.sort_channels(scaled=False)
    assert int(order[0]) == 5 and torch.equal(weights["up.bias"], bias[order])


def test_drawn_decision_by_decision(mixed: Supernet):
    """At first the largest value of each alone, then more of them; in the end each as often as the others."""
    largest = {tuple(each_decision(mixed.space, seed, 0).items()) for seed in range(5)}
    first = dict(next(iter(largest)))
    assert len(largest) == 1 and (first["d"], first["depth"], first["layers.0.mixer"], first["layers.0.mixer.heads"]) == (24, 3, "attention", 4)
    half = [each_decision(mixed.space, seed, 0.5) for seed in range(60)]
    assert {c["depth"] for c in half} == {3, 2} and {c["d"] for c in half} == {24} and {c["layers.0.mixer"] for c in half} == {"attention", "mlp"}
    arms = [each_decision(mixed.space, seed)["layers.0.mixer"] for seed in range(300)]
    assert all(70 < arms.count(a) < 130 for a in ("attention", "mlp", "nothing"))
    limited = archdsl.loads(MIXED).space(limits=["params <= 1k"])
    assert limited.costs(each_decision(limited, 0, 0), ["params"])["params"] <= 1000


def test_candidates_of_a_step(mixed: Supernet):
    early, late = (widening(mixed, step, 3, widen=10) for step in (0, 10))
    assert [c.key for c in early] == [early[0].key] * 3 and len({c.key for c in late}) > 1
    assert [c.key for c in late] == [c.key for c in widening(mixed, 10, 3, widen=10)]
    with pytest.raises(ValueError, match="1 candidate at least"):
        widening(mixed, 0, 0)
    with pytest.raises(ValueError, match="0 steps at least, not -1"):
        widening(mixed, 0, 3, widen=-1)


ELASTIC = """
use std.channel { MLP }
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.residual { Pre }
use std.norm { RMSNorm }
model Net(d: int = 8 in {4, 8})(tokens: int[B, T = 12] in 0..<16) -> logits: [B, T, 16] {
  return TokenEmbedding(16, d)(tokens) as embed |> Pre(RMSNorm(), MLP(8)) as block |> Linear(16) as head
}
"""


@pytest.mark.parametrize("split", [False, True])
def test_whom_the_candidates_of_a_step_learn_from(split: bool):
    """The others from what the largest says, through which no gradient flows; where each has its own part of the batch, from the targets there."""
    net, task = archdsl.loads(ELASTIC).supernet(dtype=torch.float64), parse("mqar(vocab = 16, length = 12, pairs = 2)")
    batch = task.batch("train", 0, 6)
    loss, told = Sandwich(task, 3, distil=not split, split=split)(net, batch, 0)
    found = torch.autograd.grad(loss, list(net.parameters()))
    largest, *others = sandwich(net, 0, 3)
    parts = [batch["tokens"].chunk(3)[i] if split else batch["tokens"] for i in range(3)]
    targets = [batch["targets"].chunk(3)[i] if split else batch["targets"] for i in range(3)]
    asked = [t >= 0 for t in targets]
    said = [net.run(c, x)[a].log_softmax(-1) for c, x, a in zip((largest, *others), parts, asked)]
    right = [torch.eye(16, dtype=torch.float64)[t[a]] for t, a in zip(targets, asked)]
    wanted = [right[0], *((right[1:]) if split else [said[0].detach().exp()] * 2)]
    losses = [-(w * s).sum(-1).mean() for w, s in zip(wanted, said)]
    assert told == {"largest": pytest.approx(losses[0].item()), "smallest": pytest.approx(losses[1].item())}
    for a, b in zip(found, torch.autograd.grad(torch.stack(losses).mean(), list(net.parameters()))):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_values_are_dealt(mixed: Supernet):
    """Of 6 candidates each of 2 values is in 3 and each of 3 in 2; in a limited space nobody breaks the limit."""
    for step in range(4):
        chosen = fair(mixed, step, 6)
        assert sorted(c["d"] for c in chosen) == [12] * 3 + [24] * 3 and sorted(c["depth"] for c in chosen) == [1, 1, 2, 2, 3, 3]
        assert sorted(c["layers.0.mixer"] for c in chosen) == ["attention"] * 2 + ["mlp"] * 2 + ["nothing"] * 2
        assert [c.key for c in chosen] == [c.key for c in fair(mixed, step, 6)]
    assert len({tuple(c.key for c in fair(mixed, step, 6)) for step in range(4)}) == 4
    limited = archdsl.loads(MIXED).space(limits=["params <= 1k"])
    assert all(limited.costs(c, ["params"])["params"] <= 1000 for c in dealt(limited, 0, 4))
    with pytest.raises(ValueError, match="1 candidate at least, not 0"):
        fair(mixed, 0, 0)


ODD = """
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { BatchNorm, LayerNorm, RMSNorm }
model Odd(patch: int = 4 in {2, 4}, stride: int = 2 in 1..3, gap: int = 1 in 1..3, groups: int = 2 in {1, 2, 4}, eps: float = 0.1 in {1e-5, 0.1},
          heads: int = 4 in {2, 4}, kv: int = 2 in {1, 2}, span: int = 2 in {2, 9}, bias: bool = true in {true, false}, moved: int = 0 in 0..2,
          norm: block = LayerNorm() in {LayerNorm(), RMSNorm(), identity}, d: int = 16 in {8, 16}, rate: float = 0.5 in 0.25..2.0 step 0.25,
          rows: bool = false in {true, false})(x: [B = 2, 4, H = 24, W = 24]) -> y: [B, 5] {
  param stem: [d, 4, patch, patch] = kaiming_uniform()
  param mix: [d, d // groups, 3, 3] = kaiming_uniform()
  x = conv(x, stem, stride = patch)
  x = gelu(conv(x, mix, stride = stride, pad = gap, dilation = gap, groups = groups) |> BatchNorm(eps = eps) as bn)
  x = rearrange(x, [b, c, h, w] -> [b, (h w), c])
  x = x * rate + roll(x, moved, axes = 1)
  x = x + Attention(heads, kv_heads = kv, mask = window(span), bias = bias)(x) as att
  if rows {
    param last: [5, d] = kaiming_uniform()
    return linear(mean(x, axis = 1), last)
  }
  param last: [5, d, 1] = kaiming_uniform()
  return mean(conv(rearrange(norm(x) as scale, [b, t, c] -> [b, c, t]), last), axis = 2)
}
"""


def test_knobs_of_every_kind_are_elastic():
    """Strides, dilations, groups, windows, numbers, conditions, an address whose weight has another number of axes: a candidate that draws any of
    them is the fresh build with the supernet's part of the weights. No kind of knob is left for a supernet to refuse as such."""
    net = net_of(ODD).eval()
    x = inputs_of(net)
    assert {p.shape for n, p in net.named_parameters() if n.startswith("last")} == {(5, 16), (5, 16, 1)}
    seen: dict[str, set[str]] = {}
    for seed in range(24):
        c = net.space.sample(seed)
        for knob, value in c.items():
            seen.setdefault(knob, set()).add(str(value))
        alone = net.extract(c)
        assert list(alone.state_dict()) == list(net.space.spec.build(device="meta", **c).state_dict())
        with torch.no_grad():
            assert relative(alone(*x), net.run(c, *x)) <= EXACT
    assert len(seen) == 14 and all(len(values) > 1 for values in seen.values())


@pytest.mark.proof
@pytest.mark.parametrize("text", [MIXED, CONV, HYBRID, "extractors"], ids=["choices", "convolutions", "words", "extractors"])
def test_a_thousand_extractions(text: str):
    net = net_of(text) if "\n" in text else archdsl.load(text).supernet(limits=["params <= 2M"], dtype=torch.float64)
    x = inputs_of(net)
    net.eval()
    for seed in range(334):
        c = net.space.sample(seed)
        with torch.no_grad():
            assert relative(net.extract(c)(*x), net.run(c, *x)) <= EXACT


def test_saved_copied_and_chosen(mixed: Supernet, tmp_path: Path):
    x = inputs_of(mixed)
    torch.save(mixed.state_dict(), tmp_path / "net.pt")
    other = net_of(MIXED)
    other.load_state_dict(torch.load(tmp_path / "net.pt"))
    c = mixed.space.sample(11)
    assert mixed.set(c) == mixed.current and torch.equal(mixed(*x), other.run(c, *x))
    mixed.set(mixed.largest)


def test_candidates_of_another_space(mixed: Supernet):
    other = archdsl.loads(MIXED.replace("{12, 24}", "{12, 24, 48}")).space()
    for given in ([1], None, {1: 2}):
        with pytest.raises(TypeError, match="maps the addresses of decisions to values"):
            mixed.run(given, *inputs_of(mixed))  # type: ignore[arg-type]
    with pytest.raises(ArchError, match="`d` lies outside of its domain"):
        mixed.set({"d": 48})
    c = other.candidate({"d": 48, "depth": 1, "layers.0.mixer": "nothing"})
    with pytest.raises(ArchError, match="A08"):
        mixed.set(c)


def test_a_device_that_is_not_there(mixed: Supernet):
    with pytest.raises(ArchError, match="`tpu` is no device of this machine"):
        mixed.space.spec.supernet(device="tpu")


def test_a_task_of_another_shape():
    """A knob that happens to have the number, here the kernel's 3, is not what to set."""
    with pytest.raises(ArchError, match="axis 1 of `x` has 3 positions, the task's 1") as fault:
        check_inputs(archdsl.loads(CONV.replace("kernel: int = 5 in", "kernel: int = 3 in")).elaborate(), parse("digits"), 4)
    assert "A0593" in str(fault.value) and "--set" not in str(fault.value)


DEAD = """
use std.linear { Linear }
use std.norm { LayerNorm }
model Net(d: int = 8 in {4, 8}, hidden: int = 8 in {8, 16})(x: [B = 2, 5]) -> y: [B, 3] {
  x = Linear(d)(x) as up
  choose f { keep => Linear(d)  widen => Linear(d) } = keep
  return (x + f(x) as branch) |> Linear(hidden) as map |> LayerNorm() as norm |> Linear(3) as head
}
"""


@pytest.mark.parametrize(("before", "after", "said"), [
    ("widen => Linear(d)", "widen => Linear(2 * d)", r"A0849.*`f = widen`.*<text>:7:"),
    ("hidden: int = 8 in {8, 16}", "hidden: int = 8 in {0, 8}", r"A0849.*`hidden = 0`.*<text>:7:"),
    ("hidden: int = 8 in {8, 16}", "hidden: int = 8 in {-4, 8}", r"A0849.*`hidden = -4`.*<text>:7:.*take -4 out"),
])
def test_values_that_no_candidate_can_have(before: str, after: str, said: str):
    """At the spec's line, before anything is trained."""
    assert archdsl.loads(DEAD).supernet().space.size == 8
    with pytest.raises(ArchError) as fault:
        archdsl.loads(DEAD.replace(before, after)).supernet()
    assert re.search(said, str(fault.value), re.DOTALL)


OWN = """
use std.norm { LayerNorm }
model Net(h: int = 8 in {0, 8}, g: int = 8 in 0..8 step 4)(x: [B = 2, 5]) -> y: [B, 5] {
  param w: [h, 5] = normal(std = 1)
  param v: [5, h] = normal(std = 1)
  param a: [g, 5] = normal(std = 1)
  param b: [5, g] = normal(std = 1)
  z = linear(x, a) |> relu
  return x + linear(linear(x, w) |> relu, v) + linear(z, b)
}
"""


@pytest.mark.parametrize(("before", "after", "value", "line", "what"), [
    ("linear(x, w) |> relu", "LayerNorm()(linear(x, w)) as norm", "h", 3, "`layer_norm`"),
    ("linear(x, w) |> relu", "rms_norm(linear(x, w))", "h", 3, "`rms_norm`"),
    ("|> relu\n", "|> relu\n  z = z + relu(z)\n", "g", 3, "a sum"),
])
def test_no_channels_where_they_are_normalised_or_summed(before: str, after: str, value: str, line: int, what: str):
    """Of weights that the spec itself declares, where nothing else refuses a size of 0. Hidden units of which none is left are a map of zeros."""
    net = archdsl.loads(OWN).supernet()
    x = torch.randn(2, 5)
    assert torch.equal(net.run({"h": 0, "g": 0}, x), x)
    with pytest.raises(ArchError) as fault:
        archdsl.loads(OWN.replace(before, after)).supernet()
    assert re.search(rf"A0849.*`{value} = 0`: it leaves {what} without channels.*<text>:{line}:", str(fault.value), re.DOTALL)


def test_arms_that_give_results_of_different_shapes():
    """What no target fits is told before training, also where the model's result is left open; a width of all arms may differ."""
    text = """
use std.linear { Linear }
model Net(d: int = 8 in {4, 8})(x: [B = 2, 5]) -> y: [B, _] {
  choose f { one => Linear(d)  other => Linear(d) } = one
  return f(x) as f
}
"""
    assert archdsl.loads(text).supernet().space.size == 4
    with pytest.raises(ArchError) as fault:
        archdsl.loads(text.replace("other => Linear(d)", "other => Linear(d + 1)")).supernet()
    assert re.search(r"A0849.*`one` and `other` of the choice `f`.*\[B, 8\] and .*\[B, 9\].*<text>:4:", str(fault.value), re.DOTALL)


def test_the_smallest_and_the_largest_have_the_arms_for_it():
    """In every place the arm without weights beside the narrowest, the one with the most beside the widest."""
    text = """
use std.linear { Linear }
block Half(there: bool = true in {true, false})(x: [B, d]) -> [B, d] {
  if not there { return x }
  return Linear(d)(x) as map
}
model Net(d: int = 8 in 2..90)(x: [B = 2, 3]) -> y: [B, d] {
  x = Linear(d)(x) as up
  choose f { one => Linear(d)  nothing => identity  two => MLP() } = one
  choose g { nothing => identity  one => Linear(d)  two => MLP() } = nothing
  return f(x) as f |> g as g |> Half() as rest
}
block MLP()(x: [B, d]) -> [B, d] { return x |> Linear(2 * d) as up |> Linear(d) as down }
"""
    net = archdsl.loads(text).supernet()
    smallest, largest = (sum(p.numel() for p in net.extract(c).parameters()) for c in (net.smallest, net.largest))
    assert (smallest, largest) == (4 * 2, 4 * 90 + 2 * (4 * 90**2 + 3 * 90) + 90**2 + 90)


def test_values_are_tried_beside_others_that_go_together():
    """Of 40 x 40 sizes 40 do; decisions that are drawn one by one hardly ever do."""
    text = DEAD.replace("d: int = 8 in {4, 8}, hidden: int = 8 in {8, 16}", "d: int = 1 in 1..40, hidden: int = 1 in 1..40").replace(
        "  choose", "  require d == hidden\n  choose")
    found = with_value(archdsl.loads(text).space(), lambda address, domain: "widen" if address == "f" else None, tries=1)
    assert isinstance(found, Drawn) and found["f"] == "widen" and found["d"] == found["hidden"]


def test_values_that_limits_leave_out_are_no_mistake():
    net = archdsl.loads(MIXED).supernet(limits=["count(mixer == mlp) == 0"])
    assert not any(v == "mlp" for seed in range(9) for v in net.space.sample(seed).values())


@pytest.mark.parametrize(("name", "limit"), [("extractors", "params <= 2M")])
def test_shipped_specs(name: str, limit: str):
    spec = archdsl.load(name)
    net = spec.supernet(limits=[limit], dtype=torch.float64)
    for seed in range(2):
        c = net.space.sample(seed)
        made = net.space.model(c)
        x = sample_inputs(made, {**made.example_sizes(), **{k: 32 for k in ("H", "W") if k in made.example_sizes()},
                                 **({"T": 9} if "T" in made.example_sizes() else {})}, dtype=torch.float64)
        with torch.no_grad():
            assert relative(net.extract(c).eval()(*x), net.eval().run(c, *x)) <= EXACT


def gradients(net: Supernet, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("text", [MIXED, HYBRID, CONV], ids=["widths", "operators", "statistics"])
def test_candidates_of_a_step_have_the_numbers_that_each_has_alone(text: str):
    """Results, gradients and running statistics. One of them twice."""
    net, other = net_of(text).train(), net_of(text).train()
    (x,) = inputs_of(net)
    chosen = [net.largest, net.smallest, *(net.space.sample(i) for i in range(3)), net.smallest]
    x = torch.cat([x.roll(i, 1) for i in range(len(chosen))])
    wanted_result = torch.cat([other.run(c, part) for c, part in zip(chosen, x.chunk(len(chosen)))])
    weight = torch.randn(wanted_result.shape, dtype=x.dtype if x.is_floating_point() else torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = gradients(other, (wanted_result * weight).sum())
    got = net.run_each(chosen, x)
    found = gradients(net, (got * weight).sum())
    torch.testing.assert_close(got, wanted_result, rtol=1e-12, atol=1e-12)
    assert found.keys() == wanted.keys() and len(found) > 5
    for name, g in wanted.items():
        torch.testing.assert_close(found[name], g, rtol=1e-11, atol=1e-11)
    for name, b in other.named_buffers():
        torch.testing.assert_close(net.get_buffer(name), b, rtol=1e-12, atol=1e-12)
    again = gradients(net, (net.run_each(chosen, x) * weight).sum())
    assert all(torch.equal(again[n], found[n]) for n in found)


def test_what_a_step_of_several_cannot_give_is_plain(mixed: Supernet):
    """Gradients of inputs are there, a frozen weight has none, second derivatives are refused, a fault in one candidate is raised."""
    (x,) = inputs_of(mixed)
    x = torch.cat([x, x]).requires_grad_()
    pair = [mixed.largest, mixed.smallest]
    mixed.run_each(pair, x).sum().backward()
    assert x.grad is not None and float(x.grad.abs().min()) > 0
    mixed.zero_grad()
    mixed.get_parameter("embed.weight").requires_grad_(False)
    y = mixed.run_each(pair, x.detach())
    y.sum().backward()
    assert mixed.get_parameter("embed.weight").grad is None and mixed.get_parameter("head.weight").grad is not None
    mixed.get_parameter("embed.weight").requires_grad_(True)
    loss = mixed.run_each(pair, x.detach()).square().sum()
    (grad,) = torch.autograd.grad(loss, [mixed.get_parameter("head.weight")], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    with pytest.raises(ValueError, match="this is"):
        mixed.run_each(pair, x.detach()[..., :3])
