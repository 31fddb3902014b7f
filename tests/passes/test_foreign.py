"""Foreign names behind steps: import and export where weights are still theirs, the step that prevents it where they are not."""
from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import archdsl as package
from archdsl.diagnostics.model import ArchError
from archdsl.graph import InitExpr, Param, TensorType
from archdsl.passes import Model, graph_pass
from archdsl.passes.contract import equal
from archdsl.passes.registry import PASSES
from archdsl.weightmap import Step as MapStep
from tests.cli.conftest import archdsl  # noqa: F401  (a fixture)
from tests.parity.proof import randomise, relative
from tests.passes.helpers import F64, start

timm = pytest.importorskip("timm", reason="timm is in the `parity` extra")

VIT: dict[str, Any] = {"side": 32, "patch": 8, "depth": 2, "d": 24, "heads": 2, "classes": 7}
SPEC = "specs/vision/vit.arch"


@pytest.fixture
def peer():
    config = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 7}
    model = timm.models.vision_transformer.VisionTransformer(**config).double().eval()
    randomise(model)
    return model


def image() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=F64)


def vit(**how: Any) -> Model:
    return Model.of(package.load(SPEC), None, VIT, dtype=F64, **how)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("step", ['centre(form = "train")', 'centre(compress = true, form = "train")', 'fold_norm_scales(form = "train")'])
def test_training_forms_take_foreign_weights(peer, step):
    built = vit().apply(step).build().eval()
    package.import_weights(built, peer.state_dict(), source="timm")
    assert relative(built(image()), peer(image())) < 1e-12 and same(package.export_weights(built, source="timm"), peer.state_dict())
    again = pickle.loads(pickle.dumps(built))
    assert same(package.export_weights(again, source="timm"), peer.state_dict())


@pytest.mark.parametrize(("steps", "told", "address"), [
    (["fold_norm_scales()"], "fold_norm_scales()", "layers.0.attn.norm.weight"), (["fold_norm_scales() on layers[1]"], "on layers[1]", "layers.1."),
    (["centre(compress = true)", "bake()"], "centre(compress = true)", "token"), (['centre(form = "train")', "bake()"], "bake()", "token"),
])
def test_the_step_that_prevents_it_is_named(peer, steps, told, address):
    built = vit().apply(*steps).build()
    before = {k: v.clone() for k, v in built.state_dict().items()}
    for ask in (lambda: package.import_weights(built, peer.state_dict(), source="timm"), lambda: package.export_weights(built, source="timm")):
        with pytest.raises(ArchError) as fault:
            ask()
        (d,) = fault.value.diagnostics
        assert d.code == "A0546" and told in d.message and f"`{address}" in d.message and "--weights FILE@timm" in d.help[0]
    assert same(dict(built.state_dict()), before)
    with pytest.raises(ArchError, match="has no names `tim`"):
        package.export_weights(built, source="tim")
    carried = vit(weights=peer.state_dict(), source="timm").apply(*steps).build().eval()  # what the message proposes
    assert relative(carried(image()), peer(image())) < 1e-12


def test_equal_shapes_are_not_equal_weights():
    """Recentred weights have the shapes of those before: foreign tensors in their place would be another model."""
    spec = package.load("specs/general/pre_rmsnorm.arch").models["ViT"]
    small: dict[str, Any] = {"d": 24, "heads": 2, "head_dim": 12, "depth": 1, "hidden": 24, "classes": 3}
    plain, rms = spec.build("tiny", **small), spec.build("tiny_rms", **small)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in rms.state_dict().items()}
    with pytest.raises(ArchError, match=r"behind `centre\(\)`, `patch_embed.weight` is not what they name"):
        package.import_weights(rms, package.export_weights(plain, source="official"), source="official")


# ---------------------------------------------------------------- steps that move weights
@pytest.fixture
def own():
    """Maps as [i, o]; q, k and v as one weight; a map of its own beside each norm."""
    before = dict(PASSES)

    @graph_pass("transpose_weights()", contract=equal())
    def transpose_weights(edit):
        """Keeps the weights of linear maps as [i, o]."""
        for n in edit.selected("linear"):
            old = n.args[1].node.attrs["path"]
            new, (o, i) = old.removesuffix("weight") + "columns", n.args[1].shape
            edit.own(new, Param(new, "param", TensorType("float", (i, o)), InitExpr("normal", (), (("mean", 0), ("std", 1)))), edit.owner[old])
            edit.move((old,), (new,), MapStep("transpose", ((0, 1),)))
            edit.set(n, n.args[0], edit.add("rearrange", edit.weight(new, n), sizes=(i, o), ins=((0,), (1,)), outs=((1,), (0,)), at=n), n.args[2])

    @graph_pass("join_maps()", contract=equal())
    def join_maps(edit):
        """Keeps the weights of q, k and v as one."""
        found = {n.args[1].node.attrs["path"]: n for n in edit.selected("linear") if n.args[1].node.op == "param"}
        for first in [a for a in found if a.endswith(".q.weight")]:
            old = [first.replace(".q.", f".{name}.") for name in "qkv"]
            q, k, v = (found[a] for a in old)
            new, sizes = old[0].removesuffix("q.weight") + "joined", [n.args[1].shape[0] for n in (q, k, v)]
            edit.own(new, Param(new, "param", TensorType("float", (sum(sizes), q.args[1].shape[1])), InitExpr("zeros")), new.rpartition(".")[0])
            edit.move(tuple(old), (new,), MapStep("concat", ((0, tuple(sizes)),)))
            for i, n in enumerate((q, k, v)):
                at = sum(sizes[:i])
                part = edit.add("slice", edit.weight(new, n), items=(("slice", at, at + sizes[i], None),), at=n)
                edit.set(n, n.args[0], part, n.args[2])

    @graph_pass("add_gain()", contract=equal(at="init"))
    def add_gain(edit):
        """A learned factor behind each of the selected maps."""
        for n in edit.selected("linear"):
            new = f"{edit.owner[n.args[1].node.attrs['path']]}.gain"
            edit.own(new, Param(new, "param", TensorType("float", ()), InitExpr("ones")), new.rpartition(".")[0])
            y = edit.add("mul", Value(n), edit.weight(new, n), at=n)
            edit.replace(Value(n), y, keep=[y.node])

    from archdsl.graph import Value

    yield
    PASSES.clear()
    PASSES.update(before)


@pytest.mark.parametrize("steps", [["transpose_weights()"], ["transpose_weights() on layers[0].attn.q"], ["join_maps()"],
                                   ["join_maps()", 'fold_norm_scales(form = "train")']])
def test_weights_that_moved_keep_their_foreign_names(own, peer, steps):
    """Joined, split and transposed: `qkv` of timm is q, k and v of ours; a part of them may be kept transposed."""
    model = vit().apply(*steps, check=True)
    built = model.build().eval()
    package.import_weights(built, peer.state_dict(), source="timm")
    assert relative(built(image()), peer(image())) < 1e-12 and same(package.export_weights(built, source="timm"), peer.state_dict())
    assert ("layers.0.attn.q.columns" in built.state_dict()) == ("transpose" in steps[0])


def test_weights_that_are_joined_across_names(own):
    """Llama's files have q, k and v apart: no map of whole tensors takes one joined weight to three keys."""
    knobs: dict[str, Any] = {"vocab": 11, "d": 16, "depth": 1, "heads": 2, "kv_heads": 2, "hidden": 12}
    built = Model.of(package.load("specs/language/llama.arch"), None, knobs).apply("join_maps()").build()
    with pytest.raises(ArchError, match=r"behind `join_maps\(\)`, `layers.0.attn.q.weight`"):
        package.export_weights(built, source="hf")


def test_tied_heads_are_still_aliases(own):
    knobs: dict[str, Any] = {"vocab": 23, "context": 9, "d": 12, "heads": 2, "depth": 1}
    plain = start("specs/language/gpt2.arch", **knobs)
    state = package.export_weights(plain.build(), source="hf")
    assert torch.equal(state["lm_head.weight"], state["transformer.wte.weight"])
    built = plain.apply("transpose_weights() on layers").build()
    assert same(package.export_weights(built, source="hf"), state)


def test_a_weight_that_no_file_has(own, peer):
    built = vit().apply("add_gain() on layers[1].mlp.up").build()
    with pytest.raises(ArchError, match=r"behind `add_gain\(\) on layers\[1\].mlp.up`, `layers.1.mlp.up.gain`"):
        package.import_weights(built, peer.state_dict(), source="timm")


def test_measured_statistics_go_back_to_timm():
    """A step that fills weights leaves their names: the calibrated model is a timm model again."""
    peer = timm.create_model("efficientformer_l1", num_classes=3).double().eval()
    randomise(peer)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = Model.of(package.load("specs/vision/efficientformer.arch"), "l1", {"classes": 3}, dtype=F64, weights=peer.state_dict(), source="timm")
    new = model.apply("recalibrate_batch_norm() using calib", data={"calib": {"image": x}}).build().eval()
    before = peer(x)
    state = {k: v for k, v in peer.state_dict().items() if k.endswith(("bias_idxs", "num_batches_tracked"))}
    peer.load_state_dict({**package.export_weights(new, source="timm"), **state})
    assert relative(new(x), peer(x)) < 1e-12 and relative(before, peer(x)) > 1e-3


# ---------------------------------------------------------------- folders
def test_folders(own, archdsl, peer, tmp_path):  # noqa: F811
    settings = [a for k, v in VIT.items() for a in ("--set", f"{k}={v}")]
    state = {k: v.float() for k, v in peer.state_dict().items()}
    save_file(state, tmp_path / "timm.safetensors")
    archdsl("compile", "vit", *settings, "--weights", "timm.safetensors@timm", "--pass", 'centre(form = "train")', "-o", "train")
    opened = package.open(tmp_path / "train").eval()
    assert same(package.export_weights(opened, source="timm"), state)
    assert float((opened(image().float()) - peer(image())).detach().abs().max()) < 1e-4
    archdsl("compile", "train", "--pass", "bake()", "-o", "baked")  # names.json tells why there are none
    assert json.loads((tmp_path / "baked/names.json").read_text()) == {"timm": {"prevented": ["bake()", "token"]}}
    with pytest.raises(ArchError, match=r"behind `bake\(\)`, `token`"):
        package.export_weights(package.open(tmp_path / "baked"), source="timm")
    archdsl("compile", "baked", "-o", "again")
    with pytest.raises(ArchError, match=r"behind `bake\(\)`, `token`"):
        package.import_weights(package.open(tmp_path / "again"), state, source="timm")
    archdsl("compile", "vit", *settings, "--pass", 'centre(form = "train")', "-o", "empty")
    archdsl("compile", "empty", "--weights", "timm.safetensors@timm", "--pass", "bake()", "-o", "late")
    a, b = (package.open(tmp_path / n).state_dict() for n in ("baked", "late"))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)
    done = archdsl("compile", "baked", "--weights", "timm.safetensors@timm", "-o", "none", code=1)
    assert "error[A0546]" in done.stderr and "`bake()`" in done.stderr and not (tmp_path / "none").exists()
