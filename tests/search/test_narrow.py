"""Draws within narrow limits where settings of the header are many: each seed has a candidate where there are any, and nothing is told to be empty
that was not proved to be."""
from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random
from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.search import counting, limited, sums
from archdsl.search.counting import every
from archdsl.search.space import SearchSpace
from archdsl.search.tree import Refused
from archdsl.spec import loads
from tests.search import specs

TEXT = """use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

model Net(d: int = 8 in 2..132 step 2)(x: [B = 1, T = 2, d]) -> y: [B, T, d] {
  layers: for i in range(3) {
    choose map { wide(h: int = 8 in {8, 24, 40}) => MLP(h); flat => Linear(d) } = flat
    x = Pre(LayerNorm(), map)(x) as body
  }
  return x
}
"""
SPEC = loads(TEXT)
LOW, HIGH = 21_500, 21_540
ARMS: list[tuple[dict[str, Any], Any]] = [({"map": "wide", "map.h": h}, lambda d, h=h: 4 * d * h) for h in (8, 24, 40)]
ARMS.append(({"map": "flat"}, lambda d: 2 * d * d))


def assignments(low: int, high: int, headers: range = range(2, 133, 2)) -> dict[tuple[Any, ...], int]:
    """Those whose multiplications lie between two numbers, as sorted items, with the width of the stream."""
    found: dict[tuple[Any, ...], int] = {}
    for d in headers:
        for arms in product(ARMS, repeat=3):
            if low <= sum(macs(d) for _, macs in arms) <= high:
                found[tuple(sorted({"d": d, **{f"layers.{i}.{a}": v for i, (own, _) in enumerate(arms) for a, v in own.items()}}.items()))] = d
    return found


def items(candidate: Any) -> tuple[Any, ...]:
    return tuple(sorted(candidate.items()))


def narrow(low: int, high: int) -> SearchSpace:
    return SPEC.space(limits=[f"macs >= {low}", f"macs <= {high}"])


@pytest.fixture(params=["told apart", "in cells"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in cells":
        monkeypatch.setattr(limited, "FEW", 1)
        monkeypatch.setattr(limited, "CELLS", (40, 12, 5))
    return request.param


def test_every_seed_has_a_candidate(way: str):
    """9 of 4,224 assignments, below 2 of 66 settings: no seed of 50 is without, and each of the 9 is drawn."""
    wanted = assignments(LOW, HIGH)
    space = narrow(LOW, HIGH)
    drawn = Counter(items(space.sample(seed)) for seed in range(50))
    assert set(drawn) == set(wanted) and len(wanted) == 9 and set(wanted.values()) == {56, 96}
    one = space.sample(3)
    assert space.costs(one, ["macs"])["macs"] == SPEC.cost(**one).macs
    assert items(narrow(LOW, HIGH).sample(3)) == items(one), "a draw depends on its seed alone"


def test_below_a_setting_draws_are_uniform(way: str):
    """Chi-square over all assignments of one width within the limits."""
    wanted = assignments(16_000, 22_000, range(64, 65))
    space = narrow(16_000, 22_000)
    expected = 20
    root = space.root({"d": 64})
    rng = Random(7)
    found = Counter[Any]()
    while sum(found.values()) < expected * len(wanted):
        selection = space.counted._below(root, rng)
        assert not isinstance(selection, counting.Refused)
        candidate = space.finished(selection)
        if not isinstance(candidate, counting.Refused):
            found[items(candidate)] += 1
    assert set(found) == set(wanted)
    square, freedom = sum((n - expected) ** 2 / expected for n in found.values()), len(wanted) - 1
    assert freedom > 8 and abs(square - freedom) < 5 * (2 * freedom) ** 0.5


def test_cells_leave_out_nothing(monkeypatch: pytest.MonkeyPatch):
    """Whatever is asked for, of one figure or two: what keeps the limits is among the cells."""
    monkeypatch.setattr(limited, "FEW", 1)
    monkeypatch.setattr(limited, "CELLS", (9, 7, 5))
    free = SPEC.space()
    root = free.root({"d": 18})
    all_of = [free.costs(free.drawn_as(s), ["macs", "params"]) for s in every(root.top)]
    for cost in ({tuple(c.values()): c for c in all_of}).values():
        m, p = int(cost["macs"]), int(cost["params"])
        for limits in ([f"macs == {m}"], [f"macs <= {m}", f"params > {p - 1}"], [f"params < {p + 1}", f"macs > {m - 1}", f"macs < {m + 2}"]):
            counted = SPEC.space(limits=limits).counted
            near = counted.limited.narrowed(counted.space.root({"d": 18}))
            assert near is not None
            kept = sum(near[1].values())
            assert kept >= sum(all(eval(t, {"macs": c["macs"], "params": c["params"]}) for t in limits) for c in all_of)
            assert near[0] is not counted.limited.few or len(near[1]) <= 1


def test_settings_are_gone_through_where_draws_find_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counting, "ATTEMPTS", 1)
    wanted = assignments(LOW, HIGH)
    space = narrow(LOW, HIGH)
    assert {items(space.sample(seed)) for seed in range(6)} <= set(wanted)


def test_what_is_empty_is_proved(monkeypatch: pytest.MonkeyPatch):
    """66 settings, none of which has a candidate; draws that find nothing where no proof is at hand are told as that."""
    monkeypatch.setattr(counting, "ATTEMPTS", 40)
    with pytest.raises(ArchError, match=r"A0802.*`macs >= 20000` and `macs <= 20020` together, though some keep within each"):
        narrow(20_000, 20_020).sample(0)
    assert not assignments(20_000, 20_020)
    with pytest.raises(ArchError, match=r"A0802.*`d >= 200`(?s:.*)`d` is in 2\.\.16 step 2"):
        loads(TEXT.replace("2..132", "2..16")).space(limits=["d >= 200"]).sample(0)
    space = SPEC.space(limits=["peak_bytes <= 10"])
    with pytest.raises(ArchError) as fault:
        space.sample(0)
    assert "A0806" in str(fault.value) and "of 40 draws none fitted" in str(fault.value) and space.acceptance == 0
    assert "0 of 20 others keep within `peak_bytes <= 10`" in str(fault.value)


@pytest.mark.parametrize(("limits", "pair"), [
    (["params >= 60k", "macs >= 1", "params <= 50k"], ("params >= 60k", "params <= 50k")),
    (["macs(T = 4) < 5_000", "5k <= macs(T=4)"], ("macs(T = 4) < 5_000", "5k <= macs(T=4)")),
    (["d > 7", "peak_bytes == 10", "d <= 2 + 5"], ("d > 7", "d <= 2 + 5")),
    (["state_bytes == 3", "state_bytes == 4"], ("state_bytes == 3", "state_bytes == 4")),
], ids=str)
def test_limits_that_exclude_each_other_are_read_off(limits: list[str], pair: tuple[str, str]):
    """Whatever the domains are, a continuous one too, no candidate is drawn to find out."""
    space = loads(TEXT.replace("h: int = 8 in {8, 24, 40}", "h: int = 8 in {8, 24, 40}, p: float = 0.5 in 0..1")).space(limits=limits)
    with pytest.raises(ArchError, match="A0802") as fault:
        space.sample(0)
    assert f"no number keeps within both `{pair[0]}` and `{pair[1]}`" in str(fault.value)
    assert space.size == 0 and space.bounds == (0, 0, "") and not space.drawn and not space.roots


@pytest.mark.parametrize("limits", [
    ["params >= 50k", "params <= 50k"], ["macs <= 5k", "macs(T = 4) >= 6k"], ["d <= 7", "params >= 8"], ["params != 5", "params >= 5"],
    ["d >= 4", "d <= d + 1"], ["params <= 100 * d", "params >= 100 * d + 1"],
], ids=str)
def test_other_limits_are_not_taken_for_such(limits: list[str]):
    assert not SPEC.space(limits=limits).counted.contrary


@pytest.mark.parametrize("cells", [(100_000, 900, 40), (300, 150, 40)], ids=["told apart", "rounded"])
def test_repairs_change_as_little_as_can_be(monkeypatch: pytest.MonkeyPatch, cells: tuple[int, ...]):
    """Below one width, of every assignment as the start: what is found keeps the limits and what is to be kept, is found wherever there is one, and
    is as near as any where sums are told apart. Its changes are those that are told."""
    from archdsl.search import fitting
    from archdsl.search.vary import fitted

    monkeypatch.setattr(fitting, "CELLS", cells)
    monkeypatch.setattr(fitting, "PICKS", 500)
    wanted = [dict(found) for found in assignments(2_900, 4_110, range(18, 19))]
    space = narrow(2_900, 4_110)
    starts = list(every(space.root({"d": 18}).top))
    assert 4 < len(wanted) < 40 and len(starts) == 64

    def choices(values: Any) -> list[Any]:
        return [(values[f"layers.{i}.map"], values.get(f"layers.{i}.map.h")) for i in range(3)]

    def apart(values: Any, other: Any) -> int:
        pairs = zip(choices(values), choices(other))
        return sum(0 if a == b else 1 + (b[1] is not None) if a[0] != b[0] else 1 for a, b in pairs)

    for start in starts:
        values = start.values({"d": 18})
        for kept in (frozenset(), frozenset(a for a in values if a.startswith("layers.1."))):
            fits = [w for w in wanted if choices(w)[1] == choices(values)[1]] if kept else wanted
            found = fitted(space, values, start, kept, Random(1))
            assert (found is not None) == bool(fits)
            if found is None:
                continue
            assert items(found) in {items(w) for w in fits}
            assert len(found.repaired) == sum(values[a] != found[a] for a in values if a in found)
            if cells[0] > 10_000:
                assert apart(values, found) == min(apart(values, w) for w in fits)


INSIDE = specs.HEAD + """block Inner(h: int = 8 in {8, 16, 32})(x: [..., d]) -> [..., d] { return Pre(LayerNorm(), MLP(h))(x) as f }

block Stage(w: int = 8 in {8, 16, 24})(x: [..., d]) -> [..., d] {
  y = Linear(w)(x) as into
  y = Inner()(y) as inner
  return Linear(d)(y) as out
}

model Net(d: int = 8)(x: [B = 1, d]) -> y: [B, d] {
  stages: for i in range(2) { x = Stage()(x) as stage }
  return x
}
"""


def test_repairs_keep_what_lies_in_parts_that_become_others():
    """At another width the block inside is another part: its decision is kept all the same, and one that keeps it is found wherever there is one."""
    from archdsl.search.vary import fitted

    plain = loads(INSIDE).space()
    params = {items(v): plain.costs(plain.candidate(v), ["params"])["params"] for s in every(plain.root({}).top) if (v := s.values({}))}
    most = sorted(params.values())[8]
    space, other = plain.limited(loads(INSIDE).space(limits=[f"params <= {most}"]).limits), 0
    for start in every(space.root({}).top):
        values = start.values({})
        for kept in ("stages.0.stage.inner.h", "stages.1.stage.w"):
            found = fitted(space, values, start, frozenset((kept,)), Random(1))
            assert (found is not None) == any(p <= most and dict(c)[kept] == values[kept] for c, p in params.items())
            if found is not None:
                assert found[kept] == values[kept] and params[items(found)] <= most
                other += found["stages.0.stage.w"] != values["stages.0.stage.w"]
    assert other > 20


def test_what_stays_is_not_rounded(monkeypatch: pytest.MonkeyPatch):
    """However coarse the cells are: they tell by how much a repair differs from what it begins with, half a unit off for each part that changes."""
    from archdsl.search import fitting

    monkeypatch.setattr(fitting, "CELLS", (11, 5, 5))
    space = narrow(2_900, 4_110)
    seen = 0
    for start in every(space.root({"d": 18}).top):
        found = fitting.Fitting(space, start, frozenset())
        macs, unit = found._total(start)[0], next(iter(found.units))
        top = found._table(start.part, start, "")
        for cell in top.cells:
            near = found._drawn(top, cell, start, Random(1))
            changed = sum(a.entry is not b.entry for a, b in zip(near.below, start.below))
            assert abs(found._total(near)[0] - macs - unit * cell[0]) <= changed * unit / 2
            seen += changed > 0
        assert unit == 373
    assert seen > 64


def test_a_repair_takes_room_for_what_it_looks_at(monkeypatch: pytest.MonkeyPatch):
    """However far beyond the limits some arms are: cells that lead to nothing within them are not laid out."""
    from archdsl.search import fitting
    from archdsl.search.vary import fitted

    spec, sizes = loads(TEXT.replace("{8, 24, 40}", "{8, 24, 40, 900, 9000}").replace("d: int = 8 in 2..132 step 2", "d: int = 8")), list[int]()
    plain, space = spec.space(), spec.space(limits=["params <= 900", "macs <= 1600"])
    joined = fitting._joined

    def measured(*given: Any) -> Any:
        found = joined(*given)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(fitting, "_joined", measured)
    wide = {f"layers.{i}.map": "wide" for i in range(3)} | {f"layers.{i}.map.h": h for i, h in enumerate((8, 40, 9000))}
    start = plain.candidate(wide)
    near = space.select({}, lambda a, domain: start[a])
    assert not isinstance(near, Refused)
    found = fitted(space, dict(start), near, frozenset(("layers.0.map.h",)), Random(1))
    assert found is not None and found["layers.0.map.h"] == 8 and space.costs(found, ["macs"])["macs"] <= 1600
    assert len(sizes) == 3 and max(sizes) <= fitting.MOST


def test_children_within_narrow_limits_are_others_than_their_parents(monkeypatch: pytest.MonkeyPatch):
    """Each mutation finds one that keeps the limits; which it is depends on parent and seed alone, not on what the space has looked at."""
    from archdsl.search import vary
    from archdsl.search.model import Remembered

    monkeypatch.setattr(vary, "REDRAWN", 1)
    space = narrow(16_000, 22_000)
    parents = [space.sample(seed) for seed in range(4)]
    for seed in range(20):
        parent = parents[seed % 4]
        child = space.mutate(parent, seed)
        assert child != parent and 16_000 <= space.costs(child, ["macs"])["macs"] <= 22_000
        if seed % 10 == 0:
            fresh = narrow(16_000, 22_000)
            assert items(fresh.mutate(Remembered(fresh, space.to_json(parent)), seed)) == items(child)


FIVE = """use std.linear { Linear }
model Five(
  a: int = 8 in 1..8,
  b: int = 10 in 10..80 step 10,
  c: int = 3 in 3..24 step 3,
  d: int = 5 in 5..40 step 5,
  e: int = 7 in 7..56 step 7,
)(x: [B = 1, 4]) -> y: [B, 4] {
  return x |> Linear(a) as one |> Linear(b) as two |> Linear(c) as three |> Linear(d) as four |> Linear(e) as five |> Linear(4) as out
}
"""


def test_few_of_many_settings_are_found(monkeypatch: pytest.MonkeyPatch):
    """Five knobs of eight values: fewer than 1 in 500 of 32,768 settings fits, and each seed has one of them; where there is none, the nearest is
    told."""
    monkeypatch.setattr(counting, "PLAIN", 5)
    monkeypatch.setattr(counting, "ATTEMPTS", 20)
    values = list(product(range(1, 9), range(10, 81, 10), range(3, 25, 3), range(5, 41, 5), range(7, 57, 7)))
    params = {v: sum((i + 1) * o for i, o in zip((4, *v), (*v, 4))) for v in values}
    fitting = {v for v in values if 3_000 <= params[v] <= 3_003}
    assert 0 < len(fitting) < len(values) / 500
    spec = loads(FIVE)
    space = spec.space(limits=["params >= 3000", "params <= 3003"])
    drawn = [space.sample(seed) for seed in range(2)]
    assert {tuple(c.values()) for c in drawn} <= fitting and not space.uniform and space.bounds[0] == 1
    assert dict(spec.space(limits=["params >= 3000", "params <= 3003"]).sample(1)) == dict(drawn[1]), "a draw depends on its seed alone"
    with pytest.raises(ArchError, match="A0806"):
        spec.space(limits=["params > 10 ** 400"]).sample(0)  # beyond any float
    least = min(params.values())
    with pytest.raises(ArchError) as fault:
        spec.space(limits=[f"params < {least}"]).sample(0)
    assert "A0806" in str(fault.value) and f"the nearest that was met has `params` = {least:,}" in str(fault.value)


def test_repairs_know_parts_of_those_before(monkeypatch: pytest.MonkeyPatch):
    """Near another assignment of the same parts, the model alone is gone through; a space that knows nothing finds the same."""
    from archdsl.search import fitting
    from archdsl.search.vary import fitted

    gone: list[str] = []
    tabled = fitting.Fitting._tabled
    monkeypatch.setattr(fitting.Fitting, "_tabled", lambda self, part, like, path: gone.append(path) or tabled(self, part, like, path))
    space = narrow(2_900, 4_110)
    starts = list(every(space.root({"d": 18}).top))
    for kept in (frozenset(), frozenset({"layers.1.map"}), frozenset({"layers.2.map"})):
        for start in starts:
            fitted(space, start.values({"d": 18}), start, kept, Random(1))
        gone.clear()
        for start in starts[::7]:
            found = fitted(space, start.values({"d": 18}), start, kept, Random(3))
            assert set(gone) <= {""}, "parts of models that were met"
            fresh = narrow(2_900, 4_110)
            again = next(s for s in every(fresh.root({"d": 18}).top) if s.values({}) == start.values({}))
            other = fitted(fresh, again.values({"d": 18}), again, kept, Random(3))
            assert (found is None) == (other is None) and (found is None or other is None or items(found) == items(other))
            gone.clear()


MANY = """use std.channel { MLP }
use std.linear { Linear }
model Many(depth: int = 4 in {3, 4})(x: [B = 1, 8]) -> y: [B, 8] {
  layers: for i in range(depth) {
    choose map { wide(h: int = 8 in {8, 27, 64, 125}) => MLP(h); flat => Linear(8) } = flat
    x = map(x) as body
  }
  return x
}
"""


@pytest.mark.parametrize("limits", [["macs <= 5e3"], ["macs <= 5_000"], ["macs <= 5k", "params >= 1.5k"]], ids=str)
def test_counting_is_bounded_by_its_work(monkeypatch: pytest.MonkeyPatch, limits: list[str]):
    """Past so many additions, sums are told apart no longer; rounded to cells they still lead each draw into the limits. Which way it is goes by the
    space alone: another that has looked at more draws the same."""
    from archdsl.search import ways

    spec = loads(MANY)
    whole = spec.space(limits=limits)
    drawn = [items(whole.sample(seed)) for seed in range(4)]
    made = whole.counted.limited.exact.made
    assert whole.uniform and whole.bounds[0] == whole.bounds[1] and made > 100 and drawn

    monkeypatch.setattr(ways, "ADDITIONS", 100)
    monkeypatch.setattr(limited, "CELLS", (6, 3, 2))
    space = spec.space(limits=limits)
    first = space.sample(0)
    assert space.counted.limited.exact.made < made, "no row is begun whose additions are too many"
    assert not space.uniform and "more than 100 additions" in space.bounds[2]
    near = space.counted.limited.narrowed(space.root({"depth": 4}))
    assert near is not None and near[0] not in (space.counted.limited.exact, space.counted.limited.few)
    other = spec.space(limits=limits)
    for seed in range(1, 9):
        other.sample(seed)
    assert items(other.sample(0)) == items(first)
    assert all(other.holds(n, other.sample(s)) for n in other.limits for s in range(9))


def test_settings_together_are_bounded_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counting, "TOGETHER", 60)
    space = loads(MANY).space(limits=["macs <= 5k"])
    assert space.sample(0) and not space.uniform and "more than 60 additions lead to the sums below the header's settings" in space.bounds[2]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_sums_are_packed_without_loss(width: int):
    """Of any sign, and far beyond what costs of models come to."""
    from archdsl.search.tree import Entry
    from archdsl.search.ways import Ways

    rng = Random(width)
    numbers = [tuple(rng.randrange(-10**k, 10**k + 1) for _ in range(width)) for k in range(0, 28, 3) for _ in range(20)]
    entries = [Entry({"at": i}, (), None, {}) for i in range(len(numbers))]  # type: ignore[arg-type]
    ways = Ways(lambda _, entry: numbers[entry.values["at"]], width)
    packed = [ways.own(None, e) for e in entries]  # type: ignore[arg-type]
    assert [ways.vector(p) for p in packed] == numbers and len(set(packed)) == len(set(numbers))
    assert ways.vector(sum(packed)) == tuple(map(sum, zip(*numbers)))


@pytest.mark.parametrize(("low", "high"), [("2.9k", "4.11k"), ("2.9e3", "4110.0"), ("2_900", "4_110")])
def test_numbers_are_numbers_however_they_are_written(low: str, high: str, monkeypatch: pytest.MonkeyPatch):
    """Cells and repairs know `4.11k` as they do 4,110."""
    from archdsl.search.vary import fitted

    monkeypatch.setattr(limited, "FEW", 1)
    space = SPEC.space(limits=[f"macs >= {low}", f"macs <= {high}"])
    root = space.root({"d": 18})
    near = space.counted.limited.narrowed(root)
    assert near is not None and near[0] is not space.counted.limited.few
    start = next(every(root.top))
    found = fitted(space, start.values({"d": 18}), start, frozenset(), Random(1))
    assert found is not None and 2_900 <= space.costs(found, ["macs"])["macs"] <= 4_110


KEPT = """use std { Attention, Linear }

model Net(d: int = 8 in 8..64 step 8, depth: int = 2 in 1..12)(x: [B = 1, T = 8, d]) -> y: [B, T, d] stream T {
  layers: for i in range(depth) { x = Attention(2, mask = causal & window(4))(x) as mix }
  return x
}
"""


@pytest.mark.parametrize("most", [90, 3_000])
def test_states_are_read_where_the_other_limits_leave_something(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state takes the model in another form: 96 of them took longer than all else, though the parameters alone had ruled them out."""
    read: list[Any] = []
    state = sums.state
    monkeypatch.setattr(sums, "state", lambda *given: (read.append(given), state(*given))[1])
    spec = loads(KEPT)
    space = spec.space(limits=[f"params <= {most}", "state_bytes(T = 8) <= 2000"])
    small = {(d, n) for d in range(8, 65, 8) for n in range(1, 13) if 4 * d * d * n <= most}
    fitting = {(d, n) for d, n in small if 4 * 2 * 3 * d * n + 16 <= 2_000}
    assert bool(small) == bool(fitting) == (most > 90)
    if fitting:
        assert {(c["d"], c["depth"]) for seed in range(20) for c in [space.sample(seed)]} <= fitting and space.size == len(fitting) < len(small)
        assert 0 < len(read) <= len(small)
    else:
        assert space.counted.find(Random(0)) is None and space.size == 0
        assert len(read) <= 12  # of the nearest ones, to tell of them
