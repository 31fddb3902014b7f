"""The front as variants: a formatted spec that `check` passes, in which each variant is the graph of its trial."""
from __future__ import annotations

from pathlib import Path

import pytest

import archdsl
from archdsl.source import Source
from archdsl.spec import check_file, shipped_files
from archdsl.study.report.page import to_json
from archdsl.study.session import Asked, Hands, search
from archdsl.study.winners import file_name, write_front
from archdsl.syntax.fmt import format_module

PARTS = """\
use std.channel { MLP }

fn width(d: int) -> int { return 2 * d }

block Part(hidden: int)(x: [..., d]) -> [..., d] { return x |> MLP(hidden) as mlp }
"""
NET = """\
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm }
use std.residual { Pre }
use inner.parts { Part, width }

model Net(
  d: int = 8 in {8, 16},
  depth: int = 2 in 1..3,
  ratio: float = 2.0 in 1.0..4.0 step 0.5,
  widths: list[int] = [8, 16] in each 8..32 step 8,
  kind: "pre" | "post" = "pre" in {"pre", "post"},
  last: int = width(d) in {8, 16, 32},
)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  require last >= d, "last is at least d"
  layers: for i in range(depth) {
    choose mixer {
      attention(heads: int = 2 in {1, 2, 4}) => Attention(heads)
      part => Part(d)
    } = attention
    x = Pre(LayerNorm(), mixer)(x) as mix
  }
  wide: for w in widths { x = Pre(LayerNorm(), Part(w * int(ratio * 2)))(x) as mlp }
  x = if kind == "pre" { LayerNorm()(x) as norm } else { x }
  return x |> Linear(last) as out |> Linear(d) as head
}

variant large { d = 16, last = 32 }
variant p0 { d = 8 }
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/parts.arch").write_text(PARTS)
    (tmp_path / "net.arch").write_text(NET)
    assert check_file(str(tmp_path / "net.arch")) == []
    return tmp_path


@pytest.mark.parametrize("variant", ["", ":large"])
def test_each_point_is_its_trial(spec, variant):
    asked = Asked(["params:min", "macs:max"], strategy="walk", budget=24, seed=5)
    study = search(f"{spec / 'net.arch'}{variant}", str(spec / "study"), asked, Hands())
    with study:
        path, names = write_front(study)
        front = study.front()
    assert path == str(spec / "study/front.arch") and len(names) == len(front) > 3
    assert names[:2] == ["pp0", "pp1"]  # p0 is taken
    text = Path(path).read_text()
    assert check_file(path) == [] and format_module(Source("front.arch", text)) == text
    found = archdsl.load(path)
    for name, e in zip(names, front):
        graph = found.elaborate(name).graph
        assert found.cost(name).params == e.values["params"]
        assert {a: k.value for a, k in found.elaborate(name).knobs.items() if k.allowed is not None}.keys() == e.knobs.keys()
        assert graph.hash == found.elaborate(variant[1:] or None, dict(found.space(variant=variant[1:] or None).from_json(e.knobs))).graph.hash
    assert {p.relative_to(spec / "study").as_posix() for p in (spec / "study").rglob("*.arch")} == {"net.arch", "inner/parts.arch", "front.arch"}


@pytest.mark.proof
@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: Path(p).stem)
def test_fronts_of_shipped_specs(path, tmp_path):
    """Whatever the knobs of a spec, its points are variants that pass the check, and the report has a picture of each."""
    asked = Asked(["params:min", "macs:min"], strategy="random", budget=4)
    with search(path, str(tmp_path / "study"), asked, Hands(0)) as study:
        written, names = write_front(study)
        told = to_json(study)
    text = Path(written).read_text()
    assert check_file(written) == [] and format_module(Source("front.arch", text)) == text
    assert [p["name"] for p in told["front"]] == names and all("root" in p for p in told["front"])


def test_settings_that_others_give_are_left_out(spec):
    asked = Asked(["params:min"], strategy="walk", budget=10)
    with search(str(spec / "net.arch"), str(spec / "study"), asked, Hands()) as study:
        path, _ = write_front(study)
        e = study.front()[0]
    decl = archdsl.load(path).variants["pp0"].decl
    assert 0 < len(decl.settings) < len(e.knobs)


def test_a_spec_that_is_called_front():
    assert file_name({"net.arch": ""}) == "front.arch" and file_name({"front.arch": ""}) == "pareto.arch"
