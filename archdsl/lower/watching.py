"""Seeing what a model computes, node by node, while it is called."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx, nn

from archdsl.lower.module import ArchModule, blocks

See = Callable[[str, fx.Node, tuple[Any, ...], Any], Any]
"""(address of the block, node, operands, result) -> the result that is used. `node.meta["op"]` is there on the last node of each op of the spec."""


@contextmanager
def watched(model: nn.Module, see: See) -> Iterator[nn.Module]:
    """Inside, each node that an eager call of the model runs is shown to `see`. Slower than a call by some microseconds a node. Raises TypeError for
    a model that holds nothing that archdsl built."""
    found = list(blocks(model))
    if not found:
        raise TypeError(f"{type(model).__name__} holds nothing that archdsl has built")
    for address, block in found:
        block.__dict__["forward"] = _Forward(block, address, see)
    try:
        yield model
    finally:
        for _, block in found:
            block.__dict__.pop("forward", None)


class _Forward:
    """The `forward` of a block, node by node."""

    def __init__(self, block: ArchModule, address: str, see: See):
        self.block, self.address, self.see = block, address, see

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(type(self.block).forward).bind(self.block, *args, **kwargs)
        given.apply_defaults()
        return _Run(self.block, self.address, self.see).run(*given.args[1:])


class _Run(fx.Interpreter):
    def __init__(self, block: ArchModule, address: str, see: See):
        super().__init__(block, graph=block.graph if block.detached else type(block)._graph)
        self.address, self.see, self.extra_traceback = address, see, False

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return self.see(self.address, n, args, getattr(self, n.op)(n.target, args, kwargs))
