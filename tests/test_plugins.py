"""Entry points: what installed packages add is there when it is asked for, and not before."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PASSES = """from archdsl.passes import equal, graph_pass
print("passes loaded")

@graph_pass("tidy()", contract=equal())
def tidy(edit):
    \"\"\"Takes out activations that follow themselves.\"\"\"
    found = [n for n in edit.selected("relu") if n.args[0].node.op == "relu"]
    if not found:
        raise edit.refuse("no activation follows itself")
    for n in found:
        edit.replace(n.values[0], n.args[0])
"""
OPS = """from archdsl.ops.registry import op
print("ops loaded")

@op("cubed(x: [*s]) -> [*s]", saves=("x",))
def cubed(x):
    \"\"\"x³.\"\"\"
    return x * x * x
"""
POINTS = "[archdsl.passes]\ntidy = demo_passes\n\n[archdsl.ops]\ncubed = demo_ops:cubed\n"
PLAIN = "model M()(x: [B = 1, 4]) -> y: [B, 4] { return x |> relu |> relu }\n"
CUBED = "model M()(x: [B = 1, 4]) -> y: [B, 4] { return x |> cubed |> relu |> relu }\nvariant v { transform tidy() }\n"


@pytest.fixture
def run(tmp_path):
    """`run("check", "plain.arch")` with the package `demo` installed; (exit code, output)."""
    site = tmp_path / "site"
    info = site / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (site / "demo_passes.py").write_text(PASSES)
    (site / "demo_ops.py").write_text(OPS)
    (tmp_path / "plain.arch").write_text(PLAIN)
    (tmp_path / "cubed.arch").write_text(CUBED)

    def run(*arguments: str) -> tuple[int, str]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-m", "archdsl.cli.main", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=500)
        return done.returncode, done.stdout + done.stderr

    return run


def test_nothing_is_loaded_before_it_is_asked_for(run):
    assert run("check", "plain.arch") == (0, "1 file checked: no errors\n")
    code, text = run("explain", "linear")
    assert code == 0 and "loaded" not in text


def test_ops_and_passes_of_a_package(run, tmp_path):
    code, text = run("check", "cubed.arch")
    assert code == 0 and text == "ops loaded\npasses loaded\n1 file checked: no errors\n"
    code, text = run("passes")
    assert code == 0 and "tidy()" in text and "centre(" in text
    assert "x³" in run("ops")[1] and "gradient: exact" in run("explain", "cubed")[1] and "Takes out activations" in run("explain", "tidy")[1]
    code, text = run("compile", "cubed.arch", "--pass", "tidy()", "--check", "-o", "out")
    assert code == 0, text
    assert (tmp_path / "out/graph.arch").read_text().count("relu(") == 1 and "cubed(" in (tmp_path / "out/graph.arch").read_text()


def test_an_unknown_name_stays_unknown(run, tmp_path):
    (tmp_path / "plain.arch").write_text(PLAIN.replace("relu", "cubd"))
    code, text = run("check", "plain.arch")
    assert code == 1 and "error[A0201]" in text and "`cubed`" in text


def test_a_package_that_cannot_be_loaded_is_named(run, tmp_path):
    (tmp_path / "site/demo_passes.py").write_text("import nothing_of_that_name\n")
    code, text = run("passes")
    assert code == 1 and "error[A0570]" in text and "`tidy` of demo" in text and "demo_passes" in text and "Traceback" not in text


def test_a_package_that_cannot_be_loaded_is_named_each_time(monkeypatch):
    from importlib import metadata

    from archdsl import ArchError, plugins

    point = metadata.EntryPoint("broken", "no_module_of_that_name", "archdsl.tests")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    for _ in range(2):
        with pytest.raises(ArchError, match="`broken`"):
            plugins.load_group("archdsl.tests")


def test_what_is_registered_apart_is_gone_afterwards():
    from archdsl.search.registry import STRATEGIES, strategy

    before = dict(STRATEGIES.every())
    with STRATEGIES.apart():
        strategy("stroll()")(type("Stroll", (), {}))
        assert STRATEGIES.find("stroll") is not None and "stroll" not in STRATEGIES.own()
        with pytest.raises(ValueError, match="a strategy called stroll already"):
            strategy("stroll()")(type("Stroll", (), {}))
    assert before == dict(STRATEGIES) and STRATEGIES.find("stroll") is None
