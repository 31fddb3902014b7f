"""Fake quantisation against torch's own with the scales of the definition, and the blocks that use it."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.ops.registry import find

F64 = torch.float64


def quantize(x: torch.Tensor, bits: int, **how: Any) -> torch.Tensor:
    op = find("fake_quantize")
    assert op is not None
    return op.body(x, bits=bits, **how)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shift", [0, 3, -3])
@pytest.mark.parametrize("symmetric", [True, False])
def test_one_scale(bits, shift, symmetric):
    """Of numbers around 0, all above and all below: an asymmetric range holds 0 all the same."""
    x = drawn(7, 5) + shift
    most, low, high = 2 ** (bits - 1) - 1, min(x.min().item(), 0), max(x.max().item(), 0)
    if symmetric:
        want = torch.fake_quantize_per_tensor_affine(x, x.abs().max().item() / most, 0, -most, most)
    else:
        scale = (high - low) / (2**bits - 1)
        want = torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 2**bits - 1)
    mine = quantize(x, bits, symmetric=symmetric)
    torch.testing.assert_close(mine, want, rtol=1e-6, atol=1e-6)
    assert len(mine.unique()) <= 2**bits and (quantize(torch.tensor([0.0, shift, 1.0]), bits, symmetric=symmetric) == 0).any()


def test_a_range_wider_than_floats():
    x = torch.tensor([3e38, -3e38, 0, 1e38])
    torch.testing.assert_close(quantize(x, 8, symmetric=False).double(), quantize(x.double(), 8, symmetric=False), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("shape", "axes"), [((6, 9), (1,)), ((5, 3, 3, 2), (1, 2, 3)), ((1, 4), (-1,))])
def test_a_scale_for_each_channel(shape, axes):
    w = drawn(*shape) * torch.arange(1, shape[0] + 1).view(-1, *[1] * (len(shape) - 1))
    scale = w.flatten(1).abs().amax(1) / 127
    want = torch.fake_quantize_per_channel_affine(w, scale, torch.zeros(shape[0], dtype=torch.int32), 0, -127, 127)
    torch.testing.assert_close(quantize(w, 8, axes=axes), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_channels_and_groups_as_torch_has_them(bits: int, symmetric: bool):
    """Scales and zeros by torch's own observer, whose range holds 0, for each channel and for each group of neighbours."""
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    w = (drawn(6, 16) + torch.tensor([0.0, 2, -2, 0.3, 5, -0.1])[:, None]) * torch.arange(1, 7)[:, None]
    for rows, how in ((w, {"axes": (1,)}), (w.view(-1, 4), {"group": 4})):
        most = 2 ** (bits - 1) - 1
        low, high = (-most, most) if symmetric else (0, 2**bits - 1)
        observer = PerChannelMinMaxObserver(ch_axis=0, dtype=torch.qint8 if symmetric else torch.quint8, quant_min=low, quant_max=high,
                                            qscheme=torch.per_channel_symmetric if symmetric else torch.per_channel_affine)
        observer(rows)
        scale, zero = observer.calculate_qparams()
        want = torch.fake_quantize_per_channel_affine(rows, scale, zero.int(), 0, low, high).view_as(w)
        torch.testing.assert_close(quantize(w, bits, symmetric=symmetric, **how), want, rtol=1e-5, atol=1e-5)


def test_groups_of_neighbours():
    w = drawn(3, 2, 12)
    parts = [quantize(part, 4, axes=(2,)) for part in w.split(4, -1)]
    assert torch.equal(quantize(w, 4, group=4), torch.cat(parts, -1)) and not torch.equal(quantize(w, 4, group=4), quantize(w, 4, axes=(2,)))


def test_zeros_and_types():
    assert all(torch.equal(quantize(torch.zeros(3, 2), 4, symmetric=s), torch.zeros(3, 2)) for s in (True, False))
    x = drawn(4, 6)
    assert quantize(x.bfloat16(), 4).dtype == torch.bfloat16
    torch.testing.assert_close(quantize(x.bfloat16(), 4), quantize(x.bfloat16().float(), 4).bfloat16(), rtol=0, atol=0)
    once = quantize(x.to(F64), 5)
    torch.testing.assert_close(quantize(once, 5), once, rtol=1e-12, atol=1e-12)


LINEAR = """use std.quantized { QuantizedLinear }
model M(bits: int = 8, input_bits: int = 8, symmetric: bool = true, group: int? = none, by_token: bool = false)(
  x: [B = 2, T = 3, 8],
) -> y: [B, T, 5] {
  return QuantizedLinear(5, bits, input_bits, symmetric, group, by_token)(x) as map
}
"""


@pytest.mark.parametrize("how", [{}, {"bits": 4, "group": 2, "symmetric": False}, {"bits": 4, "input_bits": 32}, {"bits": 32}, {"by_token": True}])
def test_a_linear_map(how):
    """And its gradients: those of the map of quantised numbers, handed on as if they had not been."""
    model = archdsl.loads(LINEAR).build(dtype=F64, **how)
    x = drawn(2, 3, 8).to(F64).requires_grad_()
    w = model.map.weight.detach()
    bits, input_bits = how.get("bits", 8), how.get("input_bits", 8)
    over = {"group": how["group"]} if "group" in how else {"axes": (1,)}
    quantized = quantize(w, bits, symmetric=how.get("symmetric", True), **over) if bits < 32 else w
    inner = quantize(x, input_bits, symmetric=False, **({"axes": (-1,)} if "by_token" in how else {})) if input_bits < 32 else x.detach()
    y = model(x)
    assert torch.allclose(y, F.linear(inner, quantized, model.map.bias), rtol=1e-12, atol=1e-12)
    probe = drawn(2, 3, 5, seed=1).to(F64)
    (y * probe).sum().backward()
    torch.testing.assert_close(x.grad, probe @ quantized, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.map.weight.grad, torch.einsum("bto,bti->oi", probe, inner), rtol=1e-12, atol=1e-12)


def test_a_convolution():
    text = """use std.quantized { QuantizedConv }
model M(bits: int = 4)(x: [B = 2, 4, H = 5, W = 3]) -> y: [B, 6, H, W] { return QuantizedConv(6, 3, bits, 8, pad = 1, groups = 2)(x) as map }
"""
    model = archdsl.loads(text).build(dtype=F64)
    x = drawn(2, 4, 5, 3).to(F64)
    want = F.conv2d(quantize(x, 8, symmetric=False), quantize(model.map.weight.detach(), 4, axes=(1, 2, 3)), model.map.bias, padding=1, groups=2)
    torch.testing.assert_close(model(x), want, rtol=1e-12, atol=1e-12)


STREAM = """use std.quantized { QuantizedLinear }
model M()(x: [B = 1, T = 6, 4]) -> y: [B, T, 4] stream T { return QuantizedLinear(4, by_token = true)(x) as map }
claim { forms(y) within 1e-10; causal(y, x) }
"""


def test_a_scale_for_each_token_streams():
    from archdsl.claims import verify

    assert all(r["passed"] for r in verify(archdsl.loads(STREAM)))
    with pytest.raises(ArchError, match="A0501"):
        archdsl.loads(STREAM.replace("by_token = true", "by_token = false")).build(form="step")


@pytest.mark.parametrize(("how", "said"), [
    ({"bits": 1}, "stored in 2 to 16 bits here, not in 1"), ({"group": 3}, "groups of 3 do not divide the last axis"), ({"group": 0}, "at least 1"),
])
def test_what_cannot_be(how, said):
    with pytest.raises(ArchError, match=said):
        archdsl.loads(LINEAR).elaborate(knobs=how)
    wrong = LINEAR.split("  return")[0] + "  return fake_quantize(x, 8, axes = [1, -2])[:, :, :5]\n}\n"
    with pytest.raises(ArchError, match="named twice"):
        archdsl.loads(wrong)
