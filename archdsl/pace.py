"""How long something still takes, and lines that say so where nobody sees a picture of it: in a pipe, in the log of a job."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable

EVERY = 30.0
"""Seconds between two lines; nothing is said of what ends before."""


class Pace:
    """How fast work is done since the first of it was: before that, things are started. `before`: how much an earlier run had done."""

    def __init__(self, before: int) -> None:
        self._before = before
        self._since: tuple[float, int] | None = None  # when this run's first results were there, and how much was done then

    def left(self, done: int, whole: int) -> float | None:
        """Seconds until the whole is done; None while there is no pace."""
        now = time.monotonic()
        if self._since is None:
            self._since = (now, done) if done > self._before else None
            return None
        since, first = self._since
        return (whole - done) * (now - since) / (done - first) if done > first else None


class Lines:
    """Called as work goes on: a line on standard error, of a text that is made then, every so many seconds."""

    def __init__(self, every: float | None = None) -> None:
        self._every = EVERY if every is None else every
        self._last = time.monotonic()

    def __call__(self, text: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            print(text(), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`40 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def line_of(*texts: str, left: float | None = None) -> str:
    """One line of what is known."""
    return ", ".join([*texts, *([] if left is None else [f"{duration(left)} left"])])
