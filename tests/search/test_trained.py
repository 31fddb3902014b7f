"""The evaluators that train, or take a trained supernet's weights; training a supernet."""
from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.lower.statistics import moments, recalibrate
from archdsl.search.evaluators.supernet import Inherited
from archdsl.search.evaluators.train import Trained
from archdsl.study.live import watching
from archdsl.study.measure import seed_of
from archdsl.study.session import Asked, Hands, search
from archdsl.supernet.folder import load, save
from archdsl.supernet.training import train_supernet
from archdsl.tasks import parse
from archdsl.training.fit import fit

CONV = """
use std.linear { Linear }
use std.norm { BatchNorm }

block Unit(out: int, kernel: int)(x: [B, c, H, W]) -> [B, out, _, _] {
  param w: [out, c, kernel, kernel] = kaiming_uniform()
  return relu(conv(x, w, stride = 2, pad = kernel // 2) |> BatchNorm() as norm)
}

model Conv(widths: list[int; 2] = [8, 8] in each {4, 8}, kernel: int = 3 in {1, 3})(x: [B = 4, 1, H = 8, W = 8]) -> y: [B, 10] {
  stages: for w in widths { x = Unit(w, kernel)(x) as unit }
  return mean(x, axis = [2, 3]) |> Linear(10) as head
}
"""
TOKENS = """
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }

model Net(d: int = 8 in {8, 16}, vocab: int = 16)(tokens: int[B, T = 12] in 0..vocab - 1) -> logits: [B, T, vocab] {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(2) { x = Pre(RMSNorm(), Attention(heads = 2))(x) as block }
  return Linear(vocab)(x) as head
}
"""
MQAR = "mqar(vocab = 16, length = 12, pairs = 2)"


@pytest.fixture(scope="module")
def space():
    return archdsl.loads(CONV).space()


def trained(space, folder: Path | None = None, **how: Any) -> Trained:
    evaluator = Trained(**{"task": "digits", "steps": 12, "batch": 16, "lr": 1e-2, **how})
    if folder is not None:
        evaluator.keep_in(str(folder))
    evaluator.setup(space, ())
    return evaluator


def values(found) -> dict[str, float]:
    """What is measured, without times."""
    return {k: v for k, v in found.items() if k != "train_seconds"}


# ---------------------------------------------------------------- train
def test_training_is_what_fit_does(space):
    c = space.sample(2)
    found = trained(space)(c, seed=7, fidelity=1.0)
    task = parse("digits")
    model = space.spec.build(seed=7, knobs=dict(c))
    fit(model, task, task.batches("train", 16, 7), steps=12, seed=7, lr=1e-2)
    assert values(found) == {**task.evaluate(model, "valid", size=16, seed=7), "params": sum(p.numel() for p in model.parameters())}
    assert found["train_seconds"] > 0


def test_deterministic_by_seed_and_better_with_more_steps(space):
    evaluator, c = trained(space, steps=100, lr=3e-2), space.candidate({"widths": [8, 8], "kernel": 3})
    first, again, other = (values(evaluator(c, seed=s, fidelity=0.1)) for s in (1, 1, 2))
    assert first == again and first["loss"] != other["loss"]
    whole = evaluator(c, seed=1, fidelity=1.0)
    assert whole["loss"] < first["loss"] - 0.2 and whole["accuracy"] > first["accuracy"]


def test_a_higher_fidelity_goes_on_exactly(space, tmp_path: Path, monkeypatch):
    """Bit by bit, with a rate that depends on the number of all steps; and in the steps that are left."""
    how = {"schedule": "cosine", "warmup": 2, "clip": 1.0, "weight_decay": 0.1}
    c, steps = space.sample(3), []
    evaluator, alone = trained(space, tmp_path, **how), trained(space, **how)
    task = type(evaluator.task)
    seen = task.batch
    monkeypatch.setattr(task, "batch", _counting(seen, steps))
    for fidelity, since in ((0.25, 0), (0.5, 3), (1.0, 6)):
        steps.clear()
        assert values(evaluator(c, seed=1, fidelity=fidelity)) == values(alone(c, seed=1, fidelity=fidelity))
        assert steps[:-round(12 * fidelity) - 1] == [0, *range(since, round(12 * fidelity))]
    steps.clear()
    assert values(evaluator(c, seed=1, fidelity=0.5)) == values(alone(c, seed=1, fidelity=0.5))  # a lower one again: by itself
    kept = archdsl.open(tmp_path / c.key)
    assert evaluator.task.evaluate(kept, size=16, seed=1)["loss"] == evaluator(c, seed=1, fidelity=1.0)["loss"]


def _counting(seen, steps):
    def batch(self, split, index, size, seed=0):
        if split == "train":
            steps.append(index)
        return seen(self, split, index, size, seed)

    return batch


def test_an_interrupted_trial_goes_on(space, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("archdsl.search.evaluators.train.EVERY", 5)
    c = space.sample(1)
    evaluator = trained(space, tmp_path)
    seen = type(evaluator.task).batch

    def stop(self, split, index, size, seed=0):
        if index == 8 and split == "train":
            raise KeyboardInterrupt
        return seen(self, split, index, size, seed)

    monkeypatch.setattr(type(evaluator.task), "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluator(c, seed=1, fidelity=1.0)
    steps: list[int] = []
    monkeypatch.setattr(type(evaluator.task), "batch", _counting(seen, steps))
    assert values(evaluator(c, seed=1, fidelity=1.0)) == values(trained(space)(c, seed=1, fidelity=1.0))
    assert steps[:8] == [0, *range(5, 12)]


def test_a_candidate_that_another_worker_holds(space, tmp_path: Path):
    import fcntl

    c = space.sample(1)
    with open(tmp_path / f"{c.key}.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = trained(space, tmp_path)(c, seed=1, fidelity=0.5)
    assert values(found) == values(trained(space)(c, seed=1, fidelity=0.5)) and not (tmp_path / c.key).exists()


def test_a_study_gives_the_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TOKENS)
    asked = Asked(["loss:min"], evaluator=f'train(task = "{MQAR}", steps = 3, batch = 4)', strategy="random", budget=2)
    with search("net.arch", "study", asked, Hands(0)) as study:
        rows = list(study.store.every())
    assert [r.status for r in rows] == ["done"] * 2 and set(rows[0].values) == {"loss", "accuracy", "params", "train_seconds"}
    folders = {f for f in os.listdir("study/checkpoints") if not f.endswith(".lock")}
    assert folders == {r.key for r in rows}
    assert json.loads(Path("study/checkpoints", rows[0].key, "log.jsonl").read_text().splitlines()[-1])["step"] == 3


def test_how_long_training_takes_is_seen(tmp_path: Path, monkeypatch):
    """On a terminal: of each training its steps, loss and the time left, of the search its trials and the time left; the same of a supernet."""
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("archdsl.study.live.EVERY", 0.0)
    monkeypatch.setattr("archdsl.study.engine.SLICE", 0.0)  # each trial is a commit of its own, however fast the machine is
    monkeypatch.setattr("archdsl.study.run.HELD", -1.0)
    monkeypatch.setattr("sys.stderr", Terminal())
    (tmp_path / "net.arch").write_text(CONV)
    asked = Asked(objectives=["loss:min"], evaluator='train(task = "digits", steps = 6, batch = 8)', strategy="random", budget=3)
    with watching(True) as watch:
        search(str(tmp_path / "net.arch"), str(tmp_path / "study"), asked, Hands(0), watch=watch).store.close()
    train_supernet(archdsl.loads(CONV), "digits", 4, size=8, count=2)
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue())  # type: ignore[attr-defined]
    assert re.search(r"6/6 loss \d\.\d{4} 0:00:00", seen) and re.search(r"\b[23] of 3 trials .*\d s left", seen), seen
    assert re.search(r"4/4 loss \d\.\d{4} 0:00:00", seen)


def test_successive_halving_goes_on_with_what_it_keeps(tmp_path: Path, monkeypatch):
    """Candidates at a third of the steps; the better ones go on, to what a training from scratch gives."""
    monkeypatch.chdir(tmp_path)
    text = TOKENS.replace("heads = 2", "heads = heads").replace("vocab: int = 16)", "vocab: int = 16, heads: int = 2 in {1, 2, 4})")
    Path("net.arch").write_text(text)
    how = {"task": MQAR, "steps": 6, "batch": 4}
    evaluator = f'train(task = "{MQAR}", steps = 6, batch = 4)'
    asked = Asked(["loss:min"], evaluator=evaluator, strategy="halving(width = 3, eta = 3, lowest = 0.33)", budget=4, seed=5)
    with search("net.arch", "study", asked, Hands(0)) as study:
        rows = list(study.store.every())
    assert [r.status for r in rows] == ["done"] * 4 and [r.fidelity for r in rows][-1] == 1.0 and all(r.fidelity < 0.5 for r in rows[:3])
    last, best = rows[-1], min(rows[:3], key=lambda r: r.values["loss"])
    assert last.key == best.key and json.loads(Path("study/checkpoints", last.key, "log.jsonl").read_text().splitlines()[-1])["step"] == 6
    alone = trained(archdsl.load("net.arch").space(), **{**how, "lr": 1e-3})
    assert values(alone(alone.space.from_json(last.knobs), seed=seed_of(5, last.key), fidelity=1.0)) == values(last.values)


def test_training_that_cannot_be(space):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"task": MQAR}, "does not fit the task `mqar`"), ({"task": "digit"}, "there is no task `digit`"), ({"device": "gpu"}, "A0816"),
        ({"steps": 0}, "`steps` cannot be 0"), ({"schedule": "stairs"}, "`schedule` cannot be stairs"), ({"lr": -1.0}, "A0599")]
    for how, said in wrong:
        with pytest.raises(ArchError, match=said):
            trained(space, **how)
    with pytest.raises(ArchError, match=r"the loss is (nan|inf)"):
        trained(space, lr=1e30, steps=4)(space.sample(0), seed=0, fidelity=1.0)


# ---------------------------------------------------------------- supernets
@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A supernet of convolutions after a few steps."""
    out = tmp_path_factory.mktemp("supernet") / "net"
    train_supernet(archdsl.loads(CONV), "digits", 6, out, lr=1e-2, size=16)
    return out


def test_a_supernet_that_is_resumed_is_the_same(folder: Path, tmp_path: Path):
    spec = archdsl.loads(CONV)
    how = {"lr": 1e-2, "size": 16, "every": 2}
    hooks = [lambda run: (_ for _ in ()).throw(KeyboardInterrupt) if run.step == 5 else None]
    with pytest.raises(KeyboardInterrupt):
        train_supernet(spec, "digits", 6, tmp_path / "net", hooks=hooks, **how)
    run = train_supernet(spec, "digits", 6, tmp_path / "net", resume=True, **how)
    whole = load(folder).state_dict()
    assert run.step == 6 and all(torch.equal(v, whole[k]) for k, v in run.model.state_dict().items())
    assert [r["step"] for r in run.log] == [1, 2, 3, 4, 5, 6] and {"largest", "smallest"} < set(run.log[0])
    with pytest.raises(ArchError, match="A0596"):
        train_supernet(spec, "digits", 6, tmp_path / "net", resume=True, count=3, **how)
    with pytest.raises(ArchError, match="A0595"):
        train_supernet(spec, "digits", 6, tmp_path / "net", **how)


def test_a_warm_up_that_is_resumed_is_the_same(tmp_path: Path):
    """Channels are sorted in it, with what the optimiser knows of them."""
    how: dict[str, Any] = {"lr": 1e-2, "size": 16, "every": 2, "count": 2, "distil": False, "split": True, "widen": 4, "sort": 2}
    whole = train_supernet(archdsl.loads(CONV), "digits", 5, **how)
    unsorted = train_supernet(archdsl.loads(CONV), "digits", 5, **{**how, "sort": None})
    hooks = [lambda run: (_ for _ in ()).throw(KeyboardInterrupt) if run.step == 3 else None]
    with pytest.raises(KeyboardInterrupt):
        train_supernet(archdsl.loads(CONV), "digits", 5, tmp_path / "net", hooks=hooks, **how)
    run = train_supernet(archdsl.loads(CONV), "digits", 5, tmp_path / "net", resume=True, **how)
    assert all(torch.equal(v, whole.model.state_dict()[k]) for k, v in run.model.state_dict().items())
    assert not all(torch.equal(v, unsorted.model.state_dict()[k]) for k, v in run.model.state_dict().items())
    for wrong in ({"sort": 0}, {"widen": 0}, {"widen": None}, {"distil": True, "split": False}):
        with pytest.raises(ValueError, match=r"`sort` is a number of steps|`widen` goes with"):
            train_supernet(archdsl.loads(CONV), "digits", 1, **{**how, **wrong})


def test_saved_and_loaded(tmp_path: Path):
    net = archdsl.loads(TOKENS).supernet(limits=["params <= 5k"], dtype=torch.float64, seed=5)
    save(net, tmp_path / "net")
    other = load(tmp_path / "net")
    assert other.dtype == torch.float64 and other.space.given == ("params <= 5k",) and other.identity == net.identity and other.task is None
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())


def test_inherited_accuracy_is_that_of_the_extracted_candidate(folder: Path, space):
    """Extracted, its statistics measured again in plain torch, evaluated."""
    evaluator = Inherited(str(folder), calibrate=3, batch=32)
    evaluator.setup(space, ())
    net, task = load(folder), parse("digits")
    x = torch.cat([task.batch("train", i, 32)["image"] for i in range(3)])
    for seed in range(3):
        c = space.sample(seed)
        model: Any = net.extract(net.space.candidate(dict(c)))
        h = x
        for stage in model.stages:  # each batch is normalised by its own statistics
            h = F.conv2d(h, stage.unit.w, padding=stage.unit.w.shape[-1] // 2, stride=2)
            norm = stage.unit.norm
            norm.running_mean.copy_(h.transpose(0, 1).flatten(1).mean(1))
            norm.running_var.copy_(h.transpose(0, 1).flatten(1).var(1))
            h = torch.relu(torch.cat([F.batch_norm(part, None, None, norm.weight, norm.bias, training=True) for part in h.split(32)]))
        expected = task.evaluate(model, "valid", size=32)
        found = evaluator(c, seed=seed, fidelity=1.0)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5) and found["accuracy"] == pytest.approx(expected["accuracy"])
        assert found["params"] == sum(p.numel() for p in model.parameters())
        stale = net.extract(net.space.candidate(dict(c)))
        assert abs(task.evaluate(stale, "valid", size=32)["loss"] - found["loss"]) > 1e-3
        assert evaluator(c, seed=9, fidelity=0.5) == found


def test_recalibrating_leaves_the_rest_as_it_is():
    model = archdsl.loads(CONV).build(dtype=torch.float64).train()
    x = torch.randn(12, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = moments(model, [(x[:5],), (x[5:],)])
    assert len(found) == 2 and all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model.stages[0].unit.training
    y = F.conv2d(x, model.stages[0].unit.w, padding=1, stride=2).transpose(0, 1).flatten(1)
    torch.testing.assert_close(found[0].mean, y.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0].variance, y.var(1), rtol=1e-12, atol=1e-12)
    assert recalibrate(model, [(x,)]) == 2
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"stages.{i}.unit.norm.{n}" for i in (0, 1) for n in ("running_mean", "running_var")}


def test_batches_that_nothing_can_be_measured_on():
    """Told before a statistic is changed."""
    model = archdsl.loads(CONV).build().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    good = torch.randn(4, 1, 8, 8)
    for batches, kind, said in (([], ValueError, "no batch to calibrate on"), ([(good,), good], TypeError, "batch 2 of the calibration is a Tensor"),
                                ([(good,), (good.expand(4, 3, 8, 8),)], ValueError, r"this is \[4, 3, 8, 8\]")):
        with pytest.raises(kind, match=said):
            recalibrate(model, batches)  # type: ignore[arg-type]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and not model.stages[0].unit.training


def test_supernets_that_do_not_serve(folder: Path, space, tmp_path: Path):
    def refused(how: dict, said: str, among=space) -> None:
        with pytest.raises(ArchError, match=said):
            Inherited(**{"folder": str(folder), **how}).setup(among, ())

    refused({"folder": str(tmp_path)}, "A0817.*there is no supernet")
    refused({}, "A0818.*another space: `kernel` lies outside", archdsl.loads(CONV.replace("{1, 3}", "{5, 7}").replace("= 3 in", "= 5 in")).space())
    refused({}, "A0818.*another graph", archdsl.loads(CONV.replace("relu(conv", "gelu(conv")).space())
    refused({"task": MQAR}, "A0593")
    refused({"device": "gpu"}, "A0816")
    refused({"calibrate": 0}, "A0816")
    save(archdsl.loads(CONV).supernet(), tmp_path / "net")
    refused({"folder": str(tmp_path / "net")}, "A0818.*does not say what it was trained for")
    (tmp_path / "net" / "spec.arch").write_text(CONV.replace("{4, 8}", "{4, 16}"))
    again = {"folder": str(tmp_path / "net"), "task": "digits"}
    refused(again, "A0817.*is not whole")
    save(archdsl.loads(CONV).supernet(), tmp_path / "net")
    refused({**again, "task": MQAR}, "A0593")
    (tmp_path / "net" / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-8])
    refused(again, "A0817.*cannot be read")
    save(archdsl.loads(TOKENS).supernet(), tmp_path / "other")
    os.replace(tmp_path / "other" / "weights.safetensors", tmp_path / "net" / "weights.safetensors")
    refused(again, "A0817.*those of another supernet")
    save(archdsl.loads(CONV).supernet(dtype=torch.float64), tmp_path / "double")
    save(archdsl.loads(CONV).supernet(), tmp_path / "net")
    os.replace(tmp_path / "double" / "weights.safetensors", tmp_path / "net" / "weights.safetensors")
    refused(again, "A0817.*those of another supernet")
    (tmp_path / "net" / "supernet.json").write_text('{"format": 1}')
    refused(again, "(?s)A0817.*cannot be read.*its format is 1")
    (tmp_path / "net" / "supernet.json").write_text('{"format": 2}')
    refused(again, "A0817.*cannot be read")


def test_a_task_that_no_candidate_takes():
    with pytest.raises(ArchError, match="A0593"):
        train_supernet(archdsl.loads(CONV), MQAR, 1)


def test_counts_that_do_not_serve_are_told_before_training(tmp_path: Path):
    with pytest.raises(ValueError, match="a batch of 8 cannot be cut into 3 equal parts"):
        train_supernet(archdsl.loads(TOKENS), MQAR, 1, out=tmp_path / "net", size=8, count=3, split=True, distil=False)
    with pytest.raises(ValueError, match="cannot be cut into 0 equal parts"):
        train_supernet(archdsl.loads(TOKENS), MQAR, 1, out=tmp_path / "net", size=8, count=0, split=True, distil=False)
    with pytest.raises(TypeError, match=r"a spec is needed, as `archdsl\.load` gives, not a str"):
        train_supernet("tokens.arch", MQAR, 1, out=tmp_path / "net")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`count` is a whole number of candidates, not 2\.5"):
        train_supernet(archdsl.loads(TOKENS), MQAR, 1, out=tmp_path / "net", count=2.5)  # type: ignore[arg-type]
    assert not (tmp_path / "net").exists()
