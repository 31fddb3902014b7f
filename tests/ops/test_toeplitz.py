"""Long convolutions and attention by features against their sums, position by position: gradients, any split, packed, long sequences, 16 bits."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import archdsl
from archdsl.ops import toeplitz
from archdsl.ops.recurrent import KERNELS, RECURRENCES
from archdsl.ops.registry import OPS, find

assert find("long_conv") is not None  # the families are read
F64 = torch.float64


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed + len(shape)))


def weight(taps: torch.Tensor, lag: int, both: bool) -> torch.Tensor:
    """The taps [h, n] of one lag, 0 where there are none."""
    at = lag + taps.shape[-1] // 2 if both else lag
    return taps[..., at] if 0 <= at < taps.shape[-1] else 0 * taps[..., 0]


def conv(x: torch.Tensor, taps: torch.Tensor, both: bool = False) -> torch.Tensor:
    n = x.shape[1]
    return torch.stack([sum((weight(taps, t - j, both) * x[:, j] for j in range(n if both else t + 1)), 0 * x[:, 0]) for t in range(n)], 1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, taps: torch.Tensor, both: bool = False) -> torch.Tensor:
    n = q.shape[2]
    every = torch.stack([torch.stack([weight(taps, i - j, both) if both or j <= i else 0 * taps[:, 0] for j in range(n)], -1) for i in range(n)], -2)
    return torch.einsum("bhim,bhjm,hij,bhje->bhie", q, k, every, v)


def maps(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """By the loop over all pairs of places."""
    H, W = q.shape[2:4]
    y = torch.zeros_like(v)
    for a in range(H * W):
        for b in range(H * W):
            di, dj = a // W - b // W + taps.shape[1] // 2, a % W - b % W + taps.shape[2] // 2
            if 0 <= di < taps.shape[1] and 0 <= dj < taps.shape[2]:
                score = (q[:, :, a // W, a % W] * k[:, :, b // W, b % W]).sum(-1) * taps[:, di, dj]
                y = y.index_put((torch.arange(q.shape[0])[:, None], torch.arange(q.shape[1])[None], torch.tensor(a // W), torch.tensor(a % W)),
                                score[..., None] * v[:, :, b // W, b % W], accumulate=True)
    return y


def qkv(batch: int, heads: int, *positions: int, m: int = 4, e: int = 3) -> list[torch.Tensor]:
    return [drawn(batch, heads, *positions, w, seed=i) for i, w in enumerate((m, m, e))]


CASES: dict[str, tuple[str, Callable[..., torch.Tensor], Callable[[int], list[torch.Tensor]]]] = {
    "conv": ("long_conv", conv, lambda n: [drawn(2, n, 3), drawn(3, n + 2)]),
    "conv, fewer taps": ("long_conv", conv, lambda n: [drawn(2, n, 3), drawn(3, n // 2 + 1)]),
    "conv both ways": ("long_conv_both", lambda x, w: conv(x, w, True), lambda n: [drawn(2, n, 3), drawn(3, 2 * n + 3)]),
    "conv both ways, fewer taps": ("long_conv_both", lambda x, w: conv(x, w, True), lambda n: [drawn(2, n, 3), drawn(3, 2 * (n // 2) + 1)]),
    "attention": ("toeplitz_attention", attention, lambda n: [*qkv(2, 3, n), drawn(3, n + 2)]),
    "attention, fewer taps": ("toeplitz_attention", attention, lambda n: [*qkv(2, 3, n), drawn(3, n // 2 + 1)]),
    "attention both ways": ("toeplitz_attention_both", lambda *a: attention(*a, both=True), lambda n: [*qkv(2, 3, n), drawn(3, 2 * n + 1)]),
    "attention both ways, fewer taps": ("toeplitz_attention_both", lambda *a: attention(*a, both=True),
                                        lambda n: [*qkv(1, 2, n), drawn(2, 2 * (n // 3) + 1)]),
}
cases = pytest.mark.parametrize("case", CASES)
lowerings = pytest.mark.parametrize("dear", [0, 1 << 40], ids=["fft", "matrix"])


@cases
@lowerings
@pytest.mark.parametrize("n", [1, 2, 17, 64])
def test_sums(case: str, n: int, dear: int, monkeypatch: pytest.MonkeyPatch):
    """Both ways to compute them, with all gradients."""
    name, reference, make = CASES[case]
    monkeypatch.setattr(toeplitz, "DEAR", dear)
    leaves = [x.requires_grad_() for x in make(n)]
    got, want = OPS[name].body(*leaves), reference(*leaves)
    assert want.abs().max() > 1e-2
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    probe = torch.randn(want.shape, dtype=F64, generator=torch.Generator().manual_seed(9))
    mine, theirs = (torch.autograd.grad((y * probe).sum(), leaves) for y in (got, want))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("taps", [2, 4, 6, 40])
def test_even_numbers_of_taps(taps: int):
    """The middle is the later one of two; the last tap on the other side is missing."""
    for name, reference, operands in (("long_conv_both", conv, [drawn(2, 5, 3), drawn(3, taps)]),
                                      ("toeplitz_attention_both", attention, [*qkv(2, 3, 5), drawn(3, taps)])):
        torch.testing.assert_close(OPS[name].body(*operands), reference(*operands, both=True), rtol=1e-10, atol=1e-10)
    operands = [*qkv(1, 2, 3, 4), drawn(2, taps, 3)]
    torch.testing.assert_close(OPS["toeplitz_attention_2d"].body(*operands), maps(*operands), rtol=1e-10, atol=1e-10)


@lowerings
@pytest.mark.parametrize(("H", "W", "r", "c"), [(1, 1, 1, 1), (3, 5, 5, 9), (4, 2, 9, 3), (2, 5, 3, 3), (1, 6, 1, 13)])
def test_sums_on_maps(H: int, W: int, r: int, c: int, dear: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toeplitz, "DEAR", dear)
    leaves = [x.requires_grad_() for x in [*qkv(2, 2, H, W), drawn(2, r, c)]]
    got, want = OPS["toeplitz_attention_2d"].body(*leaves), maps(*leaves)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    mine, theirs = (torch.autograd.grad(y.square().sum(), leaves) for y in (got, want))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def extended(name: str, operands: list[torch.Tensor], cuts: list[int], room: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Results of parts behind each other, and the last state."""
    r = RECURRENCES[name]
    given = dict(zip(r.operands, operands))
    states, ys, at = list(r.zeros(operands, room)), [], 0
    for n in cuts:
        part = [x.narrow(r.time[k], at, n) if k in r.time else x for k, x in given.items()]
        y, *states = OPS[f"{name}_extend"].body(*part, *states)
        ys.append(y)
        at += n
    return torch.cat(ys, r.time["->0"]), states


@pytest.mark.parametrize("case", [c for c in CASES if "both" not in c])
@lowerings
def test_any_split(case: str, dear: int, monkeypatch: pytest.MonkeyPatch):
    """Same results and the same last state, which is what came in, newest last; more room than needed is zeros in front."""
    name, reference, make = CASES[case]
    monkeypatch.setattr(toeplitz, "DEAR", dear)
    operands = make(40)
    want = reference(*operands)
    for room in (40, 53):
        for cuts in ([40], [1] * 40, [17, 1, 22], [39, 1], [3, 30, 7]):
            got, states = extended(name, operands, cuts, room)
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
            for kept, came in zip(states, operands if name == "long_conv" else operands[1:]):
                assert torch.equal(kept[..., room - 40:, :], came) and not kept[..., :room - 40, :].any() and kept.shape[-2] == room


@pytest.mark.parametrize("case", CASES)
def test_later_positions(case: str):
    """They change nothing before them, or much where all positions see each other."""
    name, _, make = CASES[case]
    operands = make(60)
    before = OPS[name].body(*operands)
    axis = {**KERNELS, **RECURRENCES}[name].time["->0"]
    late = [torch.cat([x.narrow(axis, 0, 30), 3 * x.narrow(axis, 30, 30)], axis) for x in operands[:-1]]
    after = OPS[name].body(*late, operands[-1])
    change = (after - before).narrow(axis, 0, 30).abs().max()
    assert change > 1e-2 if "both" in name else change <= 1e-12 * before.abs().max()  # round-off of the FFT


@pytest.mark.parametrize("name", ["long_conv", "toeplitz_attention"])
def test_long(name: str):
    """8,192 positions with taps over ten decades: finite, in float32 the float64 sums to 1e-4, in parts the same."""
    n = 8192
    fade = torch.exp(-torch.arange(n, dtype=F64) / torch.tensor([[30.0], [3000.0]]))
    operands = [drawn(1, n, 2), fade] if name == "long_conv" else [*(x.abs() for x in qkv(1, 2, n, m=3, e=2)), fade]
    got = OPS[name].body(*operands)
    for t in (0, 1, 4095, 8191):
        if name == "long_conv":
            want = (fade[:, :t + 1].flip(-1).mT * operands[0][0, :t + 1]).sum(0)
            torch.testing.assert_close(got[0, t], want, rtol=1e-10, atol=1e-10)
        else:
            q, k, v, _ = operands
            want = ((q[0, :, t, None] * k[0, :, :t + 1]).sum(-1) * fade[:, :t + 1].flip(-1))[:, None] @ v[0, :, :t + 1]
            torch.testing.assert_close(got[0, :, t], want[:, 0], rtol=1e-10, atol=1e-10)
    low = [x.float() for x in operands]
    single = OPS[name].body(*low)
    assert single.dtype == torch.float32 and (single - got).abs().max() <= 1e-4 * got.abs().max()
    parts, _ = extended(name, low, [5000, 1, 3191], n)
    assert (parts - got).abs().max() <= 1e-4 * got.abs().max()
    half = OPS[name].body(*(x.bfloat16() for x in operands[:-1]), low[-1])
    assert half.dtype == torch.bfloat16 and (half - got).abs().max() <= 2e-2 * got.abs().max()


@pytest.mark.parametrize("name", ["long_conv", "toeplitz_attention"])
def test_state_is_the_inputs(name: str):
    """In the element type that they come in: 16 bits stay 16 bits."""
    r = RECURRENCES[name]
    operands = [x.bfloat16() for x in ([drawn(2, 9, 4), drawn(4, 20)] if name == "long_conv" else [*qkv(2, 3, 9, m=4, e=5), drawn(3, 20)])]
    states = extended(name, operands, [9], 20)[1]
    assert all(s.dtype == torch.bfloat16 for s in states)
    assert sum(s.numel() for s in states) == {"long_conv": 2 * 20 * 4, "toeplitz_attention": 2 * 3 * 20 * (4 + 5)}[name] and r.grows


def test_taps_that_move():
    """Taps are the same for all positions; ones made along the stream are refused where a state is asked for."""
    text = """model M(d: int = 4)(x: [B = 1, T = 8, d]) -> y: [B, T, d] stream T {
      param rate: [d] = ones()
      return long_conv(x, rate[:, none] * cast(index(T), "f32"))
    }"""
    with pytest.raises(archdsl.ArchError, match="`taps` is the same for all positions"):
        archdsl.loads(text).build(form="step")


def test_one_program_of_a_step_takes_states_up_to_the_number_of_taps():
    """torch.export holds a program to one side of where a slice begins to cut."""
    class Step(torch.nn.Module):
        def forward(self, x: torch.Tensor, taps: torch.Tensor, inputs: torch.Tensor) -> Any:
            return toeplitz._long_conv_step(x, taps, inputs)

    x, taps = torch.randn(2, 3), torch.randn(3, 6)
    free = (None, None, {1: torch.export.Dim.AUTO})
    program: Any = torch.export.export(Step(), (x, taps, torch.randn(2, 4, 3)), dynamic_shapes=free).module()
    for length in (3, 5, 6):
        inputs = torch.randn(2, length, 3)
        seen = torch.cat([inputs[:, 1:], x[:, None]], 1)
        assert torch.allclose(program(x, taps, inputs)[0], torch.einsum("bjc,cj->bc", seen.flip(1), taps[:, :length]), atol=1e-5)
