"""Kernels whose time is that of reading and writing: what they compute of a row stays in registers."""
from __future__ import annotations

from typing import Any

from archdsl.kernels.bindings import kernel


@kernel("linear_cross_entropy", "triton", dtypes=("bf16", "f16", "f32"))
class InPlace:
    """A row for each program: the scores are read once for the logarithm of their sum, and again, from the cache, to be replaced by the gradient.
    `forward(scores [n, v], targets [n], scale, cap, ignore, factor) -> losses [n]`, as `loss_in_place` of `archdsl/ops/chunked_loss.py`."""

    @staticmethod
    def forward(*args: Any) -> Any:
        from archdsl.kernels.cross_entropy import loss_in_place

        return loss_in_place(*args)
