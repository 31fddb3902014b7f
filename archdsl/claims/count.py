"""How often an op, a block or a choice occurs in a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.elaborate.model import Elaborated
from archdsl.graph import Graph, Node
from archdsl.syntax import tree


def count_ops(graph: Graph, name: str) -> int:
    """Applications of an op in one forward pass in evaluation."""
    return _count(graph, lambda g: sum(n.op == name for n in g.nodes), {})


def count_blocks(graph: Graph, name: str) -> int:
    """Applications of a block in one forward pass in evaluation, those inside wrappers and without a segment of their own included."""
    return _count(graph, lambda g: g.applied.get(name, 0), {})


def _count(graph: Graph, own: Callable[[Graph], int], memo: dict[int, int]) -> int:
    if id(graph) not in memo:
        memo[id(graph)] = own(graph) + sum(_count(inner, own, memo) for n in graph.nodes if (inner := _inside(n)) is not None)
    return memo[id(graph)]


def _inside(node: Node) -> Graph | None:
    return node.attrs["graph"] if node.op == "call" else node.attrs["eval"] if node.op == "phase" else None


def count_knobs(made: Elaborated, what: tree.Binary, value: Callable[[tree.Expr], Any]) -> int:
    """Knobs of a name that have a value: `count(mixer == attention)`. A bare name is an arm of a choice."""
    name, other = "".join(what.left.span.text.split()), what.right
    count = 0
    for address, knob in made.knobs.items():
        if address != name and not address.endswith("." + name):
            continue
        wanted = other.id if isinstance(other, tree.Name) and knob.type == "choice" else value(other)
        count += (knob.value == wanted) == (what.op == "==")
    return count
