"""Supernets: `python benchmarks/supernet.py [--published] [--markdown FILE]`.

A step of k candidates on a k-th of the batch each against one step of the largest at the whole batch, taken in turns, every candidate seen before (a
candidate's first step lowers it: told apart); the same where candidates differ in their operators as well, apart. And how long it takes to extract a
candidate of 100 million parameters. `--published`: in place of that, how long it takes to make the supernet of once-for-all's ResNet-50 with the bits
and grids of SimQ-NAS, without memory for its weights. With one thread (OMP_NUM_THREADS=1) CPU time is measured, with several the time that passes.
"""
from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import archdsl
from archdsl.supernet.net import Supernet
from benchmarks.tables import Table, ms, show

ROUNDS = 7
CLOCK = " of CPU time, one thread" if torch.get_num_threads() == 1 else f", {torch.get_num_threads()} threads"
SIZES = "x = Pre(RMSNorm(), Attention(heads, mask = causal))(x) as attn"
OPERATORS = """choose mixer {
    attention => Attention(heads, mask = causal)
    gla => GatedLinearAttention(4)
    mamba2 => Mamba2(state = 32, head_dim = 32)
  } = attention
  x = Pre(RMSNorm(), mixer)(x) as attn"""
ELASTIC = """
use std.channel { MLP }
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.recurrent { GatedLinearAttention }
use std.residual { Pre }
use std.ssm { Mamba2 }

block Layer(heads: int = 8 in {4, 8}, ratio: int = 4 in {1, 2, 4})(x: [B, T, d]) -> [B, T, d] {
  MIXER
  return Pre(RMSNorm(), MLP(ratio * d))(x) as mlp
}

model Elastic(vocab: int = 512, d: int = WIDTH in {HALF, WIDTH}, depth: int = DEPTH in LEAST..DEPTH)(
  tokens: int[B = 8, T = 64] in 0..<vocab,
) -> logits: [B, T, vocab] {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {
    x = Layer()(x) as layer
  }
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}
"""


def elastic(width: int, depth: int, mixer: str = SIZES) -> Supernet:
    names = {"MIXER": mixer, "WIDTH": width, "HALF": width // 2, "DEPTH": depth, "LEAST": depth // 2}
    text = ELASTIC
    for name, value in names.items():
        text = text.replace(name, str(value))
    return archdsl.loads(text).supernet()


def seconds(run: Callable[[], Any]) -> float:
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    start = clock()
    run()
    return clock() - start


def step(net: Supernet, candidates: list[Any], x: torch.Tensor) -> None:
    net.zero_grad(set_to_none=True)
    loss = net.run_each(candidates, x).logsumexp(-1).mean()
    loss.backward()


def steps(mixer: str = SIZES) -> Table:
    net = elastic(256, 8, mixer)
    x = torch.randint(512, (8, 64))
    rows = []
    for k in (2, 4, 8):
        chosen = [net.largest, net.smallest, *(net.space.sample(i) for i in range(k - 2))]
        first = seconds(lambda: step(net, chosen, x))  # noqa: B023
        several: list[float] = []
        whole: list[float] = []
        for _ in range(ROUNDS):
            whole.append(seconds(lambda: step(net, [net.largest], x)))
            several.append(seconds(lambda: step(net, chosen, x)))  # noqa: B023
        ratio = statistics.median(a / b for a, b in zip(several, whole))
        rows.append((str(k), ms(statistics.median(whole)), ms(statistics.median(several)), f"{ratio:.2f}", ms(first)))
    params = sum(p.numel() for p in net.parameters())
    about, wanted = ("of other widths and depths", "; wanted: ratio ≤ 1.3") if mixer == SIZES else (
        "of other operators too", "; each runs the arms that it has")
    note = (f"Milliseconds{CLOCK}, {params / 1e6:.1f}M parameters, 512 tokens{wanted}. The first step of "
            "a set lowers its candidates.")
    return Table(f"A step of several candidates {about}", note, ("candidates", "largest alone", "together", "ratio", "first"), rows)


def extraction() -> Table:
    net = elastic(1024, 8)
    net.extract(net.smallest)
    rows = []
    for name, candidate in (("largest", net.largest), ("half as wide", net.space.candidate({"d": 512}))):
        times = [seconds(lambda: net.extract(candidate)) for _ in range(ROUNDS)]  # noqa: B023
        params = sum(p.numel() for p in net.extract(candidate).parameters())
        rows.append((name, f"{params / 1e6:.0f}M", ms(statistics.median(times))))
    return Table("Extraction", f"Milliseconds{CLOCK} for a model of its own, weights copied; wanted: ≤ 1,000 for 100M parameters.",
                 ("candidate", "parameters", "ms"), rows)


def published() -> Table:
    model, made = archdsl.load("simq_nas").models["ResNet"], []
    rows = [("the supernet", ms(seconds(lambda: made.append(model.supernet(device="meta")))), f"{sum(p.numel() for p in made[0].parameters()):,}")]
    net: Supernet = made[0]
    for name, candidate in (("largest", net.largest), ("smallest", net.smallest), ("drawn", net.space.sample(7))):
        took = ms(seconds(lambda: net.extract(candidate)))  # noqa: B023
        params = sum(p.numel() for p in net.extract(candidate).parameters())
        if params != net.space.costs(candidate, ["params"])["params"]:
            raise ValueError(f"{name}: {params} parameters are not those that are counted")
        rows.append((name, took, f"{params:,}"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return Table("Once-for-all's ResNet-50", f"Milliseconds{CLOCK}, on the meta device; {peak:.1f} GB of memory at most.",
                 ("model", "ms", "parameters"), rows)


if __name__ == "__main__":
    show([published()] if "--published" in sys.argv else [steps(), steps(OPERATORS), extraction()])
