"""The torch op behind `linear_cross_entropy`: scores, loss and gradients of a chunk of rows at a time.

`archdsl::linear_cross_entropy` asks autograd which gradients will be wanted and calls `archdsl::linear_cross_entropy_kept`, which compiled graphs
do not look into. Each chunk's scores are a product of matrices, turned in place into the gradient of the loss by them (by a kernel, where there is
one), which two more products send on to x and to the weight. Float16 might not hold the mean's 1/n: its gradients are kept without it, sums over
rows in float32. Under autocast the operands are cast in front of the op, and nothing is cast inside."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.running import bound, run
from archdsl.ops.kernels import differentiable

ROOM = 2**28
"""Bytes of the scores of one chunk."""
ROWS = 128
"""Chunks are a multiple of so many rows, and no smaller."""


def rows_of_chunk(classes: int, itemsize: int) -> int:
    """How many rows are computed at a time."""
    return max(ROWS, ROOM // max(1, classes * itemsize) // ROWS * ROWS)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _summed(dtype: torch.dtype) -> torch.dtype:
    """In which gradients of weights of a type are kept: without the mean's 1/n, sums over rows may leave float16."""
    return _wide(dtype) if dtype == torch.float16 else dtype


def _kept(x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, scale: float, cap: float | None, ignore: int,
          needs: list[bool], chosen: str | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean loss, in float32 at least; its gradients by x, weight and bias, as far as they are needed (empty otherwise), but for the factor that
    comes before them; those of weight and bias in float32 for float16."""
    with torch.autocast(x.device.type, enabled=False):
        return _chunked(x, weight, targets, bias, scale, cap, ignore, needs, chosen)


def _chunked(x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, scale: float, cap: float | None, ignore: int,
             needs: list[bool], chosen: str | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    flat = targets.reshape(-1)
    rows = x.reshape(flat.shape[0], x.shape[-1])
    to_x, to_weight, to_bias = needs
    wide = _wide(x.dtype)
    total = x.new_zeros((), dtype=wide)
    count = (flat != ignore).sum().to(wide)
    share = torch.where(count > 0, 1 / count, 0)  # where no target counts, no gradient comes back
    one = torch.ones_like(share)
    now, later = (one, share) if x.dtype == torch.float16 else (share, one)
    dx = torch.empty_like(rows, memory_format=torch.contiguous_format) if to_x else x.new_empty(0)
    dweight = weight.new_zeros(weight.shape, dtype=wide) if to_weight else x.new_empty(0)
    dbias = weight.new_zeros(weight.shape[0], dtype=wide) if to_bias else x.new_empty(0)
    found = bound("linear_cross_entropy", ("x", "weight", "targets", "bias"), (x, weight, targets, bias), {}, chosen)
    size = rows_of_chunk(weight.shape[0], x.element_size())
    for at in range(0, rows.shape[0], size):
        part = rows[at:at + size]
        scores = torch.nn.functional.linear(part, weight, bias)
        asked = {"scale": scale, "cap": cap, "ignore": ignore, "factor": now if any(needs) else None}
        total += run(loss_in_place if found is None else found.forward, (scores, flat[at:at + size]), asked).sum()
        if to_x:
            torch.mm(scores, weight, out=dx[at:at + size])
        if to_weight:
            _add_product(dweight, scores, part)
        if to_bias:
            dbias += scores.sum(0, dtype=wide)
    summed = _summed(weight.dtype)
    return total / count, later, dx.view(x.shape) if to_x else dx, dweight.to(summed), dbias.to(summed)


def loss_in_place(scores: Tensor, targets: Tensor, scale: float, cap: float | None, ignore: int, factor: Tensor | None) -> Tensor:
    """The losses of scores [n, v] times `scale`, bounded to ±cap, for targets [n]: [n] in float32 at least, 0 for a target of `ignore`. With a
    `factor` (of no axes, in the type of the losses), `scores` then hold the gradient of their sum times that. A target that is no class: an error on
    a CPU, a loss that is NaN from a kernel."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    z = scores.to(wide) * scale
    bounded = z if cap is None else torch.tanh(z / cap)
    z = z if cap is None else cap * bounded
    counted = targets != ignore
    at = torch.where(counted, targets, 0)[:, None]
    total = z.logsumexp(-1, keepdim=True)
    losses = (total - z.gather(1, at))[:, 0].masked_fill(~counted, 0)
    if factor is not None:
        slope = torch.exp(z - total).scatter_add_(1, at, z.new_full(at.shape, -1))
        slope = slope if cap is None else slope * (1 - bounded.square())
        scores.copy_((slope * (scale * factor)).masked_fill_(~counted[:, None], 0))
    return losses


def _add_product(total: Tensor, scores: Tensor, part: Tensor) -> None:
    """total += scoresᵀ part, added up in the type of `total`."""
    if total.dtype == part.dtype:
        total.addmm_(scores.mT, part)
    elif part.is_cuda:  # cuBLAS hands out its float32 sums as they are
        total += torch.mm(scores.mT, part, out_dtype=total.dtype)
    else:
        total += scores.mT.to(total.dtype) @ part.to(total.dtype)


_op = torch.library.custom_op(
    "archdsl::linear_cross_entropy_kept", _kept, mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor targets, Tensor? bias, float scale, float? cap, int ignore, bool[] needs, str? chosen) -> "
           "(Tensor, Tensor, Tensor, Tensor, Tensor)")


@_op.register_fake
def _(x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, scale: float, cap: float | None, ignore: int, needs: list[bool],
      chosen: str | None) -> Any:
    numbers = (x.new_empty((), dtype=_wide(x.dtype)) for _ in range(2))
    summed = _summed(weight.dtype)
    made = ((x.shape, x.dtype), (weight.shape, summed), (weight.shape[:1], summed))
    return *numbers, *(weight.new_empty(s if n else (0,), dtype=dtype) for (s, dtype), n in zip(made, needs))


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[1], *(g if n else None for g, n in zip(output[2:], inputs[-2])))


def _pull(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
    if any(g is not None for g in others):
        raise RuntimeError("linear_cross_entropy: the gradients are computed with the loss, and have no derivative of their own; a model that gives "
                           "its scores, built without `loss`, has second derivatives")
    later, *kept = ctx.saved_tensors
    factor = None if grad is None else grad * later
    dx, dweight, dbias = (None if g is None or factor is None else (g * factor).to(ctx.dtype) for g in kept)
    return dx, dweight, None, dbias, None, None, None, None, None


differentiable(_op, torch.ops.archdsl.linear_cross_entropy_kept.default, _pull, _setup)


def _mean(x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, scale: float, cap: float | None, ignore: int,
          chosen: str | None = None) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        low = torch.get_autocast_dtype(x.device.type)
        x, weight = (t if t.dtype == torch.float64 else t.to(low) for t in (x, weight))
        bias = None if bias is None else bias.to(x.dtype)
    needs = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in (x, weight, bias)]
    return torch.ops.archdsl.linear_cross_entropy_kept(x, weight, targets, bias, scale, cap, ignore, needs, chosen)[0]


_library = torch.library.Library("archdsl", "FRAGMENT")
_library.define("linear_cross_entropy(Tensor x, Tensor weight, Tensor targets, Tensor? bias, float scale, float? cap, int ignore, "
                "str? chosen=None) -> Tensor")
_library.impl("linear_cross_entropy", _mean, "CompositeImplicitAutograd")
_library.impl("linear_cross_entropy", _mean, "FuncTorchDynamicLayerFrontMode")  # laid open before `torch.func` transforms it
