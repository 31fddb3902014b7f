"""The sizes that convolution and pooling give, exactly as torch computes them."""
from __future__ import annotations

from archdsl.dims.floors import floordiv, minimum
from archdsl.dims.poly import Size

Padding = Size | tuple[Size, Size]  # both sides alike, or (before, after)


def _sides(pad: Padding) -> tuple[Size, Size]:
    return pad if isinstance(pad, tuple) else (pad, pad)


def conv_out(size: Size, kernel: Size, stride: Size = 1, pad: Padding = 0, dilation: Size = 1) -> Size:
    """Positions of a convolution along one axis. May be zero or negative: the caller reports a map that is too small."""
    before, after = _sides(pad)
    return floordiv(size + before + after - dilation * (kernel - 1) - 1, stride) + 1


def conv_transpose_out(size: Size, kernel: Size, stride: Size = 1, pad: Size = 0, dilation: Size = 1, output_pad: Size = 0) -> Size:
    """Positions that a transposed convolution gives along one axis."""
    return (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + output_pad + 1


def pool_out(size: Size, kernel: Size, stride: Size | None = None, pad: Padding = 0, ceil_mode: bool = False, dilation: Size = 1) -> Size:
    """Windows of a pooling along one axis (stride None: the kernel). With ceil_mode, a window that would start in the padding
    after the map is dropped: the last start, (out - 1) * stride, is below size + before. Padding is at most half the kernel."""
    stride = kernel if stride is None else stride
    before, after = _sides(pad)
    room = size + before + after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return floordiv(room, stride) + 1
    return floordiv(minimum(room + stride - 1, size + before - 1), stride) + 1
