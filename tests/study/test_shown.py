"""What people and programs read of a study: summary, best, comparison, pictures, exports."""
from __future__ import annotations

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.study.errors import wrong_number
from archdsl.study.export import write_export
from archdsl.study.plot import drawn, short, write_plot
from archdsl.study.report.page import write_report
from archdsl.study.session import Hands
from archdsl.study.shown import compared, front_table, number, summary, variant_names
from tests.study import parts


@pytest.fixture
def study(searched):
    with searched(parts.plan(budget=60)) as study:
        yield study


@pytest.fixture
def troubled(searched):
    """Trials that fail, one objective."""
    with searched(parts.plan("tests.study.parts:mostly", 40, ("loss:max",)), name="troubled") as study:
        yield study


@pytest.fixture
def both(searched):
    """Failures, and two objectives."""
    with searched(parts.plan("tests.study.parts:mostly", 40, ("loss:max", "params:min")), name="both") as study:
        yield study


def test_summary(study):
    told = summary(study)
    rows = list(study.store.every())
    assert (told["trials"], told["failed"], told["seed"], told["objectives"]) == (60, 0, 3, ["params:min", "macs:min"])
    points = {(e.values["params"], e.values["macs"]) for e in rows}
    front = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points))
    assert [(p["values"]["params"], p["values"]["macs"]) for p in told["pareto"]] == front
    assert [p["variant"] for p in told["pareto"]] == [f"p{i}" for i in range(len(front))]
    assert all(rows[p["trial"]].key == p["hash"] and rows[p["trial"]].knobs == p["knobs"] for p in told["pareto"])
    # the share of the box that the front dominates, as a sum of steps
    low, high = [min(x) for x in zip(*points)], [max(x) for x in zip(*points)]
    area, above = 0.0, high[1]
    for a, b in front:
        area, above = area + (high[0] - a) * (above - b), b
    assert told["hypervolume"] == pytest.approx(area / ((high[0] - low[0]) * (high[1] - low[1])))
    assert told["best"]["macs"]["values"]["macs"] == low[1]
    json.dumps(told, allow_nan=False)


def test_summary_of_failures(troubled):
    told = summary(troubled)
    rows = list(troubled.store.every())
    assert told["failed"] == sum(e.status == "failed" for e in rows) > 0
    assert told["hypervolume"] is None  # one objective
    assert told["pareto"][0]["values"]["loss"] == max(e.values["loss"] for e in rows if e.status == "done")
    assert told["pareto"][0]["values"]["ratio"] is None  # NaN, which JSON does not have
    assert sum(r["trials"] for r in told["reasons"]) == told["failed"]
    json.dumps(told, allow_nan=False)


def test_table_shows_where_points_differ(study):
    heads, rows = front_table(study.front(), study.objectives, most=4)
    assert heads[:4] == ["variant", "trial", "params", "macs"]
    assert len(rows) == 4 and rows[0][0] == "p0" and rows[-1][0] == f"p{len(study.front()) - 1}"


def test_numbers():
    assert [number(v) for v in (1234567, 3.0, 0.123456789, None)] == ["1,234,567", "3", "0.12346", ""]
    assert [short(v) for v in (0, 0.03, 1500, 2.5e6, -3e9)] == ["0", "0.03", "1.5k", "2.5M", "-3G"]
    assert variant_names(2, ["p", "large"]) == ["p0", "p1"] and variant_names(1, ["p7"]) == ["pp0"]


def test_compared(study, searched):
    with searched(parts.plan(budget=60, seed=4), name="other") as other:
        told = compared([study, other])
        a, b = told["studies"]
        mine, yours = ([s for _, s in x.store.front.members] for x in (study, other))
        assert a["covers"] == {other.folder: sum(any(p[0] <= q[0] and p[1] <= q[1] for p in mine) for q in yours) / len(yours)}
        assert set(b["covers"]) == {study.folder} and a["best"]["params"] == min(s[0] for s in mine)
        assert 0 < a["hypervolume"] <= 1 and compared([study])["studies"][0]["hypervolume"] == summary(study)["hypervolume"]
    with searched(parts.plan(budget=4, objectives=("params:max", "macs:min")), name="third") as third, pytest.raises(ArchError) as fault:
        compared([study, third])
    assert fault.value.diagnostics[0].code == "A0833"


@pytest.mark.parametrize("objectives", [("params:min",), ("params:min", "macs:max"), ("params:min", "macs:min", "loss:max")])
def test_svg_shows_every_trial(searched, tmp_path, objectives):
    with searched(parts.plan("tests.study.parts:mostly", 40, objectives)) as study:
        write_plot(study, str(tmp_path / "a.svg"))
        root = ElementTree.parse(tmp_path / "a.svg").getroot()
        titles = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}title")]
        for e in study.store.every():
            assert any(f"trial {e.number}:" in t for t in titles) == (e.status == "done")
        words = {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {o.partition(":")[0] for o in objectives} <= words


def test_marks_stay_inside(study):
    picture = drawn(study)
    assert all(0 <= x <= picture.width and 0 <= y <= picture.height for x, y, *_ in [*picture.dots, *picture.words])


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_png(study, tmp_path):
    write_plot(study, str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_no_help_is_no_line():
    assert wrong_number("a budget of 0 trials is none", "0").diagnostics[0].help == ()


@pytest.mark.parametrize("write", [write_plot, write_export, write_report])
def test_other_kinds_of_files(study, tmp_path, write):
    with pytest.raises(ArchError) as fault:
        write(study, str(tmp_path / "a.xlsx"))
    assert fault.value.diagnostics[0].code == "A0832"
    assert not (tmp_path / "a.xlsx").exists()


@pytest.mark.parametrize(("write", "name"), [(write_plot, "a.svg"), (write_export, "a.csv")])
def test_files_in_no_folder(study, tmp_path, write, name):
    with pytest.raises(ArchError) as fault:
        write(study, str(tmp_path / "absent" / name))
    assert fault.value.diagnostics[0].code in ("A0627", "A0825")


def test_csv_and_json_hold_all_trials(troubled, tmp_path):
    rows = list(troubled.store.every())
    assert write_export(troubled, str(tmp_path / "a.csv")) == 40
    with open(tmp_path / "a.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(int(r["trial"]), r["status"], r["hash"], int(r["a"]), r["kind"], r["reason"]) for r in read] == [
        (e.number, e.status, e.key, e.knobs["a"], e.knobs["kind"], e.reason) for e in rows]
    write_export(troubled, str(tmp_path / "a.json"))
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["study"]["seed"] == 3 and [t["knobs"] for t in told["trials"]] == [e.knobs for e in rows]
    assert sorted(p.name for p in tmp_path.glob("a.*")) == ["a.csv", "a.json"]


@pytest.mark.filterwarnings("ignore")  # Optuna's own
@pytest.mark.parametrize("most", [0, 50_000], ids=["nothing", "part of the tables"])
def test_an_export_for_optuna_that_finds_no_room(troubled, tmp_path, most):
    pytest.importorskip("optuna")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(ArchError) as fault:
            write_export(troubled, str(tmp_path / "a.db"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fault.value.diagnostics[0].code == "A0825"
    assert list(tmp_path.glob("a.db*")) == []


@pytest.mark.filterwarnings("ignore")  # Optuna's own
def test_optuna_opens_the_export(both, tmp_path):
    import optuna

    write_export(both, str(tmp_path / "o.db"))
    opened = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'o.db'}")
    rows = list(both.store.every())
    assert [t.state.name for t in opened.trials] == ["COMPLETE" if e.status == "done" else "FAIL" for e in rows]
    assert [t.params for t in opened.trials] == [e.knobs for e in rows]
    assert [t.number for t in opened.trials] == list(range(40))
    assert [t.user_attrs["hash"] for t in opened.trials] == [e.key for e in rows]
    assert [t.user_attrs.get("reason", "") for t in opened.trials] == [e.reason for e in rows]
    assert opened.metric_names == ["loss", "params"] and [d.name for d in opened.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert {tuple(t.values) for t in opened.best_trials} == {tuple(e.values[o.name] for o in both.objectives) for e in both.front()}
    assert opened.user_attrs["seed"] == 3
    opened.add_trial(optuna.trial.create_trial(values=[0.5, 7.0]))  # it is a storage like any other
    assert len(opened.trials) == 41


@pytest.mark.filterwarnings("ignore")  # Optuna's own
def test_the_dashboard_shows_the_export(both, tmp_path):
    wsgi = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed").wsgi
    write_export(both, str(tmp_path / "o.db"))
    said: list[str] = []
    ask = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/1",
           "QUERY_STRING": "after=0", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
           "SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    told = json.loads(b"".join(wsgi(f"sqlite:///{tmp_path / 'o.db'}")(ask, lambda status, *_: said.append(status))))
    assert said == ["200 OK"] and told["objective_names"] == ["loss", "params"] and told["directions"] == ["maximize", "minimize"]
    rows = list(both.store.every())
    assert [t["state"] for t in told["trials"]] == ["Complete" if e.status == "done" else "Fail" for e in rows]
    assert {t["number"] for t in told["best_trials"]} == {e.number for e in rows if e.status == "done" and not any(
        f.values["loss"] >= e.values["loss"] and f.values["params"] <= e.values["params"] and f.values != e.values for f in rows if f.values)}


def test_failures_only(searched):
    with searched(parts.plan("tests.study.parts:hopeless", 20, ("loss:max", "params:min")), Hands(0), name="hopeless") as study:
        fault = study.fruitless().diagnostics[0]
        assert fault.code == "A0828" and fault.notes == ("20 of them: ValueError: hopeless (parts.py:" + fault.notes[0].rpartition(":")[2],)
        told = summary(study)
        assert (told["pareto"], told["hypervolume"], told["best"]) == ([], None, {})
        drawn(study)
