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
from typing import Any

allowed = False
"""Whether the process is one that nobody else has set up: the command line says so."""


def possible() -> bool:
    threading = sys.modules.get("threading")
    return (allowed and hasattr(os, "fork") and "torch" not in sys.modules and (threading is None or threading.active_count() == 1)
            and idle())


def idle() -> bool:
    """Whether there is a processor for a second process: one that this one may run on, and that nothing ran on in the last minute, where the system
    tells. Taking turns on one would only cost more."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if own < 2:
        return False
    try:
        return os.getloadavg()[0] < (os.cpu_count() or 1)
    except (OSError, AttributeError):
        return True


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


__all__ = ["Helper", "idle", "possible"]
