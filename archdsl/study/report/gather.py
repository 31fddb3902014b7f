"""One pass over the trials of a study: those that are drawn, how the front grew, why trials failed."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from archdsl.records import field, record
from archdsl.study.front import Front, Scores, hypervolume
from archdsl.study.reasons import Kind, by_kind
from archdsl.study.shown import value_text
from archdsl.study.store import Entry
from archdsl.study.study import Study

DRAWN = 4000
"""At most so many trials are drawn beside the front."""
CELLS = 300_000
"""At most so many values of knobs and measurements stand in the page: a space of many knobs has fewer trials drawn."""
STEPS = 150
"""So many times the hypervolume is measured over the trials."""


@record()
class Gathered:
    """`drawn`: trials that are done, at full fidelity, in order of their numbers: all of the front, the others evenly spaced; `whole`: how many there
    are to draw. `course`: number of trials, and the hypervolume behind them (with one objective its best value). `low`: done at a lower fidelity."""

    drawn: list[Entry] = field(default_factory=list[Entry])
    whole: int = 0
    low: int = 0
    waiting: int = 0
    course: list[tuple[int, float]] = field(default_factory=list)
    failures: list[Kind] = field(default_factory=list[Kind])


def gathered(study: Study, told: Callable[[int], None] = lambda number: None) -> Gathered:
    """Reads every trial once; `told` hears of its number. Without moocore there is no course of a hypervolume."""
    found, front = Gathered(), {n for n, _ in study.store.front.members}
    kept = _Kept()
    course = _Course(study)

    def failures() -> Iterator[tuple[int, str]]:
        for e in study.store.every():
            told(e.number)
            if e.status == "failed":
                yield e.number, e.reason
            elif e.status == "waiting":
                found.waiting += 1
            elif e.fidelity != 1:
                found.low += 1
            else:
                found.whole += 1
                kept.take(e, e.number in front)
                course.add(e)

    found.failures = by_kind(failures())
    found.drawn, found.course = kept.entries(), course.points()
    return found


class _Kept:
    """Evenly spaced trials, however many there will be: when there are too many, every other one is let go."""

    def __init__(self) -> None:
        self._front: list[Entry] = []
        self._others: list[Entry] = []
        self._step, self._seen, self._cells = 1, 0, 0

    def take(self, e: Entry, front: bool) -> None:
        if front:
            self._front.append(e)
            return
        if self._seen % self._step == 0:
            self._others.append(e)
            self._cells += len(e.knobs) + len(e.values)
            if len(self._others) > DRAWN or self._cells > CELLS:
                self._others = self._others[::2]
                self._cells = sum(len(o.knobs) + len(o.values) for o in self._others)
                self._step *= 2
        self._seen += 1

    def entries(self) -> list[Entry]:
        return sorted([*self._front, *self._others], key=lambda e: e.number)


class _Course:
    """How the front grew: the share of the box of all scores that the trials up to a number dominate."""

    def __init__(self, study: Study) -> None:
        self._goals, self._extent = study.objectives, study.store.extent
        self._front = Front(len(self._goals))
        self._every = max(1, study.store.next // STEPS)
        self._due, self._last = 0, -1
        self._points: list[tuple[int, float]] = []
        self._changed = False

    def add(self, e: Entry) -> None:
        scores: Scores = tuple(o.sign * e.values[o.name] for o in self._goals)
        self._changed |= self._front.add(e.number, scores)
        self._last = e.number
        if e.number >= self._due:
            self._measure()
            self._due = e.number + self._every

    def _measure(self) -> None:
        value = self._value() if self._changed or not self._points else self._points[-1][1]
        if value is not None:
            self._points.append((self._last + 1, value))
        self._changed = False

    def _value(self) -> float | None:
        members = [s for _, s in self._front.members]
        if len(self._goals) == 1:
            return self._goals[0].sign * members[0][0]
        assert self._extent is not None  # there is a trial
        try:
            return hypervolume(members, *self._extent)
        except ImportError:
            return None

    def points(self) -> list[tuple[int, float]]:
        if self._last >= 0 and (not self._points or self._points[-1][0] != self._last + 1):
            self._measure()
        return self._points


# ---------------------------------------------------------------- as columns
def columns(drawn: list[Entry], names: list[str]) -> dict[str, Any]:
    """The same as columns: numbers of trials, their measurements, and for each knob its values as text and which of them each trial has."""
    knobs: dict[str, Any] = {}
    for address in addresses(drawn):
        texts, places = levels([e.knobs.get(address, ABSENT) for e in drawn])
        knobs[address] = {"levels": texts, "at": places}
    values = {n: [_rounded(e.values.get(n)) for e in drawn] for n in names}
    return {"numbers": [e.number for e in drawn], "values": values, "knobs": knobs}


def addresses(entries: Iterable[Entry]) -> list[str]:
    """All knobs, in the order of the spec: each behind the one that is before it in the first trial that has both."""
    found: list[str] = []
    known: set[str] = set()
    for e in entries:
        if e.knobs.keys() <= known:
            continue
        at = 0
        for a in e.knobs:
            if a not in known:
                found.insert(at, a)
                known.add(a)
            at = found.index(a) + 1
    return found


ABSENT = object()


def levels(values: list[Any]) -> tuple[list[str], list[int]]:
    """The different values as text, numbers in their order and before others, and the place of each value among them; -1 for `ABSENT`."""
    every = {_key(v): v for v in values if v is not ABSENT}
    order = {key: at for at, key in enumerate(sorted(every))}
    return [value_text(every[key]) for key in order], [-1 if v is ABSENT else order[_key(v)] for v in values]


def _key(value: Any) -> tuple[int, float, str]:
    """By which values are told apart and sorted: 1 is not true."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, value, "") if number else (1, 0.0, value_text(value))


def _rounded(value: float | None) -> float | None:
    """Six digits, which is more than a picture shows; whole numbers in full."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")
