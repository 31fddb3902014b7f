"""Attention that goes on from the keys and values of earlier positions."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import Mask, TensorType
from archdsl.lazy import torch
from archdsl.ops.attention import fused, infer_attention, plain
from archdsl.ops.masks import CAUSAL, by_position, fits, kinds, simplified
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import floats, ints, need_count, need_equal, need_position, rank, same_dtype, size, volume


def _infer(q: TensorType, k: TensorType, v: TensorType, keys: TensorType, values: TensorType, position: TensorType, start: TensorType | None = None,
           bias: TensorType | None = None, sink: TensorType | None = None, mask: Mask = CAUSAL, cap: float | None = None,
           rolling: bool = False, late: Any = 0, ahead: Any = 0, end: TensorType | None = None, **_: Any) -> tuple[TensorType, ...]:
    for about, value in (("late", late), ("ahead", ahead)):
        need_count(value, about, 0)
    for kind in sorted(kinds(mask) & {"keys", "equal_labels", "at"}):
        raise OpError(f"what is kept is masked by its position, and `{kind}` goes by a tensor", "mask")
    need_position(position, start, end)
    whole = infer_attention(q, k, v, cap=cap, sink=sink)
    same_dtype(q=q, keys=keys, values=values, bias=bias)
    for name, new, kept in (("keys", k, keys), ("values", v, values)):
        if len(new.shape) != len(kept.shape) or len(new.shape) < 3:
            raise OpError(f"{kept} does not hold earlier positions of {new}", name)
        for i, (a, b) in enumerate(zip(new.shape, kept.shape)):
            if i != len(new.shape) - 2:
                need_equal(a, b, f"axis {i} of what is kept and of what is new", name)
    if start is not None:
        if len(q.shape) < 4:
            raise OpError("`start` is by row, and these operands have no rows", "start")
        need_equal(start.shape[0], q.shape[0], "the rows of `start` and of `q`", "start")
    if bias is not None:
        fits(bias.shape, (*q.shape[:-1], keys.shape[-2] + k.shape[-2] if rolling else keys.shape[-2]), "bias")
    return whole, keys, values


@op("attention_extend(q: [..., h, N, w], k: [..., g, N, w], v: [..., g, N, e], keys: [..., g, P, w], values: [..., g, P, e], position: int[], "
    "start: int[B]? = none, bias: [*b]? = none, mask: mask = causal, scale: float? = none, cap: float? = none, sink: [h]? = none, "
    "end: int[*e]? = none, rolling: bool = false, late: int = 0, ahead: int = 0) "
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
         "position": ints(4), "bias": floats(4, 1, 1)},
        {"q": floats(3, 2, 5, 4), "k": floats(3, 2, 5, 4), "v": floats(3, 2, 5, 4), "keys": floats(3, 2, 4, 4), "values": floats(3, 2, 4, 4),
         "position": ints(9), "mask": Mask("window", (3,)), "rolling": True, "late": 1, "ahead": 2, "end": ints(9)}])
def attention_extend(q, k, v, keys, values, position, start=None, bias=None, sink=None, end=None, *, mask=CAUSAL, scale=None, cap=None,
                     rolling=False, late=0, ahead=0):
    """`attention` of N new positions, behind `position` earlier ones, to themselves and to what is kept. `rolling`: the last P positions are
    kept, the newest last; otherwise all from the first, in P places. Rows begin at `start`; nothing before it is attended to. `late`: so many
    places come before the first position. `ahead`: so many positions of the keys are newer than the last query; none from `end` on is attended to,
    which is 0 while it is not known."""
    pairs, axes = _pairs(q, keys, position, start, mask, rolling, late, ahead, end)
    (every, keys), (each, values) = (_longer(*x, position, rolling) for x in ((k, keys), (v, values)))
    return _attention(q, every, each, bias, sink, pairs, axes, scale, cap), keys, values


def _pairs(q, keys, position, start, mask, rolling, late=0, ahead=0, end=None):
    """Which of what is there each new position attends to, and the number of axes."""
    n, room = size(q, -2), size(keys, -2)
    at = position + torch.arange(n, device=q.device)
    there = position - room + torch.arange(n + room, device=q.device) if rolling else torch.arange(room, device=q.device)
    if late or ahead:
        at, there = at - late - ahead, there - late
    of_row = (slice(None),) + (None,) * (rank(q) - 1)
    here, kept = at[:, None], there[None, :]
    if start is not None and kinds(mask) & {"causal_by", "own_block"}:  # groups of positions are counted from where a row begins
        here, kept = here - start[of_row], kept - start[of_row]
    pairs = by_position(simplified(mask), here, kept)
    if rolling or late:
        pairs = pairs & (there >= 0)
    if end is not None:
        last = end if start is None else end[of_row]
        pairs = pairs & ((last == 0) | (there < last))
    if start is None:
        return pairs, 2
    return pairs & (there >= start[of_row]), rank(q)


def _longer(new, kept, position, rolling):
    """What there is to attend to, and what stays for the next call."""
    n, new = size(new, -2), new.to(kept.dtype)
    if rolling:
        whole = torch.cat([kept, new], -2)
        return whole, whole[..., n:, :].clone()  # not a window into what only this call needs
    kept = torch.index_copy(kept, -2, position + torch.arange(n, device=new.device), new)
    return kept, kept


def kept_after(new, kept, position, rolling):
    """The cache behind new positions."""
    return _longer(new, kept, position, rolling)[1]


def attend_kept(q, keys, values, position, start=None, bias=None, sink=None, *, mask=CAUSAL, scale=None, cap=None):
    """The result of `attention_extend` where the new positions lie in the cache already."""
    return _attention(q, keys, values, bias, sink, *_pairs(q, keys, position, start, mask, False), scale, cap)


def _attention(q, k, v, bias, sink, pairs, axes, scale, cap):
    if cap is not None or sink is not None:
        return plain(q, k, v, bias, sink, pairs, scale, cap)
    return fused(q, k, v, bias, (pairs, axes), scale)


def _infer_latent(q: TensorType, k: TensorType, keys: TensorType, position: TensorType, start: TensorType | None = None,
                  bias: TensorType | None = None, sink: TensorType | None = None, mask: Mask = CAUSAL, cap: float | None = None,
                  rolling: bool = False, width: Size = 1, **more: Any) -> tuple[TensorType, ...]:
    need_count(width, "width")
    if isinstance(width, int) and isinstance(k.shape[-1], int) and width > k.shape[-1]:
        raise OpError(f"values are the first channels of the keys: {width} of {k.shape[-1]}", "width")
    v, values = (TensorType(x.dtype, (*x.shape[:-1], width)) for x in (k, keys))
    return _infer(q, k, v, keys, values, position, start, bias, sink, mask, cap, rolling, **more)[:2]


@op("latent_attention_extend(q: [..., h, N, w], k: [..., g, N, w], keys: [..., g, P, w], position: int[], start: int[B]? = none, "
    "bias: [*b]? = none, mask: mask = causal, scale: float? = none, cap: float? = none, sink: [h]? = none, end: int[*e]? = none, "
    "rolling: bool = false, width: int, late: int = 0, ahead: int = 0) "
    "-> (y: [..., h, N, width], keys: [..., g, P, w])",
    infer=_infer_latent, roles={"w": "contract", "N": "causal", "P": "contract", "h": "grouped"}, saves=None, source="arxiv 2405.04434",
    macs=lambda q, k, keys, width, rolling=False, **_: volume(q.shape[:-1]) * (keys.shape[-2] + (k.shape[-2] if rolling else 0)) * (
        q.shape[-1] + width),
    samples=lambda: [
        {"q": floats(5, 4, 3, 8), "k": floats(5, 1, 3, 8), "keys": floats(5, 1, 9, 8), "position": ints(2), "start": ints(1, 5), "width": 5},
        {"q": floats(2, 2, 1, 4), "k": floats(2, 1, 1, 4), "keys": floats(2, 1, 7, 4), "position": ints(6), "cap": 2.5, "scale": 0.5, "width": 4},
        {"q": floats(3, 2, 5, 4), "k": floats(3, 2, 5, 4), "keys": floats(3, 2, 3, 4), "position": ints(9), "rolling": True, "width": 1,
         "mask": Mask("and", (CAUSAL, Mask("window", (4,)))), "sink": floats(2)}])
def latent_attention_extend(q, k, keys, position, start=None, bias=None, sink=None, end=None, *, mask=CAUSAL, scale=None, cap=None, rolling=False,
                            width, late=0, ahead=0):
    """`attention_extend` whose values are the first `width` channels of the keys, so that these alone are kept."""
    pairs, axes = _pairs(q, keys, position, start, mask, rolling, late, ahead, end)
    every, keys = _longer(k, keys, position, rolling)
    return _attention(q, every, every[..., :width], bias, sink, pairs, axes, scale, cap), keys
