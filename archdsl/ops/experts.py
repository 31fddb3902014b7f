"""Linear maps of which each row chooses one: experts that are computed for the rows that chose them, and for no others."""
from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.kernels import differentiable, in_turn, once, uncast
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import (
    Sample,
    broadcast,
    equal,
    floats,
    ints,
    need_equal,
    need_index,
    need_rank,
    need_table,
    rank,
    same_dtype,
    same_size,
    size,
    volume,
)

if TYPE_CHECKING:
    from torch import Tensor


def _grouped_linear(x: TensorType, index: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
    dtype = same_dtype(x=x, weight=weight, bias=bias)
    need_index(index)
    need_rank(weight, (3,), "weight")
    if not x.shape:
        raise OpError("a tensor with at least one axis is needed", "x")
    if weight.shape[0] == 0:
        raise OpError(f"there is no map to choose in {weight}", "weight")
    need_equal(x.shape[-1], weight.shape[2], "the last axis of `x` and of `weight`", "weight")
    if bias is not None:
        need_rank(bias, (2,), "bias")
        for axis, what in enumerate(("number", "length")):
            need_equal(bias.shape[axis], weight.shape[axis], f"the {what} of the rows of `bias` and axis {axis} of `weight`", "bias")
    lead = broadcast(x.shape[:-1], index.shape, about="index")
    if len(lead) != len(index.shape) or any(equal(a, b) is not True for a, b in zip(lead, index.shape)):
        raise OpError(f"`index` names one map for each row, but {index} has fewer of them than {x}", "index")
    return TensorType(dtype, (*index.shape, weight.shape[1]))


def _chosen(*shape: int) -> Sample:
    """Indices of three maps, or -1."""
    return Sample("int", shape, -1, 3)


def grouped_linear_plain(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight[index] x + bias[index] for each row of x; zeros where the index is negative."""
    rows = x.expand(*index.shape, x.shape[-1])
    y = x.new_zeros(*index.shape, weight.shape[1])
    for e in range(weight.shape[0]):
        at = (index == e).nonzero(as_tuple=True)
        y = y.index_put(at, F.linear(rows[at], weight[e], None if bias is None else bias[e]).to(y.dtype))
    return y


def _reference(x, index, weight, bias=None):
    """Every row by a matrix of its own."""
    at = index.clamp(min=0)
    y = (weight[at] @ x.expand(*index.shape, x.shape[-1])[..., None])[..., 0]
    return torch.where((index >= 0)[..., None], y if bias is None else y + bias[at], 0)


@op("grouped_linear(x: [*s, i], index: int[*t], weight: [n, o, i], bias: [n, o]? = none) -> [*t, o]", infer=_grouped_linear, own=("x", "index"),
    roles={"i": "contract"}, macs=lambda x, index, weight, bias=None: volume(index.shape) * weight.shape[1] * weight.shape[2],
    saves=("x", "index", "weight", "bias"), reference=_reference, plain=grouped_linear_plain, source="dropless experts: arxiv 2211.15841",
    samples=lambda: [{"x": floats(2, 7, 1, 5), "index": ints(3, 2, 7, 2), "weight": floats(3, 4, 5), "bias": floats(3, 4)},
                     {"x": floats(6, 5), "index": _chosen(6), "weight": floats(3, 4, 5)},
                     {"x": floats(1, 1), "index": ints(1, 1), "weight": floats(1, 1, 1)}])
def grouped_linear(x, index, weight, bias=None):
    """y = W[e] x + b[e] over the last axis, for each row with the index e; axes of size 1 of x stretch to those of `index`. A row with a negative
    index is zeros and costs nothing (`macs` counts all rows)."""
    return _registered()(x, index, weight, bias)


# ---------------------------------------------------------------- the torch op
def _groups(index: Any, maps: int) -> Iterator[tuple[int, Any]]:
    """(map, the places of its rows in the flattened index) for each map that some row chose."""
    flat = index.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat.clamp(min=-1) + 1, minlength=maps + 1).tolist()
    if len(counts) > maps + 1:
        raise ValueError(f"grouped_linear: an index lies beyond the {maps} maps")
    for e, places in enumerate(order.split(counts), -1):
        if e >= 0 and places.numel():
            yield e, places


def _rows(x: Any, index: Any) -> tuple[Any, Any]:
    """The rows of x as a matrix, and for each place of the flattened index its row."""
    lead = x.shape[:-1]
    count = 1
    for n in lead:
        count *= n
    source = torch.arange(count, device=x.device).view(lead).expand(index.shape).reshape(-1)
    return x.reshape(count, x.shape[-1]), source


def _forward(x: Any, index: Any, weight: Any, bias: Any = None) -> Any:
    rows, source = _rows(x, index)
    y = x.new_zeros(source.numel(), weight.shape[1])
    for e, places in _groups(index, weight.shape[0]):
        y[places] = F.linear(rows[source[places]], weight[e], None if bias is None else bias[e])
    return y.view(*index.shape, weight.shape[1])


def _backward(grad: Any, x: Any, index: Any, weight: Any, biased: bool) -> list[Any]:
    """In the type of the result, which transforms of `torch.func` see as autocast made it, and the operands as they were given."""
    rows, source = _rows(x.to(grad.dtype), index)
    low = weight.to(grad.dtype)
    flat = grad.reshape(source.numel(), grad.shape[-1])
    dx, dweight = rows.new_zeros(rows.shape), low.new_zeros(low.shape)
    dbias = grad.new_zeros(weight.shape[:2] if biased else (0,))
    for e, places in _groups(index, weight.shape[0]):
        g, at = flat[places], source[places]
        dx.index_add_(0, at, g @ low[e])
        dweight[e] = g.mT @ rows[at]
        if biased:
            dbias[e] = g.sum(0)
    return [dx.view(x.shape).to(x.dtype), dweight.to(weight.dtype), dbias.to(weight.dtype)]


def dense(x: Any, index: Any, weight: Any, bias: Any = None) -> Any:
    """All maps of all rows, then the chosen one: for exported programs, whose sizes may not depend on values."""
    y = torch.einsum("...i,noi->...no", x, weight)
    y = y if bias is None else y + bias
    at = index.clamp(min=0)[..., None, None]
    picked = torch.gather(y.expand(*index.shape, *y.shape[-2:]), -2, at.expand(*index.shape, 1, y.shape[-1])).squeeze(-2)
    return torch.where((index >= 0)[..., None], picked, 0)


@cache
def _registered() -> Any:
    """The torch op, made when it is first called. Exporters that know nothing of it take the dense form."""
    import torch as t
    from torch._decomp import register_decomposition

    forward = t.library.custom_op("archdsl::grouped_linear", _forward, mutates_args=(),
                                  schema="(Tensor x, Tensor index, Tensor weight, Tensor? bias) -> Tensor")
    forward.register_fake(lambda x, index, weight, bias: x.new_empty(*index.shape, weight.shape[1]))
    backward = t.library.custom_op("archdsl::grouped_linear_backward", uncast(_backward), mutates_args=(),
                                   schema="(Tensor grad, Tensor x, Tensor index, Tensor weight, bool biased) -> Tensor[]")
    backward.register_fake(lambda grad, x, index, weight, biased: [
        x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:2] if biased else (0,))])

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def pull(ctx: Any, grad: Any) -> tuple[Any, ...]:
        x, index, weight, bias = ctx.saved_tensors
        with t.no_grad():
            dx, dweight, dbias = backward(grad, x, index, weight, bias is not None)
        dx, dweight, dbias = once("grouped_linear", [grad, x, weight, bias], [dx, dweight, dbias])
        return dx, None, dweight, dbias if bias is not None else None

    differentiable(forward, t.ops.archdsl.grouped_linear.default, pull, setup)
    for kind in ("cpu", "cuda"):
        _under_autocast(forward, t.ops.archdsl.grouped_linear.default, kind)
    in_turn(backward)
    register_decomposition(t.ops.archdsl.grouped_linear.default)(dense)
    return t.ops.archdsl.grouped_linear


def _under_autocast(defined: Any, op: Any, kind: str) -> None:
    """Has autocast give the op its floats in the type that is asked for, as it does to a linear map."""
    import torch as t

    key = getattr(t._C.DispatchKey, f"Autocast{kind.upper()}")

    def cast(*args: Any) -> Any:
        low = t.get_autocast_dtype(kind)
        with t._C._ExcludeDispatchKeyGuard(t._C.DispatchKeySet(key)):
            return op(*(a.to(low) if isinstance(a, t.Tensor) and a.dtype in (t.float32, t.float16, t.bfloat16) else a for a in args))

    defined._lib.impl(op._opname, cast, key.name)


# ---------------------------------------------------------------- rows of tables
def _embedding_bag(index: TensorType, weight: TensorType, scale: TensorType) -> TensorType:
    dtype = same_dtype(weight=weight, scale=scale)
    need_index(index)
    need_table(weight)
    if not index.shape or len(index.shape) != len(scale.shape):
        raise OpError(f"one number for each index is needed, and `scale` is {scale} for {index}", "scale")
    for i, (a, b) in enumerate(zip(index.shape, scale.shape)):
        need_equal(a, b, f"axis {i} of `index` and of `scale`", "scale")
    return TensorType(dtype, (*index.shape[:-1], weight.shape[1]))


def _bag_saves(index: TensorType, weight: TensorType, scale: TensorType, needs: Any = ("scale",)) -> tuple[str | TensorType, ...]:
    """Beside the operands, torch keeps where each sum begins, how long it is and where its largest are; in float64 also the sum of each index."""
    each = TensorType("int", (volume(index.shape[:-1]),))
    more = (each, each, each, TensorType("int", (volume(index.shape) + 1 if weight.dtype == "f64" else 0,)))
    return ("index", "scale", *(("weight",) if "scale" in needs else ()), *more)


def _weighed(index, weight, scale):
    """All rows side by side."""
    return (scale[..., None, :] @ weight[index])[..., 0, :]


@op("embedding_bag(index: int[..., k], weight: [n, d], scale: [..., k]) -> [..., d]", infer=_embedding_bag, roles={"k": "contract"},
    macs=lambda index, weight, scale: volume(index.shape) * weight.shape[1], saves=_bag_saves,
    reference=_weighed,
    samples=lambda: [{"index": ints(7, 2, 3, 4), "weight": floats(7, 5), "scale": floats(2, 3, 4)},
                     {"index": ints(1, 1), "weight": floats(1, 1), "scale": floats(1)}])
def embedding_bag(index, weight, scale):
    """Σₖ scale[…, k] weight[index[…, k]]: a weighted sum of rows of a table."""
    k = size(index, -1)
    if same_size(k, 0):
        return _weighed(index, weight, scale)  # torch has no bag of no rows
    y = F.embedding_bag(index.reshape(-1, k), weight, mode="sum", per_sample_weights=scale.reshape(-1, k))
    return y.view(*(size(index, i) for i in range(rank(index) - 1)), size(weight, 1))
