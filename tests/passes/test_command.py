"""Passes from the command line, in variants, in Python: one text, one result."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import archdsl as package
from archdsl.diagnostics.model import ArchError
from archdsl.passes import Model, Step, graph_pass, steps
from archdsl.passes.contract import approximate, equal
from archdsl.passes.registry import PASSES
from tests.cli.conftest import archdsl  # noqa: F401  (a fixture)
from tests.effort import calls
from tests.elaborate.helpers import USES, fault

NET = USES + """
model Net(d: int = 8, width: int = 16, squeeze: bool = true)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  x = Linear(width)(x) as start
  layers: for i in range(2) { x = Pre(LayerNorm(), MLP(2 * width))(x) as mlp }
  return x |> LayerNorm() as norm |> Linear(d) as head
}
variant plain { width = 12 }
variant rms of plain { transform centre(); claim { count(layer_norm) == 0; count(rms_norm) == 3; equal(plain) within 1e-9 } }
variant crms of plain { transform centre(compress = squeeze) }
variant twice of rms { transform bake() }
claim plain { params == 1508 }
claim crms { params == 1321 }
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.arch").write_text(NET)
    return tmp_path / "net.arch"


def test_variants_are_costed_without_torch(net):
    code = ("import sys, archdsl; spec = archdsl.load('net.arch')\n"
            "print([spec.cost(v).params for v in ('plain', 'rms', 'crms', 'twice')], spec.cost('crms', squeeze = False).params)\n"
            "print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=net.parent, capture_output=True, text=True, timeout=500)
    assert done.stdout == "[1508, 1436, 1321, 1436] 1436\nFalse\n", done.stderr


def test_claims_about_transformed_variants(archdsl, net):  # noqa: F811
    done = archdsl("verify", "--json", net)
    rows = {r["claim"]: r["passed"] for r in json.loads(done.stdout)}
    claims = ["count(layer_norm) == 0", "count(rms_norm) == 3", "equal(plain) within 1e-9", "params == 1508", "params == 1321"]
    assert rows == dict.fromkeys(claims, True)


def test_compile(archdsl, net):  # noqa: F811
    done = archdsl("compile", f"{net}:plain", "--pass", "centre()", "--check", "--dump-after", "centre", "-o", "out")
    assert "checked: centre()" in done.stderr and "# behind centre()\n" in done.stdout and "rms_norm(" in done.stdout
    manifest = json.loads((net.parent / "out/manifest.json").read_text())
    assert [r["step"] for r in manifest["recipe"]] == ["centre()"] and manifest["recipe"][0]["graph"] == manifest["graph_hash"]
    archdsl("compile", f"{net}:rms", "-o", "same")
    a, b = (load_file(net.parent / name / "weights.safetensors") for name in ("out", "same"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        plain = package.load(net).build("plain")(x)
        for folder in ("out", "same"):
            torch.testing.assert_close(package.open(net.parent / folder)(x), plain, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(package.load(net).build("rms")(x), plain, rtol=1e-5, atol=1e-6)
    archdsl("compile", "out", "--pass", "bake()", "-o", "again")
    assert [r["step"] for r in json.loads((net.parent / "again/manifest.json").read_text())["recipe"]] == ["centre()", "bake()"]


def test_without_a_folder_the_rewritten_model_is_printed(archdsl, net):  # noqa: F811
    assert "rms_norm" in archdsl("compile", net, "--pass", "centre()").stdout
    assert "rms_norm" not in archdsl("compile", net).stdout


def test_passes_and_explain(archdsl):  # noqa: F811
    rows = json.loads(archdsl("passes", "--json").stdout)
    assert {"bake", "centre", "fold_batch_norm", "fold_norm_scales", "fold_layer_scale"} <= {r["name"] for r in rows}
    assert all(r["doc"] and r["contract"] for r in rows)
    page = json.loads(archdsl("explain", "centre", "--json").stdout)
    assert page["kind"] == "pass" and "arxiv 2305.14858" in page["text"] and "contract: equal" in page["text"]


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["--pass", "center()"], "A0561", "`centre`"),
    (["--pass", "centre(compres = true)"], "A0562", "compress"),
    (["--pass", "centre(compress = 3)"], "A0204", "bool"),
    (["--pass", "centre(true, true)"], "A0204", "folded"),
    (["--pass", "centre(compress = true, compress = true)"], "A0562", "given twice"),
    (["--pass", "centre() using calib"], "A0562", "uses no inputs"),
    (["--pass", "centre("], "A01", ""),
    (["--pass", "fold_norm_scales() on layer"], "A0563", "`layers`"),
    (["--pass", "fold_norm_scales() on op:linnear"], "A0563", "linear"),
    (["--pass", "fold_norm_scales() on block:Atention"], "A0563", "MLP"),
    (["--pass", "fold_norm_scales() on branch:ffn"], "A0563", "mlp"),
    (["--pass", "fold_norm_scales() on lowest(2, scores)"], "A0563", "--table"),
    (["--pass", "fold_batch_norm()"], "A0564", "batch norm"),
    (["--pass", "bake()", "--dump-after", "baking"], "A0561", "bake"),
    (["--pass", "bake()", "--decisions", "none.json"], "A0568", "none.json"),
    (["--pass", "bake()", "--decisions", "list.json"], "A0568", "JSON object"),
    (["--pass", "bake()", "--decisions", "other.json"], "A0568", "belongs to no step"),
    (["--pass", "bake()", "--table", "scores"], "A0568", "NAME=FILE"),
])
def test_mistakes(archdsl, net, arguments, code, text):  # noqa: F811
    (net.parent / "list.json").write_text("[]")
    (net.parent / "other.json").write_text('{"layers.0@prune": 1}')
    done = archdsl("compile", net, *arguments, "-o", "out", code=1)
    assert f"error[{code}" in done.stderr and text in done.stderr
    assert not (net.parent / "out").exists()


def test_a_variant_that_does_not_fit_is_found_by_check(archdsl, net):  # noqa: F811
    net.write_text(NET.replace("transform centre();", "transform fold_batch_norm();"))
    done = archdsl("check", net, code=1)
    assert "error[A0564]" in done.stdout and "transform fold_batch_norm()" in done.stdout


@pytest.mark.parametrize("step", ["bake()", "fold_norm_scales() on layers[0]"])
def test_a_spec_cannot_hold_up_its_reader(archdsl, net, step):  # noqa: F811
    net.write_text(text := NET + "variant many of plain { " + f"transform {step} " * 20_000 + "}\n")
    told = []
    done = calls(lambda: told.append(archdsl("check", net, code=1).stdout))
    assert "error[A0602]" in told[0] or "error[A0564]" in told[0]
    assert done <= 30 * len(text) + 500_000, "a second or two"


def test_texts_of_steps():
    for text in ("centre()", "centre(compress = true)", 'fold_norm_scales(form = "train") on layers[1:].*.f & op:linear'):
        assert str(Step.parse(text)) == text
    assert str(Step.parse("centre(true)")) == "centre(compress = true)"
    assert steps.centre(compress=True).on("layers[0]") == Step.parse("centre(compress = true) on layers[0]")
    with pytest.raises(ArchError, match="centre"):
        steps.center()


# ---------------------------------------------------------------- passes of one's own
@pytest.fixture
def own():
    """Two passes of a user's: one that decides, one that breaks its promise."""
    before = dict(PASSES)

    @graph_pass("scale_down(by: float = 2)", contract=equal(gradients="none"), requires=("marked",))
    def scale_down(edit, *, by):
        """Halves what it should not."""
        for n in edit.selected("linear"):
            edit.set(n, n.args[0], edit.add("mul", n.args[1], 1 / by, at=n), n.args[2])

    @graph_pass("drop_small(below: float)", contract=equal(at="init"), provides=("marked",))
    def drop_small(edit, *, below):
        """Notes the layers whose weights are small."""
        for address, small in edit.decisions.items():
            edit.note(f"{address} is {'small' if small else 'large'}")

    @drop_small.decide
    def decide(model, context, *, below):
        return {a: bool(w.abs().max() < below) for a, w in model.weights.items() if a.endswith("up.weight")}

    yield
    PASSES.clear()
    PASSES.update(before)


def test_contracts_are_checked(own, net):
    model = Model.of(package.load(net))
    d = fault(lambda: model.apply("drop_small(0.5)", "scale_down()", check=True))
    assert d.code == "A0566" and "scale_down" in d.message and any("in evaluation" in n for n in d.notes)
    assert [p.type for _, p in model.graph.parameters()] and model.recipe == ()
    assert model.apply("drop_small(0.5)", check=True).recipe[0].decisions == {"layers.0.mlp.up.weight@drop_small": True,
                                                                             "layers.1.mlp.up.weight@drop_small": True}


def test_approximations_are_measured(own, net):
    @graph_pass("halve()", contract=approximate("differences"))
    def halve(edit):
        """Halves the head."""
        for n in edit.selected("linear"):
            edit.set(n, n.args[0], edit.add("mul", n.args[1], 0.5, at=n), n.args[2])

    notes = Model.of(package.load(net)).apply("halve() on head", check=True).recipe[0].notes
    assert len(notes) == 4 and all(n.startswith("the output `y` in ") and "differs by" in n for n in notes)
    assert all(0.1 < float(n.rpartition(" ")[2]) < 1 for n in notes)


def test_order_is_refused_not_guessed(own, net):
    d = fault(lambda: Model.of(package.load(net)).apply("scale_down()"))
    assert d.code == "A0565" and "marked" in d.message and d.help == ("put `drop_small` before it",)


def test_decisions(own, archdsl, net):  # noqa: F811
    archdsl("compile", net, "--pass", "drop_small(0.5)", "-o", "out")
    recipe = json.loads((net.parent / "out/manifest.json").read_text())["recipe"]
    assert recipe[0]["decisions"] == {"layers.0.mlp.up.weight@drop_small": True, "layers.1.mlp.up.weight@drop_small": True}
    (net.parent / "mine.json").write_text(json.dumps({"layers.0.mlp.up.weight@drop_small": False}))
    done = archdsl("compile", net, "--pass", "drop_small(0.5)", "--decisions", "mine.json", "-o", "out")
    assert done.stderr == "note: drop_small: layers.0.mlp.up.weight is large\n"
    net.write_text(NET.replace("transform bake()", "transform drop_small(below = 0.5)"))
    done = archdsl("check", net, code=1)
    assert "error[A0567]" in done.stdout and "--decisions" in done.stdout


def test_the_map_of_names(net):
    model = Model.of(package.load(net), "plain")
    new = model.apply('centre(form = "train")')
    assert new.names == model.names and set(new.names.targets()) == set(new.weights)
    folded = model.apply("centre()")
    kept = dict(zip(folded.names.targets(), folded.names.sources()))
    assert kept == {} or all(torch.equal(folded.weights[k], model.weights[v]) for k, v in kept.items())
    assert "head.weight" not in kept and set(kept) < set(folded.weights)


def test_weights_that_are_moved(own, net):
    """Transposed under another name: an entry of the map, composed over steps and undone by its inverse."""
    from archdsl.graph import InitExpr, Param, TensorType
    from archdsl.weightmap import Step as MapStep

    @graph_pass("transpose_weights()", contract=equal(), provides=("transposed",))
    def transpose_weights(edit):
        """Keeps the weights of linear maps as [i, o]."""
        for n in edit.selected("linear"):
            old = n.args[1].node.attrs["path"]
            new, (o, i) = old.removesuffix("weight") + "columns", n.args[1].shape
            edit.own(new, Param(new, "param", TensorType("float", (i, o)), InitExpr("normal", (), (("mean", 0), ("std", 1)))), edit.owner[old])
            edit.move((old,), (new,), MapStep("transpose", ((0, 1),)))
            turned = edit.add("rearrange", edit.weight(new, n), sizes=(i, o), ins=((0,), (1,)), outs=((1,), (0,)), at=n)
            edit.set(n, n.args[0], turned, n.args[2])

    model = Model.of(package.load(net))
    new = model.apply("transpose_weights()", check=True)
    assert "head.columns" in new.weights and "head.weight" not in new.weights
    assert torch.equal(new.weights["head.columns"], model.weights["head.weight"].T)
    back = dict(new.names.invert().apply(new.state_dict()))
    assert back.keys() == model.state_dict().keys() and all(torch.equal(back[k], w) for k, w in model.state_dict().items())
    assert new.apply('fold_norm_scales(form = "train")').names == new.names
