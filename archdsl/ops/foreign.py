"""Aten ops that a captured graph may run as they are: pure functions of tensors, numbers and sizes, without string arguments."""
from __future__ import annotations

from typing import Any

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import floats

PURE = frozenset({
    "index.Tensor", "atan.default", "asin.default", "acos.default", "sinh.default", "cosh.default", "atan2.default", "exp2.default",
    "expm1.default", "log2.default", "log10.default", "logaddexp.default", "mish.default", "celu.default", "selu.default", "hardshrink.default",
    "softshrink.default", "threshold.default", "prelu.default", "glu.default", "ceil.default", "trunc.default", "frac.default", "erfinv.default",
    "cumprod.default", "cummax.default", "cummin.default", "prod.default", "prod.dim_int", "std.correction", "median.default", "median.dim",
    "scatter.src", "scatter.value", "scatter_add.default", "index_add.default", "index_copy.default", "masked_scatter.default", "bucketize.Tensor",
    "take_along_dim.default", "diagonal.default", "diag_embed.default", "trace.default", "kron.default", "cross.default", "linalg_cross.default",
    "cdist.default", "pairwise_distance.default", "cosine_similarity.default", "linalg_inv.default", "linalg_solve.default",
    "linalg_cholesky.default", "linalg_det.default", "nan_to_num.default", "isnan.default", "isinf.default", "isfinite.default", "lerp.Scalar",
    "lerp.Tensor", "addcmul.default", "addcdiv.default", "grid_sampler.default", "grid_sampler_2d.default", "affine_grid_generator.default",
    "pixel_shuffle.default", "pixel_unshuffle.default", "im2col.default", "col2im.default", "reflection_pad1d.default", "reflection_pad2d.default",
    "replication_pad1d.default", "replication_pad2d.default", "adaptive_max_pool2d.default", "_adaptive_avg_pool2d.default", "avg_pool3d.default",
    "instance_norm.default", "channel_shuffle.default", "rot90.default", "triu_indices.default", "tril_indices.default", "bitwise_xor.Tensor",
    "logical_xor.default", "fmod.Tensor", "fmod.Scalar", "heaviside.default", "sgn.default", "argmin.default", "argsort.default",
})


def _aten(args: Any, name: str, keywords: Any, dtypes: Any, shapes: Any) -> tuple[TensorType, ...]:
    if name not in PURE:
        raise OpError(f"`aten.{name}` is not on the list of pure ops", "name")
    return tuple(map(TensorType, dtypes, shapes))


@op("aten(args: list[[*s]], name: str, keywords: list[str], dtypes: list[str], shapes: list[list[int]]) -> [*t]", infer=_aten,
    samples=lambda: [{"args": (floats(2, 3), floats(2, 3), 0.3), "name": "lerp.Scalar", "keywords": (), "dtypes": ("float",), "shapes": ((2, 3),)},
                     {"args": (floats(1, 4), 1, (0, 1)), "name": "rot90.default", "keywords": ("k", "dims"), "dtypes": ("float",),
                      "shapes": ((4, 1),)}])
def aten(args, *, name, keywords, dtypes, shapes):
    """A pure op of torch under its own name, written `extern aten.x(args) -> types`; the last arguments have `keywords`, the results these types,
    which are believed. What it costs is not known."""
    family, _, overload = name.partition(".")
    plain = len(args) - len(keywords)
    return getattr(getattr(torch.ops.aten, family), overload)(*args[:plain], **dict(zip(keywords, args[plain:])))
