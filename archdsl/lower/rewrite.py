"""Writes the graph of one `Definition`: inputs, tables, nodes, updates, results, sizes. Free of torch."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from archdsl.diagnostics.model import error
from archdsl.dims import Dim, substitute, sym
from archdsl.flatten import copy_node, dim_map, map_values, param_at
from archdsl.graph import Graph, Node, TensorType, Value, behind
from archdsl.lower.plan import Definition, results
from archdsl.lower.shared_tables import SHARED
from archdsl.lower.sizes import Axes, Unknown, dims_of
from archdsl.lower.tables import STRUCTURAL

if TYPE_CHECKING:
    from archdsl.lower.plan import Info, Planner

SIZE = TensorType("int", ())


class Writer:
    def __init__(self, planner: Planner, graph: Graph, need: frozenset[int], hoisted: Mapping[str, Value], root: bool, sizes: tuple[str, ...],
                 again: bool):
        self.planner, self.source, self.need, self.hoisted, self.root, self.sizes = planner, graph, need, hoisted, root, sizes
        self.info = planner.analyse(graph, need)
        self.known: dict[Value, Value] = {}
        self.inputs: list[Node] = []
        self.nodes: list[Node] = []
        self.tables: dict[str, Value] = {}
        self.again = again
        self.updates: dict[str, Value] = {}
        self.pending: dict[str, Value] = {}
        self.children: dict[str, Definition] = {}
        self.arms: list[tuple[Definition, ...]] = []
        self.calls: dict[str, list[Node]] = {}  # of the source, by path

    def definition(self) -> Definition:
        for node in self.source.nodes:
            if node.op == "input":
                self._keep(node, self.inputs)
        self._take_tables()
        self._take_pending()
        replaced = {value: self.tables[key] for value, key in self.info.own.items() if key in self.tables}
        for node in self.info.live:
            if node.op != "input":
                self._write(node)
                self.known.update({v: replaced[v] for v in node.values if v in replaced})
        out = [self.known[v] for v in results(self.source, self.need)]
        self._training_only(out)
        if self.root:
            self.nodes += [Node("commit", (value,), {"path": path}, (), value.node.span) for path, value in self.updates.items()]
        else:
            out += self.updates.values()
        self._drop_dead(out)
        for node in self.nodes:
            if node.op == "phase":
                self._phase(node)
            elif node.op == "scan":
                self._scan(node)
        self._take_sizes()
        addresses = tuple(self.source.emits)
        return Definition(self.source, self._graph(out), self.planner.dtype, len(self.source.outputs), tuple(addresses[i] for i in sorted(self.need)),
                          () if self.root else tuple(self.updates), False, self.children, tuple(self.arms), target=self.planner.target)

    def _graph(self, out: list[Value]) -> Graph:
        s = self.source
        owners = {path: self.children[path].graph if path in self.children else child for path, child in s.children.items()}
        return Graph(s.name, tuple(Value(n) for n in self.inputs), (*self.inputs, *self.nodes), tuple(out), s.output_names, s.params, owners, {},
                     s.guards if self.root else (), {}, s.doc, s.span)

    # ---------------------------------------------------------------- nodes
    def _keep(self, node: Node, into: list[Node]) -> None:
        new = copy_node(node, self.known.__getitem__)
        into.append(new)
        self.known.update(zip(node.values, new.values))

    def _write(self, node: Node) -> None:
        if node.op == "update":
            self._update(node)
        elif node.op == "call":
            self._call(node)
        else:
            self._keep(node, self.nodes)

    # ---------------------------------------------------------------- buffers
    def _take_pending(self) -> None:
        """Inputs for the new values that earlier applications of this block gave its buffers."""
        for path in sorted(self.planner.updated(self.source)) if self.again else ():
            like = self._buffer(path).node
            node = Node("input", (), {"name": f"{like.name}_now"}, like.types, like.span, f"{like.name}_now")
            self.inputs.append(node)
            self.pending[path] = Value(node)

    def _update(self, node: Node) -> None:
        """A buffer's new value. Updates compose: where the buffer has a new value already, it is computed again from that one."""
        path, value = node.attrs["path"], node.args[0]
        latest = {**self.pending, **self.updates}
        self.updates[path] = self._from(value, latest, node) if path in latest else self.known[value]

    def _from(self, value: Value, latest: dict[str, Value], update: Node) -> Value:
        """The value with the last reads of buffers before `update` replaced by their latest values: what depends on them is copied."""
        before = self.source.nodes[:next(i for i, n in enumerate(self.source.nodes) if n is update)]
        reads = {n.attrs["path"]: Value(n) for n in before if n.op == "param" and n.attrs["path"] in latest}
        known, under = {v: latest[p] for p, v in reads.items()}, behind([value])
        for node in before:
            if id(node) in under and node.op not in STRUCTURAL and any(v in known for v in node.operands()):
                copy = copy_node(node, lambda v: known[v] if v in known else self.known[v])
                self.nodes.append(copy)
                known.update(zip(node.values, copy.values))
        return known[value] if value in known else self.known[value]

    def _buffer(self, path: str) -> Value:
        """The value that reads a buffer as it was before this forward pass."""
        known = [self.tables[key] for v, key in self.info.own.items() if v.node.op == "param" and v.node.attrs["path"] == path]
        known += [v for v in self.tables.values() if v.node.op == "read" and v.node.attrs["path"] == path]
        known += [Value(n) for n in self.nodes if n.op == "param" and n.attrs["path"] == path]
        if known:
            return known[0]
        param = param_at(self.source, path)
        assert param is not None, path
        node = Node("param", (), {"path": path}, (param.type,), param.span, path.rsplit(".", 1)[-1])
        self.nodes.insert(0, node)
        return Value(node)

    def _applied_again(self, path: str) -> bool:
        """Whether the child's buffers may have new values when it is called: it is called, or inlined, several times."""
        calls = sum(n.op == "call" and n.attrs["path"] == path for n in self.info.live)
        inlined = any(n.op == "update" and n.attrs["path"].startswith(f"{path}.") for n in self.info.live)
        return self.again or calls > 1 or inlined

    def _take_tables(self) -> None:
        """Tables from outside become inputs; the root computes them first."""
        for key, table in self.hoisted.items():
            if not self.root:
                node = Node("input", (), {"name": hint(table)}, (table.type,), table.node.span, hint(table))
                self.inputs.append(node)
                self.tables[key] = Value(node)
                continue
            steps = SHARED.steps(table)
            for step in steps:
                if step.text not in self.tables:
                    new = SHARED.node(step, self.tables)
                    self.nodes.append(new)
                    self.tables[step.text] = Value(new)
            self.tables[key] = Value(self.tables[steps[-1].text].node, table.index)

    # ---------------------------------------------------------------- calls
    def _call(self, node: Node) -> None:
        path, inner = node.attrs["path"], node.attrs["graph"]
        need, dims = self.info.needs[path], dim_map(inner, node.args)
        below = self.planner.analyse(inner, need)
        outside = {key: below.outside(key, path, dims)[0] for key in below.tables}
        wanted = self._wanted(path, below, outside) if outside else {}
        passed = [self.tables[outside[key]] for key in wanted]
        again = bool(self.planner.updated(inner)) and self._applied_again(path)
        made = self.children[path] = self.planner.define(inner, need, wanted, again=again)
        if again:
            latest = {**self.pending, **self.updates}
            outer_paths = [f"{path}.{p}" for p in sorted(self.planner.updated(inner))]
            passed += [latest[p] if p in latest else self._buffer(p) for p in outer_paths]
        sizes = [substitute(v.node.attrs["size"], dims) for v in made.graph.inputs if "size" in v.node.attrs]
        count, emitted = made.outputs, sorted(need)
        new_values = made.graph.outputs[count + len(emitted):]
        types = (*node.types[:count], *(node.types[count + i] for i in emitted), *(v.type for v in new_values))
        attrs = {"path": path, "graph": made.graph}
        if len(types) > 1:
            if count == 1:
                own = (node.result_name(0) or path.rsplit(".", 1)[-1],)
            else:
                own = tuple(node.result_name(i) or o.node.result_name(o.index) for i, o in enumerate(inner.outputs))
            attrs["names"] = (*own, *(a.rsplit(".", 1)[-1] for a in (*made.emits, *made.updates)))
        new = Node("call", (*map_values(node.args, self.known.__getitem__), *passed, *sizes), attrs, types, node.span, node.name)
        self.nodes.append(new)
        self.known.update(zip(node.values[:count], new.values))
        self.known.update({node.values[count + i]: v for i, v in zip(emitted, new.values[count:])})
        for inside, value in zip(made.updates, new.values[count + len(emitted):]):
            self.updates[f"{path}.{inside}"] = value

    def _wanted(self, path: str, below: Info, outside: Mapping[str, str]) -> dict[str, Value]:
        """The tables that every call of the child at a path can be given. `outside`: what they are called out here, for one of the calls."""
        if not self.calls:
            for n in self.info.live:
                if n.op == "call":
                    self.calls.setdefault(n.attrs["path"], []).append(n)
        calls = self.calls[path]
        if len(calls) == 1:
            return {key: table for key, table in below.tables.items() if outside[key] in self.tables}
        dims = [dim_map(n.attrs["graph"], n.args) for n in calls]
        return {key: table for key, table in below.tables.items() if all(below.outside(key, path, d)[0] in self.tables for d in dims)}

    # ---------------------------------------------------------------- phases
    def _phase(self, node: Node) -> None:
        """Defines both arms; they take the run-time sizes that either of them needs."""
        names = ("train", "eval")
        needed = {s for name in names for s in _sizes(self.planner.define(node.attrs[name], frozenset(), {}))}
        train, other = (self.planner.define(node.attrs[name], frozenset(), {}, sizes=tuple(sorted(needed))) for name in names)
        node.args = (*node.args, *(sym(s) for s in sorted(needed)))
        node.attrs.update(train=train.graph, eval=other.graph)
        self.arms.append((train, other))

    def _scan(self, node: Node) -> None:
        """Defines what happens at one position; it takes the run-time sizes that it needs."""
        needed = sorted(_sizes(self.planner.define(node.attrs["body"], frozenset(), {})))
        body = self.planner.define(node.attrs["body"], frozenset(), {}, sizes=tuple(needed))
        node.args = (*node.args, *(sym(s) for s in needed))
        node.attrs.update(body=body.graph)
        self.arms.append((body,))

    def _training_only(self, out: list[Value]) -> None:
        """What only the new values of buffers need is put into a phase node, so that evaluation does not compute it."""
        if not self.updates:
            return
        needed = behind([*out, *(v for v in self.updates.values() if v.node.op == "call")])
        inside = [n for n in self.nodes if id(n) not in needed and n.op not in STRUCTURAL]
        new = behind(list(self.updates.values()))
        inside = [n for n in inside if id(n) in new]
        own = {id(n) for n in inside}
        paths = [p for p, v in self.updates.items() if id(v.node) in own]
        if not paths:
            return
        buffers = {p: self.pending[p] if p in self.pending else self._buffer(p) for p in paths}
        outside = list(dict.fromkeys([*buffers.values(), *(v for n in inside for v in n.operands() if id(v.node) not in own)]))
        train, known = _arm("Update", outside)
        for n in inside:
            new = copy_node(n, known.__getitem__)
            train.append(new)
            known.update(zip(n.values, new.values))
        other, read = _arm("Keep", outside)
        attrs = {"train": _finish("Update", train, [known[self.updates[p]] for p in paths]),
                 "eval": _finish("Keep", other, [read[buffers[p]] for p in paths])}
        types = tuple(self.updates[p].type for p in paths)
        node = Node("phase", tuple(outside), attrs, types, inside[0].span, paths[0].rsplit(".", 1)[-1] if len(paths) == 1 else "")
        self.nodes = [n for n in self.nodes if id(n) not in own] + [node]
        self.updates.update(zip(paths, node.values))

    # ---------------------------------------------------------------- finishing
    def _drop_dead(self, out: list[Value]) -> None:
        kept = behind([*out, *(Value(n) for n in self.nodes if n.op == "commit" or _has_updates(n, self.children))])
        self.nodes = [n for n in self.nodes if id(n) in kept]

    def _take_sizes(self) -> None:
        """Adds an input for every run-time size that no axis at hand tells."""
        axes = Axes(lambda value, axis: None, lambda op, *operands: None)
        missing: list[str] = list(self.sizes)
        for name in missing:
            axes.give(sym(name), None)
        for node in self.inputs:
            axes.add(Value(node))
        guards = [d for g in self.source.guards for d in (g.left, g.right) if isinstance(d, Dim)] if self.root else []
        self._solve(axes, guards, missing)
        for node in self.nodes:
            self._solve(axes, list(dims_of(node)), missing)
            for value in node.values:
                axes.add(value)
        self.inputs += [Node("input", (), {"name": name, "size": sym(name)}, (SIZE,), self.source.span, name) for name in missing]

    def _solve(self, axes: Axes, dims: list[Dim], missing: list[str]) -> None:
        for dim in dims:
            while True:
                try:
                    axes(dim)
                    break
                except Unknown as e:
                    name = e.args[0]
                    if self.root:
                        raise error("A0512", f"no input of this model tells the run-time size {name}", self.source.span, "this model",
                                    help=f"name {name} in the shape of an input") from None
                    missing.append(name)
                    axes.give(sym(name), None)


def hint(table: Value) -> str:
    return table.node.result_name(table.index) or table.node.op


def called(value: Value) -> str:
    return value.node.result_name(value.index) or "x"


def _sizes(made: Definition) -> list[str]:
    return [str(n.attrs["size"]) for n in made.graph.nodes if n.op == "input" and "size" in n.attrs]


def _has_updates(node: Node, children: Mapping[str, Definition]) -> bool:
    return node.op == "call" and bool(children[node.attrs["path"]].updates)


def _arm(name: str, outside: list[Value]) -> tuple[list[Node], dict[Value, Value]]:
    inputs = [Node("input", (), {"name": called(v)}, (v.type,), v.node.span, called(v)) for v in outside]
    return inputs, {v: Value(n) for v, n in zip(outside, inputs)}


def _finish(name: str, made: list[Node], out: list[Value]) -> Graph:
    return Graph(name, tuple(Value(n) for n in made if n.op == "input"), tuple(made), tuple(out), span=out[0].node.span)
