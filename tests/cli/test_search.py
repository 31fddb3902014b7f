"""archdsl search and archdsl study as a user meets them."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import archdsl as package
from archdsl.study.store import Store
from archdsl.study.study import Study, locked

NET = """\
use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

/// A chain of layers.
model Net(
  d: int = 16 in 8..64 step 8,
  depth: int = 2 in 1..4,
  ratio: int = 2 in {1, 2, 4},
)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  layers: for i in range(depth) { x = Pre(LayerNorm(), MLP(ratio * d))(x) as mlp }
  return x |> LayerNorm() as norm |> Linear(d) as head
}

variant wide { d = 64 }
space small of Net { params <= 20k }
"""
FIXED = "model Fixed(d: int = 4)(x: [B = 1, d]) -> y: [B, d] { return 2 * x }\n"
MINE = """\
import os
import time

def score(candidate, seed, fidelity, spec):
    print("looking at", dict(candidate))
    if candidate["depth"] == 4:
        raise RuntimeError("too deep")
    return {"score": candidate["d"] + spec.cost(**candidate).params / 1e9, "depth": candidate["depth"]}

def slow(candidate):  # the ninth call and those behind it wait to be allowed
    with open("calls", "ab") as file:
        file.write(b".")
    while os.path.getsize("calls") > 8 and not os.path.exists("go"):
        time.sleep(0.02)
    return {"score": candidate["d"]}

def hopeless(candidate):
    raise ValueError("no")

def nan(candidate):
    return {"score": float("nan")}

def text(candidate):
    return {"score": "0.9"}

def other(candidate):
    return {"points": 1.0}

def built(candidate, spec):
    model = spec.build(**candidate)
    return {"weights": sum(p.numel() for p in model.parameters())}
"""
COST = ("--objective", "params:min", "--objective", "macs:max", "--strategy", "random")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.arch").write_text(NET)
    (tmp_path / "fixed.arch").write_text(FIXED)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def shown(archdsl, study="study"):
    return json.loads(archdsl("study", "show", study, "--json").stdout)


def test_search_show_compile(archdsl, folder):
    done = archdsl("search", "net.arch", *COST, "--budget", 40, "-o", "study")
    told = shown(archdsl)
    assert (told["trials"], told["failed"], told["seed"]) == (40, 0, 0)
    assert done.stderr == "" and f"study: 40 trials, none failed; front of {len(told['pareto'])} points" in done.stdout
    assert 0 < told["hypervolume"] < 1 if find_spec("moocore") else told["hypervolume"] is None
    archdsl("check", "study/front.arch")
    archdsl("fmt", "--check", "study/front.arch")
    front = package.load("study/front.arch")
    for p in told["pareto"]:
        cost = front.cost(p["variant"])
        assert (cost.params, cost.macs) == (p["values"]["params"], p["values"]["macs"])
    archdsl("compile", "study/front.arch:p0", "-o", "built")
    table = archdsl("study", "show", "study").stdout
    assert "params:min, macs:max" in table and table.count("\np") == min(20, len(told["pareto"]))


def test_the_archive_does_not_depend_on_workers_or_torch(archdsl, archdsl_process, folder):
    archdsl_process("search", "net.arch", *COST, "--budget", 30, "-o", "a", cold=True)
    archdsl_process("search", "net.arch", *COST, "--budget", 30, "--workers", 2, "-o", "b")
    for name in "ab":
        archdsl("study", "export", name, "-o", f"{name}.json")
    a, b = (json.loads((folder / f"{n}.json").read_text()) for n in "ab")
    for t in (*a["trials"], *b["trials"]):
        del t["seconds"]
    assert a == b
    code = f"import sys; sys.argv[1:] = ['search', 'net.arch', *{COST}, '--budget', '5', '-o', 'c']\nfrom archdsl.cli.main import main\n" \
           "try: main()\nexcept SystemExit as e: assert e.code == 0 and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)


def test_limits_and_variants(archdsl, folder):
    archdsl("search", "net.arch:wide", *COST, "--budget", 20, "--limit", "params <= 30k", "--limit", "depth >= 2", "-o", "a")
    archdsl("search", "net.arch", *COST, "--budget", 20, "--space", "small", "-o", "b")
    assert all(p["values"]["params"] <= 30_000 and p["knobs"]["depth"] >= 2 for p in shown(archdsl, "a")["pareto"])
    assert all(p["values"]["params"] <= 20_000 for p in shown(archdsl, "b")["pareto"])
    assert shown(archdsl, "a")["limits"] == ["params <= 30k", "depth >= 2"]
    archdsl("check", "a/front.arch")


def test_user_function(archdsl, archdsl_process, folder):
    """In a worker and in this process; a part of its trials fails; costs are objectives beside what it measures."""
    ask = ("search", "net.arch", "--evaluator", "mine:score", "--objective", "score:max", "--objective", "params:min", "--strategy", "random",
           "--budget", 30)
    archdsl_process(*ask, "-o", "a")
    archdsl_process(*ask, "--workers", 0, "-o", "b")
    a, b = shown(archdsl, "a"), shown(archdsl, "b")
    assert [p["values"] for p in a["pareto"]] == [p["values"] for p in b["pareto"]]
    assert a["reasons"] == b["reasons"] == [{"reason": "RuntimeError: too deep (mine.py:7)", "trials": a["failed"]}] and 0 < a["failed"] < 30
    for p in a["pareto"]:
        assert p["values"]["score"] == p["knobs"]["d"] + p["values"]["params"] / 1e9 and p["values"]["depth"] == p["knobs"]["depth"]
    assert "looking at {'d':" in (folder / "a/workers/0.log").read_text()


def test_function_that_builds(archdsl, archdsl_process, folder):
    archdsl_process("search", "net.arch", "--evaluator", "mine:built", "--objective", "weights:min", "--objective", "params:max",
                    "--strategy", "random", "--budget", 3, "-o", "study")
    assert all(p["values"]["weights"] == p["values"]["params"] for p in shown(archdsl)["pareto"])


def test_best_plot_export_compare(archdsl, folder):
    archdsl("search", "net.arch", *COST, "--budget", 12, "-o", "a")
    archdsl("search", "net.arch", *COST, "--budget", 12, "--seed", 1, "-o", "b")
    best = json.loads(archdsl("study", "best", "a", "--json").stdout)
    assert set(best) == {"params", "macs"} and best["params"]["knobs"].keys() == {"d", "depth", "ratio"}
    text = archdsl("study", "best", "a", "macs").stdout
    assert text.startswith(f"macs:max: trial {best['macs']['trial']} (p") and f"  d = {best['macs']['knobs']['d']}\n" in text
    for file in ("a.svg", "a.html", "a.csv", "a.json"):
        done = archdsl("study", "plot" if file in ("a.svg", "a.html") else "export", "a", "-o", file)
        assert done.stdout.startswith(f"{file}: 12 trials") and (folder / file).exists()
    pytest.importorskip("moocore", reason="moocore is in the `search` extra")
    rows = json.loads(archdsl("study", "compare", "a", "b", "--json").stdout)["studies"]
    assert [r["study"] for r in rows] == ["a", "b"] and all(0 <= r["hypervolume"] <= 1 for r in rows)
    assert "covers b" in archdsl("study", "compare", "a", "b").stdout


def test_resume(archdsl, folder):
    archdsl("search", "net.arch", *COST, "--budget", 12, "-o", "a")
    archdsl("search", "net.arch", *COST, "--budget", 12, "-o", "a", "--resume")  # nothing is left to do
    archdsl("search", "net.arch", "--budget", 20, "-o", "a", "--resume")  # what is not said is as it was
    assert shown(archdsl, "a")["trials"] == 20
    assert "A0822" in archdsl("search", "net.arch", *COST, "--seed", 3, "-o", "a", "--resume", code=1).stderr
    (folder / "net.arch").write_text(NET.replace("8..64", "8..32").replace("d = 64", "d = 32"))
    assert "the text of net.arch has changed" in archdsl("search", "net.arch", "-o", "a", "--resume", code=1).stderr
    assert shown(archdsl, "a")["trials"] == 20


@pytest.mark.parametrize(("arguments", "code"), [
    (("net.arch",), "A0826"),
    (("net.arch", "--objective", "params"), "A0826"),
    (("net.arch", "--objective", "params:min", "--objective", "params:max"), "A0826"),
    (("net.arch", "--objective", "params:min", "--strategy", "guess"), "A0811"),
    (("net.arch", "--objective", "params:min", "--evaluator", "guess"), "A0813"),
    (("net.arch", "--objective", "params:min", "--evaluator", "absent:f"), "A0814"),
    (("net.arch", "--objective", "params:min", "--budget", "0"), "A0834"),
    (("net.arch", "--objective", "params:min", "--memory-limit", "some"), "A0834"),
    (("net.arch", "--objective", "params:min", "--time-limit", "-1"), "A0834"),
    (("net.arch", "--objective", "params:min", "--workers", "0", "--time-limit", "1"), "A0834"),
    (("fixed.arch", "--objective", "params:min"), "A0801"),
    (("net.arch", "--objective", "params:min", "--limit", "params <= 3"), "A0802"),
    (("net.arch", "--objective", "accuracy:max"), "A0403"),
    (("net.arch", "--objective", "score:max", "--strategy", "random", "--evaluator", "mine:hopeless"), "A0828"),
    (("net.arch:absent", "--objective", "params:min"), "A0401"),
])
def test_what_cannot_be_searched_says_why(archdsl, folder, arguments, code):
    done = archdsl("search", *arguments, *(() if "--budget" in arguments else ("--budget", 4)), "-o", "study", code=1)
    assert f"error[{code}]" in done.stderr and done.stdout == ""
    assert (folder / "study").exists() == (code == "A0828"), "no study is left where none began"
    assert ("4 of them: ValueError: no (mine.py:18)" in done.stderr) == (code == "A0828")


@pytest.mark.parametrize(("function", "reason"), [
    ("nan", "`score` is not finite: nan"), ("text", "`score` is a string ('0.9'), not a number"),
    ("other", "the evaluator gives no `score`; it gives points. It is no figure of the graph either"), ("hopeless", "ValueError: no (mine.py:18)")])
def test_an_objective_that_is_none(archdsl, folder, function, reason):
    """Each trial has the reason; the study can be read."""
    ask = ("--evaluator", f"mine:{function}", "--objective", "score:max", "--strategy", "random", "--budget", 3, "--workers", 0)
    assert f"3 of them: {reason}" in archdsl("search", "net.arch", *ask, "-o", "a", code=1).stderr
    told = shown(archdsl, "a")
    assert (told["trials"], told["failed"], told["pareto"]) == (3, 3, []) and told["reasons"][0]["reason"].startswith(reason)
    archdsl("study", "report", "a", "-o", "a.html")


def test_limits_that_exclude_each_other_are_named(archdsl, folder):
    limits = ("--limit", "params <= 2k", "--limit", "depth >= 1", "--limit", "d >= 32")
    said = archdsl("search", "net.arch", *COST, *limits, "-o", "a", code=1).stderr
    assert "none keeps within `params <= 2k` and `d >= 32` together, though some keep within each" in said and "depth" not in said


def test_two_processes_on_one_study(archdsl, folder):
    archdsl("search", "net.arch", *COST, "--budget", 4, "-o", "a")
    with locked("a"):
        said = archdsl("search", "net.arch", "--budget", 8, "-o", "a", "--resume", code=1).stderr
        assert f"error[A0823]: another process works on `a`: process {os.getpid()} on " in said
        assert shown(archdsl, "a")["trials"] == 4, "reading goes on"
    archdsl("search", "net.arch", "--budget", 8, "-o", "a", "--resume")
    assert shown(archdsl, "a")["trials"] == 8


def test_a_full_disk(archdsl, folder, monkeypatch):
    """SQLite is refused more pages, which it tells as it tells of a full disk. What was finished before is there, and the search goes on."""
    archdsl("search", "net.arch", *COST, "--budget", 10, "-o", "a")
    with monkeypatch.context() as full:
        connect = Store._connect

        def limited(self, create):
            db = connect(self, create)
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
            return db

        full.setattr(Store, "_connect", limited)
        said = archdsl("search", "net.arch", "--budget", 2000, "-o", "a", "--resume", code=1).stderr
    assert "error[A0825]: `a/study.db` cannot be written: database or disk is full" in said and "`--resume` goes on when there is room" in said
    assert 10 <= shown(archdsl, "a")["trials"] < 80
    archdsl("search", "net.arch", "--budget", 80, "-o", "a", "--resume")
    archdsl("search", "net.arch", *COST, "--budget", 80, "-o", "b")
    for name in "ab":
        archdsl("study", "export", name, "-o", f"{name}.json")
    a, b = (json.loads((folder / f"{n}.json").read_text())["trials"] for n in "ab")
    assert [(t["trial"], t["hash"], t["values"]) for t in a] == [(t["trial"], t["hash"], t["values"]) for t in b]


@pytest.mark.parametrize(("old", "new", "code"), [
    ('"archdsl": "', '"archdsl": "9.', "A0822"), ('"format": 1', '"format": 7', "A0824"), ('"seed": 0', '"seed": ', "A0824")])
def test_a_study_of_another_version(archdsl, folder, old, new, code):
    archdsl("search", "net.arch", *COST, "--budget", 4, "-o", "a")
    plan = folder / "a/study.json"
    text = plan.read_text()
    assert old in text
    plan.write_text(text.replace(old, new))
    assert f"error[{code}]" in archdsl("search", "net.arch", "--budget", 8, "-o", "a", "--resume", code=1).stderr
    archdsl("study", "show", "a", code=int(code == "A0824"))
    plan.write_text(text)
    assert shown(archdsl, "a")["trials"] == 4


def test_wrong_usage(archdsl, folder):
    archdsl("search", "net.arch", "--objective", "params:min", code=2)
    archdsl("study", code=2)
    archdsl("study", "guess", code=2)
    assert "A0821" in archdsl("study", "show", "absent", code=1).stderr


def test_ctrl_c(archdsl, folder):
    """Exit 130, no worker left, and the search goes on to where an undisturbed one ends."""
    ask = ["search", "net.arch", "--evaluator", "mine:slow", "--objective", "score:max", "--strategy", "random", "--budget", "24", "--workers", "2"]
    code = "from archdsl import pace; pace.EVERY = float('inf'); from archdsl.cli.main import run; run()"  # nothing is said of what takes long
    command = [sys.executable, "-c", code, *ask, "-o", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as search:
        end = time.monotonic() + 500
        while not (folder / "a/workers").exists() or finished(folder / "a") < 3:
            assert time.monotonic() < end
            time.sleep(0.05)
        workers = children(search.pid)
        os.kill(search.pid, signal.SIGINT)
        out, err = search.communicate(timeout=500)
    assert search.returncode == 130 and out == "" and err == "stopped; what has ended is kept: the same command with --resume goes on in a\n"
    assert len(workers) == 2 and not any(Path(f"/proc/{p}").exists() for p in workers)
    assert 3 <= finished(folder / "a") < 24
    (folder / "go").touch()
    archdsl(*ask, "-o", "a", "--resume")
    archdsl(*ask[:-2], "--workers", "1", "-o", "b")
    for name in "ab":
        archdsl("study", "export", name, "-o", f"{name}.json")
    a, b = (json.loads((folder / f"{n}.json").read_text())["trials"] for n in "ab")
    assert [(t["trial"], t["hash"], t["values"], t["same_as"]) for t in a] == [(t["trial"], t["hash"], t["values"], t["same_as"]) for t in b]


def finished(folder: Path) -> int:
    with Study(folder) as study:
        return study.store.finished


def children(pid: int) -> list[int]:
    return [int(p) for t in Path(f"/proc/{pid}/task").iterdir() for p in (t / "children").read_text().split()]
