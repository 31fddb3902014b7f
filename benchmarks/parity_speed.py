"""Compiled specs against timm, transformers and spandrel: eager and torch.compile, forward and forward + backward, paired and interleaved.

    python benchmarks/parity_speed.py [--pairs 15] [--threads 2] [--only vit,llama] [--batches 1,8] [--modes eager,compile] [--minutes 9]
                                      [--passes forward,forward+backward] [--kept benchmarks/parity.json] [--again] [--markdown FILE]

Each pair runs ours and the peer one after the other, in alternating order; the ratio is ours / peer pair by pair. Printed: the medians,
the geometric mean of the ratios and the lower bound of its 95% confidence interval (Student's t on the logarithms). A bound above 1.02 means slower.

It can be run in pieces: each row is kept in a file as soon as it is there, and is not measured again on the same machine with the same versions,
threads and pairs (`--again`: it is). `--minutes`: no further model is begun after so many; the tables hold all rows that are kept.
"""
from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from benchmarks.tables import Table, show

ROOT = Path(__file__).resolve().parents[1]
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


def small_image(batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, 64, 64)


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
    "hat (small, x2, 64 x 64)": (lambda: spec("vision/hat", "small_x2", drop_path=0), lambda: hat([6] * 6), small_image),
    "hat (small, x2, a group of 2, 64 x 64)": (lambda: spec("vision/hat", "small_x2", depths=[2], drop_path=0), lambda: hat([2]), small_image),
}


def hat(depths: list[int]) -> Any:
    """The peer has the mask of shifted windows made beforehand: inductor of torch 2.11 writes C++ for it that does not compile."""
    from spandrel.architectures.HAT import HAT

    peer = HAT(img_size=64, embed_dim=144, depths=depths, num_heads=[6] * len(depths), window_size=16, compress_ratio=24, squeeze_factor=24,
               conv_scale=0.01, overlap_ratio=0.5, mlp_ratio=2, upscale=2, upsampler="pixelshuffle", num_feat=64, drop_path_rate=0.0)
    mask = peer.calculate_mask((64, 64), dtype=torch.float32)
    peer.calculate_mask = lambda *args, **kw: mask
    return peer


def tensor(y: Any) -> torch.Tensor:
    return y.logits if hasattr(y, "logits") else y


def forward(model: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        model(x)


def both(model: Any, x: torch.Tensor) -> None:
    tensor(model(x)).float().square().mean().backward()
    for p in model.parameters():
        p.grad = None


PASSES: dict[str, Callable[[Any, torch.Tensor], None]] = {"forward": forward, "forward+backward": both}


def clock(step: Callable[[Any, Any], None], model: Any, x: torch.Tensor) -> float:
    start = time.perf_counter()
    step(model, x)
    return time.perf_counter() - start


def settle(model: Any, x: torch.Tensor, step: Callable[[Any, Any], None]) -> None:
    """Runs a model twice, and on until a run compiles nothing. Raises SystemExit where the tenth run still does: such times are of the compiler."""
    step(model, x)
    for _ in range(9):
        before = counters["stats"]["unique_graphs"]
        step(model, x)
        if counters["stats"]["unique_graphs"] == before:
            return
    raise SystemExit("each of ten runs was compiled anew")


def compare(ours: Any, peer: Any, x: torch.Tensor, step: Callable[[Any, Any], None], pairs: int) -> tuple[float, float, float, float]:
    """(median of ours, of the peer, geometric mean of the ratios, lower 95% bound)."""
    for m in (ours, peer):
        settle(m, x, step)
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


class Kept:
    """The rows measured so far, in a file: those of one machine, with the same versions, threads and pairs."""

    def __init__(self, path: Path, conditions: str):
        self.path, self.conditions = path, conditions
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.rows: dict[str, list[Any]] = found.get("rows", {}) if found.get("conditions") == conditions else {}

    def add(self, key: tuple[str, ...], figures: tuple[float, ...]) -> None:
        self.rows["; ".join(key)] = [*figures, f"{os.getloadavg()[0]:.1f}"]
        self.path.write_text(json.dumps({"conditions": self.conditions, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")

    def tables(self) -> list[Table]:
        order = {name: i for i, name in enumerate(MODELS)}
        keys = sorted((tuple(k.split("; ")) for k in self.rows), key=lambda k: (order.get(k[0], 99), k[2] != "eager", int(k[1]), k[3]))
        rows, logs = [], []
        for key in keys:
            mine, theirs, ratio, low, load = self.rows["; ".join(key)]
            logs.append(math.log(ratio))
            rows.append((*key, f"{mine * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{ratio:.3f}", f"{low:.3f}", load, "yes" if low <= 1.02 else "no"))
        note = (f"{self.conditions}. Limits: a lower bound of 1.02 each, a geometric mean of 1.00; {len(rows)} of {len(MODELS) * 8} rows measured, "
                f"geometric mean {math.exp(statistics.mean(logs)) if logs else math.nan:.3f}.")
        header = ("model", "batch", "mode", "pass", "ours, ms", "peer, ms", "ratio", "lower 95%", "load", "within")
        return [Table("Ours by the peer", note, header, rows)]


def conditions(threads: int, pairs: int) -> str:
    """The machine and what runs on it: rows of different ones do not belong into one table."""
    from benchmarks.run import machine, versions

    return f"{machine()}; {versions()}; {threads} threads, {pairs} pairs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="parts of the models' names")
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--passes", default="forward,forward+backward")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--kept", type=Path, default=ROOT / "benchmarks" / "parity.json")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kept, begun = Kept(args.kept, conditions(args.threads, args.pairs)), time.monotonic()
    chosen = [n for n in MODELS if any(part in n for part in args.only.split(","))]
    for name, batch, mode in product(chosen, args.batches.split(","), args.modes.split(",")):
        left = [p for p in args.passes.split(",") if args.again or "; ".join((name, batch, mode, p)) not in kept.rows]
        if left and (time.monotonic() - begun) / 60 < args.minutes:
            measure(name, int(batch), mode, left, args.pairs, kept)
    show(kept.tables())


def measure(name: str, batch: int, mode: str, passes: list[str], pairs: int, kept: Kept) -> None:
    """The rows of a model in one mode; each is kept when it is there."""
    torch._dynamo.reset()
    make, make_peer, inputs = MODELS[name]
    ours, peer, x = make(), make_peer(), inputs(batch)
    for label in passes:
        step = PASSES[label]
        for m in (ours, peer):
            m.train(step is both)
        for m in (ours, peer):
            step(m, x)  # what a model keeps of its first call is there before it is compiled
        a, b = (torch.compile(ours), torch.compile(peer)) if mode == "compile" else (ours, peer)
        figures = compare(a, b, x, step, pairs)
        kept.add((name, str(batch), mode, label), figures)
        print(f"{name}, batch {batch}, {mode}, {label}: {figures[2]:.3f}, at least {figures[3]:.3f}", flush=True)


if __name__ == "__main__":
    main()
