"""What `fake_quantize` says of costs: the bits that factors of products have, and the bytes that weights take when they are stored so. Free of torch.

A block's operands have the bits that an op of the same block gave them: those of its inputs and results are the build's floats."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from archdsl.graph import FLOATS, Graph, Node, TensorType, Value
from archdsl.ops.quantization import scales

FACTORS = ("linear", "conv", "matmul")
"""Products of their first two operands."""
MOVED = ("rearrange", "slice", "expand", "as_type", "split", "straight_through")
"""Ops whose result is numbers of their first operand."""
SCALE_BYTES = 4


def bits_of(node: Node, known: Mapping[Value, int]) -> int | None:
    """The bits of an op's results; None: the build's."""
    if node.op == "fake_quantize":
        return node.attrs["bits"]
    return known.get(node.args[0]) if node.op in MOVED else None


def product_bits(node: Node, known: Mapping[Value, int], width: int) -> int:
    """The bits of the two factors of a product, multiplied. `width`: those of the build's floats, which all other ops that multiply have."""
    factors = node.args[0] if node.op == "einsum" and len(node.args[0]) == 2 else node.args[:2] if node.op in FACTORS else ()
    return prod(known.get(f, width) for f in factors) if factors else width * width


def quantized_bytes(graph: Graph, size: Callable[[TensorType], int], memo: dict[int, int] | None = None,
                    above: Mapping[str, list[Node]] | None = None) -> int:
    """Bytes of all weights, buffers and consts, of which those that nothing but `fake_quantize` reads take its bits and its scales. `size`: of a
    tensor as the build has it. `above`: what blocks around this one read of its weights."""
    memo = {} if memo is None else memo
    found = memo.get(id(graph)) if not above else None
    if found is None:
        readers = _readers(graph)
        for path, nodes in (above or {}).items():
            readers.setdefault(path, []).extend(nodes)
        found = sum(_stored(p.type, readers.get(p.path, []), size) for p in graph.params)
        for name, child in graph.children.items():
            inside = {path.removeprefix(f"{name}."): nodes for path, nodes in readers.items() if path.startswith(f"{name}.")}
            found += quantized_bytes(child, size, memo, inside)
        if not above:
            memo[id(graph)] = found
    return found


def _readers(graph: Graph) -> dict[str, list[Node]]:
    """The nodes that read each weight; a `straight_through` that lends a quantised weight its gradient is none. One that is a result has itself for a
    reader: it leaves the block as it is."""
    owners = {Value(n): n.attrs["path"] for n in graph.nodes if n.op == "param"}
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        values = node.operands()
        if node.op == "straight_through" and node.args[0].node.op == "fake_quantize" and node.args[0].node.args[0] == node.args[1]:
            values = [node.args[0]]
        for v in values:
            if v in owners:
                found.setdefault(owners[v], []).append(node)
    for v in (*graph.outputs, *graph.emits.values()):
        if v in owners:
            found.setdefault(owners[v], []).append(v.node)
    return found


def _stored(type: TensorType, readers: list[Node], size: Callable[[TensorType], int]) -> int:
    if not readers or type.dtype != "float" and type.dtype not in FLOATS or any(n.op != "fake_quantize" for n in readers):
        return size(type)
    shape: Any = type.shape
    total = -(-prod(shape) * max(n.attrs["bits"] for n in readers) // 8)
    told = {(n.attrs.get("axes"), n.attrs.get("group"), n.attrs.get("symmetric", True), n.attrs["bits"]) for n in readers}
    for axes, group, symmetric, bits in told:
        total += scales(shape, axes, group) * (SCALE_BYTES + (0 if symmetric else -(-bits // 8)))
    return min(total, size(type))
