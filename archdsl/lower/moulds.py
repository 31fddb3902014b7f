"""Modules on the meta device, made again. A search builds thousands of models of the same few blocks, whose weights hold nothing there: what a block
is put together from is looked up once, and each further instance is a new set of containers and empty weights."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

META = torch.device("meta")
_WEIGHTS = ("_parameters", "_buffers", "_modules")
_new, _hold = object.__new__, nn.Module.__dict__["__dict__"].__set__  # past nn.Module's __setattr__, which looks for weights
_clone = torch.Tensor.clone  # of a tensor without values: a new tensor with a storage of its own, in half the time of torch.empty


class _Step(NamedTuple):
    """One module: its class, what gives its attributes, its parameters (name, a tensor like it, requires_grad) and buffers, and where it hangs: the
    number of the module above and its name there."""

    kind: type
    held: Callable[[], dict[str, Any]]
    params: tuple[tuple[str, torch.Tensor, bool], ...]
    buffers: tuple[tuple[str, torch.Tensor], ...]
    above: int
    name: str


class Mould:
    """Makes modules like one on the meta device, with all that is below it: the same classes and attributes, weights and containers of their own."""

    __slots__ = ("steps",)

    def __init__(self, like: nn.Module) -> None:
        self.steps: list[_Step] = []
        self._add(like, -1, "")

    def _add(self, like: nn.Module, above: int, name: str) -> None:
        attributes = {n: value for n, value in like.__dict__.items() if n not in _WEIGHTS}
        own = {n: value for n, value in attributes.items() if isinstance(value, (dict, list, set))}
        plain = {n: value for n, value in attributes.items() if n not in own}
        held = _holder(tuple((n, type(value)) for n, value in own.items() if not value))(plain, {n: value for n, value in own.items() if value})
        params = tuple((n, _like(p), p.requires_grad) for n, p in like._parameters.items() if p is not None)
        buffers = tuple((n, _like(b)) for n, b in like._buffers.items() if b is not None)
        number = len(self.steps)
        self.steps.append(_Step(type(like), held, params, buffers, above, name))
        for n, child in like._modules.items():
            if child is not None:
                self._add(child, number, n)

    def __call__(self) -> Any:
        made: list[Any] = []
        inside: list[dict[str, Any]] = []
        for kind, hold, params, buffers, above, name in self.steps:
            module = _new(kind)
            held = hold()
            held["_parameters"] = weights = {}
            for n, like, grad in params:
                weights[n] = weight = _clone(like)
                weight.__class__ = nn.Parameter  # what nn.Parameter gives for a plain tensor is one of this class, and nothing more
                if grad:
                    weight.requires_grad = True
            held["_buffers"] = {n: _clone(like) for n, like in buffers} if buffers else {}
            held["_modules"] = below = {}
            _hold(module, held)
            made.append(module)
            inside.append(below)
            if above >= 0:
                inside[above][name] = module
        return made[0]


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device=META)


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
