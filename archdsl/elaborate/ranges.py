"""Declared ranges of inputs against the tables that they index: `tokens: int[B, T] in 0..<vocab` and `embedding(tokens, table)`."""
from __future__ import annotations

from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Label, error
from archdsl.elaborate.limits import MAX_FAULTS
from archdsl.graph import Graph, Node, Value
from archdsl.ops.registry import find
from archdsl.records import record
from archdsl.source import Source, Span

TABLES = {"embedding": ("weight", "indices"), "take": ("x", "index"), "gather": ("x", "index")}
"""Ops that read a table at given positions: (the table, the positions)."""


@record(frozen=True)
class Range:
    """The least and the largest value, and the input that says so."""

    low: Any
    high: Any
    name: str
    span: Span


def check_ranges(graph: Graph, ranges: dict[str, tuple[Any, Any, Span]], own: Source) -> None:
    """Raises A0304 for each table that has no row for some value that its index may have. `ranges`: low, high and place by input name; `own`: the
    text that a fault is shown in."""
    known = {v: Range(*ranges[v.node.name][:2], v.node.name, ranges[v.node.name][2]) for v in graph.inputs if v.node.name in ranges}
    if known:
        walk = _Walk(own)
        walk.graph(graph, known, None)
        if walk.faults:
            raise ArchError(*walk.faults)


class _Walk:
    def __init__(self, own: Source):
        self.own = own
        self.seen: set[Any] = set()
        self.faults: list[Diagnostic] = []

    def graph(self, graph: Graph, known: dict[Value, Range], at: Span | None) -> None:
        """`known`: ranges of this graph's inputs; `at`: the innermost application that is written in the own text."""
        for node in graph.nodes:
            where = node.span if node.span.source.whole is self.own else at
            found = [known.get(a) if isinstance(a, Value) else None for a in node.args]
            if not any(found):
                continue
            for inner in (g for g in node.attrs.values() if isinstance(g, Graph)):
                passed = {v: r for v, r in zip(inner.inputs, found) if r is not None}
                key = (id(inner), tuple((i, r.low, r.high) for i, r in enumerate(found) if r is not None))
                if key not in self.seen:
                    self.seen.add(key)
                    self.graph(inner, passed, where)
            if node.op in TABLES:
                self.table(node, known, where or node.span)
            else:
                moved = _through(node, found[0])
                if moved is not None:
                    known[node.values[0]] = moved

    def table(self, node: Node, known: dict[Value, Range], where: Span) -> None:
        """Holds an index against the axis of a table that it chooses from."""
        op = find(node.op)
        assert op is not None
        operands = dict(zip((p.name for p in op.decl.params), node.args))
        what, which = TABLES[node.op]
        held, table = known.get(operands[which]), operands[what]
        rows = table.shape[node.attrs.get("axis", 0)]
        if held is None or type(rows) is not int or held.low >= 0 and held.high < rows or len(self.faults) >= MAX_FAULTS:
            return
        said = f"from {held.low} to {held.high}"
        labels = (Label(held.span, f"`{held.name}` holds numbers {said}"),) if held.span != where else ()
        swapped = f": its shape is {table.type}, are two arguments exchanged?" if table.shape[-1] == held.high + 1 else ""
        self.faults += error("A0304", f"`{held.name}` holds numbers {said}, the table that it indexes has {rows} rows", where,
                             f"{rows} rows{swapped}", labels=labels, help=f"the range of an input with {rows} values is `in 0..<{rows}`").diagnostics


def _through(node: Node, first: Range | None) -> Range | None:
    """The range of a node's first result, when it holds values of its first operand, or those moved by a number."""
    op = find(node.op)
    if first is None or op is None:
        return None
    if op.view or node.op == "cast" and node.types[0].dtype in ("int", "i32"):
        return first
    by = node.args[1] if node.op in ("add", "sub") else None
    if type(by) is int:
        by = by if node.op == "add" else -by
        return Range(first.low + by, first.high + by, first.name, first.span)
    return None
