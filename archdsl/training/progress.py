"""How far a training is: a bar on a terminal, elsewhere a line now and then."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from archdsl.pace import Lines, Pace, line_of

Show = Callable[[int, float], None]


@contextmanager
def bar(what: str, steps: int, done: int) -> Iterator[Show]:
    """A function of (steps done, loss), which tells of them on standard error."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _lines(what, steps, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task(what, total=steps, completed=done, loss="")
        yield lambda step, loss: progress.update(shown, completed=step, loss=f"{loss:.4f}")


def _lines(what: str, steps: int, done: int) -> Show:
    pace, lines = Pace(done), Lines()

    def show(step: int, loss: float) -> None:
        left = pace.left(step, steps)
        lines(lambda: line_of(f"{what}: step {step:,} of {steps:,}", f"loss {loss:.4f}", left=left))

    return show
