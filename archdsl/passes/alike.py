"""When two bodies of a `Flat` would be built alike: equal layers, after a pass has changed each of them in the same way.

A form is what building a body depends on, with addresses relative to its owner and values numbered as they are met. To compare forms costs a part of
building the bodies, hashing their graphs and finding that they are equal.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archdsl.graph import Graph, Mask, Node, Value
from archdsl.passes.flat import Scope

if TYPE_CHECKING:
    from archdsl.passes.roll import _Roll


def form_of(roll: _Roll, scope: Scope, inputs: list[tuple[Any, str]], results: list[Any]) -> Any:
    """The form of a body with these inputs, by name, and results. None where a form does not tell all: sizes of the caller stand for those of a
    definition, or a block that is applied nowhere owns weights."""
    opened = roll.opened_in.get(id(scope), [])
    if scope.dims or any(s.dims for s in opened) or next(static_owners(scope.graph), None) is not None:
        return None
    return _Form(roll, scope).whole(opened, inputs, results)


def static_owners(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """The blocks that own weights of a graph and are applied nowhere in it."""
    called = {n.attrs["path"] for n in graph.nodes if n.op == "call"}
    return ((path, child) for path, child in graph.children.items() if path not in called)


class _Form:
    def __init__(self, roll: _Roll, scope: Scope):
        self.roll, self.scope, self.numbers = roll, scope, dict[Any, int]()

    def whole(self, opened: list[Scope], inputs: list[tuple[Any, str]], results: list[Any]) -> Any:
        roll, scope = self.roll, self.scope
        called = tuple([(self.key(k), name, roll.type(k)) for k, name in inputs]), _id(scope.call.span if scope.call is not None else None)
        weights = tuple(map(self.weight, roll.weights_of(scope)))
        items = tuple([self.call(i) if isinstance(i, Scope) else self.node(i) for i in roll.own[id(scope)]])
        emits = tuple([(a, _id(v.node.span)) for a, v in scope.emits.items()])
        return _id(scope.graph), tuple([_id(s.graph) for s in opened]), called, weights, items, emits, tuple(map(self.key, results))

    def key(self, key: Any) -> Any:
        """A value: a weight below the owner by its address, anything else by its number."""
        if isinstance(key, tuple) and self.scope.owns(key[1]):
            param = self.roll.flat.params[key[1]]
            return key[1][len(self.scope.prefix):], param.type, _id(param.span)
        return self.numbers.setdefault(key, len(self.numbers)), None, None

    def weight(self, address: str) -> Any:
        flat, n = self.roll.flat, len(self.scope.prefix)
        p, old = flat.params[address], flat.owner[address]
        return address[n:], old[n:], address == f"{old}.{p.path}", p.kind, p.type, p.init, p.factors, _id(p.span)

    def call(self, scope: Scope) -> Any:
        rolled, n = self.roll.scope(scope), len(self.scope.prefix)
        given, made = tuple(map(self.key, rolled.inputs)), tuple(map(self.key, rolled.results))
        assert scope.call is not None
        return _id(rolled.graph), _id(scope.graph), scope.path[n:], scope.label[n:], _id(scope.call.span), scope.call.name, given, made

    def node(self, n: Node) -> Any:
        attrs = n.attrs
        if n.op in ("update", "extern"):
            attrs = {**attrs, "path": attrs["path"][len(self.scope.prefix):]}
        made = tuple([self.key(v) for v in n.values])
        return n.op, self.part(n.args), tuple([(k, self.part(v)) for k, v in attrs.items()]), n.types, _id(n.span), n.name, made

    def part(self, a: Any) -> Any:
        """An operand or an attribute; 1, 1.0 and true are told apart."""
        kind = a.__class__
        if kind is Value:
            return "value", self.key(self.roll.key(a))
        if kind is int or kind is str:
            return a
        if kind is tuple or kind is list:
            return tuple([self.part(v) for v in a])
        if kind is float:
            return kind, repr(a)
        if kind is Mask:
            return kind, a.kind, self.part(a.args)
        return kind, a


def _id(thing: Any) -> int:
    """By identity: everything that is asked for lives as long as the roll."""
    return id(thing)
