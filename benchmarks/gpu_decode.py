"""Decoding: tokens a second behind a prompt, greedily, in bf16, beside transformers' `generate`.

    python benchmarks/gpu_decode.py [--prompt 2048] [--new 512] [--batches 1,32] [--peers yes|eager|no] [--tiny --device cpu]

Rates are of the tokens behind the first one: (whole time - time for one token) / (new - 1), so that the prompt is not counted; its time, and that of
making the decoder, are printed by themselves. `limit`: the share of what reading the weights once a token at the measured copy bandwidth would allow.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from benchmarks.gpu_common import Rows, kernel_seconds, options, peak_gib, quiet, seconds
from benchmarks.gpu_models import Pair, for_decoding

OURS: dict[str, dict[str, Any]] = {"ours": {}, "ours, compiled": {"compiled": True}, "ours, op by op": {"recorded": False}}
NARROW = {"ours, memories in bf16": {"state_dtype": torch.bfloat16}}
"""Of models with memories that may be."""
FEW = 48
"""New tokens where a token takes long."""


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--new", type=int, default=512)
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--apart", action="store_true", help="launches begin when the ones before them have ended")
    parser.add_argument("--peers", choices=("yes", "eager", "no"), default="yes", help="eager: without the compiled static cache")


def weight_bytes(model: Any) -> int:
    """What a token reads: all weights but the rows of the embedding that are not looked up."""
    tied = not any(n.startswith(("head.", "lm_head.")) for n, _ in model.named_parameters())
    return sum(p.numel() * p.element_size() for n, p in model.named_parameters() if tied or "embed" not in n)


def rates(run: Callable[[int], Any], new: int, batch: int, device: str, short: Callable[[int], Any] | None = None) -> dict[str, Any]:
    """Cells of a generator `run(tokens)`. `short`: what is run for one token, where `run` compiles again for every number of them."""
    first = seconds(lambda: run(new), device)
    one = min(seconds(lambda: (short or run)(1), device) for _ in range(3))
    whole = min(seconds(lambda: run(new), device) for _ in range(2))
    rate = batch * (new - 1) / max(whole - one, 1e-9)
    return {"first call, s": f"{first:.1f}", "prompt and first token, ms": f"{1e3 * one:.0f}", "new tokens": new, "tokens/s": f"{rate:,.0f}",
            "ms a step": f"{1e3 * batch / rate:.3f}", "_rate": rate}


def ours(pair: Pair, prompt: torch.Tensor, new: int, copy: float, device: str, **settings: Any) -> dict[str, Any]:
    model = pair.ours(device, torch.bfloat16).eval()
    cells = rates(lambda n: archdsl.generate(model, prompt, n, **settings), new, len(prompt), device)
    memory = peak_gib(lambda: archdsl.generate(model, prompt, min(new, 16), **settings), device)
    limit = cells.pop("_rate") / len(prompt) * weight_bytes(model) / copy
    return {**cells, "of weight reading": f"{limit:.0%}", "peak, GiB": "" if memory is None else f"{memory:.1f}"}


def theirs(pair: Pair, prompt: torch.Tensor, new: int, copy: float, device: str, static: bool) -> dict[str, Any]:
    model = pair.theirs(device, torch.bfloat16).eval()
    @torch.no_grad()
    def run(n: int, **settings: Any) -> Any:
        return model.generate(prompt, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0, **settings)

    settings = {"cache_implementation": "static"} if static else {}
    cells = rates(lambda n: run(n, **settings), new, len(prompt), device, run)
    limit = cells.pop("_rate") / len(prompt) * weight_bytes(model) / copy
    memory = peak_gib(lambda: run(new, **settings), device)
    return {**cells, "of weight reading": f"{limit:.0%}", "peak, GiB": "" if memory is None else f"{memory:.1f}"}


def copy_bandwidth(device: str, repeats: int) -> float:
    x = torch.empty(2**30 if device == "cuda" else 2**20, dtype=torch.int8, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() / kernel_seconds(lambda: y.copy_(x), device, repeats)


def main() -> None:
    args = options(__doc__, more)
    if args.apart:
        from archdsl.kernels import overlap

        overlap.OVERLAP = False
    quiet()
    rows = Rows("decode", args)
    length, new = (12, 6) if args.tiny else (args.prompt, args.new)
    copy = copy_bandwidth(args.device, args.repeats)
    for name, pair in for_decoding(args.tiny).items():
        for batch in map(int, args.batches.split(",")):
            torch.manual_seed(0)
            prompt = torch.randint(0, pair.knobs["vocab"], (batch, length), device=args.device)
            given = (pair, prompt)
            table = f"Decoding, prompt {length}, batch {batch}"
            for kind, settings in {**OURS, **(NARROW if pair.attends is None and args.device == "cuda" else {})}.items():
                count = min(new, FEW) if "recorded" in settings else new
                shown = f"{name}, {kind}, apart" if args.apart else f"{name}, {kind}"
                rows.measure(table, shown, partial(ours, *given, count, copy, args.device, **settings))
            if pair.names == "hf" and args.peers != "no":
                rows.measure(table, f"{name}, transformers", partial(theirs, *given, min(new, FEW), copy, args.device, False))
                if args.peers == "yes" and pair.attends is not None and batch > 1:
                    rows.measure(table, f"{name}, transformers, compiled static cache",
                                 partial(theirs, *given, min(new, 160), copy, args.device, True))


if __name__ == "__main__":
    main()
