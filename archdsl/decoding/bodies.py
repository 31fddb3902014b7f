"""Bodies of ops in decoding, where more is known than the op knows: what the cache holds, and that nothing waits for the device.

`in_place`: one position, written into the caches that are given, which are the new state. `fresh`: several positions and caches that hold none: they
attend to themselves alone."""
from __future__ import annotations

from typing import Any

import torch

from archdsl.decoding.ops import window_of, write
from archdsl.graph import Mask
from archdsl.ops import attention, caches
from archdsl.ops.masks import CAUSAL
from archdsl.ops.rules import rank, size


def not_in_place(mask: Mask, biased: bool, rolling: bool, axes: int) -> str | None:
    """Why attention of a step under this mask, of queries with so many axes, is left to torch's own ops; None where `decode_attention` takes it."""
    if biased:
        return "it takes no bias"
    if window_of(mask) is None:
        return f"it takes the masks `causal` and `causal & window(n)`, and this one is of {_kinds(mask)}"
    return f"of a cache that rolls it takes heads [B, heads, 1, w], and q has {axes} axes" if rolling and axes != 4 else None


def _kinds(mask: Mask) -> str:
    parts = [_kinds(a) for a in mask.args if isinstance(a, Mask)]
    return ", ".join(parts) or f"`{mask.kind}`"


def attention_extend_in_place(q: Any, k: Any, v: Any, keys: Any, values: Any, position: Any, start: Any = None, bias: Any = None, sink: Any = None,
                              *, mask: Any = CAUSAL, scale: Any = None, cap: Any = None, rolling: bool = False,
                              plain: bool = False) -> tuple[Any, Any, Any]:
    """As the op. A cache that rolls is the last positions alone, and is made anew. `plain`: in torch's own ops."""
    left = plain or not_in_place(mask, bias is not None, rolling, rank(q)) is not None
    if rolling and left:
        return caches.attention_extend.body(q, k, v, keys, values, position, start, bias, sink, mask=mask, scale=scale, cap=cap, rolling=True)
    if rolling:  # the new position lies behind those that are kept, and the window reaches all of them
        every, each, room = torch.cat([keys, k.to(keys.dtype)], -2), torch.cat([values, v.to(values.dtype)], -2), size(keys, -2)
        first = torch.clamp(room - position if start is None else torch.maximum(start, torch.zeros_like(start)) - position + room, min=0)
        y = torch.ops.archdsl.decode_attention.default(q, k, v, every, each, torch.zeros_like(position) + room, first.expand(size(q, 0)), sink, scale,
                                                       cap, 0, [])
        return y, every[..., 1:, :], each[..., 1:, :]
    if not left:
        return torch.ops.archdsl.decode_attention.default(q, k, v, keys, values, position, start, sink, scale, cap, window_of(mask), []), keys, values
    keys, values = write(keys, k, position), write(values, v, position)
    return caches.attend_kept(q, keys, values, position, start, bias, sink, mask=mask, scale=scale, cap=cap), keys, values


def latent_attention_extend_in_place(q: Any, k: Any, keys: Any, position: Any, start: Any = None, bias: Any = None, sink: Any = None, *,
                                     mask: Any = CAUSAL, scale: Any = None, cap: Any = None, rolling: bool = False,
                                     width: int) -> tuple[Any, Any]:
    """As the op."""
    if rolling:
        return caches.latent_attention_extend.body(q, k, keys, position, start, bias, sink, mask=mask, scale=scale, cap=cap, rolling=True,
                                                   width=width)
    keys = write(keys, k, position)
    return caches.attend_kept(q, keys, keys[..., :width], position, start, bias, sink, mask=mask, scale=scale, cap=cap), keys


def grouped_linear_in_place(x: Any, index: Any, weight: Any, bias: Any = None) -> Any:
    """As the op, without asking the device how many rows chose a map."""
    return torch.ops.archdsl.decode_experts.default(x, index, weight, bias)


def attention_extend_fresh(q: Any, k: Any, v: Any, keys: Any, values: Any, position: Any, start: Any = None, bias: Any = None, sink: Any = None, *,
                           mask: Any = CAUSAL, scale: Any = None, cap: Any = None, rolling: bool = False) -> tuple[Any, Any, Any]:
    """As the op, whose rows begin at `position`. Masks of absolute positions, and biases, are left to it."""
    if bias is not None or window_of(mask) is None:
        return caches.attention_extend.body(q, k, v, keys, values, position, start, bias, sink, mask=mask, scale=scale, cap=cap, rolling=rolling)
    y = attention.attention.body(q, k, v, None, sink, mask=mask, scale=scale, cap=cap)
    return y, caches.kept_after(k, keys, position, rolling), caches.kept_after(v, values, position, rolling)


def latent_attention_extend_fresh(q: Any, k: Any, keys: Any, position: Any, start: Any = None, bias: Any = None, sink: Any = None, *,
                                  mask: Any = CAUSAL, scale: Any = None, cap: Any = None, rolling: bool = False, width: int) -> tuple[Any, Any]:
    """As the op, whose rows begin at `position`."""
    if bias is not None or window_of(mask) is None:
        return caches.latent_attention_extend.body(q, k, keys, position, start, bias, sink, mask=mask, scale=scale, cap=cap, rolling=rolling,
                                                   width=width)
    y = attention.attention.body(q, k, k[..., :width], None, sink, mask=mask, scale=scale, cap=cap)
    return y, caches.kept_after(k, keys, position, rolling)
