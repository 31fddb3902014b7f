"""Ops that move values and compute nothing: rearranging, cutting, joining, padding, windows."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Dim, Size, ceildiv, conv_out, maximum, minimum
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import (
    axes_of,
    axis_of,
    bools,
    broadcast,
    chosen,
    each,
    equal,
    floats,
    ints,
    need_count,
    need_equal,
    promote,
    rank,
    replaced,
    size,
    volume,
)

Groups = tuple[tuple[int, ...], ...]


# ---------------------------------------------------------------- rearrange
def _rearrange(x: TensorType, sizes: tuple[Size, ...], ins: Groups, outs: Groups) -> TensorType:
    if len(ins) != len(x.shape):
        raise OpError(f"the layout has {len(ins)} axes, and the tensor {len(x.shape)}: {x}", "x")
    for group, s in zip(ins, x.shape):
        need_equal(volume(sizes[a] for a in group), s, "an axis and the product of its factors", "x")
    used = [a for group in outs for a in group]
    for a in (a for group in ins for a in group if a not in used):
        need_equal(sizes[a], 1, "an axis that the result leaves out, and 1", "x")
    return TensorType(x.dtype, tuple(volume(sizes[a] for a in group) for group in outs))


def _one_free(sizes: list[Any]) -> list[Any]:
    """One run-time size among fixed ones is left to torch (-1): the graph need not read it."""
    free = [i for i, s in enumerate(sizes) if not isinstance(s, int)]
    return [-1 if free and i == free[0] else s for i, s in enumerate(sizes)]


@op("rearrange(x: [*s], sizes: list[int], ins: list[list[int]], outs: list[list[int]]) -> [*t]", infer=_rearrange, view=True,
    samples=lambda: [{"x": floats(2, 3, 20), "sizes": (2, 3, 4, 5), "ins": ((0,), (1,), (2, 3)), "outs": ((0,), (2,), (1,), (3,))},
                     {"x": floats(2, 4, 3, 5), "sizes": (2, 4, 3, 5), "ins": ((0,), (1,), (2,), (3,)), "outs": ((0,), (2,), (1, 3))},
                     {"x": floats(2, 6, 6, 3), "sizes": (2, 3, 2, 2, 3, 3), "ins": ((0,), (1, 2), (3, 4), (5,)), "outs": ((0, 1, 3), (2, 4), (5,))},
                     {"x": floats(1, 4), "sizes": (1, 4, 3), "ins": ((0,), (1,)), "outs": ((2,), (1,))},
                     {"x": floats(3), "sizes": (3, 2), "ins": ((0,),), "outs": ((), (1, 0))},
                     {"x": floats(1, 1, 5), "sizes": (5,), "ins": ((), (), (0,)), "outs": ((0,),)}])
def rearrange(x, *, sizes, ins, outs):
    """Splits axes into atoms, permutes, repeats along new atoms and merges. `ins` and `outs` name the atoms of each axis, `sizes` their sizes;
    an atom that only `outs` has is new (the value repeats along it), one that only `ins` has, or an empty axis, has size 1."""
    for axis in reversed(range(len(ins))):
        if len(ins[axis]) > 1:
            x = torch.unflatten(x, axis, _one_free([sizes[a] for a in ins[axis]]))
    atoms: list[int | None] = [a for group in ins for a in (group or (None,))]
    goal = [a for group in outs for a in group]
    gone = tuple(i for i, a in enumerate(atoms) if a not in goal)
    x = x.squeeze(gone) if gone else x
    have = [a for a in atoms if a in goal]
    order = [have.index(a) for a in goal if a in have]
    moved = [i for i, o in enumerate(order) if i != o]
    if moved:
        x = x.transpose(*moved) if len(moved) == 2 else x.permute(order)
    for i, a in enumerate(goal):
        x = x if a in have else x.unsqueeze(i)
    if any(a not in have and not (isinstance(sizes[a], int) and sizes[a] == 1) for a in goal):
        x = x.expand([-1 if a in have else sizes[a] for a in goal])
    for axis, group in enumerate(outs):
        if len(group) > 1:
            x = x.flatten(axis, axis + len(group) - 1)
        elif not group:
            x = x.unsqueeze(axis)
    return x


def _expand(x: TensorType, shape: tuple[Size, ...]) -> TensorType:
    out = broadcast(x.shape, shape, about="shape")
    if len(out) != len(shape) or any(equal(a, b) is not True for a, b in zip(out, shape)):
        raise OpError(f"{x} does not repeat to [{', '.join(map(str, shape))}]", "shape")
    return TensorType(x.dtype, tuple(shape))


@op("expand(x: [*s], shape: list[int]) -> [*t]", infer=_expand, view=True,
    samples=lambda: [{"x": floats(3, 1), "shape": (2, 3, 5)}, {"x": floats(1), "shape": (1,)}, {"x": floats(), "shape": (2,)},
                     {"x": floats(), "shape": ()}])
def expand(x, *, shape):
    """x repeated along new leading axes and axes of size 1."""
    return x.expand(tuple(shape)) if len(shape) else x


# ---------------------------------------------------------------- join and cut
def _concat(xs: tuple[TensorType, ...], axis: int = -1) -> TensorType:
    first = xs[0]
    a = axis_of(axis, len(first.shape))
    for i, x in enumerate(xs[1:], 2):
        if len(x.shape) != len(first.shape):
            raise OpError(f"tensor 1 has {len(first.shape)} axes, tensor {i} has {len(x.shape)}: {first} and {x}", "xs")
        for k, (s, t) in enumerate(zip(first.shape, x.shape)):
            if k != a:
                need_equal(s, t, f"axis {k} of tensor 1 and of tensor {i}", "xs")
    total: Size = 0
    for x in xs:
        total = total + x.shape[a]
    return TensorType(_joined(xs), replaced(first.shape, a, total))


def _joined(xs: tuple[TensorType, ...]) -> str:
    return promote(*(TensorType(x.dtype, (1,)) for x in xs))


@op("concat(xs: list[[*s]], axis: int = -1) -> [*t]", infer=_concat,
    samples=lambda: [{"xs": (floats(2, 3), floats(2, 1)), "axis": 1}, {"xs": (floats(1), floats(4), floats(2))}, {"xs": (floats(1, 2),), "axis": 0}])
def concat(xs, *, axis=-1):
    """The tensors one after another along an axis."""
    return torch.cat(xs, axis)


def _stack(xs: tuple[TensorType, ...], axis: int = 0) -> TensorType:
    a = axis_of(axis, len(xs[0].shape) + 1)
    for i, x in enumerate(xs[1:], 2):
        if len(x.shape) != len(xs[0].shape):
            raise OpError(f"tensor 1 is {xs[0]}, tensor {i} is {x}", "xs")
        for k, (s, t) in enumerate(zip(xs[0].shape, x.shape)):
            need_equal(s, t, f"axis {k} of tensor 1 and of tensor {i}", "xs")
    return TensorType(_joined(xs), (*xs[0].shape[:a], len(xs), *xs[0].shape[a:]))


@op("stack(xs: list[[*s]], axis: int = 0) -> [*t]", infer=_stack,
    samples=lambda: [{"xs": (floats(2, 3), floats(2, 3))}, {"xs": (floats(1), floats(1)), "axis": -1}, {"xs": (floats(2, 3),), "axis": 1}])
def stack(xs, *, axis=0):
    """The tensors side by side along a new axis."""
    return torch.stack(xs, axis)


MAX_PARTS = 10_000  # each is a result of its own


def _split(x: TensorType, sizes: Any, axis: int = -1) -> tuple[TensorType, ...]:
    a = axis_of(axis, len(x.shape))
    if not isinstance(sizes, tuple):
        from archdsl.shapes import divide

        need_count(sizes, "sizes")
        if sizes > MAX_PARTS:
            raise OpError(f"{sizes:,} parts are too many: at most {MAX_PARTS:,}", "sizes")
        part = divide(x.shape[a], sizes)
        if part is None:
            raise OpError(f"axis {axis} ({x.shape[a]}) cannot be split into {sizes} equal parts", "sizes")
        sizes = (part,) * sizes
    total: Size = 0
    for s in sizes:
        total = total + s
    need_equal(total, x.shape[a], f"the sum of `sizes` and axis {axis}", "sizes")
    return tuple(TensorType(x.dtype, replaced(x.shape, a, s)) for s in sizes)


@op("split(x: [*s], sizes: int | list[int], axis: int = -1) -> [*t]", infer=_split, view=True,
    samples=lambda: [{"x": floats(2, 6), "sizes": (1, 2, 3)}, {"x": floats(9, 2), "sizes": 3, "axis": 0}, {"x": floats(1), "sizes": 1}])
def split(x, *, sizes, axis=-1):
    """x cut along an axis into parts of the given sizes, or into that many equal parts. One result per part."""
    return torch.chunk(x, sizes, axis) if isinstance(sizes, int) else torch.split(x, list(sizes), axis)


def _bound(value: Any, n: Size, default: Size) -> Size:
    """A slice end as Python reads it: negative from the end, clipped to the axis."""
    from archdsl.shapes import facts

    if value is None:
        return default
    if value < 0 if isinstance(value, int) else facts().at_least(-1, value):
        return maximum(n + value, 0)
    return minimum(value, n)


_PLACES = {"new": 1, "int": 2, "slice": 4}


def _slice(x: TensorType, items: tuple[tuple[Any, ...], ...]) -> TensorType:
    shape: list[Size] = []
    axes = iter(x.shape)
    if not isinstance(items, tuple) or not all(isinstance(i, tuple) and i and _PLACES.get(i[0]) == len(i) for i in items):
        raise OpError("places are written `x[…]`", "items")
    for kind, *rest in items:
        if any(v is not None and (not isinstance(v, (int, Dim)) or isinstance(v, bool)) for v in rest):
            raise OpError("places are whole numbers", "items")
        if kind == "new":
            shape.append(1)
            continue
        n = next(axes, None)
        if n is None:
            raise OpError(f"there are more indices than axes: {x}", "items")
        if kind == "int":
            if isinstance(n, int) and isinstance(rest[0], int) and not -n <= rest[0] < n:
                raise OpError(f"there is no position {rest[0]} on an axis of {n}", "items")
            continue
        start, stop, step = rest
        if step is not None and not isinstance(step, int):
            raise OpError(f"a step has to be known when the model is built, this is {step}", "items")
        if step is not None and step < 1:
            raise OpError("a step must be positive", "items", help="`flip` turns an axis round")
        if step is not None and step >= 2**31:
            raise OpError(f"a step is below 2**31, this is {step:,}", "items")
        length = _bound(stop, n, n) - _bound(start, n, 0)
        shape.append(maximum(ceildiv(length, step or 1), 0))
    return TensorType(x.dtype, (*shape, *axes))


@op("slice(x: [*s], items: list[str]) -> [*t]", infer=_slice, own=("items",), view=True, keeps=True,
    samples=lambda: [{"x": floats(4, 7, 3), "items": (("slice", None, -1, None), ("slice", 1, 6, 2))},
                     {"x": floats(2, 5), "items": (("int", -1), ("new",))},
                     {"x": floats(1, 3), "items": (("slice", None, None, None), ("slice", 5, None, None))},
                     {"x": floats(6), "items": (("slice", -4, 9, 3),)}])
def slice_(x, *, items):
    """x[…]: each item is ("slice", start, stop, step), ("int", position) or ("new",); axes not named are taken whole."""
    index = tuple(None if kind == "new" else rest[0] if kind == "int" else slice(*rest) for kind, *rest in items)
    return x[index]


# ---------------------------------------------------------------- pad, roll, flip
_PAD_MODES = ("constant", "reflect", "replicate", "circular")


def _pad_widths(x: TensorType, widths: tuple[tuple[Size, Size], ...], mode: str, value: float) -> TensorType:
    if mode not in _PAD_MODES:
        raise OpError(f"there is no padding `{mode}`", "mode", help=f"it is one of {', '.join(_PAD_MODES)}")
    if len(widths) != len(x.shape):
        raise OpError(f"`widths` has {len(widths)} pairs for {len(x.shape)} axes", "widths", help="give one pair (before, after) for each axis")
    for (before, after), s in zip(widths, x.shape):
        for w in (before, after):
            if mode == "reflect" and isinstance(w, int) and isinstance(s, int) and w >= s:
                raise OpError(f"reflection by {w} needs an axis of at least {w + 1}, and this has {s}", "widths")
    if mode != "constant" and value:
        raise OpError(f"padding `{mode}` takes no value", "value")
    if mode != "constant" and x.dtype == "bool":
        raise OpError(f"padding `{mode}` needs numbers, and this is {x}", "x")
    if mode != "constant" and not 2 <= len(x.shape) <= 5:
        raise OpError(f"padding `{mode}` needs 2 to 5 axes, and this is {x}", "x", help="`rearrange` joins and splits axes")
    padded = [i for i, w in enumerate(widths) if w != (0, 0)]
    if mode != "constant" and padded and len(x.shape) - padded[0] > min(3, max(1, len(x.shape) - 1)):
        raise OpError(f"padding `{mode}` reaches the last {min(3, max(1, len(x.shape) - 1))} axes only", "widths")
    return TensorType(x.dtype, tuple(s + b + a for s, (b, a) in zip(x.shape, widths)))


def _flat(widths: Any, mode: str = "constant") -> list[Any]:
    """Torch's order: the last axis first, leading axes without padding left out (but for batch and channels, the other modes want all)."""
    widths = list(widths)
    least = 1 if mode == "constant" else max(1, len(widths) - 2)
    while len(widths) > least and all(isinstance(w, int) and w == 0 for w in widths[0]):
        widths.pop(0)
    return [w for pair in reversed(widths) for w in pair]


def _pad_saves(x: TensorType, mode: str = "constant", **_: Any) -> tuple[str, ...]:
    return ("x",) if mode in ("reflect", "replicate") else ()


def _pad(x: TensorType, widths: Any, mode: str = "constant", value: float = 0) -> TensorType:
    if mode != "constant" and 0 in x.shape:
        raise OpError(f"there is nothing in {x} to fill with", "x")
    return _pad_widths(x, widths, mode, value)


@op('pad(x: [*s], widths: list[(int, int)], mode: "constant" | "reflect" | "replicate" | "circular" = "constant", value: float = 0) -> [*t]',
    infer=_pad, saves=_pad_saves,
    samples=lambda: [{"x": floats(2, 3, 5), "widths": ((0, 0), (1, 0), (2, 3)), "value": 1.5},
                     {"x": floats(1, 4, 3), "widths": ((0, 0), (0, 0), (2, 1)), "mode": "reflect"},
                     {"x": floats(1, 2, 4, 3), "widths": ((0, 0), (0, 0), (1, 2), (2, 1)), "mode": "replicate"},
                     {"x": floats(1, 2, 4), "widths": ((0, 0), (0, 0), (0, -1)), "mode": "constant"},
                     {"x": floats(1, 2, 4), "widths": ((0, 0), (0, 0), (1, 2)), "mode": "circular"}])
def pad(x, *, widths, mode="constant", value=0):
    """x with `widths[i] = (before, after)` more positions on axis i: a value, the reflected inside, the edge, or the other end. Every axis has a
    pair, (0, 0) where nothing is added; negative ones cut. `pad_to` takes the axes alone."""
    return F.pad(x, _flat(widths, mode), **chosen(mode=(mode, "constant"), value=(value, 0)))


def _to_multiple(x: TensorType, multiple: Any, axes: Any) -> dict[int, int]:
    chosen = axes_of(axes, len(x.shape))
    return dict(zip(chosen, each(multiple, len(chosen), "multiple", known=True)))


def _pad_to(x: TensorType, multiple: Any, axes: Any, mode: str = "constant", value: float = 0) -> TensorType:
    by_axis = _to_multiple(x, multiple, axes)
    out = tuple(ceildiv(s, by_axis[i]) * by_axis[i] if i in by_axis else s for i, s in enumerate(x.shape))
    _pad_widths(x, tuple((0, o - s) for o, s in zip(out, x.shape)), mode, value)
    return TensorType(x.dtype, out)


def _pad_to_saves(x: TensorType, multiple: Any, axes: Any, mode: str = "constant", value: float = 0) -> tuple[str, ...]:
    return _pad_saves(x, mode)


@op('pad_to(x: [*s], multiple: int | list[int], axes: int | list[int], mode: "constant" | "reflect" | "replicate" | "circular" = "constant", '
    'value: float = 0) -> [*t]', infer=_pad_to, saves=_pad_to_saves, keeps=True,
    samples=lambda: [{"x": floats(2, 3, 5, 7), "multiple": 4, "axes": (2, 3)},
                     {"x": floats(1, 2, 5, 6), "multiple": (3, 4), "axes": (-2, -1), "mode": "reflect"},
                     {"x": floats(4), "multiple": 4, "axes": 0}])
def pad_to(x, *, multiple, axes, mode="constant", value=0):
    """x padded at the end of `axes` to the next multiple."""
    n = rank(x)
    axes = [axes % n] if isinstance(axes, int) else [a % n for a in axes]
    steps = dict(zip(axes, [multiple] * len(axes) if isinstance(multiple, int) else multiple))
    widths = [(0, -size(x, i) % steps[i]) if i in steps else (0, 0) for i in range(n)]
    return F.pad(x, _flat(widths, mode), **chosen(mode=(mode, "constant"), value=(value, 0)))


def _rolled(x: TensorType, shifts: Any, axes: Any) -> TensorType:
    each(shifts, len(axes_of(axes, len(x.shape))), "shifts", -(2**63))
    return TensorType(x.dtype, x.shape)


def _same(x: TensorType, axes: Any = None, **_: Any) -> TensorType:
    axes_of(axes, len(x.shape))
    return TensorType(x.dtype, x.shape)


@op("roll(x: [*s], shifts: int | list[int], axes: int | list[int]) -> [*s]", infer=_rolled,
    samples=lambda: [{"x": floats(2, 3, 5), "shifts": (1, -2), "axes": (1, 2)}, {"x": floats(2, 3), "shifts": 1, "axes": (0, 1)},
                     {"x": floats(1), "shifts": 3, "axes": 0}])
def roll(x, *, shifts, axes):
    """y[i + shift] = x[i], round the end."""
    return torch.roll(x, shifts if isinstance(shifts, tuple) or not isinstance(axes, tuple) else (shifts,) * len(axes), axes)


@op("flip(x: [*s], axes: int | list[int]) -> [*s]", infer=_same,
    samples=lambda: [{"x": floats(2, 3, 5), "axes": (0, -1)}, {"x": ints(3, 1), "axes": 0}])
def flip(x, *, axes):
    """x with `axes` turned round."""
    return torch.flip(x, [axes] if isinstance(axes, int) else list(axes))


# ---------------------------------------------------------------- windows
def _windows(x: TensorType, size: Any, stride: Any = None, pad: Any = 0, axes: Any = -1) -> TensorType:
    chosen = axes_of(axes, len(x.shape))
    n = len(chosen)
    shape, sizes = list(x.shape), each(size, n, "size")
    for a, k, s, p in zip(chosen, sizes, each(size if stride is None else stride, n, "stride"), each(pad, n, "pad", 0, True)):
        shape[a] = count = conv_out(shape[a], k, s, p)
        if isinstance(count, int) and count < 1:
            raise OpError(f"a window of {k} does not fit on an axis of {x.shape[a]}", "size")
    return TensorType(x.dtype, (*shape, *sizes))


def _per_axis(axes: Any, n: int, *values: Any) -> list[tuple[int, ...]]:
    axes = [axes % n] if isinstance(axes, int) else [a % n for a in axes]
    return list(zip(axes, *(v if isinstance(v, (tuple, list)) else [v] * len(axes) for v in values)))


@op("unfold(x: [*s], size: int | list[int], stride: int | list[int]? = none, pad: int | list[int] = 0, axes: int | list[int] = -1) -> [*t]",
    infer=_windows, view=True, roles={"s": "mix"},
    samples=lambda: [{"x": floats(2, 3, 7, 9), "size": 3, "stride": (2, 1), "pad": 1, "axes": (2, 3)}, {"x": floats(1, 6), "size": 2},
                     {"x": floats(1, 1), "size": 1, "axes": 0}])
def unfold(x, *, size, stride=None, pad=0, axes=-1):
    """The windows along `axes`: each axis then counts windows, and the positions inside follow as new last axes, in the order of `axes`.
    Padding is with zeros; the stride is the window's size unless given."""
    n = rank(x)
    windows = _per_axis(axes, n, size, size if stride is None else stride, pad)
    widths = {a: (p, p) for a, _, _, p in windows if p}
    if widths:
        x = F.pad(x, _flat([widths.get(a, (0, 0)) for a in range(n)]))
    for a, k, s, _ in windows:
        x = x.unfold(a, k, s)
    return x


def _fold(x: TensorType, out: Any, stride: Any = None, pad: Any = 0, axes: Any = -1) -> TensorType:
    n = len(axes) if isinstance(axes, tuple) else 1
    kept, sizes = x.shape[:-n], x.shape[-n:]
    chosen, outs = axes_of(axes, len(kept)), each(out, n, "out")
    shape = list(kept)
    for a, o in zip(chosen, outs):
        shape[a] = o
    expected = _windows(TensorType(x.dtype, tuple(shape)), sizes, sizes if stride is None else stride, pad, chosen)
    for a in chosen:
        need_equal(expected.shape[a], x.shape[a], f"the windows on an axis of {shape[a]} and axis {a} of `x`", "out")
    return TensorType(x.dtype, tuple(shape))


@op("fold(x: [*s], out: int | list[int], stride: int | list[int]? = none, pad: int | list[int] = 0, axes: int | list[int] = -1) -> [*t]",
    infer=_fold, roles={"s": "mix"},
    samples=lambda: [{"x": floats(2, 3, 4, 9, 3, 3), "out": (7, 9), "stride": (2, 1), "pad": 1, "axes": (2, 3)}, {"x": floats(1, 3, 2), "out": 6},
                     {"x": floats(1, 1, 1), "out": 1, "axes": 0}])
def fold(x, *, out, stride=None, pad=0, axes=-1):
    """Puts windows back where `unfold` took them and adds where they overlap: the transpose of `unfold` as a linear map. `out`: sizes of `axes`."""
    count = 1 if isinstance(axes, int) else len(axes)
    n = rank(x) - count
    sizes = [size(x, n + i) for i in range(count)]
    windows = _per_axis(axes, n, out if isinstance(out, (tuple, list)) else [out] * count, sizes, sizes if stride is None else stride, pad)
    shape = [size(x, i) for i in range(n + count)]
    for a, o, k, s, p in reversed(windows):
        shape = shape[:-1]
        shape[a] = o + 2 * p
        x = torch.ops.aten.unfold_backward(x, list(shape), a, k, s)
    for a, o, _, _, p in windows:
        x = x.narrow(a, p, o) if p else x
    return x


def _repeated(x: TensorType, repeats: Size, axis: int = -1) -> TensorType:
    a = axis_of(axis, len(x.shape))
    return TensorType(x.dtype, replaced(x.shape, a, x.shape[a] * repeats))


@op("repeat_interleave(x: [*s], repeats: int, axis: int = -1) -> [*t]",
    infer=_repeated,
    samples=lambda: [{"x": floats(2, 3), "repeats": 2}, {"x": bools(1, 3), "repeats": 3, "axis": 0}])
def repeat_interleave(x, *, repeats, axis=-1):
    """Each position `repeats` times in a row along an axis."""
    return torch.repeat_interleave(x, repeats, axis)
