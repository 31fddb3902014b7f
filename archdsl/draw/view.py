"""The view model: what a picture of a typed graph shows, at some sizes. Definitions are shared as in the graph, so 96 layers cost what the
different ones among them cost."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from heapq import heappop, heappush
from math import prod
from typing import Any

from archdsl.cost import Cost, Layer, cost
from archdsl.cost.memory import BYTES
from archdsl.cost.summary import Mode
from archdsl.diagnostics.model import ArchError
from archdsl.dims import Dim, NotInteger, Size, evaluate
from archdsl.draw.folding import Looks, Part, folded, listed
from archdsl.elaborate.builder import join
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.ops import is_operand
from archdsl.elaborate.values import show
from archdsl.graph import Graph, Mask, Node, TensorType, Value
from archdsl.ops.registry import LENGTH, find
from archdsl.records import field, record, replace
from archdsl.source import NOWHERE, Span
from archdsl.streaming import in_form, source

LONG = 30  # characters of a shape with sizes by name; in a longer one, sizes that are computed are written in numbers
OPENING = 12
"""The most nodes of a picture as it opens, where the model itself has no more."""
_BRACKETS = re.compile(r"(?<=[(\[]) | (?=[)\]])|,(?= [)\]])")  # what stood on lines of its own
_HIDDEN = ("param", "input", "update")


@record(frozen=True)
class Edge:
    """A tensor from one item to another, by their places in `Item.below`; None: from outside, or to outside. `type`: with run-time sizes by
    name; `shape`: in numbers; `label`: what stands on it, as short as may be. `ends`: for each tensor of this type, the places in lists of layers
    that it comes from and goes to, as paths below source and target."""

    source: int | None
    target: int | None
    type: str
    shape: str
    label: str
    ends: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()


@record(eq=False)
class Item:
    """A node of the picture. `kind`: input, output, op, block; list (the layers of a loop), repeat (`count` times the same neighbours), ops (plain
    ops in a row).

    `name`: what stands on it; `title`: the block, or the text of the op. `path`: its address relative to the item around it. It stands for `count`
    equal ones, the last of them at `last`; figures are those of one, saved_bytes their mean. params: numbers in parameters; macs: of one forward
    pass; saved_bytes: what autograd keeps of the tensors made there (None: not known of a single op); state_bytes: what a form with state keeps
    between calls; bytes: of its first result. `calls` above 1: weights that are applied so often; saved_bytes are those of all calls then.
    `shared`: it stands beside others with the same weights; `shares`: by their addresses, figures of it or of what is inside that count once.
    `weights`: a block's own, and those that an op reads or an output hands out, for which there are no edges. `below`, `edges`: what it holds.
    """

    kind: str
    name: str
    title: str = ""
    path: str = ""
    last: str = ""
    count: int = 1
    params: int = 0
    macs: int = 0
    saved_bytes: int | None = 0
    state_bytes: int = 0
    bytes: int = 0
    calls: int = 1
    output: str = ""
    shape: str = ""
    span: Span = NOWHERE
    doc: str = ""
    unknown: bool = False
    shared: bool = False
    shares: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    weights: tuple[tuple[str, str, str], ...] = ()  # (path, kind, type)
    below: list[Item] = field(default_factory=list["Item"])
    edges: list[Edge] = field(default_factory=list[Edge])


@record(eq=False, slots=False)
class View:
    """A picture: the model as an item, what it costs, and which items are open at first (by the places that lead to them)."""

    name: str
    root: Item
    cost: Cost
    opened: frozenset[tuple[int, ...]]

    def visible(self) -> list[Item]:
        """The nodes that the picture shows as it opens: those inside open items instead of the open item."""
        found: list[Item] = []

        def walk(item: Item, at: tuple[int, ...]) -> None:
            for i, b in enumerate(item.below):
                if (*at, i) in self.opened:
                    walk(b, (*at, i))
                else:
                    found.append(b)

        walk(self.root, ())
        return found


def view(made: Elaborated, at: Mapping[str, int] | None = None, name: str = "", dtype: str = "f32", opening: int = OPENING) -> View:
    """The picture of a model at the sizes in `at` (else the spec's examples, else 1). It opens with at most `opening` nodes, or with as many as
    the model itself has. Raises A0641 to A0644 for sizes and types that the model does not take."""
    found = cost(made, at, "parallel", dtype)
    root = _Viewer(found, _state(made, found)).block(made.graph, "", name or made.graph.name)
    return View(name or made.graph.name, root, found, opened(root, opening))


def example_view(made: Elaborated, name: str = "") -> View:
    """The picture at the spec's example sizes; at small ones where it gives none that fit. For notebooks, where nobody can say `--at`."""
    try:
        return view(made, name=name)
    except ArchError:
        return view(made, made.example_sizes(small=True), name)


def opened(root: Item, limit: int) -> frozenset[tuple[int, ...]]:
    """Items to open while there are at most `limit` nodes to see: outer ones first, of those the largest. Blocks of plain ops stay closed."""
    shown, found = len(root.below), set[tuple[int, ...]]()
    queue = sorted(_rank((i,), b) for i, b in enumerate(root.below))
    while queue:
        *_, place, item = heappop(queue)
        if any(b.kind in ("block", "list", "repeat") for b in item.below) and shown - 1 + len(item.below) <= limit:
            shown += len(item.below) - 1
            found.add(place)
            for i, b in enumerate(item.below):
                heappush(queue, _rank((*place, i), b))
    return frozenset(found)


def _rank(place: tuple[int, ...], item: Item) -> tuple[int, int, tuple[int, ...], Item]:
    return len(place), -item.params * item.count, place, item


def _state(made: Elaborated, found: Cost) -> Counter[str]:
    """The bytes that a streaming model keeps between calls, behind as many positions as the sizes say: by address, those of all below included.
    A model that has no form with state keeps none."""
    kept: Counter[str] = Counter()
    try:
        streamed = in_form(source(made), "extend")
    except ArchError:
        return kept
    assert streamed is not None
    sizes, mode = {**found.sizes, LENGTH: found.sizes[streamed.axis] + streamed.delay}, Mode(False, False, found.dtype)
    for slot in streamed.slots:
        steps = slot.address.split(".")
        size = prod(s if isinstance(s, int) else evaluate(s, sizes) for s in slot.type.shape) * BYTES[mode.concrete(slot.type.dtype)]
        kept.update({".".join(steps[:i]): size for i in range(len(steps))})
    return kept


class _Viewer:
    """Makes items. `rows`: costs by address; `state`: bytes kept between calls, by address; `known`: the insides of definitions, by what they and
    all below them cost."""

    def __init__(self, found: Cost, state: Counter[str]):
        self.state = state
        self.sizes, self.mode = found.sizes, Mode(False, False, found.dtype)
        self.rows: dict[str, Layer] = {r.path: r for r in found.layers}
        self.known: dict[int, tuple[list[Item], list[Edge]]] = {}
        self.numbers: dict[Any, int] = {}
        self.looks = Looks()
        self.passes: dict[int, int] = {}

    # ---------------------------------------------------------------- blocks
    def key(self, graph: Graph, address: str) -> int:
        """One number for all blocks that look the same: the definition and the figures of it and of all below."""
        row = self.rows.get(address)
        figures = (row.params, row.macs, row.saved_bytes, row.output, row.calls, self.state[address]) if row else None
        below = tuple([self.key(n.attrs["graph"], join(address, n.attrs["path"])) for n in graph.nodes if n.op == "call"])
        return self.numbers.setdefault((id(graph), figures, below), len(self.numbers))

    def block(self, graph: Graph, address: str, name: str, path: str = "", span: Span = NOWHERE) -> Item:
        row = self.rows[address]
        key = self.key(graph, address)
        if key not in self.known:
            self.known[key] = self.inside(graph, address)
        below, edges = self.known[key]
        weights = tuple((p.path, p.kind, str(p.type)) for p in graph.params)
        title = graph.name if graph.name not in path.split(".") else listed(_titles(below))
        first = graph.outputs[0].type if graph.outputs else None
        return Item("block", name, title, path, path, 1, row.params, self.forward(graph), row.saved_bytes, self.state[address],
                    self.bytes(first), row.calls, str(first or ""), self.shape(first), span if span.source.text else graph.span, graph.doc,
                    any(n.op in ("extern", "aten") for n in graph.nodes), weights=weights, below=below, edges=edges)

    def inside(self, graph: Graph, address: str) -> tuple[list[Item], list[Edge]]:
        parts = [self.input(v, i) for i, v in enumerate(graph.inputs)]
        applied = Counter(n.attrs["path"] for n in graph.nodes if n.op == "call")
        for node in graph.nodes:
            if node.op == "call":
                inner, path = node.attrs["graph"], node.attrs["path"]
                item = self.block(inner, join(address, path), path, path, node.span)
                if applied[path] > 1:
                    item.shared, once = True, {"params": item.params}
                    if item.calls > 1:
                        once["saved_bytes"] = item.saved_bytes or 0
                    item.shares = {path: once}
                parts.append(Part(item, [node], (self.looks.of(inner), item.params, item.macs, item.state_bytes)))
            elif node.op not in _HIDDEN:
                parts.append(Part(self.op(node), [node]))
        for i, v in enumerate(graph.outputs):
            name = graph.output_names[i] if i < len(graph.output_names) else None
            item = self.tensor("output", name or "output", v.type, v.node.span)
            item.weights = _weights([v])
            parts.append(Part(item, [], reads=[v]))
        return self.finished(folded(parts, _container))

    def finished(self, parts: list[Part], outside: bool = False) -> tuple[list[Item], list[Edge]]:
        """The items of parts, those inside them first, and the edges between them."""
        for p in parts:
            if p.below:
                p.item.below, p.item.edges = self.finished(p.below, True)
        return [p.item for p in parts], self.edges(parts, outside)

    def edges(self, parts: list[Part], outside: bool) -> list[Edge]:
        owner = {id(n): i for i, p in enumerate(parts) for n in p.nodes}
        found: dict[tuple[Any, ...], Edge] = {}
        for i, part in enumerate(parts):
            for v in part.operands():
                source = owner.get(id(v.node))
                if source != i and (source is not None or outside) and v.node.op != "param":
                    edge = found.get((source, i, v.type)) or Edge(source, i, str(v.type), self.shape(v.type), self.label(v.type))
                    start = next(_given(parts[source], v), ()) if source is not None else ()
                    ends = (*edge.ends, *((start, end) for end in _read(part, v)))
                    found[source, i, v.type] = replace(edge, ends=tuple(dict.fromkeys(ends)))
        return list(found.values())

    def label(self, type: TensorType) -> str:
        """A shape as it stands on an edge: sizes by name, and in numbers those that would be long."""
        extent = self.extent(type) if len(str(type)) > LONG else None
        if extent is None:
            return str(type)
        return str(TensorType(type.dtype, tuple([s if str(s).isidentifier() else n for s, n in zip(type.shape, extent)])))

    # ---------------------------------------------------------------- tensors and ops
    def tensor(self, kind: str, name: str, type: TensorType, span: Span) -> Item:
        return Item(kind, name, bytes=self.bytes(type), output=str(type), shape=self.shape(type), span=span)

    def input(self, v: Value, place: int) -> Part:
        return Part(self.tensor("input", v.node.attrs.get("name") or v.node.name or f"input {place}", v.type, v.node.span), [v.node])

    def op(self, node: Node) -> Item:
        first = node.types[0] if node.types else None
        name = node.attrs["name"] if node.op == "aten" else node.op
        title = _BRACKETS.sub("", " ".join(node.span.text.split())) or ", ".join(f"{k} = {_shown(v)}" for k, v in node.attrs.items())
        return Item("op", name, _shortened(title), macs=self.macs(node), saved_bytes=None, bytes=self.bytes(first), output=str(first or ""),
                    shape=self.shape(first), span=node.span, unknown=node.op in ("extern", "aten"), weights=_weights(node.operands()))

    def macs(self, node: Node) -> int:
        """Multiply-accumulates of one op; of a phase those in evaluation."""
        if node.op in ("phase", "call"):
            return self.forward(node.attrs["eval" if node.op == "phase" else "graph"])
        op = find(node.op)
        if op is None or op.macs is None:
            return 0
        given = {k: self.given(v) for k, v in (dict(zip(_operands(node.op), node.args)) | node.attrs).items()}
        return int(op.macs(**given))

    def forward(self, graph: Graph) -> int:
        """Multiply-accumulates of one call."""
        if id(graph) not in self.passes:
            self.passes[id(graph)] = sum(map(self.macs, graph.nodes))
        return self.passes[id(graph)]

    def given(self, value: Any) -> Any:
        """Operands and attributes in numbers."""
        if isinstance(value, Value):
            return TensorType(value.dtype, tuple(map(self.number, value.shape)))
        if isinstance(value, Dim):
            return self.number(value)
        if type(value) in (tuple, list):
            return tuple(map(self.given, value))
        if isinstance(value, Mask):
            return Mask(value.kind, tuple(map(self.given, value.args)))
        return value

    def number(self, size: Size) -> int:
        return size if isinstance(size, int) else evaluate(size, self.sizes)

    def extent(self, type: TensorType) -> tuple[int, ...] | None:
        """The shape in numbers; None inside a block whose sizes its inputs alone tell."""
        try:
            return tuple(map(self.number, type.shape))
        except (KeyError, NotInteger):
            return None

    def shape(self, type: TensorType | None) -> str:
        extent = self.extent(type) if type is not None else None
        return str(type or "") if extent is None or type is None else str(TensorType(type.dtype, extent))

    def bytes(self, type: TensorType | None) -> int:
        extent = self.extent(type) if type is not None else None
        return 0 if extent is None or type is None else prod(extent) * BYTES[self.mode.concrete(type.dtype)]


def _given(part: Part, value: Value, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The place of the layer that gives a value, below lists of layers alone."""
    inside = part.below if part.item.kind == "list" else []
    for i, below in enumerate(inside):
        if any(n is value.node for n in below.nodes):
            yield from _given(below, value, (*at, i))
            return
    yield at


def _read(part: Part, value: Value, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The places of the layers that read it."""
    inside = part.below if part.item.kind == "list" else []
    readers = [(i, below) for i, below in enumerate(inside) if any(v == value for v in below.operands())]
    for i, below in readers:
        yield from _read(below, value, (*at, i))
    if not readers:
        yield at


def _container(kind: str, name: str, title: str, inside: Iterable[Item], path: str = "", last: str = "", count: int = 1) -> Item:
    """An item around others: its figures are their sums, its result is that of the last one."""
    parts = list(inside)

    shares: dict[str, dict[str, int]] = {}
    for p in parts:
        shares.update(p.shares)

    def total(figure: str) -> int:
        own = sum(((getattr(p, figure) or 0) - sum(s.get(figure, 0) for s in p.shares.values())) * p.count for p in parts)
        return own + sum(s.get(figure, 0) for s in shares.values())

    saved = None if all(p.saved_bytes is None for p in parts) else total("saved_bytes")
    end = parts[-1]
    return Item(kind, name, title, path, last, count, total("params"), total("macs"), saved, total("state_bytes"), end.bytes, 1, end.output,
                end.shape, parts[0].span, "", any(p.unknown for p in parts), shares=shares)


def _weights(read: Iterable[Value]) -> tuple[tuple[str, str, str], ...]:
    return tuple(dict.fromkeys((v.node.attrs["path"], "", str(v.type)) for v in read if v.node.op == "param"))


def _titles(items: Iterable[Item]) -> Iterator[str]:
    """What blocks are called, those inside lists of layers too."""
    for item in items:
        if item.kind == "block":
            yield from item.title.split(" · ")
        elif item.kind in ("list", "repeat"):
            yield from _titles(item.below)


@lru_cache(None)
def _operands(name: str) -> tuple[str, ...]:
    op = find(name)
    assert op is not None, name
    return tuple(p.name for p in op.decl.params if is_operand(p))


def _shown(value: Any) -> str:
    return value.name if isinstance(value, Graph) else show(value)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
