"""The device on which an evaluator works."""
from __future__ import annotations

from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.lazy import torch
from archdsl.source import Source, Span


def torch_device(name: str) -> Any:
    """torch's device of that name. Raises ArchError A0816 for one that is not there, or that computes nothing."""
    try:
        device = torch.device(name)
    except RuntimeError:  # it lists every kind that there is
        raise _absent(f"there is no device `{name}` here", name, "torch knows no such device") from None
    if device.type == "meta":
        raise _absent("the device `meta` computes nothing, so nothing can be measured on it", name)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        why = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        raise _absent(f"there is no device `{name}` here", name, f"torch: {why}") from None
    return device


def _absent(message: str, name: str, *notes: str) -> ArchError:
    return error("A0816", message, Span(Source("device", name), 0, len(name)), notes=notes,
                 help="`cpu` is always there, `cuda` where torch finds a GPU")
