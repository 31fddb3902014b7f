"""Random ops. Those with a phase do nothing in evaluation; they draw from torch's generator unless a seed is given."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import FLOATS, TensorType
from archdsl.lazy import F, torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import floats, need_float, rank, torch_dtype


def _dropped(x: TensorType, rate: float, **_: Any) -> TensorType:
    need_float(x)
    if not 0 <= rate <= 1:
        raise OpError(f"a rate lies between 0 and 1, not {float(rate)}", "rate")
    return TensorType(x.dtype, x.shape)


@op("dropout(x: [*s], rate: float) -> [*s]", infer=_dropped, phase=True, random=True, source="arxiv 1207.0580",
    saves=lambda x, rate: (TensorType(x.dtype, x.shape),) if 0 < rate < 1 else (),
    samples=lambda: [{"x": floats(4, 5, 6), "rate": 0.3}, {"x": floats(1), "rate": 0.0}])
def dropout(x, *, rate, training=False):
    """Training: each value is zero with probability `rate`, the others are divided by 1 - rate. Evaluation: x."""
    return F.dropout(x, rate, training)


@op("drop_path(x: [B, ...], rate: float) -> [B, ...]", infer=_dropped, phase=True, random=True, source="arxiv 1603.09382; timm: drop_path",
    saves=lambda x, rate: (TensorType(x.dtype, (x.shape[0], *(1 for _ in x.shape[1:]))),) if rate > 0 else (),
    samples=lambda: [{"x": floats(4, 5, 6), "rate": 0.3}, {"x": floats(1, 2), "rate": 0.0}])
def drop_path(x, *, rate, training=False):
    """Training: each sample (axis 0) is zero with probability `rate`, the others are divided by 1 - rate. Evaluation: x."""
    if rate == 0 or not training:
        return x
    keep = 1 - rate
    mask = x.new_empty((x.shape[0],) + (1,) * (rank(x) - 1)).bernoulli_(keep)
    return x * (mask.div_(keep) if keep > 0 else mask)


def _permutation(n: Size, seed: int | None = None) -> TensorType:
    if seed is not None and not (isinstance(seed, int) and isinstance(n, int)):
        raise OpError("a permutation of a seed has to be known when the model is built", "n" if isinstance(seed, int) else "seed",
                      help="without `seed`, its length may vary")
    return TensorType("int", (n,))


@op("permutation(n: int, seed: int? = none) -> int[n]", infer=_permutation, grad="none", random=True,
    samples=lambda: [{"n": 7, "seed": 3}, {"n": 1}])
def permutation(*, n, seed=None, device=None):
    """0, …, n - 1 in random order: the same for the same seed, on every device; without a seed, a new one in each forward pass."""
    if seed is None:
        return torch.randperm(n, device=device)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order if device is None else order.to(device)


def _draw(shape: tuple[Size, ...], dtype: str = "float", **_: Any) -> TensorType:
    if any(isinstance(n, int) and n < 0 for n in shape):
        raise OpError("no size is negative", "shape")
    if dtype not in FLOATS:
        raise OpError(f"a drawn tensor is of a float type, not `{dtype}`", "dtype", help=f"it is one of {', '.join(FLOATS)}")
    return TensorType(dtype, tuple(shape))


@op("random_normal(shape: list[int], mean: float = 0, std: float = 1, dtype: str = \"float\") -> [*s]", infer=_draw, grad="none", random=True,
    samples=lambda: [{"shape": (2, 5)}, {"shape": (1,), "mean": 3.0, "std": 0.5, "dtype": "f32"}, {"shape": ()}])
def random_normal(*, shape, mean=0, std=1, dtype="float", device=None):
    """Normal values, new in each forward pass, drawn from torch's generator. `draw x: [B, d] = normal(std = 2)` makes one."""
    return torch.randn(shape, dtype=torch_dtype(dtype) if isinstance(dtype, str) else dtype, device=device) * std + mean


@op("random_uniform(shape: list[int], low: float = 0, high: float = 1, dtype: str = \"float\") -> [*s]", infer=_draw, grad="none", random=True,
    samples=lambda: [{"shape": (2, 5)}, {"shape": (1,), "low": -3.0, "high": 3.0, "dtype": "f32"}, {"shape": ()}])
def random_uniform(*, shape, low=0, high=1, dtype="float", device=None):
    """Values between low and high, new in each forward pass, drawn from torch's generator. `draw x: [B, d] = uniform()` makes one."""
    return torch.rand(shape, dtype=torch_dtype(dtype) if isinstance(dtype, str) else dtype, device=device) * (high - low) + low
