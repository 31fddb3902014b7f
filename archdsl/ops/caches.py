"""Attention that goes on from the keys and values of earlier positions."""
from __future__ import annotations

from typing import Any

from archdsl.graph import Mask, TensorType
from archdsl.lazy import torch
from archdsl.ops.attention import CAUSAL, by_position, fused, infer_attention, plain, simplified
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import floats, ints, need_equal, rank, size, volume


def _infer(q: TensorType, k: TensorType, v: TensorType, keys: TensorType, values: TensorType, position: TensorType, start: TensorType | None = None,
           bias: TensorType | None = None, sink: TensorType | None = None, rolling: bool = False, **_: Any) -> tuple[TensorType, ...]:
    whole = infer_attention(q, k, v, sink=sink)
    for name, new, kept in (("keys", k, keys), ("values", v, values)):
        if len(new.shape) != len(kept.shape) or len(new.shape) < 3:
            raise OpError(f"{kept} does not hold earlier positions of {new}", name)
        for i, (a, b) in enumerate(zip(new.shape, kept.shape)):
            if i != len(new.shape) - 2:
                need_equal(a, b, f"axis {i} of what is kept and of what is new", name)
    if start is not None and len(q.shape) < 4:
        raise OpError("`start` is by row, and these operands have no rows", "start")
    return whole, keys, values


@op("attention_extend(q: [..., h, N, w], k: [..., g, N, w], v: [..., g, N, e], keys: [..., g, P, w], values: [..., g, P, e], position: int[], "
    "start: int[B]? = none, bias: [*b]? = none, mask: mask = causal, scale: float? = none, cap: float? = none, sink: [h]? = none, "
    "rolling: bool = false) "
    "-> (y: [..., h, N, e], keys: [..., g, P, w], values: [..., g, P, e])",
    infer=_infer, roles={"w": "contract", "N": "causal", "P": "contract", "h": "grouped"}, saves=None,
    macs=lambda q, k, v, keys, rolling=False, **_: volume(q.shape[:-1]) * (keys.shape[-2] + (k.shape[-2] if rolling else 0)) * (
        q.shape[-1] + v.shape[-1]),
    samples=lambda: [
        {"q": floats(5, 4, 3, 8), "k": floats(5, 2, 3, 8), "v": floats(5, 2, 3, 7), "keys": floats(5, 2, 9, 8), "values": floats(5, 2, 9, 7),
         "position": ints(2), "start": ints(1, 5)},
        {"q": floats(2, 1, 1, 4), "k": floats(2, 1, 1, 4), "v": floats(2, 1, 1, 4), "keys": floats(2, 1, 7, 4), "values": floats(2, 1, 7, 4),
         "position": ints(6), "cap": 2.5, "scale": 0.5},
        {"q": floats(3, 2, 5, 4), "k": floats(3, 2, 5, 4), "v": floats(3, 2, 5, 4), "keys": floats(3, 2, 3, 4), "values": floats(3, 2, 3, 4),
         "position": ints(9), "mask": Mask("and", (CAUSAL, Mask("window", (4,)))), "rolling": True, "sink": floats(2)},
        {"q": floats(2, 4, 1, 4), "k": floats(2, 4, 1, 4), "v": floats(2, 4, 1, 4), "keys": floats(2, 4, 5, 4), "values": floats(2, 4, 5, 4),
         "position": ints(4), "bias": floats(4, 1, 1)}])
def attention_extend(q, k, v, keys, values, position, start=None, bias=None, sink=None, *, mask=CAUSAL, scale=None, cap=None, rolling=False):
    """`attention` of N new positions, behind `position` earlier ones, to themselves and to what is kept. `rolling`: the last P positions are
    kept, the newest last; otherwise all from the first, in P places. Rows begin at `start`; nothing before it is attended to."""
    n, room, mask = size(k, -2), size(keys, -2), simplified(mask)
    at = position + torch.arange(n, device=q.device)
    if rolling:
        everything = torch.cat([keys, k.to(keys.dtype)], -2), torch.cat([values, v.to(values.dtype)], -2)
        there = position - room + torch.arange(size(everything[0], -2), device=q.device)
        keys, values = (x[..., n:, :].clone() for x in everything)  # not a window into what only this call needs
    else:
        keys, values = torch.index_copy(keys, -2, at, k.to(keys.dtype)), torch.index_copy(values, -2, at, v.to(values.dtype))
        everything, there = (keys, values), torch.arange(room, device=q.device)
    pairs = by_position(mask, at[:, None], there[None, :])
    if rolling:
        pairs = pairs & (there >= 0)
    axes = 2
    if start is not None:
        axes = rank(q)
        pairs = pairs & (there >= start[(slice(None),) + (None,) * (axes - 1)])
    if cap is not None or sink is not None:
        return plain(q, *everything, bias, sink, pairs, scale, cap), keys, values
    return fused(q, *everything, bias, (pairs, axes), scale), keys, values
