"""What was measured, on disk: a SQLite file that several searches and their workers share."""
from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.search.latency.bench import Measured
from archdsl.source import Source, Span

FORMAT = 1
SCHEMA = "CREATE TABLE IF NOT EXISTS latency (key TEXT PRIMARY KEY, seconds REAL NOT NULL, spread REAL NOT NULL)"


def cache_file() -> str:
    """Where tables are kept unless a path is given: `archdsl/latency.db` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(folder, "archdsl", "latency.db")


class Table:
    """`where`: what all keys of this table have in common (device, element type, form, binding, torch), as JSON. Raises ArchError A0819 for a file
    that cannot be read or written, here or later. The file is open while something is read or written: objects that hold each other are let go of
    when Python looks for garbage, and no connection may be taken along into a fork."""

    def __init__(self, path: str, where: dict[str, Any]) -> None:
        self.path, self.where = path, where
        with self._told():
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with self._opened():
            pass

    def key(self, piece: str) -> str:
        """The key of a piece on this device."""
        return json.dumps({"piece": piece, **self.where}, sort_keys=True)

    def get(self, pieces: Iterable[str]) -> dict[str, Measured]:
        """Those of the pieces that were measured."""
        wanted = list(pieces)
        if not wanted:
            return {}
        found: dict[str, Measured] = {}
        with self._opened() as db:
            for piece in wanted:
                row = db.execute("SELECT seconds, spread FROM latency WHERE key = ?", (self.key(piece),)).fetchone()
                if row is not None:
                    found[piece] = Measured(*row)
        return found

    def put(self, measured: dict[str, Measured]) -> None:
        """Adds measurements; a piece that is there keeps its figures."""
        rows = [(self.key(p), m.seconds, m.spread) for p, m in measured.items()]
        with self._opened() as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR IGNORE INTO latency VALUES (?, ?, ?)", rows)
            db.execute("COMMIT")

    @contextmanager
    def alone(self) -> Generator[None, None, None]:
        """While this process measures, no other one that uses the file does: they would slow each other."""
        import fcntl

        with self._told():
            handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection, None, None]:
        with self._told(), closing(sqlite3.connect(self.path, isolation_level=None, timeout=60)) as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise _unusable(self.path, f"its format is {found}, this archdsl reads format {FORMAT}")
            if not found:
                db.execute(SCHEMA)
                db.execute(f"PRAGMA user_version = {FORMAT}")
            yield db

    @contextmanager
    def _told(self) -> Generator[None, None, None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as fault:
            raise _unusable(self.path, (getattr(fault, "strerror", None) or str(fault)).lower()) from None


def _unusable(path: str, why: str) -> ArchError:
    return error("A0819", f"the table of latencies `{path}` cannot be used: {why}", Span(Source("table", path), 0, len(path)),
                 help="`latency(table = \"FILE\")` keeps it elsewhere; it can be deleted at any time, and is measured again then")
