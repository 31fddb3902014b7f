"""What each of two processes does: the loss and the gradients of a model that is split, against those of the whole one.

    RANK=0 python -m tests.parallel.ranks FILE [CASE …]
"""
from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh

import archdsl
from archdsl.kernels.target import Target
from archdsl.lower.build import lower
from archdsl.parallel.tensor import tensor_parallel

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "tiny", {"vocab": 60, "d": 32, "hidden": 48, "head_dim": 8}),
    "one key head, biases, tied": ("llama", "tiny", {"vocab": 60, "d": 32, "hidden": 48, "kv_heads": 1, "bias": True, "tie": True}),
    "mamba2": ("mamba2", "tiny", {}),
    "one group": ("mamba2", "tiny", {"groups": 1}),
    "hybrid": ("deltanet", "tiny_global", {"depth": 2}),
    "jamba": ("jamba", "tiny", {}),
    "gla": ("gla", "tiny", {}),
    "ladder": ("ladder", "tiny", {}),
}


def loss_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    y = model(tokens)
    y = y[0] if isinstance(y, tuple) else y
    return F.cross_entropy(y[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


CARD = ", as for a card"
"""Behind a case: lowered for a card, where norms, gates and rotary positions are torch ops of ours, which compute here what they stand for. In
float32, as they take no wider type."""


def build(case: str) -> Any:
    name, variant, knobs = CASES[case.removesuffix(CARD)]
    model = archdsl.load(f"specs/language/{name}.arch").build(variant, dtype=torch.float64, **knobs)
    if case.endswith(CARD):
        source = model.__dict__["_source"]
        model = lower(source.graph, dtype=torch.float32, source=source, made_for=Target("cuda"))
        assert "_unless_fused" in model.print_readable(print_output=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def compare(case: str, mesh: Any) -> str:
    """The greatest relative deviation of the loss and of a gradient, and the share of the weights that a rank holds."""
    whole, split = build(case), build(case)
    tokens = torch.randint(0, 32, (2, 7), generator=torch.Generator().manual_seed(1))
    loss_of(whole, tokens).backward()
    parallel = tensor_parallel(split, mesh)
    assert parallel.plan, case
    loss = loss_of(parallel, tokens)
    loss.backward()
    worst = abs(loss.item() - loss_of(whole, tokens).item()) / loss.item()
    for (address, p), q in zip(split.named_parameters(), whole.parameters(), strict=True):
        assert q.grad is not None, address
        assert p.grad is not None, address
        assert p.grad.placements == p.placements, address  # type: ignore[attr-defined]
        got = p.grad.full_tensor()  # type: ignore[attr-defined]
        worst = max(worst, float((got - q.grad).abs().max() / q.grad.abs().max()))
    held = sum(p.to_local().numel() for p in split.parameters()) / sum(p.numel() for p in whole.parameters())  # type: ignore[attr-defined]
    return f"{worst} {held}"


def sharded(mesh: Any) -> str:
    """`shard_layers`, with checkpoints: each rank has half the batch, and the mean of their gradients is that of the whole."""
    whole, split = build("llama"), build("llama")
    tokens = torch.randint(0, 32, (4, 7), generator=torch.Generator().manual_seed(1))
    loss = loss_of(whole, tokens)
    loss.backward()
    archdsl.checkpoint_layers(split)
    assert archdsl.shard_layers(split, mesh=mesh) == ["layers.0", "layers.1"]
    own = loss_of(split, tokens.chunk(2)[dist.get_rank()])
    own.backward()
    dist.all_reduce(own := own.detach() / 2)
    worst = abs(own.item() - loss.item()) / loss.item()
    for p, q in zip(split.parameters(), whole.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        worst = max(worst, float((p.grad.full_tensor() - q.grad).abs().max() / q.grad.abs().max()))  # type: ignore[attr-defined]
    held = sum(p.to_local().numel() for p in split.parameters()) / sum(p.numel() for p in whole.parameters())  # type: ignore[attr-defined]
    return f"{worst} {held}"


def rounded(mesh: Any) -> str:
    """In bf16: how far the logits and the gradients of split models are from those of the whole ones at most, over how far these are from float64's.
    A model of delta rules and attention, and one whose rates have biases."""
    worst = [apart_in_bf16(case, mesh) for case in ("hybrid", "gla")]
    return f"{max(a for a, _ in worst)} {max(b for _, b in worst)}"


def apart_in_bf16(case: str, mesh: Any) -> tuple[float, float]:
    exact, whole, split = build(case), build(case).bfloat16(), build(case).bfloat16()
    exact.load_state_dict({k: v.double() for k, v in whole.state_dict().items()})
    tokens = torch.randint(0, 32, (2, 7), generator=torch.Generator().manual_seed(1))
    parallel = tensor_parallel(split, mesh)
    results = [model(tokens) for model in (exact, whole, parallel)]
    for y in results:
        F.cross_entropy(y[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten()).backward()
    pairs = [tuple(y.detach().double() for y in results)]
    for p, q, r in zip(exact.parameters(), whole.parameters(), split.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and r.grad is not None
        pairs.append((p.grad, q.grad.double(), r.grad.full_tensor().double()))  # type: ignore[attr-defined]
    logits, *gradients = (float((s - w).norm() / (w - e).norm()) for e, w, s in pairs)
    return logits, max(gradients)


def main() -> None:
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(os.environ["RANK"]), world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for case in sys.argv[2:] or (*CASES, *(f"{case}{CARD}" for case in CASES), "sharded"):
        found = {"sharded": sharded, "rounded": rounded}[case](mesh) if case in ("sharded", "rounded") else compare(case, mesh)
        if dist.get_rank() == 0:
            print(f"{case}: {found}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
