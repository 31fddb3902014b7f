"""Workers: what a trial does to its process ends in a reason, and the search goes on."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.search.evaluators.texts import canonical
from archdsl.study.engine import Limits
from archdsl.study.measure import Job, Workplace
from archdsl.study.memory import bytes_text, read_bytes, resident
from archdsl.study.pool import Pool
from archdsl.study.reasons import kind_of
from archdsl.study.session import Hands
from tests.study import parts

ROOT = Path(__file__).parent.parent.parent
REASONS = {
    0: "ValueError: no such (parts.py:",
    1: "`loss` is not finite: nan",
    2: "`loss` is a string ('0.5'), not a number",
    3: "the evaluator gives no `loss`; it gives accuracy, size. It is no figure of the graph either: A0403: `loss` is no figure",
    4: "the evaluator gives a list, not a mapping of names to numbers",
    5: "the worker ended with SIGSEGV",
    6: "the worker ended with exit status 7",
    7: "it ended with exit(enough) (parts.py:",
    8: "it took more than 1 s",
    9: "out of memory: it took more than 190 MiB",
    10: "out of memory",
    11: "`loss` is nothing (None), not a number",
    12: "`loss` is not finite: more than a float can be",
    13: "the evaluator gives a value the name 3, which is no string",
    14: "Unspeakable: its text cannot be had (RuntimeError) (parts.py:",
}


def place(evaluator: str, *objectives: str) -> Workplace:
    return Workplace(parts.SPACE, "nowhere", canonical(evaluator), objectives or ("loss:min",), str(ROOT))


def job(number: int, a: int, b: int = 4) -> Job:
    return Job(number, {"a": a, "b": b, "c": 0, "kind": "deep"}, f"k{number}", 1.0, 0)


@pytest.fixture
def pool(tmp_path):
    made = []

    def start(evaluator, workers=2, limits=Limits()):  # noqa: B008  frozen
        made.append(Pool(place(evaluator), workers, limits, str(tmp_path / "workers")))
        return made[-1]

    yield start
    for p in made:
        p.close()


def results(pool, jobs):
    """Those of all jobs, by number."""
    left, done, end = list(jobs), {}, time.monotonic() + 500
    while len(done) < len(jobs):
        assert time.monotonic() < end, "something hangs"
        for _ in range(min(pool.free, len(left))):
            pool.submit(left.pop(0))
        done |= {r.number: r for r in pool.wait(0.2)}
    return done


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(*pids: int) -> None:
    """Waits until these processes have ended, long before they would by themselves."""
    end = time.monotonic() + 200
    while any(map(alive, pids)):
        assert time.monotonic() < end, "they live on"
        time.sleep(0.01)


def test_everything_that_goes_wrong_has_a_reason(pool):
    """Those that a limit is for meet it alone: the others may take any time, and their processes be of any size."""
    trouble = "tests.study.parts:trouble"
    found = results(pool(trouble, 2), [job(a, a) for a in range(17) if a not in (8, 9)])
    found |= results(pool(trouble, 1, Limits(1.0, 2**40)), [job(8, 8)])
    found |= results(pool(trouble, 1, Limits(3600.0, 190 * 2**20)), [job(9, 9)])
    for a, why in REASONS.items():
        assert found[a].values is None and found[a].reason.startswith(why), found[a]
    assert [kind_of(found[a].reason) for a in range(15)] == [
        "raised ValueError", "not finite", *["no measurement"] * 3, "crashed", "crashed", "ended the program", "over the limit of time",
        "out of memory", "out of memory", "no measurement", "not finite", "no measurement", "raised Unspeakable"]
    assert [found[a].values for a in (15, 16)] == [{"loss": 4.0}, {"loss": 4.0}]
    assert 1 <= found[8].seconds < 600, "it would have slept so long"


def test_the_same_in_this_process(tmp_path):
    """As far as this process survives it."""
    from archdsl.study.measure import Meter

    meter = Meter.at(place("tests.study.parts:trouble"))
    for a in (0, 1, 2, 3, 4, 7, *range(10, 15)):
        assert meter(job(a, a)).reason.startswith(REASONS[a])
    assert meter(job(15, 15)).values == {"loss": 4.0}


def test_a_worker_that_is_killed_from_outside(pool):
    p = pool("tests.study.parts:trouble", 1)
    while not p.free:
        p.wait(5)
    p.submit(job(0, 8))
    os.kill(p.pids[0], signal.SIGKILL)
    (lost,) = p.wait(600)
    assert lost.number == 0 and lost.reason.startswith("the worker ended with SIGKILL: killed from outside")
    assert results(p, [job(1, 20)])[1].values == {"loss": 4.0}


def test_closing_ends_what_runs_and_what_that_has_started(pool, tmp_path):
    p = pool("tests.study.parts:parent", 1)
    while not p.free:
        p.wait(5)
    p.submit(Job(0, {"a": 1, "b": 2, "c": 3, "kind": "deep", "file": str(tmp_path / "pid")}, "k", 1.0, 0))
    while not (tmp_path / "pid").exists():
        assert not p.wait(0.02)
    child = int((tmp_path / "pid").read_text())
    assert alive(child) and resident(p.pids[0]) > resident(child) > 0
    worker = p.pids[0]
    p.close()
    assert not alive(worker)
    gone(child)


@pytest.mark.parametrize(("evaluator", "code", "text"), [
    ("tests.study.parts:nothing_here", "A0814", "has no `nothing_here`"),
    ("tests.study.absent:f", "A0814", "there is no module `tests.study.absent`"),
    ("tests.study.parts:SPACE", "A0814", "is a str, not a function"),
    ("os:O_RDONLY", "A0814", "is an int, not a function"),
    ("tests.study.parts:greedy", "A0814", "needs `gpu`, which nothing gives it"),
])
def test_an_evaluator_that_cannot_start(pool, searched, evaluator, code, text):
    for hands in (Hands(2), Hands(0)):
        with pytest.raises(ArchError) as fault, searched(parts.plan(evaluator, objectives=("loss:min",)), hands, name=f"s{hands.workers}"):
            pass
        (d,) = fault.value.diagnostics
        assert d.code == code and text in d.message


def test_a_worker_that_dies_before_its_first_trial(tmp_path):
    p = Pool(Workplace("tests.study.parts:crashing_space", "nowhere", "cost", ("params:min",), str(ROOT)), 1, Limits(), str(tmp_path / "workers"))
    try:
        with pytest.raises(ArchError) as fault:
            p.wait(600)
    finally:
        p.close()
    assert fault.value.diagnostics[0].code == "A0829" and "exit status 9" in fault.value.diagnostics[0].message
    assert "so it goes" in (tmp_path / "workers" / "0.log").read_text()


def test_workers_go_when_the_search_is_killed(tmp_path):
    """Also one in the middle of a trial that sleeps for ten minutes."""
    code = f"""
import time
from tests.study.test_pool import *
p = Pool(place("tests.study.parts:trouble"), 2, Limits(), {str(tmp_path / "workers")!r})
while p.free < 2: p.wait(5)
p.submit(job(0, 8))
print(*p.pids, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as search:
        assert search.stdout is not None
        workers = [int(pid) for pid in search.stdout.readline().split()]
        assert len(workers) == 2 and all(map(alive, workers))
        search.kill()
    gone(*workers)


@pytest.mark.parametrize(("text", "n"), [("4GiB", 2**32), ("500MB", 500_000_000), ("2G", 2**31), ("1.5 MiB", 1572864), ("77000000", 77_000_000)])
def test_amounts_of_memory(text, n):
    assert read_bytes(text) == n


@pytest.mark.parametrize("text", ["", "much", "-3G", "0", "4 GiBs", "4", "100 kB"])
def test_no_amounts_of_memory(text):
    with pytest.raises(ArchError) as fault:
        read_bytes(text)
    assert fault.value.diagnostics[0].code == "A0834"


def test_amounts_as_text():
    assert [bytes_text(n) for n in (10, 1536, 2**31, 190 * 2**20)] == ["10 B", "1.5 KiB", "2 GiB", "190 MiB"]
