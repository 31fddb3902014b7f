"""Spaces of the specs that ship: candidates cost what their graphs cost, and run. In the second tier, many of them."""
from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from archdsl.cost.layers import count_params
from archdsl.files import shipped_files
from archdsl.inputs import sample_inputs
from archdsl.search.space import SearchSpace
from archdsl.spaces import knobs_in_search, spaces_of
from archdsl.spec import Spec, load, loads
from tests.search.shrunk import shrunk, sizes
from tests.search.specs import ALL, CHOSEN, HEAD
from tests.search.test_space import checked

CHILDREN = int(os.environ.get("ARCHDSL_CHILDREN", "4000"))
"""In the second tier, so many children over all shipped spaces, and a fiftieth as many that run."""
PARTS = 12 if CHILDREN > 10_000 else 1
"""So many tests look at each space, each at children of its own: many processes can share the work."""


OF = {"at_2900M": "search_small", "at_4600M": "search_small"}
"""Spaces whose limits no candidate of the model's defaults keeps: the variant that they are for."""
HEAVY = ("convnext", "efficientformer", "mohd", "qwen_moe", "simq_nas", "vit_resnas")
SHIPPED = [pytest.param(path, id=Path(path).stem) for path in shipped_files()]
LIGHT = [p for p in SHIPPED if p.id not in HEAVY]


def searchable(path: str) -> list[Spec]:
    """The models of a file with a knob to search; of several entries the first."""
    models = load(path).models
    entry = next((n for n in models if "." in n), "")
    return [s for n, s in models.items() if ("." not in n or n == entry) and knobs_in_search(s)]


def children(space: SearchSpace, seed: int):
    """Drawn, mutated and crossed candidates, without end."""
    while True:
        a, b = space.sample(seed), space.sample(seed + 1)
        mutant = space.mutate(a, seed, 1 + seed % 3)
        child = space.crossover(mutant, b, seed)
        yield from (a, b, mutant, child, space.mutate(child, seed))
        seed += 2


def share(path: str, count: int) -> int:
    """So many children of each space of a file, where all files together have so many: a file has one space or more."""
    return max(-(-count // len(SHIPPED) // PARTS), 5)


def is_sound(spec: Spec, space: SearchSpace, candidate) -> None:
    """It can be elaborated anew, is the graph that its key says, and each decision lies in its domain."""
    assert spec.elaborate(space.variant, dict(candidate)).graph.hash == candidate.key
    assert all(d.contains(candidate[a]) for a, d in space.decisions(candidate).items())


@pytest.mark.parametrize("path", LIGHT)
def test_a_candidate_of_each(path):
    for spec in searchable(path):
        space = spec.space()
        candidate = space.sample(3)
        is_sound(spec, space, candidate)
        assert space.costs(candidate, ["params"]) == {"params": count_params(spec.elaborate(None, dict(candidate)).graph)}


def test_most_specs_can_be_searched():
    assert len(SHIPPED) > 30 and set(HEAVY) <= {p.id for p in SHIPPED}


@pytest.mark.parametrize("name", ["itransformer", "llama", "lmuformer", "extractors"])
def test_a_candidate_costs_what_its_graph_costs(name):
    spec = load(name)
    checked(spec, spec.space(), spec.space().sample(0))


TRANSFORMED = HEAD + """model Net(d: int = 8, depth: int = 2 in 1..3, compress: bool = false in {false, true})(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  x = Linear(d)(x) as stem
  layers: for i in range(depth) {
    choose f { mlp(h: int = 8 in {8, 16}) => MLP(h)  linear => Linear(d) } = mlp
    x = Pre(LayerNorm(), f)(x) as branch
  }
  return x |> LayerNorm() as norm |> Linear(d) as head
}
variant centred { transform centre(compress = compress) }
"""


def test_a_variant_with_a_transform():
    spec = loads(TRANSFORMED)
    space = spec.space(variant="centred")
    for candidate in islice(children(space, 0), 5):
        checked(spec, space, candidate, "centred")
        assert candidate.key != spec.elaborate(None, dict(candidate)).graph.hash


def test_the_state_is_counted_over_parts():
    spec = loads(CHOSEN)
    space = spec.space()
    seen = set()
    for seed in range(4):
        candidate = space.sample(seed)
        cost = spec.cost(form="step", **candidate)
        assert space.costs(candidate, ["state_bytes"]) == {"state_bytes": cost.state_bytes}
        assert space.costs(candidate, ["state_bytes(B = 3, T = 40)"])["state_bytes(B = 3, T = 40)"] == \
            spec.cost(at={"B": 3, "T": 40}, form="step", **candidate).state_bytes
        figure = space._figures["state_bytes"]
        seen.add(space.sums.state(candidate.selection, figure) is not None)
    assert seen == {True}


def runs(spec: Spec, candidate) -> None:
    """Forward and backward, in training, with finite numbers in every result and gradient."""
    made = spec.elaborate(None, dict(candidate))
    model = spec.build(seed=3, **candidate)
    torch.manual_seed(0)
    results = [y for y in tree_leaves(model(*sample_inputs(made, sizes(made)))) if y.is_floating_point()]
    assert results and all(y.isfinite().all() for y in results)
    torch.stack([y.square().mean() for y in results if y.requires_grad]).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("text", [CHOSEN, ALL["choices"], ALL["depth"]], ids=["mixers", "choices", "depth"])
def test_children_run(text):
    spec = loads(text)
    for candidate in islice(children(spec.space(), 5), 4):
        runs(spec, candidate)


def test_a_space_needs_no_torch():
    code = ("import sys, archdsl; s = archdsl.load('itransformer').space(limits=['params <= 5M']); c = s.sample(1); "
            "s.costs(s.mutate(c, 2), ['params', 'macs', 'peak_bytes']); s.crossover(c, s.sample(3), 4); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- the second tier
@pytest.mark.proof
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("path", SHIPPED)
def test_all_children_check(path, part):
    for spec in searchable(path):
        for name in (None, *spaces_of(spec)):
            space = spec.space(name, OF.get(name or ""))
            few = 40 if space.variant else 1  # of some 700 draws below such limits one is kept
            for candidate in islice(children(space, 100 + part * CHILDREN), -(-share(path, CHILDREN) // few)):
                is_sound(spec, space, candidate)


@pytest.mark.proof
@pytest.mark.parametrize("path", SHIPPED)
def test_all_cost_what_their_graphs_cost(path):
    for spec in searchable(path):
        space = spec.space()
        checked(spec, space, space.sample(0))


@pytest.mark.proof
@pytest.mark.parametrize(("name", "variant"), [("vit", "tiny_folded"), ("pre_rmsnorm", "tiny_crms")])
def test_shipped_transforms(name, variant):
    spec = load(name)
    space = spec.space(variant=variant)
    candidate = space.sample(0)
    checked(spec, space, candidate, variant)


@pytest.mark.proof
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("path", SHIPPED)
def test_all_children_run(path, part):
    """Those of the same spaces with small numbers."""
    for spec in searchable(path):
        spec = shrunk(spec, path)
        for candidate in islice(children(spec.space(), 1000 + part * CHILDREN), share(path, CHILDREN // 50)):
            runs(spec, candidate)


@pytest.mark.proof
@pytest.mark.parametrize("name", ["mixers", *ALL])
def test_children_of_all_kinds_run(name):
    spec = loads(CHOSEN if name == "mixers" else ALL[name])
    for candidate in islice(children(spec.space(), 1000), 20):
        runs(spec, candidate)
