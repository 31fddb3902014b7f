"""How well the table predicts: whole models, measured as a whole, against the sum over their pieces."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.records import record
from archdsl.search.latency.model import Latency

if TYPE_CHECKING:
    from archdsl.search.model import Candidate
    from archdsl.search.space import SearchSpace


@record(frozen=True)
class Validation:
    """`rows`: candidate, predicted and measured seconds. `error`: the mean of |predicted / measured − 1|; `bias`: of predicted / measured − 1.
    `spearman`, `kendall`: correlation of the ranks, NaN for fewer than two candidates or equal figures. `pieces`: how many were measured for it."""

    rows: tuple[tuple[Candidate, float, float], ...]
    error: float
    bias: float
    spearman: float
    kendall: float
    pieces: int

    def __str__(self) -> str:
        return (f"{len(self.rows)} models: mean relative error {self.error:.1%}, bias {self.bias:+.1%}, rank correlation {self.spearman:.3f} "
                f"(Kendall {self.kendall:.3f}); {self.pieces} pieces measured")


def validate(space: SearchSpace, n: int = 16, seed: int = 0, latency: Latency | None = None) -> Validation:
    """Draws n candidates, predicts each from pieces, then measures each as a whole, all in turns. No whole model is ever part of the table. Raises
    ArchError as `Latency` and `space.sample`, ValueError for fewer than one."""
    if n < 1:
        raise ValueError(f"validate: at least one model is measured, not {n}")
    latency = latency or Latency()
    chosen: dict[str, Candidate] = {}
    draw = seed
    while len(chosen) < n and draw < seed + 20 * n:  # a small space may have fewer
        candidate = space.sample(draw)
        chosen.setdefault(candidate.key, candidate)
        draw += 1
    models = [space.model(c) for c in chosen.values()]
    before = latency.measured
    predicted = [latency.predict(m) for m in models]
    with latency.table.alone():
        measured = [m.seconds for m in latency.bench.by_itself([latency.whole(m) for m in models], latency.repeats)]
    errors = [p / m - 1 for p, m in zip(predicted, measured)]
    return Validation(tuple(zip(chosen.values(), predicted, measured)), sum(map(abs, errors)) / len(errors), sum(errors) / len(errors),
                      spearman(predicted, measured), kendall(predicted, measured), latency.measured - before)


def spearman(a: list[float], b: list[float]) -> float:
    """Pearson's correlation of ranks; equal numbers share the mean of theirs."""
    x, y = _ranks(a), _ranks(b)
    mean = (len(a) - 1) / 2
    both = sum((p - mean) * (q - mean) for p, q in zip(x, y))
    spread = sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y)
    return both / spread**0.5 if spread else float("nan")


def _ranks(values: list[float]) -> list[float]:
    return [sum(o < v for o in values) + (sum(o == v for o in values) - 1) / 2 for v in values]


def kendall(a: list[float], b: list[float]) -> float:
    """Kendall's tau-b: pairs in the same order less those in the other, over the root of those that are not tied on either side."""
    sign = lambda v: (v > 0) - (v < 0)
    pairs = [(sign(a[i] - a[j]), sign(b[i] - b[j])) for i in range(len(a)) for j in range(i)]
    untied = sum(x != 0 for x, _ in pairs) * sum(y != 0 for _, y in pairs)
    return sum(x * y for x, y in pairs) / untied**0.5 if untied else float("nan")
