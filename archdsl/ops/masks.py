"""Masks: which pairs of positions attend, as a torch tensor, how many they are, and how far they reach."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import Mask, TensorType, Value
from archdsl.lazy import torch
from archdsl.ops.registry import OpError
from archdsl.ops.rules import broadcast, equal, need_dtype, need_equal, rank, size

FULL, CAUSAL = Mask("full"), Mask("causal")
POSITIONAL = ("causal", "window", "causal_by", "own_block")
"""Kinds that compare positions of queries and keys, so both lie on one axis. Query i attends key j when
causal: j ≤ i · window(n): |i - j| < n · causal_by(m): j // m ≤ i // m · own_block(b, previous): 0 ≤ i // b - j // b ≤ previous ·
keys(t): t[…, j] · equal_labels(t): t[…, i] = t[…, j] · at(mask, t): mask, with t[i] and t[j] in the place of i and j · `and`, `or` of other masks."""


def simplified(mask: Mask) -> Mask:
    """Without `full` inside `and` and `or`, and without either around one mask."""
    if mask.kind not in ("and", "or"):
        return mask
    parts = tuple(dict.fromkeys(simplified(a) for a in mask.args))
    if mask.kind == "or" and FULL in parts:
        return FULL
    parts = tuple(p for p in parts if p != FULL)
    return FULL if not parts else parts[0] if len(parts) == 1 else Mask(mask.kind, parts)


def kinds(mask: Mask) -> set[str]:
    return {mask.kind}.union(*(kinds(a) for a in mask.args if isinstance(a, Mask)))


def pairs(mask: Mask, queries: int, keys: int) -> int:
    """How many (query, key) pairs attend; for masks made of run-time tensors, and for `or`, an upper bound."""
    if mask.kind == "or":
        return min(queries * keys, sum(pairs(a, queries, keys) for a in mask.args))
    if mask.kind == "and" and any(a.kind in ("and", "or") for a in mask.args):
        return min(pairs(a, queries, keys) for a in mask.args)
    parts = mask.args if mask.kind == "and" else (mask,)
    total = 0
    for i in range(queries):
        spans = [_span(p, i, keys) for p in parts]
        total += max(0, min(hi for _, hi in spans) - max(lo for lo, _ in spans))
    return total


def _span(mask: Mask, i: int, keys: int) -> tuple[int, int]:
    """The keys [first, last) that query i may attend."""
    if mask.kind == "causal":
        return 0, min(i + 1, keys)
    if mask.kind == "window":
        return max(0, i - mask.args[0] + 1), min(i + mask.args[0], keys)
    if mask.kind == "causal_by":
        return 0, min((i // mask.args[0] + 1) * mask.args[0], keys)
    if mask.kind == "own_block":
        b, previous = (*mask.args, 0)[:2]
        return max(0, (i // b - previous) * b), min((i // b + 1) * b, keys)
    return 0, keys


# ---------------------------------------------------------------- along the stream
NEVER = float("inf")


def reach(mask: Mask) -> tuple[float, float]:
    """(how far ahead of a query its last key may lie, how many positions back from the query, itself included, its first one). Raises OpError for
    a distance that is known at run time only: no call knows how long the whole will be."""
    if mask.kind in POSITIONAL and (late := next((a for a in mask.args if not isinstance(a, int)), None)) is not None:
        raise OpError(f"its mask `{mask.kind}({late})` depends on a size of the run, and the whole length is not known while positions come", "mask",
                      help="`causal` alone reaches back to the first position; a number is a window that is kept")
    if mask.kind in ("and", "or"):
        parts = [reach(a) for a in mask.args]
        pick = min if mask.kind == "and" else max
        return pick(a for a, _ in parts), pick(b for _, b in parts)
    if mask.kind == "causal":
        return 0, NEVER
    if mask.kind == "window":
        return mask.args[0] - 1, mask.args[0]
    if mask.kind == "causal_by":
        return mask.args[0] - 1, NEVER
    if mask.kind == "own_block":
        b, previous = (*mask.args, 0)[:2]
        return b - 1, b * (previous + 1)
    return NEVER, NEVER


# ---------------------------------------------------------------- types
def check_mask(mask: Mask, lead: tuple[Size, ...], T: Size, S: Size) -> None:
    if mask.kind in POSITIONAL:
        need_equal(T, S, f"the lengths of queries and keys (a mask `{mask.kind}` compares their positions)", "mask")
    for a in mask.args:
        if isinstance(a, Mask):
            check_mask(a, lead, T, S)
        elif isinstance(a, (Value, TensorType)):
            t = a.type if isinstance(a, Value) else a
            if mask.kind == "keys":
                need_dtype(t, ("bool",), "mask", "a bool tensor for `keys`")
            else:
                need_equal(T, S, "the lengths of queries and keys (`equal_labels` compares their labels)", "mask")
            if not t.shape or len(t.shape) - 1 > len(lead):
                raise OpError(f"the mask tensor {t} does not fit the leading axes [{', '.join(map(str, lead))}] of the queries", "mask")
            need_equal(t.shape[-1], S, "the last axis of the mask tensor and the keys", "mask")
            fits(t.shape[:-1], lead, "mask")


def fits(shape: tuple[Size, ...], whole: tuple[Size, ...], about: str) -> None:
    if len(shape) > len(whole) or any(equal(a, b) is not True for a, b in zip(broadcast(shape, whole, about=about), whole)):
        raise OpError(f"[{', '.join(map(str, shape))}] does not repeat to [{', '.join(map(str, whole))}]", about)


def mask_shape(mask: Mask, T: Size, S: Size) -> tuple[Size, ...]:
    if mask.kind in ("and", "or"):
        return broadcast(*(mask_shape(a, T, S) for a in mask.args))
    if mask.kind in ("keys", "equal_labels"):
        t = mask.args[0]
        lead = t.shape[:-1]
        return (*lead, *((1,) if lead else ()), 1 if mask.kind == "keys" else T, S)
    return T, S


# ---------------------------------------------------------------- the mask as a tensor
def allowed(mask: Mask, q: Any, k: Any) -> tuple[Any, int]:
    """A bool tensor that broadcasts to [..., heads, T, S], and its number of axes."""
    if mask.kind in ("and", "or"):
        (result, axes), *rest = (allowed(a, q, k) for a in mask.args)
        for other, n in rest:
            result, axes = (result & other if mask.kind == "and" else result | other), max(axes, n)
        return result, axes
    if mask.kind == "at":
        inner, t = mask.args
        return by_position(inner, t[:, None], t[None, :]), 2
    if mask.kind in ("keys", "equal_labels"):
        (t,) = mask.args
        if rank(t) == 1:
            return (t[None, :] if mask.kind == "keys" else t[:, None] == t[None, :]), 2
        return (t[..., None, None, :] if mask.kind == "keys" else t[..., None, :, None] == t[..., None, None, :]), rank(t) + 2
    i = torch.arange(size(q, -2), device=q.device)[:, None]
    j = torch.arange(size(k, -2), device=q.device)[None, :]
    return by_position(mask, i, j), 2


def by_position(mask: Mask, i: Any, j: Any) -> Any:
    """Which pairs of positions attend, [T, S], for the positions of queries i [T, 1] and of keys j [1, S]."""
    if mask.kind in ("and", "or"):
        first, *rest = (by_position(a, i, j) for a in mask.args)
        for other in rest:
            first = first & other if mask.kind == "and" else first | other
        return first
    if mask.kind == "full":
        return (i >= 0) & (j >= 0)
    if mask.kind == "causal":
        return j <= i
    if mask.kind == "window":
        return (i - j).abs() < mask.args[0]
    if mask.kind == "causal_by":
        return j // mask.args[0] <= i // mask.args[0]
    if mask.kind == "own_block":
        b, previous = (*mask.args, 0)[:2]
        back = i // b - j // b
        return back == 0 if previous == 0 else (back >= 0) & (back <= previous)
    raise ValueError(f"no mask {mask.kind}")
