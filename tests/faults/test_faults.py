"""Faults planted in the shipped specs: flagged, once, on the faulty token, with the right fix (`python -m tests.faults` prints the rates)."""
from __future__ import annotations

import pytest

from .judge import judge, table
from .planter import KINDS, faults


def hold(count: int, seed: int, span: float, fix: float) -> None:
    verdicts = [judge(f) for f in faults(seed, count)]
    shown = table(verdicts)

    def rate(what: str) -> float:
        return sum(getattr(v, what) for v in verdicts) / len(verdicts)

    silent = [(v.fault.kind, v.fault.style, v.fault.name, v.fault.edits) for v in verdicts if not v.flagged]
    assert not silent, (silent, shown)
    many = [(v.fault.kind, v.fault.style, v.fault.name, v.fault.edits, [d.code for d in v.found]) for v in verdicts if not v.once]
    assert not many, (many, shown)
    assert rate("span") >= span, shown
    assert rate("fix") >= fix, shown


def test_a_sample_of_faults():
    hold(60, 1, span=0.95, fix=0.85)  # one of 60 is 1.7 %


@pytest.mark.proof
@pytest.mark.parametrize("seed", [1, 2])
def test_four_hundred_faults(seed: int):
    hold(400, seed, span=0.95, fix=0.85)


def test_faults_are_the_same_for_a_seed_and_of_all_kinds():
    made = faults(3, 24)
    assert [f.text for f in made] == [f.text for f in faults.__wrapped__(3, 24)]
    assert {f.kind for f in made} == set(KINDS) and len({f.text for f in made}) == 24
    for f in made:
        text = f.before
        for start, end, new in sorted(f.edits, reverse=True):
            text = text[:start] + new + text[end:]
        assert text == f.text != f.before
