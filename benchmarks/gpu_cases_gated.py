"""Gated linear attention, the delta rules and the short convolution in front of them, beside flash-linear-attention's; Mamba's scan; one position."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from archdsl.ops.registry import OPS, load
from benchmarks.gpu_cases import Case, Peer

load()
Shape = tuple[int, int, int, int, int]
"""Batch, heads, positions, columns of keys, of values."""
SHAPES: tuple[Shape, ...] = ((8, 16, 2048, 128, 128), (2, 16, 8192, 128, 128), (8, 4, 2048, 128, 256), (8, 8, 2048, 128, 128), (2, 8, 8192, 128, 128))
ACCURACY: Shape = (2, 2, 1024, 128, 128)
TINY: Shape = (1, 2, 70, 16, 16)


def sequence(shape: Shape, device: str, *columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """[B, heads, T, …], heads side by side in memory as a projection leaves them."""
    B, H, T, _, _ = shape
    return torch.randn(B, T, H, *columns, device=device, dtype=dtype).transpose(1, 2)


def leaves(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(x.requires_grad_() for x in given)


def turned(x: torch.Tensor) -> torch.Tensor:
    """[B, heads, T, …] as fla has it, [B, T, heads, …]."""
    return x.transpose(1, 2)


def gla_operands(shape: Shape) -> Callable[[str], tuple[torch.Tensor, ...]]:
    def make(device: str) -> tuple[torch.Tensor, ...]:
        K, V = shape[3:]
        gate = torch.nn.functional.logsigmoid(sequence(shape, device, K, dtype=torch.float32)) / 16
        return leaves(sequence(shape, device, K), sequence(shape, device, K), sequence(shape, device, V), gate)

    return make


def gla(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    return OPS["gla"].body(q, k, v, decay, scale=q.shape[-1] ** -0.5)


def fla_gla(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    from fla.ops.gla import chunk_gla  # type: ignore[import-not-found]

    return turned(chunk_gla(*map(turned, (q, k, v, decay)))[0])


def delta_operands(shape: Shape, gated: bool) -> Callable[[str], tuple[torch.Tensor, ...]]:
    def make(device: str) -> tuple[torch.Tensor, ...]:
        K, V = shape[3:]
        given = sequence(shape, device, K), sequence(shape, device, K), sequence(shape, device, V), torch.sigmoid(sequence(shape, device))
        gate = (torch.nn.functional.logsigmoid(sequence(shape, device, dtype=torch.float32)),) if gated else ()
        return leaves(*given, *gate)

    return make


@cache
def unit(device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rows of length 1, in one pass over memory on a card, as in a compiled model."""
    body = OPS["l2_norm"].body
    return torch.compile(body, dynamic=False) if device == "cuda" else body


def delta(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, decay: torch.Tensor | None = None) -> torch.Tensor:
    one = OPS["l2_norm"].body if q.dtype == torch.float64 else unit(q.device.type)
    return OPS["delta_rule"].body(one(q), one(k), v, beta, decay, scale=q.shape[-1] ** -0.5)


def fla_delta(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    from fla.ops.delta_rule import chunk_delta_rule  # type: ignore[import-not-found]

    return turned(chunk_delta_rule(*map(turned, (q, k, v, beta)), use_qk_l2norm_in_kernel=True)[0])


def fla_gated_delta(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule  # type: ignore[import-not-found]

    q, k, v, beta, decay = map(turned, (q, k, v, beta, decay))
    return turned(chunk_gated_delta_rule(q, k, v, g=decay, beta=beta, use_qk_l2norm_in_kernel=True)[0])


def dplr_operands(shape: Shape) -> Callable[[str], tuple[torch.Tensor, ...]]:
    """As RWKV-7 has them: what is removed of the memory is at most what is there."""
    def make(device: str) -> tuple[torch.Tensor, ...]:
        K, V = shape[3:]
        k = torch.nn.functional.normalize(sequence(shape, device, K).float(), dim=-1)
        of = (sequence(shape, device, K), k.bfloat16(), sequence(shape, device, V), -k.bfloat16(), (k * torch.rand_like(k[..., :1])).bfloat16())
        return leaves(*of, torch.nn.functional.logsigmoid(sequence(shape, device, K, dtype=torch.float32)) / 16)

    return make


def dplr(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, a: torch.Tensor, b: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    return OPS["dplr_delta_rule"].body(q, k, v, a, b, decay)


def conv_operands(B: int, T: int, c: int) -> Callable[[str], tuple[torch.Tensor, ...]]:
    return lambda device: leaves(torch.randn(B, T, c, device=device, dtype=torch.bfloat16), torch.randn(c, 4, device=device, dtype=torch.bfloat16))


def conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return OPS["causal_conv"].body(x, weight, None)


def fla_conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    from fla.modules.convolution import causal_conv1d  # type: ignore[import-not-found]

    found = causal_conv1d(x, weight)
    return found[0] if isinstance(found, tuple) else found


def scan_operands(B: int, T: int, d: int) -> Callable[[str], tuple[torch.Tensor, ...]]:
    def make(device: str) -> tuple[torch.Tensor, ...]:
        x, b, c = (torch.randn(B, T, n, device=device, dtype=torch.bfloat16) for n in (d, 16, 16))
        rates = -torch.arange(1.0, 17, device=device).expand(d, 16).contiguous()
        return leaves(x, torch.randn(B, T, d, device=device) - 4, rates, b, c, torch.ones(d, device=device))

    return make


def scan(x: torch.Tensor, dt: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return OPS["selective_scan"].body(x, dt, a, b, c, skip, dt_softplus=True)


def step_operands(shape: Shape, *more: int) -> Callable[[str], tuple[torch.Tensor, ...]]:
    """Operands of one position, those of `more` columns behind q, k and v (0: one number for each head), and a memory."""
    B, H, _, K, V = shape
    one = (B, H, 1, K, V)

    def make(device: str) -> tuple[torch.Tensor, ...]:
        given = (sequence(one, device, K), sequence(one, device, K), sequence(one, device, V))
        gates = tuple(-sequence(one, device, *((c,) if c else ())).float().abs() for c in more)
        return (*given, *gates, torch.randn(B, H, K, V, device=device))

    return make


def gla_step(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return OPS["gla_extend"].body(q, k, v, decay, None, memory)


def delta_step(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return OPS["delta_rule_extend"].body(q, k, v, beta, None, memory)


def sizes(shape: Shape, gate: int) -> dict[str, float]:
    """Bytes: every operand and gradient once, in bf16, gates in float32 of `gate` columns. Arithmetic: pairs of a chunk of 64 and the memory."""
    B, H, T, K, V = shape
    rows = B * H * T
    moved = rows * (2 * (2 * K + 2 * V) + 4 * gate)
    return {"bytes": moved, "backward_bytes": rows * (2 * (4 * K + 4 * V) + 8 * gate), "flops": rows * (2 * 64 * (K + V) + 4 * K * V),
            "backward_flops": rows * (2 * 64 * (3 * K + 3 * V) + 10 * K * V)}


def cases(tiny: bool) -> list[Case]:
    found: list[Case] = []

    def add(name: str, shape: Shape, make: Any, ours: Any, peers: tuple[Peer, ...], gate: int) -> None:
        label = "B {}, H {}, T {}, {} × {}".format(*shape)
        exact = shape in (ACCURACY, TINY)
        found.append(Case(f"{name}, {label}", make, ours, peers, ours if exact else None, backward=True, family="gated", **sizes(shape, gate)))

    for shape in (TINY,) if tiny else (ACCURACY, *SHAPES):
        add("gla", shape, gla_operands(shape), gla, (("fla", fla_gla),), shape[3])
        add("delta rule, keys normalised", shape, delta_operands(shape, False), delta, (("fla", fla_delta),), 1)
        add("gated delta rule, keys normalised", shape, delta_operands(shape, True), delta, (("fla", fla_gated_delta),), 2)
    for shape in (TINY,) if tiny else (ACCURACY, (8, 16, 2048, 64, 64)):
        add("generalised delta rule", shape, dplr_operands(shape), dplr, (), shape[3])
    for B, T, c in ((2, 70, 32),) if tiny else ((8, 2048, 1024), (8, 2048, 2048), (2, 8192, 1024)):
        found.append(Case(f"short convolution, B {B}, T {T}, c {c}", conv_operands(B, T, c), conv, (("fla", fla_conv),), conv, bytes=4 * B * T * c,
                          backward=True, backward_bytes=6 * B * T * c, family="gated"))
    for B, T, d in ((1, 70, 32),) if tiny else ((2, 256, 512), (8, 2048, 2048)):
        found.append(Case(f"selective scan, B {B}, T {T}, d {d}, n 16", scan_operands(B, T, d), scan, (), scan if T < 2048 else None,
                          bytes=8 * B * T * d, backward=True, backward_bytes=14 * B * T * d, family="gated"))
    for shape in (TINY,) if tiny else ((1, 16, 1, 128, 128), (32, 16, 1, 128, 128)):
        B, H, _, K, V = shape
        label, moved = f"B {B}, H {H}, {K} × {V}", 8 * B * H * K * V
        found.append(Case(f"gla, one position, {label}", step_operands(shape, K), gla_step, bytes=moved, family="gated"))
        found.append(Case(f"delta rule, one position, {label}", step_operands(shape, 0), delta_step, bytes=moved, family="gated"))
    return found
