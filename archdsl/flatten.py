"""Inlining: calls replaced by the nodes of the graph they apply. Free of torch; used by lowering (`flat`), the printer and the passes."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from archdsl.dims import Dim, Size, substitute, symbols
from archdsl.graph import Graph, InitExpr, Mask, Node, Param, TensorType, Value
from archdsl.records import replace

Select = Callable[[Node], bool]
_PLAIN = frozenset((int, float, str, bool, type(None)))


def flatten(graph: Graph) -> Graph:
    """One graph without calls, owning every weight under its full address. Phase arms stay graphs of their own, flattened inside."""
    return inline(graph, lambda call: True)


def inline(graph: Graph, select: Select) -> Graph:
    """The graph with the selected calls replaced by what they apply, calls inside those included.

    An owner of which every call was replaced hands its weights to `graph` under prefixed paths; another keeps them.
    """
    body = Body(graph, select)
    dissolved = {p for p in graph.children if p in body.replaced and p not in body.called}
    params, children = list(graph.params), {}
    for path, child in graph.children.items():
        if path in dissolved:
            _take(child, f"{path}.", body.called, params, children)
        else:
            children[path] = child
    return replace(graph, nodes=tuple(body.nodes), inputs=body.map(graph.inputs), outputs=body.map(graph.outputs), params=tuple(params),
                         children=children, emits={k: body.known[v] for k, v in graph.emits.items()})


def owner_at(graph: Graph, path: str) -> Graph | None:
    """The graph that owns the weights at a path, of this graph or of one below."""
    if path in graph.children:
        return graph.children[path]
    for own, child in graph.children.items():
        if path.startswith(f"{own}."):
            found = owner_at(child, path[len(own) + 1:])
            if found is not None:
                return found
    return None


def param_at(graph: Graph, path: str) -> Param | None:
    """The weight read at a path, of this graph or of one below."""
    for p in graph.params:
        if p.path == path:
            return p
    for own, child in graph.children.items():
        if path.startswith(f"{own}."):
            found = param_at(child, path[len(own) + 1:])
            if found is not None:
                return found
    return None


def is_owner(graph: Graph, call: Node) -> bool:
    """Whether a call applies the very graph that owns the weights at its path (not the same block with other static arguments)."""
    owner = owner_at(graph, call.attrs["path"])
    return owner is not None and (owner is call.attrs["graph"] or owner.hash == call.attrs["graph"].hash)


def dim_map(graph: Graph, args: Iterable[Any]) -> dict[str, Size]:
    """The caller's size for each symbol of a called graph's input types, where the two differ."""
    found: dict[str, Size] = {}
    if all(actual.__class__ is not Value or actual.type == formal.type for formal, actual in zip(graph.inputs, args)):
        return found
    for formal, actual in zip(graph.inputs, args):
        if isinstance(actual, Value):
            for own, given in zip(formal.shape, actual.shape):
                if isinstance(own, Dim) and len(own.symbols) == 1 and str(own) in own.symbols:
                    found.setdefault(str(own), given)
    return {name: size for name, size in found.items() if str(size) != name}


class Body:
    """Nodes copied in order, selected calls opened. `known`: old value -> new value."""

    def __init__(self, graph: Graph, select: Select):
        self.graph, self.select = graph, select
        self.nodes: list[Node] = []
        self.known: dict[Value, Value] = {}
        self.replaced: set[str] = set()
        self.called: set[str] = set()
        self._copy(graph, "", {}, self.known)

    def map(self, values: Iterable[Value]) -> tuple[Value, ...]:
        return tuple(self.known[v] for v in values)

    def _copy(self, graph: Graph, prefix: str, dims: Mapping[str, Size], known: dict[Value, Value]) -> None:
        for node in graph.nodes:
            if node.op == "input" and prefix:
                continue  # the caller put the arguments into `known`
            new = copy_node(node, known.__getitem__, prefix, dims)
            if node.op == "call" and self.select(new):
                self._open(new, node, known)
                continue
            if node.op == "call":
                self.called.add(new.attrs["path"])
            for key in ("train", "eval") if node.op == "phase" else ("body",) if node.op == "scan" else ():
                new.attrs[key] = inline(new.attrs[key], self.select)
            self.nodes.append(new)
            known.update(zip(node.values, new.values))

    def _open(self, call: Node, old: Node, known: dict[Value, Value]) -> None:
        inner, path = call.attrs["graph"], call.attrs["path"]
        self.replaced.add(path)
        inside: dict[Value, Value] = dict(zip(inner.inputs, call.args))
        self._copy(inner, f"{path}.", dim_map(inner, call.args), inside)
        results = [inside[v] for v in (*inner.outputs, *inner.emits.values())]
        for i, v in enumerate(results[:len(inner.outputs)]):
            if call.result_name(i) and v.node.op != "input" and not v.node.result_name(v.index):
                v.node.call_result(v.index, call.result_name(i))  # a node of ours: the result keeps the name that the caller gave it
        known.update(zip(old.values, results))


class EachOnce:
    """What becomes of a graph, found once for each: equal layers stay one definition. `lasting`: the key under which graphs keep it, where it depends
    on them alone."""

    def __init__(self, lasting: str = "") -> None:
        self.lasting = lasting
        self.done: dict[int, tuple[Graph, Graph]] = {}

    def __call__(self, graph: Graph) -> Graph:
        if self.lasting:
            if self.lasting not in graph.derived:
                made = self._graph(graph)
                graph.derived[self.lasting] = None if made is graph else made  # no cycle: it goes when the last one lets go of it
            return graph.derived[self.lasting] or graph
        if id(graph) not in self.done:
            self.done[id(graph)] = graph, self._graph(graph)
        return self.done[id(graph)][1]

    def _graph(self, graph: Graph) -> Graph:
        raise NotImplementedError


class Rewriting(EachOnce):
    """Graphs with some nodes replaced, in every graph that they call too. `rule`: for a node on its new operands the nodes in its place and their
    results, or None where it stays. `ops`: of which ops nodes are asked for."""

    def __init__(self, rule: Callable[[Node], tuple[list[Node], Iterable[Value]] | None], *ops: str, lasting: str = ""):
        super().__init__(lasting)
        self.rule, self.ops = rule, frozenset(ops)

    def _graph(self, graph: Graph) -> Graph:
        if graph.ops.isdisjoint(self.ops):
            return graph
        known: dict[Value, Value] = {v: v for v in graph.inputs}
        nodes: list[Node] = [v.node for v in graph.inputs]
        for node in graph.nodes:
            if node.op == "input":
                continue
            new = copy_node(node, known.__getitem__)
            new.attrs.update({k: self(v) for k, v in node.attrs.items() if isinstance(v, Graph)})
            made = self.rule(new) if node.op in self.ops else None
            found, values = made if made is not None else ([new], new.values)
            nodes += found
            known.update(zip(node.values, values))
        return replace(graph, nodes=tuple(nodes), outputs=tuple(known[v] for v in graph.outputs),
                       children={k: self(g) for k, g in graph.children.items()}, emits={k: known[v] for k, v in graph.emits.items()})


def copy_node(node: Node, known: Callable[[Value], Value], prefix: str = "", dims: Mapping[str, Size] = {}) -> Node:
    """A node on other operands, with its path prefixed and its sizes substituted."""
    attrs = {k: map_values(v, known, dims) for k, v in node.attrs.items()}
    if prefix and node.op in ("param", "call", "update", "read", "extern"):
        attrs["path"] = prefix + attrs["path"]
    types = tuple(TensorType(t.dtype, tuple(_size(s, dims) for s in t.shape)) for t in node.types) if dims else node.types
    return Node(node.op, map_values(node.args, known, dims), attrs, types, node.span, node.name)


def map_values(value: Any, known: Callable[[Value], Any], dims: Mapping[str, Size] = {}) -> Any:
    """Operands or an attribute with every tensor sent through `known` and every size substituted."""
    kind = value.__class__
    if kind is Value:
        return known(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return tuple([map_values(v, known, dims) for v in value])
    if kind is Mask:
        return Mask(value.kind, tuple([map_values(a, known, dims) for a in value.args]))
    if isinstance(value, Dim):
        return _size(value, dims)
    return value


def _size(size: Size, dims: Mapping[str, Size]) -> Size:
    return substitute(size, dims) if dims and not symbols(size).isdisjoint(dims) else size


def _take(owner: Graph, prefix: str, called: set[str], params: list[Param], children: dict[str, Graph]) -> None:
    """Moves the weights of a dissolved owner up; owners below that are still called stay owners."""
    params += [moved(p, prefix) for p in owner.params]
    for path, child in owner.children.items():
        if prefix + path in called:
            children[prefix + path] = child
        else:
            _take(child, f"{prefix}{path}.", called, params, children)


def moved(param: Param, prefix: str) -> Param:
    """The weight owned further up, its initialiser reading the same weights."""
    return replace(param, path=prefix + param.path, init=_moved_init(param.init, prefix)) if prefix else param


def _moved_init(init: InitExpr, prefix: str) -> InitExpr:
    if init.op == "param":
        return InitExpr("param", init.args, tuple((k, prefix + v if k == "path" else v) for k, v in init.attrs))
    return InitExpr(init.op, tuple(_moved_init(a, prefix) if isinstance(a, InitExpr) else a for a in init.args), init.attrs)
