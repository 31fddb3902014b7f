"""EfficientFormer's latency-driven slimming on scikit-learn's digits: a supernet whose slots mix their paths by Gumbel softmax, a table of latencies
of this machine, and actions (a slot less, a stage 16 channels narrower, the first token block a map block) until the target is met. What is found is
a variant of the shipped EfficientFormer. That is done for several targets: a front of latency and loss, beside random settings of the same
latencies, all trained from scratch.

usage: python examples/slimming/run.py [--steps 300] [--targets 0.75 0.55 0.4] [--others 4] [--seeds 2] [--jobs 2] [-o build/slimming]
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from random import Random

import archdsl
from archdsl.files import shipped_files
from archdsl.lazy import torch
from archdsl.search.latency import Latency
from archdsl.tasks import parse

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import fronts  # noqa: E402

TASK = "digits(channels = 3, size = 64)"
FIXED = {"size": [64, 64], "classes": 10, "distilled": False}
WIDTHS, SLOTS, TOKENS = (32, 48, 64, 96), (2, 2, 3, 3), 3
"""Of the supernet: the widths of the four stages, their slots, and how many slots of the last stage have a path of tokens."""
SUPERNET = """use efficientformer { MB3D, MB4D }
use std.linear { Linear }
use std.norm { BatchNorm }
use std.vision { Conv }

/// One slot: the stream itself, a block of maps and, with `tokens`, one of tokens, mixed by softmax((alpha + noise) / tau). In training tau falls by
/// `decay` each step, to 0.1 at last. Source: arxiv 2206.01191, equation 7.
block MetaPath(tokens: bool, grid: list[int; 2], decay: float)(x: [B, c, H, W]) -> [B, c, H, W] {
  n = if tokens { 3 } else { 2 }
  param alpha: [n] = zeros()
  buffer tau: [] = 1
  draw noise: [n] = uniform(low = 0, high = 1)
  update tau = maximum(decay * tau, 0.1)
  w = phase { train => softmax((alpha + noise) / tau)  eval => softmax(alpha / tau) }
  y = w[0] * x + w[1] * MB4D(4, 0.1)(x) as maps
  if not tokens { return y }
  z = x |> rearrange([B, c, H, W] -> [B, (H W), c]) |> MB3D(4, 0.1, grid, false) as tokens
  return y + w[2] * rearrange(z, [B, (H W), c] -> [B, c, H, W], H = H, W = W)
}

/// All slots with all their paths.
model Supernet(
  widths: list[int; 4] = [32, 48, 64, 96],
  slots: list[int; 4] = [2, 2, 3, 3],
  tokens: int = 3,
  decay: float = 0.99,
)(
  image: [B = 1, 3, H = 64, W = 64],
) -> logits: [B, 10] {
  require H == 64 and W == 64, "the tables of distances are for maps of 2 x 2 cells"
  x = image
  stem: for c in [widths[0] / 2, widths[0]] {
    x = x |> Conv(c, 3, stride = 2, pad = 1) as conv |> BatchNorm() as norm |> relu
  }
  stages: for i, c in enumerate(widths) {
    if i > 0 { x = x |> Conv(c, 3, stride = 2, pad = 1) as down |> BatchNorm() as down_norm }
    paths: for j in range(slots[i]) {
      x = MetaPath(i == 3 and j >= slots[i] - tokens, [2, 2], decay)(x) as slot
    }
  }
  return mean(x, axis = [2, 3]) |> Linear(10) as head
}
"""


class State:
    """`kept`: of each stage the slots that are left; `vit`: how many of the last stage's, from the end, are blocks of tokens."""

    def __init__(self, widths, kept, vit):
        self.widths, self.kept, self.vit = tuple(widths), tuple(map(tuple, kept)), vit

    @property
    def knobs(self):
        return {**FIXED, "widths": list(self.widths), "depths": list(map(len, self.kept)), "vit": self.vit}


def fitted(spec, steps, seed, variant=None, **knobs):
    """A model after training, and its accuracy and loss on the test split."""
    task = parse(TASK)
    model = spec.build(variant, seed=seed, **knobs)
    archdsl.fit(model, task, task.batches("train", 32, seed), steps=steps, seed=seed, lr=3e-3, schedule="cosine", warmup=max(1, steps // 20),
                clip=1.0)
    return model, task.evaluate(model, "test", size=90)


def importances(model):
    """Of each slot (stage, place): what the paths that compute weigh beside the stream itself; and by how much tokens outweigh maps."""
    found, gain = {}, {}
    for i, count in enumerate(SLOTS):
        for j in range(count):
            p = model.get_parameter(f"stages.{i}.paths.{j}.slot.alpha").detach().softmax(0).tolist()
            found[i, j] = sum(p[1:]) / p[0]
            gain[i, j] = p[2] - p[1] if len(p) > 2 else 0.0
    return found, gain


def actions(state, worth, gain):
    """What may be done, with the importance that is lost by it."""
    slots = [(i, j) for i, kept in enumerate(state.kept) for j in kept if len(kept) > 1]
    if slots:
        i, j = min(slots, key=lambda s: worth[s])
        kept = [tuple(k for k in own if (s, k) != (i, j)) for s, own in enumerate(state.kept)]
        yield f"stage {i}: slot {j} goes", worth[i, j], State(state.widths, kept, min(state.vit, len(kept[3])))
    totals = {i: sum(worth[i, j] for j in kept) for i, kept in enumerate(state.kept) if state.widths[i] > 16}
    if totals:
        i = min(totals, key=totals.__getitem__)
        widths = [w - 16 * (s == i) for s, w in enumerate(state.widths)]
        yield f"stage {i}: {widths[i]} channels", totals[i] * 16 / state.widths[i], State(widths, state.kept, state.vit)
    if state.vit:
        first = state.kept[3][len(state.kept[3]) - state.vit]
        yield "the first block of tokens is one of maps", max(gain[3, first], 0.0), State(state.widths, state.kept, state.vit - 1)


def slimmed(state, worth, gain, seconds, target):
    """The state that meets the target, and the actions on the way: each the one that loses the least importance for the time that it saves. Raises
    ValueError where none saves time."""
    done = [("the largest", seconds(state))]
    while seconds(state) > target:
        now = seconds(state)
        found = [(lost / max(now - seconds(after), 1e-12), name, after) for name, lost, after in actions(state, worth, gain) if seconds(after) < now]
        if not found:
            raise ValueError(f"no action saves time at {now * 1e3:.2f} ms, above the target of {target * 1e3:.2f} ms")
        _, name, state = min(found, key=lambda f: f[0])
        done.append((name, seconds(state)))
    return state, done


def drawn(random, seconds, low, high):
    """A random state whose latency is in a range; None where 200 draws have none."""
    for _ in range(200):
        widths = sorted(random.randrange(16, w + 1, 16) for w in WIDTHS)
        kept = [tuple(range(random.randint(1, n))) for n in SLOTS]
        state = State(widths, kept, random.randint(0, min(TOKENS, len(kept[3]))))
        if low <= seconds(state) <= high:
            return state
    return None


def scratch(path, knobs, steps, seed):
    """What a setting comes to when it is trained from scratch, in a process of its own."""
    torch.set_num_threads(1)
    return fitted(archdsl.load(path).models["EfficientFormer"], steps, seed, **knobs)[1]


def rivals(worth, gain, seconds, args):
    """For each target what slimming finds, with its actions, and random settings of at most that latency and at least nine tenths of it: (name, share
    of the latency, state, actions)."""
    random, largest = Random(0), State(WIDTHS, [tuple(range(n)) for n in SLOTS], TOKENS)
    for share in args.targets:
        target = share * seconds(largest)
        found, done = slimmed(largest, worth, gain, seconds, target)
        yield "slimmed", share, found, done
        for _ in range(args.others):
            state = drawn(random, seconds, 0.9 * target, target)
            if state is not None:
                yield "random", share, state, []


def told(rows):
    """The table that a page shows."""
    lines = ["| of the largest's latency | slimmed: ms | accuracy | loss | random: ms | accuracy | loss, each |", "| --- " * 7 + "|"]
    for share in dict.fromkeys(r["share"] for r in rows):
        ours, = (r for r in rows if r["share"] == share and r["name"] == "slimmed")
        others = [r for r in rows if r["share"] == share and r["name"] == "random"]
        mean = lambda name, others=others: statistics.fmean(r[name] for r in others)
        lines.append(f"| {share:.0%} | {ours['ms']:.2f} | {ours['accuracy']:.1%} | {ours['loss']:.3f} | " + (
            f"{mean('ms'):.2f} | {mean('accuracy'):.1%} | {', '.join(format(r['loss'], '.3f') for r in others)} |" if others else " | | |"))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.75, 0.55, 0.4], help="shares of the largest one's latency")
    parser.add_argument("--others", type=int, default=4, help="random settings for each target")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each setting")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("-o", type=Path, default=Path("build/slimming"))
    args = parser.parse_args()
    args.o.mkdir(parents=True, exist_ok=True)
    shipped = next(p for p in shipped_files() if p.endswith("efficientformer.arch"))
    path = os.fspath(args.o / "efficientformer.arch")
    Path(path).write_text(Path(shipped).read_text(encoding="utf-8"), encoding="utf-8")
    (args.o / "metapaths.arch").write_text(SUPERNET, encoding="utf-8")
    spec = archdsl.load(path).models["EfficientFormer"]
    supernet = archdsl.load(os.fspath(args.o / "metapaths.arch"))

    model, result = fitted(supernet, args.steps, 0, widths=list(WIDTHS), slots=list(SLOTS), tokens=TOKENS, decay=0.1 ** (1 / args.steps))
    worth, gain = importances(model)
    print(f"supernet: accuracy {result['accuracy']:.1%}; importances " + ", ".join(f"{v:.2f}" for v in worth.values()))

    latency, known = Latency(repeats=5, table=os.fspath(args.o / "latency.db")), {}

    def seconds(state):
        key = repr(state.knobs)
        if key not in known:
            known[key] = latency.predict(spec.elaborate(None, state.knobs))
        return known[key]

    rows = []
    for name, share, state, done in rivals(worth, gain, seconds, args):
        rows.append({"name": name, "share": share, "widths": state.widths, "depths": state.knobs["depths"], "vit": state.vit,
                     "ms": seconds(state) * 1e3, "actions": done, "knobs": state.knobs})
        for action, took in done:
            print(f"  {took * 1e3:6.2f} ms  {action}")
        print(f"{name}: widths {state.widths}, depths {state.knobs['depths']}, {state.vit} of tokens, {seconds(state) * 1e3:.2f} ms")
    results = iter(fronts.beside(args.jobs, scratch, [(path, r["knobs"], args.steps, 1 + seed) for r in rows for seed in range(args.seeds)]))
    for row in rows:
        own = [next(results) for _ in range(args.seeds)]
        del row["knobs"]
        row |= {name: statistics.fmean(r[name] for r in own) for name in ("accuracy", "loss")}
    print(told(rows))
    every = {name: [{"front": [[r["ms"], r["loss"]] for r in rows if r["name"] == name]}] for name in ("slimmed", "random")}
    if not args.dry:
        found = {"steps": args.steps, "threads": torch.get_num_threads(), "seeds": args.seeds, "models": rows}
        (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        (HERE / "front.svg").write_text(fronts.plot(every, ("milliseconds", "loss on the test split")))


if __name__ == "__main__":
    main()
