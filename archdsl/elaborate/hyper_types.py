"""Types of hyper values: values as declared types take them, which item of a list does not fit, settings inside lists and records."""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.diagnostics.poison import POISON
from archdsl.dims import Dim
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, Override
from archdsl.elaborate.hints import did_you_mean, mend
from archdsl.elaborate.values import (
    TEMPLATES,
    BlockRef,
    Builtin,
    InitRef,
    Late,
    RecordRef,
    RecordValue,
    describe,
    is_hyper_number,
    is_list,
)
from archdsl.graph import InitExpr, Mask, Value
from archdsl.source import NOWHERE, Span
from archdsl.syntax import tree


def convert(frame: Frame, value: Any, type: tree.Type | None, span: Span, name: str) -> Any:
    """The value as its declared type takes it. Raises A0204."""
    if value is POISON or type is None:
        return value
    ok, result = try_convert(frame, value, type)
    if not ok:
        path, item, kind = _wrong(frame, value, type)
        what = "".join(f"item {i} of " for i in reversed(path)) + f"`{name}`"
        told = f"this list has {len(item)} item{'s' * (len(item) != 1)}" if is_list(item) and _is_list_type(kind) else f"this is {describe(item)}"
        instead = f", and {told}" if is_list(item) and _is_list_type(kind) else f", not {describe(item)}"
        from archdsl.elaborate.mending import item_span, type_fixes, value_span

        whole = value_span(span)
        where = item_span(whole, path)
        fixes = type_fixes(frame, item, kind, where) if where is not None else ()
        raise error("A0204", f"{what} is of type {kind.span.text or type_text(kind)}{instead}", where or whole,
                    told if where is not None else f"item {path[-1]} is {describe(item)}",
                    help=() if fixes else _type_help(kind, item), fixes=fixes)
    return result


def _is_list_type(type: tree.Type) -> bool:
    return isinstance(type, (tree.ListType, tree.TupleType)) or isinstance(type, tree.OptionalType) and _is_list_type(type.item)


def _wrong(frame: Frame, value: Any, type: tree.Type) -> tuple[list[int], Any, tree.Type]:
    """The innermost item that does not fit, where it stands, and its type."""
    if isinstance(type, tree.OptionalType):
        return _wrong(frame, value, type.item)
    if is_list(value) and isinstance(type, (tree.ListType, tree.TupleType)):
        kinds = type.items if isinstance(type, tree.TupleType) else (type.item,) * len(value)
        for i, (item, kind) in enumerate(zip(value, kinds)) if len(kinds) == len(value) else ():
            if not try_convert(frame, item, kind)[0]:
                path, inner, wanted = _wrong(frame, item, kind)
                return [i, *path], inner, wanted
    return [], value, type


def _type_help(type: tree.Type, value: Any) -> tuple[str, ...]:
    options = [o.value for o in type.options if isinstance(o, tree.LiteralType)] if isinstance(type, tree.UnionType) else []
    if options and isinstance(value, str):
        return did_you_mean(value, options) or (f"it is one of {', '.join(options)}",)
    if isinstance(value, BlockRef) and isinstance(type, tree.NameType) and type.name == "block":
        return (f"complete it: `{value.decl.name}(…)`",)
    if isinstance(value, Value):
        return ("the first list of a block holds hyper values, the second its tensors: `F(…)(x)`",)
    return ()


def type_text(type: tree.Type) -> str:
    return getattr(type, "name", None) or type.__class__.__name__


def try_convert(frame: Frame, value: Any, type: Any) -> tuple[bool, Any]:
    """Whether the value fits a type (a tree.Type), and the value as that type takes it."""
    kind = type.__class__
    if kind is tree.NameType:
        return _convert_named(frame, value, type.name)
    if kind is tree.OptionalType:
        return (True, None) if value is None else try_convert(frame, value, type.item)
    if kind is tree.UnionType:
        for option in type.options:
            ok, result = try_convert(frame, value, option)
            if ok:
                return True, result
        return False, None
    if kind is tree.LiteralType:
        return value == type.value, value
    if kind is tree.ListType or kind is tree.TupleType:
        return _convert_list(frame, value, type)
    return not isinstance(value, Value), value


def _convert_list(frame: Frame, value: Any, type: Any) -> tuple[bool, Any]:
    if not is_list(value):
        return False, None
    if isinstance(type, tree.TupleType):
        kinds = type.items
    else:
        if list_length(frame, type) not in (None, len(value)):
            return False, None
        if type.item.__class__ is tree.NameType and type.item.name == "int" and all(v.__class__ is int for v in value):
            return True, value  # at sight: most lists are of sizes
        kinds = (type.item,) * len(value)
    if len(kinds) != len(value):
        return False, None
    parts = [try_convert(frame, v, k) for v, k in zip(value, kinds)]
    return all(ok for ok, _ in parts), tuple(v for _, v in parts)


def list_length(frame: Frame, type: tree.ListType) -> int | None:
    """What `list[T; n]` says; None for a list of any length, and where it is not known. Raises A0204."""
    if type.length is None:
        return None
    length = evaluate(frame, type.length)
    if isinstance(length, int) and not isinstance(length, bool) and length >= 0:
        return length
    if length is POISON:
        return None
    raise error("A0204", f"the length of a list is a whole number from 0, this is {describe(length)}", type.length.span)


def _convert_named(frame: Frame, value: Any, name: str) -> tuple[bool, Any]:
    if name == "int":
        if type(value) is int:
            return True, value
        if isinstance(value, Fraction) and value.denominator == 1:
            return True, int(value)
        return isinstance(value, Dim), value
    if name == "float":
        return is_hyper_number(value) or type(value) is Late, value
    if name == "bool":
        return isinstance(value, bool), value
    if name == "str":
        return isinstance(value, str), value
    if name == "block":
        if isinstance(value, Builtin):
            from archdsl.elaborate.values import OpRef
            from archdsl.ops.registry import find

            op = find(value.name)
            return op is not None, OpRef(op) if op else value
        return isinstance(value, TEMPLATES), value
    if name == "mask":
        return isinstance(value, Mask), value
    if name == "init":
        if isinstance(value, InitRef):
            from archdsl.elaborate.calls import initializer

            return True, initializer(value.name, ([], {}, {}), NOWHERE)
        if is_hyper_number(value):
            return True, InitExpr("constant", (), (("value", float(value) if abs(value) < 2**1023 else value),))
        return isinstance(value, InitExpr), value
    return isinstance(value, RecordValue) and value.name == name.rsplit(".", 1)[-1], value


# ---------------------------------------------------------------- settings that reach into lists and records
def set_inside(
    frame: Frame, current: Any, segments: tuple[str, ...], value: Callable[[], Any], o: Override, type: tree.Type | None, name: str,
) -> Any:
    """`stages.0.depth = 3`: a list or record with one item replaced. `value` is asked for when its place is found. Raises A0215 for an item
    that is not there, A0204 for a misfit of types."""
    type = type.item if isinstance(type, tree.OptionalType) and current is not None else type
    if not segments:
        return convert(frame, value(), type, o.place, name)
    head, rest = segments[0], segments[1:]
    if isinstance(current, RecordValue):
        names = [k for k, _ in current.items]
        if head not in names:
            raise error("A0215", f"the record {current.name} has no field `{head}`", o.span,
                        **mend(head, names, o.span, _hidden(name) if rest else ()))
        ref = _record_of(frame, type)
        kind = next((f.type for f in ref.decl.fields if f.name == head), None) if ref is not None else None
        inner = frame.child(module=ref.module) if ref is not None else frame
        return RecordValue(current.name, tuple((k, set_inside(inner, v, rest, value, o, kind, f"{name}.{head}") if k == head else v)
                                               for k, v in current.items))
    if is_list(current) and (head == "*" or head.isdigit()):
        if head != "*" and int(head) >= len(current):
            raise error("A0215", f"there is no item {head}: the list has {len(current)}", o.span)
        kinds = type.items if isinstance(type, tree.TupleType) else (type.item if isinstance(type, tree.ListType) else None,) * len(current)
        return tuple(set_inside(frame, v, rest, value, o, k, f"{name}.{head}") if head in ("*", str(i)) else v
                     for i, (v, k) in enumerate(zip(current, kinds)))
    raise error("A0215", f"`{head}` is nothing that can be set inside {describe(current)}", o.span)


def _hidden(name: str) -> str:
    """What a longer address under a knob's name may have been meant for."""
    knob = name.split(".", 1)[0]
    return f"`{knob}` is a knob: for what lies below a loop `{knob}: for …`, give the loop a name of its own"


def _record_of(frame: Frame, type: tree.Type | None) -> RecordRef | None:
    """The record that a type names, directly or in another module."""
    if not isinstance(type, tree.NameType):
        return None
    first, _, member = type.name.partition(".")
    scope = frame.module.modules[first].scope if member and first in frame.module.modules else frame.module.scope
    found = scope.get(member or first)
    return found if isinstance(found, RecordRef) else None
