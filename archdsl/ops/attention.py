"""Softmax attention: whole, and in two steps; how it goes on from earlier positions."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size, sym
from archdsl.graph import Mask, TensorType
from archdsl.lazy import F, torch
from archdsl.ops.masks import CAUSAL, FULL, NEVER, allowed, check_mask, fits, kinds, mask_shape, reach, simplified
from archdsl.ops.registry import LENGTH, Extension, OpError, op
from archdsl.ops.rules import bools, broadcast, chosen, floats, ints, need_equal, need_rank, rank, same_dtype, same_size, size, volume, wider


# ---------------------------------------------------------------- along the stream
def along_stream(time: dict[str, tuple[int, ...]], q: TensorType, k: TensorType, v: TensorType, bias: TensorType | None = None, mask: Mask = FULL,
                 **_: Any) -> Extension | None:
    """Attention to earlier positions keeps their keys and values: all, or the last ones that a query can see."""
    paired = time.get("bias") == (-2, -1)  # a table of pairs of positions, of which there is one for all places
    here = {n: a for n, a in time.items() if a and not (paired and n == "bias")}
    if "bias" in here and "k" in here:
        raise OpError("its bias is by position, not by pairs of positions", "bias", help="`distance(T)` is how far positions lie behind each other")
    if any(a not in ((-2,), ()) for a in here.values()):
        if all(all(x < -3 for x in a) for a in here.values()):
            return None
        raise OpError("it mixes the heads or the widths of different positions")
    if here.get("k") is None and here.get("v") is None:
        return None  # keys and values are the same for all positions
    if set(here) != {"q", "k", "v"}:
        raise OpError("queries, keys and values do not move along the stream together")
    if any(True for _ in mask.tensors()):
        raise OpError("its mask is made of a tensor: one that comes with the inputs is not kept from call to call", "mask")
    ahead, back = reach(simplified(mask))
    if ahead == NEVER or ahead and paired:
        raise OpError("a position attends to later ones", "mask", help="`mask = causal` lets it attend to earlier ones alone")
    rolling = back != NEVER and not paired
    room: Size = max(1, int(back) - 1 + int(ahead)) if rolling else sym(LENGTH)
    keys, values = (TensorType(x.dtype, (*x.shape[:-2], room, x.shape[-1])) for x in (k, v))
    alone = Extension("latent_attention_extend", {"keys": keys}, {"rolling": rolling, "width": v.shape[-1]}, idle={}, ahead=int(ahead))
    return Extension("attention_extend", {"keys": keys, "values": values}, {"rolling": rolling}, within=("v", "k", alone), idle={},
                     ahead=int(ahead))


# ---------------------------------------------------------------- types
def infer_attention(q: TensorType, k: TensorType, v: TensorType, bias: TensorType | None = None, mask: Mask = FULL,
               scale: float | None = None, cap: float | None = None, sink: TensorType | None = None) -> TensorType:
    if cap is not None and cap <= 0:
        raise OpError(f"scores stay within ±cap, so cap must be above 0, and this is {cap}", "cap")
    dtype = same_dtype(q=q, k=k, v=v, bias=bias, sink=sink)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if len(x.shape) < 3:
            raise OpError(f"[..., heads, length, width] is needed, and this is {x}", name)
        for i, (s, t) in enumerate(zip(x.shape[:-3], q.shape[:-3])):
            need_equal(s, t, f"leading axis {i} of `{name}` and of `q`", name)
        if len(x.shape) != len(q.shape):
            raise OpError(f"`q` is {q} and `{name}` is {x}: the leading axes differ", name)
    need_equal(q.shape[-1], k.shape[-1], "the widths of `q` and `k`", "k")
    need_equal(k.shape[-2], v.shape[-2], "the lengths of `k` and `v`", "v")
    need_equal(k.shape[-3], v.shape[-3], "the heads of `k` and `v`", "v")
    h, g = q.shape[-3], k.shape[-3]
    if isinstance(h, int) and isinstance(g, int) and (g < 1 or h % g):
        raise OpError(f"{h} query heads cannot share {g} key heads evenly", "k")
    check_mask(mask, q.shape[:-3], q.shape[-2], k.shape[-2])
    if bias is not None:
        fits(bias.shape, (*q.shape[:-1], k.shape[-2]), "bias")
    if sink is not None:
        need_rank(sink, (1,), "sink")
        need_equal(sink.shape[0], h, "the sinks and the heads of `q`", "sink")
    return TensorType(dtype, (*q.shape[:-1], v.shape[-1]))


def _attention_saves(q: TensorType, k: TensorType, v: TensorType, bias: TensorType | None = None, mask: Mask = FULL, scale: float | None = None,
                     cap: float | None = None, sink: TensorType | None = None, needs: Any = ()) -> tuple[Any, ...]:
    """On the CPU: the fused kernel keeps its operands, its result, a logarithm of sums per query, and the mask as floats. Torch takes the
    plain formula when the bias needs a gradient or the widths of keys and values differ; that keeps scaled q and k, v and the weights.
    With a cap or sinks: the operands, the tanh, the pairs and the weights."""
    mask, lead, (h, T, w), (g, S, _) = simplified(mask), q.shape[:-3], q.shape[-3:], k.shape[-3:]
    if cap is not None or sink is not None:
        weights = TensorType(q.dtype, (*lead, h, T, S + (sink is not None)))  # with a sink, a window into a tensor that has a place for it
        kept = _weights_saves(q, k, bias, mask, cap, needs)
        return (*(weights if t == "out" else t for t in kept), *(("v",) if {"q", "k", "bias", "sink"} & set(needs) else ()))
    shape = () if mask == FULL or mask.kind == "causal" and bias is None else _whole(mask_shape(mask, T, S), lead)
    if "bias" in needs or v.shape[-1] != w:
        wide, scores = wider(q.dtype), {"q", "k", "bias"} & set(needs)
        values = "v" if g == h and wide == q.dtype else TensorType(wide, (*lead, h, S, v.shape[-1]))
        kept = ((TensorType(wide, (*lead, h, T, S)), True), (TensorType(wide, (*lead, h, S, w)), "q" in needs),
                (TensorType(wide, q.shape), "k" in needs), (values, scores), (TensorType("bool", shape), shape and "bias" in needs))
        return tuple(t for t, wanted in kept if wanted)
    logsumexp = TensorType(wider(q.dtype), (*lead, h, T))
    if bias is not None:
        whole = _whole(bias.shape, lead)
        copied = shape or len(lead) > 1 and len(bias.shape) > 3
        return "q", "k", "v", "out", logsumexp, TensorType(q.dtype, broadcast(whole, shape)) if copied else "bias"
    return ("q", "k", "v", "out", logsumexp, *((TensorType(q.dtype, shape),) if shape else ()))


def _whole(shape: tuple[Size, ...], lead: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape of a mask or bias after `_four_axes`, with the leading axes still apart."""
    return (*lead, *shape[-3:]) if len(shape) > 3 and len(lead) > 1 else shape


def _four_axes(m: Any, axes: int, lead: list[Any]) -> Any:
    """A mask or bias as [B, heads, T, S] (or [T, S], which broadcasts)."""
    if axes == 3:
        return m[None]
    if axes < 3 or len(lead) == 1:
        return m
    return m.expand(*lead, -1, -1, -1).flatten(0, len(lead) - 1)


@op("attention(q: [..., h, T, w], k: [..., g, S, w], v: [..., g, S, e], mask: mask = full, "
    "bias: [*b]? = none, scale: float? = none, cap: float? = none, sink: [h]? = none) -> [..., h, T, e]",
    infer=infer_attention, filled=True, stream=along_stream, roles={"w": "contract", "T": "mix", "S": "contract", "h": "grouped"},
    saves=_attention_saves, source="arxiv 1706.03762, 2305.13245; sinks: 2309.17453",
    macs=lambda q, k, v, **_: volume(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]),
    samples=lambda: [
        {"q": floats(2, 4, 5, 8), "k": floats(2, 4, 7, 8), "v": floats(2, 4, 7, 8)},
        {"q": floats(2, 4, 5, 8), "k": floats(2, 2, 5, 8), "v": floats(2, 2, 5, 8), "mask": CAUSAL, "scale": 0.3},
        {"q": floats(1, 2, 6, 4), "k": floats(1, 1, 6, 4), "v": floats(1, 1, 6, 3), "mask": Mask("and", (CAUSAL, Mask("window", (3,))))},
        {"q": floats(2, 3, 2, 6, 4), "k": floats(2, 3, 2, 6, 4), "v": floats(2, 3, 2, 6, 4), "bias": floats(3, 2, 6, 6),
         "mask": Mask("own_block", (2, 1))},
        {"q": floats(3, 2, 6, 4), "k": floats(3, 2, 6, 4), "v": floats(3, 2, 6, 4),
         "mask": Mask("and", (Mask("keys", (bools(3, 6),)), Mask("causal_by", (3,))))},
        {"q": floats(2, 6, 4), "k": floats(2, 6, 4), "v": floats(2, 6, 4), "mask": Mask("equal_labels", (ints(3, 6),)), "bias": floats(2, 6, 6)},
        {"q": floats(1, 1, 1, 2), "k": floats(1, 1, 1, 2), "v": floats(1, 1, 1, 2), "mask": Mask("or", (CAUSAL, FULL))},
        {"q": floats(2, 4, 5, 8), "k": floats(2, 2, 5, 8), "v": floats(2, 2, 5, 3), "mask": CAUSAL, "scale": 0.3, "cap": 2.5},
        {"q": floats(2, 3, 2, 6, 4), "k": floats(2, 3, 1, 6, 4), "v": floats(2, 3, 1, 6, 4), "bias": floats(3, 2, 6, 6), "cap": 0.5,
         "mask": Mask("and", (Mask("keys", (bools(3, 6),)), Mask("window", (2,))))},
        {"q": floats(2, 5, 4), "k": floats(2, 7, 4), "v": floats(2, 7, 4), "cap": 50},
        {"q": floats(2, 4, 5, 8), "k": floats(2, 2, 5, 8), "v": floats(2, 2, 5, 3), "mask": CAUSAL, "sink": floats(4)},
        {"q": floats(3, 2, 6, 4), "k": floats(3, 2, 6, 4), "v": floats(3, 2, 6, 4), "bias": floats(2, 6, 6), "sink": floats(2), "cap": 3,
         "scale": 0.4, "mask": Mask("and", (Mask("keys", (bools(3, 6),)), Mask("window", (2,))))},
        {"q": floats(1, 1, 1, 2), "k": floats(1, 1, 1, 2), "v": floats(1, 1, 1, 2), "sink": floats(1)}])
def attention(q, k, v, bias=None, sink=None, *, mask=FULL, scale=None, cap=None):
    """softmax(scale · q kᵀ + bias, over the pairs that `mask` allows) v, by head; h query heads share g key heads in order. `scale` is w^-½
    unless given. A query with nothing to attend gives 0. `cap` bounds scores, before the bias, to ±cap: cap · tanh(scale · q kᵀ / cap). `sink`: each
    head's score of one more key, whose value is 0. No fused kernel knows these two. `macs` counts all T · S pairs, as torch's counter does; `pairs`
    those of a mask."""
    mask = simplified(mask)
    if cap is not None or sink is not None:
        return _attend(_weights(q, k, bias, sink, mask, size(q, -1) ** -0.5 if scale is None else scale, cap), v)
    causal = mask == CAUSAL and bias is None
    return fused(q, k, v, bias, None if mask == FULL or causal else allowed(mask, q, k), scale, causal)


def fused(q, k, v, bias, pairs, scale, causal=False):
    """Torch's fused attention. `pairs`: which pairs attend, as a bool tensor and its number of axes, or None for all (`causal`: for earlier ones)."""
    lead = [size(q, i) for i in range(rank(q) - 3)]
    grouped = not same_size(size(q, -3), size(k, -3))
    added = None if bias is None else _four_axes(bias, rank(bias), lead)
    if pairs is not None:
        where = _four_axes(pairs[0], pairs[1], lead)
        added = where if added is None else torch.where(where, added, float("-inf"))
    if len(lead) != 1:  # torch's fused kernels take one batch axis
        q, k, v = (x.flatten(0, len(lead) - 1) if lead else x[None] for x in (q, k, v))
    options = chosen(attn_mask=(added, None), is_causal=(causal, False), scale=(scale, None), enable_gqa=(grouped, False))
    y = F.scaled_dot_product_attention(q, k, v, **options)
    return y if len(lead) == 1 else torch.unflatten(y, 0, lead) if lead else y[0]


def _weights(q, k, bias, sink, mask, scale, cap):
    """The formula itself."""
    scores = _scores(q, k, bias, scale, cap)
    if mask != FULL:
        scores = torch.where(allowed(mask, q, k)[0], scores, float("-inf"))
    # Only a mask of keys can leave a query with nothing to attend: the others let each position attend to itself.
    if "keys" in kinds(mask) and sink is None:
        return torch._safe_softmax(scores, -1)  # pyright: ignore[reportPrivateImportUsage]  (it has no public name)
    return _softmax(scores, sink)


def _softmax(scores, sink):
    """Over the last axis and the head's sink, which takes a share and gives nothing."""
    if sink is None:
        return torch.softmax(scores, -1)
    column = sink[:, None, None].expand_as(scores[..., :1])
    return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]


def plain(q, k, v, bias, sink, pairs, scale, cap):
    """The formula, over the pairs of a bool tensor that broadcasts to [..., heads, T, S]."""
    scale = size(q, -1) ** -0.5 if scale is None else scale
    return _attend(_softmax(torch.where(pairs, _scores(q, k, bias, scale, cap), float("-inf")), sink), v)


def _scores(q, k, bias, scale, cap):
    scores = _heads_apart(_heads_stacked(q, k) @ k.mT, q, k)
    scores = scores * scale if cap is None else cap * torch.tanh(scores * (scale / cap))
    return scores if bias is None else scores + bias


def _attend(weights, v):
    return _heads_apart(_heads_stacked(weights, v) @ v, weights, v)


def _heads_stacked(x, keys):
    """Query heads that share keys below each other, as more queries, so that nothing is repeated."""
    h, g = size(x, -3), size(keys, -3)
    return x if same_size(h, g) else torch.unflatten(x, -3, (g, h // g)).flatten(-3, -2)


def _heads_apart(y, x, keys):
    h, g = size(x, -3), size(keys, -3)
    return y if same_size(h, g) else torch.unflatten(y, -2, (h // g, size(x, -2))).flatten(-4, -3)


# ---------------------------------------------------------------- in two steps, for those who change the weights in between
def _infer_weights(q: TensorType, k: TensorType, bias: TensorType | None = None, mask: Mask = FULL, scale: Any = None, cap: Any = None,
                   sink: TensorType | None = None) -> TensorType:
    whole = infer_attention(q, k, TensorType(q.dtype, (*k.shape[:-1], q.shape[-1])), bias, mask, scale, cap, sink)
    return TensorType(whole.dtype, (*q.shape[:-1], k.shape[-2]))


def _weights_saves(q: TensorType, k: TensorType, bias: TensorType | None = None, mask: Mask = FULL, cap: float | None = None, needs: Any = (),
                   **_: Any) -> tuple[Any, ...]:
    mask, scores = simplified(mask), {"q", "k"} & set(needs)
    pairs = TensorType("bool", mask_shape(mask, q.shape[-2], k.shape[-2]))
    kept = (("q", "k" in needs), ("k", "q" in needs), ("out", True), (TensorType(q.dtype, (*q.shape[:-1], k.shape[-2])), scores and cap is not None),
            (pairs, mask != FULL and (scores or "bias" in needs)))
    return tuple(t for t, wanted in kept if wanted)


@op("attention_weights(q: [..., h, T, w], k: [..., g, S, w], mask: mask = full, bias: [*b]? = none, scale: float? = none, cap: float? = none, "
    "sink: [h]? = none) -> [..., h, T, S]",
    infer=_infer_weights, filled=True, roles={"w": "contract", "T": "mix", "S": "normalise", "h": "grouped"}, saves=_weights_saves,
    source="arxiv 1706.03762",
    macs=lambda q, k, **_: volume(q.shape) * k.shape[-2],
    samples=lambda: [
        {"q": floats(2, 4, 5, 8), "k": floats(2, 4, 7, 8)},
        {"q": floats(2, 4, 5, 8), "k": floats(2, 2, 5, 8), "mask": CAUSAL, "scale": 0.3, "bias": floats(4, 5, 5)},
        {"q": floats(3, 2, 6, 4), "k": floats(3, 2, 6, 4), "mask": Mask("and", (Mask("keys", (bools(3, 6),)), CAUSAL)), "cap": 2.5},
        {"q": floats(2, 4, 5, 8), "k": floats(2, 2, 5, 8), "mask": CAUSAL, "sink": floats(4)},
        {"q": floats(1, 1, 2), "k": floats(1, 1, 2), "mask": CAUSAL}])
def attention_weights(q, k, bias=None, sink=None, *, mask=FULL, scale=None, cap=None):
    """softmax(scale · q kᵀ + bias) over the pairs that `mask` allows: what `attention` applies to its values, for those who change the weights in
    between. A query with nothing to attend has weights of 0; with sinks, weights sum to less than 1."""
    return _weights(q, k, bias, sink, simplified(mask), size(q, -1) ** -0.5 if scale is None else scale, cap)


def _infer_attend(weights: TensorType, v: TensorType) -> TensorType:
    h, g = weights.shape[-3], v.shape[-3]
    need_equal(weights.shape[-1], v.shape[-2], "the positions of `weights` and of `v`", "v")
    if isinstance(h, int) and isinstance(g, int) and (g < 1 or h % g):
        raise OpError(f"{h} query heads cannot share {g} heads of values evenly", "v")
    if len(weights.shape) != len(v.shape):
        raise OpError(f"`weights` is {weights} and `v` is {v}: the leading axes differ", "v")
    for a, b in zip(weights.shape[:-3], v.shape[:-3]):
        need_equal(a, b, "the leading axes of `weights` and of `v`", "v")
    return TensorType(same_dtype(weights=weights, v=v), (*weights.shape[:-1], v.shape[-1]))


@op("attend(weights: [..., h, T, S], v: [..., g, S, e]) -> [..., h, T, e]", infer=_infer_attend,
    roles={"S": "contract", "T": "mix", "h": "grouped"}, saves=lambda weights, v, needs=(): tuple(
        n for n, other in (("weights", "v"), ("v", "weights")) if other in needs),
    macs=lambda weights, v: volume(weights.shape) * v.shape[-1],
    samples=lambda: [{"weights": floats(2, 4, 5, 7), "v": floats(2, 4, 7, 3)}, {"weights": floats(2, 4, 5, 5), "v": floats(2, 2, 5, 3)},
                     {"weights": floats(1, 1, 1), "v": floats(1, 1, 1)}])
def attend(weights, v):
    """The second half of `attention`: the weighted sum of the values, by head; h heads of weights share g heads of values in order."""
    return _attend(weights, v)
