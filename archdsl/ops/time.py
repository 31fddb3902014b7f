"""Ops along the stream: positions that go on, sums so far, earlier positions, short convolutions, the last position."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.kernels import derived
from archdsl.ops.recurrent import recurrent
from archdsl.ops.reduction import cumsum_type
from archdsl.ops.registry import Extension, OpError, op
from archdsl.ops.rules import axis_of, floats, ints, need_count, need_dtype, need_equal, need_position, need_rank, same_size, size, volume


def _from(position: TensorType, start: TensorType | None = None, n: Size = 1, late: Any = 0, **_: Any) -> TensorType:
    need_position(position, start)
    need_count(late, "late", 0)
    return TensorType("int", (n,) if start is None else (start.shape[0], n))


@op("index_extend(position: int[], start: int[B]? = none, n: int, late: int = 0, most: int? = none) -> int[*s]", infer=_from, grad="none",
    samples=lambda: [{"position": ints(9), "n": 5}, {"position": ints(9), "start": ints(5, 3), "n": 4}, {"position": ints(9), "n": 1},
                     {"position": ints(9), "start": ints(5, 1), "n": 1}, {"position": ints(9), "n": 4, "late": 3, "most": 7}])
def index_extend(position, start=None, *, n, late=0, most=None):
    """`index` behind `position` earlier positions: position, position + 1, …; with `start`, counted by row from where it begins. `late`: of what
    comes so many positions later. `most`: so many positions there are. What lies outside counts as the first or last: it may choose from a table."""
    index = position + torch.arange(n, device=position.device)
    index = index if start is None else index - start[:, None]
    if not late and most is None:
        return index
    return (index - late).clamp(min=0) if most is None else (index - late).clamp(min=0, max=most - 1)


@op("distance_extend(position: int[], places: int[P], n: int) -> int[n, P]", grad="none",
    samples=lambda: [{"position": ints(9), "places": ints(13, 13), "n": 3}, {"position": ints(9), "places": ints(1, 1), "n": 1}])
def distance_extend(position, places, *, n):
    """`distance` of the n positions behind `position` earlier ones to all `places` in which positions are kept."""
    return position + torch.arange(n, device=position.device)[:, None] - places


# ---------------------------------------------------------------- what comes later than its own position
def _inside(position: TensorType, end: TensorType, start: TensorType | None = None, n: Size = 1, late: Any = 0) -> TensorType:
    need_position(position, start, end)
    need_count(late, "late", 0)
    return TensorType("bool", (n,) if start is None else (start.shape[0], n))


@op("inside_extend(position: int[], end: int[*e], start: int[B]? = none, n: int, late: int = 0) -> bool[*s]", infer=_inside, grad="none",
    own=("end",),
    samples=lambda: [{"position": ints(9), "end": ints(9), "n": 5}, {"position": ints(9), "end": ints(9, 3), "start": ints(5, 3), "n": 4, "late": 2},
                     {"position": ints(9), "end": ints(9, 1), "start": ints(5, 1), "n": 1}])
def inside_extend(position, end, start=None, *, n, late=0):
    """Whether the positions behind `position` earlier ones, `late` before their own time, belong to the sequence: from `start` on (0), and before
    `end`; an `end` of 0 is not known yet."""
    index = position - late + torch.arange(n, device=position.device)
    low, high = (0, end) if start is None else (start[:, None], end[:, None])
    return (index >= low) & ((high == 0) | (index < high))


def _joined(x: TensorType, before: TensorType, axis: int = 0, **_: Any) -> tuple[TensorType, TensorType]:
    need_dtype(before, (x.dtype,), "before", f"earlier positions of the element type of `x`, {x.dtype},")
    need_rank(before, (len(x.shape),), "before")
    for i, (s, r) in enumerate(zip(x.shape, before.shape)):
        if i != axis:
            need_equal(s, r, f"axis {i} of `x` and of `before`", "before")
    return TensorType(x.dtype, (*x.shape[:axis], x.shape[axis] + before.shape[axis], *x.shape[axis + 1:])), before


@op("behind_extend(x: [*s], before: [*t], axis: int) -> (y: [*u], before: [*t])", infer=_joined, own=("x", "before"), saves=None,
    samples=lambda: [{"x": floats(2, 5, 3), "before": floats(2, 4, 3), "axis": 1}, {"x": floats(2, 1), "before": floats(2, 3), "axis": 1}])
def behind_extend(x, before, *, axis):
    """Positions behind the ones `before` them, and as many of the last to keep."""
    whole = torch.cat([before, x], axis)
    return whole, whole.narrow(axis, size(x, axis), size(before, axis)).clone()


def _late(x: TensorType, before: TensorType, axis: int = 0) -> tuple[TensorType, TensorType]:
    _joined(x, before, axis)
    return x, before


@op("delay_extend(x: [*s], before: [*t], axis: int) -> (y: [*s], before: [*t])", infer=_late, own=("x", "before"), saves=None,
    samples=lambda: [{"x": floats(2, 5, 3), "before": floats(2, 4, 3), "axis": 1}, {"x": ints(9, 2, 1), "before": ints(9, 2, 3), "axis": 1},
                     {"x": floats(2, 3, 1), "before": floats(2, 1, 1), "axis": 1}])
def delay_extend(x, before, *, axis):
    """x as many positions later as there are in `before`, which come first, and what comes next."""
    whole = torch.cat([before, x], axis)
    n = size(x, axis)
    return whole.narrow(axis, 0, n), whole.narrow(axis, n, size(before, axis)).clone()


# ---------------------------------------------------------------- sums so far
def _sums(x: TensorType, total: TensorType, axis: int = -1) -> tuple[TensorType, TensorType]:
    a, whole = axis_of(axis, len(x.shape)), cumsum_type(x, axis)
    need_dtype(total, (whole.dtype,), "total", f"a total of the element type of the sums, {whole.dtype},")
    need_rank(total, (len(x.shape) - 1,), "total")
    for s, r in zip((*x.shape[:a], *x.shape[a + 1:]), total.shape, strict=True):
        need_equal(s, r, "the axes of `x` beside the summed one and those of `total`", "total")
    return whole, total


@op("cumsum_extend(x: [*s], total: [*t], axis: int = -1) -> (y: [*s], total: [*t])", infer=_sums, own=("x", "total"), saves=None,
    samples=lambda: [{"x": floats(2, 5, 3), "total": floats(2, 3), "axis": 1}, {"x": ints(5, 1, 4), "total": ints(5, 1)},
                     {"x": floats(1), "total": floats(), "axis": 0}])
def cumsum_extend(x, total, *, axis=-1):
    """`cumsum` behind earlier positions, whose sum is `total`: the sums, and their last."""
    y = torch.cumsum(x, axis) + torch.unsqueeze(total, axis)
    return y, total if same_size(size(x, axis), 0) else torch.select(y, axis, -1)


# ---------------------------------------------------------------- the last position
def _last(x: TensorType, axis: int = -2) -> TensorType:
    a = axis_of(axis, len(x.shape))
    return TensorType(x.dtype, (*x.shape[:a], *x.shape[a + 1:]))


def _last_of(time: dict[str, tuple[int, ...]], x: TensorType, axis: int = -2) -> Extension | None:
    if not time["x"]:
        return None
    if axis_of(axis, len(x.shape)) - len(x.shape) not in time["x"]:
        return None  # one position of another axis, for each of the stream's
    return Extension("last")


@op("last(x: [*s], axis: int = -2) -> [*t]", infer=_last, filled=True, view=True, stream=_last_of,
    samples=lambda: [{"x": floats(2, 5, 3)}, {"x": floats(1, 4), "axis": 0}, {"x": ints(5, 3, 1), "axis": -1}])
def last(x, *, axis=-2):
    """x at the last position of an axis, without that axis. Along the stream it is the last position of a call: what is made of it may not go
    back to the positions."""
    return torch.select(x, axis, -1)


# ---------------------------------------------------------------- earlier positions
@recurrent("shift(x: [..., T, d]) -> [..., T, d]", state={"before": "[..., d]"}, source="RWKV's token shift",
           samples=lambda: [{"x": floats(2, 5, 3)}, {"x": floats(1, 1, 4)}])
def shift(x, before):
    """Each position has the value of the one before; the first has 0."""
    return torch.cat([before[..., None, :], x[..., :-1, :]], -2), x[..., -1, :]


@shift.step
def _shift_step(x, before):
    return before, x


def _conv_macs(x: TensorType, weight: TensorType, **_: Any) -> Size:
    return volume(x.shape) * weight.shape[-1]


SHORT = 32
"""Taps up to which `causal_conv` adds shifted sequences up; beyond, torch's convolution is quicker."""
SPAN = 2**17
"""Numbers of a sequence that it adds up at a time."""


def need_taps(weight: TensorType, **_: Any) -> None:
    """A kernel reaches over one position at least."""
    if weight.shape[-1] == 0:
        raise OpError(f"a kernel has at least one tap, and this one is {weight}", "weight")


@recurrent("causal_conv(x: [..., T, c], weight: [c, k], bias: [c]? = none) -> [..., T, c]", state={"tail": "[..., k - 1, c]"}, macs=_conv_macs,
           roles={"k": "contract"}, source="causal-conv1d", fit=need_taps,
           samples=lambda: [{"x": floats(2, 7, 3), "weight": floats(3, 4)}, {"x": floats(1, 1, 5), "weight": floats(5, 3), "bias": floats(5)},
                            {"x": floats(2, 3, 5, 1), "weight": floats(1, 2), "bias": floats(1)},
                            {"x": floats(1, 3, 2), "weight": floats(2, 33), "bias": floats(2)}])
def causal_conv(x, weight, bias, tail):
    """Each channel's weighted sum of its last k positions, the newest last: y_t = Σ_j weight_j x_(t - k + 1 + j) + bias. Before the first position
    x is 0."""
    k, n = weight.shape[-1], x.shape[-2]
    if k > SHORT:
        return _long_conv(x, weight, bias, tail)
    given, taps = (_summable(tail), _summable(x)), _summable(weight).mT.contiguous()
    y = torch.empty_like(x, dtype=taps.dtype, memory_format=torch.contiguous_format)
    first = taps.new_zeros(()) if bias is None else _summable(bias)
    for at, end in _spans(x):
        for j in range(k):
            for lo, hi, source in _before(*given, at, end, k - 1 - j):
                sums = y[..., lo:hi, :]
                torch.addcmul(sums if j else first, source, taps[j], out=sums)
    return y.to(x.dtype), torch.cat([tail[..., n:, :], x[..., max(0, n - k + 1):, :]], -2)


@causal_conv.gradient
def _causal_conv_gradient(dy, later, x, weight, bias, tail):
    """Tap j passes a gradient at i on to i - k + 1 + j."""
    k, n = weight.shape[-1], x.shape[-2]
    if k > SHORT:
        return tuple(derived(_long_conv, [x, weight, bias, tail], [dy, later]))
    given, taps, dy = (_summable(tail), _summable(x)), _summable(weight).mT.contiguous(), _summable(dy)
    dx, spans = torch.empty_like(given[1], memory_format=torch.contiguous_format), _spans(x)
    sums = dx.new_zeros(k, *x.shape[:-2], max(end - at for at, end in spans), x.shape[-1])  # many, added up in turn, are one pass over memory
    for at, end in spans:
        torch.mul(dy[..., at:end, :], taps[-1], out=dx[..., at:end, :])
        for j in range(k):
            behind = dy[..., at + k - 1 - j:end + k - 1 - j, :]
            if j < k - 1:
                dx[..., at:at + behind.shape[-2], :].addcmul_(behind, taps[j])
            for lo, hi, source in _before(*given, at, end, k - 1 - j):
                sums[j, ..., :hi - lo, :].addcmul_(dy[..., lo:hi, :], source)
    dtail, kept = torch.zeros_like(given[0]), min(n, k - 1)
    for j in range(k - 1):
        reached = min(n, k - 1 - j)
        dtail[..., j:j + reached, :].addcmul_(dy[..., :reached, :], taps[j])
    dx[..., n - kept:, :] += later[..., k - 1 - kept:, :]
    dtail[..., n:, :] += later[..., :k - 1 - kept, :]
    return dx, sums.flatten(1, -2).sum(1).mT, None if bias is None else dy.flatten(0, -2).sum(0), dtail


def _before(tail, x, at, end, back):
    """What lies `back` positions before those from `at` to `end`, in one piece or two: (first, behind the last, the numbers in `tail` or x)."""
    cut, room = min(max(at, back), end), tail.shape[-2]
    pieces = (at, cut, tail[..., room + at - back:room + cut - back, :]), (cut, end, x[..., cut - back:end - back, :])
    return [piece for piece in pieces if piece[0] < piece[1]]


def _long_conv(x, weight, bias, tail):
    """`causal_conv` by torch's convolution."""
    long = torch.cat([tail, x], -2)
    flat = long.reshape(-1, long.shape[-2], x.shape[-1]).mT
    return F.conv1d(flat, weight[:, None, :], bias, groups=x.shape[-1]).mT.reshape(x.shape), long[..., x.shape[-2]:, :]


def _summable(x):
    """16-bit numbers as float32, in which many are added up."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _spans(x):
    """(first, behind the last) of positions that are computed at a time: on CPUs so few that they stay in the cache."""
    n = x.shape[-2]
    step = max(1, SPAN * n // x.numel()) if x.device.type == "cpu" else n
    return [(at, min(at + step, n)) for at in range(0, n, step)]


@causal_conv.step
def _causal_conv_step(x, weight, bias, tail):
    long = torch.cat([tail, x[..., None, :]], -2)
    y = torch.einsum("...kc,ck->...c", long, weight)
    return (y if bias is None else y + bias), long[..., 1:, :]
