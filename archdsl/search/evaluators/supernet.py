"""Candidates on the weights of a trained supernet."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from archdsl.declared import Declared, wrong_option
from archdsl.diagnostics.model import ArchError, error
from archdsl.search.evaluators.device import torch_device
from archdsl.search.model import Candidate, Objective, Space
from archdsl.search.registry import evaluator
from archdsl.source import Source, Span

_LAST: dict[Any, Any] = {}
"""The supernet that was read last into the CPU's memory: searches one behind another, in one process, are often on the same."""


def _loaded(folder: str, device: Any) -> Any:
    """The supernet in a folder, in evaluation. Raises A0817."""
    from archdsl.supernet.folder import FILE, WEIGHTS, load, read

    names = [os.path.join(folder, name) for name in (FILE, WEIGHTS, *read(folder).files)]
    if str(device) != "cpu" or not all(map(os.path.exists, names)):
        return load(folder, device).eval()
    found = map(os.stat, names)
    key = os.path.realpath(folder), *((s.st_mtime_ns, s.st_size, s.st_ino) for s in found)
    if key not in _LAST:
        net = load(folder, device).eval()
        _LAST.clear()
        _LAST[key] = net
    return _LAST[key]


@evaluator('supernet(folder: str, task: str? = none, calibrate: int = 8, batch: int = 64, batches: int = 8, device: str = "cpu")',
           source="arxiv 1903.05134, 1908.09791, 2109.00642")
class Inherited:
    """`accuracy` and `loss` of a candidate on its part of the weights of the supernet in `folder`, over the validation split of the task that it was
    trained for (or `task`), and `params`. Before, the running statistics of its batch norms are measured again on `calibrate` batches of training
    data: those of the supernet are of all candidates together.

    `batches`: how many are evaluated of a split that does not end; else all of it. Seed and fidelity change nothing.
    `archdsl.supernet.training.train_supernet(spec, task, steps, out = …)` writes the folder.
    """

    rule: ClassVar[Declared]

    def __init__(self, folder: str, task: str | None = None, calibrate: int = 8, batch: int = 64, batches: int = 8, device: str = "cpu") -> None:
        for name, value in (("calibrate", calibrate), ("batch", batch), ("batches", batches)):
            if value < 1:
                raise wrong_option("A0816", name, value, "it is 1 at least")
        self.folder, self.told, self.calibrate, self.batch, self.batches, self.device = folder, task, calibrate, batch, batches, device

    def setup(self, space: Space, objectives: Sequence[Objective]) -> None:
        """Raises A0817 without a supernet, A0818 for one of another space, A0591 and A0592 for its task, A0593 for one that does not fit, A0816 for a
        device."""
        from archdsl.supernet.folder import read
        from archdsl.tasks.registry import parse
        from archdsl.training.interface import check_inputs

        task = self.told or read(self.folder).task
        if task is None:
            raise error("A0818", f"the supernet in `{self.folder}` does not say what it was trained for", self._span(),
                        help="name a task: `supernet(folder = \"…\", task = \"digits\")`")
        self.task = parse(task)
        self.net = _loaded(self.folder, torch_device(self.device))
        check_inputs(self.net.space.model(self.own(space.sample(0))), self.task, self.batch)

    def own(self, candidate: Candidate) -> Candidate:
        """The same candidate in the supernet's space. Raises A0818."""
        try:
            found = self.net.space.candidate(dict(candidate))
        except ArchError as fault:
            raise self._other(fault.diagnostics[0].message) from None
        if found.key != candidate.key:
            raise self._other("these settings give another graph there")
        return found

    def _other(self, why: str) -> ArchError:
        return error("A0818", f"the supernet in `{self.folder}` is of another space: {why}", self._span(),
                     help="search the spec, variant and limits that it was trained with")

    def _span(self) -> Span:
        return Span(Source("--evaluator", f"supernet:{self.folder}"), 0, len(self.folder) + len("supernet:"))

    def model(self, candidate: Candidate) -> Any:
        """The candidate as a model of its own, on its weights, with statistics of its own."""
        from archdsl.lower.statistics import recalibrate

        model: Any = self.net.extract(self.own(candidate))
        at = self.task.batches("train", self.batch, 0, self.device)
        batches = (at(i) for i in range(self.calibrate))
        recalibrate(model, (tuple(batch[i.name] for i in self.task.inputs) for batch in batches))
        return model.eval()

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        model = self.model(candidate)
        found = self.task.evaluate(model, "valid", self.batches, self.batch)
        return {**found, "params": sum(p.numel() for p in model.parameters())}
