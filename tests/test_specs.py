"""Every shipped spec, found by itself: checked, formatted, costed, printed and read back, built, run forward and backward, its claims verified."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.claims import verify
from archdsl.cost.layers import count_params
from archdsl.dims import evaluate
from archdsl.inputs import sample_inputs
from archdsl.printer import print_graph
from archdsl.source import Source
from archdsl.spec import check_file, loads, shipped_files
from archdsl.syntax.fmt import format_module
from tests.kinds import kind_of
from tests.layers import equal_layers_once
from tests.lower.small_specs import CASES, small_knobs
from tests.reading import rows

FILES = shipped_files()
IDS = [f.rsplit("/", 1)[-1] for f in FILES]
MODELS = [(row["path"], row["name"], variant) for row in rows() for variant in (row["variants"] or [None])]  # read alone: each worker collects
SMALL = 120_000_000  # parameters that a test runs with numbers; larger ones run on the meta device


def model(path, name):
    return archdsl.load(path).models[name]


def first(path):
    return archdsl.load(path)


def params_of(path, name, variant):
    return count_params(model(path, name).elaborate(variant).graph)


def id_of(case):
    return f"{case[0].rsplit('/', 1)[-1]}:{case[1]}.{case[2]}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_clean_and_formatted(path):
    assert check_file(path) == []
    with open(path, encoding="utf-8") as f:
        text = f.read()
    assert format_module(Source(path, text)) == text


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_metadata(path):
    spec = first(path)
    assert spec.paper.get("title") and spec.paper.get("domain") and spec.paper.get("task")
    assert all(s.doc for s in spec.models.values()), "each model says in a /// line what it is"


SHAPED: set[Any] = set()
"""Kinds of graphs that ran: variants of a model that differ in widths and depths alone are one kind."""


@pytest.mark.parametrize("case", MODELS, ids=id_of)
def test_shapes_forward_and_backward(case):
    """On the meta device at full size: parameters as costed, output shapes as declared, a gradient for every parameter. One variant of each kind."""
    path, name, variant = case
    kind = path, name, kind_of(model(path, name).elaborate(variant).graph)
    if kind not in SHAPED:
        shapes(*case)
        SHAPED.add(kind)


@pytest.mark.proof
@pytest.mark.parametrize("case", MODELS, ids=id_of)
def test_shapes_of_every_variant(case):
    shapes(*case)


def shapes(path, name, variant):
    spec = model(path, name)
    made = spec.elaborate(variant)
    built = spec.build(variant, device="meta")
    assert sum(p.numel() for p in built.parameters()) == spec.cost(variant).params
    sizes = made.example_sizes(small=True)
    with equal_layers_once(built):
        y = built(*(x.to("meta") for x in sample_inputs(made, sizes)))
    outs = y if isinstance(y, tuple) else (y,)
    for out, value in zip(outs, made.graph.outputs):
        assert tuple(out.shape) == tuple(s if isinstance(s, int) else evaluate(s, sizes) for s in value.shape)
    torch.stack([o.float().sum() for o in outs if o.is_floating_point()]).sum().backward()
    unread = [n for n, p in built.named_parameters() if p.grad is None and p.requires_grad]
    assert not unread, unread


def finite(path, name, variant, knobs=None):
    """Fresh weights give finite, varied outputs and finite gradients."""
    spec = model(path, name)
    made = spec.elaborate(variant, knobs)
    built = spec.build(variant, seed=1, knobs=knobs).eval()
    y = built(*sample_inputs(made, made.example_sizes(small=True)))
    outs = [o for o in (y if isinstance(y, tuple) else (y,)) if o.is_floating_point()]
    assert all(o.isfinite().all() for o in outs) and outs[0].std() > 0
    torch.stack([o.square().mean() for o in outs]).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.parameters())


@pytest.mark.parametrize(("path", "name"), [(row["path"], row["name"]) for row in rows()], ids=lambda v: v.rsplit("/", 1)[-1])
def test_numbers_forward_and_backward(path, name):
    """Of the first variant that can be made small, else of the smallest."""
    variant, knobs = small_one(path, name)
    if not knobs and params_of(path, name, variant) > SMALL:
        pytest.skip("too large for a quick test")
    finite(path, name, variant, knobs)


def small_one(path, name):
    """A variant and settings that make it small."""
    small = [variant for *of, variant in CASES if of == [path, name]]
    variant = small[0] if small else min(model(path, name).variants or [None], key=lambda v: params_of(path, name, v))
    return variant, small_knobs((path, name, variant))


@pytest.mark.proof
@pytest.mark.parametrize("case", MODELS[::3], ids=id_of)
def test_numbers_of_more_variants(case):
    if params_of(*case) > SMALL:
        pytest.skip("too large")
    finite(*case)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_claims(path):
    failed = [r for r in verify(first(path)) if not r["passed"]]
    assert not failed, failed


@pytest.mark.parametrize("case", [c for i, c in enumerate(MODELS) if i == 0 or MODELS[i - 1][1] != c[1] or i % 10 == 0], ids=id_of)
def test_closure(case):
    """The printed graph is a clean spec of the same hash."""
    path, name, variant = case
    made = model(path, name).elaborate(variant)
    text = print_graph(made)
    again = loads(text, "graph.arch")
    assert again.elaborate().graph.hash == made.graph.hash
    assert format_module(Source("graph.arch", text)) == text


@pytest.mark.parametrize(("path", "name"), [(row["path"], row["name"]) for row in rows()], ids=lambda v: v.rsplit("/", 1)[-1])
def test_same_seed_same_weights(path, name):
    """Of the first variant that can be made small, else of the smallest."""
    variant, knobs = small_one(path, name)
    a, b, other = (model(path, name).build(variant, seed=seed, knobs=knobs).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], other[k]) for k in a)
