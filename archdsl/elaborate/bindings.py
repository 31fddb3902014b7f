"""Which names parts of a tree bind and mention, without values, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from archdsl.shapes import axis_names
from archdsl.source import Span
from archdsl.syntax import tree


def tensor_type(p: tree.Param) -> tree.TensorType | None:
    """The shape of a header's parameter (or of the items of a list); None for a hyper argument."""
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    if isinstance(kind, tree.ListType):
        kind = kind.item
    return kind if isinstance(kind, tree.TensorType) else None


def bound_names(axis: tree.Axis) -> list[str]:
    """The names that matching an axis binds."""
    if isinstance(axis, (tree.AxesVar, tree.Bounded)):
        return [axis.id]
    return axis_names(axis)


def axis_fields(axis: Any) -> Iterator[tree.AxisField]:
    if isinstance(axis, tree.AxisField):
        yield axis
    elif isinstance(axis, (tree.AxisOp, tree.AxisFactors)):
        for a in axis.operands if isinstance(axis, tree.AxisOp) else axis.items:
            yield from axis_fields(a)


def axis_span(axis: Any, name: str) -> Span:
    if isinstance(axis, (tree.AxisOp, tree.AxisFactors)):
        for a in axis.operands if isinstance(axis, tree.AxisOp) else axis.items:
            if name in axis_names(a):
                return axis_span(a, name)
    return axis.span


def pattern_names(p: tree.Pattern) -> list[tuple[str, Span]]:
    return [(p.name, p.span)] if p.name is not None else [n for q in p.items for n in pattern_names(q)]


def nested_bodies(s: Any) -> Iterator[tuple[Any, ...]]:
    """The bodies inside a statement."""
    if isinstance(s, (tree.For, tree.Island, tree.Scan)):
        yield s.body
    elif isinstance(s, tree.If):
        yield from (body for _, body in s.branches)
        yield s.otherwise
    elif isinstance(s, tree.Match):
        yield from (a.body for a in s.arms)


def bindings(body: Any, loop: tree.For | None = None) -> Iterator[tuple[str, Span, tree.For | None]]:
    """Every name that statements bind, where, and the outermost loop around."""
    for s in body:
        if isinstance(s, tree.Assign):
            yield from ((t.name, t.span, loop) for t in s.targets)
        elif isinstance(s, (tree.Share, tree.ParamDecl, tree.Choose)):
            yield s.name, s.name_span, loop
        elif isinstance(s, (tree.Const, tree.Draw)):
            yield s.name, s.span, loop
        inside = s if isinstance(s, tree.For) and loop is None else loop
        if isinstance(s, tree.For):
            yield from ((n, span, inside) for n, span in pattern_names(s.pattern))
        for b in nested_bodies(s):
            yield from bindings(b, inside)


def header_type(decl: Any, name: str, gives_tensor: Callable[[str], bool]) -> tree.Type | None:
    """The type of an argument of a header, or of an input that holds a tensor throughout; None where that is not known. `gives_tensor`:
    what is called so is an op or a block."""
    if isinstance(decl, tree.Fn):  # it may give its arguments other values
        return None
    params = (*getattr(decl, "params", ()), *(getattr(decl, "inputs", None) or ()))
    found = next((p for p in params if p.name == name), None)
    if found is None or found.rest or isinstance(found.type, tree.OptionalType):
        return None
    return found.type if tensor_type(found) is None or stays_tensor(name, getattr(decl, "body", None) or (), gives_tensor) else None


_ARITHMETIC = frozenset("+ - * / // % ** @".split())


def stays_tensor(name: str, body: Any, gives_tensor: Callable[[str], bool]) -> bool:
    """Whether whatever a body binds to the name of a tensor is a tensor as well, as in `x = x + F()(x)`."""
    for s in body:
        if isinstance(s, tree.Assign) and [t.name for t in s.targets] == [name] and len(s.values) == 1:
            if not _is_tensor(s.values[0], name, gives_tensor):
                return False
        elif any(n == name for n, _, _ in bindings((s,))):
            inner = [*nested_bodies(s)]
            if not inner or isinstance(s, tree.For) and name in dict(pattern_names(s.pattern)) or not all(
                stays_tensor(name, b, gives_tensor) for b in inner
            ):
                return False
    return True


def _is_tensor(node: Any, name: str, gives_tensor: Callable[[str], bool]) -> bool:
    """Is this surely a tensor, where `name` is one?"""
    def given(args: tuple[tree.Arg, ...]) -> bool:
        return any(_is_tensor(a.value, name, gives_tensor) for a in args)

    match node:
        case tree.Name():
            return node.id == name
        case tree.Named():
            return _is_tensor(node.expr, name, gives_tensor)
        case tree.Binary():
            return node.op in _ARITHMETIC and (_is_tensor(node.left, name, gives_tensor) or _is_tensor(node.right, name, gives_tensor))
        case tree.Call(func=tree.Name(id=func)):
            return gives_tensor(func) and given(node.args)
        case tree.Call(func=tree.Call()):  # a block has tensors in its second list
            return given(node.args)
        case tree.Unary():
            return node.op == "-" and _is_tensor(node.operand, name, gives_tensor)
        case tree.Item():
            return _is_tensor(node.value, name, gives_tensor)
        case tree.LayoutCall():
            return True
        case tree.Chain(op="|>", items=(first, *rest)):
            called = [n.func if isinstance(n, tree.Call) else n for n in (r.expr if isinstance(r, tree.Named) else r for r in rest)]
            return _is_tensor(first, name, gives_tensor) and all(
                isinstance(f, tree.LayoutCall) or isinstance(f, tree.Name) and (f.id[:1].isupper() or gives_tensor(f.id)) for f in called
            )
        case _:
            return False


def assigned_names(body: Any) -> set[str]:
    return {n for n, _, _ in bindings(body)}


def default_statements(decls: Any) -> Iterator[tree.Default]:
    for d in decls:
        stack = list(getattr(d, "body", None) or ())
        while stack:
            s = stack.pop()
            if isinstance(s, tree.Default):
                yield s
            elif isinstance(s, tree.Entry):
                stack.extend(s.body)
            for b in nested_bodies(s):
                stack.extend(b)


def static_names(decl: tree.Model) -> set[str]:
    """The sizes that `static` fixes when the model is built."""
    bodies = (decl.body, *(s.body for s in decl.body if isinstance(s, tree.Entry)))
    return {n for body in bodies for s in body if isinstance(s, tree.Static) for n in s.names}


def ragged_axes(decl: tree.Model) -> Iterator[tree.Ragged]:
    """The axes along which documents of different lengths lie."""
    for kind in map(tensor_type, decl.inputs or ()):
        yield from (a for a in (kind.shape.axes if kind is not None else ()) if isinstance(a, tree.Ragged))


def axis_of_time(decl: tree.Model) -> str | None:
    """The axis that a header says the model streams along: `stream T`, or `ragged T` in an input."""
    return decl.stream or next((a.id for a in ragged_axes(decl)), None)


def word_span(node: Any, name: str) -> Span:
    """Where a node that keeps no span for a name has it: first behind the node's own word."""
    text = node.span.text
    return _found(node.span, re.search(rf"\b{re.escape(name)}\b", text[text.find(" ") + 1 :]), text.find(" ") + 1)


def last_word_span(node: Any, name: str) -> Span:
    """Where a name stands last in a node."""
    return _found(node.span, re.search(rf"\b{re.escape(name)}\b(?!.*\b{re.escape(name)}\b)", node.span.text, re.DOTALL))


def _found(span: Span, match: re.Match[str] | None, offset: int = 0) -> Span:
    return Span(span.source, span.start + offset + match.start(), span.start + offset + match.end()) if match else span
