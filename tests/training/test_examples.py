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
    first = run(EXAMPLES / "mqar/run.py", "--steps", 2, "--seeds", 1, "--models", "linear", "delta", "--dry", "-o", tmp_path, cwd=tmp_path)
    assert re.search(r"linear +seed 0: \d+\.\d% of the values recalled", first)
    log = (tmp_path / "linear-0/log.jsonl").read_bytes()
    assert run(EXAMPLES / "mqar/run.py", "--steps", 2, "--seeds", 1, "--models", "linear", "delta", "--dry", "-o", tmp_path, cwd=tmp_path) == first
    assert (tmp_path / "linear-0/log.jsonl").read_bytes() == log and log.count(b"\n") == 2


def test_mqar_figures_are_those_of_the_page():
    results = json.loads((EXAMPLES / "mqar/results.json").read_text())["results"]
    page = (EXAMPLES / "mqar/README.md").read_text()
    for runs in results.values():
        assert "| " + " | ".join(f"{r['test']:.1%}" for r in runs) + " |" in page.replace(" %", "%")
    worst = {name: min(r["test"] for r in runs) for name, runs in results.items()}
    best = max(r["test"] for r in results["linear"])
    assert all(len(runs) == 3 for runs in results.values()) and min(worst["softmax"], worst["hybrid"], worst["delta"]) > best


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ConvNet", "ViT"])
def test_digits(tmp_path, model):
    pytest.importorskip("sklearn")
    page = (EXAMPLES / "digits/README.md").read_text()
    command = shlex.split(re.search(r"```sh\narchdsl (.*)\n", page)[1])  # type: ignore[index]
    command = [str(EXAMPLES.parent / c).replace("ConvNet", model) if c.startswith("examples/") else c for c in command]
    found = json.loads(run("-m", "archdsl.cli.main", *command, "--json", cwd=tmp_path))
    assert found["valid"]["accuracy"] > 0.95
