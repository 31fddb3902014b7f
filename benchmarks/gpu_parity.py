"""Whole models against transformers and flash-linear-attention with the same random weights: logits in float32 and in bf16.

    python benchmarks/gpu_parity.py [--tiny --device cpu]

The reference is our model in float64 on the same device. float32: the greatest difference of ours from theirs over the greatest logit (at most 1e-4),
flash-linear-attention's products in float32 and not in TF32, which is its default, and its delta rules and retention position by position, as the
chunks of one take no float32 and some products of another are in TF32 all the same; bf16: the relative errors of both against the reference, and how
ours compares (at most 1.1), op by op and compiled by layer, as it is trained, where fewer results are rounded under way. The peer's kernels run with
the first of their configurations that the card takes: numbers, not speed.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from benchmarks.gpu_common import Rows, options, quiet, relative
from benchmarks.gpu_models import Pair, for_parity
from benchmarks.gpu_tuning import exact, untuned


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = model(tokens)
    return y if isinstance(y, torch.Tensor) else y.logits


@contextmanager
def kernels(model: Any, mode: str | None) -> Iterator[None]:
    """The mixers of flash-linear-attention's model in another mode than their own."""
    own = {m: m.mode for m in model.modules() if mode is not None and hasattr(m, "mode")}
    try:
        for mixer in own:
            mixer.mode = mode
        yield
    finally:
        for mixer, before in own.items():
            mixer.mode = before


def shake(model: Any) -> None:
    """Random values in every weight, biases and norms too, of about the size they are initialised with."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
            p.add_(noise * (0.02 if p.dim() > 1 else 0.1))


def compare(pair: Pair, device: str, shape: tuple[int, int]) -> dict[str, str]:
    torch.manual_seed(0)
    theirs = pair.theirs(device, torch.float32).eval()
    shake(theirs)
    models = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        models[dtype] = pair.ours(device, dtype).eval()
    tokens = torch.randint(0, pair.knobs["vocab"], shape, device=device)
    archdsl.import_weights(models[torch.float64], {k: v.double() for k, v in theirs.state_dict().items()}, source=pair.names)
    archdsl.import_weights(models[torch.float32], theirs.state_dict(), source=pair.names)
    reference = logits(models[torch.float64], tokens)
    cells: dict[str, str] = {}
    mine = logits(models[torch.float32], tokens)
    cells["float32, error of ours"] = f"{relative(mine, reference):.1e}"
    with exact(), kernels(theirs, pair.mode):
        their = logits(theirs, tokens)
    cells["float32, error of theirs"] = f"{relative(their, reference):.1e}"
    cells["float32, difference"] = f"{float((mine - their).abs().max() / their.abs().max()):.1e}"
    # The weights as bf16 holds them, in all three: the error is that of the arithmetic alone.
    half = theirs.to(torch.bfloat16)
    archdsl.import_weights(models[torch.bfloat16], half.state_dict(), source=pair.names)
    archdsl.import_weights(models[torch.float64], {k: v.double() for k, v in half.state_dict().items()}, source=pair.names)
    reference = logits(models[torch.float64], tokens)
    ours, peer = relative(logits(models[torch.bfloat16], tokens), reference), relative(logits(half, tokens), reference)
    archdsl.compile_layers(models[torch.bfloat16])
    compiled = relative(logits(models[torch.bfloat16], tokens), reference)
    return {**cells, "bf16, error of ours": f"{ours:.1e}", "bf16, error of theirs": f"{peer:.1e}", "bf16, ours / theirs": f"{ours / peer:.2f}",
            "bf16, ours compiled / theirs": f"{compiled / peer:.2f}"}


def main() -> None:
    args = options(__doc__)
    quiet()
    rows = Rows("parity", args)
    shape = (2, 60) if args.tiny else (2, 1000)
    torch.backends.cuda.matmul.allow_tf32 = False
    with untuned():
        for name, pair in for_parity(args.tiny).items():
            rows.measure("Whole models: logits", name, lambda pair=pair: compare(pair, args.device, shape))


if __name__ == "__main__":
    main()
