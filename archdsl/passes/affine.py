"""Scales and shifts of channels, moved into the linear maps and convolutions beside them as weight expressions."""
from __future__ import annotations

from archdsl.diagnostics.model import ArchError
from archdsl.graph import Node, Value
from archdsl.passes.axes import Way, ahead, back
from archdsl.passes.edit import Edit
from archdsl.passes.expressions import DATA
from archdsl.records import record

WHOLE = ("slice", None, None, None)
NEW = ("new",)


@record(frozen=True)
class Blocked:
    """Why something cannot be moved: a sentence's end, and the node that stands in the way."""

    reason: str
    node: Node | None


def refused(edit: Edit, what: str, n: Node, label: str, why: Blocked) -> ArchError:
    """A0564: `what`, for the reason that a node has been found to stand in the way."""
    return edit.refuse(f"{what}: {why.reason}", n, label, labels=[(why.node, "in the way")] if why.node is not None else ())


# ---------------------------------------------------------------- maps
def maps(n: Node) -> bool:
    """Whether a node is a map with weights of its own along channels."""
    return n.op in ("linear", "conv")


def channels(n: Node) -> int:
    """The axis of a map's input and result that it contracts and makes."""
    return len(n.types[0].shape) - 1 if n.op == "linear" else 1


def column(edit: Edit, v: Value, weight: Value, axis: int, at: Node) -> Value:
    """A vector laid along one axis of a weight, ready to be multiplied with it."""
    rank = len(weight.shape)
    if axis == rank - 1:
        return v
    return edit.add("slice", v, items=(WHOLE, *((NEW,) * (rank - 1 - axis))), at=at)


def scale_rows(edit: Edit, n: Node, scale: Value | None, shift: Value | None) -> list[Value]:
    """y becomes scale · y + shift: the map's own weights change. Returns the new expressions."""
    x, weight, bias = n.args
    made: list[Value] = []
    if scale is not None:
        weight = edit.add("mul", weight, column(edit, scale, weight, 0, n), at=n)
        made.append(weight)
        if bias is not None:
            bias = edit.add("mul", bias, scale, at=n)
    if shift is not None:
        bias = edit.add("add", bias, shift, at=n) if bias is not None else shift
    if bias is not None and bias != n.args[2]:
        made.append(bias)
    edit.set(n, x, weight, bias)
    return made


def scale_columns(edit: Edit, n: Node, scale: Value | None, shift: Value | None) -> list[Value]:
    """The map's input x arrives without scale and shift: W x becomes W (scale · x + shift)."""
    x, weight, bias = n.args
    made: list[Value] = []
    if shift is not None:
        if n.op == "linear":
            constant = edit.add("linear", shift, weight, at=n)
        else:
            each = edit.add("mul", weight, _per_input(edit, n, shift), at=n)
            constant = edit.add("sum", each, axis=tuple(range(1, len(weight.shape))), at=n)
        bias = edit.add("add", bias, constant, at=n) if bias is not None else constant
        made.append(bias)
    if scale is not None:
        weight = edit.add("mul", weight, scale if n.op == "linear" else _per_input(edit, n, scale), at=n)
        made.append(weight)
    edit.set(n, x, weight, bias)
    return made


def _per_input(edit: Edit, n: Node, v: Value) -> Value:
    """A vector over the input channels along the second axis of a convolution's weight, by groups."""
    weight, groups = n.args[1], n.attrs["groups"]
    if groups == 1:
        return column(edit, v, weight, 1, n)
    inside, out = weight.shape[1], weight.shape[0]
    rows = edit.add("rearrange", v, sizes=(groups, inside, out // groups), ins=((0, 1),), outs=((0, 2), (1,)), at=n)
    return edit.add("slice", rows, items=(WHOLE, WHOLE, *((NEW,) * (len(weight.shape) - 2))), at=n)


# ---------------------------------------------------------------- where to
Reading = tuple[list[Node], list[tuple[Value, int]]]


def writer(edit: Edit, value: Value, axis: int, shift: bool, evaluation: bool = False) -> Node | Blocked:
    """The map that makes an axis of a value, where nothing else reads the value or what lies between."""
    while True:
        n = value.node
        if not edit.alone(value):
            others = edit.given(value) or "more than one op"
            return Blocked(f"{others} reads what it would change" if edit.given(value) is None else f"it is {others} of the model", n)
        if maps(n) and axis == channels(n) and own_weights(edit, n):
            return n
        way = back(n, value.index, axis, evaluation)
        blocked = _no_way(n, way, shift)
        if blocked is not None:
            return blocked
        assert way is not None
        value, axis = way.sources[0]


def readers(edit: Edit, value: Value, axis: int, shift: bool, evaluation: bool = False) -> Reading | Blocked:
    """The maps that read an axis of a value, all of them, and the values on the way; or what else reads it."""
    found: list[Node] = []
    between: list[tuple[Value, int]] = []
    stack = [(value, axis)]
    while stack:
        v, a = stack.pop()
        between.append((v, a))
        if (given := edit.given(v)) is not None:
            return Blocked(f"{given} shows it", v.node)
        for u in edit.users(v):
            if maps(u) and u.args[0] == v and v not in u.args[1:] and a == _input_axis(u) and own_weights(edit, u):
                if shift and u.op == "conv" and not unpadded(u):
                    return Blocked("a convolution pads with zeros what would be shifted", u)
                found.append(u)
                continue
            on = list(ahead(u, v, a, evaluation))
            blocked = _no_way(u, on[0][2] if on else None, shift)
            if blocked is not None:
                return blocked
            stack += [(w, b) for w, b, _ in on]
    return found, between


def _input_axis(n: Node) -> int:
    return len(n.args[0].shape) - 1 if n.op == "linear" else 1


def _no_way(n: Node, way: Way | None, shift: bool) -> Blocked | None:
    if way is None or len(way.sources) != 1:
        return Blocked(f"`{n.op}` stands between", n)
    return Blocked(f"`{n.op}` stands between, which a shift does not pass", n) if shift and way.kind != "affine" else None


def own_weights(edit: Edit, n: Node) -> bool:
    """Whether a map's weights depend on weights alone."""
    return all(not isinstance(a, Value) or edit.stage(a) != DATA for a in n.args[1:])


def unpadded(n: Node) -> bool:
    pad = n.attrs["pad"]
    return pad in (0, None) or isinstance(pad, tuple) and not any(pad) or pad == "same" and all(k == 1 for k in n.args[1].shape[2:])
