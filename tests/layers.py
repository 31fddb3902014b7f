"""Equal layers, run once: what a layer gives on the meta device, shapes without numbers, any other of its class gives for the same shapes."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten


class Like(torch.autograd.Function):
    """Tensors of the described shapes and types, made of all that is given; each gives a gradient to what it reads of it, by place."""

    @staticmethod
    def forward(ctx: Any, described: list[torch.Tensor], reads: list[set[int]], *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        ctx.reads = reads
        made = tuple(torch.empty_like(y) for y in described)
        ctx.mark_non_differentiable(*(m for m, y in zip(made, described) if not y.requires_grad))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        read = set[int]().union(*(r for r, g in zip(ctx.reads, gradients) if g is not None))
        return None, None, *(torch.empty_like(x) if i in read else None for i, x in enumerate(ctx.saved_tensors))


def places_read(y: torch.Tensor, given: list[torch.Tensor]) -> set[int]:
    """The places of those that a gradient of y reaches."""
    wanted = [i for i, x in enumerate(given) if x.requires_grad]
    if not y.requires_grad or not wanted:
        return set()
    found = torch.autograd.grad(y, [given[i] for i in wanted], torch.empty_like(y), retain_graph=True, allow_unused=True)
    return {i for i, g in zip(wanted, found) if g is not None}


def description(x: Any) -> Any:
    return (x.shape, x.stride(), x.dtype, x.requires_grad) if isinstance(x, torch.Tensor) else repr(x)


@contextmanager
def equal_layers_once(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the first layer of a class, of shapes of inputs and of weights runs; the others give results like its own, and gradients to what
    corresponds to what its own results read: an input or a weight that the class does not read gets none in any of them."""
    known: dict[Any, Any] = {}

    def once(run: Any) -> Any:
        def forward(self: torch.nn.Module, *args: Any) -> Any:
            flat, spec = tree_flatten(args)
            given = [x for x in (*flat, *self.parameters()) if isinstance(x, torch.Tensor)]
            key = (type(self), spec, tuple(description(x) for x in flat), tuple((n, *description(p)) for n, p in self.named_parameters()))
            if key not in known:
                results, made = tree_flatten(y := run(self, *args))
                known[key] = results, made, [places_read(r, given) for r in results if isinstance(r, torch.Tensor)]
                return y
            results, made, reads = known[key]
            tensors = iter(Like.apply([y for y in results if isinstance(y, torch.Tensor)], reads, *given))
            return tree_unflatten([next(tensors) if isinstance(y, torch.Tensor) else y for y in results], made)

        return forward

    with pytest.MonkeyPatch.context() as patch:
        for kind, n in Counter(map(type, model.modules())).items():
            if n > 1 and kind.__module__ != torch.nn.ModuleList.__module__:
                patch.setattr(kind, "forward", once(kind.forward))
        yield
