"""Measured latency, by a table of blocks."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from archdsl.declared import Declared, wrong_option
from archdsl.search.model import Candidate, Objective
from archdsl.search.registry import evaluator
from archdsl.search.space import SearchSpace

FORMS = ("parallel", "extend", "step")


@evaluator('latency(device: str = "cpu", form: str = "parallel", dtype: str = "f32", batch: int = 1, at: str? = none, repeats: int = 20, '
           'table: str? = none)', source="arxiv 2206.01191, section 4.1")
class LatencyTable:
    """`latency_ms`: milliseconds of one call in evaluation on `device`, as the sum over the model's blocks. Each distinct block is measured once, at
    the sizes at which the candidate runs it: random inputs, the median of `repeats` samples or more. Figures are kept in `table`, else in the user's
    cache folder, by what the block computes, its inputs, element type, form, device (with the number of threads) and version of torch.

    `batch`: of the first axis of the inputs; `at`: other run-time sizes (`"T=512"`), else the spec's examples. Seed and fidelity change nothing; the
    machine does, so an archive is repeated only with the same table. `archdsl.search.latency.validate` tells how far the sums are from whole models.
    """

    rule: ClassVar[Declared]

    def __init__(self, device: str = "cpu", form: str = "parallel", dtype: str = "f32", batch: int = 1, at: str | None = None, repeats: int = 20,
                 table: str | None = None) -> None:
        from archdsl.cost.sizes import parse_sizes

        for name, value in (("batch", batch), ("repeats", repeats)):
            if value < 1:
                raise wrong_option("A0816", name, value, "it is 1 at least")
        if form not in FORMS:
            raise wrong_option("A0816", "form", form, f"it is one of {', '.join(FORMS)}")
        self.at = parse_sizes(at)[0] if at else {}
        self.device, self.form, self.dtype, self.batch, self.repeats, self.file = device, form, dtype, batch, repeats, table

    def setup(self, space: SearchSpace, objectives: Sequence[Objective]) -> None:
        """Raises A0816 for a device that is not there, A0819 for a table, A0501 for a form that the model does not have, A0641 for a size."""
        from archdsl.search.latency.model import Latency

        self.space = space
        self.latency = Latency(self.device, self.form, self.dtype, self.batch, self.at, self.repeats, self.file)
        self.latency.program(space.model(space.sample(0)))

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        return {"latency_ms": 1e3 * self.latency.predict(self.space.model(candidate))}
