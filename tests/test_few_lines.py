"""What is to change in few lines: another norm in every model, in one file; and how long a spec is."""
from __future__ import annotations

import difflib
import re
import statistics
from pathlib import Path

import pytest
import torch

import archdsl
from archdsl import modules
from archdsl.elaborate.library import names
from archdsl.inputs import sample_inputs
from archdsl.lower import lower
from archdsl.ops.registry import OPS
from archdsl.source import Source
from archdsl.spec import _read_only, shipped_files
from archdsl.syntax import table, tree
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
    sources = modules.library_source
    monkeypatch.setattr(modules, "library_source", lambda name: source if name == "std.norm" else sources(name))
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


def _length(path: str) -> int:
    """The lines of a spec without its claims, foreign names and metadata, and without the comments above these. Imports, variants, comments and
    documentation count, blank lines do not."""
    text = Path(path).read_text(encoding="utf-8")
    lines = text.splitlines()
    left = set(range(len(lines)))
    for d in parse(Source(path, text)).decls:
        if isinstance(d, (tree.Claim, tree.Names, tree.Paper)):
            first, last = text.count("\n", 0, d.span.start), text.count("\n", 0, d.span.end)
            while first and lines[first - 1].startswith(("#", "///")):
                first -= 1
            left -= set(range(first, last + 1))
    return sum(bool(lines[i].strip()) for i in left)


def test_the_median_spec_is_at_most_sixty_lines():
    found = sorted(map(_length, FILES))
    assert statistics.median(found) <= 60, found


def _read(path: str | Path) -> list[tree.Decl]:
    return list(parse(Source(str(path), Path(path).read_text(encoding="utf-8"))).decls)


def _shape(d: tree.Block, known: frozenset[str]) -> str:
    """The body of a block with its own names numbered by their first appearance: the same for bodies that differ in names alone."""
    numbers: dict[str, str] = {}
    body = d.body
    assert body, f"{d.name} has no body"
    text = re.sub(r"#[^\n]*", "", d.span.source.text[body[0].span.start:body[-1].span.end])
    words = re.findall(r'"[^"]*"|[^\W\d]\w*|[\d._]+|\S', text)
    return " ".join(numbers.setdefault(w, f"${len(numbers)}") if w[0] != '"' and w.isidentifier() and w not in known else w for w in words)


def test_no_body_stands_twice():
    """Under specs/ and stdlib/, but for the names inside."""
    library = sorted((Path(modules.__file__).parent.parent / "stdlib").glob("*.arch"))
    blocks = [(path, d) for path in (*FILES, *library) for d in _read(path) if isinstance(d, tree.Block) and d.body]
    known = frozenset({*names(), *OPS, *table.load().words.word, *(d.name for _, d in blocks)})
    seen: dict[str, str] = {}
    for path, d in blocks:
        body = _shape(d, known)
        assert body not in seen, f"`{d.name}` of {path} is {seen[body]}"
        seen[body] = f"`{d.name}` of {path}"
