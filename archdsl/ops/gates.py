"""What gates leave along a sequence: sums of logarithms, 0 or below, as products over halves of halves of a chunk.

Each is a product of numbers up to 1, made of its own gates alone: nothing overflows, and no small gate is lost behind a large one, as in differences
of sums from the beginning."""
from __future__ import annotations

from archdsl.lazy import F, torch


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


def below(near, far, found):
    """Lower triangular matrices of twice the size: `near` before `far`, `found` between them."""
    return torch.cat([F.pad(near, (0, far.shape[-1])), torch.cat([found, far], -1)], -2)


def left(log):
    """Of a chunk of T positions, a power of two, [..., T]: what is left at i of what came in at j, [..., T (i), T (j)], 0 where i < j; what is left
    from the start of the chunk, and to its end, [..., T]; what is left of all, [...]."""
    total = torch.exp(log)[..., None]
    start, end, pairs = total, torch.ones_like(total), torch.ones_like(total)[..., None]
    half = 1
    while half < log.shape[-1]:
        (_, later), (sooner, _) = halves(start, half), halves(end, half)
        near, far = pairs.unflatten(-3, (-1, 2)).unbind(-3)
        pairs = below(near, far, later * sooner.mT)
        start, end, total = twice(start, end, total, half)
        half *= 2
    return pairs[..., 0, :, :], start[..., 0], end[..., 0], total[..., 0, 0]


def length(n, most):
    """Of chunks of n positions: a power of two, up to `most`."""
    size = 1
    while size < min(most, n):
        size *= 2
    return size
