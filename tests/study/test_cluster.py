"""A Ray cluster on this machine: the same archive as without it, a worker lost in the middle of a trial included."""
from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from archdsl.study.session import Hands, made_strategy, search_in
from archdsl.study.study import created
from tests.study import parts
from tests.study.test_pool import gone

pytest.importorskip("ray", reason="Ray is not installed: pip install 'archdsl[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
EXACT = 'function(target = "tests.study.parts:marked")'


@pytest.mark.proof
def test_a_worker_is_killed_and_the_archive_is_the_same(tmp_path, monkeypatch):
    """The first trial that runs names its process; the Ray actor above it is killed, and the trial runs again on another one."""
    plan = parts.plan(EXACT, 32, ("loss:min", "macs:min"), strategy="walk(batch = 8)")
    space = parts.Grid()
    with created(tmp_path / "whole", plan, {}) as study:
        search_in(study, space, made_strategy(plan, space), Hands(0), parts.SPACE)
        whole = parts.archive(study.store)
    monkeypatch.setenv("ARCHDSL_TEST_MARK", str(tmp_path / "mark"))
    killed = []

    def kill():
        end = time.monotonic() + 500
        while not (tmp_path / "mark").exists() and time.monotonic() < end:
            time.sleep(0.05)
        worker = int((tmp_path / "mark").read_text())
        actor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(actor, signal.SIGKILL)
        killed.append((worker, actor))

    killer = threading.Thread(target=kill)
    killer.start()
    with created(tmp_path / "study", plan, {}) as study:
        search_in(study, space, made_strategy(plan, space), Hands(2, "ray"), parts.SPACE)
        assert parts.archive(study.store) == whole
    killer.join()
    assert killed
    gone(killed[0][1])
