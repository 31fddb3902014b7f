"""SimQ-NAS's loop on scikit-learn's digits: a supernet trained in full precision; then architecture and bits of each map are searched together on
its weights, by predictors that are trained again each round (LINAS), by NSGA-II and at random; beside it the architecture alone, in 8 bits.

usage: python examples/simq/run.py [--steps 800] [--budget 60] [--seeds 3] [--jobs 2] [-o build/simq]

Interrupted, the same command goes on where it was. results.json and front.svg are written beside this file, unless --dry is given.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import archdsl
from archdsl.lazy import np
from archdsl.search.strategies.encoding import features
from archdsl.search.strategies.kernels import Regression, table
from archdsl.study.shown import compared
from archdsl.supernet.folder import save
from archdsl.supernet.training import train_supernet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import fronts  # noqa: E402

SPEC = HERE / "digits.arch"
OBJECTIVES = ["quantized_bytes:min", "loss:min"]


def quantized(spec, trained, variant, out):
    """The trained weights as the supernet of a space with bits: quantised when they are read, trained no more."""
    if not (out / "supernet.json").exists():
        net = spec.supernet(variant=variant)
        net.load_state_dict(trained.state_dict())
        net.task = trained.task
        save(net, out)
    return f'supernet(folder = "{out}", calibrate = 1, batch = 90)'


def predicted(space, study):
    """How well predictors trained on one half of what was measured tell the loss of the other: relative error, and Kendall's tau."""
    from scipy.stats import kendalltau

    entries = [e for e in study.store.entries(range(study.store.finished)) if e.status == "done"]
    told = [features(space.from_json(e.knobs)) for e in entries]
    loss = np.array([e.values["loss"] for e in entries])
    half = len(told) // 2
    columns = {n: i for i, n in enumerate(sorted({n for t in told[:half] for n in t}))}
    decisions = {n: i for i, n in enumerate(dict.fromkeys(n.split("=")[0] for n in columns))}
    model = Regression(table(told[:half], columns), loss[:half], [decisions[n.split("=")[0]] for n in columns])
    guess, _ = model(table(told[half:], columns))
    return {"mape": float(np.mean(np.abs(guess / loss[half:] - 1))), "tau": float(kendalltau(guess, loss[half:])[0]), "measured": half}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="searches at a time")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("-o", type=Path, default=Path("build/simq"))
    args = parser.parse_args()
    args.o.mkdir(parents=True, exist_ok=True)
    spec, net = archdsl.load(str(SPEC)), args.o / "float"
    trained = train_supernet(spec, "digits", args.steps, net, variant="float", size=64, count=3, lr=3e-3, schedule="cosine",
                             warmup=max(1, args.steps // 20), clip=1.0, weight_decay=0.1, resume=(net / "training.safetensors").exists()).model
    joint, fixed = (quantized(spec, trained, v, args.o / f"supernet-{v or 'joint'}") for v in (None, "int8"))

    size = max(4, args.budget // 5)
    strategies = [f"predictor(round = {max(2, args.budget // 8)}, first = {size})", f"nsga2(population = {size})", "random"]
    found = fronts.race(os.fspath(SPEC), args.o, strategies, args.seeds, args.jobs, objectives=OBJECTIVES, evaluator=joint, budget=args.budget)
    print(fronts.told(found))
    eight = fronts.searched(f"{SPEC}:int8", args.o / "int8", strategies[0], 0, objectives=OBJECTIVES, evaluator=fixed, budget=args.budget)
    both = fronts.searched(os.fspath(SPEC), args.o, strategies[0], 0, objectives=OBJECTIVES, evaluator=joint, budget=args.budget)
    rows = compared([both, eight])["studies"]
    volumes = {"architecture and bits": rows[0]["hypervolume"], "architecture in 8 bits": rows[1]["hypervolume"]}
    print("; ".join(f"{name}: hypervolume {v:.3f}" for name, v in volumes.items()))
    drawn = fronts.searched(os.fspath(SPEC), args.o, "random", 0, objectives=OBJECTIVES, evaluator=joint, budget=args.budget)
    quality = predicted(spec.space(), drawn)
    print(f"predictors trained on {quality['measured']} candidates: relative error {quality['mape']:.1%}, Kendall's tau {quality['tau']:.2f}")
    fronts.written(HERE, found, ("bytes", "loss on inherited weights"), args.dry, steps=args.steps, budget=args.budget, volumes=volumes,
                   predictors=quality)
    for study in (eight, both, drawn):
        study.store.close()


if __name__ == "__main__":
    main()
