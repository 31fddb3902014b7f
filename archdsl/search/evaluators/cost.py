"""Costs alone: nothing is trained, torch is not loaded."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from archdsl.declared import Declared
from archdsl.search.model import Candidate, Objective, Space
from archdsl.search.registry import evaluator


@evaluator("cost()")
class Cost:
    """The objectives as figures of the graph: `params`, `macs(T=2048)`, `state_bytes`, `count(Attention)`, …, exact and without torch.

    Any other evaluator may have costs among its objectives as well: what it does not give itself is counted.
    """

    rule: ClassVar[Declared]
    light: ClassVar[bool] = True

    def setup(self, space: Space, objectives: Sequence[Objective]) -> None:
        """Raises ArchError for an objective that is no figure of the graph, A0801 and A0802 for a space without candidates."""
        self.space, self.names = space, [o.name for o in objectives]
        space.costs(space.sample(0), self.names)

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        return self.space.costs(candidate, self.names)
