"""`fit`: the smallest loop that serves all. What step i does depends on the state before it, the seed and i alone, so a training that was interrupted
goes on to the same bits."""
from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from archdsl.diagnostics.model import error
from archdsl.lazy import torch
from archdsl.records import field, record
from archdsl.source import NOWHERE, Source, Span
from archdsl.training import checkpoint
from archdsl.training.folder import TRAINED, Trainable, identity, prepare
from archdsl.training.groups import Group, Grouped, grouped
from archdsl.training.progress import bar
from archdsl.training.schedule import Schedule, schedule
from archdsl.wording import with_article

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.lower.module import ArchModule
    from archdsl.tasks.model import Task

Objective = Callable[[Any, Any, int], tuple["Tensor", Mapping[str, Any]]]
Batches = Callable[[int], Any] | Sequence[Any]


@record(slots=False)
class Run:
    """A training: what hooks are given after each step, and what `fit` returns. `step`: how many steps are done; `log`: a row for each of them."""

    model: Any
    optimizer: torch.optim.Optimizer
    steps: int
    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)


Hook = Callable[[Run], None]


def adamw(groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW with betas 0.9 and 0.95; `groups` carry their lr and weight_decay."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def fit(model: ArchModule | Trainable, objective: Objective | Task, batches: Batches, groups: Sequence[Group] = (), *, steps: int, seed: int = 0,
        lr: float = 1e-3, weight_decay: float = 0.0, schedule: str | Schedule = "constant", warmup: int = 0, clip: float | None = None,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = adamw, hooks: Sequence[Hook] = (),
        out: str | os.PathLike[str] | None = None, every: int = 100, resume: bool = False, settings: Mapping[str, Any] | None = None,
        until: int | None = None) -> Run:
    """Trains a model that archdsl built, or a supernet, on the device on which it is.

    objective: a task, or `(model, batch, step) -> (loss, logs)`: a scalar tensor, and numbers by name for the log. batches: a function of the step
    (from 0), such as `task.batches(…)`, or a sequence, taken round and round. groups: `(SELECTOR, {"lr", "weight_decay", "frozen"})`; of several that
    have a parameter the last one wins. schedule: constant, linear, cosine, or a function step -> factor of all rates; `warmup` steps rise to it.
    clip: the largest norm of all gradients together. optimizer: from groups to a torch optimiser with state by parameter. hooks: called after each
    step with the `Run`; one with `state_dict` and `load_state_dict` (flat, tensors or JSON values) is part of a checkpoint.

    out: a folder, which then holds the compiled model with its weights, a checkpoint of every `every` steps and of the last, and log.jsonl.
    resume: go on from its last checkpoint: weights, optimiser and log are bit by bit those of a training that was not interrupted, on the same
    machine with the same number of threads. `settings` (JSON) tells what else has to be the same, such as the data. until: stop behind that step, as
    one that is interrupted there, with a checkpoint.

    torch's random numbers are seeded by (seed, step) within a step, and are what they were before when `fit` returns; those of Python and NumPy are
    left alone. Raises ArchError A0563, A0599 for groups, A0594 to A0596 for the folder, A0597 for a loss that is not finite, A0527 where memory does
    not suffice, A0627 for a folder that cannot be written; TypeError and ValueError for other arguments.
    """
    _check(model, steps, every, clip, out, resume, groups)
    until = _until(until, steps)
    named = schedule if isinstance(schedule, str) else f"{schedule.__module__}.{getattr(schedule, '__qualname__', type(schedule).__qualname__)}"
    factor = _schedule(schedule, steps, warmup)
    module: Any = model
    found = grouped(module, groups, lr, weight_decay)
    what = {"graph": identity(model), "steps": steps, "seed": seed, "lr": lr, "weight_decay": weight_decay, "schedule": named, "warmup": warmup,
            "clip": clip, "groups": [[s, dict(g)] for s, g in groups], "optimizer": getattr(optimizer, "__qualname__", str(optimizer)),
            "settings": dict(settings or {})}
    folder = Path(out) if out is not None else None
    saved = _saved(folder, what) if folder is not None and resume else None
    with _frozen(model, found.frozen):
        trained = [{k: v for k, v in g.items() if k != "names"} for g in found.groups]
        run = Run(model, optimizer(trained), steps, frozen=found.frozen)
        if saved is not None:
            _restore(run, saved, found, hooks)
        elif folder is not None:
            prepare(model, folder, seed)
            checkpoint.write(folder, 0, what, _state(run, found, hooks), module)
        _loop(run, objective, _batches(batches), found, factor, seed, clip, hooks, folder, every, what, until)
    return run


def _loop(run: Run, objective: Any, batch: Callable[[int], Any], found: Grouped, factor: Schedule, seed: int, clip: float | None,
          hooks: Sequence[Hook], folder: Path | None, every: int, what: dict[str, Any], until: int) -> None:
    from archdsl.lower.exhausted import faults_told

    lrs = [g["lr"] for g in found.groups]
    parameters = [p for g in found.groups for p in g["params"]]
    call: Objective = getattr(objective, "objective", objective)
    log = checkpoint.Log(folder, run.step)
    run.log = log.rows
    try:
        with bar(type(run.model).__name__, until, run.step) as show, _random(run.model):
            for step in range(run.step, until):
                torch.manual_seed(_key(seed, step))
                run.model.train()
                rate = factor(step)
                for group, base in zip(run.optimizer.param_groups, lrs):
                    group["lr"] = base * rate
                run.optimizer.zero_grad(set_to_none=True)
                with faults_told(run.model):
                    loss, logs = call(run.model, batch(step), step)
                    value = _finite(loss, step, run, folder, every)
                    loss.backward()
                    row = {"step": step + 1, "loss": value, "lr": what["lr"] * rate}
                    if clip is not None:
                        row["norm"] = _clipped(parameters, clip, step, run, folder, every)
                    run.optimizer.step()
                run.step = step + 1
                log.add({**row, **{k: float(v) for k, v in logs.items()}})
                for hook in hooks:
                    hook(run)
                if folder is not None and (run.step % every == 0 or run.step == until):
                    checkpoint.write(folder, run.step, what, _state(run, found, hooks), run.model)
                show(run.step, value)
    finally:
        log.close()


# ---------------------------------------------------------------- what a step is made of
def _finite(loss: Tensor, step: int, run: Run, folder: Path | None, every: int) -> float:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        shown = list(loss.shape) if isinstance(loss, torch.Tensor) else repr(loss)
        raise TypeError(f"fit: an objective gives (loss, logs) with a loss of one number, not {shown}")
    value = float(loss.detach())
    if not math.isfinite(value):
        _diverged(f"the loss is {value} at step {step + 1} of {run.steps}", step, folder, every)
    return value


def _clipped(parameters: list[Tensor], clip: float, step: int, run: Run, folder: Path | None, every: int) -> float:
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    if not math.isfinite(norm):
        _diverged(f"the norm of the gradients is {norm} at step {step + 1} of {run.steps}", step, folder, every)
    return norm


def _diverged(message: str, step: int, folder: Path | None, every: int) -> NoReturn:
    notes = () if folder is None else (f"the last checkpoint in {folder} is that of step {step // every * every}",)
    raise error("A0597", message, NOWHERE, notes=notes,
                help="a lower learning rate, gradients clipped to a norm of 1, a longer warm-up: `--lr`, `--clip`, `--warmup`")


def _key(seed: int, step: int) -> int:
    """A seed for each step; steps of neighbouring seeds have nothing in common."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{step}".encode(), digest_size=8).digest(), "little") >> 1


@contextmanager
def _random(model: Any) -> Iterator[None]:
    devices = sorted({t.device.index or 0 for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _frozen(model: Any, names: list[str]) -> Iterator[None]:
    """Without gradients for these parameters, as long as training lasts."""
    own = dict(model.named_parameters())
    changed = [own[n] for n in names if own[n].requires_grad]
    for p in changed:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in changed:
            p.requires_grad_(True)


# ---------------------------------------------------------------- arguments
def _check(model: Any, steps: Any, every: Any, clip: Any, out: Any, resume: bool, groups: Sequence[Group]) -> None:
    from archdsl.lower.forms import form_of
    from archdsl.lower.module import ArchModule

    if isinstance(model, Trainable):
        if groups:
            raise TypeError(f"fit: groups select parameters of a model, and {with_article(type(model).__name__)} is none")
    elif not isinstance(model, ArchModule) or "archdsl" not in model.__dict__:
        raise TypeError(f"fit trains a model that archdsl built, not {type(model).__name__}")
    if form_of(model) not in TRAINED:
        raise ValueError('fit trains a model in the form `parallel` or `packed`: build(form = "parallel"), the weights are the same')
    for name, value in (("steps", steps), ("every", every)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"fit: `{name}` is a whole number from 1 up, not {value!r}")
    if clip is not None and not 0 < clip < math.inf:
        raise error("A0599", f"`clip` is a number above 0, not {clip!r}", Span(Source("settings", f"clip = {clip}"), 0, len(f"clip = {clip}")))
    if resume and out is None:
        raise ValueError("fit: `resume` needs the folder `out`")


def _until(until: Any, steps: int) -> int:
    if until is None:
        return steps
    if not isinstance(until, int) or isinstance(until, bool) or not 1 <= until <= steps:
        raise ValueError(f"fit: `until` is one of the {steps} steps, not {until!r}")
    return until


def _schedule(given: str | Schedule, steps: int, warmup: int) -> Schedule:
    if not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"fit: `warmup` is a whole number of steps, not {warmup!r}")
    if isinstance(given, str):
        return schedule(given, steps, warmup)
    rise = schedule("constant", steps, warmup)
    return lambda step: rise(step) * given(step)


def _batches(batches: Batches) -> Callable[[int], Any]:
    if callable(batches):
        return batches
    if not isinstance(batches, Sequence) or not len(batches):
        raise TypeError(f"fit: `batches` is a function of the step or a sequence that is not empty, not {type(batches).__name__}: "
                        "an iterator cannot be resumed")
    return lambda step: batches[step % len(batches)]


# ---------------------------------------------------------------- checkpoints
def _state(run: Run, found: Grouped, hooks: Sequence[Hook]) -> dict[str, Any]:
    names = {id(p): n for g in found.groups for n, p in zip(g["names"], g["params"])}
    state = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    for p, own in run.optimizer.state.items():
        state.update({f"optimizer/{names[id(p)]}/{k}": v for k, v in own.items()})
    for at, hook in enumerate(hooks):
        if hasattr(hook, "state_dict"):
            state.update({f"hooks/{at}/{k}": v for k, v in hook.state_dict().items()})  # type: ignore[attr-defined]
    return state


def _restore(run: Run, saved: checkpoint.Checkpoint, found: Grouped, hooks: Sequence[Hook]) -> None:
    run.model.load_state_dict(saved.part("model"))
    known: dict[str, dict[str, Any]] = {}
    for key, value in saved.part("optimizer").items():
        name, _, what = key.rpartition("/")
        known.setdefault(name, {})[what] = value
    order = [n for g in found.groups for n in g["names"]]
    blank = run.optimizer.state_dict()
    run.optimizer.load_state_dict({"param_groups": blank["param_groups"], "state": {i: known[n] for i, n in enumerate(order) if n in known}})
    for at, hook in enumerate(hooks):
        if hasattr(hook, "load_state_dict"):
            hook.load_state_dict(saved.part(f"hooks/{at}"))  # type: ignore[attr-defined]
    run.step = saved.step


def _saved(folder: Path, what: dict[str, Any]) -> checkpoint.Checkpoint:
    saved = checkpoint.read(folder)
    compare(folder, saved.settings, json.loads(json.dumps(what)))
    return saved


def compare(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ArchError A0596 where a training is to go on with other settings."""
    names = dict.fromkeys((*before, *now, *before.get("settings", {}), *now.get("settings", {})))
    flat = lambda d: {**d, **d.get("settings", {}), "settings": None}
    a, b = flat(before), flat(now)
    longer = now["schedule"] == "constant" == before["schedule"] and now["steps"] >= before["steps"]
    differ = [n for n in names if a.get(n) != b.get(n) and not (n == "steps" and longer)]
    if differ:
        said = {"graph": "the model", "data": "the data"}
        notes = tuple(f"{said.get(n, n)} differs" if n in said else f"{n} was {a.get(n)}, and is {b.get(n)}" for n in differ)
        span = Span(Source("-o", str(folder)), 0, len(str(folder)))
        raise error("A0596", f"the training in {folder} is another one", span, "not resumed", notes=notes,
                    help="give what it began with, or another folder without `--resume`")

