"""Training a supernet on a task, in a folder that the evaluator `supernet` reads."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.wording import with_article

if TYPE_CHECKING:
    from archdsl.spec import Spec
    from archdsl.tasks.model import Task
    from archdsl.training.fit import Hook, Run


def train_supernet(spec: Spec, task: Task | str, steps: int, out: str | os.PathLike[str] | None = None, *, space: str | None = None,
                   variant: str | None = None, limits: Iterable[str] = (), size: int = 32, count: int = 4, distil: bool = True, split: bool = False,
                   widen: int | None = None, sort: int | None = None, fair: bool = False, seed: int = 0, device: Any = "cpu", dtype: Any = None,
                   resume: bool = False, hooks: Sequence[Hook] = (), **how: Any) -> Run:
    """Trains the supernet of `spec.space(space, variant, limits)`: each step the largest candidate, the smallest and `count` − 2 drawn ones, as
    `Sandwich` says (`distil`, `split`), on batches of `size`. `how`: lr, weight_decay, schedule, warmup, clip, every, optimizer, as of `fit`.

    widen: `count` candidates whose decisions are drawn one by one, in the first `widen` steps out of the largest values only. sort: in those steps
    the channels are sorted by importance every `sort` of them, the optimiser's moments with them, so that narrow candidates have the important ones.

    fair: `count` candidates among which the values of each decision are dealt out. All values are trained equally often where `count` is a multiple
    of the number of values and no limit refuses a candidate; hands begin anew in each step.

    Gives `fit`'s `Run`, whose `model` is the supernet. With `out`, a folder then holds it, and `resume` goes on bit by bit from its last checkpoint.
    Raises ArchError A0593 for a task that does not fit the candidates, those of `spec.supernet` and of `fit`, ValueError and TypeError as
    `Sandwich`, ValueError for numbers that do not go together, TypeError for what is no spec.
    """
    from archdsl.spec import Spec
    from archdsl.supernet.sandwich import Sandwich
    from archdsl.tasks.registry import parse
    from archdsl.training.fit import fit
    from archdsl.training.interface import check_call, check_inputs

    if not isinstance(spec, Spec):
        raise TypeError(f"train_supernet: a spec is needed, as `archdsl.load` gives, not {with_article(type(spec).__name__)}")
    known = parse(task) if isinstance(task, str) else task
    objective = Sandwich(known, count, seed, distil, split, widen, fair)
    if split and (count < 1 or size % count):
        raise ValueError(f"a batch of {size} cannot be cut into {count} equal parts: `size` is a multiple of `count` with `split`")
    if sort is not None and (sort < 1 or not widen):
        raise ValueError("channels are sorted while the candidates widen: `sort` is a number of steps from 1 up, beside `widen` from 1 up")
    net = spec.supernet(space, variant, limits, seed, device, dtype)
    for candidate in (net.largest, net.smallest):
        made = net.space.model(candidate)
        check_inputs(made, known, size)
        net.set(candidate)
        check_call(net, known, size, made)
    net.task = known.text
    data: Mapping[str, Any] = {"task": known.text, "data": known.digest, "batch": size, "count": count, "distil": distil, "split": split,
                               "widen": widen, "sort": sort, "fair": fair}
    sorted_ = [] if sort is None or widen is None else [_sorting(sort, widen)]
    return fit(net, objective, known.batches("train", size, seed, device), steps=steps, seed=seed, out=out, resume=resume, settings=data,
               hooks=(*sorted_, *hooks), **how)


def _sorting(every: int, until: int) -> Hook:
    """Sorts the supernet's channels behind every so many of the first steps."""
    def hook(run: Run) -> None:
        if run.step <= until and run.step % every == 0:
            run.model.sort_channels(run.optimizer, scaled=False)

    return hook
