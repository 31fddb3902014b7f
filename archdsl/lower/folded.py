"""Tables of whole numbers that depend on nothing: computed once, when a graph is written, instead of in each forward pass."""
from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from archdsl.diagnostics.model import error
from archdsl.dims import Dim
from archdsl.graph import Mask, Node, Value
from archdsl.ops.registry import find
from archdsl.ops.rules import torch_dtype

ROOM = 2**20
"""Elements of the tables of one class that are kept, intermediate ones included."""
WHOLE = ("int", "i32", "i8", "u8", "bool")


class Table(NamedTuple):
    """`node`: what makes it, in so many `steps`."""

    tensor: torch.Tensor
    node: Node
    steps: int


class Folded:
    """The tables of one class."""

    def __init__(self) -> None:
        self.tables: dict[Value, Table] = {}
        self.room = ROOM

    def add(self, node: Node) -> bool:
        """Computes the node now, when it is a table of whole numbers made from such tables and numbers alone."""
        op = find(node.op)
        if op is None or op.phase or op.random or not is_table(node):
            return False
        if any(v not in self.tables for v in node.operands()):
            return False
        size = math.prod(s for s in node.types[0].shape if isinstance(s, int))
        if self.room < size or any(_varies(a) for a in (*node.args, *node.attrs.values())):
            return False
        args = tuple(self._at(a) for a in node.args)
        attrs = {k: self._at(v) for k, v in node.attrs.items()}
        if isinstance(attrs.get("dtype"), str):
            attrs["dtype"] = torch_dtype(attrs["dtype"])
        try:
            result = op.body(*args, **attrs)
        except (RuntimeError, IndexError, ValueError, ArithmeticError) as fault:
            why = str(fault).splitlines()[0]
            raise error("A0516", f"`{node.op}` cannot be computed: {why}", node.span, "its operands are known numbers") from None
        if not isinstance(result, torch.Tensor):
            return False
        self.room -= size
        self.tables[Value(node)] = Table(result, node, 1 + max((self.tables[v].steps for v in node.operands()), default=0))
        return True

    def _at(self, value: Any) -> Any:
        """An operand or attribute with tensors for values."""
        if isinstance(value, Value):
            return self.tables[value].tensor
        if isinstance(value, Mask):
            return Mask(value.kind, tuple(map(self._at, value.args)))
        return tuple(map(self._at, value)) if isinstance(value, (tuple, list)) else value


def is_table(node: Node) -> bool:
    """Whether a node's one result is of whole numbers, and of a shape that does not vary."""
    return len(node.types) == 1 and node.types[0].dtype in WHOLE and all(isinstance(s, int) for s in node.types[0].shape)


def _varies(value: Any) -> bool:
    """Whether a size in an argument varies at run time."""
    if isinstance(value, Mask):
        return any(map(_varies, value.args))
    return any(map(_varies, value)) if isinstance(value, (tuple, list)) else isinstance(value, Dim)
