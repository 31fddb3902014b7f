"""Regions of an exported program that run under another mode, laid open in it: without autocast, without gradients."""
from __future__ import annotations

from typing import Any

from archdsl.lazy import torch


def laid_open(program: Any) -> None:
    """Puts the nodes of each such region in the place of the node that runs it. What a region without gradients gives is detached.
    A region with autocast, whose casts are not in its text, stays (and is refused by whoever reads it)."""
    module = program.graph_module
    for node in list(module.graph.nodes):
        name = getattr(node.target, "_name", "") if node.op == "call_function" else ""
        if name == "wrap_with_autocast" and node.args[2] is False:
            _opened(module, node, node.args[4], node.args[5:], detach=False)
        elif name == "wrap_with_set_grad_enabled":
            _opened(module, node, node.args[1], node.args[2:], detach=not node.args[0])


def _opened(module: Any, node: Any, region: Any, operands: tuple[Any, ...], detach: bool) -> None:
    graph, inside = module.graph, getattr(module, region.target).graph
    if any(n.op == "get_attr" for n in inside.nodes):
        return  # a region in a region
    here: dict[Any, Any] = dict(zip((n for n in inside.nodes if n.op == "placeholder"), operands))
    with graph.inserting_before(node):
        for n in inside.nodes:
            if n.op == "call_function":
                here[n] = graph.node_copy(n, lambda a: here[a])
        results = [here[r] for r in next(n for n in inside.nodes if n.op == "output").args[0]]
        if detach:
            results = [_detached(graph, r) for r in results]
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])
        graph.erase_node(user)
    graph.erase_node(node)
    if not region.users:
        graph.erase_node(region)


def _detached(graph: Any, result: Any) -> Any:
    found = graph.call_function(torch.ops.aten.detach.default, (result,))
    found.meta = dict(result.meta)
    return found
