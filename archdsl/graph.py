"""The typed graph: the one intermediate representation. Immutable; made by `Builder`s, edited by copy.

A `Graph` is a definition: what one block computes for given hyper arguments and input types. A `call` node applies another
Graph as the owner of the weights below a path, so a model of 80 equal layers holds one layer Graph, 80 times called.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from math import prod
from typing import Any

from archdsl.dims import Size, product
from archdsl.records import field, record
from archdsl.source import NOWHERE, Span

try:
    from _blake2 import blake2b  # hashlib gives the same function, and takes 3 ms to load OpenSSL first
except ImportError:
    from hashlib import blake2b

STRUCTURE = frozenset(("call", "extern", "input", "param", "phase", "scan", "update"))
"""Kinds of nodes that are no op."""
HOLDING = frozenset(("call", "phase", "scan"))
"""Kinds of nodes whose attributes hold graphs."""
FLOATS = ("float", "f64", "f32", "bf16", "f16")
"""`float` is the model's dtype, chosen at build; the others are pinned (a minimum: f32 widens to f64 in a float64 build)."""


@record(frozen=True)
class TensorType:
    """dtype: `float` (the model's), f64 f32 bf16 f16, int (int64), i32 i8 u8, bool. shape: sizes, ints or symbolic."""

    dtype: str
    shape: tuple[Size, ...]

    def __eq__(self, other: object) -> bool:
        return self is other or type(other) is type(self) and self.dtype == other.dtype and self.shape == other.shape  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape))

    @property
    def numel(self) -> Size:
        return product(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def __str__(self) -> str:
        return ("" if self.dtype == "float" else self.dtype) + "[" + ", ".join(map(str, self.shape)) + "]"


@record(eq=False)
class Node:
    """`op` is a registered op, or one of the structural ones:

    input   an input of this graph                        attrs: name
    param   reads a parameter, buffer or const            attrs: path (relative to this graph; may be a descendant's)
    call    applies `graph` owning the weights at `path`  attrs: path, graph; results: the graph's outputs, then its emitted values
    phase   one of two graphs by train/eval               attrs: train, eval (graphs with the same inputs, weights passed as inputs)
    update  a buffer's new value, in training             attrs: path
    scan    a graph at each position of an axis in turn   attrs: body (its inputs: a position of each scanned operand, the carries, the others;
            its results: the carries' next values, then what it yields), scanned (how many), axes (of the scanned), carries (names), n (the size);
            args: the scanned, the carries' first values, the others; results: the yields, stacked, then the last carries

    `args`: operands in the order of the op's signature; a Value, a number (int, float, Dim), None, or a tuple of those.
    `attrs`: hyper arguments by name, hashable (numbers, strings, tuples, Dims, Masks).
    """

    op: str
    args: tuple[Any, ...]
    attrs: dict[str, Any]
    types: tuple[TensorType, ...]
    span: Span = NOWHERE
    name: str = ""  # the variable it was bound to, `a, b` for those of several results: a hint for printing, no part of the hash

    @property
    def values(self) -> tuple[Value, ...]:
        return (Value(self),) if len(self.types) == 1 else tuple([Value(self, i) for i in range(len(self.types))])

    def result_name(self, index: int) -> str:
        """What the `index`-th result is called, "" where it has no name."""
        names = self.name.split(", ")
        return names[index] if index < len(names) else ""

    def call_result(self, index: int, name: str) -> None:
        """Gives the `index`-th result a name."""
        names = self.name.split(", ")
        names += [""] * (index + 1 - len(names))
        names[index] = name
        self.name = ", ".join(names)

    def operands(self) -> list[Value]:
        """The tensor operands, nested tuples and masks included."""
        found: list[Value] = []
        for a in self.args:  # here once more: this is asked very often
            kind = a.__class__
            if kind is Value:
                found.append(a)
            elif kind is tuple:
                _gather(a, found)
        for attribute in self.attrs.values():
            if type(attribute) is Mask:
                found += attribute.tensors()
        return found


def _gather(args: tuple[Any, ...], found: list[Value]) -> None:
    for a in args:
        kind = a.__class__
        if kind is Value:
            found.append(a)
        elif kind is tuple:
            _gather(a, found)


@record(frozen=True)
class Value:
    """The `index`-th result of a node."""

    node: Node
    index: int = 0

    def __eq__(self, other: object) -> bool:
        return self is other or type(other) is Value and self.node is other.node and self.index == other.index

    def __hash__(self) -> int:
        return hash(self.node) ^ self.index

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.node.types[self.index].shape

    @property
    def dtype(self) -> str:
        return self.node.types[self.index].dtype

    def __repr__(self) -> str:
        return f"%{self.node.name or self.node.op}.{self.index}: {self.type}"


@record(frozen=True)
class Mask:
    """Which (query, key) pairs attend: a tree. `kind`: full, causal, window, causal_by, own_block, keys, equal_labels, at, and, or.

    `args`: ints, Dims, sub-masks or tensor Values.
    """

    kind: str
    args: tuple[Any, ...] = ()

    def tensors(self) -> Iterator[Value]:
        for a in self.args:
            if isinstance(a, Mask):
                yield from a.tensors()
            elif isinstance(a, Value):
                yield a

    def replace(self, mapping: Any) -> Mask:
        """The same mask with every tensor sent through `mapping(value)`."""
        return Mask(self.kind, tuple(a.replace(mapping) if isinstance(a, Mask) else mapping(a) if isinstance(a, Value) else a for a in self.args))


@record(frozen=True)
class InitExpr:
    """An initialiser: a tree of ops with random leaves. `op`: a random or constant leaf (zeros, ones, constant, uniform, normal, trunc_normal,
    kaiming_uniform, xavier_uniform, ...), `param` (the initial value of an earlier parameter of the same block, attrs path) or a registered op.

    A leaf has the parameter's shape unless attrs give `shape`. args: InitExprs and numbers; attrs: sorted (name, value) pairs.
    """

    op: str
    args: tuple[Any, ...] = ()
    attrs: tuple[tuple[str, Any], ...] = ()


@record(frozen=True)
class Param:
    """A parameter, frozen parameter, buffer or const at `path` (relative to its graph).

    `factors`: for each axis its written factors ((name, size), ...), kept for slicing, pruning and name maps.
    """

    path: str
    kind: str  # param | frozen | buffer | const
    type: TensorType
    init: InitExpr
    factors: tuple[tuple[tuple[str, int], ...], ...] = ()
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.type.shape  # pyright: ignore[reportReturnType]  (elaboration refuses all but numbers)


@record(frozen=True)
class Guard:
    """A condition on run-time sizes, checked when the model is called: `left OP right` (OP one of == != < <= > >=)."""

    left: Size
    op: str
    right: Size
    message: str
    span: Span = field(default=NOWHERE, compare=False)


@record(frozen=True)
class Knob:
    """A hyper parameter at an address: its type text, its domain as tree (None: settable, not searched), the default and the value in force.

    `allowed`: the domain's values (spaces.Domain), given the values in force of what it reads.
    """

    address: str
    type: str
    default: Any
    value: Any
    domain: Any = field(default=None, compare=False)
    span: Span = field(default=NOWHERE, compare=False)
    doc: str = field(default="", compare=False)
    allowed: Any = field(default=None, compare=False)


@record(eq=False, slots=False)
class Graph:
    """One definition. `name` is the block's (a hint for printing and class names). Addresses inside are relative to its owner."""

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]  # in order of evaluation, inputs first
    outputs: tuple[Value, ...]
    output_names: tuple[str | None, ...] = ()
    params: tuple[Param, ...] = ()
    children: dict[str, Graph] = field(default_factory=dict)  # path -> the owner of the weights there
    emits: dict[str, Value] = field(default_factory=dict)  # address -> value
    guards: tuple[Guard, ...] = ()
    knobs: dict[str, Knob] = field(default_factory=dict)
    doc: str = ""
    span: Span = NOWHERE
    applied: dict[str, int] = field(default_factory=dict)  # block -> how often this graph applies it, this one included, graphs that it calls not

    def __repr__(self) -> str:
        return f"Graph({self.name}, {self.node_count} nodes, {self.weight_count} weights)"

    def parameters(self, prefix: str = "") -> Iterator[tuple[str, Param]]:
        """Every owned weight with its full address, own ones first, then the children's in the order of the text."""
        stack: list[tuple[str, Graph]] = [(prefix, self)]
        while stack:
            prefix, graph = stack.pop()
            for p in graph.params:
                yield prefix + p.path, p
            if graph.children:
                stack += reversed([(f"{prefix}{path}.", child) for path, child in graph.children.items()])

    @cached_property
    def owns_weights(self) -> bool:
        """Of its own or below; an `extern` block may have any."""
        return bool(self.params) or any(n.op == "extern" for n in self.nodes) or any(c.owns_weights for c in self.children.values())

    @cached_property
    def weight_count(self) -> int:
        """How many weights it owns, those below included."""
        return len(self.params) + sum(c.weight_count for c in self.children.values())

    @cached_property
    def largest_weight(self) -> int:
        """How many numbers the largest of its weights has, those below included."""
        return max([prod(p.sizes) for p in self.params] + [c.largest_weight for c in self.children.values()], default=0)

    @cached_property
    def node_count(self) -> int:
        """How many nodes it has written out, each called graph as often as it is called."""
        inside = sum([g.node_count for n in self.nodes if n.op in HOLDING for g in n.attrs.values() if isinstance(g, Graph)])
        return len(self.nodes) + inside

    @cached_property
    def has_effect(self) -> bool:
        """Whether running it sets a buffer, itself or in a graph that it calls."""
        return any(n.op == "update" or n.op == "call" and n.attrs["graph"].has_effect for n in self.nodes)

    @cached_property
    def result_types(self) -> tuple[TensorType, ...]:
        """Of the results of a call: its outputs, then the values that it emits."""
        return tuple([v.type for v in (*self.outputs, *self.emits.values())])

    @cached_property
    def ops(self) -> frozenset[str]:
        """Of all nodes, those of graphs that it holds included."""
        return frozenset([n.op for n in self.nodes]).union(*(g.ops for g in self.subgraphs()))

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """What later stages make of this graph alone, by keys of theirs: made once, and gone with the graph. No copy has it."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("derived", "types_of")}

    @cached_property
    def hash(self) -> str:
        """Structure, ops, attributes, types, addresses and initialisers; not names of variables or blocks, spans or docs."""
        return structural_hash(self)

    def definitions(self) -> list[Graph]:
        """All distinct graphs below, children before parents, this one last."""
        seen: dict[int, Graph] = {}

        def visit(g: Graph) -> None:
            if id(g) in seen:
                return
            for c in g.subgraphs():
                visit(c)
            seen[id(g)] = g

        visit(self)
        return list(seen.values())

    def subgraphs(self) -> Iterator[Graph]:
        yield from self.children.values()
        for n in self.nodes:
            if n.op == "call":
                yield n.attrs["graph"]
            elif n.op == "phase":
                yield n.attrs["train"]
                yield n.attrs["eval"]
            elif n.op == "scan":
                yield n.attrs["body"]


def behind(values: Iterable[Value]) -> set[int]:
    """The ids of all nodes that these values depend on, their own included."""
    found: set[int] = set()
    stack = [v.node for v in values]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found.add(id(node))
            stack += [v.node for v in node.operands()]
    return found


def structural_hash(graph: Graph, typed: bool = False) -> str:
    """What the hash of a graph is made of, walked anew."""
    return blake2b(repr(structure(graph, lambda g: g.hash, typed)).encode(), digest_size=16).hexdigest()


def structure(graph: Graph, below: Callable[[Graph], Any], typed: bool = False) -> tuple[Any, ...]:
    """A graph as nested tuples that are equal where the hash is; `below` stands for the graphs that it calls. Nodes are numbered as a walk from
    the results meets them, so the order in which independent ones were written does not count. `typed`: 1 and 1.0 differ, as they do for torch,
    which compares whole numbers with 16777216 exactly and with 16777216.0 as float32."""
    numbers: dict[Node, int] = {v.node: i for i, v in enumerate(graph.inputs)}
    found: list[Any] = [_type_form(v.node.types[0]) for v in graph.inputs]

    def form(a: Any) -> Any:
        kind = a.__class__
        if kind is Value:
            return ("@", a.node.attrs["path"]) if a.node.op == "param" else ("%", numbers[a.node], a.index)
        if kind is tuple or kind is list:
            return tuple([form(v) for v in a])
        if kind is float:
            text = repr(a)  # -0.0 is another number than 0.0, and equal to it
            return ("float", text) if typed else int(a) if a.is_integer() and text != "-0.0" else a  # 1 and 1.0 are one number in a spec
        if kind is bool:
            return str(a)
        if kind is Mask:
            return ("mask", a.kind, form(a.args))
        if kind is InitExpr:
            return ("init", a.op, form(a.args), form(a.attrs))
        return below(a) if isinstance(a, Graph) else a

    def visit(root: Node) -> None:
        stack = [root]
        while stack:
            n = stack[-1]
            if n in numbers or n.op == "param":
                stack.pop()
                continue
            before: list[Node] = []
            for v in n.operands():
                if v.node not in numbers and v.node.op != "param":
                    before.append(v.node)
            if before:
                before.reverse()
                stack += before
                continue
            stack.pop()
            attrs = tuple([(k, form(v)) for k, v in sorted(n.attrs.items())]) if n.attrs else ()
            types = (_type_form(n.types[0]),) if len(n.types) == 1 else tuple([_type_form(t) for t in n.types])
            found.append((n.op, form(n.args), attrs, types))
            numbers[n] = len(numbers)

    for v in (*graph.outputs, *(v for _, v in sorted(graph.emits.items()))):
        visit(v.node)
    for n in graph.nodes:
        if n not in numbers:
            visit(n)
    emits = tuple([(k, form(v)) for k, v in sorted(graph.emits.items())])
    params = tuple([(p.path, p.kind, _type_form(p.type), form(p.init)) for p in sorted(graph.params, key=lambda p: p.path)])
    children = tuple([(k, below(c)) for k, c in sorted(graph.children.items())])
    guards = tuple(sorted([(g.left, g.op, g.right) for g in graph.guards], key=repr))
    return tuple(found), form(graph.outputs), emits, params, children, guards


def _type_form(t: TensorType) -> tuple[str, tuple[Size, ...]]:
    return t.dtype, t.shape
