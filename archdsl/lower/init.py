"""Initial values. A weight's values depend on the seed, its address and its initialiser, not on what else the model has."""
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from archdsl.graph import Graph, InitExpr, Param, TensorType
from archdsl.ops.initializers import INITIALIZERS, sample
from archdsl.ops.registry import find
from archdsl.ops.rules import torch_dtype


@contextmanager
def plain_torch() -> Iterator[None]:
    """Real tensors on the CPU, whatever the caller's device or modes: what is computed here is kept for every later model of the class."""
    with _disable_current_modes(), torch.device("cpu"), torch.no_grad():
        yield


def seed_of(seed: int, address: str) -> int:
    """A stable 63-bit number."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{address}".encode(), digest_size=8).digest(), "big") >> 1


def fixed(t: TensorType) -> tuple[int, ...]:
    """A weight's shape, whose sizes are numbers."""
    return tuple(s for s in t.shape if isinstance(s, int))


def fill(model: nn.Module, graph: Graph, seed: int, dtype: torch.dtype) -> None:
    """Writes the initial value of every weight of the graph, in place."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    initial = Initial(graph, seed, dtype)
    with plain_torch():
        for address in initial.params:
            tensors[address].copy_(initial.value(address))
            if not initial.read_later(address):
                initial.forget(address)


class Initial:
    """The initial values of a graph's weights by address, computed on the CPU in float32 (float64 for a float64 build)."""

    def __init__(self, graph: Graph, seed: int, dtype: torch.dtype):
        self.seed, self.wide = seed, torch.promote_types(dtype, torch.float32)
        self.params: dict[str, Param] = {}
        self.owners: dict[str, str] = {}
        self.values: dict[str, torch.Tensor] = {}
        self._collect(graph, "")
        self.readers = {address for a, p in self.params.items() for address in _reads(p.init, self.owners[a])}

    def _collect(self, graph: Graph, prefix: str) -> None:
        for p in graph.params:
            self.params[prefix + p.path], self.owners[prefix + p.path] = p, prefix
        for path, child in graph.children.items():
            self._collect(child, f"{prefix}{path}.")

    def read_later(self, address: str) -> bool:
        return address in self.readers

    def forget(self, address: str) -> None:
        self.values.pop(address, None)

    def value(self, address: str) -> torch.Tensor:
        """The weight's initial value; leaves draw in the order of the text from one generator."""
        if address not in self.values:
            param = self.params[address]
            generator = torch.Generator().manual_seed(seed_of(self.seed, address))
            result = self._evaluate(param.init, param, self.owners[address], generator)
            tensor = result if isinstance(result, torch.Tensor) else torch.tensor(result, dtype=self._dtype(param))
            self.values[address] = tensor.expand(fixed(param.type))
        return self.values[address]

    def _dtype(self, param: Param) -> torch.dtype:
        return torch.promote_types(self.wide, torch_dtype(param.type.dtype, self.wide)) if param.type.is_float else torch_dtype(param.type.dtype)

    def _evaluate(self, init: Any, param: Param, owner: str, generator: torch.Generator) -> Any:
        if isinstance(init, tuple):
            return tuple(self._evaluate(v, param, owner, generator) for v in init)
        if not isinstance(init, InitExpr):
            return init
        attrs = dict(init.attrs)
        if init.op == "param":
            return self.value(owner + attrs["path"])
        if init.op == "constant" and isinstance(attrs["value"], tuple):
            return torch.tensor(attrs["value"], dtype=self._dtype(param))
        if init.op in INITIALIZERS:
            shape = tuple(attrs.pop("shape", fixed(param.type)))
            return sample(init.op, shape, self._dtype(param), generator, **attrs)
        op = find(init.op)
        assert op is not None, init.op
        if isinstance(attrs.get("dtype"), str) and init.op != "at_least":
            attrs["dtype"] = torch_dtype(attrs["dtype"], self.wide)
        args = [self._evaluate(a, param, owner, generator) for a in init.args]
        return op.body(*args, **attrs, **({"training": False} if op.phase else {}))


def _reads(init: Any, owner: str) -> set[str]:
    if isinstance(init, tuple):
        return set().union(*(_reads(v, owner) for v in init))
    if not isinstance(init, InitExpr):
        return set()
    own = {owner + dict(init.attrs)["path"]} if init.op == "param" else set()
    return own.union(*(_reads(a, owner) for a in init.args))
