"""Torch ops of a decoding step: attention that writes into its cache, linear maps of a few rows with what stands around them.

Each is a kernel where one takes its operands (`archdsl/kernels/decode.py` says which), and plain torch everywhere else.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archdsl.decoding.choice import by_kernel
from archdsl.graph import Mask
from archdsl.ops.caches import attend_kept
from archdsl.ops.experts import dense
from archdsl.ops.masks import CAUSAL, simplified

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x, "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}


# ---------------------------------------------------------------- attention
@torch.library.custom_op("archdsl::decode_attention", mutates_args=("keys", "values"))
def decode_attention(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, start: Tensor | None, sink: Tensor | None,
                     scale: float | None, cap: float | None, window: int, tables: list[Tensor]) -> Tensor:
    """`attention_extend` of one position under `causal`, with `window` > 0 under `causal & window(window)`, that writes k and v into the caches.
    `tables`, none or four: by which q and k are turned first, as by `decode_rotary`, cosines and sines of each."""
    if (found := by_kernel("decode_attention", q, k, v, keys, values, position, start, sink, scale, cap, window, tables)) is not None:
        return found[0]
    if tables:
        q, k = _turned(q, *tables[:2]), _turned(k, *tables[2:])
    mask = Mask("and", (CAUSAL, Mask("window", (window,)))) if window else CAUSAL
    write(keys, k, position)
    write(values, v, position)
    return attend_kept(q, keys, values, position, start, None, sink, mask=mask, scale=scale, cap=cap).contiguous()


@decode_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Tensor:
    return q.new_empty(*q.shape[:-1], values.shape[-1])


def write(kept: Tensor, new: Tensor, position: Tensor) -> Tensor:
    """Puts what is new into its place, and gives what is kept."""
    return kept.index_copy_(-2, position.view(1), new.to(kept.dtype))


def window_of(mask: Mask) -> int | None:
    """The window of a mask that is causal, 0 for none; None for any other mask."""
    mask = simplified(mask)
    if mask == CAUSAL:
        return 0
    parts = {a.kind: a for a in mask.args if isinstance(a, Mask)} if mask.kind == "and" and len(mask.args) == 2 else {}
    reach = parts["window"].args[0] if set(parts) == {"causal", "window"} else None
    return reach if isinstance(reach, int) else None


@torch.library.custom_op("archdsl::decode_rotary", mutates_args=())
def decode_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotary` of one position, [B, heads, 1, w], by tables that fit it, of a wider type perhaps."""
    found = by_kernel("decode_rotary", x, cos, sin)
    return _turned(x, cos, sin) if found is None else found[0]


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    near, far = x.chunk(2, -1)
    return x * cos + torch.cat((-far, near), -1) * sin


@decode_rotary.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


# ---------------------------------------------------------------- linear maps
@torch.library.custom_op("archdsl::decode_linears", mutates_args=())
def decode_linears(x: Tensor, weights: list[Tensor], biases: list[Tensor | None], norm: Tensor | None, eps: float, act: str,
                   residual: Tensor | None) -> Tensor:
    """act(norm(x) Wᵀ + b) + residual, the results of several weights behind each other. `norm`: the weight of an RMSNorm in front."""
    if (found := by_kernel("decode_linears", x, weights, biases, norm, eps, act, residual)) is not None:
        return found[0]
    x = normed(x, norm, eps)
    y = ACTIVATIONS[act](torch.cat([F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)], -1))
    return y if residual is None else y + residual


@decode_linears.register_fake
def _(x: Tensor, weights: list[Tensor], *rest: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], sum(w.shape[0] for w in weights))


@torch.library.custom_op("archdsl::decode_gated", mutates_args=())
def decode_gated(x: Tensor, weights: list[Tensor], biases: list[Tensor | None], norm: Tensor | None, eps: float, act: str) -> Tensor:
    """act(norm(x) W₁ᵀ + b₁) ⊙ (norm(x) W₂ᵀ + b₂)."""
    if (found := by_kernel("decode_gated", x, weights, biases, norm, eps, act)) is not None:
        return found[0]
    x = normed(x, norm, eps)
    gate, up = (F.linear(x, w, b) for w, b in zip(weights, biases, strict=True))
    return ACTIVATIONS[act](gate) * up


@decode_gated.register_fake
def _(x: Tensor, weights: list[Tensor], *rest: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], weights[0].shape[0])


@torch.library.custom_op("archdsl::decode_experts", mutates_args=())
def decode_experts(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`grouped_linear` whose work does not depend on values: the chosen maps gathered where that moves less than all of them, else all maps."""
    if 3 * index.numel() >= weight.shape[0]:  # gathered maps are read, written and read again
        return dense(x, index, weight, bias).contiguous()
    at = index.clamp(min=0)
    y = torch.einsum("...i,...oi->...o", x.expand(*index.shape, x.shape[-1]), weight[at])
    return torch.where((index >= 0)[..., None], y if bias is None else y + bias[at], 0)


@decode_experts.register_fake
def _(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*index.shape, weight.shape[1])


def normed(x: Tensor, norm: Tensor | None, eps: float) -> Tensor:
    """x behind an RMSNorm, or x."""
    return x if norm is None else F.rms_norm(x, (x.shape[-1],), norm, eps)


# ---------------------------------------------------------------- tokens
@torch.library.custom_op("archdsl::decode_take", mutates_args=("tokens", "ended", "history", "count"))
def decode_take(logits: Tensor, tokens: Tensor, ended: Tensor, ends: Tensor, history: Tensor, count: Tensor) -> None:
    """`take` of the likeliest token of logits [B, vocab], the first of several."""
    if by_kernel("decode_take", logits, tokens, ended, ends, history, count) is None:
        take(logits.argmax(-1), tokens, ended, ends, history, count)


def take(new: Tensor, tokens: Tensor, ended: Tensor, ends: Tensor, history: Tensor, count: Tensor) -> None:
    """Notes the next tokens [B]: in `tokens`, and in the places `count` [B] of `history` [B, n]. Rows that have ended go on with `ends[0]`; one ends
    with a token of `ends`."""
    if len(ends):
        new = torch.where(ended, ends[0], new)
        ended.logical_or_((new[:, None] == ends).any(-1))
    tokens.copy_(new)
    history.scatter_(1, count[:, None], new[:, None])
    count.add_(1)
