"""What the bodies of ops write into fx graphs, written again. The tables of a model are the same few ops in each candidate of a search; to call their
bodies with proxies takes ten times as long as to write the nodes that come of it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import fx

from archdsl.dims import Dim
from archdsl.graph import Value

_PLAIN = (int, str, bool, type(None), torch.dtype)
_KEPT: WeakKeyDictionary[Callable[..., Any], dict[Any, Recipe | None]] = WeakKeyDictionary()
MOST = 4096
"""So many recipes are kept of an op."""


class Operand(NamedTuple):
    """Stands for a node: one that the op is given, or behind those one that it has written."""

    number: int


class Written(NamedTuple):
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta: dict[str, Any]


class Recipe(NamedTuple):
    """The nodes in order, and which of all is the result."""

    nodes: tuple[Written, ...]
    result: int


class Shared(NamedTuple):
    """The recipe of a node that many models have, with what its operands are there: tensors, run-time sizes, or None for the device."""

    operands: tuple[Value | Dim | None, ...]
    nodes: tuple[Written, ...]
    result: int


def traced(graph: fx.Graph, proxy: Callable[[fx.Node], fx.Proxy], body: Callable[..., Any], args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    """`body(*args, **attrs)`, where some arguments are proxies of nodes in `graph`, from a recipe where there is one. `proxy` makes one of a node."""
    operands: list[fx.Node] = []
    key = _key((args, tuple(attrs.items())), operands)
    if key is None:
        return body(*args, **attrs)
    known = _KEPT.setdefault(body, {})
    if key in known:
        recipe = known[key]
        return body(*args, **attrs) if recipe is None else proxy(_replayed(graph, recipe, operands)[recipe.result])
    before = next(iter(reversed(graph.nodes)), None)
    result = body(*args, **attrs)
    if len(known) >= MOST:
        known.clear()
    known[key] = _recorded(graph, before, result, operands)
    return result


def _key(value: Any, operands: list[fx.Node]) -> Any:
    """What a body can see of its arguments, nodes by their numbers; None where they hold something else than nodes and plain values."""
    if type(value) in _PLAIN:
        return type(value), value
    if type(value) is float:
        return float, repr(value)  # 0.0 and -0.0 are equal, and nan is not
    if isinstance(value, fx.Proxy):
        if value.node not in operands:
            operands.append(value.node)
        return Operand(operands.index(value.node)), value.node.meta.get("type")  # bodies read sizes that are known from the type
    if type(value) in (tuple, list):
        found = tuple([_key(v, operands) for v in value])
        return None if None in found else (type(value), found)
    return None


def recorded(graph: fx.Graph, before: fx.Node | None, result: Any, operands: list[Any], given: list[Any]) -> Shared | None:
    """How what stands behind `before` was written, with its meta. `operands` say what `given`, proxies of distinct nodes, stands for."""
    found = [g.node for g in given if isinstance(g, fx.Proxy)]
    if len(set(found)) < len(given):
        return None
    recipe = _recorded(graph, before, result, found, named=True)
    return None if recipe is None or recipe.result < len(found) else Shared(tuple(operands), *recipe)


def rewritten(graph: fx.Graph, recipe: Shared, operands: list[fx.Node]) -> fx.Node:
    """The result, with the names that the nodes would have had."""
    nodes = _replayed(graph, recipe, operands)
    for node, written in zip(nodes[len(operands):], recipe.nodes):
        node.meta.update(written.meta)
        hint = written.meta.get("hint")
        if hint and not node.name.startswith(hint):
            node._rename(hint)
    return nodes[recipe.result]


def _recorded(graph: fx.Graph, before: fx.Node | None, result: Any, operands: list[fx.Node], named: bool = False) -> Recipe | None:
    """None where the nodes are more than functions and methods of what is given, and, unless they are `named`, where they have meta."""
    made: list[fx.Node] = []
    for node in reversed(graph.nodes):
        if node is before:
            break
        made.insert(0, node)
    numbers = {node: i for i, node in enumerate([*operands, *made])}
    if type(result) is not fx.Proxy or result.node not in numbers:
        return None
    written = []
    for node in made:
        more = not named and node.meta or node.type is not None or any(n not in numbers for n in node.all_input_nodes)
        if more or node.op not in ("call_function", "call_method"):
            return None
        refer = lambda n: Operand(numbers[n])
        written.append(Written(node.op, node.target, fx.map_arg(node.args, refer), dict(fx.map_arg(node.kwargs, refer)), dict(node.meta)))
    return Recipe(tuple(written), numbers[result.node])


def _replayed(graph: fx.Graph, recipe: Recipe | Shared, operands: list[fx.Node]) -> list[fx.Node]:
    """The operands and the nodes behind them. Arguments are set on a node that is there, for each of them that is given to `create_node` is walked
    once more, in Python."""
    nodes = list(operands)
    for op, target, args, kwargs, _ in recipe.nodes:
        node = graph.create_node(op, target)
        node.args = _filled(args, nodes)
        if kwargs:
            node.kwargs = _filled(kwargs, nodes)
        nodes.append(node)
    return nodes


def _filled(value: Any, nodes: list[fx.Node]) -> Any:
    if type(value) is Operand:
        return nodes[value.number]
    if isinstance(value, (tuple, list)):
        return tuple([_filled(v, nodes) for v in value]) if isinstance(value, tuple) else [_filled(v, nodes) for v in value]
    if type(value) is slice:
        return slice(_filled(value.start, nodes), _filled(value.stop, nodes), _filled(value.step, nodes))
    if isinstance(value, dict):
        return {k: _filled(v, nodes) for k, v in value.items()}
    return value
