"""What inputs without positions come to: an encoder's output, the keys and values of attention to it. A call of the form `extend` computes them and
puts into the state what positions read of them; a step takes neither such inputs nor computes anything of them anew."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.ops import parameters
from archdsl.graph import Graph, Node, Value
from archdsl.ops.registry import find

if TYPE_CHECKING:
    from archdsl.streaming.definition import Definition

MOVING, STILL, FREE = "moving", "still", "free"
"""What a value depends on: the stream; else inputs; else weights alone."""
VIEWS = ("slice", "rearrange", "expand", "cast", "as_type")
CALLED = {"k": "keys", "v": "values"}


class Kept:
    """The values of one definition by what they depend on. Of those that are still, what moving ones read is a slot of the state, or an input that
    the caller keeps."""

    def __init__(self, d: Definition):
        self.d, self.on, self.step = d, d.session.form in ("extend", "step"), d.session.form == "step"
        self.root = not d.at.kinds
        self.kinds: dict[Value, str] = {}
        self.held: set[Value] = set()
        for i, value in enumerate(d.source.inputs):
            moves = any(d.at.timed(s) for s in value.shape)
            self.kinds[value] = d.at.kinds[i] if not self.root else MOVING if moves else STILL

    def kind(self, value: Any) -> str:
        if not isinstance(value, Value):
            return FREE
        return self.kinds.get(value) or (MOVING if any(self.d.at.timed(s) for s in value.shape) else FREE)

    def takes(self, node: Node) -> bool:
        """Whether the form computes a node. What a moving one reads that is still comes from the state."""
        if not self.on:
            return True
        kinds = {self.kind(v) for v in node.operands()}
        moves = MOVING in kinds or any(self.d.at.timed(s) for t in node.types for s in t.shape)
        moves = moves or any(isinstance(g, Graph) and self.d.reads_time(g) for g in node.attrs.values())
        kind = MOVING if moves else STILL if STILL in kinds else FREE
        self.kinds.update(dict.fromkeys(node.values, kind))
        if kind == MOVING and node.op != "call":
            self.reads(node.operands(), node)
        return kind != STILL or not self.step

    def reads(self, values: Iterable[Value], by: Node | None = None) -> None:
        """What is still among these values is needed by something that moves."""
        for v in values:
            if self.on and self.kind(v) == STILL and v not in self.held:
                part = v.node.op == "slice" and self.held.issuperset(v.node.operands())  # of what is kept already
                self.held.add(v)
                if part and self.step:
                    self.d.keep(v.node, self.d.known)
                elif not part and (v.node.op != "input" or self.root):
                    self._slot(v, by)

    def _slot(self, value: Value, by: Node | None) -> None:
        name, type, before = self.d.slot(_name(value, by), value.type, value.node.span)
        if self.step:
            self.d.known[value] = before
        self.d.slots.append((name, type, before, self.d.known[value], True))

    # ---------------------------------------------------------------- the definition as a whole
    def asked(self) -> tuple[int, ...]:
        """Which inputs that are still are read as they are: the caller keeps them."""
        return tuple(i for i, v in enumerate(self.d.source.inputs) if v in self.held)

    def taken(self) -> tuple[int, ...]:
        """Which inputs the derived definition has."""
        return tuple(i for i, v in enumerate(self.d.source.inputs) if not self.step or self.kinds[v] != STILL or v in self.held and not self.root)


def _name(value: Value, by: Node | None) -> str:
    """What a slot is called: as attention calls it, or by the value's own name."""
    if by is not None and by.op == "attention" and find(by.op) is not None:
        for p, arg in zip((p.name for p in parameters(by.op) if p.operand), by.args):
            if arg == value and p in CALLED:
                return CALLED[p]
    if value.node.op == "input":
        return value.node.attrs["name"]
    while not value.node.result_name(value.index) and value.node.op in VIEWS:
        value = value.node.args[0]
    return value.node.result_name(value.index) or value.node.op
