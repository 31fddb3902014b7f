"""A switch for debugging: calls that stop where the first number is lost."""
from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from archdsl.lower.module import ArchModule, blocks
from archdsl.source import NOWHERE


@contextmanager
def debug_nans(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, each eager call of the model raises ValueError where NaN first appears: it names the input, the weight, the tensor of the state or the
    op with its line in the spec. Slow: every op waits for its numbers. Raises TypeError for a model that holds nothing that archdsl built."""
    found = list(blocks(model))
    if not found:
        raise TypeError(f"{type(model).__name__} holds nothing that archdsl has built")
    for address, block in found:
        block.__dict__["forward"] = _Forward(block, address)
    try:
        yield model
    finally:
        for _, block in found:
            block.__dict__.pop("forward", None)


class _Forward:
    """The `forward` of a block, node by node."""

    def __init__(self, block: ArchModule, address: str):
        self.block, self.address = block, address

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(type(self.block).forward).bind(self.block, *args, **kwargs)
        given.apply_defaults()
        return _Run(self.block, self.address).run(*given.args[1:])


class _Run(fx.Interpreter):
    def __init__(self, block: ArchModule, address: str):
        super().__init__(block, graph=block.graph if block.detached else type(block)._graph)
        self.address, self.extra_traceback = address, False

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if "op" in n.meta and isinstance(result, torch.Tensor) and result.is_floating_point():
            lost = int(result.isnan().sum())
            if lost:
                raise ValueError(self._told(n, f"NaN at {lost} of {result.numel()} places"))
        return result

    def _told(self, n: fx.Node, what: str) -> str:
        if n.op == "placeholder":
            return f"the input `{n.target}` holds {what}: {_readers(n)} numbers"
        if n.op == "get_attr":
            path = f"{self.address}.{n.target}" if self.address else str(n.target)
            return f"the weight `{path}` holds {what}: {_readers(n)} numbers"
        if n.target is operator.getitem and isinstance(n.args[1], str):
            return f"the state `{n.args[1]}` holds {what}: {_readers(n)} numbers"
        inside = f" in `{self.address}`" if self.address else ""
        return f"`{n.meta['op']}`{inside} gives {what}, and what it was given holds none{_place(n)}"


def _readers(n: fx.Node) -> str:
    """`gla` takes / `gla`, `layers.0` take: the ops and blocks that read a value."""
    found = [f"`{name}`" for name in dict.fromkeys(_names(n))]
    return f"{', '.join(found)} take{'s' * (len(found) == 1)}" if found else "the model takes"


def _names(n: fx.Node) -> Iterator[str]:
    """An op of the spec may be several nodes, of which the last carries its name."""
    for user in n.users:
        if user.op == "call_module":
            yield str(user.target)
        elif "op" in user.meta:
            yield user.meta["op"]
        elif user.target != "size":
            yield from _names(user)


def _place(n: fx.Node) -> str:
    span = n.meta.get("arch", NOWHERE)
    if span.source is NOWHERE.source:
        return ""
    line, column = span.source.position(span.start)
    return f" ({span.source.path}:{line}:{column}: {span.text.splitlines()[0]})"
