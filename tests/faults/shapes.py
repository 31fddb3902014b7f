"""Shape mismatches. Whether shapes disagree, the elaborated program decides: it is no program then."""
from __future__ import annotations

import random
from typing import Any

from archdsl.ops.registry import find
from archdsl.syntax import tree

from .slots import header_of, params_of
from .text import Planting, Text


def _spot(node: Any) -> tuple[int, int]:
    return node.span.start, node.span.end


def declared_result(text: Text, rng: random.Random) -> Planting | None:
    """A size of a result is another one of the header. Header and `return` contradict each other: either is a right place."""
    found = []
    for d, _ in text.of(tree.Block, tree.Model):
        if d.body is None or len(d.outs) != 1 or not isinstance(d.outs[0].type, tree.TensorType):
            continue
        axes = [a for a in d.outs[0].type.shape.axes if isinstance(a, tree.AxisName) and a.id != "_"]
        returns = tuple(_spot(n) for n, up in text.of(tree.Return) if d in up)
        found += [(a, b.id, (_spot(a), *returns)) for a in axes for b in axes if a.id != b.id]
    axis, name, places = rng.choice(found) if found else (None, "", ())
    return axis and Planting(((*_spot(axis), name),), places, maybe=True)


def left_axis(text: Text, rng: random.Random) -> Planting | None:
    """An axis that a layout's left side lacks. Its right side still names it: either is a right place."""
    node = _layout(text, rng, lambda n: len(n.inputs) == 1 and len(n.inputs[0].axes) > 2)
    return node and _without_axis(text, node.inputs[0], node, rng)


def right_axis(text: Text, rng: random.Random) -> Planting | None:
    """An axis that the right side of a `rearrange` lacks."""
    node = _layout(text, rng, lambda n: n.word == "rearrange" and n.output is not None and len(n.output.axes) > 2)
    return node and _without_axis(text, node.output, node, rng)


def _layout(text: Text, rng: random.Random, fits: Any) -> Any:
    found = [n for n, _ in text.of(tree.LayoutCall) if fits(n)]
    return rng.choice(found) if found else None


def _without_axis(text: Text, shape: tree.Shape, node: tree.LayoutCall, rng: random.Random) -> Planting | None:
    i = rng.choice(range(1, len(shape.axes)))
    if not isinstance(shape.axes[i], tree.AxisName):
        return None
    return Planting(((shape.axes[i - 1].span.end, shape.axes[i].span.end, ""),), (_spot(node),), maybe=True)


def doubled_size(text: Text, rng: random.Random) -> Planting | None:
    """The size that a map or a convolution gives, twice as large; where it is added or returned, it does not fit. The place is the expression with
    the size in it."""
    found = []
    for call, up in text.of(tree.Call):
        owner = header_of(text, call)
        if isinstance(owner, tree.Block) and call.args and call.args[0].name is None and params_of(owner) and params_of(owner)[0].name == "out":
            statement = next((n for n in reversed(up) if isinstance(n, tree.Statement)), call)
            found.append((call.args[0].value, statement))
    size, statement = rng.choice(found) if found else (None, None)
    if size is None or statement is None:
        return None
    new = f"2 * {size.span.text}" if isinstance(size, (tree.Name, tree.Number, tree.Member)) else f"2 * ({size.span.text})"
    return Planting(((*_spot(size), new),), (_spot(statement),), maybe=True)


def axis_too_far(text: Text, rng: random.Random) -> Planting | None:
    """An axis that no tensor of these has."""
    found = []
    for call, _ in text.of(tree.Call):
        if isinstance(call.func, tree.Name) and find(call.func.id) is not None:
            found += [a.value for a in call.args if a.name == "axis" and isinstance(a.value, (tree.Number, tree.Unary))]
    node = rng.choice(found) if found else None
    return node and Planting(((*_spot(node), str(rng.choice([6, 7, 9]))),), exact=False, maybe=True)


SHAPES = {s.__name__: s for s in (declared_result, left_axis, right_axis, doubled_size, axis_too_far)}
