"""What a failed call of a model on the CPU says where an index names no row of a table: a token outside of the vocabulary.

Nothing is looked at before the call. Where torch refuses it, the call is made once more up to the op that refuses, whose operands tell which index
it is: torch itself says neither that nor how many rows there are. On a card an index is refused later, by an assertion of its kernel.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

SAID = ("out of range", "out of bounds", "out of DATA bounds", "not in the valid range", "idx < num_embeddings")
"""What torch says of an index that there is not."""
Found = tuple[str, torch.Tensor, int, int]
"""The op, the indices, how many rows there are, and the least index."""


class OutsideTable(ValueError, IndexError):
    """An index that names no row of a table: an input that the model does not take, and torch's own kind of fault."""


def outside(model: ArchModule, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Iterable[tuple[str, torch.Tensor]],
            fault: BaseException) -> OutsideTable | None:
    """What is raised in the place of torch's fault; None where that is of another kind. `inputs`: the tensors given, by name."""
    if not any(said in str(fault) for said in SAID):
        return None
    found = _refused(model, args, kwargs)
    if found is None:
        return None
    from archdsl.lower.exhausted import place

    op, index, rows, least = found
    name, line = place(model, fault)
    at = f", at `{name}`" if name else ""
    wrong = int(index[(index < least) | (index >= rows)][0])
    holder = next((f"the input `{name}`" for name, x in inputs if x.shape == index.shape and torch.equal(x.to(index.dtype), index)), "its index")
    return OutsideTable(f"{holder} holds {wrong}, and `{op}` takes {least} to {rows - 1}: its table has {rows} rows{line}{at}")


class _Watching(TorchFunctionMode):
    """Keeps the call of torch that raises."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: tuple[Callable[..., Any], tuple[Any, ...]] | None = None

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except (IndexError, RuntimeError):
            self.refused = func, args
            raise


def _refused(model: ArchModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found | None:
    """The indexing op that refuses the call, on the CPU, with an index that there is not."""
    watching = _Watching()
    before = [(b, b.clone()) for b in model.buffers()] if model.training else []  # statistics that a call writes
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), watching:
            nn.Module.__call__(model, *args, **kwargs)
    except (IndexError, RuntimeError):
        if watching.refused is None:
            return None
        for op, index, rows, least in _indices(*watching.refused):
            if index.device.type == "cpu" and bool(((index < least) | (index >= rows)).any()):
                return op, index, rows, least
    finally:
        with torch.no_grad():
            for b, kept in before:
                b.copy_(kept)
    return None


def _indices(func: Callable[..., Any], args: tuple[Any, ...]) -> list[Found]:
    if func in (F.embedding, F.embedding_bag):
        return [(func.__name__, args[0], args[1].shape[0], 0)]
    if func in (torch.index_select, torch.gather, torch.index_copy, torch.scatter):
        x, axis, index = args[:3]
        return [({torch.index_select: "take", torch.gather: "gather"}.get(func, "put"), index, x.shape[axis], 0)]
    if func is torch.Tensor.__getitem__:
        items = args[1] if isinstance(args[1], tuple) else (args[1],)
        return [("take", i, n, -n) for i, n in zip(items, args[0].shape) if isinstance(i, torch.Tensor) and i.dtype != torch.bool]
    return []
