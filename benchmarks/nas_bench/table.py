"""The table of `run.py`, read as NAS-Bench is: what training a candidate has come to, without training it.

    table = load()
    table.query({"d": 64, "layers.0.mixer": "mamba2"}, "mqar")["accuracy"]       # the mean over seeds
    table.query(7, "characters", seed = 2)["curve"]                             # validation after each quarter of the steps

`archdsl search benchmarks/nas_bench/space.arch --evaluator benchmarks.nas_bench.table:score --objective mqar_accuracy:max …` searches it.
"""
from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import archdsl

HERE = Path(__file__).parent
SPEC, TABLE, INHERITED = HERE / "space.arch", HERE / "table.json.gz", HERE / "inherited.json.gz"
VALUES = ("accuracy", "loss", "seconds")


@cache
def space() -> Any:
    """The space, all of whose candidates are in the table."""
    return archdsl.load(str(SPEC)).space()


@cache
def numbers() -> dict[str, int]:
    """The number of each candidate by the hash of its graph."""
    return {c.key: i for i in range(space().size) if (c := space().at(i)) is not None}


class Table:
    """`steps`, `version`: how the rows were made; `rows`: (number, task, seed) -> accuracy, loss, seconds, params, curve."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.steps, self.version, self.device = data["steps"], data["archdsl"], data["device"]
        self.rows: dict[tuple[int, str, int], dict[str, Any]] = {(r["number"], r["task"], r["seed"]): r for r in data["rows"]}
        self.tasks = tuple(dict.fromkeys(task for _, task, _ in self.rows))

    def __len__(self) -> int:
        """How many candidates have a row."""
        return len({n for n, _, _ in self.rows})

    def candidates(self) -> Iterator[tuple[int, Any]]:
        """Those with a row, by number."""
        for n in sorted({n for n, _, _ in self.rows}):
            yield n, space().at(n)

    def query(self, candidate: int | Mapping[str, Any], task: str, seed: int | None = None) -> dict[str, Any]:
        """One row, or without a seed the means over those that there are. `candidate`: its number, or settings (the others at the spec's defaults).
        Raises KeyError for one that is not in the table."""
        number = candidate if isinstance(candidate, int) else numbers()[space().candidate(dict(candidate)).key]
        found = [r for (n, t, s), r in self.rows.items() if n == number and t == task and seed in (None, s)]
        if not found:
            has = f"the table has {len(self)} candidates of {', '.join(self.tasks)}"
            raise KeyError(f"no row of candidate {number}, task `{task}`, seed {seed}: {has}")
        if seed is not None:
            return found[0]
        return {"params": found[0]["params"], "seeds": len(found), **{v: statistics.fmean(r[v] for r in found) for v in VALUES}}


def load(path: str | Path = TABLE) -> Table:
    """The table in a file. Raises FileNotFoundError without one: `python benchmarks/nas_bench/run.py` says how it is made."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no table at {path}: `python benchmarks/nas_bench/run.py --help` tells how it is made")
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return Table(json.load(f))


loaded = cache(load)


def score(candidate: Mapping[str, Any], seed: int) -> dict[str, float]:
    """An evaluator: the figures of each task, of one of the seeds that the table has."""
    table, found = loaded(), {}
    number = numbers()[space().candidate(dict(candidate)).key]
    for task in table.tasks:
        seeds = sorted(s for n, t, s in table.rows if n == number and t == task)
        row = table.query(number, task, seeds[seed % len(seeds)] if seeds else None)  # none: it says so
        found.update({f"{task}_{v}": row[v] for v in VALUES}, params=row["params"])
    return found
