"""What has been found out about declarations and models that an edit did not reach, for as long as their trees are the same objects.

Only success is kept: what has a fault is looked at again each time, as its message may depend on everything around.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from archdsl.source import Span

if TYPE_CHECKING:
    from archdsl.diagnostics.model import Diagnostic
    from archdsl.elaborate.frame import Session
    from archdsl.elaborate.model import Elaborated, Setting
    from archdsl.lints.survey import Survey
    from archdsl.modules import Module
    from archdsl.syntax import tree

Uses = dict[str, dict[str, Span]]


class Kept:
    """Keys are objects, or ids of objects that stand beside the result, so that no other gets the id. `doubtful`: ids of declarations that mention a
    name whose meaning is another one in this version; of those nothing is known."""

    def __init__(self) -> None:
        self.doubtful: set[int] = set()
        self._models: dict[Any, tuple[Elaborated, int, Any]] = {}
        self._resolved: dict[int, tuple[Any, Uses]] = {}
        self._linted: dict[int, tuple[Any, Survey, list[Diagnostic]]] = {}
        self._names: dict[Any, tuple[Any, list[Any]]] = {}

    def elaborated(self, decl: tree.Model, settings: tuple[Setting, ...], session: Session, make: Callable[[], Elaborated]) -> Elaborated:
        """A model with these settings. One that is known costs the steps that it took."""
        return self._model((decl.span.source, decl.name, tuple((s.address, repr(s.value), id(s.expr)) for s in settings)), settings, session, make)

    def transformed(self, made: Elaborated, steps: tuple[tree.Transform, ...], session: Session, make: Callable[[], Elaborated]) -> Elaborated:
        """A model behind the `transform`s of a variant."""
        return self._model((id(made), *map(id, steps)), (made, steps), session, make)

    def _model(self, key: Any, alive: Any, session: Session, make: Callable[[], Elaborated]) -> Elaborated:
        found = self._models.get(key)
        if found is not None:
            session.steps += found[1]
            return found[0]
        before = session.steps if session.shared else 0
        made = make()
        self._models[key] = made, session.steps - before, alive
        return made

    def resolved(self, decl: Any) -> Uses | None:
        """What a declaration without a fault mentions; None where that is not known."""
        found = self._resolved.get(id(decl)) if id(decl) not in self.doubtful else None
        return None if found is None else found[1]

    def resolve(self, decl: Any, uses: Uses) -> None:
        if id(decl) not in self.doubtful:
            self._resolved[id(decl)] = decl, uses

    def linted(self, decl: Any, look: Callable[[], tuple[Survey, Iterable[Diagnostic]]]) -> tuple[Survey, list[Diagnostic]]:
        """The survey of a declaration and what lints say of it alone."""
        found = self._linted.get(id(decl))
        if found is None:
            seen, faults = look()
            found = self._linted[id(decl)] = decl, seen, list(faults)
        return found[1], found[2]

    def names(self, decl: tree.Names, module: Module, about: list[Any], check: Callable[[], list[Diagnostic]]) -> list[Diagnostic]:
        """The faults of foreign names. `about`: what they were held against. A block that mentions nothing of its file but its models may have got a
        new tree with it, and says the same."""
        words = {w for w in re.findall(r"[^\W\d]\w*", decl.span.text) if w in module.scope or w in module.modules}
        key: Any = decl.span.text if words <= {*decl.models} else id(decl)
        known = self._names.get(key)
        if known is not None and known[1] == about:
            return []
        faults = check()
        if not faults:
            self._names[key] = decl, about
        return faults
