"""The trials of a study, in SQLite.

Durability: the database is in WAL mode with `synchronous = FULL`, so each commit ends in an fsync of the log. What `finish` has returned for survives
the death of the process and of the machine; a transaction that was cut off is as if it had never begun. Speed comes from batches: all results
that have arrived by then share one commit.

Rows are only ever added: `trial` when one is proposed, `result` when it is done or failed. `pending` holds the trials that the strategy has not been
told of; it changes together with the strategy's state. `front` and `extent` follow from the results and are kept in the same transactions, so that
opening a study reads neither trials nor results.
"""
from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from archdsl.records import field, record
from archdsl.search.model import Objective, Status, Trial
from archdsl.study.errors import damaged, unwritable
from archdsl.study.front import Front, Scores

FORMAT = 1
DATABASE = "study.db"
CACHE = 64_000  # KiB of pages: the index of keys of a million trials


@record(frozen=True)
class Entry:
    """A trial as it is kept. `knobs`: address -> value as JSON; `same_as`: the earlier trial of the same graph whose result it took over."""

    number: int
    key: str
    knobs: dict[str, Any]
    fidelity: float = 1.0
    origin: str = "sample"
    parents: tuple[int, ...] = ()
    repaired: tuple[str, ...] = ()
    status: Status = "waiting"
    values: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    same_as: int | None = None


@record(frozen=True)
class Result:
    """What came of a trial: `values` where it is done, `reason` where it failed."""

    number: int
    values: dict[str, float] | None
    reason: str = ""
    seconds: float = 0.0
    same_as: int | None = None

    @property
    def status(self) -> Status:
        return "failed" if self.values is None else "done"


SCHEMA = """
CREATE TABLE trial (number INTEGER PRIMARY KEY, key TEXT NOT NULL, fidelity REAL NOT NULL, layout INTEGER NOT NULL, knobs TEXT NOT NULL,
                    origin TEXT NOT NULL, parents TEXT NOT NULL, repaired TEXT NOT NULL);
CREATE INDEX trial_key ON trial (key);
CREATE TABLE layout (id INTEGER PRIMARY KEY, addresses TEXT NOT NULL UNIQUE);
CREATE TABLE result (number INTEGER PRIMARY KEY, status TEXT NOT NULL, measured TEXT NOT NULL, reason TEXT NOT NULL, seconds REAL NOT NULL,
                     same_as INTEGER);
CREATE INDEX failed ON result (number) WHERE status = 'failed';
CREATE TABLE pending (number INTEGER PRIMARY KEY);
CREATE TABLE front (number INTEGER PRIMARY KEY, scores TEXT NOT NULL);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE session (id INTEGER PRIMARY KEY, told TEXT NOT NULL);
"""
ENTRIES = """SELECT t.number, t.key, l.addresses, t.knobs, t.fidelity, t.origin, t.parents, t.repaired, r.status, r.measured, r.reason, r.seconds,
r.same_as FROM trial t JOIN layout l ON l.id = t.layout LEFT JOIN result r ON r.number = t.number"""


class Store:
    """The database of the study in `folder`. `write`: whoever holds the study's lock; readers may look on meanwhile. Only trials at fidelity 1 count
    in the front and in the extent, the box of the scores that were seen."""

    def __init__(self, folder: str | os.PathLike[str], objectives: Sequence[Objective], write: bool = False, create: bool = False) -> None:
        self.folder, self.objectives, self.write = os.fspath(folder), tuple(objectives), write
        self.path = os.path.join(self.folder, DATABASE)
        self._layouts: dict[str, int] = {}
        self._staged: tuple[list[Entry], Any, list[int]] | None = None
        with self._told(), ExitStack() as failing:
            failing.callback(self._let_go)
            try:
                self.db = self._connect(create)
                if create:
                    self.db.executescript(SCHEMA)
                    self.db.execute(f"PRAGMA user_version = {FORMAT}")
                self._load()
            except sqlite3.OperationalError as fault:
                if write or not refused_by_disk(fault):
                    raise
                self._load_without_index(fault)
            failing.pop_all()

    def _load_without_index(self, fault: sqlite3.OperationalError) -> None:
        """For a reader whose index beside the database finds no room: nobody writes where the log is empty, and then it needs none."""
        log = self.path + "-wal"
        if os.path.exists(log) and os.path.getsize(log):
            raise unwritable(self.path, str(fault), "a study that is being written to is read by an index beside it: make room for some kilobytes")
        self._let_go()
        self.db = self._connect(False, alone=True)
        self._load()

    def _let_go(self) -> None:
        """What is not closed holds its files until the garbage collector comes by."""
        if "db" in self.__dict__:
            self.db.close()

    def _connect(self, create: bool, alone: bool = False) -> sqlite3.Connection:
        from urllib.request import pathname2url

        mode = "ro&immutable=1" if alone else "rwc" if create else "rw"
        if not self.write and not alone and not (os.access(self.folder, os.W_OK) and os.access(self.path, os.W_OK)):
            # readers of a WAL database write an index beside it, which the last one takes away again; here nobody can, and nobody writes
            mode = "ro" if os.path.exists(self.path + "-wal") else "ro&immutable=1"
        db = sqlite3.connect(f"file:{pathname2url(os.path.abspath(self.path))}?mode={mode}", uri=True, isolation_level=None, timeout=30)
        with ExitStack() as failing:
            failing.callback(db.close)
            db.execute(f"PRAGMA cache_size = -{CACHE}")
            if self.write:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
            else:
                db.execute("PRAGMA query_only = 1")
            failing.pop_all()
        return db

    def _load(self) -> None:
        found = self.db.execute("PRAGMA user_version").fetchone()[0]
        if found != FORMAT:
            raise damaged(self.path, f"its format is {found or 'unknown'}, this archdsl reads format {FORMAT}")
        self._layouts = {text: at for at, text in self.db.execute("SELECT id, addresses FROM layout")}
        self._next = self.db.execute("SELECT coalesce(max(number), -1) + 1 FROM trial").fetchone()[0]
        self.front = Front(len(self.objectives), ((n, tuple(json.loads(s))) for n, s in self.db.execute("SELECT number, scores FROM front")))
        self.extent: tuple[Scores, Scores] | None = None
        extent = self.kept("extent")
        if extent is not None:
            self.extent = tuple(extent[0]), tuple(extent[1])
        self.failed = self.db.execute("SELECT count(*) FROM result WHERE status = 'failed'").fetchone()[0]

    def close(self) -> None:
        """Lets go of the files; a writer moves its log into the database."""
        self.db.close()

    # ---------------------------------------------------------------- writing
    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what SQLite complains of into diagnostics."""
        try:
            yield
        except sqlite3.DatabaseError as fault:
            if isinstance(fault, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):  # a mistake of ours, not of the disk
                raise
            raise (unwritable if isinstance(fault, sqlite3.OperationalError) and self.write else damaged)(self.path, str(fault)) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing."""
        with self._told():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # a full disk has ended it already
                    self.db.execute("ROLLBACK")
                raise

    def propose(self, entries: Iterable[Entry], state: Any, told: Iterable[int] = ()) -> None:
        """Adds proposals, whose numbers go on from `next`, with the state that the strategy is in now; `told`: the trials it has heard of."""
        new = list(entries)
        with self._transaction():
            self._add(new, state, told)
        self._next += len(new)

    def stage(self, entries: Iterable[Entry], state: Any, told: Iterable[int] = ()) -> None:
        """As `propose`, in the commit of the next results: a round whose trials end at once is one commit. Until then nobody has heard of its trials,
        and a search that is cut off proposes them again."""
        assert self._staged is None, "one round at a time"
        new = list(entries)
        self._staged = new, state, list(told)
        self._next += len(new)

    def _add(self, new: list[Entry], state: Any, told: Iterable[int]) -> None:
        self.db.executemany("DELETE FROM pending WHERE number = ?", ((n,) for n in told))
        self.db.executemany("INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (
            (e.number, e.key, e.fidelity, self._layout(e.knobs), dumps(list(e.knobs.values())), e.origin, dumps(e.parents), dumps(e.repaired))
            for e in new))
        self.db.executemany("INSERT INTO pending VALUES (?)", ((e.number,) for e in new))
        self._keep("state", state)

    def finish(self, results: Sequence[Result], fidelities: Sequence[float] | None = None) -> None:
        """Commits results. They are durable when this returns. `fidelities`: those of the trials, where they are not 1."""
        scores = self._scores(results, fidelities)
        before = self.front.copy()
        for number, of_it in scores:
            self.front.add(number, of_it)
        left, entered = self.front.since(before)
        extent = self._extended([s for _, s in scores])
        try:
            with self._transaction():
                if self._staged is not None:
                    self._add(*self._staged)
                self.db.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?)", (
                    (r.number, r.status, dumps(r.values or {}), r.reason, r.seconds, r.same_as) for r in results))
                self.db.executemany("DELETE FROM front WHERE number = ?", ((n,) for n in left))
                self.db.executemany("INSERT INTO front VALUES (?, ?)", ((n, dumps(s)) for n, s in entered))
                if extent != self.extent:
                    self._keep("extent", extent)
        except BaseException:
            self.front = before
            raise
        self._staged = None
        self.extent = extent
        self.failed += sum(r.values is None for r in results)

    def _scores(self, results: Sequence[Result], fidelities: Sequence[float] | None) -> list[tuple[int, Scores]]:
        full = [True] * len(results) if fidelities is None else [f == 1 for f in fidelities]
        return [(r.number, tuple(o.sign * r.values[o.name] for o in self.objectives)) for r, whole in zip(results, full)
                if whole and r.values is not None]

    def _extended(self, scores: list[Scores]) -> tuple[Scores, Scores] | None:
        known = [*(self.extent or ()), *scores]
        return (tuple(map(min, zip(*known))), tuple(map(max, zip(*known)))) if known else None

    def _layout(self, knobs: dict[str, Any]) -> int:
        """The row that holds these addresses, in this order: most candidates of a space have theirs in common."""
        text = dumps(list(knobs))
        if text not in self._layouts:
            self._layouts[text] = self.db.execute("INSERT INTO layout (addresses) VALUES (?) RETURNING id", (text,)).fetchone()[0]
        return self._layouts[text]

    def _keep(self, name: str, value: Any) -> None:
        self.db.execute("INSERT INTO kept VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, dumps(value)))

    def begin_session(self, told: dict[str, Any]) -> None:
        """Notes a run of the search: who works on the study, and how."""
        with self._transaction():
            self.db.execute("INSERT INTO session (told) VALUES (?)", (dumps(told),))

    def keep(self, name: str, value: Any) -> None:
        """Keeps a value as JSON, for `kept`."""
        with self._transaction():
            self._keep(name, value)

    # ---------------------------------------------------------------- reading
    @property
    def next(self) -> int:
        """The number of the next trial, which is how many there are."""
        return self._next

    @property
    def finished(self) -> int:
        """How many trials are done or failed."""
        with self._told():
            return self.db.execute("""SELECT (SELECT coalesce(max(number), -1) + 1 FROM trial) -
                (SELECT count(*) FROM pending p LEFT JOIN result r ON r.number = p.number WHERE r.number IS NULL)""").fetchone()[0]

    def kept(self, name: str) -> Any:
        """`state` (of the strategy), `extent`, or what `keep` was given; None before there is one."""
        with self._told():
            row = self.db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def sessions(self) -> list[dict[str, Any]]:
        with self._told():
            return [json.loads(told) for (told,) in self.db.execute("SELECT told FROM session ORDER BY id")]

    def pending(self) -> list[Entry]:
        """The trials that the strategy has not been told of, in order."""
        return self._entries("WHERE t.number IN (SELECT number FROM pending) ORDER BY t.number")

    def entries(self, numbers: Iterable[int]) -> list[Entry]:
        """These trials, in order of numbers."""
        return self._entries("WHERE t.number IN (SELECT value FROM json_each(?)) ORDER BY t.number", dumps(list(numbers)))

    def every(self) -> Iterator[Entry]:
        """All trials in order, read as they are asked for."""
        with self._told():
            for row in self.db.execute(f"{ENTRIES} ORDER BY t.number"):
                yield _entry(row)

    def known(self, key: str, fidelity: float) -> Entry | None:
        """The first trial of this graph at this fidelity that has a result."""
        found = self._entries("WHERE t.key = ? AND t.fidelity = ? AND r.number IS NOT NULL ORDER BY t.number LIMIT 1", key, fidelity)
        return found[0] if found else None

    def reasons(self, most: int = 5) -> list[tuple[str, int]]:
        """Why trials failed, the most frequent reason first."""
        with self._told():
            return self.db.execute("SELECT reason, count(*) n FROM result WHERE status = 'failed' GROUP BY reason ORDER BY n DESC, reason LIMIT ?",
                                   (most,)).fetchall()

    def _entries(self, where: str, *values: Any) -> list[Entry]:
        with self._told():
            return [_entry(row) for row in self.db.execute(f"{ENTRIES} {where}", values)]


def refused_by_disk(fault: sqlite3.Error) -> bool:
    """Whether SQLite complains of the disk and not of what stands on it: no room, no right to write."""
    return any(told in str(fault) for told in ("disk I/O error", "disk is full", "unable to open", "readonly"))


def _entry(row: Sequence[Any]) -> Entry:
    number, key, addresses, knobs, fidelity, origin, parents, repaired, status, measured, reason, seconds, same_as = row
    told = dict(zip(json.loads(addresses), json.loads(knobs)))
    return Entry(number, key, told, fidelity, origin, tuple(json.loads(parents)), tuple(json.loads(repaired)), status or "waiting",
                 json.loads(measured) if measured else {}, reason or "", seconds or 0.0, same_as)


def dumps(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def trial_of(entry: Entry, candidate: Any) -> Trial:
    """The same as strategies are told it."""
    return Trial(entry.number, candidate, entry.fidelity, entry.origin, entry.parents, entry.status, entry.values, entry.reason, entry.seconds)
