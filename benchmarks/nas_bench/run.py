"""Trains every candidate of space.arch on two tasks with three seeds, and keeps what came of it: table.json.gz beside this file.

usage: python benchmarks/nas_bench/run.py [--part 0/8] [--device cuda] [--steps 1000] [--seeds 3] [--only N] [-o build/nas_bench]
       python benchmarks/nas_bench/run.py --merge [-o build/nas_bench] [--table FILE]

384 candidates x 2 tasks x 3 seeds are 2,304 trainings. `--part I/N` does every N-th of them; parts run side by side, on one device or several, and
all of one seed come before the next. Each row is on the disk when it is done: the same command, or another division into parts, goes on with those
that are missing. `--merge` makes the table of what there is, and says what is missing.

All eight parts on one GPU:  for i in 0 1 2 3 4 5 6 7; do python benchmarks/nas_bench/run.py --part $i/8 --device cuda & done; wait
"""
from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import archdsl
from archdsl.tasks import parse
from archdsl.version import VERSION
from benchmarks.nas_bench.table import TABLE, space

TASKS = {"mqar": ("mqar(vocab = 64, length = 64, pairs = 8)", 64), "characters": ("characters(length = 64)", 256)}
"""By name: the task, and the vocabulary that it needs."""
BATCH, QUARTERS = 64, 4


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
    """All of them, seed by seed; `only`: of so many candidates, spread over the space."""
    count = space().size
    numbers = range(count) if only is None else sorted({i * count // only for i in range(only)})
    for seed in range(seeds):
        for number in numbers:
            for task in TASKS:
                yield number, task, seed


class Curve:
    """A hook: accuracy on the validation split after each quarter of the steps."""

    def __init__(self, task: Any, steps: int, batches: int) -> None:
        self.task, self.steps, self.batches, self.points = task, steps, batches, []

    def __call__(self, run: Any) -> None:
        if run.step * QUARTERS // self.steps > (run.step - 1) * QUARTERS // self.steps:
            self.points.append(round(self.task.evaluate(run.model, "valid", self.batches, BATCH)["accuracy"], 5))


def trained(number: int, name: str, seed: int, steps: int, device: str, batches: int) -> dict[str, Any]:
    """One row. A training that diverges is a row with its reason, accuracy 0 and the loss of chance."""
    text, vocab = TASKS[name]
    task, spec = parse(text), archdsl.load(space().spec.path)
    model = spec.build(seed=seed, device=device, **{**space().at(number), "vocab": vocab})
    curve, start, why = Curve(task, steps, batches), time.perf_counter(), ""
    try:
        archdsl.fit(model, task, task.batches("train", BATCH, seed, device), steps=steps, seed=seed, lr=3e-3, schedule="cosine",
                    warmup=max(1, steps // 10), clip=1.0, weight_decay=0.1, hooks=[curve])
        found = task.evaluate(model, "test", batches, BATCH)
    except archdsl.ArchError as fault:
        if fault.diagnostics[0].code != "A0597":
            raise
        why, found = fault.diagnostics[0].message, {"accuracy": 0.0, "loss": float(torch.tensor(float(vocab)).log())}
    row = {"number": number, "task": name, "seed": seed, "accuracy": round(found["accuracy"], 5), "loss": round(found["loss"], 5),
           "params": sum(p.numel() for p in model.parameters()), "seconds": round(time.perf_counter() - start, 3), "curve": curve.points}
    return {**row, "failed": why} if why else row


def made(args: argparse.Namespace) -> int:
    """Does what is missing of a part; gives how many trainings that were."""
    at, of = map(int, args.part.split("/"))
    if not 0 <= at < of:
        raise SystemExit(f"--part {args.part}: parts of {of} are numbered 0 to {of - 1}")
    args.o.mkdir(parents=True, exist_ok=True)
    told = {"steps": args.steps, "archdsl": VERSION, "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"}
    about = args.o / "about.json"
    if about.exists() and json.loads(about.read_text())["steps"] != args.steps:
        raise SystemExit(f"{about} says that these rows were trained for other steps: give those, or another folder")
    about.write_text(json.dumps(told) + "\n")
    known, count = rows_of(args.o), 0
    path = args.o / f"rows-{at}-of-{of}.jsonl"
    cut = path.exists() and not path.read_text(encoding="utf-8").endswith("\n")
    with open(path, "a", encoding="utf-8") as out:
        out.write("\n" if cut else "")  # a row does not go on behind one that was cut off
        for i, key in enumerate(trainings(args.seeds, args.only)):
            if i % of != at or key in known:
                continue
            row = trained(*key, args.steps, args.device, args.batches)
            out.write(json.dumps(row) + "\n")
            out.flush()
            os.fsync(out.fileno())
            count += 1
            print(f"{key[1]} {key[0]} seed {key[2]}: accuracy {row['accuracy']:.3f}, {row['seconds']:.1f} s", flush=True)
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
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="so many candidates, spread over the space")
    parser.add_argument("--batches", type=int, default=16, help="of 64 examples, for each evaluation")
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("-o", type=Path, default=Path("build/nas_bench"))
    args = parser.parse_args(argv)
    return merged(args) if args.merge else made(args)


if __name__ == "__main__":
    main()
