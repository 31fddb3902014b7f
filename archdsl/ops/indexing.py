"""Reading and writing by position."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import axis_of, floats, ints, need_equal, need_index, need_rank, need_table, order, rank, replaced


def _take(x: TensorType, index: TensorType, axis: int = 0) -> TensorType:
    need_index(index)
    return TensorType(x.dtype, replaced(x.shape, axis_of(axis, len(x.shape)), *index.shape))


@op("take(x: [*s], index: int[*i], axis: int = 0) -> [*t]", infer=_take, saves=("index",),
    samples=lambda: [{"x": floats(7, 3), "index": ints(7, 2, 5)}, {"x": floats(2, 5, 3), "index": ints(5, 4), "axis": 1},
                     {"x": floats(1, 2, 4), "index": ints(4, 1, 2), "axis": -1},
                     {"x": ints(9, 3), "index": ints(3)}])
def take(x, index, *, axis=0):
    """x[…, index, …]: the positions of an axis that `index` names; the axes of `index` replace it."""
    if rank(index) == 1:
        return torch.index_select(x, axis, index)
    return x[(slice(None),) * (axis % rank(x)) + (index,)]


def _put(x: TensorType, index: TensorType, axis: int = 0) -> TensorType:
    need_index(index)
    a = axis_of(axis, len(x.shape))
    if len(index.shape) == 1:
        need_equal(index.shape[0], x.shape[a], f"the length of `index` and axis {axis} of `x`", "index")
    elif len(index.shape) != len(x.shape):
        raise OpError(f"`index` needs one axis or the {len(x.shape)} axes of `x`, and is {index}", "index")
    for i, (s, t) in enumerate(zip(index.shape, x.shape) if len(index.shape) > 1 else ()):
        need_equal(s, t, f"axis {i} of `index` and of `x`", "index")
    return TensorType(x.dtype, x.shape)


@op("put(x: [*s], index: int[*i], axis: int = 0) -> [*s]", infer=_put,
    saves=lambda x, index, axis=0: ("index", "x") if len(index.shape) == 1 else ("index",),
    samples=lambda: [{"x": floats(2, 5, 3), "index": order(5), "axis": 1}, {"x": floats(2, 4), "index": order(2, 4), "axis": -1},
                     {"x": floats(1), "index": order(1)}])
def put(x, index, *, axis=0):
    """y[…, index[i], …] = x[…, i, …]: undoes `take` by a permutation. With the axes of x, `index` holds one permutation for each row."""
    if rank(index) == 1:
        return torch.index_copy(torch.zeros_like(x), axis, index, x)
    return torch.scatter(torch.zeros_like(x), axis, index, x)


def _gather(x: TensorType, index: TensorType, axis: int = -1) -> TensorType:
    need_index(index)
    need_rank(index, (len(x.shape),), "index")
    a = axis_of(axis, len(x.shape))
    for i, (s, t) in enumerate(zip(index.shape, x.shape)):
        if i != a:
            need_equal(s, t, f"axis {i} of `index` and of `x`", "index")
    return TensorType(x.dtype, index.shape)


@op("gather(x: [*s], index: int[*t], axis: int = -1) -> [*t]", infer=_gather, saves=("index", "x"),
    samples=lambda: [{"x": floats(2, 5, 3), "index": ints(5, 2, 4, 3), "axis": 1}, {"x": floats(1, 3), "index": ints(3, 1, 1)}])
def gather(x, index, *, axis=-1):
    """y[…, i, …] = x[…, index[…, i, …], …] along an axis; all other axes go together."""
    return torch.gather(x, axis, index)


def _embedding(indices: TensorType, weight: TensorType) -> TensorType:
    need_index(indices, "indices")
    need_table(weight)
    return TensorType(weight.dtype, (*indices.shape, weight.shape[1]))


@op("embedding(indices: int[...], weight: [n, d]) -> [..., d]", infer=_embedding, saves=("indices",),
    samples=lambda: [{"indices": ints(7, 2, 3), "weight": floats(7, 5)}, {"indices": ints(1, 1), "weight": floats(1, 4)}])
def embedding(indices, weight):
    """weight[indices]: a row for each index."""
    return F.embedding(indices, weight)


@op("one_hot(x: int[...], n: int) -> int[..., n]", grad="none", samples=lambda: [{"x": ints(5, 2, 3), "n": 5}, {"x": ints(1, 1), "n": 1}])
def one_hot(x, *, n):
    """1 at position x and 0 elsewhere, along a new last axis of n."""
    return (x[..., None] == torch.arange(n, device=x.device)).to(torch.int64)


def _count(n: Size, **_: Any) -> TensorType:
    return TensorType("int", (n,))


@op("iota(n: int) -> int[n]", infer=_count, grad="none", samples=lambda: [{"n": 5}, {"n": 1}])
def iota(*, n, device=None):
    """0, 1, …, n - 1. Lowering gives the device."""
    return torch.arange(n, device=device)


@op("index(n: int) -> int[n]", infer=_count, grad="none", samples=lambda: [{"n": 5}, {"n": 1}])
def index(*, n, device=None):
    """The positions on the streaming axis, which has size n here. Lowering gives the device."""
    return torch.arange(n, device=device)


@op("distance(n: int) -> int[n, n]", infer=lambda n: TensorType("int", (n, n)), grad="none", samples=lambda: [{"n": 5}, {"n": 1}])
def distance(*, n, device=None):
    """How far each position (second axis) lies behind each other one (first axis), which has size n here: i - j. Lowering gives the device. Along
    the stream a `bias` of attention may be made of it, entry by entry."""
    i = torch.arange(n, device=device)
    return i[:, None] - i
