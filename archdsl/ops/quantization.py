"""Fake quantisation: numbers on the grid of few bits, as floats."""
from __future__ import annotations

from typing import Any

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import axes_of, floats, need_count, need_float, size

LEAST, MOST = 2, 16


def _type(x: TensorType, bits: int, axes: tuple[int, ...] | None = None, group: int | None = None, symmetric: bool = True) -> TensorType:
    need_float(x)
    if not isinstance(bits, int) or not LEAST <= bits <= MOST:
        raise OpError(f"numbers are stored in {LEAST} to {MOST} bits here, not in {bits}", "bits", help="more bits: leave the numbers as they are")
    shared = axes_of(axes, len(x.shape))
    if group is None and 0 in [x.shape[a] for a in shared]:
        raise OpError(f"there is no scale of no numbers: {x}", "x")
    if group is not None:
        need_count(group, "group")
        last = x.shape[-1] if x.shape else 1
        if axes is not None:
            raise OpError("numbers share a scale along `axes` or in groups of the last axis, not both", "group")
        if not isinstance(last, int) or last % group:
            raise OpError(f"groups of {group} do not divide the last axis of {x}", "group", require=f"{last} % {group} == 0")
    return TensorType(x.dtype, x.shape)


def _stream(time: dict[str, Any], x: TensorType, axes: tuple[int, ...] | None = None, group: int | None = None, **_: Any) -> None:
    """Positions stay apart where no two of them share a scale."""
    rank = len(x.shape)
    mixed = (rank - 1,) if group is not None else axes_of(axes, rank)
    if any(a % rank in mixed for a in time.get("x", ())):
        raise OpError("numbers of several positions share a scale, so that of a position depends on later ones", "axes",
                      help="`axes = [-1]` gives each position a scale of its own")


@op("fake_quantize(x: [*s], bits: int, axes: list[int]? = none, group: int? = none, symmetric: bool = true) -> [*s]", infer=_type, grad="none",
    stream=_stream, filled=True, source="arxiv 1712.05877",
    samples=lambda: [{"x": floats(2, 5), "bits": 8}, {"x": floats(3, 4), "bits": 4, "axes": (1,)},
                     {"x": floats(2, 3, 8), "bits": 4, "group": 4, "symmetric": False}, {"x": floats(1, 1, 3), "bits": 2, "axes": (-1, 0),
                                                                                         "symmetric": False}])
def fake_quantize(x, *, bits, axes=None, group=None, symmetric=True):
    """The nearest to each number among those that `bits` bits and a scale can say; its gradient is zero: `straight_through(fake_quantize(x, 8), x)`.

    Numbers along `axes` share a scale (none: all of them), or each `group` of neighbours along the last axis. Symmetric: whole multiples, up to
    2^(bits-1) - 1, of max|x| / (2^(bits-1) - 1). Else 2^bits steps from min(x, 0) to max(x, 0), moved so that 0 is one of them. Rounded half to even;
    scales are float32 at least. Where a number is infinite or nan, all that share its scale are nan."""
    x = x.detach()
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if group is not None:
        wide = wide.unflatten(-1, (size(x, -1) // group, group))
    over = (-1,) if group is not None else axes
    if symmetric:
        most = 2 ** (bits - 1) - 1
        scale = _extreme(wide.abs(), "amax", over) / most
        levels = torch.round(wide / torch.where(scale > 0, scale, 1)).clamp(-most, most)
    else:
        most = 2**bits - 1
        low, high = _extreme(wide, "amin", over).clamp(max=0), _extreme(wide, "amax", over).clamp(min=0)
        scale = (high / 2 - low / 2) / most * 2  # their distance may be beyond floats
        unit = torch.where(scale > 0, scale, 1)
        zero = torch.round(-low / unit)
        levels = (torch.round(wide / unit) + zero).clamp(0, most) - zero
    y = (levels * scale).to(x.dtype)
    return (y.flatten(-2) if group is not None else y).contiguous()


def _extreme(x: Any, how: str, over: tuple[int, ...] | None) -> Any:
    return getattr(x, how)() if over is None else getattr(x, how)(tuple(over), keepdim=True)


def scales(shape: tuple[Any, ...], axes: tuple[int, ...] | None = None, group: int | None = None) -> Any:
    """How many scales numbers of this shape have."""
    from archdsl.dims import product

    if group is not None:
        return product(shape) // group
    shared = axes_of(axes, len(shape))
    return product([s for i, s in enumerate(shape) if i not in shared])
