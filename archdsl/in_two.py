"""The variants of a file looked at by two processes: what checking.py does with each, where nothing is wrong with any."""
from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import Collector
from archdsl.helper import Helper, possible
from archdsl.modules import Module, family

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Session
    from archdsl.spec import Spec

Job = tuple["Spec", str]
InVariant = Callable[["Spec", str, Collector], None]
WORTH = 20_000
"""Steps from which on a second process saves more time than it costs: 60 ms of work against 10."""
MOST = 150_000
"""Steps up to which there is one: what a stranger's file may take of the machine is not taken twice."""
NEAR = 0.9
"""Of the budget: two processes share less than one, and count a little otherwise; where that may decide, one does all."""
KEPT = 60
"""Models that a spec keeps: this process goes on with them when something is wrong."""


def clean_in_two(module: Module, models: dict[str, Spec], session: Session, jobs: Sequence[Job], in_variant: InVariant,
                 found: Collector) -> int | None:
    """None where nothing is wrong with these variants, nor with what claims, spaces and names say of them and of the defaults. Else how many of
    them, from the first on, have been looked at: faults of the last of these are in `found`, and steps are those of one process up to there."""
    if not possible() or len(jobs) > KEPT or any(name != family(name) for name in models):
        return 0
    steps = _steps(models, session, jobs)
    if not WORTH <= steps <= MOST:
        return 0
    two = _Two(module, models, session, jobs, in_variant, found)
    helper = Helper(len(jobs), partial(two.theirs, 2 * steps), two.end)
    try:
        return None if helper.start() and two.clean(helper) else two.done
    finally:
        helper.stop()


def _steps(models: dict[str, Spec], session: Session, jobs: Sequence[Job]) -> int:
    """How many the jobs will take, roughly: as many as a default each, and a third of what passes ask for."""
    plain, rewritten = session.steps * len(jobs) // max(1, len(models)), 0
    for spec, name in jobs:
        if spec.transforms(name):
            from archdsl.passes.manager import STEPS, STEPS_A_NODE

            rewritten += len(spec.transforms(name)) * (STEPS + STEPS_A_NODE * spec.elaborate().graph.node_count)
    return plain + rewritten // 3


class _Two:
    def __init__(self, module: Module, models: dict[str, Spec], session: Session, jobs: Sequence[Job], in_variant: InVariant, found: Collector):
        self.module, self.models, self.session, self.jobs, self.in_variant, self.found = module, models, session, jobs, in_variant, found
        self.before = session.steps
        self.done = 0

    def job(self, i: int) -> bool:
        self.in_variant(*self.jobs[i], self.found)
        return not self.found.found

    def theirs(self, most: int, i: int) -> bool:
        """In the second process: the same, for no more than so many steps in all."""
        self.session.budget = min(self.session.budget, self.before + most)
        return self.job(i)

    def end(self, first: int) -> Any:
        """In the second process: its steps, and what names say of its variants."""
        told = self._said({(spec.name, name) for spec, name in self.jobs[first:]})
        return None if told is None else (self.session.steps - self.before, told[0])

    def clean(self, helper: Helper) -> bool:
        from archdsl.names import parts_agree
        from archdsl.spaces import check_spaces

        while self.done < len(self.jobs) and not helper.reached(self.done):
            self.done += 1
            if not self.job(self.done - 1):
                return False
        steps = self.session.steps
        own = {(name, None) for name in self.models} | {(spec.name, name) for spec, name in self.jobs[:self.done]}
        told = None if check_spaces(self.module, self.models) else self._said(own)
        answer = helper.answer() if told is not None else None
        if told is not None and answer is not None:
            first, (more, part) = answer
            if first <= self.done and self.session.steps + more <= NEAR * self.session.budget and parts_agree(
                    self.module, self.models, (told[0], part), told[1]):
                self.session.steps += more
                return True
        self.session.steps = steps
        return False

    def _said(self, of: Set[tuple[str, str | None]]) -> Any:
        """What names say of these variants; None where something is wrong with that, or with claims about them."""
        from archdsl.claims import check_claims
        from archdsl.names import part_of_names

        return None if check_claims(self.module, self.models, of) else part_of_names(self.module, self.models, of)


__all__ = ["clean_in_two"]
