"""Draws within narrow limits where settings of the header are many: each seed has a candidate where there are any, and nothing is told to be empty
that was not proved to be."""
from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random
from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.search import counting
from archdsl.search.counting import every
from archdsl.search.space import SearchSpace
from archdsl.spec import loads

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
        monkeypatch.setattr(counting, "FEW", 1)
        monkeypatch.setattr(counting, "CELLS", (40, 12, 5))
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
    monkeypatch.setattr(counting, "FEW", 1)
    monkeypatch.setattr(counting, "CELLS", (9, 7, 5))
    free = SPEC.space()
    root = free.root({"d": 18})
    all_of = [free.costs(free.drawn_as(s), ["macs", "params"]) for s in every(root.top)]
    for cost in ({tuple(c.values()): c for c in all_of}).values():
        m, p = int(cost["macs"]), int(cost["params"])
        for limits in ([f"macs == {m}"], [f"macs <= {m}", f"params > {p - 1}"], [f"params < {p + 1}", f"macs > {m - 1}", f"macs < {m + 2}"]):
            counted = SPEC.space(limits=limits).counted
            near = counted.narrowed(counted.space.root({"d": 18}))
            assert near is not None
            kept = sum(near[1].values())
            assert kept >= sum(all(eval(t, {"macs": c["macs"], "params": c["params"]}) for t in limits) for c in all_of)
            assert near[0] is not counted.few or len(near[1]) <= 1


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
