"""Strategies of search: fronts without training beside those of peers, then the time of exact assignment.

    python benchmarks/strategies.py [--budget 600 | --seconds 180] [--seeds 5] [--jobs N] [--only nsga2,pymoo] [--markdown FILE]
    python benchmarks/strategies.py --seconds 180 --only nsga2 --seed 3 --kept fronts.jsonl    # one search, its front kept as a line
    python benchmarks/strategies.py --show fronts.jsonl                                        # the table of all that was kept

A front of three objectives without training over a space of more than 10²⁰ candidates: hypervolume of our strategies, of pymoo's NSGA-II on the same
decisions as a vector of integers, and of Optuna's NSGA-II with the same conditional decisions, all with the same population and as many evaluations,
or with as much time: `--seconds` of processor time each. `--jobs` searches run side by side; `--only`: those with one of these words in their name;
`--seed`: this seed alone. With `--kept` each search is added to a file as soon as it is done, and there is no table: many processes may add to one
file, so that each search has a core of a large machine.
"""
from __future__ import annotations

import json
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import moocore
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from archdsl.records import fields, record
from archdsl.search.model import Candidate, Objective, Trial
from archdsl.search.registry import STRATEGIES
from archdsl.search.strategies.assignment import assign
from benchmarks.run import machine, versions
from benchmarks.tables import Table, show

LAYERS, POPULATION = 24, 100
ARMS: dict[str, dict[str, tuple[int, ...]]] = {"attention": {"heads": (2, 4, 8), "kv": (1, 2)}, "mlp": {"hidden": (64, 128, 192, 256)}, "nothing": {}}
SPEC = f"""use std.channel {{ MLP }}
use std.mixer {{ Attention }}
use std.norm {{ RMSNorm }}
use std.residual {{ Pre }}

model Net(d: int = 64)(x: [B = 1, T = 128, d]) -> y: [B, T, d] {{
  layers: for i in range({LAYERS}) {{
    choose mixer {{
      attention(heads: int = 4 in {{2, 4, 8}}, kv: int = 2 in {{1, 2}}) => Attention(heads, kv_heads = kv)
      mlp(hidden: int = 128 in {{64, 128, 192, 256}}) => MLP(hidden)
      nothing => identity
    }} = attention
    x = Pre(RMSNorm(), mixer)(x) as block
  }}
  return x
}}
"""
GOALS = (Objective("params"), Objective("macs(T=128)"), Objective("mixing", "max"))


def argument(name: str, default: int) -> int:
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


def word(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else ""


JOBS, SECONDS = argument("--jobs", 1), argument("--seconds", 0)
SEEDS = [argument("--seed", 0)] if "--seed" in sys.argv else list(range(argument("--seeds", 5)))
BUDGET = argument("--budget", 10**9 if SECONDS else 600)
ONLY = word("--only").split(",")


def mixing(values: Mapping[str, Any]) -> float:
    """A made-up quality, without training: layers of diminishing worth by depth, each worth more behind one of another kind."""
    total, before = 0.0, ""
    for i in range(LAYERS):
        kind = values[f"layers.{i}.mixer"]
        if kind == "attention":
            worth = math.log2(values[f"layers.{i}.mixer.heads"]) + 0.5 * values[f"layers.{i}.mixer.kv"]
        else:
            worth = math.log2(values[f"layers.{i}.mixer.hidden"]) - 4 if kind == "mlp" else 0.0
        total += worth * (1.5 if kind != before else 0.8) * (1 + math.sin(i) ** 2)
        before = kind
    return total


class Over(Exception):
    """The time of a search is used up."""


class Bench:
    """The space and what is measured. `points`: the scores of everything evaluated, less is better."""

    def __init__(self) -> None:
        self.space: Any = archdsl.loads(SPEC).space()
        self.points: list[tuple[float, ...]] = []
        self.end = process_time() + SECONDS

    def values(self, pick: Callable[[str, int], int]) -> dict[str, Any]:
        """Settings from a position for each active decision."""
        out: dict[str, Any] = {}
        for i in range(LAYERS):
            address = f"layers.{i}.mixer"
            out[address] = kind = list(ARMS)[pick(address, len(ARMS))]
            out.update({f"{address}.{n}": domain[pick(f"{address}.{kind}.{n}", len(domain))] for n, domain in ARMS[kind].items()})
        return out

    def measure(self, candidate: Candidate) -> dict[str, float]:
        if SECONDS and process_time() > self.end:
            raise Over
        found = {**self.space.costs(candidate, [g.name for g in GOALS[:2]]), "mixing": mixing(candidate)}
        self.points.append(tuple(g.sign * found[g.name] for g in GOALS))
        return found

    def scores(self, pick: Callable[[str, int], int]) -> tuple[float, ...]:
        self.measure(self.space.candidate(self.values(pick)))
        return self.points[-1]


def ours(text: str) -> Callable[[Bench, int], None]:
    def run(bench: Bench, seed: int) -> None:
        rule, options = STRATEGIES.parse(text)
        strategy = rule.body(**options)
        strategy.setup(bench.space, GOALS, seed, BUDGET)
        number = 0
        while number < BUDGET:
            proposals = strategy.propose(min(strategy.batch, BUDGET - number))
            trials = [Trial(number + i, p.candidate, values=bench.measure(p.candidate), status="done") for i, p in enumerate(proposals)]
            strategy.feedback(trials)
            number += len(trials)

    return run


def pymoo(bench: Bench, seed: int) -> None:
    """Its NSGA-II as its documentation configures it for integers: all decisions of all arms, active or not, in one vector."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    sizes: dict[str, int] = {}
    for i in range(LAYERS):
        sizes[f"layers.{i}.mixer"] = len(ARMS)
        sizes.update({f"layers.{i}.mixer.{kind}.{n}": len(domain) for kind, inner in ARMS.items() for n, domain in inner.items()})
    at = {name: i for i, name in enumerate(sizes)}

    class Flat(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=len(sizes), n_obj=len(GOALS), xl=0, xu=np.array(list(sizes.values())) - 1, vtype=int)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = bench.scores(lambda name, count: int(x[at[name]]))

    algorithm = NSGA2(pop_size=POPULATION, sampling=IntegerRandomSampling(), crossover=SBX(prob=1.0, eta=3, vtype=float, repair=RoundingRepair()),
                      mutation=PM(prob=1.0, eta=3, vtype=float, repair=RoundingRepair()), eliminate_duplicates=True)
    minimize(Flat(), algorithm, ("n_eval", BUDGET), seed=seed)
    del bench.points[BUDGET:]


def optuna(bench: Bench, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    directions: list[Any] = ["minimize"] * len(GOALS)
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed))
    study.optimize(lambda trial: bench.scores(lambda name, count: trial.suggest_categorical(name, range(count))), n_trials=BUDGET)


OWN = (f"nsga2(population = {POPULATION})", f"nsga3(population = {POPULATION})", "evolution", "predictor", "random")
RUNS = {f"archdsl {text}": ours(text) for text in OWN} | {"pymoo NSGA-II": pymoo, "Optuna NSGA-II": optuna}


@record(frozen=True)
class Found:
    """What is kept of one search. `front`: its points that no other dominates; `low`, `high`: the box of all of them; `count`: how many there are."""

    name: str
    seed: int
    limit: str
    front: list[list[float]]
    low: list[float]
    high: list[float]
    count: int
    spent: float
    where: str


def search(name: str, seed: int) -> Found:
    warnings.simplefilter("ignore")
    bench, start = Bench(), process_time()
    with suppress(Over):
        RUNS[name](bench, seed)
    spent, points = process_time() - start, np.array(bench.points)
    limit = f"{SECONDS} s of one core" if SECONDS else f"{BUDGET:,} evaluations"
    front, low, high = moocore.filter_dominated(points).tolist(), points.min(0).tolist(), points.max(0).tolist()
    return Found(name, seed, limit, front, low, high, len(points), spent, f"{machine()}, {versions()}")


def searches() -> Iterator[Found]:
    """The searches that are asked for, each when it is done."""
    with ProcessPoolExecutor(JOBS, get_context("spawn")) as pool:
        for task in as_completed([pool.submit(search, name, seed) for seed in SEEDS for name in RUNS if any(w in name for w in ONLY)]):
            yield task.result()


def keep(found: Found, path: str) -> None:
    """Adds a line, in one piece."""
    line = json.dumps({f.name: getattr(found, f.name) for f in fields(Found)})
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
    print(f"{found.name}, seed {found.seed}: {found.count:,} evaluations in {found.spent:.1f} CPU s", flush=True)


def kept(path: str) -> list[Found]:
    """All that a file holds; of two searches of a seed the later one."""
    lines = [Found(**json.loads(line)) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return list({(f.name, f.seed): f for f in lines}.values())


def fronts(searched: list[Found]) -> Table:
    if len(limits := {f.limit for f in searched}) > 1:
        raise SystemExit(f"searches of different lengths are not compared: {', '.join(sorted(limits))}")
    low, high = np.min([f.low for f in searched], 0), np.max([f.high for f in searched], 0)
    rows = []
    for name in (n for n in RUNS if any(f.name == n for f in searched)):
        own = [f for f in searched if f.name == name]
        v = [float(moocore.hypervolume((np.array(f.front) - low) / (high - low), ref=[1.0] * len(GOALS))) for f in own]
        count, spent = statistics.median(f.count for f in own), statistics.median(f.spent for f in own)
        rows.append((name, f"{statistics.median(v):.4f}", f"{min(v):.4f} – {max(v):.4f}", f"{len(own)}", f"{count:,.0f}", f"{spent:.1f}"))
    elsewhere = {f.where for f in searched} - {f"{machine()}, {versions()}"}
    note = (f"Hypervolume of params, macs and a made-up quality over {Bench().space.size:.1e} candidates after {searched[0].limit}, in the box of all"
            f" that was seen; population {POPULATION}; evaluations and CPU seconds of a search: medians."
            + "".join(f" Measured on {w}." for w in sorted(elsewhere)))
    return Table("Fronts without training", note, ("", "median", "from – to", "seeds", "evaluations", "CPU s"), rows)


def instance(seed: int, kind: str) -> tuple[Any, Any, list[float]]:
    """96 layers × 50 options × 4 budgets, at 40% of the way from the least to the most."""
    rng = np.random.default_rng(seed)
    costs = rng.random((4, 96, 50))
    scores = rng.random((96, 50))
    if kind == "costs and scores in conflict":
        costs = np.sort(costs, axis=2) * rng.uniform(0.5, 2, (4, 96, 1))
        scores = -np.sqrt(costs.mean(0)) + 0.05 * scores
    least, most = costs.min(2).sum(1), costs.max(2).sum(1)
    return scores, costs, (least + 0.4 * (most - least)).tolist()


def assignments() -> Table:
    rows = []
    for kind in ("independent", "costs and scores in conflict"):
        walls, cpus, gaps = [], [], []
        for seed in SEEDS:
            wall, cpu = perf_counter(), process_time()
            found = assign(*instance(seed, kind), seconds=5.0)
            walls.append(perf_counter() - wall)
            cpus.append(process_time() - cpu)
            assert found is not None
            gaps.append(0.0 if found.optimal else (found.score - found.bound) / abs(found.score))
        rows.append((kind, f"{sum(g == 0 for g in gaps)} of {len(SEEDS)}", f"{statistics.median(walls):.1f}", f"{max(cpus):.1f}", f"{max(gaps):.1e}"))
    note = f"96 layers × 50 options × 4 budgets, {len(SEEDS)} random instances of each kind, at most 5 s each, gap 0 asked for."
    return Table("Exact assignment", note, ("", "proven optimal", "wall s, median", "CPU s, most", "largest gap left"), rows)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if "--kept" in sys.argv:
        for one in searches():
            keep(one, word("--kept"))
    else:
        show([fronts(kept(word("--show")) if "--show" in sys.argv else list(searches())), assignments()])
