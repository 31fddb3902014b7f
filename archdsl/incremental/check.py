"""Versions of a text in an editor, each checked with what is known from those before it."""
from __future__ import annotations

import os
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Fix, Label
from archdsl.elaborate.frame import Session
from archdsl.elaborate.limits import MAX_STEPS, Ration, Spent, room
from archdsl.incremental.kept import Kept
from archdsl.incremental.marks import Marks
from archdsl.incremental.pieces import Reader, Reading
from archdsl.modules import Library, Module
from archdsl.records import field, record, replace
from archdsl.source import Piece, Source, Span
from archdsl.spec import check_module, check_text
from archdsl.syntax.parser import MAX_TOKENS, no_collection

VERSIONS = 400  # of a text, after which everything is looked at anew: results are kept by objects that stay alive


@record(frozen=True)
class Checked:
    """One version: its module (what could be read of it), and what `archdsl check` says of it, in the order of the text. `marks`: of its models,
    what they depend on outside of their text (marks.py)."""

    source: Source
    module: Module
    diagnostics: list[Diagnostic]
    marks: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def broken(self) -> bool:
        return any(d.severity == "error" for d in self.diagnostics)


class Checker:
    """Checks versions of the text of one file. Spans of a version's tree and models lie in pieces, which later versions move. `ration`: what all
    checks together may cost."""

    def __init__(self, path: str, lints: bool = True, ration: Ration | None = None):
        self.path, self.folder, self.lints, self.ration = path, os.path.dirname(os.path.realpath(path)), lints, ration
        self.reader = Reader()
        self.begin()

    def begin(self) -> None:
        """Forgets what was found out about other versions, and about other files."""
        self.reader.known.clear()
        self.library = Library()
        self.session = Session(self.library)
        self.session.ration = self.ration
        self.kept = Kept(self.session)
        self.marks: Marks | None = None
        self.alive: list[Any] = []
        self.beside: dict[str, tuple[int, int]] = {}

    @property
    def tired(self) -> bool:
        """Whether it would be well to begin anew, when there is time."""
        return len(self.alive) >= VERSIONS // 2

    def check(self, text: str) -> Checked:
        """Everything that is wrong with a version. It never raises ArchError; with a ration, Spent."""
        source = Source(self.path, text)
        if len(self.alive) >= VERSIONS or self._changed_beside():
            self.begin()
        with no_collection():
            found = self._check(source)
        if found is None or _about_limits(found.diagnostics) or self.session.steps > MAX_STEPS // 2 or self.library.left < MAX_TOKENS // 2:
            if self.ration is not None:
                raise Spent
            found = self._cold(source)
        self._forget_broken()
        return found

    def _check(self, source: Source) -> Checked | None:
        self.library.left, self.session.variants, self.session.steps = MAX_TOKENS, None, 0
        self.session.graphs.clear()  # a graph of an earlier version knows only where it stood then
        try:
            with room(Span(source, 0, 0)):
                reading = self.reader.read(source)
                module = self._module(reading)
                self.alive.append(module)
                self.marks = Marks(module, self.session.intern) if self.marks is None else self.marks.at(module)
                self.session.marks = self.kept.marks = self.marks
                _, diagnostics = check_module(module, self.session, self.lints, self.kept)
                if any(map(self._stale, diagnostics)) and self.kept.forget():
                    _, diagnostics = check_module(module, self.session, self.lints, self.kept)
        except ArchError:
            return None
        return Checked(source, module, _sorted(map(absolute, diagnostics)), {name: self.marks(d) for name, d in module.models.items()})

    def _stale(self, d: Diagnostic) -> bool:
        """Whether it points at a text that has been edited since."""
        spans = (d.span, *(label.span for label in d.labels), *(span for f in d.fixes for span, _ in f.edits))
        return any(isinstance(s.source, Piece) and s.source.whole is not self.reader.source for s in spans)

    def _module(self, reading: Reading) -> Module:
        self.library.left = MAX_TOKENS - reading.tokens
        return self.library.made(reading.source, reading.tree, list(reading.faults), self.folder)

    def _cold(self, source: Source) -> Checked:
        """The same without what is known: limits count all the work there is."""
        self.begin()
        module = Library().open(source, self.folder)
        return Checked(source, module, check_text(source.text, self.path, self.lints, trials=False))

    # ---------------------------------------------------------------- files beside it
    def _changed_beside(self) -> bool:
        return any(_state(path) != state for path, state in self.beside.items())

    def _forget_broken(self) -> None:
        """Remembers how the files beside the text were; one with faults is read again each time."""
        for path, module in list(self.library.read.items()):
            if not module.is_library:
                if module.diagnostics:
                    self.library.read.pop(path)
                else:
                    self.beside.setdefault(path, _state(path))


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _about_limits(found: list[Diagnostic]) -> bool:
    return any(d.code in ("A0602", "A0105", "A0106") for d in found)


def _sorted(found: Any) -> list[Diagnostic]:
    return sorted(found, key=lambda d: (d.span.source.path, d.span.start))


def absolute(d: Diagnostic) -> Diagnostic:
    """A diagnostic with its places in the whole text, where they stand now."""
    return replace(d, span=d.span.absolute, labels=tuple(Label(label.span.absolute, label.message) for label in d.labels),
                   fixes=tuple(Fix(f.title, tuple((span.absolute, new) for span, new in f.edits)) for f in d.fixes))

