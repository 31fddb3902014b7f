# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
"""Attention of one new position to a cache that it is written into: split along the cache, so that a batch of one fills a card.

q [B, h, 1, w], k [B, g, 1, w], v [B, g, 1, e], keys [B, g, P, w], values [B, g, P, e] in bf16, f16 or f32, with any strides but along the rows of
the caches; `position`, a scalar tensor: the places of the cache below it hold earlier positions, and k and v go into that place; `start` [B]: the
first place of each row. The h / g query heads that share keys read them together. Each program attends to one stretch of a row's cache and keeps the
maximum of its scores, the sum of the weights and the weighted values in float32; a second kernel joins the stretches. How long they are is read on
the device, so that a launch recorded once serves every position.

`turn`: rotary positions alone. In front of attention they are applied where queries and keys are read.

Source of splitting along the keys: Dao, Haziza, Massa, Sizov, "Flash-Decoding for long-context inference", 2023.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from archdsl.kernels.bindings import interpreted
from archdsl.kernels.overlap import follow, overlapping

MULTIPROCESSORS = 132
BLOCK, WARPS = 64, 4
"""Places of the cache that one program looks at together; 32 where keys and values of a place fill more than KILOBYTE."""
KILOBYTE = 1024


@triton.jit
def _tanh(x):
    return 2 / (1 + tl.exp(-2 * x)) - 1


@triton.jit
def _scored(s, scale, cap, CAPPED: tl.constexpr):
    s = s * scale
    if CAPPED:
        s = cap * _tanh(s / cap)
    return s


@triton.jit
def _turned(x, x_at, w, step, cos_at, sin_at, width, mask):
    """Numbers x that were read from x_at + w step, turned by tables of the same width."""
    half = width // 2
    other = tl.load(x_at + tl.where(w < half, w + half, w - half) * step, mask=mask, other=0.0).to(tl.float32)
    cos, sin = tl.load(cos_at + w, mask=mask, other=0.0).to(tl.float32), tl.load(sin_at + w, mask=mask, other=0.0).to(tl.float32)
    return (x.to(tl.float32) * cos + tl.where(w < half, -other, other) * sin).to(x.dtype)


@triton.jit
def _attend_stretch(q_at, k_at, v_at, keys_at, values_at, position_at, start_at, tables, tables_b, tables_h, partial_at, sums_at, scale, cap, splits,
                    group, width, out_width, q_b, q_h, q_w, k_b, k_h, k_w, v_b, v_h, v_w, keys_b, keys_h, keys_p, values_b, values_h, values_p,
                    HEADS: tl.constexpr, STARTS: tl.constexpr, CAPPED: tl.constexpr, WINDOW: tl.constexpr, TURN: tl.constexpr,
                    H: tl.constexpr, W: tl.constexpr, E: tl.constexpr, P: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
                    WAIT: tl.constexpr):
    """`tables`: of queries and of keys, cosines and sines each, with strides of batch and head."""
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    follow(WAIT)
    position = tl.load(position_at)
    first = tl.full((), 0, tl.int64)
    if STARTS:
        first = tl.load(start_at + row)
    if WINDOW > 0:
        first = tl.maximum(first, position - (WINDOW - 1))
    each = tl.cdiv(tl.cdiv(position - first, splits), P) * P
    low = first + split * each
    high = tl.minimum(low + each, position)

    h, w, e, p = tl.arange(0, H), tl.arange(0, W), tl.arange(0, E), tl.arange(0, P)
    heads_in, w_in, e_in = h < group, w < width, e < out_width
    q_in, q_head = heads_in[:, None] & w_in[None, :], head * group + h[:, None]
    q_at += row * q_b + q_head * q_h
    q = tl.load(q_at + w[None, :] * q_w, mask=q_in, other=0.0)
    if TURN:
        q = _turned(q, q_at, w[None, :], q_w, tables[0] + row * tables_b[0] + q_head * tables_h[0],
                    tables[1] + row * tables_b[1] + q_head * tables_h[1], width, q_in)
    if WIDE:
        q = q.to(tl.float32)
    most = tl.full((H,), float("-inf"), tl.float32)
    total = tl.zeros((H,), tl.float32)
    sums = tl.zeros((H, E), tl.float32)
    keys_at += row * keys_b + head * keys_h
    values_at += row * values_b + head * values_h
    for at in tl.range(low, high, P):
        there = at + p
        within = there < high
        k = tl.load(keys_at + there[None, :] * keys_p + w[:, None], mask=within[None, :] & w_in[:, None], other=0.0)
        v = tl.load(values_at + there[:, None] * values_p + e[None, :], mask=within[:, None] & e_in[None, :], other=0.0)
        if WIDE:
            k, v = k.to(tl.float32), v.to(tl.float32)
        s = _scored(tl.dot(q, k, input_precision=PRECISION), scale, cap, CAPPED)
        s = tl.where(within[None, :], s, float("-inf"))
        now = tl.maximum(most, tl.max(s, 1))
        weights = tl.exp(s - now[:, None])
        faded = tl.exp(most - now)
        total = total * faded + tl.sum(weights, 1)
        sums = sums * faded[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        most = now
    if split == 0:  # the new position: into the cache, where no program of this launch reads it, and attended to
        k_at += row * k_b + head * k_h
        k_new = tl.load(k_at + w * k_w, mask=w_in, other=0.0)
        if TURN:
            k_new = _turned(k_new, k_at, w, k_w, tables[2] + row * tables_b[2] + head * tables_h[2],
                            tables[3] + row * tables_b[3] + head * tables_h[3], width, w_in)
        v_new = tl.load(v_at + row * v_b + head * v_h + e * v_w, mask=e_in, other=0.0)
        tl.store(keys_at + position * keys_p + w, k_new, mask=w_in)
        tl.store(values_at + position * values_p + e, v_new, mask=e_in)
        s = _scored(tl.sum(q.to(tl.float32) * k_new[None, :].to(tl.float32), 1), scale, cap, CAPPED)
        now = tl.maximum(most, s)
        weight = tl.exp(s - now)
        faded = tl.exp(most - now)
        total = total * faded + weight
        sums = sums * faded[:, None] + weight[:, None] * v_new[None, :].to(tl.float32)
        most = now
    out = ((row * HEADS + head * group + h) * splits + split)
    tl.store(sums_at + out * 2, most, mask=heads_in)
    tl.store(sums_at + out * 2 + 1, total, mask=heads_in)
    tl.store(partial_at + out[:, None] * out_width + e[None, :], sums, mask=heads_in[:, None] & e_in[None, :])


@triton.jit
def _join(partial_at, sums_at, sink_at, y_at, splits, out_width, HEADS: tl.constexpr, SINKS: tl.constexpr, S: tl.constexpr, E: tl.constexpr,
          WAIT: tl.constexpr):
    out = tl.program_id(0).to(tl.int64)
    follow(WAIT)
    s, e = tl.arange(0, S), tl.arange(0, E)
    there, e_in = s < splits, e < out_width
    most = tl.load(sums_at + (out * splits + s) * 2, mask=there, other=float("-inf"))
    total = tl.load(sums_at + (out * splits + s) * 2 + 1, mask=there, other=0.0)
    top = tl.max(most, 0)
    extra = 0.0
    if SINKS:
        sink = tl.load(sink_at + out % HEADS).to(tl.float32)
        top = tl.maximum(top, sink)
        extra = tl.exp(sink - top)
    share = tl.exp(most - top)  # 0 for a stretch without places
    parts = tl.load(partial_at + (out * splits + s[:, None]) * out_width + e[None, :], mask=there[:, None] & e_in[None, :], other=0.0)
    y = tl.sum(parts * share[:, None], 0) / (tl.sum(total * share, 0) + extra)
    tl.store(y_at + out * out_width + e, y.to(y_at.dtype.element_ty), mask=e_in)


def stretches(batch: int, groups: int, room: int) -> int:
    """Into how many stretches the cache of a row is split: enough programs for four on each multiprocessor, none for less than a block."""
    return max(1, min(4 * MULTIPROCESSORS // (batch * groups), triton.cdiv(room, BLOCK), 128))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: torch.Tensor,
           start: torch.Tensor | None, sink: torch.Tensor | None, scale: float | None, cap: float | None, window: int,
           tables: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """[B, h, 1, e]; k and v are written into the caches. `scale`: None for w^-½. `window`: how many positions a query reaches, itself included; 0:
    all. `tables`: cosines and sines of queries and those of keys, by which these are turned first, as by `turn`."""
    (B, heads, _, width), groups, out_width = q.shape, keys.shape[1], values.shape[-1]
    scale = width ** -0.5 if scale is None else scale
    splits = stretches(B, groups, min(keys.shape[2], window or keys.shape[2]))
    partial = torch.empty(B, heads, splits, out_width, dtype=torch.float32, device=q.device)
    sums = torch.empty(B, heads, splits, 2, dtype=torch.float32, device=q.device)
    y = torch.empty(B, heads, 1, out_width, dtype=q.dtype, device=q.device)
    group, W, E = heads // groups, max(16, triton.next_power_of_2(width)), max(16, triton.next_power_of_2(out_width))
    wide = (W + E) * q.element_size() > KILOBYTE
    tables = tuple(_fitting(t, x) for t, x in zip(tables, (q, q, k, k)))
    _attend_stretch[(B, groups, splits)](
        q, k, v, keys, values, position, None if start is None else start.contiguous(), tables or None,
        tuple(t.stride(0) for t in tables) or None, tuple(t.stride(1) for t in tables) or None, partial, sums, scale, cap or 0.0, splits, group,
        width, out_width,
        q.stride(0), q.stride(1), q.stride(3), k.stride(0), k.stride(1), k.stride(3), v.stride(0), v.stride(1), v.stride(3),
        keys.stride(0), keys.stride(1), keys.stride(2), values.stride(0), values.stride(1), values.stride(2),
        HEADS=heads, STARTS=start is not None, CAPPED=cap is not None, WINDOW=window, TURN=bool(tables), H=max(16, triton.next_power_of_2(group)),
        W=W, E=E, P=BLOCK // 2 if wide else BLOCK, PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        WIDE=interpreted(), num_warps=WARPS, num_stages=2 if wide else 3, **overlapping())
    sink = None if sink is None else sink.contiguous()
    _join[(B * heads,)](partial, sums, sink, y, splits, out_width, HEADS=heads, SINKS=sink is not None, S=triton.next_power_of_2(splits), E=E,
                        num_warps=4, **overlapping())
    return y


@triton.jit
def _turn(x_at, cos_at, sin_at, y_at, heads, half, x_b, x_h, cos_b, cos_h, sin_b, sin_h, BLOCK: tl.constexpr, WAIT: tl.constexpr):
    row, head, i = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.arange(0, BLOCK)
    inside = i < half
    follow(WAIT)
    x_at += row * x_b + head * x_h
    cos_at += row * cos_b + head * cos_h
    sin_at += row * sin_b + head * sin_h
    near = tl.load(x_at + i, mask=inside).to(tl.float32)
    far = tl.load(x_at + half + i, mask=inside).to(tl.float32)
    c_near, c_far = tl.load(cos_at + i, mask=inside).to(tl.float32), tl.load(cos_at + half + i, mask=inside).to(tl.float32)
    s_near, s_far = tl.load(sin_at + i, mask=inside).to(tl.float32), tl.load(sin_at + half + i, mask=inside).to(tl.float32)
    y_at += (row * heads + head) * (2 * half)
    tl.store(y_at + i, (near * c_near - far * s_near).to(y_at.dtype.element_ty), mask=inside)
    tl.store(y_at + half + i, (far * c_far + near * s_far).to(y_at.dtype.element_ty), mask=inside)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x cos + (-x₂, x₁) sin of heads [B, h, 1, w] with any strides but along w, by tables of any float type whose shape fits it."""
    B, heads, _, width = x.shape
    x = x if x.stride(3) == 1 else x.contiguous()
    cos, sin = _fitting(cos, x), _fitting(sin, x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _turn[(B, heads)](x, cos, sin, y, heads, width // 2, *x.stride()[:2], *cos.stride()[:2], *sin.stride()[:2],
                      BLOCK=triton.next_power_of_2(width // 2), num_warps=1, **overlapping())
    return y


def _fitting(table: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A table in the shape of heads, its rows without gaps."""
    return (table if table.stride(-1) == 1 else table.contiguous()).expand(x.shape)
