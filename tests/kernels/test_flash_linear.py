"""flash-linear-attention as a binding: never by itself, with its refusals told, and on a card the numbers of the declared bodies in float64."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from archdsl.graph import TensorType
from archdsl.kernels import bindings as b
from archdsl.kernels.flash_linear import _called, _pulled
from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import OPS, load
from tests.kernels.held import CARD, alike, gpu, pulled
from tests.kernels.test_gated import _types, call

load()
ROWS = {"q": (2, 4, 64, 32), "k": (2, 4, 64, 32), "v": (2, 4, 64, 48)}


def choose(op: str, asked: str | None, dtype: str = "bf16", attributes: dict | None = None, **more: tuple[int, ...] | None) -> b.Choice:
    known = {"gla": ("q", "k", "v", "decay", "value_decay", "memory"), "delta_rule": ("q", "k", "v", "beta", "decay", "memory")}[op]
    shapes = {**ROWS, **({"decay": ROWS["k"]} if op == "gla" else {"beta": (2, 4, 64)}), **more}
    types = {n: None if (s := shapes.get(n)) is None else TensorType(dtype, s) for n in known}
    return b.choose(op, "cuda", dtype, types, attributes or {}, asked=asked, capability=(9, 0), installed=False)


@pytest.mark.parametrize("op", ["gla", "delta_rule"])
def test_it_is_asked_for_by_name(op):
    assert choose(op, None).name == "triton"
    assert choose(op, "fla").name == "fla"
    shapes: dict[str, Any] = dict.fromkeys(("q", "k", *(("decay",) if op == "gla" else ())), (2, 4, 64, 600))
    wide = choose(op, None, "bf16", **shapes)
    assert wide.name == "reference" and wide.reasons["fla"] == "it is taken where it is asked for by name"


@pytest.mark.parametrize(("op", "dtype", "attributes", "more", "words"), [
    ("gla", "bf16", {}, {"decay": None, "value_decay": (2, 4, 64, 48)}, "gates by row alone"),
    ("gla", "bf16", {"before": True}, {}, "not `before` it"),
    ("gla", "f32", {}, {}, "it takes bf16 or f16, not f32"),
    ("delta_rule", "bf16", {}, {"decay": (2, 4, 64)}, "refuses the gradients of gated delta rules on Hopper cards"),
    ("delta_rule", "bf16", {}, {"q": (2, 4, 64, 300), "k": (2, 4, 64, 300)}, "k is 300 wide, and flash-linear-attention takes 256 at most")])
def test_what_it_does_not_take_is_told(op, dtype, attributes, more, words):
    with pytest.raises(b.KernelError, match="the kernel `fla` of") as fault:
        choose(op, "fla", dtype, attributes, **more)
    assert words in str(fault.value)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_layouts_and_gradients(lead):
    """Heads and positions change places on the way, whatever axes are in front, and inside the torch op autograd finds the gradients: a function of
    its layout that computes the declared body stands for its kernel."""
    body = RECURRENCES["delta_rule"].body

    def its(q, k, v, beta, *, scale, initial_state, output_final_state):
        assert q.ndim == 4 and beta.shape == q.shape[:3] and output_final_state
        y, last = body(*(x.transpose(1, 2) for x in (q, k, v, beta)), None, initial_state, scale=scale)
        return y.transpose(1, 2), last

    with b.apart():
        @b.kernel("delta_rule", "stand_in", devices=("cpu",), dtypes=("f64", "f32"), needs=(), by_name=True)
        class StandIn:
            @staticmethod
            def forward(q, k, v, beta, decay, memory, *, scale=1):
                held = torch.zeros(*q.shape[:-2], q.shape[-1], v.shape[-1]) if memory is None else memory
                return _called(its, (q, k, v, beta), held, scale)

            @staticmethod
            def gradient(*given, **attributes):
                return _pulled(StandIn.forward, *given, **attributes)

        found = []
        for kernel in ("stand_in", "reference"):
            g = torch.Generator().manual_seed(0)
            leaves = [torch.randn(*lead, 5, n, generator=g).requires_grad_() for n in (4, 4, 3)]
            beta = torch.rand(*lead, 5, generator=g).requires_grad_()
            y = OPS["delta_rule"].body(*leaves, beta, None, kernel=kernel, scale=0.5)
            found.append([y, *torch.autograd.grad(y.square().sum(), [*leaves, beta])])
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y)


@gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@pytest.mark.parametrize("form", ["gla", "delta"])
def test_on_a_card(form):
    pytest.importorskip("fla", reason="flash-linear-attention is not installed")
    given, attributes = call(form, (2, 3), 200, 64, 64, -0.1, torch.bfloat16)
    op = RECURRENCES["gla" if form == "gla" else "delta_rule"]
    kernel = b.choose(op.name, "cuda", "bf16", dict.fromkeys(given) | _types(given), attributes, asked="fla").binding
    assert kernel is not None and kernel.gradient is not None
    attributes.pop("before", None)
    found = kernel.forward(*given.values(), **attributes)
    grads = [torch.randn_like(y) for y in found]
    wide = [None if v is None else v.double() for v in given.values()]
    alike(found, op.body(*wide, **attributes), 0.02, "y memory")
    expected = pulled(lambda *values: op.body(*values, **attributes), wide, [x.double() for x in grads])
    alike(kernel.gradient(*grads, *given.values(), **attributes), expected, 0.03, " ".join(given))
    leaves = [None if v is None else v.detach().requires_grad_() for n, v in given.items() if n != "memory"]
    y = OPS[op.name].body(*leaves, kernel="fla", **attributes)
    assert all(g is not None for g in torch.autograd.grad(y.float().square().sum(), [x for x in leaves if x is not None]))
