"""`fit`: the same numbers as a loop written out, exact resume, groups, what is wrong."""
from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.tasks import parse
from archdsl.training.fit import adamw
from archdsl.training.schedule import schedule

fit: Any = archdsl.fit  # called with wrong arguments too
NET = """\
use std.channel { MLP }
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }

model Net(vocab: int = 16, d: int = 8, depth: int = 2)(tokens: int[B = 1, T = 16] in 0..<vocab) -> logits: [B, T, vocab] stream T {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {
    x = Pre(RMSNorm(), Attention(2, mask = causal, positions = Rope()))(x) as attn
    x = x + dropout(MLP(2 * d)(x) as mlp, 0.2)
  }
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}

variant wide { d = 16 }
"""
SCALED = """\
use std.norm { BatchNorm }

block Gained()(x: [..., d]) -> [..., d] {
  param weight: [d, d] = normal(std = 0.1)
  param gain: [] = 1
  param bias: [d] = zeros()
  frozen param fixed: [d] = ones()
  return linear(x, gain * weight, bias) * fixed
}

model Scaled(d: int = 4)(x: [B, d, N]) -> y: [B, d, N] {
  share f = Gained()
  x = x |> BatchNorm() as norm
  y = phase { train => dropout(rearrange(x, [B, d, N] -> [B, N, d]) |> f, 0.1); eval => rearrange(x, [B, d, N] -> [B, N, d]) |> f }
  return rearrange(y, [B, N, d] -> [B, d, N])
}
"""
TASK = parse("mqar(vocab = 16, length = 16, pairs = 3)")


def net(**knobs):
    return archdsl.loads(NET, "net.arch").build(**knobs)


def test_the_numbers_are_those_of_a_plain_loop(tmp_path):
    """A loop of torch alone: AdamW with two groups, warm-up and cosine, clipped."""
    steps, model, other = 9, net(seed=1), net(seed=1)
    groups = [("embed", {"lr": 0.05}), ("op:rms_norm", {"weight_decay": 0.0})]
    run = fit(model, TASK, TASK.batches(size=4), groups, steps=steps, lr=0.01, weight_decay=0.3, schedule="cosine", warmup=3, clip=0.7,
              out=tmp_path / "out")
    named = dict(other.named_parameters())
    norms = [n for n in named if n.endswith("norm.weight")]
    rest = [n for n in named if n not in norms and n != "embed.weight"]
    assert len(norms) == 3
    settings = [(rest, 0.01, 0.3), (["embed.weight"], 0.05, 0.3), (norms, 0.01, 0.0)]
    optimizer = torch.optim.AdamW([{"params": [named[n] for n in names], "lr": r, "weight_decay": w} for names, r, w in settings], betas=(0.9, 0.95))
    losses = []
    other.train()
    for step in range(steps):
        torch.manual_seed(_seed(0, step))
        factor = (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 6))
        for group, (_, rate, _) in zip(optimizer.param_groups, settings):
            group["lr"] = rate * factor
        batch = TASK.batch("train", step, 4)
        loss = torch.nn.functional.cross_entropy(other(batch["tokens"]).flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(named.values()), 0.7)
        optimizer.step()
        losses.append(loss.item())
    assert [r["loss"] for r in run.log] == pytest.approx(losses, rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, named[name], rtol=1e-5, atol=1e-6)
    assert [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()] == run.log


def _seed(seed: int, step: int) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(f"{seed}\0{step}".encode(), digest_size=8).digest(), "little") >> 1


class Mean:
    """A hook with a state: a moving mean of the weights."""

    def __init__(self):
        self.mean: dict[str, torch.Tensor] = {}
        self.seen = 0

    def __call__(self, run):
        self.seen += 1
        for name, p in run.model.named_parameters():
            self.mean[name] = 0.9 * self.mean.get(name, torch.zeros_like(p)) + 0.1 * p.detach()

    def state_dict(self):
        return {**self.mean, "seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]
        self.mean = {k: v for k, v in state.items() if k != "seen"}


class Stop(Exception):
    pass


def stop_at(step):
    def hook(run):
        if run.step == step:
            raise Stop

    return hook


def same(a, b):
    assert a.keys() == b.keys()
    for k, v in a.items():
        assert torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k], k


@pytest.mark.parametrize("stopped", [1, 5, 6, 11])
@pytest.mark.parametrize("optimizer", [adamw, lambda groups: torch.optim.SGD(groups, momentum=0.9)], ids=["adamw", "sgd"])
def test_resumed_is_uninterrupted_bit_by_bit(tmp_path, stopped, optimizer):
    """Weights, buffers, optimiser, a hook's state and the log; dropout draws, groups and the schedule included."""
    how = dict(groups=[("head", {"lr": 0.02}), ("layers[0]", {"frozen": True})], steps=12, seed=4, lr=0.01, schedule="cosine", warmup=2, every=3,
               optimizer=optimizer)
    whole, mean = net(), Mean()
    first = fit(whole, TASK, TASK.batches(size=3), hooks=[mean], out=tmp_path / "a", **how)
    with pytest.raises(Stop):
        fit(net(), TASK, TASK.batches(size=3), hooks=[Mean(), stop_at(stopped)], out=tmp_path / "b", **how)
    resumed, again = net(seed=9), Mean()  # other weights: those of the checkpoint count
    torch.manual_seed(123)
    second = fit(resumed, TASK, TASK.batches(size=3), hooks=[again, stop_at(-1)], out=tmp_path / "b", resume=True, **how)
    same(whole.state_dict(), resumed.state_dict())
    for (_, a), (_, b) in zip(first.optimizer.state.items(), second.optimizer.state.items(), strict=True):
        same(a, b)
    same(mean.state_dict(), again.state_dict())
    assert first.log == second.log and len(first.log) == 12
    for name in ("log.jsonl", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_longer_training_goes_on(tmp_path):
    """With a constant rate, 4 steps and then 8 in all are 8."""
    long = net()
    fit(long, TASK, TASK.batches(), steps=8)
    part = net()
    fit(part, TASK, TASK.batches(), steps=4, out=tmp_path / "out")
    fit(part, TASK, TASK.batches(), steps=8, out=tmp_path / "out", resume=True)
    same(long.state_dict(), part.state_dict())
    assert fit(part, TASK, TASK.batches(), steps=8, out=tmp_path / "out", resume=True).step == 8  # nothing left to do


@pytest.mark.parametrize("how", [{"schedule": "cosine", "warmup": 2}, {"schedule": lambda step: 1 / (1 + step)}])
def test_part_of_a_training(tmp_path, how):
    """`until`: the same steps as the whole training has, and a checkpoint to go on from; the rate is that of all steps."""
    whole, part, alone = net(), net(), net()
    run = fit(whole, TASK, TASK.batches(size=4), steps=9, **how)
    first = fit(part, TASK, TASK.batches(size=4), steps=9, until=4, out=tmp_path / "out", every=100, **how)
    assert (first.step, first.steps) == (4, 9) and first.log == run.log[:4]
    second = fit(alone, TASK, TASK.batches(size=4), steps=9, out=tmp_path / "out", resume=True, **how)
    assert second.log == run.log
    same(alone.state_dict(), whole.state_dict())
    with pytest.raises(ValueError, match="`until` is one of the 9 steps, not 10"):
        fit(net(), TASK, TASK.batches(size=4), steps=9, until=10)


def test_supernets_have_no_groups():
    spec = archdsl.loads(NET.replace("d: int = 8", "d: int = 8 in {8, 16}"), "net.arch")
    with pytest.raises(TypeError, match="a Supernet is none"):
        fit(spec.supernet(), TASK, TASK.batches(size=4), [("embed", {"lr": 0.1})], steps=1)


def test_an_interrupted_line_of_the_log_is_dropped(tmp_path):
    fit(net(), TASK, TASK.batches(), steps=4, out=tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with open(tmp_path / "b/log.jsonl", "a") as log:
        log.write('{"step": 5, "loss": 1.0, "lr": 0.1}\n{"step": 6, "lo')
    for name in "ab":
        fit(net(), TASK, TASK.batches(), steps=6, out=tmp_path / name, resume=True)
    assert (tmp_path / "a/log.jsonl").read_bytes() == (tmp_path / "b/log.jsonl").read_bytes()


def test_the_folder_is_a_model(tmp_path):
    model = archdsl.loads(NET, "net.arch").build("wide", depth=1)
    fit(model, TASK, TASK.batches(), steps=3, out=tmp_path / "out")
    opened = archdsl.open(tmp_path / "out").eval()
    tokens = torch.randint(0, 16, (2, 7))
    assert torch.equal(opened(tokens), model.eval()(tokens))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["variant"], manifest["knobs"]["depth"], manifest["knobs"]["d"]) == ("wide", 1, 16)
    fit(opened, TASK, TASK.batches(), steps=2, out=tmp_path / "more")  # and trained on, elsewhere
    assert archdsl.open(tmp_path / "more").typed.hash == model.typed.hash


def test_random_numbers_outside_stay_as_they_were():
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    fit(net(), TASK, TASK.batches(), steps=1)
    assert torch.equal(before, torch.rand(3))


def test_seeds_differ():
    losses = [[r["loss"] for r in fit(net(), TASK, TASK.batches(), steps=2, seed=s).log] for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]  # the same batches, other dropout


# ---------------------------------------------------------------- groups
@pytest.mark.parametrize(("selector", "chosen"), [
    ("layers[1]", {"layers.1.attn.norm.weight", *(f"layers.1.attn.{p}.weight" for p in ("q", "k", "v", "out")),
                   *(f"layers.1.mlp.{p}.{w}" for p in ("up", "down") for w in ("weight", "bias"))}),
    ("layers.*.mlp.up.bias", {"layers.0.mlp.up.bias", "layers.1.mlp.up.bias"}),
    ("op:embedding", {"embed.weight"}),
    ("block:MLP - layers[0]", {f"layers.1.mlp.{p}.{w}" for p in ("up", "down") for w in ("weight", "bias")}),
    ("embed | head.bias", {"embed.weight", "head.bias"}),
])
def test_selectors_choose_parameters(selector, chosen):
    model = net()
    frozen = fit(model, TASK, TASK.batches(), [(selector, {"frozen": True})], steps=1).frozen
    assert set(frozen) == chosen
    start, end = net().state_dict(), model.state_dict()
    moved = {n for n in start if not torch.equal(start[n], end[n])}
    assert not moved & chosen and moved
    assert all(p.requires_grad for p in model.parameters())  # as before


@pytest.mark.parametrize(("selector", "chosen"), [
    ("op:linear", {"f.weight", "f.gain", "f.bias"}), ("f.weight", {"f.weight"}), ("f", {"f.weight", "f.gain", "f.bias", "f.fixed"}),
    ("norm", {"norm.weight", "norm.bias"}),
])
def test_selectors_and_weight_expressions(selector, chosen):
    """In the arms of a phase, behind `gain * weight`; buffers are no parameters, frozen ones are frozen anyhow."""
    model = archdsl.loads(SCALED).build()
    x = torch.randn(3, 4, 5)
    objective = lambda m, b, step: ((m(b) - 1).square().mean(), {})
    frozen = fit(model, objective, [x], [(selector, {"frozen": True})], steps=2).frozen
    assert set(frozen) == chosen | {"f.fixed"}


def test_the_last_group_wins_setting_by_setting():
    run = fit(net(), TASK, TASK.batches(), [("layers", {"lr": 0.1, "weight_decay": 0.2}), ("layers[0]", {"lr": 0.3})], steps=1, lr=0.5)
    found = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in run.optimizer.param_groups}
    assert found == {(0.5, 0.0): 4, (0.3, 0.2): 9, (0.1, 0.2): 9}


# ---------------------------------------------------------------- what is wrong
def refused(code, **how):
    with pytest.raises(ArchError) as fault:
        fit(how.pop("model", None) or net(), how.pop("objective", TASK), how.pop("batches", TASK.batches()), **{"steps": 2, **how})
    assert [d.code for d in fault.value.diagnostics] == [code]
    return str(fault.value)


def test_groups_that_mean_nothing():
    assert "embed" in refused("A0563", groups=[("embet", {"lr": 1})])
    assert "weight_decay" in refused("A0599", groups=[("embed", {"weight_decya": 1})])
    refused("A0599", groups=[("embed", {"lr": -1})])
    refused("A0599", groups=[("embed", {"frozen": 1})])
    refused("A0599", groups=[("embed | layers | norm | head", {"frozen": True})])
    refused("A0599", lr=float("nan"))
    refused("A0599", clip=0)


def test_a_loss_that_is_not_finite(tmp_path):
    objective = lambda m, b, step: (m(b["tokens"]).mean() / (0 if step == 4 else 1), {})
    text = refused("A0597", objective=objective, steps=9, every=2, out=tmp_path / "out")
    assert "is inf at step 5 of 9" in text or "is -inf at step 5 of 9" in text
    assert "that of step 4" in text
    assert len((tmp_path / "out/log.jsonl").read_text().splitlines()) == 4


def test_gradients_that_are_not_finite():
    objective = lambda m, b, step: ((m(b["tokens"]).mean() * 0 + (m.head.bias * 0).sum().sqrt()), {})
    assert "gradients" in refused("A0597", objective=objective, clip=1.0)


def test_folders(tmp_path):
    out = tmp_path / "out"
    refused("A0594", out=out, resume=True)
    fit(net(), TASK, TASK.batches(), steps=2, out=out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    refused("A0595", out=out)
    text = refused("A0596", out=out, resume=True, steps=2, seed=3, groups=[("head", {"lr": 0.2})], settings={"task": "other"})
    assert "seed was 0, and is 3" in text and "groups" in text and "task" in text
    assert "the model differs" in refused("A0596", out=out, resume=True, model=net(depth=1))
    refused("A0596", out=out, resume=True, steps=1)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    for damaged in (b"", b"{}", before["training.safetensors"][:1000], b"\x08\0\0\0\0\0\0\0{\"a\":1}" + b"x" * 40):
        (out / "training.safetensors").write_bytes(damaged)
        refused("A0594", out=out, resume=True)
        refused("A0595", out=out)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("")
    refused("A0521", out=tmp_path / "theirs")
    (tmp_path / "file").write_text("")
    refused("A0521", out=tmp_path / "file")
    refused("A0627", out=Path("/proc/nothing/out"))


def test_a_training_that_failed_at_once_leaves_the_folder_free(tmp_path):
    refused("A0597", objective=lambda m, b, step: (m(b["tokens"]).mean() * float("nan"), {}), out=tmp_path / "out")
    assert fit(net(), TASK, TASK.batches(), steps=1, out=tmp_path / "out").step == 1


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    from archdsl.files import unwritable
    from archdsl.training import checkpoint

    def full(path, data):
        raise unwritable(path, OSError(28, "No space left on device"))

    fit(net(), TASK, TASK.batches(), steps=2, out=tmp_path / "out")
    before = (tmp_path / "out/training.safetensors").read_bytes()
    monkeypatch.setattr(checkpoint, "write_whole", full)
    refused("A0627", out=tmp_path / "out", steps=4, resume=True)
    assert (tmp_path / "out/training.safetensors").read_bytes() == before


def test_a_model_that_passes_have_rewritten(tmp_path):
    from archdsl.passes import Model

    model = Model.of(archdsl.loads(NET, "net.arch")).apply("fold_norm_scales()").build()
    refused("A0595", model=model, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arguments():
    for wrong, message in (({"steps": 0}, "steps"), ({"steps": True}, "steps"), ({"steps": 1, "every": 0}, "every"),
                           ({"steps": 1, "warmup": -1}, "warmup"),
                           ({"steps": 1, "schedule": "cosin"}, "cosin"), ({"steps": 1, "resume": True}, "out")):
        with pytest.raises(ValueError, match=message):
            fit(net(), TASK, TASK.batches(), **wrong)
    with pytest.raises(TypeError, match="iterator"):
        fit(net(), TASK, iter([1]), steps=1)
    with pytest.raises(TypeError, match="Linear"):
        fit(torch.nn.Linear(2, 2), TASK, TASK.batches(), steps=1)
    with pytest.raises(TypeError, match="one number"):
        fit(net(), lambda m, b, step: (m(b["tokens"]), {}), TASK.batches(), steps=1)
    with pytest.raises(ValueError, match="parallel"):
        fit(net(form="step"), TASK, TASK.batches(), steps=1)


def test_schedules():
    assert [schedule("linear", 6, 2)(i) for i in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert [schedule("constant", 3)(i) for i in range(3)] == [1, 1, 1]
    assert [round(schedule("cosine", 4)(i), 6) for i in range(4)] == [1, 0.853553, 0.5, 0.146447]
    run = fit(net(), TASK, TASK.batches(), steps=3, lr=0.5, schedule=lambda step: 1 / (step + 1), warmup=2)
    assert [r["lr"] for r in run.log] == pytest.approx([0.25, 0.25, 0.5 / 3])


def test_lines_on_a_pipe(capfd, monkeypatch):
    """One each half minute, on standard error, with what is left at the pace since the first step."""
    clock = [0.0]
    monkeypatch.setattr("archdsl.pace.time.monotonic", lambda: clock[0])
    at: dict[str, Any] = {"steps": 8, "hooks": [lambda run: clock.__setitem__(0, clock[0] + 10)]}
    run = fit(net(), TASK, TASK.batches("train", 2), **at)
    out, err = capfd.readouterr()
    assert out == "" and err.splitlines() == [f"Net: step {s} of 8, loss {run.log[s - 1]['loss']:.4f}, {10 * (8 - s)} s left" for s in (3, 6)]
