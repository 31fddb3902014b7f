"""Small modules that a lowered model is put together from besides its blocks, and the checks of run-time sizes."""
from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from archdsl.ops.registry import LENGTH, OPS, load


class Scope(nn.Module):
    """A segment of an address that is no block: holds the owners and weights below it. Numbered ones are reached as `scope[3]` too."""

    def __getitem__(self, i: int) -> nn.Module:
        return getattr(self, str(i))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._modules.values())  # type: ignore[arg-type]


class PhaseOp(nn.Module):
    """An op that acts differently in training, with its attributes. Operands are those of the op."""

    def __init__(self, op: str, attrs: dict[str, Any]):
        super().__init__()
        self.op, self.attrs = op, attrs

    def forward(self, *operands: Any) -> Any:
        if self.op == "batch_norm" and recomputing():
            operands = tuple(o.clone() if i in (3, 4) and o is not None else o for i, o in enumerate(operands))  # the statistics moved once already
        load()
        return OPS[self.op].body(*operands, **self.attrs, training=self.training)

    def extra_repr(self) -> str:
        return ", ".join([self.op, *(f"{k}={v}" for k, v in self.attrs.items())])


class Phase(nn.Module):
    """`phase { train => … eval => … }`: one of two graphs, whose weights arrive as inputs."""

    def __init__(self, train_arm: nn.Module, eval_arm: nn.Module):
        super().__init__()
        self.train_arm, self.eval_arm = train_arm, eval_arm

    def forward(self, *inputs: Any) -> Any:
        return self.train_arm(*inputs) if self.training else self.eval_arm(*inputs)


class Scan(nn.Module):
    """`scan … over T carry …`: the body at one position after the other. Its inputs are what is scanned along `axes`, the initial values of the
    `carries`, then what it takes from outside; its results the new carries, then what it yields. Gives the yields, stacked, and the last carries."""

    def __init__(self, body: nn.Module, axes: tuple[int, ...], carries: int):
        super().__init__()
        self.body, self.axes, self.carries = body, axes, carries

    def forward(self, *inputs: Any) -> Any:
        n, c = len(self.axes), self.carries
        scanned, carried, others = inputs[:n], inputs[n:n + c], inputs[n + c:]
        results: list[tuple[torch.Tensor, ...]] = []
        for t in range(scanned[0].size(self.axes[0])):
            found = self.body(*(x.select(axis, t) for x, axis in zip(scanned, self.axes)), *carried, *others)
            found = found if isinstance(found, tuple) else (found,)
            carried = found[:c]
            results.append(found[c:])
        if not results:  # of no positions: results as of a position of zeros, and the first values of the carries
            found = self.body(*(x.new_zeros(x.movedim(axis, 0).shape[1:]) for x, axis in zip(scanned, self.axes)), *carried, *others)
            found = found if isinstance(found, tuple) else (found,)
            return (*(y.unsqueeze(self.axes[0]).narrow(self.axes[0], 0, 0) for y in found[c:]), *carried)
        return (*(torch.stack(y, self.axes[0]) for y in zip(*results)), *carried)


@dataclass(frozen=True)
class Part:
    """What a private name of a block stands for. kind: op (a PhaseOp or nn.Dropout), phase (`arms`: two definitions), scan (`arms`: its body),
    read, commit, constant."""

    kind: str
    op: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)
    arms: tuple[Any, ...] | None = None
    value: torch.Tensor | None = None

    def make(self, module: Callable[[Any], nn.Module]) -> nn.Module | torch.Tensor:
        """A fresh module or the tensor; `module` makes that of a definition."""
        if self.kind == "constant":
            assert self.value is not None
            return self.value
        if self.kind == "phase":
            assert self.arms is not None
            return Phase(*map(module, self.arms))
        if self.kind == "scan":
            assert self.arms is not None
            return Scan(module(self.arms[0]), **self.attrs)
        if self.kind == "op":
            return nn.Dropout(self.attrs["rate"]) if self.op == "dropout" else PhaseOp(self.op, self.attrs)
        return Read() if self.kind == "read" else Commit()


@torch.library.custom_op("archdsl::snapshot", mutates_args=())
def snapshot(buffer: torch.Tensor) -> torch.Tensor:
    """A copy. An op of its own, because torch.compile drops plain copies of what changes later and the backward pass then reads new values."""
    return buffer.clone()


@snapshot.register_fake
def _(buffer: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(buffer)


class Read(nn.Module):
    """A buffer's value as it is before this forward pass changes it, also for the backward pass."""

    def forward(self, buffer: torch.Tensor) -> torch.Tensor:
        return snapshot(buffer) if self.training else buffer


class Commit(nn.Module):
    """Writes a buffer's new value in training; the model's last act in a forward pass."""

    def forward(self, buffer: torch.Tensor, value: torch.Tensor) -> None:
        if self.training:
            with torch.no_grad():
                buffer.copy_(value)


_COMPARE = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def require(left: int, relation: str, right: int, message: str) -> None:
    """Raises ValueError(message) unless the sizes stand in that relation."""
    if not _COMPARE[relation](left, right):
        raise ValueError(message)


def fit(*inputs: tuple[torch.Tensor, str, str, tuple[int | str | None, ...]]) -> None:
    """Raises ValueError unless every input (tensor, name, shape as it is written, axes) has its axes: sizes as given, one size for each name."""
    sizes: dict[str, int] = {}
    for x, name, shape, axes in inputs:
        if not isinstance(x, torch.Tensor) and not hasattr(x, "dim"):  # torch 2.9's compiler does not know that tensors have methods
            raise ValueError(f"the input `{name}` is a tensor {shape}: this is {type(x).__name__}")
        good = x.dim() == len(axes)
        if good:
            for axis, expected in enumerate(axes):
                size = x.size(axis)
                if expected is not None and size != (sizes.setdefault(expected, size) if isinstance(expected, str) else expected):
                    good = False
        if not good:
            known = "".join(f", {n} = {sizes[n]}" for n in dict.fromkeys(axes) if isinstance(n, str) and n in sizes) if x.dim() == len(axes) else ""
            raise ValueError(f"the input `{name}` is {shape}{known}: this is {list(x.shape)}")


def draws_given(draws: dict[str, torch.Tensor], expected: tuple[tuple[str, torch.dtype], ...]) -> None:
    """Raises ValueError unless there is a tensor of the given element type for each address, and nothing else."""
    missing = [address for address, _ in expected if address not in draws]
    if missing or len(draws) != len(expected):
        known = [address for address, _ in expected]
        fault = f"`{missing[0]}` is missing" if missing else f"`{next(a for a in draws if a not in known)}` is none of them"
        raise ValueError(f"`draws` holds the draws {', '.join(f'`{a}`' for a in known)}: {fault}")
    for address, dtype in expected:
        if not isinstance(draws[address], torch.Tensor) or draws[address].dtype != dtype:
            told = getattr(draws[address], "dtype", type(draws[address]).__name__)
            raise ValueError(f"the draw `{address}` is a tensor of {dtype}: this is {told}")


def holds(state: dict[str, torch.Tensor], expected: tuple[tuple[str, tuple[int | str | None, ...], torch.dtype], ...], new: int,
          longest: int | None) -> None:
    """Raises ValueError unless a state has the tensors (address, axes, dtype) of this model, sizes as given, one size for each name, and room for
    `new` positions, at least one, or where it is known without waiting for a device that there would be more than `longest`."""
    if new < 1:
        raise ValueError("a call of a form with state takes one position or more along the stream: this one has none")
    if type(state) is not dict or len(state) != len(expected) or any(address not in state for address, _, _ in expected):
        _no_state(state, expected)
    sizes: dict[str, int] = {}
    device = getattr(state[expected[0][0]], "device", None) if expected else None
    for address, axes, dtype in expected:
        x = state[address]
        good = isinstance(x, torch.Tensor) and x.dim() == len(axes) and x.dtype == dtype
        for axis, size in enumerate(axes if good else ()):
            if size is not None and x.size(axis) != (sizes.setdefault(size, x.size(axis)) if isinstance(size, str) else size):
                good = False
        if not good:
            shown = ", ".join("…" if a is None else str(a) for a in axes)
            known = "".join(f", {n} = {sizes[n]}" for n in dict.fromkeys(axes) if isinstance(n, str) and n in sizes)
            told = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
            raise ValueError(f"the state `{address}` is {dtype} [{shown}]{known}: this is {told}")
        if x.device != device:
            raise ValueError(f"the state is on one device: `{address}` is on {x.device}, `{expected[0][0]}` on {device}")
    if "position" in state and not torch.compiler.is_compiling() and state["position"].device.type == "cpu":
        before = int(state["position"])
        _begun(before, state.get("start"))
        _room(before, new, sizes.get(LENGTH), longest)


def _begun(before: int, start: torch.Tensor | None) -> None:
    """Raises ValueError unless rows began between the first position and the one that comes next."""
    if before < 0:
        raise ValueError(f"the state `position` counts the positions that came before, from 0 up: this is {before}")
    if start is not None and start.numel():
        low, high = (int(end) for end in torch.aminmax(start))
        if low < 0 or high > before:
            raise ValueError(f"the state `start` is where each row began, 0 to {before} as `position` says: this is {start.tolist()}")


def _room(before: int, new: int, room: int | None, longest: int | None) -> None:
    if longest is not None and before + new > longest:
        raise ValueError(f"this model has {longest} positions at most: {before} came before, and {new} more come")
    if room is not None and before + new > room:
        more = max(2 * room, before + new) if longest is None else min(longest, max(2 * room, before + new))
        raise ValueError(f"the state has room for {room} positions: it holds {before}, and {new} more come; init_state(length = {more}) makes more")


def sums(lengths: torch.Tensor, total: int) -> None:
    """Raises ValueError unless the lengths of documents, each at least 1, sum to all positions; where that is known without waiting for a device."""
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        return
    if lengths.is_floating_point():
        raise ValueError(f"the lengths of the documents are whole numbers, int64: these are {lengths.dtype}")
    if lengths.numel() == 0 or int(lengths.min()) < 1 or int(lengths.sum()) != total:
        shown = lengths.tolist() if lengths.numel() <= 8 else f"{lengths.numel()} lengths"
        raise ValueError(f"the lengths of the documents, each at least 1, sum to the {total} positions: {shown} sum to {int(lengths.sum())}")


def _no_state(state: Any, expected: tuple[tuple[str, Any, Any], ...]) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"the state is a dict of tensors by address, as init_state(batch = 1) gives it: this is {type(state).__name__}")
    names = [address for address, _, _ in expected]
    missing, more = [n for n in names if n not in state], [n for n in state if n not in names]
    told = [f"{what} {', '.join(f'`{n}`' for n in found[:4])}{' and others' if len(found) > 4 else ''}"
            for what, found in (("lacks", missing), ("also has", more)) if found]
    raise ValueError(f"this is not the state of this model: it {' and '.join(told)}")


# ---------------------------------------------------------------- activation checkpointing
_local = threading.local()


def recomputing() -> bool:
    """Whether this forward pass repeats one for the backward pass."""
    return getattr(_local, "depth", 0) > 0


@contextlib.contextmanager
def _recompute() -> Iterator[None]:
    _local.depth = getattr(_local, "depth", 0) + 1
    try:
        yield
    finally:
        _local.depth -= 1


def recompute_contexts() -> tuple[Any, Any]:
    """For torch.utils.checkpoint's `context_fn`: nothing around the first pass, a mark around the second."""
    return contextlib.nullcontext(), _recompute()
