"""A lowered model as few modules with much in each: one for each of its repeated blocks, and one for the rest.

Blocks inside are laid open, so that what stands side by side in two of them can be computed together; what all instances of a block make of the same
values, such as tables of positions, is made once in front of them; what is made of weights alone is made when the stage is told to; instances of one
block share a class, and so compiled code.
"""
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import _forward_from_src
from torch.fx.node import map_arg

from archdsl.lower import parts
from archdsl.lower.compile import layers
from archdsl.lower.module import ArchModule
from archdsl.lower.state import device_of

CHECKS = (parts.fit, parts.holds, parts.require)
"""What a root checks of its inputs: the caller has seen to it."""
Rewrite = Callable[[fx.Graph, ArchModule], None]


class Stage(nn.Module):
    """A block with the modules and the weights of the one that it was made from; its class has the graph, and what is made of weights alone: the
    nodes in order, and the buffers that some of them go into."""

    graph: fx.Graph
    made: tuple[list[fx.Node], dict[str, fx.Node]]

    def __init__(self, origin: nn.Module):
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules"):
            self.__dict__[table].update(origin.__dict__[table])
        nodes, named = self.made
        values = evaluated(nodes, self)
        for name, node in named.items():
            self.register_buffer(name, values[node].clone(), persistent=False)

    def refresh(self) -> None:
        """Makes what is made of weights alone again, as the weights are now."""
        nodes, named = self.made
        values = evaluated(nodes, self) if named else {}
        for name, node in named.items():
            self.get_buffer(name).copy_(values[node])


def staged(model: ArchModule, rewrite: Rewrite) -> tuple[Stage, list[Stage]]:
    """The model as a stage that holds a stage for each repeated block, and those. `rewrite` changes the graph of each class, in place; it may look
    at an instance for what its weights are like."""
    inner: list[tuple[str, ArchModule]] = layers(model)
    names = {address: f"stage_{i}" for i, (address, _) in enumerate(inner)}
    whole = _rewritten(model, names, rewrite)
    kinds: dict[type, list[tuple[str, ArchModule]]] = {}
    for address, block in inner:
        kinds.setdefault(type(block), []).append((address, block))
    stages: dict[str, Stage] = {}
    for members in kinds.values():
        graph = _rewritten(members[0][1], {}, rewrite)
        called = {names[address] for address, _ in members}
        _hoist(graph, whole, [n for n in whole.nodes if n.op == "call_module" and n.target in called])  # a shared block has several
        made = _class(members[0][1], graph)
        stages.update((address, made(block)) for address, block in members)
    root = _class(model, whole)(model)
    for address, name in names.items():
        root.add_module(name, stages[address])
    return root, [stages[address] for address in names]


def _rewritten(module: ArchModule, names: dict[str, str], rewrite: Rewrite) -> fx.Graph:
    graph = laid_open(module, names)
    rewrite(graph, module)
    return graph


def _class(module: ArchModule, graph: fx.Graph) -> type[Stage]:
    made = _of_weights(graph, module)
    graph.lint()
    code = graph.python_code(root_module="self")
    return type(f"{type(module).__name__}Stage", (Stage,), {"graph": graph, "made": made, "forward": _forward_from_src(code.src, code.globals)})


def laid_open(module: ArchModule, names: dict[str, str]) -> fx.Graph:
    """The graph of a module with the blocks inside laid open, but for those at the addresses `names`, which are called by these names."""
    graph, device = fx.Graph(), device_of(module)
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
            elif node.target is getattr and node.args[1] == "device":  # all that a model is made of lies on one
                known[node] = device
            elif node.target not in CHECKS:
                known[node] = graph.node_copy(node, known.__getitem__)
        raise AssertionError("a graph has an output")

    graph.output(lay(module, "", None))
    return graph


# ---------------------------------------------------------------- of weights alone
SMALL = 2**16
"""Numbers that are kept of what is made of a weight: rates and biases, no copies of matrices."""


def _of_weights(graph: fx.Graph, module: nn.Module) -> tuple[list[fx.Node], dict[str, fx.Node]]:
    """Takes what is made of weights and constants alone out of a graph: its nodes in a graph of their own, in order, and the buffers that are read
    instead."""
    common = {n for n in graph.nodes if n.op == "get_attr"}
    _spread(graph, common)
    handed = [n for n in graph.nodes if n in common and n.op != "get_attr" and not _plain(n) and any(u not in common for u in n.users)]
    own, known = fx.Graph(), {}
    for node in graph.nodes:
        if node in common:
            known[node] = own.node_copy(node, known.__getitem__)
    values = evaluated(list(own.nodes), module)
    named: dict[str, fx.Node] = {}
    for node in handed:
        value = values[known[node]]
        if isinstance(value, Tensor) and value.numel() <= SMALL:
            name = f"_made_{len(named)}"
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(name))
            named[name] = known[node]
    _drop(graph, common)
    return list(own.nodes), named


def evaluated(nodes: list[fx.Node], module: nn.Module) -> dict[fx.Node, Any]:
    """The values of nodes that read nothing but weights."""
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in nodes:
            args, kwargs = map_arg(node.args, values.__getitem__), map_arg(node.kwargs, values.__getitem__)
            if node.op == "get_attr":
                scope, _, name = str(node.target).rpartition(".")
                values[node] = getattr(module.get_submodule(scope), name)
            elif node.op == "call_method":
                values[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)  # type: ignore[index]
            else:
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator, misc]
    return values


def _spread(graph: fx.Graph, common: set[fx.Node]) -> None:
    """Adds what is made of nothing but nodes in a set, and of constants."""
    for node in graph.nodes:
        made = node.op in ("call_function", "call_method") and (node.all_input_nodes or node.target is torch.arange)
        if made and common.issuperset(node.all_input_nodes) and not _impure(node):
            common.add(node)


def _drop(graph: fx.Graph, common: set[fx.Node]) -> None:
    """Takes those of a set away that nothing reads any more."""
    for node in reversed(list(graph.nodes)):
        if node in common and node.op != "placeholder" and not node.users:
            graph.erase_node(node)


# ---------------------------------------------------------------- once for all instances
def _hoist(graph: fx.Graph, whole: fx.Graph, calls: list[fx.Node]) -> None:
    """Moves what a block's graph makes of inputs that are the same in all its calls in front of the first of them; what is left of it comes as
    further inputs."""
    if len(calls) < 2:
        return
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    same: dict[fx.Node, Any] = {n: calls[0].args[i] for i, n in enumerate(inputs) if all(c.args[i] is calls[0].args[i] for c in calls)}
    common = set(same)
    _spread(graph, common)
    handed = [n for n in graph.nodes if n in common and n not in same and not _plain(n) and any(u not in common for u in n.users)]
    if not handed:
        return
    with whole.inserting_before(calls[0]):
        for node in graph.nodes:
            if node in common and node not in same:
                same[node] = whole.node_copy(node, same.__getitem__)
    for node in handed:
        with graph.inserting_after(inputs[-1]):
            inputs.append(graph.placeholder(f"given_{len(inputs)}"))
        inputs[-1].meta.update(node.meta)
        node.replace_all_uses_with(inputs[-1])
    for call in calls:
        call.args = (*call.args, *(same[n] for n in handed))
    _drop(graph, common)


def _impure(node: fx.Node) -> bool:
    return str(node.target).endswith("_") or str(node.target).startswith("archdsl.")


def _plain(node: fx.Node) -> bool:
    """Whether a node gives no tensor: a dtype, a device, a size."""
    return node.target is getattr or node.target == "size"
