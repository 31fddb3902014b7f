"""A graph laid open for a pass: every node of every call in one list, each knowing the call that it stands in. Free of torch.

`Flat(graph)` copies, so the graph itself never changes; a pass edits the copy with `add`, `replace` and `set`, and `graph()` folds it back into
blocks (roll.py): what was not touched stays the same object, equal layers stay one definition, weights keep their addresses.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from archdsl import shapes
from archdsl.dims import Size
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.ops import MISSING, parameters
from archdsl.flatten import copy_node, dim_map, map_values
from archdsl.graph import Graph, Node, Param, TensorType, Value
from archdsl.ops.registry import OPS, Op, find
from archdsl.source import NOWHERE, Span


def known(op: str) -> Op:
    """The op of that name. Raises ValueError, with the nearest names."""
    rule = find(op)
    if rule is None:
        raise ValueError(" ".join((f"there is no op `{op}`:", *(did_you_mean(op, sorted(OPS)) or ("`archdsl ops` lists them",)))))
    return rule


class Scope:
    """One application of a definition. `path`: the address of its owner; `inputs`: the values that its formal inputs stand for; `outputs`, `emits`:
    the values that it gives; `label`: the address under which a caller sees what it emits; `dims`: the caller's sizes for the definition's."""

    __slots__ = ("call", "dims", "dirty", "emits", "graph", "inputs", "label", "outputs", "parent", "path")

    def __init__(self, graph: Graph, path: str = "", parent: Scope | None = None, call: Node | None = None, inputs: tuple[Any, ...] = ()):
        self.graph, self.path, self.parent, self.call = graph, path, parent, call
        self.inputs: list[Any] = list(inputs)
        self.outputs: list[Value] = []
        self.emits: dict[str, Value] = {}
        self.label = path
        self.dims: Mapping[str, Size] = {}
        self.dirty = False

    @property
    def prefix(self) -> str:
        return f"{self.path}." if self.path else ""

    def chain(self) -> Iterator[Scope]:
        """This scope and those around it, the root last."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def owns(self, address: str) -> bool:
        """Whether an address lies at or below this scope's owner."""
        return address.startswith(self.prefix)

    def __repr__(self) -> str:
        return f"Scope({self.path or 'root'}: {self.graph.name})"


class Flat:
    """`nodes` in order of evaluation (those that a pass adds come last; order is found again when the graph is folded); `params`: address -> weight.

    Values are `Value`s of these nodes; paths in attributes are full addresses. A phase is one node: its arms stay graphs.
    """

    def __init__(self, graph: Graph, facts: Any = None):
        self.source, self.facts = graph, facts
        self.nodes: list[Node] = []
        self.home: dict[int, Scope] = {}
        self.params: dict[str, Param] = dict(graph.parameters())
        self.owner: dict[str, str] = {}
        self.scopes: list[Scope] = []
        self.root = Scope(graph)
        self._owners(graph, "")
        self._users: dict[Value, dict[int, Node]] = {}
        self._reads: dict[int, list[Value]] = {}
        self._order: list[Node] | None = None  # until the next edit
        self._live: list[Node] | None = None
        self._edited: dict[int, Node] = {}  # since types were inferred; the nodes too, so that no other gets the id
        self._renamed: dict[tuple[int, str], tuple[Graph, Graph]] = {}
        self._inferred: dict[Any, tuple[TensorType, ...]] = {}  # by op, types of operands and attributes
        known: dict[Value, Value] = {}
        self._enter(self.root, known, {})
        for node in self.nodes:
            self._count(node)
        self._held: dict[Value, dict[int, Scope]] = {}  # the scopes that take or give a value
        for scope in self.scopes:
            for v in (*scope.inputs, *scope.outputs, *scope.emits.values()):
                if isinstance(v, Value):
                    self._held.setdefault(v, {})[id(scope)] = scope
        self.read_from = {(n.attrs["path"], self.home[id(n)].path) for n in self.nodes if n.op == "param"}
        self.was_read = {a for a, _ in self.read_from}

    # ---------------------------------------------------------------- laying open
    def _owners(self, graph: Graph, path: str) -> None:
        prefix = f"{path}." if path else ""
        self.owner.update((prefix + p.path, path) for p in graph.params)
        for below, child in graph.children.items():
            self._owners(child, prefix + below)

    def _enter(self, scope: Scope, known: dict[Value, Value], dims: Mapping[str, Size]) -> None:
        graph, scope.dims = scope.graph, dims
        self.scopes.append(scope)
        for node in graph.nodes:
            if node.op == "input" and scope.parent is not None:
                continue
            new = copy_node(node, known.__getitem__, scope.prefix, dims)
            if node.op != "call":
                self.nodes.append(new)
                self.home[id(new)] = scope
                known.update(zip(node.values, new.values))
                continue
            inner: Graph = new.attrs["graph"]
            child = Scope(inner, new.attrs["path"], scope, new, new.args)
            self._enter(child, dict(zip(inner.inputs, new.args)), dim_map(inner, new.args))
            child.label = scope.prefix + _label(graph, node)
            known.update(zip(node.values, [*child.outputs, *child.emits.values()]))
        if scope.parent is None:
            scope.inputs = [known[v] for v in graph.inputs]
        scope.outputs = [known[v] for v in graph.outputs]
        scope.emits = {k: known[v] for k, v in graph.emits.items()}

    # ---------------------------------------------------------------- reading
    @property
    def outputs(self) -> list[Value]:
        """The results of the model."""
        return self.root.outputs

    def users(self, value: Value) -> list[Node]:
        """The nodes that read a value."""
        return list(self._users.get(value, {}).values())

    def reads(self, node: Node) -> list[Value]:
        """The tensor operands of a node, those in masks included."""
        return self._reads[id(node)]

    def scope(self, node: Node) -> Scope:
        return self.home[id(node)]

    def address(self, node: Node) -> str:
        """Where a node stands: the address of its block, "" in the model's own body."""
        return self.home[id(node)].path

    def given(self, value: Value) -> str | None:
        """What the model's caller sees of a value: `the output logits`, `the emitted value layers.0.hidden`; None when it sees nothing."""
        for name, v in zip((*self.root.graph.output_names, *(None,) * len(self.outputs)), self.outputs):
            if v == value:
                return f"the output `{name}`" if name else "an output"
        return next((f"the emitted value `{a}`" for a, v in self.root.emits.items() if v == value), None)

    def alone(self, value: Value) -> bool:
        """Whether exactly one node reads a value, and no caller does."""
        return len(self._users.get(value, {})) == 1 and self.given(value) is None

    def order(self) -> list[Node]:
        """All nodes, operands first."""
        if self._order is None:
            self._order = ordered(self.nodes, self._reads)
        return self._order

    def live(self) -> list[Node]:
        """The nodes that a result, an emitted value or an effect needs, in order of evaluation."""
        if self._live is None:
            self._live = self._needed()
        return self._live

    def _needed(self) -> list[Node]:
        roots = [v.node for v in (*self.outputs, *self.root.emits.values(), *self.root.inputs)]
        roots += [n for n in self.nodes if n.op in ("update", "extern") or n.op == "phase" and any(n.attrs[k].has_effect for k in ("train", "eval"))]
        seen: set[int] = set()
        stack = roots
        while stack:
            n = stack.pop()
            if id(n) not in seen:
                seen.add(id(n))
                stack += [v.node for v in self._reads[id(n)]]
        return ordered([n for n in self.nodes if id(n) in seen], self._reads)

    # ---------------------------------------------------------------- editing
    def add(self, op: str, *args: Any, at: Scope | Node, span: Span | None = None, name: str = "", **attrs: Any) -> Any:
        """A new node in the scope `at`, or in that of the node `at`, whose place in the text it takes. Returns its Value (a tuple of several)."""
        known(op)
        scope = at if isinstance(at, Scope) else self.home[id(at)]
        span = span or (at.span if isinstance(at, Node) else NOWHERE)
        operands = iter(args)
        full: list[Any] = []
        for p in parameters(op):
            if p.operand:
                full.append(next(operands, None))
            elif p.name not in attrs:
                assert p.default is not MISSING, f"{op} needs {p.name}"
                attrs[p.name] = float(p.default) if isinstance(p.default, Fraction) else p.default
        attrs = {p.name: attrs[p.name] for p in parameters(op) if not p.operand}
        node = Node(op, tuple(full), attrs, self.infer(op, tuple(full), attrs), span, name)
        self._insert(node, scope)
        return Value(node) if len(node.types) == 1 else node.values

    def infer(self, op: str, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """The result types of an op. Raises OpError, ValueError for the name of no op."""
        rule = known(op)
        operands = iter(args)
        types = {p.name: _typed(next(operands, None)) if p.operand else attrs[p.name] for p in parameters(op)}
        form = (op, *map(_exact, types.values()))
        if form not in self._inferred:  # equal layers ask for the same again
            with shapes.use_facts(self.facts or shapes.facts()):
                found = rule.infer(**types) if rule.infer else shapes.infer_by_signature(rule, types)
            self._inferred[form] = found if isinstance(found, tuple) else (found,)
        return self._inferred[form]

    def weight(self, address: str, at: Scope | Node, span: Span | None = None) -> Value:
        """Reads a weight in a scope."""
        scope = at if isinstance(at, Scope) else self.home[id(at)]
        node = Node("param", (), {"path": address}, (self.params[address].type,), span or self.params[address].span, address.rpartition(".")[2])
        self._insert(node, scope)
        return Value(node)

    def own(self, address: str, param: Param, owner: str) -> None:
        """Declares a weight of the block at `owner`, or replaces the one at that address."""
        self.params[address], self.owner[address] = param, owner

    def replace(self, old: Value, new: Value, keep: Iterable[Node] = ()) -> None:
        """Lets everything that reads `old` read `new`, but for the nodes in `keep`."""
        kept = {id(n) for n in keep}
        for node in self.users(old):
            if id(node) not in kept:
                self.set(node, *map_values(node.args, lambda v: new if v == old else v),
                         **{k: map_values(v, lambda v: new if v == old else v) for k, v in node.attrs.items()})
        self._changed()
        held = self._held.pop(old, {})
        for scope in held.values():
            if old in scope.outputs or old in scope.emits.values():
                self.touch(scope)
            scope.outputs = [new if v == old else v for v in scope.outputs]
            scope.emits = {k: new if v == old else v for k, v in scope.emits.items()}
            if not kept:
                scope.inputs = [new if v == old else v for v in scope.inputs]
        self._held.setdefault(new, {}).update(held)
        if kept and held:
            self._held[old] = held

    def set(self, node: Node, *args: Any, **attrs: Any) -> None:
        """Gives a node other operands, and other attributes where some are named."""
        for v in self._reads[id(node)]:
            self._users.get(v, {}).pop(id(node), None)
        node.args = args
        node.attrs = {**node.attrs, **attrs}
        self._edited[id(node)] = node
        self._count(node)
        self._changed()
        self.touch(self.home[id(node)])

    def put(self, node: Node, scope: Scope) -> Node:
        """Places a node that was made elsewhere."""
        self._insert(node, scope)
        return node

    def remove(self, node: Node) -> None:
        """Takes out a node that nothing reads: an effect, or what was replaced."""
        for v in self._reads[id(node)]:
            self._users.get(v, {}).pop(id(node), None)
        self.nodes.remove(node)
        del self._reads[id(node)]
        self._changed()
        self.touch(self.home.pop(id(node)))

    def _changed(self) -> None:
        self._order = self._live = None

    def touch(self, scope: Scope) -> None:
        for s in scope.chain():
            s.dirty = True

    def renamed(self, scope: Scope, name: str) -> None:
        """The block that a scope applies is called otherwise from here on: a LayerNorm that became an RMSNorm."""
        from archdsl.records import replace

        key = id(scope.graph), name
        if key not in self._renamed:  # equal blocks stay one object
            applied = {name if k == scope.graph.name else k: n for k, n in scope.graph.applied.items()}
            self._renamed[key] = scope.graph, replace(scope.graph, name=name, applied=applied, doc="")
        scope.graph = self._renamed[key][1]
        self.touch(scope)

    def retype(self) -> None:
        """Infers types again, in order, from those of weights and inputs: of nodes that were edited, or read one whose type is another now."""
        other: set[int] = set()
        for node in self.order():
            if node.op == "param":
                types = (self.params[node.attrs["path"]].type,)
            elif find(node.op) is None or id(node) not in self._edited and not any(id(v.node) in other for v in self._reads[id(node)]):
                continue
            else:
                types = self.infer(node.op, node.args, node.attrs)
            if types != node.types:
                node.types = types
                other.add(id(node))
                self.touch(self.home[id(node)])
        self._edited.clear()

    def _insert(self, node: Node, scope: Scope) -> None:
        self.nodes.append(node)
        self.home[id(node)] = scope
        self._edited[id(node)] = node
        self._count(node)
        self._changed()
        self.touch(scope)

    def _count(self, node: Node) -> None:
        self._reads[id(node)] = reads = node.operands()
        for v in reads:
            self._users.setdefault(v, {})[id(node)] = node

    # ---------------------------------------------------------------- folding
    def graph(self) -> Graph:
        """The edited graph, in blocks. The source itself where nothing was edited."""
        if not self.root.dirty:
            return self.source
        from archdsl.passes.roll import roll

        return roll(self)


def ordered(nodes: list[Node], reads: Mapping[int, list[Value]] | None = None) -> list[Node]:
    """Nodes so that operands come first, otherwise as they stand. `reads`: the operands of each by id, where they are known."""
    if reads is None:
        reads = {id(n): n.operands() for n in nodes}
    left = {id(n): n for n in nodes}
    out: list[Node] = []
    for root in nodes:
        if id(root) not in left:
            continue
        stack = [root]
        while stack:
            n = stack[-1]
            here = id(n)
            if here not in left:
                stack.pop()
                continue
            waiting = False
            for v in reversed(reads[here]):
                if id(v.node) in left:
                    stack.append(v.node)
                    waiting = True
            if not waiting:
                stack.pop()
                del left[here]
                out.append(n)
    return out


def _label(graph: Graph, call: Node) -> str:
    """The address under which a call's emitted values are seen: that of its owner, or of the call itself for a shared block."""
    inner: Graph = call.attrs["graph"]
    for address, v in graph.emits.items():
        if v.node is call and v.index >= len(inner.outputs):
            return address.removesuffix("." + list(inner.emits)[v.index - len(inner.outputs)])
    return call.attrs["path"]


def _exact(value: Any) -> Any:
    """A key that tells 1, 1.0 and true apart."""
    kind = value.__class__
    if kind is TensorType or kind is int or kind is str:
        return value
    return (kind, *map(_exact, value)) if kind is tuple or kind is list else (kind, repr(value) if kind is float else value)


def _typed(a: Any) -> Any:
    return a.type if isinstance(a, Value) else tuple(map(_typed, a)) if isinstance(a, tuple) else a
