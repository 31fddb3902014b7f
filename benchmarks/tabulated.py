"""Search and proxies on our own tabulated benchmark (benchmarks/nas_bench): what a strategy would have found, without training anything.

    python benchmarks/tabulated.py [--seeds 21] [--candidates 384] [--jobs 2] [--table FILE] [--markdown FILE]
"""
from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from scipy.stats import kendalltau, rankdata

from archdsl.search.evaluators.proxy import Proxies
from archdsl.search.model import Objective, Trial
from archdsl.search.proxies.registry import PROXIES
from archdsl.search.registry import STRATEGIES
from archdsl.search.space import SearchSpace
from archdsl.tasks import parse
from archdsl.tasks.model import IGNORE
from benchmarks.nas_bench.run import TASKS
from benchmarks.nas_bench.table import INHERITED, TABLE, Table, load, numbers, space
from benchmarks.tables import Table as Shown
from benchmarks.tables import show

OWN = ("random", "evolution(population = 16, sample = 4, batch = 4)", "local(starts = 8, batch = 4)", "tpe(first = 12)",
       "predictor(round = 4, first = 4, batch = 4)")
BINS = 4
FAR = 4
"""The state is measured at so many times the task's length too, where what grows with the context outweighs what does not."""


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
    """Each proxy that says something about the space, the number of parameters, multiplications and the bytes kept behind the task's length and
    behind `FAR` times that, of the chosen candidates. Of proxies, more is better."""
    made = space().model(space().at(0))
    known = {name: rule for name, rule in PROXIES.own().items() if rule.unfit(made) is None}
    evaluate = Proxies(",".join(known), task=TASKS[task][0])
    evaluate.setup(cast(SearchSpace, Sized(TASKS[task][1])), ())
    length = evaluate.task.sizes["T"]
    found: dict[str, list[float]] = {}
    for number in chosen:
        values = evaluate(space().at(number), seed=0, fidelity=1.0)
        own = dict(space().at(number))
        states = {f"state_bytes{name}": space().spec.cost(task, {"T": times * length}, form="extend", **own).state_bytes
                  for name, times in (("", 1), (f", {FAR} T", FAR))}
        values = {**values, "macs": space().spec.cost(task, None, **own).macs, **states}
        for name, value in values.items():
            found.setdefault(name, []).append(-value if name in known and known[name].sought == "min" else value)
    return found


def measured_by(jobs: int, tasks: Sequence[str], chosen: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """`measured` of each task by so many processes."""
    if jobs == 1:
        return {task: measured(task, chosen) for task in tasks}
    parts = [chosen[i::jobs] for i in range(jobs)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        asked = {task: [pool.submit(_alone, task, part) for part in parts] for task in tasks}
        results = {task: [f.result() for f in found] for task, found in asked.items()}
    return {task: {name: [found[i % jobs][name][i // jobs] for i in range(len(chosen))] for name in found[0]} for task, found in results.items()}


def _alone(task: str, chosen: Sequence[int]) -> dict[str, list[float]]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return measured(task, chosen)


def recall(task: str, batches: int = 4) -> float:
    """How much of a task is recall: the share of what is asked for that stood behind the last occurrence of the same token in the context, less the
    share that its most frequent successor in other data gives, 0 at least."""
    found = parse(TASKS[task][0])

    def asked(first: int) -> list[tuple[list[int], int]]:
        rows = []
        for i in range(first, first + batches):
            batch = found.batch("train", i, 64)
            for tokens, targets in zip(batch[found.inputs[0].name].tolist(), batch["targets"].tolist()):
                rows += [(tokens[:t + 1], target) for t, target in enumerate(targets) if target != IGNORE]
        return rows

    behind: dict[int, Counter[int]] = {}
    for context, target in asked(0):
        behind.setdefault(context[-1], Counter())[target] += 1
    rows = asked(batches)
    looked_up = sum(target in context[_last(context):][1:2] for context, target in rows)
    frequent = sum(context[-1] in behind and behind[context[-1]].most_common(1)[0][0] == target for context, target in rows)
    return max(looked_up - frequent, 0) / len(rows)


def _last(context: Sequence[int]) -> int:
    """The place of the last occurrence of the last token before it; its own where there is none."""
    return next((i for i in range(len(context) - 2, -1, -1) if context[i] == context[-1]), len(context) - 1)


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


def proxies(table: Table, count: int, jobs: int) -> Shown:
    """Combinations are chosen on a random half of the candidates by one seed's losses, and all is told of the other half by the mean of the seeds."""
    every = [n for n, _ in table.candidates()]
    chosen = every if count >= len(every) else sorted(Random(1).sample(every, count))
    half = set(Random(0).sample(range(len(chosen)), len(chosen) // 2))
    there, here = sorted(half), [i for i in range(len(chosen)) if i not in half]
    told, columns = measured_by(jobs, table.tasks, chosen), {}
    parts = {t: [{n: [v[i] for i in at] for n, v in told[t].items()} for at in (there, here)] for t in table.tasks}
    first = {t: [-table.query(chosen[i], t, 0)["loss"] for i in there] for t in table.tasks}
    best = {t: max((c for k in (1, 2, 3) for c in combinations(told[t], k)), key=lambda c, t=t: tau(joined(parts[t][0], c), first[t]))
            for t in table.tasks}
    need = {t: recall(t) for t in table.tasks}
    for task in table.tasks:
        loss = losses(table, task)
        target, found = [-loss[chosen[i]] for i in here], dict(parts[task][1])
        kept = rankdata(found[f"state_bytes, {FAR} T"])
        rows = {**found, "declared: params + recall × state": [a + need[task] * b for a, b in zip(rankdata(found["params"]), kept)],
                "ranks, chosen on the first half": joined(found, best[task])}
        for other in (t for t in table.tasks if t != task):
            rows[f"ranks, chosen on {'the other task' if len(table.tasks) == 2 else other}"] = joined(found, best[other])
        for name, values in rows.items():
            columns.setdefault(name, []).extend((f"{tau(values, target):.2f}", f"{within_bins(values, target, found['params']):.2f}"))
    note = (f"Kendall's tau with the mean loss, of {len(here)} candidates, half of {len(chosen)}; batches of 16 of the task; bins: within "
            f"{BINS} bins of about one number of parameters. Declared: the rank by params and that by the state, weighted by how much of the task is "
            f"recall ({', '.join(f'{v:.2f} of {t}' for t, v in need.items())}). Chosen: the sum of up to three figures' ranks, those with the "
            "highest tau on the other half by one seed: " + "; ".join(f"on {task} {', '.join(names)}" for task, names in best.items()) + ".")
    return Shown("Before training", note, ("proxy", *(f"{t}{b}" for t in table.tasks for b in ("", ", bins"))),
                 [(name, *cells) for name, cells in columns.items()])


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--seeds", type=int, default=21)
    ask.add_argument("--candidates", type=int, default=384, help="of which proxies are measured")
    ask.add_argument("--jobs", type=int, default=2, help="processes that measure them")
    ask.add_argument("--only", choices=("strategies", "supernets", "proxies"), nargs="*")
    ask.add_argument("--table", type=Path, default=TABLE)
    ask.add_argument("--inherited", type=Path, default=INHERITED)
    ask.add_argument("--markdown")
    args = ask.parse_args()
    table = load(args.table)
    tables = {"strategies": lambda: strategies(table, args.seeds), "supernets": lambda: inherited(table, args.inherited),
              "proxies": lambda: proxies(table, args.candidates, args.jobs)}
    show([made() for name, made in tables.items() if name in (args.only or tables)])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
