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
from typing import TYPE_CHECKING, TypeVar

from archdsl.declared import Declared, Registry, name_of
from archdsl.diagnostics.model import error
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from archdsl.tasks.model import Task

OWN = ("copying", "images", "listops", "recall", "text")
"""The modules that hold our own tasks; none of them imports torch."""
T = TypeVar("T", bound="type[Task]")


TASKS: Registry[Declared] = Registry("task", "archdsl.tasks", tuple(f"archdsl.tasks.{m}" for m in OWN), ("A0591", "A0592"))


def task(signature: str, source: str = "") -> Callable[[T], T]:
    """Registers the decorated class under the name that starts the signature."""
    def register(body: T) -> T:
        body.rule = TASKS.add(Declared(name_of(signature), signature, body, source))
        return body

    return register


def parse(text: str) -> Task:
    """The task in `mqar` or `mqar(pairs = 16)`. Raises ArchError: A01 for its syntax, A0591, A0592, A0204 for its name and options, A0598 for data
    that is not there."""
    rule, options = TASKS.parse(text)
    return rule.body(**options)


def wrong_option(task: Task, name: str, why: str) -> Exception:
    """A0592 for a value that the option's type allows and the task does not."""
    text = f"{name} = {task.options[name]}"
    told = f"the option `{name}` of `{task.rule.name}`: {why}"
    return error("A0592", told, Span(Source("options", text), 0, len(text)), why, notes=(task.rule.signature,))
