"""Where trials run. An engine takes jobs while it has room, and gives results as they come."""
from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from archdsl.records import record
from archdsl.search.model import Candidate
from archdsl.study.errors import wrong_number
from archdsl.study.measure import Job, Meter
from archdsl.study.memory import read_bytes
from archdsl.study.store import Result

AT_ONCE = 256  # results that one commit holds, where evaluating takes no time
SLICE = 0.05  # seconds of evaluating between two commits


@record(frozen=True)
class Limits:
    """Of one trial: seconds, and bytes of resident memory of its worker with everything that it started. None: no limit."""

    seconds: float | None = None
    memory: int | None = None


def limits_of(seconds: float | None, memory: str | None) -> Limits:
    """As the user writes them. Raises A0834."""
    if seconds is not None and not seconds > 0:
        raise wrong_number(f"a limit of {seconds:g} s lets no trial run", f"{seconds:g}")
    return Limits(seconds, None if memory is None else read_bytes(memory))


class Engine(Protocol):
    def start(self) -> None:
        """Returns when a trial can begin. Raises what keeps the evaluator from starting."""

    @property
    def free(self) -> int:
        """How many more jobs it takes now."""
        ...

    def submit(self, job: Job, candidate: Candidate | None = None) -> None:
        """Begins a trial. `candidate`: that of the job, where it is at hand."""

    def wait(self, seconds: float) -> list[Result]:
        """What has come, as soon as something has, or after that time."""
        ...

    def close(self) -> None:
        """Ends everything that runs."""


class InProcess:
    """Evaluates here, one trial after the other: no limits, and a crash ends the search (which loses nothing that was reported)."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._jobs: deque[tuple[Job, Candidate | None]] = deque()

    def start(self) -> None:
        pass  # the meter is set up

    @property
    def free(self) -> int:
        return AT_ONCE - len(self._jobs)

    def submit(self, job: Job, candidate: Candidate | None = None) -> None:
        self._jobs.append((job, candidate))

    def wait(self, seconds: float) -> list[Result]:
        done: list[Result] = []
        end = time.perf_counter() + SLICE
        while self._jobs and (not done or time.perf_counter() < end):
            done.append(self.meter(*self._jobs.popleft()))
        return done

    def close(self) -> None:
        self._jobs.clear()
