"""What is to change in few lines: another norm in every model, in one file; and how long a spec is."""
from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import torch

import archdsl
from archdsl import modules
from archdsl.inputs import sample_inputs
from archdsl.lower import lower
from archdsl.source import Source
from archdsl.spec import _read_only, shipped_files
from archdsl.syntax import tree
from archdsl.syntax.parser import parse

FILES = shipped_files()
IDS = [Path(f).stem for f in FILES]
NORMS = {"layer_norm", "rms_norm", "crms_norm", "batch_norm", "group_norm"}
EDITS = {  # the norm by the largest absolute value, of the last axis or of a map's channels
    "  return layer_norm(x, weight, shift, eps = eps)": "  return x / (max(abs(x), axis = -1, keep = true) + eps) * (weight ?? 1) + (shift ?? 0)",
    "  return rms_norm(x, weight, eps = eps)": "  return x / (max(abs(x), axis = -1, keep = true) + eps) * (weight ?? 1)",
    "  return crms_norm(x, eps = eps)": "  return x / (max(abs(x), axis = -1, keep = true) + eps)",
    "  return batch_norm(x, weight, shift, mean, variance, momentum = momentum, eps = eps)":
        "  return x |> under([B, c, *s] -> [B, *s, c], block(y) => y / (max(abs(y), axis = -1, keep = true) + eps) * (weight ?? 1) + (shift ?? 0))",
    "  return group_norm(x, weight, shift, groups = groups, eps = eps)":
        "  return x |> under([B, c, *s] -> [B, *s, c], block(y) => y / (max(abs(y), axis = -1, keep = true) + eps) * (weight ?? 1) + (shift ?? 0))",
}


def ops(made) -> set[str]:
    return {n.op for g in made.graph.definitions() for n in g.nodes}


@pytest.fixture
def swapped(monkeypatch):
    """The library with another norm. Returns the lines that were changed."""
    old = modules.library_source("std.norm")
    assert old is not None
    text = old.text
    for line, new in EDITS.items():
        assert text.count(line) == 1
        text = text.replace(line, new)
    source = Source(old.path, text, old.module)
    module, sources, trees = parse(source), modules.library_source, modules.library_tree
    monkeypatch.setattr(modules, "library_source", lambda name: source if name == "std.norm" else sources(name))
    monkeypatch.setattr(modules, "library_tree", lambda name: module if name == "std.norm" else trees(name))
    return [d for d in difflib.ndiff(old.text.splitlines(), text.splitlines()) if d.startswith("+ ")]


def test_another_norm_in_every_model_is_five_lines_of_one_file(swapped):
    assert len(swapped) <= 5


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_model_has_the_other_norm(path, request):
    before = {name: spec.elaborate() for name, spec in _read_only(path).items()}
    assert any(NORMS & ops(made) for made in before.values()), "a model without a norm proves nothing here"
    request.getfixturevalue("swapped")
    for name, spec in _read_only(path).items():
        made = spec.elaborate()
        assert not NORMS & ops(made), name
        assert [(a, p.type) for a, p in made.graph.parameters()] == [(a, p.type) for a, p in before[name].graph.parameters()], "the weights stay"


def test_the_other_norm_runs(swapped):
    path = next(f for f in FILES if f.endswith("llama.arch"))
    made = _read_only(path)["Llama"].elaborate("tiny")
    with torch.no_grad():
        y = lower(made.graph)(*sample_inputs(made, made.example_sizes(small=True)))
    assert y.isfinite().all() and y.std() > 0


def test_a_llama_is_at_most_forty_lines(tmp_path):
    """The imports and the model of the shipped file, by themselves, are the model."""
    path = next(f for f in FILES if f.endswith("llama.arch"))
    text = Path(path).read_text(encoding="utf-8")
    kept = [d.span.text for d in parse(Source(path, text)).decls if isinstance(d, (tree.Use, tree.Model))]
    alone = "\n".join(kept) + "\n"
    assert alone.count("\n") <= 40
    assert archdsl.loads(alone).elaborate().graph.hash == archdsl.load(path).elaborate().graph.hash


def _read(path: str | Path) -> list[tree.Decl]:
    return list(parse(Source(str(path), Path(path).read_text(encoding="utf-8"))).decls)


def test_no_body_stands_twice():
    seen: dict[object, str] = {}
    for path in (*FILES, *sorted((Path(modules.__file__).parent.parent / "stdlib").glob("*.arch"))):
        for d in _read(path):
            if isinstance(d, tree.Block) and d.body:
                text = " ".join(d.span.source.text[d.body[0].span.start:d.body[-1].span.end].split())
                assert text not in seen, f"`{d.name}` of {path} is {seen[text]}"
                seen[text] = f"`{d.name}` of {path}"
