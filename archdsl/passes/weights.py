"""Weights by address, made when they are asked for. Keys need no torch."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.graph import Graph
from archdsl.passes.edit import Rewrite

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Mapping[str, Tensor]
else:
    Weights = Mapping


class Initial(Weights):
    """The initial values of a graph, as a build with this seed and dtype has them."""

    def __init__(self, graph: Graph, seed: int = 0, dtype: Any = None):
        self.graph, self.seed, self._dtype = graph, seed, dtype
        self._initial: Any = None
        self._params = dict(graph.parameters())

    @property
    def dtype(self) -> Any:
        """torch's float type of the build."""
        from archdsl.lower.build import float_type

        return float_type(self._dtype)

    def __getitem__(self, address: str) -> Tensor:
        from archdsl.lower.init import Initial as Values
        from archdsl.ops.rules import torch_dtype

        param = self._params[address]
        if self._initial is None:
            self._initial = Values(self.graph, self.seed, self.dtype)
        value = self._initial.value(address).to(torch_dtype(param.type.dtype, self.dtype)).contiguous().clone()
        if not self._initial.read_later(address):
            self._initial.forget(address)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


class Rewritten(Weights):
    """The weights of a rewritten graph, from those of the graph before."""

    def __init__(self, before: Weights, done: Rewrite, dtype: Callable[[], Any]):
        self.before, self.done, self._dtype = before, done, dtype
        self.seed: int = getattr(before, "seed", 0)
        self._params = dict(done.graph.parameters())
        self._moves = {t: e for e in done.names.entries for t in e.target}

    def __getitem__(self, address: str) -> Tensor:
        from archdsl.ops.rules import torch_dtype
        from archdsl.passes.expressions import evaluate

        param = self._params[address]
        model = self._dtype()
        dtype = torch_dtype(param.type.dtype, model)
        if address in self.done.values:
            return evaluate(self.done.values[address], self.before, model).to(dtype).contiguous()
        if address in self._moves:
            return self._moves[address].apply(self.before)[address].to(dtype).contiguous()
        if address not in self.before:  # one that the step adds starts as its declaration says
            return Initial(self.done.graph, self.seed, model)[address]
        return self.before[address]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)
