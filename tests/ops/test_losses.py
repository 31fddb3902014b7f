"""The linear map and its loss as one op: chunks, targets that do not count, types, what it refuses."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archdsl.ops import chunked_loss
from archdsl.ops.registry import OPS, load

load()


def fused(*args, **attributes):
    return OPS["linear_cross_entropy"].body(*args, **attributes)


def operands(rows=(3, 67), d=12, classes=37, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*s, generator=g, dtype=dtype).requires_grad_() for s in ((*rows, d), (classes, d), (classes,)))
    targets = torch.randint(0, classes, rows, generator=g)
    targets[targets % 5 == 0] = -100
    return x, w, targets, b


def written_out(x, w, targets, b, scale, cap):
    """From the definition: log Σ exp - score of the target, one row after the other."""
    losses = []
    for row, target in zip(x.flatten(0, -2), targets.flatten().tolist()):
        scores = scale * (w @ row + b)
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        losses += [] if target == -100 else [torch.log(torch.exp(scores).sum()) - scores[target]]
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("scale", "cap"), [(1, None), (0.3, 2.0)])
def test_chunks_of_rows(scale, cap, monkeypatch):
    """201 rows in chunks of 128, the last one short: loss and gradients by the definition; the gradient that comes in scales them."""
    monkeypatch.setattr(chunked_loss, "ROOM", 1)
    given = operands()
    leaves = given[0], given[1], given[3]
    mine, theirs = fused(*given, scale=scale, cap=cap), written_out(*given, scale, cap)
    assert abs(mine - theirs) <= 1e-12
    for a, b in zip(torch.autograd.grad(-3 * mine, leaves), torch.autograd.grad(-3 * theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_scores_are_never_held_as_a_whole(monkeypatch):
    monkeypatch.setattr(chunked_loss, "ROOM", 1)
    x, w, targets, b = operands(rows=(512,))
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            found = func(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in tree_leaves(found) if isinstance(t, torch.Tensor))])
            return found

    with Watch():
        fused(x, w, targets, b).backward()
    assert largest == max(x.numel(), 128 * 37)


def test_sixteen_bits():
    """Scores are rounded, sums are not: as near to float64 as all scores with torch's own loss are."""
    x, w, targets, b = operands(dtype=torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in (x, w, b)]
    expected = torch.autograd.grad(written_out(exact[0], exact[1], targets, exact[2], 1, None), exact)
    whole = F.cross_entropy(F.linear(x, w, b).float().flatten(0, -2), targets.flatten())
    theirs, mine = torch.autograd.grad(whole, (x, w, b)), torch.autograd.grad(fused(x, w, targets, b), (x, w, b))
    for m, t, e in zip(mine, theirs, expected, strict=True):
        assert m.dtype == torch.bfloat16 and (m - e).norm() <= 1.1 * (t - e).norm()


def test_targets():
    x, w, targets, b = operands(rows=(7,))
    assert fused(x, w, torch.full_like(targets, -100), b).isnan() and F.cross_entropy(x @ w.mT, torch.full_like(targets, -100)).isnan()
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        fused(x, w, torch.full_like(targets, 37), b)
    whole = targets.clamp(min=0)
    torch.testing.assert_close(fused(x, w, whole, ignore=int(whole[0])), F.cross_entropy(x @ w.mT, whole, ignore_index=int(whole[0])))


def test_sums_that_leave_float16():
    """Before they are divided by the number of rows; and where no target counts, nothing comes back, of any type."""
    x, w, _, b = operands(rows=(60_000,), d=1, classes=2, dtype=torch.float32)
    targets = torch.zeros(60_000, dtype=torch.int64)
    x, w, b = (t.detach().to(torch.float16).requires_grad_() for t in (3 + 0 * x, w, b))
    loss = fused(x, w, targets, b)
    exact = [t.detach().double().requires_grad_() for t in (x, w, b)]
    expected = torch.autograd.grad(F.cross_entropy(F.linear(exact[0], *exact[1:]), targets), exact)
    for scale in (1, 1024):  # a scaled loss keeps the digits of small gradients
        for mine, theirs in zip(torch.autograd.grad(scale * loss, (x, w, b), retain_graph=True), expected, strict=True):
            torch.testing.assert_close(mine.double(), scale * theirs, rtol=4e-3, atol=6e-8)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        leaves = [t.detach()[:7].to(dtype).requires_grad_() for t in (x, w, b)]
        found = torch.autograd.grad(fused(*leaves[:2], torch.full((7,), -100), leaves[2]), leaves)
        assert all(g.dtype == dtype and not g.any() for g in found)


@pytest.mark.parametrize("compiled", [False, True])
def test_under_autocast(compiled: bool):
    """As operands of the type that it asks for: gradients come back in their own."""
    x, w, targets, b = operands(rows=(9,), dtype=torch.float32)
    low = x.detach().bfloat16()
    run = torch.compile(fused, backend="aot_eager", fullgraph=True) if compiled else fused
    with torch.autocast("cpu", torch.bfloat16):
        losses = [run(given, w, targets, b) for given in (x, low.requires_grad_())]
    cast = [t.detach().bfloat16().requires_grad_() for t in (x, w, b)]
    expected = fused(*cast[:2], targets, cast[2])
    for loss, given in zip(losses, (x, low), strict=True):
        assert torch.equal(loss, expected)
        for mine, theirs, leaf in zip(torch.autograd.grad(loss, (given, w, b)), torch.autograd.grad(expected, cast, retain_graph=True),
                                      (given, w, b), strict=True):
            assert mine.dtype == leaf.dtype and torch.equal(mine.bfloat16(), theirs)


def test_what_is_not_needed_is_not_computed():
    x, w, targets, b = operands(rows=(5,))
    with torch.no_grad():
        assert not fused(x, w, targets, b).requires_grad
    kept = torch.ops.archdsl.linear_cross_entropy_kept(x, w, targets, b, 1.0, None, -100, [False, True, False], None)
    assert [t.shape for t in kept] == [(), (), (0,), w.shape, (0,)]
    loss = fused(x, w, targets, b)
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no derivative of their own"):
        first.sum().backward()


def test_in_compiled_graphs():
    given = operands(rows=(9,))
    leaves = given[0], given[1], given[3]
    for dtype in (torch.float64, torch.float16):
        cast = [t if t is given[2] else t.detach().to(dtype) for t in given]
        torch.library.opcheck(torch.ops.archdsl.linear_cross_entropy_kept.default, (*cast, 1.0, 2.0, -100, [True, True, True], None),
                              test_utils=("test_schema", "test_faketensor"))
    compiled = torch.compile(lambda *g: fused(*g, cap=2.0), backend="aot_eager", fullgraph=True)
    for a, b in zip(torch.autograd.grad(compiled(*given), leaves), torch.autograd.grad(fused(*given, cap=2.0), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
