"""A second process that does jobs of this one, where that may be: without torch, with one thread, where a processor is idle, on a system that forks.

Jobs are numbered. This process does them from the first on, the second one from the last on, until they meet. What the second one finds is used
where it is nothing, so that this one can stop there; else this one goes on to the last job, as if it had been alone.
"""
from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, process_time
from typing import Any

_since: tuple[float, float] | None = None  # on the clock and of processor time, from when on a second process is allowed
WAITED = 1.3
"""Times its processor time that this process may have taken by the clock: one that has to wait for a processor would only take turns with another."""


def allow() -> None:
    """The process is one that nobody else has set up: the command line says so."""
    global _since
    _since = perf_counter(), process_time()


def possible() -> bool:
    threading = sys.modules.get("threading")
    return (_since is not None and hasattr(os, "fork") and "torch" not in sys.modules and (threading is None or threading.active_count() == 1)
            and idle(*_since))


def idle(clock: float, spent: float) -> bool:
    """Whether there seems to be a processor for a second process: this one may run on two, and has not waited for one since then."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return own > 1 and perf_counter() - clock <= WAITED * (process_time() - spent)


class Helper:
    """`job(i)` does a job and says whether it found nothing; `end(first)` is told when the second process has done all from `first` on, and gives
    what this one is to know, of plain values, or None where it found something."""

    def __init__(self, count: int, job: Callable[[int], bool], end: Callable[[int], Any]):
        self.count, self.job, self.end = count, job, end
        self.pid = 0
        self.pipe = -1
        self.at: Any = None  # the job that this process is at; the first that the second one has taken

    def start(self) -> bool:
        """False where there cannot be a second process now."""
        import signal
        from mmap import mmap

        self.at = memoryview(mmap(-1, 16)).cast("Q")
        self.at[0], self.at[1] = 0, self.count
        try:
            self.pipe, write = os.pipe()
        except OSError:
            return False
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # Ctrl-C waits until both know who they are
        try:
            try:
                self.pid = os.fork()
                if self.pid == 0:
                    self._second(write)
            except OSError:
                os.close(self.pipe)
                return False
            finally:
                os.close(write)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        return True

    def reached(self, i: int) -> bool:
        """Whether the second process has taken this job; else it will not, unless it does at this very moment."""
        self.at[0] = i
        return i >= self.at[1]

    def answer(self) -> Any:
        """What `end` gave, with the number of the first job that the second process has done: (first, told). None where it found something."""
        parts: list[bytes] = []
        while part := os.read(self.pipe, 1 << 16):
            parts.append(part)
        try:
            return marshal.loads(b"".join(parts))
        except (EOFError, ValueError, TypeError):  # of a process that ended before it had said all
            return None

    def stop(self) -> None:
        """Ends the second process, whatever it is at."""
        if self.pid:
            from signal import SIGKILL

            with suppress(ProcessLookupError):
                os.kill(self.pid, SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            os.close(self.pipe)
            self.pid = 0

    def _second(self, write: int) -> None:
        """All that the second process does; it writes nothing but its answer, and leaves nothing to what the first one would do at its end."""
        import signal

        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it, without a word
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
            os.close(self.pipe)
            told = self._done()
            if told is not None:
                data = memoryview(marshal.dumps(told))
                while data:
                    data = data[os.write(write, data):]
        except BaseException:  # the first process does the job itself, and meets it: no memory, a fault of ours
            pass
        finally:
            os._exit(0)

    def _done(self) -> Any:
        first = self.count
        while first - 1 > self.at[0]:
            first -= 1
            self.at[1] = first
            if not self.job(first):
                return None
        told = self.end(first)
        return None if told is None else (first, told)


__all__ = ["Helper", "allow", "possible"]
