"""`scan … over T carry …`: a recurrence in the language. Its body becomes a graph of its own, for one position."""
from __future__ import annotations

from typing import Any

from archdsl import shapes
from archdsl.diagnostics.model import Label, error
from archdsl.diagnostics.poison import POISON
from archdsl.elaborate.bindings import word_span
from archdsl.elaborate.bodies import run
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame, good
from archdsl.elaborate.values import describe
from archdsl.graph import InitExpr, TensorType, Value
from archdsl.records import record
from archdsl.syntax import tree


@record()
class Scanning:
    """The scan whose body is being run: the carries by name, their new values so far, what the body yields."""

    statement: tree.Scan
    carries: dict[str, Value]
    nexts: dict[str, Value]
    yields: tuple[Value, ...] | None = None


def scan(frame: Frame, s: tree.Scan) -> bool:
    """Runs the body once, on one position, and adds the node that repeats it along the axis. What the body yields is the result."""
    if s.merge is not None:
        raise error("A0218", "`scan … by` is part of the language but not built yet", s.merge.span, "scans go position by position")
    size = good(frame.vars.get(s.axis, POISON))  # a name that is not in scope has been told
    scanned = {name: _scanned(frame, s, name, size) for name in s.inputs}
    builder = Builder(frame.builder, frame.builder.base, frame.builder.home)
    inner = frame.inner(s.span, builder=builder, phase=frame.phase or "scan", loop=frame.loop)
    axes: list[int] = []
    for name, (value, axis) in scanned.items():
        axes.append(axis)
        shape = (*value.shape[:axis], *value.shape[axis + 1:])
        inner.vars[name] = builder.input(name, TensorType(value.dtype, shape), value.node.span)
    initial = [_carry(frame, inner, c) for c in s.carries]
    state = Scanning(s, {c.name: inner.vars[c.name] for c in s.carries}, {})
    inner.scanning = state
    run(inner, s.body)
    _complete(s, state)
    assert state.yields is not None
    nexts = [state.nexts[c.name] for c in s.carries]
    outputs = tuple(builder.resolve(v) for v in (*nexts, *state.yields))
    others = tuple(builder.imports)
    order = [*builder.inputs[:len(scanned) + len(initial)], *(builder.imports[v] for v in others)]
    builder.inputs = order
    builder.nodes = [v.node for v in order] + [n for n in builder.nodes if n.op != "input"]
    for address, value in builder.emits.items():
        raise error("A0219", f"`{address}` is emitted in a `scan`", value.node.span, "it would have a value at each position", help="yield it")
    frame.builder.require(builder.guards)
    frame.builder.knobs.update(builder.knobs)
    graph = builder.finish("scan", outputs, span=s.span)
    at = axes[0]
    types = [TensorType(y.dtype, (*y.shape[:at], size, *y.shape[at:])) for y in (v.type for v in outputs[len(initial):])]  # type: ignore[misc]
    args = (*(v for v, _ in scanned.values()), *initial, *others)
    attrs = {"body": graph, "scanned": len(scanned), "axes": tuple(axes), "carries": tuple(c.name for c in s.carries), "n": size}
    node = frame.builder.add("scan", args, attrs, (*types, *(v.type for v in outputs[:len(initial)])), s.span)
    for i, y in enumerate((*state.yields, *nexts)):
        node.call_result(i, y.node.result_name(y.index) or "y")
    frame.result = (s.span, node.values[:len(types)])
    return True


def _scanned(frame: Frame, s: tree.Scan, name: str, size: Any) -> tuple[Value, int]:
    """A tensor that the scan walks along, and its axis."""
    value = good(frame.vars.get(name, POISON))
    span = word_span(s, name)
    if not isinstance(value, Value):
        raise error("A0204", f"`scan` walks along tensors: `{name}` is {describe(value)}", span)
    found = [i for i, a in enumerate(value.shape) if shapes.same(a, size) is True]
    if len(found) != 1:
        why = f"has no axis of {size}" if not found else f"has {len(found)} axes of {size}"
        raise error("A0309", f"`{name}` {why}: which one is `{s.axis}`?", span, f"its shape is {value.type}",
                    labels=(Label(value.node.span, "it comes from here"),) if value.node.span != span else ())
    return value, found[0]


def _carry(frame: Frame, inner: Frame, c: tree.Carry) -> Value:
    """The initial value of a carried tensor; inside, its name is the value carried in."""
    binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
    if not isinstance(c.type, tree.TensorType):
        raise error("A0204", f"`{c.name}` is carried from position to position: it is a tensor", c.span, help=f"`carry {c.name}: [B, d] = zeros()`")
    try:
        type = TensorType(c.type.dtype or "float", binding.shape(c.type.shape))
    except shapes.ShapeError as e:
        raise error("A0309", f"the shape of `{c.name}`: {e.message}", e.axis.span if e.axis is not None else c.span) from None
    value = good(evaluate(frame.child(init=True) if _is_constant(c.init) else frame, c.init))
    if isinstance(value, InitExpr) or isinstance(value, (int, float)) and not isinstance(value, bool):
        value = _filled(frame, c, value, type)
    if not isinstance(value, Value):
        raise error("A0204", f"`{c.name}` begins with a tensor or with `zeros()`, not with {describe(value)}", c.init.span)
    if value.type != type:
        raise error("A0301", f"`{c.name}` is {type}, and begins with {value.type}", c.init.span, "of another type")
    inner.vars[c.name] = inner.builder.input(c.name, type, c.span)
    return value


def _is_constant(e: tree.Expr) -> bool:
    return isinstance(e, tree.Call) and isinstance(e.func, tree.Name) and e.func.id in ("zeros", "ones", "constant")


def _filled(frame: Frame, c: tree.Carry, value: Any, type: TensorType) -> Value:
    number: Any = value
    if isinstance(value, InitExpr):
        known = {"zeros": 0, "ones": 1}
        number = known.get(value.op, dict(value.attrs).get("value"))
    if not isinstance(number, (int, float)):
        raise error("A0204", f"`{c.name}` begins with a number everywhere, `zeros()`, or with a tensor", c.init.span)
    literal = frame.builder.add("literal", (), {"value": number, "dtype": type.dtype}, (TensorType(type.dtype, ()),), c.span)
    return Value(frame.builder.add("expand", (Value(literal),), {"shape": type.shape}, (type,), c.span, c.name))


def next_value(frame: Frame, s: tree.Next) -> None:
    """`next NAME = VALUE`: what the next position finds in NAME."""
    state = _inside(frame, s)
    if s.name not in state.carries:
        raise error("A0209", f"this scan carries no `{s.name}`", word_span(s, s.name), f"it carries {', '.join(state.carries)}")
    if s.name in state.nexts:
        raise error("A0208", f"`{s.name}` gets a second next value", s.span)
    value = good(evaluate(frame, s.value))
    carried = state.carries[s.name]
    if not isinstance(value, Value) or value.type != carried.type:
        shown = value.type if isinstance(value, Value) else describe(value)
        raise error("A0301", f"the next `{s.name}` is {shown}, and `{s.name}` is {carried.type}", s.value.span, "of another type",
                    labels=(Label(carried.node.span, f"`{s.name}` is carried as {carried.type}"),))
    state.nexts[s.name] = value


def yielded(frame: Frame, s: tree.Yield) -> bool:
    """`yield VALUES`: the results at this position."""
    state = _inside(frame, s)
    values = tuple(good(evaluate(frame, v)) for v in s.values)
    for v, node in zip(values, s.values):
        if not isinstance(v, Value):
            raise error("A0204", f"a scan yields tensors, this is {describe(v)}", node.span)
    state.yields = values
    return True


def _inside(frame: Frame, s: Any) -> Scanning:
    state = getattr(frame, "scanning", None)
    if state is None:
        word = "next" if isinstance(s, tree.Next) else "yield"
        raise error("A0220", f"`{word}` belongs into the body of a `scan`", s.span)
    return state


def _complete(s: tree.Scan, state: Scanning) -> None:
    if state.yields is None:
        raise error("A0220", "this scan yields nothing", s.span, help="end its body with `yield VALUE`")
    for c in s.carries:
        if c.name not in state.nexts:
            raise error("A0220", f"`{c.name}` gets no next value", c.span, help=f"`next {c.name} = …` in the body")


