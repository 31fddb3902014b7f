"""Along which axes the positions of an op's operands meet. What is not here follows from the op's signature: named axes whose role is not `map`,
and those that an attribute `axis` or `axes` names."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from archdsl.elaborate.ops import parameters
from archdsl.graph import Node, Value
from archdsl.ops.registry import find
from archdsl.syntax import tree

Met = Iterator[tuple[Value, int]]
RULES: dict[str, Callable[[Node], Met]] = {}


def meeting(node: Node) -> Met:
    """(operand, axis) for every axis along which one position of the result depends on several of the operand, or on another one."""
    rule = RULES.get(node.op)
    yield from rule(node) if rule is not None else _by_signature(node)


def operands(node: Node) -> Iterator[tuple[str, Any]]:
    """The operands by the names of the signature."""
    yield from zip((p.name for p in parameters(node.op) if p.operand), node.args)


def axes_of(shape: tree.Shape, rank: int) -> dict[str, tuple[int, ...]]:
    """Axis name of a signature's shape -> the axes of an operand of that rank, from 0; `...` and `*s` take what is left."""
    axes = list(shape.axes)
    open_at = next((i for i, a in enumerate(axes) if isinstance(a, (tree.AnyAxes, tree.AxesVar))), None)
    more = rank - len(axes) + 1 if open_at is not None else 0
    found: dict[str, tuple[int, ...]] = {}
    at = 0
    for i, a in enumerate(axes):
        taken = tuple(range(at, at + more)) if i == open_at else (at,)
        at += len(taken)
        if isinstance(a, (tree.AxisName, tree.AxesVar)):
            found[a.id] = (*found.get(a.id, ()), *taken)
    return found


def _by_signature(node: Node) -> Met:
    op = find(node.op)
    assert op is not None, node.op
    for (_, given), shape in zip(operands(node), _shapes(node.op)):
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, Value) and shape is not None:
                named = axes_of(shape, len(value.shape))
                for name, role in op.roles.items():
                    if role != "map":
                        yield from ((value, a) for a in named.get(name, ()))
    yield from _by_attribute(node)


@cache
def _shapes(name: str) -> tuple[tree.Shape | None, ...]:
    """The written shapes of an op's operands; of a list's items."""
    found: list[tree.Shape | None] = []
    for p in parameters(name):
        if p.operand:
            kind: Any = p.type
            while isinstance(kind, (tree.OptionalType, tree.ListType)):
                kind = kind.item
            found.append(kind.shape if isinstance(kind, tree.TensorType) else None)
    return tuple(found)


def _by_attribute(node: Node) -> Met:
    names = [k for k in ("axis", "axes") if k in node.attrs]
    first = node.args[0] if node.args else ()
    for value in first if isinstance(first, tuple) else (first,):
        if isinstance(value, Value):
            for k in names:
                yield from ((value, a) for a in listed(node.attrs[k], len(value.shape)))


def listed(given: Any, rank: int) -> set[int]:
    if given is None:
        return set(range(rank))
    return {a % rank for a in (given if isinstance(given, (tuple, list)) else (given,))}


# ---------------------------------------------------------------- ops that the signature does not tell about
def _rule(*ops: str) -> Callable[[Callable[[Node], Met]], Callable[[Node], Met]]:
    def register(rule: Callable[[Node], Met]) -> Callable[[Node], Met]:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


@_rule("rearrange", "stack", "repeat_interleave", "embedding", "one_hot", "expand", "batch_norm", "dropout", "drop_path")
def _apart(node: Node) -> Met:
    """Positions stay apart. Where an axis is split or repeated the sizes of the results tell; batch norms are those of evaluation."""
    yield from ()


@_rule("slice")
def _slice(node: Node) -> Met:
    x, own = node.args[0], 0
    for kind, *rest in node.attrs["items"]:
        if kind == "int" or kind == "slice" and any(v not in (None, w) for v, w in zip(rest, (0, None, 1))):
            yield x, own
        own += kind != "new"


@_rule("take", "gather", "put")
def _by_index(node: Node) -> Met:
    x = node.args[0]
    yield x, node.attrs["axis"] % len(x.shape)
    if node.op != "take":
        yield node.args[1], node.attrs["axis"] % len(x.shape)


@_rule("pad")
def _pad(node: Node) -> Met:
    yield from ((node.args[0], i) for i, w in enumerate(node.attrs["widths"]) if tuple(w) != (0, 0))


@_rule("group_norm")
def _group_norm(node: Node) -> Met:
    yield from ((node.args[0], i) for i in range(1, len(node.args[0].shape)))


@_rule("einsum")
def _einsum(node: Node) -> Met:
    for value, names in zip(node.args[0], node.attrs["ins"]):
        yield from ((value, i) for i, n in enumerate(names) if n not in node.attrs["out"])


@_rule("attention")
def _attention(node: Node) -> Met:
    """Queries stay apart; keys do not, and neither do heads and widths. What goes on from earlier keys has an extension instead."""
    for (_, value), own in zip(operands(node), ((-3, -1), (-3, -2, -1), (-3, -2), (-1,), (-1,))):
        if value is not None:
            yield from ((value, a) for a in own)


@_rule("aten", "permutation")
def _unknown(node: Node) -> Met:
    for value in node.operands():
        yield from ((value, i) for i in range(len(value.shape)))
