"""The syntax tree: one record per construct, each with the span of its text. Spans do not take part in equality."""
from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from archdsl.records import field, fields, record
from archdsl.source import Span

_T = TypeVar("_T", bound=type)
_PLAIN = frozenset({"str", "str | None", "bool", "int", "int | Fraction", "Span", "Span | None", "tuple[str, ...]", "tuple[str | None, ...]"})


@dataclass_transform(field_specifiers=(field,))
def node(cls: _T) -> _T:
    """A record with slots, whose equality and text are written once, in Node."""
    define: Any = record(eq=False, repr=False)
    made = define(cls)
    found = fields(made)
    made.below = tuple(f.name for f in found if f.type not in _PLAIN)
    made.compared = tuple(f.name for f in found if f.compare)
    return made


@node
class Node:
    """`below`: the names of the fields that may hold nodes; `compared`: of those that count in equality."""

    if TYPE_CHECKING:
        below: ClassVar[tuple[str, ...]]
        compared: ClassVar[tuple[str, ...]]
    span: Span = field(compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.compared)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return f"{type(self).__name__}({shown})"


def children(node: Any) -> list[Node]:
    """The nodes directly below a node (or in a tuple), in the order of the text."""
    out: list[Node] = []
    if isinstance(node, Node):
        for name in node.below:
            value: Any = getattr(node, name)
            if isinstance(value, Node):
                out.append(value)
            elif isinstance(value, tuple):
                _gather(value, out)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(node, tuple):
        _gather(node, out)  # pyright: ignore[reportUnknownArgumentType]
    return out


def _gather(items: tuple[Any, ...], out: list[Node]) -> None:
    for item in items:
        if isinstance(item, Node):
            out.append(item)
        elif isinstance(item, tuple) and not isinstance(item, Span):
            _gather(item, out)  # pyright: ignore[reportUnknownArgumentType]


class Seq(tuple[Any, ...]):
    """A tuple of nodes that knows the `span` of its brackets: bodies, branches, settings, parameter lists, arguments. Equal to the plain tuple."""

    span: Span

    @classmethod
    def at(cls, span: Span, items: Any) -> Seq:
        self = cls(items)
        self.span = span
        return self


# ---------------------------------------------------------------- expressions
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
    """`start..stop` (inclusive) or `start..<stop`, with an optional step."""

    start: Expr
    stop: Expr
    inclusive: bool
    step: Expr | None = None


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


# ---------------------------------------------------------------- shapes and types
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
    id: str


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


# ---------------------------------------------------------------- statements
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
    """`address` is the `as` name, or the variable's."""

    name: str
    value: Expr
    condition: Expr | None
    name_span: Span = field(compare=False, repr=False)
    address: str = ""


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


# ---------------------------------------------------------------- declarations
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
    name: str
    model: str
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
