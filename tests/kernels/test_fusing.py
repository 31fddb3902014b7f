"""Kernels for what a compiler of graphs fuses as well: nodes joined for them, left to the compiler where there is one."""
from __future__ import annotations

import pytest
import torch

import archdsl
from archdsl.kernels.target import Target
from archdsl.lower.fusing import fused
from tests.kernels.held import close, interpreted

pytestmark = interpreted
SPEC = """\
use std {{ LayerNorm, Linear, RMSNorm, SwiGLU }}

model Net(d: int = 6)(x: [B, T, d]) -> [B, T, d] {{
  layers: for i in range(2) {{
    x = x + SwiGLU(2 * d)(x |> {norm}() as norm) as mlp
  }}
  return crms_norm(x)
}}
"""


def built(norm: str, **kernels: str):
    spec = archdsl.loads(SPEC.format(norm=norm))
    return spec.build(kernels=kernels or None), spec.build(kernels="reference")


def results(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    return y, *torch.autograd.grad(y.square().sum(), (x, *model.parameters()))


@pytest.mark.parametrize("norm", ["RMSNorm", "LayerNorm"])
def test_a_model_with_all_of_them(norm: str):
    asked = {"swiglu": "triton", "crms_norm": "triton", {"RMSNorm": "rms_norm", "LayerNorm": "layer_norm"}[norm]: "triton"}
    mine, plain = built(norm, **asked)
    layer = mine.layers[0].mlp.code
    assert "archdsl.swiglu" in layer and "silu" not in layer and "silu" in plain.layers[0].mlp.code
    assert list(mine.state_dict()) == list(plain.state_dict()) and mine.typed.hash == plain.typed.hash
    x = torch.randn(2, 3, 6)
    close(results(mine, x), results(plain, x), 1e-4)


def test_what_is_read_twice_is_not_joined():
    text = "model Net()(x: [B, d], y: [B, d]) -> [B, d] {\n  g = silu(x)\n  return g * y + g\n}\n".replace("d]", "D]")
    assert "archdsl.swiglu" not in archdsl.loads(text).build(kernels={"swiglu": "triton"}).code


@pytest.mark.parametrize("value", ["x * w + 1.0", "(x * w + x) + relu(x)", "(x * w + relu(x)) + x * 2.0", "2.0 * x + w", "(1.0 + x * w) + x * x"])
def test_sums_that_are_no_polynomial(value: str):
    """Looked at for one, in all that is built for a card."""
    text = f"model Net(d: int = 4)(x: [B, d], w: [B, d]) -> [B, d] {{\n  return as_type({value}, x)\n}}\n"
    graph = archdsl.loads(text).elaborate().graph
    found = fused(graph, Target("cuda"), "f32")
    assert [n.op for n in found.nodes] == [n.op for n in graph.nodes]


def test_compiled_graphs_see_the_body(monkeypatch: pytest.MonkeyPatch):
    """Chosen, not asked for: a call runs the kernel, a compiled or exported graph holds ops of torch."""
    from archdsl.kernels import opaque

    seen: list[str] = []
    monkeypatch.setattr(opaque, "bound", lambda name, *given: seen.append(name))
    run = opaque.called("rms_norm", None, fuses=True)
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    expected = torch.autograd.grad(run(x, w, eps=1e-5).square().sum(), (x, w))
    assert seen == ["rms_norm", "rms_norm"]  # forwards and backwards
    graphs: list[str] = []

    def look(graph, given):
        graphs.append(graph.print_readable(print_output=False))
        return make_boxed_func(graph.forward)

    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    compiled = torch.compile(lambda x, w: run(x, w, eps=1e-5), fullgraph=True, backend=aot_autograd(fw_compiler=look, bw_compiler=look))
    close(torch.autograd.grad(compiled(x, w).square().sum(), (x, w)), expected, 1e-5)
    assert seen == ["rms_norm", "rms_norm"] and len(graphs) == 2 and not any("ops.archdsl" in g for g in graphs)
    asked = opaque.called("rms_norm", "reference", fuses=True)
    torch.compile(lambda x, w: asked(x, w, eps=1e-5), fullgraph=True, backend=aot_autograd(fw_compiler=look))(x, w)
    assert any("ops.archdsl.rms_norm" in g for g in graphs[2:])
