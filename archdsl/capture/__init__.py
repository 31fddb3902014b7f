"""Capture: a foreign PyTorch module as a typed graph. `archdsl.capture(module, example)` is this package called.

    torch.export (export.py) ──▶ aten nodes ──▶ our ops (translate.py, by the table in rules/)
                                                  │ each op as it is added: lifting rules (lifting.py), masks (masks.py, formulas.py)
                                                  ▼
                                 flat program (flat.py) ──▶ a graph for each module class (hierarchy.py) ──▶ printed text, elaborated again

Only export.py, translate.py, opaque.py and result.py know torch; the others work on the typed graph alone.
"""
from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.capture.result import Captured


class _Callable(ModuleType):
    """The function has the name of its package."""

    def __call__(self, module: Any, example: Any, dynamic: Any = None, name: str | None = None, stream: str | None = None) -> Captured:
        from archdsl.capture.result import capture

        return capture(module, example, dynamic, name, stream)


sys.modules[__name__].__class__ = _Callable
