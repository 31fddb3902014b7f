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
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.records import record
from archdsl.reports.model import Report
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.syntax import tree

GROUP = "archdsl.reports"


@record(frozen=True)
class Subject:
    """A model that a report is about: what the user calls it, the model, a number for each run-time size."""

    name: str
    model: Elaborated
    sizes: dict[str, int]


@record(slots=False)
class Rule:
    """`signature`: name and options as the language writes them. `body(subjects, **options)` gives the report."""

    name: str
    signature: str
    body: Callable[..., Report]
    source: str = ""
    usual: dict[str, Any] | None = None  # the options' defaults, found once

    @property
    def doc(self) -> str:
        return (self.body.__doc__ or "").strip()

    @cached_property
    def params(self) -> tuple[tree.Param, ...]:
        """The options with their types and defaults."""
        from archdsl.syntax.parser import parse_signature

        return parse_signature(f"{self.signature} -> []").params

    def __call__(self, subjects: list[Subject], **options: Any) -> Report:
        from archdsl.passes.step import defaults

        return self.body(subjects, **{**defaults(self), **options})


REPORTS: dict[str, Rule] = {}


def report(signature: str, **rules: Any) -> Callable[[Callable[..., Report]], Rule]:
    """Registers the decorated function under the name that starts the signature."""
    name = signature.split("(", 1)[0].strip()

    def register(body: Callable[..., Report]) -> Rule:
        if name in REPORTS:
            raise ValueError(f"two reports are called {name}")
        REPORTS[name] = Rule(name, signature, body, **rules)
        return REPORTS[name]

    return register


def find(name: str) -> Rule | None:
    """The report of that name: one of ours, else one of an installed package."""
    load()
    return REPORTS[name] if name in REPORTS else every().get(name)


def every() -> dict[str, Rule]:
    """All reports, those of installed packages included."""
    from archdsl.plugins import load_group

    load()
    load_group(GROUP)
    return dict(sorted(REPORTS.items()))


def load() -> None:
    """Imports the modules that hold our own reports (none of them imports torch)."""
    from archdsl.reports import timeline  # noqa: F401


def parse(text: str) -> tuple[Rule, dict[str, Any]]:
    """The report and its options in `timeline` or `timeline(devices = 4)`. Raises A01 for its syntax, A0581, A0582, A0204."""
    from archdsl.passes.step import options_of
    from archdsl.syntax.parser import parse_transform

    node = parse_transform(text if "(" in text else f"{text}()", "REPORT")
    rule = find(node.name)
    if rule is None:
        at = Span(node.span.source, node.span.start, node.span.start + len(node.name))
        raise error("A0581", f"there is no report `{node.name}`", at, "not known",
                    help=did_you_mean(node.name, every()) or (f"there are {', '.join(every())}",))
    if node.selector or node.using:
        raise error("A0582", "a report has options alone", node.span, "neither `on` nor `using`", notes=(rule.signature,))
    return rule, options_of(rule, node, "A0582")


def wrong_option(name: str, value: Any, why: str) -> Exception:
    """A0582 for a value that the option's type allows and the report does not."""
    text = f"{name} = {value}"
    return error("A0582", f"`{name}` cannot be {value}: {why}", Span(Source("options", text), 0, len(text)), why)
