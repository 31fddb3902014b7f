"""Residual streams and branches, found on the graph from its sums, not from names.

A *stream* is a set of values tied together by ops that commute with sums along one axis: what writes into it, and what reads it. A *branch* leads
from a value x of a stream to what is added to it.
"""
from __future__ import annotations

from typing import Literal

from archdsl.dims import Size
from archdsl.graph import Node, Value
from archdsl.passes.axes import ahead, back
from archdsl.passes.expressions import DATA, stages
from archdsl.passes.flat import Flat
from archdsl.records import field, record

KINDS = ("attention", "conv", "mlp", "other")
BranchKind = Literal["attention", "conv", "mlp", "other"]


@record(slots=False)
class Stream:
    """`values`: its values, each with the stream's axis in it. `writers`: those that come from elsewhere. `readers`: (node, value) of ops that read
    a value of it without carrying it on. `shown`: values that the model's caller sees, with what they are. `sums`: its additions."""

    size: Size
    values: dict[Value, int] = field(default_factory=dict)
    writers: list[Value] = field(default_factory=list)
    readers: list[tuple[Node, Value]] = field(default_factory=list)
    shown: list[tuple[Value, str]] = field(default_factory=list)
    twice: list[Value] = field(default_factory=list)

    @property
    def sums(self) -> list[Node]:
        return [v.node for v in self.values if v.node.op in ("add", "sub") and v not in self.writers]


def stream_of(flat: Flat, value: Value, axis: int, evaluation: bool = False, stage: dict[int, int] | None = None) -> Stream:
    """The stream that holds a value along an axis. `evaluation`: dropout carries it on."""
    stage = stages(flat) if stage is None else stage
    stream = Stream(value.shape[axis])
    stack = [(value, axis)]
    while stack:
        v, a = stack.pop()
        if v in stream.values:
            if stream.values[v] != a and v not in stream.twice:
                stream.twice.append(v)
            continue
        stream.values[v] = a
        way = back(v.node, v.index, a, evaluation) if stage[id(v.node)] == DATA else None
        if way is None:
            stream.writers.append(v)
        else:
            stack += reversed(way.sources)
        if stage[id(v.node)] != DATA:
            continue  # a weight may be read elsewhere as it is
        if (given := flat.given(v)) is not None:
            stream.shown.append((v, given))
        for u in flat.users(v):
            on = [(w, b) for w, b, _ in ahead(u, v, a, evaluation)]
            if on:
                stack += on
            else:
                stream.readers.append((u, v))
    return stream


# ---------------------------------------------------------------- branches
@record(slots=False)
class Branch:
    """`read`: the value of the stream that it starts from; `write`: what is added to it; `sum`: the addition; `nodes`: those between."""

    read: Value
    write: Value
    sum: Node
    nodes: list[Node]

    @property
    def kind(self) -> BranchKind:
        ops = {n.op for n in self.nodes}
        if "attention" in ops or "softmax" in ops and "matmul" in ops:
            return "attention"
        if any(n.op in ("conv", "conv_transpose") and any(k != 1 for k in n.args[1].shape[2:]) for n in self.nodes):
            return "conv"
        return "mlp" if sum(n.op in ("linear", "conv") for n in self.nodes) > 1 else "other"


def branches(flat: Flat) -> list[Branch]:
    """The residual branches in order: sums of a value with something computed from it."""
    nodes = flat.order()
    place = {id(n): i for i, n in enumerate(nodes)}
    out: list[Branch] = []
    for n in nodes:
        if n.op != "add" or not all(isinstance(a, Value) for a in n.args):
            continue
        for read, write in (n.args, n.args[::-1]):
            if read != write and read.type == write.type and (inside := _between(read, write, place)):
                out.append(Branch(read, write, n, inside))
                break
    return out


def _between(read: Value, write: Value, place: dict[int, int]) -> list[Node]:
    """The nodes from `read` to `write`, `write`'s own included; none when it does not depend on `read`. Nodes that do not depend on `read` (the
    tables of positions) are left out."""
    reaches: dict[int, bool] = {id(read.node): True}
    stack = [write.node]
    visited: list[Node] = []
    while stack:
        n = stack[-1]
        if id(n) in reaches:
            stack.pop()
            continue
        before = [v.node for v in n.operands() if place[id(v.node)] >= place[id(read.node)]]
        waiting = [b for b in before if id(b) not in reaches]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        reaches[id(n)] = any(reaches[id(b)] for b in before)
        visited.append(n)
    return [n for n in visited if reaches[id(n)]]
