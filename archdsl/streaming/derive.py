"""The graph of a form with state, derived from the parallel one, definition by definition.

The size T of the streaming axis comes to mean the positions of one call. An op along whose axis T positions stay apart is kept as it is; one that
declares how it goes on from a state (`Op.stream`) is replaced by its extension, and each of its states becomes an input and an output of its
graph, and so of every graph around it. Whatever else looks along T has no form with state: the diagnostic names the op and why. Emitted values
that look along T (a mean over all positions) are left out.
"""
from __future__ import annotations

from archdsl.diagnostics.model import ArchError, error, in_library, moved
from archdsl.dims import Dim, Size, sym, symbols
from archdsl.flatten import copy_node
from archdsl.graph import Graph, Guard, Node, TensorType, Value
from archdsl.ops.registry import LENGTH
from archdsl.records import replace
from archdsl.source import Span
from archdsl.streaming.definition import DOCUMENTS, LENGTHS, PLACES, POSITION, START, Context, Definition, Made, Session
from archdsl.streaming.emitted import Emitting
from archdsl.streaming.model import DOCUMENTS as COUNT
from archdsl.streaming.model import Slot, Source, Streamed
from archdsl.streaming.nodes import rule
from archdsl.streaming.packed import packed_rule
from archdsl.streaming.rows import NoRows


def stream(source: Source, form: str) -> Streamed:
    """The model in the form `extend` (any number of positions a call) or `step` (one). Raises ArchError A0501 with the op that prevents it."""
    if source.axis is None:
        raise error("A0501", f"`{source.graph.name}` has no form `{form}`: it declares no streaming axis", source.graph.span,
                    help="write `stream T` behind the results, where T is the axis of time")
    moving = [i for i in source.graph.inputs if any(source.axis in symbols(s) for s in i.shape)]
    first = moving[0].shape[0] if moving else None
    batch = first if isinstance(first, Dim) and str(first) != source.axis and str(first) in first.symbols else None
    if batch is not None and form != "packed":
        try:
            return _Root(source, form, batch, True).streamed()
        except NoRows:
            pass  # all rows begin together
    return _Root(source, form, batch, False).streamed()


class _Root:
    """The model itself: its definition, the state's counters, and what its guards say of positions."""

    def __init__(self, source: Source, form: str, batch: Size | None, rows: bool, most: int | None = None):
        self.source, self.form, self.batch, self.rows, self.most = source, form, batch, rows, most

    def streamed(self) -> Streamed:
        graph, axis = self.source.graph, self.source.axis
        assert axis is not None
        none, tables = (False,) * len(graph.inputs), (None,) * len(graph.inputs)
        context = Context(frozenset((axis,)), frozenset(), {axis: 1} if self.form == "step" else {}, none, none, tables, self.batch, self.rows)
        guards, longest = self._guards(graph, axis)
        session = Session(self.form, axis, packed_rule if self.form == "packed" else rule)
        session.most = self.most
        definition = Definition(session, graph, context)
        if self.form == "packed":
            return self._packed(definition, guards)
        grows = any(LENGTH in symbols(s) for _, t, *_ in definition.slots for s in t.shape)
        if longest is not None or grows or START in definition.counters or not definition.slots:  # a state is never empty
            definition.counter(POSITION)
        made = definition.finish(root=True)
        if made.lost:  # what only they need is no part of the state
            kept = Emitting()(graph, set(range(len(graph.emits))) - made.lost.keys())
            return _Root(replace(self.source, graph=kept), self.form, self.batch, self.rows, self.most).streamed()
        _same_for_all_rows(made)
        if definition.delay and longest is not None and self.most is None:  # what comes behind the last of so many is no position
            return _Root(self.source, self.form, self.batch, self.rows, longest).streamed()
        counters = tuple(c for c in made.counters if c != PLACES)
        inputs = made.graph.inputs
        if PLACES in made.counters:  # known from the state, and so no input of the model
            places = definition.counters[PLACES].node
            places.op, places.attrs = "iota", {"n": sym(LENGTH)}
            inputs = tuple(v for v in inputs if v.node is not places)
        outputs = list(made.graph.outputs)
        nodes = list(made.graph.nodes)
        for c in counters:
            value = definition.counters[c]
            if c == POSITION:
                step = Node("add", (value, context.dims.get(axis, sym(axis))), {}, value.node.types, graph.span, POSITION)
                nodes.append(step)
                value = Value(step)
            outputs.append(value)
        slots = [Slot(a, t, kept) for a, t, kept in made.slots] + [Slot(c, definition.counters[c].type) for c in counters]
        sizes = {n for v in inputs for s in v.shape for n in symbols(s)}
        guards = tuple(g for g in guards if symbols(g.left) | symbols(g.right) <= sizes)  # others have been held by the call that set the state
        names = (*made.graph.output_names, *(None for _ in counters))
        whole = replace(made.graph, inputs=inputs, nodes=tuple(nodes), outputs=tuple(outputs), output_names=names, guards=guards)
        return Streamed(whole, self.form, axis, self.batch, tuple(slots), self.rows,
                        None if longest is None else longest + definition.delay, self.source.example,
                        delay=definition.delay, ahead=definition.session.ahead,
                        given=tuple((v.node.attrs["name"], _along(v, axis)) for v in graph.inputs),
                        results=tuple(_along(v, axis) for v in graph.outputs))

    def _packed(self, definition: Definition, guards: tuple[Guard, ...]) -> Streamed:
        """Documents behind each other: the lengths come in, labels are made of them."""
        axis = self.source.axis
        assert axis is not None
        labels = definition.counter(DOCUMENTS)
        made = definition.finish()
        _same_for_all_rows(made)
        lengths = Value(Node("input", (), {"name": "lengths"}, (TensorType("int", (sym(COUNT),)),), made.graph.span, "lengths"))
        node = Node("documents", (lengths,), {"n": sym(axis)}, labels.node.types, made.graph.span, DOCUMENTS)
        known: dict[Value, Value] = {labels: Value(node)}
        if LENGTHS in definition.counters:
            known[definition.counters[LENGTHS]] = lengths
        given = tuple(known)
        nodes = [lengths.node]
        for n in made.graph.nodes:
            if n is labels.node:
                nodes.append(node)
                continue
            if any(v in given for v in n.values):
                continue
            new = copy_node(n, known.__getitem__)
            nodes.append(new)
            known.update(zip(n.values, new.values))
        inputs = (*(known[v] for v in made.graph.inputs if v not in given), lengths)
        nodes = [*(v.node for v in inputs), *(n for n in nodes if n.op != "input")]
        whole = replace(made.graph, inputs=inputs, nodes=tuple(nodes), outputs=tuple(known[v] for v in made.graph.outputs), guards=guards,
                        emits={k: known[v] for k, v in made.graph.emits.items()})
        return Streamed(whole, self.form, axis, self.batch, (), False, None, self.source.example)

    def _guards(self, graph: Graph, axis: str) -> tuple[tuple[Guard, ...], int | None]:
        """Guards on other sizes stay; `T <= n` bounds the positions in all."""
        kept: list[Guard] = []
        longest: int | None = None
        for g in graph.guards:
            if axis not in symbols(g.left) | symbols(g.right):
                kept.append(g)
            elif str(g.left) == axis and g.op in ("<", "<=") and isinstance(g.right, int):
                most = g.right - (g.op == "<")
                longest = most if longest is None else min(longest, most)
            elif not (str(g.left) == axis and g.op in (">", ">=") and isinstance(g.right, int) and g.right <= 1):
                fault = error("A0501", f"no form `{self.form}`: the model requires {g.left} {g.op} {g.right}", g.span,
                              "a condition on the number of positions", help="a state takes any number of positions")
                raise _applied(fault, graph, g.span)
        return tuple(kept), longest


def _along(v: Value, axis: str) -> int | None:
    return next((i for i, s in enumerate(v.shape) if axis in symbols(s)), None)


def _applied(fault: ArchError, graph: Graph, span: Span) -> ArchError:
    """A fault of a condition in the library, shown where the user's text calls the block that states it."""
    found = None
    calls = [n for n in graph.nodes if n.op == "call"] if in_library(span) else []
    while call := next((n for n in calls if any(g.span == span for g in n.attrs["graph"].guards)), None):
        inner = call.attrs["graph"]
        calls = [n for n in inner.nodes if n.op == "call"]
        if not in_library(call.span):
            found = call.span, inner.name
    return fault if found is None else ArchError(*(moved(d, *found) for d in fault.diagnostics))


def _same_for_all_rows(made: Made) -> None:
    if any(made.rows):
        raise NoRows("a result holds positions by row")
