"""Faults planted in the shipped specs: flagged, once, on the faulty token, with the right fix (`python -m tests.faults` prints the rates)."""
from __future__ import annotations

import pytest

from .judge import judge, table
from .planter import KINDS, faults
from .several import told, triples


def hold(count: int, seed: int, span: float, fix: float, once: float) -> None:
    """Every fault is flagged; the other rates are at least these shares."""
    verdicts = [judge(f) for f in faults(seed, count)]
    shown = table(verdicts)
    silent = [(v.fault.kind, v.fault.style, v.fault.name, v.fault.edits) for v in verdicts if not v.flagged]
    assert not silent, (silent, shown)
    for what, least in (("span", span), ("fix", fix), ("once", once)):
        assert sum(getattr(v, what) for v in verdicts) >= least * len(verdicts), shown


def test_a_sample_of_faults():
    hold(12, 1, span=0.9, fix=0.83, once=0.91)  # one of each kind: each is eight hundredths


@pytest.mark.proof
@pytest.mark.parametrize("seed", [1, 2])
def test_four_hundred_faults(seed: int):
    """The aims are 98 % of spans, 90 % of fixes, and one message for each fault."""
    hold(400, seed, span=0.98, fix=0.9, once=0.99)


@pytest.mark.proof
def test_three_faults_of_one_file_in_one_run():
    """Nearly all are told at once, and nothing else beside."""
    results = [told(text, found) for text, found in triples(1, 20)]
    hits = [h for each, _ in results for h in each]
    assert sum(hits) >= 0.95 * len(hits) == 0.95 * 60
    assert not [d.message for _, rest in results for d in rest]


def test_faults_are_the_same_for_a_seed_and_of_all_kinds():
    made = faults(3, 24)
    assert [f.text for f in made] == [f.text for f in faults.__wrapped__(3, 24)]
    assert {f.kind for f in made} == set(KINDS) and len({f.text for f in made}) == 24
    for f in made:
        text = f.before
        for start, end, new in sorted(f.edits, reverse=True):
            text = text[:start] + new + text[end:]
        assert text == f.text != f.before
