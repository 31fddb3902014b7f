"""Kernels of a decoding step at the sizes of a Llama of 1.1 billion weights behind 2,048 tokens."""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu_cases import Case

ROOM = 2560


def attention(batch: int, heads: int, groups: int, position: int, room: int, width: int) -> Case:
    """Against torch's fused attention to the filled places alone, which a step cannot know in advance."""
    def make(device: str) -> tuple[Any, ...]:
        q, k, v = (torch.randn(batch, n, 1, width, device=device, dtype=torch.bfloat16) for n in (heads, groups, groups))
        keys, values = (torch.randn(batch, groups, room, width, device=device, dtype=torch.bfloat16) for _ in range(2))
        return q, k, v, keys, values, torch.tensor(position, device=device), torch.zeros(batch, dtype=torch.int64, device=device)

    def ours(q: Any, k: Any, v: Any, keys: Any, values: Any, at: Any, start: Any) -> Any:
        return torch.ops.archdsl.decode_attention(q, k, v, keys, values, at, start, None, None, None, 0, [])

    def fused(q: Any, k: Any, v: Any, keys: Any, values: Any, at: Any, start: Any) -> Any:
        return F.scaled_dot_product_attention(q, keys[:, :, :position + 1], values[:, :, :position + 1], enable_gqa=True)

    def exact(q: Any, k: Any, v: Any, keys: Any, values: Any, at: Any, start: Any) -> Any:
        keys, values = (torch.cat([c[:, :, :position], n], 2).repeat_interleave(heads // groups, 1) for c, n in ((keys, k), (values, v)))
        return torch.softmax(q @ keys.mT * width**-0.5, -1) @ values

    moved = 2 * 2 * batch * groups * (position + 1) * width
    return Case(f"attention of a step, B {batch}, {heads} heads over {groups}, {position} places", make, ours, (("SDPA", fused),), exact, moved,
                family="decoding")


def linears(rows: int, K: int, counts: tuple[int, ...], norm: bool, gated: bool, name: str) -> Case:
    """Against a norm and torch's products, one for each weight."""
    def make(device: str) -> tuple[Any, ...]:
        return (torch.randn(rows, 1, K, device=device, dtype=torch.bfloat16), torch.rand(K, device=device, dtype=torch.bfloat16) if norm else None,
                *(torch.randn(n, K, device=device, dtype=torch.bfloat16) / K**0.5 for n in counts))

    def ours(x: Any, scale: Any, *weights: Any) -> Any:
        none: list[Any] = [None] * len(weights)
        if gated:
            return torch.ops.archdsl.decode_gated(x, list(weights), none, scale, 1e-5, "silu")
        return torch.ops.archdsl.decode_linears(x, list(weights), none, scale, 1e-5, "identity", None)

    def plain(x: Any, scale: Any, *weights: Any) -> Any:
        x = x if scale is None else F.rms_norm(x, (K,), scale, 1e-5)
        each = [F.linear(x, w) for w in weights]
        return F.silu(each[0]) * each[1] if gated else torch.cat(each, -1) if len(each) > 1 else each[0]

    return Case(f"{name}, {rows} row{'s' * (rows > 1)}", make, ours, (("torch", plain),), plain, 2 * K * sum(counts), family="decoding")


def cases(tiny: bool) -> list[Case]:
    import archdsl.decoding.ops  # noqa: F401  (registers the torch ops)

    if tiny:
        return [attention(2, 4, 2, 5, 9, 16), linears(1, 32, (16, 8, 8), True, False, "q, k, v"), linears(2, 32, (24, 24), True, True, "gate and up")]
    found = [attention(batch, 32, 4, 2048, ROOM, 64) for batch in (1, 32)] + [attention(1, 16, 16, 2048, ROOM, 128)]
    for rows in (1, 2, 4):
        found += [linears(rows, 2048, (2048, 256, 256), True, False, "q, k, v behind a norm"), linears(rows, 2048, (2048,), False, False, "out"),
                  linears(rows, 2048, (5632, 5632), True, True, "gate and up behind a norm"), linears(rows, 5632, (2048,), False, False, "down")]
    return [*found, linears(1, 2048, (32_000,), True, False, "head behind a norm")]
