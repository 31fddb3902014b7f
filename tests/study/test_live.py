"""The picture of a running search."""
from __future__ import annotations

import io

import pytest
from rich.console import Console

from archdsl.pace import duration
from archdsl.study.live import View, watching
from archdsl.study.session import Hands, made_strategy, search_in
from archdsl.study.study import created
from tests.study import parts


def shown(view: View, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(view.picture(width))
    return out.getvalue()


def test_what_is_seen(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("archdsl.pace.time.monotonic", lambda: clock[0])
    plan = parts.plan('function(target = "tests.study.parts:mostly")', 64, ("params:min", "loss:max"))
    space, pictures = parts.Grid(), []
    with created(tmp_path / "study", plan, {}) as study:
        view = View(study)
        assert view.left() is None and view.hypervolume() is None and "0 of 64 trials" in shown(view)

        def told():
            clock[0] += 1
            pictures.append((study.store.finished, shown(view), view.left(), shown(view, 36)))

        search_in(study, space, made_strategy(plan, space), Hands(0), told=told)
        best = study.best(study.objectives[0])
    done, last, left, narrow = pictures[-1]
    assert f"{done} of 64 trials" in last and f"{study.store.failed} failed" in last
    assert best is not None and "least params" in last and f"trial {best.number}" in last and "most loss" in last and "hypervolume 0." in last
    assert left == 0
    first, second = pictures[:2]
    assert first[2] is None, "what starting takes is no pace"
    assert second[2] == pytest.approx((64 - second[0]) / (second[0] - first[0]))
    lines = narrow.splitlines()
    assert lines[1:4] == [f"{done} of 64 trials", f"{study.store.failed} failed", "0 s left"] and len(lines) == 7
    assert all(len(line) <= 36 for line in lines) and "…" not in narrow


def test_lines_on_a_pipe(tmp_path, capfd, monkeypatch):
    """One each 30 seconds, on standard error: what ends before is not talked of."""
    clock = [100.0]
    monkeypatch.setattr("archdsl.pace.time.monotonic", lambda: clock[0])
    plan = parts.plan('function(target = "tests.study.parts:mostly")', 64, ("params:min", "loss:max"))
    space = parts.Grid()
    with created(tmp_path / "study", plan, {}) as study, watching(False) as watch:
        grown = watch(study)

        def told():
            clock[0] += 20.0
            grown()
            if clock[0] < 130:
                assert capfd.readouterr() == ("", "")

        search_in(study, space, made_strategy(plan, space), Hands(0), told=told)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2, "behind the second and the fourth of four rounds"
    done = int(lines[0].split()[0])
    assert " of 64 trials" in lines[0] and "failed" in lines[0] and "least params" in lines[0] and 0 < done < 64
    assert lines[0].endswith(f", {duration((64 - done) * 20 / (done / 2))} left") and lines[1].endswith(", 0 s left")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text
