"""Search and proxies on our own tabulated benchmark (benchmarks/nas_bench): what a strategy would have found, without training anything.

    python benchmarks/tabulated.py [--seeds 21] [--candidates 96] [--table FILE] [--markdown FILE]
"""
from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scipy.stats import kendalltau, rankdata

from archdsl.search.evaluators.proxy import Proxies
from archdsl.search.model import Objective, Trial
from archdsl.search.proxies.registry import PROXIES
from archdsl.search.registry import STRATEGIES
from archdsl.search.space import SearchSpace
from benchmarks.nas_bench.run import TASKS
from benchmarks.nas_bench.table import INHERITED, TABLE, Table, load, numbers, space
from benchmarks.tables import Table as Shown
from benchmarks.tables import show

OWN = ("random", "evolution(population = 16, sample = 4, batch = 4)", "local(starts = 8, batch = 4)", "tpe(first = 12)",
       "predictor(round = 4, first = 4, batch = 4)")
BINS = 4


def losses(table: Table, task: str) -> dict[int, float]:
    """The mean test loss of each candidate in the table."""
    return {n: table.query(n, task)["loss"] for n, _ in table.candidates()}


# ---------------------------------------------------------------- strategies
def evaluations(text: str, loss: Mapping[int, float], seed: int) -> int:
    """How many evaluations until the first of the best 1%; a candidate asked for again counts once."""
    wanted = set(sorted(loss, key=loss.__getitem__)[:max(1, round(len(loss) / 100))])
    rule, options = STRATEGIES.parse(text)
    strategy = rule.body(**options)
    strategy.setup(space(), (Objective("loss"),), seed, len(loss))
    seen: set[int] = set()
    asked = 0
    while asked < 20 * len(loss):
        trials = []
        for p in strategy.propose(min(strategy.batch, 4)):
            number = numbers()[p.candidate.key]
            seen.add(number)
            if number in wanted:
                return len(seen)
            trials.append(Trial(asked + len(trials), p.candidate, values={"loss": loss[number]}, status="done"))
        if not trials:
            break
        asked += len(trials)
        strategy.feedback(trials)
    return len(loss)


def strategies(table: Table, seeds: int) -> Shown:
    rows = []
    for task in table.tasks:
        loss, first = losses(table, task), 0.0
        for text in OWN:
            found = sorted(evaluations(text, loss, seed) for seed in range(seeds))
            middle = statistics.median(found)
            first = first or middle
            quarters = statistics.quantiles(found, n=4)
            rows.append((task, text, f"{middle:.0f}", f"{quarters[0]:.0f} – {quarters[2]:.0f}", f"{first / middle:.1f} ×"))
    note = (f"Evaluations until one of the best 1% of {len(table)} candidates by the mean loss of its seeds; "
            f"{seeds} searches.")
    return Shown("Reaching the best 1%", note, ("task", "strategy", "median", "quartiles", "fewer than random"), rows)


# ---------------------------------------------------------------- proxies
def measured(task: str, chosen: Sequence[int]) -> dict[str, list[float]]:
    """Each proxy that says something about the space, the number of parameters, multiplications and the bytes kept behind the task's length, of the
    chosen candidates. Of proxies, more is better."""
    made = space().model(space().at(0))
    known = {name: rule for name, rule in PROXIES.own().items() if rule.unfit(made) is None}
    evaluate = Proxies(",".join(known), task=TASKS[task][0])
    evaluate.setup(cast(SearchSpace, Sized(TASKS[task][1])), ())
    found: dict[str, list[float]] = {}
    for number in chosen:
        values = evaluate(space().at(number), seed=0, fidelity=1.0)
        own = dict(space().at(number))
        kept = space().spec.cost(task, {"T": evaluate.task.sizes["T"]}, form="extend", **own)
        values = {**values, "macs": space().spec.cost(task, None, **own).macs, "state_bytes": kept.state_bytes}
        for name, value in values.items():
            found.setdefault(name, []).append(-value if name in known and known[name].sought == "min" else value)
    return found


class Sized:
    """The space with the vocabulary of a task."""

    def __init__(self, vocab: int):
        self.vocab, self.variant = vocab, None

    def __getattr__(self, name: str) -> Any:
        return getattr(space(), name)

    def model(self, candidate: Any) -> Any:
        return space().spec.elaborate(knobs={**candidate, "vocab": self.vocab})

    @property
    def spec(self) -> Any:
        return self

    def build(self, variant: Any, seed: int, device: str, dtype: Any, *, form: str, knobs: dict[str, Any]) -> Any:
        return space().spec.build(variant, seed, device, dtype, form=form, knobs={**knobs, "vocab": self.vocab})


def tau(a: Sequence[float], b: Sequence[float]) -> float:
    found = float(kendalltau(a, b).statistic)
    return 0.0 if math.isnan(found) else found


def within_bins(values: Sequence[float], target: Sequence[float], params: Sequence[float]) -> float:
    """The mean of tau within bins of equal numbers of candidates of about one size."""
    order = sorted(range(len(params)), key=params.__getitem__)
    step = math.ceil(len(order) / BINS)
    bins = [order[i:i + step] for i in range(0, len(order), step)]
    return statistics.fmean(tau([values[i] for i in b], [target[i] for i in b]) for b in bins)


# ---------------------------------------------------------------- trainings that are cheaper
def inherited(table: Table, path: Path) -> Shown:
    """How well the weights of a supernet tell candidates apart (nas_bench/inherited.py); beside it a seed of the table and a quarter of it."""
    rows = []
    for task in table.tasks:
        for name, figure, numbers_, values in (*parts_of(table, task), *on_supernets(task, path)):
            own = [table.query(n, task) for n in numbers_]
            params, accuracy, target = [r["params"] for r in own], [r["accuracy"] for r in own], [-r["loss"] for r in own]
            rows.append((task, name, figure, str(len(numbers_)), f"{tau(values, target):.2f}", f"{within_bins(values, target, params):.2f}",
                         f"{tau(values, accuracy):.2f}"))
    note = (f"Kendall's tau with the mean loss of the table's seeds; bins: within {BINS} bins of about one number of parameters; at last, tau with "
            "the mean accuracy. Tuned: after so many steps of each candidate's own from the supernet's weights. A seed of the table is a part of the "
            "mean that it is held against.")
    return Shown("On a supernet's weights", note, ("task", "weights", "figure", "candidates", "tau", "bins", "by accuracy"), rows)


def on_supernets(task: str, path: Path) -> list[tuple[str, str, list[int], list[float]]]:
    """(weights, figure, candidates, values), more is better, of the supernets of a task."""
    if not path.exists():
        print(f"there are no supernets at {path}: `python benchmarks/nas_bench/inherited.py --help` tells how they are measured", file=sys.stderr)
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [row for row in json.load(file) if row["task"] == task]
    return [(f"{how}, arms {row['arms']}, {row['steps']} steps", figure, row["numbers"], [sign * v for v in values[figure]])
            for row in found for how, values in row["values"].items() for figure, sign in (("accuracy", 1), ("loss", -1))]


def parts_of(table: Table, task: str) -> list[tuple[str, str, list[int], list[float]]]:
    """The same of the first seed, whole and after a quarter of its steps."""
    first = {n: row for (n, t, seed), row in table.rows.items() if t == task and seed == 0}
    own = sorted(n for n, row in first.items() if row["curve"])
    return [("seed 0 of the table", "loss", own, [-first[n]["loss"] for n in own]),
            ("a quarter of its steps", "accuracy", own, [first[n]["curve"][0] for n in own])]


# ---------------------------------------------------------------- proxies
def joined(found: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[float]:
    """The sum of the ranks that each candidate has by some figures."""
    return [float(r) for r in sum(rankdata(found[n]) for n in names)]


def proxies(table: Table, count: int) -> Shown:
    every = [n for n, _ in table.candidates()]
    chosen = [every[i * len(every) // count] for i in range(min(count, len(every)))]
    columns: dict[str, list[str]] = {}
    told = {task: measured(task, chosen) for task in table.tasks}
    goals = {task: [-losses(table, task)[n] for n in chosen] for task in table.tasks}
    best = {task: max((c for k in (1, 2, 3) for c in combinations(told[task], k)), key=lambda c, t=task: tau(joined(told[t], c), goals[t]))
            for task in table.tasks}
    for task in table.tasks:
        target, found = goals[task], dict(told[task])
        found["ranks, chosen here"] = joined(found, best[task])
        others = [t for t in table.tasks if t != task]
        if others:
            found["ranks, chosen on the other task"] = joined(found, best[others[0]])
        for name, values in found.items():
            columns.setdefault(name, []).extend((f"{tau(values, target):.2f}", f"{within_bins(values, target, found['params']):.2f}"))
    note = (f"Kendall's tau with the mean loss, of {len(chosen)} candidates spread over the table, batches of 16 of the task; bins: within {BINS} "
            "bins of about one number of parameters. Ranks: the sum of up to three figures' ranks, those with the highest tau: "
            + "; ".join(f"on {task} {', '.join(names)}" for task, names in best.items())
            + ". Chosen here, on the same candidates, they are flattered.")
    return Shown("Before training", note, ("proxy", *(f"{t}{b}" for t in table.tasks for b in ("", ", bins"))),
                 [(name, *cells) for name, cells in columns.items()])


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--seeds", type=int, default=21)
    ask.add_argument("--candidates", type=int, default=96)
    ask.add_argument("--table", type=Path, default=TABLE)
    ask.add_argument("--inherited", type=Path, default=INHERITED)
    ask.add_argument("--markdown")
    args = ask.parse_args()
    table = load(args.table)
    show([strategies(table, args.seeds), inherited(table, args.inherited), proxies(table, args.candidates)])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
