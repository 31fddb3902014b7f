"""`compile -o`: each artefact is read back and gives the same numbers; nothing is left half-written."""
from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.inputs import sample_inputs
from archdsl.store import FILES, compile_to

CASES = {
    "llama": ("specs/language/llama.arch", "tiny", {}),
    "gpt2": ("specs/language/gpt2.arch", None, dict(vocab=50, d=32, depth=2, heads=2, context=16)),
    "vit": ("specs/vision/vit.arch", None, dict(d=32, heads=2, depth=2, side=32, classes=7)),
    "convnext": ("specs/vision/convnext.arch", None, dict(widths=[16, 24, 32, 40], depths=[1, 1, 2, 1], classes=5)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = {}
    for name, (path, variant, knobs) in CASES.items():
        out[name] = tmp_path_factory.mktemp("compiled") / name
        compile_to(out[name], archdsl.load(path), variant, knobs, seed=3, export=name in ("llama", "vit"), onnx=name in ("llama", "convnext"))
    return out


def original(name):
    path, variant, knobs = CASES[name]
    spec = archdsl.load(path)
    made = spec.elaborate(variant, knobs)
    return spec.build(variant, seed=3, knobs=knobs).eval(), made


@pytest.mark.parametrize("name", CASES)
def test_open_gives_the_model_back(name, folders):
    assert all((folders[name] / f).exists() for f in FILES)
    model, made = original(name)
    xs = sample_inputs(made, made.example_sizes(small=True), seed=1)
    torch.testing.assert_close(archdsl.open(folders[name]).eval()(*xs), model(*xs), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "source"), [("llama", "hf"), ("gpt2", "hf"), ("vit", "timm"), ("convnext", "timm")])
def test_a_folder_knows_the_foreign_names(name, source, folders):
    """What the opened model exports is what the built one does, joined and transposed weights included."""
    opened, (model, _) = archdsl.open(folders[name]), original(name)
    theirs = archdsl.export_weights(model, source=source)
    ours = archdsl.export_weights(opened, source=source)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    with torch.no_grad():
        for p in opened.parameters():
            p.zero_()
    archdsl.import_weights(opened, theirs, source=source)
    assert all(torch.equal(a, b) for a, b in zip(opened.state_dict().values(), model.state_dict().values()))


def test_flat_python_is_one_class(tmp_path, folders):
    path, variant, knobs = CASES["llama"]
    compile_to(tmp_path / "flat", archdsl.load(path), variant, knobs, seed=3, flat=True)
    text = (tmp_path / "flat" / "model.py").read_text()
    assert text.count("class ") == 1
    namespace: dict = {}
    exec(text, namespace)
    flat = namespace["Llama"]().eval()
    flat.load_state_dict(load_file(tmp_path / "flat" / "weights.safetensors"))
    model, made = original("llama")
    xs = sample_inputs(made, made.example_sizes(small=True), seed=1)
    torch.testing.assert_close(flat(*xs), model(*xs), rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_model_py_needs_torch_alone(name, folders):
    text = (folders[name] / "model.py").read_text()
    assert "archdsl" not in text.split('"""', 2)[2]
    spec = importlib.util.spec_from_file_location(f"model_{name}", folders[name] / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, made = original(name)
    plain = getattr(module, made.graph.name)().eval()
    plain.load_state_dict(load_file(folders[name] / "weights.safetensors"))
    xs = sample_inputs(made, made.example_sizes(small=True), seed=1)
    torch.testing.assert_close(plain(*xs), model(*xs), rtol=1e-6, atol=1e-6)


def test_model_py_is_clean(folders):
    for name in CASES:
        ruff = [sys.executable, "-m", "ruff", "check", "--select", "E,F", "--ignore", "E501,E741"]
        found = subprocess.run([*ruff, str(folders[name] / "model.py")], capture_output=True, text=True)
        if "No module named ruff" in found.stderr:
            pytest.skip("ruff is in the `lint` extra")
        assert found.returncode == 0, found.stdout


def test_the_exported_program_takes_other_sizes(folders):
    model, _ = original("llama")
    program = torch.export.load(folders["llama"] / "model.pt2").module()
    for b, t in ((1, 2), (3, 9)):
        x = torch.randint(0, 512, (b, t))
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_onnx_runtime_agrees(folders):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the `onnx` extra")
    for name, sizes in (("llama", ({"B": 2, "T": 5}, {"B": 3, "T": 8})), ("convnext", ({"B": 1, "H": 64, "W": 64}, {"B": 2, "H": 96, "W": 64}))):
        model, made = original(name)
        session = runtime.InferenceSession(str(folders[name] / "model.onnx"))
        for s in sizes:
            xs = sample_inputs(made, s, seed=2)
            got = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), xs)})[0]
            torch.testing.assert_close(torch.from_numpy(got), model(*xs).detach(), rtol=1e-3, atol=1e-4)


def test_weights_of_another_model_are_imported(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2)).eval()
    compile_to(tmp_path / "g", archdsl.load(CASES["gpt2"][0]), None, CASES["gpt2"][2], weights=peer.state_dict(), source="hf")
    x = torch.arange(9)[None]
    torch.testing.assert_close(archdsl.open(tmp_path / "g").eval()(x), peer(x).logits, rtol=1e-4, atol=1e-5)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(ArchError) as e:
        compile_to(tmp_path / "mine", archdsl.load(CASES["llama"][0]), "tiny")
    assert e.value.diagnostics[0].code == "A0521" and [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("files", [{"manifest.json": '{"name": "a web page"}'}, {"manifest.json": "["}, {"manifest.json": None, "thesis.tex": "…"}])
def test_a_manifest_alone_does_not_make_a_folder_ours(tmp_path, files):
    spec, ours = archdsl.load(CASES["llama"][0]), tmp_path / "ours"
    compile_to(ours, spec, "tiny")
    (tmp_path / "mine").mkdir()
    for name, text in files.items():
        (tmp_path / "mine" / name).write_text((ours / name).read_text() if text is None else text)
    with pytest.raises(ArchError) as e:
        compile_to(tmp_path / "mine", spec, "tiny")
    assert e.value.diagnostics[0].code == "A0521" and {p.name for p in (tmp_path / "mine").iterdir()} == set(files)
    compile_to(ours, spec, "tiny")


def test_nothing_is_left_when_it_fails(tmp_path, monkeypatch):
    import archdsl.store as store

    monkeypatch.setattr(store, "_write", lambda *a: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(ArchError, match="no space left") as e:
        compile_to(tmp_path / "out", archdsl.load(CASES["llama"][0]), "tiny")
    assert e.value.diagnostics[0].code == "A0627" and list(tmp_path.iterdir()) == []


def test_the_old_folder_stays_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    import archdsl.store as store

    spec, out = archdsl.load(CASES["llama"][0]), tmp_path / "out"
    compile_to(out, spec, "tiny", seed=1)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    real = store.os.replace

    def replace(a, b):
        if str(b) == str(out) and not str(a).endswith("old"):
            raise OSError("device is gone")
        real(a, b)

    monkeypatch.setattr(store.os, "replace", replace)
    with pytest.raises(ArchError, match="device is gone"):
        compile_to(out, spec, "tiny", seed=2)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before and list(tmp_path.iterdir()) == [out]
    monkeypatch.undo()
    compile_to(out, spec, "tiny", seed=2)
    assert (out / "weights.safetensors").read_bytes() != before["weights.safetensors"] and list(tmp_path.iterdir()) == [out]


def test_a_link_stays_a_link(tmp_path):
    spec, out, link = archdsl.load(CASES["llama"][0]), tmp_path / "real", tmp_path / "link"
    link.symlink_to(out)  # dangling at first
    for seed in (1, 2):
        compile_to(link, spec, "tiny", seed=seed)
        assert link.is_symlink() and json.loads((out / "manifest.json").read_text())["seed"] == seed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_a_folder_compiled_again_tells_of_the_same_spec(tmp_path, folders):
    from archdsl.passes.model import Passing
    from archdsl.passes.step import Step
    from archdsl.store import open_spec

    first = folders["gpt2"]
    spec, manifest = open_spec(first)
    again = compile_to(tmp_path / "again", spec, weights=load_file(first / "weights.safetensors"), again=first)
    assert again == manifest and again.spec == "gpt2.arch"
    for f in ("names.json", "weights.safetensors"):
        assert (tmp_path / "again" / f).read_bytes() == (first / f).read_bytes()
    passed = compile_to(tmp_path / "passed", spec, weights=load_file(first / "weights.safetensors"), again=first,
                        passes=Passing((Step.parse("centre"),)))
    assert passed.spec == "gpt2.arch" and archdsl.open(tmp_path / "passed").archdsl.names == {}
    assert list(json.loads((tmp_path / "passed" / "names.json").read_text())["hf"]) == ["prevented"]  # and by which step
    baked = compile_to(tmp_path / "baked", spec, weights=load_file(first / "weights.safetensors"), again=first, passes=Passing((Step.parse("bake"),)))
    assert "names.json" in baked.exports and (tmp_path / "baked/names.json").read_bytes() == (first / "names.json").read_bytes()


WEIGHED = """use std.linear { Linear }
use std.norm { LayerNorm }

model Net(d: int = 4)(x: [B = 1, d]) -> y: [B, d] {
  param gain: [d] = ones()
  return (2 * gain) * (x |> Linear(d, bias = false) as map |> LayerNorm() as norm |> Linear(d) as head)
}

variant plain { transform bake() }

names other of Net {
  "g" <-> gain
  "map" <-> map.weight
  "norm.*" <-> norm.*
  "head.*" <-> head.*
}
"""


def test_foreign_names_stay_until_a_step_changes_weights(tmp_path):
    """`bake` writes `2 * gain` in the place of `gain`, whose shape it keeps: under the foreign name it would mean something else."""
    from archdsl.passes.contract import bits
    from archdsl.passes.model import Passing
    from archdsl.passes.registry import PASSES, graph_pass
    from archdsl.passes.step import Step

    @graph_pass("keep_all_weights()", contract=bits())
    def keep_all_weights(edit):
        """Renames nothing and changes nothing."""

    try:
        spec = archdsl.loads(WEIGHED)
        kept = compile_to(tmp_path / "kept", spec, passes=Passing((Step.parse("keep_all_weights()"),)))
        assert kept.exports == ["names.json"] and len(archdsl.open(tmp_path / "kept").archdsl.names["other"].entries) == 6
    finally:
        PASSES.pop("keep_all_weights")
    compile_to(tmp_path / "plain", spec, "plain")
    for plain in (archdsl.open(tmp_path / "plain"), spec.build("plain")):
        assert plain.archdsl.names == {} and plain.archdsl.prevented["other"].step == "bake()"
    assert set(spec.build().archdsl.names) == {"other"}


def test_a_folder_compiled_again_keeps_its_element_type(tmp_path):
    from archdsl.store import open_spec

    compile_to(tmp_path / "a", archdsl.load(CASES["llama"][0]), "tiny", dtype=torch.float64)
    compile_to(tmp_path / "b", open_spec(tmp_path / "a")[0], weights=load_file(tmp_path / "a/weights.safetensors"), again=tmp_path / "a")
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()


def _rewrite(path, change):
    path.write_text(change(path.read_text()))


def _reweigh(folder, change):
    path = folder / "weights.safetensors"
    save_file({k: change(k, v).contiguous() for k, v in load_file(path).items()}, path)


def test_a_folder_is_opened_on_a_device(folders):
    assert {t.device.type for t in archdsl.open(folders["vit"], device="meta").state_dict().values()} == {"meta"}
    assert {t.device.type for t in archdsl.open(folders["vit"], device=None).state_dict().values()} == {"cpu"}
    with pytest.raises(ArchError, match="A0518"):
        archdsl.open(folders["vit"], device="nope")


@pytest.mark.parametrize(("spoil", "code"), [
    (lambda d: (d / "graph.arch").unlink(), "A0520"),
    (lambda d: (d / "manifest.json").write_text("{"), "A0520"),
    (lambda d: (d / "weights.safetensors").write_bytes(b"nothing"), "A0520"),
    (lambda d: (d / "names.json").write_text('{"hf": 3}'), "A0520"),
    (lambda d: _rewrite(d / "graph.arch", lambda t: t.replace("rms_norm(x, weight)", "rms_norm(x, weight, eps = 0.1)")), "A0522"),
    (lambda d: _rewrite(d / "manifest.json", lambda t: json.dumps({**json.loads(t), "language": "9.9.9"})), "A0522"),
    (lambda d: _rewrite(d / "manifest.json", lambda t: json.dumps({**json.loads(t), "dtype": "nope"})), "A0644"),
    (lambda d: _reweigh(d, lambda k, v: v[..., :-1] if k == "embed.weight" else v), "A0520"),
    (lambda d: _reweigh(d, lambda k, v: v.to(torch.int8)), "A0520"),
])
def test_spoilt_folders_are_named(tmp_path, spoil, code):
    compile_to(tmp_path / "out", archdsl.load(CASES["llama"][0]), "tiny")
    spoil(tmp_path / "out")
    with pytest.raises(ArchError) as e:
        archdsl.open(tmp_path / "out")
    assert e.value.diagnostics[0].code == code


def test_a_spec_is_no_folder(tmp_path):
    (tmp_path / "own.arch").write_text("model M()(x: [B, 2]) -> y: [B, 2] { return x }\n")
    with pytest.raises(ArchError, match=r"own\.arch is a spec, without weights") as e:
        archdsl.open(tmp_path / "own.arch")
    assert "archdsl.load(" in e.value.diagnostics[0].help[0]


def test_an_exported_program_takes_the_sizes_that_vary(tmp_path):
    """Its example leaves no tensor inside with an axis of 1, which torch.export takes for fixed."""
    (tmp_path / "halved.arch").write_text("""use std { Attention, Conv }

model Halved(d: int = 8)(image: [B = 1, 3, H = 32, W = 32]) -> y: [B, d, _, _] {
  x = image |> Conv(d, 4, stride = 4) as stem
  return under(x, [B, c, h, w] -> [B, (h w), c], Attention(2) as attn)
}
""")
    compile_to(tmp_path / "out", archdsl.load(tmp_path / "halved.arch"), export=True)
    model, program = archdsl.open(tmp_path / "out").eval(), torch.export.load(tmp_path / "out" / "model.pt2").module()
    for shape in ((1, 3, 32, 32), (2, 3, 65, 9), (3, 3, 8, 64)):
        image = torch.randn(shape)
        torch.testing.assert_close(program(image), model(image))
