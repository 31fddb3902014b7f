"""What torch says of autocast."""
from __future__ import annotations

import torch


@torch.compiler.assume_constant_result
def autocasts(kind: str) -> bool:
    """Whether there is autocast for a kind of device: of others one cannot ask whether it is on. torch 2.11's compiler of graphs does not know the
    question."""
    return torch.amp.is_autocast_available(kind)
