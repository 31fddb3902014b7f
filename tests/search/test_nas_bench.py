"""The tabulated benchmark: parts that are interrupted go on, the table says what the rows say, and all candidates have a number."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import archdsl
from archdsl.search.evaluators.function import load_function
from archdsl.tasks import parse
from benchmarks import tabulated
from benchmarks.nas_bench import inherited, run, table, together


def test_every_candidate_has_a_number():
    assert table.space().size == len(table.numbers()) == 384 and table.space().uniform
    c = table.space().at(77)
    assert table.numbers()[c.key] == 77


def test_models_trained_side_by_side_are_those_of_fit():
    task = parse("mqar(vocab = 16, length = 12, pairs = 2)")
    how: dict[str, Any] = {"steps": 4, "seed": 1}
    models = [table.space().spec.build(seed=1, vocab=16, d=32, **{"layers.0.mixer": m}) for m in ("attention", "delta")]
    alone = [table.space().spec.build(seed=1, vocab=16, d=32, **{"layers.0.mixer": m}) for m in ("attention", "delta")]
    rows = together.trained(models, task, batch=2, device="cpu", batches=1, **how)
    for model, peer, row in zip(models, alone, rows):
        archdsl.fit(peer, task, task.batches("train", 2, 1), lr=3e-3, schedule="cosine", warmup=1, clip=1.0, weight_decay=0.1, **how)
        for (name, p), q in zip(model.named_parameters(), peer.parameters()):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)
        assert len(row["curve"]) == 4 and row["finite"] and row["loss"] == pytest.approx(task.evaluate(peer, "test", 1, 8)["loss"], abs=1e-4)
    with torch.no_grad():
        next(models[0].parameters()).fill_(float("inf"))
    assert [r["finite"] for r in together.trained(models, task, batch=2, device="cpu", batches=1, **how)] == [False, True]


def test_made_in_parts_and_read(tmp_path, monkeypatch):
    how = ["--device", "cpu", "--steps", "1", "--seeds", "1", "--only", "2", "--batches", "1", "--together", "1", "-o", str(tmp_path / "rows")]
    monkeypatch.setattr(run, "BATCH", 2)
    monkeypatch.setattr(run, "TASKS", {"mqar": ("mqar(vocab = 16, length = 12, pairs = 2)", 16)})
    assert run.main([*how, "--part", "1/2"]) == 1
    path = tmp_path / "table.json.gz"
    assert run.main([*how, "--merge", "--table", str(path)]) == 1
    written = tmp_path / "rows" / "rows-1-of-2.jsonl"
    written.write_text(written.read_text()[:-20])  # cut off
    assert [run.main([*how, "--part", "1/2"]) for _ in range(2)] == [1, 0], "the row is made again, on a line of its own"
    assert run.main(how) == 1 and run.main(how) == 0 and run.main([*how, "--merge", "--table", str(path)]) == 0
    found = table.load(path)
    assert len(found) == 2 and found.tasks == ("mqar",) and found.steps == 1 and [n for n, _ in found.candidates()] == [0, 192]
    row = json.loads((tmp_path / "rows" / "rows-0-of-1.jsonl").read_text())
    assert found.query(0, "mqar", 0) == row and len(row["curve"]) == 1 and row["params"] > 0
    assert found.query(dict(table.space().at(0)), "mqar")["loss"] == pytest.approx(row["loss"]) and found.query(192, "mqar")["seeds"] == 1
    with pytest.raises(KeyError, match="the table has 2 candidates of mqar"):
        found.query(1, "mqar")
    monkeypatch.setattr(table, "loaded", lambda: found)
    score = load_function("benchmarks.nas_bench.table:score")
    assert score(table.space().at(0), seed=5)["mqar_loss"] == row["loss"]
    with pytest.raises(SystemExit, match="other steps"):
        run.main([*how, "--steps", "2"])
    with pytest.raises(KeyError, match="no row of candidate 1, task `mqar`"):
        score(table.space().at(1), seed=0)
    with pytest.raises(FileNotFoundError, match="tells how it is made"):
        table.load(tmp_path / "none.json.gz")


def test_the_table_that_ships():
    """All candidates, both tasks, two seeds at least; figures that tell candidates apart."""
    found = table.load()
    assert len(found) == table.space().size and set(found.tasks) == set(run.TASKS)
    for task in found.tasks:
        means = [found.query(n, task) for n, _ in found.candidates()]
        assert min(m["seeds"] for m in means) >= 2 and {m["seeds"] for m in means} <= {2, 3}
        assert len({round(m["loss"], 3) for m in means}) > 100 and all(0 < m["accuracy"] <= 1 and m["params"] > 10_000 for m in means)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Settings of a tiny run of inherited.py."""
    monkeypatch.setattr(inherited, "TASKS", {"mqar": ("mqar(vocab = 64, length = 12, pairs = 2)", 64)})
    return ["--device", "cpu", "--steps", "2", "--batch", "2", "--batches", "1", "--only", "2", "--tune", "1", "-o", str(tmp_path / "rows")]


@pytest.mark.parametrize("arms", ["shared", "own"])
def test_candidates_of_the_supernets_are_those_of_the_table(arms: str):
    """By their settings, and as large."""
    spec = archdsl.load(str(inherited.SPECS[arms]))
    for task in run.TASKS:
        found = spec.space(variant=task)
        assert found.size == table.space().size
        for n in (0, 77, 383):
            own = dict(table.space().at(n) or {})
            assert own and dict(found.at(n) or {}) == own
            assert spec.cost(task, None, **own).params == table.load().query(n, task)["params"]


def test_measured_on_inherited_weights(small: list[str], tmp_path: Path):
    """Tuning leaves the supernet as it was, and gives what training the extracted candidate does."""
    args = inherited.parser().parse_args(small)
    net = inherited.Measuring(args)
    net.train()
    before = {n: p.detach().clone() for n, p in net.net.named_parameters()}
    figures = net.measure()
    assert net.asked == [0, 192] and all(torch.equal(before[n], p) for n, p in net.net.named_parameters())
    tuned = net.tune(2)
    assert all(torch.equal(before[n], p) for n, p in net.net.named_parameters()) and tuned != figures
    for at, n in enumerate(net.asked):
        model, task = net.net.extract(net.candidates[n]), net.task
        loss = task.evaluate(model, "valid", 1, 256)["loss"]
        assert figures["loss"][at] == pytest.approx(loss, abs=1e-4)
        batches = [task.batch("train", 2 + i, 2, 0) for i in range(2)]
        archdsl.fit(model, task, batches, steps=2, seed=0, lr=1e-3, schedule="linear", warmup=0, clip=1.0,
                    weight_decay=0.1)
        assert tuned["loss"][at] == pytest.approx(task.evaluate(model, "valid", 1, 256)["loss"], abs=1e-3)


def test_inherited_figures_are_merged_and_told(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "inherited.json.gz"
    monkeypatch.setattr(tabulated, "BINS", 1)
    inherited.main(small)
    inherited.main(["--merge", "-o", str(tmp_path / "rows"), "--table", str(path)])
    told = tabulated.inherited(table.load(), path).rows
    assert [r[1] for r in told if r[0] == "mqar"] == ["seed 0 of the table", "a quarter of its steps", *(
        f"{how}, arms shared, 2 steps" for how in ("inherited", "tuned 1") for _ in range(2))]
    assert all(r[3] == "2" for r in told if "arms" in r[1]) and all(-1 <= float(r[4]) <= 1 for r in told)
