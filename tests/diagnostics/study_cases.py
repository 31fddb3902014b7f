"""Faults of studies: cases for pages without an example."""
from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from archdsl.study.session import Hands, made_strategy, search_in
from archdsl.study.study import Study, created, resumed
from tests.diagnostics.cases import case, write
from tests.study import parts


def study(folder: str = "study", evaluator: str = "cost", objectives: Sequence[str] = ("params:min", "macs:min")) -> Study:
    """A small study, open for reading."""
    plan, space = parts.plan(evaluator, 8, objectives), parts.Grid()
    with parts.walking(), created(folder, plan, {}) as made:
        search_in(made, space, made_strategy(plan, space), Hands(0))
    return Study(folder)


@case("A0822")
def another_study(_: Any) -> Any:
    study()
    with parts.walking(), resumed("study", parts.plan(budget=8, seed=5, strategy="walk(batch = 2)", limits=("params <= 30M",), library="other")):
        pass


@case("A0823")
def two_processes(monkeypatch: Any) -> Any:
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "atlas", "6.1", "1", "x86_64")))
    plan = study().plan
    with parts.walking(), resumed("study", plan), resumed("study", plan):
        pass


@case("A0824")
def damaged(_: Any) -> Any:
    folder = study().folder
    write(os.path.join(folder, "study.json"), '{"format": 1, "spec": "net.arch"')
    return Study(folder)


@case("A0825")
@parts.walking()
def full(monkeypatch: Any) -> Any:
    """SQLite's own limit stands for the disk's."""
    plan, space = parts.plan(budget=200), parts.Grid()
    with created("study", plan, {}) as made:
        pages = made.store.db.execute("PRAGMA page_count").fetchone()[0]
        made.store.db.execute(f"PRAGMA max_page_count = {pages + 2}")
        search_in(made, space, made_strategy(plan, space), Hands(0))


@case("A0827")
def no_such_objective(_: Any) -> Any:
    return study().objective("accuracy")


@case("A0828")
def nothing_succeeded(_: Any) -> Any:
    raise study(evaluator='function(target = "tests.study.parts:starved")', objectives=("loss:min",)).fruitless()


@case("A0829")
def not_started(_: Any) -> Any:
    from archdsl.study.engine import Limits
    from archdsl.study.measure import Workplace
    from archdsl.study.pool import Pool

    pool = Pool(Workplace("tests.study.parts:crashing_space", ".", "cost", ("params:min",), os.getcwd(), tuple(sys.path)), 1, Limits(), "workers")
    try:
        return pool.wait(500)
    finally:
        pool.close()


@case("A0830")
def without_ray(monkeypatch: Any) -> Any:
    from archdsl.study.cluster import Cluster
    from archdsl.study.engine import Limits
    from archdsl.study.measure import Workplace

    monkeypatch.setitem(sys.modules, "ray", None)
    return Cluster(Workplace("tests.study.parts:space_in", ".", "cost", ("params:min",), "."), 1, Limits())


@case("A0831")
def without_moocore(monkeypatch: Any) -> Any:
    from archdsl.study.shown import compared

    monkeypatch.setitem(sys.modules, "moocore", None)
    return compared([study("a"), study("b")])


@case("A0832")
def no_such_kind(_: Any) -> Any:
    from archdsl.study.export import write_export

    return write_export(study(), "trials.xlsx")


@case("A0833")
def other_objectives(_: Any) -> Any:
    from archdsl.study.shown import compared

    return compared([study("a"), study("b", objectives=("params:min",))])
