"""Expressions."""
from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from archdsl.records import field
from archdsl.source import Span
from archdsl.syntax.tree.node import Node, node

if TYPE_CHECKING:
    from archdsl.syntax.tree.declarations import Out, Setting
    from archdsl.syntax.tree.statements import Pattern
    from archdsl.syntax.tree.types import Shape, Type


class Expr(Node):
    __slots__ = ()


@node
class Name(Expr):
    id: str


@node
class Number(Expr):
    """`value` is exact: an int, or a Fraction for a literal with a point, an exponent or a suffix (1e-6, 0.5, 4.456G)."""

    value: int | Fraction
    text: str = field(compare=False)


@node
class Str(Expr):
    value: str


@node
class Bool(Expr):
    value: bool


@node
class NoneLit(Expr):
    pass


@node
class Tuple(Expr):
    items: tuple[Expr, ...]


@node
class List(Expr):
    items: tuple[Expr, ...]  # a Range item is spliced


@node
class SetLit(Expr):
    items: tuple[Expr, ...]


@node
class Range(Expr):
    """`start..stop` (inclusive) or `start..<stop`, with an optional step. `scaled`: each is `step` times the one before; without a step, written
    `step * ...`, any number between, by its logarithm."""

    start: Expr
    stop: Expr
    inclusive: bool
    step: Expr | None = None
    scaled: bool = False


@node
class Each(Expr):
    """A domain for the items of a list: `each D` (name None, D one domain or a List of one per item) or `each w => D`."""

    name: str | None
    domain: Expr


@node
class Comprehension(Expr):
    item: Expr
    pattern: Pattern
    iterable: Expr
    condition: Expr | None


@node
class Unary(Expr):
    op: str  # "-" | "not"
    operand: Expr


@node
class Binary(Expr):
    """Arithmetic, comparison (`== != < <= > >=`), `in`, `not in`, `and`, `or`. `op_span` is the operator."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@node
class IsSome(Expr):
    operand: Expr
    negate: bool  # `x is none`


@node
class Chain(Expr):
    """A chain of one operator out of `|>` `>>` `&` `|` `??`."""

    op: str
    items: tuple[Expr, ...]


@node
class Arg(Node):
    """An argument. `value` is a Rest for `...`; `spread` for `...Record`."""

    name: str | None
    value: Expr
    name_span: Span | None = field(default=None, compare=False, repr=False)
    spread: bool = False


@node
class Rest(Expr):
    """`...`"""


@node
class Call(Expr):
    func: Expr
    args: tuple[Arg, ...]


@node
class Slice(Expr):
    start: Expr | None
    stop: Expr | None
    step: Expr | None


@node
class Item(Expr):
    value: Expr
    indices: tuple[Expr, ...]  # an index may be a Slice or a Rest


@node
class Member(Expr):
    """`value.name`; the name is an identifier, a number or `*`."""

    value: Expr
    name: str
    name_span: Span = field(compare=False, repr=False)


@node
class Named(Expr):
    """`expr as name`"""

    expr: Expr
    name: str
    name_span: Span = field(compare=False, repr=False)


@node
class Edited(Expr):
    """`expr with { address = value }`"""

    expr: Expr
    settings: tuple[Setting, ...]


@node
class IfExpr(Expr):
    """Each branch: (condition, results); `otherwise`: results. Results are tuples of expressions."""

    branches: tuple[tuple[Expr, tuple[Expr, ...]], ...]
    otherwise: tuple[Expr, ...]


@node
class MatchArm(Node):
    patterns: tuple[Expr, ...]  # Str, Number, Bool, NoneLit, Name (a bare name is its own text, as of an enum), Some
    body: Any  # an Expr in an expression, a tuple of statements in a statement


@node
class Some(Expr):
    """The pattern `some`."""


@node
class MatchExpr(Expr):
    subject: Expr
    arms: tuple[MatchArm, ...]


@node
class PhaseExpr(Expr):
    arms: tuple[tuple[str, tuple[Expr, ...]], ...]  # ("train", results), ("eval", results)


@node
class BlockLiteral(Expr):
    params: tuple[tuple[str, Type | None], ...]
    body: Expr


@node
class LayoutCall(Expr):
    """`rearrange(x?, [..] -> [..], m = 2)`: word, input shapes, output shape, further arguments.

    `value` is the tensor when it is written first (`rearrange(x, [..] -> [..])`), else None (to be completed by `|>` or a call).
    `inputs` is empty when a named layout is used (`under(grid, f)`): then `layout` holds the name.
    """

    word: str  # rearrange | under | reduce | einsum | layout
    inputs: tuple[Shape, ...]
    output: Shape | None
    layout: Expr | None
    args: tuple[Arg, ...]
    value: Expr | None = None


@node
class ExternCall(Expr):
    """`extern aten.cdist(x, y, p = 2) -> [B, T, T]`: a pure op of torch under its own name, with its result types; what a binding takes."""

    op: str
    args: tuple[Arg, ...]
    outs: tuple[Out, ...]
