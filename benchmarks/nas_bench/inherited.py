"""Trains a supernet of the tabulated space and measures every candidate on its part of the weights: inherited.json.gz beside this file.

usage: python benchmarks/nas_bench/inherited.py [--task mqar] [--arms shared] [--device cuda] [--steps 2500] [--tune 20] [-o build/inherited]
       python benchmarks/nas_bench/inherited.py --merge [-o build/inherited] [--table FILE]

Each step takes four candidates that have every arm of every layer once among them (strict fairness, arxiv 1907.01845), all on the same batch. Then,
on the validation split: `inherited`, each candidate as it is; `tuned N`, each after so many steps of its own from there (the supernet's weights are
restored behind it). Nothing has running statistics here, so nothing is counted anew. `--arms shared`: the supernet of space.arch, whose arms share
the weights that have one address (the queries of attention, GLA and DeltaNet); `own`: of arms.arch, where each arm has its own. On a GPU the passes
of each candidate are recorded as a graph. One process a task and kind of arms; they run beside each other.
"""
from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

import archdsl
from archdsl.supernet.net import Supernet
from archdsl.supernet.sandwich import fair
from archdsl.tasks import parse
from archdsl.tasks.model import cross_entropy
from archdsl.training.groups import grouped
from archdsl.training.schedule import schedule
from archdsl.version import VERSION
from benchmarks.nas_bench.run import BATCH, TASKS
from benchmarks.nas_bench.table import INHERITED, SPEC
from benchmarks.nas_bench.together import measured

SPECS = {"shared": SPEC, "own": SPEC.with_name("arms.arch")}
COUNT = 4
"""Candidates in a step: as many as a layer has arms."""
WARM = 3
"""So many of the recorded passes are held against passes that are not."""
SPREAD = 1e-3
"""By so much may their gradients differ, of the greatest: kernels add up in any order."""


class Passes:
    """Forward and backward passes of single candidates on one batch, `tokens` and `targets` [B, T], in the same memory each time."""

    def __init__(self, net: Supernet, tokens: Tensor, targets: Tensor):
        self.net, self.tokens, self.targets = net, tokens.clone(), targets.clone()
        self.parameters: list[Tensor] = list(net.parameters())
        self.graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self.loss = torch.zeros((), device=tokens.device)
        net.kept = net.space.size  # what a graph reads has to stay
        for p in self.parameters:
            p.grad = torch.zeros_like(p)

    def take(self, tokens: Tensor, targets: Tensor) -> None:
        self.tokens.copy_(tokens)
        self.targets.copy_(targets)

    def grads(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def clear(self) -> None:
        torch._foreach_zero_([*self.grads(), self.loss])

    def add(self, candidate: Any) -> None:
        """Adds the candidate's gradients to those of the supernet's weights, and its loss to `loss`."""
        graph = self.graphs.get(candidate.key)
        if graph is None:
            self._pass(candidate)
        else:
            graph.replay()

    def _pass(self, candidate: Any) -> None:
        loss = cross_entropy(self.net.run(candidate, self.tokens), self.targets)
        loss.backward()
        self.loss.add_(loss.detach())

    def record(self, candidates: Sequence[Any]) -> None:
        """Records a graph for each. Raises RuntimeError where one of the first few does not give the gradients of a pass that is not recorded."""
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        for i, candidate in enumerate(candidates):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.clear()
                self._pass(candidate)  # what is made at a first call is made here
                wanted = [self.loss.clone(), *(g.clone() for g in self.grads())]
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.stream(stream):  # as `torch.cuda.graph`, which collects garbage and gives memory back each time
                graph.capture_begin(pool)
                self._pass(candidate)
                graph.capture_end()
            self.graphs[candidate.key] = graph
            torch.cuda.current_stream().wait_stream(stream)
            if i < WARM or i == len(candidates) - 1:
                self._hold(candidates[:i + 1], wanted)
        self.clear()

    def _hold(self, candidates: Sequence[Any], wanted: list[Tensor]) -> None:
        """The last one's graph, behind those of others in the same memory."""
        for candidate in (*candidates[:WARM], candidates[-1]):
            self.clear()
            self.graphs[candidate.key].replay()
        scale = max(float(w.abs().max()) for w in wanted[1:])
        off = max(float((a - b).abs().max()) for a, b in zip((self.loss, *self.grads()), wanted))
        if not off <= SPREAD * max(scale, 1e-6):
            raise RuntimeError(f"the recorded pass of {dict(candidates[-1])} is off by {off:.2e} of {scale:.2e}")


class Optimiser:
    """AdamW as the table's trainings have it (together.py): clipped at 1, betas 0.9 and 0.95."""

    def __init__(self, net: Supernet, passes: Passes, lr: float, weight_decay: float = 0.1):
        self.passes, self.lr = passes, lr
        self.inner = torch.optim.AdamW(
            [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in grouped(net, (), 1.0, weight_decay).groups], lr=lr,
            betas=(0.9, 0.95))

    def step(self, factor: float, candidates: Sequence[Any]) -> None:
        """One step on the mean of the candidates' gradients."""
        for candidate in candidates:
            self.passes.add(candidate)
        if len(candidates) > 1:
            torch._foreach_div_(self.passes.grads(), float(len(candidates)))
        torch.nn.utils.clip_grad_norm_(self.passes.parameters, 1.0)
        for group in self.inner.param_groups:
            group["lr"] = self.lr * factor
        self.inner.step()
        self.passes.clear()

    def forget(self) -> None:
        for state in self.inner.state.values():
            for value in state.values():
                value.zero_()


class Measuring:
    """The supernet of one task with its data on the device."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.task = args, parse(TASKS[args.task][0])
        self.net = archdsl.load(str(SPECS[args.arms])).supernet(variant=args.task, seed=args.seed, device=args.device).train()
        space = self.net.space
        self.candidates: list[Any] = [space.at(i) for i in range(space.size)]
        chosen = range(space.size) if args.only is None else sorted({i * space.size // args.only for i in range(args.only)})
        self.asked = list(chosen)
        self.valid = [self._on(self.task.batch("valid", 0, args.batches * 4 * BATCH))]
        self.passes = Passes(self.net, *self._train(0))

    def _on(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return batch[self.task.inputs[0].name].to(self.args.device), batch["targets"].to(self.args.device)

    def _train(self, index: int) -> tuple[Tensor, Tensor]:
        return self._on(self.task.batch("train", index, self.args.batch, self.args.seed))

    def train(self) -> None:
        steps, start = self.args.steps, time.perf_counter()
        optimiser, factor = Optimiser(self.net, self.passes, self.args.lr), schedule("cosine", steps, max(1, steps // 10))
        drawn = {c.key: c for c in self.candidates}
        for i in range(steps):
            self.passes.take(*self._train(i))
            told = (i + 1) * 10 // steps > i * 10 // steps
            chosen = [drawn[c.key] for c in fair(self.net, i, COUNT, self.args.seed)]
            if told:  # the step clears it
                loss = self._loss(chosen)
                print(f"step {i + 1}: loss {loss:.3f} of {COUNT} candidates, {time.perf_counter() - start:.0f} s", flush=True)
            optimiser.step(factor(i), chosen)
        if not all(bool(p.isfinite().all()) for p in self.net.parameters()):
            raise SystemExit("the supernet's training diverged: its weights are not finite")

    def _loss(self, chosen: Sequence[Any]) -> float:
        with torch.no_grad():
            return sum(float(cross_entropy(self.net.run(c, self.passes.tokens), self.passes.targets)) for c in chosen) / len(chosen)

    def measure(self) -> dict[str, list[float]]:
        """Of each candidate that is asked for, as it is."""
        return shown([self._measured(n) for n in self.asked])

    def _measured(self, number: int) -> Tensor:
        self.net.set(self.candidates[number])
        return measured(self.net, self.valid)

    def tune(self, steps: int) -> dict[str, list[float]]:
        """Of each after steps of its own."""
        kept = [p.detach().clone() for p in self.passes.parameters]
        batches = [self._train(self.args.steps + i) for i in range(steps)]
        optimiser, found = Optimiser(self.net, self.passes, self.args.tune_lr), []
        for number in self.asked:
            for i, batch in enumerate(batches):
                self.passes.take(*batch)
                optimiser.step(1 - i / steps, [self.candidates[number]])
            found.append(self._measured(number))
            with torch.no_grad():
                torch._foreach_copy_(self.passes.parameters, kept)
            optimiser.forget()
        return shown(found)


def shown(found: Sequence[Tensor]) -> dict[str, list[float]]:
    accuracy, loss = torch.stack(list(found)).T.tolist()
    return {"accuracy": [round(v, 5) for v in accuracy], "loss": [round(v, 5) for v in loss]}


def made(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    args.o.mkdir(parents=True, exist_ok=True)
    whole = Measuring(args)
    on_card = args.device.startswith("cuda")
    if on_card:
        whole.passes.record(whole.candidates)
        print(f"{len(whole.candidates)} passes recorded, {time.perf_counter() - start:.0f} s", flush=True)
    whole.train()
    row = {"task": args.task, "arms": args.arms, "seed": args.seed, "steps": args.steps, "archdsl": VERSION, "numbers": whole.asked,
           "device": torch.cuda.get_device_name() if on_card else "cpu", "values": {"inherited": whole.measure()}}
    written(args.o, row, start)
    for steps in args.tune:
        row["values"][f"tuned {steps}"] = whole.tune(steps)
        written(args.o, row, start)


def written(folder: Path, row: dict[str, Any], start: float) -> None:
    (folder / f"{row['task']}-{row['arms']}-{row['seed']}.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
    last = list(row["values"])[-1]
    print(f"{row['task']}, {row['arms']} arms: {last} of {len(row['numbers'])} candidates, {time.perf_counter() - start:.0f} s", flush=True)


def merged(args: argparse.Namespace) -> None:
    rows = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(args.o.glob("*.json"))]
    args.table.write_bytes(gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{args.table}: " + ", ".join(f"{r['task']} {r['arms']} ({', '.join(r['values'])})" for r in rows))


def parser() -> argparse.ArgumentParser:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--task", choices=TASKS, default="mqar")
    ask.add_argument("--arms", choices=SPECS, default="shared")
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ask.add_argument("--steps", type=int, default=2500)
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--batch", type=int, default=BATCH)
    ask.add_argument("--batches", type=int, default=4, help="of 256 examples, for each evaluation")
    ask.add_argument("--tune", type=int, nargs="*", default=[20], metavar="STEPS", help="of each candidate's own, each number a variant")
    ask.add_argument("--tune-lr", type=float, default=1e-3)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--only", type=int, help="so many candidates, spread over the space")
    ask.add_argument("--merge", action="store_true")
    ask.add_argument("--table", type=Path, default=INHERITED)
    ask.add_argument("-o", type=Path, default=Path("build/inherited"))
    return ask


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    merged(args) if args.merge else made(args)


if __name__ == "__main__":
    main()
