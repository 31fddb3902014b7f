"""Activations made of powers, with learned numbers: sums of normalised powers, rational functions by group of channels."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.recurrent import recurrent
from archdsl.ops.registry import OpError
from archdsl.ops.rules import floats, need_count


def _known(**counts: tuple[Size, str]) -> None:
    for name, (count, about) in counts.items():
        if not isinstance(count, int) or count < 1:
            raise OpError(f"{name} is a number from 1 up that is known when the model is built, not {count}", about)


def _wide(x: Any) -> Any:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _order(weight: TensorType, bias: TensorType, **_: Any) -> None:
    _known(**{"the number of powers": (weight.shape[0], "weight")})
    if bias.shape[0] != 1:
        raise OpError(f"`bias` is one number, and this is {bias}", "bias")


def _powers(x, weight, bias, *, eps=1e-6):
    """Power by power, in float32 at least."""
    z = _wide(x)
    power, y = z, bias
    for a in weight.flip(0).unbind():
        y = y + a * F.rms_norm(power, power.shape[-1:], None, eps)
        power = power * z
    return y.to(x.dtype)


@recurrent("poly_norm(x: [..., d], weight: [m], bias: [b], eps: float = 1e-6) -> [..., d]", state={}, roles={"d": "normalise", "m": "contract"},
           reference=_powers, fit=_order, source="arxiv 2411.03884",
           samples=lambda: [{"x": floats(2, 3, 7), "weight": floats(3), "bias": floats(1)},
                            {"x": floats(1, 5), "weight": floats(1), "bias": floats(1)}])
def poly_norm(x, weight, bias, *, eps=1e-6):
    """bias + Σ a_i N(x^i), i from 1 to m, where N divides by the root mean square over the last axis; `weight` holds a_m first. In float32 at least.
    What `PolyNorm` of the library writes becomes it where a kernel computes it in one pass."""
    return (_powers(x, weight, bias, eps=eps),)


def _groups(x: TensorType, numerator: TensorType, denominator: TensorType, **_: Any) -> None:
    groups, order = denominator.shape
    _known(**{"the number of coefficients": (numerator.shape[0], "numerator"), "the number of groups": (groups, "denominator"),
              "the order of the denominator": (order, "denominator")})
    need_count(x.shape[-1], "x")
    if x.shape[-1] % groups:  # type: ignore[operator]
        raise OpError(f"{x.shape[-1]} channels cannot be split into {groups} groups of one size", "denominator")


def _rational(x, numerator, denominator, *, apart=True):
    """Powers one after the other, in float32 at least."""
    z = _wide(x).unflatten(-1, (denominator.shape[0], -1))
    above = torch.zeros_like(z)
    for a in numerator.flip(0).unbind():
        above = above * z + a
    terms = [b[:, None] * z ** j for j, b in enumerate(denominator.unbind(-1), 1)]
    below = 1 + (sum(t.abs() for t in terms) if apart else abs(sum(terms)))
    return (above / below).flatten(-2).to(x.dtype)


@recurrent("grouped_rational(x: [..., c], numerator: [m], denominator: [g, n], apart: bool = true) -> [..., c]", state={},
           roles={"c": "grouped", "m": "contract", "n": "contract", "g": "grouped"}, reference=_rational, fit=_groups, source="arxiv 2409.10594",
           samples=lambda: [{"x": floats(2, 3, 6), "numerator": floats(6), "denominator": floats(2, 4)},
                            {"x": floats(1, 5), "numerator": floats(3), "denominator": floats(1, 2), "apart": False},
                            {"x": floats(1, 1), "numerator": floats(1), "denominator": floats(1, 1)}])
def grouped_rational(x, numerator, denominator, *, apart=True):
    """P(x) / Q(x), P(x) = Σ a_i x^i from i = 0 with coefficients that all channels share, Q(x) = 1 + Σ |b_j x^j| from j = 1 with those of a channel's
    group; without `apart` Q(x) = 1 + |Σ b_j x^j|. In float32 at least."""
    return (_rational(x, numerator, denominator, apart=apart),)
