"""What is seen while a search runs: on a terminal, how far it is and what it has found; on a pipe, nothing."""
from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from archdsl.study.shown import number, share
from archdsl.study.study import Study

EVERY = 0.25  # seconds between two pictures


class View:
    """The figures of a running search. `ended`: trials that had a result when this run began."""

    def __init__(self, study: Study) -> None:
        self.study, self.began, self.ended = study, time.monotonic(), study.store.finished
        self._share: float | None = None
        self._measured = self._took = 0.0

    def hypervolume(self) -> float | None:
        """Measured seldom where that takes long."""
        now = time.monotonic()
        if len(self.study.store.front) and now - self._measured > 20 * self._took:
            self._share = share(self.study)
            self._measured = time.monotonic()
            self._took = self._measured - now
        return self._share

    def left(self) -> float | None:
        """Seconds until the budget is used up, at this run's pace; None before it has one."""
        done = self.study.store.finished
        spent = time.monotonic() - self.began
        return (self.study.plan.budget - done) * spent / (done - self.ended) if done > self.ended else None

    def picture(self) -> Any:
        """For rich."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        store, plan = self.study.store, self.study.plan
        done, left = store.finished, self.left()
        head = Table.grid(padding=(0, 2))
        failed = Text(f"{store.failed:,} failed", style="red" if store.failed else "dim")
        head.add_row(Text(plan.strategy, style="bold"), ProgressBar(plan.budget, done, width=30), f"{done:,} of {plan.budget:,} trials", failed,
                     "" if left is None else f"{duration(left)} left")
        best = Table.grid(padding=(0, 2))
        for o in self.study.objectives:
            found = self.study.best(o)
            value = "" if found is None else number(found.values[o.name])
            best.add_row(Text(f"{'least' if o.direction == 'min' else 'most'} {o.name}", style="dim"), Text(value, style="bold"),
                         "" if found is None else Text(f"trial {found.number}", style="dim"))
        volume = self.hypervolume()
        if len(self.study.objectives) > 1:
            best.add_row(Text("front", style="dim"), Text(f"{len(store.front)} points", style="bold"),
                         "" if volume is None else Text(f"hypervolume {volume:.4f}", style="dim"))
        whole = Table.grid()
        whole.add_row(head)
        whole.add_row(best)
        return whole


@contextmanager
def watching(on: bool) -> Generator[Callable[[Study], Callable[[], None]], None, None]:
    """Gives what a search calls with its study; where `on` is false, that does nothing."""
    if not on:
        yield lambda study: lambda: None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def watch(study: Study) -> Callable[[], None]:
            view = View(study)
            last = 0.0

            def told() -> None:
                nonlocal last
                if time.monotonic() - last >= EVERY:
                    last = time.monotonic()
                    live.update(view.picture(), refresh=True)

            return told

        yield watch


def duration(seconds: float) -> str:
    """`40 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
