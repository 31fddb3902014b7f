"""Applying ops: shape and dtype rules, f32 islands, initialisers. What arguments may be is in op_arguments.py."""
from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

from archdsl import shapes
from archdsl.diagnostics.model import Fix, error
from archdsl.dims import Dim
from archdsl.elaborate import widened
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.limits import MAX_AXES, MAX_ELEMENTS, checked, limit
from archdsl.elaborate.op_arguments import (
    MISSING,
    OPERATOR,
    Parameter,
    bound_arguments,
    called_in,
    default_of,
    flattened,
    is_operand,
    is_operand_list,
    latest,
    need_tensors,
    parameters,
)
from archdsl.elaborate.values import Late, OpRef, Unfit, describe, is_list
from archdsl.graph import InitExpr, Mask, TensorType, Value
from archdsl.ops.registry import Op, OpError, find
from archdsl.source import Span
from archdsl.syntax import tree

ATOMS = frozenset({int, str, bool, float, Dim, type(None)})
"""What a graph holds as it is."""


def apply_op(frame: Frame, name: str, args: tuple[Any, ...], named: dict[str, Any], span: Span, spans: dict[Any, Span] | None = None,
             label: str = "") -> Any:
    """One op node; returns its Value, or a tuple for several results, or an InitExpr where an initialiser is being written."""
    session = frame.session
    session.step(span)
    form = _form(frame, name, args, named)
    if form is not None and form in session.applications:
        places, attrs, types = session.applications[form]
        given = (*args, *named.values())
        if types is None:
            return given[places[0]]
        node = frame.builder.add(name, tuple([given[p] if p.__class__ is int else p[0] for p in places]), dict(attrs), types, span, label)
        return Value(node) if len(types) == 1 else node.values
    op = find(name)
    assert op is not None, name
    params = parameters(name)
    spans = spans or {}
    values = bound_arguments(frame, op, params, args, named, span, spans)
    tensors = _tensors(values)
    if not tensors and (frame.init or any(isinstance(v, InitExpr) for v in flattened(values.values()))):
        return _initialiser(frame, span, op, params, values)
    if name == "identity":
        return values["x"]
    if not tensors:
        _needs_tensor(op, values, span, spans)
    need_tensors(op, params, values, span, spans)
    types = infer(frame, op, values, span, spans)
    tensors = [(id(v), i) for i, v in enumerate((*args, *named.values())) if v.__class__ is Value] if form is not None else []
    at = dict(tensors)
    if len(at) < len(tensors):
        form = None  # of one tensor in two places, the places do not tell which argument is which operand
    if op.keeps and _unchanged(first := values[params[0].name], types[0]):
        if form is not None:
            session.applications[form] = (at[id(first)],), {}, None
        return first
    operands: list[Any] = []
    attrs: dict[str, Any] = {}
    for p in params:
        value = values[p.name]
        if p.operand:
            operands.append(value if type(value) is Value and not frame.dtype else _operand(frame, value, span))
        else:
            attrs[p.name] = value if type(value) in ATOMS else _attribute(value)
    if form is not None:
        session.applications[form] = tuple([at[id(v)] if v.__class__ is Value else (v,) for v in operands]), attrs, types
    node = frame.builder.add(name, tuple(operands), dict(attrs), types, span, label)
    return Value(node) if len(types) == 1 else node.values


def _form(frame: Frame, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What the result types and the attributes of an application depend on: its tensors by type, all else by value, and what is known of run-time
    sizes. None where that is more: initialisers, lists of tensors, what differs from pass to pass of a loop."""
    if frame.dtype or frame.init or name == "identity":
        return None
    parts: list[Any] = [name, frame.session.known]
    for v in args:
        part = v.node.types[v.index] if v.__class__ is Value else _plain(v)
        if part is MISSING:
            return None
        parts.append(part)
    for k, v in named.items():
        part = v.node.types[v.index] if v.__class__ is Value else _plain(v)
        if part is MISSING:
            return None
        parts += (k, part)
    return tuple(parts)


def _plain(value: Any) -> Any:
    """A value without tensors as a key that tells 1, 1.0 and true apart; MISSING for any other."""
    kind = value.__class__
    if kind is int or kind is str or kind is Dim:
        return value
    if kind is tuple:
        parts = [_plain(v) for v in value]
        return MISSING if MISSING in parts else tuple(parts)
    if kind is float:
        return kind, repr(value)
    if kind is Mask:
        args = _plain(value.args)
        return MISSING if args is MISSING else (kind, value.kind, args)
    return (kind, value) if kind is Fraction or kind is bool or value is None else MISSING


def _unchanged(first: Any, type: TensorType) -> bool:
    """Whether a padding pads nothing, or a slice takes everything, for all run-time sizes."""
    return (isinstance(first, Value) and first.type.dtype == type.dtype and len(first.type.shape) == len(type.shape)
            and all(shapes.same(a, b) is True for a, b in zip(first.type.shape, type.shape)))


def _tensors(values: dict[str, Any]) -> bool:
    for v in values.values():
        kind = v.__class__
        if kind is Value:
            return True
        if kind is tuple and any(type(w) is Value for w in flattened(v)):
            return True
        if kind is Mask and any(True for _ in v.tensors()):
            return True
    return False


def _needs_tensor(op: Op, values: dict[str, Any], span: Span, spans: dict[Any, Span]) -> None:
    """`sin(1)`: an op of tensors, given numbers alone. Raises A0204."""
    for p in op.decl.params:
        if is_operand(p) and not isinstance(p.type, tree.OptionalType):
            value = values.get(p.name)
            if is_operand_list(p) and value == ():
                raise error("A0204", f"`{p.name}` of {op.name} is an empty list", spans.get(p.name, span), "at least one tensor is needed",
                            notes=(op.signature,))
            raise error("A0204", f"{op.name} is a function of tensors: `{p.name}` is {describe(value)}", spans.get(p.name, span),
                        f"this is {describe(value)}", notes=(op.signature,))


def _initialiser(frame: Frame, span: Span, op: Op, params: tuple[Parameter, ...], values: dict[str, Any]) -> InitExpr:
    if any(type(v) is Late for v in values.values()):
        raise Unfit
    operands = tuple(as_attribute(values.get(p.name)) for p in params if p.operand)
    while operands and operands[-1] is None:
        operands = operands[:-1]
    attrs = tuple(sorted((p.name, _attribute(values[p.name])) for p in params if not p.operand and p.name in values))
    return checked(frame.session, InitExpr(op.name, operands, attrs), span)


def as_attribute(value: Any) -> Any:
    """A number as graphs hold it: exact fractions become floats."""
    kind = value.__class__
    return float(value) if kind is Fraction else tuple(map(as_attribute, value)) if kind is tuple else value


def _attribute(value: Any) -> Any:
    value = as_attribute(value)
    return value.op.name if type(value) is OpRef else value


def _operand(frame: Frame, value: Any, span: Span) -> Any:
    """An operand as it enters the graph; inside `f32 { }` floats are widened first."""
    kind = value.__class__
    if kind is Value:
        if frame.dtype and value.dtype in ("float", "bf16", "f16"):
            return Value(frame.builder.add("at_least", (value,), {"dtype": frame.dtype}, (TensorType(frame.dtype, value.shape),), span))
        return value
    if kind is tuple:
        return tuple(_operand(frame, v, span) for v in value)
    return as_attribute(value)


def infer(frame: Frame, op: Op, values: dict[str, Any], span: Span, spans: dict[Any, Span]) -> tuple[TensorType, ...]:
    """The result types; a fault is reported at the operand it is about."""
    types = {k: v if type(v) in ATOMS else _as_type(frame, v) for k, v in values.items()}
    try:
        _ranks(op, types)
        if op.filled:
            _filled(types)
        found: Any = op.infer(**types) if op.infer else shapes.infer_by_signature(op, types)
    except OpError as e:
        where = spans.get(e.about, span) if OPERATOR not in spans else span
        value = values.get(e.about or "")
        help = tuple(h for h in (e.help, f"add `require {e.require}` to the model" if e.require and e.require not in (e.help or "") else None) if h)
        notes = tuple(f"{called_in(op, parameters(op.name), k, spans) if OPERATOR in spans else f'`{k}`'} is {v}"
                      for k, v in types.items() if isinstance(v, TensorType))
        from archdsl.diagnostics.model import Label

        labels = (Label(value.node.span, f"its shape {value.type} comes from here"),) if isinstance(value, Value) and value.node.span != where else ()
        told = e.message
        if OPERATOR in spans:
            for side, p in zip(("left", "right"), parameters(op.name)):
                told = told.replace(f"`{p.name}`", f"the {side} operand")
        fault = error("A0304", f"{op.name}: {told}", where, told, labels=labels, notes=notes, help=help,
                      fixes=_other_axes(op, types, spans) if e.about == "axis" else ())
        raise (widened.marked(fault, _pinned([values[k] for k in e.mixed])) if e.mixed else fault) from None
    except OverflowError:
        raise error("A0602", f"the sizes of {op.name} grow beyond what can be computed with", span) from None
    result: tuple[TensorType, ...] = found if is_list(found) else (found,)
    for t in result:
        if len(t.shape) > MAX_AXES:
            raise limit(f"{op.name} would give a tensor of {len(t.shape):,} axes", span, help=f"at most {MAX_AXES} are allowed")
        count = 1
        for s in t.shape:
            if type(s) is int:
                if s < 0:
                    raise error("A0304", f"{op.name} would give a negative size: {t}", span, "not possible with these sizes")
                count *= s
        if count > MAX_ELEMENTS:
            raise limit(f"a tensor {t} is too large", span, "at most 2**62 elements are allowed")
    return result


def _pinned(mixed: list[Any]) -> Any:
    """Of operands whose element types differ, the one that is not of the model's, where another is."""
    kinds = {v.dtype: v for v in mixed if type(v) is Value}
    return next((v for k, v in kinds.items() if k != "float"), None) if "float" in kinds else None


@cache
def _least_ranks(name: str) -> tuple[tuple[str, int, bool], ...]:
    """(operand, how many axes its signature names, whether it may have more), those of any shape left out."""
    op = find(name)
    assert op is not None, name
    found: list[tuple[str, int, bool]] = []
    for p in op.decl.params:
        kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
        if isinstance(kind, tree.TensorType) and p.name not in op.own:
            any_number = sum(isinstance(a, (tree.AnyAxes, tree.AxesVar)) for a in kind.shape.axes)
            if any_number < len(kind.shape.axes):
                found.append((p.name, len(kind.shape.axes) - any_number, any_number > 0))
    return tuple(found)


def _ranks(op: Op, types: dict[str, Any]) -> None:
    """Raises OpError for an operand with fewer axes than the signature names, or more."""
    for name, least, more in _least_ranks(op.name):
        t = types.get(name)
        if type(t) is TensorType and len(t.shape) != least and not (more and len(t.shape) > least):
            needed = f"{'at least ' if more else ''}{least} {'axis is' if least == 1 else 'axes are'} needed"
            raise OpError(f"{needed}, and this has {len(t.shape)}: {t}", name)


def _filled(types: dict[str, Any]) -> None:
    """Raises OpError for an operand without numbers in it."""
    for name, t in types.items():
        if type(t) is TensorType and 0 in t.shape:
            raise OpError(f"`{name}` has an axis of 0 positions: {t}", name)


def _as_type(frame: Frame, value: Any) -> Any:
    kind = value.__class__
    if kind is Value:
        if frame.dtype and value.dtype in ("float", "bf16", "f16"):
            return TensorType(frame.dtype, value.shape)
        return value.type
    if kind is tuple:
        return tuple(_as_type(frame, v) for v in value)
    return as_attribute(latest(value))


def _other_axes(op: Op, types: dict[str, Any], spans: dict[Any, Span]) -> tuple[Fix, ...]:
    """Axes with which the op would take its operands."""
    from archdsl.elaborate.proposals import nearby_axes

    def fits(k: int) -> bool:
        try:
            return bool(op.infer(**{**types, "axis": k}) if op.infer else shapes.infer_by_signature(op, {**types, "axis": k}))
        except (OpError, OverflowError, ArithmeticError):
            return False

    ranks = [len(t.shape) for v in types.values() for t in (v if is_list(v) else (v,)) if isinstance(t, TensorType)]
    return nearby_axes(types.get("axis"), ranks[0] if ranks else 0, fits, spans.get("axis"))


__all__ = ["MISSING", "OPERATOR", "Parameter", "apply_op", "as_attribute", "default_of", "infer", "is_operand", "is_operand_list", "latest",
           "parameters"]
