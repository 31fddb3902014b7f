"""Inputs for a model made from its interface: shapes, ranges and example sizes. Tests, claims, exports and proxies use them."""
from __future__ import annotations

from typing import Any

from archdsl.dims import evaluate
from archdsl.elaborate.model import Elaborated, InputSpec
from archdsl.lazy import torch


def sample_inputs(made: Elaborated, sizes: dict[str, int], *, seed: int = 0, dtype: Any = None, device: Any = "cpu") -> tuple[Any, ...]:
    """One random tensor per input for these sizes: whole numbers within the declared range, bools, normal numbers (or uniform within a range)."""
    g = torch.Generator().manual_seed(seed)
    return tuple(_sample(i, sizes, g, dtype or torch.get_default_dtype()).to(device) for i in made.inputs)


def _sample(spec: InputSpec, sizes: dict[str, int], g: Any, dtype: Any) -> Any:
    shape = tuple(s if isinstance(s, int) else evaluate(s, sizes) for s in spec.type.shape)
    if spec.type.dtype == "bool":
        return torch.rand(shape, generator=g) < 0.5
    if not spec.type.is_float:
        low, high = (0, 1) if spec.low is None else (int(spec.low), int(spec.high))
        return torch.randint(low, high + 1, shape, generator=g)
    if spec.low is not None:
        return (torch.rand(shape, generator=g, dtype=torch.float64) * float(spec.high - spec.low) + float(spec.low)).to(dtype)
    return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
