"""What is told of faults planted in shipped specs, alone and three in a file.

    python benchmarks/faults.py [--seeds 1,2,3] [--count 400] [--triples 100] [--workers 2]

Each fault takes about a second of CPU.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, show
from tests.faults.judge import Verdict, judge
from tests.faults.planter import KINDS, faults
from tests.faults.several import told, triples

RATES = {"flagged": "flagged", "span": "on the faulty token", "fix": "right fix offered", "restored": "sound text restored", "once": "one message",
         "mended": "mended by check --fix"}
LIMITS = {"flagged": 1.0, "span": 0.98, "fix": 0.9, "once": 1.0}


def share(verdicts: list[Verdict], what: str) -> float:
    return sum(getattr(v, what) for v in verdicts) / len(verdicts)


def row(name: str, verdicts: list[Verdict]) -> tuple[str, ...]:
    return name, f"{len(verdicts):,}", *(f"{100 * share(verdicts, what):.1f} %" for what in RATES)


def single(seeds: Iterable[int], count: int, pool: Executor) -> Table:
    """Rates by kind and by seed."""
    by_seed = {seed: list(pool.map(judge, faults(seed, count), chunksize=4)) for seed in seeds}
    every = [v for verdicts in by_seed.values() for v in verdicts]
    for v in (v for v in every if not v.good):
        missed = [name for what, name in RATES.items() if what in LIMITS and not getattr(v, what)]
        print(f"{v.fault.kind}, {v.fault.style}, {v.fault.name}, {v.fault.edits}: not {', '.join(missed)}", file=sys.stderr)
    rows = [row(kind, of_kind) for kind in KINDS if (of_kind := [v for v in every if v.fault.kind == kind])]
    rows += [row(f"seed {seed}", verdicts) for seed, verdicts in by_seed.items()]
    rows.append(row("all", every))
    rows.append(("limit", "", *(f"{100 * LIMITS[what]:.0f} %" if what in LIMITS else "" for what in RATES)))
    return Table("One fault in a file", "Faults are drawn by seed, each kind in turn, each in a spec drawn at random.",
                 ("", "faults", *RATES.values()), rows)


def several(seed: int, count: int, pool: Executor) -> Table:
    """Of faults of different kinds in different declarations of one file, those that one run tells."""
    results = list(pool.map(told, *zip(*triples(seed, count)), chunksize=2))
    hits = [hit for each, _ in results for hit in each]
    rest = sum(len(others) for _, others in results)
    rows = [(f"{len(results):,}", f"{len(hits):,}", f"{100 * sum(hits) / len(hits):.1f} %", str(rest)), ("", "limit", "95 %", "0")]
    return Table("Three faults in a file", "Of different kinds, in different declarations; each is to be told once, where it is told alone.",
                 ("files", "faults", "told in one run", "messages beside"), rows)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--seeds", default="1,2,3")
    ask.add_argument("--count", type=int, default=400)
    ask.add_argument("--triples", type=int, default=100)
    ask.add_argument("--workers", type=int, default=2)
    ask.add_argument("--markdown")
    args = ask.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    with ProcessPoolExecutor(args.workers) as pool:
        show([single(seeds, args.count, pool), several(seeds[0], args.triples, pool)])


if __name__ == "__main__":
    main()
