"""oneDNN's products as a binding: never by itself, its refusals told, and the numbers and gradients of float64 within what MKL errs by."""
from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.graph import TensorType
from archdsl.kernels import bindings as b
from archdsl.kernels.onednn import FEW, LARGE
from archdsl.lower.emit_python import python_source

SPEC = archdsl.loads("use std.linear { Linear }\nmodel M(bias: bool = true)(x: [B, T, 20]) -> y: [B, T, 12] { return Linear(12, bias)(x) as up }")
OPERANDS = {
    "rows": lambda g: torch.randn(3, 7, 20, generator=g),
    "one row": lambda g: torch.randn(1, 1, 20, generator=g),
    "as few as go to MKL": lambda g: torch.randn(1, FEW - 1, 20, generator=g),
    "turned": lambda g: torch.randn(20, 9, 4, generator=g).permute(2, 1, 0),
    "with gaps": lambda g: torch.randn(3, 10, 40, generator=g)[:, ::2, ::2],
    "repeated": lambda g: torch.randn(1, 9, 20, generator=g).expand(3, 9, 20),
    "repeated numbers": lambda g: torch.randn(3, 9, 1, generator=g).expand(3, 9, 20),
    "off the start": lambda g: torch.randn(3, 9, 23, generator=g)[..., 3:],
}


def grads(y: torch.Tensor, probe: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad((y * probe.to(y.dtype)).sum(), leaves))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", OPERANDS)
def test_numbers_and_gradients(case: str, bias: bool):
    g = torch.Generator().manual_seed(5)
    made, plain = (SPEC.build(knobs={"bias": bias}, kernels=k) for k in ({"linear": "onednn"}, {}))
    plain.load_state_dict(made.state_dict())
    exact = SPEC.build(knobs={"bias": bias}, dtype=torch.float64)
    exact.load_state_dict(made.state_dict())
    x = OPERANDS[case](g)
    probe = torch.randn(*x.shape[:2], 12, generator=g, dtype=torch.float64)
    found = []
    for model in (made, plain, exact):
        leaf = (x.double() if model is exact else x.detach()).requires_grad_()  # in float32 with the strides that it has
        y = model(leaf)
        found.append([y, *grads(y, probe, [leaf, *model.parameters()])])
    for mine, theirs, want in zip(*found):
        error, other = ((a.double() - want).norm() / want.norm() for a in (mine, theirs))
        assert error <= 2 * other + 2e-7, (error, other)  # tens of numbers: two orders of adding them up


def test_it_is_what_is_called_and_only_by_name(monkeypatch):
    called = []
    kernel = b.bindings("linear")["onednn"]
    whole = kernel.body.forward
    monkeypatch.setattr(kernel.body, "forward", staticmethod(lambda *a: called.append(1) or whole(*a)))
    x = torch.randn(2, 9, 20)
    SPEC.build()(x)
    assert not called
    model = SPEC.build(kernels={"linear": "onednn"})
    model(x)
    assert called == [1]
    assert "onednn" not in python_source(model)
    types = {"x": TensorType("f32", (9, 20)), "weight": TensorType("f32", (12, 20)), "bias": None}
    assert b.choose("linear", "cpu", "f32", types, {}).name == b.REFERENCE


def test_what_it_cannot_take_is_refused():
    with pytest.raises(ArchError, match="it takes f32, not f64"):
        SPEC.build(dtype=torch.float64, kernels={"linear": "onednn"})
    kernel = b.bindings("linear")["onednn"]
    mixed = {"x": TensorType("f32", (9, 20)), "weight": TensorType("bf16", (12, 20)), "bias": None}
    assert "of one dtype" in str(kernel.refusal("cpu", "f32", mixed, {}, None, True))
    assert "not on cuda" in str(kernel.refusal("cuda", "f32", mixed, {}, (9, 0), True))


def test_gradients_that_nobody_wants_are_not_computed_and_second_ones_told():
    model = SPEC.build(kernels={"linear": "onednn"})
    model.requires_grad_(False)
    x = torch.randn(2, 9, 20, requires_grad=True)
    model(x).sum().backward()
    want = model.get_parameter("up.weight").sum(0).expand(2, 9, 20)
    assert x.grad is not None and torch.allclose(x.grad, want, atol=1e-5)


def test_it_compiles_whole():
    model = SPEC.build(kernels={"linear": "onednn"})
    x = torch.randn(2, 9, 20)
    assert torch.allclose(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x), atol=1e-6)


class Weights(TorchDispatchMode):
    """Notes the strides of the second operand of oneDNN's products."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.mkldnn._linear_pointwise.default:
            self.seen.append((tuple(args[1].shape), args[1].stride()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("wide", [4, 60])
@pytest.mark.parametrize("case", OPERANDS)
def test_no_matrix_with_gaps_goes_to_it_as_weights(case: str, wide: int):
    g = torch.Generator().manual_seed(5)
    kernel, x, weight = b.bindings("linear")["onednn"], OPERANDS[case](g), torch.randn(wide, 40, generator=g)[:, ::2]
    assert kernel.gradient is not None
    with Weights() as weights:
        kernel.forward(x, weight, None)
        kernel.gradient(torch.randn(*x.shape[:2], 2 * wide, generator=g)[..., ::2], x, weight, None, needs=[True, True, False])
    rows = x.shape[:2].numel()
    assert len(weights.seen) == (3 if rows >= FEW else 1), weights.seen  # the gradient of the weights has as many rows as they have
    assert all(stride in ((shape[1], 1), (1, shape[0])) for shape, stride in weights.seen), weights.seen


SSD = archdsl.loads("""model M(heads: int = 4, groups: int = 1, n: int = 128, p: int = 64, skips: bool = true)(
  x: [B, T, heads, p], dt: [B, T, heads], b: [B, T, groups, n], c: [B, T, groups, n],
) -> y: [B, T, heads, p] stream T {
  param a: [heads] = ones()
  param d: [heads] = ones()
  return ssd(x, dt, -a, b, c, if skips { d } else { none })
}
""")


def ssd_operands(heads: int, groups: int, length: int, n: int = 128, p: int = 64) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(length)
    both = torch.randn(2, length, groups * n * 2 + heads * p, generator=g).split([heads * p, groups * n, groups * n], -1)
    x, *shared = (v.unflatten(-1, (k, -1)) for v, k in zip(both, (heads, groups, groups)))
    return [x, torch.rand(2, length, heads, generator=g) * 0.3, *shared]


@pytest.mark.parametrize(("heads", "groups", "length", "skips"), [(4, 1, 150, True), (8, 2, 65, False)])
def test_states_by_its_products(heads: int, groups: int, length: int, skips: bool):
    assert 64 * 128 * 64 * heads // groups >= LARGE  # a product for each chunk
    knobs, given = {"heads": heads, "groups": groups, "skips": skips}, ssd_operands(heads, groups, length)
    found = []
    for kernels, dtype in (({"ssd": "onednn"}, torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        model = SSD.build(knobs=knobs, kernels=kernels, dtype=dtype)
        leaves = [v.to(dtype).requires_grad_() for v in given]
        y = model(*leaves)
        probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found.append([y, *grads(y, probe, [*leaves, *(p for k, p in model.named_parameters() if skips or k != "d")])])
    for mine, theirs, want in zip(*found, strict=True):
        error, other = ((v.double() - want).norm() / want.norm() for v in (mine, theirs))
        assert error <= 1.1 * other + 1e-8, (error, other)


def test_states_go_on_and_steps_are_the_plain_ones():
    given = ssd_operands(4, 1, 70)
    whole = SSD.build(kernels={"ssd": "onednn"})
    extend, step = (SSD.build(form=form, kernels={"ssd": "onednn"}) for form in ("extend", "step"))
    plain = SSD.build(form="step", kernels="reference")
    with torch.no_grad():
        y, state = extend(*(v[:, :69] for v in given), extend.init_state(2))
        last, after = step(*(v[:, 69:] for v in given), state)
        torch.testing.assert_close(torch.cat([y, last], 1), whole(*given), rtol=1e-4, atol=1e-4)
        same, same_after = plain(*(v[:, 69:] for v in given), state)
    assert torch.equal(last, same) and all(torch.equal(after[k], same_after[k]) for k in after)
