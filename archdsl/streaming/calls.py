"""Calls of definitions, and the arm of a phase: what is inside is derived as well, and its states become states here."""
from __future__ import annotations

from archdsl.diagnostics.model import ArchError, in_library, moved
from archdsl.dims import substitute, sym, symbols
from archdsl.flatten import dim_map, is_owner, map_values
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.streaming.definition import Context, Definition, Known, Made
from archdsl.streaming.kept import MOVING
from archdsl.streaming.pairs import Axes


def phase(d: Definition, node: Node, known: Known) -> None:
    """Forms with state are those of evaluation."""
    arm: Graph = node.attrs["eval"]
    inside = dict(zip(arm.inputs, (known[a] for a in node.args)))
    d.last.update(i for i, a in zip(arm.inputs, node.args) if a in d.last)
    for inner in arm.nodes:
        if inner.op != "input":
            d.node(inner, inside)
    known.update(zip(node.values, (inside[v] for v in arm.outputs)))
    d.last.update(v for v, o in zip(node.values, arm.outputs) if o in d.last)


def call(d: Definition, node: Node, known: Known) -> None:
    """A call of a definition in which nothing moves stays; of another one the derived definition is called."""
    inner, path = node.attrs["graph"], node.attrs["path"]
    rows = tuple(isinstance(a, Value) and known.get(a) in d.rows.held for a in node.args)
    last = tuple(isinstance(a, Value) and a in d.last for a in node.args)
    tables = tuple(d.pairs.get(a) if isinstance(a, Value) else None for a in node.args)
    moving = any(d.at.timed(s) for a in node.args if isinstance(a, Value) for s in a.shape)
    if not moving and not any(rows) and not d.reads_time(inner):
        if d.kept.kind(node.values[0]) == MOVING:
            d.kept.reads(node.operands())
        d.keep(node, known)
        if any(last):
            d.last.update(node.values)
        return
    try:
        made = d.session.derive(inner, _inside(d, inner, node, known, rows, last, tables))
    except ArchError as fault:
        raise ArchError(*(moved(x, node.span, inner.name) if in_library(x.span) else x for x in fault.diagnostics)) from None
    if d.session.ahead is not None and in_library(d.session.ahead):
        d.session.ahead = node.span
    _calling(d, node, known, made)
    if is_owner(d.source, node):
        d.children[path] = made.graph


def _inside(d: Definition, inner: Graph, node: Node, known: Known, rows: tuple[bool, ...], last: tuple[bool, ...],
            tables: tuple[Axes | None, ...]) -> Context:
    """What holds in a called definition, in its own symbols."""
    outer = dim_map(inner, node.args)
    names = {s for i in inner.inputs for size in i.shape for s in symbols(size)} | d.at.time | d.at.mixed
    time = {n for n in names if d.at.is_time(outer.get(n, sym(n)))}
    mixed = {n for n in names if d.at.timed(outer.get(n, sym(n)))} - time
    dims = {n: d.size(outer.get(n, sym(n))) for n in time | mixed} if d.at.dims else {}
    batch = next((sym(n) for n in sorted(names) if d.at.batch is not None and outer.get(n, sym(n)) == d.at.batch), d.at.batch)
    kinds = tuple(map(d.kept.kind, node.args)) if d.kept.on else ()
    delays = tuple(d.delays.late(known[a]) if isinstance(a, Value) and a in known else None for a in node.args)
    return Context(frozenset(time), frozenset(mixed), dims, rows, last, tables, batch, d.at.by_row, kinds, delays, d.delays.now)


def _calling(d: Definition, node: Node, known: Known, made: Made) -> None:
    """The call of a derived definition, with its states and counters."""
    inner, path = node.attrs["graph"], node.attrs["path"]
    count = d.calls[path] = d.calls.get(path, 0) + 1
    prefix = path if count == 1 else f"{path}_{count}"
    outer = dim_map(inner, node.args)
    d.kept.reads(node.args[i] for i in made.asked)
    states = [d.slot(f"{prefix}.{a}", TensorType(t.dtype, tuple(substitute(s, outer) for s in t.shape)), node.span) for a, t, _ in made.slots]
    args = (*(map_values(node.args[i], known.__getitem__, d.at.dims) for i in made.taken), *(v for *_, v in states),
            *(d.counter(c) for c in made.counters))
    own = len(inner.outputs)
    types = [TensorType(t.dtype, tuple(d.size(s) for s in t.shape)) for t in node.types]
    types[:own] = [d.rows.type(t) if r else t for t, r in zip(types[:own], made.rows)]
    types[:own] = [d.of_last(t) if r else t for t, r in zip(types[:own], made.last)]
    types[:own] = [t if a is None else d.table(n, a) for t, a, n in zip(types[:own], made.pairs, node.types)]
    emitted = [i for i in range(own, len(types)) if i - own not in made.lost]
    every = (*types[:own], *(v.type for *_, v in states), *(types[i] for i in emitted))
    new = Node("call", args, {"path": path, "graph": made.graph}, every, node.span, node.name)
    for i, (*_, value) in enumerate(states, own):
        new.call_result(i, value.node.name)
    d.nodes.append(new)
    values = new.values
    n = len(states)
    known.update(zip((*node.values[:own], *(node.values[i] for i in emitted)), (*values[:own], *values[own + n:])))
    d.lost.update({node.values[own + i]: fault for i, fault in made.lost.items()})
    late = [made.emitted[i - own] for i in emitted]
    d.delays.returned((*values[:own], *values[own + n:]), (*made.delays, *late))
    d.rows.held.update(v for v, r in zip(values, made.rows) if r)
    d.last.update(v for v, r in zip(node.values, made.last) if r)
    d.pairs.update((v, a) for v, a in zip(node.values, made.pairs) if a is not None)
    kept = [k for *_, k in made.slots]
    d.slots += [(a, t, before, after, k) for (a, t, before), after, k in zip(states, values[own:own + n], kept)]
