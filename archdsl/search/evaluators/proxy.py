"""Candidates before any training: zero-cost proxies."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from archdsl.declared import Declared, wrong_option
from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.model import Elaborated
from archdsl.lazy import torch
from archdsl.search.evaluators.device import torch_device
from archdsl.search.model import Candidate, Objective
from archdsl.search.proxies.registry import PROXIES, Proxy
from archdsl.search.registry import evaluator
from archdsl.search.space import SearchSpace
from archdsl.source import Source, Span

TRIED = 4
"""So many candidates are drawn to see whether a proxy says something about any."""


@evaluator('proxy(name: str, batch: int = 16, task: str? = none, at: str? = none, repeats: int = 1, device: str = "cpu")',
           source="arxiv 2101.08134, 2201.13396")
class Proxies:
    """Zero-cost proxies: what the untrained network tells in one or a few passes. `name`: one of them, or several with commas between,
    `proxy:"synflow, naswot"`; each gives a value of its name, and `params` is always beside them, which a proxy has to beat.
    `archdsl explain synflow` tells the formula, the paper, which way it counts, and what it needs of a model: `naswot` needs rectifiers, `zen` batch
    norms. A candidate about which a proxy says nothing is a failed trial with that reason.

    `batch`: how many examples, the same for all candidates: of the training split of `task`, else random ones in the ranges and shapes of the inputs,
    with random classes. `at`: other run-time sizes (`"T=32"`) than the spec's examples, without a task. `repeats`: the mean over so many
    initialisations. Weights follow from the candidate and the study's seed; fidelity changes nothing.
    """

    rule: ClassVar[Declared]

    def __init__(self, name: str, batch: int = 16, task: str | None = None, at: str | None = None, repeats: int = 1, device: str = "cpu") -> None:
        from archdsl.cost.sizes import parse_sizes

        for option, value, low in (("batch", batch, 2), ("repeats", repeats, 1)):
            if value < low:
                raise wrong_option("A0816", option, value, f"it is {low} at least")
        if task and at:
            raise wrong_option("A0816", "at", f'"{at}"', "the sizes are those of the task")
        self.asked = [PROXIES.parse(text.strip()) for text in _split(name)]
        names = [rule.name for rule, _ in self.asked]
        if len(set(names)) < len(names):
            raise wrong_option("A0816", "name", f'"{name}"', "each proxy is asked once")
        self.batch, self.told, self.repeats, self.device = batch, task, repeats, device
        self.at = parse_sizes(at)[0] if at else {}

    def setup(self, space: SearchSpace, objectives: Sequence[Objective]) -> None:
        """Raises A0843 where a proxy says nothing about the candidates, A0591 to A0593 for the task, A0641 to A0643 for sizes, A0816 for a device."""
        from archdsl.tasks.registry import parse

        self.space, self.task = space, parse(self.told) if self.told else None
        torch_device(self.device)
        faults: list[ArchError] = []
        for seed in range(TRIED):
            try:
                self._fits(space.model(space.sample(seed)))
                return
            except ArchError as fault:
                faults.append(fault)
        raise faults[0]

    def _fits(self, made: Elaborated) -> None:
        from archdsl.training.interface import check_inputs

        for rule, _ in self.asked:
            why = rule.unfit(made)
            if why is not None:
                raise _says_nothing(rule, made, why)
        if self.task is not None:
            check_inputs(made, self.task, self.batch)
        else:
            self._sizes(made)

    def _sizes(self, made: Elaborated) -> dict[str, int]:
        from archdsl.cost.sizes import model_sizes

        first = next((i.type.shape[0] for i in made.inputs if i.type.shape), 1)
        return model_sizes(made, {**({str(first): self.batch} if not isinstance(first, int) and str(first) in first.symbols else {}), **self.at})

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        from archdsl.search.proxies.probe import Probe

        made = self.space.model(candidate)
        self._fits(made)
        sums = dict.fromkeys((rule.name for rule, _ in self.asked), 0.0)
        for repeat in range(self.repeats):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                net = Probe(made, self._built(candidate, seed + repeat), self._data(made), self.batch, self.task)
                for rule, options in self.asked:
                    found = rule.body(net, **options)
                    sums[rule.name] += found.item() if isinstance(found, torch.Tensor) else float(found)
        return {**{name: total / self.repeats for name, total in sums.items()}, "params": self.space.costs(candidate, ["params"])["params"]}

    def _built(self, candidate: Candidate, seed: int) -> Callable[[Any], Any]:
        def built(dtype: Any) -> Any:
            return self.space.spec.build(self.space.variant, seed, self.device, dtype, form="parallel", knobs=dict(candidate))

        return built

    def _data(self, made: Elaborated) -> Callable[[int], tuple[tuple[Any, ...], Any]]:
        """The i-th batch: inputs, and targets where a task gives them."""
        from archdsl.inputs import sample_inputs

        if self.task is not None:
            names, at = [a.name for a in self.task.inputs], self.task.batches("train", self.batch, 0, self.device)
            return lambda i: (lambda batch: (tuple(batch[n] for n in names), batch["targets"]))(at(i))
        sizes = self._sizes(made)
        return lambda i: (sample_inputs(made, sizes, seed=i, dtype=torch.float32, device=self.device), None)


def _split(text: str) -> list[str]:
    """At the commas outside of parentheses."""
    return re.split(r",(?![^(]*\))", text)


def _says_nothing(rule: Proxy, made: Elaborated, why: str) -> ArchError:
    text = f"proxy:{rule.name}"
    return error("A0843", f"the proxy `{rule.name}` says nothing about `{made.decl.name}`: {why}", Span(Source("--evaluator", text), 0, len(text)),
                 help=f"`archdsl explain {rule.name}` says what it needs")
