"""One trial, wherever it runs: in this process, in a worker, on a cluster. Whatever goes wrong becomes its reason, one line."""
from __future__ import annotations

import hashlib
import importlib
import math
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.records import record
from archdsl.search.model import Candidate, Evaluator, Objective, Space
from archdsl.study.store import Result
from archdsl.wording import with_article

LONGEST = 300  # characters of a reason
CHECKPOINTS = "checkpoints"
"""The folder in a study's where an evaluator keeps what trials of the same candidate go on from."""


@record(frozen=True)
class Job:
    """A trial to be evaluated; knobs as JSON."""

    number: int
    knobs: dict[str, Any]
    key: str
    fidelity: float
    seed: int


@record(frozen=True)
class Workplace:
    """What a process needs to evaluate trials. `space`: `module:function` that makes it of `folder`; `path`: where Python also looks for modules;
    `cwd`: the folder in which the search was started."""

    space: str
    folder: str
    evaluator: str
    objectives: tuple[str, ...]
    cwd: str
    path: tuple[str, ...] = ()


def seed_of(seed: int, key: str) -> int:
    """The seed of a candidate's evaluation: of the study's seed and the graph alone, so that it does not matter when or where it runs."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=6).digest())


class Meter:
    """An evaluator that is set up, with the costs that are objectives as well. `folder`: the study's; an evaluator that has a `keep_in` is told of a
    place in it."""

    def __init__(self, space: Space, evaluator: Evaluator, objectives: Sequence[Objective], folder: str | None = None) -> None:
        self.space, self.evaluator, self.objectives = space, evaluator, tuple(objectives)
        if folder is not None and hasattr(evaluator, "keep_in"):
            evaluator.keep_in(os.path.join(folder, CHECKPOINTS))  # type: ignore[attr-defined]
        evaluator.setup(space, objectives)

    @classmethod
    def at(cls, place: Workplace) -> Meter:
        """Sets it up in a fresh process. Raises ArchError."""
        from archdsl.search.evaluators.texts import read_evaluator
        from archdsl.study.plan import read_objectives

        module, _, name = place.space.partition(":")
        space = getattr(importlib.import_module(module), name)(place.folder)
        rule, options = read_evaluator(place.evaluator)
        return cls(space, rule.body(**options), read_objectives(place.objectives), place.folder)

    def __call__(self, job: Job, candidate: Candidate | None = None) -> Result:
        """The values, or why there are none. Ctrl-C is not caught."""
        start = time.perf_counter()
        try:
            candidate = candidate if candidate is not None else self.space.from_json(job.knobs)
            values = self._checked(self._measured(candidate, job))
        except _Unfit as fault:
            return Result(job.number, None, line(str(fault)), time.perf_counter() - start)
        except (Exception, SystemExit) as fault:
            return Result(job.number, None, reason(fault), time.perf_counter() - start)
        return Result(job.number, values, seconds=time.perf_counter() - start)

    def _measured(self, candidate: Candidate, job: Job) -> dict[str, Any]:
        given: Any = self.evaluator(candidate, seed=job.seed, fidelity=job.fidelity)
        if not isinstance(given, Mapping):
            raise _Unfit(f"the evaluator gives {_kind(given)}, not a mapping of names to numbers")
        values = dict(given)
        for k in values:
            if not isinstance(k, str):
                raise _Unfit(f"the evaluator gives a value the name {line(repr(k), 40)}, which is no string")
        for o in self.objectives:
            if o.name not in values:
                values[o.name] = self._counted(candidate, o.name, given)
        return values

    def _counted(self, candidate: Candidate, name: str, given: Mapping[str, Any]) -> float:
        """An objective that the evaluator did not give: a figure of the graph."""
        try:
            return self.space.costs(candidate, [name])[name]
        except ArchError as fault:
            gives = ", ".join(map(str, given)) or "nothing"
            raise _Unfit(f"the evaluator gives no `{name}`; it gives {gives}. It is no figure of the graph either: {reason(fault)}") from None

    def _checked(self, values: dict[str, Any]) -> dict[str, float]:
        """Numbers alone. An objective has to be finite; what is not asked for may be NaN."""
        numbers = {name: _number(name, value) for name, value in values.items()}
        for o in self.objectives:
            if not math.isfinite(numbers[o.name]):
                raise _Unfit(f"`{o.name}` is not finite: {numbers[o.name]}")
        return numbers


class _Unfit(Exception):
    """What came back is no measurement."""


def _number(name: str, value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            float(value)
        except OverflowError:
            raise _Unfit(f"`{name}` is not finite: more than a float can be") from None
        return int(value) if isinstance(value, int) else float(value)
    if not isinstance(value, (str, bytes, bool)) and getattr(value, "shape", None) == ():  # a scalar of NumPy or torch
        return float(value)
    raise _Unfit(f"`{name}` is {_kind(value)}, not a number")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, (str, bool)):
        return f"{'a string' if isinstance(value, str) else 'a truth value'} ({line(repr(value), 40)})"
    shape = getattr(value, "shape", None)
    return with_article(type(value).__name__) + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def reason(fault: BaseException) -> str:
    """One line: the exception, and the place in the code that is not ours, where there is one."""
    if isinstance(fault, ArchError):
        return line("; ".join(f"{d.code}: {d.message}" for d in fault.diagnostics))
    if isinstance(fault, MemoryError):
        return "out of memory"
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    frames = [f for f in traceback.extract_tb(fault.__traceback__) if not os.path.abspath(f.filename).startswith(ours + os.sep)]
    where = f" ({os.path.basename(frames[0].filename)}:{frames[0].lineno})" if frames else ""
    if isinstance(fault, SystemExit):
        return line(f"it ended with exit({fault.code}){where}")
    try:
        text = str(fault).strip().split("\n")[0]
    except Exception as second:  # of the user's exception class
        text = f"its text cannot be had ({type(second).__name__})"
    return line(type(fault).__name__ + (f": {text}" if text else ""), LONGEST - len(where)) + where


def line(text: str, longest: int = LONGEST) -> str:
    """The text on one line, cut where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
