"""Tries edits on a text with faults, and tells the faults with what came out."""
from __future__ import annotations

import re
from typing import Any

from archdsl.diagnostics.fixing import apply, moved_place
from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.elaborate.limits import Ration, Spent
from archdsl.incremental.check import Checker
from archdsl.records import record, replace
from archdsl.source import Source, Span
from archdsl.syntax import tree
from archdsl.syntax.parser import MAX_TOKENS, parse_some
from archdsl.trials.beyond import SIZES, back, in_variant, mended, within_variant
from archdsl.trials.candidates import groups

MOST_FAULTS = 6  # of a text; where more is wrong, none of it is looked into
WORK = 240_000  # steps of elaboration for all trials of a text, some second of work
MOST_STEPS = 80_000  # of the check itself; of a text that takes more, what faults are about is looked into alone
SECONDS = 10.0  # of CPU for them, which only a text whose work is not in its steps comes near
ONE = 30_000  # what one trial may take, or twice what the check took
TRIAL = 1_500  # steps that a trial costs beside those of elaboration, and one for
CHARACTERS = 8  # characters of the text
BEHIND = 3  # times that faults are mended to look at what stands behind them
WIDE = 40  # characters of a place in which two that are exchanged are looked for
OFFERED = 3  # fixes of one fault
ALIKE = 2  # exchanges that are right, of which the reader may choose; where there are more, none is likely

ABOUT_MODELS = frozenset(("A0215", "A0401", "A0403", "A0431", "A0432"))
OF_SIZES = (*SIZES, "A0407")  # codes of faults that leave what is said about models as it is
UNHEARD = (*OF_SIZES, "A0203")  # of those beside which nothing is said of these models: with a right fix, something may be
_NUMBERS = frozenset(("A0301", "A0302", "A0303", "A0304", "A0305", "A0308", "A0310", "A0407"))


@record(frozen=True)
class Proof:
    """A fix after which its fault is gone and no new one has come; `mends`: the faults, by their number, that are gone. `clean`: nor is anything
    said about models that was not before. `breaks`: something that was not looked at then is wrong behind it."""

    fix: Fix
    mends: frozenset[int]
    clean: bool = True
    breaks: bool = False


def tried(found: list[Diagnostic], source: Source, spent: int = 0, most: int = WORK) -> list[Diagnostic]:
    """The faults of a text: of each, the fixes that were found to be right, if there are such; without those that follow from another one.
    `spent`: steps that checking the text took; of a text that takes many, what no fault is about is left out of the trials. What `most` steps do not
    suffice to try is offered as it was: what a user is told is counted, not timed."""
    work = Work(source.path, Ration(most, SECONDS), spent)
    out = found
    try:
        if spent <= MOST_STEPS:
            out = work.tried(found, source)
            if not work.cut or work.ration.steps < 0:
                return out
        proven = len(work.proven)
        short = Source(source.path, essence(found, source))
        again = work.errors_in(short.text)
        key = {(d.code, d.message, d.span.start) for d in found if d.severity == "error"}
        if {(d.code, d.message, d.span.start) for d in again} != key:
            return out
        told = [back(d, source, []) for d in work.tried(again, short, behind=0, whole=source.text)]
        return told if len(work.proven) > 2 * proven or spent > MOST_STEPS else out
    except Spent:
        return out


def essence(found: list[Diagnostic], source: Source) -> str:
    """A text with blanks for its variants, claims, spaces and foreign names, but for those that faults are told of, or in which they stand."""
    decls = parse_some(source, MAX_TOKENS)[0].decls
    variants = {d.name: d for d in decls if isinstance(d, tree.Variant)}
    named = {m for d in found for note in d.notes for m in re.findall(r"^in the variant `(.*)`$", note)}
    spans = [s for d in found for s in (d.span, *(label.span for label in d.labels))]
    kept = {id(d) for d in decls if any(s.start <= d.span.end and d.span.start <= s.end for s in spans)}
    queue = [name for name, d in variants.items() if name in named or id(d) in kept]
    while queue:
        below = variants.pop(queue.pop(), None)  # each is met once, in a circle too
        if below is not None:
            kept.add(id(below))
            queue += [below.base] if below.base else []
    text = source.text
    for d in decls:
        if isinstance(d, (tree.Variant, tree.Claim, tree.Space, tree.Names)) and id(d) not in kept:
            text = text[: d.span.start] + re.sub(r"[^\n]", " ", d.span.text) + text[d.span.end :]
    return text


class Work:
    """Checks of the texts that come from one text, and how much may go into them."""

    def __init__(self, path: str, ration: Ration, spent: int = 0):
        self.one = max(ONE, 2 * spent)
        self.ration, self.checker = ration, Checker(path, lints=False, ration=ration)
        self.proven: set[int] = set()  # ids of faults that were told with a right fix
        self.cut = False  # a trial took too long: a text that is right again may take far longer than the wrong one

    def errors_in(self, text: str) -> list[Diagnostic]:
        """What is wrong with a text. Raises Spent."""
        self.ration.pay(TRIAL + len(text) // CHARACTERS)
        return [d for d in self.checker.check(text).diagnostics if d.severity == "error"]

    def tried(self, found: list[Diagnostic], source: Source, behind: int = BEHIND, whole: str | None = None) -> list[Diagnostic]:
        """The faults with fixes that were tried, and those of the text in which they are mended, so many times over. `whole`: the text of which this
        is what the faults are about, with blanks for the rest."""
        errors = [d for d in found if d.severity == "error"]
        if not 0 < len(errors) <= MOST_FAULTS or any(d.code == "A0602" for d in errors) and len(errors) > 1:
            return found
        search = Search(source, errors, self, behind)
        proofs = {i: search.prove(i, d) for i, d in enumerate(errors) if d.span.source.path == source.path}
        if whole is not None:
            proofs = {i: self.held(p, errors, whole) for i, p in proofs.items()}
        follow = _consequences(proofs)
        told = {id(d): _told(d, proofs.get(i, [])) for i, d in enumerate(errors)}
        self.proven |= {id(told[id(d)]) for i, d in enumerate(errors) if proofs.get(i)}
        gone = {id(errors[i]) for i in follow}
        out = [told.get(id(d), d) for d in found if id(d) not in gone]
        if not behind or self.ration.steps < 0:
            return out
        try:
            later = self.behind(out, source, behind)
            if later and (other := _exchanging(out)) is not None and not self.behind(other, source, behind):
                return other
            return [*out, *later]
        except Spent:
            return out

    def held(self, proofs: list[Proof], errors: list[Diagnostic], whole: str) -> list[Proof]:
        """Proofs of a part of a text, held against the whole of it as far as the work that is left suffices; one alone is not chosen from."""
        known, out = {(d.code, d.message) for d in errors}, [*proofs]
        try:
            for i, p in enumerate(proofs if len(proofs) > 1 else ()):
                after = self.errors_in(apply(whole, _edits(p.fix)))
                out[i] = replace(p, breaks=any((d.code, d.message) not in known for d in after))
        except Spent:
            pass
        return out

    def behind(self, found: list[Diagnostic], source: Source, times: int) -> list[Diagnostic]:
        """What is wrong with the text where its faults are mended."""
        made = mended(found, source)
        later = self.errors_in(made.text) if made is not None else []
        if made is not None and (wrong := made.wrong(later)):
            made = mended(found, source, wrong)
            later = self.errors_in(made.text) if made is not None else []
        if made is None or made.wrong(later):
            return []
        known = {(d.code, d.span.start) for d in found}
        later = self.tried(later, Source(source.path, made.text), times - 1)
        return [d for d in made.behind(later, self.proven) if (d.code, d.span.start) not in known]


class Search:
    """One text and its errors, looked into with half of the work that is left: the rest is for what stands behind them. `spent`: that half is."""

    def __init__(self, source: Source, errors: list[Diagnostic], work: Work, behind: int):
        self.source, self.errors, self.work, self.spent, self.first = source, errors, work, False, behind == BEHIND
        self.least = work.ration.steps // 2 if behind else 0
        self.module = parse_some(source, MAX_TOKENS)[0]

    def prove(self, number: int, d: Diagnostic) -> list[Proof]:
        """The fixes of one fault that are right."""
        out: list[Proof] = []
        seen: set[object] = set()
        thought_of = list(groups(d, self.module))
        if self.first and len(self.errors) == len(d.fixes) == sum(len(g.fixes) for g in thought_of) == 1:  # nothing to choose from
            return []
        for group in thought_of:
            if group.spare and out:
                continue
            right: list[Proof] = []
            for fix in group.fixes:
                key = tuple((span.start, span.end, new) for span, new in fix.edits)
                if key in seen or any(span.source.path != self.source.path for span, _ in fix.edits):
                    continue
                if self.spent or sum(p.clean or d.code.startswith(OF_SIZES) for p in right) >= OFFERED:
                    break
                seen.add(key)
                right += self.tried(number, d, fix)
                if group.alone and right and len(right[-1].mends) > 1 and right[-1].clean:
                    return [*out, right[-1]]  # several faults follow from it: no other is looked for
            if not d.code.startswith(OF_SIZES):  # which of several names was meant, only a sound text tells
                right = [p for p in right if p.clean] or (right if len(right) == 1 and not self.spent else [])
            if group.alone and any(p.clean for p in right):
                right = [p for p in right if p.clean]
            if not group.alone or len(right) <= ALIKE and not (self.spent and out):  # of those that were not tried, more may be right
                out += right
        return out

    def tried(self, number: int, d: Diagnostic, fix: Fix) -> list[Proof]:
        """One proof, or none."""
        try:
            mends, clean = self.mends(number, fix)
            right = number in mends
            if right and fix not in d.fixes:
                said = self.said(fix, mends)
                right = said is not None and all(d.code.startswith(UNHEARD) and _about_models(s) for s in said)
                clean = clean and not said
        except Spent:  # of one trial that takes too long, such as one with thousands of layers, nothing is known
            self.spent = self.work.ration.steps < max(self.least, 0)
            self.work.cut = True
            return []
        return [Proof(fix, mends, clean)] if right else []

    def said(self, fix: Fix, mends: frozenset[int]) -> list[Diagnostic] | None:
        """What is wrong behind a fix and the first fixes of the other faults: a text with a fault is not looked through to the end. None where these
        cannot all be applied."""
        others = [d for i, d in enumerate(self.errors) if i not in mends]
        edits = _edits(fix)
        for other in others:
            more = _edits(other.fixes[0]) if other.fixes else []
            if not more or any(a <= y and x <= b for a, b, _ in edits for x, y, _ in more):
                return None
            edits += more
        return self.errors_of(edits) if others else []

    def errors_of(self, edits: list[tuple[int, int, str]]) -> list[Diagnostic]:
        """What is wrong with the text behind edits."""
        if self.work.ration.steps < self.least:
            raise Spent
        with self.work.ration.part(self.work.one):
            return self.work.errors_in(apply(self.source.text, edits))

    def mends(self, number: int, fix: Fix) -> tuple[frozenset[int], bool]:
        """The faults that are gone behind a fix of one, none where a new one has come; and whether nothing new is said about models. What is said of
        them when they can be elaborated at last is not of the making of a mended size or of an argument that was missing: misspelt addresses, words
        of claims, names of variants, types of settings. Nor is what is said elsewhere of a text that can be read at last."""
        unheard = self.errors[number].code.startswith(UNHEARD)
        edits = _edits(fix)
        after = self.errors_of(edits)
        syntax = all(d.code.startswith("A01") for d in self.errors) and not any(d.code.startswith("A01") for d in after)
        rows = {self.source.text.count("\n", 0, start) for start, _, _ in edits} if syntax else set[int]()
        left, clean = dict(enumerate(self.errors)), True
        for d in after:
            alike = (i for i, e in left.items() if e.code == d.code and e.message == d.message)
            same = next((i for i in alike if moved_place(left[i].span.start, edits) == d.span.start), None)
            if same is not None:
                del left[same]
            elif unheard and _about_models(d):
                clean = False
            elif not (syntax and d.span.source.position(d.span.start)[0] - 1 not in rows):
                return frozenset(), False
        return frozenset(left), clean


def _about_models(d: Diagnostic) -> bool:
    """Whether a fault is of what is said about models, settings of variants included."""
    return in_variant(d) if d.code == "A0204" else d.code in ABOUT_MODELS


def _edits(fix: Fix) -> list[tuple[int, int, str]]:
    return [(span.start, span.end, new) for span, new in fix.edits]


def _consequences(proofs: dict[int, list[Proof]]) -> set[int]:
    """The faults that are gone with another one, whose own fixes mend no more than they."""
    reach = {i: max((p.mends for p in found), key=len) for i, found in proofs.items() if found}
    gone: set[int] = set()
    for i in sorted(reach, key=lambda i: -len(reach[i])):
        if i not in gone:
            gone |= {j for j in reach[i] if j != i}
    return gone


def _told(d: Diagnostic, proofs: list[Proof]) -> Diagnostic:
    """The fault with its right fixes: those that mend most first, one that puts a number for a name last."""
    if not proofs:
        return d
    d = replace(d, help=tuple(h for h in d.help if not h.startswith("add `require ")))  # a fix that was tried is better than a condition
    listed = d.code == "A0407"  # one of its domain's numbers is always right, an exchange in the domain hardly by accident
    varied = any(within_variant(s) for s in (d.span, *(label.span for label in d.labels))) or any(n.startswith("in the variant ") for n in d.notes)

    def unlikely(p: Proof) -> tuple[Any, ...]:
        """What is wrong in a variant alone, its settings made so."""
        edits = p.fix.edits
        return (p.breaks, -len(p.mends), varied and not all(within_variant(s) for s, _ in edits), d.code == "A0305" and not _shortens(p.fix),
                listed and len(edits) == 1, any(_hardens(s, new) for s, new in edits))

    order = sorted(proofs, key=unlikely)
    fixes = tuple(p.fix for p in order)
    shown = fixes[:OFFERED] if all(len(f.edits) == 1 for f in fixes) or listed else _with_exchange(fixes)
    return _placed(replace(d, fixes=shown), shown[0])


def _exchanging(found: list[Diagnostic]) -> list[Diagnostic] | None:
    """The faults, where the only one has an exchange among its right fixes, with that as the first."""
    errors = [d for d in found if d.severity == "error"]
    exchange = next((f for f in errors[0].fixes[1:] if len(f.edits) > 1), None) if len(errors) == 1 else None
    if exchange is None:
        return None
    fixes = (exchange, *(f for f in errors[0].fixes if f != exchange))
    return [_placed(replace(d, fixes=fixes), exchange) if d is errors[0] else d for d in found]


def _with_exchange(fixes: tuple[Fix, ...]) -> tuple[Fix, ...]:
    """The first ones, but that exchanges are offered beside the first of the others."""
    exchanges = [f for f in fixes if len(f.edits) > 1][:ALIKE]
    single = [f for f in fixes if len(f.edits) == 1][: max(OFFERED - len(exchanges), 1)]
    return tuple(f for f in fixes if f in exchanges or f in single)


def _shortens(fix: Fix) -> bool:
    """Whether a fix leaves a part of what is written, as `d` of `2 * d`."""
    return len(fix.edits) == 1 and fix.edits[0][1] != fix.edits[0][0].text and fix.edits[0][1] in fix.edits[0][0].text


def _hardens(span: Span, new: str) -> bool:
    """Whether an edit writes a size as a number where the text around had a name."""
    def numbers(text: str) -> int:
        return sum(w.strip("[], ").isdigit() for w in text.split())

    return numbers(new) > numbers(span.text)


def _placed(d: Diagnostic, fix: Fix) -> Diagnostic:
    """The fault where the right edit is: a bracket where it is missing, a number or a size where it is written."""
    (span, new), *_ = fix.edits
    wide = len(fix.edits) > 1 and d.code in _NUMBERS and d.span.end - d.span.start > WIDE
    if not wide and any(s.start <= d.span.end and d.span.start <= s.end for s, _ in fix.edits):
        return d
    if d.code == "A0109" and span.start == span.end:
        token = re.compile(r"[ \t]*(\w+|[^\w\s])").match(span.source.text, span.end)
        if token is not None:
            return replace(d, span=Span(span.source, *token.span(1)), label=f"`{new.strip()}` is missing before this")
        before = re.compile(r"(?:\w+|[^\w\s])\Z").search(span.source.text, span.source.text.rfind("\n", 0, span.start) + 1, span.start)
        return d if before is None else replace(d, span=Span(span.source, *before.span()), label=f"`{new.strip()}` is missing behind this")
    if d.code in _NUMBERS or d.code == "A0221":
        labels = tuple(label for label in d.labels if label.span != span)
        label = "in the wrong order?" if len(fix.edits) > 1 else f"`{new}` would fit" if new else "one that is not needed?"
        return replace(d, span=span, label=label, labels=(Label(d.span, d.label or d.message), *labels))
    return d
