"""One place per task: signature, options, documentation and the class stand together, as for ops, passes and reports.

```
@task("parity(length: int = 16)")
class Parity(TokenTask):
    \"\"\"Whether the number of ones so far is odd.\"\"\"
```
Packages add tasks through the entry-point group `archdsl.tasks`.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.records import record
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from archdsl.syntax import tree
    from archdsl.tasks.model import Task

GROUP = "archdsl.tasks"
T = TypeVar("T", bound="type[Task]")


@record(slots=False)
class TaskRule:
    """`signature`: name and options as the language writes them. `body(**options)` gives the task."""

    name: str
    signature: str
    body: Callable[..., Any]
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

    @property
    def defaults(self) -> dict[str, Any]:
        """The options' defaults by name."""
        from archdsl.passes.step import defaults

        return defaults(self)


TASKS: dict[str, TaskRule] = {}


def task(signature: str, source: str = "") -> Callable[[T], T]:
    """Registers the decorated class under the name that starts the signature."""
    name = signature.split("(", 1)[0].strip()

    def register(body: T) -> T:
        if name in TASKS:
            raise ValueError(f"two tasks are called {name}")
        TASKS[name] = body.rule = TaskRule(name, signature, body, source)
        return body

    return register


def find(name: str) -> TaskRule | None:
    """The task of that name: one of ours, else one of an installed package."""
    load()
    return TASKS[name] if name in TASKS else every().get(name)


def every() -> dict[str, TaskRule]:
    """All tasks, those of installed packages included."""
    from archdsl.plugins import load_group

    load()
    load_group(GROUP)
    return dict(sorted(TASKS.items()))


def load() -> None:
    """Imports the modules that hold our own tasks (none of them imports torch)."""
    from archdsl.tasks import copying, images, listops, recall, text  # noqa: F401


def parse(text: str) -> Task:
    """The task in `mqar` or `mqar(pairs = 16)`. Raises ArchError: A01 for its syntax, A0591, A0592, A0204 for its name and options, A0598 for data
    that is not there."""
    from archdsl.passes.step import options_of
    from archdsl.syntax.parser import parse_transform

    node = parse_transform(text if "(" in text else f"{text}()", "TASK")
    rule = find(node.name)
    if rule is None:
        at = Span(node.span.source, node.span.start, node.span.start + len(node.name))
        raise error("A0591", f"there is no task `{node.name}`", at, "not known",
                    help=did_you_mean(node.name, every()) or (f"there are {', '.join(every())}",))
    if node.selector or node.using:
        raise error("A0592", "a task has options alone", node.span, "neither `on` nor `using`", notes=(rule.signature,))
    return rule.body(**options_of(rule, node, "A0592"))


def wrong_option(task: Task, name: str, why: str) -> Exception:
    """A0592 for a value that the option's type allows and the task does not."""
    text = f"{name} = {task.options[name]}"
    return error("A0592", f"`{task.rule.name}`: {why}", Span(Source("options", text), 0, len(text)), why, notes=(task.rule.signature,))
