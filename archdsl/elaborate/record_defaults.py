"""Defaults of records against the domains beside them: no model tells these, as its knobs are whole records."""
from __future__ import annotations

from collections.abc import Iterator

from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.diagnostics.poison import POISON, Poisoned
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.domains import outside
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, Session
from archdsl.elaborate.headers import allowed, convert
from archdsl.graph import Knob
from archdsl.modules import Module
from archdsl.records import replace
from archdsl.syntax import tree


def record_defaults(module: Module, session: Session) -> Iterator[Diagnostic]:
    """A0407 for each field of the file's own records whose default is none of the values of its domain. What else is wrong with a field is told
    where the record is made."""
    for d in module.tree.decls:
        if isinstance(d, tree.Record) and any(f.domain is not None for f in d.fields):
            yield from _outside(Frame(session, module, Builder(), decl=d), d)


def _outside(frame: Frame, d: tree.Record) -> Iterator[Diagnostic]:
    for f in d.fields:
        frame.vars[f.name] = POISON
        if f.default is None:
            continue
        try:
            value = convert(frame, evaluate(frame, f.default), f.type, f.default.span, f.name)
        except (ArchError, Poisoned):
            continue
        frame.vars[f.name] = value
        values = allowed(frame, f)
        if values is not None and not values.fault and not values.contains(value):
            knob = Knob(f.name, f.type.span.text if f.type else "", value, value, f.domain, f.span, f.doc)
            yield from outside(replace(knob, allowed=values)).diagnostics
