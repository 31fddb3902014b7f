"""The process of one worker: `python -m archdsl.study.worker FD`. Given a Workplace, it says that it is ready, then answers each Job by a Result."""
from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from archdsl.diagnostics.model import ArchError
from archdsl.study.measure import Job, Meter, Workplace, reason

READY = "ready"
DEATH_OF_PARENT = 1  # PR_SET_PDEATHSIG


def main(handle: int) -> None:
    """Works until the other end of the connection is closed."""
    _die_with_parent()
    link = Connection(handle)
    place: Workplace = link.recv()
    sys.path[:0] = [p for p in place.path if p not in sys.path]
    os.chdir(place.cwd)
    try:
        meter = Meter.at(place)
    except (Exception, SystemExit) as fault:  # whatever the user's module or its data raise: told there, where it ends the search
        link.send(fault.diagnostics if isinstance(fault, ArchError) else reason(fault))
        return
    jobs: SimpleQueue[Job] = SimpleQueue()
    threading.Thread(target=_listen, args=(link, jobs), daemon=True).start()
    link.send(READY)
    while True:
        link.send(meter(jobs.get()))


def _listen(link: Connection, jobs: SimpleQueue[Job]) -> None:
    """Takes jobs in; ends the process, in the middle of a trial too, when nobody is there to hear of it."""
    try:
        while True:
            jobs.put(link.recv())
    except (EOFError, OSError):
        os._exit(0)


def _die_with_parent() -> None:
    """Where the system can do it (Linux), also while a trial keeps this process from listening."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(DEATH_OF_PARENT, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
