"""The nodes of tables, one set for all models. The candidates of a search compute the same few tables in ever other company: what a root writes for
each is looked up by the identity of the node it is copied from, and what a node became in an fx graph is kept beside it. Free of torch."""
from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

from archdsl.flatten import copy_node
from archdsl.graph import Node, Value
from archdsl.lower.tables import Texts, describe, nodes

MOST = 4096
"""So many nodes are kept; then all are let go. They hold numbers, sizes and places in texts, no graph and no tensor."""


class Step(NamedTuple):
    """A node of a table: the text it is described by, a number for all that is equal in its own right, the texts of what it reads."""

    text: str
    number: int
    node: Node
    reads: tuple[str, ...]


class SharedTables:
    """`written`: what later stages make of the kept nodes, with the node, by keys that begin with its id."""

    def __init__(self) -> None:
        self.written: dict[tuple[Any, ...], tuple[Node, Any]] = {}
        self._programs: dict[int, tuple[Step, ...]] = {}  # by the id of the table's node, which the last step holds
        self._numbers: dict[Any, int] = {}
        self._unused = count()  # no number comes twice: steps outlive what is let go
        self._nodes: dict[tuple[int, ...], Node] = {}
        self._ids: set[int] = set()

    def steps(self, table: Value) -> tuple[Step, ...]:
        """The table's nodes in order of evaluation, its own the last."""
        found = self._programs.get(id(table.node))
        if found is None or found[-1].node is not table.node:
            self._make_room()
            texts: Texts = {}
            found = tuple(self._step(n, texts) for n in nodes(table))
            self._programs[id(table.node)] = found
        return found

    def _step(self, node: Node, texts: Texts) -> Step:
        text = describe(Value(node), texts)
        own = text, node.name, node.span, node.types, node.attrs.get("path")
        reads = tuple(describe(Value(v.node), texts) for v in node.operands())
        number = self._numbers.get(own)
        if number is None:
            number = self._numbers[own] = next(self._unused)
        return Step(text, number, node, reads)

    def node(self, step: Step, known: Mapping[str, Value]) -> Node:
        """The node of a step that reads the nodes in `known`, by their texts."""
        key = (step.number, *[id(known[t].node) for t in step.reads])
        found = self._nodes.get(key)
        if found is None:
            self._make_room()
            by_id = {id(v.node): known[t].node for v, t in zip(step.node.operands(), step.reads)}
            found = copy_node(step.node, lambda v: Value(by_id[id(v.node)], v.index))
            if all(id(n) in self._ids for n in by_id.values()):  # what it reads lives as long, and so do the ids in its key
                self._nodes[key] = found
                self._ids.add(id(found))
        return found

    def keeps(self, node: Node) -> bool:
        return id(node) in self._ids

    def clear(self) -> None:
        """Lets go of all."""
        for kept in (self.written, self._programs, self._numbers, self._nodes, self._ids):
            kept.clear()

    def _make_room(self) -> None:
        if len(self._nodes) + len(self._programs) >= MOST:
            self.clear()


SHARED = SharedTables()
