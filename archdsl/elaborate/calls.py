"""Calls as they are written: `f(x)`, `x |> f`, `… as name`; argument lists, functions of hyper values, initialisers."""
from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from archdsl.diagnostics.model import ArchError, Fix, Label, error
from archdsl.diagnostics.poison import Poisoned
from archdsl.dims import TooLarge
from archdsl.elaborate import headers, initials, library
from archdsl.elaborate.apply import Args, apply, complete
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.limits import checked, limit
from archdsl.elaborate.operators import as_float
from archdsl.elaborate.ops import apply_op
from archdsl.elaborate.values import (
    TEMPLATES,
    BlockRef,
    Builtin,
    FnRef,
    InitRef,
    MaskRef,
    OpRef,
    RecordRef,
    UserOp,
    describe,
    has_tensor,
    is_list,
)
from archdsl.graph import InitExpr
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import tree


def arguments(frame: Frame, args: tuple[tree.Arg, ...]) -> Args:
    """Evaluated arguments: positional, by name, and their spans under position or name."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    spans: dict[Any, Span] = {}
    for a in args:
        if isinstance(a.value, tree.Rest):
            if frame.rest is None:
                raise error("A0202", "`...` forwards what a header with `...` received; this header has none", a.span)
            positional += frame.rest[0]
            named.update(frame.rest[1])
            spans.update(frame.rest[2])  # where the caller gives them
            continue
        waiting = frame.late.get(id(a.value)) if frame.late else None
        value = evaluate(frame, a.value) if waiting is None else waiting
        if a.spread:
            named.update(dict(getattr(value, "items", ())))
        elif a.name is None:
            if named and not spans.get("..."):
                raise error("A0205", "an argument without a name cannot follow one with a name", a.span)
            spans[len(positional)] = a.value.span
            positional.append(value)
        else:
            if a.name in named:
                raise error("A0205", f"`{a.name}` is given twice", a.span)
            named[a.name] = value
            spans[a.name] = a.span
    return positional, named, spans


def call(frame: Frame, node: tree.Call, label: str | None = None, first: tuple[Any, Span] | None = None) -> Any:
    """`func(args)`; `first` is a value piped in front; `label` the `as` name."""
    func = evaluate(frame, node.func)
    if isinstance(func, Builtin) and func.name == "collect":
        return _collect(frame, node)
    args = arguments(frame, node.args)
    if isinstance(func, BlockRef):
        template = complete(frame, func, args, node)
        if first is None:
            return replace(template, label=label) if label else template
        return apply(frame, template, ([first[0]], {}, {0: first[1]}), node.span, label, None)
    if first is not None:
        args = ([first[0], *args[0]], args[1], {0: first[1], **{k + 1 if isinstance(k, int) else k: v for k, v in args[2].items()}})
    return invoke(frame, func, args, node, label)


def invoke(frame: Frame, func: Any, args: Args, node: tree.Call, label: str | None) -> Any:
    positional, named, spans = args
    span = node.span
    if isinstance(func, OpRef) and (not label or isinstance(node.func, tree.Name) and node.func.id not in frame.vars):
        _names_no_op(func, label, span)
        return apply_op(frame, func.op.name, tuple(positional), named, span, spans)
    if isinstance(func, TEMPLATES):
        return apply(frame, func, args, span, label, default_segment(frame, node.func, func))
    if label and label != "_":
        raise error("A0209", f"`as {label}` names the application of a block; {describe(func)} owns nothing", span, **_without_as(span, label))
    if isinstance(func, Builtin):
        return builtin(frame, func, args, span)
    if isinstance(func, InitRef):
        return initializer(func.name, args, span)
    if isinstance(func, MaskRef):
        return library.call_mask(func.name, positional, named, span)
    if isinstance(func, RecordRef):
        return headers.record(frame, func, args, span)
    if isinstance(func, FnRef):
        from archdsl.elaborate.statements import call_fn

        return call_fn(frame, func, args, span)
    if isinstance(func, UserOp):
        raise error("A0218", f"`{func.decl.name}` is an op with a body of its own; those are lowered together with `scan`", span, "not built yet")
    if isinstance(func, (InitExpr,)):
        raise error("A0206", f"{describe(func)} is complete: it takes no arguments", span)
    raise error("A0206", f"{describe(func)} cannot be called", node.func.span, "not a block, an op or a function", **_hidden(frame, node.func))


def _hidden(frame: Frame, func: tree.Expr) -> dict[str, Any]:
    """Where a value took the name of an op or a function that was meant."""
    if not isinstance(func, tree.Name) or library.find(func.id) is None:
        return {}
    labels = (Label(frame.fixed[func.id], f"`{func.id}` is this value here"),) if func.id in frame.fixed else ()
    return {"help": f"this value hides the function `{func.id}`: give it another name", "labels": labels}


def _names_no_op(func: OpRef, label: str | None, span: Span) -> None:
    """`relu(x) as r` names nothing; `act(x) as r` may, as another `act` has weights. Raises A0209."""
    if label and label != "_":
        raise error("A0209", f"`as {label}` names the application of a block; the op `{func.op.name}` owns nothing", span, **_without_as(span, label))


def _without_as(span: Span, label: str) -> dict[str, Any]:
    """`help` and `fixes` of a name that names nothing."""
    written = re.match(rf"\s*as\s+{label}\b", span.source.text[span.end :])
    fixes = (Fix(f"remove `as {label}`", ((Span(span.source, span.end, span.end + written.end()), ""),)),) if written else ()
    return {"help": () if fixes else "drop the `as`", "fixes": fixes}


def builtin(frame: Frame, func: Builtin, args: Args, span: Span) -> Any:
    """A call of a function of hyper values, or of the op of the same name where a tensor is among the arguments."""
    positional, named, spans = args
    if func.name == "sum" and len(positional) == 1 and is_list(positional[0]) and has_tensor(positional[0]):
        if named and (misfit := _misfit(func, args, span)) is not None:
            raise misfit
        return _sum(frame, positional[0], span)
    if func.name in ("bank", "routed"):
        raise error("A0218", f"`{func.name}` is part of the language but not built yet", span, "not built yet")
    if any(has_tensor(v) or isinstance(v, InitExpr) for v in (*positional, *named.values())):
        from archdsl.ops.registry import of_function

        if of_function(func.name) is not None:
            return apply_op(frame, func.name, tuple(positional), named, span, spans)
    try:
        frame.session.step(span, 1 + library.work(func.name, positional))
        return checked(frame.session, func.call(*positional, **named), span)
    except (library.TooMuch, TooLarge) as e:
        raise limit(f"{func.name}: {e}", span) from None
    except library.Broken as e:
        raise error("A0310", str(e), span, "not so here") from None
    except library.HyperError as e:
        raise error("A0204", f"{func.name}: {e}", span, notes=(func.doc,)) from None
    except (TypeError, ValueError, ArithmeticError, IndexError) as e:
        misfit = _misfit(func, args, span)
        raise misfit or error("A0221", f"{func.name} does not take these arguments", span, notes=(func.doc, str(e))) from None


def _misfit(func: Builtin, args: Args, span: Span) -> ArchError | None:
    """What is wrong with the number and names of the arguments of a function of hyper values."""
    code = getattr(func.call, "__code__", None)
    if code is None:
        return None
    names, many = code.co_varnames[: code.co_argcount], bool(code.co_flags & 4)
    positional, named, spans = args
    odd = next((n for n in named if n not in names), None)
    if odd is not None:
        from archdsl.elaborate.hints import mend

        known = Span(spans[odd].source, spans[odd].start, spans[odd].start + len(odd))
        where = f"`{func.name}` of a list" if positional and is_list(positional[0]) else f"`{func.name}`"
        told = mend(odd, [n for n in names if len(n) > 2], known)
        told["fixes"] = told["fixes"] or _removed(spans[odd])
        return error("A0202", f"{where} has no argument `{odd}`", spans[odd], "no such argument", notes=(func.doc,), **told)
    if len(positional) > len(names) and not many:
        return error("A0205", f"`{func.name}` takes {len(names)} argument{'s' * (len(names) != 1)}, not {len(positional)}",
                     spans.get(len(names), span), "one too many" if len(positional) == len(names) + 1 else "too many", notes=(func.doc,),
                     fixes=_removed(spans[len(names)]) if len(positional) == len(names) + 1 and len(names) in spans else ())
    missing = next((n for n in names[len(positional) : len(names) - len(func.call.__defaults__ or ())] if n not in named), None)
    return error("A0203", f"`{func.name}` needs `{missing}`", span, f"`{missing}` is missing", notes=(func.doc,)) if missing is not None else None


def _removed(argument: Span) -> tuple[Fix, ...]:
    """The list without one of its arguments, which is not the first."""
    before = re.search(r",\s*$", argument.source.text[: argument.start])
    gone = Span(argument.source, before.start(), argument.end) if before is not None else argument
    return (Fix(f"remove `{argument.text}`", ((gone, ""),)),)


def _sum(frame: Frame, values: tuple[Any, ...], span: Span) -> Any:
    """`sum(collect(balance))`: the tensors of a list, added up."""
    total = values[0]
    for v in values[1:]:
        total = apply_op(frame, "add", (total, v), {}, span)
    return total


def initializer(name: str, args: Args, span: Span) -> InitExpr:
    """`trunc_normal(std = 0.02)`. Raises A0202 for an unknown argument."""
    from archdsl.ops.initializers import INITIALIZERS, REQUIRED

    names = dict(INITIALIZERS[name])
    spans = args[2]
    values = headers.by_name(args, list(names), span, f"{name} takes {len(names)} arguments", f"the initialiser {name} has no argument")
    missing = [k for k, v in names.items() if v is REQUIRED and k not in values]
    if missing:
        raise error("A0203", f"the initialiser {name} needs `{missing[0]}`", span, help=f"for example `{name}({missing[0]} = 0.5)`")
    for k, v in values.items():
        fault = initials.argument(name, k, v, spans.get(k, spans.get(list(names).index(k), span)))
        if fault is not None:
            raise fault
    initials.limits(name, {**names, **values}, span)
    merged = {k: as_float(v, span) if isinstance(v, Fraction) else v for k, v in {**names, **values}.items()}
    return InitExpr(name, (), tuple(sorted(merged.items())))


def _collect(frame: Frame, node: tree.Call) -> Any:
    if len(node.args) != 1 or not isinstance(node.args[0].value, tree.Name):
        given = node.args[0].value if len(node.args) == 1 else None
        name = given.value if isinstance(given, tree.Str) else given.name if isinstance(given, tree.Member) else ""
        fixes = (Fix(f"write `{name}`", ((given.span, name),)),) if given is not None and name.isidentifier() else ()
        raise error("A0219", "`collect` takes the name of an emitted value", given.span if given is not None else node.span,
                    "not a name" if given is not None else "no name",
                    help=() if fixes else "for example `collect(balance)`", fixes=fixes)
    if frame.builder.incomplete:
        raise Poisoned()
    name = node.args[0].value.id
    emits = list(frame.builder.emits.items())[frame.emitted :]
    return tuple(v for k, v in emits if k.rsplit(".", 1)[-1] == name)


def pipe(frame: Frame, value: Any, item: tree.Expr) -> Any:
    """`value |> item`: the first argument of a call, the input of a template, the tensor of a layout word."""
    from archdsl.elaborate import layouts
    label = None
    if isinstance(item, tree.Named):
        label, item = item.name, item.expr
    if isinstance(item, tree.LayoutCall):
        return layouts.layout_call(frame, item, value)
    if isinstance(item, tree.Call):
        return call(frame, item, label, (value, item.span))
    func = evaluate(frame, item)
    if isinstance(func, BlockRef):
        raise error("A0203", f"`{func.decl.name}` needs its arguments", item.span, "a block without its first list",
                    help=f"write `{func.decl.name}()`" if not func.decl.params else ())
    if isinstance(func, OpRef):
        _names_no_op(func, label if isinstance(item, tree.Name) and item.id not in frame.vars else None, item.span)
        return apply_op(frame, func.op.name, (value,), {}, item.span)
    if isinstance(func, Builtin):
        return builtin(frame, func, ([value], {}, {}), item.span)
    if isinstance(func, TEMPLATES):
        return apply(frame, func, ([value], {}, {}), item.span, label, default_segment(frame, item, func))
    raise error("A0206", f"`|>` needs a block or an op, this is {describe(func)}", item.span)


def named(frame: Frame, node: tree.Named) -> Any:
    if isinstance(node.expr, tree.Call):
        return call(frame, node.expr, node.name)
    value = evaluate(frame, node.expr)
    if isinstance(value, TEMPLATES) and not isinstance(value, OpRef):
        return replace(value, label=node.name)
    raise error("A0209", f"`as {node.name}` names the application of a block, or a block as an argument; this is {describe(value)}", node.span)


def default_segment(frame: Frame, func: tree.Expr, template: Any) -> str | None:
    """The segment that an application gets without an `as` at the call: the argument's own name, or the block parameter's."""
    if getattr(template, "label", None):
        return template.label
    if isinstance(func, tree.Name):
        if func.id in frame.anonymous:
            return "_"
        if func.id in frame.blocks:
            return func.id
    return getattr(template, "hint", None)
