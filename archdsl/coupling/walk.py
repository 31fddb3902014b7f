"""One walk over a typed graph that finds which axes belong together. Free of torch."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from archdsl.coupling.groups import Axes, Group, couple, in_order, share_heads
from archdsl.coupling.rules import KERNELS, RULES, taps
from archdsl.dims import Size
from archdsl.elaborate.ops import parameters
from archdsl.graph import Graph, Node, Value
from archdsl.ops.registry import find
from archdsl.passes.flat import Flat
from archdsl.syntax import tree


def groups_of(graph: Graph) -> dict[str, Axes]:
    """The groups of every axis of every weight, by address."""
    return Coupling(graph).weights


class Coupling:
    """One walk over a graph. `weights`: address -> groups of its axes; `values`: those of every value on the way."""

    def __init__(self, graph: Graph):
        flat = Flat(graph)
        self.weights: dict[str, Axes] = {a: tuple(map(Group, p.type.shape)) for a, p in flat.params.items()}
        self.values: dict[Value, Axes] = {}
        for address, p in flat.params.items():
            for group in self.weights[address] if p.kind == "const" else ():
                group.fix()  # its values are those of their places
        for node in flat.nodes:
            self.node(node)
        for v in flat.root.outputs:
            for group in self.values[v]:
                group.fix()

    def node(self, node: Node) -> None:
        """The groups of the node's results, and what it couples."""
        if node.op == "input":
            self.give(node, [self._fresh(node, fixed=True)])
        elif node.op == "param":
            self.give(node, [self.weights[node.attrs["path"]]])
        elif node.op == "update":
            self.same(self.values[node.args[0]], self.weights[node.attrs["path"]])
        elif node.op == "phase":
            self._arms(node)
        elif node.op == "scan":
            self._scan(node)
        elif node.op in RULES:
            self.give(node, RULES[node.op](self, node))
        else:
            self._by_signature(node)
        if node.op in KERNELS:
            taps(node, self.of(node.args[1]))

    def give(self, node: Node, results: Iterable[Sequence[Group]]) -> None:
        self.values.update(zip(node.values, map(tuple, results)))

    def of(self, x: Any) -> Axes:
        """The groups of an operand's axes; none for a number."""
        return self.values[x] if isinstance(x, Value) else ()

    def _fresh(self, node: Node, index: int = 0, fixed: bool = False) -> Axes:
        found = tuple(map(Group, node.types[index].shape))
        for group in found if fixed else ():
            group.fix()
        return found

    @staticmethod
    def same(a: Sequence[Group], b: Sequence[Group]) -> None:
        """Couples axes from the right, as broadcasting does; an axis of 1 beside a longer one stays by itself."""
        for x, y in zip(reversed(a), reversed(b)):
            couple(x, y)

    def spread(self, node: Node, operands: Iterable[Any], index: int = 0) -> Axes:
        """The result of an op at each position: axes of its size come from the operands, which are coupled there."""
        shape = node.types[index].shape
        result: list[Group | None] = [None] * len(shape)
        for x in operands:
            for at, group in enumerate(reversed(self.of(x)), 1):
                if group.size != shape[-at] or at > len(shape):
                    continue
                known = result[-at]
                if known is None:
                    result[-at] = group
                else:
                    couple(known, group)
        return tuple(g if g is not None else Group(s) for g, s in zip(result, shape))

    # ---------------------------------------------------------------- ops by their signatures
    def _by_signature(self, node: Node) -> None:
        op = find(node.op)
        if op is None:
            self._unknown(node)
            return
        named: dict[str, Group] = {}
        runs: dict[str, Axes] = {}
        self._met: set[str] = set()
        operands = [p for p in parameters(node.op) if p.operand]
        for p, x in zip(operands, node.args):
            kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
            if isinstance(x, Value) and isinstance(kind, tree.TensorType):
                self._bind(kind.shape.axes, self.of(x), named, runs)
            elif isinstance(x, tuple):  # a list of tensors
                self._unknown(node)
                return
        if {"g", "h"} <= named.keys() and "grouped" in op.roles.values():
            share_heads(named["h"], named["g"])
        kept = {a.id for o in op.decl.outs if isinstance(o.type, tree.TensorType) for a in o.type.shape.axes if isinstance(a, tree.AxisName)}
        first = {group.root for group in self.of(node.args[0])} if node.args else set()
        for name, group in named.items():
            role = op.roles.get(name)
            if role in ("mix", "causal") or name not in kept and (name not in self._met or role is None and group.root not in first):
                group.fix()  # positions, taps, rows that are looked up
        for name, run in runs.items():
            for group in run if op.roles.get(name) in ("mix", "causal") else ():
                group.fix()
        pointwise = bool(op.numbers) or op.infer is None and not named
        results: list[Axes] = []
        for index, out in enumerate(op.decl.outs):
            if index >= len(node.types):
                break
            axes = out.type.shape.axes if isinstance(out.type, tree.TensorType) else ()
            found = self._result(axes, node.types[index].shape, named, runs)
            results.append(found if found is not None else self.spread(node, node.args, index) if pointwise else self._apart(node, index))
        self.give(node, results)

    def _bind(self, axes: Sequence[Any], groups: Axes, named: dict[str, Group], runs: dict[str, Axes]) -> None:
        """What the axes of an operand are called."""
        at = next((i for i, a in enumerate(axes) if not isinstance(a, tree.AxisName)), None)
        tail = len(axes) - at - 1 if at is not None else 0
        pairs = list(zip(axes, groups)) if at is None else [*zip(axes[:at], groups[:at]), *(zip(axes[-tail:], groups[-tail:]) if tail else ())]
        for axis, group in pairs:
            if isinstance(axis, tree.AxisName):
                if axis.id in named:
                    self._met.add(axis.id)
                    couple(named[axis.id], group)
                named.setdefault(axis.id, group)
        if at is not None:
            run = groups[at:len(groups) - tail]
            name = getattr(axes[at], "id", "...")
            if name in runs:
                self.same(runs[name], run)
                run = max(runs[name], run, key=len)
            runs[name] = run

    @staticmethod
    def _result(axes: Sequence[Any], shape: Sequence[Size], named: dict[str, Group], runs: dict[str, Axes]) -> Axes | None:
        """The groups of a result; None where the signature does not tell where an axis comes from."""
        found: list[Group | None] = []
        for a in axes:
            if isinstance(a, tree.AxisName):
                found.append(named.get(a.id))
            else:
                run = runs.get(getattr(a, "id", "..."))
                if run is None:
                    return None
                found += run
        if len(found) != len(shape):
            return None
        return tuple(g if g is not None and g.size == s else in_order(s) for g, s in zip(found, shape))

    def _apart(self, node: Node, index: int) -> Axes:
        """Axes of which nothing is known: what goes in and what comes out keep their order."""
        for v in node.operands():
            for group in self.of(v):
                group.fix()
        return self._fresh(node, index, fixed=True)

    def _unknown(self, node: Node) -> None:
        self.give(node, [self._apart(node, i) for i in range(len(node.types))])

    # ---------------------------------------------------------------- graphs inside
    def _inside(self, graph: Graph, inputs: Iterable[Axes]) -> list[Axes]:
        self.values.update(zip(graph.inputs, inputs))
        for node in graph.nodes:
            if node.op != "input":
                self.node(node)
        return [self.values[v] for v in graph.outputs]

    def _arms(self, node: Node) -> None:
        arms = [self._inside(node.attrs[key], map(self.of, node.args)) for key in ("train", "eval")]
        for a, b in zip(*arms):
            self.same(a, b)
        self.give(node, arms[1])

    def _scan(self, node: Node) -> None:
        axes, count = node.attrs["axes"], len(node.attrs["carries"])
        scanned = [tuple(g for i, g in enumerate(self.of(x)) if i != axis) for x, axis in zip(node.args, axes)]
        others = [self.of(x) for x in node.args[len(axes):]]
        results = self._inside(node.attrs["body"], [*scanned, *others])
        for before, after in zip(others, results[:count]):
            self.same(before, after)
        time = Group(node.attrs["n"])
        time.fix()
        yields = [(*r[:axes[0]], time, *r[axes[0]:]) for r in results[count:]]
        self.give(node, [*yields, *results[:count]])
