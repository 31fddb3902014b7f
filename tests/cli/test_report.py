"""archdsl report: text with equal rows folded, data, options in the name, what is wrong."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SPEC = """\
use std.channel { MLP }
use std.norm { RMSNorm }
use std.residual { Pre }

model Stack(d: int = 8, depth: int = 5)(x: [B = 1, N = 4, d]) -> y: [B, N, d] {
  layers: for i in range(depth) { x = Pre(RMSNorm(), MLP(2 * d))(x) as mlp }
  return x
}

variant deep { depth = 10 }
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC)
    return "stack.arch"


def test_text(archdsl, spec, golden):
    """Equal rows are one, with the range of their numbers; the second model is compared with the first."""
    assert archdsl("report", "timeline(devices = 2, flops = 2k, bandwidth = 256, dtype = \"f32\")", spec, f"{spec}:deep").stdout == golden


def test_json(archdsl, spec):
    data = json.loads(archdsl("report", "timeline(devices = 2, flops = 2k)", spec, "--json", "--set", "depth=2", "--at", "N=3").stdout)
    assert data["report"] == "timeline" and data["baseline"] is None and data["options"]["flops"] == 2000 and data["notes"] == []
    assert {"name": "compute", "unit": "s"} in data["columns"]
    total, first, second = data["rows"]
    assert (total["source"], total["address"], first["address"], second["address"]) == (spec, "", "layers.0.mlp", "layers.1.mlp")
    assert first["compute"] == pytest.approx(2 * 2 * 3 * 8 * 16 / 2 / 2000) and total["compute"] == pytest.approx(2 * first["compute"])
    assert second["waits for"] == "layers.0.mlp" and first["waits for"] is None and total["speed-up"] == 1


def test_a_folder_written_by_compile(archdsl, spec):
    archdsl("compile", spec, "-o", "built")
    ours, theirs = (json.loads(archdsl("report", "timeline", s, "--json").stdout)["rows"] for s in (spec, "built"))
    assert [{**r, "source": ""} for r in ours] == [{**r, "source": ""} for r in theirs]


@pytest.mark.parametrize(("name", "code"), [
    ("timelin", "A0581"), ("timeline(device = 2)", "A0582"), ("timeline(devices = 2, devices = 4)", "A0582"), ("timeline() on layers", "A0582"),
    ("timeline(devices = \"two\")", "A0204"), ("timeline(devices = 0)", "A0582"), ("timeline(", "A01"), ("timeline(lanes = \"nothing\")", "A0582"),
])
def test_what_is_wrong(archdsl, spec, name, code):
    assert f"[{code}" in archdsl("report", name, spec, code=1).stderr


def test_sizes_that_the_model_does_not_have(archdsl, spec):
    assert "[A0641]" in archdsl("report", "timeline", spec, "--at", "H=4", code=1).stderr


def test_no_source_is_wrong_usage(archdsl):
    assert "SOURCE" in archdsl("report", "timeline", code=2).stderr


def test_explain(archdsl):
    page = archdsl("explain", "timeline").stdout
    assert archdsl("explain", "floo", code=1).stderr.count("`floor`") == 1, "an op and a word of the language"
    assert page.startswith("report timeline(devices: int = 8,") and "`hidden`" in page and "arxiv 2501.06589" in page


def test_a_report_of_a_package(tmp_path, spec):
    """The entry point is loaded when a name asks for it."""
    info = tmp_path / "site/demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[archdsl.reports]\nwidths = demo_reports\n")
    (tmp_path / "site/demo_reports.py").write_text(
        "from archdsl.reports import Column, Report, Row, report\n"
        "@report('inputs(scale: int = 1)')\n"
        "def inputs(subjects, *, scale):\n"
        "    '''How many inputs a model has.'''\n"
        "    return Report('inputs', (Column('inputs'),), tuple(Row(s.name, '', (scale * len(s.model.inputs),)) for s in subjects))\n")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "archdsl.cli.main", "report", "inputs(scale = 7)", str(tmp_path / spec), "--json"], env=environment,
                          capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["inputs"] == 7
