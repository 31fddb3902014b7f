"""Variants looked at by two processes: what is found is what one finds, whoever meets it; when there is a second one, and how it ends."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archdsl import helper, in_two
from archdsl.diagnostics.render import render
from archdsl.helper import Helper
from archdsl.spec import check_text

ROOT = Path(__file__).resolve().parents[1]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SPEC = """
use std { Linear, MLP }
model Net(d: int = 8, depth: int = 2, wide: int = 16, head: bool = false)(x: [B = 2, 8]) -> y: [B, d] {
  x = x |> Linear(d) as first
  layers: for i in range(depth) { x = MLP(wide)(x) as mlp }
  return if head { Linear(d)(x) as head } else { x }
}
variant a { d = 16 }
variant b { depth = 3 }
variant c { wide = 32 }
variant d { head = true }
variant e { d = 24, depth = 1 }
variant f of a { depth = 4 }
claim a { params <= 1M }
claim e { equal(b) within 1e-9 }
claim f { count(MLP) == 4 }
names other of Net {
  "in.*" <-> first.*
  "blocks.{i}.fc{1, 2}.*" <-> layers.{i}.mlp.{up, down}.*
  "head.*" <-> head.* when head
}
"""
FAULTS = {
    "sound": ("", ""),
    "in the first variant": ("variant a { d = 16 }", 'variant a { d = "16" }'),
    "in the last variant": ("variant f of a { depth = 4 }", "variant f of a { depth = -1, wide = 0.5 }"),
    "in two variants": ("variant c { wide = 32 }", "variant c { wide = 0.5 }\nvariant g { wide = 1.5 }"),
    "in a claim of the first": ("claim a { params <= 1M }", "claim a { params(layers.0.mlpp) <= 1M }"),
    "in a claim of the last": ("claim f { count(MLP) == 4 }", "claim f { params(layers.3.mlpp) == 4 }"),
    "a weight without a name in one variant": ('  "head.*" <-> head.* when head\n', ""),
    "a line about nothing": ("head.* when head", "heads.* when head"),
    "an item about nothing": ("fc{1, 2}.*\" <-> layers.{i}.mlp.{up, down}", "fc{1, 2, 3}.*\" <-> layers.{i}.mlp.{up, down, side}"),
    "a line about a weight of the last alone": ('"head.*" <-> head.* when head', '"head.*" <-> head.* when head\n  ignore "extra.*"'),
    "a setting that nothing has": ("variant e { d = 24, depth = 1 }", "variant e { d = 24, dept = 1 }"),
}


def shown(text: str) -> list[str]:
    return [render(d) for d in check_text(text, "net.arch", lints=True, trials=False)]


@pytest.fixture
def two(monkeypatch):
    """A second process is there for every file; how many were started is told."""
    monkeypatch.setattr(in_two, "possible", lambda: True)
    monkeypatch.setattr(in_two, "WORTH", 0)
    started: list[Helper] = []
    real = Helper.start

    def start(self: Helper) -> bool:
        started.append(self)
        begun = real(self)
        self.__dict__["forked"] = self.pid
        return begun

    monkeypatch.setattr(Helper, "start", start)
    return started


@forks
@pytest.mark.parametrize("name", FAULTS)
def test_two_find_what_one_finds(name: str, two, monkeypatch):
    was, now = FAULTS[name]
    text = SPEC.replace(was, now)
    assert text != SPEC or name == "sound"
    found = shown(text)
    assert len(two) == 1 and two[0].pid == 0
    with pytest.raises(ChildProcessError):  # it is left no more
        os.waitpid(two[0].__dict__["forked"], os.WNOHANG)
    monkeypatch.setattr(in_two, "possible", lambda: False)
    assert found == shown(text) and len(two) == 1
    assert bool(found) == (name not in ("sound", "a line about a weight of the last alone"))


@forks
def test_the_second_one_is_asked(two, monkeypatch):
    answers = []
    real = Helper.answer
    monkeypatch.setattr(Helper, "answer", lambda self: answers.append(real(self)) or answers[-1])
    monkeypatch.setattr(Helper, "reached", lambda self, i: i >= 2)  # the second one takes all, this one none behind the second
    assert check_text(SPEC, "net.arch", lints=True) == []
    (first, (steps, _)), = answers
    assert first == 1 and steps > 100, "job 0 is what this process is at"


@forks
def test_what_the_second_one_finds_this_one_finds_again(two, monkeypatch):
    """It says no more than that something is wrong; so does one that was killed, and one whose steps are too many for the budget."""
    sound = check_text(SPEC, "net.arch")
    monkeypatch.setattr(Helper, "answer", lambda self: None)
    assert check_text(SPEC, "net.arch") == sound == []
    monkeypatch.setattr(Helper, "answer", lambda self: (0, (10**9, [])))
    assert check_text(SPEC, "net.arch") == sound
    assert len(two) == 3


@forks
def test_the_second_one_takes_no_more_steps_than_were_expected(two, monkeypatch):
    """Then it has found something; nobody else is told of its budget."""
    answers = []
    real = Helper.answer
    monkeypatch.setattr(Helper, "answer", lambda self: answers.append(real(self)) or answers[-1])
    monkeypatch.setattr(Helper, "reached", lambda self, i: i >= 1)
    monkeypatch.setattr(in_two, "_steps", lambda *_: 10)
    assert check_text(SPEC, "net.arch") == [] and answers == [None]
    monkeypatch.setattr(in_two, "_steps", lambda *_: in_two.MOST + 1)
    assert check_text(SPEC, "net.arch") == [] and len(two) == 1, "a second process for so much would be no help"


@forks
@pytest.mark.parametrize("budget", [608, 1115, 1521, 1572])
def test_a_budget_that_runs_out_here_runs_out_where_that_of_one_does(budget, two, monkeypatch):
    """A variant is not looked at twice: what was kept of it would cost nothing the second time."""
    monkeypatch.setattr("archdsl.elaborate.frame.MAX_STEPS", budget)
    monkeypatch.setattr("archdsl.elaborate.frame.LINE_STEPS", 0)
    monkeypatch.setattr(Helper, "reached", lambda self, i: False)
    found = shown(SPEC)
    assert len(two) == 1 and "A0602" in found[0]
    monkeypatch.setattr(in_two, "possible", lambda: False)
    assert found == shown(SPEC)


@forks
def test_near_the_budget_one_process_decides(two, monkeypatch):
    monkeypatch.setattr("archdsl.elaborate.frame.MAX_STEPS", 2100)
    monkeypatch.setattr("archdsl.elaborate.frame.LINE_STEPS", 0)
    told = []
    real = in_two.clean_in_two
    monkeypatch.setattr("archdsl.checking.clean_in_two", lambda *given: told.append(real(*given)) or told[-1])
    assert check_text(SPEC, "net.arch") == [] and len(two) == 1 and told[0] is not None
    monkeypatch.setattr("archdsl.elaborate.frame.MAX_STEPS", 4000)
    assert check_text(SPEC, "net.arch") == [] and told[1] is None


@forks
def test_no_process_no_help(two, monkeypatch):
    def refused() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    made: list[int] = []
    closed: list[int] = []
    pipe, close = os.pipe, os.close
    monkeypatch.setattr(os, "pipe", lambda: (made.extend(ends := pipe()), ends)[1])
    monkeypatch.setattr(os, "close", lambda fd: (closed.append(fd), close(fd))[1])
    monkeypatch.setattr(os, "fork", refused)
    assert check_text(SPEC, "net.arch") == []
    assert len(made) == 2 and set(made) <= set(closed), "the pipe is closed"
    monkeypatch.setattr(os, "pipe", refused)
    assert check_text(SPEC, "net.arch") == []


def test_when_there_is_a_second_one(monkeypatch):
    assert not helper.possible(), "pytest is no process of the command line's"
    monkeypatch.setattr(helper, "_since", None)
    helper.allow()
    monkeypatch.setattr(helper, "idle", lambda *_: True)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    assert helper.possible() == hasattr(os, "fork")
    monkeypatch.setattr("threading.active_count", lambda: 2)
    assert not helper.possible()
    monkeypatch.setattr("threading.active_count", lambda: 1)
    monkeypatch.setattr(helper, "idle", lambda *_: False)
    assert not helper.possible()


def test_a_processor_that_others_use_is_not_idle(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(helper, "perf_counter", lambda: 10.1)
    monkeypatch.setattr(helper, "process_time", lambda: 0.19)
    assert helper.idle(10.0, 0.1), "0.10 s by the clock, 0.09 s of a processor"
    monkeypatch.setattr(helper, "process_time", lambda: 0.15)
    assert not helper.idle(10.0, 0.1), "half of the time something else had it"
    monkeypatch.setattr(helper, "process_time", lambda: 0.2)
    assert helper.idle(10.0, 0.1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    assert not helper.idle(10.0, 0.1)


@forks
def test_they_meet():
    """Each job is done by one of them at least, those in the front here, those in the back there. Neither begins before the other one."""
    mine: list[int] = []
    mine_began, theirs_began = os.pipe(), os.pipe()

    def theirs(i: int) -> bool:
        if i == 39:
            os.write(theirs_began[1], b".")
            os.read(mine_began[0], 1)
        time.sleep(0.001)
        return True

    two = Helper(40, theirs, lambda first: ["from", first])
    assert two.start()
    try:
        while len(mine) < 40 and not two.reached(len(mine)):
            if not mine:
                os.write(mine_began[1], b".")
                os.read(theirs_began[0], 1)
            mine.append(len(mine))
            time.sleep(0.001)
        first, told = two.answer()
    finally:
        two.stop()
        for end in (*mine_began, *theirs_began):
            os.close(end)
    assert told == ["from", first] and 0 < first <= len(mine) < 40


@forks
@pytest.mark.parametrize("end", [lambda first: None, lambda first: 1 / 0, lambda first: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_second_one_that_finds_something_or_dies_says_nothing(end):
    two = Helper(3, lambda i: True, end)
    assert two.start()
    assert two.answer() is None
    two.stop()
    two.stop()


@forks
def test_an_interrupt_ends_both():
    code = """
import time
from archdsl.helper import Helper
two = Helper(2, lambda i: time.sleep(600) is None, lambda first: 1)
try:
    two.start()
    print(two.pid, flush=True)
    two.answer()
except KeyboardInterrupt:
    print("interrupted", flush=True)
finally:
    two.stop()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                               start_new_session=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=500)
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
