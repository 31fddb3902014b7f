"""One definition on its way to a form with state: its nodes kept, extended, packed or refused, its states as inputs and outputs."""
from __future__ import annotations

from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim, Size, product, substitute, sym, symbols, terms
from archdsl.flatten import copy_node, dim_map, is_owner, map_values
from archdsl.graph import Graph, Mask, Node, TensorType, Value, behind
from archdsl.ops.registry import LENGTH, OpError, find
from archdsl.records import record, replace
from archdsl.streaming import pairs
from archdsl.streaming.axes import meeting, operands
from archdsl.streaming.packing import firsts, packed_mask, packed_scan
from archdsl.streaming.rows import NoRows, Rows, infer

POSITION, START, DOCUMENTS, PLACES = "position", "start", "documents", "places"
COUNTERS = (POSITION, START, DOCUMENTS, PLACES)


@record()
class Context:
    """What holds for one definition: the symbols that are T, those that depend on it, what sizes become, which inputs hold a row for each row of
    the batch (`rows`), the last position alone (`last`), or a table of pairs of positions, and on which axes (`pairs`)."""

    time: frozenset[str]
    mixed: frozenset[str]
    dims: dict[str, Size]
    rows: tuple[bool, ...]
    last: tuple[bool, ...]
    pairs: tuple[pairs.Axes | None, ...]
    batch: Size | None
    by_row: bool

    def key(self, graph: Graph) -> Any:
        sizes = tuple(sorted((k, str(v)) for k, v in self.dims.items()))
        return id(graph), self.time, self.mixed, sizes, self.rows, self.last, self.pairs, str(self.batch)

    def timed(self, size: Any) -> bool:
        return isinstance(size, Dim) and not symbols(size).isdisjoint(self.time | self.mixed)

    def is_time(self, size: Any) -> bool:
        return isinstance(size, Dim) and str(size) in self.time


@record()
class Made:
    """A derived definition. `slots`: (address below it, type in its own sizes). `counters`: those that it reads. `rows`, `last`, `pairs`: of each
    output. `lost`: why emitted values are not there, by their places."""

    graph: Graph
    slots: tuple[tuple[str, TensorType], ...]
    counters: tuple[str, ...]
    rows: tuple[bool, ...]
    last: tuple[bool, ...]
    pairs: tuple[pairs.Axes | None, ...]
    lost: dict[int, ArchError | NoRows]


class Session:
    """`orders`: the sizes around the stream in axes that it was merged into with others: an axis is split again in no other order."""

    def __init__(self, form: str, axis: str):
        self.form, self.axis = form, axis
        self.orders: set[tuple[str, str]] = set()
        self.made: dict[Any, tuple[Graph, Made]] = {}

    def derive(self, graph: Graph, context: Context) -> Made:
        key = context.key(graph)
        if key not in self.made:
            self.made[key] = graph, Definition(self, graph, context).finish()
        return self.made[key][1]


class Definition:
    """One graph on its way."""

    def __init__(self, session: Session, graph: Graph, context: Context):
        self.session, self.source, self.at = session, graph, context
        self.known: dict[Value, Value] = {}
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.slots: list[tuple[str, TensorType, Value, Value]] = []  # address, type, before, after
        self.counters: dict[str, Value] = {}
        self.rows = Rows(context.batch, self.nodes)
        self.last: set[Value] = set()
        self.pairs: dict[Value, pairs.Axes] = {}
        self.children = dict(graph.children)
        self.calls: dict[str, int] = {}
        self.lost: dict[Value, ArchError | NoRows] = {}
        for i, value in enumerate(graph.inputs):
            node = copy_node(value.node, self.known.__getitem__, "", context.dims)
            if context.rows[i]:
                node.types = (self.rows.type(node.types[0]),)
                self.rows.held.add(Value(node))
            if context.last[i]:
                self.last.add(value)
            if (axes := context.pairs[i]) is not None:
                self.pairs[value] = axes
                node.types = (self._table(value.type, axes),)
            self.inputs.append(node)
            self.known[value] = Value(node)
        needed = behind(graph.outputs)
        for node in graph.nodes:
            if node.op != "input":
                self._try(node, id(node) in needed)

    def _try(self, node: Node, needed: bool) -> None:
        """A node that only emitted values need is left out where it has no such form, and all that reads it."""
        fault = next((self.lost[v] for v in node.operands() if v in self.lost), None)
        if fault is None:
            try:
                self._node(node, self.known)
                return
            except (ArchError, NoRows) as e:
                fault = e
        if needed:
            raise fault
        self.lost.update(dict.fromkeys(node.values, fault))

    def finish(self) -> Made:
        counters = tuple(c for c in COUNTERS if c in self.counters)
        own = tuple(self.known[v] for v in self.source.outputs)
        inputs = (*(Value(n) for n in self.inputs), *(before for _, _, before, _ in self.slots), *(self.counters[c] for c in counters))
        outputs = (*own, *(after for *_, after in self.slots))
        names = tuple(self.source.output_names) or (None,) * len(own)
        graph = replace(self.source, inputs=inputs, nodes=(*(v.node for v in inputs), *self.nodes), outputs=outputs,
                        output_names=(*names, *(None for _ in self.slots)), children=self.children,
                        emits={k: self.known[v] for k, v in self.source.emits.items() if v not in self.lost}, guards=(), knobs={})
        lost = {i: self.lost[v] for i, v in enumerate(self.source.emits.values()) if v in self.lost}
        return Made(graph, tuple((a, t) for a, t, *_ in self.slots), counters, tuple(v in self.rows.held for v in own),
                     tuple(v in self.last for v in self.source.outputs), tuple(self.pairs.get(v) for v in self.source.outputs), lost)

    # ---------------------------------------------------------------- what goes in and out
    def counter(self, name: str) -> Value:
        """One of `COUNTERS`, taken in from outside."""
        if name not in self.counters:
            batch = () if self.at.batch is None else (self.at.batch,)
            shape = {POSITION: (), START: batch, DOCUMENTS: (sym(self.session.axis),), PLACES: (sym(LENGTH),)}[name]
            self.counters[name] = Value(Node("input", (), {"name": name}, (TensorType("int", shape),), self.source.span, name))
        return self.counters[name]

    def slot(self, address: str, type: TensorType, span: Any) -> tuple[str, TensorType, Value]:
        """A state to be, and the input that brings it."""
        taken = {a for a, *_ in self.slots}
        name = next(a for a in (address, *(f"{address}_{k}" for k in range(2, len(taken) + 3))) if a not in taken)
        hint = name.replace(".", "_")
        shown = TensorType(type.dtype, tuple(self._size(s) for s in type.shape))
        return name, type, Value(Node("input", (), {"name": hint}, (shown,), span, hint))

    def _size(self, size: Size) -> Size:
        return substitute(size, self.at.dims) if self.at.dims and not symbols(size).isdisjoint(self.at.dims) else size

    # ---------------------------------------------------------------- nodes
    def _node(self, node: Node, known: dict[Value, Value]) -> None:
        if node.op == "update":
            return  # buffers change in training
        if node.op == "phase":
            self._arm(node, known)
        elif node.op == "call":
            self._call(node, known)
        elif node.op == "param":
            self._keep(node, known)
        elif node.op == "scan":
            self._scan(node, known)
        elif node.op == "distance" and self.at.timed(node.attrs["n"]) or pairs.is_difference(node) and self.at.timed(node.types[0].shape[0]):
            self._distance(node, known)
        elif node.op != "attention" and any(v in self.pairs for v in node.operands()):
            self._table_of(node, known)
        else:
            self._check(node)
            self._op(node, known)

    def _keep(self, node: Node, known: dict[Value, Value]) -> None:
        new = copy_node(node, known.__getitem__, "", self.at.dims)
        self.nodes.append(new)
        known.update(zip(node.values, new.values))

    def _arm(self, node: Node, known: dict[Value, Value]) -> None:
        """Forms with state are those of evaluation."""
        arm: Graph = node.attrs["eval"]
        inside = dict(zip(arm.inputs, (known[a] for a in node.args)))
        self.last.update(i for i, a in zip(arm.inputs, node.args) if a in self.last)
        for inner in arm.nodes:
            if inner.op != "input":
                self._node(inner, inside)
        known.update(zip(node.values, (inside[v] for v in arm.outputs)))
        self.last.update(v for v, o in zip(node.values, arm.outputs) if o in self.last)

    def _check(self, node: Node) -> None:
        """The rules that hold whatever the op is."""
        for v in node.operands():
            if v in self.last and any(self.at.timed(s) for u in node.operands() for s in u.shape):
                raise self.refuse(node, "it gives all positions something of the last one")
        if any(v in self.last for v in node.operands()):
            self.last.update(node.values)
        for t in node.types:
            timed = [s for s in t.shape if self.at.timed(s)]
            if len(timed) > 1:
                raise self.refuse(node, f"it compares positions with each other: its result is {t}",
                                  help="a bias of attention may be made of `distance(T)`, how far one lies behind another")
            if timed and not self._scales(timed[0]):
                raise self.refuse(node, f"its result has {timed[0]} positions, which a part of the stream does not tell")

        if node.op == "rearrange":
            self._orders(node)

    def _orders(self, node: Node) -> None:
        sizes = node.attrs["sizes"]
        for key in ("outs", "ins"):
            for group in node.attrs[key]:
                at = next((i for i, a in enumerate(group) if self.at.timed(sizes[a])), None)
                if at is not None and len(group) > 1:
                    order = tuple(str(product([sizes[a] for a in part])) for part in (group[:at], group[at + 1:]))
                    if key == "outs":
                        self.session.orders.add((order[0], order[1]))
                    elif order not in self.session.orders:
                        raise self.refuse(node, "it splits the stream")

    def _scales(self, size: Size) -> bool:
        """Whether n times as many positions give n times the size."""
        parts = terms(size)
        if len(parts) != 1 or not isinstance(parts[0][0], int):
            return False
        moving = [(a, p) for a, p in parts[0][1] if not a.symbols.isdisjoint(self.at.time | self.at.mixed)]
        return len(moving) == 1 and moving[0][0].kind == "sym" and moving[0][1] == 1

    def _op(self, node: Node, known: dict[Value, Value]) -> None:
        op = find(node.op)
        if op is None:
            raise self.refuse(node, "what it does along the stream is not known")
        if node.op in ("index", "iota") and self.at.timed(node.attrs["n"]):
            self._index(node, known)
            return
        if op.stream is not None and self._extended(node, known):
            return
        for value, axis in meeting(node):
            if self.at.timed(value.shape[axis]):
                raise self.refuse(node, "it looks at all positions at once")
        self._sizes(node)
        if any(known[v] in self.rows.held for v in node.operands()):
            self.rows.node(node, known, self.at.dims)
        else:
            self._keep(node, known)

    def _sizes(self, node: Node) -> None:
        """The number of positions is no number to compute with: it differs from call to call."""
        given = [a for a in node.args if not isinstance(a, Value)]
        given += [v for k, v in node.attrs.items() if k not in ("shape", "sizes")]
        if any(self.at.timed(d) for d in _dims(given)):
            raise self.refuse(node, "it computes with the number of positions", help="`index(T)` is the position itself")

    def _index(self, node: Node, known: dict[Value, Value]) -> None:
        if not self.at.is_time(node.attrs["n"]):
            raise self.refuse(node, f"it counts {node.attrs['n']} positions, of which the stream is a part")
        if self.session.form == "packed":
            new = Node("index_packed", (self.counter(DOCUMENTS),), {}, node.types, node.span, node.name)
            self.nodes.append(new)
            known[Value(node)] = Value(new)
            return
        by_row = self.at.by_row and self.at.batch is not None
        start = self.counter(START) if by_row else None
        n = self._size(node.attrs["n"])
        shape = (self.at.batch, n) if by_row else (n,)
        new = Node("index_extend", (self.counter(POSITION), start), {"n": n}, (TensorType("int", shape),), node.span, node.name)  # type: ignore[arg-type]
        self.nodes.append(new)
        known[Value(node)] = Value(new)
        if by_row:
            self.rows.held.add(Value(new))

    # ---------------------------------------------------------------- tables of pairs of positions
    def _table(self, t: TensorType, axes: pairs.Axes) -> TensorType:
        t = t if self.session.form == "packed" else pairs.table(t, axes)
        return TensorType(t.dtype, tuple(self._size(s) for s in t.shape))

    def _distance(self, node: Node, known: dict[Value, Value]) -> None:
        value = Value(node)
        self.pairs[value] = pairs.WITH_KEYS
        if self.session.form == "packed":
            self._keep(node, known)  # it is read within a document, where it is right
            return
        size = node.types[0].shape[0]
        if not self.at.is_time(size):
            raise self.refuse(node, f"it counts {size} positions, of which the stream is a part")
        args = (self.counter(POSITION), self.counter(PLACES))
        new = Node("distance_extend", args, {"n": self._size(size)}, (self._table(value.type, pairs.WITH_KEYS),), node.span, node.name)
        self.nodes.append(new)
        known[value] = Value(new)

    def _table_of(self, node: Node, known: dict[Value, Value]) -> None:
        """An op on a table, which keeps its entries apart."""
        if any(known[v] in self.rows.held for v in node.operands()):
            raise NoRows(f"{node.op} joins pairs of positions with positions that differ from row to row")
        try:
            axes = pairs.axes_of(node, self.pairs, self.at.timed)
        except OpError as e:
            raise self.refuse(node, e.message) from None
        self.pairs.update(dict.fromkeys(node.values, axes))
        if self.session.form == "packed":
            self._keep(node, known)
            return
        new = pairs.along(node, self.pairs, known.__getitem__, self.at.dims)
        new.types = infer(new)
        self.nodes.append(new)
        known.update(zip(node.values, new.values))

    def _extended(self, node: Node, known: dict[Value, Value]) -> bool:
        """Replaces an op by its extension; False where it acts on each position alone."""
        op = find(node.op)
        assert op is not None and op.stream is not None
        if any(self.pairs.get(v, pairs.WITH_KEYS) != pairs.WITH_KEYS for v in node.operands()):
            raise self.refuse(node, "its bias counts queries and keys in another order")
        types: dict[str, Any] = dict(node.attrs)
        time: dict[str, tuple[int, ...]] = {}
        for name, value in operands(node):
            types[name] = tuple(v.type for v in value) if isinstance(value, tuple) else value.type if isinstance(value, Value) else value
            if isinstance(value, Value):
                time[name] = tuple(i - len(value.shape) for i, s in enumerate(value.shape) if self.at.is_time(s))
                if any(self.at.timed(s) and not self.at.is_time(s) for s in value.shape):
                    time[name] = (*time[name], 0)  # no axis: the rule will not know it
        if self.session.form == "packed" and node.op == "attention" and {n: a for n, a in time.items() if a} == dict.fromkeys("qkv", (-2,)):
            self._pack(node, known)  # later positions of the document as well
            return True
        try:
            extension = op.stream(time, **types)
        except OpError as e:
            raise self.refuse(node, e.message, help=e.help or ()) from None
        if extension is None:
            return False
        if extension.within is not None and _first_channels(*(dict(operands(node))[n] for n in extension.within[:2])):
            extension = extension.within[2]
        if any(known[v] in self.rows.held for v in node.operands()):
            raise NoRows(f"{node.op} takes positions that differ from row to row")
        if self.session.form == "packed":
            self._pack(node, known)
        else:
            self._extend(node, known, extension)
        return True

    def _pack(self, node: Node, known: dict[Value, Value]) -> None:
        """The same op, in which no position sees another document."""
        new = copy_node(node, known.__getitem__)
        if node.op == "attention":
            new.attrs["mask"] = packed_mask(new.attrs["mask"], self.counter(DOCUMENTS), self.nodes)
        elif find(f"{node.op}_packed") is not None:
            new.op, new.args = f"{node.op}_packed", (*new.args, self.counter(DOCUMENTS))
        else:
            raise self.refuse(node, "it knows no borders between documents")
        self.nodes.append(new)
        known.update(zip(node.values, new.values))

    def _extend(self, node: Node, known: dict[Value, Value], extension: Any) -> None:
        made = find(extension.op)
        assert made is not None, extension.op
        before = {name: self.slot(name, t, node.span) for name, t in extension.states.items()}
        given = {**dict(operands(node)), **node.attrs, **extension.attrs}
        args: list[Any] = []
        attrs: dict[str, Any] = {}
        from archdsl.elaborate.ops import parameters

        for p in parameters(extension.op):
            if p.name in before:
                args.append(before[p.name][2])
            elif p.name == POSITION or p.name == START and self.at.batch is not None and self.at.by_row:
                args.append(self.counter(p.name))
            elif p.operand:
                args.append(map_values(given.get(p.name), known.__getitem__, self.at.dims))
            else:
                attrs[p.name] = map_values(given.get(p.name, p.default), known.__getitem__, self.at.dims)
        own = tuple(TensorType(t.dtype, tuple(self._size(s) for s in t.shape)) for t in node.types)
        new = Node(extension.op, tuple(args), attrs, (*own, *(v.type for *_, v in before.values())), node.span, node.name)
        self.nodes.append(new)
        for i, name in enumerate(before, len(own)):
            new.call_result(i, name)
        values = new.values
        known.update(zip(node.values, values))
        self.slots += [(name, t, value, after) for (name, t, value), after in zip(before.values(), values[len(own):])]
        if extension.op == "last":
            self.last.update(node.values)

    # ---------------------------------------------------------------- recurrences in the language
    def _scan(self, node: Node, known: dict[Value, Value]) -> None:
        """The same scan, from a state; of one position the body itself."""
        self._check(node)
        scanned, carries = node.attrs["scanned"], node.attrs["carries"]
        if not any(self.at.timed(s) for v in node.operands() for s in v.shape):
            self._keep(node, known)
            return
        if not self.at.is_time(node.attrs["n"]):
            raise self.refuse(node, "it goes along another axis than the stream's")
        initial, others = node.args[scanned:scanned + len(carries)], node.args[scanned + len(carries):]
        if any(self.at.timed(s) for v in others for s in v.shape) or self._reads_time(node.attrs["body"]):
            raise self.refuse(node, "its body looks at all positions at once")
        if self.session.form == "packed":
            new = packed_scan(node, tuple(known[v] for v in node.args), firsts(self.counter(DOCUMENTS), self.nodes))
            self.nodes.append(new)
            known.update(zip(node.values, new.values))
            return
        if any(known[v] in self.rows.held for v in node.operands()):
            raise NoRows("a scan takes positions that differ from row to row")
        for name, value in zip(carries, initial):
            if not _is_zero(value):
                raise self.refuse(node, f"`{name}` does not begin with zeros, and a state does", help=f"`carry {name}: … = zeros()`")
        before = [self.slot(name, v.type, node.span) for name, v in zip(carries, initial)]
        given = [*(known[v] for v in node.args[:scanned]), *(v for *_, v in before), *(known[v] for v in others)]
        results = self._one(node, given) if self.at.dims.get(str(node.attrs["n"])) == 1 else self._several(node, given)
        known.update(zip(node.values, results))
        self.slots += [(name, t, value, after) for (name, t, value), after in zip(before, results[len(results) - len(carries):])]

    def _several(self, node: Node, given: list[Value]) -> list[Value]:
        new = copy_node(node, dict(zip(node.args, given)).__getitem__, "", self.at.dims)
        new.args = tuple(given)
        self.nodes.append(new)
        return list(new.values)

    def _one(self, node: Node, given: list[Value]) -> list[Value]:
        """The nodes of the body, on slices."""
        body, axes = node.attrs["body"], node.attrs["axes"]
        plain = [self._at(v, axis, ("int", 0)) for v, axis in zip(given, axes)]
        inside: dict[Value, Value] = dict(zip(body.inputs, [*plain, *given[len(axes):]]))
        for inner in body.nodes:
            if inner.op != "input":
                self._node(inner, inside)
        count = len(node.attrs["carries"])
        outputs = [inside[v] for v in body.outputs]
        return [*(self._at(y, axes[0], ("new",)) for y in outputs[count:]), *outputs[:count]]

    def _at(self, value: Value, axis: int, item: tuple[Any, ...]) -> Value:
        """A value without an axis, of which it takes one position, or with a new one."""
        shape = value.shape[:axis] + ((1,) if item[0] == "new" else ()) + value.shape[axis + (item[0] == "int"):]
        items = (*((("slice", None, None, None),) * axis), item)
        new = Node("slice", (value,), {"items": items}, (TensorType(value.dtype, shape),), value.node.span, value.node.name)
        self.nodes.append(new)
        return Value(new)

    # ---------------------------------------------------------------- calls
    def _call(self, node: Node, known: dict[Value, Value]) -> None:
        inner, path = node.attrs["graph"], node.attrs["path"]
        given = [known[a] if isinstance(a, Value) else a for a in node.args]
        rows = tuple(g in self.rows.held for g in given)
        last = tuple(isinstance(a, Value) and a in self.last for a in node.args)
        tables = tuple(self.pairs.get(a) if isinstance(a, Value) else None for a in node.args)
        moving = any(self.at.timed(s) for a in node.args if isinstance(a, Value) for s in a.shape)
        if not moving and not any(rows) and not self._reads_time(inner):
            self._keep(node, known)
            if any(last):
                self.last.update(node.values)
            return
        made = self.session.derive(inner, self._inside(inner, node, rows, last, tables))
        self._calling(node, known, made)
        if is_owner(self.source, node):
            self.children[path] = made.graph

    def _reads_time(self, graph: Graph) -> bool:
        return any(self.at.timed(d) for n in graph.nodes for d in _dims([*n.args, *n.attrs.values()]))

    def _inside(self, inner: Graph, node: Node, rows: tuple[bool, ...], last: tuple[bool, ...], tables: tuple[pairs.Axes | None, ...]) -> Context:
        """What holds in a called definition, in its own symbols."""
        outer = dim_map(inner, node.args)
        names = {s for i in inner.inputs for size in i.shape for s in symbols(size)} | self.at.time | self.at.mixed
        time = {n for n in names if self.at.is_time(outer.get(n, sym(n)))}
        mixed = {n for n in names if self.at.timed(outer.get(n, sym(n)))} - time
        dims = {n: self._size(outer.get(n, sym(n))) for n in time | mixed} if self.at.dims else {}
        batch = next((sym(n) for n in names if self.at.batch is not None and outer.get(n, sym(n)) == self.at.batch), self.at.batch)
        return Context(frozenset(time), frozenset(mixed), dims, rows, last, tables, batch, self.at.by_row)

    def _calling(self, node: Node, known: dict[Value, Value], made: Made) -> None:
        inner, path = node.attrs["graph"], node.attrs["path"]
        count = self.calls[path] = self.calls.get(path, 0) + 1
        prefix = path if count == 1 else f"{path}_{count}"
        outer = dim_map(inner, node.args)
        states = [self.slot(f"{prefix}.{a}", TensorType(t.dtype, tuple(substitute(s, outer) for s in t.shape)), node.span) for a, t in made.slots]
        args = (*(map_values(a, known.__getitem__, self.at.dims) for a in node.args), *(v for *_, v in states),
                *(self.counter(c) for c in made.counters))
        own = len(inner.outputs)
        types = [TensorType(t.dtype, tuple(self._size(s) for s in t.shape)) for t in node.types]
        types[:own] = [self.rows.type(t) if r else t for t, r in zip(types[:own], made.rows)]
        types[:own] = [t if a is None else self._table(n, a) for t, a, n in zip(types[:own], made.pairs, node.types)]
        kept = [i for i in range(own, len(types)) if i - own not in made.lost]
        every = (*types[:own], *(v.type for *_, v in states), *(types[i] for i in kept))
        new = Node("call", args, {"path": path, "graph": made.graph}, every, node.span, node.name)
        for i, (*_, value) in enumerate(states, own):
            new.call_result(i, value.node.name)
        self.nodes.append(new)
        values = new.values
        n = len(states)
        known.update(zip((*node.values[:own], *(node.values[i] for i in kept)), (*values[:own], *values[own + n:])))
        self.lost.update({node.values[own + i]: fault for i, fault in made.lost.items()})
        self.rows.held.update(v for v, r in zip(values, made.rows) if r)
        self.last.update(v for v, r in zip(node.values, made.last) if r)
        self.pairs.update((v, a) for v, a in zip(node.values, made.pairs) if a is not None)
        self.slots += [(a, t, before, after) for (a, t, before), after in zip(states, values[own:own + n])]

    def refuse(self, node: Node, reason: str, help: Any = ()) -> ArchError:
        return error("A0501", f"no form `{self.session.form}`: {reason}", node.span, f"`{node.op}`, along the stream", help=help)


def _first_channels(part: Value, whole: Value) -> bool:
    """Whether a value is `whole[..., :n]`."""
    if part.node.op != "slice" or part.node.args[0] != whole:
        return False
    *others, (kind, *bounds) = part.node.attrs["items"]
    return all(i == ("slice", None, None, None) for i in others) and len(others) == len(whole.shape) - 1 and kind == "slice" and \
        bounds[0] in (None, 0) and bounds[2] in (None, 1)


def _is_zero(value: Value) -> bool:
    """Whether a tensor is known to hold zeros."""
    node = value.node
    if node.op in ("expand", "cast", "as_type", "at_least", "identity"):
        return _is_zero(node.args[0])
    return node.op == "zeros_like" or node.op == "literal" and node.attrs["value"] == 0


def _dims(values: Any) -> Any:
    for v in values:
        if isinstance(v, Dim):
            yield v
        elif isinstance(v, Mask):
            yield from _dims(v.args)
        elif isinstance(v, (tuple, list)):
            yield from _dims(v)
