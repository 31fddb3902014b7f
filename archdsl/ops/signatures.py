"""What the signature of an op says of its operands: their types, the axes they name, the sizes of results."""
from __future__ import annotations

import operator
from typing import Any

from archdsl.syntax import tree


def tensor_of(p: tree.Param) -> tree.TensorType | None:
    """The type of a parameter that is an operand."""
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    return kind if isinstance(kind, tree.TensorType) else None


def axes_of(t: Any) -> list[str]:
    """The names of a type's axes, which lie at its end."""
    return [a.id for a in t.shape.axes if isinstance(a, tree.AxisName)]


def size_of(axis: tree.Axis, sizes: dict[str, Any]) -> Any:
    """The size of an axis where some may be symbols of torch."""
    if isinstance(axis, tree.AxisOp):
        left, right = (size_of(a, sizes) for a in axis.operands)
        return {"+": operator.add, "-": operator.sub, "*": operator.mul}[axis.op](left, right)
    return axis.value if isinstance(axis, tree.AxisInt) else sizes[axis.id]  # type: ignore[attr-defined]


def leads(t: Any) -> bool:
    """Whether a type has any axes before the named ones."""
    return any(isinstance(a, tree.AnyAxes) for a in t.shape.axes)


def schema_of(t: Any) -> str:
    """The type of an attribute as torch writes it."""
    return f"{t.item.span.text}?" if isinstance(t, tree.OptionalType) else t.span.text
