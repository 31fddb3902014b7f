"""What kernels do not take: each is refused before anything runs, with the reason, and what computes the op instead is told."""
from __future__ import annotations

from typing import Any

import pytest

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.graph import TensorType
from archdsl.kernels import bindings as b
from archdsl.reports.kernels import kernels
from archdsl.reports.registry import Subject

Shape = tuple[int, ...]


def types(dtype: str, given: dict[str, Any]) -> dict[str, TensorType | None]:
    """Shapes of operands in one dtype; one of another as (dtype, shape)."""
    found: dict[str, TensorType | None] = {}
    for name, x in given.items():
        found[name] = None if x is None else TensorType(x[0], x[1]) if isinstance(x[0], str) else TensorType(dtype, x)
    return found


HEADS: Shape = (2, 4, 64, 32)
GLA: dict[str, Any] = {"q": HEADS, "k": HEADS, "v": HEADS, "decay": ("f32", HEADS), "value_decay": None, "memory": None}
DELTA: dict[str, Any] = {"q": HEADS, "k": HEADS, "v": HEADS, "beta": HEADS[:-1], "decay": None, "memory": None}
DPLR: dict[str, Any] = {"q": HEADS, "k": HEADS, "v": HEADS, "a": HEADS, "b": HEADS, "decay": ("f32", HEADS), "memory": None}
LINEAR: dict[str, Any] = {"q": HEADS, "k": HEADS, "v": HEADS, "decay": None, "memory": None}
SSD: dict[str, Any] = {"x": (2, 64, 4, 32), "dt": (2, 64, 4), "a": ("f32", (4,)), "b": (2, 64, 4, 16), "c": (2, 64, 4, 16), "skip": None,
                       "memory": None}
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any], str]] = [
    # a head width, a row, taps, numbers of a state
    ("gla", {}, "bf16", {**GLA, "q": (2, 4, 64, 600), "k": (2, 4, 64, 600)}, "k is 600 wide, and it holds memories of at most 512 gated rows"),
    ("gla", {}, "f32", {**GLA, "q": (2, 4, 64, 300), "k": (2, 4, 64, 300)}, "k is 300 wide, and it holds memories of at most 256 gated rows"),
    ("delta_rule", {}, "bf16", {**DELTA, "q": (2, 4, 64, 300), "k": (2, 4, 64, 300)}, "k is 300 wide, and it holds memories of at most 256 rows"),
    ("dplr_delta_rule", {}, "bf16", {**DPLR, "k": (2, 4, 64, 257)}, "k is 257 wide, and it holds memories of at most 256 rows"),
    ("linear_attention", {}, "bf16", {**LINEAR, "v": (2, 4, 64, 2000)}, "the values are 2000 wide, and"),
    ("linear_attention", {}, "bf16", {**LINEAR, "k": (2, 1, 64, 32)}, "its operands differ in the axes in front"),
    ("ssd", {}, "bf16", {**SSD, "b": (2, 64, 4, 2000), "c": (2, 64, 4, 2000)}, "wide, and"),
    ("causal_conv", {}, "bf16", {"x": (2, 64, 8), "weight": (8, 40), "bias": None, "tail": None}, "it has 40 taps, and 32 are the most"),
    ("selective_scan", {}, "bf16", {"x": (2, 64, 8), "dt": (2, 64, 8), "a": ("f32", (8, 300)), "b": (2, 64, 300), "c": (2, 64, 300), "skip": None,
                                    "memory": None}, "a has 300 numbers a channel, and 256 are the most"),
    ("rms_norm", {"eps": 1e-5}, "bf16", {"x": (4, 20000), "weight": (20000,)}, "rows are 20000 long, and it holds at most 16384"),
    ("layer_norm", {"eps": 1e-5, "count": None}, "bf16", {"x": (4, 20000), "weight": None, "bias": None}, "rows are 20000 long"),
    ("l2_norm", {"eps": 1e-6, "axis": 1}, "bf16", {"x": (4, 8, 16)}, "it takes the last axis alone"),
    ("poly_norm", {"eps": 1e-6}, "bf16", {"x": (4, 20000), "weight": (3,), "bias": (1,)}, "rows are 20000 long"),
    ("grouped_rational", {"apart": True}, "bf16", {"x": (4, 64), "numerator": (9,), "denominator": (4, 4)}, "the numerator has 9 coefficients"),
    ("prefix_attention", {}, "bf16", {"scores": (2, 64), "v": (2, 64, 300), "peak": None, "denominator": None, "numerator": None},
     "values are 300 wide, and it holds at most 256"),
    ("prefix_attention", {}, "bf16", {"scores": (2, 64), "v": (2, 64, 30), "peak": ("f32", (2,)), "denominator": ("f32", (2,)),
                                      "numerator": ("f32", (2, 30))}, "it begins at the first position"),
    ("rotary", {}, "bf16", {"x": (2, 4, 64, 32), "cos": (64, 16), "sin": (64, 16)}, "it turns heads [..., T, w] by tables [T, w]"),
    # element types
    ("rms_norm", {"eps": 1e-5}, "f64", {"x": (4, 20), "weight": (20,)}, "it takes bf16, f16 or f32, not f64"),
    ("rms_norm", {"eps": 1e-5}, "bf16", {"x": (4, 20), "weight": ("f32", (20,))}, "x is bf16, weight is f32: they have to be of one dtype"),
    ("gla", {}, "f16", GLA, "it takes bf16 or f32, not f16"),
    ("delta_rule", {}, "bf16", {**DELTA, "v": ("f32", HEADS)}, "q is bf16, k is bf16, v is f32: they have to be of one dtype"),
    ("embedding_bag", {}, "int", {"index": (4, 2), "weight": ("f64", (8, 4)), "scale": None}, "it takes tables of bf16, f16, f32, not of f64"),
    # nothing at all, and too much of it
    ("swiglu", {}, "bf16", {"gate": (0, 8), "up": (0, 8)}, "an operand is empty"),
    ("causal_conv", {}, "bf16", {"x": (70000, 64, 8), "weight": (8, 4), "bias": None, "tail": None},
     "there are 70000 sequences, and 65535 are the most"),
]


@pytest.mark.parametrize(("op", "attributes", "dtype", "given", "told"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_the_reason_and_what_is_taken(op: str, attributes: dict[str, Any], dtype: str, given: dict[str, Any], told: str):
    found = b.choose(op, "cuda", dtype, types(dtype, given), attributes, capability=(9, 0), installed=False)
    assert found.name == b.REFERENCE and told in found.reasons["triton"]
    with pytest.raises(b.KernelError) as fault:
        b.choose(op, "cuda", dtype, types(dtype, given), attributes, asked="triton", capability=(9, 0), installed=False)
    assert str(fault.value).startswith(f"the kernel `triton` of `{op}` cannot be used here: ") and told in str(fault.value)


def test_the_same_operands_in_reach_are_taken():
    """So none of the cases is refused for another reason than the one that it is about."""
    near = {"gla": (GLA, {}), "delta_rule": (DELTA, {}), "dplr_delta_rule": (DPLR, {}), "linear_attention": (LINEAR, {}), "ssd": (SSD, {}),
            "causal_conv": ({"x": (2, 64, 8), "weight": (8, 4), "bias": None, "tail": None}, {}),
            "rms_norm": ({"x": (4, 16384), "weight": (16384,)}, {"eps": 1e-5}), "l2_norm": ({"x": (4, 8, 16)}, {"eps": 1e-6, "axis": -1}),
            "grouped_rational": ({"x": (4, 64), "numerator": (6,), "denominator": (4, 4)}, {"apart": True}),
            "prefix_attention": ({"scores": (2, 64), "v": (2, 64, 256), "peak": None, "denominator": None, "numerator": None}, {}),
            "rotary": ({"x": (2, 4, 64, 32), "cos": (64, 32), "sin": (64, 32)}, {}), "swiglu": ({"gate": (4, 8), "up": (4, 8)}, {})}
    for op, (given, attributes) in near.items():
        assert b.choose(op, "cuda", "bf16", types("bf16", given), attributes, capability=(9, 0), installed=False).name == "triton", op
        old = b.choose(op, "cuda", "bf16", types("bf16", given), attributes, capability=(7, 5), installed=False)
        assert old.name == b.REFERENCE and old.reasons["triton"] == "it needs compute capability 8.0, and this card has 7.5"


WIDE = "use std { RMSNorm }\nmodel Net(d: int = 20000)(x: [B, T, d]) -> [B, T, d] { return RMSNorm()(x) as norm }\n"


def test_of_a_model_before_it_is_built():
    """`archdsl report kernels`: in which block, what computes it, and why not the kernel."""
    (row,) = kernels([Subject("net", archdsl.loads(WIDE).elaborate(), {"B": 2, "T": 5})], device="cuda", dtype="bf16").rows
    assert row.address == "norm" and row.cells[:2] == ("rms_norm", "reference")
    assert str(row.cells[2]).startswith("triton: rows are 20000 long, and it holds at most 16384")


def test_of_a_kernel_that_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    """When the model is built: where in the text, why, and what would be taken in its place."""
    from archdsl.kernels.target import Target
    from archdsl.lower.build import lower

    monkeypatch.setattr(b, "_installed", lambda module: True)
    graph = archdsl.loads(WIDE).elaborate().graph
    with pytest.raises(ArchError) as found:
        lower(graph, device="meta", dtype="bf16", made_for=Target("cuda", named=(("rms_norm", "triton"),)))
    (told,) = found.value.diagnostics
    assert told.code == "A0519" and "rows are 20000 long, and it holds at most 16384" in told.message
    assert "leave the choice, which is `reference` here" in told.help[0] and told.span.text
