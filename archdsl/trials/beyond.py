"""What stands behind a fault: the text with it mended is checked, and what is wrong with that is told at its place."""
from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher

from archdsl.diagnostics.fixing import Edit, apply
from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.diagnostics.stages import independent
from archdsl.records import replace
from archdsl.source import Source, Span

ALIKE = 0.7  # of two names
NAMES = ("A02", "A0401", "A0403", "A0431", "A0432")  # codes of names: of values, of variants and models, of claims' words, of addresses
SIZES = ("A03",)  # codes whose fix is good enough to look for misspelt names behind it
Check = Callable[[str], list[Diagnostic]]


def beyond(found: list[Diagnostic], source: Source, check: Check) -> list[Diagnostic]:
    """Further faults of a text with faults of syntax that each have a fix, or with others that have a likely one. None when a line that was
    mended is still wrong: it was meant otherwise, and what is told elsewhere may follow from it. Behind a mended size only names are looked at."""
    errors = [d for d in found if d.severity == "error"]
    if not all(_here(d, source) for d in errors if d.code.startswith("A01")):
        return []
    edits: list[Edit] = []
    mended: list[Diagnostic] = []
    for d in errors:
        likely = _sure(d, source) or d.code.startswith(SIZES) and _here(d, source)
        more = [(span.start, span.end, new) for span, new in d.fixes[0].edits] if likely else []
        if more and not any(a <= y and x <= b for a, b, _ in more for x, y, _ in edits):
            edits += more
            mended.append(d)
    if not edits:
        return []
    later = [_back(d, source, edits) for d in check(apply(source.text, edits)) if d.severity == "error"]
    rows = {source.position(at)[0] for start, end, _ in edits for at in (start, end)}
    if any(d.span.source is source and source.position(d.span.start)[0] in rows for d in later):
        return []
    if any(d.code.startswith(SIZES) for d in mended):
        later = [d for d in later if d.code.startswith(NAMES)]
    known = {(d.code, d.span.start) for d in errors}
    return [d for d in independent(tuple(mended), later, names=True) if (d.code, d.span.start) not in known]


def _sure(d: Diagnostic, source: Source) -> bool:
    """Whether the first fix is hardly a wrong one: of syntax, of a value outside of its domain, or of a name that differs in a letter."""
    if not _here(d, source) or not d.code.startswith(("A01", "A0407", *NAMES)):
        return False
    if d.code.startswith(("A01", "A0407")):
        return True
    return all(not span.text or SequenceMatcher(None, span.text, new).ratio() >= ALIKE for span, new in d.fixes[0].edits)


def _here(d: Diagnostic, source: Source) -> bool:
    return bool(d.fixes) and all(span.source.path == source.path for span, _ in d.fixes[0].edits)


def _back(d: Diagnostic, source: Source, edits: list[Edit]) -> Diagnostic:
    """A fault of the mended text, told of the text as it was."""
    def place(span: Span) -> Span:
        return Span(source, _before(span.start, edits), _before(span.end, edits)) if span.source.path == source.path else span

    return replace(d, span=place(d.span), labels=tuple(Label(place(label.span), label.message) for label in d.labels), given=(), rivals=(),
                   fixes=tuple(Fix(f.title, tuple((place(span), new) for span, new in f.edits)) for f in d.fixes))


def _before(at: int, edits: list[Edit]) -> int:
    """Where a place of the mended text is in the text before; inside of what was put there, its start."""
    shift = 0
    for start, end, new in sorted(edits):
        if at <= start + shift:
            break
        if at < start + shift + len(new):
            return start
        shift += len(new) - (end - start)
    return at - shift
