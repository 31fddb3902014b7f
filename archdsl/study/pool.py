"""Workers on this machine: fresh processes, each in a process group of its own, with limits of time and memory for each trial."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from archdsl.diagnostics.model import ArchError
from archdsl.search.model import Candidate
from archdsl.study.engine import Limits
from archdsl.study.errors import about
from archdsl.study.measure import Job, Workplace, line
from archdsl.study.memory import bytes_text, resident
from archdsl.study.store import Result
from archdsl.study.worker import READY

TICK = 0.05  # seconds between two looks at the memory that trials take


class Worker:
    """One process, and the trial that it works on. What it prints goes to a file."""

    def __init__(self, place: Workplace, log: str, threads: int) -> None:
        self.log, self.ready, self.job, self.since = log, False, None, 0.0
        self.job: Job | None
        mine, other = socket.socketpair()
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with open(log, "ab") as out, other:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "archdsl.study.worker", str(other.fileno())], pass_fds=[other.fileno()], stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, env=env, start_new_session=True)
        self.link = Connection(mine.detach())
        self.link.send(place)

    def begin(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        with suppress(OSError):  # it has just died: `wait` sees the end of the connection and tells
            self.link.send(job)

    def end(self) -> int:
        """Kills the process and what it has started; its exit status, negative for a signal."""
        self.link.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def ended(self) -> str:
        """Why it has gone, as a reason; takes away what it leaves behind."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed the connection and lives on
            status = None
        self.end()
        if status is None:
            return "the worker closed its connection"
        if status >= 0:
            return f"the worker ended with exit status {status}"
        name = signal.Signals(-status).name
        why = ": killed from outside, often because the system is out of memory" if name == "SIGKILL" else ""
        return f"the worker ended with {name}{why}"


class Pool:
    """`workers` processes. A trial that crashes, hangs or takes too much memory fails with a reason, and another process takes the worker's place."""

    def __init__(self, place: Workplace, workers: int, limits: Limits, logs: str) -> None:
        self.place, self.limits, self.logs = place, limits, logs
        os.makedirs(logs, exist_ok=True)
        self._threads = max(1, (os.cpu_count() or 1) // workers)  # of each worker's arithmetic
        self._workers: list[Worker] = []
        try:
            for at in range(workers):
                self._workers.append(self._start(at))
        except BaseException:
            self.close()
            raise

    def _start(self, at: int) -> Worker:
        return Worker(self.place, os.path.join(self.logs, f"{at}.log"), self._threads)

    def start(self) -> None:
        while not self.free:
            self.wait(TICK)

    @property
    def free(self) -> int:
        return sum(w.ready and w.job is None for w in self._workers)

    @property
    def pids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    def submit(self, job: Job, candidate: Candidate | None = None) -> None:
        next(w for w in self._workers if w.ready and w.job is None).begin(job)

    def wait(self, seconds: float) -> list[Result]:
        """Results, after at most that time; a worker that has become ready ends the waiting too. Raises A0829, or what a worker could not set up."""
        end = time.monotonic() + seconds
        while True:
            done: list[Result] = []
            arrived = wait([w.link for w in self._workers], max(0.0, min(self._patience(), end - time.monotonic())))
            for at, worker in enumerate(self._workers):
                if worker.link in arrived:
                    done += self._heard(at, worker)
            done += self._over_limits()
            if done or arrived or time.monotonic() >= end:
                return done

    def _patience(self) -> float:
        """Seconds until a limit has to be looked at."""
        busy = [w for w in self._workers if w.job is not None]
        if busy and self.limits.memory is not None:
            return TICK
        if busy and self.limits.seconds is not None:
            return max(0.0, min(w.since for w in busy) + self.limits.seconds - time.monotonic())
        return 3600.0

    def _heard(self, at: int, worker: Worker) -> list[Result]:
        try:
            said = worker.link.recv()
        except (EOFError, OSError):
            return self._lost(at, worker)
        if isinstance(said, Result):
            worker.job = None
            return [said]
        if said != READY:
            raise _unready(said, worker.log)
        worker.ready = True
        return []

    def _lost(self, at: int, worker: Worker) -> list[Result]:
        why = worker.ended()
        if worker.job is None and not worker.ready:
            raise _unready(why, worker.log)
        self._workers[at] = self._start(at)
        return [] if worker.job is None else [Result(worker.job.number, None, why, time.monotonic() - worker.since)]

    def _over_limits(self) -> list[Result]:
        found: list[Result] = []
        for at, worker in enumerate(self._workers):
            if worker.job is None or worker.link.poll():  # its result is there
                continue
            spent, why = time.monotonic() - worker.since, None
            if self.limits.seconds is not None and spent >= self.limits.seconds:
                why = f"it took more than {self.limits.seconds:g} s"
            elif self.limits.memory is not None and resident(worker.process.pid) > self.limits.memory:
                why = f"out of memory: it took more than {bytes_text(self.limits.memory)}"
            if why is not None:
                worker.end()
                found.append(Result(worker.job.number, None, why, spent))
                self._workers[at] = self._start(at)
        return found

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []


def _unready(said: Sequence[object] | str, log: str) -> ArchError:
    """What kept a worker from setting the evaluator up: its own diagnostics, else a text."""
    if isinstance(said, str):
        return about("A0829", f"the evaluator could not start: {line(said)}", log, help="what it printed is in that file")
    return ArchError(*said)  # type: ignore[arg-type]
