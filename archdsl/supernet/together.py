"""Several candidates of a supernet in one step, each as itself, in turn: their parts of the weights are taken once, their gradients written into one
tensor of each weight."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

if TYPE_CHECKING:
    from archdsl.supernet.net import Part, Supernet

Axes = tuple[Any, ...]
Task = Callable[[nn.Module], Any]
"""What is asked of a candidate: a function of the model, which gives a tensor or a tuple of them."""


class Asked(nn.Module):
    """A candidate as a model: its weights are the supernet's."""

    def __init__(self, run: Callable[..., Any], training: bool) -> None:
        super().__init__()
        self.run, self.training = run, training

    def forward(self, *inputs: Any) -> Any:
        return self.run(*inputs)


def taken(weight: Tensor, axes: Axes) -> Tensor:
    """A part of a weight."""
    for axis, at in enumerate(axes):
        if isinstance(at, range):
            if len(at) != weight.shape[axis]:
                weight = weight.narrow(axis, at.start, len(at))
        else:
            weight = weight.index_select(axis, at)
    return weight


def fits(net: Supernet) -> bool:
    """Whether candidates may be run so: gradients are wanted, of weights on the CPU, and nothing of torch watches single ops."""
    return (torch.is_grad_enabled() and next(net.parameters()).device.type == "cpu" and not torch.compiler.is_compiling()
            and not torch._C._are_functorch_transforms_active() and not torch._C._len_torch_dispatch_stack()
            and not torch._C._len_torch_function_stack())


def together(net: Supernet, parts: Sequence[Part], tasks: Sequence[Task]) -> list[Any]:
    """What each task gives of its candidate, with gradients for the supernet's weights alone, once."""
    work = _Work(net, parts, tasks)
    flat = iter(_Together.apply(work, *work.weights))  # pyright: ignore[reportArgumentType]
    return [tuple(next(flat) for _ in r) if isinstance(r, tuple) else next(flat) for r in work.results]


class _Work:
    """`keys`: the weights that learn, `weights` the tensors; `leaves`: of each candidate its parts of them, by its own addresses."""

    def __init__(self, net: Supernet, parts: Sequence[Part], tasks: Sequence[Task]) -> None:
        self.net, self.parts, self.tasks = net, parts, tasks
        keys = dict.fromkeys(key for part in parts for key, _ in part.parts.values())
        self.keys = {key: w for key in keys if (w := net.weight(key)).requires_grad}
        self.weights = list(self.keys.values())
        self.leaves: list[dict[str, Tensor]] = []
        self.results: list[Any] = [None] * len(parts)
        for part in parts:
            if part.module.training != net.training:
                part.module.train(net.training)

    def run(self) -> None:
        net = self.net
        held = {key: net.weight(key).detach() for part in self.parts for key, _ in part.parts.values()}
        with torch.no_grad():
            own = [{a: taken(held[key], axes) for a, (key, axes) in part.parts.items()} for part in self.parts]
        self.leaves = [{a: t.requires_grad_() for a, t in mine.items() if part.parts[a][0] in self.keys} for part, mine in zip(self.parts, own)]
        for i, (part, mine) in enumerate(zip(self.parts, own)):
            weights = {**mine, **part.own}
            with torch.enable_grad():
                self.results[i] = self.tasks[i](Asked(partial(_called, part.module, weights), net.training))
            if net.training:
                net.keep_statistics(part, weights)

    @property
    def flat(self) -> list[Tensor]:
        return [t for r in self.results for t in (r if isinstance(r, tuple) else (r,))]

    def gradients(self, given: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Of each weight the sum over the candidates, in their order."""
        left = iter(given)
        keep = torch._C._autograd._get_current_graph_task_keep_graph()  # pyright: ignore[reportAttributeAccessIssue]
        sums: dict[Any, Tensor | None] = dict.fromkeys(self.keys)
        for part, leaves, r in zip(self.parts, self.leaves, self.results):
            wanted = [(t, g) for t in (r if isinstance(r, tuple) else (r,)) if (g := next(left)) is not None and t.requires_grad]
            if wanted:
                outs, grads = zip(*wanted)
                found = torch.autograd.grad(outs, [*leaves.values()], grads, retain_graph=keep, allow_unused=True)
                for a, g in zip(leaves, found):
                    if g is not None:
                        key, axes = part.parts[a]
                        sums[key] = _added(self.keys[key], sums[key], axes, g)
        return list(sums.values())


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, *weights: Tensor) -> tuple[Tensor, ...]:
        work.run()
        ctx.work = work
        ctx.set_materialize_grads(False)
        results = tuple(t.detach() for t in work.flat)
        ctx.mark_non_differentiable(*(r for r, t in zip(results, work.flat) if not t.requires_grad))
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *ctx.work.gradients(grads)


def _called(module: nn.Module, weights: dict[str, Tensor], *inputs: Any) -> Any:
    return functional_call(module, weights, inputs)


def _added(weight: Tensor, total: Tensor | None, axes: Axes, g: Tensor) -> Tensor:
    """The gradient of a weight with that of a part of it."""
    if total is None:
        if g.shape == weight.shape and all(isinstance(a, range) for a in axes):
            return g.clone()
        total = torch.zeros_like(weight)
    place, indexed = total, [i for i, a in enumerate(axes) if not isinstance(a, range)]
    for axis, at in enumerate(axes):
        if isinstance(at, range) and len(at) != place.shape[axis]:
            place = place.narrow(axis, at.start, len(at))
    if not indexed:
        place.add_(g)
    elif len(indexed) == 1:
        place.index_add_(indexed[0], axes[indexed[0]], g)
    else:
        each = [torch.arange(len(a)) if isinstance(a, range) else a for a in axes]
        place[torch.meshgrid(*each, indexing="ij")] += g  # places of a part differ
    return total
