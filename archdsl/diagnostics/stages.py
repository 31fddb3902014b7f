"""Faults of several stages in one run: what a later stage says of a text in which an earlier one found something."""
from __future__ import annotations

from archdsl.diagnostics.model import Diagnostic
from archdsl.source import Source

MOST_EARLY = 10  # faults of names beside which values and shapes are still looked at
_LATER = ("A0204", "A0211", "A03", "A04")  # codes that names alone do not decide


def independent(early: tuple[Diagnostic, ...], later: list[Diagnostic], names: bool = False) -> list[Diagnostic]:
    """The later faults that stand on no line of an earlier one, nor point at one: what a misspelt name should have been is not known there.
    Nor are they of sizes that cannot be shown to be equal, where a `require` could not be read. `names`: those of names too."""
    lines = {place for d in early for place in _lines(d, labels=False)}
    unread = any(source.line(row).lstrip().startswith("require ") for source, row in lines)
    return [d for d in later if (names or d.code.startswith(_LATER)) and lines.isdisjoint(_lines(d, labels=True))
            and not (unread and any(h.startswith(("state it: `require", "add `require")) for h in d.help))]


def _lines(d: Diagnostic, labels: bool) -> set[tuple[Source, int]]:
    spans = [d.span, *(label.span for label in d.labels if labels), *(s for g in d.given for s in g.spans.values() if labels)]
    return {(s.source.whole, row) for s in spans for row in range(s.source.position(s.start)[0], s.source.position(max(s.start, s.end - 1))[0] + 1)}
