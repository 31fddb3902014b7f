"""A model over the ranks of a data-parallel group, each holding a part of every layer's weights."""
from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.fsdp import fully_shard

from archdsl.lower.compile import Selector, layers


def shard_layers(model: nn.Module, selector: Selector | None = None, **options: Any) -> list[str]:
    """torch's `fully_shard` by block (chosen as in `compile_layers`), then for what is left; returns the addresses of the blocks. A layer's weights
    are gathered when it runs and let go behind it. `options` go to `fully_shard`: `mesh`, `mp_policy`, `reshard_after_forward`, …. Checkpoint
    layers before, compile them behind it."""
    chosen = layers(model, selector)
    for _, block in chosen:
        fully_shard(block, **options)
    fully_shard(model, **options)
    return [address for address, _ in chosen]
