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
    """Tensors of the described shapes and types, made of all that is given."""

    @staticmethod
    def forward(ctx: Any, described: list[torch.Tensor], *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(*given)
        made = tuple(torch.empty_like(y) for y in described)
        ctx.mark_non_differentiable(*(m for m, y in zip(made, described) if not y.requires_grad))
        return made

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        return None, *map(torch.empty_like, ctx.saved_tensors)


@contextmanager
def equal_layers_once(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the first layer of a class and of shapes of inputs runs; the others give results like its own, and all their weights a gradient."""
    known: dict[Any, Any] = {}

    def once(run: Any) -> Any:
        def forward(self: torch.nn.Module, *args: Any) -> Any:
            flat, spec = tree_flatten(args)
            key = type(self), spec, tuple((x.shape, x.stride(), x.dtype, x.requires_grad) if isinstance(x, torch.Tensor) else repr(x) for x in flat)
            if key not in known:
                known[key] = tree_flatten(y := run(self, *args))
                return y
            results, made = known[key]
            given = [x for x in (*flat, *self.parameters()) if isinstance(x, torch.Tensor)]
            tensors = iter(Like.apply([y for y in results if isinstance(y, torch.Tensor)], *given))
            return tree_unflatten([next(tensors) if isinstance(y, torch.Tensor) else y for y in results], made)

        return forward

    with pytest.MonkeyPatch.context() as patch:
        for kind, n in Counter(map(type, model.modules())).items():
            if n > 1 and kind.__module__ != torch.nn.ModuleList.__module__:
                patch.setattr(kind, "forward", once(kind.forward))
        yield
