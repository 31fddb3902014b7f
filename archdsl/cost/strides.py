"""How tensors lie in memory: torch's rules for views and for the results of elementwise kernels, on plain numbers. Free of torch."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

Sizes = tuple[int, ...]
Laid = tuple[Sizes, Sizes]
"""Sizes and strides of a tensor, in elements."""


def contiguous(sizes: Sequence[int]) -> Sizes:
    """Strides of a tensor whose last axis varies fastest."""
    strides: list[int] = []
    step = 1
    for n in reversed(sizes):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def channels_last(sizes: Sizes) -> Sizes:
    """Strides of [B, c, *s] with the channels varying fastest."""
    last = (0, *range(2, len(sizes)), 1)
    strides = dict(zip(last, contiguous([sizes[a] for a in last])))
    return tuple(strides[a] for a in range(len(sizes)))


def is_contiguous(sizes: Sizes, strides: Sizes) -> bool:
    return _is_packed(sizes, strides, range(len(sizes) - 1, -1, -1))


def is_channels_last(sizes: Sizes, strides: Sizes) -> bool:
    """Whether [B, c, *s] with two or three axes in `s` is packed with the channels fastest."""
    return len(sizes) in (4, 5) and _is_packed(sizes, strides, (1, *range(len(sizes) - 1, 1, -1), 0))


def _is_packed(sizes: Sizes, strides: Sizes, order: Iterable[int]) -> bool:
    step = 1
    for a in order:
        if sizes[a] != 1:
            if strides[a] != step:
                return False
            step *= sizes[a]
    return True


def is_dense(sizes: Sizes, strides: Sizes) -> bool:
    """Whether the elements fill their memory without gaps and repetitions, in whatever order of axes."""
    step = 1
    for stride, n in sorted((s, n) for n, s in zip(sizes, strides) if n > 1):
        if stride != step:
            return False
        step *= n
    return True


def prefers_channels_last(sizes: Sizes, strides: Sizes) -> bool:
    """Whether kernels for maps take these strides as channels-last (torch's `suggest_memory_format`)."""
    if len(sizes) not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for a in (1, *range(len(sizes) - 1, 1, -1), 0):
        if sizes[a] == 0 or strides[a] < least or a == 0 and least == strides[1]:
            return False
        least = strides[a] * max(sizes[a], 1)
    return True


def suggested(sizes: Sizes, like: Laid) -> Sizes:
    """Strides of a result that kernels for maps make from `like`."""
    return channels_last(sizes) if prefers_channels_last(*like) else contiguous(sizes)


# ---------------------------------------------------------------- views
def viewed(laid: Laid, new: Sizes) -> Sizes | None:
    """Strides of `x.view(new)`, or None where torch must copy."""
    sizes, strides = laid
    if not sizes:
        return (1,) * len(new)
    out: list[int] = []
    at, base = len(new) - 1, strides[-1]
    count = passed = 1
    for a in range(len(sizes) - 1, -1, -1):
        count *= sizes[a]
        if a and (sizes[a - 1] == 1 or strides[a - 1] == count * base):
            continue
        while at >= 0 and (passed < count or new[at] == 1):
            out.append(passed * base)
            passed *= new[at]
            at -= 1
        if passed != count:
            return None
        if a:
            base, count, passed = strides[a - 1], 1, 1
    return tuple(reversed(out)) if at < 0 else None


def unsqueezed(laid: Laid, axis: int) -> Laid:
    sizes, strides = laid
    step = sizes[axis] * strides[axis] if axis < len(sizes) else 1
    return (*sizes[:axis], 1, *sizes[axis:]), (*strides[:axis], step, *strides[axis:])


def expanded(laid: Laid, new: Sizes) -> Laid:
    """New leading axes and axes of size 1 repeated with stride 0."""
    sizes, strides = laid
    out: list[int] = []
    for i in range(1, len(new) + 1):
        n, step = (sizes[-i], strides[-i]) if i <= len(sizes) else (1, new[1 - i] * out[-1] if out else 1)
        out.append(0 if n != new[-i] else step)
    return tuple(new), tuple(reversed(out))


# ---------------------------------------------------------------- elementwise results
def elementwise(sizes: Sizes, operands: Sequence[Laid]) -> Sizes:
    """Strides of an elementwise result: those of the operands where they agree, else packed in the operands' order of axes."""
    if all(s == sizes for s, _ in operands):
        if all(is_contiguous(*o) for o in operands):
            return contiguous(sizes)
        if all(is_channels_last(*o) for o in operands):
            return channels_last(sizes)
        if all(is_dense(*o) for o in operands) and len({t for _, t in operands}) == 1:
            return operands[0][1]
    return packed(sizes, _order(sizes, [_broadcast(sizes, *o) for o in operands]))


def packed(sizes: Sizes, order: Sequence[int]) -> Sizes:
    """Strides without gaps, the first axis of `order` varying fastest."""
    out, step = [0] * len(sizes), 1
    for a in order:
        out[a] = step
        step *= max(sizes[a], 1)
    return tuple(out)


def _broadcast(out: Sizes, sizes: Sizes, strides: Sizes) -> Sizes:
    lead = len(out) - len(sizes)
    return (0,) * lead + tuple(0 if n == 1 and out[lead + i] != 1 else s for i, (n, s) in enumerate(zip(sizes, strides)))


def _order(sizes: Sizes, strides: Sequence[Sizes]) -> list[int]:
    """The axes from the fastest to the slowest: the first operand that tells two axes apart decides."""
    order = list(range(len(sizes) - 1, -1, -1))
    for i in range(1, len(order)):
        at = i
        for j in range(i - 1, -1, -1):
            verdict = _compare(sizes, strides, order[j], order[at])
            if verdict > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif verdict < 0:
                break
    return order


def _compare(sizes: Sizes, strides: Sequence[Sizes], a: int, b: int) -> int:
    """1: axis a comes after b; -1: before; 0: no operand tells."""
    for s in strides:
        if s[a] == 0 or s[b] == 0:
            continue
        if s[a] != s[b]:
            return -1 if s[a] < s[b] else 1
        if sizes[a] > sizes[b]:
            return 1
    return 0


