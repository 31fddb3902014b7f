"""What is seen while a search runs: on a terminal, how far it is and what it has found; elsewhere a line of it now and then."""
from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from archdsl.pace import Lines, Pace, duration, line_of
from archdsl.study.shown import number, share
from archdsl.study.study import Study

EVERY = 0.25  # seconds between two pictures


class View:
    """The figures of a running search."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._pace = Pace(study.store.finished)
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
        """Seconds until the budget is used up, at the pace since this run's first result: before it workers start. None while there is no pace."""
        return self._pace.left(self.study.store.finished, self.study.plan.budget)

    def line(self, left: float | None) -> str:
        """How far it is, and the best of each objective, in one line."""
        done, *failed = (text for text, _ in self._counts())
        best = [f"{name} {value}" for name, value, _ in self._found() if value]
        return line_of(done, *failed, *best, left=left)

    def picture(self, width: int = 100) -> Any:
        """For rich, in so many columns: a line for how far it is, more where that is too little room, and one for each objective."""
        from rich.console import Group
        from rich.text import Text

        name, *told = (Text(t, style=s, no_wrap=True) for t, s in self._head())
        beside = Text("  ").join(told)
        room = width - name.cell_len - beside.cell_len - 4
        if room >= 10:
            lines: list[Any] = [self._bar(name, min(30, room), beside)]
        else:
            name = name[: width - 12]
            lines = [self._bar(name, width - name.cell_len - 2), *told]
        return Group(*lines, _table(self._found(), width))

    def _head(self) -> list[tuple[str, str]]:
        """Texts and their styles: the strategy, and how far it is."""
        left = self.left()
        told = [(self.study.plan.strategy, "bold"), *self._counts()]
        return told if left is None else [*told, (f"{duration(left)} left", "")]

    def _counts(self) -> list[tuple[str, str]]:
        store = self.study.store
        return [(f"{store.finished:,} of {self.study.plan.budget:,} trials", ""),
                (f"{store.failed:,} failed", "red" if store.failed else "dim")]

    def _bar(self, name: Any, width: int, *beside: Any) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 2))
        line.add_row(name, ProgressBar(self.study.plan.budget, self.study.store.finished, width=width), *beside)
        return line

    def _found(self) -> list[tuple[str, str, str]]:
        """For each objective what is sought, the best value, and where it was; then the front."""
        rows: list[tuple[str, str, str]] = []
        for o in self.study.objectives:
            found = self.study.best(o)
            rows.append((f"{'least' if o.direction == 'min' else 'most'} {o.name}", "" if found is None else number(found.values[o.name]),
                         "" if found is None else f"trial {found.number}"))
        volume, points = self.hypervolume(), len(self.study.store.front)
        if len(rows) > 1:
            rows.append(("front", f"{points:,} {'point' if points == 1 else 'points'}", "" if volume is None else f"hypervolume {volume:.4f}"))
        return rows


def _table(rows: list[tuple[str, str, str]], width: int) -> Any:
    """Where there is little room the values stay whole, without the third column."""
    from rich.table import Table
    from rich.text import Text

    first, value, third = (max(map(len, column)) for column in zip(*rows))
    all_three = first + value + third + 4 <= width
    table = Table.grid(padding=(0, 2))
    for name, found, where in rows:
        name = name if len(name) + value + 2 <= width else name[: max(1, width - value - 3)] + "…"
        cells = [Text(name, style="dim"), Text(found, style="bold"), *([Text(where, style="dim")] if all_three else [])]
        table.add_row(*cells)
    return table


def _lines(study: Study) -> Callable[[], None]:
    view, lines = View(study), Lines()

    def grown() -> None:
        left = view.left()
        lines(lambda: view.line(left))

    return grown


@contextmanager
def watching(on: bool) -> Generator[Callable[[Study], Callable[[], None]], None, None]:
    """Gives what a search calls with its study. Where `on` is false, what that gives prints plain lines."""
    if not on:
        yield _lines
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def watch(study: Study) -> Callable[[], None]:
            view = View(study)
            last = 0.0

            def grown() -> None:
                nonlocal last
                if time.monotonic() - last >= EVERY:
                    last = time.monotonic()
                    live.update(view.picture(live.console.width), refresh=True)

            return grown

        yield watch
