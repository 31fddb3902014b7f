"""Diagnostics as text for people and as data for tools. No other file knows how a diagnostic looks."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.records import record
from archdsl.source import NOWHERE, Source, Span

WIDTH = 140  # columns of an excerpt; longer source lines are cut around what is marked
TAB = "    "

Piece = tuple[str, str]  # text and the name of its style ("" = plain)
Row = list[Piece]
LONGEST = 240  # letters of a word in a message

STYLES = {"error": "bold red", "warning": "bold yellow", "message": "bold", "gutter": "bold blue", "secondary": "bold blue", "fact": "bold cyan"}


@record(frozen=True)
class Mark:
    """Characters `start` to `end` of one line, with what is said about them; `runs_on` when the span ends on a later line."""

    start: int
    end: int
    message: str
    primary: bool
    runs_on: bool = False


def render(diagnostic: Diagnostic, color: bool = False, width: int = WIDTH) -> str:
    """The diagnostic with excerpts of its sources, without a final newline; `color` adds terminal codes."""
    paint = _painter() if color else _plain
    return "\n".join("".join(paint(text, style) for text, style in row).rstrip() for row in _rows(diagnostic, width))


def _rows(d: Diagnostic, width: int) -> Iterable[Row]:
    yield [(f"{d.severity}[{d.code}]", d.severity), (f": {_safe(brief(d.message))}", "message")]
    sections = _sections(d)
    gutter = max((len(str(number)) for _, lines in sections for number in lines), default=1)
    for at, (source, lines) in enumerate(sections):
        yield [(" " * gutter + ("--> " if at == 0 else "::: "), "gutter"), (_place(d, source, lines), "")]
        if source.text:
            yield [(" " * gutter + " |", "gutter")]
            yield from _excerpt(source, lines, gutter, d.severity, width)
    for kind, texts in (("note", d.notes), ("help", helps(d))):
        for text in texts:
            yield from _fact(kind, text, gutter)


def helps(d: Diagnostic) -> tuple[str, ...]:
    """The actions that a diagnostic proposes: its help lines, then the fixes that no help line names."""
    return (*d.help, *(fix.title for fix in d.fixes if fix.title not in d.help))


def _fact(kind: str, text: str, gutter: int) -> Iterable[Row]:
    lead = " " * (gutter + 1)
    first, *others = _safe(brief(text), keep="\n").split("\n")
    yield [(lead + "= ", "gutter"), (f"{kind}:", "fact"), (f" {first}", "")]
    for line in others:
        yield [(lead + " " * len(f"= {kind}: ") + line, "")]


# ---------------------------------------------------------------- which lines, and what is marked on them
def _sections(d: Diagnostic) -> list[tuple[Source, dict[int, list[Mark]]]]:
    """Per source, the primary one first: line number -> marks. A number without marks is context; line 0 never occurs."""
    sections: dict[str, tuple[Source, dict[int, list[Mark]]]] = {}
    spans = [(d.span, d.label, True), *((label.span, label.message, False) for label in d.labels)]
    for span, message, primary in spans:
        if span.source is NOWHERE.source:
            continue
        _, lines = sections.setdefault(span.source.path, (span.source, {}))
        for number, mark in _marks(span, message, primary):
            lines.setdefault(number, []).append(mark)
            if primary and not span.source.line(number).strip():
                for before in _written_line_before(span.source, number):
                    lines.setdefault(before, [])
    return [(source, dict(sorted(lines.items()))) for source, lines in sections.values()]


def _marks(span: Span, message: str, primary: bool) -> Iterable[tuple[int, Mark]]:
    source = span.source
    first, column = source.position(span.start)
    last, end = source.position(max(span.start, span.end))
    if last > first and end == 1:  # ends with a newline: that is the end of the line before
        last, end = last - 1, len(source.line(last - 1)) + 1
    if first == last:
        length = len(source.line(first))
        start = min(column - 1, length)
        yield first, Mark(start, max(min(end - 1, length), start + 1), message, primary)
        return
    head, tail = source.line(first), source.line(last)
    yield first, Mark(min(column - 1, len(head)), max(len(head), column), "", primary, runs_on=True)
    indent = len(tail) - len(tail.lstrip())
    start = min(indent, end - 2)
    yield last, Mark(start, max(min(end - 1, len(tail)), start + 1), message, primary)


def _written_line_before(source: Source, number: int) -> Iterable[int]:
    """The nearest line before `number` that is not blank: an end of file alone says little."""
    for n in range(number - 1, max(0, number - 20), -1):
        if source.line(n).strip():
            yield n
            return


def _place(d: Diagnostic, source: Source, lines: dict[int, list[Mark]]) -> str:
    if not source.text:
        return _safe(source.path)
    spans = [d.span, *(label.span for label in d.labels)]
    line, column = source.position(next(span.start for span in spans if span.source.path == source.path))
    return f"{_safe(source.path)}:{line}:{column}"


# ---------------------------------------------------------------- drawing
def _excerpt(source: Source, lines: dict[int, list[Mark]], gutter: int, severity: str, width: int) -> Iterable[Row]:
    for number, marks in lines.items():
        text, marks = _window(source.line(number), marks, max(20, width - gutter - 3))
        yield [(f"{number:>{gutter}} | ", "gutter"), (text, "")]
        for row in _mark_rows(marks, severity):
            yield [(" " * gutter + " | ", "gutter"), *row]
        if any(m.runs_on for m in marks) and number + 1 not in lines:
            yield [("...", "gutter")]


def _window(line: str, marks: list[Mark], width: int) -> tuple[str, list[Mark]]:
    """The part of a line that fits `width` columns and holds the marks, and the marks in its columns."""
    anchor = next((m.start for m in marks if m.primary), min((m.start for m in marks), default=0))
    low = 0 if len(line) <= width and _columns(line)[1][-1] <= width else max(0, anchor - width // 3)
    shown, columns = _columns(line[low : low + width])
    high = len(columns) - 1
    while high > 1 and columns[high] > width:
        high -= 1
    lead, trail = "…" if low else "", "…" if low + high < len(line) else ""

    def column(at: int) -> int:
        at -= low
        return len(lead) + (columns[min(max(at, 0), high)] + max(0, min(at, high + 1) - high))

    moved = [Mark(column(m.start), max(column(m.end), column(m.start) + 1), m.message, m.primary, m.runs_on) for m in marks]
    return lead + "".join(shown[:high]) + trail, moved


def _columns(text: str) -> tuple[list[str], list[int]]:
    """Each character as it is shown, and the column where each one (and the end) stands."""
    shown: list[str] = []
    columns = [0]
    for char in text:
        cell = TAB if char == "\t" else _safe(char)
        shown.append(cell)
        columns.append(columns[-1] + (len(cell) if cell.isascii() else _cell_width(cell)))
    return shown, columns


def _cell_width(char: str) -> int:
    import unicodedata

    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _mark_rows(marks: list[Mark], severity: str) -> Iterable[Row]:
    """The row of carets and dashes, and the labels: the rightmost beside its mark, the others hanging below."""
    if not marks:
        return
    end = max(m.end for m in marks)
    said = sorted((m for m in marks if m.message), key=lambda m: (m.start, m.primary))
    inline = said[-1] if said and said[-1].end == end and all(m.end <= said[-1].start for m in said[:-1]) else None
    hanging = said[:-1] if inline else said
    row = _underline(marks, end, severity)
    yield [*row, (" " + _safe(brief(inline.message)), _style(inline, severity))] if inline else row
    if hanging:
        yield _hangers(hanging, severity)
    while hanging:
        mark = hanging.pop()
        row = _hangers([m for m in hanging if m.start < mark.start], severity)
        yield [*row, (" " * (mark.start - sum(len(text) for text, _ in row)), ""), (_safe(brief(mark.message)), _style(mark, severity))]


def _underline(marks: list[Mark], end: int, severity: str) -> Row:
    owner: list[Mark | None] = [None] * end
    for mark in sorted(marks, key=lambda m: (m.start - m.end, m.primary)):  # short over long, then primary over secondary
        owner[mark.start : mark.end] = [mark] * (mark.end - mark.start)
    for mark in marks:
        if mark.primary and mark not in owner:  # covered piece by piece
            owner[mark.start : mark.end] = [mark] * (mark.end - mark.start)
    cells = ((" ", "") if m is None else ("^" if m.primary else "-", _style(m, severity)) for m in owner)
    return [("".join(text for text, _ in run), style) for style, run in groupby(cells, key=lambda cell: cell[1])]


def _hangers(marks: list[Mark], severity: str) -> Row:
    row: Row = []
    at = 0
    for mark in marks:
        if mark.start >= at:
            row += [(" " * (mark.start - at), ""), ("|", _style(mark, severity))]
            at = mark.start + 1
    return row


def _style(mark: Mark, severity: str) -> str:
    return severity if mark.primary else "secondary"


# ---------------------------------------------------------------- text
def brief(text: str) -> str:
    """A sentence with the middle of endless words left out: a name of a stranger's spec may have millions of letters."""
    if len(text) <= LONGEST:
        return text
    return re.sub(rf"[^\s`]{{{LONGEST + 1},}}", lambda word: f"{word[0][:LONGEST // 2]}…{word[0][-LONGEST // 4:]}", text)


def _safe(text: str, keep: str = "") -> str:
    """Without control and direction characters, which could rewrite the terminal of whoever reads a stranger's spec."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else " " if c in "\n\t\r" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _plain(text: str, style: str) -> str:
    return text


def _painter() -> Callable[[str, str], str]:
    from rich.color import ColorSystem
    from rich.style import Style

    styles = {name: Style.parse(text) for name, text in STYLES.items()}
    return lambda text, style: styles[style].render(text, color_system=ColorSystem.STANDARD) if style and text.strip() else text


# ---------------------------------------------------------------- data
def to_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """One dictionary per diagnostic. Lines and columns count from 1 in characters; ends are exclusive.

    `notes` holds what is said at places: the primary label, the secondary labels, then the derived facts (at the primary place).
    """
    return [_entry(d) for d in diagnostics]


def _entry(d: Diagnostic) -> dict[str, Any]:
    line, column = d.span.source.position(d.span.start)
    end_line, end_column = d.span.source.position(max(d.span.start, d.span.end))
    said = [(d.label, d.span), *((label.message, label.span) for label in d.labels), *((note, d.span) for note in d.notes)]
    return {
        "code": d.code, "severity": d.severity, "message": brief(d.message), "path": d.span.source.path,
        "line": line, "column": column, "end_line": end_line, "end_column": end_column,
        "help": list(map(brief, helps(d))), "notes": [_note(message, span) for message, span in said if message],
    }


def _note(message: str, span: Span) -> dict[str, Any]:
    line, column = span.source.position(span.start)
    return {"message": brief(message), "path": span.source.path, "line": line, "column": column}
