"""A full disk, Ctrl-C, files that are none: a clean end with a message, and nothing that is half written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands import program

SPEC = """use std.linear { Linear }
model Net(d: int = 64)(x: [B = 1, T = 4, d]) -> y: [B, T, d] { return x |> Linear(d) as one |> relu |> Linear(d) as two }
variant small { d = 8 }
"""
UGLY = "model   M()(x:[B,8])->y:[B,8]{return rellu(x)}\n" + "# a comment\n" * 2000


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.arch").write_text(SPEC)
    (tmp_path / "ugly.arch").write_text(UGLY)
    (tmp_path / "mine.py").write_text("import torch\ndef made(): return torch.nn.Linear(100, 100), (torch.zeros(2, 100),)\n")
    return tmp_path


def contents(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in str(p)}


def limited(most: int, arguments, folder) -> subprocess.CompletedProcess[str]:
    """A process whose files take `most` bytes and no more."""
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder.parent)}
    return subprocess.run([program(), *arguments], capture_output=True, text=True, cwd=folder, env=environment,
                          preexec_fn=limit)


@pytest.mark.parametrize(("most", "arguments"), [
    (100, "new fresh"), (100, "fmt ugly.arch"), (100, "check --fix ugly.arch"), (100, "graph net.arch -o net.html"),
    (100, "diff net.arch net.arch:small -o net.html"), (100, "compile net.arch -o out"), (20_000, "compile net.arch -o out"),
    (20_000, "compile net.arch -o kept"), (40_000, "compile net.arch --export -o out"), (20_000, "import mine:made -o out")])
def test_a_full_disk(archdsl, folder, most, arguments):
    archdsl("compile", "net.arch:small", "-o", "kept")
    before = contents(folder)
    done = limited(most, arguments.split(), folder)
    told = done.stdout + done.stderr
    assert done.returncode == 1 and told.startswith("error[A0627]: ") and "file too large" in told, (done.returncode, told[-2000:])
    assert contents(folder) == before and {p.name for p in folder.iterdir()} <= {"net.arch", "ugly.arch", "mine.py", "kept", "__pycache__"}


@pytest.mark.parametrize("out", [pytest.param("out", marks=pytest.mark.proof), "kept"])
def test_ctrl_c_in_the_middle_of_writing(archdsl, folder, out):
    archdsl("compile", "net.arch:small", "-o", "kept")
    before = contents(folder)
    code = f"""
import os, signal, sys
from archdsl import store
from archdsl.cli.main import run
write = store._write
store._write = lambda folder, *rest: (write(folder, *rest), os.kill(os.getpid(), signal.SIGINT), signal.pause())
sys.argv[1:] = ["compile", "net.arch", "-o", {out!r}]
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert contents(folder) == before and {p.name for p in folder.iterdir()} == {"net.arch", "ugly.arch", "mine.py", "kept"}


def test_a_folder_that_only_reads(archdsl, folder):
    (folder / "locked").mkdir()
    (folder / "locked" / "net.arch").write_text(SPEC.replace("model ", "model   "))
    (folder / "locked").chmod(0o555)
    try:
        if os.access(folder / "locked", os.W_OK):
            pytest.skip("root writes everywhere")
        for line in ("new locked/a", "fmt locked/net.arch", "graph net.arch -o locked/a.html", "compile net.arch -o locked/a",
                     "diff net.arch net.arch:small -o locked/a.html"):
            assert "error[A0627]" in archdsl(*line.split(), code=1).stderr
    finally:
        (folder / "locked").chmod(0o755)


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", "\xff", "[1]", "null", '"a"'])
def test_json_that_is_none(archdsl, folder, text):
    (folder / "x.json").write_text(text, encoding="latin-1")
    for option in ("--decisions=x.json", "--table=x=x.json"):
        told = archdsl("compile", "net.arch", "--pass", "bake()", option, code=1).stderr
        assert "error[A0568]" in told and len(told) < 2000
    archdsl("compile", "net.arch", "-o", "out")
    for name in ("manifest.json", "names.json"):
        kept = (folder / "out" / name).read_bytes() if name == "manifest.json" else b"{}"
        (folder / "out" / name).write_text(text, encoding="latin-1")
        assert "error[A05" in archdsl("compile", "out", "-o", "again", code=1).stderr
        (folder / "out" / name).write_bytes(kept)
    assert not (folder / "again").exists()


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")
def test_json_without_an_end(archdsl, folder, monkeypatch):
    monkeypatch.setattr("archdsl.files.JSON_LIMIT", 1_000_000)
    assert "more than 1,000,000 bytes" in archdsl("compile", "net.arch", "--table", "x=/dev/zero", code=1).stderr


def test_weights_that_no_tensor_holds(archdsl, folder):
    for more in ((), ("-o", "out")):
        assert "error[A0602]" in archdsl("compile", "net.arch", "--set", "d=2**40", *more, code=1).stderr


def test_weights_of_another_kind(archdsl, folder):
    archdsl("compile", "net.arch", "-o", "out")
    path = folder / "out" / "weights.safetensors"
    good, bytes_ = load_file(path), path.read_bytes()
    for broken in (b"", b"\xff" * 100, bytes_[:-50]):
        path.write_bytes(broken)
        assert "error[A06" in archdsl("compile", "out", "-o", "again", code=1).stderr
    for state in ({"a": torch.zeros(2)}, {k: v[:1].contiguous() for k, v in good.items()}):
        save_file(state, path)
        assert "error[A05" in archdsl("compile", "out", "-o", "again", code=1).stderr
    assert not (folder / "again").exists()


@pytest.mark.parametrize(("body", "code"), [
    ("raise SystemExit(5)", "A0555"), ("return 1", "A0555"), ("return torch.nn.Linear(3, 3), (torch.zeros(2, 3),), 5", "A0554"),
    ("return torch.nn.Linear(3, 3), (torch.zeros(2, 3),), {'B': 0}", "A0554"), ("return torch.nn.Linear(3, 3), (torch.zeros(2, 4),)", "A0550"),
    ("return torch.nn.Linear(3, 3), (torch.zeros(2, 3),), {'input': 1}", "A0554"), ("return torch.nn.Linear(3, 3), 5", "A055")])
def test_imports_that_fail(archdsl, folder, body, code):
    (folder / "theirs.py").write_text(f"import torch\ndef f():\n    {body}\n")
    sys.modules.pop("theirs", None)
    sys.path_importer_cache.clear()
    try:
        assert f"error[{code}" in archdsl("import", "theirs:f", "-o", "out", code=1).stderr
    finally:
        sys.modules.pop("theirs", None)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("module", ["archdsl.diagnostics.model", "archdsl.cli.shell", "archdsl.elaborate.model"])
def test_ctrl_c_while_modules_are_loaded(module: str, tmp_path: Path):
    (tmp_path / "m.arch").write_text("model M()(x: [B, 8]) -> y: [B, 8] { return relu(x) }\n")
    program = f"""
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["archdsl", "cost", "m.arch"]
from archdsl.cli.main import run
run()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_folder_that_is_gone(tmp_path: Path):
    (tmp_path / "gone").mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['archdsl', 'check', 'm.arch']; from archdsl.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "gone", capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 1 and "error[A0623]: the current folder is not there any more" in done.stderr
