"""The hyper arguments of a model with settings: their values, their defaults, what is wrong with them, and faults that follow from them."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from archdsl import shapes
from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.diagnostics.poison import POISON, Poisoned
from archdsl.dims import Facts
from archdsl.elaborate import headers
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.domains import odd_defaults, outside
from archdsl.elaborate.expressions import evaluate
from archdsl.elaborate.frame import Frame, Override, Session
from archdsl.elaborate.hints import segments
from archdsl.elaborate.limits import room
from archdsl.graph import Knob
from archdsl.modules import Module
from archdsl.records import replace
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.model import Setting

T = TypeVar("T")
Waiting = list[tuple[Frame, tree.Param]]
"""Hyper arguments that settings give anew as a whole, each with a frame of those before it. Nothing reads their defaults: those that call or loop
are evaluated when all else is, so that one that takes too long with the settings does not hide what is wrong with these."""


def header(module: Module, decl: tree.Model, settings: tuple[Setting, ...], session: Session) -> tuple[dict[str, Knob], list[Diagnostic]]:
    """The hyper arguments of a model with these settings, their domains read as far as they can be, and what is wrong with them; nothing of its
    body."""
    session.begin()
    overrides = tuple(Override(segments(s.address), s.value, s.expr, s.span, [False]) for s in settings)
    frame = Frame(session, module, Builder(), decl=decl, overrides=overrides)
    for o in overrides:
        o.home = frame if o.expr is not None else None
    with shapes.use_facts(Facts(session.proofs)), room(decl.name_span):
        knobs, faults, waiting = _parameters(frame, decl)
        return knobs, faults or _late(knobs, waiting)


def caused(frame: Frame, knobs: dict[str, Knob], make: Callable[[], T]) -> T:
    """A fault of a body whose own default lies outside of its domain follows from that: the domain is told instead, but of a variant, which may
    leave it. A broken rule is told where its number is written."""
    try:
        return make()
    except ArchError as e:
        odd = list(odd_defaults(k for k in knobs.values() if k.value is k.default))
        if any(d.code == "A0602" for d in e.diagnostics):
            raise
        if odd and not frame.overrides:
            raise ArchError(*(d for k in odd for d in outside(k).diagnostics)) from None
        from archdsl.elaborate.blame import blamed

        raise ArchError(*blamed(e.diagnostics, frame.decl, frame.overrides, knobs)) from None


def header_knobs(frame: Frame, decl: tree.Model) -> tuple[dict[str, Knob], Waiting]:
    """Each hyper argument as a knob, and those whose defaults wait. Raises ArchError with what is wrong with them."""
    knobs, faults, waiting = _parameters(frame, decl)
    _tell(frame, knobs, faults)
    return knobs, waiting


def late_defaults(frame: Frame, knobs: dict[str, Knob], waiting: Waiting) -> None:
    """Puts the defaults that waited into their knobs. Raises ArchError with what is wrong with them."""
    _tell(frame, knobs, _late(knobs, waiting))


def _tell(frame: Frame, knobs: dict[str, Knob], faults: list[Diagnostic]) -> None:
    if faults:
        caused(frame, {n: k for n, k in knobs.items() if k.default is not POISON}, lambda: _raise(faults))


def _late(knobs: dict[str, Knob], waiting: Waiting) -> list[Diagnostic]:
    """The same, but that it gives what is wrong."""
    faults: list[Diagnostic] = []
    for frame, p in waiting:
        default, told = _default(frame, p)
        knobs[p.name] = replace(knobs[p.name], default=default)
        faults += told
        if any(d.code == "A0602" for d in told):
            break
    return faults


def _default(frame: Frame, p: tree.Param) -> tuple[Any, list[Diagnostic]]:
    """The value of a default in a frame of the arguments before it, and what is wrong with it."""
    assert p.default is not None
    try:
        return headers.convert(frame, evaluate(frame, p.default), p.type, p.default.span, p.name), []
    except Poisoned:  # it follows from a fault reported above
        return POISON, []
    except ArchError as e:
        return POISON, e.diagnostics


def _parameters(frame: Frame, decl: tree.Model) -> tuple[dict[str, Knob], list[Diagnostic], Waiting]:
    """Hyper arguments in order, and their faults; later defaults may read earlier values. Each is a knob."""
    knobs: dict[str, Knob] = {}
    faults: list[Diagnostic] = []
    waiting: Waiting = []
    given: dict[str, list[Override]] = {}
    for o in frame.overrides:
        given.setdefault(o.segments[0], []).append(o)
    for p in decl.params:
        try:
            if p.default is None:
                if not any(len(o.segments) == 1 for o in given.get(p.name, ())):
                    raise error("A0203", f"the model `{decl.name}` has no default for `{p.name}`", p.span, help="give the paper's value")
                default = None
            elif p.name in given and len(given[p.name][0].segments) == 1 and _may_take_long(p.default):
                waiting.append((frame.child(vars=dict(frame.vars)), p))
                default = None
            else:
                default = headers.convert(frame, evaluate(frame, p.default), p.type, p.default.span, p.name)
            value = default
            for o in given.get(p.name, ()):
                if headers.addresses(o, p.name, value):
                    value = headers.convert(frame, headers.override_value(frame, o, value, p.type, p.name), p.type, o.place, p.name)
        except Poisoned:  # it follows from a fault reported above
            value = default = POISON
        except ArchError as e:
            faults += e.diagnostics
            value = default = POISON
            if any(d.code == "A0602" for d in e.diagnostics):
                break
        frame.vars[p.name] = value
        knobs[p.name] = Knob(p.name, p.type.span.text if p.type else "", default, value, p.domain, p.span, p.doc)
    for p in decl.params:
        if p.domain is not None and p.name in knobs:
            knobs[p.name] = replace(knobs[p.name], allowed=headers.allowed(frame, p))
    return knobs, faults, waiting


def _may_take_long(default: tree.Node) -> bool:
    return isinstance(default, (tree.Call, tree.Comprehension)) or any(map(_may_take_long, tree.children(default)))


def _raise(faults: list[Diagnostic]) -> None:
    raise ArchError(*faults)
