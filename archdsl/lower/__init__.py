"""Lowering: typed graph -> torch.fx.GraphModule, one class for each block, one instance for each owner of weights. Loads torch at first use."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.lower.build import lower
    from archdsl.lower.compile import checkpoint_layers, compile_layers
    from archdsl.lower.module import ArchModule

_LAZY = {"lower": "archdsl.lower.build", "ArchModule": "archdsl.lower.module", "checkpoint_layers": "archdsl.lower.compile",
         "compile_layers": "archdsl.lower.compile"}

__all__ = ["ArchModule", "checkpoint_layers", "compile_layers", "lower"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'archdsl.lower' has no attribute {name!r}")
