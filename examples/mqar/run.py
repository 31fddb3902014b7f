"""Trains four mixers on multi-query associative recall, three seeds each, and draws their accuracy.

usage: python examples/mqar/run.py [--steps 600] [--seeds 3] [-o build/mqar]

Each training is a folder of its own below -o. Interrupted, the same command goes on where it was. results.json and accuracy.svg are written beside
this file, unless --dry is given.
"""
from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import archdsl
from archdsl.tasks import parse

HERE = Path(__file__).parent
TASK = "mqar(vocab = 128, length = 48, pairs = 12, gap = 0.5)"
MODELS = {"softmax": "softmax attention", "delta": "DeltaNet", "hybrid": "hybrid of both", "linear": "linear attention"}
COLORS = {"softmax": "#4e79a7", "delta": "#59a14f", "hybrid": "#b07aa1", "linear": "#e15759"}


class Curve:
    """A hook: the accuracy on the validation split, 10 times. It is part of each checkpoint."""

    def __init__(self, task, steps):
        self.task, self.every, self.points = task, max(1, steps // 10), []

    def __call__(self, run):
        if run.step % self.every == 0 or run.step == run.steps:
            found = self.task.evaluate(run.model, "valid", batches=2, size=64)
            self.points.append([run.step, found["accuracy"]])

    def state_dict(self):
        return {"points": self.points}

    def load_state_dict(self, state):
        self.points = state["points"]


def train(task, variant, seed, steps, out):
    """The curve of one training, and its accuracy on 1,024 examples of the test split."""
    folder = out / f"{variant}-{seed}"
    model = archdsl.load(HERE / "mqar.arch").build(variant, seed=seed)
    curve = Curve(task, steps)
    archdsl.fit(model, task, task.batches("train", 32, seed), steps=steps, seed=seed, lr=3e-3, schedule="cosine", warmup=steps // 10, clip=1.0,
                hooks=[curve], out=folder, every=max(1, steps // 5), resume=(folder / "training.safetensors").exists(), settings={"task": task.text})
    return {"points": curve.points, "test": task.evaluate(model, "test", batches=16, size=64)["accuracy"]}


def plot(results, steps):
    """An SVG: a line for each model, the mean of its seeds, and a thin one for each seed."""
    width, height, left, top = 640, 360, 60, 20
    x = lambda step: left + (width - left - 190) * step / steps
    y = lambda accuracy: top + (height - top - 50) * (1 - accuracy)
    path = lambda points: "M" + " L".join(f"{x(s):.1f},{y(a):.1f}" for s, a in points)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for a in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<path d="M{x(0)},{y(a)} H{x(steps)}" stroke="#ddd"/><text x="{left - 8}" y="{y(a) + 4}" text-anchor="end">{a:.0%}</text>')
    for s in (0, steps // 2, steps):
        out.append(f'<text x="{x(s)}" y="{height - 28}" text-anchor="middle">{s}</text>')
    out.append(f'<text x="{x(steps / 2)}" y="{height - 8}" text-anchor="middle">steps of 32 sequences</text>')
    ends = {}
    for variant, runs in results.items():
        for r in runs:
            out.append(f'<path d="{path(r["points"])}" fill="none" stroke="{COLORS[variant]}" opacity="0.35"/>')
        mean = [[p[0][0], statistics.mean(a for _, a in p)] for p in zip(*(r["points"] for r in runs))]
        out.append(f'<path d="{path(mean)}" fill="none" stroke="{COLORS[variant]}" stroke-width="2.5"/>')
        ends[variant] = y(mean[-1][1])
    at = 0.0
    for variant in sorted(ends, key=lambda v: ends[v]):  # labels never on each other
        at = max(at + 16, ends[variant] + 4)
        out.append(f'<text x="{x(steps) + 8}" y="{at:.1f}" fill="{COLORS[variant]}">{MODELS[variant]}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options.add_argument("-o", "--out", type=Path, default=Path("build/mqar"))
    options.add_argument("--dry", action="store_true", help="write neither results.json nor accuracy.svg")
    given = options.parse_args()
    task = parse(TASK)
    given.out.mkdir(parents=True, exist_ok=True)
    results = {v: [] for v in given.models}
    for seed in range(given.seeds):
        for variant in given.models:
            results[variant].append(train(task, variant, seed, given.steps, given.out))
            print(f"{variant:<8} seed {seed}: {results[variant][-1]['test']:.1%} of the values recalled", flush=True)
    print(f"\n{'model':<24}{'accuracy on the test split, ' + str(given.seeds) + ' seeds':<40}mean")
    for variant, runs in results.items():
        print(f"{MODELS[variant]:<24}{'  '.join(format(r['test'], '.1%') for r in runs):<40}{statistics.mean(r['test'] for r in runs):.1%}")
    if not given.dry:
        (HERE / "results.json").write_text(json.dumps({"task": task.text, "steps": given.steps, "results": results}) + "\n")
        (HERE / "accuracy.svg").write_text(plot(results, given.steps))


if __name__ == "__main__":
    main()
