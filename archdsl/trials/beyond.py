"""What stands behind faults: the text with them mended, and what is wrong with that, told at its place."""
from __future__ import annotations

import re
from difflib import SequenceMatcher

from archdsl.diagnostics.fixing import Edit, apply
from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.diagnostics.stages import independent
from archdsl.elaborate.blame import ALWAYS
from archdsl.records import record, replace
from archdsl.source import Source, Span

ALIKE = 0.7  # of two names
NAMES = ("A02", "A0401", "A0403", "A0431", "A0432")  # codes of names: of values, of variants and models, of claims' words, of addresses
SIZES = ("A03",)  # codes of sizes


def in_variant(d: Diagnostic) -> bool:
    """Whether a fault stands in the text of a variant."""
    return within_variant(d.span)


def within_variant(span: Span) -> bool:
    return re.findall(r"^[a-z]+", span.source.text[: span.start], re.MULTILINE)[-1:] == ["variant"]


@record(frozen=True)
class Mended:
    """A text with the first fixes of some of its faults. `likely`: one of the fixes may well be a wrong one, so that only names are looked at, and
    what has a fix with which the text is sound."""

    source: Source
    text: str
    faults: tuple[Diagnostic, ...]
    edits: tuple[Edit, ...]
    likely: bool

    def behind(self, later: list[Diagnostic], proven: set[int]) -> list[Diagnostic]:
        """The faults of the mended text that are none of those before and follow from none of them, as faults of the text before. `proven`: the ids
        of those with a fix that was found to be right."""
        found: list[Diagnostic] = []
        rules = [d for d in later if not d.code.startswith(NAMES)]
        for d in later:
            if (not self.likely or d.code.startswith(NAMES) or id(d) in proven) and not self._made(d):
                told = back(d, self.source, list(self.edits))
                # a number of one variant, put right there: what was mended does well in the model and in all other variants
                own = rules == [d] and id(d) in proven and d.code in ALWAYS and in_variant(d)
                if independent(self.faults, [replace(told, labels=()) if own else told], names=True):
                    found.append(told)
        return found

    def _made(self, d: Diagnostic) -> bool:
        """Whether a division is not exact, or a number outside of its domain, because of one that was put in the place of one outside of its own; or
        addresses are not there because of a name that was put in the place of one that is taken."""
        put = [new.replace("_", "") for f in self.faults if f.code == "A0407" for _, new in f.fixes[0].edits]
        numbers = [int(text) for text in put if text.isdigit()]
        if d.code in ("A0432", "A0433") and any(f.code == "A0211" for f in self.faults):  # of a name that was made up
            return True
        if d.code == "A0407" and put:
            domain = d.span.source.text[d.span.end : d.span.source.text.find("\n", d.span.end)]
            return any(re.search(rf"\b{name}\b", domain) for f in self.faults if f.code == "A0407" for name in re.findall(r"`(\w+)`", f.message)[:1])
        return d.division is not None and any(n > 1 and a % n == 0 for n in numbers for a in d.division if a)

    def wrong(self, later: list[Diagnostic]) -> frozenset[int]:
        """The rows of the text before that are still wrong: they were meant otherwise, and what is told elsewhere may follow from it."""
        found = [back(d, self.source, list(self.edits)) for d in later]
        return frozenset(self.source.position(d.span.start)[0] for d in found if d.span.source is self.source) & _rows(self.source, self.edits)


def mended(found: list[Diagnostic], source: Source, without: frozenset[int] = frozenset()) -> Mended | None:
    """The text with what there are fixes for, but for those on some rows. None when no fault has one, or a fault of syntax has none."""
    errors = [d for d in found if d.severity == "error"]
    edits: list[Edit] = []
    faults: list[Diagnostic] = []
    for d in errors:
        more = [(span.start, span.end, new) for span, new in d.fixes[0].edits] if _here(d, source) else []
        overlap = any(a <= y and x <= b for a, b, _ in more for x, y, _ in edits)
        if not more or overlap or not without.isdisjoint(_rows(source, more)):
            if d.code.startswith("A01"):
                return None
            continue
        edits += more
        faults.append(d)
    if not edits:
        return None
    return Mended(source, apply(source.text, edits), tuple(faults), tuple(edits), not all(_sure(d) for d in faults))


def _rows(source: Source, edits: tuple[Edit, ...] | list[Edit]) -> frozenset[int]:
    return frozenset(source.position(at)[0] for start, end, _ in edits for at in (start, end))


def _sure(d: Diagnostic) -> bool:
    """Whether the first fix is hardly a wrong one: of syntax, of a value outside of its domain, or of a name that differs in a letter."""
    if not d.code.startswith(("A01", "A0407", *NAMES)):
        return False
    if d.code.startswith(("A01", "A0407")):
        return True
    return all(not span.text or SequenceMatcher(None, span.text, new).ratio() >= ALIKE for span, new in d.fixes[0].edits)


def _here(d: Diagnostic, source: Source) -> bool:
    return bool(d.fixes) and all(span.source.path == source.path for span, _ in d.fixes[0].edits)


def back(d: Diagnostic, source: Source, edits: list[Edit]) -> Diagnostic:
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
