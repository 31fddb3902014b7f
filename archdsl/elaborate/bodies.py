"""The way into statements: statements.py fills the table, whatever runs a body does it here."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl import shapes
from archdsl.diagnostics.model import ArchError, Label, error
from archdsl.diagnostics.poison import POISON, Poisoned
from archdsl.elaborate import headers
from archdsl.elaborate.bindings import bound_names
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.limits import beyond
from archdsl.elaborate.values import describe
from archdsl.graph import Value
from archdsl.syntax import tree

TABLE: dict[type, Callable[[Frame, Any], Any]] = {}
"""Kind of statement -> what it does; True where the body has returned."""


def run(frame: Frame, body: tuple[tree.Statement, ...]) -> bool:
    """Runs statements in order; True when one returned. Faults are collected, and the frame goes on where it can."""
    faults: list[Any] = []
    returned = False
    for s in body:
        try:
            frame.session.step(s.span)
            if TABLE[type(s)](frame, s):
                returned = True
                break
        except Poisoned:
            _poison(frame, s)
        except (ArchError, RecursionError, OverflowError) as e:
            found = (e if isinstance(e, ArchError) else beyond(e, s.span)).diagnostics
            faults += found
            if len(faults) >= frame.session.patience or any(d.code == "A0602" for d in found):
                break
            if isinstance(s, tree.Require) and isinstance(frame.decl, tree.Block):
                break  # nothing is said of a body that was not to be run with these values
            frame.builder.incomplete = True
            _poison(frame, s)
    if faults:
        raise ArchError(*faults)
    return returned


def _poison(frame: Frame, s: tree.Statement) -> None:
    for name in assigned(s):
        if name != "_":
            frame.vars[name] = POISON
    for t in s.targets if isinstance(s, tree.Assign) else ():
        for name in _sizes(t):
            frame.vars.setdefault(name, POISON)
    if isinstance(s, tree.Return):
        frame.result = (s.span, (POISON,))


def _sizes(target: tree.Target) -> set[str]:
    """The names in the shape that is written beside a name, which its value binds: `x: [_, Y, X] = …`."""
    axes = target.type.shape.axes if isinstance(target.type, tree.TensorType) else ()
    return {name for axis in axes if not isinstance(axis, tree.AxesVar) for name in bound_names(axis)} - {"_"}


def assigned(s: Any) -> list[str]:
    """The names that a statement binds, nested bodies included."""
    if isinstance(s, tree.Assign):
        return [t.name for t in s.targets]
    if isinstance(s, (tree.Share, tree.ParamDecl, tree.Const, tree.Draw, tree.Choose, tree.Control)):
        return [s.name]
    if isinstance(s, (tree.For, tree.Island)):
        return [n for b in s.body for n in assigned(b)]
    if isinstance(s, tree.If):
        return [n for _, body in s.branches for b in body for n in assigned(b)] + [n for b in s.otherwise for n in assigned(b)]
    if isinstance(s, tree.Match):
        return [n for a in s.arms for b in a.body for n in assigned(b)]
    return []


def bind(frame: Frame, target: tree.Target, value: Any, written: tree.Expr | None = None) -> None:
    """A name for a value, which must be of the type written beside the name. Raises A0204, A0208, A0301, A0302 or A0307."""
    if isinstance(target.type, tree.TensorType):
        if not isinstance(value, Value):
            raise error("A0204", f"`{target.name}` is declared as a tensor, this is {describe(value)}", target.span)
        binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
        binding.sequences = frame.vars.get("...", {})
        headers.match_type(binding, target.type, value, target.span, f"`{target.name}`")
    elif target.type is not None and not isinstance(value, Value):
        value = _typed(frame, target, target.type, value, written)
    if isinstance(value, Value) and not value.node.result_name(value.index) and value.node.op != "input":
        if target.name != "_":
            value.node.call_result(value.index, target.name)
    elif isinstance(value, (Value, tuple)) and target.name in frame.fixed:
        raise error("A0208", f"`{target.name}` is a hyper argument of this header", target.span, "bound again here",
                    labels=(Label(frame.fixed[target.name], "declared here"),))
    frame.bind(target.name, value, target.span)


def _typed(frame: Frame, target: tree.Target, type: tree.Type, value: Any, written: tree.Expr | None) -> Any:
    """A hyper value as its declared type takes it. Raises A0204. In a body, what looks like a knob's domain is a test of membership."""
    if isinstance(value, bool) and isinstance(written, tree.Binary) and written.op == "in" and not headers.try_convert(frame, value, type)[0]:
        kind, default, domain = (n.span.text for n in (type, written.left, written.right))
        argument = f"({target.name}: {kind} = {default} in {domain})"
        raise error("A0204", f"`{target.name}` is of type {kind}, not {describe(value)}", written.span,
                    f"in a body, `in` asks whether {default} is one of {domain}",
                    help=f"a domain stands behind an argument in the header of the model or of a block: `{argument}`")
    return headers.convert(frame, value, type, written.span if written is not None else target.span, target.name)
