"""A lowered model cut into pieces that are measured one by one. Free of torch.

Blocks without a loop inside are pieces, each with all that is below it; the model itself and blocks with loops (stages) are opened. What an opened
one computes beside its calls is a piece too. So equal layers are one piece, whatever the depth, and a table of pieces serves a whole space.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from archdsl.dims import Dim, Size, evaluate
from archdsl.flatten import copy_node, param_at
from archdsl.graph import Graph, Node, Param, TensorType, Value, structure
from archdsl.lower.plan import Definition
from archdsl.ops.registry import find
from archdsl.records import record

Sizes = Mapping[str, int]
Range = tuple[int, int]


@record(frozen=True)
class Given:
    """What a piece is given: a tensor of `shape` in numbers, whole numbers within `range` (both ends included), or the run-time size `size`."""

    dtype: str
    shape: tuple[int, ...]
    range: Range | None = None
    size: int | None = None

    def __str__(self) -> str:
        if self.size is not None:
            return str(self.size)
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]" + ("" if self.range is None else f" in {self.range[0]}..{self.range[1]}")


@record(eq=False)
class Piece:
    """`digest` and `inputs` tell pieces that differ. `block`: a call of a block, not what stands between calls."""

    digest: str
    definition: Definition
    inputs: tuple[Given, ...]
    block: bool

    @property
    def key(self) -> str:
        return f"{self.digest} {', '.join(map(str, self.inputs))}"


Counts = dict[str, tuple[Piece, int]]
"""Pieces by key, each with how often it runs."""


def cut(root: Definition, inputs: tuple[Given, ...], sizes: Sizes) -> Counts:
    """The pieces of a model whose inputs are given, at these run-time sizes."""
    found: Counts = {}
    for piece in _opened(root, inputs, dict(sizes)):
        _, times = found.get(piece.key, (piece, 0))
        found[piece.key] = piece, times + 1
    return found


def given(t: TensorType, sizes: Sizes, range: Range | None = None) -> Given:
    """A tensor of that type at these sizes."""
    return Given(t.dtype, tuple([evaluate(s, sizes) for s in t.shape]), range)


def _opened(made: Definition, inputs: tuple[Given, ...], sizes: dict[str, int]) -> Iterator[Piece]:
    """The pieces of a definition that is opened: of the blocks that it calls, then what it computes itself."""
    known = dict(zip(made.graph.inputs, inputs))
    for node in made.graph.nodes:
        if node.op == "input":
            continue
        known.update((v, given(v.type, sizes)) for v in node.values)
        if node.op == "call":
            child = made.children[node.attrs["path"]]
            args = tuple([known[a] if isinstance(a, Value) else Given("int", (), size=evaluate(a, sizes)) for a in node.args])
            if loops(child):
                yield from _opened(child, args, {**sizes, **_own_sizes(child.graph, args)})
            else:
                yield Piece(digest(child), child, args, True)
    rest = between(made)
    if rest is not None:
        yield Piece(digest(rest[0]), rest[0], tuple([known[v] for v in rest[1]]), False)


def _own_sizes(graph: Graph, args: tuple[Given, ...]) -> dict[str, int]:
    """The symbols of a called graph by what its inputs are given."""
    found: dict[str, int] = {}
    for formal, arg in zip(graph.inputs, args):
        size = formal.node.attrs.get("size")
        if size is not None and arg.size is not None:
            found[str(size)] = arg.size
        found.update((str(s), n) for s, n in zip(formal.shape, arg.shape) if isinstance(s, Dim) and str(s) in s.symbols)
    return found


def loops(made: Definition) -> bool:
    """Whether a labelled loop calls blocks in it, at any depth."""
    return any(any(part.isdigit() for part in path.split(".")) or loops(child) for path, child in made.children.items())


# ---------------------------------------------------------------- what stands between calls
def between(made: Definition) -> tuple[Definition, list[Value]] | None:
    """What a definition computes beside the blocks that it calls, as one of its own, and the values that it is given there: the inputs, and results
    of calls. None where that is nothing. What only the commits of buffers in training need is left out."""
    calls = [n for n in made.graph.nodes if n.op == "call"]
    wanted = [v for v in dict.fromkeys([*(v for n in calls for v in n.operands()), *made.graph.outputs]) if v.node.op not in ("call", "input")]
    if all(v.node.op in ("param", "read") for v in wanted):
        return None
    needed = _needed(wanted)
    inside = [n for n in made.graph.nodes if n.op not in ("call", "input", "commit") and id(n) in needed]
    outside = [*made.graph.inputs, *dict.fromkeys(v for n in inside for v in n.operands() if v.node.op == "call")]
    known: dict[Value, Value] = {}
    inputs: list[Node] = []
    for at, v in enumerate(outside):
        attrs = {**v.node.attrs, "name": f"x{at}"} if v.node.op == "input" else {"name": f"x{at}"}
        inputs.append(Node("input", (), attrs, (v.type,), v.node.span, f"x{at}"))
        known[v] = Value(inputs[-1])
    nodes: list[Node] = []
    for n in inside:
        new = copy_node(n, known.__getitem__)
        nodes.append(new)
        known.update(zip(n.values, new.values))
    params = {n.attrs["path"]: _param(made.graph, n) for n in inside if n.op in ("param", "read")}
    out = tuple([known[v] for v in wanted])
    graph = Graph(f"{made.graph.name}_rest", tuple([Value(n) for n in inputs]), (*inputs, *nodes), out, params=tuple(params.values()))
    kept, arms = {id(n) for n in inside}, iter(made.arms)
    pairs = [(n, next(arms)) for n in made.graph.nodes if n.op in ("phase", "scan")]
    return Definition(graph, graph, made.dtype, len(out), arms=tuple([a for n, a in pairs if id(n) in kept]), target=made.target), outside


def _needed(wanted: list[Value]) -> set[int]:
    """The ids of nodes that these values depend on without a call between."""
    found: set[int] = set()
    stack = [v.node for v in wanted]
    while stack:
        node = stack.pop()
        if id(node) not in found and node.op != "call":
            found.add(id(node))
            stack += [v.node for v in node.operands()]
    return found


def _param(graph: Graph, node: Node) -> Param:
    """The weight that a node reads, owned under the address at which it is read."""
    p = param_at(graph, node.attrs["path"])
    assert p is not None, node.attrs["path"]
    return Param(node.attrs["path"], p.kind, p.type, p.init, (), p.span)


# ---------------------------------------------------------------- what tells pieces apart
def digest(made: Definition) -> str:
    """The same for definitions that compute the same in evaluation: initial values, rates of dropout, names and places in the text aside."""
    return hashlib.blake2b(repr(_told(made.graph)).encode(), digest_size=16).hexdigest()


def _told(graph: Graph) -> tuple[Any, ...]:
    below: Callable[[Graph], Any] = _told
    nodes, outputs, _, _, children, _ = structure(graph, below)
    params = sorted((p.path, p.kind, p.type.dtype, tuple(map(str, p.type.shape))) for p in graph.params)
    sizes: list[Size] = [v.node.attrs["size"] for v in graph.inputs if "size" in v.node.attrs]
    return tuple([_quiet(n) for n in nodes]), outputs, params, children, tuple(map(str, sizes))


def _quiet(form: tuple[Any, ...]) -> tuple[Any, ...]:
    """A node as `structure` tells it; one that is random in training alone by whether it is there: layers often differ in its rate."""
    op = find(form[0])
    if op is None or not (op.phase and op.random):
        return form
    name, args, attrs, types = form
    return name, args, tuple([(k, bool(v)) for k, v in attrs]), types
