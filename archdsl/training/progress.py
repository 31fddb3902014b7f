"""How far a training is: a bar on a terminal, nothing on a pipe."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Show = Callable[[int, float], None]


@contextmanager
def bar(what: str, steps: int, done: int) -> Iterator[Show]:
    """A function of (steps done, loss), on standard error while it is a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda step, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task(what, total=steps, completed=done, loss="")
        yield lambda step, loss: progress.update(shown, completed=step, loss=f"{loss:.4f}")
