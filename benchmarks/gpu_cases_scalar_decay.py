"""Linear attention with one decay for each head, and Mamba-2's state space, beside flash-linear-attention: chunked GLA with the same decays for each
key, and simple GLA, whose backward pass it refuses with some versions of Triton on Hopper cards."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from archdsl.ops.registry import OPS, load
from benchmarks.gpu_cases import Case

FAMILY = "linear attention with scalar decays"


def operands(B: int, T: int, H: int, D: int, decay: bool) -> Callable[[str], tuple[Any, ...]]:
    """q, k, v as a linear map leaves them, seen as [B, H, T, D]; the decays, [B, H, T]."""
    def make(device: str) -> tuple[Any, ...]:
        q, k, v = (torch.randn(B, T, H, D, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
        g = torch.nn.functional.logsigmoid(torch.randn(B, T, H, device=device)).div_(16).requires_grad_() if decay else None
        return q, k, v, g

    return make


def ours(q: Any, k: Any, v: Any, g: Any) -> Any:
    heads = (x.transpose(1, 2) for x in (q, k, v))
    return OPS["linear_attention"].body(*heads, None if g is None else g.transpose(1, 2), scale=q.shape[-1] ** -0.5).transpose(1, 2)


def gla(q: Any, k: Any, v: Any, g: Any) -> Any:
    from fla.ops.gla import chunk_gla  # pyright: ignore[reportMissingImports]

    return chunk_gla(q, k, v, g=g.to(q.dtype)[..., None].expand_as(k).contiguous(), scale=q.shape[-1] ** -0.5)[0]


def simple_gla(q: Any, k: Any, v: Any, g: Any) -> Any:
    from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports]

    return chunk_simple_gla(q, k, v, g=g, scale=q.shape[-1] ** -0.5)[0]


def scanned(B: int, T: int, H: int, P: int, G: int, N: int) -> Callable[[str], tuple[Any, ...]]:
    """x, dt, a, b, c, skip."""
    def make(device: str) -> tuple[Any, ...]:
        f32 = {"device": device, "dtype": torch.float32}
        x, b, c = (torch.randn(B, T, h, n, device=device, dtype=torch.bfloat16).requires_grad_() for h, n in ((H, P), (G, N), (G, N)))
        dt, a = torch.rand(B, T, H, **f32).mul_(0.1).requires_grad_(), torch.rand(H, **f32).mul_(-15).sub_(1).requires_grad_()
        return x, dt, a, b, c, torch.randn(H, **f32).requires_grad_()

    return make


def simple_scan(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any) -> Any:
    """The same by simple GLA, with queries and keys for each head."""
    from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports]

    q, k = (v.repeat_interleave(x.shape[2] // v.shape[2], 2) for v in (c, b))
    y = chunk_simple_gla(q, k, (x * dt[..., None]).to(x.dtype), g=dt * a, scale=1.0)[0]
    return y + (x * skip[:, None]).to(y.dtype)


def cases(tiny: bool) -> list[Case]:
    load()
    made: list[Case] = []
    for B, T in ((2, 100),) if tiny else ((8, 2048), (2, 8192)):
        H, D = (2, 16) if tiny else (16, 128)
        size = 2.0 * B * T * H * D
        for decay in (True, False):
            made.append(Case(f"{'scalar decays' if decay else 'no decay'}, B {B}, T {T}, H {H}, D {D}", operands(B, T, H, D, decay), ours,
                             (("fla chunk_gla", gla), ("fla chunk_simple_gla", simple_gla)) if decay else (), ours,
                             bytes=4 * size, flops=4.0 * B * T * H * D * D, backward=True, backward_bytes=7 * size,
                             backward_flops=8.0 * B * T * H * D * D, family=FAMILY))
        H, P, G, N = (4, 8, 1, 16) if tiny else (32, 64, 1, 128)
        size, shared = 2.0 * B * T * H * P, 2.0 * B * T * G * N
        made.append(Case(f"Mamba-2, B {B}, T {T}, {H} heads of {P}, state {N}", scanned(B, T, H, P, G, N), OPS["ssd"].body,
                         (("fla chunk_simple_gla", simple_scan),), OPS["ssd"].body, bytes=2 * size + 2 * shared,
                         flops=4.0 * B * T * H * P * N, backward=True, backward_bytes=3 * size + 4 * shared, backward_flops=8.0 * B * T * H * P * N,
                         family=FAMILY))
    for B in (1, 32):
        made += [step(B, tiny), scan_step(B, tiny)]
    return made


def step(B: int, tiny: bool) -> Case:
    """One position of linear attention: the memory, in float32, is read and written once."""
    H, D = (2, 16) if tiny else (16, 128)

    def make(device: str) -> tuple[Any, ...]:
        q, k, v, g = operands(B, 1, H, D, True)(device)
        return (*(x.detach().transpose(1, 2) for x in (q, k, v, g)), torch.randn(B, H, D, D, device=device))

    return Case(f"one position, B {B}, H {H}, D {D}", make, OPS["linear_attention_extend"].body, (), OPS["linear_attention_extend"].body,
                bytes=8.0 * B * H * D * D, family=FAMILY)


def scan_step(B: int, tiny: bool) -> Case:
    H, P, G, N = (4, 8, 1, 16) if tiny else (32, 64, 1, 128)

    def make(device: str) -> tuple[Any, ...]:
        return (*(x.detach() for x in scanned(B, 1, H, P, G, N)(device)), torch.randn(B, H, P, N, device=device))

    return Case(f"one position of Mamba-2, B {B}, {H} heads of {P}, state {N}", make, OPS["ssd_extend"].body, (), OPS["ssd_extend"].body,
                bytes=8.0 * B * H * P * N, family=FAMILY)
