"""Axes, shapes and types."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.syntax.tree.node import Node, node

if TYPE_CHECKING:
    from archdsl.syntax.tree.expressions import Expr


class Axis(Node):
    __slots__ = ()


@node
class AxisName(Axis):
    id: str


@node
class AxisInt(Axis):
    value: int


@node
class AxisOp(Axis):
    """`+ - * / // % **` over axes; `op` may also be floordiv, ceildiv, mod, min, max with two operands or more."""

    op: str
    operands: tuple[Axis, ...]


@node
class AxisField(Axis):
    """`spec.width` or `widths[0]`: a hyper value used as a size."""

    expr: Expr


@node
class AxisFactors(Axis):
    """`(heads width)`: an ordered product. An Ellipsis inside is AnyAxes."""

    items: tuple[Axis, ...]


@node
class AnyAxes(Axis):
    """`...`"""


@node
class AxesVar(Axis):
    """`*s`"""

    id: str


@node
class Ragged(Axis):
    """`ragged T` or `ragged T = 1024`: an input axis along which documents of different lengths lie; an example size of it."""

    id: str
    size: Axis | None = None


@node
class Bounded(Axis):
    """`some V <= bound`"""

    id: str
    bound: Axis


@node
class AxisSized(Axis):
    """`H = 224`: an input axis with an example size."""

    id: str
    size: Axis


@node
class Shape(Node):
    axes: tuple[Axis, ...]


class Type(Node):
    __slots__ = ()


@node
class TensorType(Type):
    dtype: str | None  # None: the model's dtype; else int, bool, f32, ...
    shape: Shape


@node
class NameType(Type):
    """int, float, bool, str, block, mask, init, or a record's (dotted) name."""

    name: str


@node
class LiteralType(Type):
    value: str


@node
class ListType(Type):
    item: Type
    length: Expr | None


@node
class TupleType(Type):
    items: tuple[Type, ...]


@node
class UnionType(Type):
    options: tuple[Type, ...]


@node
class OptionalType(Type):
    item: Type
