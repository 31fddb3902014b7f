"""Initial values against the weights they are for: shape, element type, numbers that an initialiser can work with."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.operators import as_float
from archdsl.elaborate.values import Late, describe, is_hyper_number, is_list
from archdsl.graph import InitExpr, TensorType
from archdsl.ops.initializers import INITIALIZERS, RANDOM
from archdsl.ops.registry import find
from archdsl.ops.rules import misfit
from archdsl.source import Span
from archdsl.syntax import tree

MATRICES = frozenset({"kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "lecun_normal", "orthogonal", "eye"})
"""Initialisers that need two axes: they look at the rows and columns of a matrix."""


def check_initial(frame: Frame, name: str, init: InitExpr, type: TensorType, node: tree.Expr) -> None:
    """Raises for an initial value that the weight `name` cannot hold: A0301 (shape), A0307 (kind of number), A0221 (range), A0304 (inside)."""
    found = _type_of(frame, name, init, type, node)
    if not isinstance(found, TensorType):
        return
    sizes = found.shape
    missing = len(type.shape) - len(sizes)
    if missing < 0 or any(a not in (1, b) for a, b in zip(sizes, type.shape[max(missing, 0) :])):
        raise error("A0301", f"the initial value of `{name}` has the shape {_shown(sizes)}, the weight {_shown(type.shape)}", node.span,
                    f"this has the shape {_shown(sizes)}", help="one number gives all of them the same value" if init.op == "constant" else ())
    if found.is_float and not type.is_float:
        raise error("A0307", f"`{name}` holds {type.dtype}, its initial value is {found}", node.span, "these are floats",
                    help=f"`cast(…, \"{type.dtype}\")` says how to round" if type.dtype != "bool" else ())


def _shown(shape: Any) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _type_of(frame: Frame, name: str, init: Any, type: TensorType, node: tree.Expr) -> Any:
    """The type of a part of an initial value: a leaf is like the weight; numbers stand for themselves."""
    if is_list(init):
        return tuple(_type_of(frame, name, v, type, node) for v in init)
    if not isinstance(init, InitExpr):
        return init
    attrs = dict(init.attrs)
    if init.op == "param":
        known = frame.builder.home.params.get(attrs["path"])
        return known.type if known is not None else None
    if init.op in INITIALIZERS:
        return _leaf(name, init.op, attrs, type, node)
    op = find(init.op)
    assert op is not None, init.op
    from archdsl.elaborate.ops import infer, parameters

    for p, a in zip((p for p in parameters(op.name) if p.operand), init.args):
        if a is None and not p.optional:
            raise error("A0204", f"`{p.name}` of {op.name} is a tensor, not none", node.span)
    values = {**dict.fromkeys((p.name for p in parameters(op.name)), None), **attrs}
    values.update(zip((p.name for p in parameters(op.name) if p.operand), (_type_of(frame, name, a, type, node) for a in init.args)))
    if any(v is None and not p.optional for p, v in zip(parameters(op.name), values.values())):
        return None  # of a weight that lives elsewhere
    for p in parameters(op.name):
        if p.operand and not p.many and is_list(values[p.name]):
            raise error("A0204", f"`{p.name}` of {op.name} is a tensor, not a list", node.span)
    found = infer(frame, op, values, node.span, {})
    return found[0] if len(found) == 1 else found


def _leaf(name: str, op: str, attrs: dict[str, Any], type: TensorType, node: tree.Expr) -> TensorType:
    """The type of what an initialiser gives."""
    shape = tuple(attrs.get("shape", type.shape))
    if op == "constant":
        return TensorType(type.dtype, _held(name, attrs["value"], type, node))
    if op in MATRICES and len(shape) < 2:
        raise error("A0301", f"`{op}` needs a weight with two axes or more, `{name}` is {type}", node.span, "it looks at rows and columns",
                    help="`normal(std = 0.02)` and `uniform(low = -0.1, high = 0.1)` take any shape")
    if op in RANDOM and not type.is_float:
        raise error("A0307", f"`{op}` draws floats, `{name}` holds {type.dtype}", node.span, "these are floats")
    return TensorType(type.dtype, shape)


def _held(name: str, value: Any, type: TensorType, node: tree.Expr) -> tuple[int, ...]:
    """The shape of numbers in nested lists, each of which the weight can hold."""
    if not is_list(value):
        if not (is_hyper_number(value) or isinstance(value, bool)):
            raise error("A0204", f"the initial value of `{name}` is made of numbers, this is {describe(value)}", node.span)
        told = misfit(value, type.dtype)
        if told:
            raise error("A0307" if "whole" in told or "truth" in told else "A0221", f"`{name}` holds {type.dtype}: {told}", node.span, told)
        return ()
    shapes = [_held(name, v, type, part) for v, part in zip(value, _items(value, node))]
    if any(s != shapes[0] for s in shapes):
        raise error("A0301", f"the lists that `{name}` starts with have different lengths", node.span, "nested lists have equal lengths")
    return (len(value), *(shapes[0] if shapes else ()))


def _items(value: tuple[Any, ...], node: tree.Expr) -> Iterator[tree.Expr]:
    """Where each item is written, as far as the list is written out."""
    written = node.items if isinstance(node, (tree.List, tree.Tuple)) and len(node.items) == len(value) else (node,) * len(value)
    yield from written


def argument(name: str, key: str, value: Any, span: Span) -> ArchError | None:
    """The fault of an argument of an initialiser, if it has one."""
    lists = name == "constant" and (is_list(value) or isinstance(value, bool))
    if not (lists or is_hyper_number(value) or type(value) is Late):
        help = "weights do not depend on run-time sizes" if isinstance(value, Dim) else ()
        return error("A0204", f"`{key}` of the initialiser {name} is a number, not {describe(value)}", span, f"this is {describe(value)}", help=help)
    return None


def limits(name: str, values: dict[str, Any], span: Span) -> None:
    """Raises A0221 for numbers with which nothing can be drawn."""
    fixed = {k: v for k, v in values.items() if is_hyper_number(v)}
    if name in RANDOM and not all(math.isfinite(as_float(v, span)) for v in fixed.values()):
        raise error("A0221", f"the initialiser {name} takes finite numbers", span)
    if fixed.get("std", 0) < 0:
        raise error("A0221", f"the `std` of {name} is negative", span, "nothing can be drawn")
    if fixed.get("cut", 1) <= 0:
        raise error("A0221", f"the `cut` of {name} is not positive", span, "nothing can be drawn")
    if name == "uniform" and len(fixed) == 2 and fixed["low"] > fixed["high"]:
        raise error("A0221", "the `low` of uniform lies above its `high`", span, "nothing can be drawn")
