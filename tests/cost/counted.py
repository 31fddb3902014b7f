"""Counted runs: what autograd keeps, what is alive, what is multiplied, of a lowered model that really runs."""
from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from archdsl.lower import ArchModule

Tensors = tuple[torch.Tensor, ...]


def weights(model: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers, and tensors that the text writes down."""
    return [*model.parameters(), *model.buffers()]


def macs(model: nn.Module, inputs: Tensors) -> int:
    """Multiply-accumulates that torch counts, products with vectors too, under the plain formula of attention."""
    vectors = {torch.ops.aten.mv: lambda a, b, *_, **__: 2 * math.prod(a), torch.ops.aten.dot: lambda a, b, *_, **__: 2 * math.prod(a)}
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=vectors) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*inputs)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


# ---------------------------------------------------------------- what autograd keeps
class _Holder:
    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def saved_bytes(model: nn.Module, inputs: Tensors) -> int:
    """Bytes of the storages that the graph of one training pass holds, weights left out, and numbers that came from no kernel (the 2 of `x * 2`)."""
    model.train()
    packed: list[weakref.ref[_Holder]] = []

    def pack(t: torch.Tensor) -> _Holder:
        holder = _Holder(t)
        packed.append(weakref.ref(holder))
        return holder

    alive = Alive(weights(model), inputs)
    with saved_tensors_hooks(pack, lambda holder: holder.tensor), alive:
        result = model(*inputs)
    kept = [h.tensor.untyped_storage() for ref in packed if (h := ref()) is not None]
    assert result is not None
    return sum({s._cdata: s.nbytes() for s in kept if s._cdata in alive.storages}.values())


# ---------------------------------------------------------------- what is alive
class Alive(TorchDispatchMode):
    """Follows every storage that a kernel returns until it is freed; those of `ignored` do not count."""

    def __init__(self, ignored: Iterable[torch.Tensor], counted: Iterable[torch.Tensor]):
        super().__init__()
        self.ignored = {t.untyped_storage()._cdata for t in ignored}
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        for t in counted:
            self.add(t)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor):
                self.add(t)
        return result

    def add(self, t: torch.Tensor) -> None:
        storage = t.untyped_storage()
        known = self.storages.get(storage._cdata)
        if storage._cdata not in self.ignored and (known is None or known[0].expired()):
            self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()

    def bytes(self) -> int:
        self.storages = {k: v for k, v in self.storages.items() if not v[0].expired()}
        return sum(n for _, n in self.storages.values())


class _Interpreter(torch.fx.Interpreter):
    """Node by node, blocks inside included; a value is let go after the node that reads it last."""

    def __init__(self, module: torch.fx.GraphModule, step: Callable[[], None]):
        super().__init__(module, garbage_collect_values=True)
        self.step = step

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        self.step()
        return result

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        return _Interpreter(module, self.step).run(*args) if isinstance(module, ArchModule) else super().call_module(target, args, kwargs)


def peak_bytes(model: ArchModule, inputs: Tensors) -> int:
    """The most bytes alive after any node of the program, in evaluation without gradients, weights left out."""
    model.eval()
    alive, found = Alive(weights(model), inputs), [0]
    with torch.no_grad(), alive:
        _Interpreter(model, lambda: found.append(alive.bytes())).run(*inputs)
    return max(found)


def eager_peak_bytes(model: ArchModule, inputs: Tensors) -> int:
    """The same of the generated Python, after every call of a torch function. A variable read inside a statement lives to its end."""
    model.eval()
    alive, found = Alive(weights(model), inputs), [0]

    class After(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            found.append(alive.bytes())
            return result

    with torch.no_grad(), alive, After():
        model(*inputs)
    return max(found)
