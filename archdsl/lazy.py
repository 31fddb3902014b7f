"""`torch`, `F` and `np`, imported at first use: op bodies stand beside their shape and cost rules, and the front end never loads them."""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class _Lazy:
    def __init__(self, name: str):
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str) -> Any:
        module = importlib.import_module(self.__dict__["_name"])
        self.__dict__.update(vars(module))
        return getattr(module, attribute)


if TYPE_CHECKING:
    import numpy as np  # pyright: ignore[reportUnusedImport]  (imported from here)
    import torch as torch
    import torch.nn.functional as F  # pyright: ignore[reportUnusedImport]  (imported from here)
else:
    torch = _Lazy("torch")
    F = _Lazy("torch.nn.functional")
    np = _Lazy("numpy")
