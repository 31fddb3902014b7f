"""Whether a model and a task go together: before training, in words of sizes."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.source import NOWHERE, Span

if TYPE_CHECKING:
    from torch.nn import Module

    from archdsl.elaborate.model import Elaborated, InputSpec
    from archdsl.tasks.model import Axis, Task


def check_inputs(made: Elaborated, task: Task, size: int) -> None:
    """Raises ArchError A0593 where the inputs of a task, in batches of `size`, do not go into a model's. Loads no torch."""
    if made.ragged and task.unpackable:
        raise _fault(made, task, f"it takes documents behind each other, and {task.unpackable}")
    if len(made.inputs) != len(task.inputs):
        raise _fault(made, task, f"the model takes {_count(len(made.inputs))}, the task gives {len(task.inputs)}")
    sizes: dict[str, tuple[int, str]] = {}
    known = {**task.sizes, "B": size}
    if made.ragged:
        known |= {"B": 1, "T": size * task.sizes["T"]}
    for ours, theirs in zip(made.inputs, task.inputs):
        _fits(made, task, ours, theirs, known, sizes)


def _fits(made: Elaborated, task: Task, ours: InputSpec, theirs: Axis, known: dict[str, int], sizes: dict[str, tuple[int, str]]) -> None:
    kind = "float" if ours.type.is_float else ours.type.dtype
    if (theirs.kind == "float") != ours.type.is_float or kind == "bool":
        raise _fault(made, task, f"`{ours.name}` holds {'floats' if kind == 'float' else kind}, the task's `{theirs.name}` {theirs.kind}")
    if len(ours.type.shape) != len(theirs.shape):
        raise _fault(made, task, f"`{ours.name}` has {len(ours.type.shape)} axes, the task's `{theirs.name}` {len(theirs.shape)}")
    for at, (size, axis) in enumerate(zip(ours.type.shape, theirs.shape)):
        given = axis if isinstance(axis, int) else known[axis]
        place = f"axis {at} of `{ours.name}`"
        if isinstance(size, int):
            if size != given:
                raise _fault(made, task, f"{place} has {size} positions, the task's {given}", _knob_help(made, size, given))
        elif str(size) in size.symbols:
            before, where = sizes.setdefault(str(size), (given, place))
            if before != given:
                raise _fault(made, task, f"`{size}` is {before} in {where} and {given} in {place}")
    if theirs.high is not None and ours.high is not None and (theirs.high > ours.high or (theirs.low or 0) < ours.low):
        values = f"{ours.low}..{ours.high}"
        raise _fault(made, task, f"`{ours.name}` takes {values}, the task gives {theirs.low}..{theirs.high}",
                     _knob_help(made, int(ours.high) + 1, theirs.high + 1))


def _knob_help(made: Elaborated, value: int, wanted: int) -> tuple[str, ...]:
    """How to set the one knob that has this value and stands among the inputs."""
    said = " ".join(p.span.text for p in made.decl.inputs) if made.decl.inputs else made.decl.span.text
    fitting = [a for a, k in made.knobs.items() if isinstance(k.value, int) and not isinstance(k.value, bool) and k.value == value
               and re.search(rf"\b{re.escape(a)}\b", said)]
    return (f"set it: `--set {fitting[0]}={wanted}`",) if len(fitting) == 1 else ()


def check_call(model: Module, task: Task, size: int, made: Elaborated | None = None) -> None:
    """Calls the model in evaluation on a batch of `size`. Raises ArchError A0593 where it refuses them, or gives scores of another shape."""
    import torch

    from archdsl.lower.forms import form_of
    from archdsl.tasks.model import IGNORE

    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    batch = task.batches("train", size, device=device, packed=form_of(model) == "packed")(0)
    phase = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            scores = task.call(model.eval(), batch)
    except (ValueError, IndexError) as fault:
        raise _fault(made, task, f"the model refuses the task's inputs: {fault}", name=type(model).__name__) from fault
    finally:
        model.train(phase)
    wanted = tuple(batch["targets"].shape)
    if not isinstance(scores, torch.Tensor) or scores.shape[:-1] != wanted or not scores.is_floating_point():
        shown = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise _fault(made, task, f"the task needs scores of the shape {[*wanted, task.classes]}, the model gives {shown}", name=type(model).__name__)
    targets = batch["targets"]
    if scores.shape[-1] < task.classes:
        raise _fault(made, task, f"the task has {task.classes} classes, the model gives scores for {scores.shape[-1]}",
                     _knob_help(made, scores.shape[-1], task.classes) if made is not None else (), name=type(model).__name__)
    assert bool(((targets == IGNORE) | ((targets >= 0) & (targets < task.classes))).all()), task


def _count(n: int) -> str:
    return f"{n} input" if n == 1 else f"{n} inputs"


def _fault(made: Elaborated | None, task: Task, message: str, help: tuple[str, ...] = (), name: str = "") -> ArchError:
    span: Span = made.decl.name_span if made is not None else NOWHERE
    takes: tuple[Any, ...] = ()
    if made is not None:
        takes = (f"the model takes {', '.join(f'{i.name}: {i.type}' for i in made.inputs)}",)
    notes = (*takes, f"the task gives {', '.join(map(str, task.inputs))}" + "".join(f", {k} = {v}" for k, v in task.sizes.items()))
    return error("A0593", f"`{name or (made.decl.name if made is not None else '')}` does not fit the task `{task.rule.name}`: {message}", span,
                 notes=notes, help=help or (f"options of the task may make them agree: `archdsl explain {task.rule.name}`",))
