"""What is said where a model runs out of memory: in which block, how much was asked for, what is kept by layer, and what would help."""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from archdsl.cost.layers import Layer
from archdsl.cost.memory import BYTES
from archdsl.cost.model import rows
from archdsl.cost.units import short
from archdsl.diagnostics.model import error
from archdsl.dims import NotInteger
from archdsl.kernels.bindings import KernelError, bindings
from archdsl.lower.memory import weight_bytes
from archdsl.lower.misfits import bound_sizes
from archdsl.ops.registry import OpError
from archdsl.ops.rules import dtype_name
from archdsl.source import NOWHERE

if TYPE_CHECKING:
    from archdsl.graph import Graph
    from archdsl.lower.module import ArchModule

SHOWN = 4
"""Rows of the table that are told."""
LARGE = 4096
"""From so many classes on, scores are worth leaving out."""


class OutOfMemory(torch.OutOfMemoryError):
    """What a model raises in the place of torch's own error. `told`: where and how much; `notes`: what is kept; `ways`: what would help."""

    def __init__(self, told: str, notes: tuple[str, ...], ways: tuple[str, ...]):
        super().__init__("\n".join((told, *(f"  {n}" for n in notes), *(f"  it would help: {w}" for w in ways))))
        self.told, self.notes, self.ways = told, notes, ways

    def __reduce__(self) -> Any:
        return OutOfMemory, (self.told, self.notes, self.ways)


@contextmanager
def faults_told(model: nn.Module) -> Iterator[None]:
    """Inside, a training that runs out of memory in a call of the model, in its backward pass or in an optimiser's step is told as ArchError A0527,
    and a call that a kernel which was asked for does not take as A0519. A model that archdsl has not built is left alone."""
    from archdsl.lower.module import ArchModule

    if not isinstance(model, ArchModule):
        yield
        return
    sizes: dict[str, int] = {}
    hook = model.register_forward_pre_hook(lambda m, args, kwargs: sizes.update(bound_sizes(model, args, kwargs)), with_kwargs=True)
    try:
        yield
    except torch.OutOfMemoryError as fault:
        found = fault if isinstance(fault, OutOfMemory) else exhausted(model, fault, sizes)
        raise error("A0527", found.told, NOWHERE, notes=found.notes, help=found.ways) from fault
    except KernelError as fault:
        raise error("A0519", str(fault), NOWHERE, help="leave the choice, without `kernels`, or name `reference`") from fault
    finally:
        hook.remove()


@contextmanager
def building_told() -> Iterator[None]:
    """Inside, a model whose weights do not fit is told as ArchError A0527."""
    try:
        yield
    except OutOfMemory as fault:
        raise error("A0527", fault.told, NOWHERE, notes=fault.notes, help=fault.ways) from fault


def unbuilt(graph: Graph, device: torch.device, dtype: torch.dtype, fault: torch.OutOfMemoryError) -> OutOfMemory:
    """The report for a model whose weights could not be made on a device: at which of them, and what all take."""
    inside = {f.f_code.co_name: f.f_locals for f, _ in _frames(fault.__traceback__) if f.f_globals.get("__name__") == "archdsl.lower.build"}
    at = f" at `{inside['_module']['address']}{inside['_add_param']['path']}`" if "_add_param" in inside else ""
    whole, half = weight_bytes(graph, dtype), weight_bytes(graph, torch.bfloat16)
    ways = [f"`build(dtype = torch.bfloat16)`, {short(half, 'B')} in place of {short(whole, 'B')}"] if half < whole else []
    ways.append('`build(device = "meta")` takes none, and `archdsl cost SPEC --by layer` counts what each layer has')
    return OutOfMemory(f"out of memory where the weights of `{graph.name}` are made on {device},{at or ' as they get their initial values'}: "
                       f"{_asked(str(fault))}", (f"all of them take {short(whole, 'B')} in {dtype_name(dtype)}",), tuple(ways))


def exhausted(model: ArchModule, fault: torch.OutOfMemoryError, sizes: dict[str, int], inputs: Iterable[Any] = ()) -> OutOfMemory:
    """The report for a model that was called at these sizes (none: not known). `inputs`: of which one may want a gradient."""
    told = f"out of memory {_where(model, fault)}: {_asked(str(fault))}"
    weights = sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))
    notes = [f"the weights take {short(weights, 'B')}"]
    definition = type(model).definition
    dtype = _dtype(model)
    try:
        found, peak = rows(definition.source, sizes, dtype, _opaque(model))
    except (OpError, NotInteger, KeyError):  # sizes that are not known: the call failed before them
        return OutOfMemory(told, tuple(notes), ("a smaller batch",))
    at = ", ".join(f"{k} = {v}" for k, v in sizes.items())
    if torch.is_autocast_enabled(next(model.parameters(), torch.empty(0)).device.type):
        notes.append(f"counted in {dtype}, the weights' type: what autocast computes in another one takes less or more")
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (*model.parameters(), *inputs) if isinstance(x, torch.Tensor))):
        notes.append(f"at {at}, a call without gradients has {short(peak, 'B')} alive at once, as costs count it")
        return OutOfMemory(told, tuple(notes), tuple(_smaller(model, sizes, dtype, peak, 1)))
    kept = found[0].saved_bytes
    notes.append(f"at {at}, {short(kept, 'B')} are kept for the backward pass, as costs count it: {_table(found)}")
    return OutOfMemory(told, tuple(notes), (*_recomputed(model, found, dtype), *_smaller(model, sizes, dtype, kept, 0)))


def _asked(message: str) -> str:
    """How much torch asked for, and how much there was."""
    asked = re.search(r"allocate ([\d.]+ \w+)", message)
    room = re.search(r"capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", message)
    if asked is None:
        return (message.strip().splitlines() or ["torch does not say how much was asked for"])[0]
    return f"{asked[1]} were asked for" + (f", {room[2]} of {room[1]} were free" if room else "")


# ---------------------------------------------------------------- where
def place(model: ArchModule, fault: BaseException) -> tuple[str | None, str]:
    """The address of the innermost block of the model that a fault came out of, None for none, and the line of the spec in brackets."""
    names = {id(m): name for name, m in model.named_modules()}
    inside = [(f, n) for f, n in _frames(fault.__traceback__) if id(f.f_locals.get("self")) in names]
    return (names[id(inside[-1][0].f_locals["self"])], _line(inside)) if inside else (None, "")


def _where(model: ArchModule, fault: BaseException) -> str:
    frames = list(_frames(fault.__traceback__))
    name, line = place(model, fault)
    backward = any(f.f_code.co_name == "backward" and "torch" in f.f_globals.get("__name__", "") for f, _ in frames)
    if name is not None:
        block = f"in `{name}`" if name else f"in `{type(model).__name__}`"
        return f"{block}{line}, {'computed again in the backward pass' if backward else 'in the forward pass'}"
    if backward:
        return f"in the backward pass{_unfinished(model)}"
    if any("torch.optim" in f.f_globals.get("__name__", "") for f, _ in frames):
        return "in the optimiser's step, which keeps numbers of its own for each weight"
    return f"outside of `{type(model).__name__}`"


def _frames(trace: TracebackType | None) -> Iterator[tuple[Any, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _line(inside: list[tuple[Any, int]]) -> str:
    """The line of the spec, which stands behind that of the generated code."""
    import linecache

    for frame, number in reversed(inside):
        if frame.f_code.co_filename.startswith("<archdsl "):
            _, mark, place = linecache.getline(frame.f_code.co_filename, number).partition("  # ")
            return f" ({place.strip()})" if mark else ""
    return ""


def _unfinished(model: ArchModule) -> str:
    """The block that gradients had not left yet: the last one in order whose own weights have none, where gradients began empty."""
    own = [(name.rpartition(".")[0], p) for name, p in model.named_parameters() if p.requires_grad]
    waiting = [owner for owner, p in own if p.grad is None]
    if not waiting or len(waiting) == len(own):
        return ", before the first gradient of a weight" if waiting else ""
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    return f" of `{max(waiting, key=lambda n: order.get(n, -1))}`"


# ---------------------------------------------------------------- how much
def _dtype(model: ArchModule) -> str:
    """Of the weights as they are now: a model may have been put into another type since it was built."""
    now = next((p.dtype for p in model.parameters() if p.is_floating_point() and p.itemsize > 1), None)
    return dtype_name(now or getattr(torch, type(model).definition.dtype))


def _opaque(model: ArchModule) -> frozenset[str]:
    """Ops that a kernel computes on the model's device, and that keep their operands alone."""
    target = type(model).definition.target
    if target is None or target.plain or target.every:
        return frozenset()
    ops = {n.op for g in type(model).definition.source.definitions() for n in g.nodes}
    return frozenset(op for op in ops for b in bindings(op).values() if target.device in b.devices and (not b.by_name or target.asked(op) == b.name))


def _table(found: tuple[Layer, ...]) -> str:
    """What the blocks below the model keep, equal ones together, the most first."""
    groups: dict[tuple[str, int], list[Layer]] = {}
    for row in found[1:]:
        if "." not in _outer(row.path) and row.saved_bytes and _is_outermost(row.path, found):
            groups.setdefault((re.sub(r"\.\d+$", ".*", row.path), row.saved_bytes), []).append(row)
    largest = sorted(groups.items(), key=lambda g: -g[0][1] * len(g[1]))[:SHOWN]
    told = [f"{f'{len(rows)} × ' if len(rows) > 1 else ''}{short(size, 'B')} in `{path if len(rows) > 1 else rows[0].path}`"
            for (path, size), rows in largest]
    return ", ".join(told) or "none of it in blocks below"


def _outer(path: str) -> str:
    """An address without the numbers of a loop."""
    return re.sub(r"\.\d+", "", path)


def _is_outermost(path: str, found: tuple[Layer, ...]) -> bool:
    return not any(row.path and path.startswith(f"{row.path}.") for row in found)


# ---------------------------------------------------------------- what would help
def _recomputed(model: ArchModule, found: tuple[Layer, ...], dtype: str) -> Iterator[str]:
    from archdsl.lower.compile import layers

    by_path = {r.path: r for r in found}
    chosen = [by_path[n] for n, m in layers(model) if n in by_path and not type(m).rematerialised]
    kept = found[0].saved_bytes
    if chosen and model.training:
        inputs = sum(prod(r.output) * BYTES[dtype] for r in chosen)
        left = kept - sum(r.saved_bytes for r in chosen) + inputs + max(r.saved_bytes for r in chosen)
        if left < kept:
            yield (f"`archdsl.checkpoint_layers(model)`, about {short(left, 'B')} in place of {short(kept, 'B')}: blocks are computed again in the "
                   "backward pass; or `archdsl.compile_layers(model, memory = 0.5)`, on the way there")
    scores = type(model).definition.source.outputs[0]
    classes = scores.shape[-1] if scores.shape and scores.type.is_float else None
    if model.training and not model.__dict__.get("_loss") and isinstance(classes, int) and classes >= LARGE:
        yield f'`build(loss = "cross_entropy")`: the scores of {classes:,} classes are not kept'
    if not model.training:
        yield "`torch.no_grad()`, under which nothing is kept"


def _smaller(model: ArchModule, sizes: dict[str, int], dtype: str, before: int, figure: int) -> Iterator[str]:
    """Half of each size that the first input has, the batch first. `figure`: 0 for what is kept, 1 for what is alive at once."""
    names = [str(s) for s in type(model).definition.source.inputs[0].shape if str(s) in sizes]
    for name in names[:2]:
        if sizes[name] < 2:
            continue
        half = {**sizes, name: sizes[name] // 2}
        try:
            found, peak = rows(type(model).definition.source, half, dtype, _opaque(model))
        except (OpError, NotInteger, KeyError):
            continue
        now = (found[0].saved_bytes, peak)[figure]
        if now < before:
            yield f"{name} = {half[name]} in place of {sizes[name]}, {short(now, 'B')} in place of {short(before, 'B')}"
