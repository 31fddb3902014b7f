"""Trains every candidate of space.arch on two tasks with three seeds, and keeps what came of it: table.json.gz beside this file.

usage: python benchmarks/nas_bench/run.py [--part 0/8] [--device cuda] [--steps 300] [--seeds 3] [--only N] [--together 8] [-o build/nas_bench]
       python benchmarks/nas_bench/run.py --merge [-o build/nas_bench] [--table FILE]

384 candidates x 2 tasks x 3 seeds are 2,304 trainings. `--part I/N` does every N-th group of `--together` of them, which train side by side
(together.py); parts run beside each other, on one device or several, and all of one seed come before the next. A row is on the disk when its group is
done: the same command, or another division into parts, goes on with those that are missing. `--merge` makes the table of what there is, and says
what is missing.

All four parts on one GPU:  for i in 0 1 2 3; do python benchmarks/nas_bench/run.py --part $i/4 --device cuda & done; wait
"""
from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import sys
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import archdsl
from archdsl.tasks import parse
from archdsl.version import VERSION
from benchmarks.nas_bench.table import TABLE, space
from benchmarks.nas_bench.together import trained

TASKS = {"mqar": ("mqar(vocab = 64, length = 64, pairs = 8)", 64), "characters": ("characters(length = 64)", 256)}
"""By name: the task, and the vocabulary that it needs."""
BATCH = 64


def rows_of(folder: Path) -> dict[tuple[int, str, int], dict[str, Any]]:
    """The rows in a folder; a line that was cut off when the machine stopped is none."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[row["number"], row["task"], row["seed"]] = row
    return found


def trainings(seeds: int, only: int | None) -> Iterator[tuple[int, str, int]]:
    """All of them, seed by seed and task by task; `only`: of so many candidates, spread over the space."""
    count = space().size
    numbers = range(count) if only is None else sorted({i * count // only for i in range(only)})
    for seed in range(seeds):
        for task in TASKS:
            for number in numbers:
                yield number, task, seed


def rows(keys: list[tuple[int, str, int]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains candidates of one task and seed. One that diverges is a row with its reason, accuracy 0 and the loss of chance."""
    (name, seed), = {k[1:] for k in keys}
    text, vocab = TASKS[name]
    spec = archdsl.load(space().spec.path)
    models = [spec.build(seed=seed, device=args.device, **{**space().at(number), "vocab": vocab}) for number, _, _ in keys]
    found = trained(models, parse(text), steps=args.steps, batch=BATCH, seed=seed, device=args.device, batches=args.batches)
    made = []
    for (number, _, _), model, row in zip(keys, models, found):
        row = {"number": number, "task": name, "seed": seed, "params": sum(p.numel() for p in model.parameters()), **row}
        finite = row.pop("finite")
        made.append(row if finite else {**row, "accuracy": 0.0, "loss": round(math.log(vocab), 5), "curve": [], "failed": "it diverged"})
    return made


def groups(args: argparse.Namespace) -> Iterator[list[tuple[int, str, int]]]:
    """Those of a part, as they are trained."""
    at, of = map(int, args.part.split("/"))
    if not 0 <= at < of:
        raise SystemExit(f"--part {args.part}: parts of {of} are numbered 0 to {of - 1}")
    count = 0
    for _, own in groupby(trainings(args.seeds, args.only), key=lambda k: k[1:]):
        for group in batched(own, args.together):
            if count % of == at:
                yield group
            count += 1


def batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while group := list(islice(items, size)):
        yield group


def made(args: argparse.Namespace) -> int:
    """Does what is missing of a part; gives how many trainings that were."""
    own = list(groups(args))
    args.o.mkdir(parents=True, exist_ok=True)
    told = {"steps": args.steps, "archdsl": VERSION, "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"}
    about = args.o / "about.json"
    if about.exists() and json.loads(about.read_text())["steps"] != args.steps:
        raise SystemExit(f"{about} says that these rows were trained for other steps: give those, or another folder")
    about.write_text(json.dumps(told) + "\n")
    known, count = rows_of(args.o), 0
    path = args.o / f"rows-{args.part.replace('/', '-of-')}.jsonl"
    cut = path.exists() and not path.read_text(encoding="utf-8").endswith("\n")
    with open(path, "a", encoding="utf-8") as out:
        out.write("\n" if cut else "")  # a row does not go on behind one that was cut off
        for group in own:
            missing = [key for key in group if key not in known]
            for row in rows(missing, args) if missing else ():
                out.write(json.dumps(row) + "\n")
                print(f"{row['task']} {row['number']} seed {row['seed']}: accuracy {row['accuracy']:.3f}, {row['seconds']:.1f} s", flush=True)
                count += 1
            out.flush()
            os.fsync(out.fileno())
    return count


def merged(args: argparse.Namespace) -> int:
    """Writes the table; gives how many trainings are missing."""
    known = rows_of(args.o)
    wanted = set(trainings(args.seeds, args.only))
    data = {**json.loads((args.o / "about.json").read_text()), "rows": [known[k] for k in sorted(known)]}
    args.table.write_bytes(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 9, mtime=0))
    missing = len(wanted - known.keys())
    print(f"{args.table}: {len(known)} rows, {missing} of {len(wanted)} trainings are missing")
    return missing


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="so many candidates, spread over the space")
    parser.add_argument("--together", type=int, default=8, help="how many models train side by side")
    parser.add_argument("--batches", type=int, default=4, help="of 256 examples, for each evaluation")
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("-o", type=Path, default=Path("build/nas_bench"))
    args = parser.parse_args(argv)
    return merged(args) if args.merge else made(args)


if __name__ == "__main__":
    main()
