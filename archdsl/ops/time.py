"""Ops along the stream: positions that go on, sums so far, earlier positions, the last one."""
from __future__ import annotations

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.registry import op
from archdsl.ops.rules import ints


def _from(position: TensorType, start: TensorType | None = None, n: Size = 1) -> TensorType:
    return TensorType("int", (n,) if start is None else (start.shape[0], n))


@op("index_extend(position: int[], start: int[B]? = none, n: int) -> int[*s]", infer=_from, grad="none",
    samples=lambda: [{"position": ints(9), "n": 5}, {"position": ints(9), "start": ints(5, 3), "n": 4}, {"position": ints(9), "n": 1},
                     {"position": ints(9), "start": ints(5, 1), "n": 1}])
def index_extend(position, start=None, *, n):
    """`index` behind `position` earlier positions: position, position + 1, …; with `start`, counted by row from where it begins."""
    index = position + torch.arange(n, device=position.device)
    return index if start is None else index - start[:, None]
