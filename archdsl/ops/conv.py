"""Convolutions, pools and resizing over the axes after batch and channels: [B, c, *s] with one, two or three axes in `s`."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size, conv_out, conv_transpose_out, pool_out
from archdsl.graph import TensorType
from archdsl.lazy import F
from archdsl.ops.registry import OpError, Window, op
from archdsl.ops.rules import chosen, each, floats, need_count, need_equal, need_float, need_rank, rank, same_dtype, volume

Numbers = int | tuple[int, ...]


def _divides(n: int, size: Size, what: str, about: str) -> Size:
    from archdsl.shapes import divide

    need_count(n, about)
    part = divide(size, n)
    if part is None:
        raise OpError(f"{what} ({size}) cannot be split into {n} groups of one size", about)
    return part


def _positive(size: Size, x: Size, kernel: Size) -> Size:
    if isinstance(size, int) and size < 1:
        raise OpError(f"the map is too small: a kernel of {kernel} does not fit on an axis of {x}", "x", help="use a smaller kernel or more padding")
    return size


# ---------------------------------------------------------------- convolution
def _conv(x: TensorType, weight: TensorType, bias: TensorType | None = None, stride: Numbers = 1, pad: Numbers | str = 0, dilation: Numbers = 1,
          groups: int = 1) -> TensorType:
    dtype = same_dtype(x=x, weight=weight, bias=bias)
    need_rank(x, (3, 4, 5))
    need_rank(weight, (len(x.shape),), "weight")
    need_equal(_divides(groups, x.shape[1], "the channels of `x`", "groups"), weight.shape[1],
               "the channels of a group and the second axis of `weight`", "weight")
    _divides(groups, weight.shape[0], "the channels of the result", "groups")
    if bias is not None:
        need_rank(bias, (1,), "bias")
        need_equal(bias.shape[0], weight.shape[0], "the length of `bias` and the first axis of `weight`", "bias")
    n = len(x.shape) - 2
    strides, dilations = each(stride, n, "stride", known=True), each(dilation, n, "dilation", known=True)
    if pad == "same":
        if strides != (1,) * n:
            raise OpError('`pad = "same"` needs stride 1', "pad", help="give the padding as a number")
        return TensorType(dtype, (x.shape[0], weight.shape[0], *x.shape[2:]))
    windows = (weight.shape[2:], strides, each(pad, n, "pad", 0, True), dilations)
    sizes = [_positive(conv_out(s, *window), s, window[0]) for s, *window in zip(x.shape[2:], *windows)]
    return TensorType(dtype, (x.shape[0], weight.shape[0], *sizes))


def _along_stream(time: dict[str, tuple[int, ...]], x: TensorType, kernel: tuple[Size, ...], stride: Numbers, pad: Numbers | str,
                  dilation: Numbers = 1) -> tuple[int, int, int, tuple[int, ...]] | None:
    """(axis, positions before, positions behind, padding of all axes but that one) of a window that slides along the stream; None where none does."""
    rank = len(x.shape)
    axes = [a + rank for a in time.get("x", ())]
    if len(axes) != 1 or not 2 <= axes[0] < rank:
        return None
    at, n = axes[0] - 2, rank - 2
    if each(stride, n, "stride")[at] != 1:
        raise OpError(f"it gives one result for {each(stride, n, 'stride')[at]} positions, and a stream has one for each", "stride",
                      help="convolutions along the stream have a stride of 1")
    spans = [d * (k - 1) for k, d in zip(kernel, each(dilation, n, "dilation"))]  # type: ignore[operator]
    span = spans[at]
    if not isinstance(span, int):
        raise OpError(f"its kernel reaches over {kernel[at]} positions, a number that is not known")
    if pad == "same" and any(s % 2 for i, s in enumerate(spans) if i != at):  # type: ignore[operator]
        raise OpError('`pad = "same"` of a kernel of even size beside the stream is not the same on both sides', "pad")
    pads = tuple(s // 2 for s in spans) if pad == "same" else each(pad, n, "pad", 0)  # type: ignore[operator]
    return axes[0], pads[at], span - pads[at], tuple(0 if i == at else p for i, p in enumerate(pads))  # type: ignore[return-value]


def _conv_stream(time: dict[str, tuple[int, ...]], x: TensorType, weight: TensorType, bias: TensorType | None = None, stride: Numbers = 1,
                 pad: Numbers | str = 0, dilation: Numbers = 1, groups: int = 1) -> Window | None:
    if time.get("weight") or time.get("bias"):
        raise OpError("its weights differ from position to position")
    found = _along_stream(time, x, weight.shape[2:], stride, pad, dilation)
    return None if found is None else Window(*found[:3], {"pad": found[3]})


def _conv_macs(x: TensorType, weight: TensorType, bias: TensorType | None = None, **attrs: Any) -> Size:
    return _conv(x, weight, bias, **attrs).numel * volume(weight.shape[1:])


@op('conv(x: [B, c, *s], weight: [o, i, *k], bias: [o]? = none, stride: int | list[int] = 1, pad: int | list[int] | "same" = 0, '
    'dilation: int | list[int] = 1, groups: int = 1) -> [B, o, *t]', infer=_conv, filled=True, macs=_conv_macs, saves=("x", "weight"),
    stream=_conv_stream, roles={"c": "grouped", "i": "contract", "s": "mix"},
    samples=lambda: [{"x": floats(2, 6, 7, 9), "weight": floats(4, 6, 3, 3), "bias": floats(4), "stride": 2, "pad": 1},
                     {"x": floats(1, 4, 7, 5), "weight": floats(4, 1, 7, 7), "pad": "same", "groups": 4},
                     {"x": floats(1, 4, 11), "weight": floats(6, 2, 3), "pad": (2,), "dilation": 2, "groups": 2},
                     {"x": floats(1, 2, 3, 4, 5), "weight": floats(3, 2, 3, 2, 1), "bias": floats(3), "stride": (1, 2, 3)},
                     {"x": floats(1, 1, 1), "weight": floats(1, 1, 1)}])
def conv(x, weight, bias=None, *, stride=1, pad=0, dilation=1, groups=1):
    """y[b, o, t] = bias[o] + Σ_{c, j} weight[o, c, j] x[b, g(o) + c, stride·t + dilation·j - pad]; `groups` splits the channels, weight is
    [out, c / groups, kernel…]. Odd maps lose their last rows (floor)."""
    options = chosen(stride=(stride, 1), padding=(pad, 0), dilation=(dilation, 1), groups=(groups, 1))
    return (F.conv1d, F.conv2d, F.conv3d)[rank(weight) - 3](x, weight, bias, **options)


def _conv_transpose(x: TensorType, weight: TensorType, bias: TensorType | None = None, stride: Numbers = 1, pad: Numbers = 0, output_pad: Numbers = 0,
                    dilation: Numbers = 1, groups: int = 1) -> TensorType:
    dtype = same_dtype(x=x, weight=weight, bias=bias)
    need_rank(x, (3, 4, 5))
    need_rank(weight, (len(x.shape),), "weight")
    need_equal(x.shape[1], weight.shape[0], "the channels of `x` and the first axis of `weight`", "weight")
    _divides(groups, x.shape[1], "the channels of `x`", "groups")
    out = groups * weight.shape[1]
    if bias is not None:
        need_rank(bias, (1,), "bias")
        need_equal(bias.shape[0], out, "the length of `bias` and the channels of the result", "bias")
    n = len(x.shape) - 2
    strides, dilations = each(stride, n, "stride", known=True), each(dilation, n, "dilation", known=True)
    windows = (weight.shape[2:], strides, each(pad, n, "pad", 0, True), dilations, each(output_pad, n, "output_pad", 0, True))
    if any(p >= max(s, d) for p, s, d in zip(windows[-1], strides, dilations)):
        raise OpError(f"`output_pad` ({output_pad}) is smaller than the stride or the dilation", "output_pad")
    sizes = [_positive(conv_transpose_out(s, *window), s, window[0]) for s, *window in zip(x.shape[2:], *windows)]
    return TensorType(dtype, (x.shape[0], out, *sizes))


@op("conv_transpose(x: [B, c, *s], weight: [c, o, *k], bias: [p]? = none, stride: int | list[int] = 1, pad: int | list[int] = 0, "
    "output_pad: int | list[int] = 0, dilation: int | list[int] = 1, groups: int = 1) -> [B, p, *t]", infer=_conv_transpose, filled=True,
    macs=lambda x, weight, bias=None, **attrs: x.numel * volume(weight.shape[1:]), saves=("x", "weight"),
    roles={"c": "contract", "s": "mix"},
    samples=lambda: [{"x": floats(2, 4, 5, 3), "weight": floats(4, 3, 2, 2), "bias": floats(3), "stride": 2},
                     {"x": floats(1, 4, 7), "weight": floats(4, 2, 3), "stride": 2, "pad": 1, "output_pad": 1, "groups": 2},
                     {"x": floats(1, 1, 1, 1, 1), "weight": floats(1, 2, 2, 2, 2)}])
def conv_transpose(x, weight, bias=None, *, stride=1, pad=0, output_pad=0, dilation=1, groups=1):
    """The transpose of `conv` as a linear map: spreads each position over a kernel and adds. weight: [c, out / groups, kernel…]."""
    options = chosen(stride=(stride, 1), padding=(pad, 0), output_padding=(output_pad, 0), dilation=(dilation, 1), groups=(groups, 1))
    return (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank(weight) - 3](x, weight, bias, **options)


# ---------------------------------------------------------------- pools
def _pool(x: TensorType, size: Numbers, stride: Numbers | None = None, pad: Numbers = 0, ceil_mode: bool = False, **_: Any) -> TensorType:
    need_float(x)
    need_rank(x, (3, 4, 5))
    n = len(x.shape) - 2
    windows, pads = each(size, n, "size"), each(pad, n, "pad", 0, True)
    if any(isinstance(k, int) and 2 * p > k for k, p in zip(windows, pads)):
        raise OpError(f"padding of {pad} is more than half the window of {size}", "pad")
    sizes = zip(x.shape[2:], windows, each(size if stride is None else stride, n, "stride"), pads)
    return TensorType(x.dtype, (*x.shape[:2], *(_positive(pool_out(s, k, st, p, ceil_mode), s, k) for s, k, st, p in sizes)))


def _avg_pool(x: TensorType, size: Numbers, **rest: Any) -> TensorType:
    out = _pool(x, size, **rest)
    windows = each(size, len(x.shape) - 2, "size")
    if len(windows) == 3 and any(isinstance(s, int) and isinstance(k, int) and s < k for s, k in zip(x.shape[2:], windows)):
        raise OpError(f"a window of {size} is larger than the map {x}: torch pads it for one and two axes only", "size")
    return out


def _pool_stream(time: dict[str, tuple[int, ...]], x: TensorType, size: Numbers, stride: Numbers | None = None, pad: Numbers = 0,
                 ceil_mode: bool = False, count_include_pad: bool | None = None) -> Window | None:
    """A pool whose windows overlap; padding is no maximum, and counts as zeros in means."""
    found = _along_stream(time, x, each(size, len(x.shape) - 2, "size"), size if stride is None else stride, pad)
    if found is None:
        return None
    if count_include_pad is False and any(found[1:3]):
        raise OpError("its means are of fewer numbers at the ends", "count_include_pad")
    return Window(*found[:3], {"pad": found[3]}, outside=float("-inf") if count_include_pad is None else 0)


_POOLED: dict[str, Any] = {"stream": _pool_stream, "infer": _pool, "filled": True, "roles": {"s": "mix"}}


def _pool_samples() -> list[dict[str, Any]]:
    return [{"x": floats(2, 3, 7, 9), "size": 3, "stride": 2, "pad": 1}, {"x": floats(1, 2, 7, 6), "size": (3, 2), "ceil_mode": True},
            {"x": floats(1, 2, 5), "size": 2}, {"x": floats(1, 1, 3, 4, 5), "size": 2, "stride": 1},
            {"x": floats(1, 1, 6, 6), "size": 2, "stride": 3, "pad": 1,
                                                                                                    "ceil_mode": True}]


@op("max_pool(x: [B, c, *s], size: int | list[int], stride: int | list[int]? = none, pad: int | list[int] = 0, "
    "ceil_mode: bool = false) -> [B, c, *t]",
    saves=lambda x, **attrs: ("x", TensorType("int", _pool(x, **attrs).shape)), samples=_pool_samples, **_POOLED)
def max_pool(x, *, size, stride=None, pad=0, ceil_mode=False):
    """The maximum of each window; the stride is the window's size unless given."""
    options = chosen(stride=(stride, None), padding=(pad, 0), ceil_mode=(ceil_mode, False))
    return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank(x) - 3](x, size, **options)


@op("avg_pool(x: [B, c, *s], size: int | list[int], stride: int | list[int]? = none, pad: int | list[int] = 0, ceil_mode: bool = false, "
    "count_include_pad: bool = true) -> [B, c, *t]", saves=("x",),
    samples=lambda: [*_pool_samples(), {"x": floats(1, 2, 5, 5), "size": 3, "pad": 1, "count_include_pad": False}], **{**_POOLED, "infer": _avg_pool})
def avg_pool(x, *, size, stride=None, pad=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window; padding counts as zeros unless `count_include_pad` is false."""
    options = chosen(stride=(stride, None), padding=(pad, 0), ceil_mode=(ceil_mode, False), count_include_pad=(count_include_pad, True))
    return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank(x) - 3](x, size, **options)


# ---------------------------------------------------------------- resize
_MODES = {"nearest": (1, 2, 3), "nearest_exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1, 2, 3), "bicubic": (2,)}
_LINEAR = ("linear", "bilinear", "trilinear")


def _resize(x: TensorType, size: Any, mode: str = "linear", align_corners: bool = False, antialias: bool = False) -> TensorType:
    need_float(x)
    need_rank(x, (3, 4, 5))
    n = len(x.shape) - 2
    if n not in _MODES.get(mode, ()):
        raise OpError(f"there is no resizing `{mode}` of {n} axes", "mode", help=f"it is one of {', '.join(m for m, k in _MODES.items() if n in k)}")
    if antialias and (n != 2 or mode not in ("linear", "bicubic")):
        raise OpError("antialiasing needs two axes and the mode linear or bicubic", "antialias")
    if align_corners and mode not in ("linear", "bicubic"):
        raise OpError("`align_corners` needs the mode linear or bicubic", "align_corners")
    return TensorType(x.dtype, (*x.shape[:2], *each(size, n, "size")))


@op('resize(x: [B, c, *s], size: int | list[int], mode: "nearest" | "nearest_exact" | "area" | "linear" | "bicubic" = "linear", '
    'align_corners: bool = false, antialias: bool = false) -> [B, c, *t]', infer=_resize, filled=True, roles={"s": "mix"},
    saves=lambda x, mode="linear", **attrs: ("x",) if mode == "area" else (),
    samples=lambda: [{"x": floats(2, 3, 5, 7), "size": (8, 3)}, {"x": floats(1, 1, 4, 4), "size": (7, 7), "mode": "bicubic", "antialias": True},
                     {"x": floats(1, 2, 5), "size": 9, "align_corners": True}, {"x": floats(1, 2, 5, 5), "size": (2, 3), "mode": "nearest"},
                     {"x": floats(1, 1, 5, 5), "size": (2, 3), "mode": "area"}, {"x": floats(1, 1, 1, 2, 3), "size": (2, 2, 2)}])
def resize(x, *, size, mode="linear", align_corners=False, antialias=False):
    """Interpolates the axes after the channels to `size`; `linear` is bilinear over two axes and trilinear over three."""
    name = _LINEAR[rank(x) - 3] if mode == "linear" else mode.replace("_", "-")
    return F.interpolate(x, size, mode=name, **chosen(align_corners=(align_corners, False), antialias=(antialias, False)))
