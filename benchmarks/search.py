"""How fast candidates of a space come: `python benchmarks/search.py [--markdown FILE]`.

The space: 24 layers of three knobs each, with a state, so that `params`, `macs` and `state_bytes` all mean something. Optuna draws the same
decisions in the same run; it knows no architecture, so its numbers are for the drawing alone.
"""
from __future__ import annotations

import sys
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, show

TEXT = """use std.channel {{ SwiGLU }}
use std.embed {{ Rope, TokenEmbedding }}
use std.linear {{ Linear }}
use std.mixer {{ Attention }}
use std.norm {{ RMSNorm }}
use std.recurrent {{ GatedLinearAttention, Retention }}
use std.residual {{ Pre }}

model LM(d: int = {d}, vocab: int = {vocab}, depth: int = 24)(tokens: int[B = 1, T = 256] in 0..<vocab) -> logits: [B, T, vocab] stream T {{
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {{
    choose mixer {{
      attention(heads: int = 4 in {{2, 4, 8}}) => Attention(heads, mask = causal, positions = Rope())
      gla(heads: int = 4 in {{2, 4}}) => GatedLinearAttention(heads, rank = 4)
      retention(heads: int = 4 in {{2, 4}}) => Retention(heads)
    }} = attention
    x = Pre(RMSNorm(), mixer)(x) as mix
    x = Pre(RMSNorm(), Wide())(x) as mlp
  }}
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}}

block Wide(ratio: int = 4 in {{2, 3, 4}})(x: [..., d]) -> [..., d] {{ return SwiGLU(ratio * d)(x) as _ }}
"""
FIGURES = ("params", "macs", "state_bytes")


def rate(do: Any, count: int, rounds: int = 3) -> float:
    """Times a second of one core, the best of some rounds."""
    best = float("inf")
    for r in range(rounds):
        start = process_time()
        for i in range(count):
            do(r * count + i)
        best = min(best, process_time() - start)
    return count / best


def ours() -> list[tuple[str, ...]]:
    from archdsl.spec import loads

    start = process_time()
    space = loads(TEXT.format(d=512, vocab=32000)).space()
    first = space.sample(0)
    space.costs(first, FIGURES)
    cold = process_time() - start
    for seed in range(200):
        space.costs(space.sample(seed), FIGURES)
    whole = rate(lambda seed: space.costs(space.sample(seed), FIGURES), 3000)
    drawn = [space.sample(seed) for seed in range(400)]
    mutants = rate(lambda i: space.costs(space.mutate(drawn[i % 400], i), FIGURES), 300)
    crossed = rate(lambda i: space.costs(space.crossover(drawn[i % 400], drawn[(i + 7) % 400], i), FIGURES), 300)
    return [("archdsl: drawn uniformly, type-checked, costed, hashed; warm", f"{whole:,.0f}", f"{space.size:.2e} candidates, {len(first)} decisions"),
            ("archdsl: mutated, costed, hashed", f"{mutants:,.0f}", ""),
            ("archdsl: crossed, costed, hashed", f"{crossed:,.0f}", ""),
            ("archdsl: text read, space counted, one candidate; cold", f"{1 / cold:,.1f}", f"{cold:.2f} s, {space.trials.count} elaborations")]


def lowered() -> list[tuple[str, ...]]:
    """Candidates as GraphModules, and as what writing modules by hand gives: the classes of some of them, whose instances are made."""
    import torch

    from archdsl.lower.emit_python import python_source
    from archdsl.spec import loads

    spec = loads(TEXT.format(d=16, vocab=64))
    space = spec.space()
    some = [space.sample(seed) for seed in range(160)]
    for candidate in some[:40]:
        spec.build(device="meta", **candidate)
    built = rate(lambda i: spec.build(device="meta", **some[40 + i]), 40)
    written = []
    for candidate in some[:8]:
        scope: dict[str, Any] = {"__name__": "written"}
        exec(python_source(spec.build(device="meta", **candidate)), scope)
        written.append(scope["LM"])

    def make(i: int) -> None:
        with torch.device("meta"):
            written[i % len(written)]()

    made = rate(make, 40)
    told = f"{len(list(written[0]().modules()))} modules, no graph"
    return [("archdsl: lowered to torch.fx on the meta device, width 16", f"{built:,.1f}", "each new; code is written at its first call"),
            ("PyTorch: the same modules on the meta device, by constructors of written classes under `torch.device`", f"{made:,.1f}", told)]


def theirs() -> list[tuple[str, ...]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    heads = {"attention": (2, 4, 8), "gla": (2, 4), "retention": (2, 4)}

    def draw(_: int) -> None:
        trial = study.ask()
        for i in range(24):
            mixer = trial.suggest_categorical(f"layers.{i}.mixer", tuple(heads))
            trial.suggest_categorical(f"layers.{i}.mixer.{mixer}.heads", heads[mixer])
            trial.suggest_categorical(f"layers.{i}.mlp.ratio", (2, 3, 4))

    drawn = rate(draw, 60)
    return [(f"Optuna {optuna.__version__}, random sampler: the same decisions drawn, nothing else", f"{drawn:,.0f}", "in memory")]


def main() -> None:
    rows = [*ours(), *lowered(), *theirs()]
    note = "24 layers with three decisions each; figures are params, macs and state_bytes. Per second of one core. Wanted: 5,000 drawn, 200 lowered."
    show([Table("Candidates", note, ("", "a second", ""), rows)])


if __name__ == "__main__":
    main()
