"""The database: what is finished stays, what was cut off never was, and faults of the disk are told."""
from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.search.model import Objective
from archdsl.study.plan import read_plan
from archdsl.study.store import Entry, Result, Store
from archdsl.version import VERSION
from tests.study import parts

ROOT = Path(__file__).parents[2]
GOALS = (Objective("loss"), Objective("accuracy", "max"))


def entry(n: int, **more) -> Entry:
    return Entry(n, more.pop("key", f"k{n}"), more.pop("knobs", {"layers.0.d": n, "act": "gelu", "w": [1, 2.5, True, None]}), **more)


def measured(loss: float, accuracy: float) -> dict[str, float]:
    return {"loss": loss, "accuracy": accuracy, "extra": 3.5}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path, GOALS, write=True, create=True)
    yield made
    made.close()


def fill(store):
    store.propose([entry(0), entry(1, fidelity=0.5), entry(2, origin="cross", parents=(0, 1), repaired=("d: 7 -> 8",)), entry(3)], {"rng": [1, 2]})
    store.finish([Result(2, measured(2, 0.9), seconds=0.5), Result(0, None, "it hangs")])
    store.finish([Result(1, measured(0, 1.0))], [0.5])


def test_what_is_written_is_read(store, tmp_path):
    fill(store)
    for s in (store, Store(tmp_path, GOALS)):
        assert (s.next, s.finished, s.failed, s.kept("state")) == (4, 3, 1, {"rng": [1, 2]})
        a, b, c, d = s.every()
        assert (a.status, a.reason, a.values) == ("failed", "it hangs", {})
        assert (b.status, b.fidelity, b.values) == ("done", 0.5, measured(0, 1.0))
        assert (c.origin, c.parents, c.repaired, c.seconds) == ("cross", (0, 1), ("d: 7 -> 8",), 0.5)
        assert d == entry(3)
        assert [e.number for e in s.pending()] == [0, 1, 2, 3]
        assert s.front.members == [(2, (2.0, -0.9))]  # trials at lower fidelity are not compared
        assert s.extent == ((2.0, -0.9), (2.0, -0.9))
        assert s.reasons() == [("it hangs", 1)]
    store.propose([entry(4)], {"rng": [3]}, told=[0, 1, 2])
    assert [e.number for e in store.pending()] == [3, 4]


def test_equal_graphs_are_found_by_key_and_fidelity(store):
    store.propose([entry(0, key="x", fidelity=0.5), entry(1, key="x"), entry(2, key="x")], None)
    assert store.known("x", 1.0) is None
    store.finish([Result(2, measured(1, 1)), Result(1, measured(2, 1))])
    assert store.known("x", 1.0).number == 1
    assert store.known("x", 0.5) is None


def test_a_transaction_is_all_or_nothing(store, tmp_path):
    fill(store)
    before = list(store.every()), store.front.members, store.extent, store.kept("state"), store.pending()
    with pytest.raises(sqlite3.IntegrityError):
        store.finish([Result(3, measured(0, 1.0)), Result(2, measured(1, 1))])  # the second one has a result
    with pytest.raises(sqlite3.IntegrityError):
        store.propose([entry(9), entry(0)], {"rng": [9]}, told=[1])
    again = Store(tmp_path, GOALS)
    for s in (store, again):
        assert (list(s.every()), s.front.members, s.extent, s.kept("state"), s.pending()) == before


def test_front_is_that_of_all_results_after_many_commits(store, tmp_path):
    import random

    from archdsl.study.front import Front

    rng, expected = random.Random(5), Front(2)
    store.propose([entry(n) for n in range(300)], None)
    for at in range(0, 300, 7):
        scores = {n: (rng.randrange(30), rng.randrange(30)) for n in range(at, min(at + 7, 300))}
        results = [Result(n, measured(*s)) for n, s in scores.items()]
        store.finish(results)
        for r in results:
            expected.add(r.number, (scores[r.number][0], -scores[r.number][1]))
    assert store.front.members == expected.members == Store(tmp_path, GOALS).front.members


def test_a_killed_process_loses_nothing_that_finish_returned_for(tmp_path):
    code = f"""
import os, signal, sys
from tests.study.test_store import *
s = Store({str(tmp_path)!r}, GOALS, write=True, create=True)
s.propose([entry(n) for n in range(50)], [1])
s.finish([Result(n, measured(n, n)) for n in range(40)])
print("told", flush=True)
s.db.execute("BEGIN"); s.db.execute("INSERT INTO result VALUES (45, 'done', '{{}}', '', 0, NULL)")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("told\n", -9), done.stderr
    again = Store(tmp_path, GOALS, write=True)
    assert (again.next, again.finished, len(again.front)) == (50, 40, 40)


def test_full_disk(store, tmp_path):
    """SQLite's own limit of pages stands for the disk's: the same SQLITE_FULL."""
    fill(store)
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(ArchError) as fault:
        store.propose([entry(n, knobs={"text": "x" * 5000}) for n in range(4, 40)], [2])
    assert fault.value.diagnostics[0].code == "A0825"
    assert "full" in fault.value.diagnostics[0].message
    store.db.execute("PRAGMA max_page_count = 1000000")
    store.propose([entry(4)], [3])
    assert Store(tmp_path, GOALS).next == 5


def test_read_only_folder_is_shown(store, tmp_path, monkeypatch):
    fill(store)
    store.close()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if mode == os.W_OK else real(path, mode))  # whoever runs tests as root may write
    assert Store(tmp_path, GOALS).finished == 3
    assert sorted(os.listdir(tmp_path)) == ["study.db"]


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits")
@pytest.mark.parametrize("open_", [False, True], ids=["ended", "not ended"])
def test_a_full_disk_and_readers(store, tmp_path, open_):
    """The index that SQLite makes beside a database finds no room: where nobody writes none is needed."""
    import resource

    fill(store)
    if not open_:
        store.close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    copied = shutil.copytree(tmp_path, tmp_path / "copied", ignore=lambda *_: ["copied", "study.db-shm"])  # as a process that was killed leaves it
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        if open_:
            with pytest.raises(ArchError, match="make room") as fault:
                Store(copied, GOALS)
            assert fault.value.diagnostics[0].code == "A0825"
        else:
            assert Store(copied, GOALS).finished == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("text", [b"", b"no database at all, but long enough to be one" * 100])
def test_damaged_database(tmp_path, text):
    (tmp_path / "study.db").write_bytes(text)
    with pytest.raises(ArchError) as fault:
        Store(tmp_path, GOALS)
    assert fault.value.diagnostics[0].code == "A0824"
    assert (tmp_path / "study.db").read_bytes() == text


@pytest.mark.parametrize(("changes", "said"), [
    ({"budget": None}, "it lacks `budget`"),
    ({"budget": "3"}, '`budget` is "3", not a whole number'),
    ({"fixed": 1}, "`fixed` is 1, not true or false"),
    ({"variant": 4}, "`variant` is 4, not a string or null"),
    ({"files": {"net.arch": 4}}, '`files` is {"net.arch": 4}, not an object of strings'),
    ({"limits": "params <= 3"}, '`limits` is "params <= 3", not a list of strings'),
    ({"objectives": ["params"]}, "`params` is no objective"),
    ({"trials": 4}, "`trials` is no part of a plan"),
    ({"format": 7}, f"its format is 7, this archdsl ({VERSION}) reads format 1"),
    ([1, 2], "it holds no object"),
    ("{", "it is no JSON at line 1, column 2: Expecting property name enclosed in double quotes"),
])
def test_damaged_plan(tmp_path, changes, said):
    """Each part is named in words: no message of Python's."""
    if isinstance(changes, dict):
        told = {**parts.plan().to_json(), **changes}
        changes = {name: value for name, value in told.items() if value is not None or name not in changes}
    (tmp_path / "study.json").write_text(changes if isinstance(changes, str) else json.dumps(changes))
    with pytest.raises(ArchError) as fault:
        read_plan(str(tmp_path))
    (d,) = fault.value.diagnostics
    assert (d.code, d.message) == ("A0824", f"`{tmp_path / 'study.json'}` cannot be read: {said}") and d.help
    (tmp_path / "study.json").write_text(json.dumps(parts.plan().to_json()))
    assert read_plan(str(tmp_path)) == parts.plan()


def test_format_of_another_version(store, tmp_path, monkeypatch):
    """The file is let go of."""
    store.close()
    with closing(sqlite3.connect(tmp_path / "study.db")) as db:
        db.execute("PRAGMA user_version = 7")
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **how: (opened.append(connect(*args, **how)), opened[-1])[1])
    with pytest.raises(ArchError) as fault:
        Store(tmp_path, GOALS)
    assert "format is 7" in fault.value.diagnostics[0].message
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        opened[0].execute("SELECT 1")
