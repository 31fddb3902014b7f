"""The residual styles of the library, against their equations in plain torch, with random weights."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import archdsl
from tests.elaborate.helpers import USES

STYLES = {
    "Pre(RMSNorm(), Linear(6))": lambda x, n, f, w: x + f(n(x, "norm")),
    "Post(RMSNorm(), Linear(6))": lambda x, n, f, w: n(x + f(x), "norm"),
    "Peri(RMSNorm(), Linear(6))": lambda x, n, f, w: x + n(f(n(x, "norm_in")), "norm_out"),
    "OutputNorm(RMSNorm(), Linear(6))": lambda x, n, f, w: x + n(f(x), "norm"),
    "Sandwich(RMSNorm(), Linear(6))": lambda x, n, f, w: x + n(f(n(x, "norm_in")), "norm_out"),
    "Residual(Linear(6))": lambda x, n, f, w: x + f(x),
    "DeepNorm(RMSNorm(), Linear(6), alpha = 1.7)": lambda x, n, f, w: n(1.7 * x + f(x), "norm"),
    "ReZero(Linear(6))": lambda x, n, f, w: x + w["gain"] * f(x),
    "Scaled(Linear(6), alpha = 0.5, beta = 2)": lambda x, n, f, w: w["a"] * x + w["b"] * f(x),
    "LayerScale(RMSNorm(), Linear(6))": lambda x, n, f, w: x + w["gamma"] * f(n(x, "norm")),
}


@pytest.mark.parametrize("style", STYLES)
def test_equations(style: str):
    uses = USES.replace("use std.residual {", "use std.residual { DeepNorm, LayerScale, Residual,")
    model = archdsl.loads(f"{uses}model M()(x: [B, 6]) -> y: [B, 6] {{ return {style}(x) }}").build(dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    model.load_state_dict({k: torch.randn(v.shape, generator=g, dtype=torch.float64) for k, v in model.state_dict().items()})
    w, x = model.state_dict(), torch.randn(3, 6, generator=g, dtype=torch.float64)
    own = "" if "weight" in w else "linear."
    norm = lambda y, name: F.rms_norm(y, (6,), w[f"{name}.weight"], 1e-5)
    expected = STYLES[style](x, norm, lambda y: F.linear(y, w[f"{own}weight"], w[f"{own}bias"]), w)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
