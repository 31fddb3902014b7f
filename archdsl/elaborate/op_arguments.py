"""The parameters of ops, and arguments bound to them: which are tensors, which are chosen when the spec is built, and what they may be."""
from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim, largest
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import mend, without_call
from archdsl.elaborate.limits import MAX_AXES
from archdsl.elaborate.values import TEMPLATES, Condition, Late, OpRef, describe
from archdsl.graph import InitExpr, Mask, Value
from archdsl.ops.registry import Op, find
from archdsl.records import record, replace
from archdsl.source import Span
from archdsl.syntax import tree

LARGEST = 2**63  # of a whole number inside a graph: what an int64 holds


def is_operand(p: tree.Param) -> bool:
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    return isinstance(kind, tree.TensorType) or is_operand_list(p)


def is_operand_list(p: tree.Param) -> bool:
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    return isinstance(kind, tree.ListType) and isinstance(kind.item, tree.TensorType)


OPERATOR = "operator"
"""Among the spans of an application: it is written as an operator, with its operands at the left and the right."""
MISSING = object()


@record()
class Parameter:
    """A parameter of an op, read off its signature once."""

    name: str
    operand: bool
    many: bool
    optional: bool
    default: Any
    number: bool  # an operand that may be a number
    type: tree.Type
    plain: frozenset[type]  # of values that fit at sight


_PLAIN: dict[str, frozenset[type]] = {
    "int": frozenset({int, Dim}), "float": frozenset({float}), "bool": frozenset({bool}), "str": frozenset({str}), "mask": frozenset({Mask}),
}


@cache
def parameters(name: str) -> tuple[Parameter, ...]:
    """The parameters of an op in order."""
    op = find(name)
    assert op is not None, name
    made: list[Parameter] = []
    for p in op.decl.params:
        assert p.type is not None, f"{name}.{p.name} has no type"
        default = MISSING if p.default is None else default_of(op, p)
        plain = _PLAIN.get(p.type.name, frozenset()) if isinstance(p.type, tree.NameType) else frozenset[type]()
        made.append(Parameter(p.name, is_operand(p), is_operand_list(p), isinstance(p.type, tree.OptionalType), default, p.name in op.numbers,
                              p.type, plain))
    return tuple(made)


def bound_arguments(frame: Frame, op: Op, params: tuple[Parameter, ...], args: tuple[Any, ...], named: dict[str, Any], span: Span,
               spans: dict[Any, Span]) -> dict[str, Any]:
    """Binds arguments to the op's parameters, defaults filled in, in the order of the signature."""
    if len(args) > len(params):
        raise error("A0205", f"{op.name} takes {len(params)} arguments, not {len(args)}", spans.get(len(params), span), notes=(op.signature,))
    given: dict[str, Any] = {}
    for i, value in enumerate(args):
        name = params[i].name
        given[name] = value
        if i in spans:
            spans[name] = spans[i]
    if named:
        names = [p.name for p in params]
        for name, value in named.items():
            if name not in names:
                raise error("A0202", f"{op.name} has no argument `{name}`", spans.get(name, span), notes=(op.signature,),
                            **mend(name, names, spans.get(name)))
            if name in given:
                raise error("A0205", f"`{name}` is given twice", spans.get(name, span))
            given[name] = value
    values: dict[str, Any] = {}
    for p in params:
        value = given.get(p.name, MISSING)
        if value is not MISSING:
            try:
                if p.operand:
                    if type(value) is not Value or p.many:
                        notes = (op.signature,) if OPERATOR not in spans else ()
                        _check_operand(op, p, value, spans.get(p.name, span), called_in(op, params, p.name, spans), notes)
                elif (type(value) not in p.plain or type(value) is int and not -LARGEST <= value < LARGEST) and p.name not in op.own:
                    value = _checked_attribute(frame, op, p, value, spans.get(p.name, span))
            except ArchError as e:
                raise _exchanged(e, params, given, p.name, spans) from None
        elif p.default is MISSING:
            raise error("A0203", f"{op.name} needs `{p.name}`", span, notes=(op.signature,), fixes=without_call(span))
        else:
            value = p.default
        values[p.name] = value
    return values


def _exchanged(e: ArchError, params: tuple[Parameter, ...], given: dict[str, Any], name: str, spans: dict[Any, Span]) -> ArchError:
    """A tensor where a value belongs, or the other way round, with the argument that may have been meant for it."""
    from archdsl.elaborate.proposals import swapped

    operands = {p.name: p.operand for p in params}
    tensor = isinstance(given[name], Value)

    def fits(other: str) -> bool:
        return isinstance(given[other], Value) != tensor and operands[other] == tensor != operands[name]

    labels, fixes = swapped(spans, name, fits, [n for n in given if n != name])
    return ArchError(*(replace(d, labels=(*d.labels, *labels), fixes=(*fixes, *d.fixes)) for d in e.diagnostics))


def default_of(op: Op, p: tree.Param) -> Any:
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


def called_in(op: Op, params: tuple[Parameter, ...], name: str, spans: dict[Any, Span]) -> str:
    """What messages call an operand: by its name, or the side of the operator it stands on."""
    if OPERATOR in spans:
        return f"the {'left' if name == params[0].name else 'right'} operand of `{spans[OPERATOR]}`"
    return f"`{name}` of {op.name}"


def _check_operand(op: Op, p: Parameter, value: Any, span: Span, called: str, notes: tuple[str, ...]) -> None:
    """Operands are tensors; numbers where the op says so, and where a tensor is missing altogether (which is told elsewhere)."""
    kind = value.__class__
    if kind is Condition:
        raise error("A0204", f"{called} cannot be a condition on run-time sizes", span)
    if p.many:
        if kind is not tuple or not all(isinstance(v, (Value, InitExpr)) for v in value):
            raise error("A0204", f"{called} is a list of tensors, not {describe(value)}", span)
    elif not (value is None and p.optional) and not isinstance(value, (InitExpr, int, float, Fraction, Dim)):
        help = "apply it: `(…)(x)`" if isinstance(value, TEMPLATES) else ()
        raise error("A0204", f"{called} is a tensor, not {describe(value)}", span, f"this is {describe(value)}", notes=notes, help=help)


def need_tensors(op: Op, params: tuple[Parameter, ...], values: dict[str, Any], span: Span, spans: dict[Any, Span]) -> None:
    """Beside a tensor, numbers stand only where the op takes them, and initialisers nowhere. Raises A0204."""
    for p in params:
        value = values[p.name]
        if not p.operand or type(value) is Value or value is None:
            continue
        for v in value if p.many else ():
            if type(v) is not Value:
                raise error("A0204", f"`{p.name}` of {op.name} is a list of tensors, and one item is {describe(v)}", spans.get(p.name, span))
        if p.many:
            continue
        _held(value, spans.get(p.name, span))
        if not p.number or isinstance(value, InitExpr):
            raise error("A0204", f"{called_in(op, params, p.name, spans)} is a tensor, not {describe(value)}", spans.get(p.name, span),
                        f"this is {describe(value)}", notes=(op.signature,) if OPERATOR not in spans else (), help=_position(op, value, values))


def _position(op: Op, value: Any, values: dict[str, Any]) -> tuple[str, ...]:
    """`take(x, 0, axis = 1)`: one position is read by an index in brackets."""
    axis = values.get("axis")
    if op.name not in ("take", "gather") or type(value) is not int or type(axis) is not int or not -MAX_AXES <= axis <= MAX_AXES:
        return ()
    inside = [":"] * axis + [str(value)] if axis >= 0 else ["...", str(value), *[":"] * (-1 - axis)]
    return (f"one position of that axis is `x[{', '.join(inside)}]`",)


def _checked_attribute(frame: Frame, op: Op, p: Parameter, value: Any, span: Span) -> Any:
    """The value as the type of the parameter takes it: attributes are chosen when the spec is built, so they are no tensors. Raises A0204."""
    from archdsl.elaborate.headers import try_convert

    kind = value.__class__
    if kind is Value or kind is tuple and any(type(v) is Value for v in flattened(value)):
        raise error("A0204", f"`{p.name}` of {op.name} is chosen when the spec is built; a tensor cannot stand here", span, notes=(op.signature,))
    if kind is OpRef:
        value = value.op.name  # `reduce([…] -> […], mean)`
    ok, result = try_convert(frame, latest(value), p.type)
    if not ok:
        raise error("A0204", f"`{p.name}` of {op.name} is of type {p.type.span.text}, not {describe(value)}", span, f"this is {describe(value)}",
                    notes=(op.signature,))
    if type(result) is int and not -LARGEST <= result < LARGEST and try_convert(frame, Fraction(1, 2), p.type)[0]:
        result = float(result)
    _held(result, span)
    return value if kind is Late else result


def _held(value: Any, span: Span) -> None:
    """Raises A0221 for a whole number that no int64 holds, one in a size included."""
    for v in flattened((value,)):
        if type(v) is int and not -LARGEST <= v < LARGEST or isinstance(v, Dim) and largest(v) >= LARGEST:
            raise error("A0221", "this number is out of range", span, "a whole number of a tensor lies between -2**63 and 2**63",
                        help="`float(…)` makes it a float")


def latest(value: Any) -> Any:
    """What a late argument is in the present pass; any other value itself."""
    while type(value) is Late:
        value = value.value
    return value


def flattened(values: Any) -> Any:
    for v in values:
        if type(v) is tuple:
            yield from flattened(v)
        else:
            yield v
