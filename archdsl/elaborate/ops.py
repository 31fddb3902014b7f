"""Applying ops: arguments to operands and attributes, shape and dtype rules, f32 islands, initialisers."""
from __future__ import annotations

from fractions import Fraction
from typing import Any

from archdsl import shapes
from archdsl.diagnostics.model import error
from archdsl.dims import Dim
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.values import Condition, OpRef, describe
from archdsl.graph import FLOATS, InitExpr, Mask, TensorType, Value
from archdsl.ops.registry import Op, OpError, find
from archdsl.source import Span
from archdsl.syntax import tree

MAX_ELEMENTS = 2**62


def is_operand(p: tree.Param) -> bool:
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    return isinstance(kind, tree.TensorType) or is_operand_list(p)


def is_operand_list(p: tree.Param) -> bool:
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    return isinstance(kind, tree.ListType) and isinstance(kind.item, tree.TensorType)


def apply_op(frame: Frame, name: str, args: tuple[Any, ...], named: dict[str, Any], span: Span, spans: dict[Any, Span] | None = None, label: str = "") -> Any:
    """One op node; returns its Value, or a tuple for several results, or an InitExpr where an initialiser is being written."""
    op = find(name)
    assert op is not None, name
    frame.session.step(span)
    values = _arguments(op, args, named, span, spans or {})
    if not _tensors(op, values) and (frame.init or any(isinstance(v, InitExpr) for v in _flat(values.values()))):
        return _initialiser(op, values)
    if name == "identity":
        return values["x"]
    types = infer(frame, op, values, span, spans or {})
    operands, attrs = [], {}
    for p in op.decl.params:
        (operands.append(_operand(frame, values.get(p.name), span)) if is_operand(p) else attrs.__setitem__(p.name, _attribute(values.get(p.name))))
    node = frame.builder.add(op.name, tuple(operands), attrs, types, span, label)
    return node.values[0] if len(types) == 1 else node.values


def _flat(values: Any) -> Any:
    for v in values:
        yield from _flat(v) if isinstance(v, tuple) else (v,)


def _tensors(op: Op, values: dict[str, Any]) -> bool:
    return any(isinstance(v, Value) for v in _flat(values.values())) or any(isinstance(v, Mask) and any(True for _ in v.tensors()) for v in values.values())


def _initialiser(op: Op, values: dict[str, Any]) -> InitExpr:
    operands = tuple(_number(values.get(p.name)) for p in op.decl.params if is_operand(p))
    while operands and operands[-1] is None:
        operands = operands[:-1]
    attrs = tuple(sorted((p.name, _attribute(values[p.name])) for p in op.decl.params if not is_operand(p) and p.name in values))
    return InitExpr(op.name, operands, attrs)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, Fraction) else tuple(map(_number, value)) if isinstance(value, tuple) else value


def _attribute(value: Any) -> Any:
    value = _number(value)
    if isinstance(value, OpRef):
        return value.op.name
    return value


def _operand(frame: Frame, value: Any, span: Span) -> Any:
    """An operand as it enters the graph; inside `f32 { }` floats are widened first."""
    if isinstance(value, tuple):
        return tuple(_operand(frame, v, span) for v in value)
    if isinstance(value, Value) and frame.dtype and value.dtype in ("float", "bf16", "f16") and value.dtype in FLOATS:
        return Value(frame.builder.add("at_least", (value,), {"dtype": frame.dtype}, (TensorType(frame.dtype, value.shape),), span))
    return _number(value)


def infer(frame: Frame, op: Op, values: dict[str, Any], span: Span, spans: dict[Any, Span]) -> tuple[TensorType, ...]:
    """The result types; a fault is reported at the operand it is about."""
    types = {k: _as_type(frame, v) for k, v in values.items()}
    try:
        result = op.infer(**{p.name: types.get(p.name) for p in op.decl.params}) if op.infer else shapes.infer_by_signature(op, types)
    except OpError as e:
        where = spans.get(e.about, span)
        value = values.get(e.about or "")
        help = tuple(h for h in (e.help, f"add `require {e.require}` to the model" if e.require and e.require not in (e.help or "") else None) if h)
        notes = tuple(f"`{k}` is {v}" for k, v in types.items() if isinstance(v, TensorType))
        from archdsl.diagnostics.model import Label

        labels = (Label(value.node.span, f"its shape {value.type} comes from here"),) if isinstance(value, Value) and value.node.span != where else ()
        raise error("A0304", f"{op.name}: {e.message}", where, e.message, labels=labels, notes=notes, help=help) from None
    except OverflowError:
        raise error("A0602", f"the sizes of {op.name} grow beyond what can be computed with", span) from None
    result = result if isinstance(result, tuple) else (result,)
    for t in result:
        count = 1
        for s in t.shape:
            if type(s) is int:
                if s < 0:
                    raise error("A0304", f"{op.name} would give a negative size: {t}", span, "not possible with these sizes")
                count *= s
        if count > MAX_ELEMENTS:
            raise error("A0602", f"a tensor {t} is too large", span, f"at most 2**62 elements are allowed")
    return result


def _as_type(frame: Frame, value: Any) -> Any:
    if isinstance(value, Value):
        if frame.dtype and value.dtype in ("float", "bf16", "f16"):
            return TensorType(frame.dtype, value.shape)
        return value.type
    if isinstance(value, tuple):
        return tuple(_as_type(frame, v) for v in value)
    return _number(value)


def _arguments(op: Op, args: tuple[Any, ...], named: dict[str, Any], span: Span, spans: dict[Any, Span]) -> dict[str, Any]:
    """Binds arguments to the op's parameters, defaults filled in."""
    params = op.decl.params
    names = [p.name for p in params]
    if len(args) > len(names):
        raise error("A0205", f"{op.name} takes {len(names)} arguments, not {len(args)}", spans.get(len(names), span), notes=(op.signature,))
    values: dict[str, Any] = dict(zip(names, args))
    for i, name in enumerate(names[: len(args)]):
        if i in spans:
            spans[name] = spans[i]
    for name, value in named.items():
        if name not in names:
            raise error("A0202", f"{op.name} has no argument `{name}`", spans.get(name, span), notes=(op.signature,), help=did_you_mean(name, names))
        if name in values:
            raise error("A0205", f"`{name}` is given twice", spans.get(name, span))
        values[name] = value
    for p in params:
        if p.name in values:
            _check(op, p, values[p.name], spans.get(p.name, span))
        elif p.default is None:
            raise error("A0203", f"{op.name} needs `{p.name}`", span, notes=(op.signature,))
        else:
            values[p.name] = _default(op, p)
    return values


def _default(op: Op, p: tree.Param) -> Any:
    """The value of a header default: a literal of the signature."""
    d = p.default
    if isinstance(d, tree.Unary) and isinstance(d.operand, tree.Number):
        return -d.operand.value
    if isinstance(d, (tree.Number, tree.Str, tree.Bool)):
        return d.value
    if isinstance(d, tree.NoneLit):
        return None
    if isinstance(d, tree.Name) and d.id in ("full", "causal"):
        return Mask(d.id)
    if isinstance(d, (tree.List, tree.Tuple)):
        return tuple(i.value for i in d.items)  # type: ignore[attr-defined]
    raise AssertionError(f"the default of {op.name}.{p.name} is no literal")


def _check(op: Op, p: tree.Param, value: Any, span: Span) -> None:
    """Operands are tensors or numbers; attributes are not tensors."""
    if isinstance(value, Condition):
        raise error("A0204", f"`{p.name}` of {op.name} cannot be a condition on run-time sizes", span)
    if is_operand(p):
        if is_operand_list(p):
            if not isinstance(value, tuple) or not all(isinstance(v, (Value, InitExpr)) for v in value):
                raise error("A0204", f"`{p.name}` of {op.name} is a list of tensors, not {describe(value)}", span)
        elif not (value is None and isinstance(p.type, tree.OptionalType)) and not isinstance(value, (Value, InitExpr, int, float, Fraction, Dim)):
            raise error("A0204", f"`{p.name}` of {op.name} is a tensor, not {describe(value)}", span, f"this is {describe(value)}", notes=(op.signature,))
    elif any(isinstance(v, Value) for v in _flat((value,))):
        raise error("A0204", f"`{p.name}` of {op.name} is chosen when the spec is built; a tensor cannot stand here", span, notes=(op.signature,))
