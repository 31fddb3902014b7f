"""Training steps, forward and backward in bf16, of models of 340 to 375 million weights at B 8, T 2048 and B 2, T 8192, beside their peers.

    python benchmarks/gpu_training.py [--only 'Llama.*ours'] [--tiny --device cpu]

Weights are bf16 on both sides, the loss is the cross-entropy of the next token. Ours is built with its loss and compiled by layer, and runs as it is
and, "recorded", as one CUDA graph of forward and backward pass, which the processor launches as a whole; transformers runs eager and compiled whole;
flash-linear-attention runs its own kernels with the fastest of its configurations, which are compiled side by side and timed for 15 ms here, so that
its first step takes less than its users wait for. Printed: seconds from the built model to the end of its first step, the median of further ones,
tokens a second, the greatest memory, and the share of 989 TFLOP/s that the arithmetic of matrix products and attention alone makes up.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from archdsl.tasks.model import IGNORE
from benchmarks.gpu_common import Rows, median, ms, options, peak_gib, quiet, ratio, seconds
from benchmarks.gpu_models import Pair, for_training
from benchmarks.gpu_tuning import tuned_at_once

PEAK = 989e12
SHAPES = ((8, 2048), (2, 8192))
MEMORY = 0.65
"""Of what compiled layers would keep, in further rows."""
Made = tuple[Any, Callable[[torch.Tensor], torch.Tensor]]
"""A model and its loss."""


def ours(pair: Pair, device: str, memory: float | None = None) -> Made:
    """Compiled by layer."""
    model = pair.ours(device, torch.bfloat16, loss="cross_entropy").train()
    archdsl.compile_layers(model, memory=memory)
    return model, lambda tokens: model(tokens, F.pad(tokens[:, 1:], (0, 1), value=IGNORE))


def peer(pair: Pair, device: str, compiled: bool) -> Made:
    model = pair.theirs(device, torch.bfloat16).train()
    run = torch.compile(model) if compiled else model
    return model, lambda tokens: run(input_ids=tokens, labels=tokens).loss


class Steps:
    """Forward and backward passes of one batch; recorded: the first call goes op by op and is recorded then, the others replay it."""

    def __init__(self, model: Any, loss: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, record: bool):
        self.model, self.loss, self.tokens, self.record = model, loss, tokens, record
        self.graph: torch.cuda.CUDAGraph | None = None
        self.found = torch.zeros(())

    def __call__(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        if self.record:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._run()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._run()
        else:
            self._run()

    def _run(self) -> None:
        loss = self.loss(self.tokens)
        loss.backward()
        self.found = loss.detach()
        for p in self.model.parameters():
            p.grad = None


def measure(made: Callable[[], Made], pair: Pair, shape: tuple[int, int], device: str, repeats: int, vocab: int, record: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    model, loss = made()
    step = Steps(model, loss, torch.randint(0, vocab, shape, device=device), record)
    memory = []
    first = seconds(lambda: memory.append(peak_gib(step, device)), device)  # of a recorded step, before it is one
    taken = median(step, device, repeats, 2)
    if record:
        expected = loss(step.tokens).item()
        assert abs(step.found.item() - expected) < 1e-2 * expected, (step.found.item(), expected)
    else:
        memory = [peak_gib(step, device)]
    needed = pair.flops(model, *shape) if hasattr(model, "definition") else pair.flops(pair.ours("meta", torch.bfloat16), *shape)
    return {"first step, s": f"{first:.1f}", "step, ms": ms(taken), "tokens/s": f"{shape[0] * shape[1] / taken:,.0f}",
            "peak, GiB": "" if memory[0] is None else f"{memory[0]:.1f}", "MFU": f"{needed / taken / PEAK:.1%}", "_seconds": taken}


def main() -> None:
    args = options(__doc__)
    quiet()
    rows = Rows("training", args)
    shapes = ((2, 16), (1, 24)) if args.tiny else SHAPES
    for name, pair in for_training(args.tiny).items():
        kinds: dict[str, Callable[[], Any]] = {"ours": lambda p=pair: ours(p, args.device),
                                               f"ours, memory = {MEMORY}": lambda p=pair: ours(p, args.device, MEMORY)}
        if args.device == "cuda":
            kinds |= {f"{kind}, recorded": made for kind, made in kinds.items()}
        if pair.names == "fla":
            kinds["fla"] = lambda p=pair: peer(p, args.device, False)
        elif pair.peer is not None:
            kinds |= {"transformers": lambda p=pair: peer(p, args.device, False), "transformers compiled": lambda p=pair: peer(p, args.device, True)}
        for shape in shapes:
            mine: list[float] = []
            for kind, made in kinds.items():
                def row(made: Callable[[], Any] = made, kind: str = kind, shape: tuple[int, int] = shape, pair: Pair = pair,
                        mine: list[float] = mine) -> dict[str, Any]:
                    with tuned_at_once() if kind == "fla" else nullcontext():
                        cells = measure(made, pair, shape, args.device, args.repeats, pair.knobs["vocab"], kind.endswith("recorded"))
                    taken = cells.pop("_seconds")
                    if kind.startswith("ours"):
                        mine.append(taken)
                    return {**cells, "ours / it": ratio(min(mine), taken) if mine and not kind.startswith("ours") else ""}

                rows.measure(f"Training step, B {shape[0]}, T {shape[1]}", f"{name}, {kind}", row)


if __name__ == "__main__":
    main()
