"""`bake`: every expression of weights alone is computed once and left as a plain parameter. For evaluation: updates, dropout and the
training arms of phases go. The rewrite knows nothing of tensors; only `bake` itself computes the values."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from archdsl.dims import Dim
from archdsl.flatten import copy_node, map_values
from archdsl.graph import Graph, InitExpr, Mask, Node, Param, Value
from archdsl.ops.registry import find

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

CLOSED, WEIGHT, DATA = range(3)


@dataclass
class Baked:
    """A rewritten definition. `values`: new parameter -> the value of the old graph that it holds. `source`: that old graph."""

    graph: Graph
    source: Graph
    values: dict[str, Value]
    children: dict[str, Baked]


def bake(model: ArchModule) -> ArchModule:
    """A new model in eval mode that computes the same (up to rounding) without weight expressions. The given model is unchanged."""
    import torch

    from archdsl.lower import lower

    definition = type(model).definition
    baked = bake_graph(model.typed)
    state = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    some = next(iter(state.values()), torch.empty(0))
    new = lower(baked.graph, dtype=getattr(torch, definition.dtype), device=some.device, emit=definition.emits)
    with torch.no_grad():
        made = dict(_values(baked, "", state, getattr(torch, definition.dtype)))
        new.load_state_dict({k: made[k] if k in made else state[k] for k in new.state_dict()})
    return new.eval()


def _values(baked: Baked, prefix: str, state: dict[str, Any], dtype: Any) -> Iterator[tuple[str, Any]]:
    for path, value in baked.values.items():
        yield prefix + path, _Eager(baked.source, prefix, state, dtype)(value)
    for path, child in baked.children.items():
        yield from _values(child, f"{prefix}{path}.", state, dtype)


class _Eager:
    """Computes weight-stage values of one instance of a graph."""

    def __init__(self, graph: Graph, prefix: str, state: dict[str, Any], dtype: Any, inputs: tuple[Any, ...] = ()):
        self.prefix, self.state, self.dtype = prefix, state, dtype
        self.known: dict[Value, Any] = dict(zip(graph.inputs, inputs))

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Mask):
            return value.replace(self)
        if isinstance(value, tuple):
            return tuple(self(v) for v in value)
        if not isinstance(value, Value):
            return value
        if value not in self.known:
            results = self._node(value.node)
            for v, r in zip(value.node.values, results):
                self.known[v] = r
        return self.known[value]

    def _node(self, node: Node) -> tuple[Any, ...]:
        if node.op == "param":
            return (self.state[self.prefix + node.attrs["path"]],)
        args = tuple(self(a) for a in node.args)
        if node.op == "call":
            inner = node.attrs["graph"]
            run = _Eager(inner, f"{self.prefix}{node.attrs['path']}.", self.state, self.dtype, args)
            return tuple(run(o) for o in (*inner.outputs, *inner.emits.values()))
        from archdsl.ops.rules import torch_dtype

        op = find(node.op)
        assert op is not None, node.op
        attrs = {k: self(v) for k, v in node.attrs.items()}
        if isinstance(attrs.get("dtype"), str) and node.op != "at_least":
            attrs["dtype"] = torch_dtype(attrs["dtype"], self.dtype)
        result = op.body(*args, **attrs)
        return result if isinstance(result, tuple) else (result,)


# ---------------------------------------------------------------- the rewrite
def bake_graph(graph: Graph, known: dict[int, Baked] | None = None) -> Baked:
    """The rewritten definition and those below it; equal definitions stay one."""
    known = {} if known is None else known
    if id(graph) not in known:
        known[id(graph)] = _Rewrite(graph, known).run()
    return known[id(graph)]


def _static(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_static, value))
    return not isinstance(value, Dim)


def stages(graph: Graph, inputs: int = DATA) -> dict[int, int]:
    """The stage of each node: computed from nothing, from weights, or from data (inputs, draws, run-time sizes)."""
    out: dict[int, int] = {}
    for n in graph.nodes:
        if n.op == "input":
            out[id(n)] = inputs
        elif n.op == "param":
            out[id(n)] = WEIGHT
        else:
            below = max((out[id(v.node)] for v in n.operands()), default=CLOSED)
            out[id(n)] = DATA if below == DATA else max(below, _own_stage(n))
    return out


def _own_stage(n: Node) -> int:
    if n.op == "call":
        inner = n.attrs["graph"]
        if any(x.op == "update" for x in inner.nodes):
            return DATA
        found = stages(inner, WEIGHT)
        return max((found[id(v.node)] for v in (*inner.outputs, *inner.emits.values())), default=DATA)
    op = find(n.op)
    pure = op is not None and not op.random and not op.phase
    return CLOSED if pure and all(_static(v) for v in n.attrs.values()) and all(_static(a) for a in n.args if not isinstance(a, Value)) else DATA


class _Rewrite:
    def __init__(self, graph: Graph, known: dict[int, Baked]):
        self.graph, self.all = graph, known
        self.stage = stages(graph)
        self.nodes: list[Node] = []
        self.known: dict[Value, Value] = {}
        self.values: dict[str, Value] = {}
        self.params: list[Param] = []
        self.taken = {p.path for p in graph.params} | set(graph.children)

    def run(self) -> Baked:
        g = self.graph
        for n in g.nodes:
            self._node(n)
        outputs, emits = tuple(map(self._use, g.outputs)), {k: self._use(v) for k, v in g.emits.items()}
        used = {id(n) for v in (*outputs, *emits.values()) for n in _below(v.node)}
        self.nodes = [n for n in self.nodes if n.op in ("input", "extern") or id(n) in used]
        read = {n.attrs["path"] for n in self.nodes if n.op == "param"}
        was_read = {n.attrs["path"] for n in g.nodes if n.op == "param"}
        params = tuple(p for p in g.params if p.path in read or p.path not in was_read) + tuple(self.params)
        called = {n.attrs["path"] for n in self.nodes if n.op == "call"}
        was_called = {n.attrs["path"] for n in g.nodes if n.op == "call"}
        kept = {p: c for p, c in g.children.items() if p in called or p not in was_called or any(r.startswith(p + ".") for r in read)}
        children = {p: bake_graph(c, self.all) for p, c in kept.items()}
        renames = self._rename(params)
        params = tuple(replace(p, path=renames.get(p.path, p.path)) for p in params)
        values = {renames.get(k, k): v for k, v in self.values.items()}
        for n in self.nodes:
            if n.op == "param":
                n.attrs["path"] = renames.get(n.attrs["path"], n.attrs["path"])
        new = replace(g, nodes=tuple(self.nodes), inputs=tuple(self.known[v] for v in g.inputs), outputs=outputs, params=params,
                      children={p: b.graph for p, b in children.items()}, emits=emits)
        return Baked(new, g, values, children)

    def _node(self, n: Node) -> None:
        if n.op == "update":
            return
        if n.op in ("dropout", "drop_path"):
            self.known[Value(n)] = self._use(n.args[0])
            return
        if n.op == "phase":
            arm = n.attrs["eval"]
            inside = dict(zip(arm.inputs, map(self._use, n.args)))
            for inner in arm.nodes:
                if inner.op not in ("input", "update"):
                    copy = copy_node(inner, inside.__getitem__)
                    self._add(copy, inner, inside)
            self.known.update(zip(n.values, (inside[o] for o in arm.outputs)))
            return
        if self.stage[id(n)] == WEIGHT and n.op != "param":
            return  # read through a new parameter, if data needs it
        copy = Node(n.op, map_values(n.args, self._use), {k: map_values(v, self._use) for k, v in n.attrs.items()}, n.types, n.span, n.name)
        if n.op == "call":
            copy.attrs["graph"] = bake_graph(n.attrs["graph"], self.all).graph
        self._add(copy, n, self.known)

    def _add(self, copy: Node, old: Node, known: dict[Value, Value]) -> None:
        self.nodes.append(copy)
        known.update(zip(old.values, copy.values))

    def _use(self, v: Value) -> Value:
        """The value in the new graph; a weight expression becomes a parameter when data first reads it."""
        if v not in self.known:
            path = self._fresh(v)
            self.values[path] = v
            self.params.append(Param(path, "param", v.type, InitExpr("zeros"), span=v.node.span))
            node = Node("param", (), {"path": path}, (v.type,), v.node.span, v.node.name)
            self.nodes.append(node)
            self.known[v] = Value(node)
        return self.known[v]

    def _fresh(self, v: Value) -> str:
        base = v.node.attrs["path"].replace(".", "_") if v.node.op == "call" else v.node.name or v.node.op
        path, k = f"{base}_baked", 1
        while path in self.taken:
            k += 1
            path = f"{base}_baked_{k}"
        self.taken.add(path)
        return path

    def _rename(self, params: tuple[Param, ...]) -> dict[str, str]:
        """A new parameter takes the address of a weight that it replaces and whose shape it has."""
        gone = {p.path: p for p in self.graph.params if p not in params}
        out: dict[str, str] = {}
        for path, value in self.values.items():
            for n in _below(value.node):
                p = gone.get(n.attrs["path"]) if n.op == "param" else None
                if p is not None and p.type.shape == value.type.shape and p.path not in out.values():
                    out[path] = p.path
                    break
        return out


def _below(node: Node) -> Iterator[Node]:
    seen: set[int] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if id(n) not in seen:
            seen.add(id(n))
            yield n
            stack += [v.node for v in n.operands()]
