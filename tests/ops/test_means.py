"""wkv and linear_scan: all positions at once against one after the other, in parts of any lengths, where gates are extreme and sequences long."""
from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import load

load()
N = 8192


def operands(name: str, length: int, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(2, length, 3, generator=g, dtype=torch.float64) for _ in range(2))
    return [torch.tanh(x), y] if name == "linear_scan" else [3 * x, y, -torch.rand(3, generator=g, dtype=torch.float64), 2 * x[0, 0]]


def extend(name: str, given: list[torch.Tensor], lengths: list[int]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    r = RECURRENCES[name]
    state, found, at = r.zeros(given), [], 0
    for n in lengths:
        y, *state = r.extend.body(*(x.narrow(r.time[k], at, n) if k in r.time else x for k, x in zip(r.operands, given)), *state)
        found.append(y)
        at += n
    return torch.cat(found, -2), tuple(state)


@pytest.mark.parametrize("name", ["wkv", "linear_scan"])
def test_any_split(name: str):
    given = operands(name, 70)
    whole = RECURRENCES[name].op.body(*given)
    steps, last = extend(name, given, [1] * 70)
    assert torch.allclose(whole, steps, rtol=1e-12, atol=1e-12)
    for lengths in ([70], [1, 69], [31, 33, 6], [16, 1, 15, 32, 6]):
        y, state = extend(name, given, lengths)
        assert torch.allclose(y, whole, rtol=1e-12, atol=1e-12)
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(state, last, strict=True))


@pytest.mark.parametrize("name", ["wkv", "linear_scan"])
def test_later_positions_change_nothing(name: str):
    given, other = operands(name, 40), operands(name, 40, seed=1)
    later = [torch.cat([x[:, :23], y[:, 23:]], 1) if x.dim() == 3 else x for x, y in zip(given, other)]
    body: Any = RECURRENCES[name].op.body
    assert torch.equal(body(*given)[:, :23], body(*later)[:, :23])


@pytest.mark.parametrize("before", [0.0, 500.0])
@pytest.mark.parametrize("name", ["wkv", "linear_scan"])
def test_gradients_are_those_of_the_steps(name: str, before: float):
    """Of operands and states, from results and states. `before`: with 500 the largest exponent stays that of the state."""
    r, g = RECURRENCES[name], torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    states = [draw(2, 3)] if name == "linear_scan" else [draw(2, 3) + before, draw(2, 3).exp(), draw(2, 3)]
    given = [x.requires_grad_() for x in (*operands(name, 70), *states)]
    found = []
    for run in (r._kernel, r._stepwise):
        results = run(*given)
        probes = [torch.cos(torch.arange(y.numel(), dtype=torch.float64)).view_as(y) for y in results]
        found.append(torch.autograd.grad(torch.stack([(y * p).sum() for y, p in zip(results, probes)]).sum(), given))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_linear_scan_of_extreme_gates():
    """Gates of 0, ±1, and close to both, in float32 and over 8,192 positions, against numpy's float64."""
    g = numpy.random.default_rng(0)
    a, b = g.choice([0.0, 1.0, -1.0, 1e-30, 1 - 1e-6, 0.9], (N, 16)), g.standard_normal((N, 16))
    h, expected = numpy.zeros(16), []
    for t in range(N):
        h = a[t] * h + b[t]
        expected.append(h)
    y = RECURRENCES["linear_scan"].op.body(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert torch.allclose(y.double(), torch.from_numpy(numpy.stack(expected)), rtol=1e-4, atol=1e-4)


def test_linear_scan_of_gates_above_one():
    """Gates of 65,000 for as long as there is nothing, then small ones: no product of gates on the way is infinite."""
    a = torch.cat([torch.full((32, 2), 65_000.0), torch.full((33, 2), 0.5)])
    b = torch.cat([torch.zeros(32, 2), torch.randn(33, 2, generator=torch.Generator().manual_seed(0))])
    op = RECURRENCES["linear_scan"].op
    assert op.reference is not None and torch.allclose(op.body(a, b), op.reference(a, b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [-1e4, -1.0, -1e-3, 0.0])
def test_wkv_of_extreme_keys(decay: float):
    """Weights from exp(-1e3) to exp(1e3), in float32 and over 8,192 positions: no overflow, the mean as numpy finds it from shifted sums."""
    g = numpy.random.default_rng(1)
    k, v, bonus = g.uniform(-1e3, 1e3, (N, 4)), g.standard_normal((N, 4)), g.uniform(-50, 50, 4)
    k, v, bonus = (x.astype("float32").astype("float64") for x in (k, v, bonus))
    peak, below, above, expected = numpy.full(4, -numpy.inf), numpy.zeros(4), numpy.zeros(4), []
    for t in range(N):
        top = numpy.maximum(peak, k[t] + bonus)
        old, new = numpy.exp(peak - top), numpy.exp(k[t] + bonus - top)
        expected.append((old * above + new * v[t]) / (old * below + new))
        top = numpy.maximum(peak + decay, k[t])
        old, new = numpy.exp(peak + decay - top), numpy.exp(k[t] - top)
        peak, below, above = top, old * below + new, old * above + new * v[t]
    f = lambda x: torch.from_numpy(x).float()
    y = RECURRENCES["wkv"].op.body(f(k), f(v), torch.full((4,), decay), f(bonus))
    assert y.isfinite().all() and torch.allclose(y.double(), torch.from_numpy(numpy.stack(expected)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1.0, 1e5, 1e30])
def test_wkv_leaves_keys_out(size: float, dtype: torch.dtype):
    """Keys of -∞ in front and between, beside finite ones of any size: exactly the mean over the others, in results, states and gradients."""
    g = torch.Generator().manual_seed(5)
    k, v = size * torch.randn(2, 70, 3, generator=g, dtype=dtype) - 2 * size, torch.randn(2, 70, 3, generator=g, dtype=dtype)
    out = torch.rand(2, 70, 3, generator=g) < 0.3
    out[0, :9] = out[1, :66] = True
    k[out] = -torch.inf
    decay, bonus = -torch.rand(3, generator=g, dtype=dtype) / 2, torch.randn(3, generator=g, dtype=dtype)
    decay[2] = -torch.inf
    r, probe = RECURRENCES["wkv"], torch.randn(2, 70, 3, generator=g, dtype=dtype)
    within = max(1e-10 if dtype == torch.float64 else 1e-4, min(size, 1e5) * torch.finfo(dtype).eps)  # exponents are no closer than that
    with torch.no_grad():
        whole, last = extend("wkv", [k, v, decay, bonus], [70])
        for lengths in ([1] * 70, [3, 1, 40, 26]):
            y, state = extend("wkv", [k, v, decay, bonus], lengths)
            for a, b in ((y, whole), *zip(state, last, strict=True)):
                assert a.isfinite().all() and torch.allclose(a, b, rtol=within, atol=within)
    assert not whole[0, :9].any() and not whole[1, :66].any()
    weights = []
    for t in range(70):  # as the equation has it, of exponents taken from the largest
        at = torch.cat([k[:, :t] + torch.where(torch.arange(t - 1, -1, -1)[:, None] == 0, 0, torch.arange(t - 1, -1, -1)[:, None] * decay),
                        k[:, t:t + 1] + bonus], 1)
        weights.append(torch.where(at.isneginf().all(1, keepdim=True), 0, (at - at.amax(1, keepdim=True)).exp().nan_to_num()))
    expected = torch.stack([(w * v[:, :t + 1]).sum(1) / w.sum(1).where(w.sum(1) > 0, 1) for t, w in enumerate(weights)], 1)
    assert torch.allclose(whole, expected, rtol=10 * within, atol=10 * within)
    found = []
    for run in (r._kernel, r._stepwise):
        leaves = [x.clone().requires_grad_() for x in (k, v, decay, bonus)]
        results = run(*leaves, *r.zeros(leaves))
        assert all(x.isfinite().all() for x in results)
        found.append(torch.autograd.grad((results[0] * probe).sum() + results[2].cos().sum() + results[3].cos().sum(), leaves))
    for ours, theirs in zip(*found, strict=True):
        assert ours.isfinite().all()
        assert dtype == torch.float32 or torch.allclose(ours, theirs, rtol=1e-9, atol=1e-10)
