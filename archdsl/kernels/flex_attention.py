"""The op `attention` by torch's `flex_attention`: masks, caps and biases as functions of scores, sinks by the logarithm of the sums.

A mask is a tuple, `(kind, …)`, as `flex.told` gives it. Which blocks of BLOCK x BLOCK pairs it leaves empty, and which it leaves whole, follows from
the first and the last position of each block, and from the smallest and the largest number of a tensor in it; so a mask of all pairs is never made.
Blocks that are neither are masked pair by pair. Those of masks of positions alone are made once for each shape and device.
"""
from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from archdsl.kernels.autocast import autocasts
from archdsl.kernels.bindings import KernelError
from archdsl.ops.masks import by_position

BLOCK = 128
"""Positions of a block, those that torch's kernels are tuned for."""
GRAPHS = 64
"""Graphs of calls that are not compiled with a model: each mask, shape and dtype has its own, and torch stops at 8 unless it is told."""


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sink: Tensor | None, mask: tuple[Any, ...], scale: float | None,
           cap: float | None) -> Tensor:
    """[..., h, T, e] of q [..., h, T, w], k [..., g, S, w], v [..., g, S, e], a bias that repeats to [..., h, T, S], and sinks [h]. Raises
    KernelError for gradients on a CPU, empty operands, and tensors that are spread over devices."""
    if hasattr(q, "placements"):
        raise KernelError("the kernel `flex` of `attention` cannot be used here: FlexAttention does not take tensors that are spread over devices")
    if 0 in (*q.shape, *k.shape, *v.shape):
        raise KernelError("the kernel `flex` of `attention` cannot be used here: an operand is empty")
    lead, given = q.shape[:-3], _cast(q, k, v)
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in given) and not GRADIENTS_ON_CPU:
        raise KernelError("the kernel `flex` of `attention` cannot be used here: FlexAttention has no gradients on the CPU")
    q, k, v = (x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:]) for x in given)
    bias, mask = _bias(bias, lead), _flat(mask, lead)
    queries, keys = (len(range(x.shape[-2])) for x in (q, k))  # the compiler of graphs takes lengths of ranges for numbers
    blocks = _blocks(mask, queries, keys, q.device)
    run = _attend if not q.is_cuda or torch.compiler.is_compiling() else _compiled()
    y, sums = run(q, k, v, bias, sink is not None, mask, blocks, scale, cap)
    if sink is not None:
        y = _beside(sink, y, sums)
    return y if len(lead) == 1 else y.reshape(*lead, *y.shape[1:])


def _beside(sink: Tensor, y: Tensor, sums: Tensor) -> Tensor:
    """What the sinks leave of the results: e^sums of e^sums + e^sink.

    It stays outside of what is compiled with `flex_attention`: there, torch 2.11 gave gradients in float32 that had nothing to do with the true ones
    (on an H100 with 300 positions, without padded strides they were right), so that in a graph of its compiler they are refused."""
    traced = sink.is_cuda and torch.compiler.is_compiling() and torch.is_grad_enabled()
    if traced and y.dtype == torch.float32 and any(x.requires_grad for x in (sink, y)):
        raise KernelError("the kernel `flex` of `attention` cannot be used here: torch's compiler gives wrong gradients of sinks in float32; take "
                          "bf16, or leave this layer uncompiled")
    wide = torch.promote_types(y.dtype, torch.float32)
    share = torch.sigmoid(sums.to(wide) - sink[:, None].to(wide))
    return (y * share[..., None]).to(y.dtype)


GRADIENTS_ON_CPU = False
"""Tests take torch's own refusal away, to compare the gradients of what it is given."""


def _cast(*given: Tensor) -> tuple[Tensor, ...]:
    """Under autocast as torch's other attention."""
    device = given[0].device.type
    if not autocasts(device) or not torch.is_autocast_enabled(device) or given[0].dtype == torch.float64:
        return given
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in given)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, summed: bool, mask: tuple[Any, ...], blocks: Blocks | None,
            scale: float | None, cap: float | None) -> tuple[Tensor, Any]:
    """The results, and, where `summed`, the logarithms of the sums of exponentials [batch, h, T]."""
    def pairs(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return _allowed(mask, b, i, j)

    def scored(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        return score if bias is None else score + _at(bias, (b, h, i, j))

    whole = None if blocks is None else flex.BlockMask((q.shape[-2], k.shape[-2]), *blocks, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=pairs)
    named: dict[str, Any] = {"score_mod": scored if cap is not None or bias is not None else None, "block_mask": whole, "scale": scale,
                             "enable_gqa": q.shape[1] != k.shape[1]}
    if not summed:
        return flex.flex_attention(q, k, v, **named), None
    y, aux = flex.flex_attention(q, k, v, return_aux=flex.AuxRequest(lse=True), **named)
    return y, aux.lse


@cache
def _compiled() -> Any:
    """For calls that are not compiled. A graph more than `GRAPHS` is an error, as without one all scores would be kept."""
    compiled = torch.compile(_attend, fullgraph=True)

    def run(*args: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=GRAPHS):  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
            return compiled(*args)

    return run


# ---------------------------------------------------------------- operands over four axes
def _bias(bias: Tensor | None, lead: tuple[int, ...]) -> Tensor | None:
    """With four axes, those that repeat of size 1."""
    if bias is None:
        return None
    if bias.ndim > 3 and len(lead) > 1 and any(n != 1 for n in bias.shape[:-3]):
        bias = bias.expand(*lead, *bias.shape[-3:])
    own = bias.shape[-3:]
    return bias.reshape(-1, *((1,) * (3 - len(own))), *own) if bias.ndim > 3 else bias.reshape(1, *((1,) * (3 - len(own))), *own)


def _at(x: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    """x, with as many axes as `at`, where they meet; an axis of size 1 repeats."""
    kept = tuple(i for n, i in zip(x.shape, at) if n != 1)
    x = x.reshape([n for n in x.shape if n != 1] or [1])
    return x[kept or (torch.zeros_like(at[0]),)]  # a number that is read without a place has no gradient there


def _flat(mask: tuple[Any, ...], lead: tuple[int, ...]) -> tuple[Any, ...]:
    """The tensors of a mask as [positions] or [batch, positions]."""
    return tuple(_flat(a, lead) if isinstance(a, tuple) else _rows(a, lead) if isinstance(a, Tensor) and a.ndim > 1 else a for a in mask)


def _rows(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    if all(n == 1 for n in x.shape[:-1]):
        return x.reshape(x.shape[-1])
    return x.expand(*lead, x.shape[-1]).reshape(-1, x.shape[-1])


# ---------------------------------------------------------------- which pairs attend
def _allowed(mask: tuple[Any, ...], b: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Whether position i of queries attends to j of keys in row b of the batch."""
    kind, *args = mask
    if kind in ("and", "or"):
        found = _allowed(args[0], b, i, j)
        for other in args[1:]:
            found = found & _allowed(other, b, i, j) if kind == "and" else found | _allowed(other, b, i, j)
        return found
    if kind == "keys":
        return _read(args[0], b, j)
    if kind == "equal_labels":
        return _read(args[0], b, i) == _read(args[0], b, j)
    if kind == "at":
        return _allowed(args[0], b, args[1][i], args[1][j])
    return by_position(_Kind(kind, tuple(args)), i, j)  # pyright: ignore[reportArgumentType]


class _Kind(NamedTuple):
    """A mask of positions as `by_position` reads one; torch's compiler does not see through the class of masks."""

    kind: str
    args: tuple[Any, ...]


def _read(x: Tensor, b: Tensor, i: Tensor) -> Tensor:
    return x[i] if x.ndim == 1 else x[b, i]


class Blocks(NamedTuple):
    """As torch's `BlockMask` has them: of each block of queries how many blocks of keys are masked pair by pair, and which; those that are whole; and
    the same of each block of keys."""

    kv_num_blocks: Tensor
    kv_indices: Tensor
    full_kv_num_blocks: Tensor
    full_kv_indices: Tensor
    q_num_blocks: Tensor
    q_indices: Tensor
    full_q_num_blocks: Tensor
    full_q_indices: Tensor


def _blocks(mask: tuple[Any, ...], queries: int, keys: int, device: torch.device) -> Blocks | None:
    """None where all attend to all."""
    if mask == ("full",):
        return None
    return _made(mask, queries, keys, device) if _tensors(mask) else Blocks(*_once(mask, queries, keys, device))


@torch._dynamo.assume_constant_result
def _once(mask: tuple[Any, ...], queries: int, keys: int, device: torch.device) -> list[Tensor]:
    plain = type(torch.empty(0, device=device)) is Tensor  # else a mode wraps what is made now, such as the one of an export: not for later calls
    return list((_kept if plain else _made)(mask, queries, keys, device))


@lru_cache(256)
def _kept(mask: tuple[Any, ...], queries: int, keys: int, device: torch.device) -> Blocks:
    with torch.inference_mode(False), torch.no_grad():
        return _made(mask, queries, keys, device)


def _tensors(mask: tuple[Any, ...]) -> bool:
    return any(_tensors(a) if isinstance(a, tuple) else isinstance(a, Tensor) for a in mask)


def _made(mask: tuple[Any, ...], queries: int, keys: int, device: torch.device) -> Blocks:
    some, every = spans(mask, queries, keys, device)
    for whole, n, axis in ((queries, some.shape[-2], -2), (keys, some.shape[-1], -1)):
        if whole % BLOCK:  # the last block has places that are none
            inside = torch.arange(n, device=device) < n - 1
            every = every & (inside[:, None] if axis == -2 else inside)
    partial = some & ~every
    return Blocks(*_listed(partial), *_listed(every), *_listed(partial.mT), *_listed(every.mT))


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many there are of each row, and which, those that are not behind them: int32."""
    wanted = blocks.to(torch.int32)
    return wanted.sum(-1, dtype=torch.int32), torch.argsort(wanted, dim=-1, descending=True, stable=True).to(torch.int32).contiguous()


class Range(NamedTuple):
    """The smallest and the largest number in each block."""

    low: Tensor
    high: Tensor


def spans(mask: tuple[Any, ...], queries: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each block, [1 or batch, 1, blocks of queries, blocks of keys], whether any of its pairs may attend, and whether all do: exact for masks of
    positions but `or`, else true of no fewer and of no more blocks than it holds for."""
    i, j = (_positions(n, device) for n in (queries, keys))
    some, every = torch.broadcast_tensors(*_span(mask, _down(i), _across(j)))
    some, every = (x.expand(*x.shape[:-2], len(i.low), len(j.low)) for x in (some, every))
    return (some[None, None], every[None, None]) if some.ndim == 2 else (some[:, None], every[:, None])


def _positions(n: int, device: torch.device) -> Range:
    low = torch.arange(0, n, BLOCK, device=device)
    return Range(low, (low + (BLOCK - 1)).clamp(max=n - 1))


def _down(x: Range) -> Range:
    return Range(x.low[..., :, None], x.high[..., :, None])


def _across(x: Range) -> Range:
    return Range(x.low[..., None, :], x.high[..., None, :])


def _ranges(x: Tensor) -> Range:
    """Of [..., positions] by block."""
    more = -x.shape[-1] % BLOCK
    if more:
        x = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], more)], -1)
    cut = x.unflatten(-1, (-1, BLOCK))
    return Range(cut.amin(-1), cut.amax(-1))


def _span(mask: tuple[Any, ...], i: Range, j: Range) -> tuple[Tensor, Tensor]:
    """(some, every) for ranges of queries and of keys."""
    kind, *args = mask
    if kind in ("and", "or"):
        some, every = _span(args[0], i, j)
        for other in args[1:]:
            more, all_of = _span(other, i, j)
            some, every = (some & more, every & all_of) if kind == "and" else (some | more, every | all_of)
        return some, every
    if kind == "keys":
        found = _across(_ranges(args[0].to(torch.int32)))
        return found.high > 0, found.low > 0
    if kind == "equal_labels":
        labels = _ranges(args[0])
        a, b = _down(labels), _across(labels)
        return (a.low <= b.high) & (b.low <= a.high), (a.low == b.high) & (b.low == a.high)
    if kind == "at":
        places = _ranges(args[1])
        return _span(args[0], _down(places), _across(places))
    if kind == "causal":
        return j.low <= i.high, j.high <= i.low
    if kind == "causal_by":
        return j.low // args[0] <= i.high // args[0], j.high // args[0] <= i.low // args[0]
    if kind == "window":
        near = torch.maximum(j.low - i.high, i.low - j.high)
        return near < args[0], torch.maximum(j.high - i.low, i.high - j.low) < args[0]
    if kind == "own_block":
        size, previous = (*args, 0)[:2]
        least, most = i.low // size - j.high // size, i.high // size - j.low // size
        return (most >= 0) & (least <= previous), (least >= 0) & (most <= previous)
    if kind == "full":
        every = (i.low >= 0) & (j.low >= 0)
        return every, every
    raise ValueError(f"no mask {kind}")
