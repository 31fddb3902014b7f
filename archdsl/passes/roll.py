"""From a `Flat` back to a graph of blocks.

A scope becomes a call of its own definition again, unless nothing below it owns weights or emits (as the language has it: such a block is part of
its caller's body) or it is *dissolved*: then its nodes are the caller's. A weight belongs to the scope that owned it; one that is now read from
further out moves there, its old owner dissolved, and reaches other blocks as an input.
"""
from __future__ import annotations

from itertools import pairwise
from typing import Any

from archdsl.dims import substitute
from archdsl.elaborate.builder import Builder
from archdsl.flatten import map_values, moved
from archdsl.graph import Graph, Guard, Node, TensorType, Value
from archdsl.passes.alike import form_of, static_owners
from archdsl.passes.flat import Flat, Scope, ordered
from archdsl.records import record, replace
from archdsl.source import NOWHERE


class Dissolve(Exception):
    """A scope cannot be a call: two applications of one owner differ, or what it needs depends on what it gives."""

    def __init__(self, path: str):
        super().__init__(path)
        self.path = path


@record()
class Rolled:
    """A definition, the values that its inputs stand for and those that its outputs and emitted values are."""

    graph: Graph
    inputs: list[Any]
    results: list[Any]


def roll(flat: Flat) -> Graph:
    """The graph that a Flat holds now."""
    dissolved: set[str] = set()
    while True:
        try:
            return _Roll(flat, dissolved).run()
        except Dissolve as why:
            dissolved.add(why.path)


class _Roll:
    def __init__(self, flat: Flat, dissolved: set[str]):
        self.flat = flat
        self.nodes = flat.live()
        homes = {id(s): s for n in self.nodes for s in (flat.home[id(n)],)}
        self.scopes = {id(s): s for home in homes.values() for s in home.chain()}  # those that hold live nodes
        self.paths = {s.path for s in self.scopes.values()}
        self.dissolved = set(dissolved)
        self.owner = self._owners()
        owning = self._owning()
        self.merged = {id(s): s for s in self.scopes.values() if s.parent is not None and (s.path in self.dissolved or id(s) not in owning)}
        self.opened = {id(t) for s in self.merged.values() for t in s.chain()}
        self.opened_in: dict[int, list[Scope]] = {}
        for s in self.merged.values():
            self.opened_in.setdefault(id(self._place(s)), []).append(s)
        self.inside = {i: dict.fromkeys(s.path for s in opened) for i, opened in self.opened_in.items()}
        self.owned: dict[str, list[str]] = {}
        for address, path in self.owner.items():
            self.owned.setdefault(path, []).append(address)
        self.pool: dict[tuple[str, str], Graph] = {}
        for g in flat.source.definitions():
            self.pool.setdefault((g.hash, g.name), g)
        self.own: dict[int, list[Node | Scope]] = {id(s): [] for s in self.scopes.values()}
        self.made_in: dict[Any, Scope] = {}
        self.needs: dict[int, dict[Any, None]] = {id(s): {} for s in self.scopes.values()}
        self.gives: dict[int, dict[Any, None]] = {id(s): {} for s in self.scopes.values()}
        self.done: dict[int, Rolled] = {}
        self.built: dict[Any, Graph] = {}  # by form (alike.py)
        self.around: dict[int, list[Scope]] = {}
        self._items()
        self._flows()
        self.known = {("weight", a) for a in self.owner} | set(self.made_in)

    # ---------------------------------------------------------------- weights
    def _owners(self) -> dict[str, str]:
        """Address -> the path of its owner now; weights that nothing reads any more are left out."""
        flat = self.flat
        readers: dict[str, list[Scope]] = {}
        for n in self.nodes:
            if n.op in ("param", "update"):
                readers.setdefault(n.attrs["path"], []).append(flat.home[id(n)])
        out: dict[str, str] = {}
        for address, owner in flat.owner.items():
            reading = readers.get(address, [])
            if not reading and address in flat.was_read:
                continue
            from_outside = [self._reader(s, owner) for s in reading]
            new = [p for p in from_outside if _above(p, owner) and (address, p) not in flat.read_from]
            above, inside = min(new, key=len, default=owner), owner
            while inside != above:  # an owner that gives one weight away is opened: no address lies inside another owner's
                self.dissolved.add(inside)
                inside = inside.rpartition(".")[0] if "." in inside else ""
            if reading or owner in self.paths:
                while owner not in self.paths:
                    owner = owner.rpartition(".")[0]
            out[address] = owner
        return out

    @staticmethod
    def _reader(scope: Scope, owner: str) -> str:
        """Where a weight of `owner` enters the scopes that lead to `scope`."""
        return next(s.path for s in scope.chain() if s.path == owner or _above(s.path, owner))

    def _owning(self) -> set[int]:
        """The scopes that have weights, emit, or hold a module of the user's."""
        paths = {""}
        for owner in set(self.owner.values()):
            while owner not in paths:
                paths.add(owner)
                owner = owner.rpartition(".")[0]
        extern = {id(s) for n in self.nodes if n.op == "extern" for s in self.flat.home[id(n)].chain()}
        return extern | {i for i, s in self.scopes.items() if s.emits or s.path in paths}

    def _place(self, scope: Scope) -> Scope:
        """The scope whose body holds the nodes of `scope`."""
        while id(scope) in self.merged and scope.parent is not None:
            scope = scope.parent
        return scope

    # ---------------------------------------------------------------- what stands where, what flows in and out
    def _items(self) -> None:
        """The nodes and calls of each body, in order."""
        seen: set[int] = set()
        for n in self.nodes:
            chain = self.bodies(self.flat.home[id(n)])
            for inner, outer in pairwise(chain):
                if id(inner) in seen:
                    break
                seen.add(id(inner))
                self.own[id(outer)].append(inner)
            if n.op != "param":
                self.own[id(chain[0])].append(n)
            for v in n.values:
                self.made_in[v] = chain[0]

    def type(self, key: Any) -> TensorType:
        return self.flat.params[key[1]].type if isinstance(key, tuple) else key.type

    def key(self, v: Value) -> Any:
        return ("weight", v.node.attrs["path"]) if v.node.op == "param" else v

    def _flows(self) -> None:
        for n in self.nodes:
            for v in self.flat.reads(n):
                self._flow(self.key(v), self._place(self.flat.home[id(n)]))
        for v in (*self.flat.outputs, *self.flat.root.emits.values()):
            self._flow(self.key(v), self.flat.root)

    def _flow(self, key: Any, user: Scope) -> None:
        inside = self.bodies(user)
        if isinstance(key, tuple):
            owner = self.owner[key[1]]
            made = next(s for s in inside if s.path == owner or _above(s.path, owner))
        else:
            made = self.made_in[key]
        outside = self.bodies(made)
        if inside is outside:
            return
        common = set(map(id, outside)).intersection(map(id, inside))
        for s in inside:
            if id(s) in common:
                break
            self.needs[id(s)][key] = None
        for s in outside:
            if id(s) in common:
                break
            self.gives[id(s)][key] = None

    def bodies(self, scope: Scope) -> list[Scope]:
        """The bodies that a scope's nodes stand in, from the inside out."""
        found = self.around.get(id(scope))
        if found is None:
            found = self.around[id(scope)] = [s for s in scope.chain() if id(s) not in self.merged]
        return found

    # ---------------------------------------------------------------- definitions
    def run(self) -> Graph:
        """The model's graph, the definitions below it rolled first."""
        return self.scope(self.flat.root).graph

    def scope(self, scope: Scope) -> Rolled:
        if id(scope) not in self.done:
            self.done[id(scope)] = self._unchanged(scope) or _Definition(self, scope).run()
        return self.done[id(scope)]

    def _unchanged(self, scope: Scope) -> Rolled | None:
        """The definition as it was, where neither its nodes nor what flows have changed."""
        if scope.dirty or scope.dims or id(scope) in self.opened:
            return None
        results = [*map(self.key, scope.outputs), *map(self.key, scope.emits.values())]
        inputs = [self.key(v) for v in scope.inputs]
        if set(self.gives[id(scope)]) <= set(results) and set(self.needs[id(scope)]) <= set(inputs) <= self.known:
            return Rolled(scope.graph, inputs, results)
        return None

    def weights_of(self, scope: Scope) -> list[str]:
        """The addresses of the weights that a body owns now: those that it had, in their order, then others."""
        here = [a for path in (scope.path, *self.inside.get(id(scope), ())) for a in self.owned.get(path, ())]
        first = {scope.prefix + p.path: i for i, p in enumerate(scope.graph.params)}
        return sorted(here, key=lambda a: first.get(a, len(first)))

    def shared(self, graph: Graph) -> Graph:
        """One object for equal definitions."""
        return self.pool.setdefault((graph.hash, graph.name), graph)


class _Definition:
    """One body, built as elaboration builds it: equal pure nodes are one, what nothing needs is left out."""

    def __init__(self, roll: _Roll, scope: Scope):
        self.roll, self.scope, self.builder = roll, scope, Builder(base=scope.prefix)
        self.local: dict[Any, Value] = {}
        self.waiting: dict[int, Node | Scope] = {id(i): i for i in roll.own[id(scope)]}
        self.active: set[int] = set()

    def run(self) -> Rolled:
        """The definition, with its inputs and results by the keys of the flat graph; of a definition inside, results are those that others read."""
        inputs, results = self._order(), self._results()
        emitted = [self.roll.key(v) for v in self.scope.emits.values()]
        form = form_of(self.roll, self.scope, list(inputs.items()), [*results, *emitted]) if self.scope.parent is not None else None
        graph = self.roll.built.get(form) if form is not None else None
        if graph is None:
            graph = self._build(inputs, results)
            if form is not None:
                self.roll.built[form] = graph
        return Rolled(graph, list(inputs), [*results, *emitted])

    def _results(self) -> list[Any]:
        """What it gives, emitted values aside."""
        scope, roll = self.scope, self.roll
        if scope.parent is None:
            return [roll.key(v) for v in scope.outputs]
        wanted = roll.gives[id(scope)]
        emitted = {roll.key(v) for v in scope.emits.values()}
        before = list(dict.fromkeys(map(roll.key, scope.outputs)))
        results = [k for k in before if k in wanted or k in roll.known] + [k for k in wanted if k not in before and k not in emitted]
        return results or [roll.key(v) for v in scope.emits.values()][:1]  # a header names a result, though nobody reads one

    def _build(self, inputs: dict[Any, str], results: list[Any]) -> Graph:
        self._inputs(inputs)
        self._weights()
        for item in self.roll.own[id(self.scope)]:
            self._item(item)
        self._static_owners()
        scope, source = self.scope, self.scope.graph
        for address, v in scope.emits.items():
            if address not in self.builder.emits:
                self.builder.emit(address, self.value(self.roll.key(v)), v.node.span)
        merged = self.roll.opened_in.get(id(scope), [])
        for g in (source, *(s.graph for s in merged)):
            for name, n in g.applied.items():
                self.builder.applied[name] = self.builder.applied.get(name, 0) + n
        self.builder.require(_guards(source, scope.dims))
        for s in merged:
            self.builder.require(_guards(s.graph, s.dims))
        self.builder.knobs.update(source.knobs)
        names = source.output_names if len(results) == len(source.outputs) else ()
        graph = self.builder.finish(source.name, tuple(map(self.value, results)), names=names, doc=source.doc, span=source.span)
        return self.roll.shared(graph) if scope.parent is not None else graph

    # ---------------------------------------------------------------- inputs and weights
    def _order(self) -> dict[Any, str]:
        """What comes in, with the names of the inputs: those that it had, in their order, then others."""
        scope, roll = self.scope, self.roll
        if scope.parent is None:
            return {v: v.node.attrs["name"] for v in scope.inputs}
        formals: dict[Any, str] = {}
        for formal, actual in zip(scope.graph.inputs, scope.inputs):
            formals.setdefault(roll.key(actual), formal.node.attrs["name"])
        needed = roll.needs[id(scope)]
        order = [k for k in formals if k in needed] + [k for k in needed if k not in formals]
        return {k: formals.get(k) or (k[1].rpartition(".")[2] if isinstance(k, tuple) else k.node.result_name(k.index)) or "x" for k in order}

    def _inputs(self, order: dict[Any, str]) -> None:
        scope, roll = self.scope, self.roll
        for k, name in order.items():
            if scope.parent is None:
                self.local[k] = self.builder.input(name, k.type, k.node.span)
                self.waiting.pop(id(k.node), None)
            else:
                span = scope.call.span if scope.call is not None else NOWHERE
                self.local[k] = self.builder.input(name, roll.type(k), span)

    def _weights(self) -> None:
        """The weights that this body owns: those that it had, in their order, then those that moved here."""
        scope, flat = self.scope, self.roll.flat
        for address in self.roll.weights_of(scope):
            param = flat.params[address]
            old = flat.owner[address]
            between = old[len(scope.prefix):] if old != scope.path else ""
            inner = moved(param, f"{between}." if between else "") if between and address == f"{old}.{param.path}" else param
            self.builder.declare(replace(inner, path=address[len(scope.prefix):]))

    def _static_owners(self) -> None:
        """Blocks that own weights and are applied nowhere, as they were."""
        for path, child in static_owners(self.scope.graph):
            if path not in self.builder.children and all(
                    self.roll.owner.get(f"{self.scope.prefix}{path}.{a}", "").startswith(self.scope.prefix + path) for a, _ in child.parameters()):
                self.builder.adopt(path, child, child.span)

    # ---------------------------------------------------------------- nodes and calls
    def value(self, key: Any) -> Value:
        """A value inside this body, made first where it still waits."""
        if key in self.local:
            return self.local[key]
        if isinstance(key, tuple):
            address = key[1]
            node = self.builder.add("param", (), {"path": address[len(self.scope.prefix):]}, (self.roll.type(key),),
                                    self.roll.flat.params[address].span, address.rpartition(".")[2])
            self.local[key] = Value(node)
            return self.local[key]
        made = self.roll.made_in[key]
        item: Node | Scope = key.node
        for s in self.roll.bodies(made):
            if s is self.scope:
                break
            item = s
        self._item(item)
        return self.local[key]

    def _use(self, v: Value) -> Value:
        return self.value(self.roll.key(v))

    def _item(self, item: Node | Scope) -> None:
        if id(item) not in self.waiting:
            return
        if id(item) in self.active:
            raise Dissolve(item.path if isinstance(item, Scope) else self.scope.path)
        self.active.add(id(item))
        if isinstance(item, Scope):
            self._call(item)
        else:
            self._node(item)
        self.active.discard(id(item))
        self.waiting.pop(id(item), None)

    def _node(self, n: Node) -> None:
        attrs = {k: map_values(v, self._use) for k, v in n.attrs.items()}
        if n.op in ("update", "extern"):
            attrs["path"] = attrs["path"][len(self.scope.prefix):]
        if n.op == "extern":
            self.builder.claim(attrs["path"], n.span)
        node = self.builder.add(n.op, map_values(n.args, self._use), attrs, n.types, n.span, n.name)
        self.local.update(zip(n.values, node.values))

    def _call(self, scope: Scope) -> None:
        rolled = self.roll.scope(scope)
        args = [self.value(k) for k in rolled.inputs]
        path = scope.path[len(self.scope.prefix):]
        owner = self.builder.children.get(path)
        if owner is None:
            owner = self.scope.graph.children.get(path, rolled.graph) if rolled.graph is scope.graph else rolled.graph
            self.builder.adopt(path, owner, scope.call.span if scope.call is not None else NOWHERE)
        as_it_was = rolled.graph is scope.graph and owner is self.scope.graph.children.get(path)
        if owner is not rolled.graph and owner.hash != rolled.graph.hash and not as_it_was:
            raise Dissolve(scope.path)  # a share is printed once; one that is applied at two sizes stays as elaboration made it
        call = scope.call
        assert call is not None
        label = scope.label[len(self.scope.prefix):]
        self.builder.call(rolled.graph, path, args, call.span, call.name, label)
        made = self.builder.nodes[-1]
        for key, v in zip(rolled.results, made.values):
            self.local.setdefault(key, v)


def _guards(graph: Graph, dims: Any) -> list[Guard]:
    if not dims:
        return list(graph.guards)
    return [replace(g, left=_size(g.left, dims), right=_size(g.right, dims)) for g in graph.guards]


def _size(size: Any, dims: Any) -> Any:
    return size if isinstance(size, int) else substitute(size, dims)


def _above(path: str, below: str) -> bool:
    """Whether `path` is a proper part of the address `below`."""
    return path != below and (not path or below.startswith(f"{path}."))


__all__ = ["ordered", "roll"]
