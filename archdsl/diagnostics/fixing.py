"""Applies the fixes that diagnostics offer to a text. What they do not name, comments and layout included, stays as it is."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.records import record
from archdsl.source import Span

ROUNDS = 50  # texts that are tried; each round mends at least one fault or ends the search

Edit = tuple[int, int, str]  # start, end, new text
Check = Callable[[str], list[Diagnostic]]


@record(frozen=True)
class Fixed:
    """The mended text, the titles of what was done in order, and what is still wrong with it."""

    text: str
    done: tuple[str, ...]
    left: list[Diagnostic]


def fix_text(text: str, path: str, check: Check) -> Fixed:
    """Applies the first fix of each diagnostic until nothing changes. Edits in other sources than `path` are left to the user.

    Fixes that touch the same characters wait for the next round. A fix behind which its diagnostic still stands, or a fault of syntax without
    a fix on its line or a new one above it, and a round that breaks the syntax of a text that could be read are taken back. So is everything when
    it brought reading no further.
    """
    found = check(text)
    before, done = Fixed(text, (), found), list[str]()
    refused: set[tuple[str, int, int]] = set()
    for _ in range(ROUNDS):
        chosen = _chosen(found, path, refused)
        if not chosen:
            break
        edits = [e for _, fix in chosen for e in _edits(fix)]
        new = apply(text, edits)
        after = check(new)
        failed = [d for d, _ in chosen if _stands(d, after, edits) or _misled(d, after, edits, new) or _broke_above(d, found, after, edits)]
        if not failed and _broken(after) and not _broken(found):
            failed = [d for d, _ in chosen]
        if failed:
            refused |= {_key(d) for d in failed}
            continue
        refused = {(code, moved_place(start, edits), moved_place(end, edits)) for code, start, end in refused}
        done += [fix.title for _, fix in chosen]
        text, found = new, after
    made = Fixed(text, tuple(done), found)
    return before if _no_further(before, made) else made


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with edits, which must not overlap."""
    return reduce(lambda t, e: t[: e[0]] + e[2] + t[e[1] :], sorted(edits, reverse=True), text)


def _chosen(found: list[Diagnostic], path: str, refused: set[tuple[str, int, int]]) -> list[tuple[Diagnostic, Fix]]:
    """The fixes of one round: none touches the characters of another one."""
    taken: list[Edit] = []
    out: list[tuple[Diagnostic, Fix]] = []
    for d in found:
        fix = next(iter(d.fixes), None)
        if fix is None or _key(d) in refused or any(span.source.path != path for span, _ in fix.edits):
            continue
        edits = _edits(fix)
        if edits and not any(a[0] <= b[1] and b[0] <= a[1] for a in edits for b in taken):
            taken += edits
            out.append((d, fix))
    return out


def _edits(fix: Fix) -> list[Edit]:
    return [(span.start, span.end, new) for span, new in fix.edits if span.text != new]


def _key(d: Diagnostic) -> tuple[str, int, int]:
    return d.code, d.span.start, d.span.end


def _stands(d: Diagnostic, after: list[Diagnostic], edits: list[Edit]) -> bool:
    """Whether the same is said again at the same place of the new text; of a name, that the new one is as wrong as the old one."""
    start, end = moved_place(d.span.start, edits), moved_place(d.span.end, edits)
    return any(o.code == d.code and (o.message == d.message or not _broken([d])) and _touches(o.span, start, end) for o in after)


def _misled(d: Diagnostic, after: list[Diagnostic], edits: list[Edit], new: str) -> bool:
    """Whether mending the syntax left another fault of syntax on that line that nothing is known to mend: it was meant otherwise."""
    line = new.count("\n", 0, moved_place(d.span.start, edits)) + 1
    return _broken([d]) and any(_broken([o]) and not o.fixes and o.span.source.position(o.span.start)[0] == line for o in after)


def _broke_above(d: Diagnostic, found: list[Diagnostic], after: list[Diagnostic], edits: list[Edit]) -> bool:
    """Whether mending the syntax has given the text in front of its place another fault of syntax."""
    known = {(f.code, moved_place(f.span.start, edits)) for f in found}
    place = min([d.span.start, *(span.start for span, _ in d.fixes[0].edits)])
    place = moved_place(place, [e for e in edits if e[1] < place])
    return _broken([d]) and any(_broken([o]) and o.span.start < place and (o.code, o.span.start) not in known for o in after)


def _no_further(before: Fixed, made: Fixed) -> bool:
    """Whether a text that could not be read has more faults of syntax than before, and the first one no further down."""
    first, then = ([d.span.source.position(d.span.start)[0] for d in some.left if _broken([d])] for some in (before, made))
    return 0 < len(first) < len(then) and min(then) - (made.text.count("\n") - before.text.count("\n")) <= min(first)


def _touches(span: Span, start: int, end: int) -> bool:
    return span.start <= end and start <= span.end and not (span.start > start and span.start >= end)


def moved_place(at: int, edits: list[Edit]) -> int:
    """Where a place of the old text is in the new one; an insertion at the place moves it."""
    return at + sum(len(new) - (end - start) for start, end, new in edits if end <= at)


def _broken(found: list[Diagnostic]) -> bool:
    return any(d.code.startswith("A01") for d in found)
