"""archdsl graph, as a user meets it; and the pictures that `dot` lays out."""
from __future__ import annotations

import os
import re
import shutil
from xml.etree import ElementTree

import pytest

import archdsl as package
from archdsl.diagnostics.model import ArchError
from archdsl.draw import dot, view
from archdsl.draw.built import built_view
from archdsl.draw.dot import dot_text
from archdsl.draw.page import html_page
from archdsl.spec import loads
from tests.cli.conftest import archdsl
from tests.draw.test_view import HYBRID, hybrid

__all__ = ["archdsl"]  # the fixture
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot (Graphviz) is not on this machine")


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "hybrid.arch").write_text(HYBRID.format(order="M-M-*") + "variant wide { d = 32 }\n")
    return "hybrid.arch"


def test_a_page(archdsl, spec, tmp_path):
    assert archdsl("graph", spec, "-o", "a.html").stdout == "a.html: Hybrid, 13.9 k parameters, 12 nodes\n"
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    archdsl("graph", f"{spec}:wide", "--set", "heads=4", "--at", "T=3", "-o", "b.html", "--nodes", "30")
    page = (tmp_path / "b.html").read_text()
    assert '"name":"Hybrid.wide, heads=4","sizes":{"B":1,"T":3}' in page
    assert sorted(os.listdir(tmp_path)) == ["a.html", "b.html", "hybrid.arch"]


def test_dot_text(archdsl, spec, tmp_path, golden):
    archdsl("graph", spec, "-o", "a.dot", "--nodes", "12")
    text = (tmp_path / "a.dot").read_text()
    assert text == golden


def test_texts_are_quoted():
    made = loads('/// a "b"\nmodel Net(s: str = "M")(x: [B = 2, 4]) -> y: [B, 4] {\n  return x + x\n}\n').elaborate()
    text = dot_text(view(made, name='a "b" \\'))
    assert 'label="a \\"b\\" \\\\: 0 parameters' in text


def test_every_edge_joins_drawn_nodes():
    text = dot_text(view(hybrid("M-M-*"), opening=200))
    nodes = set(re.findall(r"^ *(n[0-9_]+) \[", text, re.MULTILINE))
    clusters = set(re.findall(r'subgraph "(cluster_n[0-9_]+)"', text))
    edges = re.findall(r"^ *(n[0-9_]+) -> (n[0-9_]+) \[(.*)\]$", text, re.MULTILINE)
    assert len(edges) > 20 and len(clusters) > 5
    assert {n for a, b, _ in edges for n in (a, b)} <= nodes
    assert {c for _, _, rest in edges for c in re.findall(r'l(?:head|tail)="(.*?)"', rest)} <= clusters
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_without_dot_it_says_how_to_get_it(archdsl, spec, tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = archdsl("graph", spec, "-o", name, code=1)
    assert "A0662" in done.stderr and "apt install graphviz" in done.stderr and "a.html" in done.stderr
    assert os.listdir(tmp_path) == [spec]


def test_a_failing_dot(archdsl, spec, tmp_path, monkeypatch):
    (tmp_path / "dot").write_text("#!/bin/sh\ncat > /dev/null\necho 'no layout' >&2\nexit 1\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = archdsl("graph", spec, "-o", "a.svg", code=1)
    assert "A0663" in done.stderr and "no layout" in done.stderr and not (tmp_path / "a.svg").exists()


def test_a_dot_that_does_not_end(spec, tmp_path, monkeypatch):
    (tmp_path / "dot").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(dot, "SECONDS", 0.2)
    with pytest.raises(ArchError) as told:
        dot.laid_out("digraph { a -> b }", "svg", "a.svg")
    (fault,) = told.value.diagnostics
    assert fault.code == "A0663" and "0.2 s" in fault.message and "--nodes" in fault.help[0] and "a.html" in fault.help[1]


@needs_dot
def test_svg_and_png(archdsl, spec, tmp_path):
    archdsl("graph", spec, "-o", "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"tokens", "embed", "layers", "norm", "head", "logits"} <= set(texts)
    archdsl("graph", spec, "-o", "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "code"), [("a.pdf", "A0661"), ("a", "A0661"), ("no/a.html", "A0627"), ("folder.html", "A0627")])
def test_bad_files(archdsl, spec, tmp_path, name, code):
    (tmp_path / "folder.html").mkdir()
    assert code in archdsl("graph", spec, "-o", name, code=1).stderr
    assert sorted(os.listdir(tmp_path)) == ["folder.html", spec]


def test_an_old_file_stays_when_writing_is_interrupted(spec, tmp_path, monkeypatch):
    from archdsl.files import write_whole

    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "a.html").write_text("old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(str(tmp_path / "a.html"), b"new")
    assert (tmp_path / "a.html").read_text() == "old" and sorted(os.listdir(tmp_path)) == ["a.html", spec]


def test_faults_of_the_source(archdsl, spec):
    assert "A0401" in archdsl("graph", f"{spec}:wid", "-o", "a.html", code=1).stderr
    assert "A0641" in archdsl("graph", spec, "-o", "a.html", "--at", "L=3", code=1).stderr


def test_drawing_loads_no_torch(spec, tmp_path):
    from tests.test_layers import loaded

    code = f"from archdsl.cli.commands.graph import graph; graph({str(tmp_path / spec)!r}, {str(tmp_path / 'a.html')!r}, [], [], 12)"
    assert loaded(code) == []


# ---------------------------------------------------------------- built models
def test_built_models_show_themselves(spec, tmp_path):
    import pickle

    loaded = package.load(tmp_path / spec)
    model = loaded.build("wide")
    found = built_view(model.archdsl)
    drawn = view(loaded.elaborate("wide"), name="Hybrid.wide")
    assert html_page(found) == html_page(drawn)
    assert model._repr_html_().startswith("<iframe srcdoc=")
    assert model.layers[0]._repr_html_() is None
    again = pickle.loads(pickle.dumps(model))
    assert built_view(again.archdsl).root.params == drawn.root.params


def test_opened_folders_show_themselves(archdsl, spec, tmp_path):
    archdsl("compile", f"{spec}:wide", "-o", "out")
    model = package.open(tmp_path / "out")
    assert built_view(model.archdsl).root.params == sum(p.numel() for p in model.parameters())
    archdsl("graph", "out", "-o", "a.html")


def test_a_captured_model(tmp_path):
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    found = package.capture(net, (torch.zeros(2, 4),))
    text = html_page(view(found.spec.elaborate()))
    assert '"params":76' in text
