"""Candidates trained for a while."""
from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from archdsl.declared import Declared, wrong_option
from archdsl.diagnostics.model import ArchError
from archdsl.search.evaluators.device import torch_device
from archdsl.search.model import Candidate, Objective
from archdsl.search.registry import evaluator
from archdsl.search.space import SearchSpace

TRIED = 4
"""So many candidates are drawn to see whether the task fits any."""
EVERY = 200  # steps between two checkpoints


@evaluator('train(task: str, steps: int = 200, batch: int = 32, lr: float = 1e-3, weight_decay: float = 0, schedule: str = "constant", '
           'warmup: int = 0, clip: float? = none, batches: int = 8, device: str = "cpu")')
class Trained:
    """`accuracy` and `loss` on the validation split of a task, after training on it from scratch; `params`; `train_seconds`, of the steps that
    this trial trained itself. What else the task measures (`bits` of `characters`) is given too.

    A trial trains for `steps` times its fidelity, rounded up. Its learning rate at each step is that of a whole training, so one of a higher fidelity
    goes on where one of a lower fidelity stopped, and is bit by bit what it would be by itself. A study keeps a checkpoint of each candidate in its
    folder `checkpoints`, a folder that `archdsl.open` reads. Initial weights and the order of data follow from the candidate and the study's seed.

    `batches`: how many are evaluated of a split that does not end; else all of it. `archdsl explain mqar` tells about a task; its options are written
    as always: `train(task = "mqar(pairs = 4)", steps = 500)`.
    """

    rule: ClassVar[Declared]

    def __init__(self, task: str, steps: int = 200, batch: int = 32, lr: float = 1e-3, weight_decay: float = 0.0, schedule: str = "constant",
                 warmup: int = 0, clip: float | None = None, batches: int = 8, device: str = "cpu") -> None:
        from archdsl.training.schedule import SCHEDULES

        for name, value, low in (("steps", steps, 1), ("batch", batch, 1), ("batches", batches, 1), ("warmup", warmup, 0)):
            if value < low:
                raise wrong_option("A0816", name, value, f"it is {low} at least")
        if schedule not in SCHEDULES:
            raise wrong_option("A0816", "schedule", schedule, f"it is one of {', '.join(SCHEDULES)}")
        self.told, self.steps, self.batch, self.batches, self.device = task, steps, batch, batches, device
        self.how = {"lr": lr, "weight_decay": weight_decay, "schedule": schedule, "warmup": warmup, "clip": clip}
        self.folder: str | None = None

    def keep_in(self, folder: str) -> None:
        """Where checkpoints are kept, one folder a candidate."""
        self.folder = folder

    def setup(self, space: SearchSpace, objectives: Sequence[Objective]) -> None:
        """Raises A0591, A0592 and A0598 for the task, A0593 where it fits no candidate, A0599 for rates, A0816 for a device."""
        from archdsl.tasks.registry import parse
        from archdsl.training.groups import check_settings
        from archdsl.training.interface import check_call, check_inputs

        self.space, self.task = space, parse(self.told)
        check_settings({k: self.how[k] for k in ("lr", "weight_decay")})
        torch_device(self.device)
        faults: list[ArchError] = []
        for seed in range(TRIED):
            candidate = space.sample(seed)
            made = space.model(candidate)
            try:
                check_inputs(made, self.task, self.batch)
                check_call(self._built(candidate, 0), self.task, self.batch, made)
                return
            except ArchError as fault:
                faults.append(fault)
        raise faults[0]

    def _built(self, candidate: Candidate, seed: int) -> Any:
        return self.space.spec.build(self.space.variant, seed, self.device, knobs=dict(candidate))

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        from archdsl.training.fit import fit
        from archdsl.training.interface import check_call, check_inputs

        until = max(1, math.ceil(self.steps * fidelity - 1e-9))
        made = self.space.model(candidate)
        check_inputs(made, self.task, self.batch)
        model = self._built(candidate, seed)
        check_call(model, self.task, self.batch, made)
        data = {"task": self.task.text, "data": self.task.digest, "batch": self.batch}
        batches = self.task.batches("train", self.batch, seed, self.device, packed=made.form == "packed")
        with self._kept(candidate, until) as (out, resume):
            start = time.perf_counter()
            fit(model, self.task, batches, steps=self.steps, until=until, seed=seed, out=out, resume=resume, every=EVERY, settings=data,
                **self.how)  # type: ignore[arg-type]
            took = time.perf_counter() - start
        found = self.task.evaluate(model, "valid", self.batches, self.batch, seed)
        return {**found, "params": sum(p.numel() for p in model.parameters()), "train_seconds": took}

    @contextmanager
    def _kept(self, candidate: Candidate, until: int) -> Generator[tuple[str | None, bool], None, None]:
        """The folder to train in, held, and whether there is something to go on with. None where no study keeps one, where another worker trains the
        same candidate at another fidelity, and where a higher one has been trained already: the result is the same."""
        if self.folder is None:
            yield None, False
            return
        import fcntl

        from archdsl.training.checkpoint import STATE, read_settings

        os.makedirs(self.folder, exist_ok=True)
        out = os.path.join(self.folder, candidate.key)
        handle = os.open(f"{out}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None, False
                return
            done = read_settings(out)[0] if os.path.exists(os.path.join(out, STATE)) else 0
            yield (None, False) if done > until else (out, done > 0)
        finally:
            os.close(handle)
