"""Samples of ops as real calls: operands with values, attributes as lowering gives them."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from archdsl.graph import Mask, TensorType
from archdsl.ops.registry import OPS, Op, load
from archdsl.ops.rules import Sample, torch_dtype
from archdsl.syntax import tree

load()
CASES = [(op.name, i) for op in OPS.values() for i in range(len(op.samples() if op.samples else []))]


def sample(name: str, i: int) -> dict[str, Any]:
    """All arguments of a sample, defaults of the signature included."""
    op = OPS[name]
    given = op.samples()[i]  # type: ignore[misc]
    assert set(given) <= {p.name for p in op.decl.params}
    return {p.name: given[p.name] if p.name in given else default(p) for p in op.decl.params}


def default(p: tree.Param) -> Any:
    """The value of a literal default."""
    d = p.default
    assert d is not None, f"a sample leaves out {p.name}"
    if isinstance(d, tree.Unary):
        return -float(d.operand.value) if d.operand.value.denominator > 1 else -d.operand.value  # type: ignore[attr-defined]
    if isinstance(d, tree.Number):
        return d.value if isinstance(d.value, int) else float(d.value)
    if isinstance(d, tree.Name):
        return Mask(d.id)
    return None if isinstance(d, tree.NoneLit) else d.value  # type: ignore[attr-defined]


def operand_names(op: Op) -> list[str]:
    names = []
    for p in op.decl.params:
        kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
        if isinstance(kind, tree.TensorType) or isinstance(kind, tree.ListType) and isinstance(kind.item, tree.TensorType):
            names.append(p.name)
    return names


def types_of(op: Op, arguments: dict[str, Any]) -> tuple[TensorType, ...]:
    from archdsl.shapes import infer_by_signature

    result = op.infer(**arguments) if op.infer else infer_by_signature(op, arguments)
    return result if isinstance(result, tuple) else (result,)


def tensor(t: TensorType, model: torch.dtype, seed: int, grad: bool = False) -> torch.Tensor:
    """Values for a sample operand. Floats lie apart from each other and from whole numbers, so that no kink of an op is hit."""
    g = torch.Generator().manual_seed(seed)
    dtype = torch_dtype(t.dtype, model)
    low, high = (t.low, t.high) if isinstance(t, Sample) else (-2.0, 2.0)
    shape: list[Any] = list(t.shape)
    n: Any = t.numel
    if isinstance(t, Sample) and t.permutation:
        return torch.rand(shape, generator=g).argsort(-1)
    if not dtype.is_floating_point:
        return torch.randint(int(low), int(high), shape, generator=g).to(dtype)
    steps = (torch.randperm(n, generator=g) + 0.5 + 0.2 * torch.rand(n, generator=g)) / n  # distinct, spread over (0, 1)
    return (low + (high - low) * steps).reshape(shape).to(dtype).requires_grad_(grad)


def map_tensors(value: Any, f: Any) -> Any:
    """Every tensor type in a sample's arguments sent through f, tuples and masks included."""
    if isinstance(value, TensorType):
        return f(value)
    if isinstance(value, Mask):
        return Mask(value.kind, tuple(map_tensors(a, f) for a in value.args))
    if isinstance(value, tuple) and any(isinstance(v, TensorType) for v in value):
        return tuple(map_tensors(v, f) for v in value)
    return value


class Call:
    """A sample with tensors in place: `args` in order, `attrs` by name, `named` operands by name (list members as name.i)."""

    def __init__(self, name: str, i: int, model: torch.dtype = torch.float64, grad: bool | set[str] = False, arguments: dict[str, Any] | None = None):
        self.op, self.types = OPS[name], arguments or sample(name, i)
        counter = iter(range(1000))
        names = operand_names(self.op)
        self.named: dict[str, torch.Tensor] = {}
        values: dict[str, Any] = {}
        for key, value in self.types.items():
            wants = key in names and (key not in buffers(name) if grad is True else bool(grad) and key in grad)
            values[key] = map_tensors(value, lambda t, wants=wants: tensor(t, model, next(counter), wants and t.is_float))
            for suffix, v in ([(f".{j}", v) for j, v in enumerate(values[key])] if isinstance(values[key], tuple) else [("", values[key])]):
                if isinstance(v, torch.Tensor):
                    self.named[key + suffix] = v
        self.args = tuple(values[k] for k in names)
        self.attrs = {k: torch_dtype(v, model) if k == "dtype" else v for k, v in values.items() if k not in names}
        if self.op.name == "at_least":
            self.attrs = {}

    def __call__(self, training: bool = False, reference: bool = False) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        extra = {"training": training} if self.op.phase else {}
        body = self.op.reference if reference and self.op.reference is not None else self.op.body
        result = body(*self.args, **self.attrs, **extra)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def buffers(name: str) -> tuple[str, ...]:
    """Running statistics, which have no gradient."""
    return ("mean", "variance") if name == "batch_norm" else ()


def float_operands(call: Call) -> list[str]:
    """Operands that a gradient may be asked for."""
    return [k for k, v in call.named.items() if v.is_floating_point() and k not in buffers(call.op.name)]


def subsets(names: list[str]) -> Iterator[set[str]]:
    """Each operand alone, then all."""
    yield from ({n} for n in names)
    if len(names) > 1:
        yield set(names)
