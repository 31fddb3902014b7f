"""Nodes that a kernel of the target computes together, joined before lowering: names, addresses and what passes see are as they were. Free of torch.

`silu(gate) * up` is joined to `swiglu`, the turning of halves by cosines and sines to `rotary`, a sum of normalised powers to `poly_norm`."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from archdsl.flatten import EachOnce, copy_node
from archdsl.graph import Graph, Node, Value
from archdsl.kernels.bindings import REFERENCE, KernelError, bindings, choose
from archdsl.kernels.target import Target
from archdsl.records import replace

Pattern = Callable[[Node, Counter[Value]], tuple[Node, list[Node]] | None]
"""Of the last node of a pattern, and how often each value is read: the joined node, and the nodes that it stands for beside the last."""


def fused(graph: Graph, target: Target, dtype: str, installed: bool = True) -> Graph:
    """The graph with what kernels of the target compute together joined; itself where there are none. `dtype`: of the build. `installed`: as for
    `choose`."""
    return graph if target.plain or target.every else _Fusing(target, dtype, installed)(graph)


class _Fusing(EachOnce):
    """Equal layers stay one definition."""

    def __init__(self, target: Target, dtype: str, installed: bool):
        super().__init__()
        self.target, self.dtype, self.installed = target, dtype, installed

    def _graph(self, graph: Graph) -> Graph:
        joined = dict(self._found(graph))
        known: dict[Value, Value] = {v: v for v in graph.inputs}
        nodes: list[Node] = [v.node for v in graph.inputs]
        gone = {id(n) for _, others in joined.values() for n in others}
        for node in graph.nodes:
            if node.op == "input" or id(node) in gone:
                continue
            new = copy_node(joined[id(node)][0] if id(node) in joined else node, known.__getitem__)
            new.attrs.update({k: self(v) for k, v in node.attrs.items() if isinstance(v, Graph)})
            nodes.append(new)
            known.update(zip(node.values, new.values))
        return replace(graph, nodes=tuple(nodes), outputs=tuple(known[v] for v in graph.outputs),
                       children={k: self(g) for k, g in graph.children.items()}, emits={k: known[v] for k, v in graph.emits.items()})

    def _found(self, graph: Graph) -> Iterator[tuple[int, tuple[Node, list[Node]]]]:
        reads = Counter(v for n in graph.nodes for v in n.operands())
        reads.update((*graph.outputs, *graph.emits.values()))
        for node in graph.nodes:
            for pattern in PATTERNS.get(node.op, ()):
                found = pattern(node, reads)
                if found is not None and self._taken(found[0]):
                    yield id(node), found
                    break

    def _taken(self, node: Node) -> bool:
        """Whether a kernel takes the joined node."""
        asked = self.target.asked(node.op)
        if not bindings(node.op) or asked == REFERENCE:
            return False
        from archdsl.lower.kernels import operand_types

        types = operand_types(node, self.dtype)
        first = next(t for t in types.values() if t is not None)
        try:
            found = choose(node.op, self.target.device, first.dtype, types, node.attrs, asked=asked, installed=self.installed)
        except KernelError:
            return False
        return found.binding is not None


def _swiglu(node: Node, reads: Counter[Value]) -> tuple[Node, list[Node]] | None:
    """silu(gate) * up, of one shape and dtype."""
    for gate, up in (node.args, node.args[::-1]):
        if not (isinstance(gate, Value) and isinstance(up, Value) and up.type == gate.type == node.types[0]):
            continue
        if gate.node.op == "silu" and reads[gate] == 1:
            return Node("swiglu", (gate.node.args[0], up), {}, node.types, node.span, node.name), [gate.node]
    return None


def _rotary(node: Node, reads: Counter[Value]) -> tuple[Node, list[Node]] | None:
    """x cos + (-x₂, x₁) sin: tables [T, w] beside heads."""
    plain, crossed = (a.node if isinstance(a, Value) and reads[a] == 1 else None for a in node.args)
    if plain is None or crossed is None or plain.op != "mul" or crossed.op != "mul":
        return None
    x, cos = plain.args
    halves, sin = crossed.args
    if not all(isinstance(v, Value) for v in (x, cos, halves, sin)) or halves.node.op != "concat" or reads[halves] != 1:
        return None
    parts = [v.node for v in halves.node.args[0]]
    if not (len(x.shape) > 2 and cos.shape == sin.shape == x.shape[-2:] and x.type == node.types[0] and cos.dtype == x.dtype == sin.dtype):
        return None
    if [p.op for p in parts] != ["neg", "slice"] or halves.node.attrs["axis"] not in (-1, len(x.shape) - 1):
        return None
    far, near = parts[0].args[0].node, parts[1]
    half = x.shape[-1] // 2
    if far.op != "slice" or _half(far, x) != ("slice", half, None, None) or _half(near, x) != ("slice", None, half, None):
        return None
    inner = [far, parts[0], near]
    if any(reads[Value(n)] != 1 for n in inner):
        return None
    return Node("rotary", (x, cos, sin), {}, node.types, node.span, node.name), [*inner, halves.node, plain, crossed]


def _half(node: Node, x: Value) -> object:
    """What a slice takes of the last axis of x; None where it is of something else, or takes less of another axis."""
    items = node.attrs["items"]
    whole = all(i == ("slice", None, None, None) for i in items[:-1])
    return items[-1] if node.args[0] == x and whole and len(items) == len(x.shape) else None


def _poly_norm(node: Node, reads: Counter[Value]) -> tuple[Node, list[Node]] | None:
    """bias + Σ a_i N(x^i) in float32, given back in the type of x: the last term, that of the highest power, is the first one read."""
    x, inner, terms, value = node.args[1], [], [], node.args[0]
    while isinstance(value, Value) and value.node.op == "add" and reads[value] == 1:
        rest, term = value.node.args
        inner.append(value.node)
        if isinstance(term, Value) and _product(rest) and not _product(term):
            return _powers(node, x, [*terms, rest], term, inner, reads)
        if not _product(term):
            return None
        terms.append(term)
        value = rest
    return None


def _product(value: object) -> bool:
    """Whether it is a product of two values."""
    return isinstance(value, Value) and value.node.op == "mul" and all(isinstance(v, Value) for v in value.node.args)


def _powers(node: Node, x: Value, terms: list[Value], bias: Value, inner: list[Node], reads: Counter[Value]) -> tuple[Node, list[Node]] | None:
    """The joined node, where the terms are those of powers of x that fall by one."""
    weights, kinds, powers = set(), set(), []
    for k, term in enumerate(terms):
        a, normed = (v.node for v in term.node.args)
        if a.op != "slice" or a.attrs["items"] != (("int", k),) or normed.op != "rms_norm":
            return None
        weights.add(_narrow(a.args[0]))
        kinds.add((normed.args[1], normed.attrs["eps"]))
        powers.append(normed.args[0])
        inner += [term.node, a, normed]
    z = powers[-1]
    for higher, lower in pairwise(powers):
        if higher.node.op != "mul" or Counter(higher.node.args) != Counter((lower, z)):
            return None
        inner.append(higher.node)
    while z != x and z.node.op == "at_least":
        inner.append(z.node)
        z = z.node.args[0]
    (weight, *others), ((scale, eps), *more) = weights, kinds
    fits = z == x and not others and not more and scale is None and weight.shape == (len(terms),) and _narrow(bias).shape == (1,)
    inside = Counter(v for n in (node, *inner) for v in n.operands())
    if not fits or any(reads[v] != inside[v] for n in inner for v in n.values):
        return None
    return Node("poly_norm", (x, weight, _narrow(bias)), {"eps": eps}, node.types, node.span, node.name), inner


def _narrow(value: Value) -> Value:
    """What a value was before it was widened."""
    while value.node.op == "at_least":
        value = value.node.args[0]
    return value


PATTERNS: dict[str, tuple[Pattern, ...]] = {"mul": (_swiglu,), "add": (_rotary,), "as_type": (_poly_norm,)}
"""By the op of the last node."""
