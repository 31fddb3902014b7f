"""Passes: steps that rewrite a model and say what they keep. docs/passes.md tells how they are used and written."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.passes.contract import Contract, approximate, bits, equal
    from archdsl.passes.edit import Edit, Rewrite
    from archdsl.passes.flat import Flat
    from archdsl.passes.manager import rewrite
    from archdsl.passes.model import Model
    from archdsl.passes.registry import PASSES, Pass, graph_pass
    from archdsl.passes.step import Step, steps

_LAZY = {
    "Contract": "contract", "approximate": "contract", "bits": "contract", "equal": "contract", "Edit": "edit", "Rewrite": "edit", "Flat": "flat",
    "rewrite": "manager", "Model": "model", "PASSES": "registry", "Pass": "registry", "graph_pass": "registry", "Step": "step", "steps": "step",
}

__all__ = ["PASSES", "Contract", "Edit", "Flat", "Model", "Pass", "Rewrite", "Step", "approximate", "bits", "equal", "graph_pass", "rewrite", "steps"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"archdsl.passes.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'archdsl.passes' has no attribute {name!r}")
