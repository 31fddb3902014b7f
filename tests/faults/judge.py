"""What the compiler says of a fault: whether it says something, where, once, and whether a fix that it offers is right."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from archdsl.claims import claims_of, untrue
from archdsl.claims.evaluate import row
from archdsl.diagnostics.fixing import apply, fix_text
from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.source import Source
from archdsl.spec import check_text, loads
from archdsl.syntax import tree

from .text import Fault, canonical, texts

LOOSE = 24  # characters that a marked place may be longer than the fault's


@dataclass(frozen=True)
class Verdict:
    """`restored`: the sound program comes back; `fix`: that, or for faults from which it cannot be told, a program that checks."""

    fault: Fault
    found: tuple[Diagnostic, ...]
    flagged: bool
    span: bool
    fix: bool
    restored: bool
    once: bool
    mended: bool  # by `check --fix`

    @property
    def good(self) -> bool:
        return self.flagged and self.span and self.fix and self.once


@lru_cache(256)
def checked(text: str, path: str) -> list[Diagnostic]:
    """What `archdsl check` reports as errors; of a shipped text, which tests of specs check, none."""
    if any(t.path == path and t.text == text for t in texts()):
        return []
    return [d for d in check_text(text, path) if d.severity == "error"]


def errors(text: str, path: str) -> list[Diagnostic]:
    """What `archdsl check` reports as errors; of a text without any, what `archdsl verify` says of claims that can be counted."""
    found = checked(text, path)
    if found:
        return found
    for spec in loads(text, path).models.values():
        for claim in claims_of(spec):
            if isinstance(claim.item.expr, tree.Binary):  # the others run the model
                made = row(spec, claim)
                fault = untrue(claim, made) if made is not None else None
                found += [fault] if fault is not None else []
    return found


def judge(fault: Fault) -> Verdict:
    found = errors(fault.text, fault.path)
    fixes = [f for d in found for f in d.fixes]
    sound = canonical(fault.before, fault.path)
    restored = any(canonical(fixed(fault.text, f, fault.path), fault.path) == sound for f in fixes)
    fix = restored or not fault.exact and any(not checked(fixed(fault.text, f, fault.path), fault.path) for f in fixes)
    mended = fix_text(fault.text, fault.path, lambda t: checked(t, fault.path))
    return Verdict(fault, tuple(found), bool(found), any(on_place(d, fault) for d in found), fix, restored, len(found) == 1,
                   canonical(mended.text, fault.path) == sound or bool(mended.done) and not mended.left)


def fixed(text: str, fix: Fix, path: str) -> str:
    """The text with a fix; as it was where the fix is one of another file."""
    if any(span.source.path != path for span, _ in fix.edits):
        return text
    return apply(text, [(span.start, span.end, new) for span, new in fix.edits])


def on_place(d: Diagnostic, fault: Fault) -> bool:
    """Whether the primary span touches a place of the fault, lies on its lines, and is not much longer."""
    if d.span.source.path != fault.path:
        return False
    source = Source(fault.path, fault.text)
    line = source.position
    for start, end in fault.places:
        touches = d.span.start <= end and d.span.end >= start
        short = d.span.end - d.span.start <= end - start + LOOSE
        if touches and short and line(d.span.start)[0] >= line(start)[0] - 0 and line(d.span.end)[0] <= line(end)[0]:
            return True
    return False


def table(verdicts: Iterable[Verdict]) -> str:
    """Rates by kind, and by style below."""
    rows: dict[tuple[str, str], list[Verdict]] = {}
    for v in verdicts:
        for style in ("", v.fault.style):
            rows.setdefault((v.fault.kind, style), []).append(v)
    every = [v for (_, style), vs in rows.items() if not style for v in vs]
    out = [f"{'':34}  faults  flagged   span    fix  restored  one message  --fix  drawn"]
    for (kind, style), vs in sorted(rows.items(), key=lambda r: (list(dict.fromkeys(k for k, _ in rows)).index(r[0][0]), r[0][1])):
        out.append(_row("  " + style.replace("_", " ") if style else kind, vs))
    return "\n".join([*out, _row("all", every)])


def _row(name: str, vs: list[Verdict]) -> str:
    n = len(vs)

    def rate(what: str) -> str:
        return f"{100 * sum(getattr(v, what) for v in vs) / n:5.1f}%"

    return (f"{name:34}  {n:6}  {rate('flagged')}  {rate('span')} {rate('fix')}   {rate('restored')}       {rate('once')}  {rate('mended')}"
            f"  {sum(v.fault.drawn for v in vs) / n:5.1f}")
