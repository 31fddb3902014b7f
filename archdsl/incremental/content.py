"""All that a graph says but where it stands in the text: what later stages make of two graphs of equal content is the same."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.graph import Graph, Knob, Mask, Node, Value


class Contents:
    """Numbers of contents: equal ones have one number. Graphs are kept with theirs, so that no other gets their ids."""

    def __init__(self, intern: Callable[[Any], int]):
        self.intern = intern
        self.known: dict[int, tuple[Graph, int]] = {}

    def __call__(self, graph: Graph) -> int:
        """The number of a graph; those of what it calls are asked for first, deep ones too."""
        stack = [graph]
        while stack:
            g = stack[-1]
            waiting = [s for s in g.subgraphs() if id(s) not in self.known] if id(g) not in self.known else []
            if waiting:
                stack += waiting
                continue
            stack.pop()
            if id(g) not in self.known:
                self.known[id(g)] = g, self.intern(("content", self._of(g)))
        return self.known[id(graph)][1]

    def _of(self, g: Graph) -> Any:
        numbers: dict[Node, int] = {}

        def form(a: Any) -> Any:
            """1, 1.0 and true are told apart."""
            kind = a.__class__
            if kind is Value:
                return "%", numbers[a.node], a.index
            if kind is int or kind is str:
                return a
            if kind is tuple or kind is list:
                return tuple([form(v) for v in a])
            if kind is Graph:
                return "graph", self.known[id(a)][1]
            if kind is Mask:
                return kind, a.kind, form(a.args)
            return kind, repr(a) if kind is float else a

        nodes: list[Any] = []
        for i, n in enumerate(g.nodes):
            numbers[n] = i
            nodes.append((n.op, form(n.args), tuple([(k, form(v)) for k, v in n.attrs.items()]), n.types, n.name))
        results = form(g.inputs), form(g.outputs), g.output_names, tuple([(k, form(v)) for k, v in g.emits.items()])
        owned = tuple([(p, form(p.init)) for p in g.params]), tuple([(k, self.known[id(c)][1]) for k, c in g.children.items()])
        rest = g.guards, tuple([knob_form(k) for k in g.knobs.values()]), tuple(g.applied.items())
        return g.name, g.doc, tuple(nodes), results, owned, rest


def knob_form(knob: Knob) -> Any:
    """All that counts of a knob."""
    return knob.address, knob.type, repr(knob.default), repr(knob.value), knob.domain and knob.domain.span.text
