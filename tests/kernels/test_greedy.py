"""The likeliest token and what is noted of it, against plain torch."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from archdsl.decoding.ops import take
from archdsl.kernels import greedy
from tests.kernels.held import DEVICE, gpu, interpreted

CASES = [(1, 40, ()), (3, 37, (5,)), (4, 5, (1, 2, 3)), (2, 16, (7, 0))]
LARGE = [(1, 32000, (2,)), (5, 50257, ()), (32, 128256, (1, 2))]


def steps(dtype: torch.dtype, B: int, vocab: int, ends: tuple[int, ...]) -> None:
    """Three tokens: ties, rows of nothing but -∞, ends, and no place left for the last."""
    generator = torch.Generator().manual_seed(B * vocab)
    given = [torch.zeros(B, dtype=torch.int64), torch.zeros(B, dtype=torch.bool), torch.tensor(ends, dtype=torch.int64),
             torch.full((B, 3), -1), torch.zeros(B, dtype=torch.int64)]
    own, expected = ([x.to(DEVICE).clone() for x in given] for _ in range(2))
    for step in range(3):
        logits = torch.randn(B, 2, vocab, generator=generator).mul(4).round().to(DEVICE, dtype)[:, 1]
        if step == 1:
            logits[0] = float("-inf")
        if ends and step == 0:
            logits[-1, ends[-1]] = 100.0
        greedy.take(logits, *own)  # type: ignore[arg-type]
        take(logits.argmax(-1), *expected)  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(own, expected)), step


@interpreted
def test_no_place_left():
    """A row of the history that is full stays as it is."""
    own = [torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool), torch.tensor([], dtype=torch.int64),
           torch.full((2, 1), -1), torch.tensor([0, 1])]
    own = [x.to(DEVICE) for x in own]
    greedy.take(torch.eye(2, 6, device=DEVICE), *own)
    assert own[3].tolist() == [[0], [-1]] and own[0].tolist() == [0, 1]


@interpreted
@pytest.mark.parametrize("case", CASES, ids=str)
def test_take(case: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(greedy, "BLOCK", 16)
    steps(torch.float32, *case)


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_take_on_a_card(case: Any, dtype: torch.dtype):
    steps(dtype, *case)


def launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """For `tests.kernels.offline`."""
    def given(B: int, vocab: int, ends: int) -> list[torch.Tensor]:
        whole, flags = (torch.empty(B, dtype=t, device="meta") for t in (torch.int64, torch.bool))
        return [torch.empty(B, vocab, dtype=torch.bfloat16, device="meta"), whole, flags, torch.empty(ends, dtype=torch.int64, device="meta"),
                torch.empty(B, 64, dtype=torch.int64, device="meta"), whole]

    for ends in (0, 2):
        yield f"vocab 32000, {ends} ends", lambda ends=ends: greedy.take(*given(1, 32000, ends))
