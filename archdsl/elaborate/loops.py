"""Loops: in place, or each pass of a labelled one as a graph of its own."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archdsl.diagnostics.model import ArchError, Fix, error
from archdsl.diagnostics.poison import POISON
from archdsl.elaborate import late, passes
from archdsl.elaborate.apply import owner_allowed, pay
from archdsl.elaborate.bodies import assigned, run
from archdsl.elaborate.builder import Builder, join
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, Owner, Settings, below
from archdsl.elaborate.limits import NODE_STEPS
from archdsl.elaborate.values import HOLDERS, Late, NeedInline, Unfit, describe, has_tensor, holds_tensor, is_list, map_tensors
from archdsl.graph import Graph, Value
from archdsl.records import field, record
from archdsl.syntax import tree


def iterate(frame: Frame, pattern: tree.Pattern, node: tree.Expr) -> Iterator[int]:
    """Binds the loop's names for each item and yields its ordinal."""
    items = evaluate(frame, node)
    if isinstance(items, str):
        items = tuple(items)
    if not is_list(items):
        fixes = (Fix(f"count: `range({node.span.text})`", ((node.span, f"range({node.span.text})"),)),) if type(items) is int else ()
        raise error("A0204", f"a loop runs over a list, a range or a string, this is {describe(items)}", node.span, fixes=fixes)
    frame.session.step(node.span, len(items))
    for i, item in enumerate(items):
        _destructure(frame, pattern, item)
        yield i


def _destructure(frame: Frame, pattern: tree.Pattern, value: Any) -> None:
    if pattern.name is not None:
        frame.bind(pattern.name, value, pattern.span)
        return
    if not is_list(value) or len(value) != len(pattern.items):
        raise error("A0225", f"{len(pattern.items)} names are bound, the item is {describe(value)}", pattern.span)
    for p, v in zip(pattern.items, value):
        _destructure(frame, p, v)


def loop(frame: Frame, s: tree.For) -> bool:
    """`for`: True where a pass has returned. Names bound inside end with it."""
    frame.session.step(s.span, len(frame.vars) >> 3)
    before = dict(frame.vars)
    outer = set(before)
    for i in iterate(frame, s.pattern, s.iterable):
        if s.label is None:
            outer_loop = frame.loop
            frame.loop = s.span
            try:
                returned = run(frame, s.body)
            finally:
                frame.loop = outer_loop
        else:
            returned = _iteration(frame, s, i, outer)
        if returned:
            return True
    for name in set(frame.vars) - outer:
        del frame.vars[name]
    for p in _pattern_names(s.pattern):
        if p in before:
            frame.vars[p] = before[p]
    return False


def _pattern_names(p: tree.Pattern) -> list[str]:
    return [p.name] if p.name else [n for q in p.items for n in _pattern_names(q)]


def _iteration(frame: Frame, s: tree.For, i: int, outer: set[str]) -> bool:
    """One pass of a labelled loop: a graph of its own below `label.i`, or in place when it reaches shared weights outside."""
    path = join(join(frame.prefix, s.label or ""), str(i))
    overrides = below(frame, f"{s.label}.{i}", s.span)
    site = hash((id(s), path, frame.builder.base))
    if site not in frame.session.inline_sites and not frame.phase:
        try:
            return _outlined(frame, s, path, overrides, outer)
        except NeedInline:
            frame.session.inline_sites.add(site)
    inner = frame.child(prefix=path, overrides=overrides, loop=None, emitted=len(frame.builder.emits))
    returned = run(inner, s.body)
    frame.result = inner.result
    return returned


def _outlined(frame: Frame, s: tree.For, path: str, overrides: Any, outer: set[str]) -> bool:
    try:
        known, operands, graph = _body(frame, s, path, overrides, outer, None if overrides else passes.plan(frame, s))
    except Unfit:
        known, operands, graph = _body(frame, s, path, overrides, outer, None)
    session = frame.session
    session.used_defaults |= known.used
    session.step(s.span, len(known.graph.nodes) >> 4)
    if graph.owns_weights or graph.emits or graph.knobs:
        owner_allowed(frame, s.span, s.label or "")
    if graph.owns_weights or graph.emits:
        pay(frame, graph, s.span)
        frame.builder.home.adopt(path, graph, s.span)
        results = frame.builder.call(graph, path, operands, s.span, known.name)
    else:
        session.step(s.span, NODE_STEPS * len(graph.nodes))
        results = frame.builder.splice(graph, operands, path, s.span)
    new = dict(zip(known.mine, results))
    for n, v in known.carried:
        frame.vars[n] = map_tensors(v, lambda t: new.get(t, t))
    return False


def _body(frame: Frame, s: tree.For, path: str, overrides: Any, outer: set[str], plan: passes.Plan | None) -> tuple[_Body, list[Any], Graph]:
    """The body as elaborated here or before, the tensors to apply it to, and its graph for this pass. Raises Unfit."""
    session = frame.session
    numbers, counts = (passes.numbers(frame, plan), passes.key(frame, plan)) if plan else (None, None)
    if numbers is None or counts is None:
        plan, numbers = None, ()
    settings = Settings(overrides)
    set_ = settings.key(session)
    reachable = _reachable(frame, _body_names(frame, s, plan))
    key = None if set_ is None else _body_key(frame, s, plan, counts, reachable)
    key = key if key is None or not set_ else (key, set_)
    known: _Body | None = session.memo.get(key) if key is not None else None
    if known is None:
        learned = len(session.facts)
        with session.owners_inside() as inside, settings.watched():
            known = _body_graph(frame, s, plan, path, overrides, outer, late.places(session, plan.late, numbers) if plan else {})
        known.inside, known.applied = inside, settings.used
        known.facts = tuple(session.facts[learned:])
        if key is not None and known.operands is not None:
            session.memo[key] = known
        operands = list(known.imports)
    else:
        session.learn_all(known.facts)
        settings.use(known.applied)
        operands = [reachable[i] for i in known.operands or ()]
    graph = late.fill(session, known.graph, dict(zip(known.waiting, numbers)))
    if session.owners is not None:
        flows = tuple((n, session.key(v)) for n, v in known.carried if not late.only_tensors(v))
        session.owners[-1][path] = Owner(None if key is None or set_ else (key, numbers), graph, flows, known.inside, s.span)
    return known, operands, graph


@record()
class _Body:
    """One evaluated loop body. `carried`: outer names with their new values, whose tensors are `mine` (the graph's outputs) or the outer body's.
    `operands`: which of the tensors that the body can reach (`_reachable`) the graph's inputs are; None when they cannot be told by that.
    `waiting`: the numbers of its late arguments. `facts`: what it requires of run-time sizes. `inside`: the owners in it, for those who ask.
    `applied`: which of the settings below it are used."""

    graph: Any
    imports: tuple[Value, ...]
    carried: list[tuple[str, Any]]
    mine: list[Value]
    operands: tuple[int, ...] | None
    used: set[tuple[int, int, str]]
    name: str
    waiting: tuple[int, ...]
    facts: tuple[Any, ...] = ()
    inside: dict[str, Owner] = field(default_factory=dict)
    applied: tuple[bool, ...] = ()


def _body_graph(frame: Frame, s: tree.For, plan: passes.Plan | None, path: str, overrides: Any, outer: set[str], waiting: dict[int, Late]) -> _Body:
    session = frame.session
    builder = Builder(frame.builder, frame.builder.base + path + ".")
    inner = frame.inner(s.span, builder=builder, prefix="", overrides=overrides, loop=None, emitted=0,
                        late={**(frame.late or {}), **waiting})
    before, session.used_defaults = session.used_defaults, set()
    session.lates += len(waiting)
    try:
        if run(inner, s.body):
            raise error("A0220", "`return` cannot stand in a labelled loop", s.span)
        used = session.used_defaults
    except NeedInline:
        frame.builder.require(builder.guards)
        raise
    except ArchError:
        session.met_in(builder)
        raise
    finally:
        session.lates -= len(waiting)
        session.used_defaults = before | session.used_defaults
    changed = [(n, inner.vars[n]) for n in frame.vars if n in outer and n in inner.vars and inner.vars[n] is not frame.vars[n]]
    back = {inside: outside for outside, inside in builder.imports.items()}
    carried = [(n, map_tensors(v, lambda t: back.get(t, t))) for n, v in changed]
    values: list[Value] = []
    for _, v in carried:
        map_tensors(v, lambda t: values.append(t) or t)
    if waiting and any(not late.only_tensors(v) for _, v in carried):
        passes.without_late(frame, s)
        frame.builder.require(builder.guards)
        raise Unfit  # a block that waits for a number would leave the loop
    mine = [v for v in dict.fromkeys(values) if v.node in builder.own]
    if not mine:  # a block has results, and nothing here is read behind the loop
        frame.builder.require(builder.guards)
        raise NeedInline
    named = len(mine) == len(carried) and all(isinstance(v, Value) for _, v in carried)
    names = tuple(n for n, _ in carried) if named else ()
    graph = builder.finish(s.label or "", tuple(mine), names=names, span=s.span)
    interned = late.kept(session, graph, bool(waiting))
    imports = tuple(builder.imports)
    at = {v: i for i, v in reversed(list(enumerate(_reachable(frame, _body_names(frame, s, plan)))))}
    plain = all(v in at for v in imports) and len(mine) == len(dict.fromkeys(values))
    return _Body(interned, imports, carried, mine, tuple(at[v] for v in imports) if plain else None, used, _result_names(carried, mine),
                 tuple(w.number for w in waiting.values()))


def _result_names(carried: list[tuple[str, Any]], mine: list[Value]) -> str:
    """What the results of a pass are called: as the variables that carry them on, tensors in lists with their places."""
    names: dict[Value, str] = {}
    for name, value in carried:
        found: list[Value] = []
        map_tensors(value, lambda t, found=found: found.append(t) or t)
        for i, t in enumerate(found):
            names.setdefault(t, name if isinstance(value, Value) else f"{name}_{i}")
    return ", ".join(names[v] for v in mine)


def _body_names(frame: Frame, s: tree.For, plan: passes.Plan | None) -> tuple[str, ...]:
    """The names that a body mentions or binds, but for those in expressions that the plan evaluates."""
    from archdsl.elaborate.closures import free_names

    if plan is not None:
        return plan.names
    free = frame.session.free
    if id(s) not in free:
        free[id(s)] = tuple(sorted(set[str]().union(*(free_names(b) for b in s.body), *(assigned(b) for b in s.body))))
    return free[id(s)]


def _reachable(frame: Frame, names: tuple[str, ...]) -> list[Value]:
    """The tensors in the values of these names, those in lists and masks included, in order."""
    found: list[Value] = []
    held = frame.vars
    for n in names:
        value = held.get(n)
        if value.__class__ in HOLDERS:
            map_tensors(value, found.append)
    return found


def _body_key(frame: Frame, s: tree.For, plan: passes.Plan | None, counts: Any, reachable: list[Value]) -> Any:
    """What a body's evaluation depends on: the values of the names it mentions, of the expressions in the plan; tensors by type, and which of them
    are the same. None when that does not say all: a template that holds a tensor may read it under no name of the body."""
    session = frame.session
    names = _body_names(frame, s, plan)
    session.step(s.span, len(names) >> 2)
    values = [(n, frame.vars[n]) for n in names if n in frame.vars]
    if any(v is POISON or holds_tensor(v) for _, v in values):
        return None
    if frame.rest and (frame.rest[1] or any(has_tensor(v) for v in frame.rest[0])):
        return None
    first: dict[Value, int] = {}
    same = tuple([first.setdefault(v, i) for i, v in enumerate(reachable)])
    rest = session.key(tuple(frame.rest[0])) if frame.rest else None
    sequences = tuple(sorted(frame.vars.get("...", {}).items()))
    waiting = tuple([w.number for w in frame.late.values()]) if frame.late else ()
    return ("body", id(s), session.mark(s), plan is None, waiting, counts, tuple([(n, session.key(v)) for n, v in values]), same, sequences,
            frame.defaults.key, frame.dtype, rest, session.known)
