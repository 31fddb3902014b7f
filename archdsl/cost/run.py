"""Runs a lowered program without tensors: what each value is, where it lies, how long it lives, what autograd keeps. Free of torch.

A block is run once for each way it is called (shapes, strides, gradients); its `Summary` serves every other call. With `Sizes.formula`
the amounts come out as polynomials in the run-time sizes, while strides, and with them all decisions about copies, are those at one point.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from archdsl.cost.bits import bits_of, product_bits
from archdsl.cost.greatest import highest
from archdsl.cost.memory import BYTES, Placed, places
from archdsl.cost.saved import kept
from archdsl.cost.strides import contiguous
from archdsl.cost.summary import Call, Mode, Out, Sizes, Summary, Tensor, nbytes
from archdsl.dims import Dim, Size
from archdsl.elaborate.ops import is_operand
from archdsl.elaborate.values import is_list
from archdsl.flatten import param_at
from archdsl.graph import Mask, Node, TensorType, Value
from archdsl.lower.plan import Definition
from archdsl.ops.registry import Op, find
from archdsl.records import replace

_FLOWS = {"as_type": ("x",), "straight_through": ("like",)}
"""Ops of which not every float operand gets a gradient."""


@lru_cache(None)
def _operation(name: str) -> tuple[Op, tuple[str, ...]]:
    """An op and the names of its operands."""
    op = find(name)
    assert op is not None, name
    return op, tuple(p.name for p in op.decl.params if is_operand(p))


class Program:
    """Facts about a definition that hold for all its calls. `last[value]`: the position of the node that reads it last."""

    def __init__(self, definition: Definition):
        graph = definition.graph
        self.definition, self.nodes = definition, graph.nodes
        self.last: dict[Value, int] = {}
        for at, node in enumerate(graph.nodes):
            for v in node.values:
                self.last[v] = at
            for v in node.operands():
                self.last[v] = at
        for v in graph.outputs:
            self.last[v] = len(graph.nodes)
        self.symbols = [[(str(s), axis) for axis, s in enumerate(v.shape) if isinstance(s, Dim) and str(s) in s.symbols] for v in graph.inputs]
        self.arms = dict(zip((id(n) for n in graph.nodes if n.op in ("phase", "scan")), definition.arms))

    def trainable(self, path: str) -> bool:
        param = param_at(self.definition.graph, path)
        return param is not None and param.kind == "param" and param.type.is_float


class Simulator:
    """Runs of one model in one mode, each block once for each way it is called."""

    def __init__(self, mode: Mode):
        self.mode = mode
        self.programs: dict[int, Program] = {}
        self.summaries: dict[Any, Summary] = {}

    def program(self, definition: Definition) -> Program:
        found = self.programs.get(id(definition))
        if found is None:
            found = self.programs[id(definition)] = Program(definition)
        return found

    def model(self, definition: Definition, sizes: Sizes) -> Summary:
        """The run of a root whose inputs are contiguous tensors of their own."""
        inputs: list[Any] = []
        for n, v in enumerate(definition.graph.inputs):
            place = self.place(v.type, sizes)
            inputs.append(Tensor(place, n, False))
        return self.call(definition, tuple(inputs), sizes)

    def call(self, definition: Definition, args: tuple[Any, ...], sizes: Sizes) -> Summary:
        """A block called with tensors whose storages are numbered from 0 in order of appearance, and numbers for its size inputs."""
        key = id(definition), args, sizes.key
        found = self.summaries.get(key)
        if found is None:
            found = self.summaries[key] = _Run(self, definition, args, sizes).summary()
        return found

    def place(self, t: TensorType, sizes: Sizes) -> Placed:
        extent = tuple(sizes.number(s) for s in t.shape)
        shape = extent if sizes.formula is None else tuple(sizes.amount(s) for s in t.shape)
        return Placed(self.mode.concrete(t.dtype), shape, extent, contiguous(extent))


def _selected(p: Placed, axis: int) -> Placed:
    """One position of an axis."""
    def cut(sizes: Any) -> Any:
        return (*sizes[:axis], *sizes[axis + 1:])

    return Placed(p.dtype, cut(p.shape), cut(p.extent), cut(p.strides))


class _Run:
    """One run of a block. Storages are numbered: first the caller's, then those made here, weights among them with 0 bytes."""

    def __init__(self, simulator: Simulator, definition: Definition, args: tuple[Any, ...], sizes: Sizes):
        self.simulator, self.mode, self.definition, self.args = simulator, simulator.mode, definition, args
        self.program = simulator.program(definition)
        self.at = -1  # the position of the node that runs
        self.values: dict[Value, Tensor] = {}
        self.slots = 1 + max((a.storage for a in args if isinstance(a, Tensor)), default=-1)
        self.bytes: list[Size] = [0] * self.slots
        self.born = [-1] * self.slots
        self.weights: set[int] = set()
        self.kept: set[int] = set()
        self.calls: list[Call] = []
        self.inside: dict[int, tuple[Size, ...]] = {}  # by position of a call: the candidates of its own peak
        self.private: Size = 0
        self.macs: Size = 0
        self.bops: Size = 0
        self.bits: dict[Value, int] = {}
        self.unknown: list[str] = []
        self.sizes = sizes.inner(self._inputs())

    def summary(self) -> Summary:
        for node in self.program.nodes:
            self.at += 1
            self._node(node)
        outputs, news = self._outputs()
        peak = () if self.mode.grad else self._peak()
        for i in range(self.slots, len(self.bytes)):
            if i in self.kept and i not in news:
                self.private = self.private + self.bytes[i]
        inputs = tuple(a.place for a in self.args if isinstance(a, Tensor))
        return Summary(self.definition, inputs, outputs, self.slots, news, tuple(self.bytes), frozenset(self.weights), self.macs, self.bops, peak,
                       frozenset(self.kept), self.private, tuple(self.calls), tuple(self.unknown))

    # ---------------------------------------------------------------- inputs and outputs
    def _inputs(self) -> Iterator[tuple[str, int, Size]]:
        """Takes the arguments; gives what they tell of the run-time sizes."""
        for value, symbols, arg in zip(self.definition.graph.inputs, self.program.symbols, self.args):
            if isinstance(arg, Tensor):
                self.values[value] = arg
                yield from ((name, arg.place.extent[axis], arg.place.shape[axis]) for name, axis in symbols)
            elif arg is not None:
                yield str(value.node.attrs["size"]), *arg

    def _outputs(self) -> tuple[tuple[Out, ...], tuple[int, ...]]:
        found: list[Out] = []
        news: list[int] = []
        for v in self.definition.graph.outputs:
            t = self.values[v]
            if t.storage in self.weights:
                found.append(Out(t.place, t.grad))
            elif t.storage < self.slots:
                found.append(Out(t.place, t.grad, slot=t.storage))
            else:
                if t.storage not in news:
                    news.append(t.storage)
                found.append(Out(t.place, t.grad, new=news.index(t.storage)))
        return tuple(found), tuple(news)

    def _storage(self, size: Size) -> int:
        self.bytes.append(size)
        self.born.append(self.at)
        return len(self.bytes) - 1

    # ---------------------------------------------------------------- nodes
    def _node(self, node: Node) -> None:
        if node.op == "param":
            self._weight(node, self.mode.grad and self.program.trainable(node.attrs["path"]))
        elif node.op == "read" and self.mode.training:  # a copy of a buffer that this pass changes
            place = self.simulator.place(node.types[0], self.sizes)
            self.values[Value(node)] = Tensor(place, self._storage(nbytes(place)), False)
        elif node.op in ("read", "literal") or node.op == "permutation" and node.attrs.get("seed") is not None:
            self._weight(node, False)
        elif node.op == "call":
            self._call(node, self.definition.children[node.attrs["path"]], node.attrs["path"])
        elif node.op == "phase":
            train, other = self.program.arms[id(node)]
            self._call(node, train if self.mode.training else other, "")
        elif node.op == "scan":
            self._scan(node, self.program.arms[id(node)][0])
        elif node.op == "extern":
            self.unknown.append(node.attrs["path"])
            for v in node.values:
                place = self.simulator.place(v.type, self.sizes)
                self.values[v] = Tensor(place, self._storage(nbytes(place)), self.mode.grad and place.is_float)
        elif node.op not in ("input", "commit"):
            if node.op == "aten":
                self.unknown.append(f"aten.{node.attrs['name'].removesuffix('.default')}")
            self._op(node)

    def _weight(self, node: Node, grad: bool) -> None:
        """A weight as it is, or a tensor that is known when the model is built: neither is made by a run."""
        storage = self._storage(0)
        self.weights.add(storage)
        self.values[Value(node)] = Tensor(self.simulator.place(node.types[0], self.sizes), storage, grad)

    def _op(self, node: Node) -> None:
        mode, (op, names) = self.mode, _operation(node.op)
        operands = dict(zip(names, node.args))
        amounts = {k: self._given(v, self.sizes.amount) for k, v in (operands | node.attrs).items()}
        numbers = amounts if self.sizes.formula is None else {k: self._given(v, self.sizes.number) for k, v in (operands | node.attrs).items()}
        needs = set(self._needs(operands)) if mode.grad else set[str]()
        results = tuple(self.simulator.place(t, self.sizes) for t in node.types)
        if needs and node.op == "attention":
            numbers = {**numbers, "bias_grad": "bias" in needs}
        flows = needs & set(_FLOWS.get(node.op, names)) if op.grad != "none" else ()
        for v, r, p in zip(node.values, results, places(op, numbers, results, mode.training)):
            place = Placed(r.dtype, r.shape, r.extent, p.strides)
            storage = self._tensor(operands, p.alias).storage if p.alias else self._storage(nbytes(p.storage or r))
            self.values[v] = Tensor(place, storage, bool(flows) and r.is_float)
        if needs and op.grad != "none":
            alone = op.name in mode.opaque
            items = [k for k, v in operands.items() if isinstance(v, Value)] if alone else kept(op, amounts, needs)
            found = [i for item in items for i in self._kept(node, operands, item)]
            self.kept.update(i for i in found if i not in self.weights)
        bits = bits_of(node, self.bits)
        if bits is not None:
            self.bits.update(dict.fromkeys(node.values, bits))
        if op.macs is not None and not mode.grad:
            macs = op.macs(**amounts)
            self.macs = self.macs + macs
            self.bops = self.bops + product_bits(node, self.bits, 8 * BYTES[mode.dtype]) * macs

    def _given(self, value: Any, size: Any) -> Any:
        """Operands and attributes as the rules take them: placed tensors, sizes as numbers or polynomials."""
        if isinstance(value, Value):
            return self.values[value].place
        if isinstance(value, Dim):
            return size(value)
        if type(value) in (tuple, list):
            return tuple(self._given(v, size) for v in value)
        if isinstance(value, Mask):
            return Mask(value.kind, tuple(self._given(a, size) for a in value.args))
        return value

    def _needs(self, operands: dict[str, Any]) -> Iterator[str]:
        """The names of operands that need a gradient; of a list, also "xs.0" for its first."""
        for name, operand in operands.items():
            members: tuple[Any, ...] = operand if is_list(operand) else (operand,)
            found = [i for i, o in enumerate(members) if isinstance(o, Value) and self.values[o].grad]
            if found:
                yield name
                yield from (f"{name}.{i}" for i in found if isinstance(operand, tuple))

    def _tensor(self, operands: dict[str, Any], name: str) -> Tensor:
        name, _, place = name.partition(".")
        return self.values[operands[name][int(place)] if place else operands[name]]

    def _kept(self, node: Node, operands: dict[str, Any], item: str | TensorType) -> Iterator[int]:
        """The storages of what an op keeps."""
        if isinstance(item, TensorType):
            yield self._storage(nbytes(item))
        elif item.startswith("out"):
            yield self.values[Value(node, int(item[3:] or 0))].storage
        elif isinstance(operands.get(item), tuple):
            yield from (self.values[v].storage for v in operands[item] if isinstance(v, Value))
        else:
            yield self._tensor(operands, item).storage

    # ---------------------------------------------------------------- calls
    def _call(self, node: Node, definition: Definition, path: str) -> None:
        args: list[Any] = []
        slots: list[int] = []
        for a in node.args:
            if isinstance(a, Value):
                t = self.values[a]
                if t.storage not in slots:
                    slots.append(t.storage)
                args.append(Tensor(t.place, slots.index(t.storage), t.grad))
            else:
                args.append(None if a is None else (self.sizes.number(a), self.sizes.amount(a)))
        s = self.simulator.call(definition, tuple(args), self.sizes)
        news = tuple(self._storage(s.bytes[i]) for i in s.news)
        for v, out in zip(node.values, s.outputs):
            if out.new is not None or out.slot is not None:
                storage = slots[out.slot] if out.slot is not None else news[out.new or 0]
            else:
                storage = self._storage(0)
                self.weights.add(storage)
            self.values[v] = Tensor(out.place, storage, out.grad)
        self.calls.append(Call(path, s, tuple(slots), news))
        self.macs, self.bops = self.macs + s.macs, self.bops + s.bops
        self.private = self.private + s.private
        self.inside[self.at] = s.peak
        self.kept.update(i for i in (slots[k] for k in s.kept_slots) if i not in self.weights)
        self.kept.update(i for i, inner in zip(news, s.news) if inner in s.kept)

    def _scan(self, node: Node, body: Definition) -> None:
        """The body n times. The first time its carries are the initial ones, then what the time before gave; results are stacked at the end."""
        axes, carries = node.attrs["axes"], len(node.attrs["carries"])
        n = self.sizes.amount(node.attrs["n"])
        given: list[Any] = [self.values[a] if isinstance(a, Value) else (self.sizes.number(a), self.sizes.amount(a)) for a in node.args]
        given[:len(axes)] = [replace(t, place=_selected(t.place, axis)) for t, axis in zip(given, axes)]
        first, _ = self._once(body, given)
        later = list(given)
        for i, out in enumerate(first.outputs[:carries]):
            later[len(axes) + i] = Tensor(out.place, self._storage(nbytes(out.place)), out.grad)
        steady, slots = self._once(body, later)
        own = {later[len(axes) + i].storage for i in range(carries)}
        for s, times in ((first, 1), (steady, n - 1)):
            self.macs, self.bops = self.macs + times * s.macs, self.bops + times * s.bops
            self.private = self.private + times * (s.private + sum((s.bytes[i] for i in s.news if i in s.kept), 0))
        kept = {slots[k] for k in steady.kept_slots}
        self.private = self.private + (n - 1) * sum((self.bytes[i] for i in kept & own), 0)
        self.kept.update(i for i in kept - own if i not in self.weights)
        listed: Size = 0
        for v, out in zip(node.values, (*steady.outputs[carries:], *steady.outputs[:carries])):
            place = self.simulator.place(v.type, self.sizes)
            self.values[v] = Tensor(place, self._storage(nbytes(place)), out.grad)
            listed = listed + nbytes(place)
        self.inside[self.at] = tuple(p + listed for p in steady.peak)

    def _once(self, body: Definition, given: list[Any]) -> tuple[Summary, list[int]]:
        """One run of a body, and the storages behind its slots."""
        slots: list[int] = []
        args: list[Any] = []
        for t in given:
            if isinstance(t, Tensor):
                if t.storage not in slots:
                    slots.append(t.storage)
                t = replace(t, storage=slots.index(t.storage))
            args.append(t)
        return self.simulator.call(body, tuple(args), self.sizes), slots

    # ---------------------------------------------------------------- live bytes
    def _peak(self) -> tuple[Size, ...]:
        """Bytes alive at each node: its operands and result, and what later nodes read. A call holds its operands until it returns."""
        steps = len(self.program.nodes)
        dies = list(self.born)
        for v, t in self.values.items():
            dies[t.storage] = max(dies[t.storage], self.program.last[v])
        comes: list[Size] = [0] * (steps + 2)
        goes: list[Size] = [0] * (steps + 2)
        for i in range(self.slots, len(self.bytes)):
            comes[self.born[i]] = comes[self.born[i]] + self.bytes[i]
            goes[dies[i] + 1] = goes[dies[i] + 1] + self.bytes[i]
        live: Size = 0
        found: dict[Size, None] = {0: None}
        for at in range(steps):
            live = live - goes[at]
            found.update(dict.fromkeys(live + inside for inside in self.inside.get(at, ())))
            live = live + comes[at]
            found[live] = None
        return highest(found)


