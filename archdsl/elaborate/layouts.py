"""Layout words: `rearrange`, `under`, `reduce`, `einsum`, and indexing. Names in scope are sizes; new ones are solved."""
from __future__ import annotations

from typing import Any

from archdsl import dims, shapes
from archdsl.diagnostics.model import ArchError, Fix, error
from archdsl.dims import Dim, Size
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.ops import apply_op
from archdsl.elaborate.plain_layouts import plain_layout
from archdsl.elaborate.values import TEMPLATES, Partial, describe
from archdsl.graph import Value
from archdsl.source import Span
from archdsl.syntax import tree

Atom = tuple[str, Size]


def layout_call(frame: Frame, node: tree.LayoutCall, piped: Any = None) -> Any:
    """A layout word with its tensor: piped, written first, or still to come (then a template)."""
    from archdsl.elaborate.closures import closure_key

    value = piped
    if value is None and node.value is not None:
        value = evaluate(frame, node.value)
    if node.word == "einsum":
        return _einsum(frame, node, value)
    if node.word == "layout" or node.output is None:
        written = next((a.value for a in node.args if isinstance(a.value, tree.Str)), None)
        if written is not None:
            raise _in_quotes(node.word, written)
        raise error("A0218", "layouts as values are part of the language but not built yet", node.span, "not built yet",
                    help="write the layout where it is used")
    if value is None:
        return Partial(node, frame.inner(node.span), closure_key(frame, node))
    if not isinstance(value, Value):
        raise error("A0204", f"`{node.word}` takes a tensor, this is {describe(value)}", node.span)
    if len(node.inputs) != 1:
        raise error("A0308", f"`{node.word}` takes one shape on each side of the arrow", node.span)
    if node.word == "rearrange":
        given = _given(frame, node)
        plain = plain_layout(frame.session, node)
        solved = plain.solve({**frame.vars, **given}, value.shape) if plain is not None else None
        if solved is not None:
            sizes, ins, outs = solved
            return value if ins == outs else apply_op(frame, "rearrange", (value,), {"sizes": sizes, "ins": ins, "outs": outs}, node.span)
        spec = _solve(frame, node, value, given)
        return _rearrange(frame, value, spec, node.span)
    if node.word == "under":
        return _under(frame, node, value)
    if node.word == "reduce":
        return _reduce(frame, node, value)
    raise error("A0218", f"`{node.word}` values are not built yet", node.span)


def _in_quotes(word: str, written: tree.Str) -> ArchError:
    """`rearrange(x, "b t d -> b d t")`"""
    from archdsl.syntax.habits import LAYOUTS, shapes

    new = shapes(written.value)
    fixes = (Fix(f"write `{new}`", ((written.span, new),)),) if new is not None else ()
    return error("A0204", f"`{word}` takes shapes, not a string", written.span, "this is a string", help=LAYOUTS, fixes=fixes)


class _Spec:
    """Atoms of both sides: `sizes` by name, the groups of names per input axis and per output axis."""

    def __init__(self) -> None:
        self.sizes: dict[str, Size] = {}
        self.ins: list[list[str]] = []
        self.outs: list[list[str]] = []
        self.written: tuple[tree.Shape, tree.Shape] | None = None


def _solve(frame: Frame, node: tree.LayoutCall, value: Value, given: dict[str, Size] | None = None) -> _Spec:
    spec = _Spec()
    given = _given(frame, node) if given is None else given
    names = dict(frame.vars)
    names.update(given)
    binding = shapes.Binding(names, _hyper(frame))
    binding.sequences = dict(frame.vars.get("...", {}))
    source, target = node.inputs[0], node.output
    assert target is not None
    try:
        ins = _groups(spec, binding, source, value, names, node)
    except shapes.ShapeError as e:
        from archdsl.elaborate.operators import divisors

        raise error("A0308", f"`{node.word}`: {value.type} does not fit {source.span.text}", node.span, e.message,
                    fixes=proposals().lacking_axis(source, target, len(value.shape)), division=e.division,
                    help=(*_own_name(e.axis, names), *([f"add `require {e.require}`"] if e.require else []),
                          *(divisors(*e.division)[:1] if e.division else ()))) from None
    spec.ins, spec.written = ins, (source, target)
    try:
        spec.outs = _targets(spec, binding, target)
    except shapes.ShapeError as e:
        raise error("A0308", f"`{node.word}`: {e.message}", e.axis.span if e.axis is not None else target.span) from None
    return spec


def proposals() -> Any:
    """What mends faults: nobody needs it without one."""
    from archdsl.elaborate import proposals

    return proposals


def _own_name(axis: tree.Axis | None, names: dict[str, Any]) -> tuple[str, ...]:
    """What to do when an axis has another size than its name in scope."""
    if isinstance(axis, tree.AxisName) and axis.id in names:
        return (f"`{axis.id}` is a size in scope: under a name that is not, the axis may have any size",)
    return ()


def _hyper(frame: Frame) -> shapes.Hyper:
    return lambda e: evaluate(frame, e)


def _given(frame: Frame, node: tree.LayoutCall) -> dict[str, Size]:
    out: dict[str, Size] = {}
    for a in node.args:
        if a.name is not None:
            size = evaluate(frame, a.value)
            if not isinstance(size, (int, Dim)) or isinstance(size, bool):
                raise error("A0308", f"`{a.name}` is a size, not {describe(size)}", a.span)
            out[a.name] = size
    return out


def _groups(spec: _Spec, binding: shapes.Binding, source: tree.Shape, value: Value, names: dict[str, Any], node: tree.LayoutCall) -> list[list[str]]:
    """Splits each input axis into atoms, solving at most one unknown factor per axis."""
    pattern = tree.Shape(source.span, tuple(a if isinstance(a, (tree.AnyAxes, tree.AxesVar)) else tree.AxisName(a.span, f"\0{i}")
                                            for i, a in enumerate(source.axes)))
    whole = shapes.Binding({})
    whole.sequences = {}
    whole.match(pattern, value.shape)
    groups: list[list[str]] = []
    pending: list[tuple[int, tree.AxisFactors, Size]] = []
    for i, axis in enumerate(source.axes):
        if isinstance(axis, (tree.AnyAxes, tree.AxesVar)):
            label = "..." if isinstance(axis, tree.AnyAxes) else axis.id
            sizes = whole.sequences[label]
            binding.sequences[label] = sizes
            for k, s in enumerate(sizes):
                spec.sizes[f"{label}\0{k}"] = s
                groups.append([f"{label}\0{k}"])
            continue
        size = whole.sizes[f"\0{i}"]
        groups.append([])
        if isinstance(axis, tree.AxisFactors):
            pending.append((len(groups) - 1, axis, size))
        else:
            _atom(spec, binding, axis, size, groups[-1], node)
    for at, axis, size in pending:
        known = [a for a in axis.items if all(n in binding.sizes for n in shapes.axis_names(a))]
        unknown = [a for a in axis.items if any(n not in binding.sizes for n in shapes.axis_names(a))]
        rest = size
        if len(unknown) > 1:
            raise shapes.ShapeError(f"`{axis.span.text}` has several unknown factors: give one, for example `{unknown[0].span.text} = 2`", axis)
        product = dims.product([binding.size(a) for a in known])
        if unknown:
            quotient = shapes.divide(size, product)
            if quotient is None:
                raise shapes.inexact(size, product, axis)
            rest = quotient
            binding.bind(unknown[0].id, rest, axis)  # type: ignore[attr-defined]
        else:
            binding.agree(product, size, axis, f"`{axis.span.text}`")
        for a in axis.items:
            _atom(spec, binding, a, binding.size(a), groups[at], node)
    return groups


def _atom(spec: _Spec, binding: shapes.Binding, axis: tree.Axis, size: Size, group: list[str], node: tree.LayoutCall) -> None:
    if isinstance(axis, tree.AxisInt):
        binding.agree(axis.value, size, axis, f"`{axis.value}`")
        name = str(axis.value) if axis.value == 1 else f"{axis.value}@{axis.span.start}"
        if axis.value == 1:
            return
    elif isinstance(axis, (tree.AxisName, tree.AxisSized)):
        name = axis.id
        if name not in spec.sizes:
            binding.bind(name, size, axis)
            size = binding.sizes[name]
    else:
        binding.agree(binding.size(axis), size, axis, f"`{axis.span.text}`")
        name = _text(axis)
    if name in spec.sizes:
        raise shapes.ShapeError(f"`{name}` occurs twice on the left", axis)
    spec.sizes[name] = size
    group.append(name)


def _text(axis: tree.Axis) -> str:
    return "".join(axis.span.text.split())


def _targets(spec: _Spec, binding: shapes.Binding, target: tree.Shape) -> list[list[str]]:
    outs: list[list[str]] = []
    used: set[str] = set()

    def atom(axis: tree.Axis) -> list[str]:
        if isinstance(axis, tree.AxisInt) and axis.value == 1:
            return []
        if isinstance(axis, (tree.AnyAxes, tree.AxesVar)):
            label = "..." if isinstance(axis, tree.AnyAxes) else axis.id
            return [n for n in spec.sizes if n.startswith(f"{label}\0")]
        if isinstance(axis, tree.AxisName):
            name = axis.id
        else:
            number = str(getattr(axis, "value", ""))
            name = next((n for n in spec.sizes if n.split("@")[0] == number and n not in used), None) or _text(axis)
        if name in used:
            raise shapes.ShapeError(f"`{name}` occurs twice on the right", axis)
        if name not in spec.sizes:
            spec.sizes[name] = binding.size(axis)  # a new axis: broadcast
        used.add(name)
        return [name]

    for axis in target.axes:
        if isinstance(axis, (tree.AnyAxes, tree.AxesVar)):
            for n in atom(axis):
                used.add(n)
                outs.append([n])
        elif isinstance(axis, tree.AxisFactors):
            outs.append([n for a in axis.items for n in atom(a)])
        else:
            outs.append(atom(axis))
    return outs


def _rearrange(frame: Frame, value: Value, spec: _Spec, span: Span) -> Value:
    inside = {n for g in spec.ins for n in g}
    lost = [n for n in inside if not any(n in g for g in spec.outs) and spec.sizes[n] != 1]
    if lost:
        name = lost[0]
        fixes = proposals().lost_axis(*spec.written, name) if spec.written is not None else ()
        raise error("A0308", f"`{name}` of size {spec.sizes[name]} is on the left only", span,
                    help="`reduce(…, mean)` or `reduce(…, sum)` removes an axis", fixes=fixes)
    order = list(dict.fromkeys([n for g in spec.ins for n in g] + [n for g in spec.outs for n in g]))
    number = {n: i for i, n in enumerate(order)}
    ins = tuple(tuple(number[n] for n in g) for g in spec.ins)
    outs = tuple(tuple(number[n] for n in g) for g in spec.outs)
    if ins == outs:
        return value
    return apply_op(frame, "rearrange", (value,), {"sizes": tuple(shapes.normal(spec.sizes[n]) for n in order), "ins": ins, "outs": outs}, span)


def _under(frame: Frame, node: tree.LayoutCall, value: Value) -> Value:
    """Applies a block in another layout and comes back. Axes that the block resized keep their new size on the way back."""
    from archdsl.elaborate import calls
    from archdsl.elaborate.apply import apply
    blocks = [a for a in node.args if a.name is None]
    if len(blocks) != 1:
        raise error("A0308", "`under` takes a layout and one block", node.span, help="`under([B, c, H, W] -> [B, H, W, c], LayerNorm())`")
    spec = _solve(frame, node, value)
    inner = _rearrange(frame, value, spec, node.span)
    func = evaluate(frame, blocks[0].value)
    if not isinstance(func, TEMPLATES):
        from archdsl.elaborate.values import Builtin

        if not isinstance(func, Builtin):
            raise error("A0206", f"`under` applies a block, this is {describe(func)}", blocks[0].value.span)
        result = calls.builtin(frame, func, ([inner], {}, {}), blocks[0].span)
    else:
        target = blocks[0].value.expr if isinstance(blocks[0].value, tree.Named) else blocks[0].value
        result = apply(frame, func, ([inner], {}, {0: node.span}), blocks[0].value.span, None, calls.default_segment(frame, target, func))
    if not isinstance(result, Value):
        raise error("A0308", "the block under a layout must return one tensor", blocks[0].span)
    return _back(frame, spec, inner, result, node)


def _back(frame: Frame, spec: _Spec, inner: Value, result: Value, node: tree.LayoutCall) -> Value:
    if len(result.shape) != len(inner.shape):
        raise error("A0308", f"the block changed the number of axes: {inner.type} became {result.type}", node.span)
    sizes = dict(spec.sizes)
    for group, old, new in zip(spec.outs, inner.shape, result.shape):
        if shapes.same(old, new) is not True:
            if len(group) != 1:
                raise error("A0308", f"the block changed {old} to {new} on an axis that is made of several", node.span)
            sizes[group[0]] = new
    back = _Spec()
    back.sizes, back.ins, back.outs = sizes, spec.outs, spec.ins
    missing = [n for g in spec.outs for n in g if not any(n in h for h in spec.ins)]
    if missing:
        raise error("A0308", f"`{missing[0]}` is on the right only: `under` could not come back", node.span)
    return _rearrange(frame, result, back, node.span)


REDUCTIONS = ("mean", "sum", "max", "min", "var", "any", "all")


def _reduce(frame: Frame, node: tree.LayoutCall, value: Value) -> Value:
    words = [a.value for a in node.args if a.name is None]
    if len(words) != 1 or not isinstance(words[0], tree.Name) or words[0].id not in REDUCTIONS:
        raise error("A0308", "`reduce` ends in the reduction", node.span,
                    help=f"one of {', '.join(REDUCTIONS)}: `reduce([B, c, Y, X] -> [B, c], mean)`")
    spec = _solve(frame, node, value)
    flat = [n for g in spec.ins for n in g]
    if any(len(g) > 1 for g in spec.ins):
        order = {n: i for i, n in enumerate(flat)}
        attrs = {"sizes": tuple(spec.sizes[n] for n in flat), "ins": tuple(tuple(order[n] for n in g) for g in spec.ins),
                 "outs": tuple((i,) for i in range(len(flat)))}
        value = apply_op(frame, "rearrange", (value,), attrs, node.span)
        axes_in = [[n] for n in flat]
    else:
        axes_in = spec.ins
    kept = {n for g in spec.outs for n in g}
    new = [n for n in kept if n not in flat]
    if new:
        raise error("A0308", f"`{new[0]}` is on the right only", node.span)
    gone = tuple(i for i, g in enumerate(axes_in) if g and g[0] not in kept)
    result = apply_op(frame, "reduce", (value,), {"axes": gone, "how": words[0].id, "keep": False}, node.span) if gone else value
    rest = _Spec()
    rest.sizes = spec.sizes
    rest.ins = [g for i, g in enumerate(axes_in) if i not in gone]
    rest.outs = spec.outs
    return _rearrange(frame, result, rest, node.span)


def _einsum(frame: Frame, node: tree.LayoutCall, piped: Any) -> Any:
    """`einsum([..], [..] -> [..])(x, y)`: returns a function of its tensors (called by `invoke`), or applies to a piped one."""
    key = frame.session.intern(("einsum", id(node), frame.session.mark(node)))
    if piped is None:
        return Partial(node, frame, key)
    return einsum(frame, node, (piped,))


def einsum(frame: Frame, node: tree.LayoutCall, values: tuple[Any, ...]) -> Value:
    if len(values) != len(node.inputs) or node.output is None:
        raise error("A0308", f"this einsum takes {len(node.inputs)} tensors, not {len(values)}", node.span)
    binding = shapes.Binding(dict(frame.vars), _hyper(frame))
    index: dict[str, int] = {}

    def ids(shape: tree.Shape, sizes: tuple[Size, ...] | None) -> tuple[int, ...]:
        out: list[int] = []
        if sizes is not None and len(sizes) != len(shape.axes):
            raise error("A0308", f"{shape.span.text} has {len(shape.axes)} axes, the tensor has {len(sizes)}", node.span)
        for i, a in enumerate(shape.axes):
            if not isinstance(a, tree.AxisName):
                raise error("A0308", "einsum takes plain axis names", a.span)
            if sizes is not None:
                try:
                    binding.bind(a.id, sizes[i], a)
                except shapes.ShapeError as e:
                    raise error("A0308", f"einsum: {e.message}", a.span) from None
            elif a.id not in index:
                raise error("A0308", f"`{a.id}` is on the right only", a.span)
            out.append(index.setdefault(a.id, len(index)))
        return tuple(out)

    for v in values:
        if not isinstance(v, Value):
            raise error("A0204", f"einsum takes tensors, this is {describe(v)}", node.span)
    ins = tuple(ids(s, v.shape) for s, v in zip(node.inputs, values))
    return apply_op(frame, "einsum", (tuple(values),), {"ins": ins, "out": ids(node.output, None)}, node.span)


# ---------------------------------------------------------------- x[:, 0]
def index(frame: Frame, value: Value, node: tree.Item) -> Value:
    """`x[:, 0]`, `x[..., none, 1:]`: slices, whole numbers, `none` for a new axis, one `...`."""
    items: list[Any] = []
    taken = sum(1 for i in node.indices if not isinstance(i, (tree.Rest, tree.NoneLit)))
    if taken > len(value.shape):
        raise error("A0308", f"{taken} indices for {len(value.shape)} axes of {value.type}", node.span)
    if sum(isinstance(i, tree.Rest) for i in node.indices) > 1:
        raise error("A0308", "one `...` is enough", node.span)
    for i in node.indices:
        if isinstance(i, tree.Rest):
            items += [("slice", None, None, None)] * (len(value.shape) - taken)
        elif isinstance(i, tree.NoneLit):
            items.append(("new",))
        elif isinstance(i, tree.Slice):
            items.append(("slice", *(_bound(frame, e) for e in (i.start, i.stop, i.step))))
        else:
            k = evaluate(frame, i)
            if isinstance(k, Value):
                raise error("A0308", "a tensor cannot be an index here", i.span, help="use `take(x, index, axis = …)`")
            if not isinstance(k, (int, Dim)) or isinstance(k, bool):
                raise error("A0204", f"an index is a whole number, this is {describe(k)}", i.span)
            items.append(("int", k))
    return apply_op(frame, "slice", (value,), {"items": tuple(items)}, node.span)


def _bound(frame: Frame, node: tree.Expr | None) -> Any:
    if node is None:
        return None
    value = evaluate(frame, node)
    if not isinstance(value, (int, Dim)) or isinstance(value, bool):
        raise error("A0204", f"a slice is bounded by whole numbers, this is {describe(value)}", node.span)
    return value
