"""From the typed graph to what is generated: which results, tables and sizes each block's `forward` takes and gives. Free of torch.

A `Definition` is one class to be: the block's nodes with their calls made to other definitions, and two kinds of inputs and results that
the block's text does not show. Inputs: tables that several blocks would compute alike (the root computes them once) and run-time sizes
that no input's shape tells. Results: the emitted values that were asked for and the new values of buffers, which the root commits at its end.
"""
from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.dims import Size
from archdsl.flatten import EachOnce, copy_node, dim_map, flatten, inline, is_owner, param_at
from archdsl.graph import Graph, Node, Value, structural_hash
from archdsl.kernels.target import PLAIN, Target
from archdsl.lower.prefix import parallel_scans
from archdsl.lower.tables import Tables, describe, moved, reads_paths


@dataclass(eq=False)
class Definition:
    """What one class computes. `source`: the graph as elaborated. `graph`: the rewritten one, whose inputs and outputs are those of `forward`.
    `outputs` counts the block's own outputs; behind them come the values emitted at `emits` and the new values of the buffers at `updates`
    (paths below this block). A `root` checks its inputs. Only a root has `hands_out`: with it, `forward` returns (outputs, {address: value}).
    `state`: addresses of the last inputs and outputs of a root in a form with state, which `forward` takes and gives as a dict; `moves`: how
    many positions a call has, and how many there may be in all.
    `children`: the definitions of the calls, by path; `arms`: (train, eval) of each phase node, (body,) of each scan, in order.
    `dtype`: the build's, as torch names it; `target`: the device and the kernels that it is for. `mould`: makes its instances on the meta device,
    once there was one."""

    source: Graph
    graph: Graph
    dtype: str
    outputs: int
    emits: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    hands_out: bool = False
    children: dict[str, Definition] = field(default_factory=dict)
    arms: tuple[tuple[Definition, ...], ...] = ()
    root: bool = False
    state: tuple[str, ...] = ()
    moves: tuple[Size, int | None] = (0, None)
    draws: tuple[str, ...] = ()
    target: Target = PLAIN
    mould: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "mould": None}

    @property
    def name(self) -> str:
        """The name of the class: the block's, or that of one pass of a labelled loop (`layers` -> Layer)."""
        words = re.sub(r"\W", "_", self.source.name or "block").strip("_") or "block"
        if words[0].isupper():
            return words
        words = singular(words)
        return "".join(w[:1].upper() + w[1:] for w in words.split("_"))

    @cached_property
    def key(self) -> str:
        """The same for definitions that may share a class: equal computation, names, places in the text, messages and dtype."""
        shown = [f"{self.name} {self.dtype} {self.outputs} {self.emits} {self.updates} {self.root} {self.hands_out} {self.state} {self.moves}",
                 f"{self.draws} " + structural_hash(self.graph, typed=True)]
        shown += [f"{self.target}"] if not self.target.plain else []
        shown += [f"{n.name} {n.span!r}" for n in self.graph.nodes]
        shown += [g.message for g in self.graph.guards]
        shown += [f"{path} {child.key}" for path, child in self.children.items()]
        shown += [" ".join(d.key for d in arms) for arms in self.arms]
        return hashlib.blake2b("\n".join(shown).encode(), digest_size=16).hexdigest()

    @property
    def outline(self) -> tuple[Any, ...]:
        """Equal for definitions of equal keys, and made at once: the children are known by theirs."""
        below = [(path, child.key) for path, child in self.children.items()]
        return self.name, self.dtype, self.root, len(self.graph.nodes), *below


def singular(word: str) -> str:
    """`layers` is layer, `branches` branch, `passes` pass."""
    return word[:-2] if re.search(r"(ss|x|ch|sh|zz)es$", word) else word[:-1] if re.search(r"[^s]s$", word) else word


def plan(graph: Graph, *, dtype: str, emit: str | Iterable[str] = (), flat: bool = False, hoist: bool = True,
         state: tuple[str, ...] = (), moves: tuple[Size, int | None] = (0, None), draws: tuple[str, ...] = (), target: Target = PLAIN) -> Definition:
    """The root's definition; the last inputs and outputs of a graph with `state` are the tensors at these addresses. Inputs behind those are the
    draws at the addresses `draws`. Raises ArchError A0511 for an
    `emit` pattern that matches nothing."""
    patterns = (emit,) if isinstance(emit, str) else tuple(emit)
    bound = parallel_scans(graph)
    whole = flatten(bound) if flat else _Normal("normal")(bound)
    need = frozenset(select(whole, patterns))
    planner = Planner(dtype, target)
    info = planner.analyse(whole, need)
    tables = {k: v for k, v in info.tables.items() if hoist and info.counts[k] > 1 or v.node.op == "read"}
    made = planner.define(whole, need, tables, root=True)
    made.source, made.root, made.hands_out, made.state, made.moves = graph, True, bool(patterns), state, moves
    made.outputs, made.draws = made.outputs - len(state), draws
    return made


def select(graph: Graph, patterns: tuple[str, ...]) -> list[int]:
    """The positions of the emitted values whose addresses match."""
    found: set[int] = set()
    for pattern in patterns:
        hits = [i for i, address in enumerate(graph.emits) if matches(pattern.split("."), address.split("."))]
        if not hits:
            known = ", ".join(f"`{a}`" for a in list(graph.emits)[:12]) or "nothing"
            raise error("A0511", f"no emitted value has an address like `{pattern}`", graph.span, "this model",
                        help=f"it emits {known}; `*` stands for one segment, `**` for any number of them")
        found.update(hits)
    return sorted(found)


def matches(pattern: list[str], address: list[str]) -> bool:
    """`layers.*.balance`: `*` is one segment (also inside one), `**` any number of segments."""
    if not pattern:
        return not address
    if pattern[0] == "**":
        return any(matches(pattern[1:], address[i:]) for i in range(len(address) + 1))
    if not address or not re.fullmatch(re.escape(pattern[0]).replace(r"\*", ".*"), address[0]):
        return False
    return matches(pattern[1:], address[1:])


class _Normal(EachOnce):
    """Calls that do not apply their owner's own graph are inlined, everywhere."""

    def _graph(self, graph: Graph) -> Graph:
        owners = graph.children

        def foreign(call: Node) -> bool:
            return call.attrs["path"] not in owners or not is_owner(graph, call)

        if any(n.op in ("phase", "scan") or n.op == "call" and foreign(n) for n in graph.nodes):
            graph = inline(graph, foreign)
        children = {path: self(child) for path, child in graph.children.items()}
        if all(children[p] is graph.children[p] for p in children):
            return graph
        known: dict[Value, Value] = {}
        nodes = []
        for node in graph.nodes:
            new = copy_node(node, known.__getitem__)
            if node.op == "call":
                new.attrs["graph"] = children[node.attrs["path"]]
            nodes.append(new)
            known.update(zip(node.values, new.values))
        return replace(graph, inputs=tuple(known[v] for v in graph.inputs), nodes=tuple(nodes), outputs=tuple(known[v] for v in graph.outputs),
                       children=children, emits={k: known[v] for k, v in graph.emits.items()})


@dataclass
class Info:
    """What a graph needs to give its outputs and some of its emitted values.

    `live`: nodes that matter. `needs`: for each child path, positions of its emitted values. `own`: its values that are tables, with their
    keys. `tables`: all tables of this graph and those below, in this graph's terms; `counts`: how often each would be computed; `placed`: keys of
    those that read what is owned at a path; `moved`: what `outside` gave.
    """

    live: tuple[Node, ...]
    needs: dict[str, frozenset[int]]
    own: dict[Value, str] = field(default_factory=dict)
    tables: dict[str, Value] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    placed: set[str] = field(default_factory=set)
    moved: dict[tuple[Any, ...], tuple[str, Value]] = field(default_factory=dict)

    def add(self, key: str, table: Value, count: int = 1, placed: bool = False) -> None:
        if key not in self.tables:
            self.tables[key] = table
            if placed:
                self.placed.add(key)
        self.counts[key] += count

    def outside(self, key: str, path: str, dims: Mapping[str, Size]) -> tuple[str, Value]:
        """A table in the terms of a caller that has this graph at a path, and its key there."""
        table = self.tables[key]
        if not dims and key not in self.placed:
            return key, table
        at = key, path if key in self.placed else "", *dims.items()
        if at not in self.moved:
            table = moved(table, f"{path}.", dims)
            self.moved[at] = describe(table), table
        return self.moved[at]


class Planner:
    """Analyses and definitions of one lowering. But for the root's they depend on their graph alone, which keeps them: a model whose layers have been
    lowered before, in other models too, has only its root to be planned."""

    def __init__(self, dtype: str, target: Target = PLAIN):
        self.dtype, self.target = dtype, target

    def define(self, graph: Graph, need: frozenset[int], hoisted: Mapping[str, Value], *, root: bool = False,
               sizes: tuple[str, ...] = (), again: bool = False) -> Definition:
        """`hoisted`: the tables that come from outside (for the root: that it computes), by key in this graph's terms. `sizes`: symbols that
        come as inputs even if not needed. `again`: one of several applications, each of which goes on from the last one's new buffers."""
        from archdsl.lower.rewrite import Writer

        if root:
            return Writer(self, graph, need, hoisted, root, sizes, again).definition()
        key = "definition", self.dtype, self.target, need, tuple(hoisted), sizes, again
        if key not in graph.derived:
            graph.derived[key] = Writer(self, graph, need, hoisted, root, sizes, again).definition()
        return graph.derived[key]

    def analyse(self, graph: Graph, need: frozenset[int]) -> Info:
        key = "info", need
        if key not in graph.derived:
            graph.derived[key] = self._analyse(graph, need)
        return graph.derived[key]

    def _analyse(self, graph: Graph, need: frozenset[int]) -> Info:
        info = Info(*self._live(graph, need))
        tables = Tables(lambda path: param_at(graph, path), self.updated(graph))
        for node in info.live:
            tables.visit(node)
        for value in tables.frontier(info.live, results(graph, need)):
            table = tables.free[value]
            key = info.own[value] = describe(table)
            info.add(key, table, placed=reads_paths(table))
        for value, table in tables.reads.items():
            key = info.own[value] = describe(table)
            info.add(key, table, 0, placed=True)
        for node in info.live:
            if node.op == "call":
                inner, path = node.attrs["graph"], node.attrs["path"]
                below = self.analyse(inner, info.needs[path])
                dims = dim_map(inner, node.args) if below.tables else {}
                for key in below.tables:
                    outer, table = below.outside(key, path, dims)
                    info.add(outer, table, below.counts[key], key in below.placed)
        return info

    def _live(self, graph: Graph, need: frozenset[int]) -> tuple[tuple[Node, ...], dict[str, frozenset[int]]]:
        """Nodes that an output, a wanted emitted value or a buffer's update depends on. All calls of one child give the same emitted values."""
        needs: dict[str, frozenset[int]] = {n.attrs["path"]: frozenset() for n in graph.nodes if n.op == "call"}
        used = set(results(graph, need))
        live: list[Node] = []
        for node in reversed(graph.nodes):
            if node.op in ("input", "update") or any(v in used for v in node.values) or self._has_effect(node):
                live.append(node)
                used.update(node.operands())
        for node in live:
            if node.op == "call" and len(node.types) > (count := len(node.attrs["graph"].outputs)):
                needs[node.attrs["path"]] |= {v.index - count for v in node.values[count:] if v in used}
        return tuple(reversed(live)), needs

    def _has_effect(self, node: Node) -> bool:
        return node.op == "call" and bool(self.updated(node.attrs["graph"]))

    def updated(self, graph: Graph) -> frozenset[str]:
        """The paths of buffers that get a new value in this graph and below."""
        if "updated" not in graph.derived:
            own = {n.attrs["path"] for n in graph.nodes if n.op == "update"}
            below = {f"{n.attrs['path']}.{p}" for n in graph.nodes if n.op == "call" for p in self.updated(n.attrs["graph"])}
            graph.derived["updated"] = frozenset(own | below)
        return graph.derived["updated"]


def results(graph: Graph, need: frozenset[int]) -> tuple[Value, ...]:
    """The graph's outputs, then the emitted values at these positions."""
    emitted = tuple(graph.emits.values())
    return (*graph.outputs, *(emitted[i] for i in sorted(need)))
