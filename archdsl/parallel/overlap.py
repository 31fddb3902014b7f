"""Sums as late as they can be, so that a branch is reduced over devices while the next one runs, where that one does not read the sum."""
from __future__ import annotations

import operator

import torch.nn.functional as F
from torch import fx, nn

from archdsl.lower.module import blocks


def sink_sums(model: nn.Module) -> list[str]:
    """Moves each sum of two values in front of the first thing that reads it, in place, where that lets a block or a linear map go first; returns the
    addresses of the blocks in which something moved. No value changes. A block that is changed gets a class of its own."""
    changed: list[str] = []
    for address, block in blocks(model):
        if _sink(type(block)._graph if not type(block).detached else block.graph, dry=True):
            _sink(block.graph, dry=False)
            block.recompile()
            changed.append(address)
    return changed


def _sink(graph: fx.Graph, dry: bool) -> bool:
    """Whether there is a sum that is read later than right behind it; such sums are moved unless `dry`. From the last on, as one may read another."""
    order = {n: i for i, n in enumerate(graph.nodes)}
    moved = False
    for node in reversed(list(graph.nodes)):
        if node.target is not operator.add or not node.users or not all(isinstance(a, fx.Node) for a in node.args):
            continue
        first = min(node.users, key=order.__getitem__)
        between = [n for n in graph.nodes if order[node] < order[n] < order[first]]
        if not any(n.op == "call_module" or n.target is F.linear for n in between):
            continue
        moved = True
        if dry:
            return True
        first.prepend(node)
        order = {n: i for i, n in enumerate(graph.nodes)}
    return moved
