"""One definition on its way to a form with state: its nodes kept, extended, packed or refused, its states as inputs and outputs."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim, Size, substitute, sym, symbols
from archdsl.flatten import copy_node
from archdsl.graph import Graph, Mask, Node, TensorType, Value, behind
from archdsl.ops.registry import LENGTH
from archdsl.records import record, replace
from archdsl.source import Span
from archdsl.streaming import pairs, windows
from archdsl.streaming.delays import Delays
from archdsl.streaming.kept import Kept
from archdsl.streaming.model import DOCUMENTS as COUNT
from archdsl.streaming.rows import NoRows, Rows

POSITION, START, END, DOCUMENTS, LENGTHS, PLACES = "position", "start", "end", "documents", "lengths", "places"
COUNTERS = (POSITION, START, END, DOCUMENTS, LENGTHS, PLACES)
Known = dict[Value, Value]
"""Values of the old graph -> those of the new one."""


@record()
class Context:
    """What holds for one definition: the symbols that are T, those that depend on it, what sizes become, which inputs hold a row for each row of
    the batch (`rows`), the last position alone (`last`), or a table of pairs of positions, and on which axes (`pairs`). `kinds`: see `Kept`.
    `delays`: how late each input is, None for one that does not move; `late`: what is made of positions alone. See delays.py."""

    time: frozenset[str]
    mixed: frozenset[str]
    dims: dict[str, Size]
    rows: tuple[bool, ...]
    last: tuple[bool, ...]
    pairs: tuple[pairs.Axes | None, ...]
    batch: Size | None
    by_row: bool
    kinds: tuple[str, ...] = ()
    delays: tuple[int | None, ...] = ()
    late: int = 0

    def key(self, graph: Graph) -> Any:
        sizes = tuple(sorted((k, str(v)) for k, v in self.dims.items()))
        return id(graph), self.time, self.mixed, sizes, self.rows, self.last, self.pairs, str(self.batch), self.kinds, \
            self.delays, self.late

    def timed(self, size: Any) -> bool:
        return isinstance(size, Dim) and not symbols(size).isdisjoint(self.time | self.mixed)

    def is_time(self, size: Any) -> bool:
        return isinstance(size, Dim) and str(size) in self.time


@record()
class Made:
    """A derived definition. `slots`: (address below it, type in its own sizes, whether it is kept). `counters`: those that it reads. `rows`, `last`,
    `pairs`, `delays`: of each output; `emitted`: the delays of emitted values. `lost`: why emitted values are not there, by their places. `taken`,
    `asked`: which inputs of the old definition it takes, and which of those without positions it reads as they are."""

    graph: Graph
    slots: tuple[tuple[str, TensorType, bool], ...]
    counters: tuple[str, ...]
    rows: tuple[bool, ...]
    last: tuple[bool, ...]
    pairs: tuple[pairs.Axes | None, ...]
    lost: dict[int, ArchError | NoRows]
    taken: tuple[int, ...]
    asked: tuple[int, ...]
    delays: tuple[int | None, ...]
    emitted: tuple[int | None, ...]


class Session:
    """One derivation. `rule`: what takes a node into a definition. `orders`: the sizes around the stream in axes that it was merged into with others:
    an axis is split again in no other order."""

    def __init__(self, form: str, axis: str, rule: Callable[[Definition, Node, Known], None]):
        self.form, self.axis, self.rule = form, axis, rule
        self.orders: set[tuple[str, str]] = set()
        self.ahead: Span | None = None  # the first op that looks ahead
        self.most: int | None = None  # positions of a sequence, where more of them are counted behind it
        self.made: dict[Any, tuple[Graph, Made]] = {}

    def derive(self, graph: Graph, context: Context) -> Made:
        key = context.key(graph)
        if key not in self.made:
            self.made[key] = graph, Definition(self, graph, context).finish()
        return self.made[key][1]


class Definition:
    """One graph on its way. `known`: the values of the old graph in the new one; `rows`, `last`, `pairs`: as in `Context`, of values; `weights`:
    those of attention in the packed form, 0 for pairs of two documents."""

    def __init__(self, session: Session, graph: Graph, context: Context):
        self.session, self.source, self.at = session, graph, context
        self.known: Known = {}
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.slots: list[tuple[str, TensorType, Value, Value, bool]] = []  # address, type, before, after, kept
        self.counters: dict[str, Value] = {}
        self.rows = Rows(context.batch, self.nodes)
        self.last: set[Value] = set()
        self.pairs: dict[Value, pairs.Axes] = {}
        self.weights: set[Value] = set()
        self.children = dict(graph.children)
        self.calls: dict[str, int] = {}
        self.lost: dict[Value, ArchError | NoRows] = {}
        self.kept = Kept(self)
        self.delays = Delays(self)
        self.delay = 0
        self.padded: dict[Value, windows.Padded] = {}
        for i, value in enumerate(graph.inputs):
            node = copy_node(value.node, self.known.__getitem__, "", context.dims)
            if context.rows[i]:
                node.types = (self.rows.type(node.types[0]),)
                self.rows.held.add(Value(node))
            if context.last[i]:
                self.last.add(value)
                node.types = (self.of_last(node.types[0]),)
            if (axes := context.pairs[i]) is not None:
                self.pairs[value] = axes
                node.types = (self.table(value.type, axes),)
            self.inputs.append(node)
            self.known[value] = Value(node)
            self.delays.enters(value, Value(node), i)
        updates = [n for n in graph.nodes if n.op == "update"] if self.session.form == "packed" else []  # it trains
        needed = behind((*graph.outputs, *(v for n in updates for v in n.operands()))) | set(map(id, updates))
        for node in graph.nodes:
            if node.op != "input":
                self._try(node, id(node) in needed)

    def node(self, node: Node, known: Known) -> None:
        """Takes in one node, whose operands `known` has."""
        self.delays.node(node, known)

    def _try(self, node: Node, needed: bool) -> None:
        """A node that only emitted values need is left out where it has no such form, and all that reads it."""
        fault = next((self.lost[v] for v in node.operands() if v in self.lost), None)
        if fault is None:
            try:
                if self.kept.takes(node):
                    self.node(node, self.known)
                return
            except (ArchError, NoRows) as e:
                fault = e
        if needed:
            raise fault
        self.lost.update(dict.fromkeys(node.values, fault))

    def finish(self, root: bool = False) -> Made:
        """`root`: of the model itself, whose results come together."""
        if padded := next((v for v in self.source.outputs if v in self.padded), None):
            raise windows.read_otherwise(self, padded.node)
        if table := next((v for v in self.source.outputs if v in self.weights), None):
            raise self.refuse(table.node, "its weights of pairs of positions are a result")
        self.kept.reads(self.source.outputs)
        own = tuple(self.known[v] for v in self.source.outputs)
        if root and self.session.form != "packed":
            own, self.delay = self.delays.together(self.source.outputs)
            self.lost.update({v: self._apart(v) for v in self.source.emits.values() if v in self.known and self._comes_apart(v)})
        counters = tuple(c for c in COUNTERS if c in self.counters)
        taken = self.kept.taken()
        inputs = (*(Value(self.inputs[i]) for i in taken), *(before for _, _, before, *_ in self.slots), *(self.counters[c] for c in counters))
        outputs = (*own, *(after for *_, after, _ in self.slots))
        names = tuple(self.source.output_names) or (None,) * len(own)
        graph = replace(self.source, inputs=inputs, nodes=(*(v.node for v in inputs), *self.nodes), outputs=outputs,
                        output_names=(*names, *(None for _ in self.slots)), children=self.children,
                        emits={k: self.known[v] for k, v in self.source.emits.items() if v in self.known and v not in self.lost}, guards=(), knobs={})
        lost = {i: self.lost[v] for i, v in enumerate(self.source.emits.values()) if v in self.lost}
        lost |= {i: windows.read_otherwise(self, self.padded[v].node) if v in self.padded else
                 self.refuse(v.node, "it is made of inputs that a step does not take")
                 for i, v in enumerate(self.source.emits.values()) if i not in lost and v not in self.known}
        rows, last = tuple(v in self.rows.held for v in own), tuple(v in self.last for v in self.source.outputs)
        slots, tables = tuple((a, t, kept) for a, t, *_, kept in self.slots), tuple(self.pairs.get(v) for v in self.source.outputs)
        late = tuple(self.delays.late(v) for v in own)
        emitted = tuple(self.delays.late(self.known[v]) if v in self.known else None for v in self.source.emits.values())
        return Made(graph, slots, counters, rows, last, tables, lost, taken, self.kept.asked(), late, emitted)

    def _comes_apart(self, v: Value) -> bool:
        return self.delays.late(self.known[v]) not in (None, self.delay)

    def _apart(self, v: Value) -> ArchError:
        late = self.delays.late(self.known[v])
        count = f"{late} position{'s' * (late != 1)}"
        return self.refuse(v.node, f"it is emitted {count} late, and results come {self.delay} late: neither waits for the other")

    def counter(self, name: str) -> Value:
        """One of `COUNTERS`, taken in from outside."""
        if name not in self.counters:
            batch = () if self.at.batch is None else (self.at.batch,)
            shape = {POSITION: (), START: batch, END: batch if self.at.by_row else (), DOCUMENTS: (sym(self.session.axis),), LENGTHS: (sym(COUNT),),
                     PLACES: (sym(LENGTH),)}[name]
            self.counters[name] = Value(Node("input", (), {"name": name}, (TensorType("int", shape),), self.source.span, name))
        return self.counters[name]

    def slot(self, address: str, type: TensorType, span: Any) -> tuple[str, TensorType, Value]:
        """A state to be, and the input that brings it. The state of a model has the addresses of `COUNTERS` as well."""
        taken = {*COUNTERS, *(a for a, *_ in self.slots)}
        name = next(a for a in (address, *(f"{address}_{k}" for k in range(2, len(taken) + 3))) if a not in taken)
        hint = name.replace(".", "_")
        shown = TensorType(type.dtype, tuple(self.size(s) for s in type.shape))
        return name, type, Value(Node("input", (), {"name": hint}, (shown,), span, hint))

    def size(self, size: Size) -> Size:
        return substitute(size, self.at.dims) if self.at.dims and not symbols(size).isdisjoint(self.at.dims) else size

    @property
    def more(self) -> dict[str, Size]:
        """What the size of the batch becomes in the packed form behind `last`, which gives one row for each document."""
        packed = self.session.form == "packed" and self.at.batch is not None
        return {str(self.at.batch): self.at.batch * sym(COUNT)} if packed else {}  # type: ignore[operator]

    def of_last(self, t: TensorType) -> TensorType:
        """The type of what is made of the last position."""
        more = self.more
        return TensorType(t.dtype, tuple(substitute(s, more) for s in t.shape)) if more else t

    def table(self, t: TensorType, axes: pairs.Axes) -> TensorType:
        """The type of a table of pairs of positions."""
        t = t if self.session.form == "packed" else pairs.table(t, axes)
        return TensorType(t.dtype, tuple(self.size(s) for s in t.shape))

    def keep(self, node: Node, known: Known) -> None:
        """The same node, in the sizes of the form."""
        self.put(node, copy_node(node, known.__getitem__, "", self.at.dims), known)

    def put(self, node: Node, new: Node, known: Known) -> None:
        """A node in the place of another one."""
        self.nodes.append(new)
        known.update(zip(node.values, new.values))

    def reads_time(self, graph: Graph) -> bool:
        """Whether a node of a graph computes with the number of positions."""
        return any(self.at.timed(d) for n in graph.nodes for d in dims_of([*n.args, *n.attrs.values()]))

    def refuse(self, node: Node, reason: str, help: Any = ()) -> ArchError:
        if not help and node.op in ("conv", "pad"):
            help = "`causal_conv` (each channel for itself) and `causal_conv_dense` read a position and the ones before it"
        return error("A0501", f"no form `{self.session.form}`: {reason}", node.span, f"`{node.op}`, along the stream", help=help)


def dims_of(values: Any) -> Iterator[Dim]:
    """The sizes in arguments of a node."""
    for v in values:
        if isinstance(v, Dim):
            yield v
        elif isinstance(v, Mask):
            yield from dims_of(v.args)
        elif isinstance(v, (tuple, list)):
            yield from dims_of(v)
