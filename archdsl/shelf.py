"""Modules of the library, read by declaration: a spec names a few blocks of a module, and reading the others would take a tenth of a check."""
from __future__ import annotations

import re
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from archdsl.modules import DECLARED, REFS, Module, library_tree, spreads
from archdsl.source import Source
from archdsl.syntax import tree
from archdsl.syntax.parser import parse_lines

if TYPE_CHECKING:
    from archdsl.modules import Library

_WORD = re.compile(r"[^\W\d]\w*")


class Shelf:
    """The text of a library module, cut in front of its declarations and what is said above them. Trees are made once in a process."""

    def __init__(self, source: Source):
        text = source.text
        heads = list(DECLARED.finditer(text))
        starts = [_above(text, m.start()) for m in heads]
        self.source = source
        self.lines = {m[1]: (start, stop) for m, start, stop in zip(heads, starts, [*starts[1:], len(text)])}
        uses = parse_lines(source, 0, starts[0] if starts else len(text)).decls
        self.imports = {n.alias or n.name: (d, n) for d in uses if isinstance(d, tree.Use) for n in d.names}
        self.made: dict[str, Any] = {}

    def declaration(self, name: str) -> Any:
        """The tree of a declaration."""
        if name not in self.made:
            (self.made[name],) = parse_lines(self.source, *self.lines[name]).decls
        return self.made[name]

    def mentions(self, name: str) -> list[str]:
        """What else of the module, and of its imports, stands in a declaration as a word."""
        start, stop = self.lines[name]
        words = dict.fromkeys(_WORD.findall(self.source.text, start, stop))
        return [w for w in words if w != name and (w in self.lines or w in self.imports)]


shelf = cache(Shelf)


def _above(text: str, at: int) -> int:
    """Where the comments end that stand above a line without a gap: at their first."""
    while at:
        line = text.rfind("\n", 0, at - 1) + 1
        if not text.startswith(("///", "#"), line):
            break
        at = line
    return at


class LibraryModule(Module):
    """A module of the library. Its scope holds what has been asked for, with all that this mentions."""

    def __init__(self, source: Source, library: Library):
        self.source, self.library, self.is_library, self.folder = source, library, True, None
        self.diagnostics, self.scope, self.modules, self.spans, self.used = [], {}, {}, {}, set()
        self.shelf = shelf(source)

    @cached_property
    def tree(self) -> tree.Module:  # type: ignore[override]
        """The whole of it."""
        return library_tree(self.source.module)

    def offer(self, name: str) -> Any:
        if name in self.scope:
            return self.scope[name]
        if name in self.shelf.lines:
            d = self.shelf.declaration(name)
            self.scope[name], self.spans[name] = REFS[type(d)](d, self), getattr(d, "name_span", None) or d.span
            for word in self.shelf.mentions(name):
                self.offer(word)
            if any(map(spreads, getattr(d, "params", ()))):
                self._spread(d)
        elif name in self.shelf.imports:
            use, imported = self.shelf.imports[name]
            self.scope[name] = self.library.std(use.module).offer(imported.name)
            self.spans[name] = imported.span
        return self.scope.get(name)

    def names(self) -> list[str]:
        return [*self.shelf.lines, *self.shelf.imports]

    def complete(self) -> Module:
        for name in self.names():
            self.offer(name)
        return self


__all__ = ["LibraryModule", "Shelf", "shelf"]
