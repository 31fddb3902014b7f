"""The trainings in examples/ run as their pages say; the one that takes a minute reaches what it says."""
from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(*command, cwd):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mqar_goes_on_where_it_was(tmp_path):
    command = (EXAMPLES / "mqar/run.py", "--steps", 2, "--seeds", 1, "--models", "linear", "--dry", "-o", tmp_path)
    first = run(*command, cwd=tmp_path)
    assert re.search(r"linear +seed 0: \d+\.\d% of the values recalled", first)
    log = (tmp_path / "linear-0/log.jsonl").read_bytes()
    assert run(*command, cwd=tmp_path) == first
    assert (tmp_path / "linear-0/log.jsonl").read_bytes() == log and log.count(b"\n") == 2


def test_mqar_figures_are_those_of_the_page():
    results = json.loads((EXAMPLES / "mqar/results.json").read_text())["results"]
    page = (EXAMPLES / "mqar/README.md").read_text()
    for runs in results.values():
        assert "| " + " | ".join(f"{r['test']:.1%}" for r in runs) + " |" in page.replace(" %", "%")
    worst = {name: min(r["test"] for r in runs) for name, runs in results.items()}
    best = max(r["test"] for r in results["linear"])
    assert all(len(runs) == 3 for runs in results.values()) and min(worst["softmax"], worst["hybrid"], worst["delta"]) > best


def test_vit_resnas_figures_are_those_of_the_page():
    found = json.loads((EXAMPLES / "vit_resnas/results.json").read_text())
    page = (EXAMPLES / "vit_resnas/README.md").read_text()
    for strategy, runs in found["strategies"].items():
        assert f"| `{strategy}` | " + " | ".join(f"{r['hypervolume']:.3f}" for r in runs) + " |" in page
    for strategy, own in found["winners"].items():
        inherited, scratch = ([w[k] for w in own] for k in ("inherited", "scratch"))
        cells = (", ".join(f"{v['loss']:.4f}" for v in inherited), ", ".join(f"{v['loss']:.3f}" for v in scratch),
                 ", ".join(f"{v['accuracy']:.1%}" for v in scratch))
        assert f"| `{strategy}` | " + " | ".join(cells) + " |" in page
        assert all(3_510_000 <= w["macs"] <= 3_600_000 for w in own) and len(own) == 3


TINY = {
    "simq": (("--steps", 2, "--budget", 6, "--seeds", 1), ("architecture and bits: hypervolume", "predictors trained on 3 candidates")),
    "slimming": (("--steps", 2, "--others", 1, "--seeds", 1, "--targets", 0.6), ("the largest", "slimmed: widths", "random: widths", "| 60% |")),
    "vit_resnas": (("--steps", 4, "--budget", 4, "--seeds", 1), ("supernet: 4 steps", "evolution(", "trained from scratch")),
}
"""Of the examples that search on a supernet's weights: settings that show no result, and what is printed to the end."""


@pytest.mark.proof
@pytest.mark.parametrize("name", TINY)
def test_searches_on_a_supernet_run_to_their_end(tmp_path: Path, name: str):
    pytest.importorskip("sklearn")
    how, said = TINY[name]
    written = run(EXAMPLES / name / "run.py", *how, "--dry", "-o", tmp_path / "out", cwd=tmp_path)
    assert all(s in written for s in said), written
    assert not list(tmp_path.glob("*.svg")) and not list(tmp_path.glob("*.json"))


@pytest.mark.proof
@pytest.mark.parametrize("model", ["ConvNet", "ViT"])
def test_digits(tmp_path, model):
    pytest.importorskip("sklearn")
    page = (EXAMPLES / "digits/README.md").read_text()
    command = shlex.split(re.search(r"```sh\narchdsl (.*)\n", page)[1])  # type: ignore[index]
    command = [str(EXAMPLES.parent / c).replace("ConvNet", model) if c.startswith("examples/") else c for c in command]
    found = json.loads(run("-m", "archdsl.cli.main", *command, "--json", cwd=tmp_path))
    assert found["valid"]["accuracy"] > 0.95
