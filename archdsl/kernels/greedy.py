# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false
"""The likeliest token of each row and what is noted of it, in one launch: a program for each row of logits."""
from __future__ import annotations

import torch
import triton
import triton.language as tl

from archdsl.kernels.overlap import follow, overlapping

BLOCK, WARPS = 8192, 16
"""Logits of a row at a time, and warps."""


@triton.jit
def _taken(logits, tokens, ended, ends, history, count, stride, vocab, room, ENDS: tl.constexpr, E: tl.constexpr, BLOCK: tl.constexpr,
           WAIT: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    follow(WAIT)
    best, where = tl.full((BLOCK,), float("-inf"), tl.float32), i
    for start in range(0, vocab, BLOCK):
        x = tl.load(logits + row * stride + start + i, mask=start + i < vocab, other=float("-inf")).to(tl.float32)
        x = tl.where(x != x, float("inf"), x)
        where = tl.where(x > best, start + i, where)
        best = tl.maximum(x, best)
    token = tl.min(tl.where(best == tl.max(best, 0), where, 2147483647), 0).to(tl.int64)
    if ENDS > 0:
        e = tl.arange(0, E)
        over = tl.load(ended + row) != 0
        token = tl.where(over, tl.load(ends), token)
        found = tl.max(tl.where((e < ENDS) & (tl.load(ends + e, mask=e < ENDS, other=-1) == token), 1, 0), 0)
        tl.store(ended + row, over | (found > 0))
    place = tl.load(count + row)
    tl.store(tokens + row, token)
    tl.store(history + row * room + place, token, mask=place < room)
    tl.store(count + row, place + 1)


def take(logits: torch.Tensor, tokens: torch.Tensor, ended: torch.Tensor, ends: torch.Tensor, history: torch.Tensor, count: torch.Tensor) -> None:
    """The first of the likeliest of logits [B, vocab] goes into tokens [B] and into the place count [B] of history [B, n], `ends[0]` instead in
    rows that are ended [B], which rows are from a token of `ends` on; count goes up by one. NaN is taken as infinite."""
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    B, vocab = logits.shape
    block = min(BLOCK, triton.next_power_of_2(vocab))
    _taken[(B,)](logits, tokens, ended, ends, history, count, logits.stride(0), vocab, history.shape[1], ENDS=len(ends),
                 E=triton.next_power_of_2(max(len(ends), 1)), BLOCK=block, num_warps=max(1, WARPS * block // BLOCK), **overlapping())
