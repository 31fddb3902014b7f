"""The operations of a line, for the shapes at hand: from a chain in the text to `Step`s that hold sizes."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate import layouts
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.expressions import evaluate, whole
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.values import is_list
from archdsl.graph import Node, TensorType, Value
from archdsl.names.patterns import names_in
from archdsl.records import replace
from archdsl.syntax import tree
from archdsl.weightmap import MapError, Shape, Step, show

OPS = ("add", "concat", "rearrange", "scale", "stack", "transpose")
MAX_KEYS = 200_000


class Chain:
    """Operations from an address's tensors to foreign ones. `joins`: those that a list on one side alone needs."""

    def __init__(self, ops: tuple[tree.Expr, ...]):
        self.ops = ops
        for op in ops:
            word = word_of(op)
            if word not in OPS:
                why = "cannot be undone, and names work in both directions" if isinstance(op, tree.LayoutCall) else "is no operation of name maps"
                raise error("A0436", f"`{word}` {why}", op.span, help=did_you_mean(word, OPS) or (f"there are {', '.join(OPS)}",))
        self.joins = tuple(op for op in ops if word_of(op) in ("concat", "stack"))
        self.mentions = frozenset(n for op in ops for n in _names(op))

    def run(self, frame: Frame, shapes: list[Shape], groups: list[tuple[int, ...]],
            counts: Sequence[int | None]) -> tuple[tuple[Step, ...], list[int]]:
        """The steps, and how many tensors each undone join gives.

        groups: for each join, how many tensors go into each of its results; empty when joins are undone, as the list stands on the foreign
        side. counts: then the length of each list, None where the tensor tells. Raises ArchError at the operation that does not fit.
        """
        steps: list[Step] = []
        found: list[int] = []
        joined = 0
        for op in self.ops:
            word = word_of(op)
            if word in ("concat", "stack"):
                if groups:
                    step = _join(frame, op, word, shapes, groups[joined])
                else:
                    step, n = _unjoin(frame, op, word, shapes, counts[joined])
                    found.append(n)
                joined += 1
            else:
                step = Step(word, tuple(UNARY[word](frame, op, s) for s in shapes))
            try:
                shapes = step.shapes(shapes)
            except MapError as fault:
                raise error("A0436", f"`{word}` does not fit: {fault}", op.span) from None
            steps.append(step)
        return tuple(steps), found


def word_of(op: tree.Expr) -> str:
    if isinstance(op, tree.LayoutCall):
        return op.word
    assert isinstance(op, tree.Call) and isinstance(op.func, tree.Name)
    return op.func.id


def args_of(op: tree.Expr) -> tuple[tree.Arg, ...]:
    assert isinstance(op, (tree.Call, tree.LayoutCall))
    return op.args


def _names(op: tree.Expr) -> set[str]:
    names = set[str]().union(*(names_in(a.value) for a in args_of(op)))
    return names | _axis_names(op) if isinstance(op, tree.LayoutCall) else names


def _axis_names(node: Any) -> set[str]:
    if isinstance(node, tree.AxisName):
        return {node.id}
    if isinstance(node, tree.AxisField):
        return names_in(node.expr)
    return set[str]().union(*(_axis_names(c) for c in tree.children(node)))


# ---------------------------------------------------------------- one tensor
def _rearrange(frame: Frame, op: tree.Expr, shape: Shape) -> tuple[Any, ...]:
    """The language's own `rearrange`, read off the node that it makes."""
    assert isinstance(op, tree.LayoutCall)
    if op.value is not None:
        raise error("A0436", "the tensor of a name map stands on its left", op.value.span, help="`rearrange([…] -> […])`")
    source = Value(Node("param", (), {}, (TensorType("float", shape),), op.span))
    builder = Builder()
    builder.own.add(source.node)
    try:
        result = layouts.layout_call(frame.child(builder=builder), op, source)
    except ArchError as fault:
        raise ArchError(*(replace(d, labels=()) for d in fault.diagnostics)) from None
    if result is source:
        atoms = tuple((i,) for i in range(len(shape)))
        return shape, atoms, atoms
    sizes, ins, outs = (result.node.attrs[k] for k in ("sizes", "ins", "outs"))
    if prod(result.shape) != prod(shape):
        raise error("A0436", f"this rearrange makes {show(result.shape)} of {show(shape)}", op.span, "cannot be undone",
                    help="both sides need the same axes")
    return sizes, ins, outs


def _transpose(frame: Frame, op: tree.Expr, shape: Shape) -> tuple[Any, ...]:
    args = _positional(frame, op, 0, 2)
    if len(args) == 1:
        raise error("A0436", "`transpose` names two axes, or none: then the last two change places", op.span)
    if len(shape) < 2:
        raise error("A0436", f"`transpose` needs two axes, this is {show(shape)}", op.span)
    a, b = args or [-2, -1]
    return _axis(a, len(shape), op), _axis(b, len(shape), op)


def _affine(frame: Frame, op: tree.Expr, shape: Shape) -> tuple[Any, ...]:
    (arg,) = _arguments(op, set(), 1, 1)
    value = evaluate(frame, arg.value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)) or value != value or value in (float("inf"), float("-inf")):
        raise error("A0436", f"`{word_of(op)}` takes a number", arg.span, help="for example `add(-1)`")
    if word_of(op) == "scale" and value == 0:
        raise error("A0436", "`scale(0)` cannot be undone", op.span)
    return (Fraction(value),)


UNARY = {"rearrange": _rearrange, "transpose": _transpose, "add": _affine, "scale": _affine}


# ---------------------------------------------------------------- several tensors
def _join(frame: Frame, op: tree.Expr, word: str, shapes: list[Shape], group: tuple[int, ...]) -> Step:
    axis = _join_axis(frame, op, word, len(shapes[0]))
    if any(a.name == "sizes" for a in op.args):  # type: ignore[attr-defined]
        raise error("A0436", "the sizes are known here: they are those of the weights", op.span, help="`sizes` is for a list on the foreign side")
    items: list[tuple[Any, ...]] = []
    at = 0
    for n in group:
        part = shapes[at : at + n]
        if word == "concat" and any(len(s) <= axis for s in part):
            raise error("A0436", f"`concat` joins along axis {axis}, this is {' and '.join(dict.fromkeys(map(show, part)))}", op.span)
        items.append((axis, n) if word == "stack" else (axis, tuple(s[axis] for s in part)))
        at += n
    return Step(word, tuple(items))


def _unjoin(frame: Frame, op: tree.Expr, word: str, shapes: list[Shape], count: int | None) -> tuple[Step, int]:
    """A list on the foreign side: the tensor falls into its items."""
    shape = shapes[0]
    axis = _join_axis(frame, op, word, len(shape) - (word == "stack"))
    if axis >= len(shape):
        raise error("A0436", f"there is no axis {axis} in {show(shape)}", op.span)
    if word == "stack":
        count = shape[axis] if count is None else count
        if count * len(shapes) > MAX_KEYS:
            raise error("A0602", f"this line gives {count * len(shapes):,} names", op.span, help=f"at most {MAX_KEYS:,} are allowed")
        return Step("unstack", ((axis, count),) * len(shapes)), count
    given = [a.value for a in args_of(op) if a.name == "sizes"]
    if count is None:
        raise error("A0435", "how many parts there are cannot be seen", op.span,
                    help="write the list out, `{0, 1, 2}`, or use `stack`, which has an axis for it")
    sizes: Any = evaluate(frame, given[0]) if given else (shape[axis] // count,) * count
    if not given and shape[axis] % count:
            raise error("A0436", f"{show(shape)} does not fall into {count} equal parts along axis {axis}", op.span,
                        help="give them: `concat(sizes = [64, 16, 16])`")
    if not is_list(sizes) or len(sizes) != count or not all(type(s) is int for s in sizes):
        raise error("A0436", f"`sizes` holds {count} whole numbers", op.span, help=f"one for each item of the list; their sum is {shape[axis]}")
    return Step("split", ((axis, sizes),) * len(shapes)), count


def _join_axis(frame: Frame, op: tree.Expr, word: str, rank: int) -> int:
    """The axis along which tensors of `rank` axes are joined; `stack` makes a new one. Negative ones count from the end of the result."""
    for a in _arguments(op, {"axis", "sizes"} if word == "concat" else {"axis"}, 0, 0):
        if a.name == "axis":
            return _axis(whole(frame, a.value), rank + (word == "stack"), op)
    return 0


# ---------------------------------------------------------------- arguments
def _arguments(op: tree.Expr, names: set[str], least: int, most: int) -> tuple[tree.Arg, ...]:
    word = word_of(op)
    args = args_of(op)
    for a in args:
        if a.spread or a.name is not None and a.name not in names:
            raise error("A0436", f"`{word}` has no argument `{a.name or '...'}`", a.span,
                        help=f"it has {' and '.join(sorted(names)) or 'none with a name'}")
    positional = sum(a.name is None for a in args)
    if not least <= positional <= most:
        raise error("A0436", f"`{word}` takes {'no plain argument' if not most else f'{most} argument' + 's' * (most > 1)}", op.span,
                    f"{positional} here",
                    help="`axis = 1` names the axis" if "axis" in names else ())
    return args


def _positional(frame: Frame, op: tree.Expr, least: int, most: int) -> list[int]:
    return [whole(frame, a.value) for a in _arguments(op, set(), least, most)]


def _axis(axis: int, rank: int, op: tree.Expr) -> int:
    if not -rank <= axis < rank:
        raise error("A0436", f"`{word_of(op)}` has no axis {axis} among {rank}", op.span)
    return axis % rank
