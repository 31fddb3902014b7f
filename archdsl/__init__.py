"""archdsl: a declarative language and compiler for neural architectures. Importing it does not import torch."""
from __future__ import annotations

from archdsl.version import VERSION as __version__

TYPE_CHECKING = False  # as of `typing`, which is not loaded here: the command takes Ctrl-C once this module is there
if TYPE_CHECKING:
    from typing import Any

    from archdsl.baking import bake
    from archdsl.capture.result import Captured, capture
    from archdsl.diagnostics.model import ArchError, Diagnostic
    from archdsl.generation import generate, generate_stream
    from archdsl.lower.compile import checkpoint_layers, compile_layers
    from archdsl.lower.nans import debug_nans
    from archdsl.parallel.data import shard_layers
    from archdsl.parallel.plan import parallel_plan
    from archdsl.parallel.tensor import tensor_parallel
    from archdsl.spec import Spec, expression, load, loads
    from archdsl.store import open
    from archdsl.training.fit import fit
    from archdsl.tying import tie
    from archdsl.weights import export_weights, import_weights

_LAZY = {
    "ArchError": "archdsl.diagnostics.model",
    "Diagnostic": "archdsl.diagnostics.model",
    "load": "archdsl.spec",
    "bake": "archdsl.baking",
    "loads": "archdsl.spec",
    "expression": "archdsl.spec",
    "Spec": "archdsl.spec",
    "open": "archdsl.store",
    "import_weights": "archdsl.weights",
    "export_weights": "archdsl.weights",
    "tie": "archdsl.tying",
    "generate": "archdsl.generation",
    "generate_stream": "archdsl.generation",
    "compile_layers": "archdsl.lower.compile",
    "checkpoint_layers": "archdsl.lower.compile",
    "debug_nans": "archdsl.lower.nans",
    "fit": "archdsl.training.fit",
    "parallel_plan": "archdsl.parallel.plan",
    "shard_layers": "archdsl.parallel.data",
    "tensor_parallel": "archdsl.parallel.tensor",
    "Captured": "archdsl.capture.result",
}

__all__ = [
    "ArchError", "Captured", "Diagnostic", "Spec", "__version__", "bake", "capture", "checkpoint_layers", "compile_layers", "debug_nans",
    "export_weights", "expression", "fit", "generate", "generate_stream", "import_weights", "load", "loads", "open",
    "parallel_plan", "shard_layers", "tensor_parallel", "tie",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    if name == "capture":
        from importlib import import_module

        return import_module("archdsl.capture")
    raise AttributeError(f"module 'archdsl' has no attribute {name!r}")
