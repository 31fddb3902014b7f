"""A diagnostic is data: code, message, places, facts and fixes. Only `render` turns it into text."""
from __future__ import annotations

from typing import Any, Literal

from archdsl.records import field, record, replace
from archdsl.source import Span


@record(frozen=True)
class Label:
    """A place and what is to be said about it."""

    span: Span
    message: str = ""


@record(frozen=True)
class Fix:
    """Replacements that would mend the fault: (span, new text)."""

    title: str
    edits: tuple[tuple[Span, str], ...]


@record(frozen=True)
class Given:
    """An application of a block around a fault: the block's statements, and where the caller wrote its arguments, by name."""

    body: tuple[Any, ...]
    spans: dict[str, Span]


@record(frozen=True)
class Diagnostic:
    """`label` stands under the primary span, `labels` are secondary places, `notes` derived facts, `help` actions. For those who look for the cause:
    `given`, how the names at the place got their values, from the inside out; `division`, the two numbers of one that is not exact; `rivals`, fixes
    that are less likely, offered when trying them shows that they are right;
    `widened`, a tensor (graph.Value) of another element type than the model's."""

    code: str
    message: str
    span: Span
    label: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    severity: Literal["error", "warning"] = "error"
    given: tuple[Given, ...] = field(default=(), compare=False, repr=False)
    division: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    rivals: tuple[Fix, ...] = field(default=(), compare=False, repr=False)
    widened: Any = field(default=None, compare=False, repr=False)


class ArchError(Exception):
    """Raised for a fault in a spec or in what the user asked of it; carries `diagnostics`."""

    def __init__(self, *diagnostics: Diagnostic):
        self.diagnostics: list[Diagnostic] = list(diagnostics)
        super().__init__("\n".join(f"{d.code}: {d.message}" for d in diagnostics))

    def __str__(self) -> str:
        from archdsl.diagnostics.render import render

        return "\n".join(render(d) for d in self.diagnostics)


def in_library(span: Span) -> bool:
    return span.source.module.startswith("std.")


def moved(d: Diagnostic, to: Span, block: str) -> Diagnostic:
    """A fault inside a block of the library, shown where the user's text applies it."""
    if any(label.message.startswith("inside `") for label in d.labels):
        return replace(d, span=to)
    inside = Label(d.span, f"inside `{block}`")
    return replace(d, span=to, label=d.label or d.message, labels=(*d.labels, inside), fixes=())


def error(code: str, message: str, span: Span, label: str = "", *, labels: tuple[Label, ...] = (), notes: tuple[str, ...] = (),
          help: tuple[str, ...] | str = (), fixes: tuple[Fix, ...] = (),
          division: tuple[int, int] | None = None, rivals: tuple[Fix, ...] = ()) -> ArchError:
    """An ArchError with one diagnostic."""
    return ArchError(Diagnostic(code, message, span, label, labels, notes, (help,) if isinstance(help, str) else help, fixes, division=division,
                                rivals=rivals))


@record()
class Collector:
    """Gathers diagnostics in order of appearance, each fault once."""

    found: list[Diagnostic] = field(default_factory=list[Diagnostic])
    _seen: set[tuple[str, str, int, int]] = field(default_factory=set[tuple[str, str, int, int]])

    def add(self, fault: ArchError | Diagnostic) -> None:
        for d in fault.diagnostics if isinstance(fault, ArchError) else (fault,):
            source = d.span.source
            key = (d.code, source.path, source.at(d.span.start), source.at(d.span.end))
            if key not in self._seen:
                self._seen.add(key)
                self.found.append(d)
