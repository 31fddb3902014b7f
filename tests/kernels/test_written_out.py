"""Norms on CPUs with gradients of their own: the numbers of float64 within what torch errs by, never taken by themselves."""
from __future__ import annotations

import pytest
import torch

import archdsl
from archdsl.kernels import bindings as b

SPEC = archdsl.loads("""use std.norm { RMSNorm }
model M(scale: bool = true)(x: [B, T, 24]) -> y: [B, T, 24] { return RMSNorm(affine = scale)(x) as norm }
""")
OPERANDS = {
    "rows": lambda g: torch.randn(3, 7, 24, generator=g),
    "turned": lambda g: torch.randn(24, 9, 4, generator=g).permute(2, 1, 0),
    "large, and one row of zeros": lambda g: torch.cat([1e4 * torch.randn(1, 6, 24, generator=g), torch.zeros(1, 6, 24)]),
    "small": lambda g: 1e-4 * torch.randn(1, 8, 24, generator=g),
}


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("case", OPERANDS)
def test_numbers_and_gradients(case: str, scale: bool):
    g = torch.Generator().manual_seed(3)
    knobs, x = {"scale": scale}, OPERANDS[case](g)
    made = SPEC.build(knobs=knobs, kernels={"rms_norm": "written_out"})
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    probe = torch.randn(x.shape, generator=g, dtype=torch.float64)
    plain, exact = SPEC.build(knobs=knobs, kernels="reference"), SPEC.build(knobs=knobs, dtype=torch.float64)
    found = []
    for model in (made, plain, exact):
        model.load_state_dict(made.state_dict())
        leaf = (x.double() if model is exact else x.detach()).requires_grad_()
        y = model(leaf)
        found.append([y, *torch.autograd.grad((y * probe.to(y.dtype)).sum(), [leaf, *model.parameters()])])
    for mine, theirs, want in zip(*found, strict=True):
        error, other = ((a.double() - want).norm() / want.norm() for a in (mine, theirs))
        assert error <= 2 * other + 2e-8, (error, other)  # of two dozen numbers: two orders of adding them up


@pytest.mark.parametrize("scale", [True, False])
def test_one_row_alone(scale: bool):
    spec = archdsl.loads("use std.norm { RMSNorm }\nmodel M(scale: bool = true)(x: [8]) -> y: [8] { return RMSNorm(affine = scale)(x) as norm }")
    found = []
    for kernels in ({"rms_norm": "written_out"}, "reference"):
        model = spec.build(knobs={"scale": scale}, dtype=torch.float64, kernels=kernels)
        x = torch.arange(8.0, dtype=torch.float64).requires_grad_()
        y = model(x)
        found.append([y, *torch.autograd.grad(y.pow(3).sum(), [x, *model.parameters()])])
    for mine, want in zip(*found, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-12, atol=1e-12)


def test_derivatives_in_float64():
    model = SPEC.build(dtype=torch.float64, kernels={"rms_norm": "written_out"})
    x = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, w: torch.func.functional_call(model, {"norm.weight": w}, x), (x, model.norm.weight))


def test_only_where_it_is_named_and_what_is_wanted():
    assert "written_out" not in SPEC.build().code and "written_out" in "".join(
        m.code for m in SPEC.build(kernels={"rms_norm": "written_out"}).modules() if hasattr(m, "code"))
    kernel, x, weight = b.bindings("rms_norm")["written_out"], torch.randn(3, 8), torch.randn(8)
    assert kernel.gradient is not None
    dx, dweight = kernel.gradient(x, x, weight, eps=1e-5, needs=[False, True])
    assert dx is None and dweight is not None
    dx, dweight = kernel.gradient(x, x, weight, eps=1e-5, needs=[True, False])
    assert dx is not None and dweight is None
