"""Statements of bodies."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.records import field
from archdsl.source import Span
from archdsl.syntax.tree.node import Node, node

if TYPE_CHECKING:
    from archdsl.syntax.tree.declarations import Param
    from archdsl.syntax.tree.expressions import Arg, Expr, MatchArm, Name
    from archdsl.syntax.tree.types import Type


class Statement(Node):
    __slots__ = ()


@node
class Target(Node):
    name: str
    type: Type | None = None


@node
class Assign(Statement):
    targets: tuple[Target, ...]
    values: tuple[Expr, ...]


@node
class Require(Statement):
    condition: Expr
    message: str | None


@node
class Default(Statement):
    block: str
    args: tuple[Arg, ...]


@node
class Share(Statement):
    """`address` is the `as` name, or the variable's. `of`: the share whose weights these are."""

    name: str
    value: Expr
    condition: Expr | None
    name_span: Span = field(compare=False, repr=False)
    address: str = ""
    of: Name | None = None


@node
class ParamDecl(Statement):
    """`kind`: param | frozen | buffer. `name` is the variable, `address` the `as` name (or the variable's)."""

    kind: str
    name: str
    address: str
    type: Type
    init: Expr
    condition: Expr | None
    name_span: Span = field(compare=False, repr=False)


@node
class Const(Statement):
    """`address`: the `as` name, "" without one; it counts for a value made by an initialiser."""

    name: str
    type: Type | None
    value: Expr
    address: str = ""


@node
class Draw(Statement):
    name: str
    type: Type | None
    value: Expr


@node
class Control(Statement):
    name: str
    type: Type
    default: Expr
    domain: Expr | None


@node
class Emit(Statement):
    name: str
    value: Expr | None


@node
class Update(Statement):
    name: str
    value: Expr


@node
class Static(Statement):
    names: tuple[str, ...]


@node
class Pattern(Node):
    """`name` or `(a, b)`: exactly one of name and items is set."""

    name: str | None
    items: tuple[Pattern, ...] = ()


@node
class For(Statement):
    label: str | None
    pattern: Pattern  # `for i, x in ...` is a Pattern with items
    iterable: Expr
    body: tuple[Statement, ...]


@node
class If(Statement):
    branches: tuple[tuple[Expr, tuple[Statement, ...]], ...]
    otherwise: tuple[Statement, ...]
    has_else: bool = True


@node
class Match(Statement):
    subject: Expr
    arms: tuple[MatchArm, ...]


@node
class ChooseArm(Node):
    name: str
    params: tuple[Param, ...]
    value: Expr


@node
class Choose(Statement):
    name: str
    arms: tuple[ChooseArm, ...]
    default: str
    default_args: tuple[Arg, ...]
    name_span: Span = field(compare=False, repr=False)


@node
class Island(Statement):
    dtype: str
    body: tuple[Statement, ...]


@node
class Carry(Node):
    name: str
    type: Type
    init: Expr


@node
class Scan(Statement):
    inputs: tuple[str, ...]
    axis: str
    carries: tuple[Carry, ...]
    merge: Expr | None
    identity: Expr | None
    body: tuple[Statement, ...]


@node
class Next(Statement):
    name: str
    value: Expr


@node
class Yield(Statement):
    values: tuple[Expr, ...]


@node
class Return(Statement):
    values: tuple[Expr, ...]
    names: tuple[str | None, ...]
