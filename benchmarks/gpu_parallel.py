"""Two devices against one: twenty training steps with the same losses, and what stale residuals (Ladder) save of a forward pass.

    torchrun --nproc-per-node 2 benchmarks/gpu_parallel.py [--kept gpu.jsonl] [--tiny --device cpu]

Losses: pure bf16, AdamW, the same tokens each step; a tensor-parallel group of two, and layers sharded over two with checkpoints, each rank with
half the batch. Ladder: one forward pass over a tensor-parallel group, recorded as a CUDA graph so that the host costs nothing, with the residual read
as it stood one branch before and with the standard one.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import archdsl
from benchmarks.gpu_common import Rows, median, ms, options, quiet

STEPS = 20
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Llama": ("llama", {"vocab": 32_000, "d": 1024, "depth": 8, "heads": 16, "kv_heads": 8, "hidden": 2816},
              {"vocab": 64, "d": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}),
    "Mamba-2": ("mamba2", {"vocab": 32_000, "d": 1024, "depth": 12}, {"vocab": 64, "d": 64, "depth": 2, "state": 8, "head_dim": 16}),
    "DeltaNet with two layers of attention": ("deltanet", {"vocab": 32_000, "d": 1024, "depth": 8, "heads": 8, "attention": [1, 4]},
                                              {"vocab": 64, "d": 32, "depth": 2, "heads": 2, "hidden": 48, "attention": [1]}),
}


def loss_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def losses(model: Any, tokens: torch.Tensor, over: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    found = []
    for _ in range(STEPS):
        loss = loss_of(model, tokens)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(over(loss.detach()).item())
    return found


def mean_over_ranks(x: torch.Tensor) -> torch.Tensor:
    dist.all_reduce(x)
    return x / dist.get_world_size()


def deviation(got: list[float], expected: list[float]) -> str:
    return f"{max(abs(a - b) / b for a, b in zip(got, expected, strict=True)):.1e}"


def compared(name: str, tiny: bool, device: str, mesh: Any) -> dict[str, Any]:
    path, knobs, small = MODELS[name]
    spec = archdsl.load(f"specs/language/{path}.arch")

    def build() -> Any:
        return spec.build(device=device, dtype=torch.bfloat16, **(small if tiny else knobs))

    generator = torch.Generator().manual_seed(0)
    shape = (4, 16) if tiny else (8, 2048)
    tokens = torch.randint(0, knobs["vocab"] if not tiny else small["vocab"], shape, generator=generator).to(device)
    expected = losses(build(), tokens)
    split = archdsl.tensor_parallel(build(), mesh)
    held = sum(p.to_local().numel() for p in split.parameters()) / sum(p.numel() for p in split.parameters())  # pyright: ignore[reportAttributeAccessIssue]
    parallel = losses(split, tokens)
    del split
    data = build()
    archdsl.checkpoint_layers(data)
    archdsl.shard_layers(data, mesh=mesh)
    sharded = losses(data, tokens.chunk(mesh.size())[dist.get_rank()].contiguous(), mean_over_ranks)
    return {"first loss": f"{expected[0]:.4f}", "last loss": f"{expected[-1]:.4f}", "tensor parallel, deviation": deviation(parallel, expected),
            "weights on a rank": f"{held:.0%}", "sharded by layer, deviation": deviation(sharded, expected)}


def forward(ladder: list[int] | None, tiny: bool, device: str, mesh: Any, repeats: int) -> dict[str, Any]:
    """A pass over a group. None: every layer's branches read the stream one branch late."""
    knobs: dict[str, Any] = {"vocab": 64, "d": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48} if tiny else {
        "vocab": 32_000, "d": 4096, "depth": 8, "heads": 32, "kv_heads": 8, "hidden": 14_336}
    if ladder is not None:
        knobs["ladder"] = ladder
    model = archdsl.load("specs/language/ladder.arch").build(device=device, dtype=torch.bfloat16, flat=True, **knobs).eval()
    parallel = archdsl.tensor_parallel(model, mesh)
    tokens = torch.zeros(1, 16 if tiny else 2048, dtype=torch.int64, device=device)

    @torch.no_grad()
    def run() -> None:
        parallel(tokens)

    cells = {"op by op, ms": ms(median(run, device, repeats))}
    if device == "cuda":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        cells["recorded, ms"] = ms(median(graph.replay, device, repeats))
    return cells


def main() -> None:
    args = options(__doc__)
    quiet()
    rank = int(os.environ["LOCAL_RANK"])
    if args.device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if args.device == "cuda" else "gloo")
    mesh = init_device_mesh(args.device, (dist.get_world_size(),))
    if rank:
        args.kept = Path(os.devnull)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (to the end of the process)
    rows = Rows("parallel", args)
    for name in MODELS:
        rows.measure(f"Two devices: {STEPS} steps", name, lambda name=name: compared(name, args.tiny, args.device, mesh))
    for name, ladder in (("standard residual", []), ("ladder residual", None)):
        rows.measure("Two devices: a forward pass", name, lambda ladder=ladder: forward(ladder, args.tiny, args.device, mesh, args.repeats))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
