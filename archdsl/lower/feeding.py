"""Draws that the caller feeds: a typed graph whose random tensors, chosen by address, are inputs instead. Free of torch.

A draw stands where it is drawn: its address is the path of the call that draws it and the name that it is bound to. Where several have one
address, a block that owns nothing being applied twice, the later ones are called `noise_2`, `noise_3`, in the order of the text.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.dims import Dim, substitute
from archdsl.flatten import copy_node, dim_map
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.lower.plan import matches
from archdsl.ops.registry import find


def fed(graph: Graph, patterns: str | Iterable[str]) -> tuple[Graph, tuple[str, ...]]:
    """The graph with the draws at these addresses as its last inputs, and their addresses in that order. Raises ArchError A0517 for a pattern that
    matches no draw."""
    chosen = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not chosen:
        return graph, ()
    opener = _Opener()
    known = opener.addresses(graph)
    found: set[str] = set()
    for pattern in chosen:
        hits = {a for a in known if matches(pattern.split("."), a.split("."))}
        if not hits:
            has = f"it draws {', '.join(f'`{a}`' for a in known[:12])}" if known else "it draws nothing that has a name"
            raise error("A0517", f"no draw has an address like `{pattern}`", graph.span, "this model",
                        help=f"{has}; `*` stands for one segment, `**` for any number of them")
        found |= hits
    return opener.open(graph, frozenset(found)), tuple(a for a in known if a in found)


def is_draw(node: Node) -> bool:
    """Whether a node is a named random tensor, new in each forward pass, in training and evaluation."""
    op = find(node.op)
    return bool(node.name) and op is not None and op.random and not op.phase and not node.operands() and node.attrs.get("seed") is None


class _Opener:
    """Makes draws inputs; equal layers stay one graph."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Graph, tuple[str, ...]]] = {}
        self.made: dict[tuple[int, frozenset[str]], Graph] = {}

    def addresses(self, graph: Graph) -> tuple[str, ...]:
        """Of all draws, relative to the graph, in the order of evaluation."""
        if id(graph) not in self.known:
            self.known[id(graph)] = graph, tuple(a for _, own in self._places(graph) for a in own)
        return self.known[id(graph)][1]

    def _places(self, graph: Graph) -> Iterator[tuple[Node, list[str]]]:
        """Each node that draws, itself or in what it calls, with the addresses of its draws."""
        seen: Counter[str] = Counter()

        def own(address: str) -> str:
            seen[address] += 1
            return address if seen[address] == 1 else f"{address}_{seen[address]}"

        for node in graph.nodes:
            if is_draw(node):
                yield node, [own(node.name)]
            elif node.op == "call":
                yield node, [own(f"{node.attrs['path']}.{a}") for a in self.addresses(node.attrs["graph"])]

    def open(self, graph: Graph, chosen: frozenset[str]) -> Graph:
        key = id(graph), chosen
        if key not in self.made:
            self.made[key] = self._open(graph, chosen)
        return self.made[key]

    def _open(self, graph: Graph, chosen: frozenset[str]) -> Graph:
        places = {id(node): own for node, own in self._places(graph)}
        known: dict[Value, Value] = {}
        inputs: list[Node] = []
        nodes: list[Node] = []
        replaced: dict[str, list[Graph]] = {}
        for node in graph.nodes:
            wanted = [a for a in places.get(id(node), ()) if a in chosen]
            if node.op == "call":
                new = self._call(node, places[id(node)], chosen, known, inputs) if wanted else copy_node(node, known.__getitem__)
                replaced.setdefault(node.attrs["path"], []).append(new.attrs["graph"])
            elif wanted:
                new = _input(node.name, node.types[0], node)
                inputs.append(new)
                known[Value(node)] = Value(new)
                continue
            else:
                new = copy_node(node, known.__getitem__)
            nodes.append(new)
            known.update(zip(node.values, new.values))
        first = [n for n in nodes if n.op == "input"]
        children = {path: next(iter(replaced.get(path, ())), child) for path, child in graph.children.items()}
        return replace(graph, inputs=(*(known[v] for v in graph.inputs), *map(Value, inputs)),
                       nodes=(*first, *inputs, *(n for n in nodes if n.op != "input")), outputs=tuple(known[v] for v in graph.outputs),
                       children=children, emits={k: known[v] for k, v in graph.emits.items()})

    def _call(self, node: Node, own: list[str], chosen: frozenset[str], known: dict[Value, Value], inputs: list[Node]) -> Node:
        """The call with its draws as further arguments, which become inputs here."""
        inner = node.attrs["graph"]
        opened = self.open(inner, frozenset(a for a, full in zip(self.addresses(inner), own) if full in chosen))
        sizes = dim_map(inner, node.args)
        extra = []
        for value in opened.inputs[len(inner.inputs):]:
            shape = tuple(substitute(s, sizes) if isinstance(s, Dim) else s for s in value.shape)
            extra.append(_input(value.node.name, TensorType(value.dtype, shape), value.node))
        inputs += extra
        new = copy_node(node, known.__getitem__)
        return Node(new.op, (*new.args, *map(Value, extra)), {**new.attrs, "graph": opened}, new.types, new.span, new.name)


def _input(name: str, type: TensorType, like: Node) -> Node:
    attrs: dict[str, Any] = {"name": name}
    return Node("input", (), attrs, (type,), like.span, name)
