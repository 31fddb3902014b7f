"""ViT-ResNAS's procedure on scikit-learn's digits: a supernet trained on several architectures in each batch, with a warm-up in which channels are
sorted, then an evolution below a limit of multiplications on its weights, beside random search; the best is trained from scratch.

usage: python examples/vit_resnas/run.py [--steps 160] [--budget 16] [--seeds 2] [-o build/vit_resnas]

Interrupted, the same command goes on where it was. results.json and front.svg are written beside this file, unless --dry is given.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import archdsl
from archdsl.files import shipped_files
from archdsl.supernet.training import train_supernet
from archdsl.tasks import parse

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import fronts  # noqa: E402

TASK = "digits(channels = 3, size = 56)"
SPACE = """
/// The shape of the paper's supernets for digits: three stages of 4 x 4, 2 x 2 and 1 x 1 cells.
variant digits {
  widths = [48, 72, 96],
  heads = [[4] * 3, [4] * 3, [4] * 2],
  hidden = [[96] * 3, [144] * 3, [192] * 2],
  head_dims = [12, 18, 24],
  choices = [
    Choices([48, 32], [4, 3, 2, 1], [96, 72, 48, 24]),
    Choices([72, 56], [4, 3, 2, 1], [144, 108, 72, 36]),
    Choices([96, 72], [4, 3, 2, 1], [192, 144, 96, 48]),
  ],
  removable = true,
  size = [56, 56],
  classes = 10,
  drop_path = 0,
}
"""
LIMITS = ("macs(H = 56, W = 56) <= 10_600_000", "macs(H = 56, W = 56) >= 10_335_000")
"""The budget, and not more than a fortieth below it, as in the paper."""


def spec_file(out):
    """The shipped spec with the space for digits."""
    shipped = next(p for p in shipped_files() if p.endswith("vit_resnas.arch"))
    path = out / "digits.arch"
    path.write_text(Path(shipped).read_text(encoding="utf-8") + SPACE, encoding="utf-8")
    return path


def trained(spec, candidate, steps, seed):
    """The accuracy on the test split of a candidate trained from scratch."""
    task = parse(TASK)
    model = spec.build("digits", seed=seed, **candidate)
    archdsl.fit(model, task, task.batches("train", 64, seed), steps=steps, seed=seed, lr=3e-3, schedule="cosine", warmup=max(1, steps // 20),
                clip=1.0)
    return task.evaluate(model, "test", size=90)["accuracy"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--budget", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
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
    found = fronts.race(f"{path}:digits", args.o, strategies, args.seeds, objectives=["loss:min"], **how)
    for strategy, runs in found.items():
        print(f"{strategy}: loss on inherited weights " + ", ".join(f"{r['best']['loss']:.4f}" for r in runs))

    both = fronts.race(f"{path}:digits", args.o / "fronts", [f"nsga2(population = {population})", "random"], args.seeds,
                       objectives=["macs:min", "loss:min"], evaluator=how["evaluator"], budget=args.budget)
    print(fronts.told(both))
    winners = {}
    for strategy in strategies:
        study = fronts.searched(f"{path}:digits", args.o, strategy, 0, objectives=["loss:min"], **how)
        best = study.best(study.objectives[0])
        study.store.close()
        candidate = spec.space(variant="digits").from_json(best.knobs)
        winners[strategy] = {"knobs": best.knobs, "macs": spec.cost("digits", {"H": 56, "W": 56}, **candidate).macs,
                             "inherited": best.values["accuracy"], "scratch": trained(spec, dict(candidate), args.steps // 2, 0)}
        print(f"{strategy}: {winners[strategy]['macs']:,} multiplications, accuracy {winners[strategy]['inherited']:.1%} on inherited weights, "
              f"{winners[strategy]['scratch']:.1%} on the test split after training from scratch")
    fronts.written(HERE, both, ("multiplications", "loss on inherited weights"), args.dry, below=found, winners=winners, steps=args.steps,
                   budget=args.budget)


if __name__ == "__main__":
    main()
