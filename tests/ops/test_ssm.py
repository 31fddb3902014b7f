"""State spaces: the parallel forms against the recurrence, written out here, where dt is extreme, sequences long, chunks of any size."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
import archdsl.ops.ssd as ssd
import archdsl.ops.ssm as ssm
from archdsl import ArchError
from archdsl.ops.registry import OPS, load

load()


def recurrence(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any = None) -> tuple[Any, Any]:
    """Mamba-2's equations for x [B, T, h, p]; Mamba-1 is the same with one channel in each head and a state's own decay for each number."""
    each = x.shape[2] // b.shape[2]
    b, c = b.repeat_interleave(each, 2), c.repeat_interleave(each, 2)
    memory = x.new_zeros(x.shape[0], *x.shape[2:], b.shape[-1]) if memory is None else memory
    rates = a.reshape(1, x.shape[2], 1, -1)
    ys = []
    for t in range(x.shape[1]):
        fade = torch.exp(dt[:, t, :, None, None] * rates)
        memory = fade * memory + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], b[:, t])
        ys.append(torch.einsum("bhpn,bhn->bhp", memory, c[:, t]) + skip[:, None] * x[:, t])
    return torch.stack(ys, 1), memory


def operands(op: str, batch: int, length: int, spread: float = 1.0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """x, dt, a, b, c, skip: dt from exp(-spread) to exp(spread) times `scale`, decays from a thousandth to a hundred."""
    g = torch.Generator().manual_seed(length)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    dt = ((2 * torch.rand(batch, length, 4, generator=g, dtype=torch.float64) - 1) * spread).exp() * scale
    if op == "ssd":
        a = -torch.tensor([1e-3, 1.0, 16.0, 100.0], dtype=torch.float64)
        made = [normal(batch, length, 4, 3), dt, a, normal(batch, length, 2, 5), normal(batch, length, 2, 5), normal(4)]
    else:
        a = -torch.logspace(-3, 2, 20, dtype=torch.float64).view(4, 5)
        made = [normal(batch, length, 4), dt, a, normal(batch, length, 5), normal(batch, length, 5), normal(4)]
    return [v.to(dtype) for v in made]


def expected(op: str, args: list[torch.Tensor]) -> torch.Tensor:
    x, dt, a, b, c, skip = args
    if op == "ssd":
        return recurrence(x, dt, a, b, c, skip)[0]
    return recurrence(x[..., None], dt, a, b[:, :, None], c[:, :, None], skip)[0][..., 0]


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want).abs() / (want.abs() + 1)).max().item()


@pytest.mark.parametrize("op", ["ssd", "selective_scan"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_stable_over_long_sequences(op: str, scale: float):
    """8,192 positions, dt over 3.5 decades around each scale, decays over five: no overflow, no loss beside the recurrence in float64. In float32
    terms of 1e5 cancel to sums of 1: measured by the sum of their sizes it is all there, and by the sums themselves nearly so."""
    args = operands(op, 1, 8192, 4.0, scale)
    x, skip = args[0].abs(), args[-1]
    both = [v if i in (2, 5) else torch.cat([v, v.abs()]) for i, v in enumerate(args)]  # in one go: the loop over positions takes the time
    want, sizes = expected(op, both).split(1)
    sizes = sizes + 2 * (-skip).relu().view(-1, *[1] * (op == "ssd")) * x
    assert want.isfinite().all()
    got = OPS[op].body(*args)
    assert relative(got, want) <= 1e-10
    single = OPS[op].body(*(v.float() for v in args))
    assert single.dtype == torch.float32 and ((single - want).abs() / sizes).max() <= 1e-6
    assert relative(single, want) <= (2e-3 if (op, scale) == ("ssd", 1e3) else 1e-3)
    assert OPS[op].body(*(v.bfloat16() for v in args)).isfinite().all()


@pytest.mark.parametrize("op", ["ssd", "selective_scan"])
@pytest.mark.parametrize(("length", "scale"), [(1, 1.0), (63, 1.0), (64, 1e3), (257, 1e3), (300, 1e-3)])
def test_gradients(op: str, length: int, scale: float):
    """Against autograd through the recurrence, for all operands."""
    leaves = [[v.clone().requires_grad_() for v in operands(op, 2, length, 3.0, scale)] for _ in range(2)]
    got, want = OPS[op].body(*leaves[0]), expected(op, leaves[1])
    assert relative(got, want.detach()) <= 1e-10
    probe = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for y in (got, want):
        (y * probe).sum().backward()
    for i, (mine, theirs) in enumerate(zip(*leaves)):
        assert theirs.grad.abs().max() > 0 or (length, i) == (1, 2)  # nothing fades before the second position
        assert (mine.grad - theirs.grad).abs().max() <= 1e-10 * theirs.grad.abs().max()


@pytest.mark.parametrize("op", ["ssd", "selective_scan"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_gradients_in_float32(op: str, scale: float):
    """Gates that leave nothing pass no gradients on, and the sums that this is found by do not spoil those of others."""
    leaves = [[v.requires_grad_() for v in operands(op, 2, 300, 4.0, scale, dtype)] for dtype in (torch.float64, torch.float32)]
    probe = torch.randn(leaves[0][0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for given in leaves:
        (OPS[op].body(*given) * probe.to(given[0].dtype)).sum().backward()
    for want, got in zip(*leaves):
        assert (got.grad - want.grad).abs().max() <= 5e-6 * want.grad.abs().max()


@pytest.mark.parametrize("size", [1, 7, 16, 64, 1000])
@pytest.mark.parametrize("op", ["ssd", "selective_scan"])
def test_any_size_of_chunk(op: str, size: int, monkeypatch: Any):
    args = operands(op, 2, 131)
    whole = expected(op, args)
    monkeypatch.setattr(ssd, "CHUNK", size)
    for module in (ssd, ssm):
        monkeypatch.setattr(module, "BLOCK", size)
    assert relative(OPS[op].body(*args), whole) <= 1e-10
    assert relative(OPS[op].body(*(v.float() for v in args)), whole) <= 1e-4


@pytest.mark.parametrize("op", ["ssd", "selective_scan"])
def test_goes_on_from_a_state(op: str):
    """Any split gives the same results and the same last state, which is the recurrence's."""
    args = operands(op, 2, 150)
    moving = [0, 1, 3, 4]
    ends = []
    for cuts in ((150,), (1, 149), (64, 64, 22), (3, 100, 1, 46)):
        x = args[0]
        memory = x.new_zeros((2, 4, 3, 5) if op == "ssd" else (2, 4, 5))
        ys, at = [], 0
        for n in cuts:
            part = [v[:, at:at + n] if i in moving else v for i, v in enumerate(args)]
            y, memory = OPS[f"{op}_extend"].body(*part, memory)
            ys.append(y)
            at += n
        assert relative(torch.cat(ys, 1), expected(op, args)) <= 1e-10
        ends.append(memory)
    x, dt, a, b, c, skip = args
    last = recurrence(*args)[1] if op == "ssd" else recurrence(x[..., None], dt, a, b[:, :, None], c[:, :, None], skip)[1][..., 0, :]
    assert all(relative(e, last) <= 1e-10 for e in ends)


@pytest.mark.parametrize("op", ["ssd", "selective_scan"])
def test_no_position_sees_later_ones(op: str):
    args = operands(op, 1, 140)
    before = OPS[op].body(*args)
    for i in (0, 1, 3, 4):
        args[i][:, 90:] *= -3 if i != 1 else 3
    after = OPS[op].body(*args)
    assert torch.equal(after[:, :90], before[:, :90]) and not torch.allclose(after[:, 90:], before[:, 90:])


def test_heads_that_groups_do_not_share():
    text = """
        model M()(x: [B, T, 6, 2], dt: [B, T, 6], b: [B, T, 4, 3]) -> y: [B, T, 6, 2] stream T {
          param a: [6] = -ones()
          return ssd(x, dt, a, b, b)
        }
    """
    with pytest.raises(ArchError, match="6 heads cannot share 4 groups"):
        archdsl.loads(text).elaborate()
