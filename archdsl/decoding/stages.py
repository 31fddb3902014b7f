"""A lowered model as few modules with much in each: one for each of its repeated blocks, and one for the rest.

Blocks inside are laid open, so that what stands side by side in two of them can be computed together; what all instances of a block make of the same
values, such as tables of positions, is made once in front of them; instances of one block share a class, and so compiled code.
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
    names = {address: f"stage_{i}" for i, (address, _) in enumerate(inner)}
    whole = _rewritten(model, names, rewrite)
    calls = {str(n.target): n for n in whole.nodes if n.op == "call_module"}
    kinds: dict[type, list[tuple[str, ArchModule]]] = {}
    for address, block in inner:
        kinds.setdefault(type(block), []).append((address, block))
    stages: dict[str, Stage] = {}
    for members in kinds.values():
        graph = _rewritten(members[0][1], {}, rewrite)
        _hoist(graph, whole, [calls[names[address]] for address, _ in members])
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


# ---------------------------------------------------------------- once for all instances
def _hoist(graph: fx.Graph, whole: fx.Graph, calls: list[fx.Node]) -> None:
    """Moves what a block's graph makes of inputs that are the same in all its calls in front of the first of them; what is left of it comes as
    further inputs."""
    if len(calls) < 2:
        return
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    same: dict[fx.Node, Any] = {n: calls[0].args[i] for i, n in enumerate(inputs) if all(c.args[i] is calls[0].args[i] for c in calls)}
    common = set(same)
    for node in graph.nodes:
        if node.op in ("call_function", "call_method") and node.all_input_nodes and common.issuperset(node.all_input_nodes) and not _impure(node):
            common.add(node)
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
    for node in reversed(list(graph.nodes)):
        if node in common and node.op != "placeholder" and not node.users:
            graph.erase_node(node)


def _impure(node: fx.Node) -> bool:
    return str(node.target).endswith("_") or str(node.target).startswith("archdsl.")


def _plain(node: fx.Node) -> bool:
    """Whether a node gives no tensor: a dtype, a device, a size."""
    return node.target is getattr or node.target == "size"
