"""The searches in examples/: the command of each page, at a tiny size; what it finds is checked, and the report is written."""
from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from archdsl.spec import check_file
from tests.cli.conftest import archdsl

__all__ = ["archdsl"]  # the fixture
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def commands(name: str) -> list[list[str]]:
    """The commands on an example's page, without the program's name; `cd` as it is."""
    page = (EXAMPLES / name / "README.md").read_text()
    lines = re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].replace("\\\n", "").splitlines()  # type: ignore[index]
    return [shlex.split(line.removeprefix("archdsl ")) for line in lines]


def smaller(command: list[str], study: Path, budget: int, changes: dict[str, str], workers: int = 0) -> list[str]:
    """The same search with less to do (texts replaced by others), of files where they are, into another folder."""
    options = {"--budget": str(budget), "--workers": str(workers), "-o": str(study)}
    out = [options.get(before, word) for before, word in zip(["", *command], command)]
    for old, new in changes.items():
        assert any(old in w for w in out)
        out = [w.replace(old, new) for w in out]
    return [str(EXAMPLES.parent / w) if w.startswith("examples/") else w for w in out]


def found(archdsl, study: Path, values: set[str]) -> None:
    told = json.loads(archdsl("study", "show", study, "--json").stdout)
    assert told["trials"] > 0 and told["failed"] == 0 and values <= told["pareto"][0]["values"].keys()
    assert check_file(str(study / "front.arch")) == []
    archdsl("study", "report", study, "-o", study / "report.html")


def test_function(archdsl, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    go, search, _ = commands("search_function")
    monkeypatch.chdir(EXAMPLES.parent / go[1])
    monkeypatch.setattr(sys, "path", [*sys.path])
    archdsl(*smaller(search, tmp_path / "study", 3, {}))
    found(archdsl, tmp_path / "study", {"readout", "params", "smallest"})
    sys.modules.pop("readout")


def test_hybrid(archdsl, tmp_path):
    search, _ = commands("search_hybrid")
    archdsl(*smaller(search, tmp_path / "study", 2, {"length = 64, pairs = 8": "length = 16, pairs = 2", "batch = 8": "batch = 2"}))
    found(archdsl, tmp_path / "study", {"zico", "params", "state_bytes(T = 4096)"})


def test_convnext(archdsl, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    search, _ = commands("search_convnext")
    archdsl(*smaller(search, tmp_path / "study", 1, {"10ms": "1000", "H = 64, W = 64": "H = 32, W = 32", "batch = 4": "batch = 2"}))
    found(archdsl, tmp_path / "study", {"zico", "latency(H = 32, W = 32)", "params"})
    assert (tmp_path / "cache/archdsl/latency.db").exists()


@pytest.mark.proof
def test_ray(archdsl, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("sklearn")
    (search,) = commands("search_ray")
    archdsl(*smaller(search, tmp_path / "study", 3, {"steps = 200": "steps = 2", "warmup = 20": "warmup = 1"}, workers=2))
    found(archdsl, tmp_path / "study", {"accuracy", "loss", "params"})
