"""The walk over headers: parameters with their types, defaults and domains, and declared results."""

from __future__ import annotations

from typing import Any, cast

from archdsl.diagnostics.model import ArchError, Fix, Label, error
from archdsl.elaborate import library
from archdsl.elaborate.hints import mend
from archdsl.elaborate.unknown import unknown
from archdsl.elaborate.values import RecordRef
from archdsl.elaborate.walk import Walk
from archdsl.modules import Module
from archdsl.shapes import axis_names
from archdsl.source import Span
from archdsl.syntax import tree

TYPES = frozenset("int float bool str block mask init f64 f32 f16 bf16 i64 i32 i8 u8".split())


def once(w: Walk, params: Any, what: str = "this header") -> None:
    """No two parameters of one name."""
    seen: dict[str, Span] = {}
    for p in params:
        if p.name in seen and not p.rest:
            w.report(
                error(
                    "A0208",
                    f"`{p.name}` is declared twice in {what}",
                    p.span,
                    "the second",
                    labels=(Label(seen[p.name], "the first"),),
                    help="give them different names",
                )
            )
        seen.setdefault(p.name, p.span)


def hyper(w: Walk, p: tree.Param) -> None:
    """A parameter for a hyper value: its type, default and domain."""
    record = hyper_type(w, p.type)
    if record is not None:
        w.records[p.name] = record
    w.maybe(p.default)
    domain(w, p.domain)
    if isinstance(p.default, tree.Str) and isinstance(p.type, tree.NameType) and p.type.name in ("int", "float", "bool", "block", "mask", "init"):
        _text_for(w, p, p.default)


def _text_for(w: Walk, p: tree.Param, text: tree.Str) -> None:
    """A text as the default of what takes none, whether a caller leaves it or not."""
    from archdsl.elaborate.builder import Builder
    from archdsl.elaborate.frame import Frame, Session
    from archdsl.elaborate.hyper_types import convert

    try:
        convert(Frame(Session(w.module.library), w.module, Builder()), text.value, p.type, text.span, p.name)
    except ArchError as fault:
        w.report(fault)


def domain(w: Walk, node: Any) -> None:
    """Names in a domain; `each w => D` binds one for D."""
    if isinstance(node, tree.Each):
        vars, w.vars = w.vars, dict(w.vars)
        if node.name:
            w.vars[node.name] = None
        domain(w, node.domain)
        w.vars = vars
    elif isinstance(node, tree.List):
        for i in node.items:
            domain(w, i)
    else:
        w.maybe(node)


def results(w: Walk, outs: tuple[tree.Out, ...], name_span: Span, name: str, needs_return: bool = True) -> None:
    """The declared results after the body: their sizes are known, and something is returned."""
    for o in outs:
        kind = o.type.item if isinstance(o.type, tree.OptionalType) else o.type
        if not isinstance(kind, tree.TensorType):
            continue
        w.fields(kind.shape)
        for axis in kind.shape.axes:
            for n in axis_names(axis):
                if n != "_" and n not in w.vars:
                    w.report(
                        error(
                            "A0309",
                            f"the size `{n}` occurs only in a result: nothing says what it is",
                            axis.span,
                            "not bound by an input",
                            help="write `_` for a size that follows from the body",
                        )
                    )
    if needs_return and not w.returns and not w.broken():
        w.report(error("A0220", f"`{name}` returns nothing", name_span, "no `return` in its body", help="end the body with `return`"))


# ---------------------------------------------------------------- types of hyper values
def _type_mend(w: Walk, kind: tree.NameType) -> dict[str, Any]:
    """A record of the library is to be imported; another name may be a misspelt type."""
    if library.module_of(kind.name) is not None:
        d = unknown(cast(Any, w), kind.name, kind.span).diagnostics[0]  # a walk has of a frame what is asked there
        return {"help": d.help, "fixes": d.fixes}
    if kind.name in ("list", "List", "tuple"):
        items = ("int", "str", "float")
        return {"help": "a list says of what: `list[int]`, with its length `list[int; 4]`; items of several types are `(int, float)`",
                "rivals": tuple(Fix(f"replace by `list[{item}]`", ((kind.span, f"list[{item}]"),)) for item in items)}
    from archdsl.syntax.habits import TYPES as FOREIGN

    if kind.name in FOREIGN:
        return {"help": FOREIGN[kind.name]}
    return mend(kind.name, _type_names(w.module), kind.span, "types are int, float, bool, str, block, mask, init, shapes and records")


def hyper_type(w: Walk, kind: tree.Type | None) -> RecordRef | None:
    """Checks the names in a hyper type; the record that it names."""
    if isinstance(kind, tree.NameType):
        if kind.name in TYPES:
            return None
        first, _, member = kind.name.partition(".")
        scope = w.module.modules[first].scope if member and first in w.module.modules else w.module.scope
        found = scope.get(member or first)
        if found is None and kind.name not in w.told_imports:
            if library.module_of(kind.name) is not None:
                w.told_imports.add(kind.name)
            w.report(
                error(
                    "A0201",
                    f"the type `{kind.name}` is not known",
                    kind.span,
                    "no such record",
                    **_type_mend(w, kind),
                )
            )
        return found if isinstance(found, RecordRef) else None
    if isinstance(kind, tree.OptionalType):
        return hyper_type(w, kind.item)
    if isinstance(kind, tree.ListType):
        hyper_type(w, kind.item)
        w.maybe(kind.length)
    elif isinstance(kind, (tree.TupleType, tree.UnionType)):
        for k in kind.items if isinstance(kind, tree.TupleType) else kind.options:
            hyper_type(w, k)
    return None


def _type_names(module: Module) -> list[str]:
    return [*sorted(TYPES), *(n for n, r in module.scope.items() if isinstance(r, RecordRef))]
