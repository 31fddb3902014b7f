"""Initial values: the leaves of initialiser expressions. The table needs no torch; `sample` draws.

Fans are torch's: fan-in = the product of the sizes after the first, fan-out = the first times the product of the sizes after the second.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

REQUIRED = object()
"""Marks an argument without a default."""

INITIALIZERS: dict[str, dict[str, Any]] = {
    "zeros": {}, "ones": {}, "constant": {"value": REQUIRED}, "eye": {}, "orthogonal": {"gain": 1.0},
    "uniform": {"low": 0.0, "high": 1.0}, "normal": {"mean": 0.0, "std": 1.0}, "trunc_normal": {"mean": 0.0, "std": 1.0, "cut": 2.0},
    "kaiming_uniform": {"a": 0.0}, "kaiming_normal": {"a": 0.0}, "xavier_uniform": {"gain": 1.0}, "xavier_normal": {"gain": 1.0}, "lecun_normal": {},
}
"""Name -> arguments with defaults, in the order of positional arguments."""

RANDOM = frozenset(INITIALIZERS) - {"zeros", "ones", "constant", "eye"}


def arguments(name: str, positional: tuple[Any, ...] = (), named: dict[str, Any] | None = None) -> dict[str, Any]:
    """All arguments of an initialiser by name. Raises ValueError (a sentence) for one too many, unknown, doubled or missing."""
    if name not in INITIALIZERS:
        raise ValueError(f"there is no initialiser `{name}`")
    known = INITIALIZERS[name]
    if len(positional) > len(known):
        raise ValueError(f"`{name}` takes {len(known)} arguments, not {len(positional)}")
    given = dict(zip(known, positional))
    for key, value in (named or {}).items():
        if key not in known:
            raise ValueError(f"`{name}` has no argument `{key}`" + (f": it has {', '.join(known)}" if known else ""))
        if key in given:
            raise ValueError(f"`{key}` is given twice")
        given[key] = value
    missing = [k for k, v in known.items() if v is REQUIRED and k not in given]
    if missing:
        raise ValueError(f"`{name}` needs `{missing[0]}`")
    return {**{k: v for k, v in known.items() if v is not REQUIRED}, **given}


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan-in, fan-out) of a weight [out, in, kernel…]. Raises ValueError for fewer than two axes."""
    if len(shape) < 2:
        raise ValueError(f"an initialiser by fan needs a weight with two axes or more, not {list(shape)}")
    return math.prod(shape[1:]), shape[0] * math.prod(shape[2:])


def sample(name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator | None = None, **attrs: Any) -> torch.Tensor:
    """A CPU tensor of initial values, drawn in `dtype` from `generator`; Fraction arguments are taken as floats.

    zeros, ones, constant(value) · eye: ones where the first two indices are equal (for kernels: in the middle) · orthogonal(gain):
    rows (or columns) of the matrix [shape[0], rest] are orthonormal, times gain · uniform(low, high) · normal(mean, std) ·
    trunc_normal(mean, std, cut): normal, cut off at ±cut in absolute units as timm's a = -2, b = 2, not in units of std ·
    kaiming_uniform(a): ±√(6 / ((1 + a²) fan-in)) · kaiming_normal(a): std √(2 / ((1 + a²) fan-in)) · xavier_uniform(gain):
    ±gain √(6 / (fan-in + fan-out)) · xavier_normal(gain): std gain √(2 / (fan-in + fan-out)) · lecun_normal: truncated at two
    standard deviations and rescaled to variance 1 / fan-in, as JAX and timm do. Nothing is drawn for a weight without elements.
    """
    import torch

    given = {k: float(v) for k, v in arguments(name, (), attrs).items()}
    out = torch.empty(shape, dtype=dtype)
    if not out.numel():  # it has no fan-in that one could divide by, and torch warns
        return out
    with torch.no_grad():
        return _DRAW[name](out, generator, **given)


def _uniform(t: Any, g: Any, low: float, high: float) -> Any:
    return t.uniform_(low, high, generator=g)


def _normal(t: Any, g: Any, mean: float = 0.0, std: float = 1.0) -> Any:
    return t.normal_(mean, std, generator=g)


def _trunc_normal(t: Any, g: Any, mean: float, std: float, cut: float) -> Any:
    from torch.nn.init import trunc_normal_

    if std == 0:
        return t.fill_(min(max(mean, -cut), cut))
    return trunc_normal_(t, mean, std, -cut, cut, generator=g)


def _kaiming(a: float, t: Any) -> float:
    return math.sqrt(2 / ((1 + a * a) * fans(tuple(t.shape))[0]))


def _xavier(gain: float, t: Any) -> float:
    return gain * math.sqrt(2 / sum(fans(tuple(t.shape))))


def _bound(t: Any, g: Any, std: float) -> Any:
    """Uniform with that standard deviation."""
    return _uniform(t, g, -math.sqrt(3) * std, math.sqrt(3) * std)


def _lecun(t: Any, g: Any) -> Any:
    std = math.sqrt(1 / fans(tuple(t.shape))[0]) / 0.87962566103423978  # the standard deviation of a normal cut at ±2
    return _trunc_normal(t, g, 0.0, 1.0, 2.0).mul_(std)


def _eye(t: Any, g: Any) -> Any:
    if t.dim() < 2:
        raise ValueError(f"`eye` needs two axes or more, not {list(t.shape)}")
    n = min(t.shape[:2])
    middle = tuple(s // 2 for s in t.shape[2:])
    t.zero_()[(range(n), range(n), *middle)] = 1
    return t


def _orthogonal(t: Any, g: Any, gain: float) -> Any:
    from torch.nn.init import orthogonal_

    wide = orthogonal_(t.double(), gain, generator=g)  # QR has no 16-bit kernels
    return t.copy_(wide)


_DRAW: dict[str, Callable[..., Any]] = {
    "zeros": lambda t, g: t.zero_(), "ones": lambda t, g: t.fill_(1), "constant": lambda t, g, value: t.fill_(value), "eye": _eye,
    "orthogonal": _orthogonal,
    "uniform": _uniform, "normal": _normal, "trunc_normal": _trunc_normal,
    "kaiming_uniform": lambda t, g, a: _bound(t, g, _kaiming(a, t)), "kaiming_normal": lambda t, g, a: _normal(t, g, std=_kaiming(a, t)),
    "xavier_uniform": lambda t, g, gain: _bound(t, g, _xavier(gain, t)), "xavier_normal": lambda t, g, gain: _normal(t, g, std=_xavier(gain, t)),
    "lecun_normal": _lecun,
}
