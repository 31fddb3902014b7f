"""Tensors written in the text, and types taken from another tensor."""
from __future__ import annotations

from typing import Any

from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.registry import OpError, op
from archdsl.ops.rules import DTYPES, floats, misfit, torch_dtype


def _literal(value: Any, dtype: str = "float") -> TensorType:
    shape: list[int] = []
    level = [value]
    if dtype != "float" and dtype not in DTYPES:
        raise OpError(f"there is no element type `{dtype}`", "dtype", help=f"it is one of float, {', '.join(DTYPES)}")
    while isinstance(level[0], tuple):
        if not level[0] or any(not isinstance(v, tuple) or len(v) != len(level[0]) for v in level):
            raise OpError("the nested lists of a tensor have equal lengths", "value")
        shape.append(len(level[0]))
        level = [w for v in level for w in v]
    if not all(isinstance(v, (int, float)) for v in level):
        raise OpError("a tensor is written down as numbers in lists of equal lengths", "value")
    told = next(filter(None, (misfit(v, dtype) for v in level)), "")
    if told:
        raise OpError(f"a tensor of type {dtype} cannot hold these numbers: {told}", "value")
    return TensorType(dtype, tuple(shape))


@op("literal(value: list[float], dtype: str = \"float\") -> [*s]", infer=_literal, own=("value",), grad="none",
    samples=lambda: [{"value": (1.5, 2.0, -3.0)}, {"value": ((1, 2), (3, 4)), "dtype": "int"}, {"value": ((0.5,),)}])
def literal(*, value, dtype="float"):
    """The tensor that nested lists of numbers write down."""
    return torch.tensor(value, dtype=torch_dtype(dtype) if isinstance(dtype, str) else dtype)


@op("as_type(x: [*s], like: [*t]) -> [*s]", infer=lambda x, like: TensorType(like.dtype, x.shape), view=True,
    samples=lambda: [{"x": floats(2, 5, dtype="f32"), "like": floats(3)}, {"x": floats(1), "like": floats(1, 1)}])
def as_type(x, like):
    """x in the element type of `like`."""
    return x.to(like.dtype)
