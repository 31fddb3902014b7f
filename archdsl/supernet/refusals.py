"""What a supernet refuses of a space before anything is trained, at the line of the knob: A0849. Free of torch."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Label, error
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.values import is_hyper_number
from archdsl.graph import Graph, Knob, Node, Value
from archdsl.ops.registry import find
from archdsl.source import Span

SIZES = "sizes are 1 at least, since norms and sums need channels: take {} out of the domain; an arm that is the identity leaves a block out"
ARMS = "what an arm gives has to fit where the choice stands, whichever arm it is: give it that shape, or take the arm out"


def useless(pattern: str, value: Any, why: Diagnostic) -> ArchError:
    """A value that cannot be built, and why."""
    help = SIZES.format(value) if is_hyper_number(value) else ARMS
    return error("A0849", f"no candidate can have `{pattern} = {value}`: {why.message}", why.span, why.label, labels=why.labels, notes=why.notes,
                 help=help)


def check_channels(address: str, pattern: str, value: Any, made: Elaborated) -> None:
    """Raises A0849 where a candidate with a value below 1 has a norm, or a sum of the stream, of no channels."""
    node = next(_of_nothing(made.graph, set()), None)
    if node is None:
        return
    what = "a sum" if node.op == "add" else f"`{node.op}`"
    raise error("A0849", f"no candidate can have `{pattern} = {value}`: it leaves {what} without channels", _span(made.knobs.get(address), made),
                f"{value} is in its domain", labels=(Label(node.span, f"{what} of {node.types[0]}"),), help=SIZES.format(value))


def check_results(pattern: str, address: str, arms: Sequence[tuple[Any, Elaborated]]) -> None:
    """Raises A0849 where the arms of a choice, all else equal, give the model results of different shapes."""
    (first, one), *others = arms
    for arm, made in others:
        for a, b in zip(one.graph.outputs, made.graph.outputs):
            if a.type != b.type:
                raise error("A0849", f"`{first}` and `{arm}` of the choice `{pattern}` give the model results of different shapes: {a.type} and "
                            f"{b.type}", _span(one.knobs.get(address), one), "this choice", help=ARMS)


def _span(knob: Knob | None, made: Elaborated) -> Span:
    return made.decl.name_span if knob is None else knob.span


def _of_nothing(graph: Graph, seen: set[int]) -> Iterator[Node]:
    """The norms, and the sums of what was computed, that have an axis of 0 positions."""
    if id(graph) in seen:
        return
    seen.add(id(graph))
    for node in graph.nodes:
        for inner in node.attrs.values():
            if isinstance(inner, Graph):
                yield from _of_nothing(inner, seen)
        op = find(node.op)
        norm = op is not None and "normalise" in op.roles.values()
        stream = node.op == "add" and all(isinstance(a, Value) and a.node.op != "param" for a in node.args)
        if (norm or stream) and 0 in node.types[0].shape:
            yield node
    for child in graph.children.values():
        yield from _of_nothing(child, seen)
