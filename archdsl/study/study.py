"""A study: a folder with a plan, the spec and what it imports, and the trials. Whoever searches holds its lock; everyone may read."""
from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from archdsl.specfiles import write_files
from archdsl.study.errors import about, named, refused, wrong_number
from archdsl.study.plan import FILE, Plan, differences, read_plan, write_plan
from archdsl.study.store import DATABASE, Entry, Store

if TYPE_CHECKING:
    from archdsl.diagnostics.model import ArchError
    from archdsl.search.model import Objective
    from archdsl.search.space import SearchSpace

LOCK = "lock"
LOGS = "workers"


class Study:
    """An open study. `write`: for whoever holds the lock. `space`: where this process searched in it, the space, with all that is known of its
    candidates."""

    def __init__(self, folder: str | os.PathLike[str], plan: Plan | None = None, write: bool = False) -> None:
        self.folder = os.fspath(folder)
        self.plan = plan if plan is not None else read_plan(self.folder)
        if not os.path.isfile(os.path.join(self.folder, DATABASE)):
            raise about("A0821", f"`{self.folder}` has a plan and no trials: {DATABASE} is missing", self.folder)
        self.store = Store(self.folder, self.plan.objectives, write)
        self.space: SearchSpace | None = None

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.plan.objectives

    def front(self) -> list[Entry]:
        """The Pareto front, from the first objective's best to its worst."""
        members = sorted(self.store.front.members, key=lambda m: m[1])
        entries = {e.number: e for e in self.store.entries(n for n, _ in members)}
        return [entries[n] for n, _ in members]

    def best(self, objective: Objective) -> Entry | None:
        """The best trial for one objective; of equally good ones the first."""
        at = self.objectives.index(objective)
        members = self.store.front.members
        if not members:
            return None
        return self.store.entries([min(members, key=lambda m: (m[1][at], m[0]))[0]])[0]

    def fruitless(self) -> ArchError:
        """A0828: what to say when the front is empty."""
        count, reasons = self.store.finished, self.store.reasons()
        if self.store.failed < count:
            told = (f"{self.store.failed} others failed",) if self.store.failed else ()
            return about("A0828", f"none of {count} trials has had the full effort yet, which the front is made of", self.folder, notes=told,
                         help=f"the same command with `--resume --budget {3 * self.plan.budget}` goes on with those that look best")
        printed = os.path.isdir(os.path.join(self.folder, LOGS))
        return about("A0828", f"none of {count} trials succeeded" if count != 1 else "the only trial failed", self.folder,
                     notes=tuple(f"{n} of them: {why}" for why, n in reasons),
                     help=f"what workers printed is in the study's folder `{LOGS}`" if printed else "")

    def objective(self, name: str) -> Objective:
        """The one of that name. Raises A0827."""
        for o in self.objectives:
            if o.name == name:
                return o
        raise named("A0827", f"the study has no objective `{name}`", name, what="objective",
                    help=f"its objectives are {', '.join(o.name for o in self.objectives)}")


@contextmanager
def created(folder: str, plan: Plan, texts: dict[str, str]) -> Generator[Study, None, None]:
    """A new study, locked. study.json is written last: a folder without it is no study. Raises A0820, A0823, A0825."""
    if os.path.isdir(folder) and set(os.listdir(folder)) - {LOCK}:
        holds = "holds a study already" if os.path.exists(os.path.join(folder, FILE)) else "is not empty"
        raise about("A0820", f"`{folder}` {holds}", folder,
                    help="`--resume` goes on with it" if "study" in holds else "name a folder that is empty, or a new one")
    new = not os.path.exists(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as fault:
        raise refused(folder, fault, begun=False) from None
    with locked(folder, begun=False):
        try:
            write_files(folder, texts)
            Store(folder, plan.objectives, write=True, create=True).close()
            write_plan(folder, plan)
        except BaseException:
            emptied(folder, new)
            raise
        with Study(folder, plan, write=True) as study:
            yield study


def emptied(folder: str, whole: bool) -> None:
    """Takes away a study that holds no trial; `whole`: the folder too."""
    if whole:
        shutil.rmtree(folder)
        return
    for entry in os.scandir(folder):
        shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


@contextmanager
def resumed(folder: str, plan: Plan) -> Generator[Study, None, None]:
    """The study in a folder, locked, to go on under a plan. Raises A0821 to A0825, A0834."""
    old = read_plan(folder)
    told = differences(old, plan)
    if told:
        raise about("A0822", f"the study in `{folder}` is another one", folder, notes=tuple(told),
                    help="resume it as it was begun, or begin a new study in another folder")
    with locked(folder), Study(folder, old, write=True) as study:
        if plan.budget < study.store.next:
            raise wrong_number(f"the study holds {study.store.next} trials, which is more than a budget of {plan.budget}", str(plan.budget))
        if plan.budget != old.budget:
            from archdsl.records import replace

            study.plan = replace(old, budget=plan.budget)
            write_plan(folder, study.plan)
        yield study


@contextmanager
def locked(folder: str, begun: bool = True) -> Generator[None, None, None]:
    """Holds the lock of a study; the system lets go of it when the process ends, however it ends. Raises A0823, A0825."""
    import fcntl

    path = os.path.join(folder, LOCK)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as fault:
        raise refused(path, fault, begun) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 100, 0).decode(errors="replace").strip()
            raise about("A0823", f"another process works on `{folder}`" + (f": {holder}" if holder else ""), folder,
                        help="wait for it, or end it; reading verbs such as `study show` work meanwhile") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
