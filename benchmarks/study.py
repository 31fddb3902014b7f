"""Studies on disk: `python benchmarks/study.py [--markdown FILE] [--trials N]`.

How many trials a second become durable, beside Optuna's storage in SQLite, and how soon a study of a million trials is open and shows its front.
A record is a proposal of 24 layers with 3 knobs each, with the state of the strategy, and its result with three objectives: one commit a round.
"""
from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from archdsl.search.model import Objective
from archdsl.study.plan import Plan, write_plan
from archdsl.study.store import Entry, Result, Store
from benchmarks.tables import Table, ms, show

ROOT = Path(__file__).resolve().parents[1]
GOALS = (Objective("params"), Objective("macs"), Objective("loss"))
KNOBS = {f"layers.{i}.{name}": values for i in range(24) for name, values in (
    ("mixer", ("attention", "mamba2", "gla")), ("heads", (4, 8, 16)), ("hidden", tuple(range(256, 4097, 256))))}
REPEATS = 3
TRIALS = int(sys.argv[sys.argv.index("--trials") + 1]) if "--trials" in sys.argv else 1_000_000


def entry(number: int, rng: random.Random) -> Entry:
    return Entry(number, f"{rng.getrandbits(128):032x}", {name: rng.choice(values) for name, values in KNOBS.items()})


def result(number: int, rng: random.Random) -> Result:
    return Result(number, {"params": rng.randrange(10**9), "macs": rng.randrange(10**12), "loss": rng.random()}, seconds=0.1)


def ours(folder: Path, trials: int, together: int) -> float:
    """Trials a second, proposed and finished in commits of so many."""
    folder.mkdir()
    rng = random.Random(0)
    store = Store(folder, GOALS, write=True, create=True)
    state = [rng.getrandbits(32) for _ in range(625)]  # as large as that of a generator
    rounds = [([entry(n, rng) for n in range(at, at + together)], [result(n, rng) for n in range(at, at + together)])
              for at in range(0, trials, together)]
    start = perf_counter()
    before: list[int] = []
    for entries, results in rounds:
        store.stage(entries, state, before)
        store.finish(results)
        before = [e.number for e in entries]
    spent = perf_counter() - start
    assert store.finished == trials
    store.close()
    return trials / spent


def optuna(folder: Path, trials: int) -> float:
    """The same of Optuna: ask, with all 72 distributions, and tell."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{folder / 'optuna.db'}", directions=["minimize"] * len(GOALS),
                                sampler=optuna.samplers.RandomSampler(seed=0))
    space: dict[str, Any] = {name: optuna.distributions.CategoricalDistribution(values) for name, values in KNOBS.items()}
    start = perf_counter()
    for n in range(trials):
        study.tell(study.ask(space), [n, n, 0.5])
    return trials / (perf_counter() - start)


def records(folder: Path) -> Table:
    found: dict[str, list[float]] = {}
    theirs = "Optuna, RDBStorage on SQLite"
    runs = {
        "archdsl, 100 trials a commit": lambda f: ours(f, 4000, 100),
        "archdsl, 16 trials a commit": lambda f: ours(f, 1600, 16),
        "archdsl, a commit for each trial": lambda f: ours(f, 200, 1),
        theirs: lambda f: optuna(f, 10),
    }
    for repeat in range(REPEATS):  # in turns: the machine's load changes
        for name, run in runs.items():
            found.setdefault(name, []).append(run(folder / f"{repeat} {name}"))
    middle = {name: statistics.median(v) for name, v in found.items()}
    rows = [(name, f"{middle[name]:,.1f}", f"{min(v):,.1f} – {max(v):,.1f}", f"{middle[name] / middle[theirs]:,.0f} ×") for name, v in found.items()]
    note = f"Trials a second, proposed and finished, on disk (fsync) before they count; 72 knobs, 3 objectives; medians of {REPEATS}."
    return Table("Durable records", note, ("", "trials/s", "from – to", "of Optuna's"), rows)


def large(folder: Path) -> Table:
    rng = random.Random(1)
    folder.mkdir()
    store = Store(folder, GOALS, write=True, create=True)
    start = perf_counter()
    step = min(10_000, TRIALS)
    before: list[int] = []
    for at in range(0, TRIALS, step):
        numbers = range(at, at + step)
        store.propose([entry(n, rng) for n in numbers], None, before)
        store.finish([result(n, rng) for n in numbers])
        before = list(numbers)
    filled = perf_counter() - start
    store.close()
    write_plan(str(folder), Plan("net.arch", "net.arch", "Net", None, {}, GOALS, "random", "cost", 0, TRIALS))
    size = sum(f.stat().st_size for f in folder.iterdir())
    code = f"""
from time import perf_counter
from typing import Any
start = perf_counter()
from archdsl.study.study import Study
imported = perf_counter()
study = Study({str(folder)!r})
opened = perf_counter()
front = study.front()
print(imported - start, opened - imported, perf_counter() - opened, len(front))
"""
    runs = [process(["-c", code]) for _ in range(REPEATS)]
    parts = [[float(x) for x in out.split()] for out, _ in runs]
    shown = [process(["-m", "archdsl.cli.main", "study", "show", str(folder)])[1] for _ in range(REPEATS)]
    imported, opened, front, points = (statistics.median(p) for p in zip(*parts))
    rows = [("importing archdsl.study", ms(imported)), ("opening the study", ms(opened)), (f"reading its front of {points:.0f} points", ms(front)),
            ("`archdsl study show`, the whole command", ms(statistics.median(shown)))]
    note = f"Milliseconds, medians of {REPEATS} fresh processes; {size / 1e6:,.0f} MB, written in {filled:,.0f} s."
    return Table(f"A study of {TRIALS:,} trials", note, ("", "ms"), rows)


def process(arguments: list[str]) -> tuple[str, float]:
    """What a fresh Python prints, and its wall seconds."""
    start = perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        show([records(Path(folder)), large(Path(folder) / "large")])


if __name__ == "__main__":
    main()
