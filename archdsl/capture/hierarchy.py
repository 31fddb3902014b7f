"""From a flat program to graphs: a foreign module that owns weights becomes a block, equal ones the same block. No torch here.

A module's nodes follow one another, so each run of a module can be one call. What owns nothing (an activation, a rotary table) is part of
its caller; so is a module whose weights something else reads before it, or that runs a second time in another way.
"""
from __future__ import annotations

from typing import Any

from archdsl.capture.flat import Flat, Invocation
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.values import map_tensors
from archdsl.graph import Graph, Node, Value
from archdsl.records import field, record
from archdsl.source import NOWHERE


@record(slots=False, eq=False)
class Region:
    """A run of a module: its nodes and the runs inside it, in order."""

    run: Invocation | None
    items: list[Node | Region] = field(default_factory=list)

    def nodes(self) -> list[Node]:
        return [n for i in self.items for n in (i.nodes() if isinstance(i, Region) else [i])]

    @property
    def path(self) -> str:
        return self.run.path if self.run is not None else ""


def build(flat: Flat, name: str, inputs: tuple[Value, ...], outputs: tuple[Value, ...], names: tuple[str | None, ...], guards: Any = ()) -> Graph:
    """The graph of a program, by its modules."""
    root = _regions(flat, flat.live(outputs))
    _dissolve(root)
    maker = _Maker(flat, root, outputs)
    builder = Builder()
    builder.require(guards)
    known: dict[Value, Value] = {}
    for v in inputs:
        known[v] = builder.input(v.node.attrs["name"], v.type, NOWHERE)
    maker.fill(builder, root, known)
    return builder.finish(name, tuple(maker.resolved(builder, "", known, o) for o in outputs), names=names, span=NOWHERE)


# ---------------------------------------------------------------- regions
def _regions(flat: Flat, nodes: list[Node]) -> Region:
    root = Region(None)
    stack = [root]
    for node in nodes:
        if node.op in ("input", "param"):
            continue
        scope = flat.scopes[id(node)]
        depth = 0
        while depth < len(scope) and depth + 1 < len(stack) and stack[depth + 1].run == scope[depth]:
            depth += 1
        del stack[depth + 1:]
        for run in scope[depth:]:
            inner = Region(run)
            stack[-1].items.append(inner)
            stack.append(inner)
        stack[-1].items.append(node)
    return root


def _read(region: Region) -> set[str]:
    """The addresses of the weights that a region reads."""
    return {v.node.attrs["path"] for n in region.nodes() for v in n.operands() if v.node.op == "param"}


def _dissolve(region: Region) -> None:
    """Puts the nodes of runs that cannot be blocks into their caller, innermost first."""
    for item in region.items:
        if isinstance(item, Region):
            _dissolve(item)
    runs: dict[str, list[Region]] = {}
    for item in region.items:
        if isinstance(item, Region):
            runs.setdefault(item.path, []).append(item)
    whole = _read(region)
    kept = {path for path, found in runs.items() if _is_block(path, found, {p for p in whole if p.startswith(path + ".")})}
    region.items = [i for item in region.items for i in (item.items if isinstance(item, Region) and item.path not in kept else [item])]


def _is_block(path: str, runs: list[Region], below: set[str]) -> bool:
    """Whether every run reads all the weights below the path that anybody reads, no run was interrupted, and it is no list (`layers.0`)."""
    whole = bool(below) and all(below <= _read(r) for r in runs) and len({r.run for r in runs}) == len(runs)
    return whole and not any(p[len(path) + 1].isdigit() for p in below)


# ---------------------------------------------------------------- graphs
class _Maker:
    def __init__(self, flat: Flat, root: Region, outputs: tuple[Value, ...]):
        self.flat, self.final = flat, frozenset(outputs)
        self.users: dict[Value, list[Node]] = {}
        self.same: dict[str, Graph] = {}
        for n in root.nodes():
            for v in n.operands():
                self.users.setdefault(v, []).append(n)

    def fill(self, builder: Builder, region: Region, known: dict[Value, Value]) -> None:
        """Adds a region's nodes and calls to its graph. `known`: values of the program -> values of the graph."""
        owned: dict[str, Graph] = {}
        for item in region.items:
            if isinstance(item, Region):
                self._call(builder, region, item, known, owned)
            else:
                self._node(builder, region.path, item, known)

    def _node(self, builder: Builder, path: str, node: Node, known: dict[Value, Value]) -> None:
        def resolve(v: Value) -> Value:
            return self.resolved(builder, path, known, v)

        args = map_tensors(node.args, resolve)
        attrs = {k: map_tensors(v, resolve) for k, v in node.attrs.items()}
        made = builder.add(node.op, args, attrs, node.types, node.span, node.name)
        known.update(zip(node.values, made.values))

    def resolved(self, builder: Builder, path: str, known: dict[Value, Value], v: Value) -> Value:
        """A value of the program in a graph whose owner is at `path`; weights are declared where they are first read."""
        if v in known:
            return known[v]
        assert v.node.op == "param", v
        address = v.node.attrs["path"]
        own = address[len(path) + 1:] if path else address
        inside = next((c for c in builder.children if own.startswith(c + ".")), None)
        if inside is None and own not in builder.params:
            param = self.flat.params[address]
            known[v] = builder.declare(type(param)(own, param.kind, param.type, param.init, param.factors, param.span))
        else:
            known[v] = Value(builder.add("param", (), {"path": own}, v.node.types, NOWHERE, own.rsplit(".", 1)[-1]))
        return known[v]

    def _call(self, builder: Builder, outer: Region, region: Region, known: dict[Value, Value], owned: dict[str, Graph]) -> None:
        inner = Builder()
        nodes = region.nodes()
        mine = {id(n) for n in nodes}
        values: dict[Value, Value] = {}
        taken: list[Value] = []
        for v in dict.fromkeys(v for n in nodes for v in n.operands() if id(v.node) not in mine):
            if v.node.op == "param" and v.node.attrs["path"].startswith(region.path + "."):
                continue
            values[v] = inner.input(v.node.result_name(v.index) or "x", v.type, NOWHERE)
            taken.append(v)
        self.fill(inner, region, values)
        given = self._given(nodes, mine)
        assert region.run is not None
        graph = inner.finish(region.run.kind, tuple(values[v] for v in given), span=NOWHERE)
        graph = self.same.setdefault(graph.hash, graph)
        local = region.path[len(outer.path) + 1:] if outer.path else region.path
        args = [self.resolved(builder, outer.path, known, v) for v in taken]
        if local in owned and owned[local] is not graph:
            for v, copy in zip(given, self._inlined(builder, graph, local, args)):
                known[v] = copy
            return
        if local not in owned:
            builder.adopt(local, graph, NOWHERE)
            owned[local] = graph
        results = builder.call(graph, local, args, nodes[0].span, local.rsplit(".", 1)[-1])
        known.update(zip(given, results))

    def _given(self, nodes: list[Node], mine: set[int]) -> list[Value]:
        """The values of a region that others read, in order."""
        return [v for n in nodes for v in n.values if v in self.final or any(id(u) not in mine for u in self.users.get(v, ()))]

    def _inlined(self, builder: Builder, graph: Graph, path: str, args: list[Value]) -> tuple[Value, ...]:
        """A module that runs again in another way: its nodes here, reading the same weights."""
        from archdsl.flatten import flatten

        whole = flatten(graph)
        known: dict[Value, Value] = dict(zip(whole.inputs, args))
        for n in whole.nodes:
            if n.op == "param":
                known[Value(n)] = Value(builder.add("param", (), {"path": f"{path}.{n.attrs['path']}"}, n.types, NOWHERE, n.name))
            elif n.op != "input":
                args_, attrs = map_tensors(n.args, known.__getitem__), {k: map_tensors(a, known.__getitem__) for k, a in n.attrs.items()}
                known.update(zip(n.values, builder.add(n.op, args_, attrs, n.types, n.span, n.name).values))
        return tuple(known[o] for o in whole.outputs)
