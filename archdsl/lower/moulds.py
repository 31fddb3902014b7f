"""Modules on the meta device, made again. A search builds thousands of models of the same few blocks, whose weights hold nothing there: what a block
is put together from is looked up once, and each further instance is a new set of containers and empty weights."""
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

META = torch.device("meta")
INLINE = 64
"""Statements of one function; blocks that would come behind so many have functions of their own."""
_WEIGHTS = ("_parameters", "_buffers", "_modules")
_TOOLS: dict[str, Any] = {
    "new": object.__new__, "hold": nn.Module.__dict__["__dict__"].__set__,  # past nn.Module's __setattr__, which looks for weights
    "clone": torch.Tensor.clone,  # of a tensor without values: a new one with a storage of its own, in half the time of torch.empty
    "Parameter": nn.Parameter}


class Mould:
    """Makes modules like one on the meta device, with all that is below it: the same classes and attributes, weights and containers of their own.
    What does it is written as text when it is asked for first: a dozen containers and a weight for each module of each candidate."""

    __slots__ = ("make", "values", "written")

    def __init__(self, like: nn.Module) -> None:
        self.values: list[Any] = []  # what the text calls v0, v1, …
        self.written: list[str] = []
        last = self._write(like)
        self.written.append(f"return {last}")
        self.make: Callable[[], Any] | None = None

    def __call__(self) -> Any:
        make = self.make
        if make is None:
            written = self.written  # before `make` is looked at once more: another thread sets them the other way round
            make = self.make or _maker(len(self.values), "\n  ".join(written))(*self.values)
            self.make, self.written = make, []
        return make()

    def _write(self, like: nn.Module) -> str:
        """Writes how a module is made, those below it first; its name in the text."""
        inside = [f"{n!r}: {self._below(child)}" for n, child in like._modules.items() if child is not None]
        attributes = {n: value for n, value in like.__dict__.items() if n not in _WEIGHTS}
        own = {n: value for n, value in attributes.items() if isinstance(value, (dict, list, set))}
        held = [f"**{self._value({n: value for n, value in attributes.items() if n not in own})}"]
        kinds = {kind: self._value(kind) for kind in dict.fromkeys(type(value) for value in own.values() if not value)}
        held += [f"{n!r}: {self._value(value)}.copy()" if value else f"{n!r}: {kinds[type(value)]}()" for n, value in own.items()]
        weights = [f"{n!r}: {self._weight(p)}" for n, p in like._parameters.items() if p is not None]
        buffers = [f"{n!r}: clone({self._value(_like(b))})" for n, b in like._buffers.items() if b is not None]
        for n, parts in zip(_WEIGHTS, (weights, buffers, inside)):
            held.append(f"{n!r}: {{{', '.join(parts)}}}")
        name = f"m{len(self.written)}"
        self.written.append(f"{name} = new({self._value(type(like))}); hold({name}, {{{', '.join(held)}}})")
        return name

    def _below(self, child: nn.Module) -> str:
        if len(self.written) < INLINE or not child._modules:
            return self._write(child)
        return f"{self._value(Mould(child))}()"

    def _weight(self, like: nn.Parameter) -> str:
        """What nn.Parameter gives for a plain tensor is one of this class, and nothing more."""
        name = f"p{len(self.written)}"
        self.written.append(f"{name} = clone({self._value(_like(like))}); {name}.__class__ = Parameter")
        if like.requires_grad:
            self.written.append(f"{name}.requires_grad = True")
        return name

    def _value(self, value: Any) -> str:
        self.values.append(value)
        return f"v{len(self.values) - 1}"


@lru_cache(256)
def _maker(values: int, text: str) -> Callable[..., Callable[[], Any]]:
    """What makes a function of such values: blocks that differ in sizes alone have one text."""
    scope = dict(_TOOLS)
    exec(f"def maker({', '.join(f'v{i}' for i in range(values))}):\n def make():\n  {text}\n return make\n", scope)
    return scope["maker"]


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device=META)


def holds_nothing(device: torch.device) -> bool:
    """Whether tensors made there now are plain ones of the meta device, not those of a mode that wraps them."""
    return device.type == "meta" and type(torch.empty(0, device=device)) is torch.Tensor
