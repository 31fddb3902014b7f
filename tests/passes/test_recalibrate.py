"""Passes that look at data: what the names behind `using` stand for; running statistics of batch norms, measured again."""
from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import archdsl as package
from archdsl.diagnostics.model import ArchError
from archdsl.passes import Model, Step, graph_pass
from archdsl.passes.context import Given
from archdsl.passes.contract import equal
from archdsl.passes.registry import PASSES
from tests.cli.conftest import archdsl  # noqa: F401  (a fixture)
from tests.elaborate.helpers import USES
from tests.parity.proof import randomise, relative
from tests.passes.helpers import F64, outputs, start

NET = """model Net(c: int = 6, drop: float = 0)(image: [B = 1, 3, H = 9, W = 7]) -> y: [B, 5] {
  x = image |> Conv(c, 3, pad = 1) as stem |> BatchNorm() as stem_norm |> relu |> dropout(drop)
  x = x + (x |> Conv(c, 1, bias = false) as f |> BatchNorm(affine = false) as f_norm)
  return x |> BatchNorm() as norm |> reduce([B, c, Y, X] -> [B, c], mean) |> Linear(5) as head
}"""
STEP = "recalibrate_batch_norm() using calib"


def images(n: int, h: int = 8, w: int = 5, seed: int = 0) -> torch.Tensor:
    return 2 + 3 * torch.randn(n, 3, h, w, generator=torch.Generator().manual_seed(seed), dtype=F64)


def run(model: Model, x: torch.Tensor, step: str = STEP, **how: Any) -> Model:
    return model.apply(step, data={"calib": {"image": x}}, **how)


class Peer(torch.nn.Module):
    """The same network in plain torch."""

    def __init__(self, c: int = 6):
        super().__init__()
        self.stem, self.stem_norm = torch.nn.Conv2d(3, c, 3, padding=1), torch.nn.BatchNorm2d(c)
        self.f, self.f_norm = torch.nn.Conv2d(c, c, 1, bias=False), torch.nn.BatchNorm2d(c, affine=False)
        self.norm, self.head = torch.nn.BatchNorm2d(c), torch.nn.Linear(c, 5)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        x = x + self.f_norm(self.f(x))
        return self.head(self.norm(x).mean((2, 3)))


def pair() -> tuple[Model, Peer]:
    peer = Peer().double()
    randomise(peer)
    state = {k: v for k, v in peer.state_dict().items() if not k.endswith("num_batches_tracked")}
    return Model.of(package.loads(USES + NET, "net.arch"), dtype=F64, weights=state), peer


def test_one_batch_is_torchs_training_step():
    """With momentum 1, torch's running statistics are those of the batch."""
    model, peer = pair()
    x = images(7)
    for m in peer.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = 1.0
    before = dict(model.weights)
    new = run(model, x)
    peer.train()(x)
    state = peer.eval().state_dict()
    assert [k for k in new.weights if relative(new.weights[k], before[k]) > 1e-3] == [k for k in new.weights if "running" in k]
    assert all(relative(new.weights[k], state[k]) < 1e-12 for k in new.weights)
    assert relative(outputs(new, (images(2, seed=5),))[0], peer(images(2, seed=5))) < 1e-12
    assert new.graph is model.graph and before.keys() == new.weights.keys()


@pytest.mark.parametrize("batch", [1, 3, 4, 64])
def test_several_batches_are_pooled(batch):
    """The variance of all numbers that reach a channel, each batch normalised by itself: as torch.var says of what hooks collect."""
    model, peer = pair()
    x = images(10)
    seen: dict[str, list[torch.Tensor]] = {}

    def note(name: str, module: torch.nn.Module, operands: tuple[torch.Tensor]) -> None:
        seen.setdefault(name, []).append(operands[0].transpose(0, 1).flatten(1))

    for name, m in peer.named_modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.register_forward_pre_hook(partial(note, name))
    for at in range(0, 10, batch):
        peer.train()(x[at : at + batch])
    new = run(model, x, f"recalibrate_batch_norm(batch = {batch}) using calib")
    for name, parts in seen.items():
        whole = torch.cat(parts, 1)
        assert relative(new.weights[f"{name}.running_mean"], whole.mean(1)) < 1e-12
        assert relative(new.weights[f"{name}.running_var"], whole.var(1)) < 1e-12


def test_a_selector_leaves_the_others():
    """A norm that is not selected normalises with its own running statistics."""
    model, peer = pair()
    x = images(6)
    new = run(model, x, "recalibrate_batch_norm() on norm using calib")
    assert [k for k in new.weights if not torch.equal(new.weights[k], model.weights[k])] == ["norm.running_mean", "norm.running_var"]
    peer.eval().norm.train()
    peer.norm.momentum = 1.0
    peer(x)
    state = peer.state_dict()
    assert all(relative(new.weights[k], state[k]) < 1e-12 for k in ("norm.running_mean", "norm.running_var"))


def test_nothing_is_dropped_and_shared_norms_see_all_applications():
    text = """model M()(x: [B, 4]) -> y: [B, 4] {
      share n = BatchNorm()
      return x |> dropout(0.5) |> n |> square |> n
    }"""
    model = start(text)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
    new = model.apply(STEP, data={"calib": {"x": x}})
    second = torch.nn.functional.batch_norm(x, None, None, model.weights["n.weight"], model.weights["n.bias"], True, 0.1, 1e-5).square()
    whole = torch.cat([x, second])
    assert relative(new.weights["n.running_mean"], whole.mean(0)) < 1e-12 and relative(new.weights["n.running_var"], whole.var(0)) < 1e-12


def test_efficientformer_is_timms():
    """Every norm of a shipped model, against timm's in training."""
    timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")
    peer = timm.create_model("efficientformer_l1", num_classes=3).double()
    randomise(peer)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0), dtype=F64)
    spec = package.load("specs/vision/efficientformer.arch")
    model = Model.of(spec, "l1", {"classes": 3}, dtype=F64, weights=peer.state_dict(), source="timm")
    new = run(model, x)
    other = copy.deepcopy(peer)
    for m in other.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        other.train()(x)
    theirs = Model.of(spec, "l1", {"classes": 3}, dtype=F64, weights=other.state_dict(), source="timm")
    stats = [k for k in new.weights if "running" in k]
    assert len(stats) == 66 and all(relative(new.weights[k], theirs.weights[k]) < 1e-10 for k in stats)


# ---------------------------------------------------------------- decisions
def test_decisions_are_kept_and_replayed(tmp_path):
    model, _ = pair()
    new = run(model, images(5), check=True)
    decisions = json.loads(json.dumps(new.recipe[-1].decisions))
    assert set(decisions) == {f"{a}@recalibrate_batch_norm" for a in new.weights if "running" in a}
    again = model.apply(STEP, decisions=decisions)
    assert all(torch.equal(again.weights[k], w) for k, w in new.weights.items())
    notes = new.recipe[-1].notes
    assert notes[0] == "3 of its batch norms have the statistics of other data"
    assert "the output `y` in evaluation, given weights: differs by" in notes[1]
    assert float(notes[1].rpartition(" ")[2]) > 0.01 and not any("training" in n for n in notes)


@pytest.mark.parametrize(("change", "told"), [
    (lambda d: d.pop("norm.running_var@recalibrate_batch_norm"), "say nothing of `norm.running_var`, where 6 numbers"),
    (lambda d: d.update({"norm.running_var@recalibrate_batch_norm": [1.0]}), "say 1 numbers of `norm.running_var`"),
    (lambda d: d.update({"norm.running_var@recalibrate_batch_norm": "wide"}), "say `wide` of"),
])
def test_decisions_that_do_not_fit(change, told):
    model, _ = pair()
    decisions = run(model, images(5)).recipe[-1].decisions
    change(decisions)
    with pytest.raises(ArchError, match=told) as fault:
        model.apply(STEP, decisions=decisions)
    assert fault.value.diagnostics[0].code == "A0568"


# ---------------------------------------------------------------- bad data
BAD: list[tuple[Any, str]] = [
    ({}, "`image` is missing"), ({"images": images(2)}, "`image` is missing"), ({"image": images(2), "label": images(2)}, "`label` is no input"),
    ({"image": images(2)[:, :2]}, r"`image` has the shape \[2, 2, 8, 5\], not \[B, 3, H, W\]"), ({"image": images(2)[0]}, "has the shape"),
    ({"image": torch.ones(2, 3, 8, 5, dtype=torch.int64)}, "holds int64, not float"), ({"image": images(0)}, "has the shape"),
    ({"image": torch.full((2, 3, 8, 5), float("nan"))}, "not finite"), ({"image": [1.0]}, "is list, not a tensor"), ([images(2)], "this is list"),
    ({"image": images(1, 1, 1)}, "more than 1 value per channel"),
]


@pytest.mark.parametrize(("data", "told"), BAD, ids=[t for _, t in BAD])
def test_data_that_do_not_fit(data, told):
    model, _ = pair()
    with pytest.raises(ArchError, match=told) as fault:
        model.apply(STEP, data={"calib": data})
    (d,) = fault.value.diagnostics
    assert d.code == "A0571" and "the data `calib`" in d.message and d.notes == ("its inputs: image: [B, 3, H, W]",)
    assert model.recipe == ()


def test_several_inputs_agree():
    text = """model M()(x: [B, T, 4], valid: bool[B, T], kind: int[B] in 0..<3) -> y: [B, 4, T] {
      require T % 2 == 0, "an even number of steps"
      return where(valid[:, none], rearrange(x, [B, T, c] -> [B, c, T]) |> BatchNorm() as norm, 0) + kind[:, none, none]
    }"""
    model = start(text)
    good = {"x": torch.randn(4, 6, 4), "valid": torch.ones(4, 6, dtype=torch.bool), "kind": torch.tensor([0, 1, 2, 0])}
    model.apply(STEP, data={"calib": good})
    for change, told in [({"valid": good["valid"][:, :4]}, r"`valid` has the shape \[4, 4\], not \[B, T\], B = 4, T = 6"),
                         ({"kind": torch.tensor([0, 1, 3, 0])}, "numbers from 0 to 3, not within 0..2"),
                         ({"x": good["x"][:, :5], "valid": good["valid"][:, :5]}, "an even number of steps"),
                         ({"valid": good["valid"].float()}, "holds float32, not bool")]:
        with pytest.raises(ArchError, match=told):
            model.apply(STEP, data={"calib": {**good, **change}})


def test_refusals():
    with pytest.raises(ArchError, match="no batch norm with running statistics") as fault:
        start("model M()(x: [B, 4]) -> y: [B, 4] { return Linear(4)(x) as f }").apply(STEP)  # before any data are asked for
    assert fault.value.diagnostics[0].code == "A0564"
    model, _ = pair()
    with pytest.raises(ArchError, match="at least one sample"):
        run(model, images(2), "recalibrate_batch_norm(batch = 0) using calib")
    with pytest.raises(ArchError, match="no batch norm with running statistics"):
        run(model, images(2), "recalibrate_batch_norm() on head using calib")
    with pytest.raises(ArchError, match="needs an input") as fault:
        Step.parse("recalibrate_batch_norm()")
    with pytest.raises(ArchError, match="no data is bound: bound are `calbi`") as fault:
        model.apply(STEP, data={"calbi": {"image": images(2)}})
    assert fault.value.diagnostics[0].code == "A0569" and fault.value.diagnostics[0].help[0] == "did you mean `calbi`?"


# ---------------------------------------------------------------- the command line, variants, other kinds of inputs
@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.arch").write_text(USES + NET + "\nvariant calibrated { transform " + STEP + " }\nclaim calibrated { params == 263 }\n"
                                       "variant claimed { transform " + STEP + "; claim { equal(calibrated) within 1 } }\n")
    return tmp_path / "net.arch"


def test_compile(archdsl, net):  # noqa: F811
    save_file({"image": images(6).float()}, net.parent / "calib.safetensors")
    done = archdsl("compile", net, "--pass", STEP, "--data", "calib=calib.safetensors", "--check", "-o", "out")
    for told in (f"checked: {STEP}", "differs by", "3 of its batch norms have the statistics of other data"):
        assert told in done.stderr
    recipe = json.loads((net.parent / "out/manifest.json").read_text())["recipe"]
    (net.parent / "d.json").write_text(json.dumps(recipe[0]["decisions"]))
    archdsl("compile", net, "--pass", STEP, "--decisions", "d.json", "-o", "same")
    archdsl("compile", f"{net}:calibrated", "--data", "calib=calib.safetensors", "-o", "variant")
    archdsl("compile", net, "-o", "plain")
    files = {n: load_file(net.parent / n / "weights.safetensors") for n in ("out", "same", "variant", "plain")}
    want = Model.of(package.load(net), "calibrated", data={"calib": str(net.parent / "calib.safetensors")}).state_dict()
    for name in ("out", "same", "variant"):
        assert all(torch.equal(files[name][k], w) for k, w in want.items()), name
    assert not torch.equal(files["plain"]["norm.running_var"], want["norm.running_var"])
    assert package.open(net.parent / "out")(images(1).float()).shape == (1, 5)


def test_a_variant_is_known_before_its_data(archdsl, net):  # noqa: F811
    """Checked, costed and claimed of without data, unless a claim asks for numbers; built only with them."""
    assert "no errors" in archdsl("check", net).stdout
    assert json.loads(archdsl("cost", f"{net}:calibrated", "--json").stdout)["params"] == 263
    done = archdsl("verify", net, code=1)
    assert "params == 263" in done.stdout + done.stderr and "needs decisions" in done.stdout + done.stderr
    with pytest.raises(ArchError, match="to which no data is bound: nothing is") as fault:
        package.load(net).build("calibrated")
    (d,) = fault.value.diagnostics
    assert d.code == "A0569" and "--data calib=FILE" in d.help[0] and d.span.text == "transform " + STEP


@pytest.mark.parametrize(("arguments", "code", "text"), [
    ([], "A0569", "--data calib=FILE"),
    (["--data", "calib"], "A0568", "NAME=FILE"),
    (["--data", "calib=none.safetensors"], "A0628", "none.safetensors"),
    (["--data", "calib=broken.safetensors"], "A0628", "the data in `broken.safetensors` cannot be read"),
    (["--data", "calib=wrong.safetensors"], "A0571", "(wrong.safetensors) do not fit"),
    (["--model", "calib=out"], "A0569", "--data"),
    (["--model", "x"], "A0568", "NAME=DIR"),
])
def test_mistakes(archdsl, net, arguments, code, text):  # noqa: F811
    (net.parent / "broken.safetensors").write_text("no tensors")
    save_file({"image": images(2).float()[:, :2].contiguous()}, net.parent / "wrong.safetensors")
    done = archdsl("compile", net, "--pass", STEP, *arguments, "-o", "out", code=1)
    assert f"error[{code}" in done.stderr and text in done.stderr
    assert not (net.parent / "out").exists()


@pytest.fixture
def own():
    with PASSES.apart():
        yield


def test_models_and_tables_behind_names(own, archdsl, net):  # noqa: F811
    got: list[Any] = []

    @graph_pass("follow()", contract=equal(), using=("model", "table", "data"))
    def follow(edit):
        """Looks at another model."""
        edit.note(f"{edit.decisions['head.weight']}")

    @follow.decide
    def decide(model, context):
        got.extend(context.inputs(model.made))
        return {"head.weight": float(got[0].head.weight.detach().sum()) + got[1]["bias"]}

    archdsl("compile", net, "--set", "c=4", "-o", "teacher")
    model, _ = pair()
    given = Given({"calib": {"image": images(3)}}, {"teacher": str(net.parent / "teacher")}, {"scores": {"bias": 2}})
    notes = model.apply("follow() using teacher, scores, calib", given=given).recipe[0].notes
    teacher: Any = package.open(net.parent / "teacher")
    assert float(notes[0]) == pytest.approx(float(teacher.head.weight.detach().sum()) + 2) and len(list(got[2].batches(2))) == 2
    with pytest.raises(ArchError, match="holds no graph") as fault:
        model.apply("follow() using teacher, scores, calib", given=Given(models={"teacher": str(net.parent)}))
    assert fault.value.diagnostics[0].code == "A0520"


def test_it_is_listed_and_explained(archdsl):  # noqa: F811
    row = next(r for r in json.loads(archdsl("passes", "--json").stdout) if r["name"] == "recalibrate_batch_norm")
    assert row["using"] == ["data"] and row["contract"].startswith("approximate; ")
    assert row["signature"] == "recalibrate_batch_norm(batch: int = 64)"
    text = json.loads(archdsl("explain", "recalibrate_batch_norm", "--json").stdout)["text"]
    assert all(told in text for told in ("uses: data", "decides: values of weights", "source: arxiv 2105.07576", "Sets the running mean"))
