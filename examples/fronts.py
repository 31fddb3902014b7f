"""Strategies beside each other at as many evaluations, several seeds each: studies in folders, a table, a picture of what their fronts hold."""
from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from archdsl.study.session import Asked, Hands, search
from archdsl.study.shown import compared

COLORS = ("#4e79a7", "#e15759", "#59a14f", "#b07aa1")


def searched(source, out, strategy, seed, **asked):
    """The study of one strategy and seed; interrupted or done, the same call goes on with it."""
    folder = os.fspath(Path(out) / f"{strategy.split('(')[0]}-{seed}")
    return search(source, folder, Asked(strategy=strategy, seed=seed, **asked), Hands(workers=0), resume=os.path.exists(f"{folder}/study.json"))


def beside(jobs, call, calls: Iterable[tuple]):
    """What a function gives for each of these arguments, by so many processes of one thread each."""
    pool = _pool(jobs)
    return [f.result() for f in [pool.submit(call, *c) for c in calls]]


@cache
def _pool(jobs):
    """Processes that have loaded torch, and the supernet of what they ran last."""
    return ProcessPoolExecutor(jobs, get_context("spawn"))


def done(source, out, strategy, seed, asked):
    """Runs a study to its end."""
    from archdsl.lazy import torch

    torch.set_num_threads(1)
    searched(source, out, strategy, seed, **asked).store.close()


def race(source, out, strategies, seeds, jobs=1, **asked):
    """By strategy, for each seed: the front (values of the objectives), its hypervolume in the box of all studies, the best of each objective.
    `jobs`: so many studies run at a time."""
    if jobs > 1:
        beside(jobs, done, [(source, out, s, seed, asked) for s in strategies for seed in range(seeds)])
    studies = {s: [searched(source, out, s, seed, **asked) for seed in range(seeds)] for s in strategies}
    every = [study for found in studies.values() for study in found]
    rows = iter(compared(every)["studies"])
    result = {}
    for strategy, found in studies.items():
        result[strategy] = [{"hypervolume": row["hypervolume"], "best": row["best"], "trials": row["trials"], "failed": row["failed"],
                             "front": [[e.values[o.name] for o in study.objectives] for e in study.front()]} for study, row in zip(found, rows)]
    for study in every:
        study.store.close()
    return result


def told(result):
    """The table that a page shows."""
    lines = ["| strategy | " + " | ".join(f"seed {i}" for i in range(len(next(iter(result.values()))))) + " | median |"]
    lines.append("| --- " * (lines[0].count("|") - 1) + "|")
    for strategy, runs in result.items():
        values = [r["hypervolume"] for r in runs]
        lines.append(f"| `{strategy}` | " + " | ".join(f"{v:.3f}" for v in values) + f" | {statistics.median(values):.3f} |")
    return "\n".join(lines)


def plot(result, names, marks=()):
    """An SVG of the points of all fronts, the first objective along x; `marks`: (x, y, label)."""
    points = [p for runs in result.values() for r in runs for p in r["front"]] + [[x, y] for x, y, _ in marks]
    width, height, left, top = 640, 360, 70, 20
    low, high = ([f(p[i] for p in points) for i in (0, 1)] for f in (min, max))
    x = lambda v: left + (width - left - 150) * (v - low[0]) / (high[0] - low[0] or 1)
    y = lambda v: top + (height - top - 50) * (1 - (v - low[1]) / (high[1] - low[1] or 1))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i in range(5):
        a, b = (low[k] + i / 4 * (high[k] - low[k]) for k in (0, 1))
        out += [f'<text x="{x(a):.0f}" y="{height - 30}" text-anchor="middle" fill="#555">{a:.4g}</text>',
                f'<text x="{left - 8}" y="{y(b) + 4:.0f}" text-anchor="end" fill="#555">{b:.3g}</text>',
                f'<path d="M{left} {y(b):.1f}H{width - 150}" stroke="#ddd"/>']
    out.append(f'<text x="{(left + width - 150) / 2}" y="{height - 8}" text-anchor="middle">{names[0]}</text>')
    out.append(f'<text x="14" y="{height / 2}" text-anchor="middle" transform="rotate(-90 14 {height / 2})">{names[1]}</text>')
    for i, (strategy, runs) in enumerate(result.items()):
        color = COLORS[i % len(COLORS)]
        out.append(f'<circle cx="{width - 136}" cy="{top + 14 + 20 * i}" r="4" fill="{color}"/>'
                   f'<text x="{width - 126}" y="{top + 18 + 20 * i}">{strategy.split("(")[0]}</text>')
        out += [f'<circle cx="{x(p[0]):.1f}" cy="{y(p[1]):.1f}" r="3" fill="{color}" fill-opacity="0.6"/>' for r in runs for p in r["front"]]
    for a, b, label in marks:
        out.append(f'<path d="M{x(a) - 5:.1f} {y(b):.1f}h10m-5 -5v10" stroke="black"/><text x="{x(a) + 7:.1f}" y="{y(b) + 4:.1f}">{label}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def written(here, result, names, dry, **more):
    """results.json and front.svg beside a page."""
    if not dry:
        (Path(here) / "results.json").write_text(json.dumps({**more, "strategies": result}, indent=1) + "\n")
        (Path(here) / "front.svg").write_text(plot(result, names, more.get("marks", ())))
