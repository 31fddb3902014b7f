"""Modules on the meta device, made again. A search builds thousands of models of the same few blocks, whose weights hold nothing there: what a block
is put together from is looked up once, and each further instance is a new set of containers and empty weights."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

META = torch.device("meta")
_WEIGHTS = ("_parameters", "_buffers", "_modules")
_new, _hold = object.__new__, nn.Module.__dict__["__dict__"].__set__  # past nn.Module's __setattr__, which looks for weights
_empty, _weight = torch.empty, torch.Tensor._make_subclass  # what nn.Parameter calls for a plain tensor


class Mould:
    """Makes modules like one on the meta device, with all that is below it: the same classes and attributes, weights and containers of their own."""

    __slots__ = ("buffers", "held", "kind", "modules", "params")

    def __init__(self, like: nn.Module) -> None:
        self.kind = type(like)
        attributes = {name: value for name, value in like.__dict__.items() if name not in _WEIGHTS}
        own = {name: value for name, value in attributes.items() if isinstance(value, (dict, list, set))}
        plain = {name: value for name, value in attributes.items() if name not in own}
        empty = tuple((name, type(value)) for name, value in own.items() if not value)
        self.held = _holder(empty)(plain, {name: value for name, value in own.items() if value})
        self.params = [(name, tuple(p.shape), p.dtype, p.requires_grad) for name, p in like._parameters.items() if p is not None]
        self.buffers = [(name, tuple(b.shape), b.dtype) for name, b in like._buffers.items() if b is not None]
        self.modules = [(name, Mould(child)) for name, child in like._modules.items() if child is not None]

    def __call__(self) -> Any:
        module: Any = _new(self.kind)
        held = self.held()
        held["_parameters"] = params = {}
        for name, shape, dtype, grad in self.params:
            params[name] = _weight(nn.Parameter, _empty(shape, dtype=dtype, device=META), grad)
        held["_buffers"] = {n: _empty(shape, dtype=dtype, device=META) for n, shape, dtype in self.buffers} if self.buffers else {}
        held["_modules"] = modules = {}
        for name, mould in self.modules:
            modules[name] = mould()
        _hold(module, held)
        return module


@cache
def _holder(empty: tuple[tuple[str, type], ...]) -> Callable[[dict[str, Any], dict[str, Any]], Callable[[], dict[str, Any]]]:
    """What makes functions that give the attributes of a new instance, by those that all share and containers that each copies. Written as text, for
    a dozen containers of each module of each candidate are empty, and a display of them takes half the time of a loop."""
    kinds = {kind: f"new{i}" for i, kind in enumerate(dict.fromkeys(kind for _, kind in empty))}
    display = ", ".join(["**plain", *(f"{name!r}: {kinds[kind]}()" for name, kind in empty)])
    text = (f"def holder(plain, full):\n    def bare(): return {{{display}}}\n"
            f"    def filled(): return {{{display}, **{{n: v.copy() for n, v in full.items()}}}}\n    return filled if full else bare\n")
    scope: dict[str, Any] = {name: kind for kind, name in kinds.items()}
    exec(text, scope)
    return scope["holder"]


def holds_nothing(device: torch.device) -> bool:
    """Whether tensors made there now are plain ones of the meta device, not those of a mode that wraps them."""
    return device.type == "meta" and type(torch.empty(0, device=device)) is torch.Tensor
