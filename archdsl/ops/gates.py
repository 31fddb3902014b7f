"""What gates leave along a sequence, given as logarithms, 0 or below.

Gates of a head: sums. Gates of each row of a memory: products over halves of halves of a chunk. Either is made of its own gates alone: nothing
overflows, and no small gate is lost behind a large one, as in differences of sums from the beginning."""
from __future__ import annotations

from archdsl.lazy import F, torch

LOG2_E = 1.4426950408889634
"""What is left is a power of 2: torch's `exp2` is several times as quick as its `exp` on CPUs, and no slower where nothing is left."""


def halves(x, half):
    """Each 2 · half positions of [..., T, c] as two times half."""
    return x.unflatten(-2, (-1, 2, half)).unbind(-3)


def twice(from_start, to_end, total, half):
    """[..., T, c] with what is left from the start of each `half` positions, and to their end, and [..., T / half, c], what is left of all of them:
    for twice as many."""
    near, far = total.unflatten(-2, (-1, 2)).unbind(-2)
    kept = torch.ones_like(near)
    start, end = torch.stack([kept, near], -2)[..., None, :], torch.stack([far, kept], -2)[..., None, :]
    from_start = (from_start.unflatten(-2, (-1, 2, half)) * start).flatten(-4, -2)
    to_end = (to_end.unflatten(-2, (-1, 2, half)) * end).flatten(-4, -2)
    return from_start, to_end, near * far


def padded(x, before, behind, axis=-2):
    """x with zeros in front of and behind its positions, which lie along a negative axis. torch 2.9's `F.pad` refuses what is empty along another."""
    if x.numel():
        return F.pad(x, (0, 0) * (-axis - 1) + (before, behind))
    more = lambda n: x.new_zeros([n if a == axis % x.ndim else s for a, s in enumerate(x.shape)])
    return torch.cat([more(before), x, more(behind)], axis)


def below(near, far, found):
    """Lower triangular matrices of twice the size: `near` before `far`, `found` between them."""
    return torch.cat([F.pad(near, (0, far.shape[-1])), torch.cat([found, far], -1)], -2)


def left(log):
    """Of a chunk, [..., T]: what is left at i of what came in at j, [..., T (i), T (j)], 0 where i < j (its axis i moves fastest); what is left
    from the start of the chunk, and to its end, [..., T]; what is left of all, [..., 1]."""
    n = log.shape[-1]
    pairs = torch.exp(log[..., None, :].expand(*log.shape, n).triu(1).cumsum(-1)).triu()
    start = torch.exp(log.cumsum(-1))
    return pairs.mT, start, pairs[..., -1], start[..., -1:]


def length(n, most):
    """Of chunks of n positions: a power of two, up to `most`."""
    size = 1
    while size < min(most, n):
        size *= 2
    return size


def softplus(x):
    """torch's, whose log1p takes ten times as long on CPUs: max(x, 0) + log1p(e) with e = exp(-|x|), and log1p(e) = 2 artanh(e / (2 + e)); beyond 20,
    as torch has it, x itself."""
    e = torch.exp(-x.abs())
    return (e / (e + 2)).atanh_().mul_(2).masked_fill_(x > 20, 0).add_(x.clamp(min=0))
