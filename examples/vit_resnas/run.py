"""ViT-ResNAS's procedure on scikit-learn's digits: a supernet trained on several architectures in each batch, with a warm-up in which channels are
sorted, then an evolution below a limit of multiplications on its weights, beside random search; the best is trained from scratch.

usage: python examples/vit_resnas/run.py [--steps 240] [--budget 24] [--seeds 3] [--jobs 2] [-o build/vit_resnas]

Interrupted, the same command goes on where it was. results.json and front.svg are written beside this file, unless --dry is given.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import archdsl
from archdsl.files import shipped_files
from archdsl.lazy import torch
from archdsl.supernet.training import train_supernet
from archdsl.tasks import parse

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import fronts  # noqa: E402

TASK = "digits(channels = 3, size = 56)"
SPACE = """
/// The shape of the paper's supernets for digits: three stages of 4 x 4, 2 x 2 and 1 x 1 cells.
variant digits {
  widths = [64, 96, 128],
  heads = [[4] * 3, [4] * 3, [4] * 2],
  hidden = [[192] * 3, [288] * 3, [384] * 2],
  head_dims = [16, 24, 32],
  choices = [
    Choices([64, 40], [4, 3, 2, 1], [192 - 32 * i for i in range(6)]),
    Choices([96, 64], [4, 3, 2, 1], [288 - 48 * i for i in range(6)]),
    Choices([128, 96], [4, 3, 2, 1], [384 - 64 * i for i in range(6)]),
  ],
  removable = true,
  size = [56, 56],
  classes = 10,
  drop_path = 0,
}
"""
STEM = "middle: int = 24", "middle: int = 8"
"""With the published stem four fifths of all multiplications would lie in front of what is searched, as a digit has 16 cells and not 256."""
LIMITS = ("macs(H = 56, W = 56) <= 3_600_000", "macs(H = 56, W = 56) >= 3_510_000")
"""The budget, and not more than a fortieth below it, as in the paper."""


def spec_file(out):
    """The shipped spec with the space for digits."""
    shipped = next(p for p in shipped_files() if p.endswith("vit_resnas.arch"))
    text, path = Path(shipped).read_text(encoding="utf-8"), out / "digits.arch"
    if text.count(STEM[0]) != 1:
        raise ValueError(f"{shipped} has no `{STEM[0]}`")
    path.write_text(text.replace(*STEM) + SPACE, encoding="utf-8")
    return path


def trained(path, knobs, steps, seed):
    """Accuracy and loss on the test split of a candidate trained from scratch."""
    torch.set_num_threads(1)
    spec, task = archdsl.load(str(path)), parse(TASK)
    model = spec.build("digits", seed=seed, **spec.space(variant="digits").from_json(knobs))
    archdsl.fit(model, task, task.batches("train", 64, seed), steps=steps, seed=seed, lr=3e-3, schedule="cosine", warmup=max(1, steps // 20),
                clip=1.0)
    return task.evaluate(model, "test", size=90)


def winner(spec, space, study):
    """The best trial of a study below the limit, which is closed."""
    best = study.best(study.objectives[0])
    study.store.close()
    candidate = space.from_json(best.knobs)
    return {"knobs": best.knobs, "macs": spec.cost("digits", {"H": 56, "W": 56}, **candidate).macs, "inherited": best.values}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--budget", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="searches and trainings at a time")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("-o", type=Path, default=Path("build/vit_resnas"))
    args = parser.parse_args()
    args.o.mkdir(parents=True, exist_ok=True)
    path, net = spec_file(args.o), args.o / "supernet"
    spec = archdsl.load(str(path))
    epochs = max(1, args.steps // 20)  # the paper sorts once an epoch, in an eighth of the training
    train_supernet(spec, TASK, args.steps, net, variant="digits", size=64, count=4, distil=False, split=True, widen=max(1, args.steps // 8),
                   sort=max(1, min(epochs, args.steps // 8)), lr=3e-3, schedule="cosine", warmup=max(1, args.steps // 20), clip=1.0,
                   resume=(net / "training.safetensors").exists())
    print(f"supernet: {args.steps} steps")

    population = max(4, args.budget // 4)
    strategies = [f"evolution(population = {population}, sample = {max(2, population // 3)}, cross = 0.5)", "random"]
    how = {"evaluator": f'supernet(folder = "{net}", calibrate = 1, batch = 90)', "limits": LIMITS, "budget": args.budget}
    found = fronts.race(f"{path}:digits", args.o, strategies, args.seeds, args.jobs, objectives=["loss:min"], **how)
    for strategy, runs in found.items():
        print(f"{strategy}: loss on inherited weights " + ", ".join(f"{r['best']['loss']:.4f}" for r in runs))

    both = fronts.race(f"{path}:digits", args.o / "fronts", [f"nsga2(population = {population})", "random"], args.seeds, args.jobs,
                       objectives=["macs:min", "loss:min"], evaluator=how["evaluator"], budget=args.budget)
    print(fronts.told(both))
    space = spec.space(variant="digits")
    winners = {s: [winner(spec, space, fronts.searched(f"{path}:digits", args.o, s, seed, objectives=["loss:min"], **how))
                   for seed in range(args.seeds)] for s in strategies}
    every = [w for own in winners.values() for w in own]
    for w, result in zip(every, fronts.beside(args.jobs, trained, [(path, w["knobs"], args.steps, 0) for w in every])):
        w["scratch"] = result
    for strategy, own in winners.items():
        print(f"{strategy}: {', '.join(format(w['macs'], ',') for w in own)} multiplications; trained from scratch, on the test split: accuracy "
              + ", ".join(f"{w['scratch']['accuracy']:.1%}" for w in own) + ", loss " + ", ".join(f"{w['scratch']['loss']:.3f}" for w in own))
    fronts.written(HERE, both, ("multiplications", "loss on inherited weights"), args.dry, below=found, winners=winners, steps=args.steps,
                   budget=args.budget)


if __name__ == "__main__":
    main()
