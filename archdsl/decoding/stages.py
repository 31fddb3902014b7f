"""A lowered model as few modules with much in each: one for each of its repeated blocks, and one for the rest.

Blocks inside are laid open, so that what stands side by side in two of them can be computed together; instances of one block share a class, and so
compiled code.
"""
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _forward_from_src
from torch.fx.node import map_arg

from archdsl.lower import parts
from archdsl.lower.compile import layers
from archdsl.lower.module import ArchModule

CHECKS = (parts.fit, parts.holds, parts.require)
"""What a root checks of its inputs: the caller has seen to it."""
Rewrite = Callable[[fx.Graph, nn.Module], None]


class Stage(nn.Module):
    """A block with the modules and the weights of the one that it was made from; its class has the graph."""

    graph: fx.Graph

    def __init__(self, origin: nn.Module):
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules"):
            self.__dict__[table].update(origin.__dict__[table])


def staged(model: ArchModule, rewrite: Rewrite) -> tuple[Stage, list[Stage]]:
    """The model as a stage that holds a stage for each repeated block, and those. `rewrite` changes the graph of each class, in place; it may look
    at an instance for what its weights are like."""
    inner: list[tuple[str, ArchModule]] = layers(model)
    classes: dict[type, type[Stage]] = {}
    stages: dict[str, Stage] = {}
    for address, block in inner:
        if type(block) not in classes:
            classes[type(block)] = _class(block, {}, rewrite)
        stages[address] = classes[type(block)](block)
    names = {address: f"stage_{i}" for i, address in enumerate(stages)}
    root = _class(model, names, rewrite)(model)
    for address, stage in stages.items():
        root.add_module(names[address], stage)
    return root, list(stages.values())


def _class(module: ArchModule, names: dict[str, str], rewrite: Rewrite) -> type[Stage]:
    graph = laid_open(module, names)
    rewrite(graph, module)
    graph.lint()
    code = graph.python_code(root_module="self")
    return type(f"{type(module).__name__}Stage", (Stage,), {"graph": graph, "forward": _forward_from_src(code.src, code.globals)})


def laid_open(module: ArchModule, names: dict[str, str]) -> fx.Graph:
    """The graph of a module with the blocks inside laid open, but for those at the addresses `names`, which are called by these names."""
    graph = fx.Graph()
    weights: dict[str, fx.Node] = {}

    def weight(address: str) -> fx.Node:
        if address not in weights:
            weights[address] = graph.get_attr(address)
        return weights[address]

    def lay(block: ArchModule, prefix: str, given: Any) -> Any:
        known: dict[fx.Node, Any] = {}
        inputs = iter(given) if given is not None else None

        def value(x: Any) -> Any:
            return map_arg(x, known.__getitem__)

        for node in (block.graph if type(block).detached else type(block)._graph).nodes:
            if node.op == "placeholder":
                if inputs is None:
                    known[node] = graph.placeholder(f"given_{len(known)}")
                    known[node].meta.update(node.meta)
                else:
                    known[node] = next(inputs)
            elif node.op == "get_attr":
                known[node] = weight(prefix + str(node.target))
            elif node.op == "output":
                return value(node.args[0])
            elif node.op == "call_module":
                address = prefix + str(node.target)
                child = block.get_submodule(str(node.target))
                if isinstance(child, ArchModule) and address not in names:
                    known[node] = lay(child, f"{address}.", value(node.args))
                else:
                    known[node] = graph.call_module(names.get(address, address), value(node.args), value(node.kwargs))
            elif node.target is operator.getitem and isinstance(known[node.args[0]], (tuple, list)):  # type: ignore[index]
                known[node] = known[node.args[0]][node.args[1]]  # type: ignore[index]
            elif node.target not in CHECKS:
                known[node] = graph.node_copy(node, known.__getitem__)
        raise AssertionError("a graph has an output")

    graph.output(lay(module, "", None))
    return graph
