"""Kernels of a decoding step that change a recurrence's state where it lies, against plain torch in float64."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from archdsl.kernels import causal_conv, decode_states, gemv
from archdsl.ops import memories as _memories  # noqa: F401  (registers the torch ops)
from archdsl.ops import time as _time  # noqa: F401  (registers the torch ops)
from tests.kernels.held import DEVICE, alike, close, gpu, interpreted, poisoned, strided

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-2}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def numbers(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(DEVICE, dtype)


def side_by_side(dtype: torch.dtype, B: int, *widths: int) -> list[torch.Tensor]:
    """[B, 1, w] as views of what one linear map gives."""
    return list(numbers(dtype, B, 1, sum(widths)).split(widths, 2))


def by_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


# ---------------------------------------------------------------- gated linear attention
def gla(dtype: torch.dtype, B: int, H: int, K: int, V: int, rank: int, tau: float | None, bias: bool, before: bool,
        kept: torch.dtype = torch.float32) -> None:
    q, k, v, low = side_by_side(dtype, B, H * K, H * K, H * V, rank or H * K)
    q, k, v = (by_heads(x, H) for x in (q, k, v))
    up, up_bias = (numbers(dtype, H * K, rank) / rank**0.5, numbers(dtype, H * K) if bias else None) if rank else (None, None)
    u = low if rank else by_heads(low, H)
    if tau is None:
        u = -u.abs()
    memory = numbers(kept, B, H, K, V)
    wide = u.double()
    if up is not None:
        wide = by_heads(F.linear(wide, up.double(), None if up_bias is None else up_bias.double()), H)
    decay = wide if tau is None else F.logsigmoid(wide) / tau
    old = memory.double()
    new = old * decay.mT.exp() + k.double().mT * v.double()
    expected = 0.3 * (q.double() @ (old if before else new))
    y = decode_states.gla(q, k, v, u, up, up_bias, memory, tau, 0.3, before)
    close([y], [expected], TOLERANCE[dtype])
    close([memory], [new], max(TOLERANCE[dtype], TOLERANCE[kept]))


GLA = [(2, 3, 20, 37, 0, None, False, False), (1, 2, 16, 16, 5, 16.0, True, False), (3, 1, 9, 40, 16, 2.0, False, True),
       (1, 2, 33, 12, 0, 4.0, False, False)]


@interpreted
@DTYPES
@pytest.mark.parametrize("case", GLA, ids=str)
def test_gla(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    gla(dtype, *case)


@gpu
@DTYPES
@pytest.mark.parametrize("case", [*GLA, (1, 4, 256, 512, 16, 16.0, True, False), (32, 4, 256, 512, 16, 16.0, True, False)], ids=str)
def test_gla_on_a_card(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    gla(dtype, *case)


# ---------------------------------------------------------------- state spaces
def ssd(dtype: torch.dtype, B: int, H: int, G: int, P: int, S: int, softplus: bool, skips: bool, gated: bool,
        kept: torch.dtype = torch.float32) -> None:
    gate, x, b, c, dt = side_by_side(dtype, B, H * P, H * P, G * S, G * S, H)
    (gate, x), (b, c) = (t.unflatten(2, (H, P)) for t in (gate, x)), (t.unflatten(2, (G, S)) for t in (b, c))
    dt = dt if softplus else dt.abs()
    bias, skip = (numbers(torch.float32, H) if softplus else None), (numbers(dtype, H) if skips else None)
    a, memory = -numbers(torch.float32, H, seed=1).exp(), numbers(kept, B, H, P, S)
    t = dt.double()[:, 0]
    t = F.softplus(t + bias.double()) if bias is not None else t
    wide = {n: v.double()[:, 0].repeat_interleave(H // v.shape[2], 1) for n, v in (("x", x), ("b", b), ("c", c))}
    new = memory.double() * (t * a.double()).exp()[..., None, None] + (t[..., None] * wide["x"])[..., None] * wide["b"][..., None, :]
    y = (new @ wide["c"][..., None])[..., 0]
    if skip is not None:
        y = y + skip.double()[:, None] * wide["x"]
    if gated:
        y = y * F.silu(gate.double()[:, 0])
    got = decode_states.ssd(x, dt, bias, a, b, c, skip, gate if gated else None, memory, softplus)
    near, within = (close, 2e-5) if dtype == torch.float32 else (alike, 1e-2)
    near([got], [y[:, None]], within)
    close([memory], [new], TOLERANCE[kept]) if kept != torch.float32 else near([memory], [new], within)


SSD = [(2, 4, 2, 12, 5, True, True, True), (1, 2, 1, 16, 40, True, False, False), (3, 3, 3, 7, 16, False, True, True)]


@interpreted
@DTYPES
@pytest.mark.parametrize("case", SSD, ids=str)
def test_ssd(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    ssd(dtype, *case)


@gpu
@DTYPES
@pytest.mark.parametrize("case", [*SSD, (1, 80, 1, 64, 128, True, True, True), (32, 80, 1, 64, 128, True, True, True)], ids=str)
def test_ssd_on_a_card(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    ssd(dtype, *case)


def kept_narrow(dtype: torch.dtype) -> None:
    """Memories in bfloat16: read once, computed with in float32, rounded once."""
    gla(dtype, 2, 3, 20, 37, 5, 16.0, True, False, torch.bfloat16)
    ssd(dtype, 2, 4, 2, 12, 5, True, True, True, torch.bfloat16)


@interpreted
def test_memories_in_bfloat16(monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    kept_narrow(torch.float32)


@gpu
@DTYPES
def test_memories_in_bfloat16_on_a_card(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    poisoned(monkeypatch)
    kept_narrow(dtype)


# ---------------------------------------------------------------- convolutions
def conv(dtype: torch.dtype, B: int, c: int, k: int, bias: bool, act: str) -> None:
    """Alone, and behind a linear map of which it takes some columns."""
    taps, added, tail = numbers(dtype, c, k), strided(numbers(dtype, c)) if bias else None, numbers(dtype, B, k - 1, c)
    x, weight, norm = numbers(dtype, B, 1, 24), numbers(dtype, c + 9, 24) / 5, numbers(dtype, 24)
    apply = {"identity": lambda y: y, "silu": F.silu}[act]

    def expected(u: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        long = torch.cat([kept.double(), u.double()], 1)
        y = (long * taps.double().T).sum(1, keepdim=True)
        return apply(y if added is None else y + added.double()), long[:, 1:]

    u, other = side_by_side(dtype, B, c, 5)[0], tail.clone()
    right = expected(u, tail)
    close([causal_conv.step_in_place(u, taps, added, other, act), other], list(right), TOLERANCE[dtype])
    whole = F.linear(F.rms_norm(x.double(), (24,), norm.double(), 1e-5), weight.double())
    y, new = expected(whole[..., 4:4 + c].to(dtype), tail)
    whole = torch.cat([whole[..., :4], y, whole[..., 4 + c:]], -1)
    close([gemv.convolved(x, weight, None, norm, 1e-5, taps, added, tail, 4, act), tail], [whole, new], TOLERANCE[dtype])


CONV = [(2, 19, 4, True, "silu"), (1, 8, 2, False, "silu"), (3, 33, 3, True, "identity")]


@interpreted
@DTYPES
@pytest.mark.parametrize("case", CONV, ids=str)
def test_conv(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    conv(dtype, *case)


@gpu
@DTYPES
@pytest.mark.parametrize("case", [*CONV, (1, 5376, 4, True, "silu")], ids=str)
def test_conv_on_a_card(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    conv(dtype, *case)


# ---------------------------------------------------------------- norms of heads
@DTYPES
@pytest.mark.parametrize(("B", "H", "W", "weighted"), [(2, 3, 20, True), (1, 1, 130, False)])
def test_head_norm(monkeypatch: pytest.MonkeyPatch, B: int, H: int, W: int, weighted: bool, dtype: torch.dtype):
    """In the interpreter or on a card."""
    poisoned(monkeypatch)
    heads, gate = side_by_side(dtype, B, H * W, H * W)
    x, weight = by_heads(heads, H), strided(numbers(dtype, W)) if weighted else None
    normed = F.rms_norm(x.double(), (W,), None if weight is None else weight.double(), 1e-5)
    expected = normed.transpose(1, 2).flatten(2) * F.silu(gate.double())
    close([decode_states.head_norm(x, weight, 1e-5, gate)], [expected], TOLERANCE[dtype])


# ---------------------------------------------------------------- without a card
def launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a GLA and a Mamba-2 of 1.1 billion weights launch."""
    def on(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    for dtype in (torch.bfloat16, torch.float32):
        made = partial(on, dtype=dtype)
        for B in (1, 32):
            q, v, memory = made(B, 4, 1, 256), made(B, 4, 1, 512), on(B, 4, 256, 512, dtype=torch.float32)
            yield f"gla, {B} rows", partial(decode_states.gla, q, q, v, made(B, 1, 16), made(1024, 16), made(1024), memory, 16.0, 0.1, False)
            yield f"head norm, {B} rows", partial(decode_states.head_norm, v, made(512), 1e-6, made(B, 1, 2048))
            x, b, memory = made(B, 1, 80, 64), made(B, 1, 1, 128), on(B, 80, 64, 128, dtype=torch.float32)
            rates = on(80, dtype=torch.float32)
            yield f"ssd, {B} rows", partial(decode_states.ssd, x, made(B, 1, 80), rates, rates, b, b, made(80), x, memory, True)
            yield f"convolution, {B} rows", partial(causal_conv.step_in_place, made(B, 1, 5376), made(5376, 4), made(5376), made(B, 3, 5376), "silu")
