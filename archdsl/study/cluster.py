"""Workers on a Ray cluster. Each Ray actor holds one worker process of its own machine, so that limits and reasons are those of local workers; what
an actor adds is that its machine may be another one, and may go away: then its trial runs again elsewhere."""
from __future__ import annotations

import logging
import os
import tempfile
from importlib import import_module
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.records import replace
from archdsl.search.model import Candidate
from archdsl.specfiles import write_files
from archdsl.study.engine import Limits
from archdsl.study.errors import named
from archdsl.study.measure import Job, Workplace
from archdsl.study.plan import FILE, read_plan, write_plan
from archdsl.study.pool import Pool
from archdsl.study.store import Result

TRIES = 3  # of a trial whose actor is lost
PULSE = 1.0  # seconds that an actor waits before it looks after its worker again


class Cluster:
    """`workers` actors. Connects to the cluster that RAY_ADDRESS names, else starts one on this machine. The study's spec travels with the actors;
    modules of the user's own have to be where Python finds them on each machine."""

    def __init__(self, place: Workplace, workers: int, limits: Limits) -> None:
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise named("A0830", "`--engine ray` needs Ray, which is not installed", "ray", what="--engine",
                        help="pip install 'archdsl[ray]'") from None
        self.ray = ray
        self.mine = not ray.is_initialized()
        if self.mine:
            own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
        self._host = ray.remote(num_cpus=1, max_restarts=0)(Host)
        self._luggage = _packed(place), limits
        self._actors: list[Any] = [self._start() for _ in range(workers)]
        self._ready: dict[Any, Any] = {a.ready.remote(): a for a in self._actors}
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Job]] = {}
        self._again: list[Job] = []
        self._lost: dict[int, int] = {}
        self._stillborn = 0

    def _start(self) -> Any:
        return self._host.remote(*self._luggage)

    def start(self) -> None:
        while not self.free:
            self.wait(PULSE)

    @property
    def free(self) -> int:
        return max(0, len(self._idle) - len(self._again))

    def submit(self, job: Job, candidate: Candidate | None = None) -> None:
        actor = self._idle.pop()
        self._running[actor.run.remote(job)] = actor, job

    def wait(self, seconds: float) -> list[Result]:
        """Results after at most that time. Raises what a worker could not set up."""
        refs = [*self._ready, *self._running]
        if not refs or not self.ray.wait(refs, timeout=seconds)[0]:
            return []
        arrived = self.ray.wait(refs, num_returns=len(refs), timeout=0)[0]
        done = [result for ref in arrived for result in self._arrived(ref)]
        while self._again and self._idle:
            self.submit(self._again.pop())
        return done

    def _arrived(self, ref: Any) -> list[Result]:
        starting = ref in self._ready
        actor, job = (self._ready.pop(ref), None) if starting else self._running.pop(ref)
        try:
            said: Any = self.ray.get(ref)
        except self.ray.exceptions.RayActorError:
            return self._replace(job)
        self._idle.append(actor)
        if not starting:
            return [said]
        if said is not None:
            raise ArchError(*said)
        return []

    def _replace(self, job: Job | None) -> list[Result]:
        """Another actor in the place of one that is lost, and its trial once more, unless it was lost too often."""
        if job is None:
            self._stillborn += 1
            if self._stillborn >= TRIES:
                raise named("A0829", f"{TRIES} Ray workers ended before they were ready", "ray", what="--engine", help="Ray's own logs tell why")
        new = self._start()
        self._ready[new.ready.remote()] = new
        if job is None:
            return []
        self._lost[job.number] = self._lost.get(job.number, 0) + 1
        if self._lost[job.number] >= TRIES:
            return [Result(job.number, None, f"{TRIES} Ray workers were lost while it ran")]
        self._again.append(job)
        return []

    def close(self) -> None:
        for actor in {*self._ready.values(), *self._idle, *(a for a, _ in self._running.values())}:
            self.ray.kill(actor)
        if self.mine:
            self.ray.shutdown()


class Host:
    """The actor: a pool of one on its machine."""

    def __init__(self, luggage: tuple[Workplace, dict[str, str] | None, Any], limits: Limits) -> None:
        place, texts, plan = luggage
        self.folder = tempfile.TemporaryDirectory(prefix="archdsl-study-")
        if texts is not None:
            write_files(self.folder.name, texts)
            write_plan(self.folder.name, plan)
            place = replace(place, folder=self.folder.name)
        if not os.path.isdir(place.cwd):  # another machine
            place = replace(place, cwd=self.folder.name)
        self.pool = Pool(place, 1, limits, os.path.join(self.folder.name, "workers"))

    def ready(self) -> list[Any] | None:
        """Waits for the worker; the diagnostics of one that cannot be set up."""
        try:
            self.pool.start()
        except ArchError as fault:
            return fault.diagnostics
        return None

    def run(self, job: Job) -> Result:
        """One trial."""
        self.pool.start()  # the worker before it may not have survived its trial
        self.pool.submit(job)
        while True:
            for result in self.pool.wait(PULSE):
                return result


def _packed(place: Workplace) -> tuple[Workplace, dict[str, str] | None, Any]:
    """The workplace with the texts of its study; None for a space that does not come from a study's folder."""
    if not os.path.exists(os.path.join(place.folder, FILE)):
        return place, None, None
    plan = read_plan(place.folder)
    texts: dict[str, str] = {}
    for name in plan.files:
        with open(os.path.join(place.folder, name), encoding="utf-8", newline="") as file:
            texts[name] = file.read()
    return place, texts, plan
