"""Compiled specs against timm and transformers: eager and torch.compile, forward and forward + backward, paired and interleaved.

    python benchmarks/parity_speed.py [--pairs 15] [--threads 2] [--only vit] [--modes eager,compile] [--markdown FILE]

Each pair runs ours and the peer one after the other, in alternating order; the ratio is ours / peer pair by pair. Printed: the medians,
the geometric mean of the ratios and the lower bound of its 95% confidence interval (Student's t on the logarithms). A bound above 1.02 means slower.
"""
from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import archdsl

T95 = {5: 2.571, 7: 2.365, 10: 2.228, 12: 2.179, 15: 2.131, 20: 2.086, 30: 2.042}


def vit() -> tuple[Any, Any, Any]:
    import timm

    return archdsl.load("specs/vision/vit.arch").build("deit_small"), timm.create_model("deit_small_patch16_224"), torch.randn(2, 3, 224, 224)


def convnext() -> tuple[Any, Any, Any]:
    import timm

    return archdsl.load("specs/vision/convnext.arch").build("tiny"), timm.create_model("convnext_tiny"), torch.randn(2, 3, 224, 224)


def llama() -> tuple[Any, Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    peer = LlamaForCausalLM(LlamaConfig(vocab_size=8000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
                                        num_key_value_heads=4, use_cache=False))
    ours = archdsl.load("specs/language/llama.arch").build(vocab=8000, d=512, depth=8, heads=8, kv_heads=4, hidden=1408)
    return ours, peer, torch.randint(0, 8000, (2, 256))


def gpt2() -> tuple[Any, Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    peer = GPT2LMHeadModel(GPT2Config(vocab_size=8000, n_embd=512, n_layer=8, n_head=8, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
                                      use_cache=False))
    ours = archdsl.load("specs/language/gpt2.arch").build(vocab=8000, d=512, depth=8, heads=8, drop=0)
    return ours, peer, torch.randint(0, 8000, (2, 256))


MODELS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "vit (deit_small, B 2)": vit,
    "convnext (tiny, B 2)": convnext,
    "llama (d 512, 8 layers, B 2, T 256)": llama,
    "gpt2 (d 512, 8 layers, B 2, T 256)": gpt2,
}


def tensor(y: Any) -> torch.Tensor:
    return y.logits if hasattr(y, "logits") else y


def forward(model: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        model(x)


def both(model: Any, x: torch.Tensor) -> None:
    tensor(model(x)).float().square().mean().backward()
    for p in model.parameters():
        p.grad = None


def clock(step: Callable[[Any, Any], None], model: Any, x: torch.Tensor) -> float:
    start = time.perf_counter()
    step(model, x)
    return time.perf_counter() - start


def compare(ours: Any, peer: Any, x: torch.Tensor, step: Callable[[Any, Any], None], pairs: int) -> tuple[float, float, float, float]:
    """(median of ours, of the peer, geometric mean of the ratios, lower 95% bound)."""
    for m in (ours, peer, ours, peer):
        step(m, x)
    gc.collect()
    gc.disable()
    a, b = [], []
    for i in range(pairs):
        for m, times in ((ours, a), (peer, b)) if i % 2 else ((peer, b), (ours, a)):
            times.append(clock(step, m, x))
    gc.enable()
    logs = [math.log(p / q) for p, q in zip(a, b)]
    mean, se = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(pairs)
    t = T95[min(T95, key=lambda n: abs(n - pairs))]
    return statistics.median(a), statistics.median(b), math.exp(mean), math.exp(mean - t * se)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = ["| model | mode | pass | ours, ms | peer, ms | ratio | lower 95% |", "|---|---|---|---|---|---|---|"]
    print(f"torch {torch.__version__}, {args.threads} threads, {args.pairs} pairs\n" + "\n".join(rows), flush=True)
    for name, make in MODELS.items():
        if args.only not in name:
            continue
        for mode in args.modes.split(","):
            torch._dynamo.reset()
            ours, peer, x = make()
            for label, step in (("forward", forward), ("forward+backward", both)):
                ours.train(step is both), peer.train(step is both)
                a, b = (torch.compile(ours), torch.compile(peer)) if mode == "compile" else (ours, peer)
                mine, theirs, ratio, low = compare(a, b, x, step, args.pairs)
                rows.append(f"| {name} | {mode} | {label} | {mine * 1e3:.1f} | {theirs * 1e3:.1f} | {ratio:.3f} | {low:.3f} |")
                print(rows[-1], flush=True)
    if args.markdown:
        with open(args.markdown, "w") as f:
            f.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
