"""Statements: one function per kind. A fault in one poisons what it would have bound, and the next one goes on."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from archdsl import shapes
from archdsl.diagnostics.model import ArchError, Label, error
from archdsl.dims import Dim, Size
from archdsl.elaborate import headers, late, passes
from archdsl.elaborate.apply import arguments, owner_allowed, pay
from archdsl.elaborate.bindings import word_span
from archdsl.elaborate.builder import Builder, join
from archdsl.elaborate.domains import of_values
from archdsl.elaborate.expressions import decided, evaluate, select_arm, settled, truth
from archdsl.elaborate.frame import Frame, below, good
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.limits import MAX_AXES, MAX_FAULTS, MAX_GUARDS, beyond, limit
from archdsl.elaborate.ops import apply_op, as_attribute
from archdsl.elaborate.values import (
    POISON,
    TEMPLATES,
    BlockRef,
    Condition,
    DefaultEntry,
    Defaults,
    FnRef,
    InitRef,
    Late,
    NeedInline,
    Poisoned,
    Share,
    Template,
    Unfit,
    describe,
    has_tensor,
    holds_tensor,
    is_list,
    map_tensors,
)
from archdsl.graph import Graph, Guard, InitExpr, Knob, Param, TensorType, Value
from archdsl.ops.initializers import RANDOM
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree


def run(frame: Frame, body: tuple[tree.Statement, ...]) -> bool:
    """Runs statements in order; True when one returned. Faults are collected, and the frame goes on where it can."""
    faults: list[Any] = []
    returned = False
    for s in body:
        try:
            frame.session.step(s.span)
            if TABLE[type(s)](frame, s):
                returned = True
                break
        except Poisoned:
            _poison(frame, s)
        except (ArchError, RecursionError, OverflowError) as e:
            found = (e if isinstance(e, ArchError) else beyond(e, s.span)).diagnostics
            faults += found
            if len(faults) >= MAX_FAULTS or any(d.code == "A0602" for d in found):
                break
            _poison(frame, s)
    if faults:
        raise ArchError(*faults)
    return returned


def _poison(frame: Frame, s: tree.Statement) -> None:
    for name in assigned(s):
        if name != "_":
            frame.vars[name] = POISON
    if isinstance(s, tree.Return):
        frame.result = (s.span, (POISON,))


def assigned(s: Any) -> list[str]:
    """The names that a statement binds, nested bodies included."""
    if isinstance(s, tree.Assign):
        return [t.name for t in s.targets]
    if isinstance(s, (tree.Share, tree.ParamDecl, tree.Const, tree.Draw, tree.Choose, tree.Control)):
        return [s.name]
    if isinstance(s, (tree.For, tree.Island)):
        return [n for b in s.body for n in assigned(b)]
    if isinstance(s, tree.If):
        return [n for _, body in s.branches for b in body for n in assigned(b)] + [n for b in s.otherwise for n in assigned(b)]
    if isinstance(s, tree.Match):
        return [n for a in s.arms for b in a.body for n in assigned(b)]
    return []


# ---------------------------------------------------------------- bindings
def _assign(frame: Frame, s: tree.Assign) -> None:
    values: Any = tuple(_assigned_value(frame, v) for v in s.values)
    if len(s.targets) == 1:
        _bind(frame, s.targets[0], values[0] if len(values) == 1 else values)
        return
    if len(values) == 1:
        values = values[0]
        if not is_list(values):
            raise error("A0225", f"{len(s.targets)} names are bound, there is one value: {describe(values)}", s.span)
    if len(values) != len(s.targets):
        raise error("A0225", f"{len(s.targets)} names are bound, there are {len(values)} values", s.span)
    for t, v in zip(s.targets, values):
        _bind(frame, t, v)


def _assigned_value(frame: Frame, node: tree.Expr) -> Any:
    """The value of an expression; another name for a block parameter keeps the parameter's, as if it were written in its place."""
    value = evaluate(frame, node)
    if isinstance(node, tree.Name) and (node.id in frame.blocks or node.id in frame.anonymous):
        return _hinted(value, "_" if node.id in frame.anonymous else node.id)
    return value


def _bind(frame: Frame, target: tree.Target, value: Any) -> None:
    if isinstance(target.type, tree.TensorType):
        if not isinstance(value, Value):
            raise error("A0204", f"`{target.name}` is declared as a tensor, this is {describe(value)}", target.span)
        binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
        binding.sequences = frame.vars.get("...", {})
        headers.match_type(binding, target.type, value, target.span, f"`{target.name}`")
    if isinstance(value, Value) and not value.node.name and value.node.op != "input":
        value.node.name = target.name if target.name != "_" else ""
    elif isinstance(value, (Value, tuple)) and target.name in frame.fixed:
        raise error("A0208", f"`{target.name}` is a hyper argument of this header", target.span, "bound again here",
                    labels=(Label(frame.fixed[target.name], "declared here"),))
    frame.bind(target.name, value, target.span)


def _require(frame: Frame, s: tree.Require) -> None:
    value = evaluate(frame, s.condition)
    if value is True:
        return
    if isinstance(value, Condition):
        for part in value.parts:
            _lift(frame, part, s)
        return
    decided(value, s.condition)
    text = _interpolate(frame, s.message) if s.message else f"`{s.condition.span.text}` does not hold"
    names = [n for n in _mentioned(s.condition) if isinstance(frame.vars.get(n), (int, Dim))]
    facts = tuple(f"{n} is {frame.vars[n]}" for n in names[:6])
    labels = tuple(Label(frame.args[n].span, f"`{n}` is {frame.vars[n]}") for n in names if n in frame.args and frame.args[n].origin == "argument")
    raise error("A0310", text, s.condition.span, "not so here", labels=labels, notes=facts, help=_divisor_help(frame, s.condition))


def _divisor_help(frame: Frame, c: tree.Expr) -> tuple[str, ...]:
    if isinstance(c, tree.Binary) and c.op == "==" and isinstance(c.left, tree.Binary) and c.left.op == "%":
        from archdsl.elaborate.operators import divisors

        a, b = evaluate(frame, c.left.left), evaluate(frame, c.left.right)
        if type(a) is int and type(b) is int and b:
            return divisors(a, b)[:1]
    return ()


def _mentioned(node: Any) -> list[str]:
    out: dict[str, None] = {}
    stack = [node]
    while stack:
        n = stack.pop(0)
        if isinstance(n, tree.Name):
            out[n.id] = None
        stack[:0] = list(tree.children(n))
    return list(out)


def _lift(frame: Frame, part: Any, s: tree.Require) -> None:
    """A condition on run-time sizes becomes a fact from here on, and a guard of the model."""
    left, op, right, divides = part
    if not frame.session.learn(part):
        raise error("A0302", f"`{s.condition.span.text}` contradicts what is required of the sizes before", s.condition.span, "no sizes satisfy both")
    written = f"{divides[0]} % {divides[1]} == 0" if op == "==" and divides else f"{left} {op} {right}"
    message = _interpolate(frame, s.message) if s.message else f"{written} is required"
    frame.session.step(s.span, 8 + len(frame.builder.guards))
    if len(frame.builder.guards) >= MAX_GUARDS:
        raise limit(f"there are more than {MAX_GUARDS} conditions on run-time sizes", s.condition.span)
    frame.builder.require([Guard(left, op, right, message, s.condition.span)])


def _interpolate(frame: Frame, text: str) -> str:
    """`{heads}` and `{d / 2}` inside a message."""
    from archdsl.elaborate.values import show
    from archdsl.syntax.parser import parse_expression

    out: list[str] = []
    at = 0
    text = clipped(text, 4_000)
    while (start := text.find("{", at)) >= 0 and (end := text.find("}", start)) > 0:
        out.append(text[at:start])
        try:
            value = evaluate(frame, parse_expression(text[start + 1 : end]))
            out.append(clipped(value if isinstance(value, str) else show(value)))
        except (ArchError, Poisoned):
            out.append(text[start : end + 1])
        at = end + 1
    return clipped("".join(out) + text[at:], 4_000)


def clipped(text: str, most: int = 400) -> str:
    """A text that may stand in a message."""
    return text if len(text) <= most else text[: most - 1] + "…"


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
            raise error("A0202", f"`{s.block}` has no argument `{k}`", spans.get(k, s.span), help=did_you_mean(k, params),
                        notes=(headers.signature(ref.decl),))
        entries[(id(ref.decl), k)] = DefaultEntry(v, spans.get(k, s.span), s)
    key = frame.session.intern(("defaults", tuple(sorted((k, str(frame.session.key(e.value))) for k, e in entries.items()))))
    frame.defaults = Defaults(entries, key)
    if frame.decl is not None and not frame.module.is_library:
        frame.session.declared_defaults.extend((s, (id(ref.decl), k), frame) for k in named)


def _share(frame: Frame, s: tree.Share) -> None:
    value = evaluate(frame, s.value)
    address = s.address or s.name
    shared = s.condition is None or truth(frame, s.condition)

    def one(item: Any, path: str) -> Any:
        return _one_share(frame, s, item, path) if shared else _hinted(item, path)

    made = tuple(one(v, f"{address}.{i}") for i, v in enumerate(value)) if is_list(value) else one(value, address)
    frame.bind(s.name, made, s.name_span)


def _hinted(value: Any, name: str) -> Any:
    from archdsl.records import replace

    return replace(value, hint=name) if isinstance(value, TEMPLATES) and hasattr(value, "hint") else value


def _one_share(frame: Frame, s: tree.Share, value: Any, name: str) -> Share:
    if not isinstance(value, Template):
        raise error("A0213", f"only a block can be shared, this is {describe(value)}", s.value.span)
    if value.ref.decl.body is None:
        raise error("A0218", f"`{value.ref.decl.name}` is an extern block; sharing one is not built yet", s.value.span, "not built yet")
    owner_allowed(frame, s.span, value.ref.decl.name)
    path = join(frame.prefix, name)
    key = frame.session.intern(("share", id(frame.builder), path, value.key))
    return Share(name, value, frame.builder, path, s.name_span, key, below(frame, name, s.span))


def _param(frame: Frame, s: tree.ParamDecl) -> None:
    if s.condition is not None and not truth(frame, s.condition):
        frame.bind(s.name, None, s.name_span)
        return
    _declare(frame, s, s.kind, s.init, s.name_span)


def _declare(frame: Frame, s: tree.ParamDecl | tree.Const, kind: str, init: tree.Expr, where: Span) -> None:
    """A weight of this body. Raises A0204, A0301 or A0306 for a shape that a weight cannot have."""
    if not isinstance(s.type, tree.TensorType):
        raise error("A0204", f"`{s.name}` needs a shape", s.type.span if s.type is not None else where,
                    help=f"`{s.span.text.split()[0]} {s.name}: [sizes] = …`")
    owner_allowed(frame, s.span, s.name)
    frame.session.step(s.span, 6)
    binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
    binding.sequences = frame.vars.get("...", {})
    if len(s.type.shape.axes) > MAX_AXES:
        raise limit(f"the weight `{s.name}` has more than {MAX_AXES} axes", s.type.span)
    try:
        shape = binding.shape(s.type.shape)
    except shapes.ShapeError as e:
        raise error("A0301", f"the shape of `{s.name}`: {e.message}", e.axis.span if e.axis is not None else s.type.span) from None
    axes = s.type.shape.axes
    spans = [a.span for a in axes] if len(axes) == len(shape) else [s.type.span] * len(shape)  # `...` stands for several
    sizes = tuple(_fixed(s.name, size, span) for size, span in zip(shape, spans))
    made = initial(frame, init)
    if kind == "const" and draws(made):
        raise error("A0204", f"the const `{s.name}` would be random", init.span, "another value for everyone who loads the weights",
                    help=f"a const is computed, not saved: write `frozen param {s.name}` or `buffer {s.name}`")
    type = TensorType(s.type.dtype or "float", shape)
    param = Param(join(frame.prefix, s.address or s.name), kind, type, made, _factors(frame, s.type.shape, s.name, len(sizes)), where)
    frame.bind(s.name, frame.builder.home.declare(param), where)


def _fixed(name: str, size: Size, span: Span) -> int:
    """The size of an axis of a weight. Raises A0306 for one that varies at run time, A0301 for a negative one, A0602 for one beyond all memory."""
    if not isinstance(size, int):
        raise error("A0306", f"the weight `{name}` would have the size {size}, which varies at run time", span, "not fixed at build",
                    help="weights are sized by hyper arguments: make the size one and add a `require`, for example `require H == side`")
    if size < 0 or size > 2**48:
        raise error("A0602" if size > 0 else "A0301", f"the weight `{name}` would have the size {size}", span)
    return size


def _factors(frame: Frame, shape: tree.Shape, name: str, rank: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """The written structure of each axis, when some axis has one."""
    if not any(type(a) is tree.AxisFactors for a in shape.axes) or len(shape.axes) != rank:
        return ()
    binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
    out: list[tuple[tuple[str, int], ...]] = []
    for axis in shape.axes:
        parts = axis.items if isinstance(axis, tree.AxisFactors) else (axis,)
        out.append(tuple((p.span.text or str(i), _fixed(name, binding.size(p), p.span)) for i, p in enumerate(parts)))
    return tuple(out)


def initial(frame: Frame, node: tree.Expr) -> InitExpr:
    """The initialiser that an expression stands for; numbers and lists are constants."""
    value = frame.vars.get(node.id) if type(node) is tree.Name else None
    if type(value) is not InitExpr:
        value = settled(frame.child(init=True), node)
    if isinstance(value, InitRef):
        from archdsl.elaborate.apply import initializer

        value = initializer(value.name, ([], {}, {}), node.span)
    if isinstance(value, InitExpr):
        return value
    if isinstance(value, Value):
        raise error("A0204", "an initialiser cannot read data, nor a parameter that another body owns", node.span)
    from archdsl.elaborate.values import is_hyper_number

    if is_hyper_number(value) or isinstance(value, bool):
        return InitExpr("constant", (), (("value", value if isinstance(value, (int, bool)) else float(value)),))
    if isinstance(value, tuple):
        return InitExpr("constant", (), (("value", as_attribute(value)),))
    raise error("A0204", f"an initialiser was expected, this is {describe(value)}", node.span,
                help="for example `normal(std = 0.02)`, `zeros()` or a number")


DRAWN = ("normal", "uniform")
"""Initialisers that a `draw` may use: the op `random_NAME` draws them."""


def draws(init: Any) -> bool:
    """Whether an initial value is random, or follows another weight's."""
    if is_list(init):
        return any(map(draws, init))
    return isinstance(init, InitExpr) and (init.op in RANDOM or init.op == "param" or any(map(draws, init.args)))


def _const(frame: Frame, s: tree.Const) -> None:
    value = evaluate(frame, s.value)
    if isinstance(value, (InitRef, InitExpr)):
        _declare(frame, s, "const", s.value, word_span(s, s.name))
        return
    if s.address:
        raise error("A0209", f"`as {s.address}` names a weight; this value owns nothing", s.span, help="drop the `as`")
    if s.type is not None and isinstance(s.type, tree.TensorType) and not isinstance(value, Value):
        value = apply_op(frame, "literal", (), {"value": as_attribute(value), "dtype": s.type.dtype or "float"}, s.value.span, label=s.name)
    _bind(frame, tree.Target(s.span, s.name, s.type), value)


def _draw(frame: Frame, s: tree.Draw) -> None:
    value = evaluate(frame, s.value)
    if isinstance(value, (InitRef, InitExpr)):
        value = _drawn(frame, s, value)
    _bind(frame, tree.Target(s.span, s.name, s.type), value)


def _drawn(frame: Frame, s: tree.Draw, value: InitRef | InitExpr) -> Value:
    """`draw noise: [B, d] = normal(std = 2)`: the op `random_normal`, with the declared shape. Raises A0204."""
    init = initial(frame, s.value) if isinstance(value, InitRef) else value
    if init.op not in DRAWN or init.args:
        raise error("A0204", f"`{s.name}` cannot be drawn from this", s.value.span, f"`{init.op}` is not drawn in a forward pass",
                    help=f"draw from `{'`, `'.join(DRAWN)}` and compute with the result")
    if not isinstance(s.type, tree.TensorType):
        raise error("A0204", f"`{s.name}` needs a shape", s.span, help=f"`draw {s.name}: [B, d] = {init.op}()`")
    binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
    binding.sequences = frame.vars.get("...", {})
    try:
        shape = binding.shape(s.type.shape)
    except shapes.ShapeError as e:
        raise error("A0301", f"the shape of `{s.name}`: {e.message}", e.axis.span if e.axis is not None else s.type.span) from None
    attrs = {"shape": shape, **dict(init.attrs), "dtype": s.type.dtype or "float"}
    return apply_op(frame, f"random_{init.op}", (), attrs, s.span, label=s.name)


def _emit(frame: Frame, s: tree.Emit) -> None:
    value = evaluate(frame, s.value) if s.value is not None else good(frame.vars.get(s.name, POISON))
    if not isinstance(value, Value):
        raise error("A0219", f"only tensors are emitted, this is {describe(value)}", s.span)
    if frame.loop is not None:
        raise error("A0212", f"`{s.name}` is emitted inside a loop without a label", s.span, "its values would have one address",
                    labels=(Label(frame.loop, "label this loop: `layers: for …`"),), help="label the loop")
    frame.builder.emit(join(frame.prefix, s.name), frame.builder.resolve(value), s.span)


def _update(frame: Frame, s: tree.Update) -> None:
    target = good(frame.vars.get(s.name, POISON))
    if not isinstance(target, Value) or target.node.op != "param" or frame.builder.params.get(target.node.attrs["path"], None) is None \
            or frame.builder.params[target.node.attrs["path"]].kind != "buffer":
        raise error("A0204", f"`update` gives a buffer of this body a new value; `{s.name}` is {describe(target)}", s.span)
    value = evaluate(frame, s.value)
    if not isinstance(value, Value) or len(value.shape) != len(target.shape) \
            or any(shapes.same(a, b) is not True for a, b in zip(value.shape, target.shape)):
        raise error("A0301", f"the buffer `{s.name}` is {target.type}, its new value is {describe(value)}", s.value.span)
    frame.builder.add("update", (value,), {"path": target.node.attrs["path"]}, (), s.span)


def _static(frame: Frame, s: tree.Static) -> None:
    for n in s.names:
        if isinstance(frame.vars.get(n), Dim):
            raise error("A0218", f"`static {n}` asks for a specialised graph: give the sizes with `--at` instead", s.span, "not built yet")


# ---------------------------------------------------------------- control
def iterate(frame: Frame, pattern: tree.Pattern, node: tree.Expr) -> Iterator[int]:
    """Binds the loop's names for each item and yields its ordinal."""
    items = evaluate(frame, node)
    if isinstance(items, str):
        items = tuple(items)
    if not is_list(items):
        hint = f"`range({node.span.text})` counts" if isinstance(items, int) else ()
        raise error("A0204", f"a loop runs over a list, a range or a string, this is {describe(items)}", node.span, help=hint)
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


def _for(frame: Frame, s: tree.For) -> bool:
    frame.session.step(s.span, len(frame.vars) >> 3)
    before = dict(frame.vars)
    outer = set(before)
    for i in iterate(frame, s.pattern, s.iterable):
        if s.label is None:
            loop = frame.loop
            frame.loop = s.span
            try:
                returned = run(frame, s.body)
            finally:
                frame.loop = loop
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
    session.step(s.span, len(graph.nodes) >> 4)
    if graph.owns_weights or graph.emits or graph.knobs:
        owner_allowed(frame, s.span, s.label or "")
        pay(frame, graph, s.span)
        frame.builder.home.adopt(path, graph, s.span)
        results = frame.builder.call(graph, path, operands, s.span, known.name)
    else:
        session.step(s.span, len(graph.nodes))
        results = frame.builder.splice(graph, operands)
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
    key = None if overrides else _body_key(frame, s, plan, counts)
    known: _Body | None = session.memo.get(key) if key is not None else None
    if known is None:
        learned = len(session.facts)
        known = _body_graph(frame, s, plan, path, overrides, outer, late.places(session, plan.late, numbers) if plan else {})
        known.facts = tuple(session.facts[learned:])
        if key is not None and known.operands is not None:
            session.memo[key] = known
        operands = list(known.imports)
    else:
        session.learn_all(known.facts)
        reachable = _reachable(frame, _body_names(frame, s, plan))
        operands = [reachable[i] for i in known.operands or ()]
    return known, operands, late.fill(session, known.graph, dict(zip(known.waiting, numbers)))


@record()
class _Body:
    """One evaluated loop body. `carried`: outer names with their new values, whose tensors are `mine` (the graph's outputs) or the outer body's.
    `operands`: which of the tensors that the body can reach (`_reachable`) the graph's inputs are; None when they cannot be told by that.
    `waiting`: the numbers of its late arguments. `facts`: what it requires of run-time sizes."""

    graph: Any
    imports: tuple[Value, ...]
    carried: list[tuple[str, Any]]
    mine: list[Value]
    operands: tuple[int, ...] | None
    used: set[tuple[int, str]]
    name: str
    waiting: tuple[int, ...]
    facts: tuple[Any, ...] = ()


def _body_graph(frame: Frame, s: tree.For, plan: passes.Plan | None, path: str, overrides: Any, outer: set[str], waiting: dict[int, Late]) -> _Body:
    session = frame.session
    builder = Builder(frame.builder, frame.builder.base + path + ".")
    inner = frame.inner(s.span, builder=builder, prefix="", overrides=overrides, loop=None, emitted=0, late=waiting)
    before, session.used_defaults = session.used_defaults, set()
    try:
        if run(inner, s.body):
            raise error("A0220", "`return` cannot stand in a labelled loop", s.span)
        used = session.used_defaults
    except NeedInline:
        frame.builder.require(builder.guards)
        raise
    finally:
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
    mine = [v for v in dict.fromkeys(values) if id(v.node) in builder.own]
    named = len(mine) == len(carried) and all(isinstance(v, Value) for _, v in carried)
    names = tuple(n for n, _ in carried) if named else ()
    graph = builder.finish(s.label or "", tuple(mine), names=names, span=s.span)
    interned = late.kept(session, graph)
    imports = tuple(builder.imports)
    at = {v: i for i, v in reversed(list(enumerate(_reachable(frame, _body_names(frame, s, plan)))))}
    plain = all(v in at for v in imports) and len(mine) == len(dict.fromkeys(values))
    return _Body(interned, imports, carried, mine, tuple(at[v] for v in imports) if plain else None, used, mine[0].node.name if mine else "",
                 tuple(w.number for w in waiting.values()))


def _body_names(frame: Frame, s: tree.For, plan: passes.Plan | None) -> tuple[str, ...]:
    """The names that a body mentions or binds, but for those in expressions that the plan evaluates."""
    from archdsl.elaborate.expressions import free_names

    if plan is not None:
        return plan.names
    free = frame.session.free
    if id(s) not in free:
        free[id(s)] = tuple(sorted(set[str]().union(*(free_names(b) for b in s.body), *(assigned(b) for b in s.body))))
    return free[id(s)]


def _reachable(frame: Frame, names: tuple[str, ...]) -> list[Value]:
    """The tensors in the values of these names, those in lists and masks included, in order."""
    found: list[Value] = []
    for n in names:
        map_tensors(frame.vars.get(n), found.append)
    return found


def _body_key(frame: Frame, s: tree.For, plan: passes.Plan | None, counts: Any) -> Any:
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
    same = tuple(first.setdefault(v, i) for i, v in enumerate(_reachable(frame, names)))
    rest = session.key(tuple(frame.rest[0])) if frame.rest else None
    sequences = tuple(sorted(frame.vars.get("...", {}).items()))
    return ("body", id(s), plan is None, counts, tuple((n, session.key(v)) for n, v in values), same, sequences, frame.defaults.key, frame.dtype,
            rest, session.known)


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
    address = join(frame.prefix, s.name)
    for o in frame.overrides:
        if o.segments == (s.name,):
            o.used[0] = True
            chosen, given = _chosen_arm(o)
    if chosen not in arms:
        raise error("A0224", f"`{s.name}` has no arm `{chosen}`", s.span, help=did_you_mean(chosen, arms) or (f"its arms are {', '.join(arms)}",))
    arm = arms[chosen]
    frame.builder.knobs[address] = Knob(address, "choice", default, chosen, tuple(arms), s.span, allowed=of_values(tuple(arms)))
    inner = frame.inner(s.span, overrides=below(frame, s.name, s.span), prefix=address)
    _, named, spans = arguments(frame, given)
    for p in arm.params:
        value = named.pop(p.name) if p.name in named else evaluate(inner, p.default) if p.default is not None else None
        frame.session.step(p.span, len(inner.overrides) >> 2)
        for o in inner.overrides:
            if o.segments[0] == p.name:
                value = headers.override_value(inner, o, value)
        inner.vars[p.name] = headers.convert(inner, value, p.type, spans.get(p.name, p.span), p.name)
        if p.domain is not None:
            knob = join(address, p.name)
            kind, allowed = p.type.span.text if p.type else "", headers.allowed(inner, p)
            frame.builder.knobs[knob] = Knob(knob, kind, value, inner.vars[p.name], p.domain, p.span, p.doc, allowed)
    for k in named:
        raise error("A0202", f"the arm `{chosen}` has no argument `{k}`", spans.get(k, s.span), help=did_you_mean(k, [p.name for p in arm.params]))
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
            raise error("A0202", f"`{frame.decl.name}` has no result `{name}`", node.span, help=did_you_mean(name, [n for n in names if n]))
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
    positional, named, spans = args
    decl = ref.decl
    if decl.name in session.resolving:
        raise error("A0226", f"`{decl.name}` calls itself", span, help="use a loop: functions of the language always end")
    inner = Frame(session, ref.module, Builder(), decl=decl)
    names = [p.name for p in decl.params]
    if len(positional) > len(names):
        raise error("A0205", f"`{decl.name}` takes {len(names)} arguments, not {len(positional)}", span)
    values = dict(zip(names, positional))
    for k, v in named.items():
        if k not in names:
            raise error("A0202", f"`{decl.name}` has no argument `{k}`", spans.get(k, span), help=did_you_mean(k, names))
        values[k] = v
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


TABLE: dict[type, Callable[[Frame, Any], Any]] = {
    tree.Assign: _assign,
    tree.Require: _require,
    tree.Default: _default,
    tree.Share: _share,
    tree.ParamDecl: _param,
    tree.Const: _const,
    tree.Draw: _draw,
    tree.Emit: _emit,
    tree.Update: _update,
    tree.Static: _static,
    tree.For: _for,
    tree.If: _if,
    tree.Match: _match,
    tree.Choose: _choose,
    tree.Island: _island,
    tree.Return: _return,
    tree.Scan: _reserved("scan", "recurrences are lowered with the sequence mixers"),
    tree.Next: _reserved("next", "it belongs to `scan`"),
    tree.Yield: _reserved("yield", "it belongs to `scan`"),
    tree.Control: _reserved("control", "run-time settings are built when a paper needs them"),
    tree.Entry: _entry,
}
