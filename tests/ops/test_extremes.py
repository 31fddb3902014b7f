"""8,192 positions of extreme inputs for lif and prefix_attention, whole and in parts. The other recurrences: test_gated, test_ssm, test_means, …"""
from __future__ import annotations

import numpy
import torch

from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import load

load()
N, CUT = 8192, 3001


def in_parts(name: str, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
    r = RECURRENCES[name]
    state, ys = r.zeros(list(given)), []
    for at, n in ((0, CUT), (CUT, 1), (CUT + 1, N - CUT - 1)):
        y, *state = r.extend.body(*(x.narrow(r.time[k], at, n) for k, x in zip(r.operands, given)), *state)
        ys.append(y)
    return torch.cat(ys, -2), *state


def test_neurons():
    """Inputs of all sizes, to the largest number and past it: each spike is that of the equation, and nothing stays behind one."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 6, generator=g).double() * torch.tensor([1.0, 1e6, 1e30, 1e-30, 1.0, 1.0])
    x[:, 3] = x[:, 3].abs() + 1.3
    x[5::97, 4] = torch.finfo(torch.float32).max
    x[7::97, 5] = torch.inf
    v, want = numpy.zeros(6), numpy.zeros((N, 6))
    for t, now in enumerate(x.numpy()):
        v = v + (now - v) / 2
        want[t] = v >= 1
        v[v >= 1] = 0
    found, potential = in_parts("lif", x)
    assert numpy.array_equal(found.numpy(), want) and numpy.array_equal(potential.numpy(), v)
    assert 0.3 < want[:, 3].mean() < 0.35 and want[7::97, 5].all() and not numpy.isnan(v).any()
    leaf = x[:600].float().requires_grad_()
    single = RECURRENCES["lif"].op.body(leaf)
    assert set(single.unique().tolist()) == {0, 1}
    (slope,) = torch.autograd.grad(single.sum(), leaf)
    assert slope.isfinite().all()


def test_prefixes():
    """Scores over 20,000, rising, falling, left out: softmax over the positions so far, in float64."""
    g = torch.Generator().manual_seed(1)
    ramp = torch.linspace(-1e4, 1e4, N, dtype=torch.float64)
    scores = torch.stack([ramp, -ramp, 1e4 * torch.randn(N, generator=g).double(), torch.zeros(N), torch.full((N,), -torch.inf)]).double()
    scores[3, ::2] = -torch.inf
    v = torch.randn(5, N, 3, generator=g, dtype=torch.float64)
    for dtype, within in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        s, values = scores.to(dtype), v.to(dtype)
        y, *_ = in_parts("prefix_attention", s, values)
        assert y.isfinite().all() and not y[4].any()
        for t in (0, 1, 63, CUT, N - 1):
            want = torch.softmax(s[:4, :t + 1].double(), -1).nan_to_num()[:, None] @ values[:4, :t + 1].double()
            assert (y[:4, t] - want[:, 0]).abs().max() <= within
