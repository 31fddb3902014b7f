"""A program in the order of execution, without blocks: typed nodes, each in the scope of the foreign module that runs it. No torch here."""
from __future__ import annotations

from typing import Any

from archdsl import shapes
from archdsl.capture.lifting import lifted
from archdsl.dims import Dim, Facts
from archdsl.elaborate.ops import parameters
from archdsl.graph import Mask, Node, Param, TensorType, Value
from archdsl.ops.registry import OpError, find
from archdsl.records import field, record
from archdsl.source import NOWHERE, Span


@record(frozen=True)
class Invocation:
    """One run of a foreign module: `key` tells runs of the same module apart, `path` is its address, `kind` its class."""

    key: str
    path: str
    kind: str


Scope = tuple[Invocation, ...]
"""The modules around a node, from outside to inside; the root itself is not among them."""


@record(slots=False, eq=False)
class Flat:
    """Adds ops one after another. `at` (scope), `name` and `span` are those of the foreign node that is being translated.

    `float_name`: the pinned name of the model's own float type (`f32` for a module in float32). `lifts`: rule -> how often it has been applied.
    `tables`: address of a buffer -> what its elements are by their places (formulas.py), where they follow a pattern.
    """

    facts: Facts
    float_name: str = "f32"
    at: Scope = ()
    name: str = ""
    span: Span = NOWHERE
    nodes: list[Node] = field(default_factory=list)
    scopes: dict[int, Scope] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    lifts: dict[str, int] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)

    def put(self, op: str, args: tuple[Any, ...], attrs: dict[str, Any], types: tuple[TensorType, ...]) -> Node:
        """A node as it is."""
        node = Node(op, args, attrs, types, self.span, self.name)
        self.nodes.append(node)
        self.scopes[id(node)] = self.at
        return node

    def op(self, name: str, *operands: Any, **attrs: Any) -> Any:
        """The Value of an op, or a tuple of them: operands in the order of the signature, defaults filled in, lifting rules applied.
        Raises OpError where the operands do not fit."""
        arguments: dict[str, Any] = {}
        given = list(operands)
        for p in parameters(name):
            if p.operand and given:
                arguments[p.name] = given.pop(0)
            elif p.name in attrs:
                arguments[p.name] = attrs[p.name]
            else:
                arguments[p.name] = p.default
        arguments = {k: _normal(v) for k, v in arguments.items()}
        known = find(name)
        assert known is not None and not given, name
        types = {k: _typed(v) for k, v in arguments.items()}
        result = known.infer(**types) if known.infer else shapes.infer_by_signature(known, types)
        result = result if isinstance(result, tuple) else (result,)
        args = tuple(arguments[p.name] for p in parameters(name) if p.operand)
        node = Node(name, args, {p.name: arguments[p.name] for p in parameters(name) if not p.operand}, result, self.span,
                    self.name if len(result) > 1 or "," not in self.name else "")
        simpler = lifted(self, node)
        if simpler is not None:
            return simpler
        self.nodes.append(node)
        self.scopes[id(node)] = self.at
        return Value(node) if len(result) == 1 else node.values

    def weight(self, param: Param) -> Value:
        """Reads a parameter or buffer at its full address."""
        self.params.setdefault(param.path, param)
        return Value(self.put("param", (), {"path": param.path}, (param.type,)))

    def live(self, outputs: tuple[Value, ...]) -> list[Node]:
        """The nodes that the outputs need, in order; inputs stay."""
        needed = {id(v.node) for v in outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if id(node) in needed or node.op == "input":
                kept.append(node)
                needed.update(id(v.node) for v in node.operands())
        return kept[::-1]


def _normal(v: Any) -> Any:
    """Sizes by what is known of them, as the text of the language has them."""
    if type(v) is tuple:
        return tuple([_normal(w) for w in v])
    return shapes.normal(v) if isinstance(v, Dim) else v


def _typed(v: Any) -> Any:
    if type(v) is Value:
        return v.type
    if type(v) is tuple:
        return tuple(_typed(w) for w in v)
    return v


__all__ = ["Flat", "Invocation", "Mask", "OpError", "Scope"]
