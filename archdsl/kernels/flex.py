"""torch's FlexAttention, for those who ask for it by name: no card has measured it beside the fused attention that the op's body calls."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.graph import Mask
from archdsl.kernels.bindings import Types, fixed, kernel
from archdsl.kernels.gated import _alike
from archdsl.ops.masks import FULL, simplified

LEAST = 16
"""Numbers of a head, of keys and of values, that its kernels take at least on a card."""


def _on_card(device: str, dtype: str, types: Types) -> str | None:
    if device != "cuda":
        return None
    if dtype == "f64":
        return "on a card FlexAttention takes bf16, f16 or f32, not f64"
    for name in ("k", "v"):
        t = types[name]
        assert t is not None
        if (wide := fixed(t.shape[-1])) is not None and wide < LEAST:
            return f"{name} is {wide} wide, and FlexAttention takes heads of {LEAST} numbers at least on a card"
    return None


def _fits(types: Types, attributes: Mapping[str, Any]) -> str | None:
    return _alike(types, "q", "k", "v")


@kernel("attention", "flex", devices=("cuda", "cpu"), dtypes=("bf16", "f16", "f32", "f64"), needs=(), fits=_fits, limits=_on_card, by_name=True)
class Flex:
    """torch's `flex_attention`: blocks of 128 x 128 pairs that the mask leaves empty are not computed, and neither scores nor a mask of all pairs are
    kept. It stands in the graph as it is, so that a compiler of graphs sees it; a call that is not compiled compiles it alone on a card, and takes
    the plain formula on a CPU, where it has no gradients. Each length of queries and keys is compiled by itself."""

    @staticmethod
    def inline(q: Any, k: Any, v: Any, bias: Any = None, sink: Any = None, *, mask: Mask = FULL, scale: float | None = None,
               cap: float | None = None) -> Any:
        from archdsl.kernels.flex_attention import attend

        return q.tracer.create_proxy("call_function", attend, (q, k, v, bias, sink, told(mask), scale, cap), {})

    @staticmethod
    def forward(q: Any, k: Any, v: Any, bias: Any = None, sink: Any = None, *, mask: Mask = FULL, scale: float | None = None,
                cap: float | None = None) -> Any:
        from archdsl.kernels.flex_attention import attend

        return attend(q, k, v, bias, sink, told(mask), scale, cap)


def told(mask: Mask) -> tuple[Any, ...]:
    """A mask as nested tuples of its kinds, numbers and tensors, as a graph of calls can hold it."""
    simple = simplified(mask)
    return (simple.kind, *(told(a) if isinstance(a, Mask) else a for a in simple.args))
