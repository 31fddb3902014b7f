"""The graph without emitted values that are not asked for, or that a form does not have: what only they need is computed and kept by none."""
from __future__ import annotations

from collections.abc import Collection

from archdsl.flatten import copy_node
from archdsl.graph import Graph, Node, Value
from archdsl.records import replace

Part = tuple[str, int]
"""A path, and which graph is applied there."""


class Emitting:
    """Graphs with only some of their emitted values. Each is made once for what is asked of it, so equal layers stay one definition."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, frozenset[int]], tuple[Graph, Graph]] = {}

    def __call__(self, graph: Graph, wanted: Collection[int]) -> Graph:
        """`wanted`: places in `graph.emits`. The graph itself where nothing goes."""
        key = id(graph), frozenset(wanted)
        if key not in self.made:
            self.made[key] = graph, self._graph(graph, key[1])
        return self.made[key][1]

    def _graph(self, graph: Graph, wanted: frozenset[int]) -> Graph:
        emits = {k: v for i, (k, v) in enumerate(graph.emits.items()) if i in wanted}
        nodes, asked = _live(graph, (*graph.outputs, *emits.values()))
        inside = {node: self._inside(node, asked) for node in nodes if node.op in ("call", "phase")}
        if len(emits) == len(graph.emits) and all(g is node.attrs[k] for node, graphs in inside.items() for k, g in graphs.items()):
            return graph
        known: dict[Value, Value] = {v: v for v in graph.inputs}
        made: list[Node] = [v.node for v in graph.inputs]
        for node in nodes:
            new, places = copy_node(node, known.__getitem__), range(len(node.types))
            new.attrs |= inside.get(node, {})
            if node.op == "call" and new.attrs["graph"] is not node.attrs["graph"]:
                own, emitted = len(node.attrs["graph"].outputs), list(node.attrs["graph"].emits)
                places = (*range(own), *(own + emitted.index(k) for k in new.attrs["graph"].emits))
                new.types, new.name = tuple(node.types[i] for i in places), ", ".join(map(node.result_name, places)).rstrip(", ")
            made.append(new)
            known.update((node.values[i], v) for i, v in zip(places, new.values, strict=True))
        owned = {_part(node): graphs["graph"] for node, graphs in inside.items() if node.op == "call"}
        return replace(graph, nodes=tuple(made), outputs=tuple(known[v] for v in graph.outputs), emits={k: known[v] for k, v in emits.items()},
                       children={path: owned.get((path, id(child)), child) for path, child in graph.children.items()})

    def _inside(self, node: Node, asked: dict[Part, set[int]]) -> dict[str, Graph]:
        """The graphs that a node applies, by its attributes."""
        if node.op == "call":
            return {"graph": self(node.attrs["graph"], asked[_part(node)])}
        return {k: self(node.attrs[k], range(len(node.attrs[k].emits))) for k in ("train", "eval")}


def _part(call: Node) -> Part:
    return call.attrs["path"], id(call.attrs["graph"])


def _live(graph: Graph, results: tuple[Value, ...]) -> tuple[list[Node], dict[Part, set[int]]]:
    """The nodes that some results need, but for inputs and for what training does to buffers; and of what each part emits the places that are needed,
    by any of its calls."""
    used, live = set(results), []
    asked: dict[Part, set[int]] = {}
    for node in reversed(graph.nodes):
        if node.op != "input" and not used.isdisjoint(node.values):
            live.append(node)
            used.update(node.operands())
            if node.op == "call":
                emitted = node.values[len(node.attrs["graph"].outputs):]
                asked.setdefault(_part(node), set()).update(i for i, v in enumerate(emitted) if v in used)
    return live[::-1], asked
