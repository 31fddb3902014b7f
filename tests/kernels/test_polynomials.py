"""Sums of normalised powers, rational functions by group, and what `PolyNorm` of the library is joined to."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.ops.polynomials import grouped_rational, poly_norm
from tests.kernels.held import alike, close, gpu, interpreted, poisoned, strided

SHAPES = [(1, 2), (5, 60), (3, 2, 130), (3, 2090)]
LARGE = [(1031, 1024), (517, 2816), (257, 8192)]


def launches():
    for dtype in (torch.bfloat16, torch.float32):
        for width in (60, 1024, 8192):
            x = torch.empty(64, width, dtype=dtype, device="meta")
            weight, b = (torch.empty(s, dtype=dtype, device="meta") for s in ((3,), (1,)))
            above, below = (torch.empty(s, dtype=dtype, device="meta") for s in ((6,), (4, 4)))
            yield f"poly_norm {width} {dtype}", lambda x=x, w=weight, b=b: powers(x, x, w, b)
            for apart in (True, False):
                yield f"rational {width} {dtype} {apart}", lambda x=x, a=above, b=below, apart=apart: quotients(x, x, a, b, apart)


def powers(dy: Any, x: Any, weight: Any, bias: Any) -> Any:
    from archdsl.kernels.polynomials import poly_norm, poly_norm_gradient

    return poly_norm(x, weight, bias, 1e-6), *poly_norm_gradient(dy, x, weight, bias, 1e-6)


def quotients(dy: Any, x: Any, numerator: Any, denominator: Any, apart: bool) -> Any:
    from archdsl.kernels.polynomials import rational, rational_gradient

    return rational(x, numerator, denominator, apart), *rational_gradient(dy, x, numerator, denominator, apart)


def held(shape: tuple[int, ...], dtype: torch.dtype, device: str, within: float) -> None:
    check = close if dtype == torch.float32 else alike
    g = torch.Generator().manual_seed(0)
    dy, x = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(2))
    groups = 2
    small = [torch.randn(s, generator=g).to(device, dtype) for s in ((3,), (1,), (6,), (groups, 4), (groups, 1))]
    strange = strided(x, -2) if len(shape) == 2 else strided(x)

    def exact(run: Any, *operands: torch.Tensor, **attributes: Any) -> Any:
        wide = [t.double().requires_grad_() for t in operands]
        (y,) = run(*wide, **attributes)
        return y, *torch.autograd.grad(y, wide, dy.double())

    check(powers(dy, strange, small[0], small[1]), exact(poly_norm.body, x, small[0], small[1]), within)
    for below in small[3:]:
        for apart in (True, False):
            check(quotients(strided(dy), x, small[2], below, apart), exact(grouped_rational.body, x, small[2], below, apart=apart), within)


@interpreted
@pytest.mark.parametrize("shape", SHAPES)
def test_polynomials(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    poisoned(monkeypatch)
    held(shape, torch.float32, "cpu", 2e-4)


@interpreted
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_without_eps_rows_that_are_not_there_add_nothing():
    """A program has more rows than there are: their scale would be infinite."""
    from archdsl.kernels.polynomials import poly_norm_gradient

    x, weight, bias, dy = (torch.randn(s, generator=torch.Generator().manual_seed(1)) for s in ((5, 60), (3,), (1,), (5, 60)))
    given = [t.double().requires_grad_() for t in (x, weight, bias)]
    (y,) = poly_norm.body(*given, eps=0.0)
    expected = torch.autograd.grad((y * dy.double()).sum(), given)
    close(poly_norm_gradient(dy, x, weight, bias, 0.0), expected, 2e-5)


@interpreted
def test_a_model_with_poly_norm():
    spec = archdsl.load("polycom")
    mine, plain = (spec.build("toy", kernels=k) for k in ({"poly_norm": "triton"}, "reference"))
    act = mine.layers[0].mlp.act.code
    assert "archdsl.poly_norm" in act and "rms_norm" not in act
    tokens = torch.randint(0, 512, (1, 3))
    for model in (mine, plain):
        model(tokens).square().mean().backward()
    close([p.grad for p in mine.parameters()], [p.grad for p in plain.parameters()], 1e-3)


@gpu
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE])
def test_on_a_card(shape: tuple[int, ...]):
    held(shape, torch.float32, "cuda", 1e-3)
    held(shape, torch.bfloat16, "cuda", 1e-2)
