"""Scores into losses and gradients, in place."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.kernels.bindings import bindings
from archdsl.kernels.running import run
from archdsl.ops import chunked_loss
from tests.kernels.held import as_exact, close, gpu, interpreted

CASES = [(37, None, 1.0), (64, 2.0, 0.7), (5003, None, 0.5), (1, None, 1.0)]


def launches():
    from archdsl.kernels.cross_entropy import loss_in_place

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for classes in (100, 32000):
            scores, targets = torch.empty(64, classes, dtype=dtype, device="meta"), torch.empty(64, dtype=torch.int64, device="meta")
            for cap in (None, 30.0):
                for factor in (None, torch.empty((), device="meta")):
                    yield f"cross_entropy {dtype} {classes} cap {cap} gradient {factor is not None}", lambda s=scores, t=targets, c=cap, f=factor: \
                        loss_in_place(s, t, 1.0, c, -100, f)


def scores_and_targets(classes: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Six rows in a wider buffer of NaN; one target does not count."""
    g = torch.Generator().manual_seed(classes)
    wide = torch.full((6, classes + 3), float("nan"), dtype=dtype, device=device)
    scores = wide[:, :classes]
    scores.copy_(3 * torch.randn(6, classes, generator=g))
    targets = torch.randint(0, classes, (6,), generator=g).to(device)
    targets[2] = -100
    return scores, targets


def held(device: str, dtype: torch.dtype, classes: int, cap: float | None, scale: float) -> None:
    """At most four times as far from float64 as the declared body is in the scores' own precision."""
    from archdsl.kernels.cross_entropy import loss_in_place

    scores, targets = scores_and_targets(classes, device, dtype)
    exact, plain = scores.double().clone(), scores.clone()
    factor = torch.tensor(0.2, device=device)
    expected = chunked_loss.loss_in_place(exact, targets, scale, cap, -100, factor.double())
    theirs = chunked_loss.loss_in_place(plain, targets, scale, cap, -100, factor)
    alone = loss_in_place(scores, targets, scale, cap, -100, None)
    losses = loss_in_place(scores, targets, scale, cap, -100, factor)
    assert torch.equal(alone, losses)
    as_exact((losses, scores), (expected, exact), (theirs, plain), 4.0, "losses gradients")


@interpreted
@pytest.mark.parametrize(("classes", "cap", "scale"), CASES)
def test_the_kernel(classes: int, cap: float | None, scale: float):
    held("cpu", torch.float32, classes, cap, scale)


@interpreted
def test_a_model_built_for_it(monkeypatch: pytest.MonkeyPatch):
    """Its kernel is called as all are, where the operands lie."""
    called: list[Any] = []
    monkeypatch.setattr(chunked_loss, "run", lambda call, tensors, attributes: called.append(call) or run(call, tensors, attributes))
    spec = archdsl.load("llama")
    mine, plain = (spec.build("tiny", loss="cross_entropy", kernels={"linear_cross_entropy": name}) for name in ("triton", "reference"))
    tokens = torch.randint(0, 512, (2, 3))
    for model in (mine, plain):
        model(tokens, tokens).backward()
    assert called == [bindings("linear_cross_entropy")["triton"].forward, chunked_loss.loss_in_place]
    close([p.grad for p in mine.parameters()], [p.grad for p in plain.parameters()], 1e-4)


@gpu
@pytest.mark.parametrize(("classes", "cap", "scale"), [*CASES, (32000, None, 1.0), (128256, 30.0, 1.0)])
def test_on_a_card(classes: int, cap: float | None, scale: float):
    held("cuda", torch.float32, classes, cap, scale)
    held("cuda", torch.bfloat16, classes, cap, scale)


@gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_op_on_a_card(dtype: torch.dtype):
    """Gradients no further from float64 than all scores with torch's loss give them; the scores are never there as a whole."""
    from archdsl.ops.losses import linear_cross_entropy, linear_cross_entropy_plain

    g = torch.Generator("cuda").manual_seed(0)
    x, w = (torch.randn(rows, 512, generator=g, device="cuda").mul_(scale).to(dtype) for rows, scale in ((9001, 1.0), (32003, 0.05)))
    targets = torch.randint(0, 32003, (9001,), generator=g, device="cuda")
    targets[::7] = -100

    def found(run: Any, dtype: torch.dtype) -> tuple[Any, int]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, w)]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = run(*leaves, targets)
        loss.backward()
        return (loss, *(t.grad for t in leaves)), torch.cuda.max_memory_allocated() - before

    exact, _ = found(linear_cross_entropy_plain, torch.float64)
    theirs, _ = found(linear_cross_entropy_plain, dtype)
    mine, peak = found(linear_cross_entropy.body, dtype)
    for m, t, e in zip(mine, theirs, exact, strict=True):
        assert (m - e).norm() <= 1.2 * (t - e).norm() + 1e-5 * e.norm()
    assert peak < 0.8 * targets.numel() * w.shape[0] * 4
