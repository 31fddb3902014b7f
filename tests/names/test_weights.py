"""Import and export of tensors: what is copied, what is refused, and that a refused import changes nothing."""
from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import pytest
import torch

import archdsl
from archdsl import export_weights, import_weights
from archdsl.weights import WeightsError

SPEC = """
use std.linear { Linear }
use std.norm { BatchNorm, LayerNorm }

model Net(d: int = 8, depth: int = 2, tie: bool = false)(x: [B, d]) -> [B, d] {
  share embed = Linear(d, bias = false)
  x = embed(x)
  layers: for i in range(depth) {
    x = x |> LayerNorm() as norm |> Linear(d) as fc |> BatchNorm() as bn
  }
  return if tie { linear(x, embed.weight) } else { Linear(d, bias = false)(x) as head }
}

variant small { depth = 1 }
variant wide { d = 16 }

names hf of Net {
  "embed.weight" <-> embed.weight
  "head.weight" <-> head.weight when not tie
  alias "head.weight" <-> embed.weight when tie
  "h.{i}.ln.weight" <-> layers.{i}.norm.weight add(-1)
  drop "layers.{i}.norm.bias" = 0
  "h.{i}.fc.weight" <-> layers.{i}.fc.weight transpose
  "h.{i}.fc.bias" <-> layers.{i}.fc.bias
  "h.{i}.bn.*" <-> layers.{i}.bn.*
  ignore "h.{i}.bn.num_batches_tracked"
}
names stacked of Net {
  "embed.weight" <-> embed.weight
  "head.weight" <-> head.weight when not tie
  "{ln, fc, bn}.*" <-> layers.{i}.{norm, fc, bn}.* stack
}
"""


@pytest.fixture(scope="module")
def spec():
    return archdsl.loads(SPEC)


def foreign(d: int = 8, depth: int = 2, tie: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    out = {"embed.weight": torch.randn(d, d, generator=g)}
    for i in range(depth):
        out[f"h.{i}.ln.weight"] = torch.randn(d, generator=g)
        out[f"h.{i}.fc.weight"], out[f"h.{i}.fc.bias"] = torch.randn(d, d, generator=g), torch.randn(d, generator=g)
        for n in ("weight", "bias", "running_mean", "running_var"):
            out[f"h.{i}.bn.{n}"] = torch.rand(d, generator=g)
        out[f"h.{i}.bn.num_batches_tracked"] = torch.tensor(3)
    out["head.weight"] = out["embed.weight"].clone() if tie else torch.randn(d, d, generator=g)
    return out


def snapshot(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def refused(model, weights, source="hf") -> archdsl.Diagnostic:
    """The diagnostic of a refused import, which has left the model as it was."""
    before = snapshot(model)
    with pytest.raises(WeightsError) as caught:
        import_weights(model, weights, source=source)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    (d,) = caught.value.diagnostics
    assert d.code == "A0541"
    return d


def test_import_copies_transposes_shifts_and_fills(spec):
    model, theirs = spec.build(), foreign()
    report = import_weights(model, theirs, source="hf")
    own = model.state_dict()
    assert set(report.loaded) == set(own) and not report.faults
    assert report.ignored == ("h.0.bn.num_batches_tracked", "h.1.bn.num_batches_tracked")
    assert repr(report) == f"Report({len(own)} loaded, 2 ignored)"
    assert torch.equal(own["layers.1.fc.weight"], theirs["h.1.fc.weight"].T)
    assert torch.allclose(own["layers.1.norm.weight"], theirs["h.1.ln.weight"] + 1)
    assert torch.equal(own["layers.1.bn.running_var"], theirs["h.1.bn.running_var"])
    assert not own["layers.0.norm.bias"].any()


def test_export_is_the_inverse(spec):
    model, theirs = spec.build(), foreign()
    import_weights(model, theirs, source="hf")
    out = export_weights(model, "hf")
    assert set(out) == {k for k in theirs if "tracked" not in k}
    assert all(v.is_contiguous() and not v.requires_grad and v.dtype == torch.float32 for v in out.values())
    for k, v in out.items():
        assert torch.allclose(v, theirs[k]) if ".ln." in k else torch.equal(v, theirs[k])
    again = spec.build(seed=1)
    import_weights(again, out, source="hf")
    assert all(torch.allclose(v, model.state_dict()[k]) for k, v in again.state_dict().items())


def test_export_shares_plain_weights_alone(spec):
    model = spec.build(tie=True)
    out = export_weights(model, "hf")
    assert out["embed.weight"].data_ptr() == model.state_dict()["embed.weight"].data_ptr()
    assert out["head.weight"].data_ptr() != out["embed.weight"].data_ptr()
    assert len({t.untyped_storage().data_ptr() for t in out.values()}) == len(out), "safetensors refuses tensors that share storage"


def test_export_of_a_list_gives_tensors_of_their_own():
    text = "block Own()(x: [B, d]) -> [B, d] {\n  param w: [6, d] = normal(std = 1)\n  return x * reduce(w, [r, d] -> [d], sum)\n}\n"
    text += 'model Net(d: int = 4)(x: [B, d]) -> [B, d] { return Own()(x) as own }\nnames hf of Net { "{a, b, c}" <-> own.w concat }'
    model = archdsl.loads(text).build()
    out = export_weights(model, "hf")
    assert all(t.untyped_storage().nbytes() == 2 * 4 * 4 for t in out.values())
    assert torch.equal(torch.cat(list(out.values())), model.own.w)


def test_export_refuses_a_dropped_weight_that_says_something(spec):
    model = spec.build()
    model.state_dict()["layers.1.norm.bias"].fill_(0.5)
    with pytest.raises(archdsl.ArchError) as caught:
        export_weights(model, "hf")
    assert caught.value.diagnostics[0].code == "A0544" and "layers.1.norm.bias" in str(caught.value)


def test_stacked_layers(spec):
    model = spec.build()
    out = export_weights(model, "stacked")
    assert out["fc.weight"].shape == (2, 8, 8)
    again = spec.build(seed=5)
    import_weights(again, out, source="stacked")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


def test_sixteen_bit_files_lose_nothing_in_a_wider_model(spec):
    theirs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in foreign().items()}
    model = spec.build()
    import_weights(model, theirs, source="hf")
    assert torch.equal(model.state_dict()["layers.0.norm.weight"], theirs["h.0.ln.weight"].float() + 1)
    narrow = spec.build(dtype=torch.bfloat16)
    import_weights(narrow, theirs, source="hf")
    assert all(v.dtype == torch.bfloat16 for v in export_weights(narrow, "hf").values())


# ---------------------------------------------------------------- what does not fit
def test_missing_unexpected_and_mis_shaped_with_both_shapes(spec):
    theirs = foreign()
    del theirs["h.1.fc.bias"]
    theirs["extra"] = torch.zeros(2)
    theirs["h.0.fc.weight"] = torch.zeros(8, 9)
    d = refused(spec.build(), theirs)
    assert d.message.endswith("1 missing, 1 unexpected, 1 mis-shaped")
    assert [n.split("\n")[1].strip() for n in d.notes] == ["h.1.fc.bias", "extra", "h.0.fc.weight: [8, 8] expected, [8, 9] found"]


def test_long_lists_are_cut_and_counted(spec):
    d = refused(spec.build(), {})
    (note,) = d.notes
    assert "missing, 16:" in note and note.count("\n") == 11 and "… and 6 more" in note


@pytest.mark.parametrize(("weights", "knobs", "said"), [
    (foreign(depth=1), {}, "these are the weights of `small`"),
    (foreign(d=16), {}, "these are the weights of `wide`"),
    (foreign(), {"depth": 1}, "these are the weights of `Net`"),
    ({f"module.{k}": v for k, v in foreign().items()}, {}, "the keys fit without `module.` before them"),
    (foreign(d=5), {}, "`strict = False` imports what fits"),
])
def test_what_would_make_them_fit(spec, weights, knobs, said):
    assert refused(spec.build(**knobs), weights).help == (said,)


@pytest.mark.parametrize(("more", "pattern"), [
    (["head.num_batches_tracked", "stem.0.num_batches_tracked"], "**.num_batches_tracked"),
    (["head.scale"], "head.scale"),
    (["scale", "shift"], "scale"),
])
def test_keys_that_are_not_needed_can_be_ignored(spec, more, pattern):
    d = refused(spec.build(), {**foreign(), **dict.fromkeys(more, torch.zeros(()))})
    assert d.help == (f"`ignore \"{pattern}\"` in `names hf` leaves out what the model does not need", "`strict = False` imports what fits")


def test_other_names_are_found(spec):
    model = spec.build()
    d = refused(model, export_weights(model, "stacked"))
    assert d.help == ("these are the weights of this model under the names `stacked`: `source = \"stacked\"`",)


def test_a_prefix_that_the_keys_lack():
    text = SPEC.replace('"h.{i}', '"net.h.{i}').replace('"embed', '"net.embed').replace('"head', '"net.head')
    assert refused(archdsl.loads(text).build(), foreign()).help == ("the keys fit with `net.` before them",)


def test_not_strict_imports_what_fits(spec):
    model, theirs = spec.build(), foreign()
    before = snapshot(model)
    del theirs["h.1.fc.bias"]
    theirs["h.0.fc.weight"] = torch.zeros(3)
    report = import_weights(model, {**theirs, "extra": torch.zeros(1)}, source="hf", strict=False)
    assert report.missing == ("h.1.fc.bias",) and report.unexpected == ("extra",) and list(report.mis_shaped) == ["h.0.fc.weight"]
    assert set(before) - set(report.loaded) == {"layers.1.fc.bias", "layers.0.fc.weight"}
    assert torch.equal(model.state_dict()["layers.0.fc.weight"], before["layers.0.fc.weight"])
    assert torch.equal(model.state_dict()["layers.0.fc.bias"], theirs["h.0.fc.bias"])


def test_number_types(spec):
    """A quantised file has the shapes, but its numbers are something else."""
    d = refused(spec.build(), {**foreign(), "h.0.fc.bias": torch.zeros(8, dtype=torch.int8)})
    assert "[8] of float32 expected, [8] of int8 found" in d.notes[0]


def test_a_sparse_tensor_is_no_dense_one(spec):
    d = refused(spec.build(), {**foreign(), "h.0.fc.bias": torch.ones(8).to_sparse()})
    assert "[8] of float32 expected, [8] of float32, sparse_coo found" in d.notes[0]


@pytest.mark.parametrize("entry", [{"_metadata": {}}, {3: torch.ones(1)}])
def test_what_is_no_tensor_with_a_name_is_unexpected(spec, entry):
    assert refused(spec.build(), {**foreign(), **entry}).message.endswith("1 unexpected")


# ---------------------------------------------------------------- aliases
def test_a_tied_head(spec):
    model, theirs = spec.build(tie=True), foreign(tie=True)
    assert import_weights(model, theirs, source="hf").aliases == ("head.weight",)
    assert torch.equal(export_weights(model, "hf")["head.weight"], theirs["embed.weight"])


def test_a_tied_head_may_be_absent(spec):
    theirs = foreign(tie=True)
    del theirs["head.weight"]
    import_weights(spec.build(tie=True), theirs, source="hf")


def test_a_tied_head_stands_in_for_the_embedding(spec):
    model, theirs = spec.build(tie=True), foreign(tie=True)
    del theirs["embed.weight"]
    assert "embed.weight" in import_weights(model, theirs, source="hf").loaded
    assert torch.equal(model.embed.weight, theirs["head.weight"])


def test_a_tied_head_that_differs_is_refused(spec):
    d = refused(spec.build(tie=True), foreign(tie=False))
    assert d.message.endswith("1 unequal") and "head.weight should repeat embed.weight" in d.notes[0]
    assert d.help == ("these are the weights of `Net`",), "whose head is its own"


TWICE = """
use std.linear { Linear }

model Net(d: int = 4)(x: [B, d]) -> [B, d] {
  share q = Linear(d)
  share k = Linear(d)
  return k(q(k(q(x))))
}

names hf of Net {
  "0.qk.{weight, bias}" <-> {q, k}.{weight, bias} concat
  alias "1.qk.{weight, bias}" <-> {q, k}.{weight, bias} concat scale(2)
}
"""


def twice() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    first = {"weight": torch.randn(8, 4, generator=g), "bias": torch.randn(8, generator=g)}
    return {f"0.qk.{k}": v for k, v in first.items()} | {f"1.qk.{k}": 2 * v for k, v in first.items()}


def test_an_alias_of_several_weights():
    model, theirs = archdsl.loads(TWICE).build(), twice()
    report = import_weights(model, theirs, source="hf")
    assert report.aliases == ("1.qk.weight", "1.qk.bias") and torch.equal(model.k.weight, theirs["0.qk.weight"][4:])
    back = export_weights(model, "hf")
    assert set(back) == set(theirs) and all(v.dtype == torch.float32 and torch.equal(v, theirs[k]) for k, v in back.items())


def test_an_alias_of_several_weights_stands_in_for_all_of_them():
    model, theirs = archdsl.loads(TWICE).build(), twice()
    for k in ("0.qk.weight", "1.qk.bias"):
        del theirs[k]
    assert set(import_weights(model, theirs, source="hf").loaded) == {"q.weight", "q.bias", "k.weight", "k.bias"}
    assert torch.equal(2 * model.q.weight, theirs["1.qk.weight"][:4]) and torch.equal(model.k.bias, theirs["0.qk.bias"][4:])


def test_an_alias_of_several_weights_that_differs_is_refused():
    theirs = twice()
    theirs["1.qk.weight"][5, 0] += 0.5
    d = refused(archdsl.loads(TWICE).build(), theirs)
    assert d.message.endswith("1 unequal") and "1.qk.weight should repeat 0.qk.weight" in d.notes[0]
    assert d.help == ("`strict = False` imports what fits",), "no other variant has them"


def test_nan_equals_nan_in_an_alias(spec):
    theirs = foreign(tie=True)
    theirs["embed.weight"][0, 0] = theirs["head.weight"][0, 0] = float("nan")
    import_weights(spec.build(tie=True), theirs, source="hf")


# ---------------------------------------------------------------- the model
def test_the_origin_travels_with_copies_pickles_and_compiled_models(spec):
    theirs = foreign()
    model = spec.build("small", depth=2)
    assert repr(model.archdsl) == "Origin(<text>:Net.small, depth=2)" and model.archdsl.graph.hash == model.typed.hash
    x = torch.randn(3, 8)
    expected = None
    compiled: Any = torch.compile(model, backend="eager")
    for m in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), compiled, torch.nn.DataParallel(model)):
        import_weights(m, theirs, source="hf")
        inner = getattr(m, "_orig_mod", getattr(m, "module", m)).cpu().eval()  # DataParallel takes it to a GPU where there is one
        expected = inner(x) if expected is None else expected
        assert torch.equal(inner(x), expected) and set(export_weights(m, "hf")) == {k for k in theirs if "tracked" not in k}


def test_a_pickled_model_needs_its_spec_no_more(tmp_path):
    file = tmp_path / "net.arch"
    file.write_text(SPEC)
    data = pickle.dumps(archdsl.load(file).build())
    d = refused(pickle.loads(data), foreign(depth=1))
    assert d.help == ("these are the weights of `small`",)
    file.unlink()
    model = pickle.loads(data)
    import_weights(model, foreign(), source="hf")
    assert refused(model, foreign(depth=1)).help == ("`strict = False` imports what fits",)


def test_a_model_without_a_spec():
    for call in (lambda m: import_weights(m, {}), export_weights):
        with pytest.raises(archdsl.ArchError) as caught:
            call(torch.nn.Linear(2, 2))
        assert caught.value.diagnostics[0].code == "A0543"


def test_a_model_without_storage(spec):
    model = spec.build(device="meta")
    with pytest.raises(archdsl.ArchError) as caught:
        import_weights(model, foreign(), source="hf")
    assert caught.value.diagnostics[0].code == "A0543"
    assert {k: tuple(v.shape) for k, v in export_weights(model, "hf").items()}["h.0.fc.weight"] == (8, 8)


def test_a_model_that_was_changed(spec):
    model = spec.build()
    model.layers[0].fc = torch.nn.Identity()
    with pytest.raises(archdsl.ArchError) as caught:
        import_weights(model, foreign(), source="hf")
    assert caught.value.diagnostics[0].code == "A0543"


def test_names_that_the_spec_does_not_have(spec):
    with pytest.raises(archdsl.ArchError) as caught:
        import_weights(spec.build(), foreign(), source="stack")
    (d,) = caught.value.diagnostics
    assert d.code == "A0542" and "did you mean `stacked`?" in d.help[0]


def test_source_may_be_left_out_where_there_is_one(spec):
    with pytest.raises(archdsl.ArchError) as caught:
        import_weights(spec.build(), foreign())
    (d,) = caught.value.diagnostics
    assert d.code == "A0542" and "several names" in d.message and "`hf`, `stacked`" in d.help[0]
    text = 'model Net()(x: [B, 2]) -> y: [B, 2] { param w: [2] = ones()\n return x * w }\nnames mine of Net { "gain" <-> w }'
    model = archdsl.loads(text).build()
    import_weights(model, {"gain": torch.tensor([2.0, 3.0])})
    assert model.w.tolist() == [2, 3] and export_weights(model)["gain"].tolist() == [2, 3]


def test_a_spec_without_names_says_how_to_add_some():
    model = archdsl.loads("model Net(d: int = 2)(x: [B, d]) -> y: [B, d] { param w: [d] = ones()\n return x * w }").build()
    with pytest.raises(archdsl.ArchError) as caught:
        import_weights(model, {"gain": torch.ones(2)})
    assert "`names SOURCE of Net { " in caught.value.diagnostics[0].help[0]


def test_a_module_is_no_state_dict(spec):
    with pytest.raises(TypeError, match=r"not Linear: pass its `\.state_dict\(\)`"):
        import_weights(spec.build(), cast("Any", torch.nn.Linear(2, 2)))
    with pytest.raises(TypeError, match=r"not list$"):
        import_weights(spec.build(), cast("Any", [torch.ones(2)]))


@pytest.mark.parametrize(("value", "said"), [([[1.0]], "of type list"), (2.0, "of type float"), (None, "None")])
def test_what_is_no_tensor_is_no_weight(spec, value, said):
    with pytest.raises(TypeError, match=rf"^`h\.0\.ln\.weight` is {said}, not a tensor"):
        import_weights(spec.build(), {**foreign(), "h.0.ln.weight": value}, source="hf", strict=False)


def test_training_goes_on_after_an_import(spec):
    """Parameters stay the same objects: optimisers and hooks that hold them go on."""
    model = spec.build()
    held = dict(model.named_parameters())
    import_weights(model, foreign(), source="hf")
    assert all(p is held[k] and p.requires_grad for k, p in model.named_parameters())
