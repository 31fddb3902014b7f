"""Values that differ from row to row of a batch because rows begin at different positions: positions and what is made of them.

`index(T)` is [T] in the parallel form and [B, T] here. The row axis travels in front, hidden from the op's own axes, until the value meets
one that has the batch as its own first axis."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from archdsl.dims import Size
from archdsl.flatten import copy_node
from archdsl.graph import Node, TensorType, Value
from archdsl.ops.registry import OpError, find
from archdsl.syntax import tree


class NoRows(Exception):
    """The model cannot serve rows that begin at different positions."""


class Rows:
    """`held`: the values with a row axis in front. New nodes go to `nodes`."""

    def __init__(self, batch: Size | None, nodes: list[Node]):
        self.batch, self.nodes = batch, nodes
        self.held: set[Value] = set()

    def type(self, t: TensorType) -> TensorType:
        assert self.batch is not None
        return TensorType(t.dtype, (self.batch, *t.shape))

    def node(self, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
        """The same op on values of which some have a row axis. Raises NoRows for an op that is not known to carry one."""
        rule = _RULES.get(node.op, _pointwise if is_pointwise(node.op) else None)
        if rule is None:
            raise NoRows(f"{node.op} takes positions that differ from row to row")
        rule(self, node, known, dims)

    def put(self, node: Node, new: Node, known: dict[Value, Value], held: bool) -> None:
        self.nodes.append(new)
        known.update(zip(node.values, new.values))
        if held:
            self.held.update(new.values)

    def spread(self, value: Value, rank: int) -> Value:
        """A row value with its own axes at the end of `rank` axes behind the row axis."""
        missing = rank - (len(value.shape) - 1)
        if missing <= 0:
            return value
        items = (("slice", None, None, None), *((("new",),) * missing))
        shape = (value.shape[0], *((1,) * missing), *value.shape[1:])
        new = Node("slice", (value,), {"items": items}, (TensorType(value.dtype, shape),), value.node.span, value.node.name)
        self.nodes.append(new)
        self.held.add(Value(new))
        return Value(new)


def infer(new: Node) -> tuple[TensorType, ...]:
    """The result types of a node on its new operands."""
    from archdsl.elaborate.ops import parameters
    from archdsl.shapes import infer_by_signature

    op = find(new.op)
    assert op is not None
    names = iter(new.args)
    given = {p.name: _typed(next(names)) if p.operand else new.attrs[p.name] for p in parameters(new.op)}
    try:
        found = op.infer(**given) if op.infer else infer_by_signature(op, given)
    except OpError as e:
        raise NoRows(e.message) from None
    return found if isinstance(found, tuple) else (found,)


def _typed(value: Any) -> Any:
    return value.type if isinstance(value, Value) else tuple(_typed(v) for v in value) if isinstance(value, tuple) else value


def is_pointwise(name: str) -> bool:
    """Whether every operand's shape is one free sequence of axes that only broadcasting relates."""
    op = find(name)
    if op is None or any(p.name in ("axis", "axes", "shape", "sizes", "items", "widths") for p in op.decl.params):
        return False
    kinds = [p.type.item if isinstance(p.type, tree.OptionalType) else p.type for p in op.decl.params]
    shapes = [s for s in (getattr(k, "shape", None) for k in kinds) if s is not None]
    return bool(shapes) and all(len(s.axes) == 1 and isinstance(s.axes[0], (tree.AnyAxes, tree.AxesVar)) for s in shapes)


def _operand_types(name: str) -> list[Any]:
    from archdsl.elaborate.ops import parameters

    return [p.type for p in parameters(name) if p.operand]


def _leads(type: Any) -> bool:
    shape = getattr(type.item if isinstance(type, tree.OptionalType) else type, "shape", None)
    return shape is not None and bool(shape.axes) and isinstance(shape.axes[0], tree.AnyAxes)


def _leading(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    """An op that acts alike along all axes in front of its own, written `[..., …]`; its weights have none."""
    mapping: dict[Value, Value] = {}
    for value, type in zip(node.args, _operand_types(node.op)):
        if isinstance(value, Value):
            new = known[value]
            if new in rows.held and not _leads(type):
                raise NoRows(f"{node.op} has a weight that differs from row to row")
            if new not in rows.held and rows.batch in new.shape:
                raise NoRows(f"{node.op} joins positions with a batch")
            mapping[value] = new if new in rows.held or not _leads(type) else _stretched(rows, new)
    new = copy_node(node, mapping.__getitem__, "", dims)
    new.types = infer(new)
    rows.put(node, new, known, held=True)


def _reduced(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    """Axes that are not said are all but that of the rows."""
    new = copy_node(node, known.__getitem__, "", dims)
    axis = new.attrs["axis"]
    new.attrs["axis"] = tuple(range(1, len(node.args[0].shape) + 1)) if axis is None else _later(axis)
    new.types = infer(new)
    rows.put(node, new, known, held=True)


def _pointwise(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    given = {v: known[v] for v in node.operands()}
    held = [v for v in given.values() if v in rows.held]
    plain = [v for v in given.values() if v not in rows.held]
    with_batch = [v for v in plain if v.shape and v.shape[0] == rows.batch]
    rank = max([len(v.shape) - 1 for v in held] + [len(v.shape) for v in plain if v not in with_batch])
    whole = max((len(v.shape) - 1 for v in with_batch), default=0)
    if with_batch and whole < rank:
        raise NoRows(f"{node.op} joins positions with a batch of fewer axes")
    if any(rows.batch in v.shape[1:] for v in with_batch) or any(rows.batch in v.shape for v in plain if v not in with_batch):
        raise NoRows(f"{node.op} joins positions with a batch that is not the first axis")
    mapping = {v: rows.spread(new, max(rank, whole)) if new in rows.held else new for v, new in given.items()}
    new = copy_node(node, mapping.__getitem__, "", dims)
    new.types = infer(new)
    rows.put(node, new, known, held=not with_batch)


def _shifted(*keys: str) -> Callable[..., None]:
    """Attributes that count axes from the front count one more."""

    def rule(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
        mapping = {v: known[v] if known[v] in rows.held else _stretched(rows, known[v]) for v in node.operands()}
        new = copy_node(node, mapping.__getitem__, "", dims)
        for key in keys:
            if key in new.attrs:
                new.attrs[key] = _later(new.attrs[key])
        new.types = infer(new)
        rows.put(node, new, known, held=True)

    return rule


def _later(axis: Any) -> Any:
    if isinstance(axis, tuple):
        return tuple(map(_later, axis))
    return axis + 1 if isinstance(axis, int) and axis >= 0 else axis


def _stretched(rows: Rows, value: Value) -> Value:
    """A value that is the same for all rows, with a row axis."""
    t = rows.type(value.type)
    new = Node("expand", (value,), {"shape": t.shape}, (t,), value.node.span, value.node.name)
    rows.nodes.append(new)
    rows.held.add(Value(new))
    return Value(new)


def _slice(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    new = copy_node(node, known.__getitem__, "", dims)
    new.attrs["items"] = (("slice", None, None, None), *new.attrs["items"])
    new.types = infer(new)
    rows.put(node, new, known, held=True)


def _rearrange(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    new = copy_node(node, known.__getitem__, "", dims)
    later = [tuple(tuple(i + 1 for i in group) for group in new.attrs[k]) for k in ("ins", "outs")]
    new.attrs.update(sizes=(rows.batch, *new.attrs["sizes"]), ins=((0,), *later[0]), outs=((0,), *later[1]))
    new.types = infer(new)
    rows.put(node, new, known, held=True)


def _expand(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    shape = copy_node(node, known.__getitem__, "", dims).attrs["shape"]
    new = Node("expand", (rows.spread(known[node.args[0]], len(shape)),), {"shape": (rows.batch, *shape)}, (), node.span, node.name)
    new.types = infer(new)
    rows.put(node, new, known, held=True)


def _as_type(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    """Of the other tensor the element type alone counts."""
    new = copy_node(node, known.__getitem__, "", dims)
    new.types = infer(new)
    rows.put(node, new, known, held=known[node.args[0]] in rows.held)


def _embedding(rows: Rows, node: Node, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
    if known[node.args[1]] in rows.held:
        raise NoRows("a table of embeddings differs from row to row")
    new = copy_node(node, known.__getitem__, "", dims)
    new.types = infer(new)
    rows.put(node, new, known, held=True)


_RULES: dict[str, Callable[..., None]] = {
    "slice": _slice, "rearrange": _rearrange, "embedding": _embedding, "one_hot": _pointwise, "concat": _shifted("axis"), "stack": _shifted("axis"),
    "softmax": _shifted("axis"), "split": _shifted("axis"), "flip": _shifted("axes"),
    "as_type": _as_type, "sum": _reduced, "mean": _reduced, "expand": _expand,
    **dict.fromkeys(("linear", "outer", "dot", "layer_norm", "rms_norm", "crms_norm"), _leading),
}
