"""One place per report: signature, options, documentation and the function stand together, as for ops and passes.

```
@report("weights(largest: int = 10)")
def weights(subjects, *, largest):
    \"\"\"The largest weights of each model.\"\"\"
    return Report("weights", …)
```
The function takes what it is about and the options, and returns a `Report`. Packages add reports through the entry-point group `archdsl.reports`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archdsl.declared import Declared, Registry, name_of
from archdsl.records import record
from archdsl.reports.model import Report

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated


@record(frozen=True)
class Subject:
    """A model that a report is about: what the user calls it, the model, a number for each run-time size."""

    name: str
    model: Elaborated
    sizes: dict[str, int]


@record(slots=False)
class Rule(Declared):
    """`body(subjects, **options)` gives the report."""

    def __call__(self, subjects: list[Subject], **options: Any) -> Report:
        return self.body(subjects, **{**self.defaults, **options})


REPORTS: Registry[Rule] = Registry("report", "archdsl.reports", ("archdsl.reports.kernels", "archdsl.reports.timeline"), ("A0581", "A0582"))


def report(signature: str, source: str = "") -> Callable[[Callable[..., Report]], Rule]:
    """Registers the decorated function under the name that starts the signature."""
    def register(body: Callable[..., Report]) -> Rule:
        return REPORTS.add(Rule(name_of(signature), signature, body, source))

    return register
