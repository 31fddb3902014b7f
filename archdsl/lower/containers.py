"""Containers of a module that few models use: an instance has them where something is in them, or where they were asked for."""
from __future__ import annotations

from typing import Any

from torch import nn

RARE = ("_non_persistent_buffers_set", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
        "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
"""Containers of nn.Module that an instance has where something is in them."""


class AtFirst:
    """A container of an instance that is made when it is asked for: few models use those that torch.fx gives each module, and those that nn.Module
    has for hooks of state dicts. Hooks that each call looks for are not among them."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            raise AttributeError(f"{owner.__name__} has no `{self.name}`: its instances have")
        return instance.__dict__.setdefault(self.name, self.kind())


def without_rare(module: nn.Module) -> None:
    """Leaves out those that are empty."""
    for name in RARE:
        if not module.__dict__.get(name, True):
            del module.__dict__[name]
