"""Where an axis of a value comes from, and what the ops on the way do along it: the table behind folding and recentring.

`back(node, index, axis)` says for one axis of a result which operands carry it. The way is *affine* when the op treats every position of that
axis alike and a shift passes unchanged (a slice, a transpose, a mean over other axes), *linear* when it only commutes with scales and sums
(a sum, zero padding, drop_path). An op that is not in the table ends every way.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from archdsl.graph import Node, Value
from archdsl.records import record

Kind = Literal["affine", "linear"]


@record(frozen=True)
class Way:
    """`sources`: the operands that carry the axis, each with its place there."""

    kind: Kind
    sources: tuple[tuple[Value, int], ...]


Rule = Callable[[Node, int, int], "Way | None"]
RULES: dict[str, Rule] = {}


def back(n: Node, index: int, axis: int, evaluation: bool = False) -> Way | None:
    """The way from one axis of a result to the operands; None where the op mixes along it. `evaluation`: dropout does nothing."""
    if evaluation and n.op in ("dropout", "drop_path"):
        return Way("affine", ((n.args[0], axis),))
    rule = RULES.get(n.op)
    return rule(n, index, axis) if rule is not None else None


def ahead(n: Node, value: Value, axis: int, evaluation: bool = False) -> Iterator[tuple[Value, int, Way]]:
    """The results of a node that carry an axis of one of its operands on: (result, its axis there, the way)."""
    for v in n.values:
        for a in range(len(v.shape)):
            way = back(n, v.index, a, evaluation)
            if way is not None and (value, axis) in way.sources:
                yield v, a, way


# ---------------------------------------------------------------- the table
def _rule(*ops: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


def _affine(x: Value, axis: int) -> Way:
    return Way("affine", ((x, axis),))


def _linear(*sources: tuple[Value, int]) -> Way:
    return Way("linear", sources)


def _carries(v: Any, n: Node, axis: int) -> int | None:
    """The axis of an operand that broadcasting puts at `axis` of the result, where the operand has its full size there."""
    if not isinstance(v, Value):
        return None
    own = axis - (len(n.types[0].shape) - len(v.shape))
    return own if own >= 0 and v.shape[own] == n.types[0].shape[axis] and v.shape[own] != 1 else None


def _axes(given: Any, rank: int) -> set[int]:
    if given is None:
        return set(range(rank))
    return {a % rank for a in (given if isinstance(given, (tuple, list)) else (given,))}


@_rule("identity", "at_least", "as_type")
def _same(n: Node, index: int, axis: int) -> Way | None:
    return _affine(n.args[0], axis) if n.args[0].type.is_float else None


@_rule("neg")
def _neg(n: Node, index: int, axis: int) -> Way:
    return _linear((n.args[0], axis))


@_rule("dropout")
def _dropout(n: Node, index: int, axis: int) -> Way | None:
    return _affine(n.args[0], axis) if n.attrs["rate"] == 0 else None


@_rule("drop_path")
def _drop_path(n: Node, index: int, axis: int) -> Way | None:
    if n.attrs["rate"] == 0:
        return _affine(n.args[0], axis)
    return _linear((n.args[0], axis)) if axis > 0 else None


@_rule("add", "sub")
def _add(n: Node, index: int, axis: int) -> Way | None:
    found = [(v, _carries(v, n, axis)) for v in n.args]
    return _linear(*((v, a) for v, a in found if a is not None)) if all(a is not None for _, a in found) else None


@_rule("mul", "div")
def _mul(n: Node, index: int, axis: int) -> Way | None:
    found = [(v, a) for v in n.args if (a := _carries(v, n, axis)) is not None]
    return _linear(*found) if len(found) == 1 and (n.op == "mul" or found[0][0] == n.args[0]) else None


@_rule("where")
def _where(n: Node, index: int, axis: int) -> Way | None:
    condition, *values = n.args
    if _carries(condition, n, axis) is not None:
        return None
    found = [(v, _carries(v, n, axis)) for v in values if v != 0 or isinstance(v, Value)]
    return _linear(*((v, a) for v, a in found if a is not None)) if found and all(a is not None for _, a in found) else None


@_rule("rearrange")
def _rearrange(n: Node, index: int, axis: int) -> Way | None:
    group = n.attrs["outs"][axis]
    own = [i for i, g in enumerate(n.attrs["ins"]) if tuple(g) == tuple(group)]
    return _affine(n.args[0], own[0]) if len(group) == 1 and own else None


@_rule("slice")
def _slice(n: Node, index: int, axis: int) -> Way | None:
    x, at, own = n.args[0], 0, 0
    items = [*n.attrs["items"], *((("slice", None, None, None),) * len(x.shape))]
    for kind, *rest in items:
        if kind == "int":
            own += 1
            continue
        if at == axis:
            return _affine(x, own) if kind == "slice" and rest[0] in (None, 0) and rest[1] is None and rest[2] in (None, 1) else None
        at += 1
        own += kind == "slice"
    return None


@_rule("expand")
def _expand(n: Node, index: int, axis: int) -> Way | None:
    own = _carries(n.args[0], n, axis)
    return _affine(n.args[0], own) if own is not None else None


@_rule("roll", "flip")
def _roll(n: Node, index: int, axis: int) -> Way | None:
    return _affine(n.args[0], axis) if axis not in _axes(n.attrs["axes"], len(n.args[0].shape)) else None


@_rule("concat")
def _concat(n: Node, index: int, axis: int) -> Way | None:
    rank = len(n.types[0].shape)
    return Way("affine", tuple((v, axis) for v in n.args[0])) if axis != n.attrs["axis"] % rank else None


@_rule("stack")
def _stack(n: Node, index: int, axis: int) -> Way | None:
    new = n.attrs["axis"] % len(n.types[0].shape)
    return Way("affine", tuple((v, axis - (axis > new)) for v in n.args[0])) if axis != new else None


@_rule("split", "repeat_interleave")
def _split(n: Node, index: int, axis: int) -> Way | None:
    return _affine(n.args[0], axis) if axis != n.attrs["axis"] % len(n.args[0].shape) else None


@_rule("cumsum")
def _cumsum(n: Node, index: int, axis: int) -> Way | None:
    return _linear((n.args[0], axis)) if axis != n.attrs["axis"] % len(n.args[0].shape) else None


@_rule("take")
def _take(n: Node, index: int, axis: int) -> Way | None:
    x, positions = n.args[0], n.args[1]
    along, more = n.attrs["axis"] % len(x.shape), len(positions.shape)
    if axis < along:
        return _affine(x, axis)
    return _affine(x, axis - more + 1) if axis >= along + more else None


@_rule("mean", "sum", "reduce")
def _reduced(n: Node, index: int, axis: int) -> Way | None:
    x = n.args[0]
    how = n.attrs["how"] if n.op == "reduce" else n.op
    gone = _axes(n.attrs["axes"] if n.op == "reduce" else n.attrs["axis"], len(x.shape))
    kept = [a for a in range(len(x.shape)) if n.attrs["keep"] or a not in gone]
    own = kept[axis]
    if own in gone or how not in ("mean", "sum"):
        return None
    return _affine(x, own) if how == "mean" else _linear((x, own))


@_rule("pad", "pad_to")
def _pad(n: Node, index: int, axis: int) -> Way | None:
    x = n.args[0]
    padded = {i for i, w in enumerate(n.attrs["widths"]) if tuple(w) != (0, 0)} if n.op == "pad" else _axes(n.attrs["axes"], len(x.shape))
    if axis in padded:
        return None
    if n.attrs["mode"] != "constant" or n.types[0] == x.type:
        return _affine(x, axis)
    return _linear((x, axis)) if n.attrs["value"] == 0 else None


@_rule("unfold")
def _unfold(n: Node, index: int, axis: int) -> Way | None:
    x = n.args[0]
    if axis >= len(x.shape) or axis in _axes(n.attrs["axes"], len(x.shape)):
        return None
    return _affine(x, axis) if n.attrs["pad"] in (0, (0, 0)) else _linear((x, axis))


@_rule("fold")
def _fold(n: Node, index: int, axis: int) -> Way | None:
    return _linear((n.args[0], axis)) if axis not in _axes(n.attrs["axes"], len(n.types[0].shape)) else None


@_rule("avg_pool", "resize")
def _pooled(n: Node, index: int, axis: int) -> Way | None:
    if axis > 1:
        return None
    whole = n.op == "resize" or n.attrs["pad"] in (0, (0, 0)) or not n.attrs["count_include_pad"]
    return _affine(n.args[0], axis) if whole else _linear((n.args[0], axis))


@_rule("matmul")
def _matmul(n: Node, index: int, axis: int) -> Way | None:
    a, b = n.args
    rank = len(n.types[0].shape)
    if min(len(a.shape), len(b.shape)) < 2 or axis < rank - 2:
        return None
    return _linear((b, len(b.shape) - 1)) if axis == rank - 1 else _linear((a, len(a.shape) - 2))


@_rule("einsum")
def _einsum(n: Node, index: int, axis: int) -> Way | None:
    name = n.attrs["out"][axis]
    found = [(v, names.index(name)) for v, names in zip(n.args[0], map(list, n.attrs["ins"])) if name in names]
    return _linear(*found) if len(found) == 1 else None


@_rule("linear")
def _linear_elsewhere(n: Node, index: int, axis: int) -> Way | None:
    return _linear((n.args[0], axis)) if axis < len(n.types[0].shape) - 1 and n.args[2] is None else None
