"""archdsl list and ops: everything that is shipped, as a table and as data."""
from __future__ import annotations

import json
from pathlib import Path

from archdsl.source import Source
from archdsl.syntax import tree
from archdsl.syntax.parser import parse

SPECS = Path(__file__).parent.parent.parent / "specs"


def test_list_names_every_model_and_variant(archdsl):
    rows = json.loads(archdsl("list", "--json").stdout)
    assert all(set(r) == {"path", "name", "kind", "title", "arxiv", "domain", "task", "family", "variants"} for r in rows)
    decls = [(p.name, d) for p in SPECS.rglob("*.arch") for d in parse(Source(p.name, p.read_text())).decls]
    models = [(file, d) for file, d in decls if isinstance(d, tree.Model)]
    entries = {(file, f"{d.name}.{s.name}") for file, d in models for s in d.body if isinstance(s, tree.Entry)}
    assert {(Path(r["path"]).name, r["name"]) for r in rows} == {(file, d.name) for file, d in models} | entries
    assert {(Path(r["path"]).name, v) for r in rows for v in r["variants"]} == {(file, d.name) for file, d in decls if isinstance(d, tree.Variant)}
    text = archdsl("list").stdout
    words = " ".join(text.split())
    assert all(r["name"] in words and r["title"] in words and " ".join(r["variants"]) in words for r in rows)
    assert max(map(len, text.splitlines())) <= 100


def test_every_spec_says_what_it_is(archdsl):
    for r in json.loads(archdsl("list", "--json").stdout):
        assert r["title"] and r["domain"] == Path(r["path"]).parent.name and r["task"] and r["family"], r
        assert r["arxiv"] or Path(r["path"]).stem == "gpt2"  # published by OpenAI alone


def test_list_by_domain_task_and_family(archdsl):
    rows = json.loads(archdsl("list", "--json").stdout)
    for fact, wanted in (("domain", "vision"), ("task", "classification"), ("family", "hybrid")):
        some = json.loads(archdsl("list", f"--{fact}", wanted, "--json").stdout)
        assert some == [r for r in rows if wanted in r[fact].split(", ")] and 0 < len(some) < len(rows)
    assert json.loads(archdsl("list", "--domain", "vision", "--family", "convolution", "--json").stdout)[0]["name"] == "ConvNeXt"
    assert "did you mean `vision`?" in archdsl("list", "--domain", "visoin", code=1).stderr


def test_a_shipped_spec_goes_by_its_name(archdsl):
    by_name = archdsl("cost", "llama:tiny", "--json").stdout
    assert by_name == archdsl("cost", SPECS / "language/llama.arch:tiny", "--json").stdout


def test_ops(archdsl):
    rows = json.loads(archdsl("ops", "--json").stdout)
    linear = next(r for r in rows if r["name"] == "linear")
    assert linear["signature"].startswith("linear(x: [..., i]") and linear["roles"] == {"i": "contract"} and linear["grad"] == "exact"
    assert all(r["doc"] for r in rows)
    text = archdsl("ops").stdout
    words = " ".join(text.split())
    assert all(r["signature"] in words and " ".join(r["doc"].split()).split(". ")[0] in words for r in rows)
    assert max(map(len, text.splitlines())) <= 100


def test_a_word_filters(archdsl):
    ops = [r["name"] for r in json.loads(archdsl("ops", "NORM", "--json").stdout)]
    assert {"layer_norm", "rms_norm"} <= set(ops) and "linear" not in ops
    assert archdsl("ops", "layer_norm").stdout.startswith("layer_norm(")
    assert "did you mean `linear`" in archdsl("ops", "linaer", code=1).stderr
    for word in ("swin", "Sliced Recursive", "small_x3", "super-resolution"):
        some = json.loads(archdsl("list", word, "--json").stdout)
        assert 0 < len(some) < 8 and all(word.lower() in json.dumps(r).lower() for r in some)
    assert "did you mean `vit`?" in archdsl("list", "vitt", code=1).stderr
    for near in ("lama", "lama:tiny"):
        assert "did you mean `llama`?" in archdsl("cost", near, code=1).stderr
    assert "write `-softplus(-x)`" in archdsl("ops", "logsigmoid", code=1).stderr
    assert "write `-softplus(-x)`" in archdsl("explain", "logsigmoid", code=1).stderr
