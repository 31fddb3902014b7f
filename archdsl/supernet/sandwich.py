"""Training many candidates at once: which ones a step takes, and the loss that they have together."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from archdsl.search.model import Candidate
from archdsl.supernet.draws import dealt, each_decision
from archdsl.supernet.net import Supernet
from archdsl.tasks.model import IGNORE, Task


def sandwich(net: Supernet, step: int, count: int = 4, seed: int = 0) -> list[Candidate]:
    """The candidates of a step: the largest, the smallest and `count` − 2 drawn ones (the sandwich rule: Yu and Huang 2019, arxiv 1903.05134).
    A pure function of the seed and the step. Raises ValueError for a count below 2."""
    if count < 2:
        raise ValueError(f"a sandwich has 2 candidates at least, the largest and the smallest, not {count}")
    return [net.largest, net.smallest, *(net.space.sample(hash_of(seed, step, i)) for i in range(count - 2))]


def widening(net: Supernet, step: int, count: int = 4, seed: int = 0, widen: int = 0) -> list[Candidate]:
    """The candidates of a step, each decision of each drawn by itself; in the first `widen` steps out of its largest values, at first the largest
    alone (multi-architectural sampling: arxiv 2109.00642). A pure function of the seed and the step. Raises ValueError for a count below 1 and for a
    `widen` below 0."""
    if count < 1:
        raise ValueError(f"a step has 1 candidate at least, not {count}")
    if widen < 0:
        raise ValueError(f"candidates widen in 0 steps at least, not {widen}")
    share = min(step / widen, 1) if widen else 1
    return [each_decision(net.space, hash_of(seed, step, i), share) for i in range(count)]


def fair(net: Supernet, step: int, count: int = 4, seed: int = 0) -> list[Candidate]:
    """The candidates of a step, as `dealt` gives them: each value of each decision in as many of them as its others (strict fairness: arxiv
    1907.01845) where the count is a multiple of the number of values and no limit refuses a candidate. A pure function of the seed and the step.
    Raises ValueError for a count below 1."""
    if count < 1:
        raise ValueError(f"a step has 1 candidate at least, not {count}")
    return [*dealt(net.space, hash_of(seed, step), count)]


def hash_of(*numbers: int) -> int:
    """A seed out of several numbers, the same on any machine."""
    from archdsl.lower.init import seed_of

    return seed_of(numbers[0], ".".join(map(str, numbers[1:])))


class Sandwich:
    """An objective over several candidates of a supernet in a step, `(net, batch, step) -> (loss, logs)`.

    `distil`: the largest learns from the targets, the others from what it says (in-place distillation: Yu et al. 2020, arxiv 2003.11142); else
    all learn from the targets. `split`: each candidate has its own part of the batch (ViT-ResNAS: arxiv 2109.00642), so that a step costs no more
    than one of the largest; all learn from the targets then. The loss is the mean over candidates. `widen`: the candidates are those of `widening`
    with so many steps, 0 as well, in place of a sandwich's, and with `fair` those of the function `fair`; the largest is not among them, so
    `distil = False`.
    """

    def __init__(self, task: Task, count: int = 4, seed: int = 0, distil: bool = True, split: bool = False, widen: int | None = None,
                 fair: bool = False):
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"`count` is a whole number of candidates, not {count!r}")
        if distil and split:
            raise ValueError("distilled candidates see the examples of the largest: `split = true` gives each its own, so `distil = false`")
        if fair and widen is not None:
            raise ValueError("`widen` draws each decision by itself and `fair` deals its values: choose one of them")
        if distil and (widen is not None or fair):
            name = "fair" if fair else "widen"
            raise ValueError(f"there is no largest candidate to learn from in each step: `{name}` goes with `distil = false`")
        self.task, self.count, self.seed, self.distil, self.split, self.widen, self.fair = task, count, seed, distil, split, widen, fair

    def __call__(self, net: Supernet, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        chosen = self.chosen(net, step)
        losses = self._split(net, chosen, batch, step) if self.split else self._whole(net, chosen, batch, step)
        told = {} if self.widen is not None or self.fair else {"largest": float(losses[0].detach()), "smallest": float(losses[1].detach())}
        return torch.stack(losses).mean(), told

    def chosen(self, net: Supernet, step: int) -> list[Candidate]:
        """The candidates of a step."""
        if self.fair:
            return fair(net, step, self.count, self.seed)
        if self.widen is not None:
            return widening(net, step, self.count, self.seed, self.widen)
        return sandwich(net, step, self.count, self.seed)

    def _split(self, net: Supernet, chosen: list[Candidate], batch: Mapping[str, Tensor], step: int) -> list[Tensor]:
        rows = len(batch["targets"])
        if rows % len(chosen):
            raise ValueError(f"a batch of {rows} cannot be cut into {len(chosen)} equal parts")
        n = rows // len(chosen)
        return self._asked(net, chosen, [{k: v[i * n:(i + 1) * n] for k, v in batch.items()} for i in range(len(chosen))], step)

    def _whole(self, net: Supernet, chosen: list[Candidate], batch: Mapping[str, Tensor], step: int) -> list[Tensor]:
        if not self.distil:
            return self._asked(net, chosen, [batch] * len(chosen), step)
        teacher = self._scores(net, chosen[0], batch)
        flat = teacher.flatten(0, -2), batch["targets"].flatten()
        losses = [torch.nn.functional.cross_entropy(*flat, ignore_index=IGNORE)]
        counted = flat[1] != IGNORE
        said = torch.softmax(teacher.detach().flatten(0, -2)[counted], -1)
        return [*losses, *net.ask(chosen[1:], [lambda model: torch.nn.functional.cross_entropy(
            self.task.call(model, dict(batch)).flatten(0, -2)[counted], said)] * (len(chosen) - 1))]

    def _asked(self, net: Supernet, chosen: list[Candidate], batches: Sequence[Mapping[str, Tensor]], step: int) -> list[Tensor]:
        return net.ask(chosen, [lambda model, batch=batch: self.task.objective(model, dict(batch), step)[0] for batch in batches])

    def _scores(self, net: Supernet, candidate: Candidate, batch: Mapping[str, Any]) -> Tensor:
        net.set(candidate)
        return self.task.call(net, dict(batch))
