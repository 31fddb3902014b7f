"""A model at some sizes as one list of applied ops: calls opened, the evaluation arm of phases taken, every size a number."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.dims import Dim, evaluate
from archdsl.elaborate.ops import parameters
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.ops.registry import find
from archdsl.records import record


@record(frozen=True, eq=False)
class Work:
    """One applied op. `path`: the address of the block around it, or of the weight; `args`: operands by name, each a `Tensor`, a number, None or a
    tuple of those; `attrs`: hyper arguments; `macs`: multiply-accumulates. `op` is input or param for what is given."""

    path: str
    op: str
    args: dict[str, Any]
    attrs: dict[str, Any]
    types: tuple[TensorType, ...]
    macs: int = 0

    @property
    def results(self) -> tuple[Tensor, ...]:
        return tuple(Tensor(self, i) for i in range(len(self.types)))

    @property
    def operands(self) -> list[tuple[str, Tensor]]:
        """The tensor operands with their names."""
        return [(name, a) for name, arg in self.args.items() for a in (arg if isinstance(arg, tuple) else (arg,)) if isinstance(a, Tensor)]


@record(frozen=True)
class Tensor:
    """The `index`-th result of an applied op."""

    work: Work
    index: int = 0

    @property
    def type(self) -> TensorType:
        return self.work.types[self.index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape  # pyright: ignore[reportReturnType]  (all sizes are numbers here)


@record(slots=False)
class Program:
    """`works` in order of evaluation; `outputs`: what the model gives; `unknown`: addresses of blocks whose cost nobody knows."""

    works: list[Work]
    outputs: list[Tensor]
    unknown: list[str]


def program(graph: Graph, sizes: Mapping[str, int]) -> Program:
    """The applied ops of a model at these run-time sizes."""
    found = Program([], [], [])
    run = _Run(found)
    inputs = {v: run.add(Work("", "input", {}, {}, (_typed(v.type, sizes),))) for v in graph.inputs}
    found.outputs = run.body(graph, {v: t[0] for v, t in inputs.items()}, "", sizes)[: len(graph.outputs)]
    return found


class _Run:
    def __init__(self, found: Program):
        self.found = found
        self.weights: dict[str, Tensor] = {}

    def add(self, work: Work) -> tuple[Tensor, ...]:
        self.found.works.append(work)
        return work.results

    def body(self, graph: Graph, known: dict[Value, Any], prefix: str, sizes: Mapping[str, int]) -> list[Any]:
        """The results of a graph whose inputs are `known`, then its emitted values."""
        for node in graph.nodes:
            if node.op not in ("input", "update"):
                known.update(zip(node.values, self._node(node, known, prefix, sizes)))
        return [known[v] for v in (*graph.outputs, *graph.emits.values())]

    def _node(self, node: Node, known: dict[Value, Any], prefix: str, sizes: Mapping[str, int]) -> tuple[Any, ...] | list[Any]:
        if node.op == "param":
            address = prefix + node.attrs["path"]
            if address not in self.weights:
                self.weights[address] = self.add(Work(address, "param", {}, {}, (_typed(node.types[0], sizes),)))[0]
            return (self.weights[address],)
        if node.op == "call":
            return self._enter(node.attrs["graph"], node, known, f"{prefix}{node.attrs['path']}.", sizes)
        if node.op == "phase":
            return self._enter(node.attrs["eval"], node, known, prefix, sizes)
        return self._apply(node, known, prefix, sizes)

    def _enter(self, graph: Graph, node: Node, known: dict[Value, Any], prefix: str, sizes: Mapping[str, int]) -> list[Any]:
        args = [known[a] if isinstance(a, Value) else a for a in node.args]
        own = dict(sizes)
        for formal, actual in zip(graph.inputs, args):
            if isinstance(actual, Tensor):
                own.update((str(s), n) for s, n in zip(formal.shape, actual.shape) if isinstance(s, Dim) and str(s) in s.symbols)
        return self.body(graph, dict(zip(graph.inputs, args)), prefix, own)

    def _apply(self, node: Node, known: dict[Value, Any], prefix: str, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        def given(a: Any) -> Any:
            if isinstance(a, Value):
                return known[a]
            if isinstance(a, tuple):
                return tuple(given(x) for x in a)
            return evaluate(a, sizes) if isinstance(a, Dim) else a

        op = find(node.op)
        names = [p.name for p in parameters(node.op) if p.operand] if op is not None else [str(i) for i in range(len(node.args))]
        args, attrs = dict(zip(names, map(given, node.args))), {k: given(v) for k, v in node.attrs.items()}
        if op is None or node.op == "aten":
            self.found.unknown.append(prefix + str(node.attrs.get("path", node.attrs.get("name", ""))))
        macs = op.macs(**{k: _types(v) for k, v in args.items()}, **attrs) if op is not None and op.macs is not None else 0
        return self.add(Work(prefix.removesuffix("."), node.op, args, attrs, tuple(_typed(t, sizes) for t in node.types), macs))


def _typed(t: TensorType, sizes: Mapping[str, int]) -> TensorType:
    return TensorType(t.dtype, tuple(s if isinstance(s, int) else evaluate(s, sizes) for s in t.shape))


def _types(arg: Any) -> Any:
    """An operand as the cost rules take it."""
    if isinstance(arg, Tensor):
        return arg.type
    return tuple(map(_types, arg)) if isinstance(arg, tuple) else arg
