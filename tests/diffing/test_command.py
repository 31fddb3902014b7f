"""archdsl diff, as a user meets it."""
from __future__ import annotations

import json
import os

import pytest

from archdsl.cost import FIGURES
from archdsl.spec import load
from tests.cli.conftest import archdsl
from tests.draw.browser import ask, needs_chromium

__all__ = ["archdsl"]  # the fixture
SPEC = """\
use std.channel { MLP }
use std.linear { Linear }
use std.norm { RMSNorm }
use std.residual { Pre }

model Net(d: int = 8 in {8, 16}, depth: int = 3, hidden: int = 16)(x: [B = 2, T = 4, d]) -> y: [B, T, d] {
  x = x |> Linear(d) as embed
  layers: for i in range(depth) {
    x = Pre(RMSNorm(), MLP(hidden))(x) as mlp
  }
  return x |> Linear(d, bias = false) as head
}

variant wide { d = 16 }
claim { params == 1_000; macs <= 1M }
claim wide { params == 2_000 }
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "net.arch").write_text(SPEC)
    (tmp_path / "other.arch").write_text(SPEC.replace("as head", "as out").replace("as mlp", "as ffn").replace("depth: int = 3", "depth: int = 5"))
    return "net.arch"


def test_nothing(archdsl, spec):
    assert archdsl("diff", spec, spec).stdout == "net.arch → net.arch\n\nno difference: the graphs have one hash\n"


def test_text(archdsl, spec, golden):
    assert archdsl("diff", spec, "other.arch").stdout == golden


def test_variants(archdsl, spec, golden):
    assert archdsl("diff", spec, f"{spec}:wide").stdout == golden


def test_names_that_printing_gives_are_no_difference(archdsl, spec):
    """A printed graph calls the layers of `layers` `Layers` and the second `Linear` `Linear_2`."""
    assert archdsl("compile", spec, "-o", "dir").returncode == 0
    printed, written = archdsl("diff", "dir", f"{spec}:wide").stdout, archdsl("diff", spec, f"{spec}:wide").stdout
    assert "block" not in printed and "block" not in written
    back = archdsl("diff", f"{spec}:wide", "dir").stdout
    assert "block" not in back and "layers.0" in back


def test_json(archdsl, spec, tmp_path):
    data = json.loads(archdsl("diff", spec, "other.arch", "--json").stdout)
    left, right = load(tmp_path / spec).cost(), load(tmp_path / "other.arch").cost()
    assert data["cost"] == {f: {"before": getattr(left, f), "after": getattr(right, f)} for f in FIGURES}
    assert data["same_graph"] is False and data["knobs"] == {"depth": {"before": "3", "after": "5"}} and data["claims"] == []
    rows = [(c["change"], c["place"], c["before"], c["after"], c["count"]) for c in data["structure"]]
    assert ("same", "renamed", "layers.0.mlp", "layers.0.ffn", 1) in rows and ("same", "renamed", "head", "out", 1) in rows
    assert [r for r in rows if r[0] in ("added", "removed") and r[3].count(".") == 1] == [("added", "kept", None, "layers.3", 2)]
    assert {p["change"] for p in data["parameters"]} == {"renamed", "added"}
    renamed = {p["before"]: p["after"] for p in data["parameters"] if p["change"] == "renamed"}
    assert renamed["layers.2.mlp.up.weight"] == "layers.2.ffn.up.weight" and renamed["head.weight"] == "out.weight"


def test_settings_of_one_side_and_of_both(archdsl, spec):
    data = json.loads(archdsl("diff", spec, spec, "--set", "depth=1", "--set-a", "hidden=8", "--set-b", "d=16", "--json").stdout)
    assert data["knobs"] == {"d": {"before": "8", "after": "16"}, "hidden": {"before": "8", "after": "16"}}
    assert (data["before"]["name"], data["after"]["name"]) == ("net.arch, hidden=8", "net.arch, d=16")
    assert "depth" not in data["knobs"] and data["claims"] == []
    data = json.loads(archdsl("diff", spec, spec, "--set", "hidden=8", "--set-b", "hidden=24", "--json").stdout)
    assert data["knobs"] == {"hidden": {"before": "8", "after": "24"}}, "what is set for one side counts before what is set for both"


def test_sizes(archdsl, spec):
    one, two = (json.loads(archdsl("diff", spec, f"{spec}:wide", "--at", f"T={t}", "--json").stdout) for t in (4, 8))
    assert two["cost"]["macs"]["before"] == 2 * one["cost"]["macs"]["before"] and two["before"]["sizes"] == {"B": 2, "T": 8}
    assert "A0641" in archdsl("diff", spec, spec, "--at", "L=3", code=1).stderr


def test_a_size_that_one_side_alone_has(archdsl, spec, tmp_path):
    (tmp_path / "short.arch").write_text("model Short()(x: [B = 2, 8]) -> y: [B, 8] {\n  return x\n}\n")
    data = json.loads(archdsl("diff", spec, "short.arch", "--at", "T=8,B=1", "--json").stdout)
    assert (data["before"]["sizes"], data["after"]["sizes"]) == ({"B": 1, "T": 8}, {"B": 1})


def test_a_spec_and_its_compiled_folder(archdsl, spec):
    archdsl("compile", f"{spec}:wide", "-o", "out")
    same = archdsl("diff", f"{spec}:wide", "out").stdout
    assert "no difference: the graphs have one hash" in same and "out is a compiled folder: it has no knobs and claims to compare" in same
    data = json.loads(archdsl("diff", spec, "out", "--json").stdout)
    assert data["knobs"] == {} and data["claims"] == [] and len(data["notes"]) == 1
    assert all(p["change"] == "changed" for p in data["parameters"]) and not data["same_graph"]


def test_claims(archdsl, spec):
    data = json.loads(archdsl("diff", spec, f"{spec}:wide", "--json").stdout)
    assert data["claims"] == [{"before": "params == 1_000", "after": "params == 2_000"}, {"before": "macs <= 1M", "after": None}]


def test_a_page(archdsl, spec, tmp_path):
    assert archdsl("diff", spec, "other.arch", "-o", "a.html").stdout == "a.html: net.arch → other.arch\n"
    page = (tmp_path / "a.html").read_text()
    assert page.count("<table>") == 4 and "<script" not in page and "http" not in page.replace('http-equiv="Content', "")
    rows = [r for r in page.split("<tr") if "layers.0.mlp<" in r]
    assert len(rows) == 1 and "layers.0.ffn<" in rows[0] and rows[0].startswith(' class="renamed"')
    assert rows[0].count("PreMLP, 288 parameters<") == 2  # 8 + 2 · 8 · 16 + 16 + 8
    assert page.count("<tr") == page.count("</tr>") and len(page.encode()) < 1_000_000


def test_a_page_tells_what_happens_to_several_layers_once(archdsl, tmp_path):
    text = SPEC.replace("MLP(hidden)", "MLP(if i % 2 == 0 { hidden } else { 8 })").replace("depth: int = 3", "depth: int = 5")
    (tmp_path / "a.arch").write_text(text)
    (tmp_path / "b.arch").write_text(text.replace("{ hidden }", "{ 32 }"))
    archdsl("diff", "a.arch", "b.arch", "-o", "a.html")
    rows = (tmp_path / "a.html").read_text().split("<tr")
    layers = [next(r for r in rows if f"<code>layers.{i}</code> <small>" in r) for i in range(5)]
    assert [r.startswith(' class="changed"') for r in layers] == [True, False, True, False, True]
    assert ["as <code>layers.0</code>" in r for r in layers] == [False, False, True, False, True]
    assert sum("layers.2.mlp" in r for r in rows) == 0 < sum("layers.0.mlp.up<" in r for r in rows)


@needs_chromium
def test_a_page_stands_side_by_side(archdsl, spec, tmp_path):
    archdsl("diff", spec, "other.arch", "-o", "a.html")
    page = (tmp_path / "a.html").read_text().replace("style-src", "script-src 'unsafe-inline'; style-src")
    left, right = ask(page, "[...document.querySelector('tr.renamed').cells].slice(0, 2).map((c) => c.getBoundingClientRect().left)", tmp_path)
    assert right > left + 200


@pytest.mark.parametrize(("arguments", "code"), [
    (("-o", "a.svg"), "A0661"), (("-o", "no/a.html"), "A0627"), (("--set-b", "dd=3"), "A0215"), (("--set-a", "d"), "A0605")])
def test_faults(archdsl, spec, tmp_path, arguments, code):
    before = sorted(os.listdir(tmp_path))
    assert code in archdsl("diff", spec, spec, *arguments, code=1).stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_comparing_loads_no_torch(spec, tmp_path):
    from tests.test_layers import loaded

    a, b = str(tmp_path / spec), str(tmp_path / "other.arch")
    assert loaded(f"from archdsl.cli.commands.diff import diff; diff({a!r}, {b!r}, [], [], [], [], None, False)") == []
