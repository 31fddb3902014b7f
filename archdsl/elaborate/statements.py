"""Statements: one function per kind. A fault in one poisons what it would have bound, and the next one goes on."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.diagnostics.model import Fix, Label, error
from archdsl.diagnostics.poison import POISON
from archdsl.dims import Dim
from archdsl.elaborate import headers
from archdsl.elaborate.apply import owner_allowed, snake
from archdsl.elaborate.bindings import word_span
from archdsl.elaborate.bodies import TABLE, bind, run
from archdsl.elaborate.builder import Builder, join
from archdsl.elaborate.calls import arguments
from archdsl.elaborate.domains import of_values
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.expressions import select_arm, truth
from archdsl.elaborate.frame import Frame, below, good
from archdsl.elaborate.hints import mend
from archdsl.elaborate.loops import loop
from archdsl.elaborate.requires import require
from archdsl.elaborate.scans import next_value, scan, yielded
from archdsl.elaborate.values import (
    TEMPLATES,
    BlockRef,
    Compose,
    DefaultEntry,
    Defaults,
    FnRef,
    Literal,
    Share,
    Template,
    describe,
    has_tensor,
    is_list,
)
from archdsl.elaborate.weights import const, draw, parameter, update
from archdsl.graph import Knob, Value
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import tree


# ---------------------------------------------------------------- bindings
def _assign(frame: Frame, s: tree.Assign) -> None:
    values: Any = tuple(_assigned_value(frame, v) for v in s.values)
    if len(s.targets) == 1:
        bind(frame, s.targets[0], values[0] if len(values) == 1 else values, s.values[0] if len(values) == 1 else None)
        return
    if len(values) == 1:
        values = values[0]
        if not is_list(values):
            from archdsl.elaborate.proposals import without

            raise error("A0225", f"{len(s.targets)} names are bound, there is one value: {describe(values)}",
                        s.targets[0].span.to(s.targets[-1].span), fixes=without([t.span for t in s.targets], 1))
    if len(values) != len(s.targets):
        from archdsl.elaborate.proposals import without

        names = [t.span for t in s.targets]
        end = names[-1].end
        more = ", _" * (len(values) - len(names))
        fixes = without(names, len(values)) or (Fix("bind the others to `_`", ((Span(s.span.source, end, end), more),)),)
        raise error("A0225", f"{len(names)} names are bound, there are {len(values)} values", names[0].to(names[-1]), fixes=fixes)
    for t, v, written in zip(s.targets, values, s.values if len(s.values) == len(values) else (None,) * len(values)):
        bind(frame, t, v, written)


def _assigned_value(frame: Frame, node: tree.Expr) -> Any:
    """The value of an expression; another name for a block parameter keeps the parameter's, as if it were written in its place."""
    value = evaluate(frame, node)
    if isinstance(node, tree.Name) and (node.id in frame.blocks or node.id in frame.anonymous):
        return _hinted(value, "_" if node.id in frame.anonymous else node.id)
    return value


def _default(frame: Frame, s: tree.Default) -> None:
    from archdsl.elaborate.expressions import lookup

    ref = lookup(frame, s.block, s.span)
    if not isinstance(ref, BlockRef):
        raise error("A0204", f"`default` sets arguments of a block; `{s.block}` is {describe(ref)}", s.span)
    positional, named, spans = arguments(frame, s.args)
    if positional:
        raise error("A0205", "a default names its arguments", s.span, help=f"`default {s.block}(name = value)`")
    params = {p.name: p for p in ref.decl.params}
    entries = dict(frame.defaults.entries)
    for k, v in named.items():
        if k not in params:
            raise error("A0202", f"`{s.block}` has no argument `{k}`", spans.get(k, s.span), **mend(k, params, spans.get(k, s.span)),
                        notes=(headers.signature(ref.decl),))
        entries[(id(ref.decl), k)] = DefaultEntry(v, spans.get(k, s.span), s)
    key = frame.session.intern(("defaults", tuple(sorted((k, str(frame.session.key(e.value))) for k, e in entries.items()))))
    frame.defaults = Defaults(entries, key)
    for (block, k), entry in entries.items():
        frame.session.stated_by.setdefault((key, block, k), {})[id(entry.statement)] = entry.statement
    if frame.decl is not None and not frame.module.is_library:
        frame.session.declared_defaults.append(s)


def _share(frame: Frame, s: tree.Share) -> None:
    value = evaluate(frame, s.value)
    address = s.address or s.name
    shared = s.condition is None or truth(frame, s.condition)

    def one(item: Any, path: str) -> Any:
        return _one_share(frame, s, item, path) if shared else _hinted(item, path)

    made = tuple(one(v, f"{address}.{i}") for i, v in enumerate(value)) if is_list(value) and s.of is None else one(value, address)
    frame.bind(s.name, made, s.name_span)


def _hinted(value: Any, name: str) -> Any:
    return replace(value, hint=name) if isinstance(value, TEMPLATES) and hasattr(value, "hint") else value


def _one_share(frame: Frame, s: tree.Share, value: Any, name: str) -> Share | Compose:
    if isinstance(value, Compose) and s.of is None:  # each part is shared, where an application named so would have it
        parts = (_one_share(frame, s, p, f"{name}.{p.label or p.hint or snake(p.ref.decl.name)}") if isinstance(p, Template) else p
                 for p in value.parts)
        return replace(value, parts=tuple(parts), key=frame.session.intern(("share", id(frame.builder), join(frame.prefix, name), value.key)))
    if not isinstance(value, Template):
        what = "a block literal" if isinstance(value, Literal) else "shared already" if isinstance(value, Share) else describe(value)
        help = "give it a name, `block F()(x: [..., d]) -> [..., d] { … }`, and share `F()`" if isinstance(value, Literal) else ()
        raise error("A0213", f"a completed block can be shared, or several joined by `>>`; this is {what}", s.value.span, help=help)
    if value.ref.decl.body is None:
        raise error("A0218", f"`{value.ref.decl.name}` is an extern block; sharing one is not built yet", s.value.span, "not built yet")
    if s.of is not None:
        first = evaluate(frame, s.of)
        if not isinstance(first, Share):
            raise error("A0213", f"`{s.of.id}` is not shared, this is {describe(first)}", s.of.span, "`of` names another `share`")
        key = frame.session.intern(("share", id(first.builder), first.path, value.key))
        return Share(s.name, value, first.builder, first.path, s.name_span, key, first.overrides)
    owner_allowed(frame, s.span, value.ref.decl.name)
    path = join(frame.prefix, name)
    frame.builder.home.share(path, s.name_span)
    key = frame.session.intern(("share", id(frame.builder), path, value.key))
    return Share(name, value, frame.builder, path, s.name_span, key, below(frame, name, s.span))


def _emit(frame: Frame, s: tree.Emit) -> None:
    value = evaluate(frame, s.value) if s.value is not None else good(frame.vars.get(s.name, POISON))
    if not isinstance(value, Value):
        raise error("A0219", f"only tensors are emitted, this is {describe(value)}", s.span)
    if frame.loop is not None:
        raise error("A0212", f"`{s.name}` is emitted inside a loop without a label", s.span, "its values would have one address",
                    labels=(Label(frame.loop, "label this loop: `layers: for …`"),), help="label the loop")
    frame.builder.emit(join(frame.prefix, s.name), frame.builder.resolve(value), s.span)


def _static(frame: Frame, s: tree.Static) -> None:
    for n in s.names:
        if isinstance(frame.vars.get(n), Dim):
            raise error("A0309", f"`static {n}` fixes a size of a model's input", s.span, "not so here",
                        help="write it directly in the body of the model")


# ---------------------------------------------------------------- control


def _if(frame: Frame, s: tree.If) -> bool:
    for condition, body in s.branches:
        if truth(frame, condition):
            return run(frame, body)
    return run(frame, s.otherwise)


def _match(frame: Frame, s: tree.Match) -> bool:
    return run(frame, select_arm(frame, s).body)


def _choose(frame: Frame, s: tree.Choose) -> None:
    """A knob and a match on templates: the chosen arm is bound, under the knob's name as its segment."""
    arms = {a.name: a for a in s.arms}
    chosen, given, default = s.default, s.default_args, s.default
    where = s.span
    address = join(frame.prefix, s.name)
    for o in frame.overrides:
        if o.segments == (s.name,):
            o.used[0] = True
            chosen, given = _chosen_arm(o)
            where = o.expr.span if o.expr is not None else o.span
    if chosen not in arms:
        labels = (Label(s.name_span, "its arms are here"),) if where is not s.span else ()
        raise error("A0224", f"`{s.name}` has no arm `{chosen}`", where, labels=labels,
                    **mend(chosen, arms, where, f"its arms are {', '.join(arms)}"))
    arm = arms[chosen]
    frame.builder.knobs[address] = Knob(address, "choice", default, chosen, tuple(arms), s.span, allowed=of_values(tuple(arms)))
    inner = frame.inner(s.span, overrides=below(frame, s.name, s.span), prefix=address)
    _, named, spans = arguments(frame, given)
    for p in arm.params:
        value = named.pop(p.name) if p.name in named else evaluate(inner, p.default) if p.default is not None else None
        frame.session.step(p.span, len(inner.overrides) >> 2)
        for o in inner.overrides:
            if o.segments[0] == p.name:
                value = headers.convert(inner, headers.override_value(inner, o, value, p.type, p.name), p.type, o.place, p.name)
        inner.vars[p.name] = headers.convert(inner, value, p.type, spans.get(p.name, p.span), p.name)
        if p.domain is not None:
            knob = join(address, p.name)
            kind, allowed = p.type.span.text if p.type else "", headers.allowed(inner, p)
            frame.builder.knobs[knob] = Knob(knob, kind, value, inner.vars[p.name], p.domain, p.span, p.doc, allowed)
    for k in named:
        raise error("A0202", f"the arm `{chosen}` has no argument `{k}`", spans.get(k, where),
                    **mend(k, [p.name for p in arm.params], spans.get(k, where)))
    value = evaluate(inner.child(prefix=frame.prefix, overrides=frame.overrides), arm.value)
    if not isinstance(value, TEMPLATES):
        raise error("A0204", f"an arm of `choose` is a block, this is {describe(value)}", arm.value.span)
    frame.bind(s.name, _hinted(value, s.name), s.name_span)


def _chosen_arm(o: Any) -> tuple[str, tuple[tree.Arg, ...]]:
    if isinstance(o.expr, tree.Name):
        return o.expr.id, ()
    if isinstance(o.expr, tree.Str):
        return o.expr.value, ()
    if isinstance(o.expr, tree.Call) and isinstance(o.expr.func, tree.Name):
        return o.expr.func.id, o.expr.args
    if isinstance(o.value, str):
        return o.value, ()
    raise error("A0224", "a choice is set to the name of an arm, or to `arm(argument = value)`", o.span)


def _island(frame: Frame, s: tree.Island) -> bool:
    if s.dtype not in ("f32", "f64"):
        raise error("A0307", f"`{s.dtype} {{ … }}` would narrow what is computed in it", word_span(s, s.dtype), "an island widens",
                    help=f"`f32 {{ … }}` is an island; `cast(x, \"{s.dtype}\")` narrows one tensor")
    old, frame.dtype = frame.dtype, s.dtype
    try:
        return run(frame, s.body)
    finally:
        frame.dtype = old


def _return(frame: Frame, s: tree.Return) -> bool:
    values = tuple(evaluate(frame, v) for v in s.values)
    frame.result = (s.values[0].span.to(s.values[-1].span), _in_order(frame, s, values) if any(s.names) else values)
    return True


def _in_order(frame: Frame, s: tree.Return, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """`return logits, balance = …`: named results at the places that the header gives them."""
    names = [o.name for o in getattr(frame.decl, "outs", ())]
    placed: dict[str | int | None, Any] = {}
    for i, (name, value, node) in enumerate(zip(s.names, values, s.values)):
        place = name if name is not None else names[i] if i < len(names) and names[i] is not None else i
        if name is not None and name not in names:
            raise error("A0202", f"`{frame.decl.name}` has no result `{name}`", node.span, **mend(name, [n for n in names if n], node.span))
        if place in placed:
            raise error("A0205", f"the result `{place}` is given twice", node.span)
        placed[place] = value
    order = [n if n is not None else i for i, n in enumerate(names)]
    return tuple(placed.pop(n) for n in order if n in placed) + tuple(placed.values())  # one too many is told of later


def _reserved(what: str, why: str) -> Callable[[Frame, Any], None]:
    def refuse(frame: Frame, s: Any) -> None:
        raise error("A0218", f"`{what}` is part of the language but not built yet", s.span, why)

    return refuse


def _entry(frame: Frame, s: tree.Entry) -> bool:
    """The body of the entry that is being elaborated: what it owns stands below its name."""
    inner = frame.child(prefix=join(frame.prefix, s.name), overrides=below(frame, s.name, s.span))
    returned = run(inner, s.body)
    frame.result = inner.result
    return returned


# ---------------------------------------------------------------- functions of hyper values
def call_fn(frame: Frame, ref: FnRef, args: Any, span: Span) -> Any:
    """Runs a `fn`: hyper values in, a hyper value out. Raises A0226 for recursion."""
    session = frame.session
    decl, spans = ref.decl, args[2]
    if decl.name in session.resolving:
        raise error("A0226", f"`{decl.name}` calls itself", span, help="use a loop: functions of the language always end")
    inner = Frame(session, ref.module, Builder(), decl=decl)
    names = [p.name for p in decl.params]
    too_many = f"`{decl.name}` takes {len(names)} arguments, not {len(args[0])}"
    values = headers.by_name(args, names, span, too_many, f"`{decl.name}` has no argument")
    for i, p in enumerate(decl.params):
        if p.name not in values:
            if p.default is None:
                raise error("A0203", f"`{decl.name}` needs `{p.name}`", span)
            values[p.name] = evaluate(inner, p.default)
        if has_tensor(values[p.name]):
            raise error("A0204", f"`{decl.name}` is computed at build: it takes no tensors", spans.get(i, span))
        inner.vars[p.name] = headers.convert(inner, values[p.name], p.type, spans.get(p.name, spans.get(i, span)), p.name)
    session.enter(span)
    session.resolving.append(decl.name)
    try:
        run(inner, decl.body)
    finally:
        session.resolving.pop()
        session.leave()
    if inner.result is None:
        raise error("A0220", f"`{decl.name}` returns nothing", span)
    where, result = inner.result
    value = result[0] if len(result) == 1 else result
    return headers.convert(inner, value, decl.result, where, decl.name)


TABLE.update({
    tree.Assign: _assign,
    tree.Require: require,
    tree.Default: _default,
    tree.Share: _share,
    tree.ParamDecl: parameter,
    tree.Const: const,
    tree.Draw: draw,
    tree.Emit: _emit,
    tree.Update: update,
    tree.Static: _static,
    tree.For: loop,
    tree.If: _if,
    tree.Match: _match,
    tree.Choose: _choose,
    tree.Island: _island,
    tree.Return: _return,
    tree.Scan: scan,
    tree.Next: next_value,
    tree.Yield: yielded,
    tree.Control: _reserved("control", "run-time settings are built when a paper needs them"),
    tree.Entry: _entry,
})
