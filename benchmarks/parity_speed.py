"""Compiled specs against timm, transformers and spandrel: eager and torch.compile, forward and forward + backward, paired and interleaved.

    python benchmarks/parity_speed.py [--pairs 15] [--threads 2] [--only vit,llama] [--batches 1,8] [--modes eager,compile] [--markdown FILE]

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
from itertools import product
from typing import Any

import torch

import archdsl

T95 = {5: 2.571, 7: 2.365, 10: 2.228, 12: 2.179, 15: 2.131, 20: 2.086, 30: 2.042}


LANGUAGE = {"vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
KNOBS = {"vocab": 8000, "d": 512, "depth": 8, "heads": 8}


def spec(path: str, *args: Any, **knobs: Any) -> Any:
    return archdsl.load(f"specs/{path}.arch").build(*args, **knobs)


def timm_model(name: str) -> Any:
    import timm

    return timm.create_model(name)


def transformers_model(name: str, **config: Any) -> Any:
    import transformers

    kind = getattr(transformers, f"{name}Config")
    head = {"Cvt": "ForImageClassification", "GPT2": "LMHeadModel"}.get(name, "ForCausalLM")
    return getattr(transformers, f"{name}{head}")(kind(**config))


def image(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, 224, 224)


def tokens(batch: int) -> torch.Tensor:
    return torch.randint(0, 8000, (batch, 256))


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[int], torch.Tensor]]] = {
    "vit (deit_small)": (lambda: spec("vision/vit", "deit_small"), lambda: timm_model("deit_small_patch16_224"), image),
    "convnext (tiny)": (lambda: spec("vision/convnext", "tiny"), lambda: timm_model("convnext_tiny"), image),
    "llama (d 512, 8 layers, T 256)": (
        lambda: spec("language/llama", **KNOBS, kv_heads=4, hidden=1408),
        lambda: transformers_model("Llama", **LANGUAGE, num_key_value_heads=4, use_cache=False), tokens),
    "gpt2 (d 512, 8 layers, T 256)": (
        lambda: spec("language/gpt2", **KNOBS, drop=0),
        lambda: transformers_model("GPT2", vocab_size=8000, n_embd=512, n_layer=8, n_head=8, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
                                   use_cache=False), tokens),
    "swin (tiny)": (lambda: spec("vision/swin", "tiny"), lambda: timm_model("swin_tiny_patch4_window7_224"), image),
    "nextvit (small)": (lambda: spec("vision/nextvit", "small"), lambda: timm_model("nextvit_small"), image),
    "efficientformer (l1)": (lambda: spec("vision/efficientformer", "l1"), lambda: timm_model("efficientformer_l1"), image),
    "cvt (13)": (lambda: spec("vision/cvt", "cvt_13"), lambda: transformers_model("Cvt", num_labels=1000), image),
    "gemma2 (d 512, 8 layers, T 256)": (
        lambda: spec("language/gemma2", **KNOBS, kv_heads=4, head_dim=64, hidden=1408, query_width=64, reach=128),
        lambda: transformers_model("Gemma2", **LANGUAGE, num_key_value_heads=4, head_dim=64, query_pre_attn_scalar=64, sliding_window=128,
                                   attn_implementation="eager", use_cache=False), tokens),
    "olmo2 (d 512, 8 layers, T 256)": (
        lambda: spec("language/olmo2", **KNOBS, kv_heads=8, hidden=1408), lambda: transformers_model("Olmo2", **LANGUAGE, use_cache=False), tokens),
    "hat (small, x2, 64 x 64)": (lambda: spec("vision/hat", "small_x2", drop_path=0), lambda: hat(), lambda batch: torch.rand(batch, 3, 64, 64)),
}


def hat() -> Any:
    from spandrel.architectures.HAT import HAT

    return HAT(img_size=64, embed_dim=144, depths=[6] * 6, num_heads=[6] * 6, window_size=16, compress_ratio=24, squeeze_factor=24, conv_scale=0.01,
               overlap_ratio=0.5, mlp_ratio=2, upscale=2, upsampler="pixelshuffle", num_feat=64, drop_path_rate=0.0)


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
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = ["| model | batch | mode | pass | ours, ms | peer, ms | ratio | lower 95% |", "|---|---|---|---|---|---|---|---|"]
    print(f"torch {torch.__version__}, {args.threads} threads, {args.pairs} pairs\n" + "\n".join(rows), flush=True)
    logs = []
    chosen = [row for row in MODELS.items() if any(part in row[0] for part in args.only.split(","))]
    for (name, (make, make_peer, inputs)), batch, mode in product(chosen, map(int, args.batches.split(",")), args.modes.split(",")):
        torch._dynamo.reset()
        ours, peer, x = make(), make_peer(), inputs(batch)
        for label, step in (("forward", forward), ("forward+backward", both)):
            ours.train(step is both), peer.train(step is both)
            a, b = (torch.compile(ours), torch.compile(peer)) if mode == "compile" else (ours, peer)
            mine, theirs, ratio, low = compare(a, b, x, step, args.pairs)
            logs.append(math.log(ratio))
            rows.append(f"| {name} | {batch} | {mode} | {label} | {mine * 1e3:.1f} | {theirs * 1e3:.1f} | {ratio:.3f} | {low:.3f} |")
            print(rows[-1], flush=True)
    rows.append(f"\nGeometric mean of the ratios: {math.exp(statistics.mean(logs)):.3f}.")
    print(rows[-1])
    if args.markdown:
        with open(args.markdown, "w") as f:
            f.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
