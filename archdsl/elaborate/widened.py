"""Where a tensor left the model's element type: an f32 value met one of the model's, often far from the op that cannot take the result."""
from __future__ import annotations

import re
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Fix, Label
from archdsl.graph import Node, Value
from archdsl.records import replace
from archdsl.source import Span


def marked(fault: ArchError, value: Any) -> ArchError:
    """A fault about a value that should be of the model's element type."""
    if not isinstance(value, Value) or not value.type.is_float or value.dtype == "float":
        return fault
    return ArchError(*(told(replace(d, widened=value)) for d in fault.diagnostics))


def told(d: Diagnostic) -> Diagnostic:
    """A fault about `d.widened`, at the op that widened it; the same where that op is not in this body or there is none."""
    if d.widened is None or (node := _widening(d.widened)) is None or node.span == d.span:
        return d
    wide, kept = _operands(node)
    pinned = d.widened.dtype
    named = [_called(node, v) for v in (wide, kept)]
    text = f"as_type({named[0]}, {named[1]})" if all(named) else ""
    place = next(iter(re.finditer(rf"(?<![\w.]){named[0]}(?![\w(])", node.span.text)), None) if text else None
    start = node.span.start
    fixes = () if place is None else (Fix(f"write `{text}`", ((Span(node.span.source, start + place.start(), start + place.end()), text),)),)
    return replace(
        d, span=node.span, label=f"{f'`{named[0]}` is' if named[0] else 'one operand is'} {pinned}, so the result is", fixes=fixes, widened=None,
        labels=(Label(d.span, f"here it meets the model's element type{': ' + d.label if not d.labels else ''}"), *d.labels),
        help=() if fixes else (f"`{text or 'as_type(y, x)'}` gives back the type of `{named[1] or 'x'}`",),
    )


def outside(fault: ArchError, inputs: list[Value], tensors: list[Value]) -> ArchError:
    """A fault inside a definition, as its caller sees it: what came in by an input is the tensor given there."""
    given = dict(zip(inputs, tensors))
    return ArchError(*(d if d.widened is None else _moved(d, given) for d in fault.diagnostics))


def _moved(d: Diagnostic, given: dict[Value, Value]) -> Diagnostic:
    assert d.widened is not None
    return told(replace(d, widened=given.get(_source(d.widened))))


def _source(value: Value) -> Value:
    """The value that this one has its pinned type from, as far back as this body goes."""
    while (before := _before(value)) is not None:
        value = before
    return value


def _widening(value: Value) -> Node | None:
    """The first op on the way to the value that has operands of its type and of the model's; an island (`f32 { }`) widens on purpose."""
    found: Node | None = None
    while True:
        if value.node.op == "call":
            graph = value.node.attrs["graph"]
            found = _widening(graph.outputs[value.index]) or found if value.index < len(graph.outputs) else found
        elif len(_types(value.node)) > 1:
            found = value.node
        before = _before(value)
        if before is None:
            return found
        value = before


def _before(value: Value) -> Value | None:
    """The operand that gives a value its pinned type."""
    node, dtype = value.node, value.dtype
    if node.op == "call":
        graph = node.attrs["graph"]
        if value.index >= len(graph.outputs):
            return None
        source = _source(graph.outputs[value.index])
        return node.args[graph.inputs.index(source)] if source in graph.inputs else None
    return next((v for v in node.operands() if v.dtype == dtype), None)


def _types(node: Node) -> set[str]:
    return {v.dtype for v in node.operands() if v.type.is_float}


def _operands(node: Node) -> tuple[Value, Value]:
    """(of the pinned type, of the model's)."""
    floats = [v for v in node.operands() if v.type.is_float]
    return next(v for v in floats if v.dtype != "float"), next(v for v in floats if v.dtype == "float")


def _called(node: Node, value: Value) -> str:
    """The name of a value, where the text of the op speaks of it."""
    name = value.node.result_name(value.index)
    return name if name and re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", node.span.text) else ""
