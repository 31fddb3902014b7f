"""Kinds of failures: what the reasons of failed trials (measure.py, pool.py, cluster.py) have in common."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from archdsl.records import field, record

KINDS = (
    (r"it took more than .* s$", "over the limit of time"),
    (r"out of memory", "out of memory"),
    (r"the worker |\d+ Ray workers were lost", "crashed"),
    (r"`.*` is not finite", "not finite"),
    (r"`.*` is .*, not a number|the evaluator gives ", "no measurement"),
    (r"it ended with exit\(", "ended the program"),
)


def kind_of(reason: str) -> str:
    """`raised ValueError` for an exception, `refused (A0403)` for a diagnostic."""
    for pattern, kind in KINDS:
        if re.match(pattern, reason):
            return kind
    found = re.match(r"(A\d{4}): ", reason)
    if found:
        return f"refused ({found[1]})"
    found = re.match(r"([A-Za-z_][\w.]*)(: | \(|$)", reason)
    return f"raised {found[1]}" if found else "other"


@record()
class Kind:
    """Failures of one kind. `examples`: the most frequent reasons; `first`: the number of the first such trial."""

    name: str
    first: int
    trials: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def examples(self) -> list[str]:
        return [r for r, _ in self.reasons.most_common(3)]


def by_kind(failures: Iterable[tuple[int, str]]) -> list[Kind]:
    """Kinds of numbered reasons, the most frequent first."""
    found: dict[str, Kind] = {}
    for number, reason in failures:
        kind = found.setdefault(name := kind_of(reason), Kind(name, number))
        kind.trials += 1
        kind.reasons[reason] += 1
    return sorted(found.values(), key=lambda k: (-k.trials, k.first))
