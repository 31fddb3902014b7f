"""What has been found out about declarations and models that an edit did not reach, for as long as their trees are the same objects.

Only success is kept: what has a fault is looked at again each time, as its message may depend on everything around.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from archdsl.incremental.content import Contents, knob_form
from archdsl.records import replace
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
    """Keys are ids of trees and their marks (`marks`: those of this version); trees stay alive, so that no other gets the id."""

    def __init__(self, session: Session) -> None:
        self.contents = Contents(session.intern)
        self.marks: Callable[[Any], int] = lambda node: 0
        self._models: dict[Any, tuple[Elaborated, int, Any]] = {}
        self._resolved: dict[tuple[int, int], Uses] = {}
        self._linted: dict[tuple[int, int], tuple[Survey, list[Diagnostic]]] = {}
        self._names: dict[Any, list[Any]] = {}

    def elaborated(self, decl: tree.Model, settings: tuple[Setting, ...], session: Session, make: Callable[[], Elaborated]) -> Elaborated:
        """A model with these settings. One that is known costs the steps that it took."""
        given = tuple((s.address, repr(s.value), s.expr and self._key(s.expr)) for s in settings)
        return self._model((decl.span.source, decl.name, self.marks(decl), given), settings, session, make)

    def transformed(self, made: Elaborated, steps: tuple[tree.Transform, ...], session: Session, make: Callable[[], Elaborated]) -> Elaborated:
        """A model behind the `transform`s of a variant. Where they see no more than what they saw before, as when a comment was written, they are
        not run again: what they made has the places of that time, so whoever tells of a fault in it has to `forget` it first."""
        key = self.contents(made.graph), tuple([knob_form(k) for k in made.knobs.values()]), *map(self._key, steps)
        found = self._model(key, (made, steps), session, make)
        return found if found.source is made else replace(made, graph=found.graph, source=made, rewrites=found.rewrites)

    def forget(self) -> bool:
        """Forgets what `transform`s made; whether there was anything."""
        found = [key for key, (made, _, _) in self._models.items() if made.rewrites]
        for key in found:
            del self._models[key]
        return bool(found)

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
        return self._resolved.get(self._key(decl))

    def resolve(self, decl: Any, uses: Uses) -> None:
        self._resolved[self._key(decl)] = uses

    def linted(self, decl: Any, look: Callable[[], tuple[Survey, Iterable[Diagnostic]]]) -> tuple[Survey, list[Diagnostic]]:
        """The survey of a declaration and what lints say of it alone."""
        key = self._key(decl)
        if key not in self._linted:
            seen, faults = look()
            self._linted[key] = seen, list(faults)
        return self._linted[key]

    def _key(self, node: Any) -> tuple[int, int]:
        return id(node), self.marks(node)

    def names(self, decl: tree.Names, module: Module, about: list[Any], check: Callable[[], list[Diagnostic]]) -> list[Diagnostic]:
        """The faults of foreign names. `about`: what they were held against. A block that mentions nothing of its file but its models may have got a
        new tree with it, and says the same."""
        words = {w for w in re.findall(r"[^\W\d]\w*", decl.span.text) if w in module.scope or w in module.modules}
        key: Any = decl.span.text if words <= {*decl.models} else self._key(decl)
        known = self._names.setdefault(key, [])
        if about in known:
            return []
        faults = check()
        if not faults:
            known[:] = [*known[-3:], about]  # with a fault in a variant, and without it, as while a line is typed
        return faults
