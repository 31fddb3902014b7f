"""Sequence mixers of the library: the step form far into a sequence, the parallel form along its length and against the steps, and models of two
of them against transformers and a plain recurrence.

    python benchmarks/sequence.py [--only Mamba,GLA] [--threads 1] [--repeats 9] [--markdown FILE]

What is compared runs in turns in one process. Times are CPU times of the process, so that a busy machine counts less. Ratios are medians over the
turns, and behind each the bound, on the side of its limit, that holds with 95%. On more than one thread CPU times are no durations: only ratios of
forms that share them alike still say something.
"""
from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from archdsl.modules import library_exports
from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import load
from benchmarks.parity_speed import both
from benchmarks.tables import Table, ms, show

WIDTH = 256
# Mixers of constant state as they stand in a model of WIDTH features: heads of 64, and the sizes that their papers use for the rest.
MIXERS = {
    "Mamba": "Mamba()(x)", "Mamba2": "Mamba2()(x)", "LinearAttention": "LinearAttention(4)(x)", "Retention": "Retention(4)(x)",
    "GatedLinearAttention": "GatedLinearAttention(4)(x)", "DeltaNet": "DeltaNet(4)(x)", "GatedDeltaNet": "GatedDeltaNet(4)(x)",
    "GatedSlotAttention": "GatedSlotAttention(4)(x)", "RWKV6": "RWKV6()(x)", "RWKV7": "RWKV7()(x)", "RWKV4": "RWKV4()(x)",
    "linear_scan": "linear_scan(sigmoid(x), x)", "Aaren": "Aaren(4)(x)",
    "LMU": "LMU(64, theta = 128)(x)", "ShortConv": "ShortConv()(x)", "causal_conv_dense": "causal_conv_dense(x, taps)", "lif": "lif(x)",
}
NO_PARALLEL = {"lif"}
"""Their recurrence is not linear: one position after the other in every form."""
NEAR, FAR = 100, 100_000
STEPS = 32
LENGTHS = (1024, 2048, 4096, 8192, 16_384)
AT = 2048


def spec(name: str) -> archdsl.Spec:
    """A model that is the mixer alone."""
    exports = library_exports()
    uses = f"use {exports[name]} {{ {name} }}\n" if name in exports else ""
    taps = f"  param taps: [{WIDTH}, {WIDTH}, 4] = normal(std = 0.02)\n" if "taps" in MIXERS[name] else ""
    results = "y, _" if name == "RWKV7" else "y"
    head = f"model M()(x: [B = 1, T = 16, {WIDTH}]) -> y: [B, T, {WIDTH}] stream T"
    return archdsl.loads(f"{uses}{head} {{\n{taps}  {results} = {MIXERS[name]}\n  return y\n}}\n", f"{name}.arch")


def turns(runs: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """CPU seconds of each, run in turns after one that does not count, every other time backwards: none always follows the same one."""
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    for i in range(repeats):
        for run, taken in [*zip(runs, times)][::-1 if i % 2 else 1]:
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    return times


def keep_memory() -> None:
    """Has glibc keep what is freed, as training under tcmalloc or jemalloc does: else each tensor above 32 MiB is new pages, whoever computes it, and
    long sequences seem to cost more. Elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def bounded(a: Sequence[float], b: Sequence[float], most: bool = False) -> str:
    """The median of a / b, pair by pair, and its lower bound, or its upper one: the order statistic beyond which the true median lies in at most 5%
    of all cases, whatever the distribution; of fewer than five pairs the extreme one."""
    ratios = sorted((p / q for p, q in zip(a, b, strict=True)), reverse=most)
    n, index, beyond = len(ratios), 0, 1
    while beyond + math.comb(n, index + 1) <= 0.05 * 2**n:
        index += 1
        beyond += math.comb(n, index)
    return f"{statistics.median(ratios):.2f} ({'≤' if most else '≥'} {ratios[index]:.2f})"


def inputs(length: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(length))


# ---------------------------------------------------------------- mixers
def covered(models: dict[str, archdsl.Spec]) -> set[str]:
    """The recurrences that the mixers are made of."""
    return {node.op for s in models.values() for graph in _graphs(s.elaborate().graph) for node in graph.nodes if node.op in RECURRENCES}


def _graphs(graph: Any) -> Any:
    yield graph
    for child in graph.children.values():
        yield from _graphs(child)


def mixer(name: str, made: archdsl.Spec, repeats: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(row of the steps, row of the parallel form)."""
    step, extend, whole = (made.build(form=form).eval() for form in ("step", "extend", "parallel"))
    if step.__dict__["_streamed"].has_length:
        raise SystemExit(f"{name} keeps more the longer the sequence is")
    for m in (step, extend):
        m.load_state_dict(whole.state_dict())
    with torch.no_grad():
        _, near = extend(inputs(NEAR), extend.init_state(1))
        far = {k: torch.full_like(v, FAR) if k == "position" else v for k, v in near.items()}
        xs = inputs(STEPS).split(1, 1)

        def steps(state: dict[str, torch.Tensor]) -> None:
            for x in xs:
                _, state = step(x, state)

        early, late = turns([lambda: steps(near), lambda: steps(far)], 5 * repeats)
        bytes_ = sum(v.numel() * v.element_size() for v in near.values())
        first = (name, f"{bytes_ / 1024:,.0f}", us(early), us(late), bounded(late, early, most=True))
        given = {n: inputs(n) for n in LENGTHS}

        def positions(x: torch.Tensor) -> None:
            """As many of each length: what disturbs the processor for a moment counts alike."""
            for _ in range(LENGTHS[-1] // x.shape[1]):
                whole(x)

        *lengths, loop = turns([*(lambda x=x: positions(x) for x in given.values()), lambda: steps(near)], repeats)
        per_token = [[t / LENGTHS[-1] for t in taken] for taken in lengths]
        worst = max(per_token[1:], key=lambda longer: statistics.median(p / q for p, q in zip(longer, per_token[0])))
        gain = bounded([t / STEPS for t in loop], per_token[LENGTHS.index(AT)])
    (training,) = turns([lambda: both(whole, given[AT].requires_grad_())], repeats)
    shown = [f"{1e6 * statistics.median(t):.1f}" for t in per_token]
    return first, (name, *shown, bounded(worst, per_token[0], most=True), gain, ms(statistics.median(training)))


def us(times: list[float]) -> str:
    return f"{1e6 * statistics.median(times) / STEPS:.0f}"


# ---------------------------------------------------------------- models
def mamba2(d: int, **options: Any) -> tuple[Any, Any]:
    """(the spec, transformers' model) of the same sizes and weights."""
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.Mamba2Config(vocab_size=1000, hidden_size=d, num_hidden_layers=2, state_size=128, n_groups=1, head_dim=64, expand=2,
                                       num_heads=d // 32, tie_word_embeddings=True, residual_in_fp32=False, pad_token_id=None)
    return paired("language/mamba2", transformers.Mamba2ForCausalLM(config), "hf", options, vocab=1000, d=d, depth=2)


def plain_mamba2(d: int) -> tuple[Any, Any]:
    return mamba2(d, kernels="reference")


def gla(d: int) -> tuple[Any, Any]:
    """(the spec, flash-linear-attention's layout over the recurrence written out) of the same sizes and weights."""
    from tests.parity.fla_layout import Decoder, GatedLinearAttention

    mixers: list[Any] = [GatedLinearAttention(d, 4, 1e-6) for _ in range(2)]
    return paired("language/gla", Decoder(1000, d, 2 * d, mixers, 1e-6), "fla", vocab=1000, d=d, depth=2, heads=4, hidden=2 * d)


def paired(path: str, theirs: Any, source: str, options: dict[str, Any] | None = None, **knobs: Any) -> tuple[Any, Any]:
    ours = archdsl.load(f"specs/{path}.arch").build(knobs=knobs, **(options or {}))
    archdsl.import_weights(ours, theirs.state_dict(), source=source)
    return ours.train(), theirs.train()


MODELS: dict[str, tuple[str, int, Callable[[int], tuple[Any, Any]]]] = {
    "Mamba-2": ("transformers' Mamba2ForCausalLM", WIDTH, mamba2), "Mamba-2 130m": ("transformers' Mamba2ForCausalLM", 768, mamba2),
    "Mamba-2 in plain torch": ("transformers' Mamba2ForCausalLM", WIDTH, plain_mamba2),
    "Mamba-2 130m in plain torch": ("transformers' Mamba2ForCausalLM", 768, plain_mamba2),
    "GLA": ("the recurrence, a position at a time", WIDTH, gla),
}


def against(name: str, repeats: int) -> tuple[str, ...]:
    """The row of a model: forward over AT tokens and backward from given gradients of the logits, which agree."""
    peer, width, make = MODELS[name]
    ours, theirs = make(width)
    x = torch.randint(0, 1000, (1, AT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (getattr(y, "logits", y) for y in (ours(x), theirs(x)))
    apart = float((a - b).abs().max() / b.abs().max())
    if not apart <= 1e-3:
        raise SystemExit(f"{name} and {peer} differ by {apart:.1e}")
    given = torch.randn(b.shape, generator=torch.Generator().manual_seed(1))
    mine, others = turns([lambda: there_and_back(ours, x, given), lambda: there_and_back(theirs, x, given)], repeats)
    return name, f"{width}", peer, ms(statistics.median(mine)), ms(statistics.median(others)), bounded(others, mine), f"{apart:.0e}"


def there_and_back(model: Any, x: torch.Tensor, given: torch.Tensor) -> None:
    y = model(x)
    getattr(y, "logits", y).backward(given)
    for p in model.parameters():
        p.grad = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--markdown")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_memory()
    load()
    wanted = [name for name in (*MIXERS, *MODELS) if not args.only or name in args.only.split(",")]
    specs = {name: spec(name) for name in MIXERS}
    constant = {name for name, r in RECURRENCES.items() if r.state and not r.grows}
    if missing := constant - covered(specs):
        raise SystemExit(f"no mixer here uses {', '.join(sorted(missing))}")
    rows = [mixer(name, made, args.repeats) for name, made in specs.items() if name in wanted]
    models = [against(name, args.repeats) for name in MODELS if name in wanted]
    shared = f"Width {WIDTH}, batch 1, float32, {args.threads} thread(s), CPU time, medians of runs in turns; freed memory is kept. "
    show([
        Table("Steps far into a sequence", shared + f"One token from the state behind {NEAR} tokens and behind {FAR:,}. Limit: 1.1.",
              ("mixer", "state, KiB", f"at {NEAR}, us", f"at {FAR:,}, us", "ratio"), [steps for steps, _ in rows]),
        Table("All positions at once", shared + "Microseconds for each token at each length, without gradients; the largest by that of the shortest "
              f"(limit: 1.15); how much longer as many steps take as {AT:,} tokens (limit: 10); forward and backward of these.",
              ("mixer", *(f"{n:,}" for n in LENGTHS), "largest / first", "steps / parallel", "training, ms"),
              [whole for (name, *_), whole in rows if name not in NO_PARALLEL]),
        Table("Models against others",
              f"Batch 1, float32, {args.threads} thread(s), CPU time, medians of runs in turns; freed memory is kept. Two layers, 1,000 tokens in "
              f"the vocabulary, forward and backward over {AT:,} positions from given gradients of the logits, the same weights. Limit: 3.",
              ("model", "width", "against", "ours, ms", "theirs, ms", "ratio", "logits differ by"), models),
    ])


if __name__ == "__main__":
    main()
