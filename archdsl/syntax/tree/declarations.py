"""Declarations of files, and what their headers are made of."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.records import field
from archdsl.source import Span
from archdsl.syntax.tree.node import Node, node

if TYPE_CHECKING:
    from archdsl.syntax.tree.expressions import Arg, Expr
    from archdsl.syntax.tree.statements import Statement
    from archdsl.syntax.tree.types import Type


@node
class Param(Node):
    """A header's parameter: hyper (`heads: int = 8 in {4, 8}`) or tensor (`x: [B, T, d]`). `_ f: block` has anonymous = True.

    `rest`: the parameter is `...` (name is then "...").
    """

    name: str
    type: Type | None
    default: Expr | None
    domain: Expr | None
    anonymous: bool = False
    rest: bool = False
    doc: str = field(default="", compare=False)


@node
class Out(Node):
    name: str | None
    type: Type


class Decl(Node):
    __slots__ = ()


@node
class UseName(Node):
    name: str
    alias: str | None


@node
class Use(Decl):
    module: str  # dotted
    names: tuple[UseName, ...]  # empty: the module itself, by its last segment


@node
class Setting(Node):
    """`a.b.{c, d}.*.e = value`: `address` is the text without spaces."""

    address: str
    value: Expr
    address_span: Span = field(compare=False, repr=False)


@node
class Paper(Decl):
    settings: tuple[Setting, ...]


@node
class Record(Decl):
    name: str
    fields: tuple[Param, ...]
    doc: str = field(default="", compare=False)


@node
class Fn(Decl):
    name: str
    params: tuple[Param, ...]
    result: Type
    body: tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@node
class OpDecl(Decl):
    """`op name(params) -> outs { body }`; body None for a bare signature."""

    name: str
    params: tuple[Param, ...]
    outs: tuple[Out, ...]
    body: tuple[Statement, ...] | None
    doc: str = field(default="", compare=False)


@node
class Block(Decl):
    """`block`, `wrap block` (wrap) and `extern block` (body None)."""

    name: str
    params: tuple[Param, ...]
    inputs: tuple[Param, ...]
    outs: tuple[Out, ...]
    body: tuple[Statement, ...] | None
    wrap: bool = False
    name_span: Span = field(default=None, compare=False, repr=False)  # type: ignore[assignment]
    doc: str = field(default="", compare=False)


@node
class Entry(Decl):
    """Also a statement inside `model NAME(params) { ... }` (Model.inputs is None then)."""

    name: str
    inputs: tuple[Param, ...]
    outs: tuple[Out, ...]
    stream: str | None
    body: tuple[Statement, ...]
    doc: str = field(default="", compare=False)


@node
class Model(Decl):
    """A model. `inputs` is None when the body holds entries; `base` and `edits` are set by `model M(..) of B with {..}`."""

    name: str
    params: tuple[Param, ...]
    inputs: tuple[Param, ...] | None
    outs: tuple[Out, ...]
    stream: str | None
    body: tuple[Any, ...]
    base: str | None = None
    edits: tuple[Setting, ...] = ()
    name_span: Span = field(default=None, compare=False, repr=False)  # type: ignore[assignment]
    doc: str = field(default="", compare=False)


@node
class Transform(Node):
    """`transform name(args) on SELECTOR using INPUT`: the selector as its text."""

    name: str
    args: tuple[Arg, ...]
    selector: str | None
    using: tuple[str, ...]


@node
class ClaimItem(Node):
    """`expr within 0.5% from "text" when cond`: within is (number, is_percent)."""

    expr: Expr
    within: tuple[Expr, bool] | None
    source: str | None
    condition: Expr | None


@node
class Claim(Decl):
    target: str | None  # a variant, a model, or model.variant
    items: tuple[ClaimItem, ...]
    doc: str = field(default="", compare=False)


@node
class Variant(Decl):
    name: str
    base: str | None  # another variant, or a model
    settings: tuple[Setting, ...]
    transforms: tuple[Transform, ...]
    claims: tuple[Claim, ...]
    name_span: Span = field(default=None, compare=False, repr=False)  # type: ignore[assignment]
    doc: str = field(default="", compare=False)


@node
class Space(Decl):
    name: str
    model: str
    items: tuple[Expr, ...]
    doc: str = field(default="", compare=False)


@node
class NameLine(Node):
    """`"foreign" <-> address ops when cond`; kind: map | ignore | alias | drop.

    `ops`: Call(Name(word), args) for `concat`, `stack`, `transpose(…)`, or LayoutCall. `default` is set for `drop = value`.
    """

    kind: str
    foreign: str
    address: str | None
    ops: tuple[Expr, ...]
    default: Expr | None
    condition: Expr | None


@node
class Names(Decl):
    """`models`: those that the lines are about; of each a line may be about no weight, but not of all."""

    name: str
    models: tuple[str, ...]
    lines: tuple[NameLine, ...]
    doc: str = field(default="", compare=False)


@node
class Comment(Node):
    """`#` or `///` with its text; `own_line`: nothing but spaces stands before it on its line."""

    text: str
    own_line: bool


@node
class Module(Node):
    decls: tuple[Decl, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
