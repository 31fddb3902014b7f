"""Headers: binding both argument lists, types of hyper values, results against the declared outputs, faults sent to the caller's text."""
from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from archdsl import records, shapes
from archdsl.diagnostics.model import ArchError, Diagnostic, Fix, Given, Label, error, in_library, moved
from archdsl.diagnostics.poison import Poisoned
from archdsl.elaborate import widened
from archdsl.elaborate.builder import join
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, Override, good
from archdsl.elaborate.hints import mend, nearest_help
from archdsl.elaborate.hyper_types import convert, set_inside, try_convert
from archdsl.elaborate.values import (
    TEMPLATES,
    BlockRef,
    Bound,
    Defaults,
    RecordRef,
    RecordValue,
    Template,
    describe,
    is_list,
)
from archdsl.graph import FLOATS, Knob, TensorType, Value
from archdsl.records import replace
from archdsl.source import NOWHERE, Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.apply import Args


def is_tensor(p: tree.Param) -> bool:
    kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
    return isinstance(kind, tree.TensorType)


@records.record()
class Header:
    """What a block's header says, read off the tree once. `tensors`: of the second list, each with
    its position, its type without `?` and whether it may be none; `hyper`: the others."""

    params: tuple[tree.Param, ...]
    names: tuple[str, ...]
    inputs: tuple[tree.Param, ...]
    input_names: frozenset[str]
    has_rest: bool
    needed: tuple[str, ...]
    tensors: tuple[tuple[int, tree.Param, tree.TensorType, bool], ...]
    hyper: tuple[tuple[int, tree.Param], ...]
    fixed: dict[str, Span]
    anonymous: frozenset[str]


def header(frame: Frame, decl: tree.Block) -> Header:
    """The header of a block."""
    known = frame.session.headers.get(id(decl))
    if known is None:
        params = tuple(p for p in decl.params if not p.rest)
        inputs = tuple(p for p in decl.inputs if not p.rest)
        tensors: list[tuple[int, tree.Param, tree.TensorType, bool]] = []
        for i, p in enumerate(decl.inputs):
            kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
            if isinstance(kind, tree.TensorType) and not p.rest:
                tensors.append((i, p, kind, kind is not p.type))
        known = frame.session.headers[id(decl)] = Header(
            params, tuple(p.name for p in params), inputs,
            frozenset(p.name for p in inputs), len(inputs) < len(decl.inputs),
            tuple(p.name for p in inputs if p.default is None and not isinstance(p.type, tree.OptionalType)), tuple(tensors),
            tuple((i, p) for i, p in enumerate(decl.inputs) if not p.rest and not is_tensor(p)),
            {p.name: p.span for p in (*decl.params, *decl.inputs) if not is_tensor(p) and not p.rest},
            frozenset(p.name for p in decl.params if p.anonymous))
    return known


def declared(decl: tree.Block) -> tuple[Label]:
    return (Label(decl.name_span, f"`{decl.name}` is declared here"),)


# ---------------------------------------------------------------- the first list
def first_list(frame: Frame, ref: BlockRef, args: Args, node: tree.Call) -> dict[str, Bound]:
    """Explicit arguments by name, then the defaults in force. Header defaults wait for the application."""
    positional, named, spans = args
    decl = ref.decl
    head = header(frame, decl)
    names = head.names
    if len(positional) > len(names):
        raise error("A0205", f"`{decl.name}` takes {len(names)} argument{'s' * (len(names) != 1)}, not {len(positional)}",
                    spans.get(len(names), node.span), "one too many", labels=declared(decl), notes=(signature(decl),),
                    help="tensors stand in a second list: `Block(arguments)(x)`")
    given: dict[str, tuple[Any, Span]] = {names[i]: (v, spans.get(i, node.span)) for i, v in enumerate(positional)}
    for k, v in named.items():
        if k not in names:
            span = spans.get(k, node.span)
            help, fixes = nearest_help(k, names, Span(span.source, span.start, span.start + len(k)) if span.text.startswith(k) else None)
            raise error("A0202", f"`{decl.name}` has no argument `{k}`", span, "no such argument", labels=declared(decl), notes=(signature(decl),),
                        help=help, fixes=fixes)
        if k in given:
            raise error("A0205", f"`{k}` is given twice", spans.get(k, node.span), "the second",
                        labels=(Label(given[k][1], f"this is `{k}` as well"),), notes=(signature(decl),))
        given[k] = (v, spans.get(k, node.span))
    out: dict[str, Bound] = {}
    entries = frame.defaults.entries
    for p in head.params:
        name = p.name
        if name in given:
            value, span = given[name]
            try:
                out[name] = Bound(convert(frame, good(value), p.type, span, name), span, "argument")
            except ArchError as e:
                e = _exchanged(frame, e, head.params, given, name)
                if isinstance(value, Value) and len(positional) == 1 and not named and all(q.default is not None for q in head.params):
                    e = _unopened(e, node)
                raise _two_sizes(e, decl, names.index(name), positional, spans) from None
        elif entries and (id(decl), name) in entries:
            entry = entries[id(decl), name]
            frame.session.used_defaults.add((frame.defaults.key, id(decl), name))
            out[name] = Bound(convert(frame, entry.value, p.type, entry.span, name), entry.span, "default")
        elif p.default is None:
            raise error("A0203", f"`{decl.name}` needs `{name}`", node.span, f"`{name}` is missing", labels=declared(decl), notes=(signature(decl),))
    return out


def _exchanged(frame: Frame, e: ArchError, params: tuple[tree.Param, ...], given: dict[str, tuple[Any, Span]], name: str) -> ArchError:
    """A misfit of types, with the argument that may have been meant for it: each of the two fits where the other one stands."""
    from archdsl.elaborate.proposals import swapped

    types = {p.name: p.type for p in params if p.type is not None}

    def fits(other: str) -> bool:
        mine, theirs = given[name][0], given[other][0]
        here, there = types[name], types[other]
        return not try_convert(frame, theirs, there)[0] and try_convert(frame, mine, there)[0] and try_convert(frame, theirs, here)[0]

    labels, fixes = swapped({k: span for k, (_, span) in given.items()}, name, fits, [n for n in given if n != name and n in types])
    return ArchError(*(replace(d, labels=(*d.labels, *labels), help=() if fixes else d.help, fixes=(*fixes, *d.fixes)) for d in e.diagnostics))


def _unopened(e: ArchError, node: tree.Call) -> ArchError:
    """`LayerNorm(x)` as `LayerNorm()(x)`."""
    text, at = node.span.source.text, node.func.span.end
    if text[node.span.end : node.span.end + 1] == "(" or text[max(0, node.span.start - 200) : node.span.start].rstrip().endswith("|>"):
        return e  # it has its tensor
    fix = Fix(f"write `{node.func.span.text}(){text[at : node.span.end]}`", ((Span(node.span.source, at, at), "()"),))
    return ArchError(*(replace(d, fixes=(fix, *d.fixes)) for d in e.diagnostics))


def _two_sizes(e: ArchError, decl: tree.Block, index: int, positional: list[Any], spans: dict[Any, Span]) -> ArchError:
    """The misfit of the second of two numbers, with what `Linear(64, 64)` is meant to be."""
    from archdsl.elaborate.proposals import one_size

    if index >= len(positional) or any(type(v) is not int or i not in spans for i, v in enumerate(positional[: index + 1])):
        return e
    help, fixes = one_size(decl, index, [spans[i] for i in range(index + 1)])
    return ArchError(*(replace(d, help=help, fixes=fixes) if fixes else d for d in e.diagnostics))


def signature(decl: tree.Block) -> str:
    """The header on one line, as written."""
    span = decl.span
    head = span.text.split("{", 1)[0] if decl.body is not None else span.text
    text = " ".join(head.split())
    return text.replace("( ", "(").replace(", )", ")")


def allowed(frame: Frame, p: tree.Param) -> Any:
    """The values of a parameter's domain, read where the parameter has its value. One that cannot be read with these values is no reason not
    to build the model: it keeps its fault."""
    from archdsl.elaborate.domains import Domain, domain

    try:
        return domain(frame, p) if p.domain is not None else None
    except Poisoned:  # it reads what is told of already
        return None
    except ArchError as fault:
        return Domain("unreadable", fault=tuple(fault.diagnostics))


# ---------------------------------------------------------------- lists of values
def by_name(args: Args, names: list[str], span: Span, too_many: str, unknown: str) -> dict[str, Any]:
    """Evaluated arguments under these names. Raises A0205 with `too_many`, and A0202 with `unknown` in front of the name that is not among them."""
    positional, named, spans = args
    if len(positional) > len(names):
        raise error("A0205", too_many, span)
    values = dict(zip(names, positional))
    for k, v in named.items():
        if k not in names:
            raise error("A0202", f"{unknown} `{k}`", spans.get(k, span), **mend(k, names, spans.get(k, span)))
        values[k] = v
    return values


def record(frame: Frame, ref: RecordRef, args: Args, span: Span) -> RecordValue:
    """`Scaling(factor = 8)`: fields in order, header defaults filled in."""
    names, spans = [f.name for f in ref.decl.fields], args[2]
    values = by_name(args, names, span, f"the record {ref.decl.name} has {len(names)} fields", f"the record {ref.decl.name} has no field")
    places = {**{n: spans[i] for i, n in enumerate(names) if i in spans}, **spans}
    inner = Frame(frame.session, ref.module, frame.builder)
    for f in ref.decl.fields:
        if f.name not in values:
            if f.default is None:
                raise error("A0203", f"the record {ref.decl.name} needs `{f.name}`", span)
            values[f.name] = evaluate(inner, f.default)
            places[f.name] = f.default.span
        values[f.name] = inner.vars[f.name] = convert(inner, values[f.name], f.type, places.get(f.name, span), f.name)
    return RecordValue(ref.decl.name, tuple((n, values[n]) for n in names))


# ---------------------------------------------------------------- binding at an application
def bind(inner: Frame, frame: Frame, template: Template, args: Args, span: Span) -> None:
    """Fills the frame of a body: tensors and their sizes first, then hyper arguments in the order of the header."""
    decl = template.ref.decl
    head = header(frame, decl)
    taken = _second_list(inner, decl, head, args, span)
    for name, b in template.args.items():
        inner.vars[name] = b.value
    _match_inputs(inner, decl, head, taken, args[2], span)
    _header_defaults(inner, decl, template)
    _hyper_inputs(inner, decl, head, taken, args[2], span)
    inner.anonymous = head.anonymous
    inner.blocks = frozenset([n for n in head.names if type(inner.vars.get(n)) in TEMPLATES and n not in head.anonymous])
    inner.fixed.update(head.fixed)
    inner.args = template.args
    if inner.session.told is not None:
        inner.session.told.append((span, decl.name, tuple(_origin(inner, p, template) for p in head.params)))


def _origin(inner: Frame, p: tree.Param, template: Template) -> tuple[str, Any, str, Span]:
    """(name, value, where it comes from, that place): argument, default, header or setting."""
    bound, knob = template.args.get(p.name), inner.builder.knobs.get(join(inner.prefix, p.name))
    value = inner.vars[p.name]
    if knob is not None and knob.value is not knob.default:
        return p.name, value, "setting", p.span
    if bound is not None:
        return p.name, value, bound.origin, bound.span
    return p.name, value, "header", p.default.span if p.default is not None else p.span


def _second_list(inner: Frame, decl: tree.Block, head: Header, args: Args, span: Span) -> dict[str, Any]:
    positional, named, spans = args
    params, has_rest = head.inputs, head.has_rest
    if len(positional) > len(params) and not has_rest:
        raise error("A0205", f"`{decl.name}` takes {len(params)} input{'s' * (len(params) != 1)}, not {len(positional)}",
                    spans.get(len(params), span), labels=declared(decl), notes=(signature(decl),))
    taken = {p.name: v for p, v in zip(params, positional)}
    rest: dict[str, Any] = {}
    for k, v in named.items():
        if k in taken:
            raise error("A0205", f"`{k}` is given twice", spans.get(k, span))
        if k in head.input_names:
            taken[k] = v
        elif has_rest:
            rest[k] = v
        else:
            raise error("A0202", f"`{decl.name}` has no input `{k}`", spans.get(k, span), labels=declared(decl), notes=(signature(decl),),
                        **mend(k, [p.name for p in params], spans.get(k, span)))
    if has_rest:
        inner.rest = (tuple(positional[len(params) :]), rest, {k: spans[k] for k in rest if k in spans})
    for name in head.needed:
        if name not in taken:
            raise error("A0203", f"`{decl.name}` needs the input `{name}`", span, labels=declared(decl), notes=(signature(decl),))
    return taken


def _binding(inner: Frame) -> shapes.Binding:
    return shapes.Binding(inner.vars, lambda e: evaluate(inner, e))


def _match_inputs(inner: Frame, decl: tree.Block, head: Header, taken: dict[str, Any], spans: dict[Any, Span], span: Span) -> None:
    binding = _binding(inner)
    pending: list[tuple[tree.Param, tree.TensorType, Value, Span]] = []
    for i, p, kind, optional in head.tensors:
        value = good(taken.get(p.name))
        where = spans.get(p.name) or spans.get(i, span)
        if value is None:
            if not optional:
                raise error("A0204", f"the input `{p.name}` of `{decl.name}` cannot be none", where)
        elif not isinstance(value, Value):
            raise error("A0204", f"the input `{p.name}` of `{decl.name}` is a tensor, not {describe(value)}", where, f"this is {describe(value)}",
                        notes=(signature(decl),))
        else:
            pending.append((p, kind, value, where))
        inner.vars[p.name] = value
    for p, kind, value, where in pending:
        match_type(binding, kind, value, where, (p.name, decl.name))
    inner.vars["..."] = binding.sequences


FLOATING = frozenset(FLOATS)


def match_type(binding: shapes.Binding, kind: tree.TensorType, value: Value, where: Span, said: str | tuple[str, str]) -> None:
    """Binds a declared tensor type to a value's. `said`: how messages call the value, or (input, block). Raises A0301 (shape), A0302 (undecided)
    or A0307 (dtype)."""
    expected, actual = kind.dtype, value.dtype
    if expected is None or expected in FLOATING:
        fits = actual in FLOATING
    else:
        fits = actual == expected or expected == "int" and actual in ("i32", "i8", "u8")
    try:
        binding.match(kind.shape, value.shape)
        if fits:
            return
    except shapes.ShapeError as e:
        what = said if isinstance(said, str) else f"the input `{said[0]}` of `{said[1]}`"
        code = "A0302" if "cannot be shown" in e.message else "A0303" if "multiple" in e.message or "whole" in e.message else "A0301"
        labels = (Label(value.node.span, f"{value.type} comes from here"),) if value.node.span not in (where, NOWHERE) else ()
        labels += (Label(kind.span, "the expected shape"),) if kind.span.source.text else ()
        help = (f"add `require {e.require}`",) if e.require else ()
        wanted = kind.span.text or str(kind)
        if wanted == str(value.type):  # the same letters, of two headers
            wanted = f"{TensorType(value.dtype, _known(binding, kind.shape))} here"
        raise error(code, f"{what} is {wanted}, but this is {value.type}", where, e.message, labels=labels, help=help,
                    division=e.division) from None
    what = said if isinstance(said, str) else f"the input `{said[0]}` of `{said[1]}`"
    raise error("A0307", f"{what} holds {expected or 'floats'}, not {actual}", where, f"this is {value.type}",
                help="a token index becomes a vector by an embedding" if actual == "int" else ())


def _known(binding: shapes.Binding, shape: tree.Shape) -> tuple[Any, ...]:
    """The sizes of a pattern as far as they are bound, by name where they are not."""
    return tuple(binding.sizes.get(a.id, a.id) if isinstance(a, tree.AxisName) else a.span.text for a in shape.axes)


def _header_defaults(inner: Frame, decl: tree.Block, template: Template) -> None:
    from archdsl.elaborate.expressions import settled

    for p in decl.params:
        if p.rest:
            continue
        explicit = p.name in template.args and template.args[p.name].origin == "argument"
        if p.name not in template.args:
            if p.default is None:
                raise error("A0203", f"`{decl.name}` needs `{p.name}`", template.span)
            default = settled(inner, p.default)
            inner.vars[p.name] = convert(inner, default, p.type, p.default.span, p.name)
        default = inner.vars[p.name]
        if p.domain is not None and not explicit:
            inner.session.step(p.span, len(inner.overrides) >> 2)
            for o in inner.overrides:
                if addresses(o, p.name, inner.vars[p.name]):
                    inner.vars[p.name] = convert(inner, override_value(inner, o, inner.vars[p.name], p.type, p.name), p.type, o.place, p.name)
            address = join(inner.prefix, p.name)
            kind = p.type.span.text if p.type else ""
            inner.builder.knobs[address] = Knob(address, kind, default, inner.vars[p.name], p.domain, p.span, p.doc, allowed(inner, p))


def addresses(o: Override, name: str, value: Any) -> bool:
    """Whether a setting is meant for a parameter of this value, not for what lies below an owner of the same name."""
    return o.segments[0] == name and (len(o.segments) == 1 or isinstance(value, (tuple, RecordValue)))


def override_value(frame: Frame, o: Override, current: Any, type: tree.Type | None, name: str) -> Any:
    """The value that an override gives to the parameter `name`; further segments reach into lists and records, where it has their types."""
    o.used[0] = True
    value = cache(lambda: evaluate(o.home or frame, o.expr) if o.expr is not None else o.value)
    return set_inside(frame, current, o.segments[1:], value, o, type, name) if len(o.segments) > 1 else value()


def _hyper_inputs(inner: Frame, decl: tree.Block, head: Header, taken: dict[str, Any], spans: dict[Any, Span], span: Span) -> None:
    for i, p in head.hyper:
        where = spans.get(p.name, spans.get(i, span))
        if p.name in taken:
            value = good(taken[p.name])
        elif p.default is not None:
            value, where = evaluate(inner, p.default), p.default.span
        else:
            raise error("A0203", f"`{decl.name}` needs the input `{p.name}`", span)
        inner.vars[p.name] = convert(inner, value, p.type, where, p.name)


# ---------------------------------------------------------------- results
def declared_types(inner: Frame, outs: tuple[tree.Out, ...], span: Span) -> tuple[TensorType, ...]:
    binding = _binding(inner)
    binding.sequences = inner.vars.get("...", {})
    try:
        return tuple(TensorType(o.type.dtype or "float", binding.shape(o.type.shape)) for o in outs)  # type: ignore[union-attr]
    except shapes.ShapeError as e:
        raise error("A0305", f"the declared result cannot be computed: {e.message}", span) from None


def results(inner: Frame, outs: tuple[tree.Out, ...], span: Span, name: str) -> tuple[Value, ...]:
    """What `return` gave, checked against the header. Raises A0220 (number), A0305 (shape)."""
    value = inner.result
    if value is None:
        raise error("A0220", f"`{name}` returns nothing", span, help="end the body with `return`")
    where, values = value
    if len(values) == 1 and isinstance(values[0], tuple) and len(outs) != 1:
        values = values[0]
    if len(values) != len(outs):
        names = ", ".join(o.name or f"y{i + 1}" for i, o in enumerate(outs))
        raise error("A0220", f"`{name}` declares {len(outs)} result{'s' * (len(outs) != 1)}, this returns {len(values)}", where,
                    labels=(Label(outs[0].span.to(outs[-1].span), "declared here"),) if outs else (),
                    help=f"a comma stands between results: `return {names}`" if len(outs) > 1 else ())
    binding = _binding(inner)
    binding.sequences = inner.vars.get("...", {})
    for v, o in zip(values, outs):
        if good(v) is None or not isinstance(v, Value):
            help = "several results are declared in parentheses: `-> (y: […], z: […])`" if is_list(v) and len(v) > 1 else \
                "a result stands without brackets" if is_list(v) and v else ()
            raise error("A0220", f"`{name}` returns tensors, this is {describe(v)}", where, help=help)
        _check_result(inner, binding, v, o, where, name)
    return tuple(values)


def _check_result(inner: Frame, binding: shapes.Binding, value: Value, out: tree.Out, where: Span, name: str) -> None:
    kind = out.type
    if not isinstance(kind, tree.TensorType):
        raise error("A0204", "a result is a tensor", out.span)
    for axis in kind.shape.axes:
        for n in shapes.axis_names(axis):
            if n != "_" and n not in inner.vars:
                raise error("A0309", f"the size `{n}` occurs only in a result: nothing says what it is", axis.span,
                            help="write `_` for a size that follows from the body")
    try:
        binding.match(kind.shape, value.shape)
    except shapes.ShapeError as e:
        from archdsl.elaborate.proposals import declared_shape

        def agree(axis: tree.Axis, size: Any) -> bool:
            try:
                return shapes.same(binding.size(axis), size) is True
            except (shapes.ShapeError, KeyError):
                return False

        fixes = declared_shape(kind, value, inner.vars, agree)
        raise error("A0305", f"`{name}` declares {kind.span.text}, the result is {value.type}", where, e.message, fixes=fixes,
                    labels=(Label(kind.span, "declared here"), *((Label(value.node.span, "computed here"),) if value.node.span != where else ())),
                    help=(f"add `require {e.require}`",) if e.require else ()) from None
    if kind.dtype is not None and value.dtype != kind.dtype and not (kind.dtype == "int" and value.dtype in ("i32", "i8", "u8")):
        raise error("A0307", f"`{name}` declares {kind.span.text}, the result holds {value.dtype}", where)
    if kind.dtype is None and isinstance(inner.decl, tree.Model) and value.dtype != "float":
        fault = error("A0307", f"`{name}` declares {kind.span.text}, of the model's element type, the result holds {value.dtype}", where,
                      labels=(Label(kind.span, "declared here"),),
                      help=f"declare `{value.dtype}{kind.span.text}`" + (", or write `cast(…, \"float\")`" if value.dtype in ("f32", "f64") else ""))
        raise widened.marked(fault, value)


# ---------------------------------------------------------------- faults inside a block, shown where they were caused
def retarget(d: Diagnostic, template: Template, args: Args, span: Span) -> Diagnostic:
    """A fault found inside a library block moves to where the user's text caused it: the argument it speaks of, else the application, else (where
    a library block applies what the user gave it) where the block was written."""
    given = in_library(span) and not in_library(template.span)  # a library block applies what the user gave it
    if d.span.source is NOWHERE.source or not in_library(d.span) or d.span.source.whole is span.source.whole and not given:
        return _given(d, template)
    text = "".join(c if c.isalnum() or c == "_" else " " for c in d.span.text)
    named = [(name, b.span) for name, b in template.args.items()
             if b.origin == "argument" and name in text.split() and (b.span.source.whole is span.source.whole or not in_library(b.span))]
    applied = [where for name, where in named if text.startswith(f"{name} ") or text == name]  # `f(norm(x))` failed: the fault is in `f`
    divisor = re.search(r"[/%]\s*(\w+)", d.span.text)
    divides = [where for name, where in named if divisor and divisor[1] == name and d.division]
    if divides or applied or len(named) == 1:
        return moved(d, divides[0] if divides else applied[0] if applied else named[0][1], template.ref.decl.name)
    return moved(d, template.span if given else span, template.ref.decl.name)


def _given(d: Diagnostic, template: Template) -> Diagnostic:
    """A fault in the body of a block of the user's: with where the block's arguments were written."""
    decl = template.ref.decl
    inside = [*d.given[-1].spans.values()][:1] if d.given else [d.span]
    if not inside or not inside[0].starts_in(decl.span):
        return d
    return replace(d, given=(*d.given, Given(decl.body or (), {name: b.span for name, b in template.args.items() if b.origin == "argument"})))


__all__ = ["Defaults", "bind", "convert", "first_list", "record", "results", "retarget", "try_convert"]
