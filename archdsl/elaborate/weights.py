"""What a body owns: parameters, buffers, consts, and what it draws."""
from __future__ import annotations

import re
from typing import Any

from archdsl import shapes
from archdsl.diagnostics.model import ArchError, Fix, Label, error
from archdsl.diagnostics.poison import POISON
from archdsl.dims import Size
from archdsl.elaborate.apply import allowed_in_arm, owner_allowed
from archdsl.elaborate.bindings import word_span
from archdsl.elaborate.bodies import bind
from archdsl.elaborate.builder import join
from archdsl.elaborate.calls import initializer
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.expressions import settled, truth
from archdsl.elaborate.frame import Frame, good
from archdsl.elaborate.initials import check_initial
from archdsl.elaborate.limits import MAX_AXES, limit
from archdsl.elaborate.operators import as_float
from archdsl.elaborate.ops import apply_op, as_attribute
from archdsl.elaborate.values import InitRef, describe, is_hyper_number, is_list
from archdsl.graph import InitExpr, Node, Param, TensorType, Value
from archdsl.ops.initializers import RANDOM
from archdsl.ops.registry import find
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import tree


def parameter(frame: Frame, s: tree.ParamDecl) -> None:
    """`param`, `frozen param` and `buffer`; none where its `if` says no."""
    if s.condition is not None and not truth(frame, s.condition):
        frame.bind(s.name, None, s.name_span)
        return
    _declare(frame, s, s.kind, s.init, s.name_span)


def _declare(frame: Frame, s: tree.ParamDecl | tree.Const, kind: str, init: tree.Expr, where: Span) -> None:
    """A weight of this body. Raises A0204, A0301 or A0306 for a shape that a weight cannot have."""
    if not isinstance(s.type, tree.TensorType):
        written = s.type.span if s.type is not None else where
        sizes = re.fullmatch(r"\((.*)\)", written.text) if isinstance(s.type, tree.TupleType) else None
        raise error("A0204", f"`{s.name}` needs a shape", written, help=f"`{s.span.text.split()[0]} {s.name}: [sizes] = …`",
                    fixes=(Fix(f"write `[{sizes[1]}]`", ((written, f"[{sizes[1]}]"),)),) if sizes else ())
    owner_allowed(frame, s.span, s.name)
    frame.session.step(s.span, 6)
    binding = shapes.Binding(frame.vars, lambda e: evaluate(frame, e))
    binding.sequences = frame.vars.get("...", {})
    if len(s.type.shape.axes) > MAX_AXES:
        raise limit(f"the weight `{s.name}` has more than {MAX_AXES} axes", s.type.span)
    try:
        shape = binding.shape(s.type.shape)
    except shapes.ShapeError as e:
        raise error("A0301", f"the shape of `{s.name}`: {e.message}", e.axis.span if e.axis is not None else s.type.span,
                    division=e.division) from None
    axes = s.type.shape.axes
    spans = [a.span for a in axes] if len(axes) == len(shape) else [s.type.span] * len(shape)  # `...` stands for several
    sizes = tuple(_fixed(s.name, size, span) for size, span in zip(shape, spans))
    made = initial(frame, init)
    if kind == "const" and draws(made):
        raise error("A0204", f"the const `{s.name}` would be random", init.span, "another value for everyone who loads the weights",
                    help=f"a const is computed, not saved: write `frozen param {s.name}` or `buffer {s.name}`")
    type = TensorType(s.type.dtype or "float", sizes)
    check_initial(frame, s.name, made, type, init)
    param = Param(join(frame.prefix, s.address or s.name), kind, type, made, _factors(frame, s.type.shape, s.name, len(sizes)), where)
    try:
        value = frame.builder.home.declare(param)
    except ArchError as e:
        raise _own_address(frame, e, s) from None
    frame.bind(s.name, value, where)


def _own_address(frame: Frame, e: ArchError, s: tree.ParamDecl | tree.Const) -> ArchError:
    """A weight `x as y` whose address is taken may have its own name."""
    named = re.search(rf"\b{re.escape(s.name)}(\s+as\s+[\w.]+)", s.span.text)
    if named is None or join(frame.prefix, s.name) in frame.builder.home.owners:
        return e
    where = Span(s.span.source, s.span.start + named.start(1), s.span.start + named.end(1))
    fix = Fix(f"leave out `{where.text.strip()}`", ((where, ""),))
    return ArchError(*(replace(d, help=(), fixes=(fix,)) if d.code == "A0211" else d for d in e.diagnostics))


def _fixed(name: str, size: Size, span: Span) -> int:
    """The size of an axis of a weight. Raises A0306 for one that varies at run time, A0301 for a negative one, A0602 for one beyond all memory."""
    if not isinstance(size, int):
        raise error("A0306", f"the weight `{name}` would have the size {size}, which varies at run time", span, "not fixed at build",
                    help="weights are sized by hyper arguments: make the size one and add a `require`, for example `require H == side`")
    if size < 0 or size > 2**48:
        shown = size if size < 10**18 else f"10 ** {len(str(size)) - 1} and more"
        raise error("A0602" if size > 0 else "A0301", f"the weight `{name}` would have the size {shown}", span)
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
        value = initializer(value.name, ([], {}, {}), node.span)
    if isinstance(value, InitExpr):
        return value
    if isinstance(value, Value):
        raise error("A0204", "an initialiser cannot read data, nor a parameter that another body owns", node.span)
    if is_hyper_number(value) or isinstance(value, bool):
        return InitExpr("constant", (), (("value", value if isinstance(value, (int, bool)) else as_float(value, node.span)),))
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


def _no_constant(value: Value) -> Node | None:
    """A node that the value depends on and that is no table of numbers."""
    seen: set[int] = set()
    stack = [value.node]
    while stack:
        node = stack.pop()
        op = find(node.op)
        if op is None or op.random:
            return node
        if id(node) not in seen:
            seen.add(id(node))
            stack += [v.node for v in node.operands()]
    return None


def const(frame: Frame, s: tree.Const) -> None:
    """`const NAME = VALUE`: a weight that is not saved where the value is an initialiser, else a name for it."""
    value = evaluate(frame, s.value)
    if isinstance(value, (InitRef, InitExpr)):
        _declare(frame, s, "const", s.value, word_span(s, s.name))
        return
    if isinstance(value, Value) and (node := _no_constant(value)) is not None:
        labels = (Label(node.span, "this one"),)
        raise error("A0204", f"`{s.name}` is no const", s.value.span, "it follows from a weight, an input or a draw", labels=labels,
                    help=f"write `{s.name} = …` without `const`")
    if s.address:
        raise error("A0209", f"`as {s.address}` names a weight; this value owns nothing", s.span, help="drop the `as`")
    if s.type is not None and isinstance(s.type, tree.TensorType) and not isinstance(value, Value):
        value = apply_op(frame, "literal", (), {"value": as_attribute(value), "dtype": s.type.dtype or "float"}, s.value.span, label=s.name)
    bind(frame, tree.Target(s.span, s.name, s.type), value)


def draw(frame: Frame, s: tree.Draw) -> None:
    """`draw NAME: TYPE = DISTRIBUTION`: drawn anew in each forward pass."""
    value = evaluate(frame, s.value)
    if isinstance(value, (InitRef, InitExpr)):
        value = _drawn(frame, s, value)
    bind(frame, tree.Target(s.span, s.name, s.type), value)


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
        raise error("A0301", f"the shape of `{s.name}`: {e.message}", e.axis.span if e.axis is not None else s.type.span,
                    division=e.division) from None
    attrs = {"shape": shape, **dict(init.attrs), "dtype": s.type.dtype or "float"}
    return apply_op(frame, f"random_{init.op}", (), attrs, s.span, label=s.name)


def update(frame: Frame, s: tree.Update) -> None:
    """`update NAME = VALUE`: what a buffer of this body holds from the next pass on. Raises A0204, A0227, A0301."""
    allowed_in_arm(frame, "update", s.span)
    target = good(frame.vars.get(s.name, POISON))
    if not isinstance(target, Value) or target.node.op != "param" or frame.builder.params.get(target.node.attrs["path"], None) is None \
            or frame.builder.params[target.node.attrs["path"]].kind != "buffer":
        raise error("A0204", f"`update` gives a buffer of this body a new value; `{s.name}` is {describe(target)}", s.span)
    value = evaluate(frame, s.value)
    if not isinstance(value, Value) or len(value.shape) != len(target.shape) \
            or any(shapes.same(a, b) is not True for a, b in zip(value.shape, target.shape)):
        raise error("A0301", f"the buffer `{s.name}` is {target.type}, its new value is {describe(value)}", s.value.span)
    frame.builder.add("update", (value,), {"path": target.node.attrs["path"]}, (), s.span)
