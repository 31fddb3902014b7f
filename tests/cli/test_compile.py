"""archdsl compile: the folder, what is in it, and that the numbers stay the same on every way back."""
from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import archdsl as package
from archdsl.diagnostics.model import ArchError

SPEC = """\
use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

model Stack(d: int = 4, depth: int = 2) (x: [B = 2, N = 3, d]) -> y: [B, N, d] {
  layers: for i in range(depth) {
    x = Pre(LayerNorm(), MLP(hidden = 2 * d))(x) as mlp
  }
  return x |> Linear(d) as head
}

variant wide { d = 8 }

names other of Stack {
  "blocks.{i}.ln.*" <-> layers.{i}.mlp.norm.*
  "blocks.{i}.{fc1, fc2}.*" <-> layers.{i}.mlp.{up, down}.*
  "out.*" <-> head.*
}
"""
X = torch.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8)


@pytest.fixture
def out(archdsl, tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC)
    archdsl("compile", "stack.arch:wide", "--seed", 3, "-o", "out")
    return tmp_path / "out"


def value(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(X)


def test_folder(archdsl, out, tmp_path):
    assert sorted(p.name for p in out.iterdir()) == ["graph.arch", "manifest.json", "model.py", "names.json", "weights.safetensors"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["model"], manifest["variant"], manifest["seed"]) == ("Stack", "wide", 3)
    built = package.load(tmp_path / "stack.arch").build("wide", seed=3)
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in load_file(out / "weights.safetensors").items())
    assert torch.equal(value(package.open(out)), value(built))
    archdsl("check", "out")
    archdsl("fmt", "--check", "out/graph.arch")
    assert json.loads(archdsl("cost", "out", "--json").stdout)["params"] == manifest["params"]


def test_a_folder_compiled_again_keeps_names_and_spec(archdsl, out, tmp_path):
    archdsl("compile", "out", "-o", "again")
    for name in ("names.json", "manifest.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize("more", [(), ("--pass", "bake"), ("-o", "o"), ("--pass", "bake", "-o", "o")])
def test_forms_that_it_has_not(archdsl, tmp_path, more):
    (tmp_path / "stack.arch").write_text(SPEC)
    assert "A0501" in archdsl("compile", "stack.arch", "--form", "step", *more, code=1).stderr
    assert [p.name for p in tmp_path.iterdir()] == ["stack.arch"]


def test_model_py_needs_torch_alone(out):
    """A process in which archdsl cannot be imported loads and runs it."""
    code = f"""
import sys, importlib.abc, torch
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] == 'archdsl': raise ImportError('archdsl is not needed here')
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {str(out)!r})
from model import Stack
from safetensors.torch import load_file
model = Stack()
model.load_state_dict(load_file({str(out / 'weights.safetensors')!r}))
x = torch.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8)
torch.save(model.eval()(x).detach(), {str(out.parent / 'y.pt')!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(out.parent / "y.pt"), value(package.open(out)), rtol=0, atol=0)


def test_again_from_the_folder_keeps_the_weights(archdsl, out):
    archdsl("compile", "out", "-o", "again")
    assert torch.equal(value(package.open(out)), value(package.open(out.parent / "again")))
    first, again = (json.loads((out.parent / folder / "manifest.json").read_text()) for folder in ("out", "again"))
    assert first["graph_hash"] == again["graph_hash"]


@pytest.mark.parametrize("names", ["", "@other"])
def test_weights_from_a_file(archdsl, out, names):
    """Under the model's own names or under those of a `names` block."""
    source = {name: torch.randn(value.shape, generator=torch.Generator().manual_seed(i)) for i, (name, value) in
              enumerate(load_file(out / "weights.safetensors").items())}
    foreign = {}
    for name, tensor in source.items():
        for ours, theirs in (("layers.", "blocks."), ("mlp.norm", "ln"), ("mlp.up", "fc1"), ("mlp.down", "fc2"), ("head", "out")):
            name = name.replace(ours, theirs)
        foreign[name] = tensor
    save_file(foreign if names else source, out.parent / "w.safetensors")
    archdsl("compile", "stack.arch:wide", "--weights", f"w.safetensors{names}", "-o", "loaded")
    written = load_file(out.parent / "loaded" / "weights.safetensors")
    assert written.keys() == source.keys() and all(torch.equal(written[k], source[k]) for k in source)


def test_weights_that_do_not_fit(archdsl, out):
    save_file({"head.weight": torch.zeros(3, 3)}, out.parent / "w.safetensors")
    for names in ("", "@other"):
        told = archdsl("compile", "stack.arch:wide", "--weights", f"w.safetensors{names}", "-o", "loaded", code=1).stderr
        assert "error[A05" in told and (names or "`FILE@other`" in told)
        assert not (out.parent / "loaded").exists()


def test_printed_without_a_folder(archdsl, tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC)
    text = archdsl("compile", "stack.arch", "--set", "depth=1").stdout
    compile(text, "model.py", "exec", dont_inherit=True)
    assert "import torch" in text and "import archdsl" not in text and "from archdsl" not in text


@pytest.mark.parametrize(("folder", "code"), [
    ("/proc/absent", "A0627"), ("/dev/null/out", "A0627"), ("/dev/null", "A0521"), ("stack.arch/out", "A0627")])
def test_folders_that_cannot_be_written(archdsl, tmp_path, folder, code):
    (tmp_path / "stack.arch").write_text(SPEC)
    assert f"error[{code}]" in archdsl("compile", "stack.arch", "-o", folder, code=1).stderr
    assert (tmp_path / "stack.arch").read_text() == SPEC


def test_text_without_quotes(archdsl, tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC.replace("depth: int = 2", 'depth: int = 2, kind: str = "one"'))
    assert """`--set 'ADDRESS="CA"'`""" in archdsl("compile", "stack.arch", "--set", "kind=CA", code=1).stderr
    assert archdsl("compile", "stack.arch", "--set", 'kind="CA"').stdout


def test_foreign_folders_are_left_alone(archdsl, tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    assert "A0521" in archdsl("compile", "stack.arch", "-o", "mine", code=1).stderr
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


@pytest.mark.slow
def test_exports(archdsl, out):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    archdsl("compile", "out", "--export", "--onnx", "-o", "exported")
    wanted = value(package.open(out))
    program = torch.export.load(out.parent / "exported" / "model.pt2").module()
    torch.testing.assert_close(program(X), wanted)
    torch.testing.assert_close(program(X[:1, :2]), wanted[:1, :2])
    session = onnxruntime.InferenceSession(out.parent / "exported" / "model.onnx")
    (y,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    torch.testing.assert_close(torch.as_tensor(y), wanted, rtol=1e-4, atol=1e-5)


def test_module_is_found_by_its_path(out):
    """`model.py` can also be loaded as any file is."""
    found = importlib.util.spec_from_file_location("compiled", out / "model.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert issubclass(module.Stack, torch.nn.Module)


def test_folders_of_other_versions(out):
    manifest = json.loads((out / "manifest.json").read_text())
    for change in ({"language": "99.0.0"}, {"graph_hash": "0"}):
        (out / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ArchError, match="A0522"):
            package.open(out)


def test_onnx_needs_its_packages(out, monkeypatch):
    from archdsl.store import compile_to

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ArchError, match="A0523"):
        compile_to(out.parent / "exported", package.load(out / "graph.arch"), onnx=True)
    assert not (out.parent / "exported").exists()


def test_the_folder_keeps_its_kernels(archdsl, tmp_path):
    """What a folder was compiled with is what it is opened with, unless something else is said; a kernel of another device is refused."""
    (tmp_path / "scan.arch").write_text("model Net(d: int = 4)(q: [B, T, 2, d], k: [B, T, 2, d], v: [B, T, 2, d]) -> y: [B, T, 2, d] {\n"
                                        "  return linear_attention(q, k, v)\n}\n")
    archdsl("compile", "scan.arch", "--kernels", "reference", "-o", "out")
    archdsl("compile", "scan.arch", "--kernels", "linear_attention=reference", "-o", "one")
    archdsl("compile", "scan.arch", "-o", "free")
    kept = [json.loads((tmp_path / f / "manifest.json").read_text())["kernels"] for f in ("out", "one", "free")]
    assert kept == ["reference", {"linear_attention": "reference"}, None]
    asked = [package.open(tmp_path / f).code.count('"reference"') for f in ("out", "one", "free")]
    assert asked == [1, 1, 0] and package.open(tmp_path / "out", kernels="auto").code.count('"reference"') == 0
