"""Attention with a bias that learns, on a CPU, as Inductor computes it best.

With such a bias torch takes the plain formula, and Inductor computes what the bias is made of, such as a gather by offsets, anew in each of three
passes over the scores, and looks through each row once more for one without any key. Here the bias, or the sum where the bias is as large, is
written to memory once, and the greatest score of a row, which its softmax needs anyway, says whether there is a key."""
from __future__ import annotations

from typing import Any

import torch


class Weights(torch.autograd.Function):
    """softmax(scores + bias) over the last axis, of [..., T, S] and a bias that broadcasts to it; a row of -inf alone gives 0, and its gradients are
    0. Keeps the weights for the backward pass, as torch's softmax does."""

    @staticmethod
    def forward(scores: Any, bias: Any) -> Any:
        scores = scores + _written(bias) if bias.numel() < scores.numel() else _written(scores + bias)
        return torch.where(scores.amax(-1, keepdim=True) == -torch.inf, 0, torch.softmax(scores, -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)
        ctx.shape = inputs[1].shape

    @staticmethod
    def backward(ctx: Any, dy: Any) -> tuple[Any, Any]:  # type: ignore[override]
        (weights,) = ctx.saved_tensors
        dscores = torch.ops.aten._softmax_backward_data(dy, weights, -1, weights.dtype)
        return dscores, dscores.sum_to_size(ctx.shape)


def _written(x: Any) -> Any:
    """x. Inductor gives what `as_strided` reads a place in memory, and computes it for that alone."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


def attend(q: Any, k: Any, v: Any, bias: Any, scale: float | None) -> Any:
    """softmax(scale · q kᵀ + bias) v, of [B, h, T, w], [B, h, S, w], [B, h, S, e] and a bias that broadcasts to [B, h, T, S]."""
    return Weights.apply((q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT, bias) @ v


def exporting() -> bool:
    """Whether torch.export looks on. Within torch.compile `torch.compiler.is_exporting()` is true up to torch 2.11."""
    return torch.compiler._is_exporting_flag


def takes(q: Any, k: Any, v: Any, bias: Any) -> bool:
    """Whether torch would take the plain formula for these operands of its attention, in their own type, and nothing but autograd looks on."""
    return (bias is not None and bias.requires_grad and torch.is_grad_enabled() and q.dtype in (torch.float32, torch.float64)
            and all(x.device.type == "cpu" for x in (q, k, v, bias)) and q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and k.shape[-2] > 0
            and not torch.is_autocast_enabled("cpu") and not torch._C._are_functorch_transforms_active())
