"""The tabulated benchmark: parts that are interrupted go on, the table says what the rows say, and all candidates have a number."""
from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import archdsl
from archdsl.search.evaluators.function import load_function
from archdsl.tasks import parse
from benchmarks.nas_bench import run, table, together


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
