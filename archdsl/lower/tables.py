"""Tables: values that depend on nothing but sizes and consts, such as the cosines of rotary positions. Free of torch.

Blocks that would compute the same table get it from the root, which computes it once. The root also reads the buffers that change at its end.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from archdsl.dims import Size
from archdsl.flatten import copy_node
from archdsl.graph import InitExpr, Mask, Node, Param, Value
from archdsl.ops.initializers import RANDOM
from archdsl.ops.registry import find

STRUCTURAL = frozenset(("input", "param", "read", "call", "phase", "scan", "update", "commit", "extern"))


Texts = dict[int, tuple[Node, str]]
"""What nodes were described as, by id; they are kept, so that no other gets the id."""


def describe(value: Value, memo: Texts | None = None) -> str:
    """A text that is the same for tables computed alike. `memo`: of earlier calls."""
    return _text(value, {} if memo is None else memo)


def _text(value: Any, memo: Texts) -> str:
    if isinstance(value, Value):
        node = value.node
        if id(node) not in memo:
            attrs = node.attrs.items() if node.op != "param" else (("init", node.attrs["init"]),)
            body = ", ".join((*(_text(a, memo) for a in node.args), *(f"{k}={_text(v, memo)}" for k, v in sorted(attrs))))
            text = f"{node.op}({body}):{'|'.join(map(str, node.types))}"
            memo[id(node)] = node, text if len(text) < 200 else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return memo[id(node)][1] + (f".{value.index}" if value.index else "")
    if isinstance(value, Mask):
        return f"{value.kind}{_text(value.args, memo)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(_text(v, memo) for v in value)})"
    return str(value) if not isinstance(value, float) else repr(value)


def moved(table: Value, prefix: str, dims: Mapping[str, Size]) -> Value:
    """The table in the caller's terms: paths of consts prefixed, sizes substituted."""
    if not dims and not reads_paths(table):
        return table
    known: dict[Value, Value] = {}
    for node in nodes(table):
        known.update(zip(node.values, copy_node(node, known.__getitem__, prefix, dims).values))
    return known[table]


def reads_paths(table: Value) -> bool:
    """Whether it reads what is owned at some path."""
    return any(n.op in ("param", "read") for n in nodes(table))


def nodes(table: Value) -> list[Node]:
    """The table's nodes in order of evaluation."""
    found: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) not in found:
            for v in node.operands():
                visit(v.node)
            found[id(node)] = node

    visit(table.node)
    return list(found.values())


class Tables:
    """Finds the values of a graph that depend on nothing but sizes and consts, and its reads of buffers that get a new value (`updated`)."""

    def __init__(self, param_at: Callable[[str], Param | None], updated: frozenset[str]):
        self.param_at, self.updated = param_at, updated
        self.free: dict[Value, Value] = {}
        self.reads: dict[Value, Value] = {}
        self.steps: dict[Value, int] = {}

    def visit(self, node: Node) -> None:
        if node.op == "param" and node.attrs["path"] in self.updated:
            self.reads[Value(node)] = Value(read(node.attrs["path"], node))
            return
        if node.op == "param":
            param = self.param_at(node.attrs["path"])
            if param is None or param.kind != "const" or _random(param.init):
                return
            new = Node("param", (), {"path": node.attrs["path"], "init": param.init}, node.types, node.span, node.name)
        elif node.op in STRUCTURAL or not _pure(node.op) or not all(v in self.free for v in node.operands()):
            return
        else:
            new = copy_node(node, self.free.__getitem__)
        depth = (node.op != "param") + max((self.steps[v] for v in node.operands()), default=0)
        for old, fresh in zip(node.values, new.values):
            self.free[old], self.steps[old] = fresh, depth

    def frontier(self, live: Iterable[Node], results: Iterable[Value]) -> list[Value]:
        """Free values that something else reads. A lone count or fill is no table: it is as cheap as passing it."""
        used: dict[Value, None] = {}
        if not self.free:
            return []
        for node in live:
            if not all(v in self.free for v in node.values):
                used.update(dict.fromkeys(v for v in node.operands() if v in self.free))
        used.update(dict.fromkeys(v for v in results if v in self.free))
        return [v for v in used if self.steps[v] > 1]


def read(path: str, like: Node) -> Node:
    """A buffer's value before this forward pass changes it."""
    return Node("read", (), {"path": path}, like.types, like.span, like.name or path.rsplit(".", 1)[-1])


def _pure(name: str) -> bool:
    op = find(name)
    return op is not None and not op.phase and not op.random


def _random(init: InitExpr) -> bool:
    return init.op in RANDOM or init.op == "param" or any(_random(a) for a in init.args if isinstance(a, InitExpr))
