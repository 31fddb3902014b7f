"""From a model declaration and settings to its graph."""
from __future__ import annotations

import operator
import re
from itertools import product
from typing import Any

from archdsl import dims, shapes
from archdsl.diagnostics.model import ArchError, Diagnostic, Label, error
from archdsl.dims import Dim, Facts, Size
from archdsl.elaborate import headers
from archdsl.elaborate.bindings import axis_of_time, ragged_axes, static_names
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.expressions import evaluate
from archdsl.elaborate.extents import Fitting, check_elements, too_long
from archdsl.elaborate.frame import Frame, Override, Owner, Session
from archdsl.elaborate.hints import mend_address, segments
from archdsl.elaborate.knobs import caused, header_knobs, late_defaults
from archdsl.elaborate.limits import MAX_AXES, MAX_FAULTS, MAX_SIZE, in_one_piece, limit, room
from archdsl.elaborate.ranges import check_ranges
from archdsl.elaborate.statements import run  # and with it the table of statements
from archdsl.elaborate.values import TEMPLATES, describe, is_hyper_number
from archdsl.graph import Graph, Guard, Knob, TensorType
from archdsl.modules import Module, family
from archdsl.records import field, record
from archdsl.source import Span
from archdsl.syntax import tree

OF_PYTHON = frozenset(("variant", "seed", "device", "dtype", "form", "emit", "flat", "bind", "feed", "knobs", "at", "rewrites", "kernels", "loss"))
"""The arguments of `Spec.build` and `Spec.cost` beside knobs."""


@record(frozen=True)
class InputSpec:
    """An input of a model: its type, the range of its values (low, high, both included) and example sizes by axis name."""

    name: str
    type: TensorType
    low: Any = None
    high: Any = None
    optional: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


@record(frozen=True)
class Setting:
    """One override, as a variant, the command line or Python gives it."""

    address: str
    value: Any
    expr: tree.Expr | None
    span: Span


@record()
class Elaborated:
    """A model for one choice of hyper arguments. `sizes`: example sizes of the run-time axes (1 where none is given). `ragged`: along the axis
    `stream` lie documents of different lengths. Behind the `transform`s of a variant, `source` is the model before them and `rewrites` what each of
    them did."""

    graph: Graph
    inputs: tuple[InputSpec, ...]
    knobs: dict[str, Knob]
    facts: Facts
    sizes: dict[str, int]
    stream: str | None
    decl: tree.Model
    steps: int = 0
    source: Elaborated | None = None
    rewrites: tuple[Any, ...] = ()
    idle: tuple[tree.Default, ...] = ()  # that the entries of a model have in common, and that reach nothing in this one
    owners: dict[str, Owner] = field(default_factory=dict, repr=False)  # the outermost ones, where the session is asked to tell
    ragged: bool = False

    def __repr__(self) -> str:
        return f"Elaborated({self.graph!r}, {len(self.knobs)} knobs)"

    @property
    def form(self) -> str:
        """The form in which it is built and counted when no other is asked for."""
        return "packed" if self.ragged else "parallel"

    def example_sizes(self, small: bool = False, traced: bool = False) -> dict[str, int]:
        """Sizes of the run-time axes that satisfy the guards: the spec's examples (1 where it gives none) if they do; `small` asks for small ones,
        `traced` for small ones at which as few tensors inside as may be have an axis of 1, which torch.export takes for fixed."""
        small = small or traced
        names = sorted({n for i in self.inputs for s in i.type.shape if not isinstance(s, int) for n in dims.symbols(s)})
        given = {n: self.sizes.get(n, 1) for n in names}
        if not small and self._legal(given):
            return given
        fixed = {s for g in self.graph.guards for s in (g.left, g.right) if isinstance(s, int) and s > 0}
        steps = sorted(2**k * m for k in range(1, 9) for m in (2, 3, 7))
        inside = self._inner_sizes()
        pools: list[list[int]] = []
        for at, n in enumerate(names):
            wanted = [g for g in self.graph.guards if dims.symbols(g.left) | dims.symbols(g.right) <= {n}] if self.graph.guards else []
            first = list(range(2 + (at > 0), 9)) if small else [given[n]]
            alone = [s for s in inside if dims.symbols(s) == frozenset((n,))]
            pool = [v for v in dict.fromkeys([*first, *sorted(fixed), *steps, given[n]])
                    if all(_holds(g, {n: v}) for g in wanted) and all(dims.evaluate(s, {n: v}) >= 1 for s in alone)]
            if traced:
                pool.sort(key=lambda v: sum(dims.evaluate(s, {n: v}) == 1 for s in alone))
            pools.append(pool[:6])
        best: tuple[int, dict[str, int]] | None = None
        for tried, values in enumerate(product(*pools)):
            if best is not None and tried > 500:
                break
            sizes = dict(zip(names, values))
            if self._legal(sizes) and all(dims.evaluate(s, sizes) >= 1 for s in inside):
                ones = sum(dims.evaluate(s, sizes) == 1 for s in inside) if traced else 0
                if not ones:
                    return sizes
                if best is None or ones < best[0]:
                    best = ones, sizes
        return given if best is None else best[1]

    def allows(self, sizes: dict[str, int]) -> bool:
        """Whether the guards hold at these sizes of the run-time axes, and no tensor inside is empty."""
        return self._legal(sizes) and all(dims.evaluate(s, sizes) >= 1 for s in self._inner_sizes())

    def _inner_sizes(self) -> list[Dim]:
        """Every run-time size of a tensor inside the model: none may be empty."""
        return list({s: None for g in self.graph.definitions() for n in g.nodes for t in n.types for s in t.shape if not isinstance(s, int)})

    def _legal(self, sizes: dict[str, int]) -> bool:
        return all(_holds(g, sizes) for g in self.graph.guards)


_COMPARE = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _holds(guard: Guard, sizes: dict[str, int]) -> bool:
    return _COMPARE[guard.op](size_at(guard.left, sizes), size_at(guard.right, sizes))


@in_one_piece
def elaborate(module: Module, decl: tree.Model, settings: tuple[Setting, ...] = (), session: Session | None = None) -> Elaborated:
    """The graph of a model. A session may be used again for other settings of the same module. Raises ArchError with every fault found."""
    session = session or Session(module.library)
    session.begin()
    session.step(decl.name_span, 120)
    facts = Facts(session.proofs)
    builder = Builder()
    overrides = tuple(Override(segments(s.address), s.value, s.expr, s.span, [False]) for s in settings)
    frame = Frame(session, module, builder, decl=decl, overrides=overrides)
    for o in overrides:
        o.home = frame if o.expr is not None else None
    if decl.base is not None:
        raise error("A0218", f"the model `{decl.name}` uses `with`, which is reserved", decl.span, "not built yet")
    with shapes.use_facts(facts), room(decl.name_span):
        knobs, waiting = header_knobs(frame, decl)
        inputs = _inputs(frame, decl, knobs)
        frame.fixed.update({p.name: p.span for p in decl.params})
        frame.blocks = frozenset(p.name for p in decl.params if isinstance(frame.vars.get(p.name), TEMPLATES))
        try:
            with session.owners_inside() as owners:
                caused(frame, knobs, lambda: run(frame, decl.body))
            values = caused(frame, knobs, lambda: headers.results(frame, decl.outs, decl.name_span, decl.name))
        except ArchError as e:
            session.met_in(builder)
            raise (_misspelt(overrides, knobs, decl) or e) from None
        late_defaults(frame, knobs, waiting)
        graph = builder.finish(decl.name, values, names=tuple(o.name for o in decl.outs), doc=decl.doc, span=decl.name_span)
    spans = {p.name: p.domain.span for p in decl.inputs or () if p.domain is not None}
    check_ranges(graph, {i.name: (i.low, i.high, spans[i.name]) for i in inputs if i.low is not None and not i.type.is_float}, decl.span.source.whole)
    idle = _unused(session, overrides, graph, knobs, decl, module)
    sizes = {n: s for i in inputs for n, s in i.sizes.items()}
    small = {name: 1 for i in inputs for s in i.type.shape for name in dims.symbols(s)} | sizes
    check_elements(graph, small, session.fitting.setdefault(tuple(sorted(small.items())), Fitting()))
    knobs.update(graph.knobs)
    for name in sorted(OF_PYTHON & knobs.keys()):
        raise error("A0231", f"a knob cannot be called `{name}`, as an argument of `build` or `cost` is", knobs[name].span or decl.name_span,
                    "could not be set from Python", help=f"call it otherwise, for example `{name}_of_model`")
    return Elaborated(graph, inputs, knobs, facts, sizes, axis_of_time(decl), decl, session.steps, idle=idle, owners=owners,
                      ragged=any(ragged_axes(decl)))


def _inputs(frame: Frame, decl: tree.Model, knobs: dict[str, Knob]) -> tuple[InputSpec, ...]:
    """The inputs; their static sizes become knobs."""
    binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
    out: list[InputSpec] = []
    examples = _examples(frame, decl, binding)
    for p in decl.inputs or ():
        optional = isinstance(p.type, tree.OptionalType)
        kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
        if not isinstance(kind, tree.TensorType):
            raise error("A0204", f"the input `{p.name}` of a model is a tensor", p.span,
                        help=f"its type is its shape: `{p.name}: [B, T, d]`, `{p.name}: int[B, T]`; hyper values stand in the first list")
        if p.default is not None and not (optional and isinstance(p.default, tree.NoneLit)):
            raise error("A0204", f"the input `{p.name}` of a model has no default: it is given when the model runs", p.default.span,
                        help="`?` behind its type makes it optional")
        if _left_out(frame, decl, p, optional):
            frame.vars[p.name] = None
            continue
        if len(kind.shape.axes) > MAX_AXES:
            raise limit(f"the input `{p.name}` has more than {MAX_AXES} axes", p.span)
        for axis in kind.shape.axes:
            _declare_axis(frame, axis, examples, knobs)
        sizes = {a.id: examples[a.id] for a in kind.shape.axes
                 if isinstance(a, (tree.AxisSized, tree.Ragged)) and a.id in examples and isinstance(frame.vars[a.id], Dim)}
        try:
            shape = binding.shape(kind.shape)
        except shapes.ShapeError as e:
            raise error("A0309", f"the shape of `{p.name}`: {e.message}", e.axis.span if e.axis is not None else p.span) from None
        type = TensorType(kind.dtype or "float", shape)
        low, high = _range(frame, p)
        value = frame.builder.input(p.name, type, p.span)
        frame.vars[p.name] = value
        out.append(InputSpec(p.name, type, low, high, optional, sizes))
    return tuple(out)


def _left_out(frame: Frame, decl: tree.Model, p: tree.Param, optional: bool) -> bool:
    """Whether a setting (`memory = none`) says that an optional input is not there. Raises A0204 for a setting of any other kind."""
    found = False
    for o in frame.overrides:
        if o.segments == (p.name,):
            o.used[0] = True
            value = evaluate(frame, o.expr) if o.expr is not None else o.value
            if not optional or value is not None:
                help = f"leave it out with `{p.name} = none`" if optional else "a type with `?` makes an input optional"
                raise error("A0204", f"`{p.name}` is an input of `{decl.name}`: it is given when the model runs", o.span, help=help)
            found = True
    return found


def _examples(frame: Frame, decl: tree.Model, binding: shapes.Binding) -> dict[str, int]:
    """The example sizes of all inputs. Raises A0309 for two of one name, one of a known size, and what is no size, A0602 for one too large."""
    out: dict[str, int] = {}
    first: dict[str, Span] = {}
    for p in decl.inputs or ():
        kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
        for axis in kind.shape.axes if isinstance(kind, tree.TensorType) else ():
            if not isinstance(axis, (tree.AxisSized, tree.Ragged)) or axis.size is None:
                continue
            try:
                size = binding.size(axis.size)
            except shapes.ShapeError as e:
                raise error("A0309", f"the example size of `{axis.id}`: {e.message}", axis.span) from None
            if not isinstance(size, int) or size < 1:
                raise error("A0309", f"an example size is a whole number, this is {size}", axis.span)
            if size > MAX_SIZE:
                raise too_long(axis.id, size, axis.span)
            if axis.id in frame.vars:
                raise error("A0309", f"`{axis.id}` needs no example size: it is {describe(frame.vars[axis.id])}", axis.span,
                            "known when the model is built", help=f"write `{axis.id}`")
            if out.setdefault(axis.id, size) != size:
                raise error("A0309", f"`{axis.id}` has two example sizes, {out[axis.id]} and {size}", axis.span, "the second",
                            labels=(Label(first[axis.id], "the first"),))
            first.setdefault(axis.id, axis.span)
    return out


def _declare_axis(frame: Frame, axis: tree.Axis, examples: dict[str, int], knobs: dict[str, Knob]) -> None:
    if isinstance(axis, tree.Bounded):
        raise error("A0218", "bounded axes are part of the language but not built yet", axis.span)
    if isinstance(axis, tree.Ragged):
        _declare_ragged(frame, axis)
    if isinstance(axis, (tree.AnyAxes, tree.AxesVar)):
        raise error("A0309", "an input of a model names all its axes", axis.span)
    for name in shapes.axis_names(axis):
        if name in frame.vars:
            continue
        if name in static_names(frame.decl):
            frame.vars[name] = size = _static_size(frame, name, examples.get(name), axis)
            frame.fixed[name] = axis.span
            knobs[name] = Knob(name, "int", examples.get(name, size), size, None, axis.span, "")
            continue
        if not name[0].isupper():
            raise error("A0309", f"nothing binds the size `{name}`", axis.span, "a lower-case size is fixed when the model is built",
                        help=f"make it a hyper argument (`{name}: int = …`), or write it in upper case when it varies at run time")
        frame.vars[name] = dims.sym(name)
        frame.fixed[name] = axis.span


def _declare_ragged(frame: Frame, axis: tree.Ragged) -> None:
    """Raises A0309 for a second ragged axis, one beside `stream`, one whose size is known when the model is built."""
    decl = frame.decl
    time = axis_of_time(decl)
    if axis.id != time:
        labels = () if decl.stream else (Label(next(ragged_axes(decl)).span, "the first"),)
        what = f"the model streams along `{time}`" if decl.stream else f"`{time}` is ragged already"
        raise error("A0309", f"documents lie along one axis of a model: {what}", axis.span, labels=labels, help=f"write `{axis.id}`")
    if axis.id in static_names(decl) or axis.id in frame.vars and not isinstance(frame.vars[axis.id], Dim):
        raise error("A0309", f"`ragged {axis.id}` varies from call to call, and `{axis.id}` is known when the model is built", axis.span,
                    help="ragged axes are named in upper case, and neither `static` nor hyper arguments")


def _static_size(frame: Frame, name: str, example: int | None, axis: tree.Axis) -> int:
    """The size that a setting gives, else the example size. Raises A0309 when there is neither, A0204 for a setting that is no size."""
    size: Any = example
    for o in frame.overrides:
        if o.segments == (name,):
            o.used[0] = True
            size = evaluate(frame, o.expr) if o.expr is not None else o.value
            if type(size) is not int or size < 1:
                raise error("A0204", f"the static size `{name}` is a whole number from 1 up, not {describe(size)}", o.span)
    if size is None:
        raise error("A0309", f"the static size `{name}` has no value", axis.span, "fixed when the model is built",
                    help=f"write `{name} = 224`, or set it when the model is built")
    return size


def _range(frame: Frame, p: tree.Param) -> tuple[Any, Any]:
    if p.domain is None:
        return None, None
    if not isinstance(p.domain, tree.Range):
        raise error("A0204", "the values of an input lie in a range", p.domain.span, help="for example `in 0..<vocab`")
    low, high = evaluate(frame, p.domain.start), evaluate(frame, p.domain.stop)
    for bound, node in ((low, p.domain.start), (high, p.domain.stop)):
        if not is_hyper_number(bound):
            raise error("A0204", f"the values of an input lie between numbers, this is {describe(bound)}", node.span,
                        help="for example `in 0..<vocab`")
    high = high if p.domain.inclusive else high - 1
    if high < low:
        raise error("A0204", f"no value of `{p.name}` lies in this range", p.domain.span, help="for example `in 0..<vocab`")
    return low, high


def elsewhere(module: Module, decl: tree.Model) -> frozenset[str]:
    """What settings of a whole model may mean in other entries than this one: the entries themselves and their inputs."""
    own = next((s.name for s in decl.body if isinstance(s, tree.Entry)), None)
    if own is None:
        return frozenset()
    others = {name: inputs for name, inputs in module.entries[family(decl.name)].items() if name != own}
    return frozenset(others).union(*others.values())


def _misspelt(overrides: tuple[Override, ...], knobs: dict[str, Knob], decl: tree.Model) -> ArchError | None:
    """A0215 for settings of names that the model does not mention: what is wrong with its body then follows from what they were to set."""
    faults: list[Diagnostic] = []
    for o in overrides:
        if not o.used[0] and len(o.segments) == 1 and not re.search(rf"\b{re.escape(o.segments[0])}\b", decl.span.text):
            faults += _nothing_at(o, list(knobs)).diagnostics
    return ArchError(*faults) if faults else None


def _nothing_at(o: Override, names: list[str]) -> ArchError:
    address = ".".join(o.segments)
    said = mend_address(address, names, o.span)
    return error("A0215", f"nothing can be set at `{address}`", o.span, "no knob at this address",
                 help=said["help"] or (() if said["fixes"] else _known(names)), fixes=said["fixes"])


def _unused(session: Session, overrides: tuple[Override, ...], graph: Graph, knobs: dict[str, Knob], decl: tree.Model,
            module: Module) -> tuple[tree.Default, ...]:
    """Raises A0215, A0214 for settings and defaults that reach nothing. Of those in the text that the entries of a model have in common, another
    entry may be meant: its defaults are returned."""
    faults: list[Diagnostic] = []
    names = [*knobs, *graph.knobs]
    others = elsewhere(module, decl)
    for o in [o for o in overrides if not o.used[0]][:MAX_FAULTS]:
        if o.segments[0] in others and o.span.source.whole is module.source:
            continue
        faults += _nothing_at(o, names).diagnostics
    own = next((s.span for s in decl.body if isinstance(s, tree.Entry)), decl.span)
    used = {i for key in session.used_defaults for i in session.stated_by[key]}
    idle = {id(s): s for s in session.declared_defaults if id(s) not in used}.values()
    common = tuple(s for s in idle if others and s.span.starts_in(decl.span) and not s.span.starts_in(own))
    if not overrides:  # another choice than the text's own may leave out what a default is for
        faults += [d for s in idle if s not in common for d in reaches_nothing(s).diagnostics]
    if faults:
        raise ArchError(*faults)
    return common


def reaches_nothing(default: tree.Default) -> ArchError:
    """A0214."""
    return error("A0214", f"this default of `{default.block}` reaches nothing", default.span, f"no `{default.block}` below takes an argument from it",
                 help="remove it: what an application gives, and a default further in, win over it")


def _known(names: list[str]) -> tuple[str, ...]:
    return (f"it has {', '.join(names[:12])}{' and others' if len(names) > 12 else ''}" if names else "it has none",)


def size_at(size: Size, sizes: dict[str, int]) -> int:
    """A size as a number."""
    return size if isinstance(size, int) else dims.evaluate(size, sizes)

