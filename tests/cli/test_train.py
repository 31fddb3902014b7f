"""archdsl train: the folder, killing and resuming, groups, tasks of packages, what is wrong."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import archdsl as package
from tests.commands import program

ROOT = Path(__file__).parent.parent.parent
NET = """\
use std.channel { MLP }
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }

model Net(vocab: int = 64, d: int = 8)(tokens: int[B = 1, T = 16] in 0..<vocab) -> logits: [B, T, vocab] stream T {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(2) {
    x = Pre(RMSNorm(), Attention(2, mask = causal, positions = Rope()))(x) as attn
    x = x + dropout(MLP(2 * d)(x) as mlp, 0.2)
  }
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}

variant wide { d = 16 }
"""
IMAGES = """\
use std.linear { Linear }

model Flat(side: int = 8)(image: [B = 1, 1, side, side]) -> logits: [B, 10] {
  return image |> rearrange([B, 1, h, w] -> [B, (h w)]) |> Linear(10) as head
}

model Square()(image: [B = 1, 1, N = 8, N]) -> logits: [B, 10] {
  return image |> reduce([B, c, N, M] -> [B, c], mean) |> Linear(10) as head
}

model Few()(image: [B = 1, 1, H = 8, W = 8]) -> logits: [B, 9] {
  return image |> reduce([B, c, H, W] -> [B, c], mean) |> Linear(9) as head
}

model Two()(image: [B = 1, 1, 8, 8], label: int[B]) -> logits: [B, 10] {
  return image |> reduce([B, c, h, w] -> [B, c], mean) |> Linear(10) as head
}

model Eights()(image: [B = 1, 1, H = 9, W = 9]) -> logits: [B, 10] {
  require H % 9 == 0, "H is a multiple of 9"
  return image |> reduce([B, c, H, W] -> [B, c], mean) |> Linear(10) as head
}
"""
TRAIN = ("train", "net.arch", "--task", "mqar(length = 16, pairs = 3)")


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.arch").write_text(NET)


def test_the_folder(archdsl, net, tmp_path):
    said = archdsl("train", "net.arch:wide", *TRAIN[2:], "--steps", 3, "--batch", 4, "-o", "out", "--group", "(lr = 1e-4) on embed").stdout
    assert said.startswith("out: Net.wide, 3 steps of mqar(vocab = 64, length = 16, pairs = 3, gap = 0.1)\n\nsplit")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"graph.arch", "model.py", "weights.safetensors", "manifest.json",
                                                            "training.safetensors",
                                                              "log.jsonl"}
    rows = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3] and all(r["loss"] > 0 and r["lr"] == 1e-3 for r in rows)
    model = package.open(tmp_path / "out")
    assert model.get_parameter("embed.weight").shape == (64, 16)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["variant"] == "wide" and manifest["spec"] == "net.arch"
    archdsl("cost", "out")
    # compile leaves a training alone
    assert "[A0521]" in archdsl("compile", "net.arch", "-o", "out", code=1).stderr
    # and a training may go on elsewhere, on another task
    data = json.loads(archdsl("train", "out", "--task", "mqar(length = 20)", "--steps", 1, "--batch", 2,
                              "-o", "more", "--json", code=1).stdout or "null")
    assert data is None  # 8 pairs do not fit
    data = json.loads(archdsl("train", "out", "--task", "mqar(length = 24)", "--steps", 1, "--batch", 2, "-o", "more", "--json").stdout)
    assert data["steps"] == 1 and data["task"].startswith("mqar(vocab = 64, length = 24") and set(data["valid"]) == {"loss", "accuracy"}
    assert json.loads((tmp_path / "more/manifest.json").read_text())["spec"] == "net.arch"


def test_nothing_but_the_result_on_a_pipe(net, tmp_path):
    code = "from archdsl import pace\npace.EVERY = float('inf')\nfrom archdsl.cli.main import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, *TRAIN, "--steps", "2", "-o", "out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout


def task_of_a_package(folder: Path, name: str, text: str) -> str:
    """PYTHONPATH for a distribution in that folder whose module has this text, in which a task `name` is."""
    info = folder / "site/demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[archdsl.tasks]\n{name} = demo_tasks\n")
    (folder / "site/demo_tasks.py").write_text(text)
    return f"{ROOT}{os.pathsep}{folder / 'site'}"


HELD = """
import os, signal
from archdsl.tasks import task
from archdsl.tasks.recall import MQAR

@task("held(vocab: int = 64, length: int = 16, pairs: int = 3, gap: float = 0.1)")
class Held(MQAR):
    '''As `mqar`; from the batch on that the environment names, a training gets no more.'''
    def batch(self, split, index, size, seed=0):
        while split == "train" and index >= int(os.environ.get("ARCHDSL_TEST_HELD", "1000")):
            signal.pause()
        return super().batch(split, index, size, seed)
"""


def test_killed_and_resumed(archdsl_process, net, tmp_path, monkeypatch):
    """A process is killed between checkpoints, twice; then weights, optimiser and log are byte for byte those of a training that was not."""
    monkeypatch.setenv("PYTHONPATH", task_of_a_package(tmp_path, "held", HELD))
    how = ("train", "net.arch", "--task", "held", "--steps", 60, "--every", 7, "--batch", 8, "--schedule", "cosine", "--warmup", 5, "--clip", 1,
           "--seed", 3, "--group", "(weight_decay = 0.1) on layers")
    archdsl_process(*how, "-o", "whole")
    log = tmp_path / "killed/log.jsonl"
    for wanted in (17, 33):
        held = {**os.environ, "ARCHDSL_TEST_HELD": str(wanted + 3)}  # it does not end before, however fast it is
        resume = ["--resume"] if (tmp_path / "killed").exists() else []
        process = subprocess.Popen([program(), *map(str, how), "-o", "killed", *resume], cwd=tmp_path, env=held,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 500
        while time.monotonic() < ends and process.poll() is None and not (log.exists() and log.read_text().count("\n") >= wanted):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.read()  # it is at its end when the command is, which is killed behind the program
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert "[A0596]" in archdsl_process(*how, "-o", "killed", "--resume", "--lr", 0.01, code=1).stderr
    archdsl_process(*how, "-o", "killed", "--resume")
    for name in ("weights.safetensors", "training.safetensors", "log.jsonl", "graph.arch", "manifest.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_kernels_are_a_setting(archdsl, net):
    how = (*TRAIN, "--batch", 2, "-o", "out")
    archdsl(*how, "--steps", 1, "--kernels", "reference")
    told = archdsl(*how, "--steps", 2, "--resume", code=1).stderr
    assert "[A0596]" in told and "kernels was reference, and is None" in told
    archdsl(*how, "--steps", 2, "--resume", "--kernels", "reference")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal(net, tmp_path):
    import pty

    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([program(), *TRAIN, "--steps", "5", "-o", "out"], cwd=tmp_path, env=environment,
                               stdout=subprocess.DEVNULL, stderr=side)
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    assert b"5/5" in shown and b"loss" in shown


def test_a_task_of_a_package(net, tmp_path):
    """The entry point is loaded when a name asks for it."""
    path = task_of_a_package(
        tmp_path, "successor", "import torch\nfrom archdsl.tasks import TokenTask, task\n"
        "@task('successor(length: int = 6)')\n"
        "class Successor(TokenTask):\n"
        "    '''The next number.'''\n"
        "    def setup(self):\n        self.tokens(10, self.length)\n"
        "    def batch(self, split, index, size, seed=0):\n"
        "        g = torch.Generator().manual_seed(hash((split == 'train', index, seed)) % 2**32)\n"
        "        tokens = torch.randint(0, 10, (size, self.length), generator=g)\n"
        "        return {'tokens': tokens, 'targets': (tokens + 1) % 10}\n")
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments):
        return subprocess.run([program(), *arguments], env=environment, capture_output=True, text=True, timeout=500, cwd=tmp_path)

    done = run("train", "net.arch", "--task", "successor(length = 8)", "--steps", "150", "--lr", "0.02", "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["valid"]["accuracy"] > 0.9
    assert run("explain", "successor").stdout == "task successor(length: int = 6)\n\nThe next number.\n"
    assert "`successor`" in run("train", "net.arch", "--task", "sucessor", "--steps", "1", "-o", "o").stderr


def test_explain(archdsl):
    page = archdsl("explain", "mqar").stdout
    assert page.startswith("task mqar(vocab: int = 64,") and "arxiv 2312.04927" in page


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("net.arch", "--task", "mqra"), "A0591", "did you mean `mqar`"),
    (("net.arch", "--task", "mqar(pears = 1)"), "A0592", "pairs"),
    (("net.arch", "--set", "vocab=40", "--task", "mqar"), "A0593", "--set vocab=64"),
    (("net.arch", "--task", "characters"), "A0593", "0..255"),
    (("net.arch", "--task", "mqar", "--resume"), "A0594", "no training to resume"),
    (("net.arch", "--task", "mqar", "--group", "(lr = 1) on embeds"), "A0563", "embed"),
    (("net.arch", "--task", "mqar", "--group", "embed"), "A0", ""),
    (("net.arch", "--task", "mqar", "--group", "(rate = 1) on embed"), "A0599", "lr"),
    (("net.arch", "--task", "mqar", "--lr", "-1"), "A0599", "0 or above"),
    (("net.arch", "--task", "mqar", "--device", "gpu"), "A0599", "cpu"),
    (("net.arch", "--task", "mqar", "--lr", "1e30", "--steps", "5"), "A0597", "at step"),
    (("nothing.arch", "--task", "mqar"), "A0621", "nothing.arch"),
])
def test_what_is_wrong(archdsl, net, arguments, code, said):
    text = archdsl("train", *arguments, *(() if "--steps" in arguments else ("--steps", 1)), "-o", "out", code=1).stderr
    assert f"[{code}" in text and said in text


@pytest.mark.parametrize(("model", "task", "said"), [
    ("Flat", "digits(channels = 3)", "axis 1 of `image` has 1 positions, the task's 3"), ("Flat", "digits(size = 16)", "--set side=16"),
    ("Square", "mqar", "holds floats"), ("Few", "digits", "gives scores for 9"), ("Two", "digits", "takes 2 inputs, the task gives 1"),
    ("Eights", "digits", "H is a multiple of 9"),
])
def test_models_that_do_not_fit(archdsl, tmp_path, model, task, said):
    pytest.importorskip("sklearn")
    (tmp_path / "images.arch").write_text(IMAGES)
    text = archdsl("train", f"images.arch:{model}", "--task", task, "--steps", 1, "-o", "out", code=1).stderr
    assert "[A0593]" in text and said in text
    assert not (tmp_path / "out").exists()


def test_models_that_fit(archdsl, tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "images.arch").write_text(IMAGES)
    for model, steps in (("Flat", 60), ("Square", 1)):
        said = archdsl("train", f"images.arch:{model}", "--task", "digits", "--steps", steps, "--lr", 0.02, "-o", model, "--json").stdout
        accuracy = json.loads(said)["valid"]["accuracy"]
        assert model != "Flat" or accuracy > 0.85  # a linear map


def test_a_folder_of_another_form(archdsl, net):
    archdsl("compile", "net.arch", "--form", "step", "-o", "step")
    assert "[A0599]" in archdsl("train", "step", *TRAIN[2:], "--steps", 1, "-o", "out", code=1).stderr


def test_a_ragged_header_trains_on_documents(archdsl, tmp_path):
    """The folder holds the packed form, and training goes on from it."""
    (tmp_path / "net.arch").write_text(NET.replace("T = 16] in", "ragged T = 16] in"))
    said = archdsl("train", "net.arch", "--task", "listops(length = 12)", "--steps", 2, "--batch", 3, "-o", "out").stdout
    assert said.startswith("out: Net, 2 steps of listops(")
    assert package.open(tmp_path / "out")(torch.randint(0, 64, (1, 9)), torch.tensor([4, 5])).shape == (1, 9, 64)
    archdsl("train", "out", "--task", "mqar(length = 16, pairs = 3)", "--steps", 1, "--batch", 2, "-o", "more")
    assert "documents behind each other" in archdsl("train", "net.arch", "--task", "digits", "--steps", 1, "-o", "other", code=1).stderr


def test_folders_that_cannot_be_written(archdsl, net, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("")
    assert "[A0521]" in archdsl(*TRAIN, "--steps", 1, "-o", "theirs", code=1).stderr
    assert "[A0627]" in archdsl(*TRAIN, "--steps", 1, "-o", "/proc/nothing/out", code=1).stderr
    assert os.listdir(tmp_path / "theirs") == ["thesis.txt"]


def test_wrong_usage(archdsl, net):
    assert "--task" in archdsl("train", "net.arch", "--steps", 1, "-o", "out", code=2).stderr
    assert "--steps" in archdsl(*TRAIN, "--steps", 0, "-o", "out", code=2).stderr
    assert "schedule" in archdsl(*TRAIN, "--steps", 1, "-o", "out", "--schedule", "step", code=2).stderr
