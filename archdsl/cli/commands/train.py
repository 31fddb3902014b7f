"""archdsl train: a model, a task, a folder."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from archdsl.cli.output import count, progress, show_json, show_table
from archdsl.cli.source import Opened, open_source, read_settings
from archdsl.diagnostics.model import error
from archdsl.kernels.target import Kernels, parse_kernels
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.tasks.model import Task


class Asked(NamedTuple):
    """What the command line says of the training itself."""

    steps: int
    size: int
    seed: int
    lr: float
    weight_decay: float
    schedule: str
    warmup: int
    clip: float | None
    groups: list[str]
    every: int
    device: str
    kernels: str | None = None


def train(source: str, task: str, settings: list[str], out: str, resume: bool, asked: Asked, json: bool) -> int:
    """Trains, or goes on with, a model; prints the metrics of the validation split."""
    from archdsl.tasks.registry import parse
    from archdsl.training.checkpoint import read_settings as resumable
    from archdsl.training.folder import refuse_another
    from archdsl.training.groups import parse_group
    from archdsl.training.interface import check_inputs

    known = parse(task)
    opened = open_source(source)
    knobs = read_settings(settings)
    made = opened.spec.elaborate(opened.variant, knobs)
    groups = [parse_group(g) for g in asked.groups]
    form = _form(opened, made)
    check_inputs(made, known, asked.size)
    if resume:
        resumable(out)
    else:
        refuse_another(Path(out))
    device, named = _device(asked.device), _kernels(opened, asked.kernels)
    with progress("loading torch"):
        from archdsl.lower.exhausted import building_told, faults_told
        from archdsl.store import compile_to, open
        from archdsl.training.fit import fit
        from archdsl.training.interface import check_call
    with progress(f"building {source}"), building_told():
        model: Any = open(source, device, kernels=named, loss=known.loss) if opened.folder is not None else \
            opened.spec.build(opened.variant, asked.seed, device, form=form, knobs=knobs, kernels=named, loss=known.loss)
        check_call(model, known, asked.size, made)
        if not resume:
            compile_to(out, opened.spec, opened.variant, knobs, seed=asked.seed, again=opened.folder, form=form,
                       weights={k: v.cpu() for k, v in model.state_dict().items()})
    data = {"task": known.text, "data": known.digest, "batch": asked.size, "kernels": None if named == "auto" else named}
    batches = known.batches("train", asked.size, asked.seed, device, packed=form == "packed")
    run = fit(model, known, batches, groups, steps=asked.steps, seed=asked.seed, lr=asked.lr, weight_decay=asked.weight_decay,
              schedule=asked.schedule, warmup=asked.warmup, clip=asked.clip, out=out, every=asked.every, resume=resume, settings=data)
    with progress("evaluating"), faults_told(model):
        found = known.evaluate(model, "valid", size=asked.size, seed=asked.seed)
    _show(out, model, known, run.log[-1]["loss"], run.step, found, json)
    return 0


def _show(out: str, model: Any, task: Task, loss: float, step: int, found: dict[str, float], json: bool) -> None:
    if json:
        show_json({"out": out, "task": task.text, "steps": step, "loss": loss, "valid": found})
        return
    origin = model.archdsl
    print(f"{out}: {origin.model}{f'.{origin.variant}' if origin.variant else ''}, {count(step, 'step')} of {task.text}\n")
    show_table(["split", *found], [["valid", *(f"{v:.4f}" for v in found.values())]], right=range(1, 1 + len(found)))


def _form(opened: Opened, made: Elaborated) -> str:
    """The form to train: that of the header, of a folder its own. Raises ArchError A0599 for one that is for evaluation."""
    if opened.folder is None:
        return made.form
    from archdsl.store import read_manifest
    from archdsl.training.folder import TRAINED

    form = read_manifest(Path(opened.folder)).form
    if form not in TRAINED:
        span = Span(Source("SOURCE", opened.folder), 0, len(opened.folder))
        raise error("A0599", f"{opened.folder} holds the form `{form}`, which is for evaluation", span,
                    help="compile the spec in the form `parallel`: its weights are the same")
    return form


def _kernels(opened: Opened, text: str | None) -> Kernels:
    """The kernels that are asked for, else those that the folder was compiled with."""
    from archdsl.store import read_manifest

    return read_manifest(Path(opened.folder)).kernels if text is None and opened.folder is not None else parse_kernels(text)


def _device(name: str) -> Any:
    """torch's device. Raises ArchError A0599 for one that is not there."""
    with progress("loading torch"):
        import torch
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise error("A0599", f"there is no device `{name}`: {str(fault).splitlines()[0]}", Span(Source("--device", name), 0, len(name)),
                    help="`cpu` is always there, `cuda` where torch finds a GPU") from None
    return device
