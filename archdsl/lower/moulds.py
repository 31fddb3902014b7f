"""Modules on the meta device, made again. A search builds thousands of models of the same few blocks, whose weights hold nothing there: what a block
is put together from is looked up once, and each further instance is a new set of containers and empty weights."""
from __future__ import annotations

from typing import Any

import torch
from torch import nn

META = torch.device("meta")
_WEIGHTS = ("_parameters", "_buffers", "_modules")


class Mould:
    """Makes modules like one on the meta device, with all that is below it: the same classes and attributes, weights and containers of their own."""

    __slots__ = ("buffers", "fresh", "kind", "modules", "params", "plain")

    def __init__(self, like: nn.Module) -> None:
        self.kind = type(like)
        held = {name: value for name, value in like.__dict__.items() if name not in _WEIGHTS}
        own = [(name, value) for name, value in held.items() if isinstance(value, (dict, list, set))]
        self.plain = {name: value for name, value in held.items() if name not in dict(own)}
        self.fresh = [(name, value.copy if value else type(value)) for name, value in own]
        self.params = [(name, tuple(p.shape), p.dtype, p.requires_grad) for name, p in like._parameters.items() if p is not None]
        self.buffers = [(name, tuple(b.shape), b.dtype) for name, b in like._buffers.items() if b is not None]
        self.modules = [(name, Mould(child)) for name, child in like._modules.items() if child is not None]

    def __call__(self) -> Any:
        module: Any = object.__new__(self.kind)
        held = module.__dict__
        held.update(self.plain)
        for name, make in self.fresh:
            held[name] = make()
        empty, kind, parameter = torch.empty, nn.Parameter, torch.Tensor._make_subclass  # what nn.Parameter calls for a plain tensor
        held["_parameters"] = {n: parameter(kind, empty(shape, dtype=dtype, device=META), grad) for n, shape, dtype, grad in self.params}
        held["_buffers"] = {n: empty(shape, dtype=dtype, device=META) for n, shape, dtype in self.buffers}
        held["_modules"] = {name: mould() for name, mould in self.modules}
        return module


def holds_nothing(device: torch.device) -> bool:
    """Whether tensors made there now are plain ones of the meta device, not those of a mode that wraps them."""
    return device.type == "meta" and type(torch.empty(0, device=device)) is torch.Tensor
