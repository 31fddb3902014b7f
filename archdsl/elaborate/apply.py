"""Templates: completing them, applying them as a graph of their own or in place; shares, phases, extern blocks."""
from __future__ import annotations

import re
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Fix, Label, error, in_library
from archdsl.elaborate import headers, late
from archdsl.elaborate.bodies import run
from archdsl.elaborate.builder import Builder, join
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, Override, Owner, Settings, below, good
from archdsl.elaborate.hints import mend
from archdsl.elaborate.limits import NODE_STEPS, checked
from archdsl.elaborate.ops import apply_op
from archdsl.elaborate.values import BlockRef, Compose, Literal, NeedInline, OpRef, Partial, Share, Template, describe, is_list, map_tensors
from archdsl.elaborate.widened import outside
from archdsl.flatten import copy_node, flatten
from archdsl.graph import Graph, Value
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import tree

Args = tuple[list[Any], dict[str, Any], dict[Any, Span]]


def snake(name: str) -> str:
    """RMSNorm -> rms_norm, MLP -> mlp, ConvNeXtBlock -> conv_ne_xt_block."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def complete(frame: Frame, ref: BlockRef, args: Args, node: tree.Call) -> Template:
    """A block with its first list: explicit arguments, then the defaults in force. Raises for missing and unknown ones."""
    decl = ref.decl
    bound = headers.first_list(frame, ref, args, node)
    session = frame.session
    key = session.intern(("block", id(decl), session.mark(decl), tuple([(k, session.key(b.value)) for k, b in bound.items()]), frame.defaults.key))
    return checked(session, Template(ref, bound, frame.defaults, node.span, key), node.span)


def apply(frame: Frame, template: Any, args: Args, span: Span, label: str | None, segment: str | None) -> Any:
    """Applies a template at `label` (the call's `as`), else `segment`, else the block's own name."""
    frame.session.step(span)
    if isinstance(template, OpRef):
        return apply_op(frame, template.op.name, tuple(args[0]), args[1], span, args[2])
    if isinstance(template, (Compose, Literal, Partial)):
        if label is None:
            label = template.label  # the argument's own `as`; they have no segment otherwise
        frame.session.enter(span)
        try:
            if isinstance(template, Compose):
                return _apply_composed(frame, template, args, span, label)
            return _apply_literal(frame, template, args, span, label)
        finally:
            frame.session.leave()
    if isinstance(template, Share):
        return _apply_share(frame, template, args, span, label)
    chosen = label if label is not None else segment
    decl = template.ref.decl
    if chosen is None:
        chosen = "_" if decl.wrap else snake(decl.name)
    if decl.body is None:
        return _apply_extern(frame, template, args, span, chosen)
    if chosen == "_":
        return run_in_place(frame, template, args, span)
    return _apply_outlined(frame, template, args, span, chosen)


def _apply_composed(frame: Frame, template: Compose, args: Args, span: Span, label: str | None) -> Any:
    inner = frame if label is None or label == "_" else _descend(frame, label, span)
    value: Any = None
    for i, part in enumerate(template.parts):
        value = apply(inner, part, args if i == 0 else ([value], {}, {}), span, None, getattr(part, "label", None) or getattr(part, "hint", None))
    return value


def _descend(frame: Frame, segment: str, span: Span) -> Frame:
    """A frame whose owners live one segment deeper."""
    return frame.child(prefix=join(frame.prefix, segment), overrides=below(frame, segment, span))


def _apply_literal(frame: Frame, template: Literal | Partial, args: Args, span: Span, label: str | None) -> Any:
    from archdsl.elaborate import layouts

    frame.session.step(span, len(template.frame.vars) >> 4)
    where = frame if label in (None, "_") else _descend(frame, label, span)
    inner = template.frame.child(builder=where.builder, prefix=where.prefix, overrides=where.overrides, vars=dict(template.frame.vars), rest=None,
                                 phase=where.phase, dtype=where.dtype, loop=where.loop, emitted=len(where.builder.emits))
    if isinstance(template, Partial):
        if template.node.word == "einsum":
            return layouts.einsum(inner, template.node, tuple(args[0]))
        return layouts.layout_call(inner, template.node, args[0][0] if args[0] else None)
    params = template.node.params
    if args[1] or len(args[0]) != len(params):
        raise error("A0205", f"this literal takes {len(params)} arguments, not {len(args[0]) + len(args[1])}", span,
                    labels=(Label(template.node.span, "written here"),))
    for (name, _), value in zip(params, args[0]):
        inner.vars[name] = value
    return evaluate(inner, template.node.body)


def _apply_share(frame: Frame, share: Share, args: Args, span: Span, label: str | None) -> Any:
    """All applications use the weights at the share's path; emitted values are the call's."""
    if frame.builder.home is not share.builder.home:
        raise NeedInline()
    template = share.template
    if not isinstance(template, Template):
        raise error("A0213", "only a block can be shared", share.span, f"this is {describe(template)}")
    try:
        graph, operands = _definition(frame, template, args, span, share.path, share.overrides)
    except NeedInline:  # in place it would own its weights once for each application
        raise error("A0213", f"the shared `{share.name}` reaches tensors or weights of what is around it", span,
                    "a template that it takes reads them, or is shared itself", labels=(Label(share.span, "shared here"),),
                    help="apply that template outside, and give what it gives to the shared block as an input") from None
    if not (graph.owns_weights or graph.emits):
        frame.session.step(span, NODE_STEPS * len(graph.nodes))
        return _results(frame.builder.splice(graph, list(operands), share.path, share.span))
    owner = share.builder.home.children.get(share.path)
    if owner is None:
        frame.builder.home.adopt(share.path, graph, share.span)
    else:
        _same_weights(share, owner, graph, span)
    if frame.phase:
        return _results(_read_in_arm(frame, graph, share.path, operands, span))
    return _emit_call(frame, graph, share.path, operands, span, join(frame.prefix, label) if label not in (None, "_") else None)


def _read_in_arm(frame: Frame, graph: Graph, path: str, operands: tuple[Value, ...], span: Span) -> tuple[Value, ...]:
    """A shared block inside an arm of `phase`: an arm owns nothing, so the weights are read outside and the block is copied in."""
    flat = flatten(graph)
    for node in flat.nodes:
        allowed_in_arm(frame, node.op, span)
    for address, value in flat.emits.items():
        frame.builder.emit(f"{path}.{address}", value, value.node.span)
    frame.builder.home.require(flat.guards)
    known: dict[Value, Value] = dict(zip(flat.inputs, operands))
    for node in flat.nodes:
        if node.op == "param":
            address = {"path": f"{path}.{node.attrs['path']}"}
            known[Value(node)] = Value(frame.builder.home.add("param", (), address, node.types, node.span, node.name))
        elif node.op != "input":
            copy = copy_node(node, known.__getitem__, f"{path}.")
            known.update(zip(node.values, frame.builder.add(copy.op, copy.args, copy.attrs, copy.types, copy.span, copy.name).values))
    return tuple(known[o] for o in flat.outputs)


def allowed_in_arm(frame: Frame, op: str, span: Span) -> None:
    """Raises A0227 for a node that cannot stand in an arm of `phase` or in a `scan`: graphs of their own that neither hold modules nor commit."""
    if not frame.phase or op not in ("update", "extern"):
        return
    scanned = frame.phase == "scan"
    where = "a `scan`" if scanned else "an arm of `phase`"
    if op == "extern":
        raise error("A0227", f"an extern block is applied in {where}", span, "its module would stand inside", help="apply it outside")
    raise error("A0227", f"a buffer is updated in {where}", span, "its value would depend on the position" if scanned else "in one phase alone",
                help="yield what it depends on, and update it behind the `scan`" if scanned else
                "update it outside of the `phase`: updates take effect in training alone")


def _same_weights(share: Share, first: Graph, other: Graph, span: Span) -> None:
    a, b = dict(first.parameters()), dict(other.parameters())
    if a != b:
        name = next(k for k in (*a, *b) if a.get(k) != b.get(k))
        was, now = (w[name].type if name in w else "absent" for w in (a, b))
        told = f"`{name}` is {now} instead of {was}" if was != now else f"`{name}` has another initial value, kind or written structure"
        raise error("A0213", f"the shared `{share.name}` would need other weights here: {told}", span,
                    "applied at another width or with other arguments",
                    labels=(Label(first.span, "first applied like this"), Label(share.span, "shared here")),
                    help="an application's own arguments must not change a weight")


def _apply_outlined(frame: Frame, template: Template, args: Args, span: Span, segment: str) -> Any:
    site = (id(span.source), span.start, frame.prefix)
    if hash(site) in frame.session.inline_sites or frame.phase:
        return run_in_place(_descend(frame, segment, span), template, args, span)
    path = join(frame.prefix, segment)
    try:
        graph, operands = _definition(frame, template, args, span, path, below(frame, segment, span))
    except NeedInline:
        frame.session.inline_sites.add(hash(site))
        return run_in_place(_descend(frame, segment, span), template, args, span)
    if graph.knobs or graph.owns_weights or graph.emits:
        owner_allowed(frame, span, template.ref.decl.name)
    if not (graph.owns_weights or graph.emits):
        frame.session.step(span, NODE_STEPS * len(graph.nodes))
        return _results(frame.builder.splice(graph, list(operands), path, span))
    try:
        frame.builder.home.adopt(path, graph, span)
    except ArchError as e:
        raise _renamed(frame, e, template, segment, span) from None
    return _emit_call(frame, graph, path, operands, span, None)


def _renamed(frame: Frame, e: ArchError, template: Template, segment: str, span: Span) -> ArchError:
    """With a name that is free beside the one that is taken."""
    from archdsl.elaborate.proposals import other_name, spoken_of

    if in_library(span) or "." in segment:
        return e
    if all(d.code == "A0211" and d.labels and d.labels[0].span == d.span for d in e.diagnostics):  # one application, several times
        help = "a loop with a label gives each pass an address: `layers: for i in range(n) { … }`"
        return ArchError(*(replace(d, label="applied more than once here", labels=(), help=(help,)) for d in e.diagnostics))
    body = _body_of(template) or template
    above = join(frame.prefix, "")
    taken = {p.removeprefix(above).split(".")[0] for p in frame.builder.home.owners if p.startswith(above)}
    fixes, rivals = other_name(span, snake(body.ref.decl.name), taken, spoken_of(frame.module.tree))
    return ArchError(*(replace(d, help=_one_set(d), fixes=fixes, rivals=rivals) if d.code == "A0211" else d for d in e.diagnostics))


def _one_set(d: Diagnostic) -> tuple[str, ...]:
    """Of `f(x)` and `f(y)`, which in PyTorch would be one module: how that is said."""
    called = [span.text.partition("(")[0] for span in (d.span, *(label.span for label in d.labels))]
    once = called[0].isidentifier() and not called[0][0].isupper() and len(set(called)) == 1
    return (f"`share {called[0]} = …` makes both applications use one set of weights",) if once else ()


_SEGMENTS = re.compile(r"(\w+)\s*:\s*for\b|\b(?:as|share|param)\s+(\w+)|\b(\w+)\s*\(|\|>\s*(\w+)")
"""What names segments of addresses in a text: labels, `as`, shares, weights, and what is applied without a name of its own."""


def owner_allowed(frame: Frame, span: Span, what: str) -> None:
    if frame.loop is not None:
        source, start = frame.loop.source, frame.loop.start
        code = re.sub("#.*|///.*", "", source.text)
        taken = {snake(n) for names in _SEGMENTS.findall(code) for n in names}  # those of other loops, whether met yet or not, are among them
        label = next(n for n in ("layers", *(f"layers_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        raise error("A0212", f"`{what}` owns weights inside a loop without a label", span, "its weights would have no address of their own",
                    labels=(Label(frame.loop, f"label this loop: `{label}: for …`"),), help="label the loop, or `share` the block outside of it",
                    fixes=(Fix(f"label the loop: `{label}: for …`", ((Span(source, start, start), f"{label}: "),)),))


def _emit_call(frame: Frame, graph: Graph, path: str, operands: tuple[Any, ...], span: Span, emit_path: str | None) -> Any:
    pay(frame, graph, span)
    return _results(frame.builder.call(graph, path, list(operands), span, "", emit_path))


def pay(frame: Frame, graph: Graph, span: Span) -> None:
    """The steps of one more call of a graph: what it shows of itself is written down for each."""
    frame.session.step(span, 6 + len(graph.emits) + len(graph.knobs) + (len(graph.guards) * len(frame.builder.guards) >> 4))


def _results(values: tuple[Value, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _definition(frame: Frame, template: Template, args: Args, span: Span, path: str,
                overrides: tuple[Override, ...]) -> tuple[Graph, tuple[Value, ...]]:
    """The graph of a template for these inputs (memoised), and the tensors to call it with."""
    session = frame.session
    positional, named_args, spans = args
    tensors: list[Value] = []
    names: list[str] = []
    for name, v in (*_headed(frame, template, positional), *named_args.items()):
        before = len(tensors)
        map_tensors(v, tensors.append)
        names += [name if type(v) is Value and name else t.node.result_name(t.index) or "x" for t in tensors[before:]]
    key = (id(template.ref.decl), template.key, tuple([session.key(v) for v in positional]),
           tuple([(k, session.key(v)) for k, v in named_args.items()]), frame.dtype, tuple(sorted(_labels(template).items())),
           session.known_of(template, *positional, *named_args.values()))
    settings = Settings(overrides)
    set_ = settings.key(session)
    hit = session.memo.get((key, set_)) if set_ is not None else None
    if hit is None:
        session.step(span, 15)
        builder = Builder(base=frame.builder.base + path + ".")
        queue = iter([builder.input(name, v.type, span) for name, v in zip(names, tensors)])
        inner_args = ([map_tensors(v, lambda _: next(queue)) for v in positional],
                      {k: map_tensors(v, lambda _: next(queue)) for k, v in named_args.items()}, spans)
        before, session.used_defaults, learned = session.used_defaults, set(), len(session.facts)
        inner = Frame(session, frame.module, builder, "", overrides=overrides, dtype=frame.dtype)
        try:
            with session.owners_inside() as inside, settings.watched():
                values = run_body(inner, template, inner_args, span)
            used = session.used_defaults
        except NeedInline:
            frame.builder.require(builder.guards)
            raise
        except ArchError as e:
            session.met_in(builder)
            raise outside(e, list(builder.inputs), tensors) from None
        finally:
            session.used_defaults = before | session.used_defaults
        results = tuple(o.name for o in template.ref.decl.outs)
        graph = builder.finish(title(template), values, names=results, doc=described(template), span=template.span)
        graph = late.kept(session, graph)
        if set_ is not None:
            session.memo[key, set_] = graph, used, tuple(session.facts[learned:]), inside, settings.used
        _tell(frame, path, key, graph, inside, template)
        return graph, tuple(tensors)
    graph, used, facts, inside, applied = hit
    settings.use(applied)
    _tell(frame, path, key, graph, inside, template)
    session.used_defaults |= used
    session.learn_all(facts)
    return graph, tuple(tensors)


def _tell(frame: Frame, path: str, key: Any, graph: Graph, inside: dict[str, Owner], template: Template) -> None:
    """Which owner stands at a path, for those who ask."""
    if frame.session.owners is not None:
        frame.session.owners[-1][path] = Owner(key, graph, (), inside, template.ref.decl.span)


def _headed(frame: Frame, template: Template, positional: list[Any]) -> list[tuple[str, Any]]:
    """Positional inputs with the names that the header gives them; those behind them have none."""
    inputs = headers.header(frame, template.ref.decl).inputs
    return [(inputs[i].name if i < len(inputs) else "", v) for i, v in enumerate(positional)]


LABELLED = frozenset({Template, Compose, Literal, Partial, Share})


def _labels(template: Template) -> dict[str, Any]:
    return {k: b.value.label for k, b in template.args.items() if type(b.value) in LABELLED and b.value.label}


def _body_of(template: Template) -> Template | None:
    """The block that a wrapper holds as its `_` parameter."""
    for p in template.ref.decl.params:
        if p.anonymous and p.name in template.args and isinstance(template.args[p.name].value, Template):
            return template.args[p.name].value
    return None


def title(template: Template) -> str:
    """The name of a definition: the block's, a wrapper's with that of its body (`PreAttention`)."""
    body = _body_of(template)
    return template.ref.decl.name + (title(body) if body is not None else "")


def described(template: Template) -> str:
    """The documentation of a definition: a wrapper's line, then its body's."""
    body = _body_of(template)
    return "\n".join(d for d in (template.ref.decl.doc, described(body) if body is not None else "") if d)


def run_in_place(frame: Frame, template: Template, args: Args, span: Span) -> Any:
    """Evaluates a block's body in the caller's graph, its owners below the frame's prefix."""
    return _results(run_body(frame, template, args, span))


def run_body(frame: Frame, template: Template, args: Args, span: Span) -> tuple[Value, ...]:
    """Binds the header and runs the body in `frame`'s builder and prefix; returns the results, checked against the header."""
    session = frame.session
    decl = template.ref.decl
    frame.builder.applied[decl.name] = frame.builder.applied.get(decl.name, 0) + 1
    session.enter(span)
    try:
        inner = Frame(session, template.ref.module, frame.builder, frame.prefix, defaults=template.defaults, overrides=frame.overrides, decl=decl,
                      dtype=frame.dtype, phase=frame.phase, loop=frame.loop, emitted=len(frame.builder.emits))
        try:
            headers.bind(inner, frame, template, args, span)
            run(inner, decl.body or ())
            return headers.results(inner, decl.outs, decl.span, decl.name)
        except ArchError as e:
            raise ArchError(*(headers.retarget(d, template, args, span) for d in e.diagnostics)) from None
    finally:
        session.leave()


def read_parameter(frame: Frame, share: Share, name: str, span: Span) -> Value:
    """`embed.weight`: a parameter of a shared block that has been applied."""
    if frame.builder.home is not share.builder.home:
        raise NeedInline()
    graph = share.builder.home.children.get(share.path)
    if graph is None:
        raise error("A0213", f"`{share.name}` has no weights yet: it is applied nowhere above", span, labels=(Label(share.span, "shared here"),),
                    help="apply it before reading its weights")
    params = dict(graph.parameters())
    if name not in params:
        raise error("A0213", f"`{share.name}` has no parameter `{name}`", span,
                    **mend(name, params, span, f"it has {', '.join(params) or 'none'}"))
    return Value(frame.builder.home.add("param", (), {"path": f"{share.path}.{name}"}, (params[name].type,), span, name))


def phase(frame: Frame, node: tree.PhaseExpr) -> Any:
    """`phase { train => …  eval => … }`: both arms are evaluated and must agree in type."""
    from archdsl.elaborate.expressions import results_of

    frame.session.step(node.span, 50)
    arms: dict[str, tuple[Builder, tuple[Value, ...]]] = {}
    for name, results in node.arms:
        if name not in ("train", "eval"):
            raise error("A0227", f"a phase is `train` or `eval`, not `{name}`", node.span)
        builder = Builder(frame.builder, frame.builder.base, frame.builder.home)
        value: Any = results_of(frame.child(builder=builder, phase=name), results)
        values = value if is_list(value) else (value,)
        for v, r in zip(values, results if len(results) == len(values) else results * len(values)):
            if not isinstance(good(v), Value):
                raise error("A0227", f"the arms of `phase` give tensors, this is {describe(v)}", r.span)
        arms[name] = (builder, tuple(builder.resolve(v) for v in values))
    if set(arms) != {"train", "eval"}:
        raise error("A0227", "both phases need an arm: `phase { train => …  eval => … }`", node.span)
    for builder, _ in arms.values():
        for address, value in builder.emits.items():
            raise error("A0219", f"`{address}` is emitted in an arm of `phase`", value.node.span, "its value would exist in one phase alone",
                        labels=(Label(node.span, "this phase"),), help="emit what both arms give, behind the `phase`")
        frame.builder.require(builder.guards)
        frame.builder.knobs.update(builder.knobs)
    types = [tuple(v.type for v in values) for _, values in arms.values()]
    if types[0] != types[1]:
        shown = [", ".join(map(str, t)) for t in types]
        raise error("A0227", f"the arms of `phase` differ: {shown[0]} and {shown[1]}", node.span)
    outer = list(dict.fromkeys(v for b, _ in arms.values() for v in b.imports))
    graphs: dict[str, Graph] = {}
    for name, (builder, values) in arms.items():
        for v in outer:
            builder.resolve(v)
        order = [builder.imports[v] for v in outer]
        builder.inputs = order
        builder.nodes = [v.node for v in order] + [n for n in builder.nodes if n.op != "input"]
        graphs[name] = builder.finish(name, values, span=node.span)
    made = frame.builder.add("phase", tuple(outer), graphs, types[0], node.span)
    return _results(made.values)


def _apply_extern(frame: Frame, template: Template, args: Args, span: Span, segment: str) -> Any:
    """A user's own module: types from the header alone, weights unknown."""
    decl = template.ref.decl
    path = join(frame.prefix, segment if segment != "_" else snake(decl.name))
    inner = Frame(frame.session, template.ref.module, frame.builder, frame.prefix, defaults=template.defaults, decl=decl)
    headers.bind(inner, frame, template, args, span)
    given = {p.name: inner.vars.get(p.name) for p in decl.inputs if not p.rest}
    operands = tuple(v for v in given.values() if v is None or isinstance(v, Value))
    types = headers.declared_types(inner, decl.outs, span)
    owner_allowed(frame, span, decl.name)
    allowed_in_arm(frame, "extern", span)
    frame.builder.home.claim(path, span)
    hyper = tuple((p.name, inner.vars[p.name]) for p in decl.params)
    node = frame.builder.add("extern", operands, {"path": path, "block": decl.name, "arguments": hyper}, types, span)
    return _results(node.values)
