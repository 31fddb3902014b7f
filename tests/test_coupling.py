"""Which axes belong together: a model whose channels are permuted, group by group, in all weights that have the group computes the same."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.coupling import Coupling, Group, groups_of, places, within
from archdsl.coupling.groups import composed, couple
from archdsl.inputs import sample_inputs
from tests.reading import rows

SMALL = 700_000


def _permuted(spec: archdsl.Spec, variant: str | None, **knobs: Any) -> tuple[int, float]:
    """How many groups were permuted, and by how much the outputs moved relative to the largest."""
    made = spec.elaborate(variant, knobs)
    weights = groups_of(made.graph)
    free = {leaf for axes in weights.values() for g in axes for leaf in g.leaves() if not leaf.fixed and isinstance(leaf.size, int) and leaf.size > 1}
    generator = torch.Generator().manual_seed(0)
    orders = {leaf: torch.randperm(leaf.size, generator=generator).tolist() for leaf in free}  # type: ignore[call-overload]
    model: Any = spec.build(variant, dtype=torch.float64, **knobs).eval()
    inputs = sample_inputs(made, made.example_sizes(small=True), dtype=torch.float64)
    with torch.no_grad():
        for p in (*model.parameters(), *model.buffers()):
            if p.is_floating_point():
                p.add_(0.02 * torch.randn(p.shape, dtype=p.dtype, generator=generator).abs())
        before = model(*inputs)
        state = model.state_dict()
        for address in state.keys() & weights.keys():
            for axis, group in enumerate(weights[address]):
                if isinstance(group.size, int):
                    state[address] = state[address].index_select(axis, torch.tensor(list(places(group, orders))))
        model.load_state_dict(state)
        after = model(*inputs)
    pairs = zip(*(y if isinstance(y, tuple) else (y,) for y in (before, after)))
    return len(free), max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs if a.is_floating_point())


@pytest.mark.parametrize(("path", "name"), [(row["path"], row["name"]) for row in rows()],
                         ids=lambda v: v.rsplit("/", 1)[-1])
def test_permuted_channels_of_shipped_specs(path: str, name: str):
    """The smallest variant of each model."""
    spec = archdsl.load(path).models[name]
    params, variant = min((spec.cost(v).params, v or "") for v in (None, *spec.variants))
    if params > SMALL:
        pytest.skip("no variant is small")
    groups, moved = _permuted(spec, variant or None)
    assert groups >= 2 and moved <= 1e-10


@pytest.mark.parametrize(("name", "variant", "knobs"), [
    ("swin", None, {"d": 8, "depths": [2, 1, 1, 1], "heads": [2, 4, 4, 4], "classes": 5}),
    ("cvt", None, {}), ("gpt2", None, {"d": 16, "depth": 2, "heads": 4, "vocab": 23}),
    ("peri_ln", None, {"d": 16, "depth": 2, "heads": 2, "vocab": 23, "hidden": 24}),
])
def test_permuted_channels_of_larger_specs(name: str, variant: str | None, knobs: dict[str, Any]):
    groups, moved = _permuted(archdsl.load(name), variant, **knobs)
    assert groups >= 5 and moved <= 1e-10


def test_groups_of_a_transformer():
    spec = archdsl.load("llama")
    groups = groups_of(spec.elaborate("tiny").graph)
    stream = {groups[f"layers.{i}.{p}"][a].root for i in (0, 1) for p, a in
              (("attn.norm.weight", 0), ("attn.q.weight", 1), ("attn.out.weight", 0), ("mlp.gate.weight", 1), ("mlp.down.weight", 0))}
    assert len(stream) == 1 and not stream.pop().fixed
    gate, up, down = (groups[f"layers.0.mlp.{p}.weight"] for p in ("gate", "up", "down"))
    assert gate[0].root is up[0].root is down[1].root
    assert gate[0].root is not groups["layers.1.mlp.gate.weight"][0].root
    q, k, v, out = (groups[f"layers.0.attn.{p}.weight"] for p in ("q", "k", "v", "out"))
    assert q[0].kind == "product" and v[0].parts[0].root is k[0].parts[0].root
    assert out[1].parts[-1].root is v[0].parts[-1].root
    assert groups["embed.weight"][0].fixed and not groups["embed.weight"][1].fixed


def test_groups_are_taken_apart_alike():
    a, b = composed("product", [Group(8), Group(6)]), composed("product", [Group(2), Group(24)])
    couple(a, b)
    assert [p.size for p in a.parts] == [p.size for p in b.parts] == [2, 4, 6]
    c, d = composed("joined", [Group(3), Group(5)]), composed("joined", [Group(3), Group(1), Group(4)])
    couple(c, d)
    assert [p.size for p in c.parts] == [3, 1, 4] and c.parts[0] is d.parts[0]
    thirds = [Group(4), Group(4), Group(4)]
    couple(composed("joined", thirds), composed("product", [Group(3), Group(4)]))
    assert len({p.root for p in thirds}) == 1


def test_groups_that_do_not_agree_stay_in_order():
    a, b = composed("product", [Group(4), Group(6)]), composed("joined", [Group(5), Group(19)])
    couple(a, b)
    assert all(leaf.fixed for g in (a, b) for leaf in g.leaves())
    wide = Group(6)
    couple(wide, Group(3))  # an axis beside another of another size is none of its business
    assert wide.kind == "whole" and not wide.fixed


def test_places():
    heads, width = Group(3), Group(4)
    axis = composed("product", [heads, width])
    assert list(places(axis, {heads: [2, 0]})) == [8, 9, 10, 11, 0, 1, 2, 3]
    assert list(places(axis, {width: [3, 1]})) == [3, 1, 7, 5, 11, 9]
    assert list(places(composed("joined", [axis, Group(2)]), {heads: [1], width: [0]})) == [4, 12, 13]


def test_places_within_a_wider_model():
    wide = composed("joined", [composed("product", [Group(4), Group(8)]), Group(10)])
    narrow = composed("joined", [composed("product", [Group(2), Group(4)]), Group(7)])
    assert list(within(wide, narrow)) == [0, 1, 2, 3, 8, 9, 10, 11, *range(32, 39)]
    assert within(wide, wide) == range(42)
    assert within(Group(9), composed("product", [Group(2), Group(3)])) == range(6)
    with pytest.raises(ValueError, match="an axis of 6 channels does not fit into one of 5"):
        within(Group(5), Group(6))


def test_what_is_read_by_its_place_is_fixed():
    spec = archdsl.loads("""
use std.linear { Linear }
model M(d: int = 6)(x: [B = 2, T = 4, 6]) -> y: [B, T, 3] {
  h = relu(Linear(d)(x) as a)
  h = h + roll(h, shifts = 1, axes = -1)
  g = relu(Linear(8)(h) as b)
  g = concat([g[..., 0:4], g[..., 4:8]], axis = -1)
  return Linear(3)(g) as c
}""")
    groups = groups_of(spec.elaborate().graph)
    assert all(leaf.fixed for leaf in groups["a.weight"][0].leaves())
    assert not any(leaf.fixed for leaf in groups["b.weight"][0].leaves())
    assert isinstance(Coupling(spec.elaborate().graph).weights["c.bias"][0], Group) and groups["c.bias"][0].fixed
    assert _permuted(spec, None)[1] <= 1e-12
