"""Rules: convolutions, pools, resizing."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.capture import layouts
from archdsl.capture.rules import RULES, Rule, aten, each
from archdsl.dims import conv_out
from archdsl.graph import Value
from archdsl.ops.registry import OpError

if TYPE_CHECKING:
    from archdsl.capture.translate import Translation


# ---------------------------------------------------------------- convolutions and pools
@aten("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def _conv(t: Translation, input: Value, weight: Value, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
          groups: int = 1) -> Any:
    x, w, b = t.one_float(input, weight, bias)
    pad = 0 if padding == "valid" else padding if isinstance(padding, str) else each(padding)
    return t.flat.op("conv", x, w, b, stride=each(stride), pad=pad, dilation=each(dilation), groups=groups)


@aten("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def _conv_transpose(t: Translation, input: Value, weight: Value, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                    groups: int = 1, dilation: Any = 1) -> Any:
    x, w, b = t.one_float(input, weight, bias)
    return t.flat.op("conv_transpose", x, w, b, stride=each(stride), pad=each(padding), output_pad=each(output_padding), dilation=each(dilation),
                     groups=groups)


@aten("max_pool1d.default", "max_pool2d.default", "max_pool3d.default")
def _max_pool(t: Translation, self: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False) -> Any:
    if each(dilation) != 1:
        raise OpError("a pool with gaps has no op")
    return t.flat.op("max_pool", self, size=each(kernel_size), stride=each(stride or kernel_size), pad=each(padding), ceil_mode=ceil_mode)


@aten("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def _avg_pool(t: Translation, self: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
              count_include_pad: bool = True, divisor_override: Any = None) -> Any:
    if divisor_override is not None:
        raise OpError("an average with a divisor of its own has no op")
    return t.flat.op("avg_pool", self, size=each(kernel_size), stride=each(stride or kernel_size), pad=each(padding), ceil_mode=ceil_mode,
                     count_include_pad=count_include_pad)


@aten("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "adaptive_avg_pool3d.default")
def _adaptive_avg_pool(t: Translation, self: Value, output_size: Any) -> Any:
    """To one cell it is a mean; to a divisor of a fixed size it is a pool; to another number, products with tables of averages, axis by axis."""
    axes = tuple(range(-len(output_size), 0))
    if all(o == 1 for o in output_size):
        return t.flat.op("mean", self, axis=axes if len(axes) > 1 else -1, keep=True)
    sizes = [shapes.divide(self.shape[a], o) for a, o in zip(axes, output_size)]
    if all(type(s) is int for s in sizes):
        return t.flat.op("avg_pool", self, size=each(sizes), stride=each(sizes))
    if any(type(self.shape[a]) is not int for a in axes):
        raise OpError(f"a pool of {self.type} to {list(output_size)} has windows of several sizes")
    for a, outs in zip(axes, output_size):
        self = _averaged(t, self, a, int(self.shape[a]), outs)  # type: ignore[call-overload]
    return self


def _averaged(t: Translation, x: Value, axis: int, ins: int, outs: int) -> Value:
    """The means of windows from floor(i · ins / outs) to ceil((i + 1) · ins / outs) along an axis."""
    windows = [(i * ins // outs, -(-(i + 1) * ins // outs)) for i in range(outs)]
    table = tuple(tuple(1 / (b - a) if a <= k < b else 0.0 for k in range(ins)) for a, b in windows)
    order = list(range(len(x.shape)))
    order[axis], order[-1] = order[-1], order[axis]
    return layouts.permute(t.flat, t.flat.op("linear", layouts.permute(t.flat, x, order), t.flat.op("literal", value=table, dtype=x.dtype)), order)


@aten("im2col.default")
def _im2col(t: Translation, self: Value, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    if each(dilation) != 1:
        raise OpError("windows with gaps have no op")
    x = t.flat.op("unfold", self, size=tuple(kernel_size), stride=tuple(stride), pad=tuple(padding), axes=(2, 3))
    return layouts.rearrange(t.flat, x, list(x.shape), [[i] for i in range(6)], [[0], [1, 4, 5], [2, 3]])


@aten("col2im.default")
def _col2im(t: Translation, self: Value, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    if each(dilation) != 1:
        raise OpError("windows with gaps have no op")
    counts = [conv_out(n, k, s, p) for n, k, s, p in zip(output_size, kernel_size, stride, padding, strict=True)]
    channels = shapes.divide(self.shape[1], kernel_size[0] * kernel_size[1])
    sizes = [self.shape[0], channels, *kernel_size, *counts]
    x = layouts.rearrange(t.flat, self, sizes, [[0], [1, 2, 3], [4, 5]], [[0], [1], [4], [5], [2], [3]])
    return t.flat.op("fold", x, out=tuple(output_size), stride=tuple(stride), pad=tuple(padding), axes=(2, 3))


def _resize(mode: str) -> Rule:
    def rule(t: Translation, input: Value, output_size: Any = None, scale_factors: Any = None, align_corners: bool = False,
             antialias: bool = False) -> Any:
        size = output_size
        if size is None:
            if not all(float(f).is_integer() for f in scale_factors):
                raise OpError("a resize by a factor that is not whole has no op", help="resize to a size")
            size = [n * int(f) for n, f in zip(input.shape[2:], scale_factors)]
        size = each(size) if all(type(n) is int for n in size) else tuple(size)
        return t.flat.op("resize", input, size=size, mode=mode, align_corners=align_corners, antialias=antialias)
    return rule


_MODES = {"nearest1d": "nearest", "nearest2d": "nearest", "nearest3d": "nearest", "linear1d": "linear", "bilinear2d": "linear",
          "trilinear3d": "linear", "bicubic2d": "bicubic"}
for _name, _mode in _MODES.items():
    RULES[f"upsample_{_name}.vec"] = _resize(_mode)
RULES["_upsample_bilinear2d_aa.vec"] = lambda t, **a: _resize("linear")(t, **a, antialias=True)
RULES["_upsample_bicubic2d_aa.vec"] = lambda t, **a: _resize("bicubic")(t, **a, antialias=True)
