"""A switch for debugging: calls that stop where the first number is lost."""
from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from archdsl.lower.watching import watched
from archdsl.source import NOWHERE


@contextmanager
def debug_nans(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, each eager call of the model raises ValueError where NaN first appears: it names the input, the weight, the tensor of the state or the
    op with its line in the spec. Slow: every op waits for its numbers. Raises TypeError for a model that holds nothing that archdsl built."""
    with watched(model, _whole):
        yield model


def _whole(address: str, n: fx.Node, args: Any, result: Any) -> Any:
    if "op" in n.meta and isinstance(result, torch.Tensor) and result.is_floating_point():
        lost = int(result.isnan().sum())
        if lost:
            raise ValueError(_told(address, n, f"NaN at {lost} of {result.numel()} places"))
    return result


def _told(address: str, n: fx.Node, what: str) -> str:
    if n.op == "placeholder":
        return f"the input `{n.target}` holds {what}: {_readers(n)} numbers"
    if n.op == "get_attr":
        path = f"{address}.{n.target}" if address else str(n.target)
        return f"the weight `{path}` holds {what}: {_readers(n)} numbers"
    if n.target is operator.getitem and isinstance(n.args[1], str):
        return f"the state `{n.args[1]}` holds {what}: {_readers(n)} numbers"
    inside = f" in `{address}`" if address else ""
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
    return f" ({span.place}: {span.text.splitlines()[0]})"
