"""Values of stage 1 besides numbers, strings and tuples: templates, shares, records, references, conditions on run-time sizes."""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeGuard

from archdsl.dims import Dim, Size
from archdsl.graph import InitExpr, Mask, TensorType, Value
from archdsl.records import field, record
from archdsl.source import Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.builder import Builder
    from archdsl.elaborate.frame import Frame, Override
    from archdsl.modules import Module
    from archdsl.ops.registry import Op


class NeedInline(Exception):
    """A body reaches weights or tensors that a builder further out owns: it must be evaluated in place."""


@record(frozen=True, eq=False)
class BlockRef:
    decl: tree.Block
    module: Module


@record(frozen=True, eq=False)
class ModelRef:
    decl: tree.Model
    module: Module


@record(frozen=True, eq=False)
class FnRef:
    decl: tree.Fn
    module: Module


@record(frozen=True, eq=False)
class RecordRef:
    decl: tree.Record
    module: Module


@record(frozen=True, eq=False)
class UserOp:
    decl: tree.OpDecl
    module: Module


@record(frozen=True, eq=False)
class Builtin:
    """A stage-1 function of the language. `raw` ones take (frame, args, span) unevaluated in meaning, the others plain values."""

    name: str
    call: Callable[..., Any]
    doc: str = ""


@record(frozen=True, eq=False)
class InitRef:
    name: str


@record(frozen=True, eq=False)
class MaskRef:
    name: str


@record(frozen=True)
class RecordValue:
    name: str
    items: tuple[tuple[str, Any], ...]

    def get(self, key: str) -> Any:
        for k, v in self.items:
            if k == key:
                return v
        raise KeyError(key)


@record(frozen=True)
class Bound:
    """An argument in force: its value, where it was written, and by what: argument | default | header."""

    value: Any
    span: Span
    origin: str


@record(frozen=True)
class DefaultEntry:
    value: Any
    span: Span
    statement: tree.Default


@record(frozen=True, eq=False)
class Defaults:
    """The defaults in force where a template is written: (block declaration's id, argument) -> entry."""

    entries: dict[tuple[int, str], DefaultEntry] = field(default_factory=dict)
    key: int = 0


@record(frozen=True, eq=False)
class OpRef:
    """An op by its name: a function of tensors, or a template without weights (`act = gelu`)."""

    op: Op


@record(frozen=True, eq=False)
class Template:
    """A complete block: `Linear(64)`. `label` is its `as` name, `hint` the name of the choice it came from."""

    ref: BlockRef
    args: dict[str, Bound]
    defaults: Defaults
    span: Span
    key: int
    label: str | None = None
    hint: str | None = None


@record(frozen=True, eq=False)
class Compose:
    parts: tuple[Any, ...]
    span: Span
    key: int
    label: str | None = None
    hint: str | None = None


@record(frozen=True, eq=False)
class Literal:
    """`block(x) => expr`, with the frame that it was written in."""

    node: tree.BlockLiteral
    frame: Frame
    key: int
    label: str | None = None
    hint: str | None = None


@record(frozen=True, eq=False)
class Partial:
    """A layout word or op waiting for its tensor: `rearrange([..] -> [..])`, `under(.., f)` used as a template."""

    node: tree.LayoutCall
    frame: Frame
    key: int
    label: str | None = None
    hint: str | None = None


@record(frozen=True, eq=False)
class Share:
    """One set of weights at `path` of `builder`, used by every application. `overrides`: the settings below that path."""

    name: str
    template: Any
    builder: Builder
    path: str
    span: Span
    key: int
    overrides: tuple[Override, ...] = ()
    label: str | None = None
    hint: str | None = None


TEMPLATES = (Template, Compose, Literal, Partial, Share, OpRef)


@record(frozen=True)
class Condition:
    """A conjunction of facts about run-time sizes that can be neither proved nor refuted: (left, op, right, divides?)."""

    parts: tuple[tuple[Size, str, Size, tuple[Size, Size] | None], ...]


@record(frozen=True, eq=False)
class Late:
    """A number that the graph under construction waits for (late.py). `value` is the one of the present pass, which rules of ops may see.

    `number` says which it is; `parts` how it is computed from such numbers: (operator, left, right).
    """

    number: Any
    value: Any
    parts: tuple[str, Any, Any] | None = None


class Unfit(Exception):
    """A late number cannot be filled in here: the body must be elaborated with the number itself."""


def is_list(value: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether a value is a list of the language, which is a tuple."""
    return isinstance(value, tuple)


def is_hyper_number(value: Any) -> bool:
    return isinstance(value, (int, float, Fraction)) and not isinstance(value, bool)


def has_tensor(value: Any) -> bool:
    if value.__class__ in _SCALARS:
        return False
    if isinstance(value, Value):
        return True
    if isinstance(value, Mask):
        return any(True for _ in value.tensors())
    if is_list(value):
        return any(has_tensor(v) for v in value)
    return False


def holds_tensor(value: Any) -> bool:
    """Whether a template captured a tensor: in an argument, or in the frame of a literal."""
    if value.__class__ in _SCALARS or value.__class__ is Value:
        return False
    if isinstance(value, Template):
        return any(has_tensor(b.value) or holds_tensor(b.value) for b in value.args.values())
    if isinstance(value, (Literal, Partial)):
        from archdsl.elaborate.closures import free_names

        inside = [value.frame.vars[n] for n in free_names(value.node) if n in value.frame.vars]
        return any(has_tensor(v) or holds_tensor(v) for v in inside)
    if isinstance(value, Share):
        return holds_tensor(value.template)
    parts = value.parts if isinstance(value, Compose) else value if is_list(value) else ()
    return any(map(holds_tensor, parts))


def map_tensors(value: Any, f: Callable[[Value], Any]) -> Any:
    """The same value with every tensor inside (tuples and masks included) sent through f."""
    kind = value.__class__
    if kind is Value:
        return f(value)
    if kind is tuple:
        for v in value:
            if type(v) in HOLDERS:
                return tuple([map_tensors(v, f) for v in value])
        return value
    if kind is Mask:
        return value.replace(f)
    return value


HOLDERS = frozenset({Value, tuple, Mask})
_SCALARS = frozenset({int, float, bool, str, Fraction, type(None)})


def describe(value: Any) -> str:
    """What a value is, in the user's words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"{str(value).lower()} (bool)"
    if isinstance(value, Value):
        return f"a tensor {value.type}"
    if isinstance(value, TensorType):
        return f"a tensor {value}"
    if isinstance(value, Dim):
        return f"the size {value}"
    if isinstance(value, int):
        return f"{value} (int)"
    if isinstance(value, (Fraction, float)):
        return f"{show(value)} (float)"
    if isinstance(value, str):
        return f'"{value[:40]}" (str)'
    if is_list(value):
        return f"a list of {len(value)}"
    if isinstance(value, Mask):
        return f"a mask ({value.kind})"
    if isinstance(value, InitExpr):
        return "an initialiser"
    if isinstance(value, (BlockRef, ModelRef)):
        return f"`{value.decl.name}`, a block without its arguments" if isinstance(value, BlockRef) else f"the model `{value.decl.name}`"
    if isinstance(value, RecordValue):
        return f"a record {value.name}"
    if isinstance(value, OpRef):
        return f"the op `{value.op.name}`"
    if isinstance(value, TEMPLATES):
        return "a block"
    if isinstance(value, (FnRef, Builtin)):
        return "a function"
    if isinstance(value, Condition):
        return "a condition on run-time sizes"
    return type(value).__name__


def show(value: Any) -> str:
    """A value as the language writes it, for messages and printing."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return str(value.numerator)
        try:
            return repr(float(value))
        except OverflowError:
            return f"{value.numerator} / {value.denominator}"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if is_list(value):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, RecordValue):
        return f"{value.name}({', '.join(f'{k} = {show(v)}' for k, v in value.items)})"
    if isinstance(value, Mask):
        return value.kind if not value.args else f"{value.kind}(…)"
    if isinstance(value, Template):
        return f"{value.ref.decl.name}({', '.join(f'{k} = {show(b.value)}' for k, b in value.args.items())})"
    if isinstance(value, OpRef):
        return value.op.name
    if isinstance(value, Compose):
        return " >> ".join(map(show, value.parts))
    if isinstance(value, (Literal, Partial)):
        return " ".join(value.node.span.text.split())
    if isinstance(value, Share):
        return value.name
    if isinstance(value, Late):
        return show(value.value)
    if isinstance(value, InitExpr):
        return f"{value.op}({', '.join([*map(show, value.args), *(f'{k} = {show(v)}' for k, v in value.attrs)])})"
    return str(value)


