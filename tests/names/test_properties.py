"""Random maps: importing what was exported gives the same weights, bit for bit where nothing is added or scaled."""
from __future__ import annotations

import json
from fractions import Fraction
from math import prod

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archdsl.weightmap import Entry, Step, WeightMap

sizes = st.integers(1, 4)


@st.composite
def rearrangements(draw, shape):
    """Every axis falls into factors, and the factors come back in another order and grouping."""
    atoms, ins = [], []
    for s in shape:
        a = draw(st.sampled_from([d for d in range(1, s + 1) if s % d == 0]))
        ins.append((len(atoms), len(atoms) + 1))
        atoms += [a, s // a]
    order = draw(st.permutations(range(len(atoms))))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=3)))
    outs = [tuple(order[a:b]) for a, b in zip([0, *cuts], [*cuts, len(order)])]
    return tuple(atoms), tuple(ins), tuple(outs)


@st.composite
def chains(draw, affine):
    """A list of shapes and steps that fit it."""
    shapes = [tuple(draw(st.lists(sizes, min_size=1, max_size=3)))] * draw(st.integers(1, 4))
    first, steps = list(shapes), []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["rearrange", "transpose", "concat", "split", "stack", "unstack", *(["add", "scale"] if affine else [])]))
        rank = min(map(len, shapes))
        if kind == "rearrange":
            step = Step(kind, tuple(draw(rearrangements(s)) for s in shapes))
        elif kind == "transpose" and rank:
            step = Step(kind, tuple((draw(st.integers(0, len(s) - 1)), draw(st.integers(0, len(s) - 1))) for s in shapes))
        elif kind in ("add", "scale"):
            step = Step(kind, tuple((Fraction(draw(st.integers(1, 9)), draw(st.integers(1, 9))),) for _ in shapes))
        elif kind == "concat" and rank and len({s[1:] for s in shapes}) == 1:
            step = Step(kind, ((0, tuple(s[0] for s in shapes)),))
        elif kind == "split" and rank and all(s[-1] > 1 for s in shapes):
            step = Step(kind, tuple((len(s) - 1, (1, s[-1] - 1)) for s in shapes))
        elif kind == "stack" and len(set(shapes)) == 1:
            step = Step(kind, ((draw(st.integers(0, rank)), len(shapes)),))
        elif kind == "unstack" and rank and sum(s[0] for s in shapes) <= 16:
            step = Step(kind, tuple((0, s[0]) for s in shapes))
        else:
            continue
        steps.append(step)
        shapes = step.shapes(shapes)
    return first, tuple(steps), shapes


@st.composite
def maps(draw, affine=False):
    entries, own = [], {}
    for k in range(draw(st.integers(1, 3))):
        before, steps, after = draw(chains(affine))
        entries.append(Entry(tuple(f"own.{k}.{i}" for i in range(len(before))), tuple(f"foreign.{k}.{i}" for i in range(len(after))), steps))
        own.update(zip(entries[-1].source, before))
    return WeightMap(tuple(entries)), own


def tensors(shapes) -> dict[str, torch.Tensor]:
    """All values differ, so that every misplaced one shows."""
    at, out = 1, {}
    for k, s in shapes.items():
        out[k] = torch.arange(at, at + prod(s), dtype=torch.float64).reshape(s)
        at += prod(s)
    return out


@given(maps())
@settings(max_examples=150)
def test_import_of_export(case):
    m, shapes = case
    own = tensors(shapes)
    foreign = dict(m.apply(own))
    assert {k: tuple(v.shape) for k, v in foreign.items()} == m.shapes(shapes)
    assert sorted(v.item() for t in foreign.values() for v in t.flatten()) == sorted(v.item() for t in own.values() for v in t.flatten())
    back = dict(m.invert().apply(foreign))
    assert set(back) == set(own) and all(torch.equal(back[k], own[k]) for k in own)
    assert m.fit(shapes, {k: tuple(v.shape) for k, v in foreign.items()}).perfect


@given(maps(affine=True))
@settings(max_examples=60)
def test_affine_maps_come_back_too(case):
    m, shapes = case
    own = tensors(shapes)
    back = dict(m.invert().apply(dict(m.apply(own))))
    assert all(torch.allclose(back[k], own[k], rtol=1e-9, atol=1e-9) for k in own)


@given(maps(affine=True))
@settings(max_examples=60)
def test_inversion_and_data(case):
    m, shapes = case
    assert m.invert().invert() == m
    assert WeightMap.from_json(json.loads(json.dumps(m.to_json()))) == m
    assert m.invert().shapes(m.shapes(shapes)) == shapes
    assert m.invert().sources() == m.targets()
