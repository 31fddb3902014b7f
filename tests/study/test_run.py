"""The loop: the archive is the same whatever the workers and the interruptions are."""
from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.records import replace
from archdsl.search.model import Candidate, Objective, Trial
from archdsl.study.session import Asked, Hands, made_strategy, search, search_in
from archdsl.study.store import Store
from archdsl.study.study import Study, created, resumed
from tests.study import parts

EXACT = "tests.study.parts:exact"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The archive of 96 trials in this process."""
    space, plan = parts.Grid(), parts.plan('function(target = "tests.study.parts:exact")', 96, ("loss:min", "macs:min"))
    with created(str(tmp_path_factory.mktemp("whole") / "study"), plan, {}) as study:
        search_in(study, space, made_strategy(plan, space), Hands(0), parts.SPACE)
        return parts.archive(study.store)


def test_archive_does_not_depend_on_workers(searched, undisturbed):
    assert len(undisturbed) == 96 and all(row[6] == "done" for row in undisturbed)
    with searched(parts.plan(EXACT, 96, ("loss:min", "macs:min")), Hands(3)) as study:
        assert parts.archive(study.store) == undisturbed


def test_values_are_those_of_the_evaluator_and_the_costs(undisturbed):
    from archdsl.study.measure import seed_of

    _, key, knobs, fidelity, *_, values, _, _ = undisturbed[5]
    seed = seed_of(3, key)
    assert values == {"loss": knobs["b"] + seed % 97 / 97, "seen": fidelity, "macs": (15 - knobs["a"]) * (1 + knobs["b"])}


def test_equal_graphs_are_evaluated_once(searched):
    with searched(parts.plan(budget=600)) as study:
        rows = list(study.store.every())
    first = {}
    for e in rows:
        first.setdefault(e.key, e)
        assert (e.same_as is None) == (first[e.key] is e)
        if e.same_as is not None:
            assert e.same_as == first[e.key].number
            assert e.values == first[e.key].values
    assert 0 < len(first) < len(rows) == 600


@pytest.mark.parametrize("committed", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize(("method", "nth"), [("stage", 1), ("stage", 3), ("finish", 1), ("finish", 4)])
def test_interrupted_around_a_commit_it_goes_on_with_the_same_stream(searched, undisturbed, monkeypatch, method, nth, committed):
    plan = parts.plan(EXACT, 96, ("loss:min", "macs:min"))
    interrupt(searched, plan, monkeypatch, method, nth, committed)
    with searched(plan, resume=True) as study:
        assert parts.archive(study.store) == undisturbed


@pytest.mark.parametrize("committed", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize(("method", "nth"), [("propose", 1), ("propose", 3), ("finish", 2)])
def test_an_asynchronous_search_loses_no_commit(searched, monkeypatch, method, nth, committed):
    plan = parts.plan(EXACT, 24, ("loss:min", "macs:min"), asynchronous=True)
    interrupt(searched, plan, monkeypatch, method, nth, committed, Hands(1))
    with searched(plan, Hands(1), resume=True) as study:
        rows = parts.archive(study.store)
        assert [e.number for e in study.store.every()] == list(range(24)) and all(row[6] == "done" for row in rows)


def interrupt(searched, plan, monkeypatch, method, nth, committed, hands=Hands(0)):  # noqa: B008  frozen
    """Runs a search into an interruption before or behind the n-th call of a method of its store."""
    real, count = getattr(Store, method), 0

    def interrupted(self, *args, **named):
        nonlocal count
        count += 1
        if count == nth and not committed:
            raise KeyboardInterrupt
        real(self, *args, **named)
        if count == nth:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, method, interrupted)
        with pytest.raises(KeyboardInterrupt), searched(plan, hands):
            pass


def test_a_round_of_quick_trials_is_one_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("archdsl.study.engine.SLICE", 1e9)  # trials of this machine are quick, however slow it is
    monkeypatch.setattr("archdsl.study.run.HELD", 1e9)
    plan, space = parts.plan(budget=96), parts.Grid()
    commits = []
    with created(tmp_path / "study", plan, {}) as study:
        strategy = made_strategy(plan, space)
        study.store.db.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        search_in(study, space, strategy, Hands(0))
        study.store.db.set_trace_callback(None)
        rounds = -(-96 // strategy.batch)
    assert rounds > 1 and len(commits) == 1 + rounds  # that of the session


def kill_and_resume(folder, kills: int, budget: int, workers: int, seed: int) -> list[int]:
    """Kills a search at random moments and goes on, so often, then lets it end; how many trials were finished at each kill. Every second time the
    moment is one behind some more trials, however long they take. A search that comes near its end waits to be killed, however quick it is."""
    rng = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.study.driver", str(folder), EXACT, str(budget), str(workers)]
    seen, most = [0], budget - 50  # which leaves room for a round
    for at in range(kills):
        with subprocess.Popen([*command, str(most)], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as search:
            assert search.stdout is not None and search.stdout.readline() == "open\n"
            with Study(folder) as study:
                more = min(seen[-1] + rng.randrange(1, 40), most)
                while at % 2 == 0 and study.store.finished < more and search.poll() is None:
                    time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.03 if at % 2 == 0 else 0.5))
            search.send_signal(signal.SIGKILL)
        with Study(folder) as study:
            seen.append(study.store.finished)
    assert subprocess.run(command, env=environment, cwd=ROOT).returncode == 0
    return seen


def check_killed(tmp_path, kills: int, budget: int) -> None:
    seen = kill_and_resume(tmp_path / "killed", kills, budget, 4, seed=kills)
    assert seen == sorted(seen) and seen[1] > 0 and seen[-1] < budget, "nothing that was finished is lost, and the kills came while it ran"
    plan = parts.plan('function(target = "tests.study.parts:exact")', budget)
    space = parts.Grid()
    with created(tmp_path / "whole", plan, {}) as study:
        search_in(study, space, made_strategy(plan, space), Hands(0), parts.SPACE)
        whole = parts.archive(study.store), study.store.front.members, study.store.extent
    with Study(tmp_path / "killed") as study:
        assert (parts.archive(study.store), study.store.front.members, study.store.extent) == whole


def test_three_kills(tmp_path):
    check_killed(tmp_path, 3, 1500)


@pytest.mark.proof
def test_fifty_kills(tmp_path):
    check_killed(tmp_path, 50, 4000)


def test_a_larger_budget_goes_on(searched):
    with searched(parts.plan(budget=32)) as study:
        before = parts.archive(study.store)
    with searched(parts.plan(budget=64), resume=True) as study:
        assert parts.archive(study.store)[:32] == before
        assert (study.store.next, study.store.finished) == (64, 64)
        assert len(study.store.sessions()) == 2
    assert study.plan.budget == 64
    with pytest.raises(ArchError) as fault, searched(parts.plan(budget=40), resume=True):
        pass
    assert fault.value.diagnostics[0].code == "A0834"


@pytest.mark.parametrize("strategy", ["walk", "nsga2(population = 5)", "evolution(population = 4)", "random", "local", "hyperband"])
def test_a_budget_that_grows_cuts_no_round(tmp_path, strategy):
    """Budgets that end within rounds, one within the same round as the one before, lead to the archive of the last of them, where rounds are as large
    under each: strategies that take their population from the budget go on with another one."""
    space, found = parts.Grid(), []
    for name, budgets in (("whole", [60]), ("grown", [23, 24, 60])):
        for budget in budgets:
            plan = parts.plan(budget=budget, strategy=strategy)
            with (created(tmp_path / name, plan, {}) if budget == budgets[0] else resumed(tmp_path / name, plan)) as study:
                search_in(study, space, made_strategy(study.plan, space), Hands(0), parts.SPACE)
                assert study.store.finished == budget
                if budget == budgets[-1]:
                    found.append(parts.archive(study.store))
    assert found[0] == found[1]


def test_a_finished_study_is_left_as_it_is(searched):
    with searched(parts.plan(budget=20)) as study:
        before = parts.archive(study.store), study.store.kept("state")
    with searched(parts.plan(budget=20), resume=True) as study:
        assert (parts.archive(study.store), study.store.kept("state"), len(study.store.sessions())) == (*before, 1)


def test_asynchronous(tmp_path):
    plan = parts.plan('function(target = "tests.study.parts:exact")', 60, ("loss:min", "macs:min"), asynchronous=True)
    space = parts.Grid()

    def run(opened, budget):
        with opened as study:
            strategy: Any = made_strategy(study.plan, space)
            search_in(study, space, strategy, Hands(3), parts.SPACE)
            assert study.store.finished == budget
            assert strategy.heard + len([e for e in study.store.pending() if e.status == "waiting"]) == budget
            return parts.archive(study.store)

    before = run(created(tmp_path / "study", plan, {}), 60)
    assert run(resumed(tmp_path / "study", replace(plan, budget=90)), 90)[:60] == before


@pytest.mark.parametrize(("change", "told"), [
    ({"seed": 4}, "seed: 3 then, 4 now"),
    ({"limits": ("params <= 3",)}, "limits: none then, params <= 3 now"),
    ({"files": {"net.arch": "0"}}, "the text of net.arch has changed"),
    ({"library": "0"}, "the library that comes with archdsl has changed"),
    ({"archdsl": "0.0.1"}, "it was made by archdsl"),
    ({"strategy": "walk(batch = 3)"}, "strategy: walk then, walk(batch = 3) now"),
])
def test_another_study_is_not_resumed(searched, change, told):
    with searched(parts.plan(budget=20)) as study:
        before = parts.archive(study.store)
    with pytest.raises(ArchError) as fault, searched(replace(parts.plan(budget=20), **change), resume=True):
        pass
    (d,) = fault.value.diagnostics
    assert d.code == "A0822" and any(n.startswith(told) for n in d.notes)
    with Study(study.folder) as study:
        assert parts.archive(study.store) == before


def test_one_process_at_a_time(tmp_path, searched):
    with searched(parts.plan(budget=20)) as study:
        with pytest.raises(ArchError) as fault, resumed(study.folder, study.plan):
            pass
        assert fault.value.diagnostics[0].code == "A0823"
        assert f"process {os.getpid()}" in fault.value.diagnostics[0].message
        with Study(study.folder) as other:  # reading goes on
            assert other.store.finished == 20
    with resumed(study.folder, study.plan):
        pass


def test_a_new_study_takes_an_empty_folder(tmp_path, searched):
    (tmp_path / "study").mkdir()
    with searched(parts.plan(budget=20)):
        pass
    for name, text in (("study", "holds a study already"), ("other", "is not empty")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "mine.txt").write_text("x")
        with pytest.raises(ArchError) as fault, searched(parts.plan(), name=name):
            pass
        assert fault.value.diagnostics[0].code == "A0820" and text in fault.value.diagnostics[0].message
        assert (tmp_path / name / "mine.txt").read_text() == "x"


@pytest.mark.parametrize("before", [False, True])
def test_what_cannot_begin_leaves_nothing(tmp_path, monkeypatch, before):
    """The disk is full when the first files are written: nothing is left, and a folder that was there stays, empty."""
    folder = tmp_path / "study"
    if before:
        folder.mkdir()

    def full(self, create):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as m:
        m.setattr(Store, "_connect", full)
        with pytest.raises(ArchError), created(folder, parts.plan(budget=4), {"a.arch": "# text"}):
            pass
    assert list(tmp_path.rglob("*")) == ([folder] if before else [])


def test_a_folder_that_cannot_be_made_is_no_full_disk(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ArchError) as fault, created(tmp_path / "file", parts.plan(budget=4), {}):
        pass
    (d,) = fault.value.diagnostics
    assert d.code == "A0825" and "file exists" in d.message and "--resume" not in d.help[0] and "may write" in d.help[0]


def test_disk_fills_up_while_it_runs(tmp_path, searched, monkeypatch):
    """What was committed stays, and the search goes on when there is room."""
    plan = parts.plan(budget=400)
    space = parts.Grid()
    with created(tmp_path / "whole", plan, {}) as study:
        search_in(study, space, made_strategy(plan, space), Hands(0))
        whole = parts.archive(study.store)
    with created(tmp_path / "study", plan, {}) as study:
        study.store.db.execute(f"PRAGMA max_page_count = {study.store.db.execute('PRAGMA page_count').fetchone()[0] + 4}")
        with pytest.raises(ArchError) as fault:
            search_in(study, space, made_strategy(plan, space), Hands(0))
    assert fault.value.diagnostics[0].code == "A0825"
    assert 0 < Study(tmp_path / "study").store.next < 400
    with searched(plan, resume=True) as study:
        assert parts.archive(study.store) == whole


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore")  # of the libraries behind some strategies
@pytest.mark.parametrize("strategy", ["evolution", "grid", "halving", "hyperband", "local", "nsga2", "nsga3", "predictor", "random", "tpe"])
def test_every_strategy_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, strategy):
    """Cut off at every third commit of results, as often as it takes."""
    plan, space = parts.plan(budget=90, strategy=strategy), parts.Grid()

    def run(opened):
        with opened as study:
            search_in(study, space, made_strategy(plan, space), Hands(0))
            return parts.archive(study.store)

    whole = run(created(tmp_path / "whole", plan, {}))
    real, count, cuts = Store.finish, 0, 0

    def cut(self, *args, **named):
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise KeyboardInterrupt
        real(self, *args, **named)

    monkeypatch.setattr(Store, "finish", cut)
    while True:
        try:
            found = run(resumed(tmp_path / "cut", plan) if cuts else created(tmp_path / "cut", plan, {}))
            break
        except KeyboardInterrupt:
            cuts += 1
    assert found == whole and len(whole) == 90


def test_strategies_hear_floats():
    trial = Trial(0, Candidate({}, "k"), status="done", values={"params": 3, "macs": 4})
    scores = trial.scores((Objective("params"), Objective("macs", "max")))
    assert scores == (3.0, -4.0) and all(type(s) is float for s in scores)


WIDE = """use std.linear { Linear }
model Wide(a: int = 8 in 1..10, b: int = 8 in 1..10)(x: [B = 1, 4]) -> y: [B, 4] {
  return x |> Linear(a) as up |> Linear(b) as mid |> Linear(4) as down
}
"""


FEW = sum(5 * a + (a + 1) * b + (b + 1) * 4 <= 60 for a in range(1, 11) for b in range(1, 11))


@pytest.mark.parametrize(("limit", "size"), [("params <= 60", FEW), ("saved_bytes <= 1G", 100)], ids=["a sum", "one by one"])
def test_candidates_are_counted_once_for_a_study(tmp_path, monkeypatch, limit, size):
    from archdsl.search.counting import Counted

    spec, out = tmp_path / "wide.arch", str(tmp_path / "study")
    spec.write_text(WIDE)
    asked = Asked(["params:min"], limits=[limit], strategy="evolution(population = 4)", budget=8)
    with search(str(spec), out, asked, Hands(0)) as study:
        assert study.store.kept("counted")["size"] == hex(size)
    again = shutil.copytree(out, str(tmp_path / "again"))
    made, whole = [], Counted._all
    monkeypatch.setattr(Counted, "_all", lambda self: made.append(self) or whole(self))
    with search(str(spec), out, Asked(budget=12), Hands(0), resume=True) as study:
        assert study.store.finished == 12
        first = parts.archive(study.store)
    assert not made
    with closing(sqlite3.connect(os.path.join(again, "study.db"))) as db, db:
        db.execute("DELETE FROM kept WHERE name = 'counted'")
    with search(str(spec), again, Asked(budget=12), Hands(0), resume=True) as study:
        assert parts.archive(study.store) == first
    assert made


def test_a_study_that_goes_on_makes_what_it_looks_at_alone(tmp_path, monkeypatch):
    """No trial of before where the strategy looks at none, and of 60 settings of the header those that are drawn; the trials are those of a search
    that was not cut."""
    from archdsl.search.counting import Counted
    from archdsl.search.space import SearchSpace

    spec, out = tmp_path / "wide.arch", str(tmp_path / "study")
    spec.write_text(WIDE.replace("a: int = 8 in 1..10", "a: int = 4 in 1..6"))
    asked = Asked(["params:min"], limits=["params <= 90"], strategy="random(batch = 4)", budget=12)
    with search(str(spec), str(tmp_path / "whole"), asked, Hands(0)) as study:
        whole = parts.archive(study.store)
    with search(str(spec), out, replace(asked, budget=8), Hands(0)) as study:
        assert len(study.store.kept("counted")["shares"]) == 60
    counted, read = [], []
    of_root, from_json = Counted.of_root, SearchSpace.from_json
    monkeypatch.setattr(Counted, "of_root", lambda self, root: counted.append(root) or of_root(self, root))
    monkeypatch.setattr(SearchSpace, "from_json", lambda self, knobs: read.append(knobs) or from_json(self, knobs))
    with search(str(spec), out, Asked(budget=12), Hands(0), resume=True) as study:
        assert parts.archive(study.store) == whole
    assert not read and 4 <= len(counted) < 30


def test_an_arm_that_fits_is_not_told_to_be_unfit_by_a_search_that_goes_on(tmp_path, monkeypatch):
    """A search that goes on has looked at other settings of the header than the one before."""
    from archdsl.study import session

    spec, out = tmp_path / "wide.arch", str(tmp_path / "study")
    spec.write_text(WIDE)
    asked = Asked(["params:min"], strategy="random(batch = 4)", budget=4)
    for budget, seen, kept in ((4, ["a", "b"], ["a", "b"]), (8, ["b", "c"], ["b"]), (12, ["a", "b"], ["b"])):
        monkeypatch.setattr(session, "unfit", lambda space, seen=seen: seen)
        with search(str(spec), out, replace(asked, budget=budget), Hands(0), resume=budget > 4) as study:
            assert study.store.kept(session.UNFIT) == kept
