"""Numbers of assignments against all of them tried one by one, and draws against their frequencies."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from archdsl.cost import figure
from archdsl.diagnostics.model import ArchError
from archdsl.search.counting import every
from archdsl.spec import Spec, loads
from tests.search import specs

Assignment = dict[str, Any]


def joined(*parts: list[Assignment]) -> Iterator[Assignment]:
    for chosen in product(*parts):
        yield {k: v for c in chosen for k, v in c.items()}


def each(address: str, values: Any) -> list[Assignment]:
    return [{address: v} for v in values]


def mixer(i: int) -> list[Assignment]:
    at = f"layers.{i}.mixer"
    heads = [{at: "attention", f"{at}.heads": h, f"{at}.kv": k} for h in (2, 4, 8) for k in (1, 2, 4)]
    return heads + [{at: "mlp", f"{at}.hidden": h} for h in (16, 32, 48)] + [{at: "nothing"}]


def layer(i: int) -> list[Assignment]:
    return [{f"layers.{i}.layer.hidden": h, f"layers.{i}.layer.norm": n} for h in (8, 16) for n in (True, False)]


def arm(at: str) -> list[Assignment]:
    return [{at: "one"}, {at: "other"}, {at: "wide", f"{at}.h": 16}, {at: "wide", f"{at}.h": 32}]


def branch(at: str) -> list[Assignment]:
    return [{f"{at}.f": "linear"}, {f"{at}.f": "mlp", f"{at}.f.h": 8}, {f"{at}.f": "mlp", f"{at}.f.h": 16}]


def dependent() -> Iterator[Assignment]:
    for d in (16, 32, 48):
        for h, n in product((d, 2 * d, 4 * d), [n for n in range(1, d + 1) if d % n == 0]):
            yield {"d": d, "hidden": h, "heads": n}


def depth() -> Iterator[Assignment]:
    for n in range(4):
        yield from joined([{"depth": n}], *map(layer, range(n)))


def nested() -> Iterator[Assignment]:
    for a, b in product((1, 2), repeat=2):
        at = [f"stages.{i}.stage.blocks.{j}" for i, n in enumerate((a, b)) for j in range(n)]
        yield from joined([{"sizes": (a, b)}], *map(branch, at))


def told(n: int = 2) -> Iterator[Assignment]:
    yield from joined(*([{f"layers.{i}.f": "same"}, {f"layers.{i}.f": "own", f"layers.{i}.f.heads": 2},
                         {f"layers.{i}.f": "own", f"layers.{i}.f.heads": 4}] for i in range(n)))


TWO = specs.CHOICES.replace("n: int = 3", "n: int = 2")
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "choose in a loop": (TWO, lambda: joined(mixer(0), mixer(1)), {}),
    "a list": (specs.LISTS, lambda: each("widths", product((8, 16, 24), repeat=3)), {}),
    "domains that depend": (specs.DEPENDENT, dependent, {}),
    "depth": (specs.DEPTH, depth, {}),
    "requires across": (specs.ACROSS, lambda: joined(each("d", range(4, 25, 4)), each("heads", range(1, 7)), each("kv", range(1, 7))), {}),
    "equal arms": (specs.EQUAL_ARMS, lambda: joined(arm("layers.0.map"), arm("layers.1.map")), {}),
    "skips": (specs.SKIPS, lambda: joined(*(each(f"layers.{i}.map", ("skip", "linear", "mlp")) for i in range(3))), {}),
    "widths that flow on": (specs.FLOWS, lambda: joined(*(each(f"layers.{i}.width", ("keep", "widen")) for i in range(3))), {}),
    "loops in loops": (specs.NESTED, nested, {}),
    "shared weights": (specs.TOLD, told, {}),
    "params": (TWO, lambda: joined(mixer(0), mixer(1)), {"limits": ["params <= 2500"]}),
    "two sums": (TWO, lambda: joined(mixer(0), mixer(1)), {"limits": ["params <= 3000", "macs >= 6000 and macs <= 12000"]}),
    "a figure that is no sum": (TWO, lambda: joined(mixer(0), mixer(1)), {"limits": ["peak_bytes <= 3000"]}),
    "a count": (TWO.replace("x: [B", "x: [B") + specs.SPACED[len(specs.CHOICES):], lambda: joined(mixer(0), mixer(1)), {"name": "few"}),
    "an arm": (TWO, lambda: joined(mixer(0), mixer(1)), {"limits": ["layers.0.mixer == mlp"]}),
    "the header": (specs.DEPENDENT, dependent, {"limits": ["hidden >= 2 * d", "params <= 6000"]}),
}
HOLDS: dict[str, Any] = {
    "params": lambda s, a: s.cost(**a).params <= 2500,
    "two sums": lambda s, a: (c := s.cost(**a)).params <= 3000 and 6000 <= c.macs <= 12000,
    "a figure that is no sum": lambda s, a: s.cost(**a).peak_bytes <= 3000,
    "a count": lambda s, a: sum(v == "attention" for v in a.values()) <= 1 and s.cost(**a).params <= 3000,
    "an arm": lambda s, a: a["layers.0.mixer"] == "mlp",
    "the header": lambda s, a: a["hidden"] >= 2 * a["d"] and s.cost(**a).params <= 6000,
}


def valid(spec: Spec, assignment: Assignment) -> bool:
    try:
        spec.elaborate(None, assignment)
    except ArchError:
        return False
    return True


def brute(name: str) -> tuple[Spec, list[Assignment]]:
    text, assignments, _ = CASES[name]
    spec = loads(text)
    holds = HOLDS.get(name, lambda s, a: True)
    return spec, [a for a in assignments() if valid(spec, a) and holds(spec, a)]


@pytest.mark.parametrize("name", CASES)
def test_size(name):
    spec, found = brute(name)
    space = spec.space(**CASES[name][2])
    assert space.size == len(found) > 1
    assert space.bounds == (len(found), len(found), "")
    tried = list(CASES[name][1]())
    assert len(found) < len(tried) or name not in HOLDS


@pytest.mark.parametrize("name", ["choose in a loop", "depth", "requires across", "nested", "two sums", "a count"])
def test_draws_are_uniform(name: str):
    """Chi-square over all assignments: beyond 6 standard deviations of the statistic once in 10⁸."""
    name = {"nested": "loops in loops"}.get(name, name)
    spec, found = brute(name)
    space = spec.space(**CASES[name][2])
    assert space.uniform
    expected = 12
    counts = Counter(tuple(sorted(space.sample(seed).items())) for seed in range(expected * len(found)))
    assert set(counts) <= {tuple(sorted(a.items())) for a in found}
    square = sum((counts[tuple(sorted(a.items()))] - expected) ** 2 / expected for a in found)
    freedom = len(found) - 1
    assert abs(square - freedom) < 6 * (2 * freedom) ** 0.5, (square, freedom)


def test_limits_on_the_state_are_counted():
    text = specs.CHOSEN
    for domain in (" in {24, 32}", " in {1, 4}", " in {1, 2}", " in {2, 4}"):
        text = text.replace(domain, "")
    for arm in ("retention => Retention(2)", "aaren => Aaren(2)", "gla(kv_heads: int = 2) => GatedLinearAttention(2, kv_heads, rank = 3)"):
        assert arm in text
        text = text.replace(arm, "")
    spec = loads(text)
    free = spec.space()
    found = [free.drawn_as(s) for s in every(free.counted.roots[0][0].top)]  # type: ignore[index]
    assert len(found) == free.size == 16

    def held(candidate):
        found = figure(spec.elaborate(None, dict(candidate)), "state_bytes", {"T": 16}, "step")
        assert found is not None
        return found

    sizes = list(map(held, found))
    middle = sorted(sizes)[len(sizes) // 3]
    space = spec.space(limits=[f"state_bytes(T = 16) <= {middle}"])
    assert space.size == sum(n <= middle for n in sizes) and space.uniform
    assert all(held(space.sample(seed)) <= middle for seed in range(5))


def test_large_numbers_are_exact():
    spec = loads(specs.CHOICES.replace("n: int = 3", "n: int = 40"))
    assert spec.space().size == 12**40
    some = spec.space(limits=["count(mixer == nothing) == 39"]).size
    assert some == 40 * 11


def test_what_is_not_counted_says_why():
    text = specs.DEPTH.replace("d: int = 8,", "d: int = 8, rate: float = 0.1 in 0..0.5,")
    space = loads(text).space()
    assert space.size is None and space.bounds[1] is None and "`rate` is continuous" in space.bounds[2]
    space = loads(specs.ACROSS.replace("4..24 step 4", "4..4000 step 4")).space()
    assert space.size is None and space.bounds[1] == 1000 * 36 and "36,000" in space.bounds[2]
    many = loads(specs.CHOICES).space(limits=["peak_bytes <= 3000"])
    assert many.size is None and "`peak_bytes <= 3000` is no limit on a sum" in many.bounds[2]
    _ = [space.sample(seed) for seed in range(20)]
    assert 0 < (space.acceptance or 0) < 1 and space.uniform


WIDE = "d: int = 8 in 1..5000"


@pytest.mark.parametrize("text", [
    specs.DEPTH.replace("d: int = 8,", WIDE + ",").replace("depth: int = 2", "depth: int = 0"),
    specs.HEAD + f"""model Net({WIDE})(x: [B = 1, d]) -> y: [B, d] {{
  choose map {{ one => Linear(d)  other => MLP(d) }} = one
  return map(x) as f
}}
""",
    specs.HEAD + f"""block Late(h: int = 2 in {{2, 4}})(x: [..., d]) -> [..., d] {{ return MLP(h)(x) as f }}

block Layer(late: bool)(x: [..., d]) -> [..., d] {{ return if late {{ Late()(x) as late }} else {{ x }} }}

model Net({WIDE}, late: bool = false in {{true, false}})(x: [B = 1, d]) -> y: [B, d] {{ return Layer(late)(x) as layer }}
""",
    specs.HEAD + f"""block Late(h: int = 2 in {{2, 4}})(x: [..., d]) -> [..., d] {{ return MLP(h)(x) as f }}

model Net({WIDE}, f: block = identity)(x: [B = 1, d]) -> y: [B, d] {{ return f(x) as layer }}

variant late {{ f = Late() }}
""",
], ids=["below a loop that is empty at the defaults", "beside the header", "below what the header decides", "in what the variant says"])
def test_settings_of_the_header_are_no_bound_where_more_is_decided(text: str):
    spec = loads(text)
    space = spec.space(variant=next(iter(spec.variants), None))
    assert space.header.count is not None and space.header.count > 4096
    assert space.size is None and space.bounds[:2] == (0, None), "before anything is drawn"
    assert space.sample(0) and space.bounds[:2] == (1, None)


def test_settings_of_the_header_are_a_bound_where_nothing_more_is_decided():
    """Of a model that mentions itself, records with domains, ranges of inputs, blocks with arguments that have none."""
    text = "use std { TokenEmbedding }\n" + specs.HEAD + """record Sizes { heads: int = 2 in 1..4, h: int = 8 in 1..2000 }

record Other { k: int = 2 in 1..4 }

model Net(d: int = 8 in 8..40 step 8, ...Sizes, o: Other = Other())(x: int[B = 1, T = 4] in 0..<9) -> y: [B, T, d] {
  x = TokenEmbedding(9, d)(x) as embed
  return Pre(LayerNorm(), MLP(h))(x * heads * o.k) as mlp
}
"""
    space = loads(text).space()
    assert space.bounds[:2] == (0, 5 * 4 * 2000) and space.sample(0) and space.bounds[:2] == (1, 5 * 4 * 2000)


def test_conditions_that_exclude_each_other_are_told():
    space = loads(TWO).space(limits=["params >= 3000", "macs <= 10**9", "count(mixer == nothing) == 2"])
    with pytest.raises(ArchError) as fault:
        space.sample(0)
    said = str(fault.value)
    assert "A0802" in said and "params >= 3000" in said and "count(mixer == nothing) == 2" in said and "10**9" not in said


def test_a_variant_that_no_setting_fits():
    text = specs.HEAD + """model Net(d: int = 8, heads: int = 2 in {2, 4})(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  return Attention(heads)(x) as mixer
}
variant odd { d = 7, heads = 1 }
"""
    space = loads(text).space(variant="odd")
    assert space.size == 0
    with pytest.raises(ArchError, match="A0802") as fault:
        space.sample(0)
    assert "7 / 2 is not a whole number" in str(fault.value)


SCHEDULE = specs.HEAD + """model Net(d: int = 8, depth: int = 4 in 3..6)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  layers: for i in range(depth) {
    choose mixer { attention => Attention(2)  mlp => MLP(2 * d)  nothing => identity } = mlp
    x = Pre(RMSNorm(), mixer)(x) as block
  }
  return x
}
space few of Net { count(mixer == attention) == 2; count(mixer == nothing) <= 1 }
"""


def test_a_schedule_of_a_length_with_counts():
    """A sequence of layers whose length is a knob, so many of them of one kind: counted exactly, drawn uniformly over all lengths."""
    space = loads(SCHEDULE).space("few")
    sizes = {n: math.comb(n, 2) * (1 + n - 2) for n in range(3, 7)}  # where attention stands, and the layer that is nothing, if any
    size = sum(sizes.values())
    assert space.size == size
    drawn = Counter()
    for seed in range(1500):
        candidate = space.sample(seed)
        kinds = [candidate[f"layers.{i}.mixer"] for i in range(candidate["depth"])]
        assert kinds.count("attention") == 2 and kinds.count("nothing") <= 1
        drawn[len(kinds)] += 1
    expected = {n: 1500 * k / size for n, k in sizes.items()}
    assert sum((drawn[n] - e) ** 2 / e for n, e in expected.items()) < 16.3, "chi-square, three degrees of freedom, 0.1%"


HEADERS = """use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

model Net(d: int = 8 in {8, 16}, n: int = 2 in 2..4, side: int = 4 in {4, 6})(x: [B = 1, T = side, d]) -> y: [B, T, d] {
  require T == side
  stages: for i in range(n) {
    layers: for j in range(2) {
      choose map { small(h: int = d in {8, 24}) => MLP(h)  flat => Linear(d) } = small
      x = Pre(LayerNorm(), map)(x) as body
    }
  }
  share inner = Pre(LayerNorm(), MLP(d))
  loop: for k in range(n) { x = inner(x) }
  return x
}
"""


@pytest.mark.parametrize(("limits", "common"), [(["macs <= 9_000"], True), (["macs(B = 2) >= 9_000", "params <= 3000", "macs(B = 2) < 19_000"], True),
                                                (["macs(T = side) <= 9_000"], False)])
def test_parts_that_settings_of_the_header_have_in_common(limits: list[str], common: bool):
    """Sums over them are what whole models cost, and as many assignments keep the limits as whole models do; where sizes are the header's, parts are
    each header's own."""
    spec = loads(HEADERS)
    space = spec.space(limits=limits)
    asked = ["macs", "params", "macs(T = side)", "macs(B = 3)", "weight_bytes"]
    for seed in range(12):
        candidate = space.sample(seed)
        made = spec.elaborate(None, dict(candidate))
        wanted = [figure(made, f.split("(")[0], {"B": 3} if "3" in f else None) for f in asked]
        assert list(space.costs(candidate, asked).values()) == wanted
    assert bool(space.trials.parts) == common
    assert not common or space.trials.count < sum(len(p.entries) for p in space.trials.parts.values()) * space.header.count  # type: ignore[operator]


def test_a_window_leaves_out_nothing():
    """Of two limits on one figure, against all candidates of two settings of the header, whole."""
    spec = loads(HEADERS.replace("2..4", "{2}").replace("{4, 6}", "{4}"))
    free = spec.space()
    costs = [figure(spec.elaborate(None, dict(free.drawn_as(s))), "macs") for root, _ in free.counted.roots or () for s in every(root.top)]
    low, *_, high = sorted(costs)[len(costs) // 3:2 * len(costs) // 3]  # type: ignore[type-var]
    for limits, held in (((f"macs >= {low}", f"macs < {high}"), lambda c: low <= c < high), ((f"macs > {low}",), lambda c: c > low),
                         ((f"macs == {low}",), lambda c: c == low), ((f"macs != {low}", f"macs <= {high}"), lambda c: c != low and c <= high)):
        assert spec.space(limits=limits).size == sum(map(held, costs)), limits
