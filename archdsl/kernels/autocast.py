"""What torch says of autocast."""
from __future__ import annotations

from archdsl.lazy import torch


def autocasts(kind: str) -> bool:
    """Whether there is autocast for a kind of device: of others one cannot ask whether it is on. torch 2.11's compiler of graphs does not know the
    question."""
    return torch.amp.is_autocast_available(kind)


autocasts._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  (as torch.compiler.assume_constant_result does)
