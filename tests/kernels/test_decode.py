"""Kernels of a decoding step against plain torch in float64: rows that begin at different places, odd widths, what surrounds linear maps."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from archdsl.graph import Mask
from archdsl.kernels import decode_attention, gemv, overlap
from archdsl.ops.caches import attend_kept
from archdsl.ops.masks import CAUSAL
from tests.kernels.held import DEVICE, close, gpu, interpreted, poisoned, strided

interprets_loops = pytest.mark.skipif(
    version("triton") < "3.7" and version("numpy") >= "2.4", reason="this Triton's interpreter has no loops to a loaded bound with this numpy")
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-2}
Shape = tuple[int, int, int, int, int, int]


def operands(shape: Shape, dtype: torch.dtype, position: int, seed: int = 0) -> list[torch.Tensor]:
    """q, k, v as a linear map leaves them, caches that hold NaN where nothing was written yet, position."""
    (B, h, g, P, w, e), generator = shape, torch.Generator().manual_seed(seed)
    whole = torch.randn(B, 1, h * w + g * w + g * e, generator=generator).to(dtype)
    q, k, v = (x.unflatten(2, (n, -1)).transpose(1, 2) for x, n in zip(whole.split([h * w, g * w, g * e], 2), (h, g, g)))
    keys, values = (torch.randn(B, g, P, n, generator=generator).to(dtype) for n in (w, e))
    for x in (keys, values):
        x[:, :, position:] = float("nan")
    return [x.to(DEVICE) for x in (q, k, v, keys, values, torch.tensor(position))]


def held(shape: Shape, dtype: torch.dtype, position: int, start: bool, sinks: bool, cap: float | None, window: int, turn: bool = False) -> None:
    q, k, v, keys, values, at = operands(shape, dtype, position)
    B, h = shape[:2]
    first = torch.arange(B, device=DEVICE).repeat_interleave(2)[::2] % (position + 1) if start else None  # not contiguous
    tables = [numbers(torch.float32, *lead, shape[4], seed=i) for i, lead in enumerate(((B, 1, 1), (1, 1), (1,), (B, shape[2], 1)))] if turn else []
    if turn:
        q_turned, k_turned = (decode_attention.turn(x, *t) for x, t in ((q, tables[:2]), (k, tables[2:])))
    else:
        q_turned, k_turned = q, k
    sink = strided(torch.randn(h, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)) if sinks else None
    wide = [x.double() for x in (q_turned, k_turned, v, keys.nan_to_num(), values.nan_to_num())]
    for cache, new in zip(wide[3:], wide[1:3]):
        cache[:, :, position] = new[:, :, 0]
    mask = Mask("and", (CAUSAL, Mask("window", (window,)))) if window else CAUSAL
    expected = attend_kept(wide[0], wide[3], wide[4], at, first, None, None if sink is None else sink.double(), mask=mask, scale=0.3, cap=cap)
    y = decode_attention.attend(q, k, v, keys, values, at, first, sink, 0.3, cap, window, tables)
    close([y], [expected], TOLERANCE[dtype])
    for cache, new, written in ((keys, k_turned, wide[3]), (values, v, wide[4])):
        assert torch.equal(cache[:, :, position], new[:, :, 0])
        assert torch.equal(cache[:, :, :position].double(), written[:, :, :position]) and cache[:, :, position + 1:].isnan().all()


@interpreted
@interprets_loops
@pytest.mark.parametrize(("shape", "position", "options"), [
    ((2, 4, 2, 9, 16, 16), 5, {}), ((1, 2, 2, 200, 8, 12), 199, {}), ((3, 6, 2, 130, 20, 16), 64, {"start": True}),
    ((1, 1, 1, 1, 16, 16), 0, {}), ((2, 4, 4, 150, 16, 16), 140, {"window": 70, "start": True}), ((2, 4, 1, 70, 16, 16), 66, {"sinks": True}),
    ((1, 4, 2, 70, 16, 16), 65, {"cap": 1.5, "sinks": True, "window": 3}), ((2, 6, 2, 70, 20, 12), 66, {"turn": True, "start": True})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention(monkeypatch: pytest.MonkeyPatch, shape: Shape, position: int, options: dict[str, Any], dtype: torch.dtype):
    """Also for one place, for rows that begin at different ones, for stretches that hold nothing."""
    monkeypatch.setattr(decode_attention, "MULTIPROCESSORS", 3)
    poisoned(monkeypatch)
    held(shape, dtype, position, **{"start": False, "sinks": False, "cap": None, "window": 0, **options})


@pytest.mark.parametrize("tables", [(3, 1, 1, 12), (1, 12), (1, 4, 1, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary(tables: tuple[int, ...], dtype: torch.dtype):
    """Heads as a linear map leaves them, in the interpreter or on a card."""
    x = numbers(dtype, 3, 1, 96).narrow(-1, 24, 48).unflatten(2, (4, 12)).transpose(1, 2)
    cos, sin = (numbers(torch.float32, *tables, seed=i) for i in (1, 2))
    wide = x.double()
    expected = wide * cos + torch.cat((-wide[..., 6:], wide[..., :6]), -1) * sin
    close([decode_attention.turn(x, cos, sin)], [expected], TOLERANCE[dtype])


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "position", "options"), [
    ((1, 32, 4, 2560, 64, 64), 2048, {}), ((32, 32, 4, 2560, 64, 64), 2301, {"start": True}), ((1, 16, 16, 513, 60, 60), 512, {}),
    ((2, 8, 1, 300, 128, 256), 7, {"sinks": True}), ((3, 8, 2, 700, 128, 128), 699, {"window": 129, "cap": 20.0, "start": True}),
    ((1, 1, 1, 1, 16, 16), 0, {}), ((2, 32, 4, 300, 64, 64), 299, {"turn": True, "start": True})])
def test_attention_on_a_card(shape: Shape, position: int, options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    held(shape, dtype, position, **{"start": False, "sinks": False, "cap": None, "window": 0, **options})


# ---------------------------------------------------------------- linear maps
def numbers(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(DEVICE, dtype)


def maps(dtype: torch.dtype, rows: int, K: int, counts: tuple[int, ...], norm: bool, bias: bool, act: str, residual: bool) -> None:
    x, weights = numbers(dtype, rows, 1, K), [numbers(dtype, n, K, seed=i) / K**0.5 for i, n in enumerate(counts)]
    biases = [strided(numbers(dtype, n, seed=i)) if bias and i != 1 else None for i, n in enumerate(counts)]
    scale, rest = strided(numbers(dtype, K)) if norm else None, numbers(dtype, rows, 1, sum(counts)) if residual else None
    wide = x.double() if scale is None else F.rms_norm(x.double(), (K,), scale.double(), 1e-5)
    each = [F.linear(wide, w.double(), None if b is None else b.double()) for w, b in zip(weights, biases)]
    apply = {"identity": lambda y: y, "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"), "relu": F.relu}[act]
    expected = apply(torch.cat(each, -1)) + (0 if rest is None else rest.double())
    close([gemv.linears(x, weights, biases, scale, 1e-5, act, rest)], [expected], TOLERANCE[dtype])
    if len(counts) == 2 and counts[0] == counts[1]:
        close([gemv.gated(x, weights, biases, scale, 1e-5, act)], [apply(each[0]) * each[1]], TOLERANCE[dtype])


CASES = [(1, 37, (9, 9), True, False, "silu", False), (2, 300, (5, 3, 7), True, True, "identity", False),
         (3, 128, (11, 11), False, True, "gelu", False), (4, 513, (6,), False, True, "identity", True),
         (1, 64, (3, 3), False, False, "gelu_tanh", False), (2, 40, (4, 4), True, True, "relu", False)]


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_linear_maps(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    maps(dtype, *case)


ALONG = [(1, 37, (29,), True, True, "silu", True), (1, 600, (50,), False, False, "identity", True), (1, 64, (23, 23), True, True, "silu", False)]


@interpreted
@pytest.mark.parametrize("case", ALONG, ids=str)
def test_programs_that_go_along(monkeypatch: pytest.MonkeyPatch, case: Any):
    """Two or three programs for all rows of a weight: each goes over many blocks, and not all over as many."""
    poisoned(monkeypatch)
    shape_of = gemv.along_of
    for programs in (2, 3):
        monkeypatch.setattr(gemv, "along_of", lambda *given, programs=programs: (programs, shape_of(*given)[1] | {"N": 2}))
        maps(torch.float32, *case)


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", [
    *CASES, *ALONG, (1, 2560, (10576,), True, False, "identity", False), (1, 5632, (2048,), False, True, "identity", True),
    (1, 2048, (2048, 256, 256), True, False, "identity", False), (4, 5632, (2048,), False, False, "identity", True),
    (1, 2048, (5632, 5632), True, False, "silu", False), (2, 1023, (32000,), True, False, "identity", False)], ids=str)
def test_linear_maps_on_a_card(monkeypatch: pytest.MonkeyPatch, case: Any, dtype: torch.dtype):
    poisoned(monkeypatch)
    maps(dtype, *case)


@interpreted
def test_what_is_no_number_stays_none():
    x, w = torch.full((1, 16), float("nan")), torch.ones(2, 16)
    assert gemv.linears(x, [w], [None], None, 0.0, "relu", None).isnan().all()


@gpu
def test_overlapping_launches(monkeypatch: pytest.MonkeyPatch):
    """Each reads what the one before it wrote, recorded and replayed."""
    monkeypatch.setattr(overlap, "OVERLAP", None)
    x, weights = numbers(torch.bfloat16, 1, 1, 2048), [numbers(torch.bfloat16, 2048, 2048, seed=i) / 2048**0.5 for i in range(12)]

    def run() -> torch.Tensor:
        y = x
        for w in weights:
            y = gemv.linears(y, [w], [None], None, 0.0, "identity", y)
        return y

    expected = x.double()
    for w in weights:
        expected = (expected + F.linear(expected, w.double())).to(torch.bfloat16).double()
    close([run()], [expected], 0.1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run()
    for _ in range(3):
        y.zero_()
        graph.replay()
        close([y], [expected], 0.1)


# ---------------------------------------------------------------- without a card
def launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a Llama of 1.1 billion weights launches, and other shapes."""
    def on(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    whole: torch.dtype = torch.int64
    for dtype in (torch.bfloat16, torch.float32):
        for B, h, g, P, w, options in ((1, 32, 4, 2560, 64, {}), (32, 32, 4, 2560, 64, {}), (1, 16, 16, 2560, 128, {}), (1, 8, 1, 4096, 256, {}),
                                       (4, 8, 2, 4096, 128, {"window": 128, "cap": 20.0, "sink": on(8, dtype=dtype)})):
            given = {"sink": None, "cap": None, "window": 0, **options}
            q, k, cache = on(B, h, 1, w, dtype=dtype), on(B, g, 1, w, dtype=dtype), on(B, g, P, w, dtype=dtype)
            yield f"attention {B}x{h}/{g}x{P}x{w}", lambda q=q, k=k, c=cache, o=given, B=B: decode_attention.attend(
                q, k, k, c, c, on(dtype=whole), on(B, dtype=whole), o["sink"], 0.1, o["cap"], o["window"])
        for B, heads, width in ((1, 32, 64), (32, 4, 128)):
            tables = on(B, 1, 1, width, dtype=torch.float32)
            q, k, cache = on(B, heads, 1, width, dtype=dtype), on(B, 4, 1, width, dtype=dtype), on(B, 4, 2560, width, dtype=dtype)
            yield f"attention, turned {B}x{heads}/4x2560x{width}", partial(decode_attention.attend, q, k, k, cache, cache, on(dtype=whole),
                                                                           on(B, dtype=whole), None, 0.1, None, 0, [tables] * 4)
            yield f"rotary {B}x{heads}x{width}", partial(decode_attention.turn, on(B, heads, 1, width, dtype=dtype), tables, tables)
        norm = on(2048, dtype=dtype)
        few, wide, long = ([on(n, K, dtype=dtype) for n in counts] for K, counts in ((2048, (2048, 256, 256)), (2048, (5632, 5632)), (5632, (2048,))))
        for rows in (1, 2, 4):
            x, y = on(rows, 1, 2048, dtype=dtype), on(rows, 1, 5632, dtype=dtype)
            yield f"qkv, {rows} rows", partial(gemv.linears, x, few, [None] * 3, norm, 1e-5, "identity", None)
            yield f"down, {rows} rows", partial(gemv.linears, y, long, [None], None, 0.0, "identity", x)
            yield f"gate and up, {rows} rows", partial(gemv.gated, x, wide, [None] * 2, norm, 1e-5, "silu")
            taps, tail = on(2056, 4, dtype=dtype), on(rows, 3, 2056, dtype=dtype)
            yield f"convolved, {rows} rows", partial(gemv.convolved, x, wide[0], None, norm, 1e-5, taps, taps[:, 0], tail, 2048, "silu")
