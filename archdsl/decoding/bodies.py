"""Bodies of ops in a step that writes into the caches that it is given: they give those same tensors as the new state."""
from __future__ import annotations

from typing import Any

import torch

from archdsl.decoding.ops import window_of, write
from archdsl.ops import caches
from archdsl.ops.masks import CAUSAL


def attention_extend(q: Any, k: Any, v: Any, keys: Any, values: Any, position: Any, start: Any = None, bias: Any = None, sink: Any = None, *,
                     mask: Any = CAUSAL, scale: Any = None, cap: Any = None, rolling: bool = False) -> tuple[Any, Any, Any]:
    """As the op. A cache that rolls is the last positions alone, and is made anew."""
    if rolling:
        return caches.attention_extend.body(q, k, v, keys, values, position, start, bias, sink, mask=mask, scale=scale, cap=cap, rolling=True)
    window = window_of(mask)
    if bias is None and window is not None:
        return torch.ops.archdsl.decode_attention.default(q, k, v, keys, values, position, start, sink, scale, cap, window), keys, values
    keys, values = write(keys, k, position), write(values, v, position)
    return caches.attend_kept(q, keys, values, position, start, bias, sink, mask=mask, scale=scale, cap=cap), keys, values


def latent_attention_extend(q: Any, k: Any, keys: Any, position: Any, start: Any = None, bias: Any = None, sink: Any = None, *, mask: Any = CAUSAL,
                            scale: Any = None, cap: Any = None, rolling: bool = False, width: int) -> tuple[Any, Any]:
    """As the op."""
    if rolling:
        return caches.latent_attention_extend.body(q, k, keys, position, start, bias, sink, mask=mask, scale=scale, cap=cap, rolling=True,
                                                   width=width)
    keys = write(keys, k, position)
    return caches.attend_kept(q, keys, keys[..., :width], position, start, bias, sink, mask=mask, scale=scale, cap=cap), keys
