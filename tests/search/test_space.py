"""Candidates of spaces: valid, costed and named as their graphs are."""
from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from random import Random

import pytest

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.search.domains import draw, gap, neighbour
from archdsl.spec import load, loads
from tests.search.specs import ALL, CHOICES, DEPTH, EQUAL_ARMS


def checked(spec, space, candidate, variant=None):
    """A candidate is what its values say: it can be built, has this graph and these costs, and is told in JSON."""
    made = spec.elaborate(variant, dict(candidate))
    assert candidate.key == made.graph.hash
    cost = spec.cost(variant, **candidate)
    got = space.costs(candidate, ["params", "macs", "weight_bytes"])
    assert got == {"params": cost.params, "macs": cost.macs, "weight_bytes": cost.weight_bytes}
    again = space.from_json(space.to_json(candidate))
    assert dict(again) == dict(candidate) and again.key == candidate.key
    for address, domain in space.decisions(candidate).items():
        assert domain.contains(candidate[address]), address


@pytest.mark.parametrize("name", ALL)
def test_children_are_candidates(name):
    spec = loads(ALL[name])
    space = spec.space()
    some = [space.sample(seed) for seed in range(6)]
    some += [space.mutate(c, seed) for seed, c in enumerate(some[:3])]
    some += [space.crossover(a, b, 7) for a, b in zip(some, some[3:])][:3]
    for candidate in some:
        checked(spec, space, candidate)


@pytest.mark.parametrize("name", ALL)
def test_a_crossing_is_of_its_parents(name):
    """What stands below an arm is from the parent that the arm is from; what a child shares with them is what it would be without."""
    space, fresh = loads(ALL[name]).space(), loads(ALL[name]).space()
    a, b = space.sample(1), space.mutate(space.sample(2), 1, 3)
    for seed in range(12):
        child = space.crossover(a, b, seed)
        again = fresh.candidate(dict(child))
        assert again.key == child.key and list(again.items()) == list(child.items()) and space.decisions(child) == fresh.decisions(again)
        for address, value in child.items() if not child.repaired else ():
            arms = [address[:i] for i, c in enumerate(address) if c == "." and address[:i] in child]
            givers = [p for p in (a, b) if address in p and all(p.get(arm) == child[arm] for arm in arms)]
            assert not givers or value in [p[address] for p in givers], address
        a, b = b, space.mutate(child, seed)
        assert fresh.candidate(dict(b)).key == b.key


def test_a_child_shares_what_it_has_from_its_parents():
    """Layers of a child that is crossed, mended for a limit and mutated are its parents' but for two; its figures are those of its graph."""
    space = loads(CHOICES.replace("n: int = 3", "n: int = 24")).space(limits=["params <= 24_000"])
    a, b = space.sample(1), space.sample(2)
    child = space.mutate(space.crossover(a, b, 3), 4)
    known = {id(s) for p in (a, b) for s in p.selection.below}
    assert sum(id(s) in known for s in child.selection.below) >= 22
    for seed in range(40):
        a, b = b, space.mutate(space.crossover(a, b, seed), seed, 2)
        assert space.costs(b, ["params"])["params"] <= 24_000
    assert space.spec.cost(**b).params == space.costs(b, ["params"])["params"]


def test_the_same_seed_gives_the_same_candidate_in_another_space():
    first, second = loads(CHOICES).space(), loads(CHOICES).space()
    _ = [second.sample(seed) for seed in (9, 8)]
    for seed in range(5):
        a, b = first.sample(seed), second.sample(seed)
        assert dict(a) == dict(b)
        assert dict(first.mutate(a, seed, 2)) == dict(second.mutate(b, seed, 2))


def test_a_seed_gives_these_values_on_every_machine():
    space = loads(CHOICES).space()
    heads = [{f"layers.{i}.mixer": "attention", f"layers.{i}.mixer.heads": n, f"layers.{i}.mixer.kv": n} for i, n in enumerate((2, 4, 2))]
    assert dict(space.sample(1)) == heads[0] | heads[1] | heads[2]
    assert dict(space.mutate(space.sample(1), 2)) == {"layers.0.mixer": "mlp", "layers.0.mixer.hidden": 32} | heads[1] | heads[2]


def test_assignments_of_one_graph_have_one_key():
    space = loads(EQUAL_ARMS).space()
    one, other = space.candidate({}), space.candidate({"layers.1.map": "other"})
    assert dict(one) != dict(other) and one == other and one.key == other.key
    assert space.distance(one, other) == 0
    assert space.candidate({"layers.1.map": "wide"}) != one


def test_distance_is_the_share_of_the_decisions_that_differ_and_by_how_much():
    space = loads(CHOICES).space()
    base = space.candidate({})  # three layers of attention with four heads of {2, 4, 8} and kv = 2 of {1, 2, 4}
    more, fewer = space.candidate({"layers.0.mixer.heads": 8}), space.candidate({"layers.0.mixer.kv": 1})
    other = space.candidate({"layers.2.mixer": "nothing"})
    assert space.distance(base, more) == space.distance(more, base) == pytest.approx((8 - 4) / (8 - 2) / 9)
    assert space.distance(more, fewer) == pytest.approx((4 / 6 + 1 / 3) / 9)
    assert space.distance(base, other) == space.distance(other, base) == pytest.approx(3 / 9), "what one of them does not have is as far as can be"


def test_numbers_of_numpy_and_those_that_are_none():
    """What a caller's own search hands over: numpy's numbers count as their values, what is no number lies in no domain."""
    np = pytest.importorskip("numpy")
    space = loads("model M(d: int = 2 in {2, 4}, r: float = 0.5 in {0.5, 1.5})(x: [B = 1, d]) -> y: [B, d] { return x * r }").space()
    for four, r in ((np.int64(4), np.float64(1.5)), (np.int32(4), np.float32(1.5)), (4, 1.5)):
        assert dict(space.candidate({"d": four, "r": r})) == {"d": 4, "r": Fraction(3, 2)}
    for value in (math.nan, math.inf, np.float32("nan")):
        for address in ("d", "r"):
            with pytest.raises(ArchError, match="A0803"):
                space.candidate({address: value})


def test_faults_are_told():
    with pytest.raises(ArchError, match="A0801"):
        loads("model M(d: int = 2)(x: [B = 1, d]) -> y: [B, d] { return x }").space()
    space = loads(CHOICES).space()
    for values in ({"layers.0.mixer": "none"}, {"layers.0.mixer.hidden": 16}, {"d": 8}, {"layers.0.mixer.heads": 2, "layers.0.mixer.kv": 4}):
        with pytest.raises(ArchError, match="A0803"):
            space.candidate(values)
    with pytest.raises(ArchError, match="A0805"):
        loads(CHOICES).space("small")


def test_a_limit_that_none_keeps():
    space = loads(CHOICES).space(limits=["params <= 3"])
    with pytest.raises(ArchError, match="A0802"):
        space.sample(0)


@pytest.mark.parametrize("name", ["itransformer", "llama"])
def test_shipped_spec(name):
    spec = load(name)
    space = spec.space()
    for seed in range(2):
        checked(spec, space, space.sample(seed))


def test_repairs_are_told():
    space = archdsl.load("llama").space()
    parents = [space.sample(seed) for seed in range(12)]
    children = [space.mutate(p, seed, 2) for seed, p in enumerate(parents)]
    told = [r for c in children for r in c.repaired]
    assert told and all(" instead of " in r for r in told)


def test_a_scale_of_logarithms():
    """Draws are uniform by the logarithm, and so are steps and distances."""
    text = DEPTH.replace("d: int = 8,", "d: int = 8 in 4..32 step * 2, rate: float = 0.1 in 1e-4..1 step * ...,")
    space = loads(text.replace("  return x\n}", "  return x * rate\n}")).space()
    drawn = [space.sample(seed) for seed in range(400)]
    assert {c["d"] for c in drawn} == {4, 8, 16, 32}
    decades = Counter(math.floor(math.log10(c["rate"])) for c in drawn)
    assert sum((decades[k] - 100) ** 2 / 100 for k in range(-4, 0)) < 16.3, "chi-square, three degrees of freedom, 0.1%"
    domain = space.decisions(drawn[0])["rate"]
    assert gap(domain, Fraction(1, 10_000), Fraction(1, 100)) == pytest.approx(0.5) == gap(domain, Fraction(1, 100), 1)
    for seed in range(60):
        moved = neighbour(domain, Fraction(1, 100), Random(seed))
        assert 10**-2.41 < moved < 10**-1.59 and domain.contains(moved)
        assert domain.contains(draw(domain, Random(seed)))
    assert {neighbour(space.decisions(drawn[0])["d"], 8, Random(seed)) for seed in range(20)} == {4, 16}


VARIED = CHOICES + """
variant mlps { n = 2, layers.*.mixer = mlp }
variant fewer of mlps { layers.1.mixer.hidden = 48 }
"""


def test_a_variant_is_where_a_search_begins_or_what_stays():
    spec = loads(VARIED)
    fixed = spec.space(variant="fewer", fixed=True)
    size = spec.space(variant="mlps").size
    assert size is not None and size == loads(CHOICES.replace("n: int = 3", "n: int = 2")).space().size and size > 9
    assert spec.space(variant="mlps", fixed=True).size == 9
    assert fixed.size == 3 and [dict(c.items())["layers.0.mixer.hidden"] for c in map(fixed.at, range(3)) if c is not None] == [16, 32, 48]
    for seed in range(4):
        candidate = fixed.mutate(fixed.sample(seed), seed)
        assert list(candidate) == ["layers.0.mixer.hidden"]
        checked(spec, fixed, candidate, "fewer")
    with pytest.raises(ArchError, match="is no decision of this candidate"):
        fixed.candidate({"layers.1.mixer.hidden": 16})
    with pytest.raises(ArchError, match="`small` does not set"):
        loads(CHOICES + "variant small { layers.*.mixer = nothing }").space(variant="small", fixed=True)


def test_a_header_that_a_variant_fixes():
    spec = loads(DEPTH + "variant deep { depth = 3, layers.*.layer.norm = false }")
    fixed = spec.space(variant="deep", fixed=True)
    assert fixed.size == 2**3 and spec.space(variant="deep").size == 4 + 4**2 + 4**3, "at a depth of 0 there is nothing that it could set"
    assert set(fixed.sample(0)) == {f"layers.{i}.layer.hidden" for i in range(3)}
    checked(spec, fixed, fixed.sample(1), "deep")


@pytest.mark.parametrize(("text", "code", "said", "near"), [
    ("parms", "A0403", "`parms` is no figure of a model", "params"),
    ("mcs(B = 2)", "A0403", "`mcs` is no figure of a model", "macs"),
    ("qqqqqq", "A0403", "`qqqqqq` is no figure of a model", None),
    ("depth", "A0804", "`depth` is no figure of a model", None),
    ("causal", "A0404", "`causal` is no figure of a model: it is for claims", None),
    ("macs(B = qqqqqq)", "A0403", "`qqqqqq` is nothing that a figure can speak of", None),
])
def test_what_is_no_figure_is_told_as_one(text: str, code: str, said: str, near: str | None):
    """An objective is no limit: the message does not speak of limits, and offers figures alone."""
    from archdsl.search.figures import figure

    with pytest.raises(ArchError) as fault:
        figure(loads(DEPTH), text)
    (found,) = fault.value.diagnostics
    assert (found.code, found.message) == (code, said) and [e[1] for f in found.fixes for e in f.edits] == ([near] if near else [])
    assert near or "params, macs" in " ".join(found.help)
    with pytest.raises(ArchError, match="`parms` is nothing that a limit can speak of"):
        loads(DEPTH).space(limits=["parms <= 3"])
